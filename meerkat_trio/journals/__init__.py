"""Journals: what sessions have to remember, kept where it outlives the process.

Each implements `meerkat_trio.abc.Journal`. None knows what an entry means, or anything of machines and sessions.
`RedisJournal` needs the extra ``redis``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._sqlite import SqliteJournal, SqliteStatistics
from ._sqlite_file import check, compact, read_entries

if TYPE_CHECKING:
    from ._redis import RedisJournal, Renewal

__all__ = ["RedisJournal", "Renewal", "SqliteJournal", "SqliteStatistics", "check", "compact", "read_entries"]


def __getattr__(name: str) -> object:
    if name not in {"RedisJournal", "Renewal"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module("._redis", __name__), name)
    globals()[name] = found
    return found
