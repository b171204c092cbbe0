"""The cancel sweep finds known cancellation bugs, stays green on their repairs, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import itertools
import random
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from meerkat_trio.testing._controlled_run import Deadlocked, NotRepeatable, TasksLeft, TooManySteps
from meerkat_trio.testing._sweep import Sweep, SweepFailed, SweepReport, cancel_at_every_event
from meerkat_trio.testing._trace import Moment, difference
from meerkat_trio.testing._trio_internals import UnsupportedTrioError, require_internals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Scenario = Callable[[Sweep], Awaitable[object]]


def first_failure_of(scenario: Scenario, **options: Any) -> BaseException:
    report = cancel_at_every_event(scenario, **options)
    assert report.failures
    return report.failures[0].exception


def line_of(function: Callable[..., object], text: str) -> int:
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


# Bugs that only a cancellation shows, each with its repair


async def _relay(sweep: Sweep, *, keep_until_handled: bool) -> None:
    sender, receiver = trio.open_memory_channel[int](3)
    pending: list[int] = []
    handled: list[int] = []

    async def take() -> None:
        while True:
            if not pending:
                pending.append(await receiver.receive())
            item = pending[0] if keep_until_handled else pending.pop()
            await trio.lowlevel.checkpoint()
            handled.append(item)
            if keep_until_handled:
                pending.clear()

    async def produce() -> None:
        async with sender:
            for item in range(3):
                await sender.send(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        with sweep.victim("consumer"), contextlib.suppress(trio.EndOfChannel):
            await take()
        with contextlib.suppress(trio.EndOfChannel):
            await take()
    receiver.close()
    assert handled == [0, 1, 2]


async def lost_between_receive_and_handle(sweep: Sweep) -> None:
    await _relay(sweep, keep_until_handled=False)


async def kept_until_handled(sweep: Sweep) -> None:
    await _relay(sweep, keep_until_handled=True)


async def _permits(sweep: Sweep, *, guarded: bool) -> None:
    permits = trio.Semaphore(1)

    async def work() -> None:
        await permits.acquire()
        if guarded:
            try:
                await trio.sleep(1)
            finally:
                permits.release()
        else:
            await trio.sleep(1)
            permits.release()

    async def victim() -> None:
        with sweep.victim("worker"):
            await work()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(victim)
        nursery.start_soon(work if guarded else victim)
    assert permits.value == 1


async def leaked_permit(sweep: Sweep) -> None:
    permits = trio.Semaphore(1)
    with sweep.victim("worker"):
        await permits.acquire()
        await trio.sleep(1)
        permits.release()
    assert permits.value == 1


async def returned_permit(sweep: Sweep) -> None:
    await _permits(sweep, guarded=True)


async def _account(sweep: Sweep, *, shield: bool) -> None:
    books = {"left": 10, "right": 0}
    with sweep.victim("transfer"):
        try:
            await trio.sleep(1)
        finally:
            with trio.CancelScope(shield=shield):
                books["left"] -= 5
                await trio.sleep(1)
                books["right"] += 5
    assert sum(books.values()) == 10


async def half_updated_in_finally(sweep: Sweep) -> None:
    await _account(sweep, shield=False)


async def wholly_updated_in_finally(sweep: Sweep) -> None:
    await _account(sweep, shield=True)


async def _announcement(sweep: Sweep, *, swallow: bool) -> None:
    done = trio.Event()

    async def worker() -> None:
        with sweep.victim("worker"):
            try:
                await trio.sleep(1)
                done.set()
            except trio.Cancelled:
                if not swallow:
                    done.set()
                    raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        await done.wait()


async def swallowed_and_hangs(sweep: Sweep) -> None:
    await _announcement(sweep, swallow=True)


async def announced_and_ends(sweep: Sweep) -> None:
    await _announcement(sweep, swallow=False)


BUGS: dict[Scenario, type[BaseException]] = {
    lost_between_receive_and_handle: AssertionError,
    leaked_permit: AssertionError,
    half_updated_in_finally: AssertionError,
    swallowed_and_hangs: Deadlocked,
}


@pytest.mark.parametrize("scenario", BUGS, ids=lambda scenario: scenario.__name__)
def test_a_known_bug_is_found_and_blamed_on_a_cancellation(scenario: Scenario) -> None:
    report = cancel_at_every_event(scenario)
    assert type(report.failures[0].exception) is BUGS[scenario]
    assert all(failure.victim is not None for failure in report.failures)


@pytest.mark.parametrize("scenario", BUGS, ids=lambda scenario: scenario.__name__)
def test_a_bug_is_found_in_every_order_by_itself(scenario: Scenario) -> None:
    report = cancel_at_every_event(scenario, max_failures=10_000)
    assert {failure.order for failure in report.failures} == {"oldest", "newest", 0, 1, 2}


@pytest.mark.parametrize(
    "scenario",
    [kept_until_handled, returned_permit, wholly_updated_in_finally, announced_and_ends],
    ids=lambda scenario: scenario.__name__,
)
def test_the_repaired_scenario_stays_green_everywhere(scenario: Scenario) -> None:
    report = cancel_at_every_event(scenario, seeds=range(20))
    report.raise_if_failed()
    assert report.exhausted
    assert report.events + 2 * 22 == report.runs
    assert report.strikes


# Where a cancellation strikes


def test_a_cancellation_meets_a_deadline_from_both_sides_and_at_the_same_instant() -> None:
    seen = set()

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("timed", trio.CancelScope(deadline=trio.current_time() + 1)):
            try:
                await trio.sleep(5)
            except trio.Cancelled as exc:
                seen.add((trio.current_time(), exc.source))
                raise

    cancel_at_every_event(scenario, seeds=()).raise_if_failed()
    assert seen == {
        (0.0, "explicit"),  # before time moves
        (1.0, "explicit"),  # time has moved, nobody has looked at the deadline yet
        (1.0, "deadline"),
    }


def test_a_victim_is_cancelled_at_the_steps_of_other_tasks_too() -> None:
    found = set()

    async def scenario(sweep: Sweep) -> None:
        progress = 0

        async def other() -> None:
            nonlocal progress
            for _ in range(4):
                await trio.lowlevel.checkpoint()
                progress += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with sweep.victim("sleeper") as scope:
                await trio.sleep(1)
            if scope.cancelled_caught:
                found.add(progress)

    cancel_at_every_event(scenario, seeds=()).raise_if_failed()
    assert found == {0, 1, 2, 3, 4}


def test_the_strikes_are_the_awaits_at_which_a_cancelled_was_really_raised() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("struck"):
            await trio.sleep(1)  # first
            with trio.CancelScope(shield=True):
                await trio.sleep(1)  # never: shielded
            await trio.lowlevel.cancel_shielded_checkpoint()  # never: cannot be cancelled
            await trio.lowlevel.checkpoint()  # second
        await trio.sleep(1)  # never: outside

    report = cancel_at_every_event(scenario)
    expected = {line_of(scenario, "# first"), line_of(scenario, "# second")}
    assert {(int(where.rpartition(":")[2]), name) for where, name in report.strikes} == {
        (line, "struck") for line in expected
    }
    assert all("test_sweep.py:" in where for where, _ in report.strikes)


def test_a_strike_is_seen_through_an_async_generator_and_a_context_manager() -> None:
    @contextlib.asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        await trio.sleep(1)  # inside
        yield

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("caller"):
            async with manager():
                pass

    report = cancel_at_every_event(scenario, seeds=())
    assert [where.rpartition(":")[2] for where, _ in report.strikes] == [str(line_of(manager, "# inside"))]


def test_every_declared_victim_is_swept_and_the_scenario_is_told_which() -> None:
    told = set()

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("first") as first:
            await trio.lowlevel.checkpoint()
        with sweep.victim("second") as second:
            await trio.lowlevel.checkpoint()
        told.add((sweep.cancelled, first.cancelled_caught, second.cancelled_caught))

    cancel_at_every_event(scenario).raise_if_failed()
    assert told >= {(None, False, False), ("first", True, False), ("second", False, True)}
    assert {name for name, _, _ in told} == {None, "first", "second"}


def test_victims_inside_each_other_are_swept_each_for_itself_and_not_after_their_end() -> None:
    told = set()

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("outer") as outer:
            with sweep.victim("inner") as inner:
                await trio.sleep(1)
            at_inner_end = sweep.cancelled
            await trio.sleep(1)
        at_outer_end = sweep.cancelled
        await trio.sleep(1)
        assert at_outer_end == sweep.cancelled
        assert sweep.cancelled != "inner" or at_inner_end == "inner"
        told.add((sweep.cancelled, outer.cancelled_caught, inner.cancelled_caught))

    cancel_at_every_event(scenario).raise_if_failed()
    assert told == {(None, False, False), ("outer", True, False), ("inner", False, True)}


def test_a_name_declared_again_stands_for_its_new_scope() -> None:
    told = set()

    async def scenario(sweep: Sweep) -> None:
        caught = []
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                sweep.victim("session", nursery.cancel_scope)
                nursery.start_soon(trio.sleep, 1)
            caught.append(nursery.cancel_scope.cancelled_caught)
        told.add(tuple(caught))

    cancel_at_every_event(scenario).raise_if_failed()
    assert told == {(False,) * 3, (True, False, False), (False, True, False), (False, False, True)}


def test_a_scope_can_be_cancelled_at_the_moment_of_its_declaration() -> None:
    called = set()

    async def scenario(sweep: Sweep) -> None:
        scope = sweep.victim("early")
        called.add(scope.cancel_called)
        with scope:
            await trio.lowlevel.checkpoint()

    cancel_at_every_event(scenario, seeds=()).raise_if_failed()
    assert called == {False, True}


def test_tasks_run_oldest_first_newest_first_and_as_the_seeds_decide() -> None:
    orders = []

    async def scenario(sweep: Sweep) -> None:
        order: list[int] = []
        orders.append(order)

        async def note(number: int) -> None:
            order.append(number)

        with sweep.victim("nobody"):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(note, number)

    cancel_at_every_event(scenario, max_runs=0, seeds=(7,))
    oldest, _, newest, _, seeded, again = orders
    assert oldest == [0, 1, 2, 3, 4]
    assert newest == [4, 3, 2, 1, 0]
    assert seeded == again
    assert seeded not in (oldest, newest)


# What counts as a failure


def test_an_error_without_any_cancellation_is_the_scenarios_own() -> None:
    async def scenario(sweep: Sweep) -> None:
        async with trio.open_nursery():
            with sweep.victim("nobody"):
                raise LookupError("always")

    report = cancel_at_every_event(scenario)
    assert [(failure.victim, failure.event) for failure in report.failures] == [(None, -1)] * 5
    assert type(report.failures[0].exception) is LookupError
    with pytest.raises(SweepFailed, match="fails without any cancellation"):
        report.raise_if_failed()


def test_a_deadlock_without_any_cancellation_names_where_every_task_waits() -> None:
    async def scenario(sweep: Sweep) -> None:
        async def other() -> None:
            await trio.Event().wait()  # other's end

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with sweep.victim("stuck"):
                await trio.sleep_forever()  # own end

    exception = first_failure_of(scenario)
    assert type(exception) is Deadlocked
    assert re.search(rf"other @ \S*test_sweep\.py:{line_of(scenario, '# other')}\b", str(exception))
    assert re.search(rf"scenario @ \S*test_sweep\.py:{line_of(scenario, '# own')}\b", str(exception))


def test_a_deadlock_behind_a_shield_is_found_and_ended() -> None:
    unwound = []

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("shielded"):
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                try:
                    with trio.CancelScope(shield=True):
                        await trio.sleep_forever()
                finally:
                    unwound.append(sweep.cancelled)
                raise

    report = cancel_at_every_event(scenario, max_failures=3)
    assert [type(failure.exception) for failure in report.failures] == [Deadlocked] * 3
    assert unwound == ["shielded"] * 6  # each run, and once more for its timeline


def test_what_ending_a_deadlock_leads_to_does_not_hide_the_deadlock() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("stuck"):
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("on the way out")

    assert type(first_failure_of(scenario)) is Deadlocked


def test_a_run_without_end_is_stopped() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("spinner") as scope:
            await trio.sleep(1)
        while scope.cancelled_caught:
            await trio.sleep(1)

    assert type(first_failure_of(scenario, max_steps=200)) is TooManySteps


STUBBORN = """
import trio
from meerkat_trio.testing._sweep import cancel_at_every_event

