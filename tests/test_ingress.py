"""Attaching, detaching, rebinding: every cell of the tables, typed in by hand."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from meerkat_trio import (
    Backoff,
    CommsDrainMode,
    CommsDrainPhase,
    DrainExitReason,
    DrainNotStarted,
    IngressResult,
    IngressUpdate,
    MemoryComms,
    MemoryNetwork,
    MobOwned,
    ReceiptStatus,
    RespawnPolicy,
    Session,
    SessionEnded,
    SessionOwned,
    SessionRun,
    TransitionRejected,
    Unattached,
)
from meerkat_trio.authority import DrainStopping, Lane, PeerId

from .rig import Rig, cancelled_elsewhere, rigged, settle
from .test_defects import Crashing

SPAWNED, REBOUND, UNCHANGED = IngressResult.SPAWNED, IngressResult.REBOUND, IngressResult.UNCHANGED
TIMED, ATTACHED = CommsDrainMode.TIMED, CommsDrainMode.ATTACHED_SESSION


async def prepare(rig: Rig, session: Session, now: str) -> MemoryComms:
    """Bring the session to where the table's first column says; return what is, or was last, bound.

    "stopping" leaves no checkpoint between the word and whatever comes next.
    """
    comms = await rig.comms("a", kind=Crashing)
    if now == "unattached":
        return comms
    if now.endswith("failed"):
        comms.crashes = 1  # type: ignore[attr-defined]
    if now.startswith("mob"):
        await session.attach_mob_ingress(comms, "mob")
    else:
        await session.attach_ingress(comms)
    if now.endswith("failed"):
        await settle()
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
    if now.endswith("stopping"):
        session.begin_stop_drain()
        assert session._tasks.state.drain.stopping is DrainStopping.ABORT
    if now.endswith("aborted"):
        await session.stop_drain()
    if now.endswith("detached"):
        await session.detach_ingress()
    return comms


@pytest.mark.parametrize(
    ("now", "runtime_id", "options", "expected"),
    [
        ("unattached", "same", {}, (SPAWNED, True, 1)),
        ("session live", "same", {}, (UNCHANGED, False, 1)),
        ("session live", "a", {}, (REBOUND, False, 2)),
        ("session live", "b", {}, "owner_allows_session_attach"),
        ("session live", "same", {"mode": TIMED}, "mode_matches"),
        ("session live", "a", {"mode": TIMED}, "mode_matches"),
        ("session live", "same", {"idle_timeout": 1.0}, "mode_matches"),
        ("session live", "b", {"mode": TIMED}, "owner_allows_session_attach"),
        ("session aborted", "same", {}, (SPAWNED, False, 2)),
        ("session aborted", "a", {}, (SPAWNED, False, 2)),
        ("session aborted", "a", {"mode": TIMED, "idle_timeout": 1.0}, (SPAWNED, False, 2)),
        ("session aborted", "b", {}, "owner_allows_session_attach"),
        ("session stopping", "same", {}, (SPAWNED, False, 2)),
        ("session stopping", "a", {}, (SPAWNED, False, 2)),
        ("session stopping", "a", {"mode": TIMED}, (SPAWNED, False, 2)),
        ("session stopping", "b", {}, "owner_allows_session_attach"),
        ("session failed", "same", {}, (SPAWNED, False, 2)),
        ("session failed", "a", {}, (SPAWNED, False, 2)),
        ("session failed", "a", {"mode": TIMED}, (SPAWNED, False, 2)),
        ("session failed", "b", {}, "owner_allows_session_attach"),
        ("session detached", "same", {}, (SPAWNED, True, 2)),
        ("session detached", "b", {}, (SPAWNED, True, 2)),
        ("mob live", "same", {}, "owner_allows_session_attach"),
        ("mob live", "a", {}, "owner_allows_session_attach"),
        ("mob live", "b", {"mode": TIMED}, "owner_allows_session_attach"),
        ("mob aborted", "same", {}, "owner_allows_session_attach"),
        ("mob stopping", "same", {}, "owner_allows_session_attach"),
        ("mob failed", "same", {}, "owner_allows_session_attach"),
        ("mob failed", "a", {}, "owner_allows_session_attach"),
    ],
)
async def test_attach_ingress(now: str, runtime_id: str, options: dict[str, Any], expected: Any) -> None:
    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        bound = await prepare(rig, session, now)
        comms = bound if runtime_id == "same" else await rig.comms(runtime_id)
        before = session.ingress_owner, session.drain
        if isinstance(expected, str):
            with pytest.raises(TransitionRejected) as refused:
                await session.attach_ingress(comms, **options)
            assert refused.value.guard == expected
            assert (session.ingress_owner, session.drain) == before
            return
        result, owner_changed, generation = expected
        assert await session.attach_ingress(comms, **options) == IngressUpdate(
            result=result, owner_changed=owner_changed, generation=generation
        )
        assert session.ingress_owner == SessionOwned(comms.runtime_id)
        assert session.drain.phase is CommsDrainPhase.RUNNING
        await rig.send(comms, "served")
        await settle()
        assert rig.handled == ["served"]


@pytest.mark.parametrize(
    ("now", "runtime_id", "mob", "options", "expected"),
    [
        ("unattached", "same", "mob", {}, (SPAWNED, True, 1)),
        ("session live", "same", "mob", {}, (UNCHANGED, True, 1)),
        ("session live", "a", "mob", {}, (REBOUND, True, 2)),
        ("session live", "b", "mob", {}, (REBOUND, True, 2)),
        ("session live", "same", "mob", {"mode": TIMED}, "mode_matches"),
        ("session aborted", "same", "mob", {}, (SPAWNED, True, 2)),
        ("session aborted", "a", "mob", {}, (SPAWNED, True, 2)),
        ("session aborted", "b", "mob", {}, (SPAWNED, True, 2)),
        ("session stopping", "same", "mob", {}, (SPAWNED, True, 2)),
        ("session stopping", "b", "mob", {"mode": TIMED}, (SPAWNED, True, 2)),
        ("session failed", "same", "mob", {}, (SPAWNED, True, 2)),
        ("session failed", "a", "mob", {}, (SPAWNED, True, 2)),
        ("session failed", "b", "mob", {}, (SPAWNED, True, 2)),
        ("mob live", "same", "mob", {}, (UNCHANGED, False, 1)),
        ("mob live", "a", "mob", {}, (REBOUND, False, 2)),
        ("mob live", "b", "mob", {}, "owner_allows_mob_attach"),
        ("mob live", "same", "other", {}, "owner_allows_mob_attach"),
        ("mob live", "b", "other", {"mode": TIMED}, "owner_allows_mob_attach"),
        ("mob live", "a", "mob", {"mode": TIMED}, "mode_matches"),
        ("mob aborted", "a", "mob", {}, (SPAWNED, False, 2)),
        ("mob stopping", "same", "mob", {}, (SPAWNED, False, 2)),
        ("mob stopping", "a", "mob", {"mode": TIMED}, (SPAWNED, False, 2)),
        ("mob stopping", "b", "mob", {}, "owner_allows_mob_attach"),
        ("mob stopping", "same", "other", {}, "owner_allows_mob_attach"),
        ("mob failed", "same", "mob", {}, (SPAWNED, False, 2)),
        ("mob failed", "a", "mob", {}, (SPAWNED, False, 2)),
        ("mob failed", "b", "mob", {}, "owner_allows_mob_attach"),
        ("mob failed", "same", "other", {}, "owner_allows_mob_attach"),
        ("mob aborted", "b", "mob", {}, "owner_allows_mob_attach"),
        ("mob aborted", "same", "other", {}, "owner_allows_mob_attach"),
    ],
)
async def test_attach_mob_ingress(now: str, runtime_id: str, mob: str, options: dict[str, Any], expected: Any) -> None:
    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        bound = await prepare(rig, session, now)
        comms = bound if runtime_id == "same" else await rig.comms(runtime_id)
        before = session.ingress_owner, session.drain
        if isinstance(expected, str):
            with pytest.raises(TransitionRejected) as refused:
                await session.attach_mob_ingress(comms, mob, **options)
            assert refused.value.guard == expected
            assert (session.ingress_owner, session.drain) == before
            return
        result, owner_changed, generation = expected
        assert await session.attach_mob_ingress(comms, mob, **options) == IngressUpdate(
            result=result, owner_changed=owner_changed, generation=generation
        )
        assert session.ingress_owner == MobOwned(comms_runtime_id=comms.runtime_id, mob_id=mob)
        await rig.send(comms, "served")
        await settle()
        assert rig.handled == ["served"]


@pytest.mark.parametrize(
    ("now", "by", "expected"),
    [
        ("unattached", None, None),
        ("unattached", "mob", None),
        ("session live", None, DrainExitReason.ABORTED),
        ("session live", "mob", "detacher_owns"),
        ("session aborted", None, None),
        ("mob live", None, "detacher_owns"),
        ("mob live", "mob", DrainExitReason.ABORTED),
        ("mob live", "other", "detacher_owns"),
        ("mob aborted", "mob", None),
        ("session stopping", None, DrainExitReason.ABORTED),
        ("session failed", None, DrainExitReason.FAILED),
        ("session failed", "mob", "detacher_owns"),
        ("mob stopping", None, "detacher_owns"),
        ("mob failed", None, "detacher_owns"),
        ("mob failed", "other", "detacher_owns"),
        ("mob failed", "mob", DrainExitReason.FAILED),
    ],
)
async def test_detach(now: str, by: str | None, expected: Any) -> None:
    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        await prepare(rig, session, now)
        before = session.ingress_owner, session.drain

        async def detach() -> Any:
            return await (session.detach_ingress() if by is None else session.detach_mob_ingress(by))

        if isinstance(expected, str):
            with pytest.raises(TransitionRejected) as refused:
                await detach()
            assert refused.value.guard == expected
            assert (session.ingress_owner, session.drain) == before
            return
        drain_exit = await detach()
        assert (drain_exit and drain_exit.reason) == expected
        assert session.ingress_owner == Unattached()


async def test_what_the_old_transport_had_accepted_comes_first() -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        old = await rig.comms("a")
        await session.attach_ingress(old)
        await rig.send(old, *range(10))
        await settle()
        new = await rig.comms("b", work_lane=100)
        await rig.send(new, *range(10, 20))
        await session.attach_mob_ingress(new, "mob")
        rig.gate.set()
        await settle()
        assert rig.handled == list(range(20))
        await old.aclose()


async def test_after_a_detach_nothing_is_taken_over() -> None:
    async with rigged() as (rig, _, session):
        old = await rig.comms("a")
        await session.attach_ingress(old)
        await session.detach_ingress()
        await rig.send(old, "left behind")
        await session.attach_ingress(await rig.comms("b"))
        await settle()
        assert rig.handled == []
        assert old.statistics().work_waiting == 1


async def test_a_transport_that_cannot_take_over_changes_nothing() -> None:
    async with rigged() as (rig, _, session):
        bound = await rig.comms("a")
        await session.attach_ingress(bound)
        before = session.ingress_owner, session.drain
        with pytest.raises(ValueError, match="another MemoryNetwork"):
            await session.attach_ingress(MemoryComms(MemoryNetwork(), "a"))
        assert (session.ingress_owner, session.drain) == before
        await rig.send(bound, "served")
        await settle()
        assert rig.handled == ["served"]


class Lingering(MemoryComms):
    """A transport whose claim, once cancelled, takes its time to end."""

    may_end: trio.Event

    async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
        try:
            return await super().claim(lanes=lanes)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.may_end.wait()
            raise


@pytest.mark.parametrize("by_mob", [False, True])
async def test_an_attach_waits_for_the_exit_of_a_drain_that_is_being_stopped(by_mob: bool) -> None:
    updates: list[IngressUpdate] = []
    async with rigged() as (rig, _, session), trio.open_nursery() as nursery:
        old, new = await rig.comms("a", kind=Lingering), await rig.comms("a")
        assert isinstance(old, Lingering)
        old.may_end = trio.Event()
        await session.attach_ingress(old)
        await settle()

        async def attach() -> None:
            updates.append(await (session.attach_mob_ingress(new, "mob") if by_mob else session.attach_ingress(new)))

        nursery.start_soon(session.stop_drain)
        await settle()
        nursery.start_soon(attach)
        await settle()
        assert (updates, session.ingress_owner, session.drain.generation) == ([], SessionOwned("a"), 1)
        assert session._tasks.state.drain.stopping is DrainStopping.ABORT
        old.may_end.set()
        await settle()
        assert updates == [IngressUpdate(result=SPAWNED, owner_changed=by_mob, generation=2)]


async def test_the_failed_drain_of_a_mob_is_respawned_by_policy_in_the_mobs_name(autojump_clock: object) -> None:
    policy = RespawnPolicy(backoff=Backoff(first=20.0, jitter=0.0))
    async with rigged(respawn=policy) as (rig, _, session):
        comms = await prepare(rig, session, "mob failed")
        for call in (lambda: session.attach_ingress(comms), session.detach_ingress):
            with pytest.raises(TransitionRejected):
                await call()
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
        await trio.sleep(21)
        assert (session.drain.phase, session.drain.generation) == (CommsDrainPhase.RUNNING, 2)
        assert session.ingress_owner == MobOwned(comms_runtime_id="a", mob_id="mob")


async def test_what_woke_the_drain_before_a_detach_is_not_judged_without_its_transport() -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await settle()
        receipt = rig.peer.send_nowait(rig.envelope(comms, "just before"))
        await session.detach_ingress()
        await settle()
        assert receipt.status is ReceiptStatus.ADMITTED
        assert rig.handled == ["just before"]


async def test_a_transport_that_cannot_be_claimed_from_is_not_attached() -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await settle()
        other = await machine.register("b", rig.record)
        with pytest.raises(trio.BusyResourceError):
            await other.attach_ingress(comms)
        closed = await rig.comms()
        await closed.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await other.attach_ingress(closed)
        with pytest.raises(trio.ClosedResourceError):
            await session.attach_ingress(closed)
        assert other.drain.generation == 0
        assert other.ingress_owner == Unattached()
        await rig.send(comms, "still served")
        await settle()
        assert rig.handled == ["still served"]


@pytest.mark.parametrize("full", [False, True])
async def test_a_transport_that_another_session_serves_is_not_attached(full: bool) -> None:
    async with rigged("gated", work_queue=1) as (rig, machine, session):
        comms = await rig.comms()
        other = await machine.register("b", rig.record)
        await session.attach_ingress(comms)
        if full:
            # With its queue full the drain does not claim from both lanes; that moment is no gap either.
            await rig.send(comms, 0, 1)
        for _ in range(20):
            with pytest.raises(trio.BusyResourceError):
                await other.attach_ingress(comms)
        assert other.ingress_owner == Unattached()
        rig.gate.set()
        await rig.send(comms, "still served")
        await settle()
        assert rig.handled == [0, 1, "still served"][0 if full else 2 :]
        assert session.drain.generation == 1


async def test_of_two_sessions_that_attach_one_transport_at_once_one_serves_it(autojump_clock: object) -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        other = await machine.register("b", rig.record)
        refused = []

        async def attach(to: Session) -> None:
            try:
                await to.attach_ingress(comms)
            except trio.BusyResourceError:
                refused.append(to)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach, session)
            nursery.start_soon(attach, other)
        await trio.sleep(10)
        (left_out,) = refused
        (served,) = {session, other} - {left_out}
        assert (left_out.drain.generation, left_out.ingress_owner) == (0, Unattached())
        assert served.drain.phase is CommsDrainPhase.RUNNING
        await served.stop_drain()
        await left_out.attach_ingress(comms)
        await rig.send(comms, "x")
        await settle()
        assert rig.handled == ["x"]


async def test_what_another_session_serves_is_not_taken_over() -> None:
    async with rigged() as (rig, machine, session):
        comms, rebuilt = await rig.comms(), await rig.comms()
        other = await machine.register("b", rig.record)
        await session.attach_ingress(comms)
        await session.stop_drain()
        await other.attach_ingress(comms)
        with pytest.raises(trio.BusyResourceError):
            await session.attach_ingress(rebuilt)
        assert session.drain.phase is CommsDrainPhase.STOPPED
        await other.attach_ingress(rebuilt)
        await rig.send(rebuilt, "served")
        await settle()
        assert rig.handled == ["served"]
        await other.detach_ingress()
        # Nobody serves what was taken over, so it is in nobody's way.
        assert (await session.attach_ingress(rebuilt)).result is SPAWNED


async def test_a_respawn_leaves_a_transport_alone_that_another_session_serves_by_then(autojump_clock: object) -> None:
    class Breaking(MemoryComms):
        broken = False

        def is_manually_trusted(self, peer_id: PeerId) -> bool:
            if self.broken:
                raise OSError
            return super().is_manually_trusted(peer_id)

    async with rigged(respawn=RespawnPolicy(max_restarts=1)) as (rig, machine, session):
        comms = await rig.comms(kind=Breaking)
        assert isinstance(comms, Breaking)
        other = await machine.register("b", rig.record)
        await session.attach_ingress(comms)
        comms.broken = True
        await rig.send(comms, "x")
        await session.wait_drain_exited()
        comms.broken = False
        await other.attach_ingress(comms)
        await trio.sleep(10)
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
        assert session.drain.last_exit is not None
        assert isinstance(session.drain.last_exit.error, trio.BusyResourceError)
        await rig.send(comms, "y")
        await settle()
        assert (other.drain.generation, rig.handled) == (1, ["x", "y"])


async def test_a_mob_that_attaches_again_changes_nothing_of_its_ownership() -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.attach_mob_ingress(comms, "mob", mob_peer_id=rig.peer.peer_id)
        again = await session.attach_mob_ingress(comms, "mob")
        assert again == IngressUpdate(result=UNCHANGED, owner_changed=False, generation=1)
        assert session.ingress_owner == MobOwned(comms_runtime_id="a", mob_id="mob", mob_peer_id=rig.peer.peer_id)


class Odd(BaseException):
    """Neither an Exception nor a Cancelled."""


async def test_a_transport_that_raises_no_exception_proper_is_kept_as_the_reason() -> None:
    class Breaking(MemoryComms):
        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            raise Odd

    with pytest.raises(Odd):
        async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
            await session.attach_ingress(await rig.comms(kind=Breaking))
            await trio.sleep_forever()
    assert session.drain.last_exit is not None
    assert session.drain.last_exit.reason is DrainExitReason.FAILED
    assert isinstance(session.drain.last_exit.error, Odd)


async def test_handlers_keep_their_grace_when_a_transport_takes_the_machine_down(autojump_clock: object) -> None:
    class Breaking(MemoryComms):
        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            await trio.sleep(1)
            raise Odd

    done = []

    async def takes_its_time(run: SessionRun) -> None:
        await trio.sleep(3)
        done.append(run.session.id)

    with pytest.raises(Odd):
        async with rigged(None) as (rig, machine, session):
            other = await machine.register("b", takes_its_time)
            await session.attach_executor(takes_its_time)
            await session.deliver("x")
            await other.deliver("x")
            await session.attach_ingress(await rig.comms(kind=Breaking))
            await trio.sleep_forever()
    assert sorted(done) == ["a", "b"]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_cancelled_of_another_task_is_a_failure_of_the_transport(grouped: bool) -> None:
    foreign: BaseException = await cancelled_elsewhere()
    if grouped:
        foreign = BaseExceptionGroup("of the transport", [foreign, OSError()])

    class Carrying(MemoryComms):
        async def claim(self, *, lanes: frozenset[Lane] = frozenset(Lane)) -> Any:
            await trio.lowlevel.checkpoint()
            raise foreign

    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        await session.attach_ingress(await rig.comms(kind=Carrying))
        drain_exit = await session.wait_drain_exited()
        assert drain_exit is not None
        assert drain_exit.reason is DrainExitReason.FAILED
        assert drain_exit.error is foreign
        assert session.end is None


async def test_a_closed_transport_is_a_failed_drain(autojump_clock: object) -> None:
    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        comms = await rig.comms("a")
        await session.attach_ingress(comms)
        await comms.aclose()
        drain_exit = await session.wait_drain_exited()
        assert drain_exit is not None
        assert drain_exit.reason is DrainExitReason.FAILED
        assert isinstance(drain_exit.error, trio.ClosedResourceError)
        assert session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE
        assert (await session.attach_ingress(await rig.comms("a"))).result is SPAWNED


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"comms": None}, "comms: a CommsRuntime is needed"),
        ({"mode": "timed"}, "mode: a CommsDrainMode is needed"),
        ({"idle_timeout": 0}, "idle_timeout: seconds above 0"),
        ({"idle_timeout": float("nan")}, "idle_timeout: seconds above 0"),
        ({"idle_timeout": 10**400}, "idle_timeout: seconds above 0"),
        ({"idle_timeout": "soon"}, "idle_timeout: seconds above 0"),
    ],
)
async def test_bad_arguments_are_named(arguments: dict[str, Any], error: str) -> None:
    async with rigged() as (rig, _, session):
        comms = arguments.pop("comms", await rig.comms())
        with pytest.raises((TypeError, ValueError), match=error):
            await session.attach_ingress(comms, **arguments)
        with pytest.raises(ValueError, match="mob_id: must be a text"):
            await session.attach_mob_ingress(await rig.comms(), " ")
        assert session.drain.generation == 0


async def test_an_ending_session_attaches_nothing() -> None:
    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        await session.stop()
        for call in (
            lambda: session.attach_ingress(comms),
            lambda: session.attach_mob_ingress(comms, "mob"),
            session.detach_ingress,
            session.stop_drain,
            session.detach_executor,
            session.retire,
            session.stop,
            lambda: session.attach_executor(rig.record),
            lambda: session.set_silent_intents(["x"]),
            lambda: session.deliver("x"),
        ):
            with pytest.raises(SessionEnded, match="session 'a' has ended or is ending"):
                await call()


async def test_a_mob_peer_that_is_no_uuid_is_refused() -> None:
    async with rigged() as (rig, _, session):
        with pytest.raises(ValueError, match="peer_id"):
            await session.attach_mob_ingress(await rig.comms(), "mob", mob_peer_id="nonsense")  # type: ignore[arg-type]


async def test_a_drain_that_ends_before_it_serves_is_reported_to_who_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(_: object, __: object) -> None:
        raise OSError("no way in")

    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        monkeypatch.setattr("meerkat_trio._drain_task.DrainTask._serve", breaks)
        with pytest.raises(DrainNotStarted) as caught:
            await session.attach_ingress(await rig.comms())
        assert caught.value.exit.reason is DrainExitReason.FAILED
        assert str(caught.value) == "drain 1 ended before it served (failed): OSError('no way in')"
