"""Ten thousand sessions come, idle and go: registering, the loop's longest pause, leaving.

One turn gives all three, because they need the same sessions. Transports are made beforehand. The floor is
a tree of the same shape, a session task with a nursery and two parked children, started one after the other
and left by cancelling the one scope above them all. The pause is a full garbage collection, plus whatever
else stops a heart-beat.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

import meerkat_trio

from ._measure import Contestant, Goal, Row, Scale, Setting
from ._ours import made_comms, register_all, run_ours
from ._trees import asyncio_tasks, channel_drains, longest_pause, trees

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["SETTINGS"]

_REGISTER: Final = "register"
_PAUSE: Final = "pause"
_LEAVE: Final = "leave"


async def _no_pause() -> float:
    return 0.0


async def _life(
    count: int,
    stand: Callable[[int], AbstractAsyncContextManager[None]],
    pause: Callable[[], Awaitable[float]],
) -> dict[str, float]:
    start = perf_counter()
    async with stand(count):
        registered = perf_counter()
        paused = await pause()
        leaving = perf_counter()
    left = perf_counter()
    values = {_REGISTER: (registered - start) / count * 1e6, _LEAVE: (left - leaving) / count * 1e6}
    return values | ({_PAUSE: paused * 1e3} if paused else {})


async def _ours(count: int) -> dict[str, float]:
    comms = made_comms(meerkat_trio.MemoryNetwork(), count)
    async with meerkat_trio.open_machine() as machine:
        start = perf_counter()
        await register_all(machine, comms)
        registered = perf_counter()
        paused = await longest_pause()
        leaving = perf_counter()
    left = perf_counter()
    return {
        _REGISTER: (registered - start) / count * 1e6,
        _PAUSE: paused * 1e3,
        _LEAVE: (left - leaving) / count * 1e6,
    }


def _trio(stand: Callable[[int], AbstractAsyncContextManager[None]]) -> Callable[[Scale], dict[str, float]]:
    return lambda scale: trio.run(_life, scale.sessions, stand, longest_pause)


SETTINGS: Final = (
    Setting(
        rows=(
            Row(name=_REGISTER, what="register + attach one session", unit="us", goal=Goal(limit=2.0)),
            Row(
                name=_PAUSE,
                what="longest pause of the loop at 10,000 idle sessions",
                unit="ms",
                # 80 and 40 ms where the floor takes 69: how fast the machine is must not count.
                goal=Goal(limit=1.16, aim=0.58),
            ),
            Row(name=_LEAVE, what="leave open_machine, per parked drain", unit="us", goal=Goal(limit=1.5)),
        ),
        floor=Contestant(label="session task, nursery, 1 child", turn=_trio(trees(1))),
        ours=Contestant(label="sessions", turn=lambda scale: run_ours(_ours, scale, scale.sessions)),
        peers=(
            Contestant(label="session task, nursery, 2 children", turn=_trio(trees(2))),
            Contestant(label="trio channel drain", turn=_trio(channel_drains)),
            Contestant(
                label="asyncio task with a queue",
                turn=lambda scale: asyncio.run(_life(scale.sessions, asyncio_tasks, _no_pause)),
            ),
        ),
    ),
)
