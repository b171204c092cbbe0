"""What calls return and snapshots show: values only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from ._exceptions import ReconcileError
from ._messages import Envelope, TrustSource
from .authority import (
    CommsDrainMode,
    CommsDrainPhase,
    DrainExit,
    DropReason,
    Ending,
    PeerId,
    SessionId,
    SessionPhase,
    SupervisorBinding,
)

__all__ = [
    "AbandonCause",
    "Abandoned",
    "DrainSnapshot",
    "IngressResult",
    "IngressUpdate",
    "MachineStatistics",
    "ReconcileReport",
    "SessionEnd",
    "SessionStatistics",
    "SupervisorReport",
]


class AbandonCause(Enum):
    """Why a message will not be handled."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    HARD_CANCELLED = "hard_cancelled"
    """A supervisor had its run cancelled for good."""
    SESSION_ENDED = "session_ended"


@frozen(kw_only=True)
class Abandoned:
    """An admitted message that will not be handled."""

    message: Envelope
    """The message."""
    cause: AbandonCause
    """Why."""
    attempts: int
    """How often its handler was called and failed."""
    error: BaseException | None = field(default=None, eq=False)
    """What the last attempt raised."""


class IngressResult(Enum):
    """What an attach did."""

    UNCHANGED = "unchanged"
    REBOUND = "rebound"
    SPAWNED = "spawned"


@frozen(kw_only=True)
class IngressUpdate:
    """What an attach did."""

    result: IngressResult
    """Whether a drain was started, moved, or left as it was."""
    owner_changed: bool
    """Whether somebody else owns the ingress now."""
    generation: int
    """The drain that serves now."""


@frozen(kw_only=True)
class ReconcileReport:
    """What a change of the peers came to."""

    epoch: int
    """The epoch of the peers that the trust store shows; at least that of the change."""
    deferred: bool = False
    """Whether nothing was stored, because no comms runtime is attached; attaching one brings its store up to date."""
    failed: tuple[ReconcileError, ...] = field(default=(), eq=False)
    """Edges of other changes that the store does not show yet; they are tried again."""


@frozen(kw_only=True)
class SupervisorReport:
    """How the supervisor's edges stand."""

    supervisor: SupervisorBinding
    """The supervisor in force."""
    deferred: bool = False
    """Whether something is owed still, because no comms runtime is attached."""


@frozen(kw_only=True)
class SessionEnd:
    """How a session ended."""

    session_id: SessionId
    """The session."""
    cause: Ending
    """What ended it."""
    error: BaseException | None = field(default=None, eq=False)
    """The fault that ended it, if one did."""
    unfinished: tuple[Envelope, ...] = ()
    """What was admitted and not handled, in order; the same is in `Session.abandoned`."""
    edges_left: tuple[tuple[PeerId, TrustSource], ...] = ()
    """Trust edges of the session's own sources that could not be removed; after a stop they stay, and are not named."""


@frozen(kw_only=True)
class DrainSnapshot:
    """A session's drain at one moment."""

    phase: CommsDrainPhase
    """Its phase."""
    mode: CommsDrainMode | None
    """Its mode, if it is live or waits for its respawn."""
    generation: int
    """Its number; each spawn and each rebind adds one."""
    last_exit: DrainExit | None
    """How the last drain that ended did so."""


@frozen(kw_only=True)
class SessionStatistics:
    """A session's counters at one moment; all but ``queued`` and ``replies_waiting`` count from its registration on."""

    phase: SessionPhase
    """The session's phase."""
    queued: int
    """Messages admitted and not handled yet, the one in progress included."""
    admitted: int
    """Messages admitted to the work queue."""
    handled: int
    """Messages consumed by the handler."""
    retried: int
    """Attempts that failed and were made again."""
    returned: int
    """Attempts that were cancelled; the message went back to the head."""
    abandoned: int
    """Messages given up."""
    abandoned_forgotten: int
    """Abandoned messages that had to make room in `Session.abandoned`."""
    dropped: Mapping[DropReason, int]
    """Envelopes refused, per reason."""
    rebinds: int
    """Times the drain moved to another instance."""
    respawns: int
    """Times a failed drain was started again by policy."""
    replies_waiting: int
    """Replies to requests that are not out yet."""
    replies_given_up: int
    """Replies to requests that have failed for good."""


@frozen(kw_only=True)
class MachineStatistics:
    """A machine's counters at one moment, summed over the sessions that are registered."""

    sessions: int
    """Sessions registered."""
    live_drains: int
    """Drains that are STARTING or RUNNING."""
    queued: int
    """Messages admitted and not handled yet."""
    handled: int
    """Messages consumed."""
    abandoned: int
    """Messages given up."""
    dropped: Mapping[DropReason, int]
    """Envelopes refused, per reason."""
