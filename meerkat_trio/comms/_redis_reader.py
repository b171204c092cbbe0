"""The task that reads: all streams of a network in one blocking call, on a connection of its own.

It owns every blocking reading of the process. A session that is cancelled has none, so none can be cut in the middle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import trio

from ._redis_scripts import BEAT, FENCED, GROUP, taking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._redis_intake import Intake
    from ._redis_limits import RedisLimits
    from ._redis_link import Link
    from ._redis_mailbox import Mailbox
    from ._redis_scripts import Keys
    from ._redis_updates import Updates

__all__ = ["Reader"]

_Read: TypeAlias = "tuple[Mailbox, Intake, tuple[bytes, int]]"
"""What is read, and from where on."""
_NEW: Final = b">"
_FIRST: Final = b"0"
_LOOKS: Final = 3
"""Looks at the leases in the time after which a process is taken to be gone."""


class Network(Protocol):
    """Whose streams are read."""

    limits: RedisLimits
    keys: Keys
    updates: Updates

    def open_mailboxes(self) -> Sequence[Mailbox]:
        """Return those that have an instance."""

    def take_answers(self, entries: Sequence[Sequence[Any]]) -> None:
        """Settle what answers are for."""

    def is_fenced(self, mailbox: Mailbox) -> None:
        """Note that the lease of a mailbox is lost."""

    def has_progressed(self) -> None:
        """Wake who waits for something to be written, or for a reading to end."""


@final
class Reader:
    """Reads for a network."""

    def __init__(self, network: Network, link: Link) -> None:
        self._network = network
        self._link = link
        self._cursor = _FIRST
        self._read_answers: list[bytes] = []
        self._looks_again = -math.inf
        self.is_blocked: bool = False
        """Whether it waits for something to come, and cannot write what there is to be written."""
        self.rounds: int = 0
        """How often it has asked whose streams are to be read."""

    @property
    def is_up(self) -> bool:
        """Whether its connection stands."""
        return self._link.is_up

    @property
    def client_id(self) -> int | None:
        """What the server knows its connection by."""
        return self._link.client_id

    async def serve(self) -> None:
        """Read, for as long as the connection stands.

        **Cancellation:** this is how it ends; what was read stays pending and is read again.
        """
        self._cursor = _FIRST
        self._looks_again = -math.inf
        for mailbox in self._network.open_mailboxes():
            for intake in mailbox.intakes.values():
                intake.begin_again()
        keys, limits = self._network.keys, self._network.limits
        lives = int(limits.gone_after * 1000), int(limits.acceptance_window * 1000)
        await self._link.ask(
            taking(keys, keys.answers, None),
            (BEAT, 2, keys.alive + keys.token, keys.answers, *lives),
        )
        try:
            while True:
                self.rounds += 1
                self._network.has_progressed()
                await self._prepare()
                await self._look_at_fences()
                await self._read()
        finally:
            self.is_blocked = False

    async def _prepare(self) -> None:
        """See to it that every stream has its group, and take over what was given back."""
        network = self._network
        new = [
            (mailbox, intake)
            for mailbox in network.open_mailboxes()
            for intake in mailbox.intakes.values()
            if not intake.is_ready
        ]
        if not new:
            return
        # The fence of the moment: a lease may be lost and taken again before the server answers.
        asked = [mailbox.fence for mailbox, _ in new]
        replies = await self._link.ask(
            *(taking(network.keys, intake.stream, fence) for (_, intake), fence in zip(new, asked, strict=True))
        )
        for (mailbox, intake), fence, taken in zip(new, asked, replies, strict=True):
            if taken != FENCED:
                intake.is_ready = taken >= 0
            elif mailbox.fence == fence:
                network.is_fenced(mailbox)

    async def _look_at_fences(self) -> None:
        """See whether the leases are still ours, if that was not seen for a while: this process may have stood still.

        What is read without a lease is refused in the end, but by then what came after it may have overtaken it.
        """
        network, now = self._network, trio.current_time()
        if now < self._looks_again:
            return
        fenced = [(each, each.fence) for each in network.open_mailboxes() if each.fence is not None]
        if fenced:
            (tokens,) = await self._link.ask((b"MGET", *(fence.key for _, fence in fenced)))
            for (mailbox, fence), token in zip(fenced, tokens, strict=True):
                if mailbox.fence == fence and token != fence.token.encode():
                    network.is_fenced(mailbox)
        self._looks_again = now + network.limits.gone_after / _LOOKS

    async def _read(self) -> None:
        """Read once; what there is to be written goes first, in the same breath."""
        network, limits = self._network, self._network.limits
        streams: dict[str, _Read] = {}
        for mailbox in network.open_mailboxes():
            for intake in mailbox.intakes.values():
                intake.is_left_out = not (intake.is_ready and mailbox.may_read(intake))
                if not intake.is_left_out:
                    streams[intake.stream] = mailbox, intake, intake.place
        cursors = [self._cursor, *(place[0] for _, _, place in streams.values())]
        acknowledged, self._read_answers = self._read_answers, []
        commands = []
        if acknowledged:
            commands += [
                (b"XACK", network.keys.answers, GROUP, *acknowledged),
                (b"XDEL", network.keys.answers, *acknowledged),
            ]
        block = () if any(each != _NEW for each in cursors) else (b"BLOCK", int(limits.block * 1000))
        reading = (
            *(b"XREADGROUP", b"GROUP", GROUP, network.keys.token, b"COUNT", limits.read_entries, *block),
            *(b"STREAMS", network.keys.answers, *streams, *cursors),
        )
        with network.updates.taken() as updates:
            requests = self._link.send(*commands, *updates.commands(), reading)
            self.is_blocked = bool(block)
            replies = await self._link.receive(requests[:-1])
            updates.have(replies[len(commands) :])
        (found,) = await self._link.receive(requests[-1:], wait=limits.block)
        self.is_blocked = False
        await self._hand_on(found or {}, streams)

    async def _hand_on(self, found: dict[bytes, Sequence[Sequence[Any]]], streams: dict[str, _Read]) -> None:
        network = self._network
        for name, entries in found.items():
            stream = name.decode()
            if stream == network.keys.answers:
                if self._cursor != _NEW:
                    self._cursor = entries[-1][0] if entries else _NEW
                self._read_answers += [entry[0] for entry in entries]
                network.take_answers(entries)
                continue
            mailbox, intake, place = streams[stream]
            parts = [0] * len(entries) if place[0] == _NEW or not entries else await self._parts(mailbox, entries)
            intake.has_read(place, entries)
            for (entry_id, flat), answered in zip(entries, parts, strict=True):
                mailbox.arrive(intake, entry_id, flat, answered)
        if found:
            # Who takes what has come takes it now: so its answers are written in the breath of the next reading.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    async def _parts(self, mailbox: Mailbox, entries: Sequence[Sequence[Any]]) -> list[int]:
        """Return what of each entry was answered before."""
        key = self._network.keys.parts(mailbox.identity.peer_id)
        (masks,) = await self._link.ask((b"HMGET", key, *(entry[0] for entry in entries)))
        return [0 if mask is None else int(mask) for mask in masks]
