"""Files that are there whole or not at all, and are nobody else's to read before they are finished."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["alone_in", "create_file", "replace_file"]


def create_file(path: Path, content: bytes, mode: int) -> None:
    """Make a file that must not exist yet, atomically and with ``mode`` from its first byte.

    Raises:
        FileExistsError: something has that name; it is untouched.
        OSError: it cannot be made; nothing is left behind.
    """
    with _finished(path, content, mode) as finished:
        # Unlike a rename, a link never replaces what somebody else has put there meanwhile.
        os.link(finished, path)
    _sync_directory(path.parent)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Replace a file, or make it, atomically: a reader sees the old content or the new one.

    Raises:
        OSError: it cannot be written; the old one is untouched.
    """
    with _finished(path, content, mode) as finished:
        finished.replace(path)
    _sync_directory(path.parent)


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory: whoever reads a file, changes and replaces it loses nobody's change."""
    # Not every system has it, and nothing else here needs it.
    import fcntl  # noqa: PLC0415

    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _finished(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Yield a file beside ``path`` with all the content on the disk; what is left of it goes at the end."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            # A umask may have taken bits away; more than the owner's are given only now.
            os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
