"""The journal of one machine: an SQLite file. What is to be done is handed to `_sqlite_thread`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import trio
from attrs import frozen

from ..abc import Change, Entry, Journal
from ..authority import SessionId
from ._sqlite_file import compacted
from ._sqlite_rows import read_rows
from ._sqlite_thread import Worker

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from ._sqlite_file import Durability

__all__ = ["SqliteJournal", "SqliteStatistics"]


@frozen(kw_only=True)
class SqliteStatistics:
    """What a journal has done since it was entered, and how long its file is."""

    appends: int
    """Appends that were written."""
    commits: int
    """Transactions that they were written in."""
    file_bytes: int
    """Length of the file."""
    log_bytes: int
    """Length of the write-ahead log beside it."""


@final
class SqliteJournal(Journal):
    """A journal in an SQLite file, for one machine at a time.

    Args:
        path: where it is; a symbolic link is followed. One that is not there, or is empty, is made, for its owner alone
            to read.
        durability: ``"full"``: what was appended survives a power cut as well. ``"normal"``: it survives the death of
            the process, however it dies, but a power cut may take the last commits. Both leave a sound file.

    Appends of many tasks are committed together: the more wait, the less each costs. docs/journal.md has the rest.
    """

    __slots__ = ("_durability", "_path", "_worker")

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability = "full") -> None:
        if durability not in {"full", "normal"}:
            raise ValueError(f"durability is 'full' or 'normal', not {durability!r}")
        self._path = Path(path)
        self._durability: Durability = durability
        self._worker: Worker | None = None

    def __repr__(self) -> str:
        return f"<SqliteJournal {str(self._path)!r} {'closed' if self._worker is None else 'open'}>"

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    async def __aenter__(self) -> SqliteJournal:
        """Take the file for this machine alone, look it through, and make it if it is not there.

        Raises:
            JournalRefused: it is damaged, no journal, of a newer version, or in use; it is left as it is.
            JournalFailed: it cannot be made, read or written.

        **Cancellation:** it is as it was, and free. A file that is being looked through is let go of soon.
        """
        if self._worker is not None:
            raise RuntimeError("this journal is open already")
        worker = Worker(self._path, self._durability)
        await worker.start()
        self._worker = worker
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Let go of the file, once what was handed over is written, and end the thread.

        **Cancellation:** the same; it is not cut short.
        """
        worker = self._open
        self._worker = None
        await worker.stop()  # noqa: ASYNC102 - it cannot be cancelled, and ends by itself

    async def restore(self, session_id: SessionId | None = None) -> Mapping[SessionId, Sequence[Entry]]:
        """Return what is remembered of one session, or of all.

        Raises:
            JournalRefused: it is damaged.
            JournalFailed: it cannot be read.
            trio.ClosedResourceError: it is not open.

        **Cancellation:** nothing has changed; the reading ends soon.
        """
        return await self._open.call(lambda connection: read_rows(connection, session_id))

    async def append(self, changes: Mapping[SessionId, Sequence[Change]]) -> frozenset[SessionId]:
        """Make changes, all of them or none; no session has another home, so none is returned.

        Raises:
            JournalFailed: nothing was written; it may be tried again.
            trio.ClosedResourceError: the journal is not open.

        **Cancellation:** if it raises `trio.Cancelled`, nothing was written. A cancellation that comes later, when the
        thread has the changes, is not raised here: the answer is waited for, for the milliseconds of a commit and at
        most for the seconds in which another program holds the file, and returned or raised. So every caller knows
        whether its changes stand; it is cancelled at its next checkpoint.
        """
        return await self._open.append(changes)

    async def compact(self) -> None:
        """Give back to the system what room the file no longer needs. Appends wait meanwhile.

        Raises:
            JournalFailed: it cannot be written, for it needs as much room again; the entries are as they were.
            JournalRefused: it is damaged.
            trio.ClosedResourceError: it is not open.

        **Cancellation:** the entries are as they were; it ends soon.
        """
        await self._open.call(compacted)

    def statistics(self) -> SqliteStatistics:
        """Return what was done since it was entered, and how long the file is.

        Raises:
            trio.ClosedResourceError: it is not open.
        """
        worker = self._open
        return SqliteStatistics(
            appends=worker.appends,
            commits=worker.commits,
            file_bytes=_length(worker.real),
            log_bytes=_length(Path(f"{worker.real}-wal")),
        )

    @property
    def _open(self) -> Worker:
        if self._worker is None:
            raise trio.ClosedResourceError("this journal is not open; enter it first")
        return self._worker


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
