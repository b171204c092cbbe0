"""How every frame begins: one byte for the version of the protocol, four for the length of what follows."""

from __future__ import annotations

from struct import Struct
from typing import Final

from ..authority import DropReason
from ._exceptions import WireRefused

__all__ = ["MAX_FRAME", "PREFIX", "VERSION", "frame"]

VERSION: Final = 1
"""The version of the protocol; any change of the bytes is another one."""
MAX_FRAME: Final = 1024 * 1024
"""The most bytes of a frame's body."""
PREFIX: Final = Struct(">BI")


def frame(*pieces: bytes) -> bytes:
    """Put the prefix before the pieces of a body.

    Raises:
        WireRefused: OVERSIZE.
    """
    length = sum(map(len, pieces))
    if length > MAX_FRAME:
        raise WireRefused(DropReason.OVERSIZE, f"a frame of {length} bytes, of at most {MAX_FRAME}")
    return b"".join((PREFIX.pack(VERSION, length), *pieces))
