"""A bridge between two streams, which owns both of them.

The shape is that of https://github.com/python-trio/trio-websocket/issues/3: an `aclose` that is cancelled has to
close everything all the same, just without waiting.
Wrong here: when closing the first side is cancelled, the second side is not closed at all.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "clean-up that awaits (second aclose never called)"
ORACLE: str | None = "unclosed resource"
MODE: str = "fair"


class Side(trio.abc.AsyncResource):
    def __init__(self, name: str) -> None:
        self.name = name
        self.chunks: list[bytes] = []

    async def aclose(self) -> None:
        # Closed at once; waits only to be a checkpoint.
        self.chunks.clear()
        await trio.lowlevel.checkpoint()


class Bridge(trio.abc.AsyncResource):
    def __init__(self, left: Side, right: Side) -> None:
        self._left = left
        self._right = right

    async def carry(self, *chunks: bytes) -> int:
        for chunk in chunks:
            await trio.sleep(0.1)
            self._right.chunks.append(chunk)
        return sum(map(len, self._right.chunks))

    async def aclose(self) -> None:
        await self._left.aclose()
        await self._right.aclose()


async def scenario(x: Any) -> None:
    with x.victim():
        async with Bridge(Side("left"), Side("right")) as bridge:
            carried = await bridge.carry(b"to be", b"or not")
            x.check(carried == 11, f"{carried} bytes were carried")
