"""A connection pool with a queue: a connection that comes back goes to whoever has waited longest.

The shape is that of https://github.com/encode/httpcore/issues/1093 and
https://github.com/aio-libs/aiohttp/pull/9671: a connection is assigned to a request that was cancelled while it
waited.
Wrong here: a cancelled request leaves the queue, and a connection assigned to it by then is never seen again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import attrs
import trio

KIND: str = "hand-over to a dying waiter (connection pool)"
ORACLE: str | None = "unclosed resource"
MODE: str = "fair"


class Connection(trio.abc.AsyncResource):
    async def request(self) -> None:
        await trio.sleep(1)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Request:
    connection: Connection | None = None
    assigned: trio.Event = attrs.field(factory=trio.Event)


class Pool:
    def __init__(self, size: int) -> None:
        self._idle = [Connection() for _ in range(size)]
        self._queue: deque[Request] = deque()

    async def acquire(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        request = Request()
        self._queue.append(request)
        try:
            await request.assigned.wait()
        except trio.Cancelled:
            if request in self._queue:
                self._queue.remove(request)
            raise
        assert request.connection is not None
        return request.connection

    def release(self, connection: Connection) -> None:
        if self._queue:
            request = self._queue.popleft()
            request.connection = connection
            request.assigned.set()
        else:
            self._idle.append(connection)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            while self._idle:
                await self._idle.pop().aclose()


async def use(pool: Pool) -> None:
    connection = await pool.acquire()
    try:
        await connection.request()
    finally:
        pool.release(connection)


async def scenario(x: Any) -> None:
    pool = Pool(1)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool)
            await trio.lowlevel.checkpoint()
            with x.victim():
                await use(pool)
    finally:
        await pool.aclose()
