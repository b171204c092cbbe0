"""Every cell of the matrices. What is expected is typed in by hand, never derived from the table."""

from __future__ import annotations

import pytest

from meerkat_trio.authority import (
    ACTIVE,
    BRIDGE_INTENT,
    LIVE,
    AddDirectPeerEndpoint,
    AdmissionClass,
    AdmissionTrust,
    Admit,
    Admitted,
    ApplyMobPeerOverlay,
    AttachMobIngress,
    AttachSessionIngress,
    BindSupervisor,
    CommsDrainMode,
    CommsDrainPhase,
    Detacher,
    DetachIngress,
    DrainEnding,
    DrainExit,
    DrainExited,
    DrainExitReason,
    DrainStarted,
    DrainStopping,
    Dropped,
    DropReason,
    Effect,
    EnvelopeKind,
    Input,
    MobOwned,
    OpenRequest,
    PeerId,
    PeerIngressOwner,
    ReplySent,
    ResponseStatus,
    SessionOwned,
    SessionPhase,
    SessionState,
    SetSilentIntents,
    SpawnDrain,
    StopDrain,
    TransitionRejected,
    Unattached,
    apply,
    exit_reason,
)

from .cast import (
    ALICE,
    ANN,
    ATTACHED,
    BOB,
    DESTROYED,
    EVE,
    IDLE,
    IDLE_TIMEOUT,
    INITIAL,
    MOB_PEER,
    MODE,
    OWN,
    OWN_BY_MOB,
    RETIRED,
    RUNNING,
    SPAWN,
    STOPPED,
    TIMED,
    after,
    bound,
    supervisor_id,
)


def guard_of(state: SessionState, input_: Input) -> str:
    with pytest.raises(TransitionRejected) as rejected:
        apply(state, input_)
    return rejected.value.guard


# --- who owns the ingress --------------------------------------------------------------------------


def by_session(rid: str) -> AttachSessionIngress:
    return AttachSessionIngress(rid, MODE, IDLE_TIMEOUT)


def by_mob(rid: str, mob: str) -> AttachMobIngress:
    return AttachMobIngress(comms_runtime_id=rid, mob_id=mob, mode=MODE, idle_timeout=IDLE_TIMEOUT)


def mob_owned(rid: str, mob: str) -> MobOwned:
    return MobOwned(comms_runtime_id=rid, mob_id=mob)


NOBODY = IDLE
SESSION = after(by_session("r"), state=IDLE)
MOB = after(by_mob("r", "m"), state=IDLE)
NO_SESSION, NO_MOB, NOT_YOURS = "owner_allows_session_attach", "owner_allows_mob_attach", "detacher_owns"
OWNER_MATRIX: list[tuple[SessionState, Input, PeerIngressOwner | str]] = [
    (NOBODY, by_session("r"), SessionOwned("r")),
    (NOBODY, by_session("other"), SessionOwned("other")),
    (NOBODY, by_mob("r", "m"), mob_owned("r", "m")),
    (NOBODY, by_mob("r", "other"), mob_owned("r", "other")),
    (NOBODY, DetachIngress(Detacher()), Unattached()),
    (NOBODY, DetachIngress(Detacher("m")), Unattached()),
    (NOBODY, DetachIngress(Detacher("other")), Unattached()),
    (SESSION, by_session("r"), SessionOwned("r")),
    (SESSION, by_session("other"), NO_SESSION),
    (SESSION, by_mob("r", "m"), mob_owned("r", "m")),
    (SESSION, by_mob("other", "m"), mob_owned("other", "m")),
    (SESSION, DetachIngress(Detacher()), Unattached()),
    (SESSION, DetachIngress(Detacher("m")), NOT_YOURS),
    (SESSION, DetachIngress(Detacher("other")), NOT_YOURS),
    (MOB, by_session("r"), NO_SESSION),
    (MOB, by_session("other"), NO_SESSION),
    (MOB, by_mob("r", "m"), mob_owned("r", "m")),
    (MOB, by_mob("r", "other"), NO_MOB),
    (MOB, by_mob("other", "m"), NO_MOB),
    (MOB, by_mob("other", "other"), NO_MOB),
    (MOB, DetachIngress(Detacher()), NOT_YOURS),
    (MOB, DetachIngress(Detacher("m")), Unattached()),
    (MOB, DetachIngress(Detacher("other")), NOT_YOURS),
]


