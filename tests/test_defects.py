"""The defects of the Rust original: each test is red on an implementation that has that defect."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from meerkat_trio import (
    Backoff,
    CommsDrainPhase,
    DrainExitReason,
    DrainNotStarted,
    DropReason,
    Ending,
    EnvelopeKind,
    IngressResult,
    MemoryComms,
    MobOwned,
    ReceiptStatus,
    RespawnPolicy,
    Session,
    SessionEnded,
    SessionNotRegistered,
    SessionOwned,
    SessionPhase,
    TransitionRejected,
    Unattached,
)
from meerkat_trio.authority import Lane

from . import rig as _rig
from .rig import Rig, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio import MeerkatMachine


@asynccontextmanager
async def rigged(handler: str | None = "record", **options: Any) -> AsyncIterator[tuple[Rig, MeerkatMachine, Session]]:
    """The shared rig, in which what waits for ever fails: the clock jumps to the deadline when nobody can run."""
    with trio.fail_after(1000):
        async with _rig.rigged(handler, **options) as opened:
            yield opened


class Crashing(MemoryComms):
    """A transport whose claim fails as often as it is told to, or once in the middle of a batch."""

    crashes = 0
    batch_breaks_after: int | None = None

    async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
        if self.crashes:
            self.crashes -= 1
            raise OSError("the transport broke")
        return await super().claim(lanes=lanes)

    def claim_ready(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
        if self.batch_breaks_after is not None:
            self.batch_breaks_after -= 1
            if self.batch_breaks_after < 0:
                self.batch_breaks_after = None
                raise OSError("the transport broke")
        return super().claim_ready(lanes=lanes)


async def cancelled_call(call: Any, checkpoints: int) -> None:
    """Make a call and cancel its caller after so many checkpoints."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("checkpoints", range(4))
async def test_d1_a_drain_whose_caller_is_cancelled_is_still_stopped(checkpoints: int, autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await cancelled_call(lambda: session.attach_ingress(comms), checkpoints)
        stopped = await session.stop_drain()
        assert session.drain.phase is not CommsDrainPhase.RUNNING
        assert (stopped is None) == (session.drain.generation == 0)
        await rig.send(comms, "after the stop")
        await settle()
        assert rig.handled == []


async def attach_quietly(session: Session, comms: MemoryComms) -> None:
    with suppress(DrainNotStarted, SessionEnded):
        await session.attach_ingress(comms)


@pytest.mark.parametrize("checkpoints", list(range(4)) * 5)
async def test_d1_unregistering_while_the_drain_starts_leaves_no_task(checkpoints: int, autojump_clock: object) -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach_quietly, session, comms)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            end = await session.unregister()
        assert end is not None
        assert end.cause is Ending.UNREGISTER
        assert len(machine) == 0
        # Nobody claims any more, so the inbox can be claimed by us.
        assert comms.claim_ready() is None


@pytest.mark.parametrize("checkpoints", list(range(4)) * 5)
async def test_d2_an_abort_while_the_drain_starts_is_not_lost(checkpoints: int, autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach_quietly, session, comms)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            generation = session.drain.generation
            stopped = await session.stop_drain()
        if generation:
            assert stopped is not None
            assert stopped.reason is DrainExitReason.ABORTED
            assert session.drain.phase is CommsDrainPhase.STOPPED
            again = await session.attach_ingress(comms)
            assert again.result is IngressResult.SPAWNED
        await rig.send(comms, "served")
        await settle()
        assert rig.handled == ["served"]


