"""The rows of the session region: its life, its executor, its runs (SPEC 3, "Session")."""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs

from ._effects import (
    CancelDrain,
    CancelRespawn,
    Effect,
    FinishExecutor,
    MessageAbandoned,
    RevokeEdges,
    SessionRetired,
    StartExecutor,
    StopExecutor,
)
from ._ending import announce_ending, raise_ending
from ._inputs import (
    AttachExecutor,
    BeginRun,
    Destroy,
    DetachExecutor,
    ExecutorStopped,
    Register,
    Restore,
    Retire,
    RunFinished,
    SetSilentIntents,
    Stop,
    Unregister,
)
from ._row import ALL_PHASES, NOT_ENDING, Row, row
from ._state import (
    ACTIVE,
    LIVE,
    DrainRegion,
    PeersRegion,
    RequestsRegion,
    SessionRegion,
    SessionState,
    SupervisorRegion,
)
from ._values import Ending, RunOutcome, SessionPhase

__all__ = ["SESSION_ROWS"]

_IDLE, _ATTACHED, _RUNNING = (
    SessionPhase.IDLE,
    SessionPhase.ATTACHED,
    SessionPhase.RUNNING,
)
_RETIRED, _STOPPED, _DESTROYED = (
    SessionPhase.RETIRED,
    SessionPhase.STOPPED,
    SessionPhase.DESTROYED,
)
_INITIALIZING = SessionPhase.INITIALIZING
_ABANDONED = RunOutcome.ABANDONED

_session_row = partial(row, region="session")


def _with_session(state: SessionState, session: SessionRegion) -> SessionState:
    return SessionState(
        session,
        state.drain,
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )


def _register(state: SessionState, i: Register) -> SessionState:
    drain, peers, supervisor, floors = state.drain, state.peers, state.supervisor, i.counters
    if floors.epoch_floor > supervisor.epoch_floor:
        supervisor = attrs.evolve(supervisor, epoch_floor=floors.epoch_floor)
    if floors.projection_epoch > peers.projection_epoch or floors.overlay_epoch > peers.overlay_epoch:
        peers = attrs.evolve(
            peers,
            projection_epoch=max(peers.projection_epoch, floors.projection_epoch),
            overlay_epoch=max(peers.overlay_epoch, floors.overlay_epoch),
        )
    return SessionState(
        # What was set while it was stopped stands, whatever the counters say.
        SessionRegion(_IDLE, i.session_id, silent_intents=state.session.silent_intents),
        DrainRegion(generation=max(drain.generation, floors.generation), last_exit=drain.last_exit),
        state.ingress,
        supervisor,
        peers,
        state.requests,
    )


def _restore(state: SessionState, i: Restore) -> SessionState:
    was = i.remembered
    return SessionState(
        SessionRegion(
            _RETIRED if was.retired else _IDLE, was.session_id, ending=was.ending, silent_intents=was.silent_intents
        ),
        DrainRegion(generation=was.counters.generation),
        state.ingress,
        SupervisorRegion(
            binding=was.supervisor,
            previous=was.previous,
            last_revoked=was.last_revoked,
            epoch_floor=was.counters.epoch_floor,
            obligations=dict(was.obligations),
            token_hash=was.token_hash,
        ),
        PeersRegion(
            local_endpoint=was.local_endpoint,
            direct={endpoint.peer_id: endpoint for endpoint in was.direct},
            overlay={endpoint.peer_id: endpoint for endpoint in was.overlay},
            overlay_epoch=was.counters.overlay_epoch,
            projection_epoch=was.counters.projection_epoch,
        ),
        RequestsRegion(inbound=was.inbound),
    )


def _attach_executor(state: SessionState, _: AttachExecutor) -> SessionState:
    session = state.session
    phase = _ATTACHED if session.phase is _IDLE else session.phase
    return _with_session(state, attrs.evolve(session, phase=phase, executor_attached=True))


def _begin_run(state: SessionState, i: BeginRun) -> SessionState:
    s = state.session
    return SessionState(
        SessionRegion(
            _RUNNING if s.phase is _ATTACHED else s.phase,
            s.session_id,
            True,  # noqa: FBT003 - positional on the hot path
            i.run_id,
            s.ending,
            s.ended,
            s.silent_intents,
        ),
        state.drain,
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )


def _run_finished(state: SessionState, _: RunFinished) -> SessionState:
    s = state.session
    return SessionState(
        SessionRegion(
            _ATTACHED if s.phase is _RUNNING else s.phase,
            s.session_id,
            s.executor_attached,
            None,
            s.ending,
            s.ended,
            s.silent_intents,
        ),
        state.drain,
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )


def _executor_stopped(state: SessionState, _: ExecutorStopped) -> SessionState:
    session = state.session
    phase = session.phase
    if phase is _RUNNING:
        phase = _IDLE if session.ending is None else _ATTACHED
    elif phase is _ATTACHED and session.ending is None:
        phase = _IDLE
    return _with_session(state, attrs.evolve(session, phase=phase, executor_attached=False, run_id=None))


def _retire(state: SessionState, _: Retire) -> SessionState:
    return _with_session(state, attrs.evolve(state.session, phase=_RETIRED))


_ENDING_EFFECTS: Final = (CancelDrain, CancelRespawn, StopExecutor)


