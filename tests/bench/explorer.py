"""What one run of the explorer costs, against a plain `trio.run` of the same scenario with a virtual clock.

Three tasks, some twenty schedule points. Once with nobody cancelled on either side, once with a cancellation at a
chosen place: raising and collecting Cancelled costs both sides alike.
"""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

from meerkat_trio.testing._controlled_run import RunSettings
from meerkat_trio.testing._engine import Job, LocalEngine, open_workers
from meerkat_trio.testing._listening import listening
from meerkat_trio.testing._plan import Plan, Strike

from ._measure import Contestant, Goal, Row, Setting, start_clock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meerkat_trio.testing import Exploration

    from ._measure import Scale

__all__ = ["SETTINGS"]

_UNSTRUCK: Final = "explorer-run"
_STRUCK: Final = "explorer-run-cancelled"
_WORKERS: Final = "explorer-two-workers"
_EVENTS: Final = 20
_NEVER: Final = float("inf")


async def _scenario(x: Exploration | None, cancel_after: int = -1) -> None:
    send, receive = trio.open_memory_channel[int](1)
    scope = trio.CancelScope() if x is None else x.victim()

    async def produce() -> None:
        async with send:
            for item in range(3):
                if item == cancel_after:
                    scope.cancel()
                await send.send(item)

    async def consume() -> None:
        async for _ in receive:
            await trio.lowlevel.checkpoint()

    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            nursery.start_soon(consume)
            await trio.sleep(1)


def _per_run(begun: float, runs: int) -> float:
    return (perf_counter() - begun) / runs * 1e6


def _runs(scale: Scale) -> int:
    return max(20, scale.applies // 20)


def _plain(scale: Scale) -> Mapping[str, float]:
    runs = _runs(scale)
    figures = {}
    for row, cancel_after in ((_UNSTRUCK, itertools.repeat(-1)), (_STRUCK, itertools.cycle(range(3)))):
        begun = start_clock()
        for _ in range(runs):
            clock = trio.testing.MockClock(autojump_threshold=0)
            trio.run(_scenario, None, next(cancel_after), clock=clock)
        figures[row] = _per_run(begun, runs)
    return figures


def _ours(scale: Scale) -> Mapping[str, float]:
    runs = _runs(scale)
    figures = {}
    for row, jobs in ((_UNSTRUCK, [Job(Plan())] * runs), (_STRUCK, _struck(runs))):
        with listening():
            engine = LocalEngine(_scenario, RunSettings())
            begun = start_clock()
            engine.run(jobs, _NEVER)
            figures[row] = _per_run(begun, runs)
    return figures


def _struck(runs: int) -> list[Job]:
    return [Job(Plan(strikes=(Strike(number % _EVENTS, 0),))) for number in range(runs)]


def _by_workers(scale: Scale, count: int) -> Mapping[str, float]:
    runs = _runs(scale) * 4
    with listening(), open_workers(LocalEngine(_scenario, RunSettings()), count) as engine:
        engine.run(_struck(count * 64), _NEVER)
        begun = start_clock()
        engine.run(_struck(runs), _NEVER)
        return {_WORKERS: _per_run(begun, runs)}


SETTINGS: Final = (
    Setting(
        rows=(
            Row(name=_UNSTRUCK, what="one run, nobody cancelled", unit="us", goal=Goal(limit=1.0, aim=0.6)),
            Row(name=_STRUCK, what="one run, cancelled at some place", unit="us", goal=Goal(limit=1.0, aim=0.6)),
        ),
        floor=Contestant(label="trio.run with a virtual clock", turn=_plain),
        ours=Contestant(label="a run of the explorer", turn=_ours),
    ),
    Setting(
        rows=(Row(name=_WORKERS, what="a run by two workers, against one", unit="us", goal=Goal(limit=1 / 1.8)),),
        floor=Contestant(label="one worker", turn=lambda scale: _by_workers(scale, 1)),
        ours=Contestant(label="two workers", turn=lambda scale: _by_workers(scale, 2)),
    ),
)
