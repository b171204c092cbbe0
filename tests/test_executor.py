"""The executor: runs, attempts, abandonment, back-off, limiter, grace."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
import trio

from meerkat_trio import (
    AbandonCause,
    Backoff,
    DropReason,
    ReceiptStatus,
    SessionPhase,
    SessionRun,
    TransitionRejected,
    open_machine,
)

from .rig import cancelled_elsewhere, rigged, settle

NO_JITTER = Backoff(first=1.0, jitter=0.0)


async def test_messages_are_handled_one_at_a_time_in_order() -> None:
    running = 0
    async with rigged(None) as (rig, _, session):

        async def handler(run: SessionRun) -> None:
            nonlocal running
            running += 1
            assert running == 1
            await trio.lowlevel.checkpoint()
            running -= 1
            rig.handled.append(run.message.body)

        await session.attach_executor(handler)
        for number in range(10):
            await session.deliver(number)
        await settle()
        assert rig.handled == list(range(10))
        assert session.statistics().handled == 10


async def test_a_failing_handler_gets_its_attempts_with_back_off(autojump_clock: object) -> None:
    attempts: list[tuple[int, float]] = []
    async with rigged(None, retry_backoff=NO_JITTER) as (_, _, session):
        start = trio.current_time()

        async def handler(run: SessionRun) -> None:
            attempts.append((run.attempt, trio.current_time() - start))
            if run.attempt < 4:
                raise ValueError("not yet")

        await session.attach_executor(handler)
        await session.deliver("x")
        await trio.sleep(100)
        assert attempts == [(1, 0), (2, 1), (3, 3), (4, 7)]
        statistics = session.statistics()
        assert (statistics.handled, statistics.retried, statistics.abandoned) == (1, 3, 0)


async def test_abandoned_messages_are_kept_up_to_a_bound(autojump_clock: object) -> None:
    async with rigged(None, max_attempts=1, abandoned_limit=2) as (_, _, session):

        async def handler(run: SessionRun) -> None:
            raise ValueError(run.message.body)

        await session.attach_executor(handler)
        for number in range(5):
            await session.deliver(number)
        await trio.sleep(1)
        assert [abandoned.message.body for abandoned in session.abandoned] == [3, 4]
        assert {abandoned.cause for abandoned in session.abandoned} == {AbandonCause.ATTEMPTS_EXHAUSTED}
        statistics = session.statistics()
        assert (statistics.abandoned, statistics.abandoned_forgotten) == (5, 3)


async def test_a_detached_handler_gets_the_grace_time_and_its_message_goes_back(autojump_clock: object) -> None:
    seen: list[tuple[object, int]] = []
    async with rigged(None, grace=5.0, retry_backoff=NO_JITTER) as (rig, _, session):

        async def handler(run: SessionRun) -> None:
            seen.append((run.message.body, run.attempt))
            if run.attempt == 1:
                raise ValueError("first")
            await trio.sleep(60)

        await session.attach_executor(handler)
        await session.deliver("head")
        await session.deliver("next")
        await trio.sleep(2)
        start = trio.current_time()
        await session.detach_executor()
        assert trio.current_time() - start == 5.0
        assert session.phase is SessionPhase.IDLE
        assert session.statistics().queued == 2
        assert session.statistics().returned == 1
        await session.attach_executor(rig.record)
        await settle()
        assert seen == [("head", 1), ("head", 2)]
        assert rig.handled == ["head", "next"]


async def test_a_returned_message_keeps_its_attempt_number(autojump_clock: object) -> None:
    attempts: list[int] = []
    async with rigged(None, grace=0.0) as (_, _, session):

        async def handler(run: SessionRun) -> None:
            attempts.append(run.attempt)
            if len(attempts) < 3:
                await trio.sleep_forever()

        for _ in range(2):
            await session.attach_executor(handler)
            if not attempts:
                await session.deliver("x")
            await settle()
            await session.detach_executor()
        await session.attach_executor(handler)
        await settle()
        assert attempts == [1, 1, 1]


async def test_detaching_cuts_a_back_off_short(autojump_clock: object) -> None:
    async with rigged(None, retry_backoff=Backoff(first=1000.0, limit=1000.0)) as (rig, _, session):

        async def handler(_: SessionRun) -> None:
            raise ValueError("fails")

        await session.attach_executor(handler)
        await session.deliver("x")
        await settle()
        start = trio.current_time()
        await session.detach_executor()
        assert trio.current_time() == start
        await session.attach_executor(rig.record)
        await settle()
        assert rig.handled == ["x"]


async def test_an_executor_that_idles_is_detached_at_once_and_a_second_one_is_refused() -> None:
    async with rigged() as (rig, _, session):
        with pytest.raises(TransitionRejected, match="AttachExecutor is not possible in phase attached"):
            await session.attach_executor(rig.record)
        await session.detach_executor()
        await session.detach_executor()
        assert session.phase is SessionPhase.IDLE
        await session.deliver("queued")
        assert session.statistics().queued == 1
        await session.attach_executor(rig.record)
        await session.detach_executor()


async def test_a_limiter_bounds_the_handlers_of_all_sessions(autojump_clock: object) -> None:
    running = most = 0
    limiter = trio.CapacityLimiter(2)

    async def handler(_: SessionRun) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    async with open_machine(limiter=limiter) as machine:
        sessions = [await machine.register(f"s{number}", handler) for number in range(6)]
        for session in sessions:
            await session.deliver("x")
        await trio.sleep(10)
        assert [session.statistics().handled for session in sessions] == [1] * 6
        for session in sessions:
            await session.deliver("x")
        await settle()
    assert most == 2
    assert limiter.borrowed_tokens == 0


async def test_stopping_while_waiting_for_the_limiter_begins_nothing(autojump_clock: object) -> None:
    limiter = trio.CapacityLimiter(1)
    async with rigged(limiter=limiter) as (rig, _, session):
        await limiter.acquire_on_behalf_of("somebody")
        await session.deliver("x")
        await settle()
        assert session.phase is SessionPhase.ATTACHED
        end = await session.stop()
        assert end is not None
        assert len(end.unfinished) == 1
        assert rig.handled == []
        limiter.release_on_behalf_of("somebody")


async def test_handlers_run_in_the_context_of_register() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def handler(_: SessionRun) -> None:
        seen.append(variable.get())

    async with open_machine() as machine:
        variable.set("register")
        session = await machine.register("a", handler)
        variable.set("deliver")
        await session.deliver("x")
        await settle()
    assert seen == ["register"]


class Incomparable:
    """Says nothing about being equal, as arrays do."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("compare element by element")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", ["handler", Incomparable()])
