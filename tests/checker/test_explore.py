"""An exploration cancels at every event, stays green on what is right, ends what will not end, and cleans up."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from meerkat_trio.testing import CancellationBug, Exploration, ScenarioError, explore

from .rig import RUNS, failure_of, green, kind_of, line_of, lines_struck

# Where a cancellation strikes


def test_a_victim_is_cancelled_at_the_steps_of_other_tasks_too() -> None:
    found = set()

    async def scenario(x: Exploration) -> None:
        progress = 0

        async def other() -> None:
            nonlocal progress
            for _ in range(4):
                await trio.lowlevel.checkpoint()
                progress += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with x.victim() as scope:
                await trio.sleep(1)
            if scope.cancelled_caught:
                found.add(progress)

    green(scenario)
    assert found == {0, 1, 2, 3, 4}


def test_a_scope_can_be_cancelled_at_the_moment_of_its_declaration() -> None:
    called = set()

    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            called.add(scope.cancel_called)
            await trio.sleep(1)

    green(scenario)
    assert called == {False, True}


def test_a_victim_is_cancelled_between_being_woken_and_going_on() -> None:
    async def scenario(x: Exploration) -> None:
        send, receive = trio.open_memory_channel[int](1)
        handled = []
        with x.victim() as scope:
            send.send_nowait(1)
            item = await receive.receive()
            await trio.lowlevel.checkpoint()
            handled.append(item)
        assert handled or receive.statistics().current_buffer_used or not scope.cancelled_caught

    assert kind_of(scenario) == "exception"


def test_the_strikes_are_the_awaits_at_which_a_cancelled_was_really_raised() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="struck"):
            await trio.sleep(1)  # first
            with trio.CancelScope(shield=True):
                await trio.sleep(1)  # never: shielded
            await trio.lowlevel.cancel_shielded_checkpoint()  # never: cannot be cancelled
            await trio.lowlevel.checkpoint()  # second
        await trio.sleep(1)  # never: outside

    report = green(scenario)
    assert lines_struck(report) == {line_of(scenario, "# first"), line_of(scenario, "# second")}
    assert {name for _, name in report.strikes} == {"struck"}


def test_a_cancellation_at_an_idle_moment_finds_everybody_parked() -> None:
    places = set()

    async def scenario(x: Exploration) -> None:
        parked = False

        async def other() -> None:
            nonlocal parked
            parked = True
            await trio.sleep(1)
            parked = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with x.victim() as scope:
                await trio.sleep(2)
            if scope.cancelled_caught:
                places.add((parked, trio.current_time()))

    green(scenario)
    assert {(True, 0.0), (False, 1.0), (True, 1.0)} <= places


# What passes


def test_a_right_scenario_stays_green_when_everything_is_tried() -> None:
    async def scenario(x: Exploration) -> None:
        balance = {"left": 10, "right": 0}
        with x.victim():
            try:
                await trio.sleep(1)
            finally:
                with trio.CancelScope(shield=True):
                    balance["left"] -= 5
                    await trio.sleep(1)
                    balance["right"] += 5
        assert sum(balance.values()) == 10

    report = green(scenario, runs=1000)
    assert report.exhausted
    assert report.cancelled >= report.points
    assert "nothing found" in str(report)
    assert "all schedules with <= 2 deviations" in report.summary


def test_a_report_that_was_cut_claims_no_more_than_was_done() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            await trio.sleep(1)

    report = green(scenario, runs=3)
    assert not report.exhausted
    assert "not everything" in report.summary
    assert not green(scenario, runs=None, budget=0).exhausted


def test_what_is_found_is_raised_with_its_story_and_its_cause() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="loser") as scope:
            await trio.sleep(1)
        x.log("the score is", 1)
        if scope.cancelled_caught:
            raise LookupError("lost")

    report = explore(scenario, runs=RUNS)
    with pytest.raises(CancellationBug) as caught:
        report.raise_if_failed()
    text = str(caught.value)
    failure = report.failures[0]
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.report is report
    assert "exception: an exception left the scenario" in text
    assert f"replay={failure.replay!r}" in text
    assert "0 of 200 plain runs show it" in text
    assert "cancel loser as soon as it is declared" in failure.sentence
    assert any("CANCELS  loser" in line for line in failure.timeline)
    assert any("the score is 1" in line for line in failure.timeline)
    assert any(f"test_explore.py:{line_of(scenario, 'trio.sleep')}" in line for line in failure.timeline)
    assert "nobody cancelled" in str(failure.passing)


def test_different_failures_are_found_up_to_the_number_asked_for() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="first") as first:
            await trio.sleep(1)
        if first.cancelled_caught:
            raise LookupError
        with x.victim(name="second") as second:
            await trio.sleep(1)
        if second.cancelled_caught:
            raise ValueError

    assert len(explore(scenario, runs=RUNS).failures) == 1
    both = explore(scenario, runs=RUNS, max_failures=2).failures
    assert [type(failure.exception) for failure in both] == [LookupError, ValueError]


def test_progress_is_told_and_never_goes_back() -> None:
    told: list[tuple[int, float]] = []

    async def scenario(x: Exploration) -> None:
        with x.victim():
            await trio.sleep(1)

    green(scenario, on_progress=lambda runs, share: told.append((runs, share)))
    assert told
    assert told == sorted(told)
    assert told[-1][1] <= 1


# Runs that refuse to stop


def test_a_long_shielded_sleep_after_a_deadlock_is_cut_through() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            await trio.lowlevel.checkpoint()
        if x.cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()

    assert kind_of(scenario) == "deadlock"


STUBBORN = """
import trio
from meerkat_trio.testing import explore

