"""Every input in every phase: the row that takes it, the guard that refuses it, or "phase". Typed in by hand."""

from __future__ import annotations

import pytest

from meerkat_trio.authority import (
    COMMANDS,
    OBSERVATIONS,
    AddDirectPeerEndpoint,
    AdmissionTrust,
    Admit,
    ApplyMobPeerOverlay,
    AttachExecutor,
    AuthorizeSupervisor,
    BeginRun,
    BindSupervisor,
    BootstrapTokenUsed,
    ClearLocalEndpoint,
    CloseRequest,
    Destroy,
    Detacher,
    DetachExecutor,
    DetachIngress,
    DrainExited,
    DrainExitReason,
    DrainStarted,
    DrainStopping,
    EnvelopeKind,
    ExecutorStopped,
    Input,
    IssueBootstrapToken,
    OpenRequest,
    PublishLocalEndpoint,
    RebindDrain,
    Remembered,
    RemoveDirectPeerEndpoint,
    ReplySent,
    RespawnDue,
    RespawnGivenUp,
    ResponseArrived,
    ResponseStatus,
    Restore,
    Retire,
    RevokeSupervisor,
    RunFinished,
    RunOutcome,
    SessionPhase,
    SessionState,
    SetSilentIntents,
    Stop,
    StopDrain,
    SupervisorTrustEdgePublished,
    SupervisorTrustEdgePublishFailed,
    SupervisorTrustEdgeRevoked,
    SupervisorTrustEdgeRevokeFailed,
    TransitionRejected,
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
    IN_PHASE,
    OWN,
    OWN_BY_MOB,
    REGISTER,
    SPAWN,
    after,
    bound,
    supervisor_id,
)

alice, ann = ALICE.peer_id, supervisor_id(ANN)
RESTORE = Restore(Remembered(session_id="s"))
EXECUTOR, RUN = AttachExecutor(), BeginRun("run", "message")
ASK = Admit(EnvelopeKind.REQUEST, alice, AdmissionTrust.NONE, "ask", "c")
SAY = Admit(EnvelopeKind.MESSAGE, alice, AdmissionTrust.MANUAL)


def answer(state: SessionState, input_: Input) -> str:
    try:
        return apply(state, input_).row.name
    except TransitionRejected as rejected:
        return rejected.guard


def cells(line: str) -> list[str]:
    """Read cells, one per phase: a word may have a number in front of it, for as many phases in a row."""
    found: list[str] = []
    times = 1
    for word in line.split():
        if word.isdigit():
            times = int(word)
        else:
            found += times * [word]
            times = 1
    return found


