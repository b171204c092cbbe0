"""A file that is no sound journal, or somebody else's, is refused as it was; one is read without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest
import trio

from meerkat_trio import JournalFailed, JournalRefused
from meerkat_trio.journals import SqliteJournal, check, compact, read_entries
from meerkat_trio.journals import _sqlite_lock as lock
from meerkat_trio.journals import _sqlite_schema as schema

from ..directories import names_in
from .rig import APPENDING, child, entry, fingerprints, killed_in_the_middle, made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLDING: Final = """
import sys, trio
from meerkat_trio.journals import SqliteJournal

async def main():
    async with SqliteJournal(sys.argv[1]):
        print("open", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""
"""Opens a journal, says so, and keeps it until its input ends."""

VISITING: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM entries").fetchall()
connection.close()
"""
"""Another program that reads the file, and would tidy up behind it if it were the only one."""

FORKING: Final = """
import os, sys, trio
from meerkat_trio.journals import SqliteJournal

async def main():
    async with SqliteJournal(sys.argv[1]):
        if os.fork() == 0:
            print("open", flush=True)
            sys.stdin.read()
            os._exit(0)
        await trio.sleep_forever()

trio.run(main)
"""
"""Opens a journal, and has a child without exec that lives for as long as the input."""


async def _enter(path: Path) -> None:
    async with SqliteJournal(path):
        pass


def _sql(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script)


# --- what is no journal ------------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to have a header of one, if it were one. " * 10)


def _short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00\x10\x00")


def _foreign(path: Path) -> None:
    _sql(path, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)")


def _foreign_with_an_id(path: Path) -> None:
    _sql(path, "PRAGMA application_id=7; CREATE TABLE t(a)")


def _foreign_table(path: Path) -> None:
    made(path)
    _sql(path, "CREATE TABLE guests(a)")


def _changed_table(path: Path) -> None:
    made(path)
    _sql(path, "DROP TABLE entries; CREATE TABLE entries(a)")


def _missing_table(path: Path) -> None:
    made(path)
    _sql(path, "DROP TABLE entries")


def _newer(path: Path) -> None:
    made(path)
    _sql(path, f"PRAGMA user_version={schema.VERSION + 1}")


def _unknown_older(path: Path) -> None:
    made(path)
    _sql(path, "PRAGMA user_version=-3")


def _full(path: Path) -> bytes:
    made(path, {f"s{number}": [entry(str(key), key, b"v" * 500) for key in range(50)] for number in range(10)})
    return path.read_bytes()


def _truncated(path: Path) -> None:
    path.write_bytes(_full(path)[:-4096])


def _truncated_within_a_page(path: Path) -> None:
    path.write_bytes(_full(path)[:-100])


def _damaged(path: Path) -> None:
    content = bytearray(_full(path))
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)


def _stray(path: Path) -> None:
    made(path, {"a": [entry()]})
    _sql(path, "DELETE FROM sessions")


def _hot(path: Path) -> None:
    made(path)
    path.with_name("journal-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))


def _hard_link(path: Path) -> None:
    made(path)
    path.with_name("other name").hardlink_to(path)


def _empty_with_a_log(path: Path) -> None:
    path.touch()
    path.with_name("journal-wal").write_bytes(b"somebody's")


REFUSED: Final[dict[Callable[[Path], None], str]] = {
    _text: "no SQLite file",
    _short: "damaged: it ends after 18 bytes",
    _foreign: r"an SQLite file of another program \(application id 0x0\)",
    _foreign_with_an_id: r"an SQLite file of another program \(application id 0x7\)",
    _foreign_table: "'guests' in it is of another program",
    _changed_table: "'entries' in it is not what it is in one",
    _missing_table: "it has no 'entries'",
    _newer: "of a newer version: its schema is 2, and 1 is the newest that is known here",
    _unknown_older: "its schema is -3, which is not known here",
    _truncated: r"damaged: it has \d+ of its \d+ bytes",
    _truncated_within_a_page: r"damaged: it has \d+ of its \d+ bytes",
    _damaged: "damaged: ",
    _stray: "entries of a session 1 that is not there",
    _hot: "journal-journal lies beside it",
    _hard_link: r"it has 2 names \(hard links\)",
    _empty_with_a_log: "journal-wal lies beside it",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__.strip("_"))
def test_what_is_no_sound_journal_is_refused_and_left_byte_for_byte(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "journal"
    make(path)
    before = fingerprints(tmp_path)
    with pytest.raises(JournalRefused, match=REFUSED[make]) as refused:
        trio.run(_enter, path)
    assert refused.value.journal == str(path)
    assert fingerprints(tmp_path) == before
    if make is not _empty_with_a_log:
        with pytest.raises(JournalRefused, match=REFUSED[make]):
            compact(path)
        with pytest.raises(JournalRefused, match=REFUSED[make]):
            read_entries(path)
    assert check(path) != []
    assert fingerprints(tmp_path) == before


def test_a_damaged_log_of_a_killed_machine_is_left_as_it_was(tmp_path: Path) -> None:
    killed_in_the_middle(tmp_path / "journal", "normal", 200)
    (tmp_path / "journal").write_bytes((tmp_path / "journal").read_bytes()[:4096] + b"\xff" * 8192)
    # What the log has of these pages is not in the way.
    log = (tmp_path / "journal-wal").read_bytes()
    (tmp_path / "journal-wal").write_bytes(log[: 32 + 10] + b"\x00" + log[32 + 11 :])
    before = fingerprints(tmp_path)
    with pytest.raises(JournalRefused, match="damaged"):
        trio.run(_enter, tmp_path / "journal")
    assert check(tmp_path / "journal") != []
    assert fingerprints(tmp_path) == before


def test_damage_that_is_met_later_refuses_to_restore_and_fails_an_append(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async def damage() -> None:
        async with SqliteJournal(path) as journal:
            with path.open("r+b") as file:
                for page in range(1, path.stat().st_size // 4096):
                    file.seek(page * 4096)
                    file.write(b"\xff" * 4096)
            await journal._open.call(lambda connection: connection.execute("PRAGMA shrink_memory").fetchall())
            with pytest.raises(JournalRefused, match="damaged: database disk image is malformed"):
                await journal.restore()
            with pytest.raises(JournalFailed, match=r"malformed \(SQLITE_CORRUPT"):
                await journal.append({"s": [entry()]})

    _full(path)
    trio.run(damage)


# --- what cannot be used -----------------------------------------------------------------------------


def test_a_path_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path / "none" / "journal", "No such file or directory"),
        (tmp_path / "directory", "Is a directory"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        with pytest.raises(JournalFailed, match=why) as failed:
            trio.run(_enter, path)
        assert failed.value.journal == str(path)
        with pytest.raises(JournalFailed, match=why):
            compact(path)
    for read in (check, read_entries):
        with pytest.raises(JournalFailed, match="No such file"):
            read(tmp_path / "nothing")
    assert names_in(tmp_path) == ["directory", "pipe"]


def test_what_the_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    made(tmp_path / "journal")
    monkeypatch.setattr(lock, "_open", refuse)
    with pytest.raises(JournalFailed, match="cannot be used: Permission denied"):
        trio.run(_enter, tmp_path / "journal")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs to mount")
def test_a_read_only_file_system_is_told_and_a_journal_on_it_can_be_read(tmp_path: Path) -> None:
    made(tmp_path / "journal", {"a": [entry()]})
    mounted = subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        for name in ("journal", "new"):
            with pytest.raises(JournalFailed, match="Read-only file system"):
                trio.run(_enter, tmp_path / name)
        assert read_entries(tmp_path / "journal") == {"a": (entry(),)}
        assert check(tmp_path / "journal") == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_an_sqlite_that_is_too_old_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(JournalFailed, match=r"SQLite 3\.37 or newer is needed"):
        trio.run(_enter, tmp_path / "journal")


# --- one machine -------------------------------------------------------------------------------------


def test_a_second_machine_of_the_process_is_refused_by_any_name(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    async def enter_twice() -> None:
        async with SqliteJournal(path) as journal:
            (tmp_path / "link").symlink_to(path)
            (tmp_path / "second name").hardlink_to(path)
            for name in ("journal", "link", "second name"):
                with pytest.raises(JournalRefused, match="in use by another machine"):
                    async with SqliteJournal(tmp_path / name):
                        pytest.fail("it was entered")
            await journal.append({"a": [entry()]})
            # The locks of SQLite stand: else another process would now take the log away.
            command = (
                "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM entries'); c.close()"
            )
            subprocess.run([sys.executable, "-c", command, path], check=True)
            assert (tmp_path / "journal-wal").stat().st_size > 0
        (tmp_path / "second name").unlink()

    trio.run(enter_twice)
    assert read_entries(tmp_path / "link") == {"a": (entry(),)}
    trio.run(_enter, tmp_path / "link")


def test_a_machine_of_another_process_is_respected_until_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with child(HOLDING, path) as (process, told):
        assert told.readline() == "open\n"
        before = fingerprints(tmp_path)
        (tmp_path / "link").symlink_to(path)
        for name in ("journal", "link"):
            with pytest.raises(JournalRefused, match="in use by another machine"):
                trio.run(_enter, tmp_path / name)
        (tmp_path / "link").unlink()
        assert fingerprints(tmp_path) == before
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0
    trio.run(_enter, path)


@pytest.mark.parametrize("code", [HOLDING, FORKING], ids=["alone", "with a child that has no exec"])
def test_a_machine_that_is_killed_has_let_go(tmp_path: Path, code: str) -> None:
    with child(code, tmp_path / "journal") as (process, told):
        assert told.readline() == "open\n"
        with pytest.raises(JournalRefused):
            trio.run(_enter, tmp_path / "journal")
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        trio.run(_enter, tmp_path / "journal")


def test_a_machine_waits_for_a_reader_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "journal")
    entered: list[bool] = []
    with lock.held_with_readers(tmp_path / "journal") as handle:
        assert handle is not None
        waited = threading.Event()
        monkeypatch.setattr(time, "sleep", lambda _: waited.set())
        machine = threading.Thread(target=lambda: entered.append(trio.run(_enter, tmp_path / "journal") is None))
        machine.start()
        assert waited.wait(30)
        assert entered == []
    machine.join()
    assert entered == [True]
    monkeypatch.setattr(lock, "_PATIENCE", -1.0)
    with (
        lock.held_with_readers(tmp_path / "journal"),
        pytest.raises(JournalRefused, match="reading it for a long time"),
    ):
        trio.run(_enter, tmp_path / "journal")


def test_of_two_that_make_the_same_journal_one_has_it(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / f"journal {number}"
        if number % 2:
            path.touch()
        with child(HOLDING, path) as (_, told), child(HOLDING, path) as (_, also):
            assert {told.readline(), also.readline()} == {"open\n", ""}


# --- reading -----------------------------------------------------------------------------------------


def test_what_nobody_has_open_is_read_without_a_trace(tmp_path: Path) -> None:
    made(tmp_path / "journal", {"a": [entry()]})
    before = fingerprints(tmp_path)
    assert read_entries(tmp_path / "journal") == {"a": (entry(),)}
    assert check(tmp_path / "journal") == []
    assert fingerprints(tmp_path) == before


def test_the_log_of_a_killed_machine_is_read_without_a_trace(tmp_path: Path) -> None:
    acknowledged = killed_in_the_middle(tmp_path / "journal", "normal", 100)
    before = fingerprints(tmp_path)
    assert before.keys() >= {"journal", "journal-wal"}
    found = read_entries(tmp_path / "journal")
    assert check(tmp_path / "journal") == []
    assert fingerprints(tmp_path) == before
    for name, number in acknowledged.items():
        assert len(found[name]) >= 2 * (number + 1)


@pytest.mark.parametrize("where", ["this process", "another process"])
def test_the_journal_of_a_running_machine_is_read_as_it_is(tmp_path: Path, where: str) -> None:
    async def read() -> None:
        async with SqliteJournal(tmp_path / "journal") as journal:
            await journal.append({"a": [entry()]})
            assert read_entries(tmp_path / "journal") == {"a": (entry(),)}
            assert check(tmp_path / "journal") == []
            await journal.append({"a": [entry(value=b"new")]})
            assert read_entries(tmp_path / "journal") == {"a": (entry(value=b"new"),)}

    if where == "this process":
        trio.run(read)
    else:
        with child(APPENDING, tmp_path / "journal", "normal") as (_process, told):
            lines = [told.readline().split() for _ in range(100)]
            found = read_entries(tmp_path / "journal")
            assert check(tmp_path / "journal") == []
            for name, number in lines:
                assert len(found[name]) > 2 * int(number)


def test_a_check_says_all_that_is_wrong(tmp_path: Path) -> None:
    _foreign_table(tmp_path / "journal")
    _sql(tmp_path / "journal", "CREATE TABLE more(a)")
    assert check(tmp_path / "journal") == [
        "not a journal: 'guests' in it is of another program",
        "not a journal: 'more' in it is of another program",
    ]
    _stray(tmp_path / "stray")
    assert check(tmp_path / "stray") == ["damaged: entries of a session 1 that is not there"]
    _damaged(tmp_path / "damaged")
    assert all(line.startswith("damaged: ") for line in check(tmp_path / "damaged"))


# --- older schemas -----------------------------------------------------------------------------------


def _oldest(path: Path) -> None:
    made(path)
    _sql(path, "DROP TABLE entries; DROP TABLE sessions; CREATE TABLE old(id TEXT); INSERT INTO old VALUES ('a')")
    _sql(path, "PRAGMA user_version=-1")


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE half_way(id TEXT)")
    connection.execute("INSERT INTO half_way SELECT id FROM old")
    connection.execute("DROP TABLE old")


def _finish(connection: sqlite3.Connection) -> None:
    for statement in schema._SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO sessions(id) SELECT id FROM half_way")
    connection.execute("INSERT INTO entries SELECT number, 'kind', '', 0, x'' FROM sessions")
    connection.execute("DROP TABLE half_way")


def _finish_badly(connection: sqlite3.Connection) -> None:
    _finish(connection)
    connection.execute("CREATE TABLE left_over(a)")


def _raise(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE half_way")
    connection.execute("SELECT * FROM half_way")


def test_an_older_file_is_brought_up_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _oldest(tmp_path / "journal")
    monkeypatch.setattr(schema, "MIGRATIONS", {-1: _begin, 0: _finish})
    assert check(tmp_path / "journal") == []
    trio.run(_enter, tmp_path / "journal")
    monkeypatch.setattr(schema, "MIGRATIONS", {})
    assert read_entries(tmp_path / "journal") == {"a": (entry(),)}


@pytest.mark.parametrize(
    ("finish", "error", "why"),
    [(_raise, JournalFailed, "no such table"), (_finish_badly, JournalRefused, "'left_over' in it")],
)
def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finish: Callable[[sqlite3.Connection], None],
    error: type[Exception],
    why: str,
) -> None:
    _oldest(tmp_path / "journal")
    before = fingerprints(tmp_path)
    monkeypatch.setattr(schema, "MIGRATIONS", {-1: _begin, 0: finish})
    with pytest.raises(error, match=why):
        trio.run(_enter, tmp_path / "journal")
    assert fingerprints(tmp_path) == before


def test_an_older_file_is_not_read_before_a_machine_has_brought_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _oldest(tmp_path / "journal")
    monkeypatch.setattr(schema, "MIGRATIONS", {-1: _begin, 0: _finish})
    with pytest.raises(JournalRefused, match="its schema is older"):
        read_entries(tmp_path / "journal")
