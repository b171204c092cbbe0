"""What the tests of the wire share: two peers, values that can be sent, envelopes, frames."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from meerkat_trio import Envelope, EnvelopeKind, ResponseStatus
from meerkat_trio.comms import Identity
from meerkat_trio.comms._bundle import Bundle, seal
from meerkat_trio.comms._envelope import encode_envelope
from meerkat_trio.comms._frames import Frame, FrameDecoder
from meerkat_trio.comms._prefix import MAX_FRAME

ALICE: Final = Identity(b"a" * 32)
BOB: Final = Identity(b"b" * 32)
EVE: Final = Identity(b"e" * 32)
NOW: Final = 1_700_000_000_000


def envelope(number: int = 1, body: Any = "hello", **changed: Any) -> Envelope:
    fields = {"id": f"m-{number}", "sender": ALICE.peer_id, "recipient": BOB.peer_id, "body": body}
    return Envelope(**{**fields, **changed})


def part(number: int = 1, body: Any = "hello", **changed: Any) -> bytes:
    return encode_envelope(envelope(number, body, **changed), NOW)


def decoded(data: bytes, limit: int = MAX_FRAME) -> list[Frame]:
    decoder = FrameDecoder(limit)
    decoder.feed(data)
    return list(decoder)


def bundle(*parts: bytes) -> Bundle:
    (frame,) = decoded(seal(ALICE, BOB.public_key, parts or (part(),)))
    assert isinstance(frame, Bundle)
    return frame


ATOMS: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.binary(max_size=30)
)
BODIES: Final[st.SearchStrategy[Any]] = st.recursive(
    ATOMS,
    lambda parts: st.lists(parts, max_size=6) | st.dictionaries(st.text(max_size=9) | st.binary(max_size=9), parts),
    max_leaves=30,
)
_TEXTS: Final = st.text(min_size=1, max_size=64)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    kind = draw(st.sampled_from(EnvelopeKind))
    request, response = kind is EnvelopeKind.REQUEST, kind is EnvelopeKind.RESPONSE
    return Envelope(
        id=draw(_TEXTS),
        sender=ALICE.peer_id,
        recipient=BOB.peer_id,
        kind=kind,
        body=draw(BODIES),
        intent=draw(_TEXTS | st.just("supervisor.bridge")) if request else None,
        correlation=draw(_TEXTS) if request or response else None,
        status=draw(st.sampled_from(ResponseStatus)) if response else None,
    )
