"""What the tests of requests share: two sessions that trust each other, and transports that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from meerkat_trio import (
    Envelope,
    EnvelopeKind,
    MeerkatMachine,
    MemoryComms,
    MemoryNetwork,
    Receipt,
    Session,
    SessionRun,
    TrustSource,
    open_machine,
)
from meerkat_trio.authority import Lane

__all__ = ["Flaky", "Pair", "Unheard", "paired", "responses"]

Handler = Callable[[SessionRun], Awaitable[None]]


class Flaky(MemoryComms):
    """A transport that fails to send as often as it is told to."""

    failures = 0

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the line is down")

    async def send(self, envelope: Envelope) -> Receipt:
        self._fail()
        return await super().send(envelope)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        self._fail()
        return super().send_nowait(envelope)


class Unheard(MemoryComms):
    """A transport that sends, and then hears nothing of it, as often as it is told to."""

    lost_answers = 0

    async def send(self, envelope: Envelope) -> Receipt:
        receipt = await super().send(envelope)
        return self._lose(receipt)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        return self._lose(super().send_nowait(envelope))

    def _lose(self, receipt: Receipt) -> Receipt:
        if self.lost_answers:
            self.lost_answers -= 1
            raise trio.BrokenResourceError("it went out, but nobody has confirmed it")
        return receipt


@attrs.define(eq=False)
class Pair:
    """Sessions "a" and "b", in one machine or in two, each served over its own transport."""

    network: MemoryNetwork
    machines: list[MeerkatMachine]
    a: Session
    b: Session
    a_comms: MemoryComms
    b_comms: MemoryComms

    async def comms(self, of: str, kind: type[MemoryComms] = MemoryComms, **bounds: Any) -> MemoryComms:
        """Rebuild the transport of one of the two."""
        comms = kind(self.network, of, **bounds)
        for other in (self.a_comms, self.b_comms):
            await comms.add_trusted_peer(other.endpoint(), TrustSource.MANUAL)
        return comms

    async def stranger(self, name: str, *trusting: MemoryComms) -> MemoryComms:
        """Make a transport that nobody serves, trusted by whom it is told."""
        stranger = MemoryComms(self.network, name)
        for comms in trusting:
            await comms.add_trusted_peer(stranger.endpoint(), TrustSource.MANUAL)
        return stranger


@asynccontextmanager
async def paired(
    handler_a: Handler | None = None,
    handler_b: Handler | None = None,
    *,
    machines: int = 1,
    kind: type[MemoryComms] = MemoryComms,
    bounds: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Pair]:
    """Open "a" and "b"; ``bounds`` are those of a's transport, ``kind`` is b's. What waits for ever fails."""
    network = MemoryNetwork()
    a_comms, b_comms = MemoryComms(network, "a", **(bounds or {})), kind(network, "b")
    await a_comms.add_trusted_peer(b_comms.endpoint(), TrustSource.MANUAL)
    await b_comms.add_trusted_peer(a_comms.endpoint(), TrustSource.MANUAL)
    session_options = {name: options.pop(name) for name in ("max_attempts", "outbox") if name in options}
    with trio.fail_after(100_000):
        async with open_machine(random=lambda: 0.0, **options) as one, open_machine(random=lambda: 0.0) as two:
            opened = [one, two][:machines]
            a = await one.register("a", handler_a)
            b = await opened[-1].register("b", handler_b, **session_options)
            await a.attach_ingress(a_comms)
            await b.attach_ingress(b_comms)
            yield Pair(network, opened, a, b, a_comms, b_comms)


def responses(comms: MemoryComms) -> list[Envelope]:
    """Take the responses that wait in a transport which nobody serves."""
    found = []
    while (claim := comms.claim_ready(lanes=frozenset({Lane.CONTROL}))) is not None:
        with claim:
            if claim.envelope.kind is EnvelopeKind.RESPONSE:
                found.append(claim.envelope)
            claim.commit()
    return found
