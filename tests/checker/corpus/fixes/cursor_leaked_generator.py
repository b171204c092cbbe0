"""An export that reads a table through an async generator: cut short, it has to close the cursor it had open."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import attrs
import trio

ORACLE: str | None = "leaked generator"
MODE = "fair"


@attrs.define(eq=False)
class Table:
    rows: list[str]
    open_cursors: int = 0

    async def _page(self, start: int, size: int) -> list[str]:
        await trio.sleep(0.25)
        return self.rows[start : start + size]

    async def scan(self, page_size: int = 2) -> AsyncGenerator[str, None]:
        self.open_cursors += 1
        try:
            for start in range(0, len(self.rows), page_size):
                for row in await self._page(start, page_size):
                    yield row
        finally:
            self.open_cursors -= 1


async def export(table: Table, write: Any) -> int:
    """Writes all rows, and returns how many there were."""
    count = 0
    async with aclosing(table.scan()) as rows:
        async for row in rows:
            await write(row)
            count += 1
    return count


async def scenario(x: Any) -> None:
    table = Table(["a", "b", "c"])
    written: list[str] = []

    async def write(row: str) -> None:
        await trio.sleep(0.5)
        written.append(row)

    with x.victim():
        await export(table, write)
    x.check(written == table.rows[: len(written)], f"out of order: {written}")
