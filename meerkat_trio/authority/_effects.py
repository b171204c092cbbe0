"""The effect alphabet of the authority: what the shell has to do after a step, one closed union (SPEC 3).

Effects made for every message are shared constants where they carry no data.
"""

from __future__ import annotations

from typing import TypeAlias

from attrs import define, frozen

from ._values import (
    AdmissionClass,
    CommsDrainMode,
    DrainExit,
    DropReason,
    Ending,
    RunId,
)

__all__ = [
    "Admitted",
    "CancelDrain",
    "CancelRespawn",
    "CommsTrustReconcileRequested",
    "DrainEnded",
    "Dropped",
    "Effect",
    "FinishExecutor",
    "LocalEndpointChanged",
    "MessageAbandoned",
    "PeerProjectionChanged",
    "RespawnExhausted",
    "RevokeEdges",
    "ScheduleRespawn",
    "SessionFinished",
    "SessionRetired",
    "StartDrain",
    "StartExecutor",
    "StopExecutor",
    "SwapDrain",
    "TrustEdgesChanged",
]


@frozen
class StartExecutor:
    """Start calling the handler."""


@frozen
class StopExecutor:
    """Take no further message; the handler that is running gets at most the grace time."""


@frozen
class FinishExecutor:
    """Handle what is queued, then end."""


@frozen
class MessageAbandoned:
    """The message of this run has used up its attempts: keep it with its cause."""

    run_id: RunId
    """The run that gave up."""


@frozen
class SessionRetired:
    """The session takes no new work from here on."""


@frozen
class SessionFinished:
    """Nothing of the session runs any more."""

    cause: Ending
    """How it ended."""


@define(eq=True, unsafe_hash=True)
class StartDrain:
    """Start the drain's child task."""

    generation: int
    """Which drain."""
    mode: CommsDrainMode
    """Its mode."""


@define(eq=True, unsafe_hash=True)
class SwapDrain:
    """Replace the cancel scope of the drain's child task, and the comms runtime it serves."""

    generation: int
    """The generation the new scope belongs to."""


@frozen
class CancelDrain:
    """Cancel the scope of the drain's child task."""

    generation: int
    """Which drain."""


@define(eq=True, unsafe_hash=True)
class DrainEnded:
    """No drain is live any more."""

    exit: DrainExit
    """How it ended."""


@frozen
class ScheduleRespawn:
    """Respawn the drain after the policy's back-off, or give it up."""

    generation: int
    """The drain that failed."""


@frozen
class CancelRespawn:
    """Stop waiting for a respawn."""


@frozen
class RespawnExhausted:
    """The drain failed too often; the next attach spawns it."""

    generation: int
    """The drain that failed last."""


@frozen
class RevokeEdges:
    """Remove every trust edge of the session's own sources."""


@frozen
class TrustEdgesChanged:
    """The supervisor's obligations towards the trust store have changed."""


@frozen
class LocalEndpointChanged:
    """The session's own endpoint has changed."""


@frozen
class PeerProjectionChanged:
    """The set of trusted peers has changed."""

    epoch: int
    """Its new epoch."""


@frozen
class CommsTrustReconcileRequested:
    """Bring the trust store to the newest set of peers."""

    epoch: int
    """The epoch it has to show at least."""


@frozen
class Admitted:
    """The envelope enters the session."""

    admission: AdmissionClass
    """What it is to the session."""


@frozen
class Dropped:
    """The envelope is refused."""

    reason: DropReason
    """Why."""


Effect: TypeAlias = (
    StartExecutor
    | StopExecutor
    | FinishExecutor
    | MessageAbandoned
    | SessionRetired
    | SessionFinished
    | StartDrain
    | SwapDrain
    | CancelDrain
    | DrainEnded
    | ScheduleRespawn
    | CancelRespawn
    | RespawnExhausted
    | RevokeEdges
    | TrustEdgesChanged
    | LocalEndpointChanged
    | PeerProjectionChanged
    | CommsTrustReconcileRequested
    | Admitted
    | Dropped
)
