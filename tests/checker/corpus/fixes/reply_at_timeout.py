"""A caller that waits for a reply, but not for ever.

The shape is that of https://github.com/python/cpython/issues/86296 and of
https://github.com/Netflix/concurrency-limits/pull/179: the timeout and the result arrive at the same instant.
Right here: it timed out if waiting was cut off, else there is a reply.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "timer tie (timeout and result)"
ORACLE: str | None = None
MODE: str = "fair"


class Caller:
    def __init__(self, replies: trio.MemoryReceiveChannel[str]) -> None:
        self._replies = replies
        self.timeouts = 0

    async def ask(self, seconds: float) -> str | None:
        reply: str | None = None
        with trio.move_on_after(seconds) as patience:
            reply = await self._replies.receive()
        if patience.cancelled_caught:
            self.timeouts += 1
            return None
        return reply

    @property
    def unread(self) -> int:
        return self._replies.statistics().current_buffer_used


async def scenario(x: Any) -> None:
    send, receive = trio.open_memory_channel[str](1)
    caller = Caller(receive)
    answers: list[str | None] = []

    async def answering_machine() -> None:
        await trio.sleep(2)
        send.send_nowait("forty-two")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answering_machine)
        answers += [await caller.ask(1), await caller.ask(1)]
    got = sum(answer is not None for answer in answers)
    x.check(got + caller.unread == 1, f"a reply was lost: {answers}, {caller.timeouts} timeouts")
