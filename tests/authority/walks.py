"""Walks through the authority: inputs for any state, and what long random walks of them meet.

Walks are seeded, so that what they cover does not change from run to run.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from functools import cache
from itertools import groupby
from typing import Final

from attrs import define, field

from meerkat_trio.authority import (
    BRIDGE_INTENT,
    AddDirectPeerEndpoint,
    AdmissionTrust,
    Admit,
    ApplyMobPeerOverlay,
    AttachExecutor,
    AttachMobIngress,
    AttachSessionIngress,
    AuthorizeSupervisor,
    BeginRun,
    BindSupervisor,
    BootstrapTokenUsed,
    Bound,
    ClearLocalEndpoint,
    CloseRequest,
    Counters,
    Destroy,
    Detacher,
    DetachExecutor,
    DetachIngress,
    DrainExited,
    DrainExitReason,
    DrainStarted,
    DrainStopping,
    Ending,
    EnvelopeKind,
    ExecutorStopped,
    Input,
    IssueBootstrapToken,
    OpenRequest,
    PeerId,
    PublishLocalEndpoint,
    RebindDrain,
    Register,
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
    SessionFinished,
    SessionState,
    SetSilentIntents,
    SpawnDrain,
    Step,
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
    IDLE_TIMEOUT,
    MOB_PEER,
    MODE,
    OWN,
    REGISTER,
    SPAWN,
    TIMED,
    after,
    bound,
    supervisor_id,
)

_ENDINGS: Final = (Stop, Unregister, Destroy)
_NOBODY: Final = supervisor_id(99)


def session_inputs(state: SessionState) -> list[Input]:
    counters = state.counters
    run_id = state.session.run_id or "no run"
    return [
        Register("s"),
        Register("another"),
        Register("s", Counters(generation=counters.generation + 2, epoch_floor=counters.epoch_floor + 1)),
        Restore(Remembered(session_id="s", retired=True, silent_intents=frozenset({"hush"}), counters=counters)),
        Restore(Remembered(session_id="s", ending=Ending.STOP, counters=counters)),
        Restore(Remembered(session_id="another")),
        AttachExecutor(),
        SetSilentIntents(frozenset({"hush"})),
        SetSilentIntents(frozenset()),
        BeginRun(f"run {counters.generation}", "message"),
        *(RunFinished(run_id, outcome) for outcome in RunOutcome),
        RunFinished("an older run", RunOutcome.CONSUMED),
        DetachExecutor(),
        ExecutorStopped(),
        Retire(),
        Stop("because"),
        Unregister(),
        Destroy(),
    ]


def by_mob(comms_runtime_id: str, mob_id: str, mob_peer_id: PeerId | None = None) -> AttachMobIngress:
    return AttachMobIngress(
        comms_runtime_id=comms_runtime_id,
        mob_id=mob_id,
        mob_peer_id=mob_peer_id,
        mode=MODE,
        idle_timeout=IDLE_TIMEOUT,
    )


def drain_inputs(state: SessionState) -> list[Input]:
    now = state.drain.generation
    return [
        *(AttachSessionIngress(rid, mode, IDLE_TIMEOUT) for rid in ("comms", "other") for mode in (MODE, TIMED)),
        *(by_mob(rid, mob) for rid in ("comms", "other") for mob in ("mob", "gang")),
        by_mob("comms", "mob", MOB_PEER),
        *(DetachIngress(Detacher(mob)) for mob in (None, "mob", "gang")),
        *(SpawnDrain(mode, IDLE_TIMEOUT) for mode in (MODE, TIMED)),
        RebindDrain(),
        *(StopDrain(cause) for cause in (DrainStopping.ABORT, DrainStopping.DETACH)),
        *(DrainStarted(generation) for generation in (now, now - 1)),
        *(DrainExited(now, reason) for reason in DrainExitReason),
        DrainExited(now - 1, DrainExitReason.ABORTED),
        *(RespawnDue(generation) for generation in (now, now - 1)),
        *(RespawnGivenUp(generation) for generation in (now, now - 1)),
    ]


def supervisor_inputs(state: SessionState) -> list[Input]:
    supervisor = state.supervisor
    binding, floor = supervisor.binding, supervisor.epoch_floor
    current = (binding.peer_id, binding.epoch) if isinstance(binding, Bound) else (_NOBODY, 1)
    edges = {(peer_id, epoch) for _, peer_id, epoch in supervisor.obligations} or {current}
    owed = sorted(edges | {(peer_id, epoch + 1) for peer_id, epoch in edges} | {(_NOBODY, 1)})
    return [
        *(make(bound(who, floor + 1)) for make in (BindSupervisor, AuthorizeSupervisor) for who in (ANN, BEN)),
        *(make(bound(ANN, max(floor, 1))) for make in (BindSupervisor, AuthorizeSupervisor)),
        RevokeSupervisor(*current),
        RevokeSupervisor(current[0], current[1] + 1),
        RevokeSupervisor(_NOBODY, current[1]),
        *(SupervisorTrustEdgePublished(*edge) for edge in owed),
        *(
            SupervisorTrustEdgePublishFailed(peer_id=peer_id, epoch=epoch, reason="", final=final)
            for peer_id, epoch in owed
            for final in (False, True)
        ),
        *(SupervisorTrustEdgeRevoked(*edge) for edge in owed),
        *(SupervisorTrustEdgeRevokeFailed(peer_id=peer_id, epoch=epoch, reason="") for peer_id, epoch in owed),
        IssueBootstrapToken(b"hash"),
        BootstrapTokenUsed(),
    ]


_SENDERS: Final = (ALICE.peer_id, EVE.peer_id, MOB_PEER, supervisor_id(ANN), None)
_MANUAL: Final = AdmissionTrust.MANUAL
_ADMISSIONS: Final[tuple[Input, ...]] = (
    *(Admit(kind, who, AdmissionTrust.NONE, "ask", "c") for kind in EnvelopeKind for who in _SENDERS),
    *(Admit(kind, BOB.peer_id, _MANUAL, "ask", "c") for kind in EnvelopeKind),
    *(
        Admit(EnvelopeKind.REQUEST, ALICE.peer_id, _MANUAL, intent, correlation)
        for intent in ("hush", "ask", BRIDGE_INTENT)
        for correlation in ("c", "d")
    ),
    *(
        Admit(EnvelopeKind.RESPONSE, who.peer_id, _MANUAL, None, "c", status)
        for who in (ALICE, BOB)
        for status in ResponseStatus
    ),
)
_REQUESTS: Final[tuple[Input, ...]] = (
    OpenRequest("c", ALICE.peer_id),
    *(ResponseArrived("c", who.peer_id, status) for who in (ALICE, BOB) for status in ResponseStatus),
    CloseRequest("c"),
    *(ReplySent(ALICE.peer_id, correlation) for correlation in ("c", "d")),
)
_PEERS: Final[tuple[Input, ...]] = (
    PublishLocalEndpoint(EVE),
    ClearLocalEndpoint(),
    *(AddDirectPeerEndpoint(peer) for peer in (ALICE, ALICE_MOVED, BOB)),
    *(RemoveDirectPeerEndpoint(peer.peer_id) for peer in (ALICE, EVE)),
)


def message_inputs(state: SessionState) -> list[Input]:
    epoch = state.peers.overlay_epoch
    return [
        *_PEERS,
        ApplyMobPeerOverlay(epoch + 1, (BOB, ALICE)),
        ApplyMobPeerOverlay(epoch + 1, ()),
        ApplyMobPeerOverlay(epoch, ()),
        *_ADMISSIONS,
        *_REQUESTS,
    ]


_REGIONS: Final = (session_inputs, drain_inputs, supervisor_inputs, message_inputs)


def inputs_for(state: SessionState) -> list[Input]:
    """Inputs of every class, among them those this state waits for and stale ones."""
    return [input_ for inputs in _REGIONS for input_ in inputs(state)]


def _class(input_: Input) -> object:
    return (Admit, input_.kind) if isinstance(input_, Admit) else type(input_)


def pick(state: SessionState, chance: random.Random) -> Input:
    """One input: a region, a class in it, one of that class. Those that end a session are rare: walks go far."""
    by_class = [list(group) for _, group in groupby(chance.choice(_REGIONS)(state), key=_class)]
    while True:
        chosen = chance.choice(chance.choice(by_class))
        if not isinstance(chosen, _ENDINGS) or chance.random() < 0.15:
            return chosen


def shape(state: SessionState) -> Hashable:
    """What tells states apart that the table may treat differently; counters are left out."""
    session, drain, supervisor = state.session, state.drain, state.supervisor
    return (
        (session.phase, session.executor_attached, session.run_id is None, session.ending, session.ended),
        (drain.phase, drain.mode, drain.stopping, type(state.ingress)),
        (
            type(supervisor.binding),
            supervisor.previous is None,
            frozenset(kind for kind, _, _ in supervisor.obligations),
        ),
        bool(state.requests.outbound) + bool(state.requests.inbound) + bool(state.peers.direct),
    )


_STARTS: Final[tuple[tuple[Input, ...], ...]] = (
    (),
    (REGISTER, AttachExecutor(), BeginRun("run", "message")),
    (REGISTER, AttachExecutor(), OWN, SPAWN, DrainStarted(1)),
    (REGISTER, OWN, SPAWN, DrainStarted(1), DrainExited(1, DrainExitReason.FAILED)),
    (REGISTER, OWN, SPAWN, DrainExited(1, DrainExitReason.FAILED), DetachIngress(Detacher())),
    (REGISTER, BindSupervisor(bound(ANN, 1)), SupervisorTrustEdgePublished(supervisor_id(ANN), 1)),
    (REGISTER, SetSilentIntents(frozenset({"hush"})), AddDirectPeerEndpoint(ALICE), OpenRequest("c", ALICE.peer_id)),
)
"""Where walks begin: what takes several steps in a row to reach, so that walks need not stumble over it."""


@define
class Explored:
    """What the walks met."""

    steps: list[Step] = field(factory=list)
    """Every accepted step."""
    states: dict[Hashable, SessionState] = field(factory=dict)
    """One state of every shape."""
    effects: dict[str, set[str]] = field(factory=dict)
    """Effects by the row that emitted them; a row never taken is missing."""

    def record(self, step: Step) -> None:
        self.steps.append(step)
        # The last word of an ending belongs to no row.
        named = {type(effect).__name__ for effect in step.effects if type(effect) is not SessionFinished}
        self.effects.setdefault(step.row.name, set()).update(named)


@cache
def explored() -> Explored:
    """Walk far, once for all tests."""
    found = Explored()
    for seed in range(80):
        for start in _STARTS:
            chance = random.Random(f"{seed} {start}")
            state = after(*start)
            for _ in range(60):
                found.states.setdefault(shape(state), state)
                try:
                    step = apply(state, pick(state, chance))
                except TransitionRejected:
                    continue
                found.record(step)
                state = step.after
    return found
