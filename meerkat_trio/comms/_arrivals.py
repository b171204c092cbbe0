"""What one side has been sent: each envelope once, and for its twins the first answer (D23).

Envelopes are told apart by sender and id. What is remembered is forgotten once no twin can be accepted any more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol, final

from ._envelope import ACCEPTANCE_WINDOW, CLOCK_SKEW

if TYPE_CHECKING:
    from .._messages import Receipt
    from ..authority import DropReason, MessageId, PeerId

__all__ = ["Arrival", "Arrivals"]

_REMEMBERED_FOR: Final = int((ACCEPTANCE_WINDOW + CLOCK_SKEW) * 1000)
"""In milliseconds from the issue."""


class _Home(Protocol):
    def has_answered(self, arrival: Arrival) -> bool: ...


class _Teller(Protocol):
    def tell(self, arrival: Arrival) -> None: ...


@final
class Arrival:
    """One envelope that has come, and what became of it."""

    __slots__ = ("_home", "expires", "id", "is_answered", "reason", "sender", "tellers")

    is_answered: bool
    """Whether it was admitted or dropped; until then it is owed an answer."""
    reason: DropReason | None
    """Why it was dropped."""
    tellers: tuple[_Teller, ...]
    """The connections by which it, or a twin, has come: each carries the answer, for each may be the one that lives."""

    def __init__(  # noqa: PLR0917 - one for each envelope: names would cost
        self,
        home: _Home,
        sender: PeerId,
        message_id: MessageId,
        issued_at: int,
        teller: _Teller,
        remembered_for: int = _REMEMBERED_FOR,
    ) -> None:
        self._home = home
        self.sender: PeerId = sender
        self.id: MessageId = message_id
        self.expires: int = issued_at + remembered_for
        self.tellers = (teller,)
        self.is_answered = False
        self.reason = None

    def settle(self, receipt: Receipt) -> None:
        """Note the answer, and have it told unless home keeps silent."""
        self.is_answered = True
        self.reason = receipt.reason
        tellers, self.tellers = self.tellers, ()
        if self._home.has_answered(self):
            for teller in tellers:
                teller.tell(self)


@final
class Arrivals:
    """The arrivals of one side, by sender and id."""

    __slots__ = ("_by_sender", "_count", "_limit")

    def __init__(self, limit: int) -> None:
        """Make an empty memory of at most ``limit`` answers; those still owed do not count for it."""
        self._limit = limit
        self._count = 0
        self._by_sender: dict[PeerId, OrderedDict[MessageId, Arrival]] = {}

    def __len__(self) -> int:
        return self._count

    def get(self, sender: PeerId, message_id: MessageId) -> Arrival | None:
        """Return what is remembered of an envelope."""
        of_sender = self._by_sender.get(sender)
        return None if of_sender is None else of_sender.get(message_id)

    def add(self, arrival: Arrival, now: int) -> None:
        """Remember an arrival, and forget what has expired.

        Where that is too much, the oldest of whoever has the most goes: nobody pushes out what another has sent.
        """
        of_sender = self._by_sender.setdefault(arrival.sender, OrderedDict())
        of_sender[arrival.id] = arrival
        self._count += 1
        self._trim(of_sender, now)
        if self._count > self._limit:
            self._trim(max(self._by_sender.values(), key=len), now, least=1)

    def expire(self, now: int) -> None:
        """Forget what has expired, also of those who send nothing any more."""
        for sender, of_sender in list(self._by_sender.items()):
            self._trim(of_sender, now)
            if not of_sender:
                del self._by_sender[sender]

    def _trim(self, of_sender: OrderedDict[MessageId, Arrival], now: int, least: int = 0) -> None:
        """Forget what has expired of one sender, and so many more."""
        while of_sender:
            message_id, oldest = next(iter(of_sender.items()))
            if not oldest.is_answered:
                # Never forgotten while it is owed; it must not keep the others from being so.
                of_sender.move_to_end(message_id)
                return
            if oldest.expires >= now and least <= 0:
                return
            del of_sender[message_id]
            self._count -= 1
            least -= 1

    def forget(self, arrival: Arrival) -> None:
        """Take an envelope as if it had never come: a twin of it may be admitted."""
        if self.get(arrival.sender, arrival.id) is arrival:
            del self._by_sender[arrival.sender][arrival.id]
            self._count -= 1
