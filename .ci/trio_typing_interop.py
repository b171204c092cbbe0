"""Checks that code annotated with trio_typing works beside this package: at run time, and in a type checker."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import trio
import trio_typing

from meerkat_trio import open_machine

SAMPLE = """
import trio
from meerkat_trio import MeerkatMachine, Session, open_machine

async def child(*, task_status: trio.TaskStatus[Session]) -> None:
    async with open_machine() as machine:
        session = await machine.register("a")
        task_status.started(session)

async def main() -> None:
    async with trio.open_nursery() as nursery:
        session: Session = await nursery.start(child)
        print(session.id)
"""


async def child(*, task_status: trio_typing.TaskStatus[str]) -> None:
    assert isinstance(task_status, trio_typing.TaskStatus)
    async with open_machine() as machine:
        session = await machine.register("interop")
        task_status.started(session.id)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        assert await nursery.start(child) == "interop"
    started = []

    async def handler(_: object) -> None:
        async with trio.open_nursery() as nursery:
            started.append(await nursery.start(child))

    async with open_machine() as machine:
        session = await machine.register("outer", handler)
        await session.deliver("go")
        await session.retire()
    assert started == ["interop"], started


trio.run(main)
print("functions annotated with trio_typing.TaskStatus start under a machine")

with tempfile.TemporaryDirectory() as folder:
    # The stubs of trio-typing override Trio's inline types; a path that leads to these first puts that right.
    (Path(folder) / "trio").symlink_to(Path(trio.__file__).parent)
    sample = Path(folder) / "sample.py"
    sample.write_text(SAMPLE)
    config = Path(folder) / "mypy.ini"
    config.write_text(f"[mypy]\nstrict = True\nmypy_path = {folder}\n[mypy-trio.*]\nfollow_imports = silent\n")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(config), str(sample)], check=False, cwd=folder
    )
sys.exit(checked.returncode)
