"""The shell's errors.

::

    MeerkatError
     ├─ TransitionRejected      a command was refused by a guard; nothing has changed
     ├─ InvariantViolated       a bug in the transition table; nothing has changed
     ├─ SessionExists           that id is registered already
     ├─ SessionNotRegistered    no such session here
     ├─ SessionEnded            the session is ending or has ended
     ├─ DrainNotStarted         the drain ended before it served
     ├─ CommsNotAttached        no comms runtime is attached to speak through
     ├─ PeerNotTrusted          the session does not know that peer
     ├─ RequestFailed           the peer answered FAILED
     │   └─ CommandRejected         a member rejected its supervisor's command
     ├─ RequestDropped          the peer never let the request in
     ├─ RunInterrupted          a supervisor had the run cancelled
     ├─ RequestAnswered         that request has its answer already
     ├─ NotARequest             a message that asks for nothing cannot be answered
     ├─ BootstrapTokenRefused   the token is not the one that was issued, or it was used
     ├─ DeliveryRefused         the session's journal cannot hold a message
     ├─ SessionMoved            the session has another home now
     ├─ RememberedError         what was raised in a process that is gone
     ├─ JournalRefused          that is no journal for this machine; it was left as it is
     ├─ JournalFailed           the journal could not be written or read
     └─ ReconcileError          the trust store does not show a change yet; it stands and is tried again
         ├─ AddTrustFailed          an edge could not be stored
         ├─ RemoveTrustFailed       an edge could not be removed
         └─ TrustSnapshotUnavailable  the store could not be read
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from .authority import InvariantViolated, MeerkatError, TransitionRejected

if TYPE_CHECKING:
    from .authority import DrainExit, DropReason, EnvelopeKind, MessageId, PeerId, SessionId

__all__ = [
    "AddTrustFailed",
    "BootstrapTokenRefused",
    "CommandRejected",
    "CommsNotAttached",
    "DeliveryRefused",
    "DrainNotStarted",
    "InvariantViolated",
    "JournalFailed",
    "JournalRefused",
    "MeerkatError",
    "NotARequest",
    "PeerNotTrusted",
    "ReconcileError",
    "RejectionCause",
    "RememberedError",
    "RemoveTrustFailed",
    "RequestAnswered",
    "RequestDropped",
    "RequestFailed",
    "RunInterrupted",
    "SessionEnded",
    "SessionExists",
    "SessionMoved",
    "SessionNotRegistered",
    "TransitionRejected",
    "TrustSnapshotUnavailable",
]


class _SessionError(MeerkatError):
    def __init__(self, session_id: SessionId) -> None:
        super().__init__(session_id)
        self.session_id = session_id


class SessionExists(_SessionError):
    """A session of this id is registered already; a stopped one can be revived, this one is not stopped.

    Attributes:
        session_id: the id that was asked for.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} is registered already; unregister or stop it first"


class SessionNotRegistered(_SessionError, KeyError):
    """No session of this id is registered.

    Attributes:
        session_id: the id that was asked for.
    """

    def __str__(self) -> str:
        return f"no session {self.session_id!r} is registered here"


class SessionEnded(_SessionError):
    """The session is ending or has ended, and what was asked for needs one that lives.

    Attributes:
        session_id: the session.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} has ended or is ending"


class RunInterrupted(MeerkatError):
    """A supervisor had a run cancelled; what `Abandoned.error` then is.

    Attributes:
        reason: what the supervisor said.
        hard: whether the message was given up for it.
    """

    def __init__(self, reason: str, *, hard: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hard = hard

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"the run was {'cancelled for good' if self.hard else 'interrupted'} by the supervisor{reason}"


class DrainNotStarted(MeerkatError):
    """The drain that a call had asked for ended before it served.

    Attributes:
        exit: how it ended.
    """

    def __init__(self, exit: DrainExit) -> None:  # noqa: A002 - the field's public name
        super().__init__(exit)
        self.exit = exit

    def __str__(self) -> str:
        error = f": {self.exit.error!r}" if self.exit.error is not None else ""
        return f"drain {self.exit.generation} ended before it served ({self.exit.reason.value}){error}"


class CommsNotAttached(_SessionError):
    """The session has no comms runtime to speak through.

    Attributes:
        session_id: the session.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} has no comms runtime attached; call attach_ingress first"