# INITIALIZING, IDLE, ATTACHED, RUNNING, RETIRED, STOPPED, DESTROYED, and nothing else has happened.
BARE: list[tuple[Input, str]] = [
    (REGISTER, "register 4 phase revive phase"),
    (RESTORE, "restore 6 phase"),
    (EXECUTOR, "phase attach-executor 2 phase attach-executor 2 phase"),
    (SetSilentIntents(frozenset()), "phase 5 set-silent-intents phase"),
    (BeginRun("next", "m"), "2 phase begin-run phase executor_attached 2 phase"),
    (RunFinished("run", RunOutcome.CONSUMED), "3 run-finished-stale run-finished 3 run-finished-stale"),
    (DetachExecutor(), "phase detach-executor-absent 2 detach-executor 2 detach-executor-absent phase"),
    (ExecutorStopped(), "2 executor-stopped-stale 2 executor-stopped 3 executor-stopped-stale"),
    (Retire(), "phase 3 retire retire-again 2 phase"),
    (Stop(), "phase 4 stop 2 stop-again"),
    (Unregister(), "phase 5 unregister unregister-again"),
    (Destroy(), "phase 5 destroy destroy-again"),
    (OWN, "phase 4 attach-session-ingress not_ending phase"),
    (OWN_BY_MOB, "phase 4 attach-mob-ingress not_ending phase"),
    (DetachIngress(Detacher("mob")), "phase 5 detach-ingress-unowned phase"),
    (SPAWN, "phase 4 ingress_owned not_ending phase"),
    (RebindDrain(), "phase 4 drain_is_live not_ending phase"),
    (StopDrain(DrainStopping.ABORT), "phase 5 stop-no-drain phase"),
    (DrainStarted(1), "7 drain-started-stale"),
    (DrainExited(1, DrainExitReason.ABORTED), "7 drain-exited-stale"),
    (RespawnDue(1), "7 respawn-due-stale"),
    (RespawnGivenUp(1), "7 respawn-given-up-stale"),
    (BindSupervisor(bound(ANN, 4)), "phase 4 bind-supervisor not_ending phase"),
    (AuthorizeSupervisor(bound(BEN, 5)), "phase 4 supervisor_bound not_ending phase"),
    (RevokeSupervisor(ann, 3), "phase 5 supervisor_bound phase"),
    (SupervisorTrustEdgePublished(ann, 3), "7 supervisor-published-not-owed"),
    (SupervisorTrustEdgePublishFailed(peer_id=ann, epoch=3, reason=""), "7 supervisor-publish-failed-not-owed"),
    (SupervisorTrustEdgeRevoked(ann, 3), "7 supervisor-revoked-not-owed"),
    (SupervisorTrustEdgeRevokeFailed(peer_id=ann, epoch=3, reason=""), "7 supervisor-revoke-failed-not-owed"),
    (IssueBootstrapToken(b"hash"), "phase 5 issue-bootstrap-token phase"),
    (BootstrapTokenUsed(), "phase 5 token_present phase"),
    (PublishLocalEndpoint(EVE), "phase 3 publish-local-endpoint 3 phase"),
    (ClearLocalEndpoint(), "phase 3 local_endpoint_present 3 phase"),
    (AddDirectPeerEndpoint(ALICE_MOVED), "phase 3 add-direct-peer 3 phase"),
    (RemoveDirectPeerEndpoint(alice), "phase 3 endpoint_present_in_direct 3 phase"),
    (ApplyMobPeerOverlay(5, ()), "phase 3 apply-mob-overlay 3 phase"),
    (SAY, "drop-in-phase 3 admit-message drop-in-phase 2 not_ending"),
    (OpenRequest("another", alice), "phase 3 open-request 3 phase"),
    (ResponseArrived("asked", alice, ResponseStatus.COMPLETED), "7 response-stale"),
    (CloseRequest("asked"), "7 close-request-stale"),
    (ReplySent(alice, "c"), "7 reply-sent-stale"),
]

FURNITURE: tuple[Input, ...] = (
    OWN_BY_MOB,
    SPAWN,
    DrainStarted(1),
    BindSupervisor(bound(ANN, 3)),
    IssueBootstrapToken(b"hash"),
    PublishLocalEndpoint(EVE),
    AddDirectPeerEndpoint(ALICE),
    ApplyMobPeerOverlay(4, (BOB,)),
    OpenRequest("asked", alice),
    ASK,
)
FURNISHED = [
    after(REGISTER, *FURNITURE, *more)
    for more in ((), (EXECUTOR,), (EXECUTOR, RUN), (EXECUTOR, Retire()), (EXECUTOR, RUN, Stop()))
]

