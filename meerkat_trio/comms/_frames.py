"""Frames: bytes in any pieces in, frames out, and back. Sans-IO.

Rules of the decoder:

1. A frame is refused at the first byte that shows it has to be: the version, the length, the type.
2. What is kept is at most one frame that has not come whole, and the last piece.
3. A refusal is final: after it nothing on this connection can be trusted to begin where a frame begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, final

from attrs import frozen

from .._messages import ReceiptStatus
from ..authority import DropReason, MessageId
from ._bundle import BUNDLE_HEAD, Bundle, parse_bundle
from ._cbor import BYTES, decode_record, encode_record, read_head, write_head
from ._envelope import MAX_TEXT, take_text
from ._exceptions import WireRefused
from ._prefix import MAX_FRAME, PREFIX, VERSION, frame
from ._signing import KEY_BYTES, SIGNATURE_BYTES

__all__ = [
    "HANDSHAKE_LIMIT",
    "MAX_RECEIPTS",
    "Answer",
    "Bye",
    "ByeCode",
    "Frame",
    "FrameDecoder",
    "Hello",
    "Proof",
    "Receipts",
    "encode_bye",
    "encode_hello",
    "encode_proof",
    "encode_receipts",
    "pack_answers",
    "parse_answers",
]

MAX_RECEIPTS: Final = 64 * 1024
"""The most bytes of a receipts frame's body."""
HANDSHAKE_LIMIT: Final = 512
"""What a decoder takes at most in one frame before it is known who speaks."""
TAG_BYTES: Final = 16
"""How long the tag of receipts is."""

_MALFORMED: Final = DropReason.MALFORMED
_KEY: Final = b"\x58\x20"
_HELLO_HEAD: Final = b"\x83\x01"
_PROOF_HEAD: Final = b"\x82\x02"
_RECEIPTS_HEAD: Final = b"\x83\x04"
_BYE_HEAD: Final = b"\x83\x05"
_SIGNATURE: Final = b"\x58\x40"
_TAG: Final = b"\x50"
_HEAD_BYTES: Final = 2

ANSWER_CODES: Final[dict[DropReason | None, int]] = {
    None: 1,  # admitted; 0 is queued
    DropReason.UNTRUSTED_SENDER: 2,
    DropReason.NOT_ADMITTED_IN_PHASE: 3,
    DropReason.NO_SUCH_REQUEST: 4,
    DropReason.WRONG_RESPONDER: 5,
    DropReason.DUPLICATE: 6,
    DropReason.EXPIRED: 7,
    DropReason.OVERSIZE: 8,
    DropReason.MALFORMED: 9,
    DropReason.BAD_SIGNATURE: 10,
    DropReason.WRONG_RECIPIENT: 11,
    DropReason.RATE_LIMITED: 12,
    DropReason.INBOX_FULL: 13,
    DropReason.CLOSED: 14,
    DropReason.NOT_RECORDED: 15,
}
_QUEUED: Final = 0
_ANSWERS: Final = {
    _QUEUED: (ReceiptStatus.QUEUED, None),
    **{
        code: (ReceiptStatus.ADMITTED if reason is None else ReceiptStatus.DROPPED, reason)
        for reason, code in ANSWER_CODES.items()
    },
}


class ByeCode:
    """Why a side closes the connection: what a `Bye` says. A code without a name is no error."""

    DONE: Final = 0
    """Nothing more to say."""
    REFUSED: Final = 1
    """The other side broke the protocol."""
    VERSION: Final = 2
    """The other side speaks another version."""
    TIMEOUT: Final = 3
    """The other side was too slow."""
    BUSY: Final = 4
    """There are too many connections."""
    CLOSED: Final = 5
    """This side goes away."""


@frozen
class Hello:
    """The first frame of each side: who it says it is."""

    key: bytes
    """Its public key."""
    ephemeral: bytes
    """An X25519 key for this connection alone; as it is fresh, it is the challenge too."""


@frozen
class Proof:
    """The second frame of each side: that it holds the key it named."""

    signature: bytes
    """Over what both sides said."""


