"""What a step leaves in the state, field by field, typed in by hand."""

from __future__ import annotations

import pytest

from meerkat_trio.authority import (
    AddDirectPeerEndpoint,
    AdmissionTrust,
    Admit,
    ApplyMobPeerOverlay,
    AttachExecutor,
    AttachMobIngress,
    AuthorizeSupervisor,
    BeginRun,
    BindSupervisor,
    CommsDrainPhase,
    Counters,
    Destroy,
    DrainExit,
    DrainExited,
    DrainExitReason,
    DrainRegion,
    DrainStarted,
    DrainStopping,
    Ending,
    EnvelopeKind,
    Input,
    IssueBootstrapToken,
    MobOwned,
    OpenRequest,
    PeersRegion,
    PublishLocalEndpoint,
    RebindDrain,
    Register,
    Remembered,
    RequestsRegion,
    RequestStatus,
    RespawnDue,
    ResponseArrived,
    ResponseStatus,
    Restore,
    Retire,
    RevokeSupervisor,
    RunFinished,
    RunOutcome,
    SessionFinished,
    SessionPhase,
    SessionRegion,
    SessionState,
    SetSilentIntents,
    SpawnDrain,
    Stop,
    StopDrain,
    SupervisorRegion,
    SupervisorTrustEdgePublished,
    Unattached,
    Unregister,
    apply,
)

from .cast import (
    ALICE,
    ALICE_MOVED,
    ANN,
    BEN,
    BOB,
    EVE,
    IDLE,
    IDLE_TIMEOUT,
    MOB_PEER,
    MODE,
    OWN,
    OWN_BY_MOB,
    REGISTER,
    STOPPED,
    after,
    bound,
    endpoint,
    supervisor_id,
)
from .walks import explored

HUSH = frozenset({"hush"})
PERSISTENT_7 = SpawnDrain(MODE, 7.0)
STARTING, RUNNING = CommsDrainPhase.STARTING, CommsDrainPhase.RUNNING
FAILED = DrainExit(generation=1, reason=DrainExitReason.FAILED)

# --- drains ----------------------------------------------------------------------------------------

STARTED = after(OWN, PERSISTENT_7, DrainStarted(1), state=IDLE)
WAITING = after(DrainExited(1, DrainExitReason.FAILED), state=STARTED)


def region(phase: CommsDrainPhase, generation: int, last_exit: DrainExit | None = None) -> DrainRegion:
    """A live drain that nobody stops."""
    return DrainRegion(phase, MODE, 7.0, generation, None, last_exit)


@pytest.mark.parametrize(
    ("state", "input_", "expected"),
    [
        (after(OWN, state=IDLE), PERSISTENT_7, region(STARTING, 1)),
        (STARTED, RebindDrain(), region(STARTING, 2)),
        (after(RebindDrain(), state=STARTED), DrainStarted(1), region(STARTING, 2)),
        (after(RebindDrain(), state=STARTED), DrainStarted(2), region(RUNNING, 2)),
        (WAITING, RespawnDue(1), region(STARTING, 2, FAILED)),
        (WAITING, PERSISTENT_7, region(STARTING, 2, FAILED)),
        (after(RespawnDue(1), state=WAITING), DrainStarted(2), region(RUNNING, 2, FAILED)),
        (after(RespawnDue(1), state=WAITING), RebindDrain(), region(STARTING, 3, FAILED)),
        (
            after(RespawnDue(1), state=WAITING),
            StopDrain(DrainStopping.DETACH),
            DrainRegion(STARTING, MODE, 7.0, 2, DrainStopping.DETACH, FAILED),
        ),
        (
            after(StopDrain(DrainStopping.ABORT), state=STARTED),
            Stop(),
            DrainRegion(RUNNING, MODE, 7.0, 1, DrainStopping.SHUTDOWN, None),
        ),
        (
            after(OWN, PERSISTENT_7, StopDrain(DrainStopping.ABORT), state=IDLE),
            DrainStarted(1),
            DrainRegion(RUNNING, MODE, 7.0, 1, DrainStopping.ABORT, None),
        ),
        (
            WAITING,
            StopDrain(DrainStopping.ABORT),
            DrainRegion(CommsDrainPhase.STOPPED, None, 7.0, 1, None, FAILED),
        ),
        (
            # With an executor, so that the session does not finish in the same step.
            after(AttachExecutor(), state=WAITING),
            Stop(),
            DrainRegion(CommsDrainPhase.STOPPED, None, 7.0, 1, None, FAILED),
        ),
        (
            WAITING,
            DrainExited(1, DrainExitReason.ABORTED),
            DrainRegion(CommsDrainPhase.EXITED_RESPAWNABLE, MODE, 7.0, 1, None, FAILED),
        ),
    ],
)
def test_what_a_step_leaves_of_the_drain(state: SessionState, input_: Input, expected: DrainRegion) -> None:
    assert expected == after(input_, state=state).drain