@pytest.mark.parametrize(("state", "input_", "expected"), OWNER_MATRIX)
def test_the_owner_matrix(state: SessionState, input_: Input, expected: PeerIngressOwner | str) -> None:
    if isinstance(expected, str):
        assert guard_of(state, input_) == expected
        return
    step = apply(state, input_)
    assert (step.after.ingress, step.effects) == (expected, ())
    if expected == state.ingress:
        assert step.after is state


@pytest.mark.parametrize(
    ("state", "input_"),
    [(NOBODY, DetachIngress(Detacher())), (NOBODY, DetachIngress(Detacher("m")))],
)
def test_detaching_what_nobody_owns_says_that_it_did_nothing(state: SessionState, input_: Input) -> None:
    assert apply(state, input_).ignored == "unattached"


@pytest.mark.parametrize("owner", [OWN, OWN_BY_MOB])
@pytest.mark.parametrize(
    ("mode", "idle_timeout", "guard"),
    [(MODE, IDLE_TIMEOUT, None), (TIMED, IDLE_TIMEOUT, "mode_matches"), (MODE, 1.0, "mode_matches")],
)
@pytest.mark.parametrize("attach", ["session", "mob"])
def test_a_live_drain_keeps_its_mode_and_time_out(
    owner: Input, attach: str, mode: CommsDrainMode, idle_timeout: float, guard: str | None
) -> None:
    state = after(owner, SPAWN, state=IDLE)
    ask: Input = AttachSessionIngress("comms", mode, idle_timeout)
    if attach == "mob":
        ask = AttachMobIngress(comms_runtime_id="comms", mob_id="mob", mode=mode, idle_timeout=idle_timeout)
    elif owner is OWN_BY_MOB:
        guard = NO_SESSION  # the owner is asked about first
    if guard is None:
        apply(state, ask)
    else:
        assert guard_of(state, ask) == guard
    stopping = after(StopDrain(DrainStopping.ABORT), state=state)
    if guard == "mode_matches":
        apply(stopping, ask)


@pytest.mark.parametrize("owner", [SESSION, MOB])
def test_an_owner_cannot_leave_a_drain_behind(owner: SessionState) -> None:
    detach = DetachIngress(Detacher("m" if owner is MOB else None))
    live = after(SPAWN, state=owner)
    assert guard_of(live, detach) == "no_drain_or_stopping"
    assert after(StopDrain(DrainStopping.DETACH), detach, state=live).ingress == Unattached()


# --- why a drain ended -----------------------------------------------------------------------------

_R = DrainExitReason
REASON_MATRIX = [
    (DrainEnding.EXCEPTION, None, _R.FAILED),
    (DrainEnding.EXCEPTION, DrainStopping.ABORT, _R.ABORTED),
    (DrainEnding.EXCEPTION, DrainStopping.DETACH, _R.ABORTED),
    (DrainEnding.EXCEPTION, DrainStopping.SHUTDOWN, _R.SESSION_SHUTDOWN),
    (DrainEnding.CANCELLED, None, _R.SESSION_SHUTDOWN),
    (DrainEnding.CANCELLED, DrainStopping.ABORT, _R.ABORTED),
    (DrainEnding.CANCELLED, DrainStopping.DETACH, _R.ABORTED),
    (DrainEnding.CANCELLED, DrainStopping.SHUTDOWN, _R.SESSION_SHUTDOWN),
    (DrainEnding.IDLE, None, _R.IDLE_TIMEOUT),
    (DrainEnding.IDLE, DrainStopping.ABORT, _R.ABORTED),
    (DrainEnding.IDLE, DrainStopping.DETACH, _R.ABORTED),
    (DrainEnding.IDLE, DrainStopping.SHUTDOWN, _R.SESSION_SHUTDOWN),
    (DrainEnding.DISMISSED, None, _R.DISMISSED),
    (DrainEnding.DISMISSED, DrainStopping.ABORT, _R.DISMISSED),
    (DrainEnding.DISMISSED, DrainStopping.DETACH, _R.DISMISSED),
    (DrainEnding.DISMISSED, DrainStopping.SHUTDOWN, _R.DISMISSED),
]


@pytest.mark.parametrize(("ending", "stopping", "reason"), REASON_MATRIX)
def test_the_reason_matrix(ending: DrainEnding, stopping: DrainStopping | None, reason: DrainExitReason) -> None:
    assert exit_reason(ending, stopping) is reason


# --- what becomes of a drain that ended ------------------------------------------------------------

