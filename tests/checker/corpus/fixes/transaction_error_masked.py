"""A transaction as a context manager: commits, or rolls back when its block raised.

The shape is that of https://github.com/python-trio/trio/issues/455 ("cancelled __aexit__ handlers eat exceptions")
and https://github.com/goodboy/tractor/pull/387.
Right here: the rollback is shielded, and the error that led to it comes out.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import trio

KIND: str = "masked error"
ORACLE: str | None = "masked"
MODE: str = "fair"


class Overdrawn(Exception):
    pass


class Transaction:
    def __init__(self) -> None:
        self.state = "open"

    async def __aenter__(self) -> Transaction:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)
        self.state = "committed" if exc is None else "rolled back"

    async def withdraw(self, balance: int, amount: int) -> int:
        await trio.sleep(0.1)
        if amount > balance:
            raise Overdrawn(amount)
        return balance - amount


async def scenario(x: Any) -> None:
    transaction = Transaction()
    try:
        with x.victim():
            async with transaction:
                await transaction.withdraw(balance=10, amount=99)
    except Overdrawn:
        x.check(transaction.state == "rolled back", f"the transaction is {transaction.state}")
