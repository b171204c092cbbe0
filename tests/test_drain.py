"""The drain: its modes, its exits, its lanes, its respawn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio

from meerkat_trio import (
    Backoff,
    CommsDrainMode,
    CommsDrainPhase,
    DrainExit,
    DrainExitReason,
    DropReason,
    EnvelopeKind,
    IngressResult,
    MemoryComms,
    ReceiptStatus,
    RespawnPolicy,
    SessionPhase,
    SessionRun,
)
from meerkat_trio._drain import BATCH
from meerkat_trio.authority import Lane, ResponseStatus

from .rig import rigged, settle
from .test_defects import Crashing


@pytest.mark.parametrize("mode", [CommsDrainMode.TIMED, CommsDrainMode.ATTACHED_SESSION])
async def test_a_drain_with_a_time_out_ends_when_nothing_comes(mode: CommsDrainMode, autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms, mode=mode, idle_timeout=10.0)
        start = trio.current_time()
        await trio.sleep(6)
        await rig.send(comms, "keeps it awake")
        drain_exit = await session.wait_drain_exited()
        assert trio.current_time() - start == pytest.approx(16)
        assert drain_exit is not None
        assert drain_exit.reason is DrainExitReason.IDLE_TIMEOUT
        assert session.drain.phase is CommsDrainPhase.INACTIVE
        assert rig.handled == ["keeps it awake"]


async def test_a_persistent_drain_never_times_out(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms(), idle_timeout=1.0)
        await trio.sleep(10_000)
        assert session.drain.phase is CommsDrainPhase.RUNNING


async def test_a_rebind_restarts_the_clock(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        start = trio.current_time()
        await session.attach_ingress(await rig.comms(), mode=CommsDrainMode.TIMED, idle_timeout=10.0)
        await trio.sleep(6)
        await session.attach_ingress(await rig.comms(), mode=CommsDrainMode.TIMED, idle_timeout=10.0)
        await session.wait_drain_exited()
        assert trio.current_time() - start == pytest.approx(16)


async def test_who_waits_for_the_drain_waits_on_after_a_rebind() -> None:
    exits: list[DrainExit | None] = []
    async with rigged() as (rig, _, session), trio.open_nursery() as nursery:

        async def wait() -> None:
            exits.append(await session.wait_drain_exited())

        await session.attach_ingress(await rig.comms())
        for _ in range(2):
            nursery.start_soon(wait)
        await settle()
        assert (await session.attach_ingress(await rig.comms())).result is IngressResult.REBOUND
        await settle()
        assert exits == []
        await session.stop_drain()
        await settle()
        assert exits == 2 * [DrainExit(generation=2, reason=DrainExitReason.ABORTED)]


async def test_a_message_that_comes_as_the_time_runs_out_is_taken(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms, mode=CommsDrainMode.TIMED, idle_timeout=10.0)
        for number in range(5):
            await trio.sleep(10)
            if session.drain.phase is CommsDrainPhase.RUNNING:
                rig.peer.send_nowait(rig.envelope(comms, number))
        await settle()
        assert rig.handled == list(range(len(rig.handled)))
        assert comms.statistics().work_waiting == 0 or session.drain.phase is CommsDrainPhase.INACTIVE


async def test_a_session_with_a_full_queue_is_not_idle(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms, mode=CommsDrainMode.TIMED, idle_timeout=10.0)
        await rig.send(comms, 0, 1, 2)
        await trio.sleep(1000)
        assert session.drain.phase is CommsDrainPhase.RUNNING
        rig.gate.set()
        await session.wait_drain_exited()
        assert rig.handled == [0, 1, 2]


async def test_more_than_one_batch_that_waits_is_taken_by_one_drain() -> None:
    several_batches = range(3 * BATCH + 1)
    async with rigged(work_queue=len(several_batches)) as (rig, _, session):
        comms = await rig.comms(work_lane=len(several_batches))
        for number in several_batches:
            rig.peer.send_nowait(rig.envelope(comms, number))
        await session.attach_ingress(comms)
        await settle()
        assert rig.handled == list(several_batches)
        assert session.drain.phase is CommsDrainPhase.RUNNING
        assert session.drain.generation == 1


async def test_control_goes_past_a_full_work_lane_and_before_work() -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        comms = await rig.comms(work_lane=1)
        await session.attach_ingress(comms)
        await rig.send(comms, 0, 1)
        await settle()
        notices = [
            await rig.peer.send(rig.envelope(comms, kind=kind))
            for kind in (EnvelopeKind.PEER_ADDED, EnvelopeKind.PEER_RETIRED, EnvelopeKind.PEER_UNWIRED)
        ]
        await settle()
        assert {notice.status for notice in notices} == {ReceiptStatus.ADMITTED}
        assert session.statistics().admitted == 1
        rig.gate.set()


async def test_a_queue_filled_by_others_shuts_the_work_lane() -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await settle()
        await session.deliver("local")
        receipt = (await rig.send(comms, "remote"))[0]
        await settle()
        assert receipt.status is ReceiptStatus.QUEUED
        rig.gate.set()
        await settle()
        assert rig.handled == ["local", "remote"]


async def test_a_failed_drain_is_given_up_above_the_intensity(autojump_clock: object) -> None:
    policy = RespawnPolicy(max_restarts=2, within=100.0, backoff=Backoff(first=1.0, jitter=0.0))
    async with rigged(respawn=policy) as (rig, machine, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        async with machine.subscribe() as steps:
            comms.crashes = 3
            await session.attach_ingress(comms)
            await trio.sleep(50)
            assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
            assert session.statistics().respawns == 2
            names = []
            with trio.move_on_after(1):
                async for step in steps:
                    names.append(type(step.input).__name__)  # noqa: PERF401 - cut short by the scope
        assert names.count("RespawnGivenUp") == 1
        await session.attach_ingress(comms)
        assert session.drain.phase is CommsDrainPhase.RUNNING


async def test_restarts_long_ago_do_not_count(autojump_clock: object) -> None:
    policy = RespawnPolicy(max_restarts=1, within=10.0, backoff=Backoff(first=0.1, jitter=0.0))
    async with rigged(respawn=policy) as (rig, _, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        await session.attach_ingress(comms)
        for number in range(4):
            comms.crashes = 1
            await rig.send(comms, number)
            await trio.sleep(20)
        assert session.statistics().respawns == 4
        assert rig.handled == [0, 1, 2, 3]


async def test_stopping_ends_the_wait_for_a_respawn(autojump_clock: object) -> None:
    policy = RespawnPolicy(backoff=Backoff(first=10.0, jitter=0.0))
    async with rigged(respawn=policy) as (rig, _, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        await session.attach_ingress(comms)
        await settle()
        comms.crashes = 1
        await rig.send(comms, "later")
        await settle()
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
        stopped = await session.stop_drain()
        assert stopped is not None
        assert stopped.reason is DrainExitReason.FAILED
        assert session.drain.phase is CommsDrainPhase.STOPPED
        await trio.sleep(100)
        assert session.drain.generation == 1
        assert await session.stop_drain() is None


async def test_an_attach_takes_the_place_of_a_waiting_respawn(autojump_clock: object) -> None:
    policy = RespawnPolicy(backoff=Backoff(first=10.0, jitter=0.0))
    async with rigged(respawn=policy) as (rig, _, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        await session.attach_ingress(comms)
        await settle()
        comms.crashes = 1
        await rig.send(comms, "now")
        await settle()
        assert (await session.attach_ingress(comms)).generation == 2
        await trio.sleep(100)
        assert session.drain.generation == 2
        assert rig.handled == ["now"]


async def test_only_restarts_count_as_restarts(autojump_clock: object) -> None:
    async with rigged(respawn=RespawnPolicy(max_restarts=1)) as (rig, machine, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        for _ in range(4):
            # Each attach takes the place of a respawn that waits.
            comms.crashes = 1
            await session.attach_ingress(comms)
            await rig.send(comms, "x")
            await session.wait_drain_exited()
        await trio.sleep(1)
        assert session.drain.phase is CommsDrainPhase.RUNNING
        assert session.statistics().respawns == 1
        await session.stop()
        await machine.register("a", rig.record)
        await session.attach_ingress(comms)
        comms.crashes = 1
        await rig.send(comms, "y")
        await trio.sleep(1)
        # A revived session starts with all its restarts.
        assert session.drain.phase is CommsDrainPhase.RUNNING


async def test_each_part_of_the_shell_has_its_logger(caplog: pytest.LogCaptureFixture, autojump_clock: object) -> None:
    caplog.set_level("DEBUG", "meerkat_trio")

    async def fails(_: SessionRun) -> None:
        raise LookupError

    async with rigged(None, max_attempts=1, respawn=RespawnPolicy.manual()) as (rig, _, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        await session.attach_executor(fails)
        await session.attach_ingress(await rig.comms())
        await session.attach_ingress(comms)
        comms.crashes = 1
        await rig.send(comms, "x")
        await session.wait_drain_exited()
        await session.deliver("y")
        await settle()
    told = {(record.name, record.levelname, record.getMessage().split(": ")[-1][:18]) for record in caplog.records}
    assert told >= {
        ("meerkat_trio.session", "DEBUG", "drain 2 replaces 1"),
        ("meerkat_trio.drain", "ERROR", "drain 2 failed"),
        ("meerkat_trio.drain", "WARNING", "drain 2 failed too"),
        ("meerkat_trio.machine", "DEBUG", "1 sessions"),
    }
    assert ("meerkat_trio.executor", "WARNING") in {(name, level) for name, level, _ in told}


async def test_an_error_while_being_stopped_is_kept() -> None:
    class Clumsy(MemoryComms):
        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            try:
                return await super().claim(lanes=lanes)
            except trio.Cancelled:
                raise OSError("clean-up broke") from None

    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms(kind=Clumsy))
        await settle()
        stopped = await session.stop_drain()
        assert stopped is not None
        assert stopped.reason is DrainExitReason.ABORTED
        assert isinstance(stopped.error, OSError)


@pytest.mark.parametrize("grace", [0.0, 1.0])
async def test_a_transport_whose_own_tasks_fail_over_a_shutdown_is_only_logged(grace: float) -> None:
    class Nested(MemoryComms):
        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            async def breaks() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise OSError("clean-up broke")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(breaks)
                return await super().claim(lanes=lanes)

    async with rigged(grace=grace) as (rig, _, session):
        await session.attach_ingress(await rig.comms(kind=Nested))
        await settle()
    last_exit = session.drain.last_exit
    assert last_exit is not None
    assert last_exit.reason is DrainExitReason.SESSION_SHUTDOWN
    assert isinstance(last_exit.error, ExceptionGroup)


async def test_what_is_refused_is_told_to_the_sender_and_counted() -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        stranger = MemoryComms(rig.network, "stranger")
        refused = await stranger.send(stranger.envelope(comms.peer_id, "hello"))
        answer = await rig.peer.send(
            rig.envelope(comms, kind=EnvelopeKind.RESPONSE, correlation="nobody asked", status=ResponseStatus.COMPLETED)
        )
        assert await refused.wait() is ReceiptStatus.DROPPED
        assert await answer.wait() is ReceiptStatus.DROPPED
        assert (refused.reason, answer.reason) == (DropReason.UNTRUSTED_SENDER, DropReason.NO_SUCH_REQUEST)
        assert session.statistics().dropped == {DropReason.UNTRUSTED_SENDER: 1, DropReason.NO_SUCH_REQUEST: 1}


async def test_a_request_is_handled_once_while_it_is_open() -> None:
    async with rigged("gated") as (rig, _, session):
        await session.set_silent_intents(["note"])
        comms = await rig.comms()
        await session.attach_ingress(comms)

        def request(intent: str, correlation: str) -> Any:
            return rig.envelope(comms, intent, kind=EnvelopeKind.REQUEST, intent=intent, correlation=correlation)

        receipts = [
            await rig.peer.send(request(*words)) for words in (("do", "1"), ("do", "1"), ("note", "2"), ("do", "3"))
        ]
        await settle()
        assert [receipt.reason for receipt in receipts] == [None, DropReason.DUPLICATE, None, None]
        rig.gate.set()
        await settle()
        assert rig.handled == ["do", "note", "do"]
        again = await rig.peer.send(request("do", "1"))
        assert await again.wait() is ReceiptStatus.ADMITTED


async def test_a_supervisor_command_is_not_a_message_for_the_handler() -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        receipt = await rig.peer.send(
            rig.envelope(comms, {}, kind=EnvelopeKind.REQUEST, intent="supervisor.bridge", correlation="1")
        )
        await receipt.wait()
        await settle()
        assert rig.handled == []
        assert session.phase is SessionPhase.ATTACHED


async def test_many_messages_do_not_keep_others_from_running() -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms(work_lane=10_000)
        await session.attach_ingress(comms)
        for number in range(1000):
            rig.peer.send_nowait(rig.envelope(comms, number))
        seen = []

        class AfterEachStep(trio.abc.Instrument):
            def after_task_step(self, task: trio.lowlevel.Task) -> None:
                seen.append((len(rig.handled), comms.statistics().work_waiting))

        each = AfterEachStep()
        trio.lowlevel.add_instrument(each)
        turns = 0
        while len(rig.handled) < 1000:
            await trio.lowlevel.checkpoint()
            turns += 1
        trio.lowlevel.remove_instrument(each)
        assert max(after[0] - before[0] for before, after in pairwise(seen)) <= 64
        assert max(before[1] - after[1] for before, after in pairwise(seen)) <= 64
        assert turns >= 1000 // 64


async def test_a_bridge_command_that_nobody_answers_is_over(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        for _ in range(2):
            command = rig.envelope(
                comms, {}, kind=EnvelopeKind.REQUEST, intent="supervisor.bridge", correlation="the same"
            )
            receipt = await rig.peer.send(command)
            await receipt.wait()
            assert receipt.status is ReceiptStatus.ADMITTED
        assert session._tasks.state.requests.inbound == frozenset()
