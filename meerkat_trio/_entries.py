"""The entries of a journal as bytes, and a session's memory out of them.

What a session has to remember is kept in small entries, so that a step writes only what it has changed: one for the
session itself, one for its supervisor, one for its peers, and one for each message, reply and request. The forms are
those of the wire (`docs/wire.md`), and each entry is checked when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from ._exceptions import RememberedError
from ._policy import Backoff
from ._reports import AbandonCause, Abandoned
from .authority import (
    AdmissionClass,
    Bound,
    CorrelationId,
    Counters,
    Ending,
    EnvelopeKind,
    ObligationKind,
    PeerEndpoint,
    PeerId,
    Remembered,
    RequestStatus,
    SupervisorBinding,
    Unbound,
)
from .comms._cbor import decode_record, encode_record
from .comms._envelope import encode_envelope, parse_headers
from .comms._exceptions import WireRefused

if TYPE_CHECKING:
    from ._messages import Envelope
    from .abc import Entry
    from .authority import PeersRegion, SessionId, SessionState, SupervisorRegion

__all__ = [
    "ABANDONED",
    "ANSWERED",
    "ATTEMPTS",
    "DONE",
    "INPUT",
    "MESSAGE",
    "PEERS",
    "REPLY",
    "REQUEST",
    "SESSION",
    "SUPERVISOR",
    "Memory",
    "SessionOptions",
    "UnfinishedMessage",
    "decode_memory",
    "encode_abandoned",
    "encode_attempts",
    "encode_message",
    "encode_peers",
    "encode_reply",
    "encode_request",
    "encode_session",
    "encode_supervisor",
]

SESSION: Final = "session"
SUPERVISOR: Final = "supervisor"
PEERS: Final = "peers"
MESSAGE: Final = "message"
ATTEMPTS: Final = "attempts"
ANSWERED: Final = "answered"
DONE: Final = "done"
INPUT: Final = "input"
REPLY: Final = "reply"
ABANDONED: Final = "abandoned"
REQUEST: Final = "request"

_DEPTH: Final = 8
_ERROR_LIMIT: Final = 1000
"""Characters of an error that are kept."""
_TAGGED: Final = 1 << 64
_REQUEST_CLASSES: Final = frozenset(
    {AdmissionClass.ACTIONABLE_REQUEST, AdmissionClass.SILENT_REQUEST, AdmissionClass.BRIDGE_COMMAND}
)


@frozen(kw_only=True)
class SessionOptions:
    """What a session was registered with."""

    work_queue: int
    """Messages admitted and not handled, at the most."""
    max_attempts: int
    """Attempts per message."""
    abandoned_limit: int
    """Abandoned messages kept, at the most."""
    outbox: int
    """Replies that wait for one peer, at the most."""
    retry_backoff: Backoff
    """The wait between the attempts for one message."""


@frozen(kw_only=True)
class UnfinishedMessage:
    """A message that was admitted, and neither handled nor given up."""

    key: str
    """Its key among the entries."""
    envelope: Envelope
    """The message."""
    admission: AdmissionClass
    """What it is to the session."""
    attempts: int = 0
    """Attempts that have failed; of a command, 1 if it was carried out and waits for its answer."""
    answered: bool = False
    """Whether the last word on this request was said."""


@frozen(kw_only=True)
class Memory:
    """All that is remembered of one session."""

    remembered: Remembered
    """What its authority goes on with."""
    options: SessionOptions
    """What it was registered with."""
    messages: tuple[UnfinishedMessage, ...]
    """In the order of their admission."""
    done: tuple[str, ...]
    """Keys of messages that are done with, oldest first."""
    inputs: tuple[str, ...]
    """Keys of inputs that a supervisor has delivered, oldest first."""
    replies: tuple[Envelope, ...]
    """Answers that are not out yet, in their order."""
    abandoned: tuple[tuple[int, Abandoned], ...]
    """Messages that were given up, oldest first, with the positions of their entries."""
    requests: tuple[tuple[CorrelationId, PeerId, RequestStatus], ...]
    """The session's own requests that had no answer."""
    next_position: int
    """The first position above all there are."""

    @property
    def is_forgotten(self) -> bool:
        """Whether it has ended for good, and nothing is left of it but its counters."""
        left = (self.messages, self.done, self.inputs, self.replies, self.abandoned, self.requests)
        return self.remembered.ending not in {None, Ending.STOP} and not any(left) and self.remembered.is_bare


