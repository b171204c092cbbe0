"""A trader that places an order and tries again when the exchange does not confirm in time.

The shape is that of https://github.com/keygen-sh/keygen-api/issues/305: a client that got no answer cannot know
whether the first attempt took effect, and does it a second time.
Right here: all attempts of one order have the same key.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import trio

KIND: str = "duplicate after a timeout"
ORACLE: str | None = None
MODE: str = "fair"


@attrs.define
class Exchange:
    is_slow: Callable[[], int]
    orders: dict[int, int] = attrs.field(factory=dict)

    async def place(self, key: int, quantity: int) -> None:
        await trio.sleep(0.2)
        self.orders.setdefault(key, quantity)
        await trio.sleep(2 if self.is_slow() else 0.2)


class Trader:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._keys = itertools.count(1)
        self.unconfirmed = 0

    async def buy(self, quantity: int) -> int:
        key = next(self._keys)
        while True:
            with trio.move_on_after(1):
                await self._exchange.place(key, quantity)
                return key
            self.unconfirmed += 1


async def scenario(x: Any) -> None:
    exchange = Exchange(lambda: x.choose(2))
    trader = Trader(exchange)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trader.buy, 5)
        nursery.start_soon(trader.buy, 7)
    x.check(sorted(exchange.orders.values()) == [5, 7], f"the exchange holds {exchange.orders}")
