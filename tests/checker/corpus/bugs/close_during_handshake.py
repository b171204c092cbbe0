"""A client that may be closed at any time, also while it is still shaking hands.

The shape is that of https://github.com/LadybirdBrowser/ladybird/pull/8698: closing what is not there yet does
nothing, and then it is there.
Wrong here: a handshake that ends after `close` leaves an open connection behind.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

KIND: str = "start-up and shutdown race (close during start)"
ORACLE: str | None = None
MODE: str = "fair"


@attrs.define(eq=False)
class Connection:
    is_open: bool = True


class Client:
    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self._current: Connection | None = None
        self._closed = False

    async def start(self) -> None:
        connection = await self._shake_hands()
        self._current = connection

    async def _shake_hands(self) -> Connection:
        for _ in range(2):
            await trio.sleep(0.5)
        connection = Connection()
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        self._closed = True
        if self._current is not None:
            self._current.is_open = False
            self._current = None


async def scenario(x: Any) -> None:
    client = Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.start)
        await trio.sleep(1)
        client.close()
    x.check(not any(connection.is_open for connection in client.connections), "closed, and yet there is a connection")