@frozen
class Answer:
    """What became of one envelope of the other side."""

    id: MessageId
    """Which one."""
    status: ReceiptStatus = ReceiptStatus.ADMITTED
    """QUEUED: it has arrived, and its last answer is still to come."""
    reason: DropReason | None = None
    """Why it was dropped."""


@frozen
class Receipts:
    """Answers, not yet believed nor decoded."""

    tag: bytes
    """What only this connection's other side can have made."""
    payload: bytes
    """What the tag is of; `parse_answers` decodes it."""


@frozen
class Bye:
    """The last frame of a side."""

    code: int
    """One of `ByeCode`."""
    detail: str
    """For a log; nothing follows from it."""


Frame: TypeAlias = Hello | Proof | Bundle | Receipts | Bye


# --- encoding -----------------------------------------------------------------------------------------------


def encode_hello(hello: Hello) -> bytes:
    """Make the body of a hello frame: both sides sign it, so it is needed without its prefix too."""
    return b"".join((_HELLO_HEAD, _KEY, hello.key, _KEY, hello.ephemeral))


def encode_proof(proof: Proof) -> bytes:
    """Make a frame."""
    return frame(_PROOF_HEAD, _SIGNATURE, proof.signature)


def pack_answers(answers: Iterable[Answer]) -> Iterator[bytes]:
    """Encode answers: payloads of which each fits into a frame."""
    room = MAX_RECEIPTS - 32
    flat: list[str | int] = []
    size = 0
    for answer in answers:
        length = len(answer.id.encode()) + 4
        if flat and size + length > room:
            yield encode_record(flat)
            flat, size = [], 0
        flat += (answer.id, _QUEUED if answer.status is ReceiptStatus.QUEUED else ANSWER_CODES[answer.reason])
        size += length
    if flat:
        yield encode_record(flat)


def encode_receipts(receipts: Receipts) -> bytes:
    """Make a frame."""
    return frame(_RECEIPTS_HEAD, _TAG, receipts.tag, write_head(BYTES, len(receipts.payload)), receipts.payload)


def encode_bye(code: int = ByeCode.DONE, detail: str = "") -> bytes:
    """Make a frame; of a detail that is too long the beginning is sent."""
    text = detail.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore") or "-"
    return frame(encode_record([5, code, text]))


# --- decoding -----------------------------------------------------------------------------------------------


def _parse_hello(body: bytes) -> Hello:
    key_at, ephemeral_at = 4, 4 + KEY_BYTES + 2
    laid_out = body[2:key_at] == _KEY and body[ephemeral_at - 2 : ephemeral_at] == _KEY
    if not laid_out or len(body) != ephemeral_at + KEY_BYTES:
        raise WireRefused(_MALFORMED, "not laid out as a hello")
    hello = Hello(body[key_at : key_at + KEY_BYTES], body[ephemeral_at:])
    if not any(hello.key) or not any(hello.ephemeral):
        raise WireRefused(_MALFORMED, "a key of zero bytes is never valid")
    return hello


def _parse_proof(body: bytes) -> Proof:
    if body[2:4] != _SIGNATURE or len(body) != 4 + SIGNATURE_BYTES:
        raise WireRefused(_MALFORMED, "not laid out as a proof")
    return Proof(body[4:])


def _parse_receipts(body: bytes) -> Receipts:
    tag_at = _HEAD_BYTES + 1
    if body[_HEAD_BYTES:tag_at] != _TAG:
        raise WireRefused(_MALFORMED, "not laid out as receipts")
    length, at = read_head(body, tag_at + TAG_BYTES, BYTES)
    if at + length != len(body):
        raise WireRefused(_MALFORMED, "lengths that do not add up")
    return Receipts(body[tag_at : tag_at + TAG_BYTES], body[at:])


def _parse_bye(body: bytes) -> Bye:
    _, code, detail = decode_record(body, 1)
    if type(code) is not int or not 0 <= code <= 0xFF:  # noqa: PLR2004 - one byte
        raise WireRefused(_MALFORMED, "the code of a bye is a small number")
    return Bye(code, take_text(detail))


