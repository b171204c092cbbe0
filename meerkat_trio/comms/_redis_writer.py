"""The task that writes: bundles, answers while the reader is blocked, signs of life; on a connection of its own."""

from __future__ import annotations

import math
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import trio

from ..authority import DropReason
from ._redis_scripts import ADD, BEAT, FENCED, FULL, GROUP, MEMORY, NOBODY, RELEASE, ROOM, taking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..authority import PeerId
    from ._redis_intake import Intake
    from ._redis_limits import RedisLimits
    from ._redis_link import Link
    from ._redis_mailbox import Mailbox
    from ._redis_outgoing import Flight, Way
    from ._redis_scripts import Keys
    from ._redis_updates import Updates

__all__ = ["Writer"]

_Asked: TypeAlias = "tuple[tuple[Any, ...], Callable[[Any], None]]"
"""What the server is asked, and what is done with its reply."""
_AGAIN: Final = 0.001
"""Seconds until the reader is called again, if it was not blocked yet when it was called."""
_BEATS: Final = 3
"""Signs of life in the time after which a process is taken to be gone."""
_AT_ONCE: Final = 256
"""Commands that are sent at once, of those that are many."""


class Reads(Protocol):
    """The task that reads, as the one that writes knows it."""

    is_blocked: bool
    rounds: int

    @property
    def is_up(self) -> bool:
        """Whether its connection stands."""

    @property
    def client_id(self) -> int | None:
        """What the server knows its connection by."""


class Network(Protocol):
    """For whom is written."""

    limits: RedisLimits
    keys: Keys
    updates: Updates

    @property
    def reader(self) -> Reads:
        """The task that reads."""

    def open_mailboxes(self) -> Sequence[Mailbox]:
        """Return those that have an instance."""

    def mailbox_of(self, peer_id: PeerId) -> Mailbox | None:
        """Return the mailbox of an identity of this process."""

    def is_closed_here(self, peer_id: PeerId) -> bool:
        """Say whether a peer was here and is not any more."""

    def released(self) -> list[Mailbox]:
        """Return the mailboxes of which nothing is here any more: what is left of them is given back."""

    def has_released(self, mailbox: Mailbox) -> None:
        """Forget a mailbox."""

    def is_fenced(self, mailbox: Mailbox) -> None:
        """Note that the lease of a mailbox is lost."""

    def lacks_memory(self, what: str, *, lacks: bool) -> None:
        """Note whether the server had memory for what was to be written."""

    def keep_house(self) -> None:
        """Let go of what has expired."""

    def has_progressed(self) -> None:
        """Wake who waits for something to be written."""


