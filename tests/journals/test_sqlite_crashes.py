"""What an append has returned is there, whatever the process or the disk did then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meerkat_trio import JournalFailed
from meerkat_trio.abc import Change, Delete, Entry, Forget
from meerkat_trio.journals import SqliteJournal, check, read_entries

from .rig import child, entry, killed_in_the_middle

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS: Final = 10

FULL: Final = """
import resource, signal, sys, trio
from meerkat_trio import JournalFailed
from meerkat_trio.abc import Entry, Forget
from meerkat_trio.journals import SqliteJournal

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with SqliteJournal(sys.argv[1]) as journal:
        limit(200_000)
        written, failed = 0, []
        while not failed:
            try:
                await journal.append({"s": [Entry(kind="k", key=str(written), position=written, value=b"v" * 9000)]})
                written += 1
            except JournalFailed as error:
                failed.append(str(error))
        print(failed[0], flush=True)
        assert len((await journal.restore())["s"]) == written
        outcomes = []
        async def append(name, size):
            try:
                await journal.append({name: [Entry(kind="k", key="", position=0, value=b"v" * size)]})
            except JournalFailed:
                outcomes.append(name)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(append, f"large {number}", 300_000)
        assert sorted(outcomes) == [f"large {number}" for number in range(5)], outcomes
        limit(resource.RLIM_INFINITY)
        await journal.append({"later": [Entry(kind="k", key="", position=0, value=b"there is room again")]})
        print(written, flush=True)

