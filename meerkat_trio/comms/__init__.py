"""The transports: what a session drains, and what their peers are known by.

`MemoryComms` serves one process, `SocketComms` connects several over TCP and Unix sockets, `RedisComms` hosts over a
Redis server. A transport of your own implements `meerkat_trio.abc.CommsRuntime` and passes
`meerkat_trio.testing.check_comms_runtime`. `Identity` is a key pair, and `TrustFile` the peers whom somebody trusts by
hand; keys and sockets need the extra ``socket``, Redis the extra ``redis``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from ._exceptions import KeyFileRefused, TrustFileRefused
from ._limits import SocketLimits
from ._memory import MemoryComms, MemoryNetwork
from ._redis_limits import Fence, RedisLimits, RedisStatistics
from ._trust_file import TrustFile

if TYPE_CHECKING:
    from ._identity import Identity
    from ._redis import RedisNetwork
    from ._redis_comms import RedisComms
    from ._socket import SocketComms, SocketNetwork

__all__ = [
    "Fence",
    "Identity",
    "KeyFileRefused",
    "MemoryComms",
    "MemoryNetwork",
    "RedisComms",
    "RedisLimits",
    "RedisNetwork",
    "RedisStatistics",
    "SocketComms",
    "SocketLimits",
    "SocketNetwork",
    "TrustFile",
    "TrustFileRefused",
]

_OF_THE_EXTRAS: Final = {
    "Identity": "._identity",
    "RedisComms": "._redis",
    "RedisNetwork": "._redis",
    "SocketComms": "._socket",
    "SocketNetwork": "._socket",
}
"""Loaded on first use, for the libraries they need are extras."""


def __getattr__(name: str) -> object:
    if name not in _OF_THE_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_OF_THE_EXTRAS[name], __name__), name)
    globals()[name] = found
    return found
