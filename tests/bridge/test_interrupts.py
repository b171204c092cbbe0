"""Runs that a supervisor interrupts, or cancels for good."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio

from meerkat_trio import (
    AbandonCause,
    Backoff,
    HardCancelMember,
    InterruptMember,
    RequestFailed,
    ResponseStatus,
    RunInterrupted,
    SessionPhase,
    SessionRun,
)

from ..rig import settle
from .rig import Commands, commanding

ONE_SECOND = Backoff(first=1.0, jitter=0.0)
"""1, 2, 4, … seconds between the attempts."""


class Runs:
    """A handler that sleeps for an hour, and what became of it."""

    def __init__(self, on_cancel: Callable[[SessionRun], Any] | None = None, length: float = 3600.0) -> None:
        self.begun: list[tuple[Any, int, float]] = []
        self.done: list[Any] = []
        self.on_cancel = on_cancel
        self.length = length

    async def __call__(self, run: SessionRun) -> None:
        self.begun.append((run.message.body, run.attempt, trio.current_time()))
        if run.message.body == "quick":
            self.done.append("quick")
            return
        try:
            await trio.sleep(self.length)
        except trio.Cancelled:
            if self.on_cancel is None:
                raise
            self.on_cancel(run)
        self.done.append(run.message.body)

    @property
    def attempts(self) -> list[tuple[Any, int]]:
        return [(body, attempt) for body, attempt, _ in self.begun]


async def interrupt(rig: Commands, *, hard: bool = False, reason: str = "why") -> str | None:
    kind = HardCancelMember if hard else InterruptMember
    answer = await rig.ann.command(rig.id, kind(epoch=1, reason=reason))
    assert set(answer) == {"run"}
    run: str | None = answer["run"]
    return run


async def send(rig: Commands, *bodies: object) -> None:
    for body in bodies:
        await rig.ann.send(rig.id, body)
    await settle()


def abandoned(rig: Commands) -> list[tuple[Any, AbandonCause, int]]:
    return [(each.message.body, each.cause, each.attempts) for each in rig.member.abandoned]


# --- interrupt --------------------------------------------------------------------------------------


async def test_an_interrupted_run_is_an_attempt_and_waits_its_back_off(autojump_clock: object) -> None:
    runs = Runs()
    async with commanding(runs, retry_backoff=ONE_SECOND) as rig:
        await rig.bound()
        await send(rig, "a")
        start = trio.current_time()
        run = rig.member._tasks.state.session.run_id
        assert await interrupt(rig) == run
        await settle()
        assert rig.member.phase is SessionPhase.ATTACHED
        await trio.sleep(1.5)
        assert rig.member.phase is SessionPhase.RUNNING
        await interrupt(rig)
        await trio.sleep(5)
        assert [(attempt, when - start) for _, attempt, when in runs.begun] == [(1, 0), (2, 1.0), (3, 3.5)]
        assert rig.member.statistics().retried == 2


async def test_after_all_its_attempts_an_interrupted_message_is_given_up(autojump_clock: object) -> None:
    runs = Runs()
    async with commanding(runs, retry_backoff=ONE_SECOND, max_attempts=2) as rig:
        await rig.bound()
        await send(rig, "a", "quick")
        await interrupt(rig, reason="first")
        await trio.sleep(2)
        await interrupt(rig, reason="second")
        await settle()
        assert abandoned(rig) == [("a", AbandonCause.ATTEMPTS_EXHAUSTED, 2)]
        error = rig.member.abandoned[0].error
        assert isinstance(error, RunInterrupted)
        assert (error.reason, error.hard) == ("second", False)
        assert runs.done == ["quick"]


@pytest.mark.parametrize("hard", [False, True])
async def test_with_nothing_running_there_is_nothing_to_interrupt(hard: bool, autojump_clock: object) -> None:
    runs = Runs()
    async with commanding() as rig:
        await rig.bound()
        assert await interrupt(rig, hard=hard) is None
        await send(rig, "quick")
        assert await interrupt(rig, hard=hard) is None
        await rig.member.attach_executor(runs)
        await settle()
        assert await interrupt(rig, hard=hard) is None
        await send(rig, "quick")
        assert runs.attempts == [("quick", 1), ("quick", 1)]


@pytest.mark.parametrize("hard", [False, True])
async def test_in_the_back_off_there_is_nothing_to_interrupt(hard: bool, autojump_clock: object) -> None:
    runs = Runs()
    async with commanding(runs, retry_backoff=ONE_SECOND) as rig:
        await rig.bound()
        await send(rig, "a")
        assert await interrupt(rig) is not None
        await settle()
        assert await interrupt(rig, hard=hard) is None
        await trio.sleep(1.5)
        assert runs.attempts == [("a", 1), ("a", 2)]


async def test_an_executor_that_waits_for_its_turn_is_not_interrupted(autojump_clock: object) -> None:
    runs = Runs()
    limiter = trio.CapacityLimiter(1)
    async with commanding(runs, limiter=limiter) as rig:
        await rig.bound()
        async with limiter:
            await send(rig, "a")
            assert await interrupt(rig) is None
        await settle()
        assert await interrupt(rig, hard=True) is not None
        await settle()
        assert limiter.borrowed_tokens == 0
        assert abandoned(rig) == [("a", AbandonCause.HARD_CANCELLED, 1)]


async def test_an_interrupted_run_gives_its_place_back_while_it_waits(autojump_clock: object) -> None:
    limiter = trio.CapacityLimiter(1)
    async with commanding(Runs(), limiter=limiter, retry_backoff=ONE_SECOND) as rig:
        await rig.bound()
        await send(rig, "a")
        assert limiter.borrowed_tokens == 1
        await interrupt(rig)
        await settle()
        assert limiter.borrowed_tokens == 0
        await trio.sleep(1.5)
        assert limiter.borrowed_tokens == 1


async def test_what_a_run_has_set_is_gone_after_an_interruption(autojump_clock: object) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def handle(run: SessionRun) -> None:
        seen.append(variable.get())
        variable.set(f"attempt {run.attempt}")
        await trio.sleep(3600)

    async with commanding(handle, retry_backoff=ONE_SECOND) as rig:
        await rig.bound()
        await send(rig, "a", "b")
        await interrupt(rig)
        await trio.sleep(1.5)
        await interrupt(rig, hard=True)
        await trio.sleep(1)
        assert seen == ["unset", "unset", "unset"]


async def test_an_interrupted_request_stays_open_until_it_is_given_up(autojump_clock: object) -> None:
    failures: list[Any] = []

    async def ask(rig: Commands) -> None:
        with pytest.raises(RequestFailed) as failed:
            await rig.ann.request(rig.id, "work")
        failures.append(failed.value.body)

    async with commanding(Runs(), retry_backoff=ONE_SECOND) as rig, trio.open_nursery() as nursery:
        await rig.bound()
        nursery.start_soon(ask, rig)
        await settle()
        await interrupt(rig)
        await trio.sleep(2)
        assert failures == []
        await interrupt(rig, hard=True)
        await settle()
        assert failures == [{"cause": "hard_cancelled"}]


async def test_an_interruption_leaves_the_answer_that_was_given(autojump_clock: object) -> None:
    async def handle(run: SessionRun) -> None:
        if run.attempt == 1:
            await run.reply(ResponseStatus.COMPLETED, "done")
            await trio.sleep(3600)

    async with commanding(handle) as rig:
        await rig.bound()
        assert await rig.ann.request(rig.id, "work") == "done"
        assert await interrupt(rig) is not None
        await trio.sleep(5)
        assert (rig.member.statistics().handled, rig.member.abandoned) == (1, ())


# --- hard cancel ------------------------------------------------------------------------------------


async def test_a_hard_cancellation_gives_the_message_up_at_once(autojump_clock: object) -> None:
    runs = Runs()
    async with commanding(runs, retry_backoff=ONE_SECOND) as rig:
        await rig.bound()
        await send(rig, "a", "quick")
        start = trio.current_time()
        await interrupt(rig, hard=True)
        await settle()
        assert trio.current_time() == start
        assert abandoned(rig) == [("a", AbandonCause.HARD_CANCELLED, 1)]
        error = rig.member.abandoned[0].error
        assert isinstance(error, RunInterrupted)
        assert (error.reason, error.hard) == ("why", True)
        assert runs.done == ["quick"]
        assert rig.member.statistics().retried == 0


@pytest.mark.parametrize("order", ["soft then hard", "hard then soft"])
async def test_the_harder_of_two_interruptions_counts(order: str, autojump_clock: object) -> None:
    release = trio.Event()

    async def dawdle(_: SessionRun) -> None:
        try:
            await trio.sleep(3600)
        finally:
            with trio.CancelScope(shield=True):
                await release.wait()

    async with commanding(dawdle) as rig:
        await rig.bound()
        await send(rig, "a")
        for hard in (False, True) if order == "soft then hard" else (True, False):
            assert await interrupt(rig, hard=hard) is not None
        release.set()
        await settle()
        assert abandoned(rig) == [("a", AbandonCause.HARD_CANCELLED, 1)]


# --- handlers with a will of their own --------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
async def test_a_handler_that_swallows_the_cancellation_has_handled_its_message(
    hard: bool, autojump_clock: object
) -> None:
    runs = Runs(on_cancel=lambda _: None)
    async with commanding(runs) as rig:
        await rig.bound()
        await send(rig, "a", "b")
        await interrupt(rig, hard=hard)
        await settle()
        assert runs.done == ["a"]
        assert runs.attempts == [("a", 1), ("b", 1)], "the next run is not cancelled"
        assert rig.member.phase is SessionPhase.RUNNING
        assert (rig.member.statistics().handled, rig.member.abandoned) == (1, ())


def fail(_: SessionRun) -> None:
    raise OSError("while cleaning up")


async def test_what_a_handler_raises_over_an_interruption_is_its_attempts_error(autojump_clock: object) -> None:
    async with commanding(Runs(on_cancel=fail), max_attempts=1) as rig:
        await rig.bound()
        await send(rig, "a", "quick")
        await interrupt(rig)
        await settle()
        assert abandoned(rig) == [("a", AbandonCause.ATTEMPTS_EXHAUSTED, 1)]
        assert isinstance(rig.member.abandoned[0].error, OSError)


async def test_what_a_handler_raises_over_a_hard_cancellation_is_kept_as_its_cause(autojump_clock: object) -> None:
    async with commanding(Runs(on_cancel=fail)) as rig:
        await rig.bound()
        await send(rig, "a", "quick")
        await interrupt(rig, hard=True)
        await settle()
        assert abandoned(rig) == [("a", AbandonCause.HARD_CANCELLED, 1)]
        error = rig.member.abandoned[0].error
        assert isinstance(error, RunInterrupted)
        assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize("hard", [False, True])
async def test_what_a_handlers_tasks_fail_with_over_an_interruption_is_kept(hard: bool, autojump_clock: object) -> None:
    async def child() -> None:
        try:
            await trio.sleep(3600)
        finally:
            raise OSError("while cleaning up")

    async def handle(_: SessionRun) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep, 3600)

    async with commanding(handle, max_attempts=1) as rig:
        await rig.bound()
        await send(rig, "a")
        await interrupt(rig, hard=hard)
        await settle()
        error = rig.member.abandoned[0].error
        kept = error.__cause__ if hard and error is not None else error
        assert isinstance(kept, ExceptionGroup)
        assert [type(each) for each in kept.exceptions] == [OSError]


async def test_a_handler_that_is_deaf_to_cancellation_is_cancelled_at_its_next_checkpoint(
    autojump_clock: object,
) -> None:
    async def deaf(_: SessionRun) -> None:
        for _again in range(3):
            try:
                await trio.sleep(3600)
            except trio.Cancelled:
                continue

    async with commanding(deaf) as rig:
        await rig.bound()
        await send(rig, "a")
        start = trio.current_time()
        await interrupt(rig)
        await settle()
        assert trio.current_time() == start
        assert rig.member.statistics().handled == 1


# --- together with an end ---------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("how", ["stop", "unregister", "destroy", "detach_executor", "retire"])
async def test_an_interruption_and_an_end_at_once_lose_nothing(how: str, hard: bool, autojump_clock: object) -> None:
    runs = Runs()
    async with commanding(runs, retry_backoff=ONE_SECOND) as rig:
        await rig.bound()
        await send(rig, "a", "quick")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt_now, rig, hard)
            nursery.start_soon(getattr(rig.member, how))
            await trio.sleep(10)
            if how == "retire" and not hard:
                rig.member._tasks.executor.interrupt(RunInterrupted("", hard=True))  # type: ignore[union-attr]
        given_up = [body for body, cause, _ in abandoned(rig) if cause is AbandonCause.HARD_CANCELLED]
        left = [message.body for message, _ in rig.member._tasks.queue.work or ()]
        ended = [body for body, cause, _ in abandoned(rig) if cause is AbandonCause.SESSION_ENDED]
        assert sorted([*given_up, *left, *ended, *runs.done]) == ["a", "quick"]
        assert rig.member._tasks.state.session.run_id is None
        assert rig.member._tasks.executor is None


async def interrupt_now(rig: Commands, hard: bool) -> None:
    rig.member._tasks.executor.interrupt(RunInterrupted("now", hard=hard))  # type: ignore[union-attr]


@pytest.mark.parametrize("hard", [False, True])
async def test_the_machine_may_close_while_an_interrupted_handler_is_on_its_way_out(
    hard: bool, autojump_clock: object
) -> None:
    async def dawdle(_: SessionRun) -> None:
        try:
            await trio.sleep(3600)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async with commanding(dawdle) as rig:
        await rig.bound()
        await send(rig, "a")
        await interrupt(rig, hard=hard)
        member = rig.member
    (kept,) = member.abandoned
    assert kept.cause is (AbandonCause.HARD_CANCELLED if hard else AbandonCause.SESSION_ENDED)
    assert kept.attempts == 1


async def test_an_end_in_the_back_off_after_an_interruption_does_not_wait_for_it(autojump_clock: object) -> None:
    async with commanding(Runs(), retry_backoff=Backoff(first=1000.0, limit=1000.0)) as rig:
        await rig.bound()
        await send(rig, "a")
        await interrupt(rig)
        await settle()
        start = trio.current_time()
        end = await rig.member.stop()
        assert trio.current_time() == start
        assert end is not None
        assert [message.body for message in end.unfinished] == ["a"]
        assert isinstance(rig.member.abandoned[0].error, RunInterrupted)


async def test_what_is_interrupted_is_logged_when_it_is_given_up(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "meerkat_trio.executor"):
        async with commanding(Runs()) as rig:
            await rig.bound()
            await send(rig, "a")
            await interrupt(rig, hard=True, reason="it was a mistake")
            await settle()
    assert "gave up message" in caplog.text


@pytest.mark.parametrize("hard", [False, True])
async def test_interrupted_over_and_over_a_session_goes_on(hard: bool, autojump_clock: object) -> None:
    runs = Runs()
    async with commanding(runs, max_attempts=3) as rig:
        await rig.bound()
        await send(rig, *range(20))
        while await interrupt(rig, hard=hard) is not None:
            await trio.sleep(60)
        assert [body for body, _, _ in abandoned(rig)] == list(range(20))
        assert rig.member.phase is SessionPhase.ATTACHED
