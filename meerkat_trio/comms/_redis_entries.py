"""What stands in the streams: bundles of envelopes, and answers, each signed, so that the server need not be trusted.

Sans-I/O: fields in, values out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from ..authority import DropReason, PeerId
from ._bundle import parse_bundle
from ._exceptions import WireRefused
from ._frames import pack_answers, parse_answers
from ._prefix import PREFIX, VERSION
from ._signing import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._bundle import Bundle
    from ._frames import Answer
    from ._identity import Identity

__all__ = ["SignedAnswers", "parse_message", "sign_answers"]

_CONTEXT: Final = b"meerkat-trio answers 1\x00"


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=False))


def parse_message(flat: Sequence[bytes]) -> tuple[Bundle, str]:
    """Read a lane's entry: the bundle, and the stream for answers. Nothing of it is believed.

    Raises:
        WireRefused: MALFORMED.
    """
    fields = _fields(flat)
    data, answers = fields.get(b"bundle", b""), fields.get(b"answers", b"")
    if len(data) < PREFIX.size or PREFIX.unpack_from(data) != (VERSION, len(data) - PREFIX.size):
        raise WireRefused(DropReason.MALFORMED, "not a frame")
    try:
        return parse_bundle(data[PREFIX.size :]), answers.decode()
    except UnicodeDecodeError:
        raise WireRefused(DropReason.MALFORMED, "not the name of a stream") from None


@final
class SignedAnswers:
    """What one peer says became of envelopes of one sender."""

    __slots__ = ("by", "payload", "signature", "to")

    def __init__(self, by: bytes, to: str, payload: bytes, signature: bytes) -> None:
        self.by: bytes = by
        """The key of whose answers these are."""
        self.to: str = to
        """Whom they are for, a peer id."""
        self.payload: bytes = payload
        self.signature: bytes = signature

    @classmethod
    def of_entry(cls, flat: Sequence[bytes]) -> SignedAnswers:
        """Read an entry; nothing of it is believed."""
        fields = _fields(flat)
        by, payload, signature = (fields.get(name, b"") for name in (b"by", b"answers", b"signature"))
        return cls(by, fields.get(b"to", b"").decode(errors="replace"), payload, signature)

    def arguments(self) -> tuple[bytes | str, ...]:
        """Return the fields' values, in the order of the script that writes them."""
        return self.by, self.to, self.payload, self.signature

    def open(self) -> list[Answer]:
        """Check the signature, then decode.

        Raises:
            WireRefused: BAD_SIGNATURE, MALFORMED.
        """
        if not verify(self.by, _signed_bytes(self.by, self.to, self.payload), self.signature):
            raise WireRefused(DropReason.BAD_SIGNATURE, "answers that are not the recipient's")
        return parse_answers(self.payload)


def sign_answers(identity: Identity, to: PeerId, answers: Iterable[Answer]) -> Iterator[SignedAnswers]:
    """Sign answers to one sender: as few entries as they fit in."""
    by = identity.public_key
    for payload in pack_answers(answers):
        yield SignedAnswers(by, to, payload, identity.sign(_signed_bytes(by, to, payload)))


def _signed_bytes(by: bytes, to: str, payload: bytes) -> bytes:
    return b"".join((_CONTEXT, by, to.encode(), b"\x00", payload))
