"""A journal in memory: for tests that restart a machine, and that let its journal fail or its process die.

What it holds outlives a machine, not the process. It keeps the contract of `meerkat_trio.abc.Journal`, but for what a
test tells it to do to a write.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Self

import trio

from .._exceptions import JournalFailed, JournalRefused
from ..abc import Delete, Entry, Forget, Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from ..abc import Change
    from ..authority import SessionId

__all__ = ["MemoryJournal", "WriteFault"]


class WriteFault(Enum):
    """What happens to one write."""

    NONE = "none"
    """It is written, after a checkpoint."""
    FAILS = "fails"
    """Nothing is written, and that is said."""
    DIES_BEFORE = "dies_before"
    """The process dies: nothing is written, and nothing is said."""
    DIES_AFTER = "dies_after"
    """The process dies: it is written, and nothing is said."""


class MemoryJournal(Journal):
    """A journal that outlives the machines that are opened with it, one after the other."""

    __slots__ = ("_entries", "_faults", "_in_use", "_seconds", "died", "is_dead", "writes")

    died: trio.Event
    """Set once a write has ended the process: the test has to cancel its machine then."""
    is_dead: bool
    """As ``died``. What is seen of the machine from then on, nobody could have seen."""
    writes: int
    """How many writes there were."""

    def __init__(self, faults: Callable[[], WriteFault] = lambda: WriteFault.NONE, *, seconds: float = 0.0) -> None:
        """Make an empty journal.

        Args:
            faults: asked before every write what is to happen to it.
            seconds: how long a write takes; under a clock that jumps, everything else that can be done comes first.
        """
        self._seconds = seconds
        self._faults = faults
        self._entries: dict[SessionId, dict[tuple[str, str], Entry]] = {}
        self._in_use = False
        self.died = trio.Event()
        self.is_dead = False
        self.writes = 0

    async def __aenter__(self) -> Self:
        """Take it, if no other machine has it.

        **Cancellation:** it is as it was.
        """
        await trio.lowlevel.checkpoint()
        if self._in_use:
            raise JournalRefused(repr(self), "in use by another machine")
        self._in_use = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Let go of it.

        **Cancellation:** it is free in any case.
        """
        self._in_use = False
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def restore(self, session_id: SessionId | None = None) -> Mapping[SessionId, Sequence[Entry]]:
        """Return what is remembered of one session, or of all.

        **Cancellation:** nothing has changed.
        """
        await trio.lowlevel.checkpoint()
        wanted = self._entries if session_id is None else {session_id: self._entries.get(session_id, {})}
        return {
            each: sorted(entries.values(), key=lambda entry: entry.position)
            for each, entries in wanted.items()
            if entries
        }

    async def append(self, changes: Mapping[SessionId, Sequence[Change]]) -> frozenset[SessionId]:
        """Make changes, unless the test has it otherwise.

        **Cancellation:** nothing was written.
        """
        self.writes += 1
        fault = self._faults()
        if not self.is_dead:
            await trio.sleep(self._seconds)
        if self.is_dead:
            await trio.sleep_forever()
        if fault is WriteFault.FAILS:
            raise JournalFailed(repr(self), "the test has it so")
        if fault is not WriteFault.DIES_BEFORE:
            for session_id, of_session in changes.items():
                self._change(session_id, of_session)
        if fault is not WriteFault.NONE:
            self.is_dead = True
            self.died.set()
            await trio.sleep_forever()
        return frozenset()

    def _change(self, session_id: SessionId, changes: Sequence[Change]) -> None:
        entries = self._entries.setdefault(session_id, {})
        for change in changes:
            match change:
                case Entry(kind=kind, key=key):
                    entries[kind, key] = change
                case Delete(kind=kind, key=key):
                    entries.pop((kind, key), None)
                case Forget():
                    entries.clear()

    def rise(
        self, faults: Callable[[], WriteFault] = lambda: WriteFault.NONE, *, seconds: float = 0.0
    ) -> MemoryJournal:
        """Return what a new process finds: a journal that holds what was written."""
        found = MemoryJournal(faults, seconds=seconds)
        found._entries = {session_id: dict(entries) for session_id, entries in self._entries.items()}
        return found

    def __repr__(self) -> str:
        return f"<MemoryJournal of {len(self._entries)} sessions>"
