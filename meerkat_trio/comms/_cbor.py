"""The CBOR that goes over the wire: the values of JSON and byte strings, bounded before memory is spent.

The one file that knows the library. What is refused, and what else than the shortest form is accepted, stands in
`docs/wire.md`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from ..authority import DropReason
from ._exceptions import WireRefused

try:
    import cbor2
except ImportError as error:
    raise ImportError(
        f"the wire and the journal need {error.name}: pip install 'meerkat-trio[socket]'", name=error.name
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "ARRAY",
    "BYTES",
    "MAX_DEPTH",
    "MAX_ITEMS",
    "TEXT",
    "decode_body",
    "decode_record",
    "decode_records",
    "encode_body",
    "encode_record",
    "read_head",
    "write_head",
]

MAX_DEPTH: Final = 64
"""How deep arrays and maps of a body may be nested."""
MAX_ITEMS: Final = 65_536
"""How many data items a body may have: an empty array is one byte on the wire and 64 in memory."""

_MALFORMED: Final = DropReason.MALFORMED
_OVERSIZE: Final = DropReason.OVERSIZE
_ATOMS: Final = frozenset({type(None), bool, int, float, str, bytes})
_KEYS: Final = frozenset({str, bytes})
_DOUBTFUL: Final = frozenset({*range(0xE0, 0xF4), 0xF7, 0xF8})
_PLAIN: Final = bytes(byte for byte in range(256) if byte not in _DOUBTFUL)
"""Bytes of which none can begin a simple value without a meaning."""
_POSITIVE: Final = b"\xc2"
_NEGATIVE: Final = b"\xc3"
"""How numbers of more than 64 bits begin, which are tags; other things may hold these bytes too."""

# The library stops after one item, whatever follows. So each is read as the first half of a pair whose
# second half nobody outside this process can know: only if that comes out, the first was one item.
_END: Final = secrets.token_bytes(16)
_PAIR: Final = b"\x82"
_CLOSED: Final = b"\x50" + _END


class _NoTags(dict[int, Any]):
    """Decoders by tag, all of which refuse: what the library builds in makes dates, patterns and cycles."""

    def __missing__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag

    def get(self, tag: int, default: object = None) -> Any:  # noqa: ARG002 - as a dict has it
        return _refuse_tag


def _refuse_tag(*_: object) -> Any:
    raise ValueError("tags are not allowed")


_NO_TAGS: Final = _NoTags()


def encode_body(value: Any) -> bytes:
    """Encode what an application says.

    Raises:
        WireRefused: MALFORMED for what the wire cannot carry, OVERSIZE for too many items.
    """
    # The library recurses without a bound of its own: a list nested deep enough ends the process.
    _count(value, MAX_DEPTH)
    data = encode_record(value)
    if _POSITIVE in data or _NEGATIVE in data:
        decode_record(data, MAX_DEPTH)
    return data


def encode_record(value: Any) -> bytes:
    """Encode what is known to be sound but for its texts."""
    try:
        return cbor2.dumps(value)
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise WireRefused(_MALFORMED, f"cannot be encoded: {type(error).__name__}") from None


def decode_body(data: bytes) -> Any:
    """Decode a body.

    Raises:
        WireRefused: MALFORMED, or OVERSIZE for too many items.
    """
    if len(data) > MAX_ITEMS:
        _scan(data)
    value = decode_record(data, MAX_DEPTH)
    if data.translate(None, _PLAIN):
        _count(value, MAX_DEPTH)
    return value


def decode_record(data: bytes, depth: int) -> Any:
    """Decode one data item whose size the caller has bounded, and whose values it is going to check.

    Raises:
        WireRefused: MALFORMED.
    """
    item, end = _loads(_PAIR + data + _CLOSED, depth + 1)
    if end != _END:
        raise WireRefused(_MALFORMED, "more than one CBOR item")
    return item


def decode_records(records: Sequence[bytes], depth: int) -> list[Any]:
    """Decode several at once, as `decode_record` does each; one that is refused refuses all of them.

    Raises:
        WireRefused: MALFORMED.
    """
    items = _loads(write_head(ARRAY, 2 * len(records)) + _CLOSED.join(records) + _CLOSED, depth + 1)
    if items[1::2] != [_END] * len(records):
        raise WireRefused(_MALFORMED, "more than one CBOR item")
    found: list[Any] = items[::2]
    return found


def _loads(data: bytes, depth: int) -> Any:
    try:
        return cbor2.loads(
            data,
            semantic_decoders=_NO_TAGS,
            max_depth=depth,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORError, ValueError, OverflowError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, ValueError) else error
        raise WireRefused(_MALFORMED, f"no acceptable CBOR: {type(cause).__name__}") from None


def _count(value: Any, depth: int) -> int:
    """Count the items of a value while looking whether the wire can carry it; how large numbers are is not asked."""
    parts: Any
    if isinstance(value, dict):
        if not _KEYS.issuperset(map(type, value)) and not all(isinstance(key, (str, bytes)) for key in value):
            raise WireRefused(_MALFORMED, "a key that is neither text nor bytes")
        parts = value.values()
        total = 1 + 2 * len(value)
    elif isinstance(value, (list, tuple)):
        parts = value
        total = 1 + len(value)
    elif value is None or isinstance(value, (str, int, float, bytes, bytearray)):
        return 1
    else:
        raise WireRefused(_MALFORMED, f"a {type(value).__name__} cannot be sent")
    if not depth:
        raise WireRefused(_MALFORMED, f"nested deeper than {MAX_DEPTH}")
    # Looking at each part in turn would be most of the work, and mostly for nothing.
    if not _ATOMS.issuperset(map(type, parts)):
        for part in parts:
            if type(part) not in _ATOMS:
                total += _count(part, depth - 1) - 1
                if total > MAX_ITEMS:
                    break
    if total > MAX_ITEMS:
        raise WireRefused(_OVERSIZE, f"more than {MAX_ITEMS} items")
    return total


_ARRAY: Final = 4
_MAP: Final = 5
_TAG: Final = 6
_OTHER: Final = 7
_MEANT: Final = frozenset({20, 21, 22, 25, 26, 27})
"""False, true, null and the floats of three sizes."""


def _scan(data: bytes) -> None:
    """Look at the heads of all items, making none of them."""
    at, size, items = 0, len(data), 0
    left: list[int] = []  # by open array or map, the items that are still to come
    while True:
        items += 1
        if items > MAX_ITEMS:
            raise WireRefused(_OVERSIZE, f"more than {MAX_ITEMS} items")
        major, argument, at = _head(data, at)
        if major in {2, 3}:
            at += argument
        elif major in {_ARRAY, _MAP}:
            if len(left) == MAX_DEPTH:
                raise WireRefused(_MALFORMED, f"nested deeper than {MAX_DEPTH}")
            count = argument * (2 if major == _MAP else 1)
            if count > size - at:
                raise WireRefused(_MALFORMED, "truncated CBOR")
            if count:
                left.append(count)
                continue
        while left:
            left[-1] -= 1
            if left[-1]:
                break
            left.pop()
        else:
            break
    if at != size:
        raise WireRefused(_MALFORMED, "more than one CBOR item" if at < size else "truncated CBOR")


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Read a head: its major type, its argument, and where it ends."""
    if at >= len(data):
        raise WireRefused(_MALFORMED, "truncated CBOR")
    major, info = divmod(data[at], 32)
    at += 1
    if major == _TAG:
        raise WireRefused(_MALFORMED, "tags are not allowed")
    if major == _OTHER and info not in _MEANT:
        raise WireRefused(_MALFORMED, "a simple value without a meaning")
    if info < 24:  # noqa: PLR2004 - RFC 8949, section 3
        return major, info, at
    if info > 27:  # noqa: PLR2004
        raise WireRefused(_MALFORMED, "an item of indefinite length")
    end = at + (1 << (info - 24))
    return major, int.from_bytes(data[at:end]), end


