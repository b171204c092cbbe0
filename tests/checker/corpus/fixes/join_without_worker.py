"""A queue with `join`, which waits until everything that was put has been done.

The shape is that of https://github.com/aio-libs/janus/issues/294: `join` waits for ever when there is nobody left
who could do what it waits for.
Right here: `join` fails when the worker has left.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "shutdown race (join without a worker)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class WorkerGone(Exception):
    pass


class WorkQueue:
    def __init__(self) -> None:
        self._put, self._get = trio.open_memory_channel[str](10)
        self._open_jobs = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._worker_is_there = True

    def put(self, job: str) -> None:
        self._open_jobs += 1
        self._put.send_nowait(job)

    async def work(self) -> None:
        try:
            async for _job in self._get:
                await trio.sleep(0.5)
                self._open_jobs -= 1
                self._changed.unpark_all()
        finally:
            self._worker_is_there = False
            self._changed.unpark_all()

    async def join(self) -> None:
        while self._open_jobs and self._worker_is_there:
            await self._changed.park()
        if self._open_jobs:
            raise WorkerGone(f"{self._open_jobs} jobs are left")

    def close(self) -> None:
        self._put.close()


async def scenario(x: Any) -> None:
    queue = WorkQueue()

    async def worker() -> None:
        with x.victim():
            await queue.work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        queue.put("sweep")
        queue.put("mop")
        try:
            await queue.join()
        except WorkerGone as gone:
            x.log(str(gone))
        finally:
            queue.close()
