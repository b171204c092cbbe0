"""A journal's file, opened: to be written by who has it alone, or read so that nothing in its directory changes.

Blocks on the disk: called in a thread or before the run. Knows the file's format from `_sqlite_schema`, and whose it is
from `_sqlite_lock`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

from .._exceptions import JournalFailed, JournalRefused
from ..comms._file_replacement import create_file, replace_file
from ._sqlite_lock import held_alone, held_with_readers, telling_of
from ._sqlite_rows import read_rows
from ._sqlite_schema import fresh_image, header_problem, is_damage, is_older, migrate, problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..abc import Entry
    from ..authority import SessionId

__all__ = ["STEPS", "Durability", "check", "compact", "compacted", "opened_for_writing", "read_entries", "telling_why"]

Durability: TypeAlias = Literal["full", "normal"]

_OLDEST: Final = (3, 37, 0)
_BUSY: Final = 5.0
"""Seconds for which another program may hold the file while it writes."""
_LOG_PAGES: Final = 1000
_LOG_BYTES: Final = 4 * 1024 * 1024
STEPS: Final = 10_000
"""Steps of SQLite's after which it is asked whether to go on: about a millisecond."""
_MODE: Final = 0o600


def _go_on() -> bool:
    return False


@contextlib.contextmanager
def opened_for_writing(
    path: Path, durability: Durability, *, stop: Callable[[], bool] = _go_on, make: bool = True
) -> Iterator[sqlite3.Connection]:
    """Hold a journal alone and open it; it is looked through first, and brought up if its schema is older.

    Args:
        path: where it is.
        durability: what a commit waits for.
        stop: asked from time to time while it is looked through; what it is left with then is an error.
        make: whether to make one that is not there.

    Raises:
        JournalRefused: it is damaged, no journal, of a newer version, or in use; it is left as it is.
        JournalFailed: it cannot be made, read or written.
    """
    with contextlib.ExitStack() as stack:
        with telling_why(path):
            real = Path(os.path.realpath(path))
            _enter(stack, path, real, make=make)
            _look_through(path, real, stop)
            connection = stack.enter_context(_connected(real, "mode=rw"))
            _set_up(connection, durability)
            _bring_up(path, connection)
            # Sessions that were left without entries, so that their ids do not gather.
            connection.execute("DELETE FROM sessions WHERE number NOT IN (SELECT session FROM entries)")
        yield connection


def check(path: str | os.PathLike[str]) -> list[str]:
    """Say what is wrong with a journal: nothing, if it is sound. Nothing is changed, and a machine may have it open.

    Raises:
        JournalFailed: it cannot be read.
    """
    path = Path(path)
    with telling_why(path), contextlib.ExitStack() as stack:
        real = Path(os.path.realpath(path))
        handle = stack.enter_context(held_with_readers(real))
        if handle is not None and (wrong := _first_problem(real, handle)) is not None:
            return [wrong]
        return list(
            problems(stack.enter_context(_connected_for_reading(real, alone=handle is not None)), thorough=True)
        )


def read_entries(path: str | os.PathLike[str]) -> Mapping[SessionId, Sequence[Entry]]:
    """Read all entries of a journal, by position. Nothing is changed, and a machine may have it open.

    Raises:
        JournalRefused: it is damaged, no journal, or of another version.
        JournalFailed: it cannot be read.
    """
    path = Path(path)
    with telling_why(path), contextlib.ExitStack() as stack:
        real = Path(os.path.realpath(path))
        handle = stack.enter_context(held_with_readers(real))
        if handle is not None:
            _refuse(path, _first_problem(real, handle))
        connection = stack.enter_context(_connected_for_reading(real, alone=handle is not None))
        # One state for both, also if a machine writes.
        connection.execute("BEGIN")
        _refuse(path, next(problems(connection, thorough=False), None))
        if is_older(connection):
            _refuse(path, "its schema is older; compact it, or let a machine open it, and it is brought up")
        return read_rows(connection)


def compact(path: str | os.PathLike[str]) -> None:
    """Give back to the system what room a journal that nobody uses no longer needs.

    Raises:
        JournalRefused: it is in use, damaged or no journal; it is left as it is.
        JournalFailed: it is not there, or cannot be written; its entries are as they were.
    """
    path = Path(path)
    with telling_why(path), opened_for_writing(path, "full", make=False) as connection:
        compacted(connection)


