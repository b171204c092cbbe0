"""A client that is closed while a connection is still shaking hands: that connection has to be closed as well."""

from __future__ import annotations

from typing import Any

import trio

ORACLE: str | None = "unclosed resource"
MODE = "adversarial"


class Connection(trio.abc.AsyncResource):
    def __init__(self) -> None:
        self.closed = False

    async def handshake(self) -> None:
        for _ in ("hello", "version"):
            await trio.lowlevel.checkpoint()
            if self.closed:
                raise trio.ClosedResourceError

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


class Client:
    def __init__(self) -> None:
        self._closed = False
        self._connections: list[Connection] = []

    async def connect(self) -> Connection:
        if self._closed:
            raise trio.ClosedResourceError
        connection = Connection()
        self._connections.append(connection)  # aclose() has to find it from now on
        await connection.handshake()
        return connection

    async def aclose(self) -> None:
        self._closed = True
        async with trio.open_nursery() as nursery:
            for connection in self._connections:
                nursery.start_soon(connection.aclose)


async def scenario(x: Any) -> None:
    client = Client()

    async def dial() -> None:
        try:
            await client.connect()
        except trio.ClosedResourceError:
            x.log("closed before the connection was up")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        try:
            for _ in range(8):
                await trio.lowlevel.checkpoint()  # other work of this client
        finally:
            await client.aclose()
