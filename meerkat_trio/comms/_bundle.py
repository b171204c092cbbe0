"""Up to 64 envelopes under one signature: sealed, opened, and kept so that each can be verified alone.

What is signed is a context, both keys and the digest of each envelope's bytes as they are sent. The frame's
body is laid out so that keys and lengths stand at known places: nothing of it is decoded to find out whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias, final

from attrs import field, frozen

from .._messages import Envelope
from ..authority import DropReason, MessageId, PeerId
from ._cbor import ARRAY, BYTES, decode_record, encode_record, read_head, write_head
from ._envelope import ACCEPTANCE_WINDOW, MAX_ENVELOPE, Header, acceptance, parse_headers
from ._exceptions import WireRefused
from ._prefix import frame
from ._signing import KEY_BYTES, SIGNATURE_BYTES, verify

if TYPE_CHECKING:
    from ._identity import Identity

__all__ = [
    "BUNDLE_HEAD",
    "MAX_BUNDLE",
    "Bundle",
    "Judge",
    "Opened",
    "SignedEnvelope",
    "pack",
    "parse_bundle",
    "peer_id_of",
    "seal",
]

MAX_BUNDLE: Final = 64
"""The most envelopes under one signature."""

BUNDLE_HEAD: Final = b"\x85\x03"
"""How the body of a bundle begins: an array of five, the first of which is 3."""
_KEY: Final = b"\x58\x20"
_SIGNATURE: Final = b"\x58\x40"
_LAYOUT: Final = Struct(f"2s 2s{KEY_BYTES}s 2s{KEY_BYTES}s 2s{SIGNATURE_BYTES}s")
"""How the body of a bundle begins: the head, then three byte strings, each with a head of its own."""
_CONTEXT: Final = b"meerkat-trio bundle 1\x00"
_DIGEST_BYTES: Final = 32
_MALFORMED: Final = DropReason.MALFORMED


@final
class Opened:
    """What became of one envelope of a bundle. A hot record: made once, never changed."""

    __slots__ = ("envelope", "id", "issued_at", "reason")

    id: MessageId
    """Which one."""
    issued_at: int
    """When its sender made it, in milliseconds since 1970, UTC."""
    envelope: Envelope | None
    """The envelope; None if it was refused."""
    reason: DropReason | None
    """Why it was refused."""

    def __init__(self, header: Header, envelope: Envelope | None, reason: DropReason | None) -> None:
        self.id = header.id
        self.issued_at = header.issued_at
        self.envelope = envelope
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Opened {self.id!r}: {'an envelope' if self.reason is None else self.reason.value}>"


Judge: TypeAlias = Callable[[Header], DropReason | None]


@final
class Bundle:
    """A bundle as it arrived: parsed, and nothing of it believed. A hot record: made once, never changed."""

    __slots__ = ("parts", "recipient", "sender", "signature")

    sender: bytes
    """The key of whom it says it is from."""
    recipient: bytes
    """The key of whom it is for."""
    signature: bytes
    """What has to be the sender's signature."""
    parts: tuple[bytes, ...]
    """The envelopes' bytes as they were sent, between 1 and 64 of them."""

    def __init__(self, sender: bytes, recipient: bytes, signature: bytes, parts: tuple[bytes, ...]) -> None:
        self.sender = sender
        self.recipient = recipient
        self.signature = signature
        self.parts = parts

    def headers(self) -> list[Header]:
        """Read the envelopes' headers; no body is decoded, no signature checked.

        Raises:
            WireRefused: MALFORMED.
        """
        return parse_headers(self.parts)

    def is_signed(self) -> bool:
        """Say whether the signature is the sender's, over just these envelopes in this order."""
        signed = _signed_bytes(self.sender, self.recipient, _digests(self.parts))
        return verify(self.sender, signed, self.signature)

    def open(
        self, *, recipient: bytes, now: int, judge: Judge | None = None, window: float = ACCEPTANCE_WINDOW
    ) -> Iterator[Opened]:
        """Check everything, the cheapest first, and say what became of each envelope.

        Bodies are decoded one at a time, as the result is iterated over: hand each on before the next.

        Args:
            recipient: our own key.
            now: the time, in milliseconds since 1970, UTC.
            judge: looks at a header before the signature is checked and the body decoded, and may refuse it:
                for what strangers may send, and how much of it.
            window: for how many seconds after its issue an envelope is good.

        Raises:
            WireRefused: MALFORMED: an envelope has no header that could be answered.
        """
        headers = self.headers()
        reasons = self._refusals(headers, recipient, acceptance(now, window), judge)
        if None in reasons and not self.is_signed():
            reasons = [reason or DropReason.BAD_SIGNATURE for reason in reasons]
        return self._opened(headers, reasons)

    def _opened(self, headers: list[Header], reasons: list[DropReason | None]) -> Iterator[Opened]:
        sender, recipient = peer_id_of(self.sender), peer_id_of(self.recipient)
        for header, refusal in zip(headers, reasons, strict=True):
            envelope, reason = None, refusal
            if reason is None:
                try:
                    envelope = header.envelope(sender, recipient)
                except WireRefused as refused:
                    reason = refused.reason
            yield Opened(header, envelope, reason)

    def _refusals(
        self, headers: list[Header], recipient: bytes, times: tuple[int, int], judge: Judge | None
    ) -> list[DropReason | None]:
        """Say what is refused without a look at signature or bodies."""
        if self.recipient != recipient:
            return [DropReason.WRONG_RECIPIENT] * len(headers)
        earliest, latest = times
        reasons: list[DropReason | None] = []
        for header in headers:
            if not earliest <= header.issued_at <= latest:
                reasons.append(DropReason.EXPIRED)
            else:
                reasons.append(None if judge is None else judge(header))
        return reasons

    def signed_envelopes(self) -> Iterator[SignedEnvelope]:
        """Give each envelope all that is needed to verify it alone."""
        digests = _digests(self.parts)
        for index, part in enumerate(self.parts):
            yield SignedEnvelope(
                sender=self.sender,
                recipient=self.recipient,
                signature=self.signature,
                digests=digests,
                index=index,
                data=part,
            )


