"""Machines whose journal cannot be written: nothing is admitted meanwhile, nothing is lost, and it passes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio

from meerkat_trio import JournalFailed, SessionRun, open_machine
from meerkat_trio._entries import decode_memory
from meerkat_trio.journals import SqliteJournal, check, read_entries

from ..journals.rig import fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]


def full(path: Path) -> dict[str, list[str]]:
    """Run a machine whose files may not grow for a while, and that is killed then; return what it says."""
    command = [sys.executable, "-m", "tests.kills.full", str(path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    found: dict[str, list[str]] = json.loads(ran.stdout)
    return found


def test_a_full_disk_refuses_what_comes_and_loses_nothing_that_was_admitted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    told = full(path)
    assert len(told["admitted"]) > 10
    # While it was full nothing got in, by either door.
    assert told["reasons"] == ["not_recorded"] * len(told["refused"])
    assert len(told["refused"]) == 3
    assert told["delivery"] == ["not_recorded"]
    # What was running when it was full was handled once, and nothing behind it before that was written.
    assert told["handled when full"] == told["admitted"][:1]
    # With room again the very same messages are taken.
    assert told["admitted again"] == told["refused"]
    assert told["handled"] == [*told["admitted"], *told["admitted again"], "delivered"][: len(told["handled"])]
    assert check(path) == []
    memory = decode_memory("a", read_entries(path)["a"])
    left = [each.envelope.body[0] for each in memory.messages]
    everything = [*told["admitted"], *told["admitted again"], "delivered"]
    assert [*told["handled"], *left][: len(told["handled"])] == told["handled"]
    assert set(told["handled"]) | set(left) == set(everything)
    # One at most, the one that was running, is handled again.
    assert len(set(told["handled"]) & set(left)) <= 1

    handled: list[str] = []
    done = trio.Event()

    async def handle(run: SessionRun) -> None:
        handled.append(run.message.body[0])
        if len(handled) == len(left):
            done.set()

    async def go_on() -> None:
        with trio.fail_after(20):
            async with open_machine(journal=SqliteJournal(path), executors={"a": handle}):
                await done.wait()

    assert left
    trio.run(go_on)
    assert handled == left


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory with a journal of two messages, on a file system that cannot be written."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs to mount")

    async def make() -> None:
        async with open_machine(journal=SqliteJournal(tmp_path / "journal")) as machine:
            session = await machine.register("a")
            await session.deliver("one")
            await session.deliver("two")

    trio.run(make)
    mounted = subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def _open(path: Path) -> None:
    async def enter() -> None:
        async with open_machine(journal=SqliteJournal(path)):
            raise AssertionError("the block was entered")

    trio.run(enter)


@pytest.mark.parametrize("name", ["journal", "new"])
def test_a_machine_is_not_opened_on_a_read_only_file_system(read_only: Path, name: str) -> None:
    before = fingerprints(read_only)
    with pytest.raises(JournalFailed) as raised:
        _open(read_only / name)
    assert raised.value.journal == str(read_only / name)
    assert "Read-only file system" in raised.value.why
    assert fingerprints(read_only) == before
    memory = decode_memory("a", read_entries(read_only / "journal")["a"])
    assert [each.envelope.body for each in memory.messages] == ["one", "two"]