@final
class Writer:
    """Writes for a network."""

    def __init__(self, network: Network, link: Link) -> None:
        self._network = network
        self._link = link
        self._ways: dict[Way, None] = {}
        self._rung: trio.Event | None = None
        self._is_rung = False
        self._called = -1  # the round of the reader that is to end
        self._call_again = -math.inf
        self._next_beat = -math.inf
        self._may_take = math.inf
        self._is_leaving = False
        self.has_left: bool = False
        """Whether the server was told that this network is gone."""

    def ring(self) -> None:
        """There is something to do."""
        self._is_rung = True
        if self._rung is not None:
            self._rung.set()

    def add(self, way: Way) -> None:
        """A lane has something to send."""
        self._ways[way] = None
        self.ring()

    def call_reader(self) -> None:
        """Let the reader begin anew, with what it left out before."""
        self._called = self._network.reader.rounds
        self.ring()

    def leave(self) -> None:
        """Tell the server that this network is gone."""
        self._is_leaving = True
        self.ring()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send."""
        return not any(way.has_something for way in self._ways)

    async def serve(self) -> None:
        """Write, for as long as the connection stands.

        **Cancellation:** this is how it ends; what was being written is written again.
        """
        network = self._network
        self._next_beat = -math.inf
        # The others had no server either: they have time to show that they are alive.
        self._may_take = trio.current_time() + network.limits.gone_after
        while True:
            self._is_rung = False
            self._link.require()
            asked = list(self._gather(trio.current_time()))
            with network.updates.taken(wanted=network.reader.is_blocked or not network.reader.is_up) as batch:
                commands = batch.commands()
                if commands or asked:
                    replies = await self._link.ask(*commands, *(command for command, _ in asked))
                    batch.have(replies[: len(commands)])
            if commands or asked:
                for (_, react), reply in zip(asked, replies[len(commands) :], strict=True):
                    react(reply)
                network.has_progressed()
            else:
                await self._sleep()

    async def _sleep(self) -> None:
        until = min((self._next_beat, self._call_again, *(way.rests_until for way in self._ways)))
        if self._network.updates:
            until = min(until, max(self._network.updates.rests_until, trio.current_time() + self._network.limits.block))
        self._rung = trio.Event()
        if not self._is_rung:
            with trio.move_on_at(until):
                await self._rung.wait()
        self._rung = None

    def _gather(self, now: float) -> Iterator[_Asked]:
        """Return what is to be asked, and what to do with each reply."""
        yield from self._call(now)
        yield from self._bundles(now)
        for mailbox in self._network.released():
            streams = (intake.stream for intake in mailbox.intakes.values())
            yield (RELEASE, 2, *streams, GROUP, self._network.keys.token), partial(self._has_released, mailbox)
        if now >= self._next_beat:
            yield from self._beat(now)
        if self._is_leaving and not self.has_left and self.is_idle:
            keys = self._network.keys
            yield (b"DEL", keys.alive + keys.token, keys.answers), self._left

    def _call(self, now: float) -> Iterator[_Asked]:
        reader = self._network.reader
        if self._called != reader.rounds or not reader.is_blocked:
            self._call_again = math.inf
        elif now >= self._call_again or self._call_again == math.inf:
            yield (b"CLIENT UNBLOCK", reader.client_id or 0), self._called_reader

    def _called_reader(self, was_blocked: int) -> None:
        # What it asked may not have reached the server yet.
        self._call_again = math.inf if was_blocked else trio.current_time() + _AGAIN
        if was_blocked:
            self._called = -1

    # -- bundles

    def _bundles(self, now: float) -> Iterator[_Asked]:
        self._ways = {way: None for way in self._ways if way.has_something}
        due = (way for way in self._ways if way.rests_until <= now)
        for way in islice(due, _AT_ONCE):
            if way.was_refused:
                yield self._ask_for_room(way), partial(self._heard_of_room, way)
            elif (flight := way.next_flight()) is not None:
                yield self._command(way, flight), partial(self._landed, way)

    def _command(self, way: Way, flight: Flight) -> tuple[Any, ...]:
        keys, limits, route = self._network.keys, self._network.limits, way.route
        fence = route.post.fence
        key, token = ("", "") if fence is None else (fence.key, fence.token)
        once = f"{keys.once}{route.post.identity.peer_id}:{route.peer_id}:{way.lane.value}"
        return (
            *(ADD, 3, keys.stream(route.peer_id, way.lane), once, key, token, flight.number, limits.stream_limit),
            *(int(limits.acceptance_window * 1000), flight.frame, keys.answers),
            *(int(self._network.is_closed_here(route.peer_id)), GROUP, keys.token, keys.alive),
        )

    def _ask_for_room(self, way: Way) -> tuple[Any, ...]:
        keys, limits = self._network.keys, self._network.limits
        stream = keys.stream(way.route.peer_id, way.lane)
        return ROOM, 2, stream, keys.alive + keys.token, limits.stream_limit, int(limits.gone_after * 1000)

    def _heard_of_room(self, way: Way, reply: bytes) -> None:
        if reply in {FULL, MEMORY}:
            self._refused(way, reply)
        else:
            self._network.lacks_memory("bundles", lacks=False)
            way.was_refused = False

    def _refused(self, way: Way, reply: bytes) -> None:
        self._network.lacks_memory("bundles", lacks=reply == MEMORY)
        way.refused(trio.current_time() + self._network.limits.full_pause)

    def _landed(self, way: Way, reply: bytes) -> None:
        network = self._network
        if reply in {FULL, MEMORY}:
            self._refused(way, reply)
            return
        network.lacks_memory("bundles", lacks=False)
        if reply in {NOBODY, FENCED}:
            way.give_up(DropReason.CLOSED)
        if reply == FENCED and (mailbox := network.mailbox_of(way.route.post.identity.peer_id)) is not None:
            network.is_fenced(mailbox)
        way.landed()
        if not way.has_something:
            self._ways.pop(way, None)

    # -- what is done from time to time

    def _has_released(self, mailbox: Mailbox, left: int) -> None:
        if not left:
            self._network.has_released(mailbox)

    def _beat(self, now: float) -> Iterator[_Asked]:
        network = self._network
        keys, limits = network.keys, network.limits
        self._next_beat = now + limits.gone_after / _BEATS
        network.keep_house()
        lives = int(limits.gone_after * 1000), int(limits.acceptance_window * 1000)
        yield (BEAT, 2, keys.alive + keys.token, keys.answers, *lives), _nothing
        for mailbox in network.open_mailboxes():
            for intake in mailbox.intakes.values():
                command = taking(keys, intake.stream, mailbox.fence, of_the_dead=now >= self._may_take)
                yield command, partial(self._took, mailbox, intake)

    def _took(self, mailbox: Mailbox, intake: Intake, taken: int | bytes) -> None:
        if taken == FENCED:
            self._network.is_fenced(mailbox)
        elif int(taken) > 0:
            intake.replay()
            self.call_reader()

    def _left(self, _reply: object) -> None:
        self.has_left = True


def _nothing(_reply: object) -> None:
    pass