# --- heads in their shortest form alone, for what is laid out and not decoded ---------------------------------

BYTES: Final = 0x40
"""The major type of byte strings, as the first three bits of a head."""
TEXT: Final = 0x60
"""The major type of texts."""
ARRAY: Final = 0x80
"""The major type of arrays."""
_MAJOR: Final = 0xE0
_ONE_BYTE: Final = 24
_LEAST: Final = {_ONE_BYTE: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16)}
"""By what a head says of its length: the bytes of the argument, and the least that needs so many."""


def write_head(major: int, argument: int) -> bytes:
    """Write the head of an item: how long it is."""
    if argument < _ONE_BYTE:
        return (major | argument).to_bytes()
    info = 24 if argument < 1 << 8 else 25 if argument < 1 << 16 else 26
    return (major | info).to_bytes() + argument.to_bytes(_LEAST[info][0])


def read_head(data: bytes, at: int, major: int) -> tuple[int, int]:
    """Read the head of an item: its length, which may be more than there is, and where the head ends.

    Raises:
        WireRefused: MALFORMED: there is none, it is of another type, or not in its shortest form.
    """
    if at >= len(data) or data[at] & _MAJOR != major:
        raise WireRefused(_MALFORMED, "another item was expected")
    info = data[at] & ~_MAJOR
    if info < _ONE_BYTE:
        return info, at + 1
    width, least = _LEAST.get(info, (0, 0))
    end = at + 1 + width
    argument = int.from_bytes(data[at + 1 : end])
    if not width or end > len(data) or argument < least:
        raise WireRefused(_MALFORMED, "a length that is not in its shortest form")
    return argument, end
