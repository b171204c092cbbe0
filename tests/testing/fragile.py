"""What the broken transports are made of: a bench for a class, and `MemoryComms` with ways in.

They reach into `MemoryComms` freely; nothing but tests may do that.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Self

import trio

from meerkat_trio.abc import ALL_LANES
from meerkat_trio.authority import DropReason, Lane
from meerkat_trio.comms import MemoryComms, MemoryNetwork
from meerkat_trio.testing._conformance import ConformanceBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio._messages import Envelope
    from meerkat_trio.abc import Claim
    from meerkat_trio.comms._inbox import Inbox

WORK_LANE: Final = 4
CONTROL_LANE_BOUND: Final = 3
WORK_ONLY: Final = frozenset({Lane.WORK})


@asynccontextmanager
async def bench_of(
    kind: type[MemoryComms] = MemoryComms, *, work_lane: int = WORK_LANE, control_lane: int = CONTROL_LANE_BOUND
) -> AsyncIterator[ConformanceBench]:
    """Three peers of one class on a network of their own."""
    network = MemoryNetwork()
    made: list[MemoryComms] = []

    def make(name: str) -> MemoryComms:
        made.append(kind(network, name, work_lane=work_lane, control_lane=control_lane))
        return made[-1]

    async def rebuild() -> MemoryComms:
        await trio.lowlevel.checkpoint()
        return make("receiver")

    yield ConformanceBench(
        receiver=make("receiver"),
        senders=(make("sender"), make("other")),
        rebuild=rebuild,
        work_lane=work_lane,
        control_lane=control_lane,
    )
    for comms in made:
        await comms.aclose()


class Fragile(MemoryComms):
    """`MemoryComms` with the ways in that the broken ones share."""

    def inbox_for(self, envelope: Envelope) -> Inbox:
        return self._network.routes[envelope.recipient]

    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return await super().claim(lanes=lanes)


class WrappedClaim:
    """A claim that passes everything on."""

    def __init__(self, claim: Claim, comms: MemoryComms) -> None:
        self._claim = claim
        self._comms = comms

    @property
    def envelope(self) -> Envelope:
        return self._claim.envelope

    def commit(self, dropped: DropReason | None = None) -> None:
        self._claim.commit(dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._claim.__exit__(*args)  # type: ignore[arg-type]


class Wrapping(Fragile):
    """Hands out claims of its own."""

    wrapper: type[WrappedClaim] = WrappedClaim

    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return self.wrapper(await super().claim(lanes=lanes), self)

    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return self.wrapper(super().claim_nowait(lanes=lanes), self)
