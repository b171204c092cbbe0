"""Several callers share one line: a reader task hands each reply to the caller that asked for it.

The shape is that of https://github.com/aio-libs/aiohttp/pull/2910: the one who broadcasts the outcome broadcasts its
own cancellation.
Wrong here: when the reader is cancelled, its Cancelled is raised in every caller.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

KIND: str = "foreign Cancelled (broadcast to the waiters)"
ORACLE: str | None = "foreign"
MODE: str = "fair"


@attrs.define(eq=False)
class Reply:
    settled: trio.Event = attrs.field(factory=trio.Event)
    text: str = ""
    error: BaseException | None = None


class Multiplexer:
    def __init__(self) -> None:
        self._waiting: dict[str, Reply] = {}
        self._down: BaseException | None = None

    async def ask(self, question: str) -> str:
        if self._down is not None:
            raise self._down
        reply = self._waiting[question] = Reply()
        try:
            await reply.settled.wait()
        finally:
            self._waiting.pop(question, None)
        if reply.error is not None:
            raise reply.error
        return reply.text

    async def read(self, *questions: str) -> None:
        try:
            for question in questions:
                await trio.sleep(1)
                if reply := self._waiting.pop(question, None):
                    reply.text = f"{question}? yes"
                    reply.settled.set()
        except BaseException as exc:
            self._down = exc
            for reply in self._waiting.values():
                reply.error = self._down
                reply.settled.set()
            raise


async def scenario(x: Any) -> None:
    line = Multiplexer()
    answers: list[str] = []

    async def caller(question: str) -> None:
        try:
            answers.append(await line.ask(question))
        except ConnectionError:
            answers.append("line down")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller, "tea")
        nursery.start_soon(caller, "milk")
        with x.victim():
            await line.read("tea", "milk")
    x.log(f"answers: {answers}")
