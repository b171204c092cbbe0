"""A connection that is shared: the first user opens it, the last one closes it.

The shape is that of https://github.com/encode/httpcore/issues/550, where a request that was given up is counted as a
user of a connection that never came to be.
Right here: a user is counted when it has the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

KIND: str = "reference count"
ORACLE: str | None = "exception"
MODE: str = "fair"


@attrs.define(eq=False)
class Connection:
    is_open: bool = True

    async def ask(self, question: str) -> str:
        await trio.sleep(0.1)
        return f"{question}? yes"


class SharedConnection:
    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._users = 0
        self._connection: Connection | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        async with self._lock:
            if self._users == 0:
                self._connection = await self._open()
            self._users += 1
            if self._connection is None:
                raise RuntimeError("there are users, but there is no connection")
            connection = self._connection
        try:
            yield connection
        finally:
            self._users -= 1
            if self._users == 0:
                connection.is_open = False
                self._connection = None

    async def _open(self) -> Connection:
        await trio.sleep(0.5)
        return Connection()


async def scenario(x: Any) -> None:
    shared = SharedConnection()
    answers: list[str] = []

    async def user(question: str) -> None:
        async with shared.use() as connection:
            answers.append(await connection.ask(question))
            x.check(connection.is_open, "the connection was closed under its user")

    async with trio.open_nursery() as nursery:
        with x.victim():
            await user("first")
        nursery.start_soon(user, "second")
        nursery.start_soon(user, "third")
    x.check({"second? yes", "third? yes"} <= set(answers), f"answers: {answers}")
