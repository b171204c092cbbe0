"""A pool of connections: a connection with an answer still on its way must not go to the next caller."""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

ORACLE: str | None = None
MODE = "fair"


class Connection:
    """Requests are pipelined, and the answers come back in the order of the requests."""

    def __init__(self) -> None:
        self._answers: deque[str] = deque()

    async def send(self, request: str) -> None:
        await trio.lowlevel.checkpoint()
        self._answers.append(f"answer to {request}")

    async def receive(self) -> str:
        await trio.sleep(0.1)
        return self._answers.popleft()


class Pool:
    def __init__(self, size: int) -> None:
        self._slots = trio.Semaphore(size)
        self._idle: list[Connection] = []

    async def request(self, text: str) -> str:
        async with self._slots:
            connection = self._idle.pop() if self._idle else Connection()
            await connection.send(text)
            answer = await connection.receive()
            self._idle.append(connection)
            return answer


async def scenario(x: Any) -> None:
    pool = Pool(1)
    answers: dict[str, str] = {}

    async def ask(text: str) -> None:
        answers[text] = await pool.request(text)

    async def ask_impatiently(text: str) -> None:
        with x.victim():
            await ask(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_impatiently, "one")
        nursery.start_soon(ask, "two")
        nursery.start_soon(ask, "three")
    for text, answer in answers.items():
        x.check(answer == f"answer to {text}", f"{text} got the {answer}")
