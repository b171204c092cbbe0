"""What `meerkat-trio send` sends: JSON Lines, one message a line, read one by one."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from attrs import frozen

from ._demo_input import InputError, parse_line

__all__ = ["LONGEST_LINE", "Line", "read_line"]

LONGEST_LINE: Final = 8 * 1024 * 1024
"""In bytes: the wire takes 1 MiB, and in JSON a byte may be written as six."""

_FIELDS: Final = {"body", "id"}
_LONGEST_ID: Final = 200
"""In bytes: the wire takes 256, and `--again` adds some."""


@frozen
class Line:
    """One message."""

    number: int
    """Its line, from 1 up."""
    id: str
    """Its own, or what follows from the line's number and bytes."""
    body: Any
    """What it says."""


def read_line(name: str, number: int, line: bytes, salt: str) -> Line | None:
    """Parse one line; None if it is blank.

    Args:
        name: of the file, for errors.
        number: of the line, from 1 up.
        line: what it holds.
        salt: goes into every id; the same for messages that are to be the same.

    Raises:
        InputError: it is malformed; the message names the file and the line.
    """
    where = f"{name}:{number}"
    if len(line) > LONGEST_LINE:
        raise InputError(f"{where}: a line of more than {LONGEST_LINE} bytes")
    value = parse_line(where, line, first=number == 1)
    if value is None:
        return None
    if not isinstance(value, dict) or "body" not in value or not set(value) <= _FIELDS:
        raise InputError(f"{where}: an object with body, and perhaps id, is needed")
    given = value.get("id")
    if given is None:
        return Line(number, _id(number, line, salt), value["body"])
    if not isinstance(given, str) or not given.strip() or len(given.encode(errors="replace")) > _LONGEST_ID:
        raise InputError(f"{where}: id must be a text of 1 to {_LONGEST_ID} bytes")
    return Line(number, f"{given}{salt}", value["body"])


def _id(number: int, line: bytes, salt: str) -> str:
    digest = hashlib.sha256(line.strip()).hexdigest()[:24]
    return f"{number}-{digest}{salt}"
