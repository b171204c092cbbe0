"""One short string makes a run again; where the code has changed it says so and looks nearby."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio.testing import Exploration, explore
from meerkat_trio.testing._plan import Hold, Plan, Priorities, Strike, format_replay, parse_replay
from meerkat_trio.testing._trace import Moment, difference, hash_of, timeline

from .rig import RUNS, failure_of


async def _loses(x: Exploration, *, before: int = 0, repaired: bool = False) -> None:
    taken, handled = [], []
    for _ in range(before):
        await trio.lowlevel.checkpoint()
    with x.victim(name="worker"):
        await trio.sleep(1)
        taken.append(1)
        if not repaired:
            await trio.lowlevel.checkpoint()
        handled.append(1)
        await trio.sleep(1)
    assert handled == taken


async def _scenario(x: Exploration) -> None:
    await _loses(x)


def test_a_failure_is_replayed_as_it_was() -> None:
    found = failure_of(_scenario)
    report = explore(_scenario, replay=found.replay)
    again = report.failures[0]
    assert (again.kind, again.replay, again.trace) == (found.kind, found.replay, found.trace)
    assert again.note is None


def test_a_replay_makes_no_search() -> None:
    made = 0

    async def counted(x: Exploration) -> None:
        nonlocal made
        made += 1
        await _loses(x, repaired=True)

    found = failure_of(_scenario)
    report = explore(counted, replay=found.replay.rpartition("#")[0])
    assert not report.failures
    assert made < 30


def test_a_replay_string_is_short_and_readable() -> None:
    replay = failure_of(_scenario).replay
    assert replay.startswith("oldest;cancel=")
    assert "@worker#" in replay
    assert len(replay) < 60


def test_replaying_on_the_repaired_scenario_is_green() -> None:
    async def repaired(x: Exploration) -> None:
        await _loses(x, repaired=True)

    explore(repaired, replay=failure_of(_scenario).replay).raise_if_failed()


def test_a_replay_that_goes_another_way_says_so_and_finds_the_failure_nearby() -> None:
    async def longer(x: Exploration) -> None:
        await _loses(x, before=5)

    found = failure_of(_scenario)
    again = explore(longer, replay=found.replay).failures[0]
    assert again.kind == found.kind
    assert again.replay != found.replay
    assert "another way than when the string was made" in str(again.note)


def test_a_replay_whose_victim_is_gone_says_so() -> None:
    found = failure_of(_scenario)
    again = explore(_scenario, replay=found.replay.replace("@worker", "@nobody")).failures[0]
    assert "a victim of it was not there" in str(again.note)
    assert again.plan.strikes[0].victim == "worker"


@pytest.mark.parametrize("mode", ["adversarial", "fair"])
def test_a_failure_that_needs_a_schedule_is_replayed_too(mode: str) -> None:
    async def scenario(x: Exploration) -> None:
        order = ""

        async def write(letter: str) -> None:
            nonlocal order
            order += letter

        async with trio.open_nursery() as nursery:
            for letter in "abc":
                nursery.start_soon(write, letter)
        assert order != "bac"

    found = failure_of(scenario, mode=mode)
    assert explore(scenario, replay=found.replay).failures[0].trace == found.trace


def test_what_was_hypothetical_is_so_again() -> None:
    async def scenario(_: Exploration) -> None:
        with trio.fail_after(5):
            await trio.sleep(1)

    found = explore(scenario, runs=RUNS).hypothetical[0]
    again = explore(scenario, replay=found.replay)
    assert not again.failures
    assert again.hypothetical[0].trace == found.trace


# Strings

_numbers = st.integers(0, 9999)
_deviations = st.lists(st.tuples(_numbers, _numbers), max_size=3).map(tuple)
_names = st.sampled_from(["root", "main", "a/b.py:12", "a/b.py:12~3", "late-timer-0.1", "C:\\x.py:7", "#1"])
_plans = st.builds(
    Plan,
    order=st.one_of(st.sampled_from(["oldest", "newest"]), _numbers),
    picks=_deviations,
    ties=_deviations,
    choices=_deviations,
    holds=st.lists(st.builds(Hold, _numbers, _names, _numbers), max_size=2).map(tuple),
    priorities=st.none() | st.builds(Priorities, _numbers, _numbers, _numbers),
    strikes=st.lists(st.builds(Strike, _numbers, _names), max_size=2).map(tuple),
)


@given(_plans, st.from_regex(r"[0-9a-f]{6}", fullmatch=True))
def test_every_plan_comes_back_from_its_string(plan: Plan, trace_hash: str) -> None:
    assert parse_replay(format_replay(plan, trace_hash)) == (plan, trace_hash)


def test_a_string_without_a_hash_is_as_good() -> None:
    assert parse_replay("newest;cancel=3@root") == (Plan(order="newest", strikes=(Strike(3, "root"),)), "")


# Traces


def test_a_trace_that_only_goes_on_differs_too() -> None:
    moments = [Moment(0.0, 1, "step", "one", "a.py:1"), Moment(0.0, 2, "step", "two", "b.py:2")]
    assert difference(moments, moments) is None
    assert "only the first goes on" in str(difference(moments, moments[:1]))
    assert "two @ b.py:2" in str(difference(moments[:1], moments))


def test_the_hash_of_a_trace_depends_on_time_and_not_on_where_the_checkout_lies() -> None:
    def one(time: float, place: str) -> list[Moment]:
        return [Moment(time, 1, "step", "task", place)]

    assert hash_of(one(0, "a/x.py:1")) == hash_of(one(0, "b/x.py:1"))
    assert len({hash_of(one(0, "x.py:1")), hash_of(one(1, "x.py:1")), hash_of(one(0, "x.py:2"))}) == 3


def test_a_long_run_is_shown_around_its_cancellation_and_at_its_end() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        for _ in range(100):
            await trio.sleep(1)
        assert not scope.cancelled_caught

    failure = failure_of(scenario, runs=RUNS)
    assert failure.timeline == timeline(failure.trace)
    assert failure.timeline.count("      ...") == 1
    assert any("CANCELS" in line for line in failure.timeline)
    assert len(failure.timeline) < 50 < len(failure.trace)