class PeerNotTrusted(MeerkatError):
    """The session does not know the peer it was to speak to.

    Attributes:
        session_id: the session.
        peer_id: the peer.
    """

    def __init__(self, session_id: SessionId, peer_id: PeerId) -> None:
        super().__init__(session_id, peer_id)
        self.session_id = session_id
        self.peer_id = peer_id

    def __str__(self) -> str:
        return (
            f"session {self.session_id!r} does not trust peer {self.peer_id}: "
            "it is none of its peers and not in the trust store by hand"
        )


class _RequestError(MeerkatError):
    def __init__(self, peer_id: PeerId, intent: str, said: object) -> None:
        super().__init__(peer_id, intent, said)
        self.peer_id = peer_id
        self.intent = intent


class RequestFailed(_RequestError):
    """The peer answered a request with FAILED.

    Attributes:
        peer_id: the peer that was asked.
        intent: what it was asked for.
        body: what it said.
    """

    def __init__(self, peer_id: PeerId, intent: str, body: Any) -> None:
        super().__init__(peer_id, intent, body)
        self.body = body

    def __str__(self) -> str:
        return f"request {self.intent!r} to peer {self.peer_id} failed there: {self.body!r}"


class RejectionCause(Enum):
    """Why a command was rejected (SPEC 7)."""

    NOT_BOUND = "not_bound"
    ALREADY_BOUND = "already_bound"
    STALE_SUPERVISOR = "stale_supervisor"
    SENDER_MISMATCH = "sender_mismatch"
    INVALID_BOOTSTRAP_TOKEN = "invalid_bootstrap_token"  # noqa: S105 - the name of a cause
    ADDRESS_MISMATCH = "address_mismatch"
    INVALID_SUPERVISOR_SPEC = "invalid_supervisor_spec"
    INVALID_PEER_SPEC = "invalid_peer_spec"
    NOT_IN_PHASE = "not_in_phase"
    PUBLISH_FAILED = "publish_failed"
    UNSUPPORTED_PROTOCOL_VERSION = "unsupported_protocol_version"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"


class CommandRejected(RequestFailed):
    """A member rejected a supervisor's command; nothing was done, unless the cause is PUBLISH_FAILED.

    Attributes:
        peer_id: the member.
        intent: that of all commands.
        body: what it said.
        cause: why.
        epoch_floor: the highest epoch that was bound there, where the member says it; else None.
    """

    def __init__(self, peer_id: PeerId, intent: str, body: Any, cause: RejectionCause) -> None:
        super().__init__(peer_id, intent, body)
        self.cause = cause
        self.epoch_floor: int | None = body.get("epoch_floor")

    def __str__(self) -> str:
        detail = self.body.get("detail")
        return f"member {self.peer_id} rejected the command: {self.cause.value}{f' ({detail})' if detail else ''}"


class RequestDropped(_RequestError):
    """The peer's side never let a request in, so nobody will answer it.

    Attributes:
        peer_id: the peer that was asked.
        intent: what it was asked for.
        reason: why, as the receipt has it.
    """

    def __init__(self, peer_id: PeerId, intent: str, reason: DropReason | None) -> None:
        super().__init__(peer_id, intent, reason)
        self.reason = reason

    def __str__(self) -> str:
        why = "no reason given" if self.reason is None else self.reason.value
        return f"request {self.intent!r} to peer {self.peer_id} was not admitted there ({why})"


