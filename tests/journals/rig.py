"""What the tests of a journal's file share: entries in short, what lies in a directory, a process that is killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import trio

from meerkat_trio.abc import Entry
from meerkat_trio.journals import SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from meerkat_trio.abc import Change

__all__ = ["APPENDING", "child", "entry", "fingerprints", "killed_in_the_middle", "made"]

APPENDING = """
import sys, trio
from meerkat_trio.abc import Entry
from meerkat_trio.journals import SqliteJournal

async def keep_appending(journal, name):
    number = 0
    while True:
        changes = [Entry(kind=kind, key=str(number), position=number, value=b"v" * 200) for kind in ("one", "other")]
        await journal.append({name: changes})
        sys.stdout.write(f"{name} {number}\\n")
        sys.stdout.flush()
        number += 1

async def main():
    async with SqliteJournal(sys.argv[1], durability=sys.argv[2]) as journal, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(keep_appending, journal, f"session-{number}")

trio.run(main)
"""
"""Appends two entries at a time, by eight tasks, and says which appends have returned; without end."""


def entry(key: str = "", position: int = 0, value: bytes = b"", kind: str = "kind") -> Entry:
    return Entry(kind=kind, key=key, position=position, value=value)


def made(path: Path, changes: Mapping[str, Sequence[Change]] | None = None) -> None:
    """Make a journal, or open one, append to it, and let go of it."""

    async def make() -> None:
        async with SqliteJournal(path) as journal:
            await journal.append(changes or {})

    trio.run(make)


def fingerprints(directory: Path) -> dict[str, str]:
    """Return what lies in a directory, by name, and the hashes of it."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in directory.iterdir()
    }


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Run code in a process of its own; yields it and what it prints. At the end it is killed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)


def killed_in_the_middle(path: Path, durability: str, after: int) -> dict[str, int]:
    """Have a child append to a journal, and kill it after so many; returns each session's last append that returned."""
    acknowledged: dict[str, int] = {}
    with child(APPENDING, path, durability) as (process, told):
        for count, line in enumerate(told):
            name, number = line.split()
            acknowledged[name] = int(number)
            if count == after:
                os.kill(process.pid, signal.SIGKILL)
    return acknowledged
