"""The state of one session: its regions, what can be derived from them, and the invariants.

Theory of operation
-------------------
A `SessionState` is replaced, never changed: a transition builds a new one that shares every region it did not
touch. Sharing is meaningful: invariants are checked only over the regions whose identity has changed, so a
transition must hand an untouched region on as it is.

1. There is one drain phase, one owner, one binding. Whatever can be derived is a property here, not a field.
2. The four counters (generation, projection epoch, overlay epoch, epoch floor) never fall, not even when a session
   ends and its id is registered anew.
3. A session ends in two moves: ``ending`` is raised when it is told to end, ``ended`` follows once no drain is live
   and no executor is attached.

The records are slotted without a frozen ``__setattr__``, which would cost more than a whole transition. Nobody may
assign to their fields; a test reads the source for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import define

from ._remembered import Remembered
from ._values import (
    Bound,
    CommsDrainMode,
    CommsDrainPhase,
    CorrelationId,
    Counters,
    DrainEnding,
    DrainExit,
    DrainExitReason,
    DrainStopping,
    Ending,
    ObligationKind,
    PeerEndpoint,
    PeerId,
    PeerIngressOwner,
    RequestStatus,
    RunId,
    SessionId,
    SessionPhase,
    SupervisorBinding,
    Unattached,
    Unbound,
)

__all__ = [
    "ACTIVE",
    "INVARIANTS",
    "LIVE",
    "UNATTACHED",
    "UNBOUND",
    "DrainRegion",
    "Obligation",
    "PeersRegion",
    "RequestsRegion",
    "SessionRegion",
    "SessionState",
    "SupervisorRegion",
    "broken_invariant",
    "exit_reason",
]

ACTIVE: Final = frozenset({SessionPhase.IDLE, SessionPhase.ATTACHED, SessionPhase.RUNNING})
LIVE: Final = ACTIVE | {SessionPhase.RETIRED, SessionPhase.STOPPED}

UNATTACHED: Final = Unattached()
"""Shared, so that a state without owner costs nothing; compared by type, for an equal one may come from outside."""
UNBOUND: Final = Unbound()


@define
class SessionRegion:
    """Where the session stands."""

    phase: SessionPhase
    """The session's phase."""
    session_id: SessionId
    """The session's id."""
    executor_attached: bool = False
    """Whether an executor takes messages."""
    run_id: RunId | None = None
    """The run in progress."""
    ending: Ending | None = None
    """How far the session has been told to end."""
    ended: Ending | None = None
    """How far it has ended."""
    silent_intents: frozenset[str] = frozenset()
    """Intents whose requests are silent."""


@define
class DrainRegion:
    """The session's drain."""

    phase: CommsDrainPhase = CommsDrainPhase.INACTIVE
    """The drain's phase."""
    mode: CommsDrainMode | None = None
    """The mode of a drain that is live or waits for its respawn."""
    idle_timeout: float = 0.0
    """Its idle time-out in seconds."""
    generation: int = 0
    """The last drain's number; each spawn and rebind adds one."""
    stopping: DrainStopping | None = None
    """Why the live drain was told to end."""
    last_exit: DrainExit | None = None
    """How the last drain that ended did so."""

    @property
    def live(self) -> bool:
        """Whether a drain is there: STARTING or RUNNING."""
        return self.phase in DRAIN_LIVE


DRAIN_LIVE: Final = frozenset({CommsDrainPhase.STARTING, CommsDrainPhase.RUNNING})

Obligation = tuple[ObligationKind, PeerId, int]
"""An edge still to be published or revoked: kind, peer, epoch."""


@define(kw_only=True)
class SupervisorRegion:
    """The session's supervisor."""

    binding: SupervisorBinding = UNBOUND
    """The supervisor in force."""
    previous: Bound | None = None
    """The last confirmed binding while a rotation is unconfirmed; in force as well."""
    last_revoked: tuple[PeerId, int] | None = None
    """The binding that was revoked last, by peer and epoch."""
    epoch_floor: int = 0
    """Highest epoch ever bound; only higher ones can be bound."""
    obligations: Mapping[Obligation, int] = {}
    """What the trust store still has to be told, with the attempts so far."""
    token_hash: bytes | None = None
    """Hash of the bootstrap token."""

    @property
    def unconfirmed(self) -> bool:
        """Whether the binding's edge is not known to stand yet."""
        binding = self.binding
        return (
            isinstance(binding, Bound) and (ObligationKind.PUBLISH, binding.peer_id, binding.epoch) in self.obligations
        )

    @property
    def endpoints(self) -> Mapping[PeerId, PeerEndpoint]:
        """Those in force, as peers; the current one where both are the same peer."""
        return {
            bound.peer_id: PeerEndpoint(
                name=bound.name, peer_id=bound.peer_id, address=bound.address, signing_key=bound.signing_key
            )
            for bound in (self.previous, self.binding)
            if isinstance(bound, Bound)
        }

    def in_force(self, peer_id: PeerId | None) -> bool:
        """Whether ``peer_id`` is the current supervisor, or the previous one during a rotation."""
        binding, previous = self.binding, self.previous
        return (isinstance(binding, Bound) and binding.peer_id == peer_id) or (
            previous is not None and previous.peer_id == peer_id
        )


