"""One envelope as bytes: a short header that is cheap to read, and a body that stays closed until it is wanted.

What is signed is in `_bundle`, what surrounds it on a connection in `_frames`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from .._messages import Envelope
from ..authority import DropReason, EnvelopeKind, Lane, ResponseStatus
from ._cbor import BYTES, TEXT, decode_body, decode_records, encode_body, write_head
from ._exceptions import WireRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..authority import CorrelationId, MessageId, PeerId

__all__ = [
    "ACCEPTANCE_WINDOW",
    "CLOCK_SKEW",
    "MAX_ENVELOPE",
    "MAX_TEXT",
    "Header",
    "acceptance",
    "encode_envelope",
    "parse_headers",
    "take_text",
]

MAX_ENVELOPE: Final = 1024 * 1024 - 256
"""The most bytes of one envelope: it fits into a frame of its own."""
MAX_TEXT: Final = 256
"""The most bytes of an id, a correlation or an intent, in UTF-8."""
ACCEPTANCE_WINDOW: Final = 300.0
"""For how many seconds after its issue an envelope is admitted."""
CLOCK_SKEW: Final = 60.0
"""By how many seconds the sender's clock may be fast. Who remembers ids for both together admits nothing twice."""

_MALFORMED: Final = DropReason.MALFORMED
_LATEST: Final = 1 << 53
_ARRAY_OF_8: Final = 0x88
_HEAD: Final = bytes((_ARRAY_OF_8,))
_NULL: Final = b"\xf6"
_NUMBER_OF_8_BYTES: Final = b"\x1b"

KIND_CODES: Final = {
    EnvelopeKind.MESSAGE: 1,
    EnvelopeKind.REQUEST: 2,
    EnvelopeKind.RESPONSE: 3,
    EnvelopeKind.PEER_ADDED: 4,
    EnvelopeKind.PEER_RETIRED: 5,
    EnvelopeKind.PEER_UNWIRED: 6,
    EnvelopeKind.DISMISS: 7,
}
LANE_CODES: Final = {Lane.CONTROL: 0, Lane.WORK: 1}
STATUS_CODES: Final = {ResponseStatus.ACCEPTED: 1, ResponseStatus.COMPLETED: 2, ResponseStatus.FAILED: 3}

_KIND_BYTES: Final = {kind: bytes((code,)) for kind, code in KIND_CODES.items()}
_LANE_BYTES: Final = {lane: bytes((code,)) for lane, code in LANE_CODES.items()}
_STATUS_BYTES: Final[dict[ResponseStatus | None, bytes]] = {
    None: _NULL,
    **{status: bytes((code,)) for status, code in STATUS_CODES.items()},
}
_KINDS: Final = {code: kind for kind, code in KIND_CODES.items()}
_LANES: Final = {code: lane for lane, code in LANE_CODES.items()}
_STATUSES: Final[dict[int | None, ResponseStatus | None]] = {None: None, **{c: s for s, c in STATUS_CODES.items()}}


@final
class Header:
    """What an envelope says before its body is opened. A hot record: made once, never changed."""

    __slots__ = ("body", "correlation", "id", "intent", "issued_at", "kind", "lane", "status")

    id: MessageId
    """Unique per sender."""
    lane: Lane
    """As the sender has it; `envelope` refuses one that does not follow from kind and intent."""
    kind: EnvelopeKind
    """What it is."""
    intent: str | None
    """What a request asks for."""
    correlation: CorrelationId | None
    """Ties a response to its request."""
    status: ResponseStatus | None
    """What a response says of its request."""
    issued_at: int
    """When it was made, by its sender's clock: milliseconds since 1970, UTC."""
    body: bytes
    """The body, not decoded."""

    def __init__(  # noqa: PLR0917 - in the order of the wire
        self,
        id: MessageId,  # noqa: A002 - the field's name
        lane: Lane,
        kind: EnvelopeKind,
        intent: str | None,
        correlation: CorrelationId | None,
        status: ResponseStatus | None,
        issued_at: int,
        body: bytes,
    ) -> None:
        self.id = id
        self.lane = lane
        self.kind = kind
        self.intent = intent
        self.correlation = correlation
        self.status = status
        self.issued_at = issued_at
        self.body = body

    def envelope(self, sender: PeerId, recipient: PeerId) -> Envelope:
        """Open the body and make the envelope.

        Raises:
            WireRefused: MALFORMED: the body is, or the fields do not fit the kind. OVERSIZE: too many items.
        """
        body = decode_body(self.body)
        try:
            envelope = Envelope(
                id=self.id,
                sender=sender,
                recipient=recipient,
                kind=self.kind,
                body=body,
                intent=self.intent,
                correlation=self.correlation,
                status=self.status,
            )
        except ValueError:
            raise WireRefused(_MALFORMED, f"the fields do not fit a {self.kind.value}") from None
        if envelope.lane is not self.lane:
            raise WireRefused(_MALFORMED, f"the {self.lane.value} lane is not that of a {self.kind.value} like this")
        return envelope


