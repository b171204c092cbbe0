"""Entries as rows: what changes do to the tables, and what is read from them.

Opens and ends no transaction; who calls does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, final

from ..abc import Delete, Entry, Forget

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from ..abc import Change
    from ..authority import SessionId

__all__ = ["Rows", "read_rows"]

_Row: TypeAlias = "tuple[int, str, str, int, bytes]"

_NUMBERS: Final = 65_536
"""So many sessions' numbers are remembered."""
_SET: Final = (
    "INSERT INTO entries(session, kind, key, position, value) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET position = excluded.position, value = excluded.value"
)
_READ: Final = (
    "SELECT id, kind, key, position, value FROM entries JOIN sessions ON number = session {} "
    "ORDER BY session, position, kind, key"
)


@final
class Rows:
    """The tables of one connection, and the numbers that sessions have in them."""

    __slots__ = ("_connection", "_numbers")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[SessionId, int] = {}

    def write(self, appends: Iterable[Mapping[SessionId, Sequence[Change]]]) -> None:
        """Make changes in their order. Whatever it raises: roll back, and say `rolled_back`."""
        if len(self._numbers) > _NUMBERS:
            self._numbers.clear()
        waiting: list[_Row] = []
        for append in appends:
            for session_id, changes in append.items():
                for change in changes:
                    if isinstance(change, Entry):
                        number = self._numbers.get(session_id) or self._number(session_id)
                        waiting.append((number, change.kind, change.key, change.position, change.value))
                    else:
                        self._set(waiting)
                        self._remove(session_id, change)
        self._set(waiting)

    def rolled_back(self) -> None:
        """Forget the numbers that were given since the transaction began."""
        self._numbers.clear()

    def _set(self, rows: list[_Row]) -> None:
        if rows:
            self._connection.executemany(_SET, rows)
            rows.clear()

    def _remove(self, session_id: SessionId, change: Delete | Forget) -> None:
        number = self._numbers.get(session_id) or self._found(session_id)
        match change:
            case Delete(kind, key):
                self._connection.execute(
                    "DELETE FROM entries WHERE session = ? AND kind = ? AND key = ?", (number, kind, key)
                )
            case Forget():
                self._connection.execute("DELETE FROM entries WHERE session = ?", (number,))
                self._connection.execute("DELETE FROM sessions WHERE number = ?", (number,))
                self._numbers.pop(session_id, None)
            case _:
                raise TypeError(f"{change!r} is no change of a journal")

    def _found(self, session_id: SessionId) -> int | None:
        row = self._connection.execute("SELECT number FROM sessions WHERE id = ?", (session_id,)).fetchone()
        if row is None:
            return None
        self._numbers[session_id] = row[0]
        return int(row[0])

    def _number(self, session_id: SessionId) -> int:
        number = self._found(session_id)
        if number is None:
            number = self._connection.execute("INSERT INTO sessions(id) VALUES (?)", (session_id,)).lastrowid
            assert number is not None, "a row that was inserted has a number"  # noqa: S101
            self._numbers[session_id] = number
        return number


def read_rows(
    connection: sqlite3.Connection, session_id: SessionId | None = None
) -> Mapping[SessionId, Sequence[Entry]]:
    """Read the entries of one session or of all, by position."""
    if session_id is None:
        rows = connection.execute(_READ.format(""))
    else:
        rows = connection.execute(_READ.format("WHERE id = ?"), (session_id,))
    entries: dict[SessionId, list[Entry]] = {}
    for owner, kind, key, position, value in rows:
        entries.setdefault(owner, []).append(Entry(kind=kind, key=key, position=position, value=value))
    return {owner: tuple(of_one) for owner, of_one in entries.items()}
