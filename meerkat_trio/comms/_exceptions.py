"""What the transports refuse, and say so: files that cannot be used, bytes that are no frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exceptions import MeerkatError

if TYPE_CHECKING:
    from pathlib import Path

    from ..authority import DropReason

__all__ = ["KeyFileRefused", "TrustFileRefused", "WireRefused"]


class KeyFileRefused(MeerkatError):
    """A key file cannot be used, or cannot be made; nothing was changed.

    Attributes:
        path: the file.
        why: what is wrong with it.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


class TrustFileRefused(MeerkatError):
    """A trust file cannot be used, or cannot be written; it is what it was.

    Attributes:
        path: the file.
        why: what is wrong with it.
        line: the number of the line that is broken, from 1 up; None if it is the file itself.
    """

    def __init__(self, path: Path, why: str, line: int | None = None) -> None:
        super().__init__(path, why, line)
        self.path = path
        self.why = why
        self.line = line

    def __str__(self) -> str:
        place = f"{self.path}" if self.line is None else f"{self.path}, line {self.line}"
        return f"{place}: {self.why}"


class WireRefused(MeerkatError):
    """Something that came over the wire, or was to go over it, is refused.

    Attributes:
        reason: what a sender is told: MALFORMED, OVERSIZE, BAD_SIGNATURE, WRONG_RECIPIENT or EXPIRED.
        detail: what exactly is wrong; never what the other side claimed.
    """

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"