async def stubborn(sweep):
    with sweep.victim("stubborn"):
        await trio.lowlevel.checkpoint()
    while sweep.cancelled:
        try:
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
        except BaseException:
            pass

report = cancel_at_every_event(stubborn, max_failures=3)
print([type(failure.exception).__name__ for failure in report.failures])

async def well_behaved(sweep):
    with sweep.victim("any"):
        await trio.sleep(1)

cancel_at_every_event(well_behaved).raise_if_failed()
print(trio.run(trio.sleep, 0))
"""


def test_a_run_that_swallows_everything_is_ended_without_a_trace_even_when_the_interpreter_ends() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", STUBBORN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [str(["Deadlocked"] * 3), "None"]
    assert not done.stderr


def test_system_tasks_left_behind_are_named() -> None:
    async def straggler() -> None:
        await trio.sleep_forever()

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("spawner") as scope:
            await trio.lowlevel.checkpoint()
        if scope.cancelled_caught:
            trio.lowlevel.spawn_system_task(straggler)

    exception = first_failure_of(scenario)
    assert type(exception) is TasksLeft
    assert "straggler" in str(exception)


def test_groups_of_one_are_unwrapped_and_others_stay_whole() -> None:
    async def fail(exc: Exception) -> None:
        raise exc

    async def one(sweep: Sweep) -> None:
        with sweep.victim("any") as scope:
            await trio.lowlevel.checkpoint()
        if scope.cancelled_caught:
            async with trio.open_nursery(), trio.open_nursery() as inner:
                inner.start_soon(fail, LookupError())

    async def two(sweep: Sweep) -> None:
        with sweep.victim("any") as scope:
            await trio.lowlevel.checkpoint()
        if scope.cancelled_caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, LookupError())
                nursery.start_soon(fail, ValueError())

    assert type(first_failure_of(one)) is LookupError
    assert type(first_failure_of(two)) is ExceptionGroup


def test_the_injected_cancellation_may_leave_the_scenario_and_a_foreign_one_may_not() -> None:
    async def outermost(sweep: Sweep) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        sweep.victim("everything", nursery.cancel_scope)
        async with trio.open_nursery():
            await trio.sleep(1)

    async def foreign(sweep: Sweep) -> None:
        kept: BaseException | None = None
        with sweep.victim("any"):
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                kept = exc
                raise
        if kept is not None:
            raise kept

    cancel_at_every_event(outermost).raise_if_failed()
    assert type(first_failure_of(foreign)) is trio.Cancelled


def test_an_interrupt_from_the_keyboard_ends_the_sweep() -> None:
    async def scenario(sweep: Sweep) -> None:
        async with trio.open_nursery():
            with sweep.victim("any"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancel_at_every_event(scenario)


async def _park_where_cancelling_raises(sweep: Sweep, *, declare_late: bool) -> None:
    def abort(_: object) -> trio.lowlevel.Abort:
        raise ZeroDivisionError

    async def wake(task: trio.lowlevel.Task) -> None:
        await trio.sleep(1)
        if declare_late:
            sweep.victim("any", scope)
            await trio.sleep(1)
        trio.lowlevel.reschedule(task)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wake, trio.lowlevel.current_task())
        with trio.CancelScope() if declare_late else sweep.victim("any") as scope:
            await trio.lowlevel.wait_task_rescheduled(abort)


def test_an_error_while_the_sweep_cancels_is_raised_and_names_the_plan() -> None:
    async def scenario(sweep: Sweep) -> None:
        await _park_where_cancelling_raises(sweep, declare_late=True)

    with pytest.raises(ZeroDivisionError) as caught:
        cancel_at_every_event(scenario)
    assert "victim='any'" in caught.value.__notes__[0]


def test_a_crash_of_trio_is_raised_and_leaves_no_warnings_behind() -> None:
    async def scenario(sweep: Sweep) -> None:
        await _park_where_cancelling_raises(sweep, declare_late=False)

    with pytest.raises(trio.TrioInternalError) as caught:
        cancel_at_every_event(scenario)
    assert "victim='any'" in caught.value.__notes__[0]
    del caught
    gc.collect()


# Time, and what wakes tasks without it


def test_hours_pass_without_waiting_and_idle_waiters_are_woken_first() -> None:
    async def scenario(sweep: Sweep) -> None:
        started = trio.current_time()
        with sweep.victim("any") as scope:
            await trio.testing.wait_all_tasks_blocked()
            assert trio.current_time() == started
            await trio.sleep(7200)
            assert trio.current_time() == started + 7200
        assert scope.cancelled_caught or trio.current_time() == started + 7200

    report = cancel_at_every_event(scenario)
    report.raise_if_failed()
    assert {int(where.rpartition(":")[2]) for where, _ in report.strikes} == {
        line_of(scenario, "wait_all_tasks_blocked()"),
        line_of(scenario, "trio.sleep(7200)"),
    }


def test_a_call_that_comes_in_through_trios_token_is_heard_and_is_no_deadlock() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("any"):
            called = trio.Event()
            trio.lowlevel.current_trio_token().run_sync_soon(called.set)
            await called.wait()

    cancel_at_every_event(scenario).raise_if_failed()


def test_a_task_that_waits_for_idleness_is_cancelled_after_everything_else_has_parked() -> None:
    seen = set()

    async def scenario(sweep: Sweep) -> None:
        called_before_parking = True

        async def other() -> None:
            nonlocal called_before_parking
            called_before_parking = scope.cancel_called
            await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            with sweep.victim("idler") as scope:
                nursery.start_soon(other)
                await trio.testing.wait_all_tasks_blocked()
            seen.add((called_before_parking, scope.cancelled_caught))

    cancel_at_every_event(scenario).raise_if_failed()
    assert (False, True) in seen


def test_the_collector_does_not_interfere_with_a_run() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("any"):
            await trio.lowlevel.checkpoint()
        assert not gc.isenabled()

    cancel_at_every_event(scenario).raise_if_failed()


# Repeating


def _gist(report: SweepReport) -> tuple[object, ...]:
    failures = [(failure.replay, repr(failure.exception), failure.timeline) for failure in report.failures]
    return report.runs, report.events, failures, report.strikes, report.exhausted


def test_the_same_sweep_twice_gives_the_same_report() -> None:
    first = _gist(cancel_at_every_event(lost_between_receive_and_handle))
    random.seed(12345)
    assert first == _gist(cancel_at_every_event(lost_between_receive_and_handle))


def test_a_failure_is_replayed_by_one_run_and_by_the_text_of_its_message() -> None:
    with pytest.raises(SweepFailed) as caught:
        cancel_at_every_event(lost_between_receive_and_handle).raise_if_failed()
    found = caught.value.report.failures[0]
    assert f"replay={found.replay!r}" in str(caught.value)
    assert caught.value.__cause__ is found.exception

    report = cancel_at_every_event(lost_between_receive_and_handle, replay=found.replay)
    assert report.runs == 1
    assert [failure.replay for failure in report.failures] == [found.replay]
    assert report.failures[0].timeline == found.timeline


def test_the_timeline_shows_the_cancellation_and_where_tasks_were() -> None:
    failure = cancel_at_every_event(half_updated_in_finally).failures[0]
    assert any(line.endswith("CANCELS  'transfer'") for line in failure.timeline)
    assert any(re.search(r"parks +scenario @ \S*test_sweep\.py:\d+", line) for line in failure.timeline)
    assert not any("<" in line for line in failure.timeline)


def test_replaying_on_the_repaired_scenario_is_green() -> None:
    replay = cancel_at_every_event(half_updated_in_finally).failures[0].replay
    assert not cancel_at_every_event(wholly_updated_in_finally, replay=replay).failures


@pytest.mark.parametrize("replay", [("nobody", 12, "oldest"), ("transfer", 100_000, "oldest"), ("transfer", 0, 1)])
def test_a_replay_that_does_not_fit_the_scenario_says_so(replay: tuple[str, int, Any]) -> None:
    assert type(first_failure_of(wholly_updated_in_finally, replay=replay)) is NotRepeatable


def test_a_scenario_that_differs_from_run_to_run_is_told_where() -> None:
    count = itertools.count()

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("any"):
            for _ in range(next(count)):
                await trio.sleep(1)  # as often as it likes

    exception = first_failure_of(scenario, seeds=())
    assert type(exception) is NotRepeatable
    assert f"test_sweep.py:{line_of(scenario, '# as often')}" in str(exception)


def test_a_scenario_that_differs_only_when_cancelled_is_told_too() -> None:
    count = itertools.count()

    async def scenario(sweep: Sweep) -> None:
        if next(count) >= 2:
            await trio.lowlevel.checkpoint()
        with sweep.victim("any"):
            await trio.sleep(1)

    exception = first_failure_of(scenario, seeds=())
    assert type(exception) is NotRepeatable
    assert "of the first run is now" in str(exception)


def test_a_run_that_ends_before_its_event_is_no_success() -> None:
    count = itertools.count()

    async def scenario(sweep: Sweep) -> None:
        if next(count) < 2:
            for _ in range(30):
                await trio.lowlevel.checkpoint()
            with sweep.victim("any"):
                await trio.sleep(1)

    exception = first_failure_of(scenario, seeds=())
    assert type(exception) is NotRepeatable
    assert "ended before" in str(exception)


def test_a_trace_that_only_goes_on_differs_too() -> None:
    moments = [Moment(0.0, 1, "step", "one", "a.py:1"), Moment(0.0, 2, "step", "two", "b.py:2")]
    assert difference(moments, moments) is None
    assert "only the first goes on" in str(difference(moments, moments[:1]))
    assert "two @ b.py:2" in str(difference(moments[:1], moments))


def test_a_long_run_is_shown_around_its_cancellation_and_at_its_end() -> None:
    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("any") as scope:
            await trio.sleep(1)
        for _ in range(100):
            await trio.sleep(1)
        assert not scope.cancelled_caught

    failure = cancel_at_every_event(scenario).failures[0]
    assert failure.timeline.count("      ...") == 1
    assert any("CANCELS" in line for line in failure.timeline)
    assert len(failure.timeline) < 50


def test_a_failure_that_does_not_come_back_carries_a_note() -> None:
    struck = itertools.count()

    async def scenario(sweep: Sweep) -> None:
        with sweep.victim("any") as scope:
            await trio.sleep(1)
        assert not (scope.cancelled_caught and next(struck) == 0), "only once"

    report = cancel_at_every_event(scenario, seeds=())
    with pytest.raises(SweepFailed, match=r"only once[\s\S]*not repeatable"):
        report.raise_if_failed()


# Bounds and manners


def test_too_small_a_budget_takes_a_sample_and_does_not_claim_to_be_exhaustive() -> None:
    full = cancel_at_every_event(kept_until_handled)
    cut = cancel_at_every_event(kept_until_handled, max_runs=40)
    assert full.exhausted
    assert not cut.exhausted
    assert cut.runs == 40
    assert cut.events == full.events


def test_the_sweep_stops_after_the_failures_asked_for() -> None:
    report = cancel_at_every_event(half_updated_in_finally, max_failures=2)
    assert len(report.failures) == 2
    assert not report.exhausted


def _globals_of_trio() -> tuple[object, ...]:
    core: Any = importlib.import_module("trio._core._run")
    return core._ALLOW_DETERMINISTIC_SCHEDULING, core._r, gc.isenabled()


@pytest.mark.parametrize("allowed", [False, True])
def test_trios_globals_and_the_collector_are_restored_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", allowed)
    gc.enable()
    before = _globals_of_trio()

    async def interrupted(sweep: Sweep) -> None:
        raise KeyboardInterrupt

    for scenario in (kept_until_handled, half_updated_in_finally, swallowed_and_hangs):
        cancel_at_every_event(scenario)
        assert _globals_of_trio() == before
    with pytest.raises(KeyboardInterrupt):
        cancel_at_every_event(interrupted)
    assert _globals_of_trio() == before


def test_a_scenario_without_a_victim_is_refused() -> None:
    async def scenario(sweep: Sweep) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(ValueError, match="no victim"):
        cancel_at_every_event(scenario)


async def test_a_sweep_inside_a_trio_run_is_refused() -> None:
    with pytest.raises(RuntimeError, match="synchronous test"):
        cancel_at_every_event(kept_until_handled)


def test_a_trio_with_another_inside_is_refused_by_naming_what_it_lacks() -> None:
    with pytest.raises(UnsupportedTrioError, match=r"trio\._core\._run\.Task lacks _gone"):
        require_internals([("", ["_r"]), ("Task", ["_next_send", "_gone"])])