class RequestAnswered(MeerkatError):
    """A request was to be answered that is over: COMPLETED or FAILED was said, or its handler has returned.

    Attributes:
        message_id: the request.
        peer_id: who asked.
    """

    def __init__(self, message_id: MessageId, peer_id: PeerId) -> None:
        super().__init__(message_id, peer_id)
        self.message_id = message_id
        self.peer_id = peer_id

    def __str__(self) -> str:
        return f"request {self.message_id!r} of peer {self.peer_id} is answered already; COMPLETED or FAILED ends it"


class NotARequest(MeerkatError):
    """An answer was to be given to a message that asks for nothing.

    Attributes:
        message_id: the message.
        kind: what it is.
    """

    def __init__(self, message_id: MessageId, kind: EnvelopeKind) -> None:
        super().__init__(message_id, kind)
        self.message_id = message_id
        self.kind = kind

    def __str__(self) -> str:
        return f"message {self.message_id!r} is a {self.kind.value}, not a request; use send to write back"


class BootstrapTokenRefused(_SessionError):
    """The bootstrap token is not the one that was issued last, or it was used.

    Attributes:
        session_id: the session.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} does not take this bootstrap token; issue a new one"


class ReconcileError(MeerkatError):
    """A trust store does not show a change. The change stands, and the session tries again by itself.

    Attributes:
        runtime_id: the logical id of the comms runtime whose store it is.
        cause: what the store raised; a `trio.TooSlowError` if it did not answer in time.
        peer_id: whose edge; None if the store could not even be read.
        source: on whose word the edge stands, as in `TrustSource`; None with ``peer_id``.
    """

    _what = "does not show what it should"

    def __init__(
        self, runtime_id: str, cause: BaseException, peer_id: PeerId | None = None, source: str | None = None
    ) -> None:
        super().__init__(runtime_id, cause, peer_id, source)
        self.runtime_id = runtime_id
        self.cause = cause
        self.peer_id = peer_id
        self.source = source
        self.__cause__: BaseException | None = cause

    def __str__(self) -> str:
        edge = "" if self.peer_id is None else f" the {self.source} edge of {self.peer_id}"
        return f"the trust store of {self.runtime_id!r} {self._what}{edge}, and is tried again: {self.cause!r}"


class AddTrustFailed(ReconcileError):
    """An edge could not be stored."""

    _what = "did not store"


class RemoveTrustFailed(ReconcileError):
    """An edge could not be removed."""

    _what = "did not remove"


class TrustSnapshotUnavailable(ReconcileError):
    """The store could not be read, so nothing was changed."""

    _what = "cannot be read"


class _JournalError(MeerkatError):
    def __init__(self, journal: str, why: str) -> None:
        super().__init__(journal, why)
        self.journal = journal
        self.why = why

    def __str__(self) -> str:
        return f"{self.journal}: {self.why}"


class JournalRefused(_JournalError):
    """A journal is damaged, of another program or version, or in use by another machine; it was left as it is.

    Attributes:
        journal: which one, for example its path.
        why: what is wrong, and what can be done.
    """


class JournalFailed(_JournalError):
    """A journal could not be written or read: the disk is full, for example. Nothing was written; it may pass.

    Attributes:
        journal: which one, for example its path.
        why: what went wrong.
    """


class RememberedError(MeerkatError):
    """What a handler raised in a process that is gone; its text is all that is left of it."""


class SessionMoved(_SessionError):
    """Another process is the session's home now: here it is stopped, and nothing more of it is recorded or said.

    Attributes:
        session_id: the session.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} has another home now; here it can do nothing more"


class DeliveryRefused(_SessionError):
    """A message was not queued, because the session's journal cannot hold it.

    Attributes:
        session_id: the session.
        reason: NOT_RECORDED: the journal cannot be written now; MALFORMED, OVERSIZE: it cannot hold such a body.
    """

    def __init__(self, session_id: SessionId, reason: DropReason) -> None:
        super().__init__(session_id)
        self.reason = reason

    def __str__(self) -> str:
        return f"session {self.session_id!r}: the message was not queued: {self.reason.value}"