@define(kw_only=True)
class PeersRegion:
    """Who the session is and whom it trusts."""

    local_endpoint: PeerEndpoint | None = None
    """Where the session is reached."""
    direct: Mapping[PeerId, PeerEndpoint] = {}
    """Peers trusted directly."""
    overlay: Mapping[PeerId, PeerEndpoint] = {}
    """Peers the mob contributes."""
    overlay_epoch: int = 0
    """Epoch of the overlay."""
    projection_epoch: int = 0
    """Epoch of the last change to the set of peers."""


@define
class RequestsRegion:
    """Requests that are open in either direction."""

    outbound: Mapping[CorrelationId, tuple[PeerId, RequestStatus]] = {}
    """Own requests: addressee and how far they are."""
    inbound: frozenset[tuple[PeerId, CorrelationId]] = frozenset()
    """Requests of others that are not answered yet."""


@define
class SessionState:
    """Everything the authority knows of one session."""

    session: SessionRegion
    """Where the session stands."""
    drain: DrainRegion
    """Its drain."""
    ingress: PeerIngressOwner
    """Who owns its peer ingress."""
    supervisor: SupervisorRegion
    """Its supervisor."""
    peers: PeersRegion
    """Its peers."""
    requests: RequestsRegion
    """Its open requests."""

    @classmethod
    def initial(cls, session_id: SessionId) -> SessionState:
        """Make the state of a session that was not registered yet."""
        return cls(
            SessionRegion(SessionPhase.INITIALIZING, session_id),
            _NO_DRAIN,
            UNATTACHED,
            _NO_SUPERVISOR,
            _NO_PEERS,
            _NO_REQUESTS,
        )

    @property
    def takes_work(self) -> bool:
        """Whether a message would be admitted now, from somebody trusted."""
        return self.session.phase in ACTIVE and self.session.ending is None

    @property
    def may_have_edges(self) -> bool:
        """Whether there ever was an edge to store for this session id; these two numbers never fall."""
        return self.peers.projection_epoch > 0 or self.supervisor.epoch_floor > 0

    @property
    def counters(self) -> Counters:
        """The numbers that never fall."""
        return Counters(
            generation=self.drain.generation,
            projection_epoch=self.peers.projection_epoch,
            overlay_epoch=self.peers.overlay_epoch,
            epoch_floor=self.supervisor.epoch_floor,
        )

    @property
    def remembered(self) -> Remembered:
        """What is to be known of the session when its process has died."""
        session, supervisor, peers = self.session, self.supervisor, self.peers
        return Remembered(
            session_id=session.session_id,
            ending=session.ending,
            retired=session.phase is SessionPhase.RETIRED,
            silent_intents=session.silent_intents,
            counters=self.counters,
            supervisor=supervisor.binding,
            previous=supervisor.previous,
            last_revoked=supervisor.last_revoked,
            obligations=supervisor.obligations,
            token_hash=supervisor.token_hash,
            local_endpoint=peers.local_endpoint,
            direct=tuple(peers.direct.values()),
            overlay=tuple(peers.overlay.values()),
            inbound=self.requests.inbound,
        )

    @property
    def effective_peers(self) -> Mapping[PeerId, PeerEndpoint]:
        """Whom the session trusts: the overlay, over it the direct peers, over them the supervisors in force."""
        return {**self.peers.overlay, **self.peers.direct, **self.supervisor.endpoints}

    def trusts(self, peer_id: PeerId | None) -> bool:
        """Whether ``peer_id`` is among the effective peers."""
        peers = self.peers
        return peer_id in peers.direct or peer_id in peers.overlay or self.supervisor.in_force(peer_id)


_NO_DRAIN: Final = DrainRegion()
_NO_SUPERVISOR: Final = SupervisorRegion()
_NO_PEERS: Final = PeersRegion()
_NO_REQUESTS: Final = RequestsRegion()


def exit_reason(ending: DrainEnding, stopping: DrainStopping | None) -> DrainExitReason:
    """Say why a drain ended, from how its task ended and the recorded intent (SPEC 3).

    The text or reason of a ``Cancelled`` plays no part: an explicit cancellation can arrive disguised as a deadline.
    """
    return _EXIT_REASONS[ending, stopping]