async def test_what_a_handler_sets_in_its_context_no_other_attempt_sees(value: object, autojump_clock: object) -> None:
    inherited: contextvars.ContextVar[object] = contextvars.ContextVar("inherited")
    own: contextvars.ContextVar[object] = contextvars.ContextVar("own", default="unset")
    seen: list[tuple[object, object]] = []

    async def handler(run: SessionRun) -> None:
        seen.append((inherited.get(), own.get()))
        inherited.set(value)
        own.set(value)
        await trio.lowlevel.checkpoint()
        assert own.get() is value
        if run.message.body == "fails" and run.attempt == 1:
            raise LookupError
        if run.message.body == "stays":
            await trio.sleep_forever()

    inherited.set("register")
    async with rigged(None, grace=0.0) as (_, _, session):
        await session.attach_executor(handler)
        for body in ("x", "fails", "stays"):
            await session.deliver(body)
        await trio.sleep(1)
        await session.detach_executor()
        await session.attach_executor(handler)
        await settle()
    assert seen == [("register", "unset")] * 5


async def test_a_handler_whose_tasks_fail_over_its_cancellation_stops_nothing_else(autojump_clock: object) -> None:
    async with rigged(None, grace=0.0) as (rig, machine, session):

        async def breaks() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("clean-up broke")

        async def handler(_: SessionRun) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(breaks)
                await trio.sleep_forever()

        await session.attach_executor(handler)
        await session.deliver("x")
        await settle()
        await session.detach_executor()
        assert session.statistics().returned == 1
        await session.attach_executor(handler)
        await settle()
        other = await machine.register("b", rig.record)
        await other.deliver("y")
        await settle()
    assert rig.handled == ["y"]
    assert session.end is not None
    assert session.end.error is None


async def test_retiring_finishes_the_queue_and_joins(autojump_clock: object) -> None:
    async with rigged("gated") as (rig, _, session):
        for number in range(3):
            await session.deliver(number)
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.retire)
            await settle()
            assert session.phase is SessionPhase.RETIRED
            with pytest.raises(TransitionRejected):
                await session.deliver("too late")
            rig.gate.set()
        assert rig.handled == [0, 1, 2]
        await session.retire()
        assert session.phase is SessionPhase.RETIRED


async def test_a_retired_session_with_a_queue_takes_an_executor_for_it() -> None:
    async with rigged(None) as (rig, _, session):
        await session.deliver("queued")
        await session.retire()
        await session.attach_executor(rig.record)
        await session.retire()
        await settle()
        assert rig.handled == ["queued"]


async def test_a_run_shows_itself(autojump_clock: object) -> None:
    shown: list[str] = []

    async def handler(run: SessionRun) -> None:
        shown.append(f"{run!r} {run.session.id} {run.admission.value}")

    async with open_machine(new_id=lambda: "id-1") as machine:
        session = await machine.register("a", handler)
        await session.deliver("x")
        await settle()
    assert shown == ["<Run 'id-1' attempt 1> a actionable_message"]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_cancelled_of_another_task_is_a_failed_attempt(grouped: bool, autojump_clock: object) -> None:
    foreign: BaseException = await cancelled_elsewhere()
    if grouped:
        foreign = BaseExceptionGroup("of the handler", [foreign, OSError()])

    async def carries_over(_: SessionRun) -> None:
        raise foreign

    async with open_machine() as machine:
        session = await machine.register("a", carries_over, max_attempts=2, retry_backoff=NO_JITTER)
        await session.deliver("x")
        await trio.sleep(10)
        assert session.end is None
        (abandoned,) = session.abandoned
        assert abandoned.error is foreign
        assert abandoned.attempts == 2


