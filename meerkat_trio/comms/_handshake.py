"""Who is at the other end: two frames each way, and the link that comes of it. Sans-IO.

What a finished handshake proves: when the connection was made, the other side held the key it names, and
wanted to speak to the holder of ours. It gives both sides a secret with which receipts are tagged, for nobody signs
those. What it does not do: hide anything, or vouch for envelopes, which carry signatures of their own.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Final, final

from ..authority import DropReason, PeerId
from ._exceptions import WireRefused
from ._frames import (
    TAG_BYTES,
    Answer,
    Hello,
    Proof,
    Receipts,
    encode_hello,
    encode_proof,
    encode_receipts,
    pack_answers,
    parse_answers,
)
from ._prefix import frame
from ._signing import KEY_BYTES, exchange_key, shared_secret, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._bundle import Bundle
    from ._frames import Frame
    from ._identity import Identity

__all__ = ["Handshake", "Link"]

_TRANSCRIPT: Final = b"meerkat-trio handshake 1\x00"
_PROOFS: Final = {True: b"meerkat-trio proof 1 connector\x00", False: b"meerkat-trio proof 1 listener\x00"}
"""By whether its maker had connected. They differ, or a proof could be sent back as if it were one's own."""
_RECEIPTS: Final = {True: b"meerkat-trio receipts 1 connector\x00", False: b"meerkat-trio receipts 1 listener\x00"}


@final
class Handshake:
    """One side of a handshake.

    Send `start`; then give every frame to `receive` and send what it returns, until `link` is there.
    """

    __slots__ = ("_connects", "_expected", "_hello", "_identity", "_other", "_secret", "_transcript", "link")

    link: Link | None
    """What was agreed on; None until the other side has proved who it is."""

    def __init__(
        self, identity: Identity, *, connects: bool, expected: bytes | None = None, secret: bytes | None = None
    ) -> None:
        """Begin.

        Args:
            identity: who we are.
            connects: whether this side has connected; the other one has listened.
            expected: the key the other side must have; None for anybody's.
            secret: an X25519 secret of this connection's own; random unless given.
        """
        self._identity = identity
        self._connects = connects
        self._expected = expected
        self._secret = secrets.token_bytes(KEY_BYTES) if secret is None else secret
        self._hello = encode_hello(Hello(identity.public_key, exchange_key(self._secret)))
        self._other: Hello | None = None
        self._transcript = b""
        self.link = None

    def start(self) -> bytes:
        """Return what to send first: who has listened waits for the other's hello."""
        return frame(self._hello) if self._connects else b""

    def receive(self, received: Frame) -> bytes:
        """Take the other side's next frame; return what to send.

        Raises:
            WireRefused: MALFORMED: this frame does not belong here. WRONG_RECIPIENT: it is somebody else than
                expected, or ourselves. BAD_SIGNATURE: it does not hold the key it named.
        """
        if isinstance(received, Hello) and self._other is None:
            return self._receive_hello(received)
        if isinstance(received, Proof) and self._other is not None and self.link is None:
            self.link = self._receive_proof(received, self._other)
            return b""
        raise WireRefused(DropReason.MALFORMED, f"a {type(received).__name__.lower()} has no place here")

    def _receive_hello(self, hello: Hello) -> bytes:
        if self._expected is not None and hello.key != self._expected:
            raise WireRefused(DropReason.WRONG_RECIPIENT, "the other side has another key than expected")
        if hello.key == self._identity.public_key:
            raise WireRefused(DropReason.WRONG_RECIPIENT, "the other side has our own key")
        self._other = hello
        theirs = encode_hello(hello)
        first, second = (self._hello, theirs) if self._connects else (theirs, self._hello)
        self._transcript = sha256(_TRANSCRIPT + first + second).digest()
        proof = encode_proof(Proof(self._identity.sign(_PROOFS[self._connects] + self._transcript)))
        return proof if self._connects else frame(self._hello) + proof

    def _receive_proof(self, proof: Proof, other: Hello) -> Link:
        if not verify(other.key, _PROOFS[not self._connects] + self._transcript, proof.signature):
            raise WireRefused(DropReason.BAD_SIGNATURE, "the other side does not hold the key it named")
        shared = shared_secret(self._secret, other.ephemeral)
        if shared is None:
            raise WireRefused(DropReason.MALFORMED, "no secret can be agreed on with this ephemeral key")
        agreed = hmac.digest(self._transcript, shared, "sha256")
        ours, theirs = (hmac.digest(agreed, _RECEIPTS[side], "sha256") for side in (self._connects, not self._connects))
        return Link(other.key, ours, theirs)


@final
class Link:
    """A connection whose other side is known."""

    __slots__ = ("_our_secret", "_received", "_sent", "_their_secret", "key", "peer_id")

    key: bytes
    """The other side's public key."""
    peer_id: PeerId
    """Who the other side is."""

    def __init__(self, key: bytes, our_secret: bytes, their_secret: bytes) -> None:
        self.key = key
        self.peer_id = PeerId.of_key(key)
        self._our_secret = our_secret
        self._their_secret = their_secret
        # How many receipts frames went each way: none can be left out, repeated or moved.
        self._sent = 0
        self._received = 0

    def seal(self, answers: Iterable[Answer]) -> Iterator[bytes]:
        """Make receipts frames of answers; they have to be sent in this order."""
        for payload in pack_answers(answers):
            tag = _tag(self._our_secret, self._sent, payload)
            self._sent += 1
            yield encode_receipts(Receipts(tag, payload))

    def open(self, receipts: Receipts) -> list[Answer]:
        """Check that the other side made them, now and in this order, and decode them.

        Raises:
            WireRefused: BAD_SIGNATURE or MALFORMED.
        """
        expected = _tag(self._their_secret, self._received, receipts.payload)
        if not hmac.compare_digest(expected, receipts.tag):
            raise WireRefused(DropReason.BAD_SIGNATURE, "receipts that the other side did not make")
        self._received += 1
        return parse_answers(receipts.payload)

    def require_sender(self, bundle: Bundle) -> None:
        """Refuse a bundle of somebody else's: a connection carries its two peers' own.

        Raises:
            WireRefused: BAD_SIGNATURE.
        """
        if bundle.sender != self.key:
            raise WireRefused(DropReason.BAD_SIGNATURE, "a bundle in somebody else's name")


def _tag(secret: bytes, number: int, payload: bytes) -> bytes:
    return hmac.digest(secret, number.to_bytes(8) + payload, "sha256")[:TAG_BYTES]
