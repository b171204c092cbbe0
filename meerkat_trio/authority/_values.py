"""The vocabulary of the authority: ids, endpoints, owners, bindings and the enumerations.

Everything here is a value: immutable, compared by content, validated when it is made. Nothing here
knows a state, an input or a task.
"""

from __future__ import annotations

import hashlib
import unicodedata
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

import attrs
from attrs import field, frozen

__all__ = [
    "AdmissionClass",
    "AdmissionTrust",
    "Bound",
    "CommsDrainMode",
    "CommsDrainPhase",
    "CommsRuntimeId",
    "CorrelationId",
    "Counters",
    "Detacher",
    "DrainEnding",
    "DrainExit",
    "DrainExitReason",
    "DrainStopping",
    "DropReason",
    "Ending",
    "EnvelopeKind",
    "Lane",
    "MessageId",
    "MobId",
    "MobOwned",
    "ObligationKind",
    "PeerAddress",
    "PeerEndpoint",
    "PeerId",
    "PeerIngressOwner",
    "RequestStatus",
    "ResponseStatus",
    "RunId",
    "RunOutcome",
    "SessionId",
    "SessionOwned",
    "SessionPhase",
    "SupervisorBinding",
    "Unattached",
    "Unbound",
    "parse_peer_name",
]

SessionId: TypeAlias = str
CommsRuntimeId: TypeAlias = str
MobId: TypeAlias = str
RunId: TypeAlias = str
MessageId: TypeAlias = str
CorrelationId: TypeAlias = str

_PEER_ID_NAMESPACE: Final = uuid.UUID("6d656572-6b61-7450-6565-724964300001")
_KEY_BYTES: Final = 32
_NAME_LIMIT: Final = 128
_PORT_LIMIT: Final = 65535


class _Member(Enum):
    """An enumeration whose members hash in C: members are keys and set elements on the hot path."""

    __hash__: Callable[[object], int] = object.__hash__  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class SessionPhase(_Member):
    """Where a session stands (SPEC 2)."""

    INITIALIZING = "initializing"
    IDLE = "idle"
    ATTACHED = "attached"
    RUNNING = "running"
    RETIRED = "retired"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


class Ending(_Member):
    """How far a session has been told to end; it only ever rises (SPEC 2)."""

    STOP = "stop"
    UNREGISTER = "unregister"
    DESTROY = "destroy"

    def outranks(self, other: Ending | None) -> bool:
        """Say whether this ending is above ``other``; above None is every one."""
        return other is None or _ENDING_RANK[self] > _ENDING_RANK[other]


_ENDING_RANK: Final = {member: rank for rank, member in enumerate(Ending)}


class CommsDrainPhase(_Member):
    """The one phase of a session's drain (SPEC 2); live means STARTING or RUNNING."""

    INACTIVE = "inactive"
    STARTING = "starting"
    RUNNING = "running"
    EXITED_RESPAWNABLE = "exited_respawnable"
    STOPPED = "stopped"


class CommsDrainMode(_Member):
    """How long a drain lives without messages (SPEC 5)."""

    TIMED = "timed"
    ATTACHED_SESSION = "attached_session"
    PERSISTENT_HOST = "persistent_host"


class DrainStopping(_Member):
    """Why a live drain has been told to end: the recorded intent (SPEC 3)."""

    ABORT = "abort"
    DETACH = "detach"
    SHUTDOWN = "shutdown"


class DrainExitReason(_Member):
    """Why a drain ended (SPEC 3)."""

    IDLE_TIMEOUT = "idle_timeout"
    DISMISSED = "dismissed"
    FAILED = "failed"
    ABORTED = "aborted"
    SESSION_SHUTDOWN = "session_shutdown"


class DrainEnding(_Member):
    """How the drain's child task ended, before anybody's intent is weighed in (SPEC 3)."""

    EXCEPTION = "exception"
    CANCELLED = "cancelled"
    IDLE = "idle"
    DISMISSED = "dismissed"


class RunOutcome(_Member):
    """What became of the message of a run (SPEC 3, 6)."""

    CONSUMED = "consumed"
    RETRY = "retry"
    RETURNED = "returned"
    ABANDONED = "abandoned"


