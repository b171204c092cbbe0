"""A semaphore that is first come, first served: whoever gives a slot back hands it to the head of the queue.

The shape is that of https://github.com/python/cpython/issues/90155 and https://github.com/agronholm/anyio/pull/1145:
the head of the queue was cancelled and has not run since.
Wrong here: a waiter that was handed a slot and dies takes the slot with it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

KIND: str = "hand-over to a dying waiter (Event + slot)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class FairSlots:
    def __init__(self, slots: int) -> None:
        self._free = slots
        self._queue: deque[trio.Event] = deque()

    async def take(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = trio.Event()
        self._queue.append(turn)
        try:
            await turn.wait()
        except trio.Cancelled:
            if turn in self._queue:
                self._queue.remove(turn)
            raise

    def give(self) -> None:
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1


async def visit(slots: FairSlots, visited: list[str], name: str) -> None:
    await slots.take()
    try:
        await trio.sleep(1)
        visited.append(name)
    finally:
        slots.give()


async def scenario(x: Any) -> None:
    slots = FairSlots(1)
    visited: list[str] = []
    async with trio.open_nursery() as nursery:

        async def impatient() -> None:
            with x.victim():
                await visit(slots, visited, "impatient")

        nursery.start_soon(visit, slots, visited, "first")
        nursery.start_soon(impatient)
        nursery.start_soon(visit, slots, visited, "last")
    x.check({"first", "last"} <= set(visited), f"visited: {visited}")
