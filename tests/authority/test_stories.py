"""Stories: inputs one after another, and what the shell is told to do after each."""

from __future__ import annotations

import attrs
import pytest

from meerkat_trio.authority import (
    AddDirectPeerEndpoint,
    AdmissionTrust,
    Admit,
    ApplyMobPeerOverlay,
    AttachExecutor,
    Authority,
    BeginRun,
    BindSupervisor,
    CancelDrain,
    CancelRespawn,
    CommsDrainPhase,
    Destroy,
    Detacher,
    DetachExecutor,
    DetachIngress,
    DrainEnded,
    DrainExit,
    DrainExited,
    DrainExitReason,
    DrainStarted,
    DrainStopping,
    Dropped,
    DropReason,
    Effect,
    Ending,
    EnvelopeKind,
    ExecutorStopped,
    FinishExecutor,
    Input,
    MessageAbandoned,
    OpenRequest,
    PublishLocalEndpoint,
    RebindDrain,
    Register,
    RespawnDue,
    RespawnExhausted,
    RespawnGivenUp,
    Retire,
    RevokeEdges,
    RunFinished,
    RunOutcome,
    ScheduleRespawn,
    SessionFinished,
    SessionPhase,
    SessionRetired,
    SessionState,
    SpawnDrain,
    StartDrain,
    StartExecutor,
    Stop,
    StopDrain,
    StopExecutor,
    SwapDrain,
    TransitionRejected,
    Unattached,
    Unbound,
    Unregister,
    apply,
)

from .cast import (
    ALICE,
    ANN,
    BOB,
    DESTROYED,
    EVE,
    IDLE,
    INITIAL,
    OWN,
    OWN_BY_MOB,
    PERSISTENT,
    REGISTER,
    RUNNING,
    SPAWN,
    SPAWN_TIMED,
    STOPPED,
    TIMED,
    after,
    bound,
)


@attrs.frozen
class Ignored:
    """The input changes nothing, and says why."""

    reason: str


Story = list[tuple[Input, tuple[Effect, ...] | Ignored | str]]
"""Inputs, each with its effects, with why it is ignored, or with the guard that refuses it."""

_R = DrainExitReason
FAILED, ABORTED, SHUTDOWN = _R.FAILED, _R.ABORTED, _R.SESSION_SHUTDOWN


def ended(generation: int, reason: DrainExitReason) -> DrainEnded:
    return DrainEnded(DrainExit(generation=generation, reason=reason))


def tell(story: Story, state: SessionState = INITIAL) -> SessionState:
    for number, (input_, expected) in enumerate(story):
        if isinstance(expected, str):
            with pytest.raises(TransitionRejected) as rejected:
                apply(state, input_)
            assert rejected.value.guard == expected, (number, input_)
            continue
        step = apply(state, input_)
        if isinstance(expected, Ignored):
            assert (step.ignored, step.effects, step.after is state) == (expected.reason, (), True), (number, input_)
        else:
            assert (step.ignored, step.effects) == (None, expected), (number, input_)
        state = step.after
    return state


# --- runs ------------------------------------------------------------------------------------------


def test_an_executor_handles_messages_one_at_a_time() -> None:
    end = tell([
        (REGISTER, ()),
        (BeginRun("1", "m1"), "phase"),
        (AttachExecutor(), (StartExecutor(),)),
        (AttachExecutor(), "phase"),
        (RunFinished("1", RunOutcome.CONSUMED), Ignored("stale_run")),
        (BeginRun("1", "m1"), ()),
        (BeginRun("2", "m2"), "phase"),
        (RunFinished("1", RunOutcome.RETRY), ()),
        (BeginRun("2", "m1"), ()),
        (RunFinished("1", RunOutcome.CONSUMED), Ignored("stale_run")),
        (RunFinished("2", RunOutcome.ABANDONED), (MessageAbandoned("2"),)),
        (BeginRun("3", "m2"), ()),
        (DetachExecutor(), (StopExecutor(),)),
        (RunFinished("3", RunOutcome.RETURNED), ()),
        (ExecutorStopped(), ()),
        (DetachExecutor(), Ignored("no_executor")),
        (ExecutorStopped(), Ignored("no_executor")),
    ])  # fmt: skip
    assert end == IDLE


def test_an_executor_that_stops_in_the_middle_of_a_run_returns_its_message() -> None:
    assert after(ExecutorStopped(), state=RUNNING) == IDLE