# IDLE, ATTACHED, RUNNING, RETIRED with an executor, RUNNING while it ends; with all that can be there.
IN_FURNISHED: list[tuple[Input, str]] = [
    (REGISTER, "5 phase"),
    (RESTORE, "5 phase"),
    (EXECUTOR, "attach-executor 2 phase executor_absent phase"),
    (SetSilentIntents(frozenset()), "5 set-silent-intents"),
    (BeginRun("next", "m"), "phase begin-run phase begin-run phase"),
    (RunFinished("run", RunOutcome.CONSUMED), "2 run-finished-stale run-finished run-finished-stale run-finished"),
    (DetachExecutor(), "detach-executor-absent 4 detach-executor"),
    (ExecutorStopped(), "executor-stopped-stale 4 executor-stopped"),
    (Retire(), "3 retire retire-again retire"),
    (Stop(), "4 stop stop-again"),
    (Unregister(), "5 unregister"),
    (Destroy(), "5 destroy"),
    (OWN, "4 owner_allows_session_attach not_ending"),
    (OWN_BY_MOB, "4 attach-mob-ingress not_ending"),
    (DetachIngress(Detacher("mob")), "4 no_drain_or_stopping detach-ingress"),
    (SPAWN, "4 drain_can_spawn not_ending"),
    (RebindDrain(), "4 rebind-drain not_ending"),
    (StopDrain(DrainStopping.ABORT), "4 stop-drain stop-drain-again"),
    (DrainStarted(1), "5 drain-started-again"),
    (DrainExited(1, DrainExitReason.ABORTED), "5 drain-exited"),
    (RespawnDue(1), "4 respawn-due-stale respawn-due-ending"),
    (RespawnGivenUp(1), "5 respawn-given-up-stale"),
    (BindSupervisor(bound(ANN, 4)), "4 supervisor_unbound not_ending"),
    (AuthorizeSupervisor(bound(BEN, 5)), "4 authorize-supervisor not_ending"),
    (RevokeSupervisor(ann, 3), "5 revoke-supervisor"),
    (SupervisorTrustEdgePublished(ann, 3), "5 supervisor-published"),
    (SupervisorTrustEdgePublishFailed(peer_id=ann, epoch=3, reason=""), "5 supervisor-publish-failed"),
    (SupervisorTrustEdgeRevoked(ann, 3), "5 supervisor-revoked-not-owed"),
    (SupervisorTrustEdgeRevokeFailed(peer_id=ann, epoch=3, reason=""), "5 supervisor-revoke-failed-not-owed"),
    (IssueBootstrapToken(b"hash"), "5 issue-bootstrap-token"),
    (BootstrapTokenUsed(), "5 bootstrap-token-used"),
    (PublishLocalEndpoint(EVE), "3 publish-local-endpoint phase not_ending"),
    (ClearLocalEndpoint(), "3 clear-local-endpoint phase not_ending"),
    (AddDirectPeerEndpoint(ALICE_MOVED), "3 add-direct-peer phase not_ending"),
    (RemoveDirectPeerEndpoint(alice), "3 remove-direct-peer phase not_ending"),
    (ApplyMobPeerOverlay(5, ()), "3 apply-mob-overlay phase not_ending"),
    (SAY, "3 admit-message drop-in-phase not_ending"),
    (OpenRequest("another", alice), "3 open-request phase not_ending"),
    (ResponseArrived("asked", alice, ResponseStatus.COMPLETED), "5 response-terminal"),
    (CloseRequest("asked"), "5 close-request"),
    (ReplySent(alice, "c"), "5 reply-sent"),
]

WAITING = [
    after(REGISTER, OWN_BY_MOB, SPAWN, DrainExited(1, DrainExitReason.FAILED), *more)
    for more in ((), (EXECUTOR,), (EXECUTOR, RUN), (Retire(),))
]

# IDLE, ATTACHED, RUNNING, RETIRED, while a drain that failed waits for its respawn.
IN_WAITING: list[tuple[Input, str]] = [
    (OWN_BY_MOB, "4 attach-mob-ingress"),
    (DetachIngress(Detacher("mob")), "4 detach-ingress"),
    (SPAWN, "4 spawn-drain"),
    (RebindDrain(), "4 drain_is_live"),
    (StopDrain(DrainStopping.DETACH), "4 stop-respawn"),
    (RespawnDue(1), "4 respawn-due"),
    (RespawnGivenUp(1), "4 respawn-given-up"),
]


@pytest.mark.parametrize(("input_", "expected"), BARE, ids=lambda it: type(it).__name__)
def test_what_an_input_meets_in_each_phase(input_: Input, expected: str) -> None:
    assert cells(expected) == [answer(state, input_) for state in IN_PHASE.values()]


@pytest.mark.parametrize(("input_", "expected"), IN_FURNISHED, ids=lambda it: type(it).__name__)
def test_what_an_input_meets_where_everything_is_there(input_: Input, expected: str) -> None:
    assert cells(expected) == [answer(state, input_) for state in FURNISHED]


@pytest.mark.parametrize(("input_", "expected"), IN_WAITING, ids=lambda it: type(it).__name__)
def test_what_an_input_meets_while_a_failed_drain_waits(input_: Input, expected: str) -> None:
    assert cells(expected) == [answer(state, input_) for state in WAITING]


def test_the_matrices_have_every_input_and_every_phase() -> None:
    for matrix in (BARE, IN_FURNISHED):
        assert [type(input_) for input_, _ in matrix] == list(dict.fromkeys(type(input_) for input_, _ in matrix))
        assert {type(input_) for input_, _ in matrix} == {*COMMANDS, *OBSERVATIONS}
    assert list(IN_PHASE) == list(SessionPhase)
    assert [state.session.phase for state in FURNISHED] == [
        SessionPhase.IDLE,
        SessionPhase.ATTACHED,
        SessionPhase.RUNNING,
        SessionPhase.RETIRED,
        SessionPhase.RUNNING,
    ]
