"""The input alphabet of the authority: commands and observations, one class each (SPEC 3).

A *command* asks for something and may be rejected. An *observation* reports what has already happened and
is never rejected: a stale one is a step that changes nothing and says why.

Inputs made for every message are slotted without a frozen ``__setattr__``, which would cost more than the
transition itself; nobody may assign to their fields (a test reads the source for it).
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs
from attrs import define, field, frozen

from ._remembered import Remembered
from ._values import (
    AdmissionTrust,
    Bound,
    CommsDrainMode,
    CommsRuntimeId,
    CorrelationId,
    Counters,
    Detacher,
    DrainExitReason,
    DrainStopping,
    EnvelopeKind,
    MessageId,
    MobId,
    PeerEndpoint,
    PeerId,
    ResponseStatus,
    RunId,
    RunOutcome,
    SessionId,
)

__all__ = [
    "COMMANDS",
    "OBSERVATIONS",
    "AddDirectPeerEndpoint",
    "Admit",
    "ApplyMobPeerOverlay",
    "AttachExecutor",
    "AttachMobIngress",
    "AttachSessionIngress",
    "AuthorizeSupervisor",
    "BeginRun",
    "BindSupervisor",
    "BootstrapTokenUsed",
    "ClearLocalEndpoint",
    "CloseRequest",
    "Destroy",
    "DetachExecutor",
    "DetachIngress",
    "DrainExited",
    "DrainStarted",
    "ExecutorStopped",
    "Input",
    "IssueBootstrapToken",
    "OpenRequest",
    "PublishLocalEndpoint",
    "RebindDrain",
    "Register",
    "RemoveDirectPeerEndpoint",
    "ReplySent",
    "RespawnDue",
    "RespawnGivenUp",
    "ResponseArrived",
    "Restore",
    "Retire",
    "RevokeSupervisor",
    "RunFinished",
    "SetSilentIntents",
    "SpawnDrain",
    "Stop",
    "StopDrain",
    "SupervisorTrustEdgePublishFailed",
    "SupervisorTrustEdgePublished",
    "SupervisorTrustEdgeRevokeFailed",
    "SupervisorTrustEdgeRevoked",
    "Unregister",
]


_NO_COUNTERS: Final = Counters()
_STOP_CAUSES: Final = frozenset({DrainStopping.ABORT, DrainStopping.DETACH})

# --- session ---------------------------------------------------------------------------------------


@frozen
class Register:
    """Begin a session's life, or revive one that was stopped."""

    session_id: SessionId
    """The session's id."""
    counters: Counters = _NO_COUNTERS
    """What the machine remembers of this id; no counter falls below it."""


@frozen
class Restore:
    """Go on with a session whose process has died."""

    remembered: Remembered
    """What is left of it."""


@frozen
class AttachExecutor:
    """Give the session an executor."""


@frozen
class SetSilentIntents:
    """Replace the intents whose requests are silent."""

    intents: frozenset[str]
    """The new set."""


@define(eq=True, unsafe_hash=True)
class BeginRun:
    """Begin handling a message."""

    run_id: RunId
    """The run."""
    message_id: MessageId
    """The message it handles."""


@define(eq=True, unsafe_hash=True)
class RunFinished:
    """A run has ended."""

    run_id: RunId
    """The run."""
    outcome: RunOutcome
    """What became of its message."""


@frozen
class DetachExecutor:
    """Take the executor away."""


@frozen
class ExecutorStopped:
    """The executor has ended."""


@frozen
class Retire:
    """Take no new work; finish what there is."""


@frozen
class Stop:
    """End the session; it can be revived."""

    reason: str = ""
    """Why, for people."""


@frozen
class Unregister:
    """End the session and forget it."""


@frozen
class Destroy:
    """End the session for good."""


# --- drain and ingress -----------------------------------------------------------------------------


@frozen
class AttachSessionIngress:
    """The session's side claims the peer ingress."""

    comms_runtime_id: CommsRuntimeId
    """Logical id of the comms runtime."""
    mode: CommsDrainMode
    """The drain's mode."""
    idle_timeout: float
    """Seconds without a message after which a drain that has a time-out ends."""