trio.run(main)
"""
"""Appends until its files may not grow, tells the error; then, with room again, once more; tells how many before."""


WRITING: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
"""Another program that writes, and does not come to an end."""


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_acknowledged_outlives_a_kill_and_groups_are_whole(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "journal"
    for number in range(ROUNDS):
        if number % 2:
            path = tmp_path / f"journal {number}"
        acknowledged = killed_in_the_middle(path, durability, 1000 + 137 * number)
        assert check(path) == []
        assert _missing(path, acknowledged) == []
        trio.run(_enter, path)
        assert _missing(path, acknowledged) == []


def _missing(path: Path, acknowledged: dict[str, int]) -> list[str]:
    """Return what was acknowledged and is not there, and what is there in half."""
    found = {name: {(entry.kind, entry.key) for entry in entries} for name, entries in read_entries(path).items()}
    missing = [
        f"{name} {kind} {number}"
        for name, last in acknowledged.items()
        for number in range(last + 1)
        for kind in ("one", "other")
        if (kind, str(number)) not in found[name]
    ]
    halves = [
        f"{name} {key}"
        for name, pairs in found.items()
        for _, key in pairs
        if not pairs >= {("one", key), ("other", key)}
    ]
    return missing + halves


async def _enter(path: Path) -> None:
    async with SqliteJournal(path):
        pass


def test_a_file_that_may_not_grow_fails_appends_until_it_may(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with child(FULL, path) as (process, told):
        why = told.readline()
        written = told.readline()
        assert process.wait() == 0
    assert why.startswith(f"{path}: nothing was written: disk I/O error")
    found = read_entries(path)
    assert found.keys() == {"s", "later"}
    assert len(found["s"]) == int(written)
    assert check(path) == []


async def test_a_full_disk_fails_appends_until_there_is_room(tmp_path: Path) -> None:
    async def limit(pages: int) -> None:
        await journal._open.call(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}").fetchall())

    async with SqliteJournal(tmp_path / "journal") as journal:
        await limit(10)
        with pytest.raises(JournalFailed, match="database or disk is full"):
            await journal.append({"a": [entry(value=b"v" * 100_000)]})
        await journal.append({"a": [entry("small")]})
        await limit(1000)
        await journal.append({"a": [entry("large", value=b"v" * 100_000)]})
        assert [one.key for one in (await journal.restore())["a"]] == ["large", "small"]


async def test_a_file_that_has_become_read_only_fails_appends_until_it_is_not(tmp_path: Path) -> None:
    async def query_only(state: str) -> None:
        await journal._open.call(lambda connection: connection.execute(f"PRAGMA query_only={state}").fetchall())

    async with SqliteJournal(tmp_path / "journal") as journal:
        await query_only("ON")
        with pytest.raises(JournalFailed, match=r"attempt to write a readonly database \(SQLITE_READONLY\)"):
            await journal.append({"a": [entry()]})
        assert await journal.restore() == {}
        await query_only("OFF")
        await journal.append({"a": [entry()]})
        assert await journal.restore() == {"a": (entry(),)}


async def test_a_writer_of_another_program_fails_all_that_wait_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE')"
    )
    holding += "; print('held', flush=True); sys.stdin.read()"
    monkeypatch.setattr("meerkat_trio.journals._sqlite_file._BUSY", 0.01)
    failed: list[str] = []

    async def append(name: str) -> None:
        try:
            await journal.append({name: [entry()]})
        except JournalFailed as error:
            failed.append(str(error))

    async with SqliteJournal(tmp_path / "journal") as journal:
        with child(WRITING, tmp_path / "journal") as (_process, told):
            assert told.readline() == "held\n"
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(append, str(number))
        assert len(failed) == 3
        assert all("database is locked (SQLITE_BUSY)" in why for why in failed)
        await journal.append({"a": [entry()]})
        assert (await journal.restore()).keys() == {"a"}


# --- against a model ---------------------------------------------------------------------------------

_SESSIONS: Final = st.sampled_from(["a", "b", "c"])
_WORDS: Final = st.sampled_from(["", "k", "l"])
_CHANGES: Final[st.SearchStrategy[Change]] = st.one_of(
    st.builds(Entry, kind=_WORDS, key=_WORDS, position=st.integers(0, 2**63 - 1), value=st.binary(max_size=8)),
    st.builds(Delete, _WORDS, _WORDS),
    st.builds(Forget),
)
_APPENDS: Final = st.dictionaries(_SESSIONS, st.lists(_CHANGES, max_size=4), max_size=3)
_STEPS: Final = st.lists(st.one_of(_APPENDS, st.sampled_from(["reopen", "compact", "read"])), max_size=25)


def _change(model: dict[str, dict[tuple[str, str], Entry]], append: dict[str, list[Change]]) -> None:
    for name, changes in append.items():
        of_session = model.setdefault(name, {})
        for change in changes:
            match change:
                case Entry():
                    of_session[change.kind, change.key] = change
                case Delete():
                    of_session.pop((change.kind, change.key), None)
                case Forget():
                    of_session.clear()


def _told(model: dict[str, dict[tuple[str, str], Entry]]) -> dict[str, tuple[Entry, ...]]:
    return {
        name: tuple(sorted(entries.values(), key=lambda one: (one.position, one.kind, one.key)))
        for name, entries in model.items()
        if entries
    }


@settings(max_examples=60)
@given(steps=_STEPS)
def test_a_journal_remembers_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("model") / "journal"
    model: dict[str, dict[tuple[str, str], Entry]] = {}

    async def live(remaining: list[Any]) -> None:
        async with SqliteJournal(path, durability="normal") as journal:
            assert await journal.restore() == _told(model)
            while remaining:
                match remaining.pop(0):
                    case "reopen":
                        return
                    case "compact":
                        await journal.compact()
                    case "read":
                        assert read_entries(path) == _told(model)
                    case append:
                        await journal.append(append)
                        _change(model, append)
            assert await journal.restore() == _told(model)

    remaining = list(steps)
    while remaining:
        trio.run(live, remaining)
    if path.exists():
        assert read_entries(path) == _told(model)
        assert check(path) == []


def test_importing_journals_loads_nothing_of_the_shell() -> None:
    code = (
        "import sys, meerkat_trio.journals; print(*(name for name in sys.modules if name.startswith('meerkat_trio._')))"
    )
    with child(code) as (_process, told):
        loaded = told.read().split()
    assert "meerkat_trio._exceptions" in loaded
    assert not {"meerkat_trio._machine", "meerkat_trio._session", "meerkat_trio._drain"} & {*loaded}
