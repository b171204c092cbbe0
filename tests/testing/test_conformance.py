"""The conformance suite accepts `MemoryComms` and refuses every broken transport by its rule's name."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from attrs import evolve

from meerkat_trio.abc import ALL_LANES
from meerkat_trio.testing._conformance import (
    COMMS_RULES,
    ConformanceBench,
    ConformanceError,
    check_comms_runtime,
)

from .broken_transports import BROKEN
from .fragile import Fragile, bench_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio._messages import Envelope, Receipt
    from meerkat_trio.abc import Claim
    from meerkat_trio.authority import Lane
    from meerkat_trio.comms import MemoryComms

_DOCS = Path(__file__).parents[2] / "docs" / "transports.md"


async def test_memory_comms_keeps_every_rule() -> None:
    await check_comms_runtime(bench_of)


async def test_memory_comms_keeps_every_rule_under_a_virtual_clock(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await check_comms_runtime(bench_of, quiet=0.01)
    assert autojump_clock.current_time() >= 0


@pytest.mark.parametrize(("work_lane", "control_lane"), [(3, 3), (3, 7), (9, 3), (64, 64)])
async def test_the_rules_do_not_depend_on_how_long_the_lanes_are(work_lane: int, control_lane: int) -> None:
    await check_comms_runtime(partial(bench_of, work_lane=work_lane, control_lane=control_lane))


@pytest.mark.parametrize("bound", [2, 1, 0, None, "4"])
@pytest.mark.parametrize("lane", ["work_lane", "control_lane"])
async def test_a_bench_whose_lanes_are_too_small_for_the_rules_is_refused(lane: str, bound: Any) -> None:
    async with bench_of() as bench:
        with pytest.raises(ValueError, match=f"{lane}: the rules need a lane of 3 or more, not {bound!r}"):
            evolve(bench, **{lane: bound})


def test_every_rule_has_a_transport_that_breaks_it() -> None:
    assert list(COMMS_RULES) == list(BROKEN)


@pytest.mark.parametrize(("rule", "kind"), [(rule, kind) for rule, kinds in BROKEN.items() for kind in kinds])
async def test_a_transport_that_breaks_one_rule_is_refused_by_its_name(rule: str, kind: type[MemoryComms]) -> None:
    with pytest.raises(ConformanceError) as caught:
        await check_comms_runtime(partial(bench_of, kind))
    assert rule == caught.value.rule, str(caught.value)
    assert str(caught.value).startswith(f"{rule}: ")


async def test_only_the_rules_that_were_asked_for_are_tried() -> None:
    make = partial(bench_of, BROKEN["duplicates"][0])
    await check_comms_runtime(make, rules=["order", "closing"])
    with pytest.raises(ConformanceError, match="duplicates: "):
        await check_comms_runtime(make, rules=["duplicates"])


async def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no rule tidiness"):
        await check_comms_runtime(bench_of, rules=["tidiness"])


class _Hangs(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        del envelope
        await trio.sleep_forever()
        raise AssertionError


class _Spins(Fragile):
    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        while True:
            await trio.lowlevel.checkpoint()
            try:
                return self.claim_nowait(lanes=lanes)
            except trio.WouldBlock:
                pass


class _Raises(Fragile):
    def send_nowait(self, envelope: Envelope) -> Receipt:
        raise KeyError(envelope.id)


@pytest.mark.parametrize(
    ("kind", "rule", "found"),
    [
        (_Hangs, "order", "it hangs"),
        (_Spins, "arrival-wakes", "it spins"),
        (_Raises, "full-lane", "KeyError"),
    ],
)
async def test_what_hangs_spins_or_raises_is_named_with_its_rule(kind: type[Fragile], rule: str, found: str) -> None:
    with pytest.raises(ConformanceError, match=found) as caught:
        await check_comms_runtime(partial(bench_of, kind), rules=[rule], max_steps=2000)
    assert rule == caught.value.rule


async def test_a_bench_that_cannot_be_made_is_reported_with_its_cause() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[ConformanceBench]:
        await trio.lowlevel.checkpoint()
        raise OSError("no port is free")
        yield

    with pytest.raises(ConformanceError, match="no port is free") as caught:
        await check_comms_runtime(broken, rules=["order"])
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_cancelled_check_closes_its_bench() -> None:
    closed = []

    @asynccontextmanager
    async def make() -> AsyncIterator[ConformanceBench]:
        async with bench_of(_Hangs) as bench:
            try:
                yield bench
            finally:
                closed.append(True)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(check_comms_runtime, make, rules=["order"], quiet=60))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert closed == [True]


def test_every_rule_is_explained_in_the_docs() -> None:
    text = _DOCS.read_text()
    missing = [name for name, sentence in COMMS_RULES.items() if f"| `{name}` | {sentence} |" not in text]
    assert not missing
