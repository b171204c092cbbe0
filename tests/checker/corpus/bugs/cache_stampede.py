"""A cache in front of an expensive query.

The shape is that of https://github.com/aio-libs/aiohttp/pull/1924 (many requests, each of which looks up the same
name) and https://github.com/aio-libs/async-lru/issues/447.
Wrong here: between the miss and the store there is an await, and everybody who comes in between queries too.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "cache stampede"
ORACLE: str | None = None
MODE: str = "fair"


class QueryCache:
    def __init__(self) -> None:
        self._results: dict[str, int] = {}
        self._filling = trio.Lock()
        self.queries = 0

    async def get(self, query: str) -> int:
        if query not in self._results:
            self._results[query] = await self._run(query)
        return self._results[query]

    async def _run(self, query: str) -> int:
        self.queries += 1
        await trio.sleep(1)
        return len(query)


async def scenario(x: Any) -> None:
    cache = QueryCache()
    results: list[int] = []

    async def reader(after: float) -> None:
        await trio.sleep(after)
        results.append(await cache.get("SELECT *"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader, 0)
        nursery.start_soon(reader, 1)
    x.check(cache.queries == 1, f"{cache.queries} queries for {results}")