class EnvelopeKind(_Member):
    """What an envelope is (SPEC 3)."""

    MESSAGE = "message"
    REQUEST = "request"
    RESPONSE = "response"
    PEER_ADDED = "peer_added"
    PEER_RETIRED = "peer_retired"
    PEER_UNWIRED = "peer_unwired"
    DISMISS = "dismiss"


class Lane(_Member):
    """The two ways into a session; control goes before work (SPEC 5)."""

    CONTROL = "control"
    WORK = "work"


class AdmissionTrust(_Member):
    """What the shell knows of a sender beyond the authority's own peers (SPEC 3)."""

    LOCAL = "local"
    MANUAL = "manual"
    NONE = "none"


class AdmissionClass(_Member):
    """What an admitted envelope is to the session (SPEC 3)."""

    ACTIONABLE_MESSAGE = "actionable_message"
    ACTIONABLE_REQUEST = "actionable_request"
    SILENT_REQUEST = "silent_request"
    BRIDGE_COMMAND = "bridge_command"
    RESPONSE_PROGRESS = "response_progress"
    RESPONSE_TERMINAL = "response_terminal"
    LIFECYCLE = "lifecycle"
    DISMISSAL = "dismissal"


class DropReason(_Member):
    """Why an envelope was not admitted (SPEC 3)."""

    UNTRUSTED_SENDER = "untrusted_sender"
    NOT_ADMITTED_IN_PHASE = "not_admitted_in_phase"
    NO_SUCH_REQUEST = "no_such_request"
    WRONG_RESPONDER = "wrong_responder"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    OVERSIZE = "oversize"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"
    WRONG_RECIPIENT = "wrong_recipient"
    RATE_LIMITED = "rate_limited"
    INBOX_FULL = "inbox_full"
    CLOSED = "closed"
    NOT_RECORDED = "not_recorded"
    """The session's journal cannot be written."""


class ResponseStatus(_Member):
    """What a response says of its request (SPEC 3)."""

    ACCEPTED = "accepted"
    COMPLETED = "completed"
    FAILED = "failed"


class RequestStatus(_Member):
    """How far an outbound request has come (SPEC 2)."""

    SENT = "sent"
    ACCEPTED = "accepted"


class ObligationKind(_Member):
    """What is still owed to the trust store for a supervisor (SPEC 2)."""

    PUBLISH = "publish"
    REVOKE = "revoke"


class PeerId(str):
    """The id of a peer: a UUIDv5 of its 32 key bytes, always in canonical lower-case form (SPEC 9).

    Comparing two ids compares what was parsed, so the spelling a caller used never matters.

    Raises:
        ValueError: the text is not a UUID.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> PeerId:
        if type(text) is cls:
            return text
        try:
            return super().__new__(cls, str(uuid.UUID(text)))
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"peer_id: not a UUID: {text!r}") from None

    @classmethod
    def of_key(cls, signing_key: bytes) -> PeerId:
        """Derive the id that belongs to a 32-byte public key."""
        digest = hashlib.sha1(_PEER_ID_NAMESPACE.bytes + _parse_signing_key(signing_key)).digest()  # noqa: S324 - what a UUIDv5 is
        return cls(str(uuid.UUID(bytes=digest[:16], version=5)))


def _parse_signing_key(value: bytes) -> bytes:
    if not isinstance(value, bytes) or len(value) != _KEY_BYTES:
        raise ValueError(f"signing_key: {_KEY_BYTES} bytes are needed, not {value!r}")
    if not any(value):
        raise ValueError("signing_key: a key of zero bytes is never valid")
    return value


def parse_peer_name(value: str) -> str:
    """Return ``value`` if it may name a peer on a display (SPEC 9).

    Raises:
        ValueError: blank, longer than 128 characters, or with control characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError("name: must not be blank")
    if len(value) > _NAME_LIMIT:
        raise ValueError(f"name: at most {_NAME_LIMIT} characters, not {len(value)}")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError(f"name: control characters are not allowed: {value!r}")
    return value


