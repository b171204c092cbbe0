"""The report of an exploration is the same for any number of worker processes."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import pytest
import trio

from meerkat_trio.testing import Exploration, explore


async def _jobs(x: Exploration, *, careful: bool) -> None:
    limiter = trio.CapacityLimiter(2)
    done: list[int] = []

    async def job(number: int) -> None:
        async with limiter:
            await trio.sleep(number)
            done.append(number)
            if careful:
                return
            await trio.lowlevel.checkpoint()
            x.log("done", number)

    with x.victim(name="jobs") as scope:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(job, number)
    assert scope.cancelled_caught or careful or done in ([0, 1, 2], [1, 0, 2])


async def _careful(x: Exploration) -> None:
    await _jobs(x, careful=True)


async def _careless(x: Exploration) -> None:
    await _jobs(x, careful=False)


async def _small(x: Exploration) -> None:
    with x.victim():
        await trio.sleep(1)
        await trio.sleep(1)


def _reports(scenario: Any, **options: Any) -> list[dict[str, Any]]:
    return [explore(scenario, workers=workers, **options).as_dict() for workers in (1, 2, 3)]


@pytest.mark.parametrize("scenario", [_careful, _careless])
@pytest.mark.parametrize("seed", [0, 1])
def test_bounded_by_runs_the_reports_are_equal(scenario: Any, seed: int) -> None:
    one, two, three = _reports(scenario, runs=500, seed=seed)
    assert one == two == three
    assert one["cancelled"] > 100


def test_a_failure_found_by_a_worker_is_the_one_found_without() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            for _ in range(40):
                await trio.lowlevel.checkpoint()
        assert not scope.cancelled_caught, f"{scope} was"

    one, two, three = _reports(scenario, runs=500)
    assert one == two == three
    assert one["failures"][0]["replay"].startswith("oldest;cancel=0@")


def test_when_everything_was_tried_the_reports_are_equal() -> None:
    one, two, three = _reports(_small, budget=120)
    assert one == two == three
    assert one["exhausted"]


def test_a_cut_by_the_clock_leaves_a_report_of_what_was_done() -> None:
    for workers in (1, 2):
        report = explore(_careful, budget=0, workers=workers)
        assert not report.exhausted
        assert report.cancelled == 0


def test_no_worker_is_left_behind() -> None:
    explore(_small, runs=50, workers=2)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_no_finding() -> None:
    here = os.getpid()

    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        if scope.cancelled_caught and os.getpid() != here:
            os._exit(1)

    with pytest.raises(RuntimeError, match="a worker process of the explorer died: explore with workers=1"):
        explore(scenario, runs=50, workers=2)
    assert not multiprocessing.active_children()
