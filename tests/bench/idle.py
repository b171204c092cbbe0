"""What an idle session weighs, with its drain and its executor waiting.

Measured by `tracemalloc` (bytes allocated by Python and still held, after a collection), for everybody
alike: unlike the resident size of the process it does not depend on what ran before, and it is the same in
every round. It does not see what the C allocator rounds up or what a fragmented arena keeps from the
system, so a process grows by somewhat more. Our figure counts the session's own transport with its inbox;
how much of it that is stands among the peers.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

import meerkat_trio

from ._measure import Contestant, Goal, Row, Scale, Setting
from ._ours import made_comms, register_all, run_ours
from ._trees import asyncio_tasks, channel_drains, trees

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["SETTINGS"]

_NAME: Final = "memory"


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _weigh(count: int, stand: Callable[[int], AbstractAsyncContextManager[None]]) -> float:
    tracemalloc.start()
    try:
        before = _held()
        async with stand(count):
            return (_held() - before) / count / 1024
    finally:
        tracemalloc.stop()


async def _ours(count: int) -> float:
    async with meerkat_trio.open_machine() as machine:
        tracemalloc.start()
        try:
            before = _held()
            await register_all(machine, made_comms(meerkat_trio.MemoryNetwork(), count))
            await trio.testing.wait_all_tasks_blocked()
            return (_held() - before) / count / 1024
        finally:
            tracemalloc.stop()


def _transports(count: int) -> float:
    tracemalloc.start()
    try:
        before = _held()
        network = meerkat_trio.MemoryNetwork()
        comms = made_comms(network, count)
        weight = (_held() - before) / len(comms) / 1024
    finally:
        tracemalloc.stop()
    return weight


def _setting(name: str, what: str, count: Callable[[Scale], int], *, deep: bool) -> Setting:
    def stand(label: str, standing: Callable[[int], AbstractAsyncContextManager[None]]) -> Contestant:
        return Contestant(label=label, turn=lambda scale: {name: trio.run(_weigh, count(scale), standing)})

    return Setting(
        rows=(Row(name=name, what=what, unit="KB", goal=Goal(limit=10.0, aim=5.0, times_floor=False)),),
        floor=stand("session task, nursery, 1 child", trees(1)),
        ours=Contestant(
            label="session with its transport",
            turn=lambda scale: {name: run_ours(_ours, scale, count(scale))},
        ),
        peers=()
        if deep
        else (
            Contestant(label="the transport's part of ours", turn=lambda scale: {name: _transports(count(scale))}),
            stand("session task, nursery, 2 children", trees(2)),
            stand("task with a scope", trees(0)),
            stand("trio channel drain", channel_drains),
            Contestant(
                label="asyncio task with a queue",
                turn=lambda scale: {name: asyncio.run(_weigh(count(scale), asyncio_tasks))},
            ),
        ),
        steady=True,
        deep=deep,
    )


SETTINGS: Final = (
    _setting(_NAME, "memory of an idle session", lambda scale: scale.sessions, deep=False),
    _setting(f"{_NAME}-crowd", "memory of an idle session, 100,000 of them", lambda scale: scale.crowd, deep=True),
)
