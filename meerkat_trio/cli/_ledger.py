"""The demo's ledger: what handlers wrote down, and what follows from it. Knows no machine."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Final, final

from attrs import asdict, frozen

__all__ = ["Account", "Entry", "Ledger", "LedgerError", "audit", "stalls"]

_SHOWN_OF_A_LINE: Final = 60

Stream = tuple[str, str]
"""A session and one of its senders; order is promised within a stream."""


class LedgerError(Exception):
    """The ledger cannot be written any more, or cannot be read back; says why."""


@frozen
class Entry:
    """One line of the ledger."""

    session: str
    """Who handled the message."""
    sender: str
    """Who sent it."""
    number: int
    """The number of the message among that sender's."""
    at: float
    """Seconds from the start of the run."""


@final
class Ledger:
    """A file to which each handled message is appended, one JSON object per line.

    What the file held before stays there; ``start`` is where this run's entries begin. From its opening to its closing
    the file is this run's alone: a second one is refused.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if it is not there.

        Raises:
            OSError: it cannot be written, another run has it, or it is no regular file and so could not be read again.
        """
        if path.exists() and not path.is_file():
            raise OSError(0, "not a regular file", str(path))
        self.path = path
        self._broken: str | None = None
        # Without a buffer: each entry is one write, so an interrupted run leaves whole entries.
        self._file = path.open("ab", buffering=0)
        try:
            _lock(self._file, path)
            if self._file.tell() and not _ends_with_newline(path):
                self._file.write(b"\n")
            self.start = self._file.tell()
        except BaseException:
            self._file.close()
            raise

    def append(self, session: str, sender: str, number: int, *, body: object, at: float) -> None:
        """Write one message down; ``at`` is in seconds from the start of the run.

        Raises:
            LedgerError: it could not be written, now or before.
        """
        entry = {"session": session, "sender": sender, "n": number, "at": round(at, 6), "body": body}
        line = json.dumps(entry).encode() + b"\n"
        try:
            # Behind half an entry nothing could be read any more.
            while line and self._broken is None:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._broken = error.strerror or str(error)
        if self._broken is not None:
            raise LedgerError(self._broken)

    def entries(self) -> Iterator[Entry]:
        """Read this run's entries back from the file.

        Raises:
            LedgerError: the file cannot be read, is another one than was written, or holds what no run writes.
        """
        try:
            with self.path.open("rb") as file:
                if not os.path.samestat(os.fstat(file.fileno()), os.fstat(self._file.fileno())):
                    raise LedgerError("another file has taken its place")
                file.seek(self.start)
                for line in file:
                    yield _parsed(line)
        except OSError as error:
            raise LedgerError(error.strerror or str(error)) from None

    def close(self) -> None:
        """Close the file, and let others have it."""
        self._file.close()


def _lock(file: IO[bytes], path: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl  # noqa: PLC0415 - not on every platform

    try:
        # Ends with the file's closing, also with that of a process that was killed.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(error.errno, "another run is writing to it", str(path)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _parsed(line: bytes) -> Entry:
    try:
        value = json.loads(line)
        entry = Entry(value["session"], value["sender"], value["n"], value["at"])
    except (ValueError, LookupError, TypeError, RecursionError):
        entry = None
    if (
        entry is None
        or not isinstance(entry.session, str)
        or not isinstance(entry.sender, str)
        or not isinstance(entry.number, int)
        or not isinstance(entry.at, int | float)
    ):
        raise LedgerError(f"holds a line that this run did not write: {line[:_SHOWN_OF_A_LINE]!r}")
    return entry


@frozen(kw_only=True)
class Account:
    """What the ledger says of one session, or of all."""

    sent: int = 0
    """Messages that a sender's call accepted."""
    handled: int = 0
    """Entries of the ledger."""
    duplicated: int = 0
    """Entries beyond the first of a message, and entries of messages that were never sent."""
    lost: int = 0
    """Messages with neither an entry nor a place among the abandoned."""
    reordered: int = 0
    """Entries that came after a later message of the same sender."""
    abandoned: int = 0
    """Messages that were given up, with their cause."""

    @property
    def balances(self) -> bool:
        """Whether nothing was lost, doubled or reordered."""
        return not (self.duplicated or self.lost or self.reordered)

    def __add__(self, other: Account) -> Account:
        mine, theirs = asdict(self), asdict(other)
        return Account(**{name: mine[name] + theirs[name] for name in mine})


def audit(
    entries: Iterable[Entry], sent: Mapping[Stream, int], abandoned: Mapping[Stream, AbstractSet[int]]
) -> dict[str, Account]:
    """Recompute every session's account from the ledger's entries.

    Args:
        entries: what the file holds, in its order.
        sent: how many messages of each stream were sent; they are numbered from 0.
        abandoned: the numbers of those that were given up.
    """
    numbers_of: dict[Stream, list[int]] = defaultdict(list)
    for entry in entries:
        numbers_of[entry.session, entry.sender].append(entry.number)
    accounts: dict[str, Account] = defaultdict(Account)
    for stream in {**sent, **numbers_of, **abandoned}:
        numbers, expected = numbers_of[stream], sent.get(stream, 0)
        known = {number for number in numbers if 0 <= number < expected}
        given_up = abandoned.get(stream, frozenset())
        accounts[stream[0]] += Account(
            sent=expected,
            handled=len(numbers),
            duplicated=len(numbers) - len(known),
            lost=sum(number not in known and number not in given_up for number in range(expected)),
            reordered=_reordered(numbers),
            abandoned=len(given_up),
        )
    return dict(accounts)


def stalls(entries: Iterable[Entry]) -> dict[str, float]:
    """Recompute for every session the longest time in which it handled nothing, up to its last message."""
    latest: dict[str, float] = {}
    longest: dict[str, float] = {}
    for entry in entries:
        longest[entry.session] = max(longest.get(entry.session, 0.0), entry.at - latest.get(entry.session, 0.0))
        latest[entry.session] = entry.at
    return longest


def _reordered(numbers: list[int]) -> int:
    latest, count = -1, 0
    for number in numbers:
        if number < latest:
            count += 1
        latest = max(latest, number)
    return count
