"""What one side has been sent: each envelope once, and for its twins the first answer (D23).

Envelopes are told apart by sender and id. What is remembered is forgotten once no twin can be accepted any more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol, final

from ._envelope import ACCEPTANCE_WINDOW, CLOCK_SKEW

if TYPE_CHECKING:
    from .._messages import Receipt
    from ..authority import DropReason, MessageId

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

    __slots__ = ("_home", "expires", "id", "is_answered", "key", "reason", "tellers")

    is_answered: bool
    """Whether it was admitted or dropped; until then it is owed an answer."""
    reason: DropReason | None
    """Why it was dropped."""
    tellers: tuple[_Teller, ...]
    """The connections by which it, or a twin, has come: each carries the answer, for each may be the one that lives."""

    def __init__(self, home: _Home, key: str, message_id: MessageId, issued_at: int, teller: _Teller) -> None:
        self._home = home
        self.key: str = key
        self.id: MessageId = message_id
        self.expires: int = issued_at + _REMEMBERED_FOR
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

    __slots__ = ("_arrivals", "_limit")

    def __init__(self, limit: int) -> None:
        """Make an empty memory of at most ``limit`` answers; those still owed do not count for it."""
        self._limit = limit
        self._arrivals: OrderedDict[str, Arrival] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def get(self, key: str) -> Arrival | None:
        """Return what is remembered of an envelope."""
        return self._arrivals.get(key)

    def add(self, arrival: Arrival, now: int) -> None:
        """Remember an arrival, and forget what has expired."""
        arrivals = self._arrivals
        arrivals[arrival.key] = arrival
        while True:
            key, oldest = next(iter(arrivals.items()))
            if not oldest.is_answered:
                # Never forgotten while it is owed; it must not keep the others from being so.
                arrivals.move_to_end(key)
                return
            if oldest.expires >= now and len(arrivals) <= self._limit:
                return
            del arrivals[key]

    def forget(self, arrival: Arrival) -> None:
        """Take an envelope as if it had never come: a twin of it may be admitted."""
        if self._arrivals.get(arrival.key) is arrival:
            del self._arrivals[arrival.key]
