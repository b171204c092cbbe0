"""A line that either end may close: the reader when the peer hangs up, the owner when it has had enough.

The shape is that of https://github.com/aio-libs/aiohttp/issues/1814: closing finds that somebody else has closed in
the meantime, and that the transport is None.
Right here: the first who closes takes the stream, the second finds nothing to do.
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
        stream, self._stream = self._stream, None
        try:
            await stream.send(b"bye")
        finally:
            stream.close()


async def scenario(x: Any) -> None:
    line = Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.read_until_hang_up)
        await trio.sleep(1)
        await trio.lowlevel.checkpoint()  # the owner notices a little later
        await line.aclose()
