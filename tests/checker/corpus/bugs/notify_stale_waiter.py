"""A ring with one token: `get` waits for the token, `put` wakes one who waits.

The shape is that of https://github.com/python/cpython/issues/112202 and
https://github.com/agronholm/anyio/pull/1075: a notification goes to a task that was cancelled, and nobody else is
woken.
Wrong here: a cancelled waiter stays in the line, and the next wake-up is spent on it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

KIND: str = "deadlock (notify lost on a cancelled waiter)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class TokenRing:
    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._line: deque[trio.Event] = deque()

    def put(self, token: str) -> None:
        self._tokens.append(token)
        self._wake_one()

    async def get(self) -> str:
        while not self._tokens:
            wake_up = trio.Event()
            self._line.append(wake_up)
            await wake_up.wait()
        return self._tokens.pop()

    def _wake_one(self) -> None:
        if self._line:
            self._line.popleft().set()


async def take_part(ring: TokenRing, seen: list[str], name: str) -> None:
    token = await ring.get()
    seen.append(name)
    ring.put(token)


async def scenario(x: Any) -> None:
    ring = TokenRing()
    seen: list[str] = []

    async def might_leave() -> None:
        with x.victim():
            await take_part(ring, seen, "b")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(might_leave)
        nursery.start_soon(take_part, ring, seen, "a")
        await trio.sleep(1)
        ring.put("token")
    x.check("a" in seen, f"seen by {seen}")