async def test_d3_a_rebind_never_has_two_drains_admitting(autojump_clock: object) -> None:
    claiming: list[MemoryComms] = []
    most = 0

    class Watched(MemoryComms):
        """Takes its time to leave, as a transport does that has to clean up."""

        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            nonlocal most
            claiming.append(self)
            most = max(most, len(claiming))
            try:
                return await super().claim(lanes=lanes)
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(5):
                        await trio.lowlevel.checkpoint()
                claiming.remove(self)

    async with rigged() as (rig, _, session):
        comms = await rig.comms(kind=Watched)
        await session.attach_ingress(comms)
        for number in range(20):
            await rig.send(comms, number)
            comms = await rig.comms(kind=Watched)
            update = await session.attach_ingress(comms)
            assert update.result is IngressResult.REBOUND
        await settle()
        assert claiming == [comms]
        assert most == 1
    assert rig.handled == list(range(20))


async def serve_69(rig: Rig, comms: MemoryComms, session: Session) -> None:
    """69 messages wait in the inbox of a session with room for 24 whose handler waits: 45 have to stay there."""
    await rig.send(comms, *range(69))
    await session.attach_ingress(comms)
    await settle()


@pytest.mark.parametrize("rebuilt", [False, True])
async def test_d4_an_abort_loses_nothing_of_the_inbox(rebuilt: bool, autojump_clock: object) -> None:
    async with rigged("gated", work_queue=24) as (rig, _, session):
        comms = await rig.comms(work_lane=100)
        await serve_69(rig, comms, session)
        await session.stop_drain()
        assert comms.statistics().work_waiting == 45
        assert session.statistics().admitted == 24
        replacement = await rig.comms(work_lane=100) if rebuilt else comms
        await session.attach_ingress(replacement)
        await settle()
        assert replacement.statistics().work_waiting == 45
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))
    assert session.statistics().admitted == 69


@pytest.mark.parametrize("checkpoints", range(1, 12))
async def test_d4_an_abort_in_the_middle_of_taking_loses_nothing(checkpoints: int, autojump_clock: object) -> None:
    async with rigged("gated", work_queue=24) as (rig, _, session):
        comms = await rig.comms(work_lane=100)
        await rig.send(comms, *range(69))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach_quietly, session, comms)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            await session.stop_drain()
        assert comms.statistics().work_waiting == 69 - session.statistics().admitted
        await session.attach_ingress(comms)
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))


async def test_d4_a_rebind_loses_nothing_of_the_inbox(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=24) as (rig, _, session):
        comms = await rig.comms(work_lane=100)
        await serve_69(rig, comms, session)
        rebuilt = await rig.comms(work_lane=100)
        await session.attach_ingress(rebuilt)
        assert rebuilt.statistics().work_waiting == 45
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))


async def test_d4_a_crash_loses_nothing_of_the_inbox(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=24) as (rig, _, session):
        comms = await rig.comms(kind=Crashing, work_lane=100)
        await serve_69(rig, comms, session)
        assert isinstance(comms, Crashing)
        comms.crashes = 1
        # The work lane is shut; what goes past it wakes the drain, which then breaks.
        await rig.peer.send(rig.envelope(comms, kind=EnvelopeKind.PEER_ADDED))
        await settle()
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
        assert comms.statistics().work_waiting == 45
        await trio.sleep(10)
        assert session.statistics().respawns == 1
        assert comms.statistics().work_waiting == 45
        assert session.statistics().admitted == 24
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))


async def test_d4_a_crash_in_the_middle_of_a_batch_loses_nothing_of_the_inbox(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=24) as (rig, _, session):
        comms = await rig.comms(kind=Crashing, work_lane=100)
        assert isinstance(comms, Crashing)
        comms.batch_breaks_after = 10
        await serve_69(rig, comms, session)
        await trio.sleep(10)
        assert session.statistics().respawns == 1
        assert comms.statistics().work_waiting == 45
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))


async def test_d4_a_batch_that_is_over_holds_nothing(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=100) as (rig, _, session):
        comms = await rig.comms(work_lane=100)
        await serve_69(rig, comms, session)
        assert session.statistics().admitted == 69
        assert not comms.statistics().claim_open
        await session.stop_drain()
        assert comms.statistics().work_waiting == 0
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))


