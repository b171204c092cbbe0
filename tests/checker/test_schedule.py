"""Orders within a tick in both modes; tasks held back over ticks in adversarial mode only."""

from __future__ import annotations

import itertools
import random

import trio

from meerkat_trio.testing import Exploration, explore

from .rig import RUNS, failure_of, green


async def _three_at_once(x: Exploration, seen: set[str]) -> None:
    order = ""

    async def write(letter: str) -> None:
        nonlocal order
        order += letter

    x.victim(trio.CancelScope())  # nobody else is cancelled
    async with trio.open_nursery() as nursery:
        for letter in "abc":
            nursery.start_soon(write, letter)
    seen.add(order)


def test_tasks_of_one_tick_run_in_every_order_in_fair_mode_too() -> None:
    seen: set[str] = set()

    async def scenario(x: Exploration) -> None:
        await _three_at_once(x, seen)

    green(scenario, mode="fair", runs=400)
    assert seen == {"".join(letters) for letters in itertools.permutations("abc")}


async def _surely_up_by_then(_: Exploration) -> None:
    up = False

    async def start() -> None:
        nonlocal up
        await trio.lowlevel.checkpoint()
        up = True

    async def use() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        assert up

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        nursery.start_soon(use)


def test_a_task_is_held_back_over_ticks_in_adversarial_mode_only() -> None:
    failure = failure_of(_surely_up_by_then)
    assert failure.mode == "adversarial"
    assert "hold start back" in failure.sentence
    assert "adversarial mode" in str(failure)
    green(_surely_up_by_then, mode="fair", runs=600)


def test_a_task_is_held_back_at_its_very_first_step_by_a_single_deviation() -> None:
    async def scenario(_: Exploration) -> None:
        up = False

        async def start() -> None:
            nonlocal up
            up = True

        async def use() -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
            assert up

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            nursery.start_soon(use)

    failure = failure_of(scenario, runs=40)
    assert [hold.task for hold in failure.plan.holds] == ["start"]


def test_a_bug_of_order_within_a_tick_is_said_to_need_the_fair_mode() -> None:
    async def scenario(_: Exploration) -> None:
        done = []

        async def work(number: int) -> None:
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(work, number)
        assert done != [1, 0, 2]

    failure = failure_of(scenario, runs=400)
    assert failure.mode == "fair"
    assert failure.plan.picks
    assert failure.plain is not None
    assert 0 < failure.plain < failure.plain_runs == 200


def test_nobody_starves_and_time_does_not_move_while_anybody_can_run() -> None:
    async def scenario(_: Exploration) -> None:
        ready = False

        async def get_ready() -> None:
            nonlocal ready
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            ready = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get_ready)
            while not ready:
                await trio.lowlevel.checkpoint()  # as long as it takes
        assert trio.current_time() == 0

    green(scenario, runs=400)


def test_a_sleep_is_longer_than_any_holding_back() -> None:
    async def scenario(x: Exploration) -> None:
        x.victim(trio.CancelScope())
        steps = 0

        async def work() -> None:
            nonlocal steps
            for _ in range(10):
                await trio.lowlevel.checkpoint()
                steps += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.sleep(1)
            assert steps == 10

    green(scenario, runs=400)


def test_the_order_depends_on_nobody_elses_random_numbers() -> None:
    def orders() -> list[str]:
        kept: list[str] = []

        class Keeping(set[str]):
            def add(self, element: str) -> None:
                kept.append(element)

        async def scenario(x: Exploration) -> None:
            await _three_at_once(x, Keeping())

        explore(scenario, runs=RUNS)
        return kept

    random.seed(1)
    first = orders()
    random.seed(2)
    assert orders() == first
