"""Hypothesis draws the runs of a scenario, and makes a failing one small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import Phase, find, given, settings

from meerkat_trio.testing import CancellationBug, Exploration, ScenarioError, explore
from meerkat_trio.testing.strategies import Schedule, schedules

FEW = settings(max_examples=100, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink])


async def loses(x: Exploration) -> None:
    items, done = ["a"], list[str]()
    with x.victim(name="consumer"):
        await trio.sleep(1)
        item = items.pop()
        await trio.sleep(1)
        done.append(item)
    x.check(items or done, "an item was lost")


async def keeps(x: Exploration) -> None:
    with x.victim():
        await trio.sleep(1)


async def races(x: Exploration) -> None:
    log = []

    async def note(name: str) -> None:
        await trio.lowlevel.checkpoint()
        log.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(note, name)
    answers = [x.choose(3) for _ in range(3)]
    x.check(not (log[0] == "b" and answers[1] == 2), "b came first and the answer was 2")


async def relies_on_fairness(x: Exploration) -> None:
    up = False

    async def server() -> None:
        nonlocal up
        await trio.lowlevel.checkpoint()
        up = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(server)
        for _ in range(8):
            await trio.lowlevel.checkpoint()
        x.check(up, "the server was not up")


async def relies_on_a_tie(x: Exploration) -> None:
    log = []

    async def wait(name: str) -> None:
        await trio.sleep(1)
        log.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(wait, name)
    x.check(log[0] != "c", "c came first")


def fails(scenario: Callable[[Exploration], Any]) -> Callable[[Schedule], bool]:
    def predicate(schedule: Schedule) -> bool:
        try:
            schedule.run(scenario)
        except CancellationBug:
            return True
        return False

    return predicate


def test_without_deviations_it_is_the_usual_run() -> None:
    log = list[str]()

    async def scenario(x: Exploration) -> None:
        log.append(f"{x.choose(2)} {x.cancelled}")
        with x.victim():
            await trio.sleep(1)
        log.append(f"{x.cancelled}")

    Schedule().run(scenario)
    assert set(log) == {"0 ()", "()"}
    assert repr(Schedule()) == "<Schedule: the usual run>"


def test_the_smallest_schedule_of_all_is_the_usual_run() -> None:
    assert find(schedules(), lambda _: True) == Schedule()


def test_a_lost_item_is_found_and_only_the_earliest_cancellation_that_loses_it_is_left() -> None:
    smallest = find(schedules(), fails(loses), settings=FEW)
    with pytest.raises(CancellationBug) as caught:
        smallest.run(loses)
    (failure,) = caught.value.report.failures
    assert failure.plan.strikes[0].victim == "consumer"
    assert (failure.plan.order, failure.plan.picks, failure.plan.holds) == ("oldest", (), ())
    # The first of all plans that explore finds, which looks at every event, is the earliest there is.
    assert failure.plan == explore(loses, budget=5).failures[0].plan
    assert repr(smallest) == f"<Schedule: cancel at {smallest.cancellations[0][0]}>"


def test_the_replay_string_shows_the_same_failure() -> None:
    with pytest.raises(CancellationBug) as caught:
        find(schedules(), fails(loses), settings=FEW).run(loses)
    replay = caught.value.report.failures[0].replay
    assert repr(replay) in str(caught.value)
    again = explore(loses, replay=replay).failures[0]
    assert (again.replay, again.message) == (replay, caught.value.report.failures[0].message)


def test_orders_and_answers_are_drawn_and_no_more_of_them_is_left_than_it_takes() -> None:
    fair = schedules(adversarial=False)
    smallest = find(fair, fails(races), settings=settings(FEW, max_examples=500))
    with pytest.raises(CancellationBug) as caught:
        smallest.run(races)
    plan = caught.value.report.failures[0].plan
    assert plan.choices == ((1, 2),)
    assert len(plan.picks) == 1
    assert (plan.strikes, plan.holds) == ((), ())


def test_tasks_are_held_back_if_that_is_allowed() -> None:
    smallest = find(schedules(), fails(relies_on_fairness), settings=FEW)
    assert [kind for kind, _, _ in smallest.deviations] == ["hold long"]


@settings(FEW, max_examples=40)
@given(schedules(adversarial=False))
def test_tasks_are_not_held_back_if_it_is_not(schedule: Schedule) -> None:
    schedule.run(relies_on_fairness)


def test_timers_that_are_due_together_change_places() -> None:
    smallest = find(schedules(adversarial=False), fails(relies_on_a_tie), settings=FEW)
    assert len(smallest.deviations) == 1 or smallest.newest_first


def test_two_cancellations_are_drawn_if_asked_for() -> None:
    async def twice(x: Exploration) -> None:
        caught = 0
        for _ in range(2):
            with x.victim() as scope:
                await trio.sleep(1)
            caught += scope.cancelled_caught
        x.check(caught < 2, "both were cancelled")

    assert len(find(schedules(cancellations=2), fails(twice), settings=FEW).cancellations) == 2


@settings(FEW, max_examples=40)
@given(schedules(cancellations=2))
def test_a_correct_scenario_passes_under_every_schedule(schedule: Schedule) -> None:
    schedule.run(keeps)


@settings(FEW, max_examples=20)
@given(schedules())
def test_what_a_scenario_always_leaves_behind_is_not_held_against_a_schedule(schedule: Schedule) -> None:
    async def leaves_a_channel_open(x: Exploration) -> None:
        ends = trio.open_memory_channel[int](1)
        with x.victim():
            await trio.sleep(1)
        x.log(ends[0].statistics())

    schedule.run(leaves_a_channel_open)


def test_a_scenario_that_fails_by_itself_says_so() -> None:
    async def broken(x: Exploration) -> None:
        x.check(False, "broken")

    with pytest.raises(CancellationBug, match="it fails by itself"):
        Schedule().run(broken)


def test_a_scenario_that_is_not_repeatable_is_refused() -> None:
    times = iter(range(100))

    async def differs(x: Exploration) -> None:
        await trio.sleep(next(times))

    with pytest.raises(ScenarioError, match="not deterministic"):
        Schedule().run(differs)


async def test_inside_a_trio_run_no_other_can_be_made() -> None:
    with pytest.raises(RuntimeError, match="synchronous"):
        Schedule().run(keeps)