async def swallows(x):
    with x.victim():
        await trio.lowlevel.checkpoint()
    while x.cancelled:
        try:
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
        except BaseException:
            pass

async def spins(x):
    with x.victim():
        await trio.lowlevel.checkpoint()
    while x.cancelled:
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            pass

for scenario in swallows, spins:
    report = explore(scenario, runs=30, max_steps=300)
    print([failure.kind for failure in report.failures])

async def well_behaved(x):
    with x.victim():
        await trio.sleep(1)

explore(well_behaved, runs=30).raise_if_failed()
print(trio.run(trio.sleep, 0))
"""


def test_runs_that_swallow_everything_are_ended_without_a_trace_even_when_the_interpreter_ends() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", STUBBORN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["['deadlock']", "['livelock']", "None"]
    assert not done.stderr


# Manners


def _globals_of_trio() -> tuple[object, ...]:
    core: Any = importlib.import_module("trio._core._run")
    scope: Any = trio.CancelScope
    threads: Any = importlib.import_module("trio._threads")
    return (
        *(core._ALLOW_DETERMINISTIC_SCHEDULING, core._r, core.Runner.task_exited, threads.start_thread_soon),
        *(scope.__enter__, scope.cancel, scope._close),
        *(trio.Lock.__init__, trio.Semaphore.acquire, trio.MemorySendChannel.close, trio.abc.AsyncResource.__dict__),
        gc.isenabled(),
    )


async def _fails(x: Exploration) -> None:
    with x.victim() as scope:
        await trio.sleep(1)
    assert not scope.cancelled_caught


async def _hangs(_: Exploration) -> None:
    await trio.sleep_forever()


async def _interrupted(_: Exploration) -> None:
    raise KeyboardInterrupt


async def _threaded(_: Exploration) -> None:
    await trio.to_thread.run_sync(int)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("scenario", [_fails, _hangs, _interrupted, _threaded])
def test_trios_globals_and_the_collector_are_restored_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Exploration], Any], allowed: bool
) -> None:
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", allowed)
    gc.enable()
    before = _globals_of_trio()
    with suppress(KeyboardInterrupt, ScenarioError):
        assert explore(scenario, runs=20).failures
    assert _globals_of_trio() == before


def test_the_collector_does_not_interfere_with_a_run() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            await trio.lowlevel.checkpoint()
        assert not gc.isenabled()

    green(scenario)


def test_the_same_exploration_twice_gives_the_same_report() -> None:
    async def scenario(x: Exploration) -> None:
        seen = []

        async def child(number: int) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(number)

        with x.victim():
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(child, number)
        assert seen != [1, 2, 0]

    first, second = (explore(scenario, runs=400, seed=3).as_dict() for _ in range(2))
    assert first == second
    assert first["failures"]
    assert failure_of(scenario, runs=400, seed=3).found_after == first["failures"][0]["found_after"]