def test_a_retired_session_finishes_what_it_has_and_takes_nothing_new() -> None:
    end = tell([
        (REGISTER, ()),
        (AttachExecutor(), (StartExecutor(),)),
        (BeginRun("1", "m1"), ()),
        (Retire(), (SessionRetired(), FinishExecutor())),
        (Retire(), Ignored("already_retired")),
        (Admit(EnvelopeKind.MESSAGE, None, AdmissionTrust.LOCAL), (Dropped(DropReason.NOT_ADMITTED_IN_PHASE),)),
        (AddDirectPeerEndpoint(ALICE), "phase"),
        (OpenRequest("c", ALICE.peer_id), "phase"),
        (RunFinished("1", RunOutcome.CONSUMED), ()),
        (BeginRun("2", "m2"), ()),
        (BeginRun("3", "m3"), "no_run_in_progress"),
        (RunFinished("2", RunOutcome.CONSUMED), ()),
        (AttachExecutor(), "executor_absent"),
        (ExecutorStopped(), ()),
        (BeginRun("3", "m3"), "executor_attached"),
        (AttachExecutor(), (StartExecutor(), FinishExecutor())),
        (ExecutorStopped(), ()),
        (Stop(), (SessionFinished(Ending.STOP),)),
    ])  # fmt: skip
    assert end.session.phase is SessionPhase.STOPPED


# --- drains ----------------------------------------------------------------------------------------


def test_a_drain_is_spawned_rebound_and_stopped() -> None:
    end = tell([
        (REGISTER, ()),
        (SPAWN, "ingress_owned"),
        (RebindDrain(), "drain_is_live"),
        (OWN, ()),
        (SPAWN, (StartDrain(1, PERSISTENT),)),
        (SPAWN, "drain_can_spawn"),
        (DrainStarted(1), ()),
        (DrainStarted(1), Ignored("already_running")),
        (RebindDrain(), (SwapDrain(2),)),
        (DrainStarted(1), Ignored("stale_generation")),
        (DrainExited(1, ABORTED), Ignored("stale_generation")),
        (RebindDrain(), (SwapDrain(3),)),
        (DrainStarted(3), ()),
        (StopDrain(DrainStopping.ABORT), (CancelDrain(3),)),
        (StopDrain(DrainStopping.DETACH), Ignored("already_stopping")),
        (RebindDrain(), "drain_not_stopping"),
        (SPAWN, "drain_can_spawn"),
        (DrainExited(3, ABORTED), (ended(3, ABORTED),)),
        (StopDrain(DrainStopping.ABORT), Ignored("no_drain")),
        (SPAWN_TIMED, (StartDrain(4, TIMED),)),
    ])  # fmt: skip
    assert (end.drain.phase, end.drain.generation) == (CommsDrainPhase.STARTING, 4)


def test_a_drain_told_to_stop_before_it_started_still_stops() -> None:
    end = tell([
        (REGISTER, ()),
        (OWN, ()),
        (SPAWN, (StartDrain(1, PERSISTENT),)),
        (StopDrain(DrainStopping.ABORT), (CancelDrain(1),)),
        (DrainStarted(1), ()),
        (DrainExited(1, ABORTED), (ended(1, ABORTED),)),
        (SPAWN, (StartDrain(2, PERSISTENT),)),
    ])  # fmt: skip
    assert end.drain.stopping is None


def test_the_late_exit_of_an_old_drain_does_not_touch_its_successor() -> None:
    live = after(REGISTER, OWN, SPAWN, RebindDrain(), DrainStarted(2))
    for late in (DrainExited(1, FAILED), DrainExited(1, ABORTED), DrainExited(1, _R.DISMISSED)):
        step = apply(live, late)
        assert (step.ignored, step.after) == ("stale_generation", live)


def test_a_persistent_drain_that_fails_is_respawned_by_policy() -> None:
    tell([
        (REGISTER, ()),
        (OWN, ()),
        (SPAWN, (StartDrain(1, PERSISTENT),)),
        (DrainStarted(1), ()),
        (DrainExited(1, FAILED), (ended(1, FAILED), ScheduleRespawn(1))),
        (RespawnDue(0), Ignored("stale_generation")),
        (RespawnDue(1), (StartDrain(2, PERSISTENT),)),
        (RespawnDue(1), Ignored("stale_generation")),
        (DrainExited(2, FAILED), (ended(2, FAILED), ScheduleRespawn(2))),
        (RespawnGivenUp(1), Ignored("stale_generation")),
        (RespawnGivenUp(2), (RespawnExhausted(2),)),
        (SPAWN, (CancelRespawn(), StartDrain(3, PERSISTENT))),
        (RespawnDue(2), Ignored("stale_generation")),
        (DrainExited(3, FAILED), (ended(3, FAILED), ScheduleRespawn(3))),
        (StopDrain(DrainStopping.ABORT), (CancelRespawn(),)),
        (RespawnDue(3), Ignored("stale_generation")),
        (RespawnGivenUp(3), Ignored("stale_generation")),
    ])  # fmt: skip