def compacted(connection: sqlite3.Connection) -> None:
    """Write the file anew without its gaps, and empty its log."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def telling_why(path: Path) -> Iterator[None]:
    """Say of which journal an error of SQLite or of the system is, and whether it is damaged or only failed."""
    try:
        with telling_of(path):
            yield
    except sqlite3.Error as error:
        if is_damage(error):
            raise JournalRefused(str(path), f"damaged: {error}") from error
        name = getattr(error, "sqlite_errorname", None)
        raise JournalFailed(str(path), f"{error} ({name})" if name else str(error)) from error


def _enter(stack: contextlib.ExitStack, path: Path, real: Path, *, make: bool) -> None:
    if sqlite3.sqlite_version_info < _OLDEST:
        raise JournalFailed(str(path), f"SQLite 3.37 or newer is needed, and this Python has {sqlite3.sqlite_version}")
    while True:
        with contextlib.ExitStack() as attempt:
            try:
                handle = attempt.enter_context(held_alone(real))
            except FileNotFoundError:
                if not make:
                    raise
                # Whoever else is making it too: one of them is first, and has it whole.
                with contextlib.suppress(FileExistsError):
                    create_file(real, fresh_image(), _MODE)
                continue
            if make and os.fstat(handle).st_size == 0:
                # What lies beside an empty file would be taken for a part of the new one.
                _refuse(path, _beside_problem(real, handle, logs=("-wal", "-journal")))
                replace_file(real, fresh_image(), _MODE)
                continue
            _refuse(path, _first_problem(real, handle))
            stack.push(attempt.pop_all())
            return


def _look_through(path: Path, real: Path, stop: Callable[[], bool]) -> None:
    with _connected_for_reading(real, alone=True) as connection:
        connection.set_progress_handler(stop, STEPS)
        _refuse(path, next(problems(connection, thorough=False), None))


def _set_up(connection: sqlite3.Connection, durability: Durability) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={durability}")
    connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")


def _bring_up(path: Path, connection: sqlite3.Connection) -> None:
    try:
        _refuse(path, next(migrate(connection), None))
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _first_problem(real: Path, handle: int) -> str | None:
    found = os.fstat(handle)
    header = os.pread(handle, 100, 0)
    return header_problem(header, found.st_size, logged=_size(real, "-wal") > 0) or _beside_problem(real, handle)


def _beside_problem(real: Path, handle: int, logs: tuple[str, ...] = ("-journal",)) -> str | None:
    if (names := os.fstat(handle).st_nlink) > 1:
        return f"it has {names} names (hard links), and its log would lie beside one of them alone; keep one"
    for log in logs:
        if _size(real, log) > 0:
            return f"{real.name}{log} lies beside it, which no journal leaves there"
    return None


@contextlib.contextmanager
def _connected_for_reading(real: Path, *, alone: bool) -> Iterator[sqlite3.Connection]:
    """Open a journal for reading; ``alone`` says that no machine has it open, nor will while this lasts."""
    with contextlib.ExitStack() as stack:
        if not alone:
            query = "mode=ro"
        elif _size(real, "-wal") == 0:
            query = "mode=ro&immutable=1"
        else:
            # SQLite cannot read a log without writing beside it, so it is given a copy.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meerkat-journal-")))
            for log in ("", "-wal"):
                shutil.copyfile(f"{real}{log}", directory / f"copy{log}")
            real, query = directory / "copy", "mode=rw"
        yield stack.enter_context(_connected(real, query))


def _connected(real: Path, query: str) -> contextlib.closing[sqlite3.Connection]:
    uri = f"file://{quote(os.fsencode(real))}?{query}"
    return contextlib.closing(sqlite3.connect(uri, timeout=_BUSY, isolation_level=None, uri=True))


def _size(real: Path, log: str) -> int:
    try:
        return Path(f"{real}{log}").stat().st_size
    except FileNotFoundError:
        return 0


def _refuse(path: Path, why: str | None) -> None:
    if why is not None:
        raise JournalRefused(str(path), f"{why}; it was left as it is")
