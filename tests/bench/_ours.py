"""A machine set up for a benchmark: sessions with their transports and a sender they trust.

The only file of the benchmarks that knows how an application uses the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import trio

import meerkat_trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._measure import Scale

__all__ = ["count_down", "idle_handler", "made_comms", "register_all", "run_ours", "trusted_sender"]


T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def run_ours(measure: Callable[[Unpack[Arguments]], Awaitable[T]], scale: Scale, *arguments: *Arguments) -> T:
    """Run a measurement; one that hangs fails instead, and is told as a failure.

    Raises:
        trio.TooSlowError: it took longer than ``scale.patience``.
    """

    async def within_patience() -> T:
        with trio.fail_after(scale.patience):
            return await measure(*arguments)

    return trio.run(within_patience)


def made_comms(network: meerkat_trio.MemoryNetwork, count: int) -> list[meerkat_trio.MemoryComms]:
    """Make the transports of so many sessions."""
    return [meerkat_trio.MemoryComms(network, f"session-{number}") for number in range(count)]


async def trusted_sender(
    network: meerkat_trio.MemoryNetwork, name: str, receivers: list[meerkat_trio.MemoryComms]
) -> meerkat_trio.MemoryComms:
    """Make a sender that every receiver trusts."""
    sender = meerkat_trio.MemoryComms(network, name)
    endpoint = sender.endpoint()
    for receiver in receivers:
        await receiver.add_trusted_peer(endpoint, meerkat_trio.TrustSource.MANUAL)
    return sender


async def idle_handler(_run: meerkat_trio.SessionRun) -> None:
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
    comms: list[meerkat_trio.MemoryComms],
    handler: Callable[[meerkat_trio.SessionRun], Awaitable[None]] = idle_handler,
) -> None:
    """Register a session for each transport and attach it; each serves when this returns."""
    for number, transport in enumerate(comms):
        session = await machine.register(f"s{number}", handler)
        await session.attach_ingress(transport)
