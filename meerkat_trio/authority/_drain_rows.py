"""The rows of the drain and of the peer ingress it serves (SPEC 3, "Drain and ingress")."""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs

from ._effects import (
    CancelDrain,
    CancelRespawn,
    DrainEnded,
    RespawnExhausted,
    ScheduleRespawn,
    StartDrain,
    StopExecutor,
    SwapDrain,
)
from ._ending import announce_ending, raise_ending
from ._inputs import (
    AttachMobIngress,
    AttachSessionIngress,
    DetachIngress,
    DrainExited,
    DrainStarted,
    RebindDrain,
    RespawnDue,
    RespawnGivenUp,
    SpawnDrain,
    StopDrain,
)
from ._row import NOT_ENDING, row
from ._state import LIVE, UNATTACHED, DrainRegion, SessionState
from ._values import (
    CommsDrainMode,
    CommsDrainPhase,
    DrainExit,
    DrainExitReason,
    Ending,
    MobOwned,
    PeerIngressOwner,
    SessionOwned,
    Unattached,
)

__all__ = ["DRAIN_ROWS"]

_INACTIVE, _STARTING, _RUNNING = (
    CommsDrainPhase.INACTIVE,
    CommsDrainPhase.STARTING,
    CommsDrainPhase.RUNNING,
)
_RESPAWNABLE, _STOPPED = CommsDrainPhase.EXITED_RESPAWNABLE, CommsDrainPhase.STOPPED
_SPAWNABLE: Final = frozenset({_INACTIVE, _STOPPED, _RESPAWNABLE})
_STOPPING_EXITS: Final = frozenset({DrainExitReason.ABORTED, DrainExitReason.SESSION_SHUTDOWN})

_drain_row = partial(row, region="drain", phases=LIVE)
_drain_observation = partial(row, region="drain")
_ingress_row = partial(row, region="ingress", phases=LIVE)


def _with_drain(state: SessionState, drain: DrainRegion) -> SessionState:
    return SessionState(
        state.session,
        drain,
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )


def _with_ingress(state: SessionState, owner: PeerIngressOwner) -> SessionState:
    if owner == state.ingress:
        return state
    return SessionState(state.session, state.drain, owner, state.supervisor, state.peers, state.requests)


# --- ingress ---------------------------------------------------------------------------------------


def _session_may_attach(state: SessionState, i: AttachSessionIngress) -> bool:
    owner = state.ingress
    if isinstance(owner, SessionOwned):
        return owner.comms_runtime_id == i.comms_runtime_id
    return isinstance(owner, Unattached)


def _mob_may_attach(state: SessionState, i: AttachMobIngress) -> bool:
    owner = state.ingress
    return not isinstance(owner, MobOwned) or (
        owner.comms_runtime_id == i.comms_runtime_id and owner.mob_id == i.mob_id
    )


def _mode_matches(state: SessionState, i: AttachSessionIngress | AttachMobIngress) -> bool:
    drain = state.drain
    return (
        not drain.live or drain.stopping is not None or (drain.mode is i.mode and drain.idle_timeout == i.idle_timeout)
    )


def _session_owner(state: SessionState, i: AttachSessionIngress) -> SessionState:
    if isinstance(state.ingress, SessionOwned):
        return state  # the guard let only the same id through
    return _with_ingress(state, SessionOwned(i.comms_runtime_id))


def _mob_owner(state: SessionState, i: AttachMobIngress) -> SessionState:
    if isinstance(state.ingress, MobOwned):
        return state  # the guard let only the same mob through
    owner = MobOwned(comms_runtime_id=i.comms_runtime_id, mob_id=i.mob_id, mob_peer_id=i.mob_peer_id)
    return _with_ingress(state, owner)


def _detacher_owns(state: SessionState, i: DetachIngress) -> bool:
    owner = state.ingress
    return owner.mob_id == i.by.mob_id if isinstance(owner, MobOwned) else i.by.mob_id is None


