"""An import job that stores rows and reports its progress; a lost report must not stop the import.

The shape is that of https://github.com/psycopg/psycopg/issues/1401, where a check that may fail absorbs the
cancellation of the task that makes it.
Wrong here: "best effort" suppresses every exception, so a cancellation that arrives during a report is lost.
"""

from __future__ import annotations

import contextlib
from typing import Any

import trio

KIND: str = "swallowed cancellation (suppress(BaseException))"
ORACLE: str | None = "swallowed"
MODE: str = "fair"


class Importer:
    def __init__(self, listener: trio.MemorySendChannel[int]) -> None:
        self._listener = listener
        self.stored: list[str] = []

    async def run(self, *rows: str) -> None:
        for row in rows:
            await trio.sleep(0.1)
            self.stored.append(row)
            await self._report()

    async def _report(self) -> None:
        with contextlib.suppress(BaseException):
            await self._listener.send(len(self.stored))


async def listen(source: trio.MemoryReceiveChannel[int], limit: int) -> None:
    async with source:
        async for count in source:
            await trio.sleep(0.2)
            if count == limit:
                break  # the rest does not interest it


async def scenario(x: Any) -> None:
    send, receive = trio.open_memory_channel[int](0)
    async with trio.open_nursery() as nursery, send:
        nursery.start_soon(listen, receive, 3)
        importer = Importer(send)
        with x.victim():
            await importer.run("one", "two", "three")