_PERSISTENT, _TIMED, _SESSION = CommsDrainMode.PERSISTENT_HOST, CommsDrainMode.TIMED, CommsDrainMode.ATTACHED_SESSION
_GONE, _STOPPED, _AGAIN = CommsDrainPhase.INACTIVE, CommsDrainPhase.STOPPED, CommsDrainPhase.EXITED_RESPAWNABLE
EXIT_MATRIX = [
    (_PERSISTENT, _R.FAILED, _AGAIN),
    (_PERSISTENT, _R.ABORTED, _STOPPED),
    (_PERSISTENT, _R.SESSION_SHUTDOWN, _STOPPED),
    (_PERSISTENT, _R.IDLE_TIMEOUT, _GONE),
    (_PERSISTENT, _R.DISMISSED, _GONE),
    (_TIMED, _R.FAILED, _GONE),
    (_TIMED, _R.ABORTED, _STOPPED),
    (_TIMED, _R.SESSION_SHUTDOWN, _STOPPED),
    (_TIMED, _R.IDLE_TIMEOUT, _GONE),
    (_TIMED, _R.DISMISSED, _GONE),
    (_SESSION, _R.FAILED, _GONE),
    (_SESSION, _R.ABORTED, _STOPPED),
    (_SESSION, _R.SESSION_SHUTDOWN, _STOPPED),
    (_SESSION, _R.IDLE_TIMEOUT, _GONE),
    (_SESSION, _R.DISMISSED, _GONE),
]


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("mode", "reason", "expected"), EXIT_MATRIX)
def test_the_exit_matrix(
    mode: CommsDrainMode, reason: DrainExitReason, expected: CommsDrainPhase, started: bool
) -> None:
    # An executor keeps a dismissed session from finishing in the same step.
    state = after(OWN, SpawnDrain(mode, 7.0), state=ATTACHED)
    state = after(DrainStarted(1), state=state) if started else state
    error = RuntimeError("what went wrong")
    drain = apply(state, DrainExited(1, reason, error)).after.drain
    assert drain.phase is expected
    assert (drain.mode, drain.idle_timeout) == ((mode, 7.0) if expected is _AGAIN else (None, 0.0))
    assert (drain.generation, drain.stopping) == (1, None)
    assert drain.last_exit == DrainExit(generation=1, reason=reason)
    assert drain.last_exit is not None
    assert drain.last_exit.error is error


@pytest.mark.parametrize("reason", [_R.FAILED, _R.ABORTED, _R.IDLE_TIMEOUT, _R.SESSION_SHUTDOWN])
def test_an_owner_outlives_a_drain_that_ends(reason: DrainExitReason) -> None:
    assert after(SPAWN, DrainExited(1, reason), state=MOB).ingress == mob_owned("r", "m")


# --- what is admitted ------------------------------------------------------------------------------

SETTING: list[Input] = [
    SetSilentIntents(frozenset({"hush"})),
    AddDirectPeerEndpoint(ALICE),
    ApplyMobPeerOverlay(1, (BOB,)),
    BindSupervisor(bound(ANN, 1)),
    OWN_BY_MOB,
    OpenRequest("asked", ALICE.peer_id),
]
"""Before the phase: Alice is a direct peer whom we asked something, Bob one of the mob's, Ann the supervisor."""


def set_in(state: SessionState) -> SessionState:
    """The setting, in the phase of ``state``."""
    made = after(*SETTING, state=IDLE)
    return SessionState(state.session, made.drain, made.ingress, made.supervisor, made.peers, made.requests)


HUSH = frozenset({"hush"})
SET_STATES = {
    SessionPhase.INITIALIZING: set_in(INITIAL),
    SessionPhase.IDLE: set_in(after(SetSilentIntents(HUSH), state=IDLE)),
    SessionPhase.ATTACHED: set_in(after(SetSilentIntents(HUSH), state=ATTACHED)),
    SessionPhase.RUNNING: set_in(after(SetSilentIntents(HUSH), state=RUNNING)),
    SessionPhase.RETIRED: set_in(after(SetSilentIntents(HUSH), state=RETIRED)),
}
"""STOPPED and DESTROYED are ends: nothing is admitted or dropped there, the claim goes back."""

ANYWHERE = frozenset(SET_STATES)
LIVE_HERE = frozenset(LIVE) & ANYWHERE
_K, _C, _D = EnvelopeKind, AdmissionClass, DropReason
alice, bob, eve, ann = ALICE.peer_id, BOB.peer_id, EVE.peer_id, supervisor_id(ANN)
LOCAL, MANUAL, NONE = AdmissionTrust.LOCAL, AdmissionTrust.MANUAL, AdmissionTrust.NONE
COMPLETED, FAILED, ACCEPTED = ResponseStatus.COMPLETED, ResponseStatus.FAILED, ResponseStatus.ACCEPTED