def test_a_failed_drain_whose_owner_left_is_not_respawned() -> None:
    state = after(REGISTER, OWN, SPAWN, DrainExited(1, FAILED), DetachIngress(Detacher()))
    tell([(RespawnDue(1), Ignored("unattached")), (RespawnDue(0), Ignored("stale_generation"))], state)


def test_detaching_stops_the_drain_and_clears_the_owner_in_one_go() -> None:
    authority = Authority(after(REGISTER, OWN_BY_MOB, SPAWN, DrainStarted(1)))
    steps = authority.rehearse(StopDrain(DrainStopping.DETACH), DetachIngress(Detacher("mob")))
    assert [step.effects for step in steps] == [(CancelDrain(1),), ()]
    authority.commit(steps)
    assert authority.state.ingress == Unattached()
    end = tell([(DrainExited(1, ABORTED), (ended(1, ABORTED),)), (SPAWN, "ingress_owned")], authority.state)
    assert end.drain.phase is CommsDrainPhase.STOPPED


# --- ends ------------------------------------------------------------------------------------------

BUSY = after(REGISTER, AttachExecutor(), OWN, SPAWN, DrainStarted(1), BeginRun("1", "m"))


def test_a_session_ends_only_when_drain_and_executor_are_gone() -> None:
    end = tell([
        (Stop(), (CancelDrain(1), StopExecutor())),
        (Stop(), Ignored("already_ending")),
        (AttachExecutor(), "phase"),
        (SPAWN, "not_ending"),
        (RebindDrain(), "not_ending"),
        (OWN, "not_ending"),
        (Admit(EnvelopeKind.MESSAGE, None, AdmissionTrust.LOCAL), "not_ending"),
        (RunFinished("1", RunOutcome.RETURNED), ()),
        (BeginRun("2", "m"), "not_ending"),
        (DrainExited(1, SHUTDOWN), (ended(1, SHUTDOWN),)),
        (ExecutorStopped(), (SessionFinished(Ending.STOP),)),
        (ExecutorStopped(), Ignored("no_executor")),
        (Stop(), Ignored("already_ending")),
    ], BUSY)  # fmt: skip
    assert end.session.phase is SessionPhase.STOPPED
    assert end.ingress == Unattached()
    assert end.drain.last_exit == DrainExit(generation=1, reason=SHUTDOWN)


def test_the_executor_may_go_first() -> None:
    end = tell([
        (Stop(), (CancelDrain(1), StopExecutor())),
        (ExecutorStopped(), ()),
        (RunFinished("1", RunOutcome.RETURNED), Ignored("stale_run")),
        (DrainExited(1, SHUTDOWN), (ended(1, SHUTDOWN), SessionFinished(Ending.STOP))),
    ], BUSY)  # fmt: skip
    assert end.session.ended is Ending.STOP


def test_while_it_ends_a_session_without_its_executor_is_not_idle() -> None:
    """IDLE would say that an executor may be attached."""
    for state in (BUSY, after(RunFinished("1", RunOutcome.CONSUMED), state=BUSY)):
        assert after(Stop(), ExecutorStopped(), state=state).session.phase is SessionPhase.ATTACHED


def test_an_ending_is_only_ever_raised() -> None:
    end = tell([
        (Stop(), (CancelDrain(1), StopExecutor())),
        (Destroy(), (RevokeEdges(),)),
        (Unregister(), Ignored("already_ending")),
        (Stop(), Ignored("already_ending")),
        (DrainExited(1, SHUTDOWN), (ended(1, SHUTDOWN),)),
        (ExecutorStopped(), (SessionFinished(Ending.DESTROY),)),
    ], BUSY)  # fmt: skip
    assert end.session.phase is SessionPhase.DESTROYED


def test_stop_takes_over_a_drain_that_is_being_aborted() -> None:
    state = after(StopDrain(DrainStopping.ABORT), state=BUSY)
    step = apply(state, Stop())
    assert step.effects == (CancelDrain(1), StopExecutor())
    assert step.after.drain.stopping is DrainStopping.SHUTDOWN


def test_a_stopped_session_is_revived_and_a_forgotten_one_is_not() -> None:
    end = tell([
        (Register("another"), "same_session_id"),
        (REGISTER, ()),
        (REGISTER, "phase"),
        (Stop(), (SessionFinished(Ending.STOP),)),
        (Register("another"), "same_session_id"),
        (REGISTER, ()),
        (AttachExecutor(), (StartExecutor(),)),
        (ExecutorStopped(), ()),
        (Stop(), (SessionFinished(Ending.STOP),)),
        (Unregister(), (RevokeEdges(), SessionFinished(Ending.UNREGISTER))),
        (REGISTER, "phase"),
        (Register("another"), "phase"),
        (Unregister(), Ignored("already_ending")),
        (Destroy(), (RevokeEdges(), SessionFinished(Ending.DESTROY))),
        (REGISTER, "phase"),
        (Destroy(), Ignored("already_ending")),
    ])  # fmt: skip
    assert end == DESTROYED


