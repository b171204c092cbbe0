"""Every effect of session, drain and ingress is realised: for each there is something to see from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from meerkat_trio import (
    AbandonCause,
    Backoff,
    CommsDrainPhase,
    DrainExitReason,
    Ending,
    IngressResult,
    MeerkatMachine,
    MemoryComms,
    RespawnPolicy,
    Session,
    SessionRun,
)
from meerkat_trio.authority import TRANSITIONS, Lane

from . import rig as _rig
from .rig import Rig, settle
from .test_defects import Crashing

Log = pytest.LogCaptureFixture
AFTER_20_SECONDS = RespawnPolicy(backoff=Backoff(first=20.0, jitter=0.0))


@asynccontextmanager
async def rigged(handler: str | None = "record", **options: Any) -> AsyncIterator[tuple[Rig, MeerkatMachine, Session]]:
    """The shared rig; what waits for ever fails when the clock has jumped far enough."""
    with trio.fail_after(1000):
        async with _rig.rigged(handler, **options) as opened:
            yield opened


class Unmoved(MemoryComms):
    """A transport whose waiting claim ends by cancellation alone: no message, no take-over, no closing wakes it."""

    async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
        claim = self.claim_ready(lanes=lanes)
        return await trio.sleep_forever() if claim is None else claim


async def crash(rig: Rig, session: Session) -> Crashing:
    """Attach a transport that breaks at once; the drain waits for its respawn."""
    comms = await rig.comms(kind=Crashing)
    assert isinstance(comms, Crashing)
    comms.crashes = 1
    await session.attach_ingress(comms)
    await settle()
    assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
    return comms


async def a_started_drain_serves(log: Log) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await rig.send(comms, "served")
        await session.attach_ingress(comms)
        await settle()
        assert rig.handled == ["served"]


async def a_swapped_drain_lets_go_of_the_old_transport(log: Log) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms(kind=Unmoved))
        await settle()
        comms = await rig.comms()
        assert (await session.attach_ingress(comms)).result is IngressResult.REBOUND
        await rig.send(comms, "served")
        await settle()
        assert rig.handled == ["served"]


async def a_cancelled_drain_ends(log: Log) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms(kind=Unmoved))
        await settle()
        stopped = await session.stop_drain()
        assert stopped is not None
        assert stopped.reason is DrainExitReason.ABORTED


async def of_a_drain_that_ended_nothing_is_kept(log: Log) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms())
        assert session._tasks.binding is not None
        await session.stop_drain()
        assert session._tasks.binding is None


async def a_failed_drain_starts_again_when_its_back_off_is_over(log: Log) -> None:
    async with rigged(respawn=AFTER_20_SECONDS) as (rig, _, session):
        await crash(rig, session)
        await trio.sleep(19.99)
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
        await trio.sleep(0.02)
        assert (session.drain.phase, session.drain.generation) == (CommsDrainPhase.RUNNING, 2)


async def a_back_off_that_is_cancelled_holds_nobody_up(log: Log) -> None:
    async with rigged(respawn=AFTER_20_SECONDS) as (rig, _, session):
        await crash(rig, session)
        start = trio.current_time()
        await session.stop_drain()
        assert trio.current_time() == start


async def a_drain_that_is_given_up_is_logged(log: Log) -> None:
    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        await crash(rig, session)
    assert ("WARNING", "session a: drain 1 failed too often") in logged(log)


async def a_started_executor_handles(log: Log) -> None:
    async with rigged(None) as (rig, _, session):
        await session.deliver("waits")
        await session.attach_executor(rig.record)
        await settle()
        assert rig.handled == ["waits"]


async def a_stopped_executor_is_out_after_the_grace_time(log: Log) -> None:
    async with rigged("gated", grace=7.0) as (rig, _, session):
        await session.deliver("never handled")
        await settle()
        start = trio.current_time()
        await session.detach_executor()
        assert trio.current_time() - start == 7.0
        assert rig.handled == []


async def an_executor_that_finishes_ends_by_itself(log: Log) -> None:
    async with rigged() as (rig, _, session):
        for number in range(3):
            await session.deliver(number)
        assert await session.retire() == 0
        assert rig.handled == [0, 1, 2]


async def an_abandoned_message_is_kept(log: Log) -> None:
    async def fails(run: SessionRun) -> None:
        raise ValueError(run.message.body)

    async with rigged(None, max_attempts=1) as (_, _, session):
        await session.attach_executor(fails)
        await session.deliver("never")
        await settle()
        kept = [(each.message.body, each.cause) for each in session.abandoned]
        assert kept == [("never", AbandonCause.ATTEMPTS_EXHAUSTED)]


async def a_retired_session_is_logged(log: Log) -> None:
    async with rigged() as (_, _, session):
        await session.retire()
        assert ("DEBUG", "session a: retired") in logged(log)


async def a_finished_session_has_its_end(log: Log) -> None:
    async with rigged() as (_, _, session):
        assert session.end is None
        await session.stop()
        assert session.end is not None
        assert session.end.cause is Ending.STOP


async def edges_to_be_revoked_are_in_the_step(log: Log) -> None:
    async with rigged() as (_, machine, session), machine.subscribe() as steps:
        await session.unregister()
        async for step in steps:
            if type(step.input).__name__ == "Unregister":
                assert "RevokeEdges" in {type(effect).__name__ for effect in step.effects}
                break


def logged(log: Log) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in log.records]


SEEN: dict[str, Callable[[Log], Awaitable[None]]] = {
    "StartDrain": a_started_drain_serves,
    "SwapDrain": a_swapped_drain_lets_go_of_the_old_transport,
    "CancelDrain": a_cancelled_drain_ends,
    "DrainEnded": of_a_drain_that_ended_nothing_is_kept,
    "ScheduleRespawn": a_failed_drain_starts_again_when_its_back_off_is_over,
    "CancelRespawn": a_back_off_that_is_cancelled_holds_nobody_up,
    "RespawnExhausted": a_drain_that_is_given_up_is_logged,
    "StartExecutor": a_started_executor_handles,
    "StopExecutor": a_stopped_executor_is_out_after_the_grace_time,
    "FinishExecutor": an_executor_that_finishes_ends_by_itself,
    "MessageAbandoned": an_abandoned_message_is_kept,
    "SessionRetired": a_retired_session_is_logged,
    "SessionFinished": a_finished_session_has_its_end,
    "RevokeEdges": edges_to_be_revoked_are_in_the_step,
}
"""By the name of the effect."""


@pytest.mark.parametrize("effect", SEEN)
async def test_an_effect_is_realised(effect: str, autojump_clock: object, caplog: Log) -> None:
    caplog.set_level("DEBUG", logger="meerkat_trio")
    await SEEN[effect](caplog)


def test_no_effect_of_session_drain_and_ingress_is_left_out() -> None:
    emitted = {name for row in TRANSITIONS if row.region in {"session", "drain", "ingress"} for name in row.emits}
    assert set(SEEN) == emitted | {"SessionFinished"}


async def attach_and_stop(session: Session, comms: MemoryComms) -> None:
    await session.attach_ingress(comms)
    await session.stop()


@pytest.mark.parametrize(
    "call",
    [
        lambda session, _: session.stop_drain(),
        lambda session, _: session.detach_ingress(),
        lambda session, _: session.stop(),
        lambda session, _: session.unregister(),
        lambda session, _: session.destroy(),
        attach_and_stop,
    ],
    ids=["stop_drain", "detach_ingress", "stop", "unregister", "destroy", "attach_ingress"],
)
async def test_no_call_waits_for_a_back_off_that_it_cancels(call: Any, autojump_clock: object) -> None:
    async with rigged(respawn=AFTER_20_SECONDS) as (rig, _, session):
        comms = await crash(rig, session)
        start = trio.current_time()
        await call(session, comms)
        assert trio.current_time() == start
