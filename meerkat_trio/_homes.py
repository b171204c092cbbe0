"""Hosts that share sessions: each session has one home at a time, and this decides which of them this host is.

A lease decides, not this file: what is written here of a session whose lease is another's is refused by the server. So
what is wrong in here, or late, costs time and does no damage.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from ._exceptions import JournalFailed, MeerkatError, SessionNotRegistered

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

    from ._machine import MeerkatMachine
    from .abc import CommsRuntime
    from .authority import SessionId
    from .comms import Fence
    from .journals import RedisJournal, Renewal

__all__ = ["Homes", "Serve", "share_sessions"]

_logger: Final = logging.getLogger("meerkat_trio.homes")

_RENEWALS: Final = 3
"""Renewals in the time of a lease: two may be late."""
_LOOK: Final = 0.1
"""Seconds between two questions whether sessions were given back."""
_AT_ONCE: Final = 32
"""Sessions that are taken up, or given back, at the same time."""
_ORPHANED: Final = 2.0
"""Leases after which a session that nobody takes is taken beyond this host's share."""

_LONGEST: Final = 8
"""Leases until a session that could not be taken up is tried again, at the most."""

Serve: TypeAlias = "Callable[[SessionId, Fence], Awaitable[CommsRuntime]]"
"""Restores or registers a session whose home this host is now, and attaches the comms runtime that it returns."""


@final
class Homes:
    """The sessions that this host shares with others. Made by `share_sessions`."""

    __slots__ = (
        "_failures",
        "_going",
        "_homeless",
        "_journal",
        "_limit",
        "_locks",
        "_machine",
        "_orphans",
        "_serve",
        "_sessions",
        "_transports",
        "where",
    )

    where: Mapping[SessionId, str | None]
    """Which host was each session's home when this one last looked; None for none."""

    def __init__(
        self, machine: MeerkatMachine, journal: RedisJournal, sessions: Iterable[SessionId], serve: Serve
    ) -> None:
        self._machine = machine
        self._journal = journal
        self._sessions = tuple(dict.fromkeys(sessions))
        self._serve = serve
        self._transports: dict[SessionId, CommsRuntime | None] = {}
        # Since when a session is seen without a home, and which ones were taken because nobody else did.
        self._homeless: dict[SessionId, float] = {}
        self._orphans: set[SessionId] = set()
        # How often in a row each session could not be taken up, and when that may be tried again.
        self._failures: dict[SessionId, tuple[int, float]] = {}
        # What is to be given back, once: by then this host may be home again, of which nothing is to be given back.
        self._going: set[SessionId] = set()
        # A session that is being taken up is given back after that, not meanwhile.
        self._locks: defaultdict[SessionId, trio.Lock] = defaultdict(trio.Lock)
        self._limit = trio.CapacityLimiter(_AT_ONCE)
        self.where = {}

    @property
    def host(self) -> str:
        """What this host is called."""
        return self._journal.host

    @property
    def here(self) -> tuple[SessionId, ...]:
        """The sessions whose home this host is, as far as it knows."""
        return self._journal.held

    def __repr__(self) -> str:
        return f"<Homes: {len(self.here)} of {len(self._sessions)} sessions at {self.host}>"

    # --- the tasks ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take the share of sessions that is due, keep it, and give back what is too much.

        **Cancellation:** what is being taken up or given back is left as it is; `leave` follows.
        """
        async with trio.open_nursery() as nursery:
            vacated, due = -1, -math.inf
            while True:
                seen = await self._journal.vacated()
                if seen != vacated or trio.current_time() >= due:
                    vacated, due = seen, trio.current_time() + self._journal.lease / _RENEWALS
                    await self._look(nursery)
                await trio.sleep(_LOOK)

    async def leave(self) -> None:
        """Give everything back at once: what is running gets the machine's grace time, and keeps its lease meanwhile.

        **Cancellation:** leases that are not given back end by themselves.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            async with trio.open_nursery() as giving:
                self._going.clear()
                for session_id in {*self._journal.held, *self._transports}:
                    self._begin_to_give_back(session_id, giving)
            nursery.cancel_scope.cancel()

    async def _keep(self) -> None:
        while True:
            for session_id in (await self._journal.renew(is_leaving=True)).lost:
                self._has_lost(session_id)
            await trio.sleep(self._journal.lease / _RENEWALS)

    def _has_lost(self, session_id: SessionId) -> None:
        _logger.warning("session %s: the lease is lost; this host is its home no more", session_id)
        self._machine.disown(session_id)

    def _begin_to_give_back(self, session_id: SessionId, nursery: trio.Nursery) -> None:
        if session_id not in self._going:
            self._going.add(session_id)
            nursery.start_soon(self._give_back, session_id)

    async def _look(self, nursery: trio.Nursery) -> None:
        renewal = await self._journal.renew()
        for session_id in renewal.lost:
            self._has_lost(session_id)
            self._begin_to_give_back(session_id, nursery)
        self.where = await self._journal.homes(self._sessions)
        share = math.ceil(len(self._sessions) / max(renewal.hosts, 1))
        self._give_excess_back(share, nursery)
        self._take_share(share, nursery, renewal)

    def _give_excess_back(self, share: int, nursery: trio.Nursery) -> None:
        elsewhere = self._orphans | self._going
        served = [each for each in self.here if self._transports.get(each) is not None and each not in elsewhere]
        for session_id in served[share:]:
            _logger.info("session %s: is given to another host", session_id)
            self._begin_to_give_back(session_id, nursery)

    def _take_share(self, share: int, nursery: trio.Nursery, renewal: Renewal) -> None:
        now = trio.current_time()
        homeless = [each for each, home in self.where.items() if home is None and each not in self._transports]
        self._homeless = {each: self._homeless.get(each, now) for each in homeless}
        room = share - len(self._transports)
        for session_id in homeless:
            is_orphan = renewal.hosts == 1 or now - self._homeless[session_id] > _ORPHANED * self._journal.lease
            if (room <= 0 and not is_orphan) or now < self._failures.get(session_id, (0, -math.inf))[1]:
                continue
            if room <= 0:
                self._orphans.add(session_id)
            room -= 1
            self._transports[session_id] = None
            nursery.start_soon(self._take_up, session_id)

    # --- one session --------------------------------------------------------------------------------

    async def _take_up(self, session_id: SessionId) -> None:
        async with self._locks[session_id], self._limit:
            try:
                fence = await self._journal.take(session_id)
                if fence is None:
                    self._forget(session_id)
                    return
                _logger.info("session %s: this host is its home now", session_id)
                self._transports[session_id] = await self._serve(session_id, fence)
                self._failures.pop(session_id, None)
            except (MeerkatError, trio.ClosedResourceError, OSError):
                # Another host may do better; this one tries again when nobody has.
                _logger.exception("session %s: could not be taken up", session_id)
                failed = self._failures.get(session_id, (0, 0.0))[0] + 1
                delay = self._journal.lease * min(2 ** (failed - 1), _LONGEST)
                self._failures[session_id] = failed, trio.current_time() + delay
                await self._give_back_now(session_id)

    async def _give_back(self, session_id: SessionId) -> None:
        async with self._locks[session_id], self._limit:
            await self._give_back_now(session_id)
        self._going.discard(session_id)

    async def _give_back_now(self, session_id: SessionId) -> None:
        """End a session here, then let go of its transport, then of its lease: in this order nothing is in between."""
        with suppress(SessionNotRegistered, trio.ClosedResourceError, JournalFailed):
            await self._machine.release(session_id)
        comms = self._transports.get(session_id)
        if comms is not None:
            await comms.aclose()
        await self._journal.release(session_id)
        self._forget(session_id)

    def _forget(self, session_id: SessionId) -> None:
        self._transports.pop(session_id, None)
        self._orphans.discard(session_id)