@pytest.mark.parametrize(("end", "ending"), [(Unregister(), Ending.UNREGISTER), (Destroy(), Ending.DESTROY)])
def test_leaving_for_good_unbinds_the_supervisor_at_once_but_keeps_the_floor(end: Input, ending: Ending) -> None:
    state = after(REGISTER, OWN, SPAWN, BindSupervisor(bound(ANN, 4)))
    step = apply(state, end)
    assert step.effects == (CancelDrain(1), RevokeEdges())
    assert step.after.supervisor.binding == Unbound()
    assert (step.after.supervisor.previous, dict(step.after.supervisor.obligations)) == (None, {})
    finished = apply(step.after, DrainExited(1, SHUTDOWN))
    assert finished.effects == (ended(1, SHUTDOWN), SessionFinished(ending))
    assert finished.after.supervisor.epoch_floor == 4


def test_stopping_keeps_the_supervisor_until_the_end() -> None:
    state = after(REGISTER, OWN, SPAWN, BindSupervisor(bound(ANN, 4)), Stop())
    assert state.supervisor.binding == bound(ANN, 4)
    assert after(DrainExited(1, SHUTDOWN), state=state).supervisor.binding == Unbound()


def test_a_wait_for_a_respawn_ends_with_the_session() -> None:
    state = after(REGISTER, AttachExecutor(), OWN, SPAWN, DrainExited(1, FAILED))
    step = apply(state, Stop())
    assert step.effects == (CancelRespawn(), StopExecutor())
    assert step.after.drain.phase is CommsDrainPhase.STOPPED
    tell([(RespawnDue(1), Ignored("ending")), (RespawnDue(0), Ignored("stale_generation"))], step.after)


def test_a_drain_that_fails_while_the_session_ends_is_not_respawned() -> None:
    state = after(Stop(), DrainExited(1, FAILED), state=BUSY)
    assert state.drain.phase is CommsDrainPhase.INACTIVE


def test_a_dismissed_drain_stops_the_session() -> None:
    step = apply(BUSY, DrainExited(1, _R.DISMISSED))
    assert step.effects == (ended(1, _R.DISMISSED), StopExecutor())
    assert step.after.session.ending is Ending.STOP
    last = apply(step.after, ExecutorStopped())
    assert last.effects == (SessionFinished(Ending.STOP),)
    alone = apply(after(REGISTER, OWN, SPAWN), DrainExited(1, _R.DISMISSED))
    assert alone.effects == (ended(1, _R.DISMISSED), SessionFinished(Ending.STOP))


def test_a_dismissal_lowers_no_ending() -> None:
    state = after(Destroy(), DrainExited(1, _R.DISMISSED), state=BUSY)
    assert state.session.ending is Ending.DESTROY


def test_what_an_end_leaves_is_nothing_but_counters_and_how_it_ended() -> None:
    state = after(
        AddDirectPeerEndpoint(ALICE), ApplyMobPeerOverlay(3, (BOB,)), PublishLocalEndpoint(EVE),
        OpenRequest("c", ALICE.peer_id), BindSupervisor(bound(ANN, 2)), OWN, SPAWN, state=IDLE,
    )  # fmt: skip
    state = after(Stop(), DrainExited(1, SHUTDOWN), state=state)
    assert (state.counters.generation, state.counters.projection_epoch) == (1, 2)
    assert (state.counters.overlay_epoch, state.counters.epoch_floor) == (3, 2)
    assert state.drain.last_exit == DrainExit(generation=1, reason=SHUTDOWN)
    fresh = after(REGISTER, state=STOPPED)
    revived = after(REGISTER, state=state)
    assert revived.session == fresh.session
    assert (revived.ingress, revived.requests) == (fresh.ingress, fresh.requests)
    assert dict(revived.effective_peers) == {}
    assert revived.peers.local_endpoint is None


def test_a_spawn_keeps_what_it_was_asked_for() -> None:
    drain = after(OWN, SpawnDrain(TIMED, 12.5), state=IDLE).drain
    assert (drain.mode, drain.idle_timeout, drain.generation) == (TIMED, 12.5, 1)


def test_no_owner_is_no_owner_whoever_wrote_it_down() -> None:
    """A state that was stored and read again holds an equal value, not the same object."""
    nobody = attrs.evolve(IDLE, ingress=Unattached())
    tell([(SPAWN, "ingress_owned"), (DetachIngress(Detacher("mob")), Ignored("unattached"))], nobody)