# --- writing ---------------------------------------------------------------------------------------


def encode_session(state: SessionState, options: SessionOptions) -> bytes:
    """Encode what the session is, and what it was registered with."""
    was, backoff = state.remembered, options.retry_backoff
    return encode_record(
        [
            None if was.ending is None else was.ending.value,
            was.retired,
            sorted(map(_text, was.silent_intents)),
            was.counters.generation,
            [
                _number(count)
                for count in (options.work_queue, options.max_attempts, options.abandoned_limit, options.outbox)
            ],
            [backoff.first, backoff.factor, backoff.limit, backoff.jitter],
        ]
    )


def encode_supervisor(region: SupervisorRegion) -> bytes:
    """Encode who is in force, and what is owed."""
    binding, revoked = region.binding, region.last_revoked
    return encode_record(
        [
            _bound_out(binding) if isinstance(binding, Bound) else None,
            None if region.previous is None else _bound_out(region.previous),
            None if revoked is None else [str(revoked[0]), _number(revoked[1])],
            _number(region.epoch_floor),
            [
                [kind.value, str(peer), _number(epoch), tried]
                for (kind, peer, epoch), tried in region.obligations.items()
            ],
            region.token_hash,
        ]
    )


def encode_peers(region: PeersRegion) -> bytes:
    """Encode whom the session trusts."""
    local = region.local_endpoint
    return encode_record(
        [
            None if local is None else _endpoint_out(local),
            [_endpoint_out(endpoint) for endpoint in region.direct.values()],
            [_endpoint_out(endpoint) for endpoint in region.overlay.values()],
            _number(region.overlay_epoch),
            region.projection_epoch,
        ]
    )


def encode_message(envelope: Envelope, admission: AdmissionClass) -> bytes:
    """Encode a message that is admitted.

    Raises:
        WireRefused: MALFORMED or OVERSIZE: its body cannot be kept; the rules are those of the wire.
    """
    return encode_record([*_envelope_out(envelope), admission.value])


def encode_reply(envelope: Envelope) -> bytes:
    """Encode an answer that is on its way.

    Raises:
        WireRefused: as for `encode_message`.
    """
    return encode_record(_envelope_out(envelope))


def encode_attempts(failed: int) -> bytes:
    """Encode how many attempts have failed."""
    return encode_record(failed)


def encode_abandoned(message: bytes, abandoned: Abandoned) -> bytes:
    """Encode a message that was given up, out of what `encode_message` has made of it.

    Its body may have been changed since then, by its handler.
    """
    error = None if abandoned.error is None else _shown(abandoned.error)
    return encode_record([message, abandoned.cause.value, abandoned.attempts, error])


def encode_request(addressee: PeerId, status: RequestStatus) -> bytes:
    """Encode a request of the session's own that has no answer yet."""
    return encode_record([str(addressee), status.value])


def _shown(error: BaseException) -> str:
    try:
        return _text(repr(error)[:_ERROR_LIMIT])
    except Exception:  # noqa: BLE001 - whatever an application's error raises when it is shown
        return f"<{type(error).__name__}, which cannot be shown>"


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _number(number: int) -> int | str:
    # What has more bits is a tag in CBOR, and tags are refused.
    return number if number < _TAGGED else hex(number)


def _envelope_out(envelope: Envelope) -> list[Any]:
    return [str(envelope.sender), str(envelope.recipient), encode_envelope(envelope, 0)]