ADMISSIONS: list[tuple[Admit, frozenset[SessionPhase], AdmissionClass | DropReason]] = [
    # A trusted sender: what is admitted, and the phases it is admitted in.
    (Admit(_K.MESSAGE, alice, NONE), ACTIVE, _C.ACTIONABLE_MESSAGE),
    (Admit(_K.MESSAGE, bob, NONE), ACTIVE, _C.ACTIONABLE_MESSAGE),
    (Admit(_K.MESSAGE, ann, NONE), ACTIVE, _C.ACTIONABLE_MESSAGE),
    (Admit(_K.MESSAGE, eve, MANUAL), ACTIVE, _C.ACTIONABLE_MESSAGE),
    (Admit(_K.MESSAGE, None, LOCAL), ACTIVE, _C.ACTIONABLE_MESSAGE),
    (Admit(_K.REQUEST, alice, NONE, "ask", "c"), ACTIVE, _C.ACTIONABLE_REQUEST),
    (Admit(_K.REQUEST, eve, MANUAL, "ask", "c"), ACTIVE, _C.ACTIONABLE_REQUEST),
    (Admit(_K.REQUEST, None, LOCAL, "ask", "c"), ACTIVE, _C.ACTIONABLE_REQUEST),
    (Admit(_K.REQUEST, alice, NONE, "hush", "c"), ACTIVE, _C.SILENT_REQUEST),
    (Admit(_K.REQUEST, ann, NONE, BRIDGE_INTENT, "c"), LIVE_HERE, _C.BRIDGE_COMMAND),
    (Admit(_K.RESPONSE, alice, NONE, None, "asked", ACCEPTED), LIVE_HERE, _C.RESPONSE_PROGRESS),
    (Admit(_K.RESPONSE, alice, NONE, None, "asked", COMPLETED), LIVE_HERE, _C.RESPONSE_TERMINAL),
    (Admit(_K.RESPONSE, alice, NONE, None, "asked", FAILED), LIVE_HERE, _C.RESPONSE_TERMINAL),
    (Admit(_K.RESPONSE, bob, NONE, None, "asked", COMPLETED), LIVE_HERE, _D.WRONG_RESPONDER),
    (Admit(_K.RESPONSE, None, LOCAL, None, "asked", COMPLETED), LIVE_HERE, _D.WRONG_RESPONDER),
    (Admit(_K.RESPONSE, alice, NONE, None, "never asked", COMPLETED), LIVE_HERE, _D.NO_SUCH_REQUEST),
    (Admit(_K.RESPONSE, alice, NONE, None, None, COMPLETED), LIVE_HERE, _D.NO_SUCH_REQUEST),
    (Admit(_K.RESPONSE, alice, NONE, None, "asked"), LIVE_HERE, _D.MALFORMED),
    (Admit(_K.RESPONSE, bob, NONE, None, "asked"), LIVE_HERE, _D.MALFORMED),
    (Admit(_K.PEER_ADDED, bob, NONE), LIVE_HERE, _C.LIFECYCLE),
    (Admit(_K.PEER_RETIRED, bob, NONE), LIVE_HERE, _C.LIFECYCLE),
    (Admit(_K.PEER_UNWIRED, eve, MANUAL), LIVE_HERE, _C.LIFECYCLE),
    (Admit(_K.DISMISS, ann, NONE), LIVE_HERE, _C.DISMISSAL),
    (Admit(_K.DISMISS, MOB_PEER, NONE), LIVE_HERE, _C.DISMISSAL),
    # A stranger: a bridge command alone gets in, for the bridge to look at; nothing is told of the phase.
    (Admit(_K.REQUEST, eve, NONE, BRIDGE_INTENT, "c"), LIVE_HERE, _C.BRIDGE_COMMAND),
    (Admit(_K.MESSAGE, eve, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.MESSAGE, None, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.MESSAGE, MOB_PEER, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.REQUEST, eve, NONE, "ask", "c"), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.REQUEST, eve, NONE, "hush", "c"), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.RESPONSE, eve, NONE, None, "asked", COMPLETED), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.RESPONSE, eve, NONE, None, "asked"), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.PEER_ADDED, eve, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.PEER_RETIRED, eve, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.PEER_UNWIRED, eve, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    # Trust is not enough to dismiss.
    (Admit(_K.DISMISS, alice, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.DISMISS, bob, NONE), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.DISMISS, eve, MANUAL), ANYWHERE, _D.UNTRUSTED_SENDER),
    (Admit(_K.DISMISS, None, LOCAL), ANYWHERE, _D.UNTRUSTED_SENDER),
]
NOT_HERE: dict[tuple[EnvelopeKind, object], DropReason] = {
    # What a stranger's bridge command and the dismissal are told outside LIVE.
    (_K.REQUEST, eve): _D.UNTRUSTED_SENDER,
    (_K.DISMISS, ann): _D.UNTRUSTED_SENDER,
    (_K.DISMISS, MOB_PEER): _D.UNTRUSTED_SENDER,
}