def test_a_mob_that_attaches_again_leaves_its_peer_as_it_is() -> None:
    again = AttachMobIngress(
        comms_runtime_id="comms", mob_id="mob", mob_peer_id=BOB.peer_id, mode=MODE, idle_timeout=IDLE_TIMEOUT
    )
    expected = MobOwned(comms_runtime_id="comms", mob_id="mob", mob_peer_id=MOB_PEER)
    assert expected == after(OWN_BY_MOB, again, state=IDLE).ingress


# --- the session -----------------------------------------------------------------------------------

SILENT = after(REGISTER, SetSilentIntents(HUSH), AttachExecutor())
RUN, RUN_OVER = BeginRun("run", "message"), RunFinished("run", RunOutcome.CONSUMED)


def test_silent_intents_stand_until_the_session_has_ended() -> None:
    for more in ((), (RUN,), (RUN, RUN_OVER), (Retire(),), (RUN, Retire()), (RUN, Stop()), (Unregister(),)):
        assert after(*more, state=SILENT).session.silent_intents == HUSH, more


# --- ends ------------------------------------------------------------------------------------------

LIVED: tuple[Input, ...] = (
    REGISTER,
    SetSilentIntents(HUSH),
    AddDirectPeerEndpoint(ALICE),
    ApplyMobPeerOverlay(3, (BOB,)),
    PublishLocalEndpoint(EVE),
    OpenRequest("c", ALICE.peer_id),
    Admit(EnvelopeKind.REQUEST, ALICE.peer_id, AdmissionTrust.NONE, "ask", "d"),
    BindSupervisor(bound(ANN, 2)),
    SupervisorTrustEdgePublished(supervisor_id(ANN), 2),
    RevokeSupervisor(supervisor_id(ANN), 2),
    BindSupervisor(bound(ANN, 5)),
    SupervisorTrustEdgePublished(supervisor_id(ANN), 5),
    AuthorizeSupervisor(bound(BEN, 6)),
    IssueBootstrapToken(b"hash"),
    OWN_BY_MOB,
    PERSISTENT_7,
)


@pytest.mark.parametrize(
    ("end", "phase", "ending"),
    [
        (Stop(), SessionPhase.STOPPED, Ending.STOP),
        (Unregister(), SessionPhase.STOPPED, Ending.UNREGISTER),
        (Destroy(), SessionPhase.DESTROYED, Ending.DESTROY),
    ],
)
@pytest.mark.parametrize("last", [DrainExitReason.SESSION_SHUTDOWN, DrainExitReason.DISMISSED])
def test_what_an_end_leaves_of_everything(
    end: Input, phase: SessionPhase, ending: Ending, last: DrainExitReason
) -> None:
    expected = SessionState(
        SessionRegion(phase, "s", ending=ending, ended=ending),
        DrainRegion(generation=1, last_exit=DrainExit(generation=1, reason=last)),
        Unattached(),
        SupervisorRegion(epoch_floor=6),
        PeersRegion(projection_epoch=2, overlay_epoch=3),
        RequestsRegion(),
    )
    assert expected == after(*LIVED, end, DrainExited(1, last))


def test_an_end_that_meets_no_live_drain_leaves_no_trace_of_one() -> None:
    expected = DrainRegion(generation=1, last_exit=FAILED)
    assert expected == after(Stop(), state=WAITING).drain
    aborted = after(DrainExited(1, DrainExitReason.ABORTED), Stop(), state=STARTED)
    assert aborted.drain == DrainRegion(generation=1, last_exit=DrainExit(generation=1, reason=DrainExitReason.ABORTED))


@pytest.mark.parametrize("end", [Unregister(), Destroy()])
def test_while_it_leaves_for_good_a_session_keeps_of_its_supervisor_what_a_retry_needs(end: Input) -> None:
    expected = SupervisorRegion(epoch_floor=6, last_revoked=(supervisor_id(ANN), 2), token_hash=b"hash")
    assert expected == after(*LIVED, end).supervisor


