"""Addresses as sockets: where to listen, and how to connect.

A Unix socket is made for its owner alone, and replaces nothing but a socket on which nobody listens any more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import trio

from ..authority import PeerAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Listening", "connect", "listen"]

_BACKLOG: Final = 1024
_OWNER_ONLY: Final = 0o600
_LOCK_PAUSE: Final = 0.01


@final
class Listening:
    """A listener, and the address at which peers find it."""

    def __init__(self, listener: trio.SocketListener, address: PeerAddress, made: os.stat_result | None = None) -> None:
        self.listener = listener
        self.address = address
        self._made = made

    def close(self) -> None:
        """Stop listening; of a Unix socket the path is removed, if it is still ours."""
        # The path first: as long as somebody listens nobody else puts a socket of his own there.
        if self._made is not None:
            path = Path(self.address.location)
            with suppress(OSError):
                found = path.lstat()
                if (found.st_dev, found.st_ino) == (self._made.st_dev, self._made.st_ino):
                    path.unlink()
            self._made = None
        self.listener.socket.close()


async def connect(address: PeerAddress) -> trio.SocketStream:
    """Connect to where a peer listens.

    Raises:
        OSError: nobody listens there.
        ValueError: the address is of another transport.

    **Cancellation:** nothing is left open.
    """
    if address.scheme == "tcp":
        host, port = _host_and_port(address.location)
        return await trio.open_tcp_stream(host, port)
    if address.scheme == "uds":
        return await trio.open_unix_socket(address.location)
    raise ValueError(f"address: {address} is none of a socket")


async def listen(address: str) -> Listening:
    """Listen at ``tcp://host:port`` (port 0 takes a free one) or ``uds:///path``.

    Raises:
        OSError: it is in use, or may not be listened at.
        ValueError: the address is malformed, or of another transport.

    **Cancellation:** nobody listens.
    """
    scheme, _, location = address.partition("://")
    if scheme == "tcp" and location.endswith(":0"):
        PeerAddress(address[:-1] + "1")  # refuses what is malformed but for the port
    elif PeerAddress(address).scheme == "inproc":
        raise ValueError(f"address: {address} is none of a socket")
    if scheme == "tcp":
        return await _listen_tcp(location)
    await trio.lowlevel.checkpoint()
    path = Path(location)
    async with _alone_in(path.parent):
        return _listen_unix(path)


def _host_and_port(location: str) -> tuple[str, int]:
    host, _, port = location.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _listen_tcp(location: str) -> Listening:
    host, port = _host_and_port(location)
    # A name may have several addresses; with a free port each would get another one.
    first, *others = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    for other in others:
        other.socket.close()
    bound = first.socket.getsockname()[1]
    return Listening(first, PeerAddress(f"tcp://{location.rpartition(':')[0]}:{bound}"))


def _listen_unix(path: Path) -> Listening:
    _clear(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        # Nobody can connect before it listens.
        path.chmod(_OWNER_ONLY)
        bound.listen(_BACKLOG)
        bound.setblocking(False)  # noqa: FBT003 - the library's signature
        made = path.lstat()
    except BaseException:
        bound.close()
        raise
    return Listening(trio.SocketListener(trio.socket.from_stdlib_socket(bound)), PeerAddress(f"uds://{path}"), made)


@asynccontextmanager
async def _alone_in(directory: Path) -> AsyncIterator[None]:
    """Keep two processes from both finding a socket dead, and one from removing what the other has just made.

    Whoever can read the directory can lock it, for as long as he likes: that may stop who listens, and nobody else.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while not _locks(handle):  # noqa: ASYNC110 - it is another process that unlocks it
            await trio.sleep(_LOCK_PAUSE)
        yield
    finally:
        os.close(handle)


def _locks(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(path: Path) -> None:
    """Remove a socket on which nobody listens; anything else stays, and is in the way."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(found.st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # noqa: FBT003 - the library's signature
            if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()
                return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