async def test_d4_a_shutdown_leaves_the_rest_in_the_inbox_and_hands_back_what_was_admitted(
    autojump_clock: object,
) -> None:
    async with rigged("gated", work_queue=24, grace=0.0) as (rig, _, session):
        comms = await rig.comms(work_lane=100)
        await serve_69(rig, comms, session)
        end = await session.stop()
    assert end is not None
    assert [message.body for message in end.unfinished] == list(range(24))
    assert [abandoned.message.body for abandoned in session.abandoned] == list(range(24))
    left = []
    while (claim := comms.claim_ready()) is not None:
        with claim:
            left.append(claim.envelope.body)
            claim.commit()
    assert left == list(range(24, 69))


@pytest.mark.parametrize("checkpoints", range(4))
async def test_d4_a_cancelled_caller_loses_nothing_of_the_inbox(checkpoints: int, autojump_clock: object) -> None:
    async with rigged("gated", work_queue=24) as (rig, _, session):
        comms = await rig.comms(work_lane=100)
        await serve_69(rig, comms, session)
        rebuilt = await rig.comms(work_lane=100)
        await cancelled_call(lambda: session.attach_ingress(rebuilt), checkpoints)
        # Which of the two has them is the cancellation's to decide; no other number of them is right.
        assert sorted((comms.statistics().work_waiting, rebuilt.statistics().work_waiting)) == [0, 45]
        await cancelled_call(session.stop_drain, checkpoints)
        await session.stop_drain()
        assert sorted((comms.statistics().work_waiting, rebuilt.statistics().work_waiting)) == [0, 45]
        assert session.statistics().admitted == 24
        await session.attach_ingress(rebuilt)
        await settle()
        assert rebuilt.statistics().work_waiting == 45
        rig.gate.set()
        await settle()
    assert rig.handled == list(range(69))


async def test_d4_an_envelope_that_is_claimed_and_not_admitted_stays_at_the_head(autojump_clock: object) -> None:
    # With somebody who watches, messages come in by the drain alone.
    async with rigged("gated", work_queue=1) as (rig, machine, session), machine.subscribe():
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await settle()
        rig.peer.send_nowait(rig.envelope(comms, "first"))
        rig.peer.send_nowait(rig.envelope(comms, "second"))
        # The queue is full before the drain, which was woken with room, gets its turn.
        await session.deliver("delivered")
        await settle()
        assert comms.statistics().work_waiting == 2
        rig.gate.set()
        await settle()
    assert rig.handled == ["delivered", "first", "second"]


@pytest.mark.parametrize("how", ["stop_drain", "stop_drains", "detach", "unregister", "destroy", "stop"])
async def test_d5_stopping_joins(how: str, autojump_clock: object) -> None:
    alive = 0

    class Slow(MemoryComms):
        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            nonlocal alive
            alive += 1
            try:
                return await super().claim(lanes=lanes)
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(5):
                        await trio.lowlevel.checkpoint()
                alive -= 1

    async with rigged() as (rig, machine, session):
        await session.attach_ingress(await rig.comms(kind=Slow))
        await settle()
        assert alive == 1
        calls = {
            "stop_drain": session.stop_drain,
            "stop_drains": machine.stop_drains,
            "detach": session.detach_ingress,
            "unregister": session.unregister,
            "destroy": session.destroy,
            "stop": session.stop,
        }
        await calls[how]()
        assert alive == 0


async def test_d6_many_wait_for_a_drain_and_an_abort_meanwhile_works(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms())
        seen: list[DrainExitReason] = []

        async def wait() -> None:
            drain_exit = await session.wait_drain_exited()
            assert drain_exit is not None
            seen.append(drain_exit.reason)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await settle()
            assert seen == []
            assert session.drain.phase is CommsDrainPhase.RUNNING
            await session.stop_drain()
    assert seen == [DrainExitReason.ABORTED] * 3