def _endpoint_out(endpoint: PeerEndpoint | Bound) -> list[Any]:
    return [_text(endpoint.name), str(endpoint.peer_id), str(endpoint.address), endpoint.signing_key]


def _bound_out(bound: Bound) -> list[Any]:
    return [*_endpoint_out(bound), _number(bound.epoch)]


# --- reading ---------------------------------------------------------------------------------------


def decode_memory(session_id: SessionId, entries: Sequence[Entry]) -> Memory:
    """Read the entries of one session, in the order of their positions.

    Raises:
        ValueError: an entry says nothing that could be meant; the message has its kind and key.
    """
    by_kind: dict[str, dict[str, Any]] = {kind: {} for kind in _DECODERS}
    for entry in entries:
        decode = _DECODERS.get(entry.kind)
        if decode is None:
            raise ValueError(f"entry {entry.kind!r} {entry.key!r}: of no known kind")
        try:
            by_kind[entry.kind][entry.key] = decode(entry.value)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, WireRefused) as error:
            raise ValueError(f"entry {entry.kind!r} {entry.key!r}: {str(error) or type(error).__name__}") from None
    if "" not in by_kind[SESSION]:
        raise ValueError(f"entry {SESSION!r}: is missing")
    messages = _messages(by_kind)
    abandoned = sorted((int(key), found) for key, found in by_kind[ABANDONED].items())
    return Memory(
        remembered=_remembered(session_id, by_kind, messages),
        options=by_kind[SESSION][""][2],
        messages=messages,
        done=tuple(by_kind[DONE]),
        inputs=tuple(by_kind[INPUT]),
        replies=tuple(by_kind[REPLY].values()),
        abandoned=tuple(abandoned),
        requests=tuple((key, *found) for key, found in by_kind[REQUEST].items()),
        next_position=1 + max((entry.position for entry in entries), default=0),
    )


def _messages(by_kind: dict[str, dict[str, Any]]) -> tuple[UnfinishedMessage, ...]:
    return tuple(
        UnfinishedMessage(
            key=key,
            envelope=envelope,
            admission=admission,
            attempts=by_kind[ATTEMPTS].get(key, 0),
            answered=key in by_kind[ANSWERED],
        )
        for key, (envelope, admission) in by_kind[MESSAGE].items()
    )


def _remembered(
    session_id: SessionId, by_kind: dict[str, dict[str, Any]], messages: Iterable[UnfinishedMessage]
) -> Remembered:
    session, generation, _ = by_kind[SESSION][""]
    supervisor, floor = by_kind[SUPERVISOR].get("", ({}, 0))
    peers, overlay_epoch, projection_epoch = by_kind[PEERS].get("", ({}, 0, 0))
    open_requests = [each.envelope for each in messages if each.admission in _REQUEST_CLASSES and not each.answered]
    asked = {(message.sender, message.correlation or "") for message in open_requests}
    owed = {(reply.recipient, reply.correlation or "") for reply in by_kind[REPLY].values()}
    return Remembered(
        session_id=session_id,
        counters=Counters(
            generation=generation,
            projection_epoch=projection_epoch,
            overlay_epoch=overlay_epoch,
            epoch_floor=floor,
        ),
        inbound=frozenset(asked | owed),
        **session,
        **supervisor,
        **peers,
    )


def _session_in(value: bytes) -> tuple[dict[str, Any], int, SessionOptions]:
    ending, retired, intents, generation, counts, backoff = _list(value)
    work_queue, max_attempts, abandoned_limit, outbox = (_count(count, 1) for count in counts)
    first, factor, limit, jitter = backoff
    session = {
        "ending": None if ending is None else Ending(ending),
        "retired": bool(retired),
        "silent_intents": frozenset(intents),
    }
    options = SessionOptions(
        work_queue=work_queue,
        max_attempts=max_attempts,
        abandoned_limit=abandoned_limit,
        outbox=outbox,
        retry_backoff=Backoff(first=first, factor=factor, limit=limit, jitter=jitter),
    )
    return session, _count(generation), options