_INGRESS_ROWS: Final = (
    _ingress_row(
        "attach-session-ingress",
        "the session's side owns the ingress",
        on=AttachSessionIngress,
        guards={
            **NOT_ENDING,
            "owner_allows_session_attach": _session_may_attach,
            "mode_matches": _mode_matches,
        },
        update=_session_owner,
    ),
    _ingress_row(
        "attach-mob-ingress",
        "the mob owns the ingress",
        on=AttachMobIngress,
        guards={
            **NOT_ENDING,
            "owner_allows_mob_attach": _mob_may_attach,
            "mode_matches": _mode_matches,
        },
        update=_mob_owner,
    ),
    _ingress_row(
        "detach-ingress-unowned",
        "nobody owns it",
        on=DetachIngress,
        when=lambda s, _: isinstance(s.ingress, Unattached),
        ignored="unattached",
    ),
    _ingress_row(
        "detach-ingress",
        "nobody owns the ingress any more",
        on=DetachIngress,
        guards={
            "detacher_owns": _detacher_owns,
            "no_drain_or_stopping": lambda s, _: not s.drain.live or s.drain.stopping is not None,
        },
        update=lambda s, _: _with_ingress(s, UNATTACHED),
    ),
)


# --- drain -----------------------------------------------------------------------------------------


def _started(state: SessionState, i: SpawnDrain) -> SessionState:
    drain = state.drain
    region = DrainRegion(_STARTING, i.mode, i.idle_timeout, drain.generation + 1, None, drain.last_exit)
    return _with_drain(state, region)


def _is_starting(state: SessionState, i: DrainStarted) -> bool:
    d = state.drain
    return d.phase is _STARTING and i.generation == d.generation


def _serving(state: SessionState, _: DrainStarted) -> SessionState:
    d = state.drain
    return SessionState(
        state.session,
        DrainRegion(_RUNNING, d.mode, d.idle_timeout, d.generation, d.stopping, d.last_exit),
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )


def _rebound(state: SessionState, _: RebindDrain) -> SessionState:
    d = state.drain
    return SessionState(
        state.session,
        DrainRegion(_STARTING, d.mode, d.idle_timeout, d.generation + 1, None, d.last_exit),
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )


def _respawned(state: SessionState, _: RespawnDue) -> SessionState:
    d = state.drain
    return _with_drain(
        state,
        DrainRegion(_STARTING, d.mode, d.idle_timeout, d.generation + 1, None, d.last_exit),
    )


def _exited(state: SessionState, i: DrainExited) -> SessionState:
    drain = state.drain
    last_exit = DrainExit(generation=i.generation, reason=i.reason, error=i.error)
    if i.reason in _STOPPING_EXITS:
        phase = _STOPPED
    elif (
        i.reason is DrainExitReason.FAILED
        and drain.mode is CommsDrainMode.PERSISTENT_HOST
        and state.session.ending is None
    ):
        phase = _RESPAWNABLE
    else:
        phase = _INACTIVE
    kept = phase is _RESPAWNABLE
    region = DrainRegion(
        phase,
        drain.mode if kept else None,
        drain.idle_timeout if kept else 0.0,
        drain.generation,
        None,
        last_exit,
    )
    return _with_drain(state, region)


def _ended_effects(
    _: SessionState, after: SessionState, i: DrainExited
) -> tuple[DrainEnded] | tuple[DrainEnded, ScheduleRespawn]:
    ended = DrainEnded(DrainExit(generation=i.generation, reason=i.reason, error=i.error))
    if after.drain.phase is _RESPAWNABLE:
        return ended, ScheduleRespawn(i.generation)
    return (ended,)


def _is_current(state: SessionState, i: DrainStarted | DrainExited) -> bool:
    return i.generation == state.drain.generation and state.drain.live


def _waits_for_respawn(state: SessionState, i: RespawnDue | RespawnGivenUp) -> bool:
    return state.drain.phase is _RESPAWNABLE and i.generation == state.drain.generation


