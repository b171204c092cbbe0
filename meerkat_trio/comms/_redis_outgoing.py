"""What one identity sends over Redis: for each peer two lanes, and for each lane the bundle that is on its way.

Knows no connection. Whoever has one asks for the next bundle of a lane and says what became of it.

What holds at every moment:

1. A lane has one bundle on its way, at most. Until it is known whether it was stored it is sent again as it is, under
   the same number, and the server stores each number once: a lost reply neither loses, doubles nor reorders anything.
2. A `send` that waits may be cancelled as long as nothing has carried its envelope. From then on nobody can say that it
   was not sent, so it returns: the envelope is accepted, and goes out when the server can take it.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from .._messages import Receipt, ReceiptStatus
from ..authority import DropReason, Lane, PeerId
from ._bundle import MAX_BUNDLE, seal
from ._envelope import MAX_ENVELOPE, encode_envelope
from ._exceptions import WireRefused
from ._outgoing import Letter, OutgoingLane

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._messages import Envelope
    from ._frames import Answer
    from ._identity import Identity
    from ._redis_limits import Fence, RedisLimits

__all__ = ["Flight", "Post", "Route", "Way"]

_LANES: Final = (Lane.CONTROL, Lane.WORK)
_SENT: Final = 1024
"""Of how many ids is known that this side has sent them."""
_BUNDLE_BYTES: Final = MAX_ENVELOPE - 5 * MAX_BUNDLE
_QUEUED: Final = ReceiptStatus.QUEUED


class Network(Protocol):
    """What the senders of one process share."""

    limits: RedisLimits

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""

    def next_number(self) -> int:
        """Return a number that no bundle of this process has had."""

    def has_letters(self, way: Way) -> None:
        """Note that a lane has something to send."""


@final
class Flight:
    """A bundle that is on its way to the server."""

    __slots__ = ("frame", "letters", "number")

    def __init__(self, number: int, letters: list[Letter], frame: bytes) -> None:
        self.number: int = number
        """Which one of its lane: the server stores it once."""
        self.letters: list[Letter] = letters
        self.frame: bytes = frame


@final
class Way:
    """One lane from one identity to one peer."""

    __slots__ = ("_waiting", "flight", "lane", "outgoing", "rests_until", "route", "was_refused")

    flight: Flight | None
    """What is on its way to the server."""
    rests_until: float
    """When to look again whether there is room."""
    was_refused: bool
    """Whether the server had no room, and is to be asked for it before anything is carried again."""

    def __init__(self, route: Route, lane: Lane) -> None:
        self.route: Route = route
        self.lane: Lane = lane
        self.outgoing: OutgoingLane = OutgoingLane(route.post.limits.unanswered, sys.maxsize, self._accepts)
        self.flight = None
        self.rests_until = -math.inf
        self.was_refused = False
        self._waiting: dict[Letter, trio.lowlevel.Task] = {}

    def _accepts(self, letter: Letter) -> bool:
        if not self.route.post.is_new(letter.envelope.id):
            letter.receipt.settle(DropReason.DUPLICATE)
            return False
        self.route.post.network.has_letters(self)
        return True

    # -- the senders

    @property
    def parked_senders(self) -> int:
        """How many tasks wait for room, or for the server."""
        return len(self.outgoing.parked) + len(self._waiting)

    def send_nowait(self, letter: Letter) -> Receipt:
        """Accept an envelope.

        Raises:
            trio.WouldBlock: there is no room, or others wait for it.
        """
        if self.outgoing.is_full:
            raise trio.WouldBlock
        return self.outgoing.accept(letter)

    async def send(self, letter: Letter) -> Receipt:
        """Accept an envelope, waiting for room, then for the server to store it.

        **Cancellation:** cancelled, it was not sent.
        """
        if self.outgoing.is_full:
            await self.outgoing.wait_accepted(letter)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.outgoing.accept(letter)
        if letter.receipt.status is not _QUEUED:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return letter.receipt
        task = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            del self._waiting[letter]
            if self.outgoing.withdraw(letter):
                self.route.post.may_be_sent_again(letter.envelope.id)
                return trio.lowlevel.Abort.SUCCEEDED
            trio.lowlevel.reschedule(task)
            return trio.lowlevel.Abort.FAILED

        self._waiting[letter] = task
        await trio.lowlevel.wait_task_rescheduled(abort)
        return letter.receipt

    def _wake(self, letter: Letter) -> None:
        task = self._waiting.pop(letter, None)
        if task is not None:
            trio.lowlevel.reschedule(task)

    # -- who carries

    @property
    def has_something(self) -> bool:
        """Whether there is a bundle to send."""
        return self.flight is not None or bool(self.outgoing.unsent)

    def next_flight(self) -> Flight | None:
        """Return the bundle whose fate is not known, or else make the next."""
        if self.flight is None and self.outgoing.unsent:
            letters: list[Letter] = []
            size = 0
            unsent = self.outgoing.unsent
            while unsent and len(letters) < MAX_BUNDLE and (not letters or size + len(unsent[0].data) <= _BUNDLE_BYTES):
                letters.append(unsent[0])
                size += len(self.outgoing.carry())
            frame = seal(self.route.post.identity, self.route.key, (letter.data for letter in letters))
            self.flight = Flight(self.route.post.network.next_number(), letters, frame)
        return self.flight

    def landed(self) -> None:
        """Note that the server has stored what is on its way."""
        if self.flight is not None:
            flight, self.flight = self.flight, None
            for letter in flight.letters:
                self._wake(letter)

    def give_up(self, reason: DropReason) -> None:
        """Drop what is on its way."""
        for letter in () if self.flight is None else self.flight.letters:
            self.answered(letter.envelope.id, reason)

    def refused(self, until: float) -> None:
        """Note that the server has no room: what is on its way is not sent, and is tried again."""
        if self.flight is not None:
            flight, self.flight = self.flight, None
            self.outgoing.put_back(flight.letters)
        self.was_refused = True
        self.rests_until = until

    def answered(self, message_id: str, reason: DropReason | None) -> bool:
        """Settle what an answer is for; say whether it was of this lane."""
        letter = self.outgoing.accepted.get(message_id)
        if letter is None:
            return False
        self.outgoing.answer(message_id, reason)
        if reason in {DropReason.CLOSED, DropReason.NOT_RECORDED}:
            self.route.post.may_be_sent_again(message_id)
        self._wake(letter)
        return True

    def drop(self, reason: DropReason, but: Callable[[Letter], bool] | None = None) -> None:
        """Give up what has no answer, and who waits for room."""
        for letter in self.outgoing.drop_all(reason, but=but):
            self.route.post.may_be_sent_again(letter.envelope.id)
            self._wake(letter)

    def expire(self, earliest: int) -> None:
        """Settle as EXPIRED what was issued before: nobody admits it any more, or its answer is lost."""
        for letter in list(self.outgoing.accepted.values()):
            if letter.issued_at < earliest:
                self.answered(letter.envelope.id, DropReason.EXPIRED)


@final
class Route:
    """What one identity sends to one peer."""

    __slots__ = ("key", "peer_id", "post", "ways")

    def __init__(self, post: Post, peer_id: PeerId, key: bytes) -> None:
        self.post: Post = post
        self.peer_id: PeerId = peer_id
        self.key: bytes = key
        self.ways: dict[Lane, Way] = {lane: Way(self, lane) for lane in _LANES}

    def prepare(self, envelope: Envelope) -> Letter:
        """Encode an envelope; one that the wire cannot carry has its receipt settled."""
        now = self.post.network.now()
        try:
            return Letter(envelope, encode_envelope(envelope, now), now)
        except WireRefused as refused:
            letter = Letter(envelope, b"", now)
            letter.receipt.settle(refused.reason)
            return letter

    def answered(self, answer: Answer) -> None:
        """Settle what an answer is for; one that is not known is passed over."""
        if answer.status is not _QUEUED:
            any(way.answered(answer.id, answer.reason) for way in self.ways.values())

    def drop(self, reason: DropReason, but: Callable[[Letter], bool] | None = None) -> None:
        """Give up what has no answer, and who waits for room."""
        for way in self.ways.values():
            way.drop(reason, but)

    @property
    def unanswered(self) -> int:
        """How many envelopes have no answer."""
        return sum(len(way.outgoing.accepted) for way in self.ways.values())

    @property
    def parked_senders(self) -> int:
        """How many tasks wait."""
        return sum(way.parked_senders for way in self.ways.values())


@final
class Post:
    """What one identity sends."""

    __slots__ = ("_sent", "fence", "identity", "limits", "network", "routes")

    def __init__(self, network: Network, identity: Identity) -> None:
        self.network: Network = network
        self.identity: Identity = identity
        self.limits: RedisLimits = network.limits
        self.fence: Fence | None = None
        self.routes: dict[PeerId, Route] = {}
        self._sent: OrderedDict[str, None] = OrderedDict()

    def route(self, peer_id: PeerId, key: bytes) -> Route:
        """Return the way to a peer."""
        route = self.routes.get(peer_id)
        if route is None:
            route = self.routes[peer_id] = Route(self, peer_id, key)
        return route

    def is_new(self, message_id: str) -> bool:
        """Say whether this side has not sent such an id, and remember it."""
        if message_id in self._sent:
            return False
        self._sent[message_id] = None
        if len(self._sent) > _SENT:
            self._sent.popitem(last=False)
        return True

    def may_be_sent_again(self, message_id: str) -> None:
        """Forget that an id was sent."""
        self._sent.pop(message_id, None)

    @property
    def parked_senders(self) -> int:
        """How many tasks of this side wait."""
        return sum(route.parked_senders for route in self.routes.values())

    def keep_house(self, earliest: int) -> None:
        """Let go of what has expired."""
        for peer_id, route in list(self.routes.items()):
            for way in route.ways.values():
                way.expire(earliest)
            if not (route.unanswered or any(way.has_something for way in route.ways.values())):
                del self.routes[peer_id]