def _supervisor_in(value: bytes) -> tuple[dict[str, Any], int]:
    binding, previous, revoked, floor, obligations, token_hash = _list(value)
    supervisor: SupervisorBinding = Unbound() if binding is None else _bound_in(binding)
    region = {
        "supervisor": supervisor,
        "previous": None if previous is None else _bound_in(previous),
        "last_revoked": None if revoked is None else (PeerId(revoked[0]), _count(revoked[1])),
        "obligations": {
            (ObligationKind(kind), PeerId(peer), _count(epoch)): _count(tried)
            for kind, peer, epoch, tried in obligations
        },
        "token_hash": None if token_hash is None else _bytes(token_hash),
    }
    return region, _count(floor)


def _peers_in(value: bytes) -> tuple[dict[str, Any], int, int]:
    local, direct, overlay, overlay_epoch, projection_epoch = _list(value)
    region = {
        "local_endpoint": None if local is None else _endpoint_in(*local),
        "direct": tuple(_endpoint_in(*each) for each in direct),
        "overlay": tuple(_endpoint_in(*each) for each in overlay),
    }
    return region, _count(overlay_epoch), _count(projection_epoch)


def _message_in(value: bytes) -> tuple[Envelope, AdmissionClass]:
    *envelope, admission = _list(value)
    return _envelope_in(*envelope), AdmissionClass(admission)


def _reply_in(value: bytes) -> Envelope:
    reply = _envelope_in(*_list(value))
    if reply.kind is not EnvelopeKind.RESPONSE:
        raise ValueError("a reply is a response")
    return reply


def _abandoned_in(value: bytes) -> Abandoned:
    message, cause, attempts, error = _list(value)
    return Abandoned(
        message=_message_in(_bytes(message))[0],
        cause=AbandonCause(cause),
        attempts=_count(attempts),
        error=None if error is None else RememberedError(str(error)),
    )


def _request_in(value: bytes) -> tuple[PeerId, RequestStatus]:
    addressee, status = _list(value)
    return PeerId(addressee), RequestStatus(status)


def _attempts_in(value: bytes) -> int:
    return _count(decode_record(value, 1))


def _envelope_in(sender: Any, recipient: Any, data: Any) -> Envelope:
    (header,) = parse_headers([_bytes(data)])
    return header.envelope(PeerId(sender), PeerId(recipient))


def _endpoint_in(name: Any, peer_id: Any, address: Any, signing_key: Any) -> PeerEndpoint:
    return PeerEndpoint(name=name, peer_id=peer_id, address=address, signing_key=signing_key)


def _bound_in(value: Any) -> Bound:
    name, peer_id, address, signing_key, epoch = value
    return Bound(name=name, peer_id=peer_id, address=address, signing_key=signing_key, epoch=_count(epoch, 1))


def _list(value: bytes) -> list[Any]:
    found = decode_record(value, _DEPTH)
    if not isinstance(found, list):
        raise TypeError("a list is needed")
    return found


def _count(value: Any, least: int = 0) -> int:
    if type(value) is str:
        value = int(value, 16)
    if type(value) is not int or value < least:
        raise ValueError(f"a number from {least} up is needed, not {value!r}")
    return value


def _bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError("bytes are needed")
    return value


def _nothing_in(value: bytes) -> None:
    if value:
        raise ValueError("nothing is needed")


_DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    SESSION: _session_in,
    SUPERVISOR: _supervisor_in,
    PEERS: _peers_in,
    MESSAGE: _message_in,
    ATTEMPTS: _attempts_in,
    ANSWERED: _nothing_in,
    DONE: _nothing_in,
    INPUT: _nothing_in,
    REPLY: _reply_in,
    ABANDONED: _abandoned_in,
    REQUEST: _request_in,
}
