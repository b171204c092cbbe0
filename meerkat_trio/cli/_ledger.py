"""The demo's ledger: what handlers wrote down, and what follows from it. Knows no machine."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, NoReturn, final

from attrs import asdict, frozen

__all__ = ["Account", "InputError", "InputLine", "Ledger", "audit", "read_input", "stalls"]

Stream = tuple[str, str]
"""A session and one of its senders; order is promised within a stream."""

_DEEPEST: Final = 200
"""Levels of objects and arrays in a line: what is read must be writable from a deeper stack as well."""

_FIELDS: Final = {"session", "sender", "body"}


class InputError(Exception):
    """A line of the input cannot be used; says which."""


@frozen
class InputLine:
    """One message to drain."""

    session: str
    """For which session."""
    sender: str
    """From whom."""
    body: object
    """What it says."""


def read_input(name: str, lines: Iterable[bytes]) -> list[InputLine]:
    """Parse all lines before anything is done with one; blank lines are passed over.

    Raises:
        InputError: a line is malformed; the message names the file and the line.
    """
    parsed = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8: {error.reason}") from None
        except ValueError as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        except RecursionError:
            raise InputError(f"{where}: nested too deeply") from None
        if _is_deeper_than(_DEEPEST, value):
            raise InputError(f"{where}: nested too deeply")
        if not isinstance(value, dict) or set(value) != _FIELDS:
            raise InputError(f"{where}: an object with session, sender and body is needed")
        for field in ("session", "sender"):
            if not isinstance(value[field], str) or not value[field].strip() or not value[field].isprintable():
                raise InputError(f"{where}: {field} must be a printable text that is not blank")
        parsed.append(InputLine(value["session"], value["sender"], value["body"]))
    return parsed


def _is_deeper_than(levels: int, value: object) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


@final
class Ledger:
    """A file to which each handled message is appended, one JSON object per line.

    What the file held before stays there; ``start`` is where this run's entries begin.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if it is not there.

        Raises:
            OSError: it cannot be written, or is no regular file and so could not be read again.
        """
        if path.exists() and not path.is_file():
            raise OSError(0, "not a regular file", str(path))
        self.path = path
        # Line by line, so that an interrupted run leaves whole entries.
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1)
        if self._file.tell() and not _ends_with_newline(path):
            self._file.write("\n")
        self.start = self._file.tell()

    def append(self, session: str, sender: str, number: int, *, body: object, at: float) -> None:
        """Write one message down; ``at`` is in seconds from the start of the run."""
        entry = {"session": session, "sender": sender, "n": number, "at": round(at, 6), "body": body}
        self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


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


def audit(path: Path, sent: Mapping[Stream, int], abandoned: Mapping[str, int], start: int = 0) -> dict[str, Account]:
    """Recompute every session's account from the ledger's file alone, from byte ``start`` on."""
    entries: dict[Stream, list[int]] = defaultdict(list)
    for entry in _entries(path, start):
        entries[entry["session"], entry["sender"]].append(entry["n"])
    accounts: dict[str, Account] = defaultdict(Account)
    for session, sender in {**sent, **entries}:
        numbers, expected = entries[session, sender], sent.get((session, sender), 0)
        known = {number for number in numbers if 0 <= number < expected}
        accounts[session] += Account(
            sent=expected,
            handled=len(numbers),
            duplicated=len(numbers) - len(known),
            lost=expected - len(known),
            reordered=_reordered(numbers),
        )
    for session, given_up in abandoned.items():
        accounts[session] += Account(abandoned=given_up, lost=-given_up)
    return dict(accounts)


def stalls(path: Path, start: int = 0) -> dict[str, float]:
    """Recompute for every session the longest time in which it handled nothing, up to its last message."""
    latest: dict[str, float] = {}
    longest: dict[str, float] = {}
    for entry in _entries(path, start):
        session, at = entry["session"], entry["at"]
        longest[session] = max(longest.get(session, 0.0), at - latest.get(session, 0.0))
        latest[session] = at
    return longest


def _entries(path: Path, start: int) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            yield json.loads(line)


def _reordered(numbers: list[int]) -> int:
    latest, count = -1, 0
    for number in numbers:
        if number < latest:
            count += 1
        latest = max(latest, number)
    return count
