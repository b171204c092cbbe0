"""An inbox from which a worker takes jobs, one at a time; a successor goes on when the worker has to leave.

The shape is that of python/asyncio#201 (https://github.com/python/asyncio/issues/201) and of
https://github.com/tornadoweb/tornado/issues/2826: taking an item and handling it are two steps.
Wrong here: a job is out of the channel before it is handled, so a cancelled worker takes its job with it.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "lost item"
ORACLE: str | None = None
MODE: str = "fair"


class Inbox:
    def __init__(self, source: trio.MemoryReceiveChannel[str]) -> None:
        self._source = source
        self._unacknowledged: str | None = None
        self.handled: list[str] = []

    async def work(self) -> None:
        while True:
            try:
                job = await self._next()
            except trio.EndOfChannel:
                return
            await trio.sleep(0.5)
            self.handled.append(job)
            self._unacknowledged = None

    async def _next(self) -> str:
        return await self._source.receive()


async def produce(sink: trio.MemorySendChannel[str], jobs: list[str]) -> None:
    async with sink:
        for job in jobs:
            await sink.send(job)


async def scenario(x: Any) -> None:
    jobs = ["wash", "dry", "fold"]
    send, receive = trio.open_memory_channel[str](1)
    inbox = Inbox(receive)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce, send, jobs)
        with x.victim():
            await inbox.work()
        await inbox.work()
    x.check(inbox.handled == jobs, f"handled {inbox.handled}")
