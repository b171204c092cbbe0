"""The demo's input: JSON Lines, parsed to the last line before anything is done with one. Knows no machine."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from attrs import frozen

__all__ = ["InputError", "InputLine", "parse_line", "read_input"]

_DEEPEST: Final = 200
"""Levels of objects and arrays in a line: what is read must be writable from a deeper stack as well."""

_BLANK: Final = " \t\r\n\v\f"
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
        where = f"{name}:{number}"
        value = parse_line(where, line, first=number == 1)
        if value is None:
            continue
        if not isinstance(value, dict) or set(value) != _FIELDS:
            raise InputError(f"{where}: an object with session, sender and body is needed")
        for field in ("session", "sender"):
            if not isinstance(value[field], str) or not value[field].strip() or not value[field].isprintable():
                raise InputError(f"{where}: {field} must be a printable text that is not blank")
        parsed.append(InputLine(value["session"], value["sender"], value["body"]))
    return parsed


def parse_line(where: str, line: bytes, *, first: bool) -> Any:
    """Parse one line of JSON Lines; None if it is blank.

    Args:
        where: file and line, for errors.
        line: its bytes.
        first: whether it is the first of its file, which may begin with a byte order mark.

    Raises:
        InputError: it is malformed, or is null.
    """
    try:
        text = line.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
        if not text.strip(_BLANK):
            return None
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_without_doubles
        )
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8: {error.reason}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg} (column {error.colno})") from None
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    if _is_deeper_than(_DEEPEST, value):
        raise InputError(f"{where}: nested too deeply")
    if value is None:
        raise InputError(f"{where}: an object is needed")
    return value


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


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        double, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {double!r} is there twice")
    return value