def parse_answers(payload: bytes) -> list[Answer]:
    """Decode the payload of receipts whose tag was found to be right.

    Raises:
        WireRefused: MALFORMED.
    """
    flat = decode_record(payload, 1)
    if type(flat) is not list or len(flat) % 2:
        raise WireRefused(_MALFORMED, "receipts are pairs of an id and a code")
    answers = []
    for id_, code in zip(flat[::2], flat[1::2], strict=True):
        if type(code) is not int or code not in _ANSWERS:
            raise WireRefused(_MALFORMED, "an unknown code")
        answers.append(Answer(take_text(id_), *_ANSWERS[code]))
    return answers


_TYPES: Final[dict[bytes, tuple[int, Callable[[bytes], Frame]]]] = {
    _HELLO_HEAD: (HANDSHAKE_LIMIT, _parse_hello),
    _PROOF_HEAD: (HANDSHAKE_LIMIT, _parse_proof),
    BUNDLE_HEAD: (MAX_FRAME, parse_bundle),
    _RECEIPTS_HEAD: (MAX_RECEIPTS, _parse_receipts),
    _BYE_HEAD: (HANDSHAKE_LIMIT, _parse_bye),
}
"""By how its body begins: the most bytes a frame of this type may have, and what parses it."""


@final
class FrameDecoder:
    """Takes what a connection brings, and gives the frames in it.

    Iterate over it after each `feed`: the iteration ends where the bytes do, and goes on with more of them.
    It raises `WireRefused` where something is no frame, and from then on again and again.
    """

    __slots__ = ("_at", "_buffer", "_refused", "limit")

    limit: int
    """The longest body that is taken: small until it is known who speaks, and for those who are not trusted."""

    def __init__(self, limit: int = HANDSHAKE_LIMIT) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._at = 0
        self._refused: tuple[DropReason, str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no frame has begun that has not come whole."""
        return len(self._buffer) == self._at

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next piece; after a refusal it is let go of at once."""
        if self._refused is None:
            if self._at:
                del self._buffer[: self._at]
                self._at = 0
            self._buffer += data

    def finish(self) -> None:
        """Note that the connection has ended.

        Raises:
            WireRefused: it ended inside a frame.
        """
        if self._refused is None and not self.is_empty:
            raise self._refuse(_MALFORMED, "the connection ended inside a frame")

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._refused is not None:
            raise WireRefused(*self._refused)
        buffer, at = self._buffer, self._at
        have = len(buffer) - at
        if have and buffer[at] != VERSION:
            raise self._refuse(_MALFORMED, f"not version {VERSION} of the protocol")
        if have < PREFIX.size:
            raise StopIteration
        _, length = PREFIX.unpack_from(buffer, at)
        begin = at + PREFIX.size
        if length > self.limit:
            raise self._oversize(length, self.limit)
        if length < _HEAD_BYTES:
            raise self._refuse(_MALFORMED, "a frame without a type")
        if have < PREFIX.size + _HEAD_BYTES:
            raise StopIteration
        head = bytes(buffer[begin : begin + _HEAD_BYTES])
        if head not in _TYPES:
            raise self._refuse(_MALFORMED, "an unknown type of frame")
        limit, parse = _TYPES[head]
        if length > limit:
            raise self._oversize(length, limit)
        if have < PREFIX.size + length:
            raise StopIteration
        with memoryview(buffer) as view:
            body = bytes(view[begin : begin + length])
        self._at = begin + length
        try:
            return parse(body)
        except WireRefused as refused:
            raise self._refuse(refused.reason, refused.detail) from None

    def _oversize(self, length: int, limit: int) -> WireRefused:
        return self._refuse(DropReason.OVERSIZE, f"a frame of {length} bytes, of at most {limit}")

    def _refuse(self, reason: DropReason, detail: str) -> WireRefused:
        self._refused = reason, detail
        self._buffer = bytearray()
        self._at = 0
        return WireRefused(reason, detail)
