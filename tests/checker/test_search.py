"""Which runs are made: cheapest first, what is equivalent last, nothing twice, no more than asked for."""

from __future__ import annotations

import collections
from collections.abc import Awaitable, Callable

import trio

from meerkat_trio.testing import Exploration
from meerkat_trio.testing._controlled_run import RunSettings
from meerkat_trio.testing._engine import Job, LocalEngine, Outcome
from meerkat_trio.testing._listening import listening
from meerkat_trio.testing._plan import Plan
from meerkat_trio.testing._search import Search, Tally

from .rig import failure_of, green


def _jobs(
    scenario: Callable[[Exploration], Awaitable[object]], *, adversarial: bool = True, seed: int = 0, limit: int = 5000
) -> tuple[list[Job], Tally]:
    """Make all runs of a search; return them in order."""
    jobs: list[Job] = []
    tally = Tally()
    with listening():
        engine = LocalEngine(scenario, RunSettings())
        surveys = []
        for plan in (Plan(), Plan(order="newest")):
            outcome: Outcome = engine.outcome(engine.trace(plan))
            assert outcome.survey is not None
            surveys.append((plan, outcome.survey))
        search = Search(surveys, seed=seed, adversarial=adversarial, effort=0.1, tally=tally)
        for wave in search.waves():
            jobs += wave
            for outcome in engine.run(wave, float("inf")):
                search.learn(outcome)
            if len(jobs) > limit:
                break
    return jobs, tally


async def _two_tasks(x: Exploration) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        with x.victim(name="victim"):
            await trio.lowlevel.checkpoint()


def _is_systematic(plan: Plan) -> bool:
    named = all(isinstance(strike.victim, str) for strike in plan.strikes)
    return isinstance(plan.order, str) and plan.priorities is None and len(plan.strikes) < 2 and named


def test_the_sweep_of_both_plain_orders_comes_before_anything_else() -> None:
    jobs, _ = _jobs(_two_tasks)
    sweep = [job.plan for job in jobs if job.plan == Plan(order=job.plan.order, strikes=job.plan.strikes)]
    events = {order: {plan.strikes[0].event for plan in sweep if plan.order == order} for order in ("oldest", "newest")}
    assert events["oldest"] >= {0, 1}
    assert events["newest"] >= {0, 1}
    first_deviation = next(number for number, job in enumerate(jobs) if job.plan.holds or job.plan.picks)
    assert first_deviation > 1
    assert all(plan.order in ("oldest", "newest") for plan in sweep[:first_deviation])


def test_no_systematic_run_is_made_twice() -> None:
    jobs, tally = _jobs(_two_tasks)
    counts = collections.Counter(job.plan for job in jobs if _is_systematic(job.plan))
    assert max(counts.values()) == 1
    assert tally.exhausted
    assert tally.runs == len(jobs)
    assert tally.cancelled == sum(bool(job.plan.strikes) for job in jobs)


def test_every_schedule_with_two_deviations_and_one_cancellation_is_among_them() -> None:
    jobs, _ = _jobs(_two_tasks)
    deviations = {len(job.plan.picks) + len(job.plan.holds) for job in jobs if _is_systematic(job.plan)}
    assert deviations == {0, 1, 2}
    assert any(len(job.plan.holds) == 2 and len(job.plan.strikes) == 1 for job in jobs)


def test_in_fair_mode_nobody_is_held_back() -> None:
    jobs, _ = _jobs(_two_tasks, adversarial=False)
    assert jobs
    assert not any(job.plan.adversarial for job in jobs)


def test_random_tiers_follow_the_seed() -> None:
    def random_plans(seed: int) -> list[Plan]:
        return [job.plan for job in _jobs(_two_tasks, seed=seed)[0] if not _is_systematic(job.plan)]

    assert random_plans(1) == random_plans(1)
    assert random_plans(1) != random_plans(2)
    kinds = {(plan.priorities is not None, len(plan.strikes)) for plan in random_plans(1)}
    assert {(True, 1), (False, 1), (False, 2)} <= kinds


def test_events_in_which_nothing_has_moved_are_tried_after_all_others() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="first"), x.victim(name="second"):
            await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    jobs, tally = _jobs(scenario)
    assert tally.points == len({job.plan for job in jobs if _is_systematic(job.plan) and job.plan.strikes})


def test_a_scenario_without_orders_choices_and_victims_needs_no_search() -> None:
    async def scenario(_: Exploration) -> None:
        await trio.lowlevel.checkpoint()

    jobs, tally = _jobs(scenario)
    assert not jobs
    assert tally.exhausted


# What only deeper tiers find


def test_two_cancellations_are_tried_together() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="one") as one:
            await trio.sleep(1)
        with x.victim(name="two") as two:
            await trio.sleep(1)
        assert not (one.cancelled_caught and two.cancelled_caught)

    failure = failure_of(scenario, runs=400)
    assert [strike.victim for strike in failure.plan.strikes] == ["one", "two"]


def test_a_cancellation_in_an_unusual_schedule_is_tried() -> None:
    async def scenario(x: Exploration) -> None:
        order = ""

        async def write(letter: str) -> None:
            nonlocal order
            order += letter

        with x.victim() as scope:
            async with trio.open_nursery() as nursery:
                for letter in "abc":
                    nursery.start_soon(write, letter)
            await trio.sleep(1)
        assert not (scope.cancelled_caught and order == "bac")

    failure = failure_of(scenario, runs=1500)
    assert failure.plan.strikes
    assert failure.plan.picks


def test_runs_are_counted_and_end_when_asked_for() -> None:
    made = 0

    async def scenario(x: Exploration) -> None:
        nonlocal made
        made += 1
        await _two_tasks(x)

    report = green(scenario, runs=17)
    assert report.runs == 17
    assert 0 < made - 17 <= 8  # learning what is usual, each twice