@frozen(kw_only=True)
class AttachMobIngress:
    """A mob claims the peer ingress; it may take it over from the session's side."""

    comms_runtime_id: CommsRuntimeId
    """Logical id of the comms runtime."""
    mob_id: MobId
    """The mob."""
    mob_peer_id: PeerId | None = field(default=None, converter=attrs.converters.optional(PeerId))
    """The peer that may dismiss the session in the mob's name."""
    mode: CommsDrainMode
    """The drain's mode."""
    idle_timeout: float
    """Seconds without a message after which a drain that has a time-out ends."""


@frozen
class DetachIngress:
    """Give the peer ingress up."""

    by: Detacher
    """Who asks."""


@frozen
class SpawnDrain:
    """Start a drain."""

    mode: CommsDrainMode
    """The drain's mode."""
    idle_timeout: float
    """Seconds without a message after which a drain that has a time-out ends."""


@frozen
class RebindDrain:
    """Move the live drain to another instance of the comms runtime."""


@frozen
class StopDrain:
    """Stop the drain, or the wait for its respawn."""

    cause: DrainStopping = field()
    """ABORT or DETACH; SHUTDOWN is what the end of a session says."""

    @cause.validator
    def _is_asked_for(self, _: object, cause: DrainStopping) -> None:
        if cause not in _STOP_CAUSES:
            raise ValueError(f"cause: ABORT or DETACH is needed, not {cause!r}")


@define(eq=True, unsafe_hash=True)
class DrainStarted:
    """The drain's task is serving."""

    generation: int
    """Which drain."""


@define(eq=True, unsafe_hash=True)
class DrainExited:
    """The drain's task has ended."""

    generation: int
    """Which drain."""
    reason: DrainExitReason
    """Why, as `exit_reason` decides."""
    error: BaseException | None = field(default=None, eq=False)
    """The exception it ended with, if any."""


@frozen
class RespawnDue:
    """The back-off of a failed drain is over."""

    generation: int
    """The drain that failed."""


@frozen
class RespawnGivenUp:
    """A failed drain will not be respawned by policy."""

    generation: int
    """The drain that failed."""


# --- supervisor ------------------------------------------------------------------------------------


@frozen
class BindSupervisor:
    """Bind a supervisor to a session that has none."""

    binding: Bound
    """The supervisor and its epoch."""


@frozen
class AuthorizeSupervisor:
    """Hand the session over to the next supervisor, or to the same one with a higher epoch."""

    binding: Bound
    """The next supervisor and its epoch."""


@frozen
class RevokeSupervisor:
    """End the supervisor's authority."""

    peer_id: PeerId = field(converter=PeerId)
    """The current supervisor."""
    epoch: int
    """The current epoch."""


@frozen
class SupervisorTrustEdgePublished:
    """The trust store shows the supervisor's edge."""

    peer_id: PeerId = field(converter=PeerId)
    """The supervisor."""
    epoch: int
    """The epoch of the obligation."""


@frozen(kw_only=True)
class SupervisorTrustEdgePublishFailed:
    """The supervisor's edge could not be stored."""

    peer_id: PeerId = field(converter=PeerId)
    """The supervisor."""
    epoch: int
    """The epoch of the obligation."""
    reason: str
    """Why, for people."""
    final: bool = False
    """Whether it never will be: the endpoint cannot be stored, or the attempts are used up."""


@frozen
class SupervisorTrustEdgeRevoked:
    """The trust store no longer shows the edge."""

    peer_id: PeerId = field(converter=PeerId)
    """The former supervisor."""
    epoch: int
    """The epoch of the obligation."""


@frozen(kw_only=True)
class SupervisorTrustEdgeRevokeFailed:
    """The edge could not be removed."""

    peer_id: PeerId = field(converter=PeerId)
    """The former supervisor."""
    epoch: int
    """The epoch of the obligation."""
    reason: str
    """Why, for people."""


@frozen
class IssueBootstrapToken:
    """Remember the hash of a token with which a supervisor may bind once."""

    token_hash: bytes = field(repr=False)
    """Hash of the token."""


@frozen
class BootstrapTokenUsed:
    """Forget the token: it was used."""