peer_id_of: Final = lru_cache(maxsize=1024)(PeerId.of_key)
"""Deriving the two ids again for every bundle would cost a tenth of its signature."""


@frozen(kw_only=True)
class SignedEnvelope:
    """One envelope of a bundle, with the digests of its fellows: to be stored, and verified alone."""

    sender: bytes
    """The sender's key."""
    recipient: bytes
    """The recipient's key."""
    signature: bytes = field(repr=False)
    """The bundle's signature."""
    digests: bytes = field(repr=False)
    """The digests of the whole bundle, 32 bytes each."""
    index: int
    """Which of them is this envelope's."""
    data: bytes = field(repr=False)
    """The envelope's bytes."""

    def is_signed(self) -> bool:
        """Say whether the sender has signed just this envelope, as one of its bundle."""
        at = self.index * _DIGEST_BYTES
        if sha256(self.data).digest() != self.digests[at : at + _DIGEST_BYTES]:
            return False
        return verify(self.sender, _signed_bytes(self.sender, self.recipient, self.digests), self.signature)

    def envelope(self) -> Envelope:
        """Decode the envelope; ask `is_signed` first.

        Raises:
            WireRefused: MALFORMED or OVERSIZE.
        """
        (header,) = parse_headers((self.data,))
        return header.envelope(PeerId.of_key(self.sender), PeerId.of_key(self.recipient))

    def to_bytes(self) -> bytes:
        """Encode it for a store."""
        return encode_record(
            [1, self.sender, self.recipient, self.signature, self.digests, self.index, self.data],
        )

    @classmethod
    def from_bytes(cls, stored: bytes) -> SignedEnvelope:
        """Decode what `to_bytes` has made.

        Raises:
            WireRefused: MALFORMED.
        """
        if not stored.startswith(b"\x87\x01"):
            raise WireRefused(_MALFORMED, "no stored envelope of version 1")
        _, sender, recipient, signature, digests, index, data = decode_record(stored, 1)
        if not all(type(each) is bytes for each in (sender, recipient, signature, digests, data)):
            raise WireRefused(_MALFORMED, "a byte string is needed")
        _require_key(sender)
        _require_key(recipient)
        count, rest = divmod(len(digests), _DIGEST_BYTES)
        if rest or not 1 <= count <= MAX_BUNDLE or type(index) is not int or not 0 <= index < count:
            raise WireRefused(_MALFORMED, "digests and index do not fit")
        return cls(sender=sender, recipient=recipient, signature=signature, digests=digests, index=index, data=data)


