"""A ledger: money goes from one account to another, and every transfer is written down.

The shape is that of https://github.com/redis/redis-py/issues/2624, where a command is half done and its other half
is left for somebody else to stumble over.
Right here: the journal is written first, and the two halves follow without an await.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

KIND: str = "half-applied update"
ORACLE: str | None = None
MODE: str = "fair"


@attrs.define
class Ledger:
    balances: dict[str, int]
    journal: list[tuple[str, str, int]] = attrs.field(factory=list)

    def snapshot(self) -> tuple[object, ...]:
        return (*sorted(self.balances.items()), *self.journal)

    async def transfer(self, source: str, target: str, amount: int) -> None:
        if self.balances[source] < amount:
            raise ValueError(f"{source} has less than {amount}")
        await self._write_down(source, target, amount)
        self.balances[source] -= amount
        self.balances[target] += amount

    async def _write_down(self, source: str, target: str, amount: int) -> None:
        await trio.sleep(0.1)
        await trio.lowlevel.checkpoint()
        self.journal.append((source, target, amount))


async def scenario(x: Any) -> None:
    ledger = Ledger({"cash": 100, "rent": 0})
    await x.atomic(lambda: ledger.transfer("cash", "rent", 40), ledger.snapshot)
    x.check(sum(ledger.balances.values()) == 100, f"money is gone or made: {ledger.balances}")
