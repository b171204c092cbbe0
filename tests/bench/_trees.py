"""What a session's shape costs in plain Trio and asyncio: parked tasks, and nothing that works.

The *tree* is the one a session is: a task with its nursery, and children parked in it, each started so that
it is known to run. With one child it has the shape of an idle session, whose executor is no task while
there is nothing to handle; with two, that of one that keeps an executor parked. Each is a context manager:
what it costs to stand them up, to keep them and to leave them is measured outside.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["BEATS", "asyncio_tasks", "channel_drains", "longest_pause", "trees"]

BEATS: Final = 100
"""How many heart-beats the longest pause is taken from."""


async def _park(*, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep_forever()


async def _tree(children: int, *, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(children):
            await nursery.start(_park)
        task_status.started()


async def _scope(*, task_status: trio.TaskStatus[None]) -> None:
    with trio.CancelScope():
        task_status.started()
        await trio.sleep_forever()


def trees(children: int) -> Callable[[int], AbstractAsyncContextManager[None]]:
    """Make a context in which so many trees stand; with no children, a task with a scope alone."""

    @asynccontextmanager
    async def stand(count: int) -> AsyncIterator[None]:
        async with trio.open_nursery() as root:
            for _ in range(count):
                if children:
                    await root.start(_tree, children)
                else:
                    await root.start(_scope)
            yield
            root.cancel_scope.cancel()

    return stand


async def _drain(channel: trio.MemoryReceiveChannel[int], *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    async for _ in channel:
        pass


@asynccontextmanager
async def channel_drains(count: int) -> AsyncIterator[None]:
    """Let so many tasks wait for a channel each."""
    out = []
    async with trio.open_nursery() as root:
        for _ in range(count):
            send, receive = trio.open_memory_channel[int](64)
            out.append(send)
            await root.start(_drain, receive)
        yield
        root.cancel_scope.cancel()


@asynccontextmanager
async def asyncio_tasks(count: int) -> AsyncIterator[None]:
    """Let so many asyncio tasks wait for a queue each."""

    async def wait(serving: asyncio.Event) -> None:
        serving.set()
        await asyncio.Queue[int](64).get()

    async with asyncio.TaskGroup() as group:
        tasks = []
        for _ in range(count):
            serving = asyncio.Event()
            tasks.append(group.create_task(wait(serving)))
            await serving.wait()
        yield
        for task in tasks:
            task.cancel()


async def longest_pause() -> float:
    """Let a heart beat through a full garbage collection; return its longest pause in seconds."""
    longest = 0.0
    for beat in range(BEATS):
        last = perf_counter()
        if beat == BEATS // 2:
            gc.collect()
        await trio.sleep(0.001)
        longest = max(longest, perf_counter() - last - 0.001)
    return longest
