"""The rows of the supervisor binding and of its obligations towards the trust store (SPEC 3, "Supervisor")."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from ._effects import TrustEdgesChanged
from ._inputs import (
    AuthorizeSupervisor,
    BindSupervisor,
    BootstrapTokenUsed,
    IssueBootstrapToken,
    RevokeSupervisor,
    SupervisorTrustEdgePublished,
    SupervisorTrustEdgePublishFailed,
    SupervisorTrustEdgeRevoked,
    SupervisorTrustEdgeRevokeFailed,
)
from ._row import NOT_ENDING, row
from ._state import LIVE, UNBOUND, Obligation, SessionState, SupervisorRegion
from ._values import Bound, ObligationKind, Unbound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._row import Row

__all__ = ["SUPERVISOR_ROWS"]

_PUBLISH, _REVOKE = ObligationKind.PUBLISH, ObligationKind.REVOKE

_Published = SupervisorTrustEdgePublished | SupervisorTrustEdgePublishFailed
_Revoked = SupervisorTrustEdgeRevoked | SupervisorTrustEdgeRevokeFailed

_Condition = Callable[[SessionState, Any], bool]

_supervisor_row = partial(row, region="supervisor", phases=LIVE)


def _with_supervisor(state: SessionState, supervisor: SupervisorRegion) -> SessionState:
    return SessionState(
        state.session,
        state.drain,
        state.ingress,
        supervisor,
        state.peers,
        state.requests,
    )


def _settled(
    supervisor: SupervisorRegion,
    *,
    close: Iterable[Obligation] = (),
    publish: Bound | None = None,
    revoke: Iterable[Bound] = (),
) -> SupervisorRegion:
    """Return the region with its obligations brought in line with who is in force now.

    No revoke obligation is kept or made for a peer in force: entering force closes one.
    """
    closed = frozenset(close)
    obligations = {
        key: attempts
        for key, attempts in supervisor.obligations.items()
        if key not in closed and not (key[0] is _REVOKE and supervisor.in_force(key[1]))
    }
    for bound in revoke:
        if not supervisor.in_force(bound.peer_id):
            obligations[_REVOKE, bound.peer_id, bound.epoch] = 0
    if publish is not None:
        obligations[_PUBLISH, publish.peer_id, publish.epoch] = 0
    return attrs.evolve(supervisor, obligations=obligations)


def _publish_obligations(supervisor: SupervisorRegion) -> tuple[Obligation, ...]:
    return tuple(key for key in supervisor.obligations if key[0] is _PUBLISH)


def _bind(state: SessionState, i: BindSupervisor) -> SessionState:
    region = attrs.evolve(state.supervisor, binding=i.binding, epoch_floor=i.binding.epoch)
    return _with_supervisor(state, _settled(region, publish=i.binding))


def _authorize(state: SessionState, i: AuthorizeSupervisor) -> SessionState:
    supervisor = state.supervisor
    current = supervisor.binding
    superseded: tuple[Bound, ...] = ()
    previous = supervisor.previous
    if isinstance(current, Bound):
        if supervisor.unconfirmed:
            superseded = (current,)
        else:
            previous = current
    region = attrs.evolve(supervisor, binding=i.binding, previous=previous, epoch_floor=i.binding.epoch)
    region = _settled(
        region,
        close=_publish_obligations(supervisor),
        publish=i.binding,
        revoke=superseded,
    )
    return _with_supervisor(state, region)


def _revoke(state: SessionState, i: RevokeSupervisor) -> SessionState:
    supervisor = state.supervisor
    former = [bound for bound in (supervisor.binding, supervisor.previous) if isinstance(bound, Bound)]
    region = attrs.evolve(supervisor, binding=UNBOUND, previous=None, last_revoked=(i.peer_id, i.epoch))
    return _with_supervisor(state, _settled(region, close=_publish_obligations(supervisor), revoke=former))


def _published(state: SessionState, i: SupervisorTrustEdgePublished) -> SessionState:
    supervisor = state.supervisor
    former = (supervisor.previous,) if supervisor.previous is not None else ()
    region = attrs.evolve(supervisor, previous=None)
    return _with_supervisor(state, _settled(region, close=[(_PUBLISH, i.peer_id, i.epoch)], revoke=former))


def _publish_failed_for_good(state: SessionState, i: SupervisorTrustEdgePublishFailed) -> SessionState:
    supervisor = state.supervisor
    failed = (supervisor.binding,) if isinstance(supervisor.binding, Bound) else ()
    region = attrs.evolve(supervisor, binding=supervisor.previous or UNBOUND, previous=None)
    return _with_supervisor(state, _settled(region, close=[(_PUBLISH, i.peer_id, i.epoch)], revoke=failed))


def _attempted(kind: ObligationKind, state: SessionState, i: _Published | _Revoked) -> SessionState:
    key = (kind, i.peer_id, i.epoch)
    obligations: Mapping[Obligation, int] = state.supervisor.obligations
    region = attrs.evolve(state.supervisor, obligations={**obligations, key: obligations[key] + 1})
    return _with_supervisor(state, region)


def _revoked(state: SessionState, i: SupervisorTrustEdgeRevoked) -> SessionState:
    return _with_supervisor(state, _settled(state.supervisor, close=[(_REVOKE, i.peer_id, i.epoch)]))


def _owed(kind: ObligationKind) -> _Condition:
    return lambda s, i: (kind, i.peer_id, i.epoch) in s.supervisor.obligations


def _other_epoch_owed(kind: ObligationKind) -> _Condition:
    return lambda s, i: any(k is kind and p == i.peer_id for k, p, _e in s.supervisor.obligations)


def _other_peer_owed(kind: ObligationKind) -> _Condition:
    return lambda s, _: any(k is kind for k, _p, _e in s.supervisor.obligations)


def _stale_rows(name: str, on: type[_Published | _Revoked], kind: ObligationKind) -> tuple[Row, ...]:
    observation = partial(row, region="supervisor", on=on)
    return (
        observation(
            f"{name}-stale-epoch",
            "that peer's edge is owed for another epoch",
            when=_other_epoch_owed(kind),
            ignored="stale_epoch",
        ),
        observation(
            f"{name}-other-peer",
            "another peer's edge is owed",
            when=_other_peer_owed(kind),
            ignored="peer_mismatch",
        ),
        observation(f"{name}-not-owed", "nothing is owed", ignored="no_obligation"),
    )


_observation = partial(row, region="supervisor", effects=(TrustEdgesChanged(),))
_binding_row = partial(_supervisor_row, effects=(TrustEdgesChanged(),))

_EPOCH_ABOVE_FLOOR: Final = {"epoch_above_floor": lambda s, i: i.binding.epoch > s.supervisor.epoch_floor}
_BOUND: Final = {"supervisor_bound": lambda s, _: isinstance(s.supervisor.binding, Bound)}


def _names_current_peer(state: SessionState, i: RevokeSupervisor) -> bool:
    binding = state.supervisor.binding
    return isinstance(binding, Bound) and binding.peer_id == i.peer_id


def _names_current_epoch(state: SessionState, i: RevokeSupervisor) -> bool:
    binding = state.supervisor.binding
    return isinstance(binding, Bound) and binding.epoch == i.epoch


SUPERVISOR_ROWS: Final = (
    _binding_row(
        "bind-supervisor",
        "a supervisor is in force; its edge is owed",
        on=BindSupervisor,
        guards={
            **NOT_ENDING,
            "supervisor_unbound": lambda s, _: isinstance(s.supervisor.binding, Unbound),
            **_EPOCH_ABOVE_FLOOR,
        },
        update=_bind,
    ),
    _binding_row(
        "authorize-supervisor",
        "the next supervisor is in force; the last confirmed one stays so until the new edge stands",
        on=AuthorizeSupervisor,
        guards={**NOT_ENDING, **_BOUND, **_EPOCH_ABOVE_FLOOR},
        update=_authorize,
    ),
    _binding_row(
        "revoke-supervisor",
        "nobody is in force; the edges' removal is owed",
        on=RevokeSupervisor,
        guards={
            **_BOUND,
            "peer_id_matches_current": _names_current_peer,
            "epoch_matches_current": _names_current_epoch,
        },
        update=_revoke,
    ),
    _observation(
        "supervisor-published",
        "the edge stands; the previous supervisor's removal is owed",
        on=SupervisorTrustEdgePublished,
        when=_owed(_PUBLISH),
        update=_published,
    ),
    *_stale_rows("supervisor-published", SupervisorTrustEdgePublished, _PUBLISH),
    _observation(
        "supervisor-unpublishable",
        "back to the previous supervisor or none; the floor stays",
        on=SupervisorTrustEdgePublishFailed,
        when=lambda s, i: i.final and (_PUBLISH, i.peer_id, i.epoch) in s.supervisor.obligations,
        update=_publish_failed_for_good,
    ),
    _observation(
        "supervisor-publish-failed",
        "counts the attempt",
        on=SupervisorTrustEdgePublishFailed,
        when=_owed(_PUBLISH),
        update=partial(_attempted, _PUBLISH),
    ),
    *_stale_rows("supervisor-publish-failed", SupervisorTrustEdgePublishFailed, _PUBLISH),
    _observation(
        "supervisor-revoked",
        "the edge is gone",
        on=SupervisorTrustEdgeRevoked,
        when=_owed(_REVOKE),
        update=_revoked,
    ),
    *_stale_rows("supervisor-revoked", SupervisorTrustEdgeRevoked, _REVOKE),
    _observation(
        "supervisor-revoke-failed",
        "counts the attempt",
        on=SupervisorTrustEdgeRevokeFailed,
        when=_owed(_REVOKE),
        update=partial(_attempted, _REVOKE),
    ),
    *_stale_rows("supervisor-revoke-failed", SupervisorTrustEdgeRevokeFailed, _REVOKE),
    _supervisor_row(
        "issue-bootstrap-token",
        "a supervisor may bind with it once",
        on=IssueBootstrapToken,
        update=lambda s, i: _with_supervisor(s, attrs.evolve(s.supervisor, token_hash=i.token_hash)),
    ),
    _supervisor_row(
        "bootstrap-token-used",
        "it was used",
        on=BootstrapTokenUsed,
        guards={"token_present": lambda s, _: s.supervisor.token_hash is not None},
        update=lambda s, _: _with_supervisor(s, attrs.evolve(s.supervisor, token_hash=None)),
    ),
)
