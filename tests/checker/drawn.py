"""Scenarios and reports that the tests of pages and trace events show."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from meerkat_trio.testing import CancellationCoverage, Exploration, Failure, Report, explore
from meerkat_trio.testing._plan import Plan, Strike
from meerkat_trio.testing._trace import Moment


async def forgotten_lock(x: Exploration) -> None:
    """Leaves a lock held when it is cancelled while it sleeps."""
    lock = trio.Lock()

    async def other() -> None:
        await trio.sleep(0.05)
        x.log("other wants it")
        async with lock:
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other, name="other")
        with x.victim(name="holder"):
            await lock.acquire()
            await trio.sleep(0.1)
            lock.release()


async def fine(x: Exploration) -> None:
    with x.victim(name="sleeper"):
        await trio.sleep(1)


def found() -> Report:
    return explore(forgotten_lock, runs=40)


def report_of(*failures: Failure, hypothetical: Sequence[Failure] = (), warnings: Sequence[str] = ()) -> Report:
    return Report(
        scenario="scenario",
        failures=failures,
        hypothetical=tuple(hypothetical),
        runs=12,
        schedules=2,
        points=7,
        cancelled=5,
        traces=3,
        exhausted=False,
        strikes=frozenset({("a.py:1", "victim")}),
        coverage=CancellationCoverage(
            lines=frozenset({"a.py:1", "a.py:2", "a.py:3"}),
            reached=frozenset({"a.py:1", "a.py:2"}),
            struck=frozenset({"a.py:1"}),
        ),
        warnings=tuple(warnings),
    )


def failure_of(trace: Sequence[Moment], *, message: str = "broken", hypothetical: bool = False) -> Failure:
    return Failure(
        kind="check",
        message=message,
        plan=Plan(strikes=(Strike(2, "victim"),)),
        found_after=3,
        plain=0,
        trace=tuple(trace),
        hypothetical=hypothetical,
    )


def long_trace(steps: int, tasks: Sequence[str] = ("main", "worker"), *, cancel_at: int = 2) -> list[Moment]:
    """Return steps of tasks in turn, three to an instant, with one cancellation; two moments a step, three a clock."""
    trace: list[Moment] = []
    time = 0.0
    for number in range(steps):
        task = tasks[number % len(tasks)]
        if number and number % 3 == 0:
            time += 0.25
            trace += [Moment(time - 0.25, None, "idle"), Moment(time, None, "tick")]
        trace.append(
            Moment(time, number, "step", task, "pkg/pool.py:7", f"woken by {tasks[(number - 1) % len(tasks)]}")
        )
        if number == cancel_at:
            trace.append(Moment(time, None, "CANCELS", detail="victim"))
        trace.append(Moment(time, None, "parks", task, "pkg/pool.py:7"))
    trace.append(Moment(time, None, "finding", detail="check: broken"))
    return trace
