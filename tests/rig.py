"""What the shell's tests share: a machine with one session, its transport, a peer that sends, and a ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from meerkat_trio import (
    Envelope,
    MeerkatMachine,
    MemoryComms,
    MemoryNetwork,
    Receipt,
    Session,
    SessionRun,
    TrustSource,
    open_machine,
)

Handler = Callable[[SessionRun], Awaitable[None]]


class Rig:
    """A network with a trusted peer, and a ledger of what was handled."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.peer = MemoryComms(self.network, "peer")
        self.handled: list[Any] = []
        self.gate = trio.Event()
        self.sent = 0
        self.receipts: list[tuple[object, Receipt]] = []

    async def comms(self, runtime_id: str = "a", kind: type[MemoryComms] = MemoryComms, **bounds: Any) -> MemoryComms:
        comms = kind(self.network, runtime_id, **bounds)
        await comms.add_trusted_peer(self.peer.endpoint(), TrustSource.MANUAL)
        return comms

    def envelope(self, comms: MemoryComms, body: object = None, **fields: Any) -> Envelope:
        self.sent += 1
        fields.setdefault("id", f"m{self.sent}")
        return Envelope(sender=self.peer.peer_id, recipient=comms.peer_id, body=body, **fields)

    async def send(self, comms: MemoryComms, *bodies: object) -> list[Receipt]:
        sent = []
        for body in bodies:
            receipt = await self.peer.send(self.envelope(comms, body))
            self.receipts.append((body, receipt))
            sent.append(receipt)
        return sent

    async def record(self, run: SessionRun) -> None:
        """A handler that writes down what it is given."""
        self.handled.append(run.message.body)

    async def gated(self, run: SessionRun) -> None:
        """A handler that waits for the gate first."""
        await self.gate.wait()
        self.handled.append(run.message.body)


@asynccontextmanager
async def rigged(handler: str | None = "record", **options: Any) -> AsyncIterator[tuple[Rig, MeerkatMachine, Session]]:
    """Open a machine with session "a"; ``handler`` names a method of `Rig`."""
    rig = Rig()
    session_options = {
        name: options.pop(name)
        for name in ("work_queue", "max_attempts", "abandoned_limit", "retry_backoff")
        if name in options
    }
    async with open_machine(random=lambda: 0.0, **options) as machine:
        session = await machine.register("a", getattr(rig, handler) if handler else None, **session_options)
        yield rig, machine, session


async def settle() -> None:
    """Let everybody run until nobody can."""
    await trio.testing.wait_all_tasks_blocked()


async def cancelled_elsewhere() -> trio.Cancelled:
    """Return a Cancelled that was raised and absorbed, as it is kept by code that hands outcomes between tasks."""
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            kept.append(cancelled)
            raise
    return kept[0]
