"""Rows are collected in memory and written to a table in batches.

The shape is that of https://github.com/python/asyncio/issues/343: what was taken out of a buffer is in nobody's
hands while the taker waits.
Right here: a row leaves the buffer when it is written; cancelled half-way, the rest is written by the next flush.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
import trio

KIND: str = "lost items (half-processed batch)"
ORACLE: str | None = None
MODE: str = "fair"


@attrs.define
class Table:
    rows: list[int] = attrs.field(factory=list)

    async def insert(self, row: int) -> None:
        await trio.lowlevel.checkpoint()
        self.rows.append(row)


@attrs.define
class BatchWriter:
    table: Table
    _buffer: deque[int] = attrs.field(factory=deque, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def add(self, row: int) -> None:
        self._buffer.append(row)

    async def flush(self) -> None:
        async with self._turn:
            while self._buffer:
                await self.table.insert(self._buffer[0])
                self._buffer.popleft()


async def scenario(x: Any) -> None:
    writer = BatchWriter(Table())
    for row in range(4):
        writer.add(row)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def first_flush() -> None:
            with x.victim():
                await writer.flush()

        await trio.sleep(1)
        writer.add(4)
    await writer.flush()
    x.check(writer.table.rows == [0, 1, 2, 3, 4], f"the table holds {writer.table.rows}")