def encode_envelope(envelope: Envelope, issued_at: int) -> bytes:
    """Encode an envelope. Its bytes are kept and sent again as they are until they are answered.

    Args:
        envelope: what to send.
        issued_at: now, in milliseconds since 1970, UTC.

    Raises:
        WireRefused: MALFORMED for what the wire cannot carry, OVERSIZE for too much of it.
    """
    if not 0 <= issued_at < _LATEST:
        raise ValueError(f"issued_at: milliseconds since 1970 are needed, not {issued_at!r}")
    body = encode_body(envelope.body)
    # Put together here, for the library takes longer over these few bytes than over the body.
    data = b"".join(
        (
            _HEAD,
            _encode_text(envelope.id),
            _LANE_BYTES[envelope.lane],
            _KIND_BYTES[envelope.kind],
            _encode_text(envelope.intent),
            _encode_text(envelope.correlation),
            _STATUS_BYTES[envelope.status],
            _NUMBER_OF_8_BYTES,
            issued_at.to_bytes(8),
            write_head(BYTES, len(body)),
            body,
        )
    )
    if len(data) > MAX_ENVELOPE:
        raise WireRefused(DropReason.OVERSIZE, f"{len(data)} bytes, of at most {MAX_ENVELOPE}")
    return data


def _encode_text(text: str | None) -> bytes:
    if text is None:
        return _NULL
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise WireRefused(_MALFORMED, "a text that is no Unicode") from None
    if len(encoded) > MAX_TEXT:
        raise WireRefused(DropReason.OVERSIZE, f"an id, correlation or intent of more than {MAX_TEXT} bytes")
    return write_head(TEXT, len(encoded)) + encoded


def parse_headers(parts: Sequence[bytes]) -> list[Header]:
    """Read what comes before the bodies.

    Raises:
        WireRefused: MALFORMED: one of them is; there may not even be an id to answer to.
    """
    for data in parts:
        # Eight items and no array inside: whatever follows, it is not many objects.
        if not data or data[0] != _ARRAY_OF_8:
            raise WireRefused(_MALFORMED, "an envelope is an array of eight")
    return [_header(*fields) for fields in decode_records(parts, 1)]


def _header(  # noqa: PLR0917 - in the order of the wire
    id_: Any, lane: Any, kind: Any, intent: Any, correlation: Any, status: Any, issued_at: Any, body: Any
) -> Header:
    if type(lane) is not int or type(kind) is not int or (status is not None and type(status) is not int):
        raise WireRefused(_MALFORMED, "lane, kind and status are numbers")
    if lane not in _LANES or kind not in _KINDS or status not in _STATUSES:
        raise WireRefused(_MALFORMED, "an unknown lane, kind or status")
    message_id = take_text(id_)
    intent = None if intent is None else take_text(intent)
    correlation = None if correlation is None else take_text(correlation)
    if type(issued_at) is not int or not 0 <= issued_at < _LATEST:
        raise WireRefused(_MALFORMED, "the time of issue is a number of milliseconds")
    if type(body) is not bytes:
        raise WireRefused(_MALFORMED, "the body is a byte string")
    return Header(message_id, _LANES[lane], _KINDS[kind], intent, correlation, _STATUSES[status], issued_at, body)


def take_text(value: object) -> str:
    """Return a text that has between 1 and `MAX_TEXT` bytes.

    Raises:
        WireRefused: MALFORMED.
    """
    if type(value) is not str or not value:
        raise WireRefused(_MALFORMED, "a text that is not empty is needed")
    if len(value) > MAX_TEXT // 4 and len(value.encode()) > MAX_TEXT:
        raise WireRefused(_MALFORMED, f"a text of more than {MAX_TEXT} bytes")
    return value


def acceptance(now: int, window: float = ACCEPTANCE_WINDOW, skew: float = CLOCK_SKEW) -> tuple[int, int]:
    """Say when envelopes may be issued that are admitted now: the earliest and the latest moment.

    Args:
        now: the time, in milliseconds since 1970, UTC, as the result is.
        window: for how many seconds an envelope is good.
        skew: by how many seconds its sender's clock may be fast.
    """
    return now - int(window * 1000), now + int(skew * 1000)
