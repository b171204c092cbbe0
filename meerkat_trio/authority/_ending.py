"""How a session ends: raising ``ending``, and the step in which it becomes ``ended`` (SPEC 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from ._effects import (
    CancelDrain,
    CancelRespawn,
    RevokeEdges,
    SessionFinished,
    StopExecutor,
)
from ._state import (
    UNATTACHED,
    DrainRegion,
    PeersRegion,
    RequestsRegion,
    SessionRegion,
    SessionState,
    SupervisorRegion,
)
from ._values import CommsDrainPhase, DrainStopping, Ending, SessionPhase

if TYPE_CHECKING:
    from ._effects import Effect

__all__ = ["announce_ending", "finish_ending", "raise_ending"]


def raise_ending(state: SessionState, ending: Ending) -> SessionState:
    """Tell the session to end at least this far; a lower ending than the one it has changes nothing."""
    if not ending.outranks(state.session.ending):
        return state
    drain = state.drain
    if drain.live:
        drain = attrs.evolve(drain, stopping=DrainStopping.SHUTDOWN)
    elif drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE:
        drain = attrs.evolve(drain, phase=CommsDrainPhase.STOPPED, mode=None)
    supervisor = state.supervisor
    if ending is not Ending.STOP:
        supervisor = SupervisorRegion(
            epoch_floor=supervisor.epoch_floor,
            last_revoked=supervisor.last_revoked,
            token_hash=supervisor.token_hash,
        )
    return SessionState(
        attrs.evolve(state.session, ending=ending),
        drain,
        state.ingress,
        supervisor,
        state.peers,
        state.requests,
    )


def announce_ending(before: SessionState, after: SessionState) -> tuple[Effect, ...]:
    """Name what has to be stopped now that ``ending`` was raised, each thing once."""
    effects: list[Effect] = []
    if after.drain.stopping is DrainStopping.SHUTDOWN is not before.drain.stopping:
        effects.append(CancelDrain(after.drain.generation))
    if before.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE:
        effects.append(CancelRespawn())
    if after.session.executor_attached and before.session.ending is None:
        effects.append(StopExecutor())
    if after.session.ending is not before.session.ending and after.session.ending is not Ending.STOP:
        effects.append(RevokeEdges())
    return tuple(effects)


def finish_ending(
    state: SessionState,
) -> tuple[SessionState, tuple[Effect, ...]] | None:
    """Return the ended state if nothing of the session runs any more, None if it is not ending or not done."""
    session = state.session
    ending = session.ending
    if ending is None or not ending.outranks(session.ended) or state.drain.live or session.executor_attached:
        return None
    supervisor, peers = state.supervisor, state.peers
    ended = SessionState(
        SessionRegion(_END_PHASE[ending], session.session_id, ending=ending, ended=ending),
        DrainRegion(generation=state.drain.generation, last_exit=state.drain.last_exit),
        UNATTACHED,
        SupervisorRegion(epoch_floor=supervisor.epoch_floor),
        PeersRegion(projection_epoch=peers.projection_epoch, overlay_epoch=peers.overlay_epoch),
        RequestsRegion(),
    )
    return ended, (SessionFinished(ending),)


_END_PHASE: Final = {
    Ending.STOP: SessionPhase.STOPPED,
    Ending.UNREGISTER: SessionPhase.STOPPED,
    Ending.DESTROY: SessionPhase.DESTROYED,
}
