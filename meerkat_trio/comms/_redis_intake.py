"""What was read of one lane and is not answered: entries of up to 64 envelopes, and what is to be written of them.

Values and bookkeeping; what becomes of an envelope is the mailbox's business.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, final

from ..authority import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._messages import Envelope
    from ..authority import DropReason, PeerId
    from ._arrivals import Arrival
    from ._redis_limits import Fence

__all__ = ["LANES", "Change", "Entry", "Intake", "Part"]

LANES: Final = (Lane.CONTROL, Lane.WORK)
"""In the order in which scripts have the streams."""
_FIRST: Final = b"0"
_NEW: Final = b">"


class Home(Protocol):
    """Whose entries these are."""

    fence: Fence | None

    def settled(self, entry: Entry, index: int, arrival: Arrival) -> None:
        """Note what became of an envelope."""


@final
class Entry:
    """A bundle that was read and is not answered as a whole."""

    __slots__ = ("answered", "answers", "id", "intake", "is_given_back", "left", "origin", "refused")

    answered: int
    """By envelope a bit: it is answered."""
    is_given_back: bool
    """Whether an envelope of it is left to whoever is next."""
    left: int
    """How many envelopes are to be admitted or dropped."""
    refused: DropReason | None
    """Why it is put aside."""

    def __init__(self, intake: Intake, entry_id: bytes, answered: int) -> None:
        self.intake: Intake = intake
        self.id: bytes = entry_id
        self.origin: PeerId | None = None
        self.answers: str = ""
        self.answered = answered
        self.is_given_back = False
        self.left = 1  # not done before it is taken as a whole
        self.refused = None


@final
class Part:
    """One envelope of an entry, for which an answer comes."""

    __slots__ = ("entry", "home", "index")

    def __init__(self, home: Home, entry: Entry, index: int) -> None:
        self.home = home
        self.entry = entry
        self.index = index

    def tell(self, arrival: Arrival) -> None:
        """Take the answer."""
        self.home.settled(self.entry, self.index, arrival)


@final
class Intake:
    """One lane of a mailbox."""

    __slots__ = ("_replays", "cursor", "entries", "held", "is_left_out", "is_ready", "lane", "stream")

    cursor: bytes
    """Where the next reading begins: at an entry that is pending for us already, or at the new ones."""
    held: deque[tuple[Envelope, Arrival]]
    is_ready: bool
    """Whether stream and group are known to be there."""
    is_left_out: bool
    """Whether the present reading does without it, for want of room."""

    def __init__(self, lane: Lane, stream: str) -> None:
        self.lane: Lane = lane
        self.stream: str = stream
        self.entries: dict[bytes, Entry] = {}
        self.held = deque()
        self.is_left_out = False
        self._replays = 0
        self.begin_again()

    def begin_again(self) -> None:
        """Make sure of the group, then replay."""
        self.is_ready = False
        self.replay()

    def replay(self) -> None:
        """Read what is pending for us before anything new; what is here is known by its entry's id."""
        self.cursor = _FIRST
        self._replays += 1

    @property
    def place(self) -> tuple[bytes, int]:
        """Where the next reading begins, for `has_read`."""
        return self.cursor, self._replays

    def has_read(self, place: tuple[bytes, int], entries: Sequence[Sequence[bytes]]) -> None:
        """Note how far it was read, unless it has to begin again meanwhile."""
        if place == self.place and self.cursor != _NEW:
            self.cursor = entries[-1][0] if entries else _NEW


@final
class Change:
    """What is to happen to one entry."""

    __slots__ = ("entry_id", "mask", "refused", "stream")

    def __init__(self, entry: Entry) -> None:
        is_done = not (entry.left or entry.is_given_back)
        self.stream: int = 1 + LANES.index(entry.intake.lane)
        self.entry_id: bytes = entry.id
        self.mask: str = "" if is_done else str(entry.answered)
        self.refused: str = "" if entry.refused is None else entry.refused.value

    def arguments(self) -> tuple[int | bytes | str, ...]:
        """Return them in the order of the script."""
        return self.stream, self.entry_id, self.mask, self.refused
