"""An SQLite journal keeps what was appended, for one machine at a time, and says what it could not do."""

from __future__ import annotations

import os
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from meerkat_trio import JournalFailed, JournalRefused
from meerkat_trio.abc import Delete, Forget
from meerkat_trio.journals import SqliteJournal, check, compact, read_entries
from meerkat_trio.journals import _sqlite as module
from meerkat_trio.journals import _sqlite_thread as thread

from ..directories import names_in
from .rig import entry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator
    from pathlib import Path


@asynccontextmanager
async def _thread_held(journal: SqliteJournal) -> AsyncIterator[trio.Nursery]:
    """Keep the journal's thread from its jobs until the block ends; then wait for the tasks of the nursery."""
    held, go_on = threading.Event(), threading.Event()

    def hold(_connection: object) -> None:
        held.set()
        assert go_on.wait(30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal._open.call, hold)
        try:
            assert await trio.to_thread.run_sync(held.wait, 30)
            yield nursery
            await trio.testing.wait_all_tasks_blocked()
        finally:
            go_on.set()


async def test_what_was_appended_is_restored_by_session_in_the_order_of_positions(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        assert (
            await journal.append({"b": [entry("x", 2), entry("y", 0)], "a": [entry("z", 1, b"\x00value")]})
            == frozenset()
        )
        expected = {"a": (entry("z", 1, b"\x00value"),), "b": (entry("y", 0), entry("x", 2))}
        assert await journal.restore() == expected
        assert await journal.restore("a") == {"a": expected["a"]}
        assert await journal.restore("nobody") == {}
    async with SqliteJournal(tmp_path / "journal") as journal:
        assert await journal.restore() == expected


async def test_the_changes_of_one_append_are_made_in_their_order(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        await journal.append(
            {
                "set": [entry("k", 1, b"old"), entry("k", 2, b"new")],
                "deleted": [entry("k"), entry("kept"), Delete("kind", "k"), Delete("kind", "not there")],
                "set again": [entry("k"), Delete("kind", "k"), entry("k", 3)],
                "forgotten": [entry("k"), Forget()],
                "begun anew": [entry("old"), Forget(), entry("new")],
                "unknown": [Forget(), Delete("kind", "k")],
            }
        )
        assert await journal.restore() == {
            "set": (entry("k", 2, b"new"),),
            "deleted": (entry("kept"),),
            "set again": (entry("k", 3),),
            "begun anew": (entry("new"),),
        }


async def test_ids_kinds_and_keys_may_be_any_text(tmp_path: Path) -> None:
    texts = ["", "ü\x00z", "a'; DROP TABLE entries; --", "?", "\U0001f9a1"]
    async with SqliteJournal(tmp_path / "a #journal?%41 é") as journal:
        for text in texts:
            await journal.append({text: [entry(text, kind=text)]})
    assert names_in(tmp_path) == ["a #journal?%41 é"]
    assert read_entries(tmp_path / "a #journal?%41 é") == {text: (entry(text, kind=text),) for text in texts}


async def test_a_new_file_is_its_owners_alone_and_nothing_lies_beside_it_when_it_is_closed(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        await journal.append({"a": [entry()]})
        assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in names_in(tmp_path)} == {
            "journal": 0o600,
            "journal-shm": 0o600,
            "journal-wal": 0o600,
        }
    assert names_in(tmp_path) == ["journal"]


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "journal").touch(0o644)
    async with SqliteJournal(tmp_path / "journal") as journal:
        await journal.append({"a": [entry()]})
        assert await journal.restore() == {"a": (entry(),)}
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


async def test_appends_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        async with _thread_held(journal) as nursery:
            for number in range(100):
                nursery.start_soon(journal.append, {f"session {number}": [entry()]})
        found = journal.statistics()
        assert (found.appends, found.commits) == (100, 1)
        assert found.file_bytes > 0
        assert found.log_bytes > 0
        assert len(await journal.restore()) == 100


@pytest.mark.parametrize(
    "bad",
    [entry("\ud800"), entry(position=2**63), entry(value="text"), entry(position="one"), "no change"],  # type: ignore[arg-type]
    ids=["a lone surrogate", "too high a position", "text for bytes", "text for a number", "no change at all"],
)
async def test_one_bad_append_fails_alone_and_nothing_of_it_is_written(tmp_path: Path, bad: Any) -> None:
    failed: dict[str, str] = {}

    async def append(name: str, changes: list[Any]) -> None:
        try:
            await journal.append({name: changes})
        except JournalFailed as error:
            failed[name] = str(error)

    async with SqliteJournal(tmp_path / "journal") as journal:
        async with _thread_held(journal) as nursery:
            nursery.start_soon(append, "good", [entry("1"), entry("2")])
            nursery.start_soon(append, "bad", [entry("first"), bad])
            nursery.start_soon(append, "other", [entry()])
        assert [*failed] == ["bad"]
        assert failed["bad"].startswith(f"{tmp_path / 'journal'}: nothing was written: ")
        await journal.append({"bad": [entry("later")]})
        assert await journal.restore() == {
            "good": (entry("1"), entry("2")),
            "other": (entry(),),
            "bad": (entry("later"),),
        }
        assert journal.statistics().appends == 3


# --- cancellation ------------------------------------------------------------------------------------


async def test_an_append_that_is_cancelled_before_it_is_handed_over_writes_nothing(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append({"a": [entry()]})
        assert scope.cancelled_caught
        assert await journal.restore() == {}


async def test_an_append_that_is_cancelled_once_it_is_handed_over_returns_what_came_of_it(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        outcomes: list[object] = []

        async def append(changes: Any) -> None:
            with scope:
                try:
                    outcomes.append(await journal.append({"a": changes}))
                except JournalFailed:
                    outcomes.append("failed")
                await trio.lowlevel.checkpoint_if_cancelled()
                outcomes.append("not cancelled at the next checkpoint")

        for changes in ([entry()], ["bad"]):
            scope = trio.CancelScope()
            async with _thread_held(journal) as nursery:
                nursery.start_soon(append, changes)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
            assert scope.cancelled_caught
        assert outcomes == [frozenset(), "failed"]
        assert await journal.restore() == {"a": (entry(),)}


@pytest.mark.parametrize("job", ["restore", "compact"])
async def test_a_long_job_that_is_cancelled_ends_in_the_middle(tmp_path: Path, job: str) -> None:
    endless = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def read(connection: sqlite3.Connection, *_: object) -> None:
        token.run_sync_soon(begun.set)
        connection.execute(endless).fetchall()

    async with SqliteJournal(tmp_path / "journal") as journal:
        await journal.append({"a": [entry()]})
        with pytest.MonkeyPatch.context() as patch, trio.CancelScope() as scope:
            patch.setattr(module, "read_rows" if job == "restore" else "compacted", read)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(getattr(journal, job))
                await begun.wait()
                scope.cancel()
        assert scope.cancelled_caught
        assert await journal.restore() == {"a": (entry(),)}


async def test_entering_that_is_cancelled_leaves_the_file_free(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    with trio.CancelScope() as scope:
        scope.cancel()
        async with journal:
            pytest.fail("it was entered")
    assert scope.cancelled_caught
    assert names_in(tmp_path) == []

    async with journal:
        await journal.append({f"session {number}": [entry(value=b"v" * 1000)] for number in range(3000)})
    # The first time that SQLite asks whether to go on, it is not to.
    with trio.CancelScope() as scope, pytest.MonkeyPatch.context() as patch:

        def cancel_and_ask(call: thread.Call[Any]) -> bool:
            if call.given_up is None:
                trio.from_thread.run_sync(scope.cancel, trio_token=token)
            return call.given_up is not None

        token = trio.lowlevel.current_trio_token()
        patch.setattr(thread.Call, "is_given_up", cancel_and_ask)
        async with journal:
            pytest.fail("it was entered")
    assert scope.cancelled_caught
    async with journal:
        assert len(await journal.restore()) == 3000


async def test_leaving_under_cancellation_writes_what_was_handed_over_and_frees_the_file(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with SqliteJournal(tmp_path / "journal") as journal, _thread_held(journal) as nursery:
            nursery.start_soon(journal.append, {"a": [entry()]})
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert names_in(tmp_path) == ["journal"]
    async with SqliteJournal(tmp_path / "journal") as journal:
        assert await journal.restore() == {"a": (entry(),)}


# --- its life ----------------------------------------------------------------------------------------


async def test_the_thread_lives_as_long_as_the_journal_is_open(tmp_path: Path) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("journal ")]

    async with SqliteJournal(tmp_path / "journal"):
        assert threads() == [f"journal {tmp_path / 'journal'}"]
        with pytest.raises(JournalRefused):
            await SqliteJournal(tmp_path / "journal").__aenter__()
        assert len(threads()) == 1
    assert threads() == []


async def test_a_journal_that_is_not_open_says_so(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    async with journal:
        assert repr(journal) == f"<SqliteJournal {str(tmp_path / 'journal')!r} open>"
        with pytest.raises(RuntimeError, match="open already"):
            await journal.__aenter__()
    for call in (journal.restore, journal.compact, lambda: journal.append({})):
        with pytest.raises(trio.ClosedResourceError):
            await call()
    with pytest.raises(trio.ClosedResourceError):
        journal.statistics()
    assert repr(journal) == f"<SqliteJournal {str(tmp_path / 'journal')!r} closed>"
    assert journal.path == tmp_path / "journal"
    with pytest.raises(ValueError, match="durability"):
        SqliteJournal(tmp_path / "journal", durability="off")  # type: ignore[arg-type]


@pytest.mark.parametrize(("durability", "number"), [("full", 2), ("normal", 1)])
async def test_durability_is_what_sqlite_is_told(tmp_path: Path, durability: Any, number: int) -> None:
    async with SqliteJournal(tmp_path / "journal", durability=durability) as journal:
        read = journal._open.call(lambda connection: connection.execute("PRAGMA synchronous").fetchone())
        assert await read == (number,)


async def test_an_answer_after_the_run_is_dropped() -> None:
    async def token() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    worker = thread.Worker.__new__(thread.Worker)
    worker._token = await trio.to_thread.run_sync(trio.run, token)
    worker.answered = 0
    worker._answer([])


# --- a run that is never idle ------------------------------------------------------------------------


async def test_appends_return_while_the_run_is_never_idle(tmp_path: Path) -> None:
    async def never_idle() -> None:
        while True:
            sum(range(1000))
            await trio.lowlevel.checkpoint()

    async with SqliteJournal(tmp_path / "journal") as journal, trio.open_nursery() as nursery:
        nursery.start_soon(never_idle)
        # It takes a quarter of a second, and minutes if the thread is starved.
        with trio.fail_after(30):
            for number in range(50):
                await journal.append({"a": [entry(str(number))]})
        nursery.cancel_scope.cancel()


def test_the_thread_is_given_a_turn_only_if_it_gets_nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now, turns = 100.0, 0

    def give_a_turn(seconds: float) -> None:
        nonlocal now, turns
        assert seconds == 0.001
        now += seconds
        turns += 1

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", give_a_turn)
    worker = thread.Worker.__new__(thread.Worker)
    worker.handed, worker.answered = 1, 1
    instrument = thread._Turns(worker)

    def turns_after(seconds: float, timeout: float = 0.0) -> int:
        nonlocal now
        before, now = turns, now + seconds
        instrument.before_io_wait(timeout)
        return turns - before

    assert turns_after(1.0) == 0  # nothing is to be done
    worker.handed = 3
    assert turns_after(0.0) == 0  # since now
    assert turns_after(0.0015) == 0
    assert turns_after(0.001, timeout=0.1) == 0  # it is idle
    assert turns_after(0.0) == 1
    assert turns_after(0.0035) == 0  # it has had one, and twice as long has not passed
    assert turns_after(0.001) == 1
    worker.answered = 2
    assert turns_after(0.001) == 0  # something was done
    assert turns_after(0.0025) == 1


# --- room --------------------------------------------------------------------------------------------


async def test_the_log_is_emptied_as_it_grows(tmp_path: Path) -> None:
    longest = 0
    async with SqliteJournal(tmp_path / "journal", durability="normal") as journal:
        for number in range(300):
            await journal.append({"a": [entry(str(number % 10), number, os.urandom(100_000))]})
            longest = max(longest, journal.statistics().log_bytes)
    assert longest < 2 * 4 * 1024 * 1024


async def test_compacting_gives_back_what_is_no_longer_needed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with SqliteJournal(path) as journal:
        await journal.append({"a": [entry("kept")], "b": [entry(value=b"v" * 1_000_000)]})
        await journal.append({"b": [Forget()]})
        await journal.compact()
        assert journal.statistics().file_bytes < 50_000
        assert journal.statistics().log_bytes == 0
        assert await journal.restore() == {"a": (entry("kept"),)}
        await journal.append({"b": [entry(value=b"v" * 1_000_000)]})
        await journal.append({"b": [Forget()]})
        with pytest.raises(JournalRefused, match="in use by another machine"):
            compact(path)
    assert path.stat().st_size > 1_000_000
    compact(path)
    assert path.stat().st_size < 50_000
    assert read_entries(path) == {"a": (entry("kept"),)}
    assert names_in(tmp_path) == ["journal"]


def test_only_a_journal_that_is_there_is_compacted(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match="No such file"):
        compact(tmp_path / "journal")
    (tmp_path / "journal").touch()
    with pytest.raises(JournalRefused, match="no SQLite file"):
        compact(tmp_path / "journal")
    assert (tmp_path / "journal").stat().st_size == 0


async def test_sessions_without_entries_do_not_gather(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "journal") as journal:
        await journal.append({"a": [entry()], "b": [entry()]})
        await journal.append({"a": [Delete("kind", "")]})
        assert await journal.restore() == {"b": (entry(),)}
        await journal.append({"a": [entry()]})
        await journal.append({"a": [Delete("kind", "")]})
    async with SqliteJournal(tmp_path / "journal") as journal:
        read = journal._open.call(lambda connection: connection.execute("SELECT id FROM sessions").fetchall())
        assert await read == [("b",)]
    assert check(tmp_path / "journal") == []


async def test_more_sessions_than_numbers_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meerkat_trio.journals._sqlite_rows._NUMBERS", 2)
    async with SqliteJournal(tmp_path / "journal") as journal:
        for number in range(10):
            await journal.append({f"session {number % 5}": [entry(str(number))]})
        restored = await journal.restore()
    assert {name: len(entries) for name, entries in restored.items()} == {f"session {n}": 2 for n in range(5)}
