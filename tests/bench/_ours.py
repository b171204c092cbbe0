"""A machine set up for a benchmark: sessions with their transports and a sender they trust.

The only file of the benchmarks that knows how an application uses the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import meerkat_trio
from meerkat_trio._messages import TrustSource
from meerkat_trio.comms import MemoryComms, MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

__all__ = ["BUILT", "PATIENCE", "count_down", "idle_handler", "made_comms", "register_all", "trusted_sender"]

BUILT: Final = hasattr(meerkat_trio, "open_machine")
"""Whether there is a machine to measure."""

PATIENCE: Final = 300.0
"""Seconds after which a turn of ours that hangs is given up."""


def made_comms(network: MemoryNetwork, count: int) -> list[MemoryComms]:
    """Make the transports of so many sessions."""
    return [MemoryComms(network, f"session-{number}") for number in range(count)]


async def trusted_sender(network: MemoryNetwork, name: str, receivers: list[MemoryComms]) -> MemoryComms:
    """Make a sender that every receiver trusts."""
    sender = MemoryComms(network, name)
    endpoint = sender.endpoint()
    for receiver in receivers:
        await receiver.add_trusted_peer(endpoint, TrustSource.MANUAL)
    return sender


async def idle_handler(_run: meerkat_trio.Run) -> None:
    """Handle nothing: for sessions that get no message."""


def count_down(count: int, done: trio.Event) -> Callable[[object], Awaitable[None]]:
    """Make a handler, for us and for floors alike, that sets ``done`` at its last message."""
    left = count

    async def handle(_message: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    return handle


async def register_all(
    machine: meerkat_trio.MeerkatMachine,
    comms: list[MemoryComms],
    handler: Callable[[meerkat_trio.Run], Awaitable[None]] = idle_handler,
) -> None:
    """Register a session for each transport and attach it; each serves when this returns."""
    for number, transport in enumerate(comms):
        session = await machine.register(f"s{number}", handler)
        await session.attach_ingress(transport)
