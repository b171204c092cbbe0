"""What the tests of the journal share: worlds that end and rise again around one journal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

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
from meerkat_trio.abc import Change, Entry
from meerkat_trio.testing import MemoryJournal, WriteFault

__all__ = ["Faults", "Shared", "World", "world"]

Handler = Callable[[SessionRun], Awaitable[None]]


class Faults:
    """What happens to the next writes: a list that is used up, then nothing more."""

    def __init__(self, *faults: WriteFault) -> None:
        self.next = list(faults)

    def __call__(self) -> WriteFault:
        return self.next.pop(0) if self.next else WriteFault.NONE


class Shared(MemoryJournal):
    """A journal of several machines, which may say of a session that it has another home."""

    __slots__ = ("moved",)

    def __init__(self) -> None:
        super().__init__()
        self.moved: set[str] = set()

    async def __aenter__(self) -> Shared:
        self._in_use = False
        await super().__aenter__()
        return self

    async def restore(self, session_id: str | None = None) -> Mapping[str, Sequence[Entry]]:
        return {} if session_id is None else await super().restore(session_id)

    async def append(self, changes: Mapping[str, Sequence[Change]]) -> frozenset[str]:
        # Who is home is looked at in the step that writes.
        await trio.sleep(0.01)
        for session_id in changes.keys() - self.moved:
            self._change(session_id, changes[session_id])
        return frozenset(self.moved & changes.keys())

    def is_doubtful(self, session_id: str) -> bool:
        return True


class World:
    """One process: a machine around a journal, a network with a peer, and session "a" on it."""

    def __init__(
        self, machine: MeerkatMachine, network: MemoryNetwork, peer: MemoryComms, journal: MemoryJournal
    ) -> None:
        self.journal = journal
        self.machine = machine
        self.network = network
        self.peer = peer

    async def comms(self, runtime_id: str = "a", **bounds: Any) -> MemoryComms:
        comms = MemoryComms(self.network, runtime_id, **bounds)
        await comms.add_trusted_peer(self.peer.endpoint(), TrustSource.MANUAL)
        return comms

    async def session(self, handler: Handler | None = None, **options: Any) -> Session:
        """Return session "a", registered if need be, and served."""
        if "a" not in self.machine:
            await self.machine.register("a", handler, **options)
        session = self.machine["a"]
        await session.attach_ingress(await self.comms())
        return session

    async def send(self, session: Session, body: Any, **fields: Any) -> Receipt:
        return await self.peer.send(self.envelope(body, **fields))

    def envelope(self, body: Any, **fields: Any) -> Envelope:
        fields.setdefault("id", f"id of {body}")
        to = MemoryComms(MemoryNetwork(), "a").peer_id
        return Envelope(sender=self.peer.peer_id, recipient=to, body=body, **fields)


@asynccontextmanager
async def world(journal: MemoryJournal, handler: Handler | None = None, **options: Any) -> AsyncIterator[World]:
    """Open a machine on a journal; ``handler`` is for the sessions that are remembered."""
    network = MemoryNetwork()
    peer = MemoryComms(network, "peer")
    executors = (lambda _: handler) if handler else None
    with trio.fail_after(1000):
        async with open_machine(journal=journal, executors=executors, random=lambda: 0.0, **options) as machine:
            yield World(machine, network, peer, journal)


async def nothing(run: SessionRun) -> None:
    """A handler that does nothing."""


async def never(run: SessionRun) -> None:
    """A handler that does not come to an end."""
    await trio.sleep_forever()
