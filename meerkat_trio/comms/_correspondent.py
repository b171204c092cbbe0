"""One peer, as one side deals with it over sockets: what is on its way to it, what came from it, who carries it.

It outlives connections. What came and has no room in the inbox yet waits here, in order, and not in the task that
read it: so a connection that is cut loses nothing, and nobody's full lane stops the answers that come behind it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from .._messages import Receipt, ReceiptStatus
from ..authority import DropReason, Lane
from ._envelope import ACCEPTANCE_WINDOW, encode_envelope
from ._exceptions import WireRefused
from ._outgoing import Letter, OutgoingLane

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .._messages import Envelope
    from ..authority import PeerId
    from ._arrivals import Arrival
    from ._frames import Answer
    from ._inbox import Inbox
    from ._limits import SocketLimits

__all__ = ["Carrier", "Correspondent", "Home"]

_LANES: Final = (Lane.CONTROL, Lane.WORK)
_MAY_COME_AGAIN: Final = {DropReason.EXPIRED, DropReason.NOT_RECORDED}
"""What the other side does not remember: the same id may be sent to it again."""
_STALE: Final = 1000
"""After so many milliseconds of waiting for room an envelope is given a new time of issue."""


class Carrier(Protocol):
    """A connection, as what travels on it knows it."""

    def wake(self) -> None:
        """There is something to write."""


class Home(Protocol):
    """The side whose peer this is."""

    limits: SocketLimits

    @property
    def inbox(self) -> Inbox | None:
        """Where envelopes go at this moment."""

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""

    def is_new(self, message_id: str) -> bool:
        """Say whether this side has not sent such an id, and remember it."""

    def may_be_sent_again(self, message_id: str) -> None:
        """Forget that an id was sent."""

    def spawn(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task that lives as long as the network."""

    def look_for(self, correspondent: Correspondent) -> None:
        """See to it that there is a connection soon."""

    def has_less_of(self, correspondent: Correspondent) -> None:
        """Note that what waited for room has it."""


