"""What is shown is the smallest run: no cancellation, deviation or holding back that is not needed, and early."""

from __future__ import annotations

import trio

from meerkat_trio.testing import Exploration
from meerkat_trio.testing._controlled_run import RunSettings, Scenario
from meerkat_trio.testing._engine import LocalEngine
from meerkat_trio.testing._listening import listening
from meerkat_trio.testing._plan import Hold, Plan, Priorities, Strike
from meerkat_trio.testing._shrink import Shrinker


def _shrunk(scenario: Scenario, plan: Plan) -> Plan:
    with listening():
        engine = LocalEngine(scenario, RunSettings())
        finding = engine.make(plan).finding
        assert finding is not None, "the plan was to fail"
        shrinker = Shrinker(engine, finding.signature)
        smaller = shrinker.shrink(plan)
        again = engine.make(smaller).finding
        assert again is not None
        assert again.signature == finding.signature
        assert 0 < shrinker.runs <= 700
    return smaller


async def _needs_one_cancellation(x: Exploration) -> None:
    async def bystander() -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystander)
        nursery.start_soon(bystander)
        with x.victim(name="one") as one:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        with x.victim(name="two"):
            await trio.sleep(1)
    assert not one.cancelled_caught


def test_only_the_cancellation_that_is_needed_stays_and_comes_as_early_as_it_can() -> None:
    plan = Plan(order="newest", strikes=(Strike(9, "one"), Strike(14, "two")))
    assert _shrunk(_needs_one_cancellation, plan) == Plan(strikes=(Strike(0, "one"),))


def test_what_a_seed_decided_is_boiled_down_to_the_usual_order_where_that_will_do() -> None:
    for seed in range(3):
        plan = Plan(order=seed, strikes=(Strike(7, "one"),))
        assert _shrunk(_needs_one_cancellation, plan) == Plan(strikes=(Strike(0, "one"),))


def test_nobody_is_held_back_who_need_not_be() -> None:
    held = Plan(holds=(Hold(0, "main"), Hold(2, "bystander")), strikes=(Strike(5, "one"),))
    assert _shrunk(_needs_one_cancellation, held) == Plan(strikes=(Strike(0, "one"),))
    by_priority = Plan(priorities=Priorities(3, 2, 20), strikes=(Strike(6, "one"),))
    assert _shrunk(_needs_one_cancellation, by_priority) == Plan(strikes=(Strike(0, "one"),))


async def _needs_an_order(_: Exploration) -> None:
    order = ""

    async def write(letter: str) -> None:
        nonlocal order
        order += letter

    async with trio.open_nursery() as nursery:
        for letter in "abcd":
            nursery.start_soon(write, letter)
    assert not order.startswith("b")


def test_of_the_deviations_of_a_random_order_one_is_left() -> None:
    assert _shrunk(_needs_an_order, Plan(picks=((0, 1), (1, 2), (2, 1)))) == Plan(picks=((0, 1),))


async def _needs_to_be_held_back(_: Exploration) -> None:
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


def test_a_holding_back_that_is_needed_stays_alone() -> None:
    plan = Plan(holds=(Hold(0, "main", 1), Hold(1, "start"), Hold(9, "use", 1)))
    smaller = _shrunk(_needs_to_be_held_back, plan)
    assert [hold.task for hold in smaller.holds] == ["start"]


def test_random_priorities_become_one_holding_back() -> None:
    with listening():
        engine = LocalEngine(_needs_to_be_held_back, RunSettings())
        failing = next(
            plan
            for seed in range(100)
            if engine.make(plan := Plan(priorities=Priorities(seed, 2, 20))).finding is not None
        )
    smaller = _shrunk(_needs_to_be_held_back, failing)
    assert smaller.priorities is None
    assert len(smaller.holds) == 1


def test_only_the_answers_that_are_needed_stay() -> None:
    async def scenario(x: Exploration) -> None:
        answers = [x.choose(3) for _ in range(4)]
        await trio.lowlevel.checkpoint()
        assert answers[2] != 2

    plan = Plan(choices=((0, 1), (1, 2), (2, 2), (3, 1)))
    assert _shrunk(scenario, plan) == Plan(choices=((2, 2),))


def test_a_smaller_plan_weighs_less() -> None:
    ordered = [
        Plan(),
        Plan(order="newest"),
        Plan(picks=((0, 1),)),
        Plan(holds=(Hold(0, "main"),)),
        Plan(strikes=(Strike(0, "a"),)),
        Plan(strikes=(Strike(1, "a"),)),
        Plan(strikes=(Strike(0, "a"), Strike(1, "b"))),
    ]
    assert sorted(ordered, key=lambda plan: plan.weight) == ordered
