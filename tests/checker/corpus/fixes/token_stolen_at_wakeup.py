"""A limiter whose tokens may be taken without waiting, too.

The shape is that of https://github.com/agronholm/anyio/issues/1170: between a waiter's wake-up and its next step
somebody else takes the token it was woken for.
Right here: who was woken looks again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

KIND: str = "over-granted permits"
ORACLE: str | None = None
MODE: str = "fair"


class Limiter:
    def __init__(self, tokens: int) -> None:
        self.free = tokens
        self._line: deque[trio.Event] = deque()

    def take_nowait(self) -> None:
        if not self.free:
            raise trio.WouldBlock
        self.free -= 1

    async def take(self) -> None:
        while not self.free:
            wake_up = trio.Event()
            self._line.append(wake_up)
            try:
                await wake_up.wait()
            except trio.Cancelled:
                if wake_up in self._line:
                    self._line.remove(wake_up)
                else:
                    self._wake_one()
                raise
        self.free -= 1

    def give(self) -> None:
        self.free += 1
        self._wake_one()

    def _wake_one(self) -> None:
        if self._line:
            self._line.popleft().set()


async def patient(limiter: Limiter, seconds: float) -> None:
    await limiter.take()
    try:
        await trio.sleep(seconds)
    finally:
        limiter.give()


async def scenario(x: Any) -> None:
    limiter = Limiter(1)
    x.always(lambda: limiter.free >= 0)

    async def opportunist() -> None:
        await trio.sleep(1)
        await trio.lowlevel.checkpoint()
        try:
            limiter.take_nowait()
        except trio.WouldBlock:
            return
        try:
            await trio.sleep(1)
        finally:
            limiter.give()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(patient, limiter, 1)
        nursery.start_soon(opportunist)
        await trio.sleep(0.5)
        await patient(limiter, 1)