@final
class Correspondent:
    """One peer of one side."""

    __slots__ = (
        "_home",
        "_incoming",
        "_pumping",
        "_room",
        "carrier",
        "held",
        "held_bytes",
        "is_sought",
        "lanes",
        "peer_id",
    )

    carrier: Carrier | None
    """The present connection: the newest."""
    is_sought: bool
    """Whether a task tries to connect to it."""
    lanes: dict[Lane, OutgoingLane]

    def __init__(self, home: Home, peer_id: PeerId) -> None:
        self._home = home
        self.peer_id: PeerId = peer_id
        # Both lanes together have room on the other side, so that it goes on to read the answers that come behind them.
        most = home.limits.held_bytes // len(_LANES)
        self.lanes = {lane: OutgoingLane(home.limits.unanswered, most, self._accepts) for lane in _LANES}
        self.carrier = None
        self.is_sought = False
        self.held: int = 0
        self.held_bytes: int = 0
        self._incoming: dict[Lane, deque[tuple[Envelope, Arrival, int]]] = {lane: deque() for lane in _LANES}
        self._pumping: set[Lane] = set()
        self._room: trio.Event | None = None

    # -- what is sent to it

    def prepare(self, envelope: Envelope) -> Letter:
        """Encode an envelope; one that the wire cannot carry has its receipt settled."""
        now = self._home.now()
        try:
            return Letter(envelope, encode_envelope(envelope, now), now)
        except WireRefused as refused:
            letter = Letter(envelope, b"", now)
            letter.receipt.settle(refused.reason)
            return letter

    def send_nowait(self, envelope: Envelope) -> Receipt:
        """Accept an envelope.

        Raises:
            trio.WouldBlock: there is no room, or others wait for it.
        """
        lane = self.lanes[envelope.lane]
        if lane.is_full:
            raise trio.WouldBlock
        letter = self.prepare(envelope)
        if letter.receipt.reason is None:
            lane.accept(letter)
        return letter.receipt

    async def send(self, envelope: Envelope) -> Receipt:
        """Accept an envelope, waiting for room.

        **Cancellation:** cancelled, it was not accepted.
        """
        lane = self.lanes[envelope.lane]
        if not lane.is_full:
            await trio.lowlevel.checkpoint_if_cancelled()
            receipt = self.send_nowait(envelope)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return receipt
        letter = self.prepare(envelope)
        if letter.receipt.reason is None:
            return await lane.wait_accepted(letter)
        await trio.lowlevel.checkpoint()
        return letter.receipt

    def _accepts(self, letter: Letter) -> bool:
        home, envelope = self._home, letter.envelope
        if home.now() - letter.issued_at > _STALE:
            again = self.prepare(envelope)
            letter.data, letter.issued_at = again.data, again.issued_at
            if again.receipt.reason is not None:
                letter.receipt.settle(again.receipt.reason)
                return False
        if not home.is_new(envelope.id):
            letter.receipt.settle(DropReason.DUPLICATE)
            return False
        if self.carrier is not None:
            self.carrier.wake()
        elif not self.is_sought:
            home.look_for(self)
        return True

    @property
    def has_unanswered(self) -> bool:
        """Whether anything it was sent has no answer."""
        return any(lane.accepted for lane in self.lanes.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way to it, nor waits for room from it."""
        return not (self.has_unanswered or self.parked_senders or self.held or self._pumping)

    @property
    def waits_for_answers(self) -> bool:
        """Whether the present connection has carried something that has no answer."""
        return any(len(lane.accepted) > len(lane.unsent) for lane in self.lanes.values())

    @property
    def parked_senders(self) -> int:
        """How many wait for room."""
        return sum(len(lane.parked) for lane in self.lanes.values())

    def unsent_count(self) -> int:
        """Count what the present connection has not carried."""
        return sum(len(lane.unsent) for lane in self.lanes.values())

    def take_unsent(self, count: int, size: int) -> Iterator[bytes]:
        """Take what the present connection is to carry next, control first: at least one, if any may go."""
        room = size
        for lane in self.lanes.values():
            while lane.may_go_on and count and (room == size or len(lane.unsent[0].data) <= room):
                data = lane.carry()
                count -= 1
                room -= len(data)
                yield data
            if lane.may_go_on:
                return

    def answered(self, answer: Answer) -> None:
        """Settle what an answer is for; one that is not known is passed over."""
        if answer.status is not ReceiptStatus.QUEUED:
            if answer.reason in _MAY_COME_AGAIN:
                self._home.may_be_sent_again(answer.id)
            any(lane.answer(answer.id, answer.reason) for lane in self.lanes.values())

    def give_up(self) -> None:
        """Drop everything on its way to it as CLOSED: it cannot be found."""
        for lane in self.lanes.values():
            for letter in lane.drop_all(DropReason.CLOSED):
                self._home.may_be_sent_again(letter.envelope.id)

    def expire(self) -> None:
        """Drop what no receiver would take any more."""
        earliest = self._home.now() - int(ACCEPTANCE_WINDOW * 1000)
        for lane in self.lanes.values():
            expired = [letter.envelope.id for letter in lane.accepted.values() if letter.issued_at < earliest]
            for message_id in expired:
                self._home.may_be_sent_again(message_id)
                lane.answer(message_id, DropReason.EXPIRED)

    # -- who carries it

    def carried_by(self, carrier: Carrier) -> None:
        """Let a new connection carry everything: all without an answer is sent again, in the old order."""
        self.carrier = carrier
        for lane in self.lanes.values():
            lane.rewind()

    def lost(self, carrier: Carrier, successor: Carrier | None) -> None:
        """Note that a connection is gone; if it was the present one, another takes its place."""
        if self.carrier is not carrier:
            return
        if successor is not None:
            self.carried_by(successor)
            successor.wake()
            return
        self.carrier = None
        if self.has_unanswered and not self.is_sought:
            self._home.look_for(self)

    # -- what comes from it

    def deliver(self, envelope: Envelope, arrival: Arrival, size: int) -> None:
        """Put an envelope into the inbox; without room there it waits here, and no later one gets past it."""
        incoming = self._incoming[envelope.lane]
        inbox = self._home.inbox
        if not incoming and inbox is not None:
            try:
                receipt = inbox.put_nowait(envelope)
            except trio.WouldBlock:
                pass
            else:
                receipt.tell(arrival.settle)
                return
        incoming.append((envelope, arrival, size))
        self.held += 1
        self.held_bytes += size
        if envelope.lane not in self._pumping:
            self._pumping.add(envelope.lane)
            self._home.spawn(self._pump, envelope.lane)

    async def _pump(self, lane: Lane) -> None:
        incoming = self._incoming[lane]
        try:
            while incoming:
                envelope, arrival, _ = incoming[0]
                inbox = self._home.inbox
                # Without one it is what was left to us, before we were in line.
                receipt = Receipt.dropped(DropReason.CLOSED) if inbox is None else await inbox.put(envelope)
                if incoming and incoming[0][1] is arrival:
                    self._release(incoming)
                receipt.tell(arrival.settle)
        finally:
            self._pumping.discard(lane)
            self._home.has_less_of(self)

    def _release(self, incoming: deque[tuple[Envelope, Arrival, int]]) -> None:
        _, _, size = incoming.popleft()
        self.held -= 1
        self.held_bytes -= size
        if self._room is not None and not self._is_crowded:
            self._room.set()
            self._room = None

    @property
    def _is_crowded(self) -> bool:
        limits = self._home.limits
        return self.held >= limits.held_envelopes or self.held_bytes >= limits.held_bytes

    async def wait_for_room(self) -> None:
        """Wait while too much of this peer's waits for room in the inbox: no more of it is read.

        **Cancellation:** nothing is lost.
        """
        while self._is_crowded:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    def discard_incoming(self) -> list[Arrival]:
        """Let go of what waits here; return it, for it is owed no answer any more.

        What is in line at the inbox already stays: it goes where the inbox goes.
        """
        discarded: list[Arrival] = []
        for lane, incoming in self._incoming.items():
            first = [incoming.popleft()] if incoming and lane in self._pumping else []
            while incoming:
                discarded.append(incoming[0][1])
                self._release(incoming)
            incoming.extend(first)
        return discarded
