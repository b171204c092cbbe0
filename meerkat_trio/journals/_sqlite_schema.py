"""The format of a journal's file: what a new one is, what is wrong with a found one, how an older one is brought up.

Reads what it is given, and writes in `migrate` alone.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MIGRATIONS", "VERSION", "fresh_image", "header_problem", "is_damage", "is_older", "migrate", "problems"]

VERSION: Final = 1
"""The schema that is written here; the file's ``user_version``."""
MIGRATIONS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {}
"""By version, what makes a file of it one of the next version, inside a transaction that is open."""

_APPLICATION: Final = 0x4D6B744A
"""The file's ``application_id``: "MktJ"."""
_PAGE: Final = 4096
_HEADER: Final = 100
_MAGIC: Final = b"SQLite format 3\x00"
_TOLD: Final = 20
"""How many lines of one check are told."""
# A table without rowids was measured: a set of 300 bytes takes four times as long in it, for it moves the values about.
_SCHEMA: Final = """
CREATE TABLE sessions(number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE entries(
    session INTEGER NOT NULL REFERENCES sessions(number),
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY(session, kind, key)
) STRICT;
"""


@functools.cache
def fresh_image() -> bytes:
    """Return a whole file without entries."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(
            f"PRAGMA page_size={_PAGE}; PRAGMA auto_vacuum=NONE; PRAGMA encoding='UTF-8';"
            f"PRAGMA application_id={_APPLICATION}; PRAGMA user_version={VERSION}; {_SCHEMA}"
        )
        image = bytearray(connection.serialize())
    # The versions that say "WAL": so the first who opens it has nothing to change.
    image[18:20] = b"\x02\x02"
    return bytes(image)


def header_problem(header: bytes, size: int, *, logged: bool) -> str | None:
    """Say what the first bytes of a file tell against it.

    Args:
        header: its first 100 bytes.
        size: how many it has.
        logged: whether a write-ahead log lies beside it, with which the file itself may be half overwritten.
    """
    if not header.startswith(_MAGIC):
        return "not a journal: no SQLite file"
    if len(header) < _HEADER:
        return f"damaged: it ends after {size} bytes"
    if (application := _number(header, 68)) != _APPLICATION:
        return f"not a journal: an SQLite file of another program (application id {application:#x})"
    page = int.from_bytes(header[16:18], "big")
    expected = _number(header, 28) * (65536 if page == 1 else page)
    # The count holds only if who wrote last knew of it.
    if not logged and header[24:28] == header[92:96] and size < expected:
        return f"damaged: it has {size} of its {expected} bytes"
    return None


def problems(connection: sqlite3.Connection, *, thorough: bool) -> Iterator[str]:
    """Say what is wrong with a file; after what makes it no journal of this version, nothing more is looked at.

    Raises:
        sqlite3.Error: it could not be read for another reason than damage.
    """
    try:
        application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        if application != _APPLICATION:
            yield f"not a journal: an SQLite file of another program (application id {application:#x})"
            return
        if version > VERSION:
            yield f"of a newer version: its schema is {version}, and {VERSION} is the newest that is known here"
            return
        if version < VERSION and not all(older in MIGRATIONS for older in range(version, VERSION)):
            yield f"its schema is {version}, which is not known here"
            return
        for (line,) in connection.execute(f"PRAGMA {'integrity' if thorough else 'quick'}_check({_TOLD})"):
            if line != "ok":
                yield f"damaged: {' '.join(line.split())}"
        if version == VERSION:
            yield from _schema_problems(connection)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        yield f"damaged: {error}"


def is_damage(error: BaseException) -> bool:
    """Say whether an error of SQLite means that the file is damaged or is none."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_older(connection: sqlite3.Connection) -> bool:
    """Say whether a file has to be brought up before its entries can be read."""
    return _pragma(connection, "user_version") < VERSION


def migrate(connection: sqlite3.Connection) -> Iterator[str]:
    """Bring a file up to this version, in one transaction; yields what is wrong with what came out.

    If anything is, or the caller stops, or a migration raises, the transaction is left open, to be rolled back.
    """
    version = _pragma(connection, "user_version")
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for older in range(version, VERSION):
        MIGRATIONS[older](connection)
    connection.execute(f"PRAGMA user_version={VERSION}")
    wrong = list(_schema_problems(connection))
    yield from wrong
    if not wrong:
        connection.execute("COMMIT")


def _schema_problems(connection: sqlite3.Connection) -> Iterator[str]:
    found, expected = _schema_of(connection), _expected_schema()
    for name in sorted(found.keys() - expected.keys()):
        yield f"not a journal: {name!r} in it is of another program"
    for name in sorted(expected.keys() - found.keys()):
        yield f"damaged: it has no {name!r}"
    for name in sorted(found.keys() & expected.keys()):
        if found[name] != expected[name]:
            yield f"not a journal: {name!r} in it is not what it is in one"
    if found == expected:
        # An entry without a session would be left out in silence.
        for number, _ in zip(_strays(connection), range(_TOLD), strict=False):
            yield f"damaged: entries of a session {number} that is not there"


def _strays(connection: sqlite3.Connection) -> Iterator[int]:
    rows = connection.execute("SELECT DISTINCT session FROM entries WHERE session NOT IN (SELECT number FROM sessions)")
    for (number,) in rows:
        yield number


def _schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return {name: " ".join(str(sql).split()) for name, sql in rows}


@functools.cache
def _expected_schema() -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _schema_of(connection)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "big")
