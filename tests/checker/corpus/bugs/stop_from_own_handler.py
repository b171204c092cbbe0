"""A service that handles messages in tasks of its own, and that can be stopped.

The shape is that of https://github.com/python-trio/trio-asyncio/issues/58 and
https://github.com/ethereum/async-service/issues/54: the one who asks for the end is part of what has to end first.
Wrong here: the handler of "quit" waits for the service's end, and the service's end waits for its handlers.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "deadlock (waits for the nursery it runs in)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class Service:
    def __init__(self) -> None:
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self.handled: list[str] = []
        self.inbox, self._source = trio.open_memory_channel[str](5)

    async def run(self) -> None:
        try:
            with self.inbox, self._source:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._dispatch, nursery)
                    await self._stopping.wait()
                    self.inbox.close()
        finally:
            self._ended.set()

    async def _dispatch(self, nursery: trio.Nursery) -> None:
        async for message in self._source:
            nursery.start_soon(self._handle, message)

    async def _handle(self, message: str) -> None:
        await trio.sleep(0.1)
        self.handled.append(message)
        if message == "quit":
            await self.stop()

    def ask_to_stop(self) -> None:
        self._stopping.set()

    async def stop(self) -> None:
        self.ask_to_stop()
        await self._ended.wait()


async def scenario(x: Any) -> None:
    service = Service()
    message = x.choose(["ping", "quit"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        service.inbox.send_nowait(message)
        await trio.sleep(1)
        await service.stop()
    x.check(service.handled == [message], f"handled: {service.handled}")