@asynccontextmanager
async def share_sessions(
    machine: MeerkatMachine, journal: RedisJournal, sessions: Iterable[SessionId], serve: Serve
) -> AsyncGenerator[Homes, None]:
    """Share sessions with the other hosts of a namespace, for the length of an ``async with`` block.

    Each session has one home at a time. This host takes its share of them, an equal one; gives some back when another
    host comes, and takes more when one goes. Leaving the block gives everything back at once; a host that dies keeps
    its sessions from the others for the length of a lease.

    Args:
        machine: opened with ``journal``.
        journal: where the leases and the memories of the sessions are.
        sessions: the ids that this host can serve.
        serve: called when this host has become the home of a session, with the session's id and the fence for its
            transport. It calls `MeerkatMachine.restore`, or `MeerkatMachine.register` if nothing is remembered,
            attaches a comms runtime, and returns it; that is closed when the session leaves. What it raises of
            `MeerkatError`, `trio.ClosedResourceError` or `OSError` is logged, and the session given back; anything else
            ends the block. What it has opened when it raises, it closes.

    **Cancellation:** everything is given back, with the machine's grace time for what is running.
    """
    homes = Homes(machine, journal, sessions, serve)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(homes.run)
            try:
                yield homes
            finally:
                nursery.cancel_scope.cancel()
    finally:
        # What was being taken up or given back has ended by now, however far it had come.
        with trio.move_on_after(machine.grace + journal.lease, shield=True):
            await homes.leave()