async def test_d7_a_late_exit_of_an_old_drain_does_not_stop_its_successor(autojump_clock: object) -> None:
    class LateFailure(MemoryComms):
        """Fails over being cancelled, as a transport may whose own clean-up breaks."""

        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            try:
                return await super().claim(lanes=lanes)
            except (trio.Cancelled, trio.ClosedResourceError):
                if self.inbox.closed:
                    raise OSError("late") from None
                raise

    async with rigged(respawn=RespawnPolicy.manual()) as (rig, machine, session):
        old = await rig.comms(kind=LateFailure)
        await session.attach_ingress(old)
        await settle()
        new = await rig.comms(kind=LateFailure)
        async with machine.subscribe() as steps:
            update = await session.attach_ingress(new)
            await settle()
            ignored = []
            with trio.move_on_after(1):
                async for step in steps:
                    ignored.append(step.ignored)  # noqa: PERF401 - cut short by the scope
        assert "stale_generation" in ignored
        assert update.generation == 2
        assert session.drain.phase is CommsDrainPhase.RUNNING
        await rig.send(new, "served")
        await settle()
        assert rig.handled == ["served"]


async def test_d8_a_drain_that_dies_is_noticed_and_respawned(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms(kind=Crashing)
        assert isinstance(comms, Crashing)
        await session.attach_ingress(comms)
        await settle()
        comms.crashes = 1
        await rig.send(comms, 1)
        await trio.sleep(5)
        assert session.drain.last_exit is not None
        assert session.drain.last_exit.reason is DrainExitReason.FAILED
        assert isinstance(session.drain.last_exit.error, OSError)
        assert session.drain.phase is CommsDrainPhase.RUNNING
        assert session.statistics().respawns == 1
        assert rig.handled == [1]


async def test_d9_a_rebuilt_transport_of_the_same_logical_id_is_a_rebind_and_a_stranger_is_refused(
    autojump_clock: object,
) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await rig.comms("a"))
        assert (await session.attach_ingress(await rig.comms("a"))).result is IngressResult.REBOUND
        with pytest.raises(TransitionRejected) as refused:
            await session.attach_ingress(await rig.comms("stranger"))
        assert refused.value.guard == "owner_allows_session_attach"
        assert session.ingress_owner == SessionOwned("a")


