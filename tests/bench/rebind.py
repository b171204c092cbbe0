"""A rebind of an idle drain, until the new binding serves.

The floor is what somebody does who has no swappable scope: cancel, join, `nursery.start`. Our new comms
runtimes stand ready; taking the previous one over is part of the rebind.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final

import trio
import trio.testing

import meerkat_trio

from ._measure import Contestant, Goal, Row, Setting, start_clock
from ._ours import idle_handler, run_ours

__all__ = ["SETTINGS"]

_NAME: Final = "rebind"


async def _serve(*, task_status: trio.TaskStatus[tuple[trio.CancelScope, trio.Event]]) -> None:
    ended = trio.Event()
    with trio.CancelScope() as scope:
        task_status.started((scope, ended))
        await trio.sleep_forever()
    ended.set()


async def _floor(count: int) -> float:
    async with trio.open_nursery() as nursery:
        scope, ended = await nursery.start(_serve)
        start = start_clock()
        for _ in range(count):
            scope.cancel()
            await ended.wait()
            scope, ended = await nursery.start(_serve)
        taken = perf_counter() - start
        nursery.cancel_scope.cancel()
    return taken / count * 1e6


class _Kept:
    """A task that is kept while its scope is replaced."""

    def __init__(self) -> None:
        self.serving = trio.Event()
        self.scope = trio.CancelScope()

    async def serve(self) -> None:
        while True:
            self.scope = trio.CancelScope()
            with self.scope:
                self.serving.set()
                await trio.sleep_forever()


async def _kept(count: int) -> float:
    kept = _Kept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.serve)
        await kept.serving.wait()
        start = start_clock()
        for _ in range(count):
            kept.serving = trio.Event()
            kept.scope.cancel()
            await kept.serving.wait()
        taken = perf_counter() - start
        nursery.cancel_scope.cancel()
    return taken / count * 1e6


async def _asyncio(count: int) -> float:
    async def serve(serving: asyncio.Event) -> None:
        serving.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        serving = asyncio.Event()
        task = group.create_task(serve(serving))
        await serving.wait()
        start = start_clock()
        for _ in range(count):
            task.cancel()
            await asyncio.wait([task])
            serving = asyncio.Event()
            task = group.create_task(serve(serving))
            await serving.wait()
        taken = perf_counter() - start
        task.cancel()
    return taken / count * 1e6


async def _ours(count: int) -> float:
    network = meerkat_trio.MemoryNetwork()
    first, *others = [meerkat_trio.MemoryComms(network, "a") for _ in range(count + 1)]
    async with meerkat_trio.open_machine() as machine:
        session = await machine.register("a", idle_handler)
        await session.attach_ingress(first)
        await trio.testing.wait_all_tasks_blocked()
        start = start_clock()
        for comms in others:
            await session.attach_ingress(comms)
        taken = perf_counter() - start
    return taken / count * 1e6


SETTINGS: Final = (
    Setting(
        rows=(Row(name=_NAME, what="rebind, until the new binding serves", unit="us", goal=Goal(limit=0.6)),),
        floor=Contestant(
            label="cancel, join, nursery.start", turn=lambda scale: {_NAME: trio.run(_floor, scale.rebinds)}
        ),
        ours=Contestant(label="attach_ingress", turn=lambda scale: {_NAME: run_ours(_ours, scale, scale.rebinds)}),
        peers=(
            Contestant(label="task kept, scope replaced", turn=lambda scale: {_NAME: trio.run(_kept, scale.rebinds)}),
            Contestant(
                label="asyncio: cancel, wait, create_task",
                turn=lambda scale: {_NAME: asyncio.run(_asyncio(scale.rebinds))},
            ),
        ),
    ),
)
