"""Each kind of wrong end is told from its nearest right one: errors, deadlocks, lost and foreign cancellations."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from meerkat_trio.testing import CheckFailed, Exploration

from .rig import failure_of, green, kind_of, line_of

# Errors


def test_an_exception_that_leaves_the_scenario_is_found_and_is_the_cause_of_what_is_raised() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        if scope.cancelled_caught:
            raise LookupError("gone")

    failure = failure_of(scenario)
    assert failure.kind == "exception"
    assert isinstance(failure.exception, LookupError)
    assert "LookupError: gone" in failure.message


def test_an_exception_that_the_scenario_handles_is_none() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        with suppress(LookupError):
            if scope.cancelled_caught:
                raise LookupError

    green(scenario)


def test_groups_of_one_are_unwrapped_and_others_stay_whole() -> None:
    async def fail(exc: Exception) -> None:
        raise exc

    async def one(_: Exploration) -> None:
        async with trio.open_nursery(), trio.open_nursery() as inner:
            inner.start_soon(fail, LookupError())

    async def two(_: Exploration) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, LookupError())
            nursery.start_soon(fail, ValueError())

    assert isinstance(failure_of(one).exception, LookupError)
    assert isinstance(failure_of(two).exception, ExceptionGroup)


def test_the_injected_cancellation_may_leave_the_scenario() -> None:
    async def scenario(x: Exploration) -> None:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        x.victim(nursery.cancel_scope, name="everything")
        async with trio.open_nursery():
            await trio.sleep(1)

    assert green(scenario).strikes


# Deadlock and livelock


def test_a_deadlock_names_who_waits_for_whom() -> None:
    async def scenario(_: Exploration) -> None:
        one, two = trio.Lock(), trio.Lock()

        async def forth() -> None:
            async with one:
                await trio.lowlevel.checkpoint()
                async with two:  # forth
                    pass

        async def back() -> None:
            async with two:
                await trio.lowlevel.checkpoint()
                async with one:  # back
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forth)
            nursery.start_soon(back)

    failure = failure_of(scenario)
    assert failure.kind == "deadlock"
    assert f":{line_of(scenario, '# forth')} waits for a Lock held by back" in failure.message
    assert f":{line_of(scenario, '# back')} waits for a Lock held by forth" in failure.message
    assert "main @" in failure.message


def test_whoever_is_woken_by_a_deadline_idleness_or_a_callback_is_in_no_deadlock() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            with trio.move_on_after(3600):
                await trio.sleep_forever()
            await trio.testing.wait_all_tasks_blocked()
            called = trio.Event()
            trio.lowlevel.current_trio_token().run_sync_soon(called.set)
            await called.wait()

    green(scenario)


def test_what_ending_a_deadlock_leads_to_does_not_hide_the_deadlock() -> None:
    async def scenario(_: Exploration) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("on the way out")

    assert kind_of(scenario) == "deadlock"


def test_a_run_without_end_is_a_livelock_and_a_long_one_is_not() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        while scope.cancelled_caught:
            await trio.lowlevel.checkpoint()

    async def long(x: Exploration) -> None:
        with x.victim():
            for _ in range(150):
                await trio.lowlevel.checkpoint()

    failure = failure_of(scenario, max_steps=100)
    assert failure.kind == "livelock"
    assert "no end after 100 steps" in failure.message
    green(long, max_steps=200)
    assert kind_of(long, max_steps=100) == "livelock"


# Swallowed


def test_a_cancelled_that_never_comes_out_is_swallowed_and_its_await_is_named() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="poller"):
            with suppress(trio.Cancelled):
                await trio.sleep(1)  # here
            await trio.sleep(1)

    failure = failure_of(scenario)
    assert failure.kind == "swallowed"
    assert failure.message.startswith("poller was cancelled and a Cancelled was raised in main")
    assert f"test_oracles.py:{line_of(scenario, '# here')}" in failure.message


def test_a_task_that_returns_after_its_cancelled_has_swallowed_it() -> None:
    async def scenario(x: Exploration) -> None:
        async def poll() -> None:
            with suppress(trio.Cancelled):
                await trio.sleep(1)

        with x.victim():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)

    failure = failure_of(scenario)
    assert failure.kind == "swallowed"
    assert "raised in poll" in failure.message


def test_a_cancelled_that_is_caught_and_raised_again_or_raised_anew_in_clean_up_is_not_swallowed() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                raise
            finally:
                await trio.sleep(1)

    green(scenario)


def test_a_scope_in_between_with_a_cancellation_of_its_own_may_take_a_cancelled() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            with trio.CancelScope() as grace:
                try:
                    await trio.sleep(10)
                except trio.Cancelled:
                    grace.shield = True
                    grace.deadline = trio.current_time() + 1
                    await trio.sleep(5)
                    raise
            await trio.sleep(1)

    green(scenario)


# Masked


def test_an_error_that_an_unshielded_clean_up_loses_is_masked() -> None:
    async def scenario(x: Exploration) -> None:
        async def work() -> None:
            try:
                await trio.sleep(1)
                raise ValueError("important")
            finally:
                await trio.sleep(1)  # instead

        with suppress(ValueError), x.victim(name="worker"):
            await work()

    failure = failure_of(scenario)
    assert failure.kind == "masked"
    assert failure.message.startswith("ValueError(important) was on its way out of worker")
    assert f":{line_of(scenario, '# instead')}" in failure.message


def test_a_shielded_clean_up_masks_nothing() -> None:
    async def scenario(x: Exploration) -> None:
        with suppress(ValueError), x.victim():
            try:
                await trio.sleep(1)
                raise ValueError
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)

    green(scenario)


def test_an_error_that_is_handled_by_waiting_for_the_next_attempt_is_not_masked() -> None:
    async def scenario(x: Exploration) -> None:
        with suppress(OSError), x.victim():
            for attempt in range(3):
                try:
                    await trio.sleep(1)
                    raise OSError("no answer")
                except OSError:
                    if attempt == 2:
                        raise
                    await trio.sleep(1)

    green(scenario)


def test_an_error_that_was_to_be_raised_again_after_waiting_is_masked() -> None:
    async def scenario(x: Exploration) -> None:
        with suppress(OSError), x.victim():
            try:
                await trio.sleep(1)
                raise OSError("no answer")
            except OSError:
                await trio.sleep(1)
                raise

    assert kind_of(scenario) == "masked"


# Foreign


def test_a_cancelled_kept_from_another_scope_is_foreign_in_a_task_and_in_the_scenario() -> None:
    async def scenario(x: Exploration, *, in_a_task: bool) -> None:
        kept: list[trio.Cancelled] = []
        with x.victim():
            try:
                await trio.sleep(1)
            except trio.Cancelled as exc:
                kept.append(exc)
                raise

        async def hand_out() -> None:
            for exc in kept:
                raise exc

        if in_a_task:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hand_out)
        else:
            await hand_out()

    async def task(x: Exploration) -> None:
        await scenario(x, in_a_task=True)

    async def body(x: Exploration) -> None:
        await scenario(x, in_a_task=False)

    failure = failure_of(task)
    assert failure.kind == "foreign"
    assert failure.message.startswith("hand_out ended with a Cancelled")
    assert kind_of(body) == "foreign"


def test_a_cancelled_from_a_scope_around_the_nursery_is_not_foreign() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 1)

    green(scenario)


# Slow to die


async def _lingering(x: Exploration) -> None:
    with x.victim(name="lingerer"):
        try:
            await trio.sleep(1)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)


def test_a_victim_may_take_as_long_as_it_likes_unless_a_limit_is_set() -> None:
    green(_lingering)
    green(_lingering, dies_within=5)
    failure = failure_of(_lingering, dies_within=4)
    assert failure.kind == "slow to die"
    assert "lingerer: 5 s from its cancellation to its end, 4 s are allowed" in failure.message


# Scopes out of order


def test_scopes_left_in_another_order_than_entered_are_misnested() -> None:
    async def scenario(_: Exploration) -> None:
        outer, inner = trio.CancelScope(), trio.CancelScope()
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        await trio.lowlevel.checkpoint()

    assert kind_of(scenario) == "misnested scope"


# What a crash is


def test_a_crash_of_trio_is_raised_and_is_no_finding() -> None:
    async def scenario(x: Exploration) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            raise ZeroDivisionError

        async def wake(task: trio.lowlevel.Task) -> None:
            await trio.sleep(1)
            trio.lowlevel.reschedule(task)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wake, trio.lowlevel.current_task())
            with x.victim():
                await trio.lowlevel.wait_task_rescheduled(abort)

    with pytest.raises((trio.TrioInternalError, ZeroDivisionError)) as caught:
        failure_of(scenario)
    assert "while the explorer ran" in caught.value.__notes__[0]


def test_a_failed_check_is_an_assertion_error() -> None:
    assert issubclass(CheckFailed, AssertionError)