class PeerAddress(str):
    """Where a peer is reached: ``inproc://name``, ``uds:///path`` or ``tcp://host:port`` (SPEC 9).

    Raises:
        ValueError: the text has none of these forms.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> PeerAddress:
        if type(text) is cls:
            return text
        if not isinstance(text, str) or not _address_is_valid(text):
            raise ValueError(f"address: one of inproc://name, uds:///path, tcp://host:port is needed, not {text!r}")
        return super().__new__(cls, text)

    @property
    def scheme(self) -> str:
        """``inproc``, ``uds`` or ``tcp``."""
        return self.partition("://")[0]

    @property
    def location(self) -> str:
        """What follows the scheme."""
        return self.partition("://")[2]


def _address_is_valid(text: str) -> bool:
    scheme, separator, location = text.partition("://")
    if not separator or not location or not text.isprintable() or location != location.strip():
        return False
    if scheme == "inproc":
        return True
    if scheme == "uds":
        return location.startswith("/") and len(location) > 1
    host, colon, port = location.rpartition(":")
    return (
        scheme == "tcp" and bool(colon and host) and port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_LIMIT
    )


@frozen(kw_only=True)
class PeerEndpoint:
    """A peer that can be trusted and reached (SPEC 2).

    Raises:
        ValueError: a field is malformed, or ``peer_id`` is not the id of ``signing_key``. The message
            begins with the field's name.
    """

    name: str = field(converter=parse_peer_name)
    """For display only; never an identity."""
    peer_id: PeerId = field(converter=PeerId)
    """Who the peer is."""
    address: PeerAddress = field(converter=PeerAddress)
    """Where the peer is reached."""
    signing_key: bytes = field(converter=_parse_signing_key, repr=False)
    """The peer's public key, 32 bytes."""

    def __attrs_post_init__(self) -> None:
        expected = PeerId.of_key(self.signing_key)
        if self.peer_id != expected:
            raise ValueError(f"peer_id: {self.peer_id} does not belong to signing_key ({expected} does)")


@frozen
class Unattached:
    """Nobody owns the session's peer ingress."""


@frozen
class SessionOwned:
    """The session itself owns its peer ingress."""

    comms_runtime_id: CommsRuntimeId
    """Logical id of the comms runtime, stable over rebuilds of the transport."""


@frozen(kw_only=True)
class MobOwned:
    """A mob owns the session's peer ingress."""

    comms_runtime_id: CommsRuntimeId
    """Logical id of the comms runtime, stable over rebuilds of the transport."""
    mob_id: MobId
    """The owning mob."""
    mob_peer_id: PeerId | None = field(default=None, converter=attrs.converters.optional(PeerId))
    """The peer that may dismiss the session in the mob's name, if the mob has one."""


PeerIngressOwner: TypeAlias = Unattached | SessionOwned | MobOwned


@frozen
class Unbound:
    """The session has no supervisor."""


@frozen(kw_only=True)
class Bound:
    """The session's supervisor, a remote peer with authority over it."""

    name: str = field(converter=parse_peer_name)
    """For display only."""
    peer_id: PeerId = field(converter=PeerId)
    """Who the supervisor is."""
    address: PeerAddress = field(converter=PeerAddress)
    """Where replies go."""
    signing_key: bytes = field(converter=_parse_signing_key, repr=False)
    """The supervisor's public key, 32 bytes."""
    epoch: int = field(validator=[attrs.validators.instance_of(int), attrs.validators.ge(1)])
    """The epoch of this binding, from 1 up."""

    def __attrs_post_init__(self) -> None:
        if self.peer_id != PeerId.of_key(self.signing_key):
            raise ValueError(f"peer_id: {self.peer_id} does not belong to signing_key")


SupervisorBinding: TypeAlias = Unbound | Bound


@frozen(kw_only=True)
class DrainExit:
    """How one generation of the drain ended."""

    generation: int
    """Which drain, from 1 up; each spawn and each rebind makes a new generation."""
    reason: DrainExitReason
    """Why it ended."""
    error: BaseException | None = field(default=None, eq=False)
    """The exception it ended with, if any."""


@frozen(kw_only=True)
class Counters:
    """The numbers of a session that never fall, also not when its id is registered anew (SPEC 2)."""

    generation: int = 0
    """Generation of the last drain."""
    projection_epoch: int = 0
    """Epoch of the last change to the trusted peers."""
    overlay_epoch: int = 0
    """Epoch of the last mob overlay."""
    epoch_floor: int = 0
    """Highest supervisor epoch ever bound; only higher ones can be bound."""


@frozen
class Detacher:
    """Who asks to detach the ingress: the session's side, or a mob."""

    mob_id: MobId | None = None
    """The mob that asks; None is the session's own side."""