_DRAIN_ROWS: Final = (
    _drain_row(
        "spawn-drain",
        "a drain starts",
        on=SpawnDrain,
        guards={
            **NOT_ENDING,
            "drain_can_spawn": lambda s, _: s.drain.phase in _SPAWNABLE,
            "ingress_owned": lambda s, _: not isinstance(s.ingress, Unattached),
        },
        update=_started,
        emit=lambda b, a, i: (
            (CancelRespawn(), StartDrain(a.drain.generation, i.mode))
            if b.drain.phase is _RESPAWNABLE
            else (StartDrain(a.drain.generation, i.mode),)
        ),
        emits=(CancelRespawn, StartDrain),
    ),
    _drain_row(
        "rebind-drain",
        "the live drain moves to another instance",
        on=RebindDrain,
        guards={
            **NOT_ENDING,
            "drain_is_live": lambda s, _: s.drain.live,
            "drain_not_stopping": lambda s, _: s.drain.stopping is None,
        },
        update=_rebound,
        emit=lambda _b, a, _i: (SwapDrain(a.drain.generation),),
        emits=(SwapDrain,),
    ),
    _drain_row(
        "stop-drain",
        "tells the live drain to end",
        on=StopDrain,
        when=lambda s, _: s.drain.live and s.drain.stopping is None,
        update=lambda s, i: _with_drain(s, attrs.evolve(s.drain, stopping=i.cause)),
        emit=lambda _b, a, _i: (CancelDrain(a.drain.generation),),
        emits=(CancelDrain,),
    ),
    _drain_row(
        "stop-drain-again",
        "it was told already",
        on=StopDrain,
        when=lambda s, _: s.drain.live,
        ignored="already_stopping",
    ),
    _drain_row(
        "stop-respawn",
        "stops waiting for the respawn",
        on=StopDrain,
        when=lambda s, _: s.drain.phase is _RESPAWNABLE,
        update=lambda s, _: _with_drain(s, attrs.evolve(s.drain, phase=_STOPPED, mode=None)),
        effects=(CancelRespawn(),),
    ),
    _drain_row("stop-no-drain", "there is none", on=StopDrain, ignored="no_drain"),
    _drain_observation(
        "drain-started",
        "it serves",
        on=DrainStarted,
        when=_is_starting,
        update=_serving,
    ),
    _drain_observation(
        "drain-started-again",
        "it served already",
        on=DrainStarted,
        when=_is_current,
        ignored="already_running",
    ),
    _drain_observation(
        "drain-started-stale",
        "another drain came after it",
        on=DrainStarted,
        ignored="stale_generation",
    ),
    _drain_observation(
        "drain-dismissed",
        "it ended, and so does the session",
        on=DrainExited,
        when=lambda s, i: i.reason is DrainExitReason.DISMISSED and _is_current(s, i),
        update=lambda s, i: raise_ending(_exited(s, i), Ending.STOP),
        emit=lambda b, a, i: (*_ended_effects(b, a, i), *announce_ending(b, a)),
        emits=(DrainEnded, StopExecutor),
    ),
    _drain_observation(
        "drain-exited",
        "it ended",
        on=DrainExited,
        when=_is_current,
        update=_exited,
        emit=_ended_effects,
        emits=(DrainEnded, ScheduleRespawn),
    ),
    _drain_observation(
        "drain-exited-stale",
        "another drain came after it",
        on=DrainExited,
        ignored="stale_generation",
    ),
    _drain_observation(
        "respawn-due",
        "a failed drain starts again",
        on=RespawnDue,
        when=lambda s, i: (
            _waits_for_respawn(s, i) and not isinstance(s.ingress, Unattached) and s.session.ending is None
        ),
        update=_respawned,
        emit=lambda _b, a, _i: (StartDrain(a.drain.generation, _mode_of(a)),),
        emits=(StartDrain,),
    ),
    _drain_observation(
        "respawn-due-unowned",
        "its owner has left",
        on=RespawnDue,
        when=lambda s, i: _waits_for_respawn(s, i) and isinstance(s.ingress, Unattached),
        ignored="unattached",
    ),
    _drain_observation(
        "respawn-due-ending",
        "the session ends",
        on=RespawnDue,
        when=lambda s, i: i.generation == s.drain.generation and s.session.ending is not None,
        ignored="ending",
    ),
    _drain_observation(
        "respawn-due-stale",
        "nobody waits for it any more",
        on=RespawnDue,
        ignored="stale_generation",
    ),
    _drain_observation(
        "respawn-given-up",
        "the next attach spawns it",
        on=RespawnGivenUp,
        when=_waits_for_respawn,
        emit=lambda _b, _a, i: (RespawnExhausted(i.generation),),
        emits=(RespawnExhausted,),
    ),
    _drain_observation(
        "respawn-given-up-stale",
        "nobody waits for it any more",
        on=RespawnGivenUp,
        ignored="stale_generation",
    ),
)


def _mode_of(state: SessionState) -> CommsDrainMode:
    mode = state.drain.mode
    if mode is None:  # pragma: no cover - the invariant live_drain_has_mode
        raise AssertionError("a starting drain has a mode")
    return mode


DRAIN_ROWS: Final = (*_INGRESS_ROWS, *_DRAIN_ROWS)
