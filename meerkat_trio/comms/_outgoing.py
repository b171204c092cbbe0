"""What was accepted for one peer in one lane and has no answer yet, and the senders that wait for room.

Knows order and room alone; how bytes travel, and what an id is worth, is not its business.

What holds at every moment:

1. An envelope stays here, at its place, until it is answered. Being sent only moves it out of `unsent`, so that after a
   lost connection all that is here is unsent again, in the old order.
2. A sender is parked only while the lane is full; whoever makes room accepts the parked envelope and then wakes its
   sender. So a parked sender that is cancelled was not sent, and a woken one has its receipt.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, final

import trio

from .._messages import Envelope, Receipt
from ..authority import DropReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Letter", "OutgoingLane"]


@final
class Letter:
    """One envelope on its way: its bytes, which are sent again unchanged, and its receipt."""

    __slots__ = ("data", "envelope", "issued_at", "receipt")

    def __init__(self, envelope: Envelope, data: bytes, issued_at: int) -> None:
        self.envelope: Envelope = envelope
        self.data: bytes = data
        self.issued_at: int = issued_at
        self.receipt: Receipt = Receipt()


@final
class _Parked:
    __slots__ = ("lane", "letter", "task")

    def __init__(self, lane: OutgoingLane, letter: Letter) -> None:
        self.lane = lane
        self.letter = letter
        self.task = trio.lowlevel.current_task()

    def abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """Leave the lane: the envelope was not sent."""
        self.lane.parked.pop(self, None)
        return trio.lowlevel.Abort.SUCCEEDED


@final
class OutgoingLane:
    """One lane on its way to one peer."""

    __slots__ = ("_accepts", "_limit", "_most", "accepted", "carried", "parked", "unsent")

    accepted: dict[str, Letter]
    """What has no answer, by id, in the order in which it was accepted."""
    unsent: deque[Letter]
    """The part of it that the present connection has not carried."""
    carried: int
    """How many bytes the other part has."""
    parked: OrderedDict[_Parked, None]
    """Who waits for room."""

    def __init__(self, limit: int, most: int, accepts: Callable[[Letter], bool]) -> None:
        """Make an empty lane.

        Args:
            limit: how many envelopes may be without an answer.
            most: how many bytes of those a connection carries, if they are several.
            accepts: asked at the moment of acceptance; False refuses, with a settled receipt.
        """
        self._limit = limit
        self._most = most
        self._accepts = accepts
        self.accepted = {}
        self.carried = 0
        self.unsent = deque()
        self.parked = OrderedDict()

    @property
    def is_full(self) -> bool:
        """Whether the next sender has to wait."""
        return len(self.accepted) >= self._limit or bool(self.parked)

    def accept(self, letter: Letter) -> Receipt:
        """Take an envelope for which there is room."""
        if self._accepts(letter):
            self.accepted[letter.envelope.id] = letter
            self.unsent.append(letter)
        return letter.receipt

    async def wait_accepted(self, letter: Letter) -> Receipt:
        """Wait for room; see `CommsRuntime.send`.

        **Cancellation:** cancelled, it was not accepted.
        """
        parked = _Parked(self, letter)
        self.parked[parked] = None
        await trio.lowlevel.wait_task_rescheduled(parked.abort)
        return letter.receipt

    def answer(self, message_id: str, reason: DropReason | None) -> bool:
        """Settle the receipt of an envelope, and give its room to who waits; say whether it was here."""
        letter = self.accepted.pop(message_id, None)
        if letter is None:
            return False
        if letter in self.unsent:
            self.unsent.remove(letter)
        else:
            self.carried -= len(letter.data)
        letter.receipt.settle(reason)
        self._hand_over()
        return True

    @property
    def may_go_on(self) -> bool:
        """Whether there is something that the present connection may carry now."""
        return bool(self.unsent) and (not self.carried or self.carried + len(self.unsent[0].data) <= self._most)

    def carry(self) -> bytes:
        """Take the next for the present connection."""
        data = self.unsent.popleft().data
        self.carried += len(data)
        return data

    def withdraw(self, letter: Letter) -> bool:
        """Take back what nothing has carried yet, and give its room to who waits; say whether that is so."""
        if letter not in self.unsent:
            return False
        self.unsent.remove(letter)
        del self.accepted[letter.envelope.id]
        self._hand_over()
        return True

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Let what was carried in vain be carried next, in its old order; not what was settled meanwhile."""
        back = [letter for letter in letters if self.accepted.get(letter.envelope.id) is letter]
        self.unsent.extendleft(reversed(back))
        self.carried -= sum(len(letter.data) for letter in back)

    def rewind(self) -> None:
        """Let everything be sent again: the connection that carried it is gone."""
        self.unsent = deque(self.accepted.values())
        self.carried = 0

    def drop_all(self, reason: DropReason, *, but: Callable[[Letter], bool] | None = None) -> list[Letter]:
        """Give everything up, and whoever waits for room too; return what had been accepted.

        Args:
            reason: what the receipts say.
            but: what stays where it is.
        """
        kept = {} if but is None else {id_: letter for id_, letter in self.accepted.items() if but(letter)}
        dropped = [letter for id_, letter in self.accepted.items() if id_ not in kept]
        self.accepted = kept
        parked, self.parked = self.parked, OrderedDict()
        self.unsent = deque(letter for letter in self.unsent if letter.envelope.id in kept)
        self.carried = sum(len(letter.data) for letter in kept.values()) - sum(len(each.data) for each in self.unsent)
        for letter in dropped:
            letter.receipt.settle(reason)
        for each in parked:
            each.letter.receipt.settle(reason)
            trio.lowlevel.reschedule(each.task)
        return dropped

    def _hand_over(self) -> None:
        while self.parked and len(self.accepted) < self._limit:
            parked, _ = self.parked.popitem(last=False)
            self.accept(parked.letter)
            trio.lowlevel.reschedule(parked.task)
