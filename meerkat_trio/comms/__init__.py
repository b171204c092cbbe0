"""The transports: what a session drains, and what their peers are known by.

`MemoryComms` serves one process. A transport of your own implements `meerkat_trio.abc.CommsRuntime` and
passes `meerkat_trio.testing.check_comms_runtime`. `Identity` is a key pair, and `TrustFile` the peers whom somebody
trusts by hand; keys need the extra ``socket``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._exceptions import KeyFileRefused, TrustFileRefused
from ._memory import MemoryComms, MemoryNetwork
from ._trust_file import TrustFile

if TYPE_CHECKING:
    from ._identity import Identity

__all__ = ["Identity", "KeyFileRefused", "MemoryComms", "MemoryNetwork", "TrustFile", "TrustFileRefused"]


def __getattr__(name: str) -> object:
    if name != "Identity":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # On first use, for the library it needs is an extra.
    from ._identity import Identity  # noqa: PLC0415

    globals()[name] = Identity
    return Identity
