"""The transports: what a session drains.

`MemoryComms` serves one process. A transport of your own implements `meerkat_trio.abc.CommsRuntime` and
passes `meerkat_trio.testing.check_comms_runtime`.
"""

from __future__ import annotations

from ._memory import MemoryComms, MemoryNetwork

__all__ = ["MemoryComms", "MemoryNetwork"]
