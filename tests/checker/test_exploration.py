"""What a scenario can ask of its exploration: choices, checks, expectations, atomic and reusable operations."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from meerkat_trio.testing import CheckFailed, Exploration, explore

from .rig import failure_of, green, kind_of, line_of

# Choices


def test_all_answers_of_the_environment_are_tried_and_the_first_is_the_usual_one() -> None:
    seen: list[tuple[int, str]] = []

    async def scenario(x: Exploration) -> None:
        seen.append((x.choose(3), x.choose(["sent", "lost"])))
        await trio.lowlevel.checkpoint()

    green(scenario, runs=400)
    assert seen[0] == (0, "sent")
    assert set(seen) == {(number, word) for number in range(3) for word in ("sent", "lost")}


def test_a_failure_that_needs_two_answers_says_which() -> None:
    async def scenario(x: Exploration) -> None:
        faults = sum(x.choose([False, True]) for _ in range(4))
        await trio.lowlevel.checkpoint()
        assert faults < 2

    failure = failure_of(scenario, runs=400)
    assert len(failure.plan.choices) == 2
    assert "choice 0 of the environment is 1" in failure.sentence or "choice 1" in failure.sentence


@pytest.mark.parametrize("options", [0, -1, []])
def test_a_choice_of_nothing_is_refused(options: int | list[int]) -> None:
    async def scenario(x: Exploration) -> None:
        with pytest.raises(ValueError, match="options: one or more are needed"):
            x.choose(options)

    green(scenario)


# Checks


def test_a_failed_check_is_found_even_where_its_exception_is_caught() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        with suppress(CheckFailed):
            x.check(not scope.cancelled_caught, "was cut")  # here

    failure = failure_of(scenario)
    assert failure.kind == "check"
    assert "was cut" in failure.message
    assert f"test_exploration.py:{line_of(scenario, '# here')}" in failure.message


def test_what_must_always_hold_is_asked_after_every_step() -> None:
    async def scenario(x: Exploration) -> None:
        left, right = 1, 0
        x.always(lambda: left + right == 1, "one in all")
        with x.victim():
            left = 0
            if hasty:
                await trio.lowlevel.checkpoint()
            right = 1
            await trio.lowlevel.checkpoint()

    hasty = True
    failure = failure_of(scenario)
    assert failure.kind == "check"
    assert "no longer true: one in all" in failure.message
    hasty = False
    green(scenario)


def test_what_must_always_hold_is_asked_after_the_last_step_too() -> None:
    async def scenario(x: Exploration) -> None:
        held = [True]
        x.always(lambda: held[0], "it is held")
        await trio.lowlevel.checkpoint()
        held[0] = careful

    careful = False
    failure = failure_of(scenario)
    assert failure.kind == "check"
    assert "no longer true: it is held" in failure.message
    assert explore(scenario, replay=failure.replay).failures
    careful = True
    green(scenario)


def test_a_predicate_that_raises_is_an_exception_of_the_scenario() -> None:
    async def scenario(x: Exploration) -> None:
        nothing: dict[str, int] = {}
        x.always(lambda: nothing["here"])
        await trio.lowlevel.checkpoint()

    failure = failure_of(scenario)
    assert failure.kind == "exception"
    assert "a predicate raised KeyError" in failure.message


async def _hopes(x: Exploration, *, after: float, then: float = 0) -> None:
    came = False
    with x.victim():
        x.eventually(lambda: came, within=3, message="it comes")
        with trio.CancelScope(shield=True):
            await trio.sleep(after)
            came = True
            await trio.sleep(then)
        await trio.sleep(then)


def test_what_must_come_true_in_time_is_found_when_late_and_may_be_false_before_and_after() -> None:
    async def late(x: Exploration) -> None:
        await _hopes(x, after=4)

    async def in_time(x: Exploration) -> None:
        await _hopes(x, after=2, then=9)

    assert "did not come true in time: it comes" in failure_of(late).message
    green(in_time)


def test_what_has_not_come_true_when_the_scenario_ends_is_found() -> None:
    async def scenario(x: Exploration) -> None:
        came = False
        x.eventually(lambda: came, within=60)
        with x.victim():
            await trio.sleep(1)
            came = True

    assert "did not come true before the scenario ended" in failure_of(scenario).message


# Operations


class _Account:
    def __init__(self) -> None:
        self.left, self.right = 1, 0
        self.busy = False

    def state(self) -> tuple[int, int]:
        return self.left, self.right

    async def careless(self) -> None:
        self.left -= 1
        await trio.lowlevel.checkpoint()
        self.right += 1

    async def careful(self) -> None:
        await trio.lowlevel.checkpoint()
        self.left -= 1
        self.right += 1
        await trio.lowlevel.checkpoint()

    async def stays_busy(self) -> None:
        while self.busy:
            await trio.sleep(1)
        self.busy = True
        await trio.sleep(1)
        self.busy = False

    async def frees_itself(self) -> None:
        self.busy = True
        try:
            await trio.sleep(1)
        finally:
            self.busy = False


def test_an_operation_made_by_half_is_not_atomic_and_one_made_whole_or_not_at_all_is() -> None:
    ended = set()

    async def careless(x: Exploration) -> None:
        account = _Account()
        await x.atomic(account.careless, account.state)

    async def careful(x: Exploration) -> None:
        account = _Account()
        ended.add((await x.atomic(account.careful, account.state), account.state()))

    failure = failure_of(careless)
    assert failure.kind == "check"
    assert "neither made nor left out" in failure.message
    assert "it began with (1, 0), uncancelled it ends with (0, 1), and here with (0, 0)" in failure.message
    assert f"test_exploration.py:{line_of(careless, 'x.atomic')}" in failure.message
    green(careful)
    assert ended == {(True, (0, 1)), (False, (0, 1)), (False, (1, 0))}


def test_the_state_of_an_atomic_operation_is_copied_before() -> None:
    async def scenario(x: Exploration) -> None:
        items: list[int] = []

        async def append() -> None:
            items.append(1)
            await trio.lowlevel.checkpoint()
            items.append(2)

        await x.atomic(append, lambda: items)

    assert kind_of(scenario) == "check"


def test_an_operation_that_a_cancellation_blocks_for_ever_is_not_reusable() -> None:
    async def careless(x: Exploration) -> None:
        await x.reusable(_Account().stays_busy, within=10)

    async def careful(x: Exploration) -> None:
        await x.reusable(_Account().frees_itself, within=10)

    failure = failure_of(careless)
    assert failure.kind == "check"
    assert "cancelled once, it does not end within 10 s any more" in failure.message
    green(careful)


# Words


def test_what_is_logged_stands_on_the_timeline_at_its_moment_and_task() -> None:
    async def scenario(x: Exploration) -> None:
        async def speaker() -> None:
            await trio.sleep(2)
            x.log("hello", [1])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speaker)
        assert x.choose(2) == 0

    trace = failure_of(scenario).trace
    assert [(moment.time, moment.task, moment.detail) for moment in trace if moment.what == "log"] == [
        (2.0, "speaker", "hello [1]")
    ]


def test_an_exploration_tells_in_its_repr_who_is_cancelled() -> None:
    told = set()

    async def scenario(x: Exploration) -> None:
        with x.victim(name="one"):
            await trio.sleep(1)
        told.add(repr(x))

    green(scenario)
    assert told == {
        "<Exploration, cancelled so far: nobody>",
        "<Exploration, cancelled so far: one>",
    }
