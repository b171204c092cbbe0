"""Who is who, for hosts and tests alike: keys follow from names, and so do sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meerkat_trio.comms import Identity, SocketLimits

if TYPE_CHECKING:
    from pathlib import Path

    from meerkat_trio import PeerEndpoint

__all__ = ["BOSSES", "LIMITS", "SENDERS", "SESSIONS", "endpoint", "identity", "socket_of"]

SESSIONS: Final = ("a", "b")
SENDERS: Final = ("one", "two")
BOSSES: Final = ("boss", "deputy")
LIMITS: Final = SocketLimits(linger=0.1, first_backoff=0.005, max_backoff=0.05)


def identity(name: str) -> Identity:
    return Identity(name.encode().ljust(32, b"."))


def socket_of(directory: Path, name: str) -> str:
    return f"uds://{directory}/{name}.sock"


def endpoint(directory: Path, name: str) -> PeerEndpoint:
    return identity(name).endpoint(name, socket_of(directory, name))
