"""An append to a journal, until it outlives the process: by one task, by 16 and by 256 that append at once.

The floor is what somebody writes who has one machine and a sound file: a thread, a queue, one transaction for all that
waits, one table, a task woken for each. It takes nobody's file, keeps one bad append from no other, and has no other
changes than to set. Both files lie side by side on the same disk; every append is one entry of 300 bytes.
"""

from __future__ import annotations

import queue
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final, Literal, TypeAlias

import trio

from meerkat_trio.abc import Entry
from meerkat_trio.journals import SqliteJournal

from ._measure import Contestant, Goal, Row, Scale, Setting, start_clock

__all__ = ["SETTINGS"]

_APPENDERS: Final = (1, 16, 256)
_DIRECTORY: Final = Path(__file__).parent
"""On a disk, where the temporary directory may be memory."""
_VALUE: Final = b"v" * 300
_KEYS: Final = 64
_SET: Final = (
    "INSERT INTO entries VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET position = excluded.position, value = excluded.value"
)
"""Of the ways to set a row the one that was measured fastest; so was the table with row ids."""

Durability: TypeAlias = Literal["full", "normal"]
Append: TypeAlias = Callable[[str, str, int], Awaitable[object]]


async def _appended(count: int, appenders: int, append: Append) -> float:
    """Let so many tasks append in turn; return microseconds for each append."""
    each = -(-count // appenders)

    async def keep_appending(session_id: str) -> None:
        for number in range(each):
            await append(session_id, f"message-{number % _KEYS}", number)

    start = start_clock()
    async with trio.open_nursery() as nursery:
        for number in range(appenders):
            nursery.start_soon(keep_appending, f"session-{number}")
    return (perf_counter() - start) / (each * appenders) * 1e6


# --- floor -------------------------------------------------------------------------------------------


class _Waiting:
    __slots__ = ("row", "task")

    def __init__(self, row: tuple[str, str, str, int, bytes]) -> None:
        self.task = trio.lowlevel.current_task()
        self.row = row


def _woken(waiting: list[_Waiting]) -> None:
    for one in waiting:
        trio.lowlevel.reschedule(one.task)


def _keep_writing(
    path: Path, durability: Durability, token: trio.lowlevel.TrioToken, jobs: queue.SimpleQueue[_Waiting | None]
) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={durability}")
    connection.execute(
        "CREATE TABLE entries(session TEXT, kind TEXT, key TEXT, position INTEGER, value BLOB,"
        " PRIMARY KEY(session, kind, key))"
    )
    job = jobs.get()
    while job is not None:
        group: list[_Waiting] = []
        while job is not None:
            group.append(job)
            if jobs.empty():
                break
            job = jobs.get()
        connection.execute("BEGIN")
        connection.executemany(_SET, [one.row for one in group])
        connection.execute("COMMIT")
        token.run_sync_soon(_woken, group)
        job = jobs.get() if job is not None else None
    connection.close()


async def _floor(count: int, appenders: int, durability: Durability) -> float:
    jobs: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()

    async def append(session_id: str, key: str, position: int) -> None:
        jobs.put(_Waiting((session_id, "queued", key, position, _VALUE)))
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    with tempfile.TemporaryDirectory(dir=_DIRECTORY, prefix=".journal-") as directory:
        arguments = (Path(directory) / "floor", durability, trio.lowlevel.current_trio_token(), jobs)
        thread = threading.Thread(target=_keep_writing, args=arguments)
        thread.start()
        try:
            return await _appended(count, appenders, append)
        finally:
            jobs.put(None)
            thread.join()


# --- ours --------------------------------------------------------------------------------------------


async def _ours(count: int, appenders: int, durability: Durability) -> float:
    with tempfile.TemporaryDirectory(dir=_DIRECTORY, prefix=".journal-") as directory:
        async with SqliteJournal(Path(directory) / "ours", durability=durability) as journal:

            async def append(session_id: str, key: str, position: int) -> None:
                await journal.append({session_id: [Entry(kind="queued", key=key, position=position, value=_VALUE)]})

            return await _appended(count, appenders, append)


# --- the settings ------------------------------------------------------------------------------------


def _turn(
    way: Callable[..., Awaitable[float]], appenders: int, durability: Durability, name: str, scale: Scale
) -> dict[str, float]:
    # One task waits for the disk each time: enough is fewer.
    count = max(scale.messages // 8, 16) if appenders == 1 else scale.messages
    return {name: trio.run(way, count, appenders, durability)}


def _setting(appenders: int, durability: Durability) -> Setting:
    name = f"journal-{durability}-{appenders}"
    return Setting(
        rows=(
            Row(
                name=name,
                what=f"an append, {durability.upper()}, by {appenders} at once",
                unit="us",
                goal=Goal(limit=1.5),
            ),
        ),
        floor=Contestant(label="thread, queue, sqlite3", turn=partial(_turn, _floor, appenders, durability, name)),
        ours=Contestant(label="SqliteJournal", turn=partial(_turn, _ours, appenders, durability, name)),
    )


SETTINGS: Final = tuple(
    _setting(appenders, durability) for durability in ("full", "normal") for appenders in _APPENDERS
)
