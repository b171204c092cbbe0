"""A lock for many readers or one writer; writers that wait go before readers that come later.

The shape is that of https://github.com/sgl-project/sglang/pull/31657 and
https://github.com/aio-libs/aiorwlock/issues/400: a writer that was cancelled while it waited is still counted as
waiting.
Right here: a writer that leaves is taken off the count, and the readers are told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

KIND: str = "read-write lock with a cancelled writer"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class ReadWriteLock:
    def __init__(self) -> None:
        self._readers = 0
        self._writing = False
        self._waiting_writers = 0
        self._changed = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        while self._writing or self._waiting_writers:
            await self._changed.park()
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._changed.unpark_all()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        self._waiting_writers += 1
        try:
            while self._writing or self._readers:
                await self._changed.park()
        finally:
            self._waiting_writers -= 1
            self._changed.unpark_all()
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            self._changed.unpark_all()


async def read(lock: ReadWriteLock, after: float) -> None:
    await trio.sleep(after)
    async with lock.reading():
        await trio.sleep(2)


async def scenario(x: Any) -> None:
    lock = ReadWriteLock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, lock, 0)
        nursery.start_soon(read, lock, 1)
        await trio.sleep(0.5)
        with x.victim():
            async with lock.writing():
                await trio.sleep(1)
