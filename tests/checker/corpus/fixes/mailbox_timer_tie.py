"""A mailbox polled with a time-out: a message that arrives in the moment of the time-out must not be dropped."""

from __future__ import annotations

from typing import Any

import trio

ORACLE: str | None = None
MODE = "fair"


class Mailbox:
    """Any number of senders, one reader; `poll` returns None if nothing came in time."""

    def __init__(self, capacity: int) -> None:
        self._send, self._receive = trio.open_memory_channel[str](capacity)

    def deliver(self, message: str) -> None:
        self._send.send_nowait(message)

    def close(self) -> None:
        self._send.close()

    async def poll(self, timeout: float) -> str | None:
        message = None
        with trio.move_on_after(timeout) as scope:
            message = await self._receive.receive()
        if scope.cancelled_caught:
            return None  # nothing came in time
        return message

    async def __aenter__(self) -> Mailbox:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._send.close()
        self._receive.close()


async def scenario(x: Any) -> None:
    got: list[str] = []

    async def postman(mailbox: Mailbox) -> None:
        for number in range(3):
            await trio.sleep(1)
            mailbox.deliver(f"letter {number}")
        mailbox.close()

    async with Mailbox(8) as mailbox, trio.open_nursery() as nursery:
        nursery.start_soon(postman, mailbox)
        while True:
            try:
                message = await mailbox.poll(1)
            except trio.EndOfChannel:
                break
            if message is None:
                x.log("no post")
            else:
                got.append(message)
    x.check(got == ["letter 0", "letter 1", "letter 2"], f"got only {got}")