_EXIT_REASONS: Final = {
    (DrainEnding.EXCEPTION, None): DrainExitReason.FAILED,
    (DrainEnding.EXCEPTION, DrainStopping.ABORT): DrainExitReason.ABORTED,
    (DrainEnding.EXCEPTION, DrainStopping.DETACH): DrainExitReason.ABORTED,
    (DrainEnding.EXCEPTION, DrainStopping.SHUTDOWN): DrainExitReason.SESSION_SHUTDOWN,
    # Nobody here asked for it, so somebody above the session cancelled.
    (DrainEnding.CANCELLED, None): DrainExitReason.SESSION_SHUTDOWN,
    (DrainEnding.CANCELLED, DrainStopping.ABORT): DrainExitReason.ABORTED,
    (DrainEnding.CANCELLED, DrainStopping.DETACH): DrainExitReason.ABORTED,
    (DrainEnding.CANCELLED, DrainStopping.SHUTDOWN): DrainExitReason.SESSION_SHUTDOWN,
    (DrainEnding.IDLE, None): DrainExitReason.IDLE_TIMEOUT,
    (DrainEnding.IDLE, DrainStopping.ABORT): DrainExitReason.ABORTED,
    (DrainEnding.IDLE, DrainStopping.DETACH): DrainExitReason.ABORTED,
    (DrainEnding.IDLE, DrainStopping.SHUTDOWN): DrainExitReason.SESSION_SHUTDOWN,
    (DrainEnding.DISMISSED, None): DrainExitReason.DISMISSED,
    (DrainEnding.DISMISSED, DrainStopping.ABORT): DrainExitReason.DISMISSED,
    (DrainEnding.DISMISSED, DrainStopping.DETACH): DrainExitReason.DISMISSED,
    (DrainEnding.DISMISSED, DrainStopping.SHUTDOWN): DrainExitReason.DISMISSED,
}


# --- invariants ------------------------------------------------------------------------------------

INVARIANTS: Final[Mapping[str, str]] = {
    "running_has_run_id": "a session that is RUNNING has a run",
    "run_id_has_phase": "a run is in progress only in RUNNING, in RETIRED, or while the session ends",
    "live_drain_has_mode": "a live drain has a mode",
    "live_drain_is_owned": "a live drain that is not stopping has an owner",
    "stopping_means_live": "only a live drain is stopping",
    "bound_epoch_within_floor": "the supervisor's epoch is at most the floor",
    "obligation_epochs_within_floor": "no obligation has an epoch above the floor",
    "no_revoke_of_supervisor_in_force": "no edge is to be revoked of a supervisor that is in force",
    "ended_has_nothing_left": "what has ended has no live drain, no executor, no owner, no supervisor",
    "generation_never_falls": "the drain's generation never falls",
    "projection_epoch_never_falls": "the epoch of the peers never falls",
    "overlay_epoch_never_falls": "the epoch of the overlay never falls",
    "epoch_floor_never_falls": "the floor of supervisor epochs never falls",
}
"""What holds after every step, by name."""

_RUNNING: Final = SessionPhase.RUNNING
_RUN_PHASES: Final = frozenset({SessionPhase.RUNNING, SessionPhase.RETIRED})


def broken_invariant(old: SessionState, new: SessionState) -> str | None:  # noqa: C901, PLR0911 - one list
    """Name the first invariant that the step from ``old`` to ``new`` would break, None if it breaks none.

    Only what was replaced is looked at. This runs on every step, so the two regions that most steps replace are looked
    at here, without a call for each.
    """
    session, drain = new.session, new.drain
    if session is not old.session:
        if session.run_id is None:
            if session.phase is _RUNNING:
                return "running_has_run_id"
        elif session.phase not in _RUN_PHASES and session.ending is None:
            return "run_id_has_phase"
    if drain is not old.drain or new.ingress is not old.ingress:
        if drain.generation < old.drain.generation:
            return "generation_never_falls"
        if drain.phase not in DRAIN_LIVE:
            if drain.stopping is not None:
                return "stopping_means_live"
        elif drain.mode is None:
            return "live_drain_has_mode"
        elif drain.stopping is None and isinstance(new.ingress, Unattached):
            return "live_drain_is_owned"
    if new.supervisor is not old.supervisor and (broken := _broken_by_supervisor(old.supervisor, new.supervisor)):
        return broken
    if new.peers is not old.peers and (broken := _broken_by_peers(old.peers, new.peers)):
        return broken
    return None if session.ended is None else _broken_by_end(new)


def _broken_by_supervisor(old: SupervisorRegion, new: SupervisorRegion) -> str | None:
    floor = new.epoch_floor
    if floor < old.epoch_floor:
        return "epoch_floor_never_falls"
    if isinstance(new.binding, Bound) and new.binding.epoch > floor:
        return "bound_epoch_within_floor"
    for kind, peer_id, epoch in new.obligations:
        if epoch > floor:
            return "obligation_epochs_within_floor"
        if kind is ObligationKind.REVOKE and new.in_force(peer_id):
            return "no_revoke_of_supervisor_in_force"
    return None


def _broken_by_peers(old: PeersRegion, new: PeersRegion) -> str | None:
    if new.projection_epoch < old.projection_epoch:
        return "projection_epoch_never_falls"
    if new.overlay_epoch < old.overlay_epoch:
        return "overlay_epoch_never_falls"
    return None


def _broken_by_end(new: SessionState) -> str | None:
    nothing_left = (
        not new.drain.live
        and not new.session.executor_attached
        and isinstance(new.ingress, Unattached)
        and isinstance(new.supervisor.binding, Unbound)
    )
    return None if nothing_left else "ended_has_nothing_left"
