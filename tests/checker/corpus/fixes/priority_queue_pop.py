"""A bounded priority queue: `put` waits for room, `get` for an entry, the smallest comes first.

The shape is that of https://github.com/python-websockets/websockets/issues/486, where a message was dropped because
the one who fetched it was cancelled after it had been taken from the queue.
Right here: `get` says that there is room before it lets go of the lock, and waits for nothing once it has the entry.
"""

from __future__ import annotations

import heapq
from typing import Any

import trio

KIND: str = "lost item (popped before an await)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class PriorityQueue:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[int, str]] = []
        self._changed = trio.Condition()

    async def put(self, priority: int, name: str) -> None:
        async with self._changed:
            while len(self._heap) >= self._limit:
                await self._changed.wait()
            heapq.heappush(self._heap, (priority, name))
            self._changed.notify_all()

    async def get(self) -> str:
        async with self._changed:
            while not self._heap:
                await self._changed.wait()
            _, name = heapq.heappop(self._heap)
            self._changed.notify_all()
        return name


async def fill(queue: PriorityQueue, names: list[str]) -> None:
    for priority, name in enumerate(names):
        await queue.put(priority, name)


async def scenario(x: Any) -> None:
    names = ["now", "soon", "later"]
    queue = PriorityQueue(limit=1)
    taken: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fill, queue, names)
        with x.victim():
            while len(taken) < len(names):
                taken.append(await queue.get())
        while len(taken) < len(names):
            taken.append(await queue.get())
    x.check(sorted(taken) == sorted(names), f"taken: {taken}")
