"""A line that either end may close: the reader when the peer hangs up, the owner when it has had enough.

The shape is that of https://github.com/aio-libs/aiohttp/issues/1814: closing finds that somebody else has closed in
the meantime, and that the transport is None.
Wrong here: two who close at the same time both find the stream there, and one of them closes None.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "shutdown race (closing twice)"
ORACLE: str | None = "exception"
MODE: str = "fair"


class Stream:
    def __init__(self) -> None:
        self.closed = False

    async def send(self, data: bytes) -> None:
        if self.closed:
            raise trio.ClosedResourceError(data)
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.closed = True


class Line:
    def __init__(self) -> None:
        self._stream: Stream | None = Stream()

    async def read_until_hang_up(self) -> None:
        await trio.sleep(1)
        await self.aclose()

    async def aclose(self) -> None:
        if self._stream is None:
            return
        await self._stream.send(b"bye")
        self._stream.close()
        self._stream = None


async def scenario(x: Any) -> None:
    line = Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.read_until_hang_up)
        await trio.sleep(1)
        await trio.lowlevel.checkpoint()  # the owner notices a little later
        await line.aclose()
