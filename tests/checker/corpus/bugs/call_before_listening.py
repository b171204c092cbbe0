"""An echo server in the same process, and its first client.

The shape is that of https://github.com/python-trio/trio/issues/284, which led to `nursery.start`: `start_soon` says
nothing about when the task is ready to serve.
Wrong here: the client calls after one checkpoint, when the server may not have run yet.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

KIND: str = "start-up race (start_soon and use before ready)"
ORACLE: str | None = "exception"
MODE: str = "fair"


@attrs.define(eq=False)
class Call:
    text: str
    answer: str = ""
    answered: trio.Event = attrs.field(factory=trio.Event)


class EchoServer:
    def __init__(self) -> None:
        self._door: trio.MemorySendChannel[Call] | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._door, calls = trio.open_memory_channel[Call](0)
        task_status.started()
        with self._door, calls:
            async for call in calls:
                await trio.sleep(0.1)
                call.answer = call.text.upper()
                call.answered.set()

    async def call(self, text: str) -> str:
        if self._door is None:
            raise ConnectionRefusedError("nobody listens")
        call = Call(text)
        await self._door.send(call)
        await call.answered.wait()
        return call.answer

    def hang_up(self) -> None:
        if self._door is not None:
            self._door.close()


async def scenario(x: Any) -> None:
    server = EchoServer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve)
        await trio.lowlevel.checkpoint()  # let it come up
        x.check(await server.call("hello") == "HELLO", "a wrong answer")
        server.hang_up()
