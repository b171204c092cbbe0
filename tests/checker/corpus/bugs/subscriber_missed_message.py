"""A topic without a memory: who has not subscribed when a message is published never sees it.

The shape is that of https://github.com/agronholm/anyio/pull/646, whose tests relied on a scheduling order that Trio
does not promise: "the other task has surely got that far by now".
Wrong here: two checkpoints stand for "the listener has subscribed", and the scheduler never promised that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

KIND: str = "order assumption (the reader has surely started)"
ORACLE: str | None = "deadlock"
MODE: str = "adversarial"


class Topic:
    def __init__(self) -> None:
        self._outlets: list[trio.MemorySendChannel[str]] = []

    @contextmanager
    def subscription(self) -> Iterator[trio.MemoryReceiveChannel[str]]:
        outlet, inlet = trio.open_memory_channel[str](10)
        self._outlets.append(outlet)
        with outlet, inlet:
            try:
                yield inlet
            finally:
                self._outlets.remove(outlet)

    def publish(self, message: str) -> None:
        for outlet in self._outlets:
            outlet.send_nowait(message)


async def listen(
    topic: Topic, heard: list[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with topic.subscription() as inlet:
        task_status.started()
        heard.append(await inlet.receive())


async def scenario(x: Any) -> None:
    topic = Topic()
    heard: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, topic, heard)
        for _ in range(2):
            await trio.lowlevel.checkpoint()
        topic.publish("go")
    x.check(heard == ["go"], f"heard {heard}")
