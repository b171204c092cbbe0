"""A chat room: every member holds a sending end of the room's channel, the room ends when the last member has left.

The shape is that of the discussion in https://github.com/python-trio/trio/pull/1797, which gave memory channels a
`close` that cannot be cancelled, because clean-up after `await` is so easily lost.
Right here: the member's end is closed whether or not it could say good-bye.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "clean-up that awaits (the rest of the finally is lost)"
ORACLE: str | None = "open channel"
MODE: str = "fair"


class Member:
    def __init__(self, name: str, outbox: trio.MemorySendChannel[str]) -> None:
        self.name = name
        self._outbox = outbox

    async def chat(self) -> None:
        try:
            await self._outbox.send(f"{self.name}: hello")
            await trio.sleep(1)
        finally:
            with self._outbox:
                await self._outbox.send(f"{self.name} has left")


async def room(inbox: trio.MemoryReceiveChannel[str], log: list[str]) -> None:
    async with inbox:
        async for line in inbox:
            log.append(line)
            await trio.lowlevel.checkpoint()


async def scenario(x: Any) -> None:
    log: list[str] = []
    send, receive = trio.open_memory_channel[str](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room, receive, log)
        with send:
            for name in ("ann", "bob"):
                nursery.start_soon(Member(name, send.clone()).chat)
    x.check(len(log) == 4, f"the log is {log}")
