"""A news feed that is opened by the task that pumps it, and handed to the one who started that task.

Related to https://github.com/python-trio/trio/issues/1431, on what `nursery.start` can promise under cancellation:
between `started(value)` and the first line of the one who gets the value lies a moment in which nobody feels
responsible.
Wrong here: the pump opens the feed and leaves closing to its user, who may be cancelled before it gets there.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "resource handed over through nursery.start"
ORACLE: str | None = "unclosed resource"
MODE: str = "fair"


class Feed(trio.abc.AsyncResource):
    def __init__(self) -> None:
        self.headlines: list[str] = []
        self.grew = trio.Event()
        self._closed = trio.Event()

    async def pump(self) -> None:
        await trio.sleep(0.1)
        self.headlines.append("it rains")
        self.grew.set()
        await self._closed.wait()

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


async def run_feed(*, task_status: trio.TaskStatus[Feed] = trio.TASK_STATUS_IGNORED) -> None:
    feed = Feed()
    task_status.started(feed)
    await feed.pump()


async def read_news(nursery: trio.Nursery, seen: list[str]) -> None:
    feed = await nursery.start(run_feed)
    await trio.sleep(0.1)  # tell the audience that the news are about to begin
    async with feed:
        await feed.grew.wait()
        seen += feed.headlines


async def scenario(x: Any) -> None:
    seen: list[str] = []
    async with trio.open_nursery() as nursery:
        await read_news(nursery, seen)
    x.check(seen == ["it rains"], f"seen: {seen}")