async def test_d10_each_side_gives_up_only_what_it_owns(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        assert await session.detach_ingress() is None
        assert isinstance(session.ingress_owner, Unattached)
        comms = await rig.comms()
        await session.attach_mob_ingress(comms, "mob")
        mob = MobOwned(comms_runtime_id="a", mob_id="mob")
        for detach in (session.detach_ingress(), session.detach_mob_ingress("another mob")):
            with pytest.raises(TransitionRejected) as refused:
                await detach
            assert refused.value.guard == "detacher_owns"
        owner: object = session.ingress_owner
        assert owner == mob
        assert session.drain.phase is CommsDrainPhase.RUNNING
        assert await session.detach_mob_ingress("mob") is not None
        owner = session.ingress_owner
        assert owner == Unattached()


async def test_d10_switching_the_drain_off_claims_no_ownership(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_mob_ingress(comms, "mob")
        assert await session.stop_drain() is not None
        owner: object = session.ingress_owner
        assert owner == MobOwned(comms_runtime_id="a", mob_id="mob")
        await session.detach_mob_ingress("mob")
        assert await session.stop_drain() is None
        assert await session.detach_ingress() is None
        owner = session.ingress_owner
        assert owner == Unattached()


async def test_d11_a_destroyed_session_leaves_neither_drain_nor_entry(autojump_clock: object) -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        end = await session.destroy()
        assert end is not None
        assert end.cause is Ending.DESTROY
        assert session.phase is SessionPhase.DESTROYED
        assert session.ingress_owner == Unattached()
        with pytest.raises(SessionNotRegistered):
            machine["a"]
        assert comms.claim_ready() is None
        again = await machine.register("a")
        assert (await again.attach_ingress(await rig.comms())).generation == 2


async def test_d22_a_message_that_says_dismiss_is_a_message(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await rig.send(comms, "DISMISS")
        dismissal = await rig.peer.send(rig.envelope(comms, kind=EnvelopeKind.DISMISS))
        assert await dismissal.wait() is ReceiptStatus.DROPPED
        assert dismissal.reason is DropReason.UNTRUSTED_SENDER
        await settle()
        assert rig.handled == ["DISMISS"]
        assert session.phase is SessionPhase.ATTACHED


async def test_d22_the_owning_mob_can_dismiss_the_session(autojump_clock: object) -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        await session.attach_mob_ingress(comms, "mob", mob_peer_id=rig.peer.peer_id)
        await rig.peer.send(rig.envelope(comms, kind=EnvelopeKind.DISMISS))
        drain_exit = await session.wait_drain_exited()
        assert drain_exit is not None
        assert drain_exit.reason is DrainExitReason.DISMISSED
        await settle()
        assert session.phase is SessionPhase.STOPPED
        assert len(machine) == 1


async def test_d25_a_full_inbox_drops_nothing_and_a_parked_sender_wakes_when_it_closes(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        comms = await rig.comms(work_lane=1)
        await session.attach_ingress(comms)
        await rig.send(comms, 0, 1)
        await settle()
        receipts = []

        async def park() -> None:
            receipts.append((await rig.send(comms, 2))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(park)
            await settle()
            assert comms.statistics().parked_senders == 1
            with pytest.raises(trio.WouldBlock):
                rig.peer.send_nowait(rig.envelope(comms))
            await comms.aclose()
        assert receipts[0].reason is DropReason.CLOSED
        rig.gate.set()


async def test_d25_a_parked_sender_is_served_after_a_rebind(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        comms = await rig.comms(work_lane=1)
        await session.attach_ingress(comms)
        await rig.send(comms, 0, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.send, comms, 2)
            await settle()
            rebuilt = await rig.comms(work_lane=1)
            await session.attach_ingress(rebuilt)
            assert rebuilt.statistics().parked_senders == 1
            rig.gate.set()
        await settle()
    assert rig.handled == [0, 1, 2]


async def test_d26_a_slow_handler_stops_neither_control_nor_other_sessions(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=2) as (rig, machine, session):
        comms = await rig.comms(work_lane=100)
        await session.attach_ingress(comms)
        await rig.send(comms, *range(10))
        await settle()
        notice = await rig.peer.send(rig.envelope(comms, kind=EnvelopeKind.PEER_ADDED))
        assert await notice.wait() is ReceiptStatus.ADMITTED
        other = await machine.register("b", rig.record)
        await other.deliver("elsewhere")
        await settle()
        assert rig.handled == ["elsewhere"]
        rig.gate.set()
        await settle()
    assert rig.handled == ["elsewhere", *range(10)]


async def test_d27_a_message_that_always_fails_is_abandoned_after_its_attempts(autojump_clock: object) -> None:
    attempts = []

    async with rigged(None, max_attempts=3, retry_backoff=Backoff(first=1.0, jitter=0.0)) as (rig, _, session):

        async def handler(run: Any) -> None:
            if run.message.body == "poison":
                attempts.append((run.attempt, trio.current_time()))
                raise ValueError("poison")
            rig.handled.append(run.message.body)

        await session.attach_executor(handler)
        comms = await rig.comms()
        await session.attach_ingress(comms)
        start = trio.current_time()
        await rig.send(comms, "poison", "behind")
        await trio.sleep(60)
        assert rig.handled == ["behind"]
        assert [(number, when - start) for number, when in attempts] == [(1, 0), (2, 1), (3, 3)]
        (abandoned,) = session.abandoned
        assert abandoned.attempts == 3
        assert isinstance(abandoned.error, ValueError)