def _ending_rows(on: type[Stop | Unregister | Destroy], ending: Ending) -> tuple[Row, Row]:
    def is_ending_as_far(state: SessionState, _: object) -> bool:
        return not ending.outranks(state.session.ending)

    def raised(state: SessionState, _: object) -> SessionState:
        return raise_ending(state, ending)

    def announced(before: SessionState, after: SessionState, _: object) -> tuple[Effect, ...]:
        return announce_ending(before, after)

    return (
        _session_row(
            f"{ending.value}-again",
            "is ending as far already",
            on=on,
            phases=ALL_PHASES - {_INITIALIZING},
            when=is_ending_as_far,
            ignored="already_ending",
        ),
        _session_row(
            ending.value,
            "raises ending; tells drain and executor to stop",
            on=on,
            phases=ALL_PHASES - {_INITIALIZING, _DESTROYED},
            update=raised,
            emit=announced,
            emits=_ENDING_EFFECTS if ending is Ending.STOP else (*_ENDING_EFFECTS, RevokeEdges),
        ),
    )


_SAME_SESSION_ID: Final = {"same_session_id": lambda s, i: i.session_id == s.session.session_id}
_NO_LIVE_DRAIN: Final = {"no_live_drain": lambda s, _: not s.drain.live}

SESSION_ROWS: Final = (
    _session_row(
        "register",
        "begins the session's life",
        on=Register,
        phases=frozenset({_INITIALIZING}),
        guards={**_SAME_SESSION_ID, **_NO_LIVE_DRAIN},
        update=_register,
    ),
    _session_row(
        "restore",
        "goes on with what is left of it",
        on=Restore,
        phases=frozenset({_INITIALIZING}),
        guards={"same_session_id": lambda s, i: i.remembered.session_id == s.session.session_id},
        update=_restore,
    ),
    _session_row(
        "revive",
        "begins it again after a stop",
        on=Register,
        phases=frozenset({_STOPPED}),
        # One that was unregistered is forgotten: its id is registered anew, not revived.
        when=lambda s, _: s.session.ended is Ending.STOP,
        guards={**_SAME_SESSION_ID, **_NO_LIVE_DRAIN},
        update=_register,
    ),
    _session_row(
        "attach-executor",
        "an executor takes messages from now on",
        on=AttachExecutor,
        phases=frozenset({_IDLE, _RETIRED}),
        guards={
            **NOT_ENDING,
            "executor_absent": lambda s, _: not s.session.executor_attached,
        },
        update=_attach_executor,
        # In RETIRED there is nothing to wait for: the executor handles what is queued and ends.
        emit=lambda _b, a, _i: (
            (StartExecutor(), FinishExecutor()) if a.session.phase is _RETIRED else (StartExecutor(),)
        ),
        emits=(StartExecutor, FinishExecutor),
    ),
    _session_row(
        "set-silent-intents",
        "replaces the silent intents",
        on=SetSilentIntents,
        phases=LIVE,
        update=lambda s, i: _with_session(s, attrs.evolve(s.session, silent_intents=frozenset(i.intents))),
    ),
    _session_row(
        "begin-run",
        "the executor has a message",
        on=BeginRun,
        phases=frozenset({_ATTACHED, _RETIRED}),
        guards={
            **NOT_ENDING,
            "executor_attached": lambda s, _: s.session.executor_attached,
            "no_run_in_progress": lambda s, _: s.session.run_id is None,
        },
        update=_begin_run,
    ),
    _session_row(
        "run-finished",
        "the executor is free again",
        on=RunFinished,
        when=lambda s, i: s.session.run_id == i.run_id and i.outcome is not _ABANDONED,
        update=_run_finished,
    ),
    _session_row(
        "run-abandoned",
        "the executor is free again and has given its message up",
        on=RunFinished,
        when=lambda s, i: s.session.run_id == i.run_id,
        update=_run_finished,
        emit=lambda _b, _a, i: (MessageAbandoned(i.run_id),),
        emits=(MessageAbandoned,),
    ),
    _session_row(
        "run-finished-stale",
        "that run is over already",
        on=RunFinished,
        ignored="stale_run",
    ),
    _session_row(
        "detach-executor-absent",
        "there is none",
        on=DetachExecutor,
        phases=LIVE,
        when=lambda s, _: not s.session.executor_attached,
        ignored="no_executor",
    ),
    _session_row(
        "detach-executor",
        "asks the executor to stop",
        on=DetachExecutor,
        phases=LIVE,
        effects=(StopExecutor(),),
    ),
    _session_row(
        "executor-stopped",
        "no executor any more; an open run counts as returned",
        on=ExecutorStopped,
        when=lambda s, _: s.session.executor_attached,
        update=_executor_stopped,
    ),
    _session_row(
        "executor-stopped-stale",
        "there was none",
        on=ExecutorStopped,
        ignored="no_executor",
    ),
    _session_row(
        "retire",
        "takes no new work; the executor finishes what is queued",
        on=Retire,
        phases=ACTIVE,
        update=_retire,
        effects=(SessionRetired(), FinishExecutor()),
    ),
    _session_row(
        "retire-again",
        "is retired already",
        on=Retire,
        phases=frozenset({_RETIRED}),
        ignored="already_retired",
    ),
    *_ending_rows(Stop, Ending.STOP),
    *_ending_rows(Unregister, Ending.UNREGISTER),
    *_ending_rows(Destroy, Ending.DESTROY),
)
