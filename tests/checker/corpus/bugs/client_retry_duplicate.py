"""A payment client that tries again after a time-out: a slow answer must not become a second payment."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import attrs
import trio

ORACLE: str | None = None
MODE = "fair"


@attrs.define(eq=False)
class Bank:
    """Books at once, answers when it likes; one request id is booked once only."""

    latency: Callable[[], float]
    ledger: dict[int, int] = attrs.field(factory=dict)

    async def pay(self, request_id: int, amount: int) -> str:
        await trio.lowlevel.checkpoint()
        self.ledger.setdefault(request_id, amount)
        await trio.sleep(self.latency())
        return f"receipt for {amount}"


class Client:
    def __init__(self, bank: Bank, *, timeout: float, attempts: int) -> None:
        self._bank = bank
        self._timeout = timeout
        self._attempts = attempts
        self._ids = itertools.count(1)

    async def pay(self, amount: int) -> str:
        for attempt in range(self._attempts):
            with trio.move_on_after(self._timeout):
                return await self._bank.pay(next(self._ids), amount)
            await trio.sleep(0.25 * 2**attempt)
        raise trio.TooSlowError(f"no answer after {self._attempts} attempts")


async def scenario(x: Any) -> None:
    bank = Bank(lambda: x.choose([0.125, 3]))
    client = Client(bank, timeout=1, attempts=3)
    try:
        x.log(await client.pay(100))
    except trio.TooSlowError:
        x.log("nobody knows whether it was paid")
    x.check(len(bank.ledger) <= 1, f"paid {len(bank.ledger)} times: {bank.ledger}")
