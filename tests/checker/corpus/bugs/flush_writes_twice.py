"""A batch flusher: rows are written when there are two of them, or once a second.

The shape is that of https://github.com/duolicious/duolicious/pull/1616: two who find the same thing to do, because
the one who does it leaves it lying about until it is done.
Wrong here: rows stay in the buffer while they are written, for the other flush to find.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "batch flusher (size and timer at the same time)"
ORACLE: str | None = None
MODE: str = "fair"


class Flusher:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer: list[str] = []
        self.written: list[str] = []

    async def add(self, row: str) -> None:
        self._buffer.append(row)
        if len(self._buffer) >= self._limit:
            await self.flush()

    async def flush(self) -> None:
        await self._write(self._buffer.copy())
        self._buffer.clear()

    async def _write(self, rows: list[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.written += rows

    async def flush_by_timer(self, rounds: int) -> None:
        for _ in range(rounds):
            await trio.sleep(1)
            await self.flush()


async def scenario(x: Any) -> None:
    flusher = Flusher(limit=2)

    async def writer() -> None:
        await flusher.add("one")
        await trio.sleep(1)
        await trio.lowlevel.checkpoint()
        await flusher.add("two")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.flush_by_timer, 2)
        nursery.start_soon(writer)
    x.check(sorted(flusher.written) == ["one", "two"], f"written: {flusher.written}")
