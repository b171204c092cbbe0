"""The one task that writes a machine's journal: what comes while a write is under way goes into the next one.

What holds:

1. Changes of one session are written in the order in which they were put.
2. A change that was put stands: it is tried again until it is written, or the machine gives the journal up at its end.
   An admission is only asked for: if it cannot be written it is refused, at once, and never written later.
3. Nobody is told that something is written before the journal has said so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

import trio

from ._exceptions import JournalFailed
from ._policy import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._policy import Random
    from .abc import Change, Entry, Journal
    from .authority import SessionId

__all__ = ["Admission", "JournalWriter"]

_logger: Final = logging.getLogger("meerkat_trio.journal")
_BACKOFF: Final = Backoff(limit=1.0)
_CLOSED: Final = "could not be written before the machine closed"


@final
class Admission:
    """An entry that is asked for: written, refused, or not known yet."""

    __slots__ = ("_is_known", "entry", "is_written", "session_id")

    is_written: bool
    """Whether it is written; says something only once `wait` has returned."""

    def __init__(self, session_id: SessionId, entry: Entry) -> None:
        self.session_id: SessionId = session_id
        self.entry: Entry = entry
        self.is_written = False
        self._is_known = trio.Event()

    def settle(self, *, is_written: bool) -> None:
        """Say what became of it."""
        self.is_written = is_written
        self._is_known.set()

    async def wait(self) -> None:
        """Wait until that is known.

        **Cancellation:** it is written or refused all the same.
        """
        await self._is_known.wait()


@final
class _Batch:
    """What is to be written together."""

    __slots__ = ("admissions", "changes", "over")

    def __init__(self) -> None:
        self.changes: dict[SessionId, list[Change]] = {}
        self.admissions: list[Admission] = []
        # Its own, and those of later ones that it has taken in.
        self.over: list[trio.Event] = [trio.Event()]

    def put(self, session_id: SessionId, change: Change) -> None:
        changes = self.changes.get(session_id)
        if changes is None:
            self.changes[session_id] = [change]
        else:
            changes.append(change)

    def take_in(self, later: _Batch) -> None:
        for session_id, changes in later.changes.items():
            self.changes.setdefault(session_id, []).extend(changes)
        self.admissions += later.admissions
        self.over += later.over

    def refuse_admissions(self) -> None:
        for admission in self.admissions:
            changes = self.changes[admission.session_id]
            changes[:] = [change for change in changes if change is not admission.entry]
            if not changes:
                del self.changes[admission.session_id]
            admission.settle(is_written=False)
        self.admissions = []

    def end(self, moved: frozenset[SessionId] = frozenset()) -> None:
        for admission in self.admissions:
            admission.settle(is_written=admission.session_id not in moved)
        for event in self.over:
            event.set()


@final
class JournalWriter:
    """Writes what the sessions of one machine put."""

    __slots__ = (
        "_closing",
        "_is_over",
        "_journal",
        "_name",
        "_next",
        "_on_moved",
        "_random",
        "_scope",
        "_wake",
        "is_failing",
    )

    is_failing: bool
    """Whether the last write has failed."""

    def __init__(self, journal: Journal, *, on_moved: Callable[[SessionId], None], random: Random) -> None:
        self._journal = journal
        self._name = repr(journal)
        self._on_moved = on_moved
        self._random = random
        self._next = _Batch()
        self._wake = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._closing = False
        self._is_over = False
        self.is_failing = False

    def put(self, session_id: SessionId, change: Change) -> trio.Event:
        """Have a change written; return what is set once it and all before it are."""
        self._next.put(session_id, change)
        self._wake.set()
        return self._next.over[0]

    def ask(self, session_id: SessionId, entry: Entry) -> Admission:
        """Have an entry written, or be told that it cannot be."""
        admission = Admission(session_id, entry)
        self._next.admissions.append(admission)
        self.put(session_id, entry)
        return admission

    def is_doubtful(self, session_id: SessionId) -> bool:
        """Say whether a session may have another home by now: `find_out`."""
        return self._journal.is_doubtful(session_id)

    def find_out(self, session_id: SessionId) -> trio.Event:
        """Have the journal asked who is a session's home; return what is set once that is known."""
        self._next.changes.setdefault(session_id, [])
        self._wake.set()
        return self._next.over[0]

    def close(self, deadline: float) -> None:
        """Write what is left, until ``deadline`` at the latest, and end."""
        self._closing = True
        self._scope.deadline = deadline
        self._wake.set()

    async def run(self) -> None:
        """Be the task that writes.

        **Cancellation:** shielded; ended by `close` alone.
        """
        batch = _Batch()
        try:
            with self._scope:
                while await self._has_work():
                    batch, self._next = self._next, _Batch()
                    await self._write(batch)
                    batch = _Batch()
        finally:
            # Also where a journal raised what nobody expects: who waits is told, and who comes later does not wait.
            self._closing = True
            batch.take_in(self._next)
            self._next = _Batch()
            if batch.changes:
                batch.refuse_admissions()
            if batch.changes:
                _logger.error(
                    "%s: changes of %d sessions were not written; nobody was told that they are",
                    self._name,
                    len(batch.changes),
                )
            self.is_failing = self.is_failing or bool(batch.changes)
            self._is_over = True
            batch.end()

    async def _has_work(self) -> bool:
        while not self._next.changes and not self._closing:
            self._wake = trio.Event()
            await self._wake.wait()
        return bool(self._next.changes)

    async def _write(self, batch: _Batch) -> None:
        failures = 0
        while batch.changes:
            try:
                moved = await self._journal.append(batch.changes)
            except Exception as error:  # noqa: BLE001 - whatever a journal raises, nothing was written
                failures += 1
                self._has_failed(error)
                batch.refuse_admissions()
                if batch.changes:
                    self._wake = trio.Event()
                    with trio.move_on_after(_BACKOFF.delay(failures, self._random)):
                        await self._wake.wait()
                    batch.take_in(self._next)
                    self._next = _Batch()
            else:
                self._has_written()
                for session_id in moved:
                    self._on_moved(session_id)
                batch.end(moved)
                return
        batch.end()

    def _has_failed(self, error: Exception) -> None:
        if not self.is_failing:
            self.is_failing = True
            _logger.error("cannot write: %s; nothing is admitted until that is over", _text(self._name, error))

    def _has_written(self) -> None:
        if self.is_failing:
            self.is_failing = False
            _logger.warning("%s: can be written again", self._name)

    async def until(self, event: trio.Event) -> None:
        """Wait for what `put` has returned.

        Raises:
            JournalFailed: the machine has closed, and it was not written.

        **Cancellation:** it will be written all the same.
        """
        if self._is_over:
            # What is put now, nobody writes any more.
            raise JournalFailed(self._name, _CLOSED)
        await event.wait()
        if self._closing and self.is_failing:
            raise JournalFailed(self._name, _CLOSED)


def _text(name: str, error: Exception) -> str:
    return str(error) if isinstance(error, JournalFailed) else f"{name}: {error!r}"