async def test_who_waits_to_deliver_to_a_session_that_retires_is_refused() -> None:
    answers = []
    async with rigged(None, work_queue=1) as (_, _machine, session), trio.open_nursery() as nursery:

        async def deliver(body: object) -> None:
            try:
                await session.deliver(body)
            except TransitionRejected as error:
                answers.append(str(error))

        await session.deliver("fills the queue")
        nursery.start_soon(deliver, "waits")
        await settle()
        await session.retire()
        await settle()
        await deliver("late")
        assert answers == ["Admit is not possible in phase retired"] * 2
        assert session.statistics().dropped == {}


async def test_who_sends_to_a_retired_session_with_a_full_queue_is_answered() -> None:
    async with rigged(None, work_queue=2) as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        receipts = await rig.send(comms, *range(4))
        await settle()
        assert await session.retire() == 2
        receipts += await rig.send(comms, 4)
        await settle()
        assert [receipt.reason for receipt in receipts] == [None, None, *[DropReason.NOT_ADMITTED_IN_PHASE] * 3]
        await session.attach_executor(rig.record)
        await settle()
        assert rig.handled == [0, 1]


async def test_retiring_says_what_is_left() -> None:
    async with rigged(None) as (rig, _, session):
        for number in range(3):
            await session.deliver(number)
        assert await session.retire() == 3
        await session.attach_executor(rig.record)
        await settle()
        assert rig.handled == [0, 1, 2]


async def test_waiting_deliveries_get_in_in_their_order() -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session), trio.open_nursery() as nursery:
        await session.deliver(0)
        cancelled = trio.CancelScope()

        async def deliver_and_be_cancelled() -> None:
            with cancelled:
                await session.deliver("never")

        for number in range(1, 9):
            nursery.start_soon(session.deliver, number)
            await settle()
            if number == 4:
                nursery.start_soon(deliver_and_be_cancelled)
                await settle()
        cancelled.cancel()
        rig.gate.set()
        await settle()
        assert rig.handled == list(range(9))


async def test_a_delivery_waits_for_one_place_where_nothing_waits_in_the_transport(autojump_clock: object) -> None:
    async def takes_its_time(run: SessionRun) -> None:
        await trio.sleep(10)
        handled.append(run.message.body)

    handled: list[object] = []
    async with rigged(None, work_queue=8) as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await rig.send(comms, *range(8))
        await session.attach_executor(takes_its_time)
        await trio.sleep(5)
        await session.deliver("next")
        assert handled == [0]
        # While something waits there, half of the queue has to be free.
        await rig.send(comms, "remote")
        await session.deliver("last")
        assert len(handled) == 5
        await trio.sleep(100)
        assert handled[8:] in (["next", "remote", "last"], ["next", "last", "remote"])


async def test_deliveries_do_not_keep_the_transport_out() -> None:
    async def takes_its_time(run: SessionRun) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(run.message.body)

    handled: list[object] = []
    async with rigged(None, work_queue=8) as (rig, _, session), trio.open_nursery() as nursery:
        comms = await rig.comms()
        await session.attach_ingress(comms)

        async def deliver_for_ever() -> None:
            while True:
                await session.deliver("local")

        for _ in range(20):
            nursery.start_soon(deliver_for_ever)
        await settle()
        await session.attach_executor(takes_its_time)
        (receipt,) = await rig.send(comms, "remote")
        assert await receipt.wait() is ReceiptStatus.ADMITTED
        while "remote" not in handled:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_room_is_used_when_nobody_handles_any_more() -> None:
    async with rigged("gated", work_queue=8) as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        for number in range(9):
            rig.peer.send_nowait(rig.envelope(comms, number))
        await settle()
        assert comms.statistics().work_waiting == 1

        async def one_then_no_more(run: SessionRun) -> None:
            rig.handled.append(run.message.body)
            await run.session.detach_executor()

        await session.detach_executor()
        await session.attach_executor(one_then_no_more)
        await settle()
        assert rig.handled == [0]
        assert comms.statistics().work_waiting == 0


def plain_function(_: SessionRun) -> None:
    """Not async."""


@pytest.mark.parametrize("handler", [None, "handler", 3, plain_function])
async def test_a_handler_has_to_be_callable(handler: Any) -> None:
    async with rigged(None) as (_, machine, session):
        with pytest.raises(TypeError, match="handler: an async function is needed"):
            await session.attach_executor(handler)
        if handler is not None:
            with pytest.raises(TypeError, match="handler: an async function is needed"):
                await machine.register("b", handler)
