"""A hub that passes every message on to all its listeners; listeners come and go.

The shape is that of https://github.com/mosquito/aio-pika/issues/589 and
https://github.com/open-aviation/tangram/issues/27: a collection changes while somebody awaits in the middle of a
loop over it.
Wrong here: the hub loops over the live collection while it waits for slow listeners.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "pub/sub (unsubscribing during publish)"
ORACLE: str | None = "exception"
MODE: str = "fair"


class Hub:
    def __init__(self) -> None:
        self._listeners: dict[str, trio.MemorySendChannel[str]] = {}

    def connect(self, name: str) -> trio.MemoryReceiveChannel[str]:
        send, receive = trio.open_memory_channel[str](0)
        self._listeners[name] = send
        return receive

    def disconnect(self, name: str, receive: trio.MemoryReceiveChannel[str]) -> None:
        receive.close()  # first: a publisher that waits for this listener is let go
        self._listeners.pop(name).close()

    async def publish(self, message: str) -> None:
        for outlet in self._listeners.values():
            try:
                await outlet.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                continue  # has left in the meantime

    def close(self) -> None:
        for outlet in self._listeners.values():
            outlet.close()


async def listen(hub: Hub, name: str, heard: list[str]) -> None:
    receive = hub.connect(name)
    try:
        async for message in receive:
            await trio.sleep(0.1)
            heard.append(message)
    finally:
        hub.disconnect(name, receive)


async def scenario(x: Any) -> None:
    hub = Hub()
    heard: list[str] = []

    async def guest() -> None:
        with x.victim():
            await listen(hub, "guest", [])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guest)
        nursery.start_soon(listen, hub, "host", heard)
        await trio.sleep(1)
        await hub.publish("one")
        await hub.publish("two")
        hub.close()
    x.check(heard == ["one", "two"], f"the host heard {heard}")
