"""The invariants once more, in other words than the code's, each asked of the whole state and never skipped.

The code looks only at regions that were replaced; here every law is asked of every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meerkat_trio.authority import (
    Bound,
    CommsDrainPhase,
    ObligationKind,
    SessionPhase,
    SessionState,
    Unattached,
    Unbound,
)


def _live(state: SessionState) -> bool:
    return state.drain.phase in {CommsDrainPhase.STARTING, CommsDrainPhase.RUNNING}


def _in_force(state: SessionState) -> set[str]:
    both = (state.supervisor.binding, state.supervisor.previous)
    return {binding.peer_id for binding in both if isinstance(binding, Bound)}


def _nothing_left(state: SessionState) -> bool:
    return (
        not _live(state)
        and not state.session.executor_attached
        and state.ingress == Unattached()
        and state.supervisor.binding == Unbound()
    )


def _run_has_its_phase(state: SessionState) -> bool:
    running_or_retired = state.session.phase in {SessionPhase.RUNNING, SessionPhase.RETIRED}
    return state.session.run_id is None or running_or_retired or state.session.ending is not None


def _binding_within_floor(state: SessionState) -> bool:
    binding = state.supervisor.binding
    return not isinstance(binding, Bound) or binding.epoch <= state.supervisor.epoch_floor


Law = Callable[[SessionState, SessionState], bool]

LAWS: Final[dict[str, Law]] = {
    "running_has_run_id": lambda _, n: n.session.phase is not SessionPhase.RUNNING or n.session.run_id is not None,
    "run_id_has_phase": lambda _, n: _run_has_its_phase(n),
    "live_drain_has_mode": lambda _, n: not _live(n) or n.drain.mode is not None,
    "live_drain_is_owned": lambda _, n: not _live(n) or n.drain.stopping is not None or n.ingress != Unattached(),
    "stopping_means_live": lambda _, n: n.drain.stopping is None or _live(n),
    "bound_epoch_within_floor": lambda _, n: _binding_within_floor(n),
    "obligation_epochs_within_floor": lambda _, n: all(
        epoch <= n.supervisor.epoch_floor for _kind, _peer, epoch in n.supervisor.obligations
    ),
    "no_revoke_of_supervisor_in_force": lambda _, n: (
        not any(
            kind is ObligationKind.REVOKE and peer in _in_force(n) for kind, peer, _epoch in n.supervisor.obligations
        )
    ),
    "ended_has_nothing_left": lambda _, n: n.session.ended is None or _nothing_left(n),
    "generation_never_falls": lambda o, n: n.drain.generation >= o.drain.generation,
    "projection_epoch_never_falls": lambda o, n: n.peers.projection_epoch >= o.peers.projection_epoch,
    "overlay_epoch_never_falls": lambda o, n: n.peers.overlay_epoch >= o.peers.overlay_epoch,
    "epoch_floor_never_falls": lambda o, n: n.supervisor.epoch_floor >= o.supervisor.epoch_floor,
}


def broken_laws(old: SessionState, new: SessionState) -> set[str]:
    return {name for name, holds in LAWS.items() if not holds(old, new)}
