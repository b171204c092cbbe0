"""Where a host's journal is kept, as the host opens it and as a test looks at it between two hosts.

To add a store: a class, and its name in `STORES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from meerkat_trio._entries import decode_memory
from meerkat_trio.journals import SqliteJournal, check, read_entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meerkat_trio._entries import Memory
    from meerkat_trio.abc import Entry, Journal
    from meerkat_trio.authority import SessionId
    from meerkat_trio.journals._sqlite_file import Durability

__all__ = ["STORES", "SqliteStore", "Store"]


class Store(ABC):
    """One store; ``directory`` is the same for every host of a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def journal(self) -> Journal:
        """Return what a host opens its machine with."""

    @abstractmethod
    def problems(self) -> list[str]:
        """Say what is wrong with what is stored."""

    @abstractmethod
    def entries(self) -> Mapping[SessionId, Sequence[Entry]]:
        """Return what is stored; a host may have it open."""

    def memories(self) -> dict[SessionId, Memory]:
        """Return what is stored, as a machine would understand it."""
        return {session_id: decode_memory(session_id, entries) for session_id, entries in self.entries().items()}


class SqliteStore(Store):
    """An SQLite file that survives a power cut."""

    durability: Durability = "full"

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.directory / "journal"

    def journal(self) -> Journal:
        return SqliteJournal(self.path, durability=self.durability)

    def problems(self) -> list[str]:
        return check(self.path) if self.path.exists() else []

    def entries(self) -> Mapping[SessionId, Sequence[Entry]]:
        return read_entries(self.path) if self.path.exists() else {}


@final
class QuickSqliteStore(SqliteStore):
    """An SQLite file that survives the death of its process."""

    durability: Durability = "normal"


STORES: Final[dict[str, type[Store]]] = {"sqlite": SqliteStore, "quick-sqlite": QuickSqliteStore}
