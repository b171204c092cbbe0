"""A price list that a task of its own keeps fresh in the background, for as long as it is in use.

The shape is that of https://github.com/aio-libs/janus/issues/574 ("Task was destroyed but it is pending"): a
background task that nobody ends when the one who started it did not get to the end of starting it.
Right here: `__aenter__` ends what it has begun when it cannot finish.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "leaked task (start cancelled)"
ORACLE: str | None = "leaked task"
MODE: str = "fair"


class PriceList:
    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._loaded = trio.Event()
        self._ended = trio.Event()
        self.prices: dict[str, int] = {}

    async def __aenter__(self) -> PriceList:
        trio.lowlevel.spawn_system_task(self._keep_fresh)
        try:
            await self._loaded.wait()
        except trio.Cancelled:
            await self._end()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._end()

    async def _end(self) -> None:
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    async def _keep_fresh(self) -> None:
        with self._scope:
            while True:
                await trio.sleep(0.5)
                self.prices["tea"] = 3
                self._loaded.set()
        self._loaded.set()  # nobody waits for prices that will not come
        self._ended.set()


async def scenario(x: Any) -> None:
    with x.victim():
        async with PriceList() as price_list:
            await trio.sleep(1)
            x.log(f"prices: {price_list.prices}")
