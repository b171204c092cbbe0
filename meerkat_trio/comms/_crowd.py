"""Connections that nobody vouches for: a bounded number, shared between the places they come from.

Whoever opens many pushes out his own, as long as another place has fewer.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from ._connection import Connection

__all__ = ["Crowd"]


@final
class Crowd:
    """So many connections at most; one more costs the oldest from where most of them come its place."""

    __slots__ = ("_connections", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self._connections: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        """Count a connection, and cut another if they are too many."""
        self._connections[connection] = None
        if len(self._connections) > self.limit:
            ((source, _),) = Counter(each.source for each in self._connections).most_common(1)
            oldest = next(each for each in self._connections if each.source == source)
            del self._connections[oldest]
            oldest.scope.cancel()

    def discard(self, connection: Connection) -> None:
        """Stop counting a connection."""
        self._connections.pop(connection, None)
