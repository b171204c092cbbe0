"""The demo's ledger: what handlers wrote down, and what follows from it. Knows no machine."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Final, final

from attrs import asdict, frozen

__all__ = ["Account", "InputError", "InputLine", "Ledger", "audit", "read_input"]

Stream = tuple[str, str]
"""A session and one of its senders; order is promised within a stream."""

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


def read_input(name: str, lines: Iterable[str]) -> list[InputLine]:
    """Parse all lines before anything is done with one.

    Raises:
        InputError: a line is malformed; the message names the file and the line.
    """
    parsed = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        if not isinstance(value, dict) or set(value) != _FIELDS:
            raise InputError(f"{where}: an object with session, sender and body is needed")
        for field in ("session", "sender"):
            if not isinstance(value[field], str) or not value[field].strip() or not value[field].isprintable():
                raise InputError(f"{where}: {field} must be a printable text that is not blank")
        parsed.append(InputLine(value["session"], value["sender"], value["body"]))
    return parsed


@final
class Ledger:
    """A file to which each handled message is appended, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] = path.open("w", encoding="utf-8")

    def append(self, session: str, sender: str, number: int, body: object) -> None:
        """Write one message down."""
        self._file.write(json.dumps({"session": session, "sender": sender, "n": number, "body": body}) + "\n")

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


@frozen(kw_only=True)
class Account:
    """What the ledger says of one session, or of all."""

    sent: int = 0
    """Messages that were to be handled."""
    handled: int = 0
    """Entries of the ledger."""
    duplicated: int = 0
    """Entries of messages that had one before."""
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


def audit(path: Path, sent: Mapping[Stream, int], abandoned: Mapping[str, int]) -> dict[str, Account]:
    """Recompute every session's account from the ledger's file alone."""
    entries: dict[Stream, list[int]] = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            entries[entry["session"], entry["sender"]].append(entry["n"])
    accounts: dict[str, Account] = {}
    for (session, sender), expected in sent.items():
        numbers = entries[session, sender]
        account = Account(
            sent=expected,
            handled=len(numbers),
            duplicated=len(numbers) - len(set(numbers)),
            lost=expected - len(set(numbers)),
            reordered=_reordered(numbers),
        )
        accounts[session] = accounts.get(session, Account()) + account
    for session, given_up in abandoned.items():
        accounts[session] += Account(abandoned=given_up, lost=-given_up)
    return accounts


def _reordered(numbers: list[int]) -> int:
    latest, count = -1, 0
    for number in numbers:
        if number < latest:
            count += 1
        latest = max(latest, number)
    return count
