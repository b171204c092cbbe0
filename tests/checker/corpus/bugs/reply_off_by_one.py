"""A client of a server that answers in order, one line per command.

The shape is that of https://github.com/redis/redis-py/issues/2624: a command is cancelled between sending it and
reading its reply, and the next one reads that reply for its own.
Wrong here: a connection with an unread reply is used again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

KIND: str = "half-done exchange (reply of the one before)"
ORACLE: str | None = None
MODE: str = "fair"


class Connection:
    def __init__(self) -> None:
        self._unread: deque[str] = deque()

    async def send(self, command: str) -> None:
        await trio.lowlevel.checkpoint()
        self._unread.append(f"reply to {command}")

    async def read(self) -> str:
        await trio.sleep(0.1)
        return self._unread.popleft()


class Client:
    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._connection: Connection | None = None

    async def execute(self, command: str) -> str:
        async with self._lock:
            if self._connection is None:
                self._connection = Connection()
            await self._connection.send(command)
            return await self._connection.read()


async def scenario(x: Any) -> None:
    client = Client()
    replies: list[str] = []

    async def other_user() -> None:
        replies.append(await client.execute("GET b"))

    async with trio.open_nursery() as nursery:
        with x.victim():
            await client.execute("GET a")
        nursery.start_soon(other_user)
    x.check(replies == ["reply to GET b"], f"GET b was answered with {replies}")
