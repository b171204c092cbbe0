"""Many long-lived agent sessions in one Trio process that survive everything.

General layout: `authority` decides (pure), `_tasks` obeys (one session's tasks), `_session` and `_machine` are what an
application calls, `abc` is what a transport implements, `comms` holds the transports, `testing` checks cancellation.

The names below are loaded on first use, so that importing `meerkat_trio.testing` does not load the shell.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._bridge import (
        AuthorizeNextSupervisor,
        BindMember,
        BridgeCommand,
        DeliverMemberInput,
        DestroyMember,
        HardCancelMember,
        InterruptMember,
        ObserveMember,
        RetireMember,
        RevokeOwnSupervision,
        UnwireMember,
        WireMember,
    )
    from ._exceptions import (
        AddTrustFailed,
        BootstrapTokenRefused,
        CommandRejected,
        CommsNotAttached,
        DeliveryRefused,
        DrainNotStarted,
        InvariantViolated,
        JournalFailed,
        JournalRefused,
        MeerkatError,
        NotARequest,
        PeerNotTrusted,
        ReconcileError,
        RejectionCause,
        RememberedError,
        RemoveTrustFailed,
        RequestAnswered,
        RequestDropped,
        RequestFailed,
        RunInterrupted,
        SessionEnded,
        SessionExists,
        SessionMoved,
        SessionNotRegistered,
        TransitionRejected,
        TrustSnapshotUnavailable,
    )
    from ._homes import Homes, share_sessions
    from ._machine import MeerkatMachine, open_machine
    from ._messages import Envelope, Receipt, ReceiptStatus, TrustSource
    from ._policy import Backoff, RespawnPolicy
    from ._reports import (
        AbandonCause,
        Abandoned,
        DrainSnapshot,
        IngressResult,
        IngressUpdate,
        MachineStatistics,
        ReconcileReport,
        SessionEnd,
        SessionStatistics,
        SupervisorReport,
    )
    from ._session import Session, SessionRun
    from ._subscription import StepStream
    from .abc import Claim, CommsRuntime, Journal
    from .authority import (
        Bound,
        CommsDrainMode,
        CommsDrainPhase,
        DrainExit,
        DrainExitReason,
        DropReason,
        Ending,
        EnvelopeKind,
        Lane,
        MobOwned,
        PeerAddress,
        PeerEndpoint,
        PeerId,
        PeerIngressOwner,
        ResponseStatus,
        SessionOwned,
        SessionPhase,
        Step,
        SupervisorBinding,
        Unattached,
        Unbound,
    )
    from .comms import MemoryComms, MemoryNetwork

__all__ = [
    "AbandonCause",
    "Abandoned",
    "AddTrustFailed",
    "AuthorizeNextSupervisor",
    "Backoff",
    "BindMember",
    "BootstrapTokenRefused",
    "Bound",
    "BridgeCommand",
    "Claim",
    "CommandRejected",
    "CommsDrainMode",
    "CommsDrainPhase",
    "CommsNotAttached",
    "CommsRuntime",
    "DeliverMemberInput",
    "DeliveryRefused",
    "DestroyMember",
    "DrainExit",
    "DrainExitReason",
    "DrainNotStarted",
    "DrainSnapshot",
    "DropReason",
    "Ending",
    "Envelope",
    "EnvelopeKind",
    "HardCancelMember",
    "Homes",
    "IngressResult",
    "IngressUpdate",
    "InterruptMember",
    "InvariantViolated",
    "Journal",
    "JournalFailed",
    "JournalRefused",
    "Lane",
    "MachineStatistics",
    "MeerkatError",
    "MeerkatMachine",
    "MemoryComms",
    "MemoryNetwork",
    "MobOwned",
    "NotARequest",
    "ObserveMember",
    "PeerAddress",
    "PeerEndpoint",
    "PeerId",
    "PeerIngressOwner",
    "PeerNotTrusted",
    "Receipt",
    "ReceiptStatus",
    "ReconcileError",
    "ReconcileReport",
    "RejectionCause",
    "RememberedError",
    "RemoveTrustFailed",
    "RequestAnswered",
    "RequestDropped",
    "RequestFailed",
    "RespawnPolicy",
    "ResponseStatus",
    "RetireMember",
    "RevokeOwnSupervision",
    "RunInterrupted",
    "Session",
    "SessionEnd",
    "SessionEnded",
    "SessionExists",
    "SessionMoved",
    "SessionNotRegistered",
    "SessionOwned",
    "SessionPhase",
    "SessionRun",
    "SessionStatistics",
    "Step",
    "StepStream",
    "SupervisorBinding",
    "SupervisorReport",
    "TransitionRejected",
    "TrustSnapshotUnavailable",
    "TrustSource",
    "Unattached",
    "Unbound",
    "UnwireMember",
    "WireMember",
    "open_machine",
    "share_sessions",
]

_MODULES = (
    "_exceptions",
    "authority",
    "_messages",
    "_policy",
    "_bridge",
    "_reports",
    "abc",
    "comms",
    "_subscription",
    "_session",
    "_machine",
    "_homes",
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module_name in _MODULES:
        module = import_module(f".{module_name}", __name__)
        if name in module.__all__:
            value: object = getattr(module, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
