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

from collections.abc import Callable, Mapping
from typing import Final

from attrs import define, frozen

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
    "INVARIANTS_BY_CHANGE",
    "LIVE",
    "UNATTACHED",
    "UNBOUND",
    "DrainRegion",
    "Invariant",
    "Obligation",
    "PeersRegion",
    "RequestsRegion",
    "SessionRegion",
    "SessionState",
    "SupervisorRegion",
    "exit_reason",
]

ACTIVE: Final = frozenset({SessionPhase.IDLE, SessionPhase.ATTACHED, SessionPhase.RUNNING})
LIVE: Final = ACTIVE | {SessionPhase.RETIRED, SessionPhase.STOPPED}

UNATTACHED: Final = Unattached()
"""The one `Unattached` a state holds: transitions test for it by identity."""
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
        return self.phase in _DRAIN_LIVE


_DRAIN_LIVE: Final = frozenset({CommsDrainPhase.STARTING, CommsDrainPhase.RUNNING})

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
    obligations: Mapping[Obligation, int] = {}  # noqa: RUF012 - replaced, never mutated
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
    direct: Mapping[PeerId, PeerEndpoint] = {}  # noqa: RUF012 - replaced, never mutated
    """Peers trusted directly."""
    overlay: Mapping[PeerId, PeerEndpoint] = {}  # noqa: RUF012 - replaced, never mutated
    """Peers the mob contributes."""
    overlay_epoch: int = 0
    """Epoch of the overlay."""
    projection_epoch: int = 0
    """Epoch of the last change to the set of peers."""


@define
class RequestsRegion:
    """Requests that are open in either direction."""

    outbound: Mapping[CorrelationId, tuple[PeerId, RequestStatus]] = {}  # noqa: RUF012 - replaced, never mutated
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
    def counters(self) -> Counters:
        """The numbers that never fall."""
        return Counters(
            generation=self.drain.generation,
            projection_epoch=self.peers.projection_epoch,
            overlay_epoch=self.peers.overlay_epoch,
            epoch_floor=self.supervisor.epoch_floor,
        )

    @property
    def effective_peers(self) -> Mapping[PeerId, PeerEndpoint]:
        """Whom the session trusts: the overlay, over it the direct peers, over them the supervisors in force."""
        peers = {**self.peers.overlay, **self.peers.direct}
        for bound in (self.supervisor.previous, self.supervisor.binding):
            if isinstance(bound, Bound):
                peers[bound.peer_id] = PeerEndpoint(
                    name=bound.name,
                    peer_id=bound.peer_id,
                    address=bound.address,
                    signing_key=bound.signing_key,
                )
        return peers

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


@frozen(kw_only=True)
class Invariant:
    """Something that holds after every step."""

    name: str
    """What it is called in `InvariantViolated`."""
    reads: frozenset[str]
    """The regions it looks at; it is checked when one of them was replaced."""
    holds: Callable[[SessionState, SessionState], bool]
    """Given the state before and after."""


def _invariant(name: str, *reads: str, holds: Callable[[SessionState, SessionState], bool]) -> Invariant:
    return Invariant(name=name, reads=frozenset(reads), holds=holds)


def _no_revoke_in_force(_: SessionState, new: SessionState) -> bool:
    return not any(
        kind is ObligationKind.REVOKE and new.supervisor.in_force(peer_id)
        for kind, peer_id, _epoch in new.supervisor.obligations
    )


def _ended_means_nothing_left(_: SessionState, new: SessionState) -> bool:
    session = new.session
    return session.ended is None or (
        not new.drain.live
        and not session.executor_attached
        and isinstance(new.ingress, Unattached)
        and isinstance(new.supervisor.binding, Unbound)
    )


_RUN_PHASES: Final = frozenset({SessionPhase.RUNNING, SessionPhase.RETIRED})

INVARIANTS: Final = (
    _invariant(
        "live_drain_has_mode",
        "drain",
        holds=lambda _, new: new.drain.mode is not None or new.drain.phase not in _DRAIN_LIVE,
    ),
    _invariant(
        "live_drain_is_owned",
        "drain",
        "ingress",
        holds=lambda _, new: (
            new.drain.phase not in _DRAIN_LIVE or new.drain.stopping is not None or new.ingress is not UNATTACHED
        ),
    ),
    _invariant(
        "stopping_means_live",
        "drain",
        holds=lambda _, new: new.drain.stopping is None or new.drain.live,
    ),
    _invariant(
        "running_has_run_id",
        "session",
        holds=lambda _, new: new.session.phase is not SessionPhase.RUNNING or new.session.run_id is not None,
    ),
    _invariant(
        "run_id_has_phase",
        "session",
        holds=lambda _, new: (
            new.session.run_id is None or new.session.phase in _RUN_PHASES or new.session.ending is not None
        ),
    ),
    _invariant(
        "bound_epoch_within_floor",
        "supervisor",
        holds=lambda _, new: (
            not isinstance(new.supervisor.binding, Bound) or new.supervisor.binding.epoch <= new.supervisor.epoch_floor
        ),
    ),
    _invariant(
        "obligation_epochs_within_floor",
        "supervisor",
        holds=lambda _, new: all(epoch <= new.supervisor.epoch_floor for _k, _p, epoch in new.supervisor.obligations),
    ),
    _invariant("no_revoke_of_supervisor_in_force", "supervisor", holds=_no_revoke_in_force),
    _invariant(
        "ended_has_nothing_left",
        "session",
        "drain",
        "ingress",
        "supervisor",
        holds=_ended_means_nothing_left,
    ),
    _invariant(
        "generation_never_falls",
        "drain",
        holds=lambda old, new: new.drain.generation >= old.drain.generation,
    ),
    _invariant(
        "projection_epoch_never_falls",
        "peers",
        holds=lambda old, new: new.peers.projection_epoch >= old.peers.projection_epoch,
    ),
    _invariant(
        "overlay_epoch_never_falls",
        "peers",
        holds=lambda old, new: new.peers.overlay_epoch >= old.peers.overlay_epoch,
    ),
    _invariant(
        "epoch_floor_never_falls",
        "supervisor",
        holds=lambda old, new: new.supervisor.epoch_floor >= old.supervisor.epoch_floor,
    ),
)

_REGION_BITS: Final = {
    "session": 1,
    "drain": 2,
    "ingress": 4,
    "supervisor": 8,
    "peers": 16,
}

INVARIANTS_BY_CHANGE: Final = tuple(
    tuple(invariant for invariant in INVARIANTS if any(changed & _REGION_BITS[region] for region in invariant.reads))
    for changed in range(32)
)
"""The invariants to check, indexed by which regions were replaced (one bit each, in `SessionState`'s order)."""
