"""A journal that several tasks append to; entries of several lines stay together.

The shape is that of https://github.com/aio-libs/aiohttp/pull/861: something is held from here on, and the await that
follows may end in an exception before anybody cares for giving it back.
Wrong here: the file is rotated after the lock was acquired and before the `try` that releases it.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "leaked permit (Lock acquired outside try)"
ORACLE: str | None = "leaked lock"
MODE: str = "fair"


class Journal:
    def __init__(self, lines_per_file: int) -> None:
        self._lines_per_file = lines_per_file
        self._lock = trio.Lock()
        self.files: list[list[str]] = [[]]

    async def append(self, *lines: str) -> None:
        await self._lock.acquire()
        await self._rotate_for(len(lines))
        try:
            for line in lines:
                await trio.lowlevel.checkpoint()
                self.files[-1].append(line)
        finally:
            self._lock.release()

    async def _rotate_for(self, count: int) -> None:
        if len(self.files[-1]) + count > self._lines_per_file:
            await trio.sleep(0.01)
            self.files.append([])


async def scenario(x: Any) -> None:
    journal = Journal(lines_per_file=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.append, "begin", "end")
        nursery.start_soon(journal.append, "begin", "end")
    x.check(journal.files == [["begin", "end"]] * 2, f"entries are torn apart: {journal.files}")