@pytest.mark.parametrize("phase", SET_STATES)
@pytest.mark.parametrize(("ask", "phases", "answer"), ADMISSIONS)
def test_the_admission_table(
    phase: SessionPhase, ask: Admit, phases: frozenset[SessionPhase], answer: AdmissionClass | DropReason
) -> None:
    step = apply(SET_STATES[phase], ask)
    expected: Effect
    if phase not in phases:
        otherwise = _D.NOT_ADMITTED_IN_PHASE
        expected = Dropped(NOT_HERE.get((ask.kind, ask.sender), otherwise) if ask.trust is NONE else otherwise)
    elif isinstance(answer, DropReason):
        expected = Dropped(answer)
    else:
        expected = Admitted(answer)
    assert step.effects == (expected,)


@pytest.mark.parametrize("state", [STOPPED, DESTROYED])
@pytest.mark.parametrize(("ask", "phases", "answer"), ADMISSIONS)
def test_a_session_that_ends_neither_admits_nor_drops(
    state: SessionState, ask: Admit, phases: object, answer: object
) -> None:
    assert guard_of(state, ask) == "not_ending"


def test_a_request_that_is_open_already_is_a_duplicate_for_that_sender_alone() -> None:
    ask = Admit(_K.REQUEST, alice, NONE, "ask", "c")
    state = after(ask, state=SET_STATES[SessionPhase.IDLE])
    assert state.requests.inbound == {(alice, "c")}
    again = apply(state, ask)
    assert (again.after, again.effects) == (state, (Dropped(_D.DUPLICATE),))
    silent = apply(state, Admit(_K.REQUEST, alice, NONE, "hush", "c"))
    assert silent.effects == (Dropped(_D.DUPLICATE),)
    assert apply(state, Admit(_K.REQUEST, bob, NONE, "ask", "c")).effects == (Admitted(_C.ACTIONABLE_REQUEST),)
    assert apply(state, Admit(_K.REQUEST, alice, NONE, "ask", "d")).effects == (Admitted(_C.ACTIONABLE_REQUEST),)


@pytest.mark.parametrize("sender", [alice, ann, eve])
@pytest.mark.parametrize("phase", [SessionPhase.IDLE, SessionPhase.RUNNING, SessionPhase.RETIRED])
def test_a_command_that_is_open_already_is_a_duplicate_whoever_sends_it(sender: PeerId, phase: SessionPhase) -> None:
    command = Admit(_K.REQUEST, sender, NONE, BRIDGE_INTENT, "c")
    state = after(command, state=SET_STATES[phase])
    assert state.requests.inbound == {(sender, "c")}
    again = apply(state, command)
    assert (again.after, again.effects) == (state, (Dropped(_D.DUPLICATE),))
    other = Admit(_K.REQUEST, sender, NONE, BRIDGE_INTENT, "d")
    assert apply(state, other).effects == (Admitted(_C.BRIDGE_COMMAND),)
    answered = after(ReplySent(sender, "c"), state=state)
    assert apply(answered, command).effects == (Admitted(_C.BRIDGE_COMMAND),)


def test_a_request_and_a_command_of_one_sender_share_their_correlations() -> None:
    ask, command = Admit(_K.REQUEST, alice, NONE, "ask", "c"), Admit(_K.REQUEST, alice, NONE, BRIDGE_INTENT, "c")
    for first, second in ((ask, command), (command, ask)):
        state = after(first, state=SET_STATES[SessionPhase.IDLE])
        assert apply(state, second).effects == (Dropped(_D.DUPLICATE),)


def test_only_the_mob_that_owns_now_may_dismiss() -> None:
    for state in (IDLE, after(OWN, state=IDLE), after(by_mob("comms", "mob"), state=IDLE)):
        assert apply(state, Admit(_K.DISMISS, MOB_PEER, NONE)).effects == (Dropped(_D.UNTRUSTED_SENDER),)
        assert apply(state, Admit(_K.DISMISS, None, NONE)).effects == (Dropped(_D.UNTRUSTED_SENDER),)