def seal(identity: Identity, recipient: bytes, parts: Iterable[bytes]) -> bytes:
    """Sign encoded envelopes and make a frame of them.

    Args:
        identity: the sender of all of them.
        recipient: the recipient's key.
        parts: what `encode_envelope` made; `pack` says how many fit.

    Raises:
        WireRefused: OVERSIZE.
    """
    parts = tuple(parts)
    if not 1 <= len(parts) <= MAX_BUNDLE:
        raise WireRefused(DropReason.OVERSIZE, f"a bundle has 1 to {MAX_BUNDLE} envelopes, not {len(parts)}")
    _require_key(recipient)
    sender = identity.public_key
    signature = identity.sign(_signed_bytes(sender, recipient, _digests(parts)))
    pieces = [BUNDLE_HEAD, _KEY, sender, _KEY, recipient, _SIGNATURE, signature, write_head(ARRAY, len(parts))]
    for part in parts:
        pieces += (write_head(BYTES, len(part)), part)
    return frame(*pieces)


def pack(parts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Divide encoded envelopes, in their order, into as few bundles as they fit in."""
    bundle: list[bytes] = []
    size = 0
    for part in parts:
        if bundle and (len(bundle) == MAX_BUNDLE or size + len(part) + 5 > MAX_ENVELOPE):
            yield bundle
            bundle, size = [], 0
        bundle.append(part)
        size += len(part) + 5
    if bundle:
        yield bundle


def parse_bundle(body: bytes) -> Bundle:
    """Parse the body of a frame that begins like a bundle.

    Raises:
        WireRefused: MALFORMED.
    """
    if len(body) < _LAYOUT.size:
        raise WireRefused(_MALFORMED, "not laid out as a bundle")
    head, before_sender, sender, before_recipient, recipient, before_signature, signature = _LAYOUT.unpack_from(body)
    if (head, before_sender, before_recipient, before_signature) != (BUNDLE_HEAD, _KEY, _KEY, _SIGNATURE):
        raise WireRefused(_MALFORMED, "not laid out as a bundle")
    _require_key(sender)
    _require_key(recipient)
    count, at = read_head(body, _LAYOUT.size, ARRAY)
    if not 1 <= count <= MAX_BUNDLE:
        raise WireRefused(_MALFORMED, f"a bundle has 1 to {MAX_BUNDLE} envelopes")
    parts = []
    for _ in range(count):
        length, at = read_head(body, at, BYTES)
        end = at + length
        parts.append(body[at:end])
        at = end
    if at != len(body):
        raise WireRefused(_MALFORMED, "lengths that do not add up")
    return Bundle(sender, recipient, signature, tuple(parts))


def _signed_bytes(sender: bytes, recipient: bytes, digests: bytes) -> bytes:
    return _CONTEXT + sender + recipient + digests


def _digests(parts: Iterable[bytes]) -> bytes:
    return b"".join([sha256(part).digest() for part in parts])


def _require_key(key: bytes) -> None:
    if len(key) != KEY_BYTES or not any(key):
        raise WireRefused(_MALFORMED, "a key of 32 bytes, not all zero, is needed")
