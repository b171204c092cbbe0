"""The journal that the machines of several hosts share in a Redis or Valkey server, and the leases of their sessions.

A host may write what is remembered of a session only while it is the session's home: it holds a lease, with a token
that is another one each time. Who holds none restores nothing and writes nothing.
"""

from __future__ import annotations

import logging
import math
import secrets
from typing import TYPE_CHECKING, Any, Final, final

import trio
from attrs import field, frozen, validators

from .._exceptions import JournalFailed, JournalRefused
from ..abc import Change, Delete, Entry, Journal
from ..authority import SessionId
from ..comms._redis_limits import Fence, RedisLimits
from ..comms._redis_link import Link, Server, Troubles
from ._redis_desk import Desk
from ._redis_scripts import APPEND, CHECK_OUT, RELEASE, RENEW, RESTORE, SCRIPTS, TAKE, Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

__all__ = ["RedisJournal", "Renewal"]

_logger: Final = logging.getLogger("meerkat_trio.journal")

_SHORTEST_LEASE: Final = 0.1
_LONGEST_LEASE: Final = 86400
"""The server counts in whole milliseconds, and not for ever."""
_GOODBYE: Final = 2.0
"""Seconds in which the server hears that this host is gone."""
_WRITINGS_KEPT: Final = 24 * 3600 * 1000
"""Milliseconds for which the server knows a host's last writing."""
_POSITION_BYTES: Final = 8


@frozen(kw_only=True)
class Renewal:
    """What a host hears when it renews its leases."""

    hosts: int
    """Hosts that live, this one included."""
    vacated: int
    """How many sessions were given back so far: another number means that there are some to be taken."""
    lost: frozenset[SessionId] = field(validator=validators.instance_of(frozenset))
    """Sessions that have another home now, or none: this host is theirs no more."""


