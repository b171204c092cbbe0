"""Whose a file is: one machine's alone, or readers' together. Opens and locks; reads and writes nothing of it.

The lock is `flock` on the file itself: the kernel drops it when the process dies, however it dies, and no second name
of the file gets round it. SQLite's own locks are of another kind (`fcntl`), so its readers are not kept out.

Those have a trap: a process that closes *any* descriptor of a file loses its `fcntl` locks on it, and then another
program may take away the log of a database that is in use. So a file that this process has in use is never opened here
again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from .._exceptions import JournalFailed, JournalRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["held_alone", "held_with_readers", "telling_of"]

_PATIENCE: Final = 5.0
"""Seconds for which a machine waits for readers; they hold a file for as long as they copy or read it."""
_PAUSE: Final = 0.01
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK

_Inode: TypeAlias = tuple[int, int]

_guard = threading.Lock()
_descriptors: set[int] = set()
_in_use: set[_Inode] = set()


@contextlib.contextmanager
def telling_of(path: Path) -> Iterator[None]:
    """Say of which journal an error of the system is."""
    try:
        yield
    except OSError as error:
        raise JournalFailed(str(path), f"cannot be used: {error.strerror or error}") from error


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[int]:
    """Hold a file for one machine; yields its descriptor.

    Raises:
        JournalRefused: it is in use, by a machine or for too long by readers.
        OSError: it cannot be opened for writing.
    """
    handle, inode = _take_alone(path)
    try:
        yield handle
    finally:
        with _guard:
            _in_use.discard(inode)
            _close(handle)


@contextlib.contextmanager
def held_with_readers(path: Path) -> Iterator[int | None]:
    """Hold a file so that no machine takes it; yields its descriptor, or None if a machine has it already.

    Raises:
        OSError: it cannot be opened for reading.
    """
    handle = _take_with_readers(path)
    try:
        yield handle
    finally:
        if handle is not None:
            with _guard:
                _close(handle)


def _take_alone(path: Path) -> tuple[int, _Inode]:
    patience = time.monotonic() + _PATIENCE
    while True:
        with _guard:
            if _inode(path.stat()) in _in_use:
                raise _taken(path)
            handle = _open(path, os.O_RDWR)
            try:
                inode = _inode(os.fstat(handle))
                locked = _lock(handle, shared=False)
                # One that was put in its place meanwhile is the journal now.
                if locked and _inode(path.stat()) == inode:
                    _in_use.add(inode)
                    return handle, inode
                read = locked or _lock(handle, shared=True)
            except BaseException:
                _close(handle)
                raise
            _close(handle)
            if not read:
                raise _taken(path)
        if time.monotonic() > patience:
            raise JournalRefused(str(path), "in use: somebody has been reading it for a long time; try again")
        time.sleep(_PAUSE)


def _take_with_readers(path: Path) -> int | None:
    with _guard:
        if _inode(path.stat()) in _in_use:
            return None
        handle = _open(path, os.O_RDONLY)
        try:
            if _lock(handle, shared=True):
                return handle
        except BaseException:
            _close(handle)
            raise
        _close(handle)
        return None


def _open(path: Path, flags: int) -> int:
    handle = os.open(path, flags | _FLAGS)
    _descriptors.add(handle)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        _close(handle)
        raise JournalFailed(str(path), "cannot be used: not a regular file")
    return handle


def _close(handle: int) -> None:
    _descriptors.discard(handle)
    os.close(handle)


def _lock(handle: int, *, shared: bool) -> bool:
    # Not every system has it, and nothing else here needs it.
    import fcntl  # noqa: PLC0415

    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _inode(found: os.stat_result) -> _Inode:
    return found.st_dev, found.st_ino


def _taken(path: Path) -> JournalRefused:
    return JournalRefused(
        str(path), "in use by another machine; stop that one first, or give this one a file of its own"
    )


def _in_child() -> None:
    # A child without exec would go on holding the locks of a parent that is dead.
    global _guard  # noqa: PLW0603
    _guard = threading.Lock()
    for handle in _descriptors:
        os.close(handle)
    _descriptors.clear()
    _in_use.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        # Looked up each time, for a child has one of its own.
        before=lambda: _guard.acquire(),  # noqa: PLW0108
        after_in_parent=lambda: _guard.release(),  # noqa: PLW0108
        after_in_child=_in_child,
    )
