"""A topic that keeps its newest value: a subscriber must notice what is published between its look and its sleep."""

from __future__ import annotations

from typing import Any

import trio

ORACLE: str | None = "deadlock"
MODE = "adversarial"


class Topic:
    """Only the newest value counts; a slow subscriber skips the ones in between."""

    def __init__(self) -> None:
        self.version = 0
        self.value = ""
        self.polls = 0
        self._changed = trio.Event()

    def publish(self, value: str) -> None:
        self.version += 1
        self.value = value
        self._changed.set()
        self._changed = trio.Event()

    async def _count_poll(self) -> None:
        await trio.lowlevel.checkpoint()
        self.polls += 1

    async def newer_than(self, version: int) -> tuple[int, str]:
        while self.version == version:
            await self._count_poll()
            await self._changed.wait()
        return self.version, self.value


async def scenario(x: Any) -> None:
    topic = Topic()
    seen: list[str] = []

    async def subscriber() -> None:
        version, value = 0, ""
        while value != "last":
            version, value = await topic.newer_than(version)
            seen.append(value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriber)
        for value in ("first", "last"):
            for _ in range(6):
                await trio.lowlevel.checkpoint()
            topic.publish(value)
    x.check(seen[-1] == "last", f"the subscriber saw {seen}")