@final
class RedisJournal(Journal):
    """A journal in Redis or Valkey, 6.2 or newer, shared by the machines of one namespace.

    What it holds of a session can be restored and changed by the host that has the session's lease alone; see `take`.
    While the server is away, whatever is asked waits.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "meerkat",
        lease: float = 10.0,
        host: str = "host",
        limits: RedisLimits | None = None,
    ) -> None:
        """Make it; it does nothing before it is entered.

        Args:
            url: as for `meerkat_trio.comms.RedisNetwork`.
            namespace: what all keys begin with; hosts that share sessions have the same.
            lease: seconds, from 0.1 to 86400, for which a session stays with a host that is not heard of.
            host: what this host is called, for people; each process adds something of its own.
            limits: the bounds; of those of the transport only the time-outs and back-offs count.

        Raises:
            ValueError: an argument is of no use.
        """
        if not namespace or not namespace.isprintable():
            raise ValueError(f"namespace: a printable text is needed, not {namespace!r}")
        if not host or not host.isprintable() or " " in host:
            raise ValueError(f"host: a printable text without spaces is needed, not {host!r}")
        if not _SHORTEST_LEASE <= lease <= _LONGEST_LEASE:
            raise ValueError(f"lease: seconds from {_SHORTEST_LEASE} to {_LONGEST_LEASE} are needed, not {lease!r}")
        self.lease: float = lease
        self.host: str = f"{host}-{secrets.token_hex(4)}"
        self.keys: Keys = Keys(namespace)
        self._where = f"Redis, namespace {namespace!r}"
        self._server = Server(url)
        troubles = Troubles()
        self._link = Link("journal", self._server, limits or RedisLimits(), troubles, SCRIPTS)
        self._desk = Desk(self._link)
        self._tokens: dict[SessionId, str] = {}
        # Until when each lease lasts by our own clock; the server's ends later.
        self._sure_until: dict[SessionId, float] = {}
        self._writings = 0
        self._opening: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery
        # A machine that is being cancelled still has something to write.
        self._life = trio.CancelScope(shield=True)

    def __repr__(self) -> str:
        return f"<RedisJournal of {self.host!r}, home of {len(self._tokens)} sessions>"

    async def __aenter__(self) -> RedisJournal:
        """Start; it does not wait for the server.

        **Cancellation:** nothing is open.
        """
        if self._opening is not None:
            raise RuntimeError("this journal is open already")
        self._life = trio.CancelScope(shield=True)
        self._opening = trio.open_nursery()
        self._nursery = await self._opening.__aenter__()
        self._nursery.start_soon(self._serve)
        return self

    async def _serve(self) -> None:
        with self._life:
            await self._link.run(self._desk.serve)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Give every lease back that is still held, and end.

        **Cancellation:** leases that are not given back end by themselves.
        """
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            with trio.move_on_after(_GOODBYE, shield=True):
                for session_id in tuple(self._tokens):
                    await self.release(session_id)  # noqa: ASYNC102 - bounded by the scope above
                await self._desk.ask(CHECK_OUT, 2, self.keys.hosts, self.keys.vacated, self.host)  # noqa: ASYNC102
        finally:
            self._tokens.clear()
            self._life.cancel()
            await opening.__aexit__(None, None, None)  # noqa: ASYNC102 - all in it is cancelled

    # --- the journal --------------------------------------------------------------------------------

    async def restore(self, session_id: SessionId | None = None) -> Mapping[SessionId, Sequence[Entry]]:
        """Return what is remembered of a session whose home this host is; of all, nothing: `take` them one by one.

        Raises:
            JournalRefused: this host is not its home, or an entry is damaged.

        **Cancellation:** nothing has changed.
        """
        if session_id is None:
            await trio.lowlevel.checkpoint()
            return {}
        token = self._tokens.get(session_id, "")
        found = await self._desk.ask(RESTORE, 2, self.keys.home(session_id), self.keys.entries(session_id), token)
        if not isinstance(found, list):
            raise JournalRefused(self._where, f"session {session_id!r} has another home")
        try:
            entries = [_entry(field_, value) for field_, value in zip(found[::2], found[1::2], strict=True)]
        except ValueError as error:
            raise JournalRefused(self._where, f"session {session_id!r}: {error}") from None
        return {session_id: sorted(entries, key=lambda entry: entry.position)} if entries else {}

    async def append(self, changes: Mapping[SessionId, Sequence[Change]]) -> frozenset[SessionId]:
        """Make changes of the sessions whose home this host is; return the others, of which nothing was written.

        Raises:
            JournalFailed: the server has no memory; nothing was written.

        **Cancellation:** it may be written all the same, also later.
        """
        self._writings += 1
        keys: list[str] = [self.keys.probe, self.keys.written(self.host)]
        arguments: list[Any] = []
        needs_memory = False
        for session_id, of_session in changes.items():
            keys += [self.keys.home(session_id), self.keys.entries(session_id)]
            arguments += [self._tokens.get(session_id, ""), len(of_session)]
            for change in of_session:
                arguments += _change(change)
                needs_memory = needs_memory or isinstance(change, Entry)
        head = (int(needs_memory), self._writings, _WRITINGS_KEPT)
        moved = await self._desk.ask(APPEND, len(keys), *keys, *head, *arguments)
        if not isinstance(moved, list):
            raise JournalFailed(self._where, "the server has no memory")
        names = tuple(changes)
        return frozenset(names[number - 1] for number in moved)

    def is_doubtful(self, session_id: SessionId) -> bool:
        """Say whether the lease of a session may have ended: this process has stood still, or the server is away."""
        return trio.current_time() >= self._sure_until.get(session_id, -math.inf)

    # --- the leases ---------------------------------------------------------------------------------

    def fence(self, session_id: SessionId) -> Fence | None:
        """Return the lease that this host holds of a session, as far as it knows; for `RedisNetwork.open`."""
        token = self._tokens.get(session_id)
        return None if token is None else Fence(self.keys.home(session_id), token)

    @property
    def held(self) -> tuple[SessionId, ...]:
        """The sessions whose home this host is, as far as it knows; in the order in which it took them."""
        return tuple(self._tokens)

    async def take(self, session_id: SessionId) -> Fence | None:
        """Become the home of a session that has none; None if it has one.

        Raises:
            JournalFailed: the server has no memory.

        **Cancellation:** this host may be its home: `release` it, or take it again.
        """
        keys, asked = self.keys, trio.current_time()
        token = await self._desk.ask(
            TAKE,
            2,
            *(keys.home(session_id), keys.incarnations),
            *(session_id, self.host, int(self.lease * 1000)),
        )
        text = _text(token)
        if text == "memory":
            raise JournalFailed(self._where, "the server has no memory")
        if text:
            self._tokens[session_id] = text
            self._sure_until[session_id] = asked + self.lease
            return self.fence(session_id)
        self._drop(session_id)
        return None

    def _drop(self, session_id: SessionId) -> str | None:
        self._sure_until.pop(session_id, None)
        return self._tokens.pop(session_id, None)

    async def renew(self, *, is_leaving: bool = False) -> Renewal:
        """Renew every lease, and say how things stand; what is lost is forgotten.

        Args:
            is_leaving: this host takes up no more, and the others are not to count on it.

        **Cancellation:** they may be renewed.
        """
        held, asked = dict(self._tokens), trio.current_time()
        keys = [self.keys.hosts, self.keys.vacated, *(self.keys.home(each) for each in held)]
        hosts, vacated, *lost = await self._desk.ask(
            RENEW, len(keys), *keys, self.host, int(self.lease * 1000), int(is_leaving), *held.values()
        )
        names = tuple(held)
        gone = frozenset(names[number - 1] for number in lost)
        for session_id, token in held.items():
            if self._tokens.get(session_id) != token:
                continue
            if session_id in gone:
                self._drop(session_id)
            else:
                self._sure_until[session_id] = asked + self.lease
        return Renewal(hosts=hosts, vacated=vacated, lost=gone)

    async def release(self, session_id: SessionId) -> bool:
        """Give a session back, at once; say whether this host was its home.

        **Cancellation:** it may be given back; its lease ends by itself.
        """
        token = self._drop(session_id)
        if token is None:
            await trio.lowlevel.checkpoint()
            return False
        return bool(await self._desk.ask(RELEASE, 2, self.keys.home(session_id), self.keys.vacated, token))

    async def homes(self, session_ids: Iterable[SessionId]) -> Mapping[SessionId, str | None]:
        """Say which host is the home of each session; None for one that has none.

        **Cancellation:** nothing has changed.
        """
        names = tuple(session_ids)
        if not names:
            await trio.lowlevel.checkpoint()
            return {}
        tokens = await self._desk.ask(b"MGET", *(self.keys.home(each) for each in names))
        return {
            name: None if token is None else _text(token).partition(" ")[0]
            for name, token in zip(names, tokens, strict=True)
        }

    async def vacated(self) -> int:
        """Say how many sessions were given back so far: `Renewal.vacated`, without a renewal.

        **Cancellation:** nothing has changed.
        """
        return int(await self._desk.ask(b"GET", self.keys.vacated) or 0)


def _change(change: Change) -> list[Any]:
    if isinstance(change, Entry):
        return ["P", _field(change.kind, change.key), change.position.to_bytes(_POSITION_BYTES) + change.value]
    if isinstance(change, Delete):
        return ["D", _field(change.kind, change.key)]
    return ["F"]


def _field(kind: str, key: str) -> str:
    return f"{kind} {key}"


def _entry(name: Any, value: Any) -> Entry:
    kind, space, key = _text(name).partition(" ")
    data = value if isinstance(value, bytes) else str(value).encode()
    if not space or len(data) < _POSITION_BYTES:
        raise ValueError(f"entry {name!r}: is damaged")
    return Entry(kind, key, int.from_bytes(data[:_POSITION_BYTES]), data[_POSITION_BYTES:])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