@pytest.mark.parametrize(
    ("counters", "floor", "projection"),
    [(Counters(), 0, 0), (Counters(generation=3, projection_epoch=8, overlay_epoch=9, epoch_floor=7), 7, 8)],
)
def test_what_was_set_while_it_was_stopped_outlives_the_revival(
    counters: Counters, floor: int, projection: int
) -> None:
    revived = after(SetSilentIntents(HUSH), IssueBootstrapToken(b"hash"), Register("s", counters), state=STOPPED)
    assert revived.session == SessionRegion(SessionPhase.IDLE, "s", silent_intents=HUSH)
    assert revived.supervisor == SupervisorRegion(epoch_floor=floor, token_hash=b"hash")
    assert revived.peers.projection_epoch == projection


# --- peers and requests ----------------------------------------------------------------------------


def test_the_supervisors_in_force_go_over_the_direct_peers_and_those_over_the_overlay() -> None:
    boss, next_boss = bound(ANN, 1), bound(BEN, 2)
    state = after(
        ApplyMobPeerOverlay(1, (ALICE_MOVED, BOB, endpoint(ANN, "overlay"))),
        AddDirectPeerEndpoint(ALICE),
        AddDirectPeerEndpoint(endpoint(ANN, "direct")),
        BindSupervisor(boss),
        SupervisorTrustEdgePublished(boss.peer_id, 1),
        AuthorizeSupervisor(next_boss),
        state=IDLE,
    )
    names = {peer_id: (peer.name, str(peer.address)) for peer_id, peer in state.effective_peers.items()}
    assert names == {
        ALICE.peer_id: ("alice", "tcp://host:4000"),
        BOB.peer_id: ("bob", "tcp://host:4000"),
        boss.peer_id: ("supervisor", "inproc://boss"),
        next_boss.peer_id: ("supervisor", "inproc://boss"),
    }


def test_in_a_rotation_to_the_same_peer_its_new_address_is_the_one_to_use() -> None:
    from_there = bound(ANN, 1)
    from_here = type(from_there)(
        name="moved",
        peer_id=from_there.peer_id,
        address="inproc://moved",
        signing_key=from_there.signing_key,
        epoch=2,
    )
    confirmed = after(BindSupervisor(from_there), SupervisorTrustEdgePublished(from_there.peer_id, 1), state=IDLE)
    state = after(AuthorizeSupervisor(from_here), state=confirmed)
    assert state.supervisor.previous == from_there
    assert state.effective_peers[from_there.peer_id].name == "moved"


@pytest.mark.parametrize("intent", ["hush", "ask"])
def test_an_inbound_request_is_recorded_be_it_silent_or_not(intent: str) -> None:
    ask = Admit(EnvelopeKind.REQUEST, ALICE.peer_id, AdmissionTrust.MANUAL, intent, "c")
    state = after(SetSilentIntents(HUSH), ask, state=IDLE)
    assert state.requests == RequestsRegion({}, frozenset({(ALICE.peer_id, "c")}))


def test_an_accepted_request_is_marked_and_stays_open() -> None:
    state = after(
        OpenRequest("c", ALICE.peer_id),
        OpenRequest("d", BOB.peer_id),
        ResponseArrived("c", ALICE.peer_id, ResponseStatus.ACCEPTED),
        state=IDLE,
    )
    assert dict(state.requests.outbound) == {
        "c": (ALICE.peer_id, RequestStatus.ACCEPTED),
        "d": (BOB.peer_id, RequestStatus.SENT),
    }


def test_what_is_remembered_of_a_session_is_what_it_goes_on_with() -> None:
    states = {id(step.after): step.after for step in explored().steps if step.after.session.ending is None}
    for state in states.values():
        if state.session.phase is SessionPhase.INITIALIZING:
            continue
        restored = apply(SessionState.initial("s"), Restore(state.remembered)).after
        assert restored.remembered == state.remembered
        assert restored.session.phase is (
            SessionPhase.RETIRED if state.session.phase is SessionPhase.RETIRED else SessionPhase.IDLE
        )
        assert not restored.drain.live
        assert not restored.session.executor_attached
        assert isinstance(restored.ingress, Unattached)


@pytest.mark.parametrize("ending", Ending)
def test_a_session_that_was_told_to_end_has_ended_when_it_is_restored(ending: Ending) -> None:
    was = Remembered(session_id="s", ending=ending, supervisor=bound(ANN, 3), counters=Counters(epoch_floor=3))
    step = apply(SessionState.initial("s"), Restore(was))
    assert step.after.session.ended is ending
    assert step.effects == (SessionFinished(ending),)
    assert step.after.counters.epoch_floor == 3