# --- peers -----------------------------------------------------------------------------------------


@frozen
class PublishLocalEndpoint:
    """Say where this session is reached."""

    endpoint: PeerEndpoint
    """The session's own endpoint."""


@frozen
class ClearLocalEndpoint:
    """Take that back."""


@frozen
class AddDirectPeerEndpoint:
    """Trust a peer directly."""

    endpoint: PeerEndpoint
    """The peer; replaces an endpoint of the same peer id."""


@frozen
class RemoveDirectPeerEndpoint:
    """Trust a peer directly no more."""

    peer_id: PeerId = field(converter=PeerId)
    """The peer."""


def _parse_overlay(endpoints: tuple[PeerEndpoint, ...]) -> tuple[PeerEndpoint, ...]:
    endpoints = tuple(endpoints)
    if len({endpoint.peer_id for endpoint in endpoints}) != len(endpoints):
        raise ValueError("endpoints: a peer id stands twice in the overlay")
    return endpoints


@frozen
class ApplyMobPeerOverlay:
    """Replace the peers that the mob contributes."""

    epoch: int
    """The overlay's epoch."""
    endpoints: tuple[PeerEndpoint, ...] = field(converter=_parse_overlay)
    """The whole new set, each peer id once."""


# --- messages and requests -------------------------------------------------------------------------


@define(eq=True, unsafe_hash=True)
class Admit:
    """May this envelope enter the session?"""

    kind: EnvelopeKind
    """What the envelope is."""
    sender: PeerId | None
    """The sender as the transport authenticated it; None for a local one without an id.

    Not parsed again, for this input is made for every message: whoever makes it hands on the envelope's parsed id.
    """
    trust: AdmissionTrust
    """What the shell knows of the sender beyond the authority's own peers."""
    intent: str | None = None
    """A request's intent."""
    correlation: CorrelationId | None = None
    """A request's or response's correlation."""
    status: ResponseStatus | None = None
    """A response's status."""


@frozen
class OpenRequest:
    """Remember an outbound request, so that its response can be told from others."""

    correlation: CorrelationId
    """Ties the response to it."""
    addressee: PeerId = field(converter=PeerId)
    """Who alone may answer it."""


@frozen
class CloseRequest:
    """Nobody waits for this outbound request any more."""

    correlation: CorrelationId
    """Which one."""


@frozen
class ResponseArrived:
    """A response to an outbound request was taken in."""

    correlation: CorrelationId
    """Which request."""
    sender: PeerId = field(converter=PeerId)
    """Who answered."""
    status: ResponseStatus
    """How far the request is."""


@frozen
class ReplySent:
    """An inbound request is answered, or will never be."""

    sender: PeerId = field(converter=PeerId)
    """Who asked."""
    correlation: CorrelationId
    """Which request."""


Command: TypeAlias = (
    Register
    | Restore
    | AttachExecutor
    | SetSilentIntents
    | BeginRun
    | DetachExecutor
    | Retire
    | Stop
    | Unregister
    | Destroy
    | AttachSessionIngress
    | AttachMobIngress
    | DetachIngress
    | SpawnDrain
    | RebindDrain
    | StopDrain
    | BindSupervisor
    | AuthorizeSupervisor
    | RevokeSupervisor
    | IssueBootstrapToken
    | BootstrapTokenUsed
    | PublishLocalEndpoint
    | ClearLocalEndpoint
    | AddDirectPeerEndpoint
    | RemoveDirectPeerEndpoint
    | ApplyMobPeerOverlay
    | Admit
    | OpenRequest
)
Observation: TypeAlias = (
    RunFinished
    | ExecutorStopped
    | DrainStarted
    | DrainExited
    | RespawnDue
    | RespawnGivenUp
    | SupervisorTrustEdgePublished
    | SupervisorTrustEdgePublishFailed
    | SupervisorTrustEdgeRevoked
    | SupervisorTrustEdgeRevokeFailed
    | ResponseArrived
    | CloseRequest
    | ReplySent
)
Input: TypeAlias = Command | Observation

COMMANDS: tuple[type[Command], ...] = Command.__args__
OBSERVATIONS: tuple[type[Observation], ...] = Observation.__args__
