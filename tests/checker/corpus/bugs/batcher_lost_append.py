"""A batcher of log lines: a line that is added while a batch is being sent must not vanish with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

ORACLE: str | None = None
MODE = "fair"


class Batcher:
    """Sends when `limit` lines have come together, and whatever is left when it is closed."""

    def __init__(self, send: Callable[[list[str]], Awaitable[None]], limit: int) -> None:
        self._send = send
        self._limit = limit
        self._lines: list[str] = []
        self._sending = trio.Lock()

    async def add(self, line: str) -> None:
        self._lines.append(line)
        if len(self._lines) >= self._limit:
            await self.flush()

    async def flush(self) -> None:
        async with self._sending:
            batch = list(self._lines)
            if batch:
                await self._send(batch)
                self._lines.clear()

    async def aclose(self) -> None:
        await self.flush()


async def scenario(x: Any) -> None:
    arrived: list[str] = []

    async def upload(batch: list[str]) -> None:
        await trio.sleep(x.choose([0.125, 1.5]))
        arrived.extend(batch)

    batcher = Batcher(upload, 2)

    async def chatty() -> None:
        await batcher.add("a1")
        await batcher.add("a2")

    async def quiet() -> None:
        await trio.sleep(1)
        await batcher.add("b1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chatty)
        nursery.start_soon(quiet)
    await batcher.aclose()
    x.check(sorted(arrived) == ["a1", "a2", "b1"], f"only these arrived: {arrived}")
