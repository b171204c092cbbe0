"""Journals: what sessions have to remember, kept where it outlives the process.

Each implements `meerkat_trio.abc.Journal`. None knows what an entry means, or anything of machines and sessions.
"""

from __future__ import annotations

from ._sqlite import SqliteJournal, SqliteStatistics
from ._sqlite_file import check, compact, read_entries

__all__ = ["SqliteJournal", "SqliteStatistics", "check", "compact", "read_entries"]
