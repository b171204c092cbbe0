"""A rate limiter: one call a second, in the order in which the callers came.

The shape is that of https://github.com/thomhurst/Kevlar/issues/15 and
https://github.com/dotnet/runtime/issues/64078: a caller that gives up has still used its turn.
Right here: a second is used up when its caller has waited for it.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "rate limiter token not refunded"
ORACLE: str | None = None
MODE: str = "fair"


class RateLimiter:
    def __init__(self, period: float) -> None:
        self._period = period
        self._next_free = trio.current_time()
        self._turn = trio.Lock()

    async def acquire(self) -> None:
        async with self._turn:
            await trio.sleep_until(self._next_free)
            self._next_free = trio.current_time() + self._period


async def scenario(x: Any) -> None:
    limiter = RateLimiter(period=1)
    begun = trio.current_time()
    calls: list[str] = []

    async def call(name: str) -> None:
        await limiter.acquire()
        calls.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "first")

        @nursery.start_soon
        async def undecided() -> None:
            with x.victim():
                await call("second")

    await call("last")
    took = trio.current_time() - begun
    x.check(took <= len(calls) - 1, f"{len(calls)} calls took {took} seconds: {calls}")
