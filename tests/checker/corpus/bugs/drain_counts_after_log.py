"""A server that drains before it goes: no new requests, and the ones at work may finish.

The shape is that of https://github.com/MagicStack/asyncpg/issues/547: closing waits for ever for somebody who was
cancelled on the way.
Wrong here: a request is logged before it is counted off; cancelled in the logging, it is never counted off.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "graceful drain"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class Server:
    def __init__(self) -> None:
        self._at_work = 0
        self._draining = False
        self._idle = trio.Event()
        self.access_log: list[str] = []

    async def handle(self, path: str) -> None:
        if self._draining:
            return
        self._at_work += 1
        try:
            await trio.sleep(1)
        finally:
            await self._log(path)
            self._count_off()

    def _count_off(self) -> None:
        self._at_work -= 1
        if self._draining and not self._at_work:
            self._idle.set()

    async def _log(self, path: str) -> None:
        await trio.lowlevel.checkpoint()
        self.access_log.append(path)

    async def drain(self) -> None:
        self._draining = True
        if self._at_work:
            await self._idle.wait()


async def scenario(x: Any) -> None:
    server = Server()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, "/slow")

        @nursery.start_soon
        async def client_that_may_go() -> None:
            with x.victim():
                await server.handle("/gone")

        await trio.sleep(0.5)
        await server.drain()
    x.check("/slow" in server.access_log, f"the log holds {server.access_log}")
