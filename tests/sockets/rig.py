"""Peers over sockets, as the tests here need them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from meerkat_trio.comms import Identity, SocketComms, SocketLimits, SocketNetwork
from meerkat_trio.testing import ConformanceBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


__all__ = ["LANE", "SOON", "bench", "introduce", "opened"]

LANE = 4
"""Envelopes that one sender gets rid of before it waits."""
SOON = SocketLimits(unanswered=LANE, linger=0.1, first_backoff=0.001, max_backoff=0.01)
"""Bounds for tests: small queues, and nobody is waited for."""


def introduce(*peers: SocketComms) -> None:
    """Let each trust every other by hand."""
    for peer in peers:
        for other in peers:
            if other is not peer:
                peer.trust(other.endpoint())


async def opened(network: SocketNetwork, name: str, address: str | None, **options: Any) -> SocketComms:
    """Open a peer with a key that follows from its name."""
    identity = Identity(name.encode().ljust(32, b"."))
    return await network.open(identity, runtime_id=name, listen=address, **{"patience": 0.0, **options})


def bench(address: Callable[[], str]) -> Any:
    """Return what makes conformance benches over sockets; ``address`` gives a new one each time."""

    @asynccontextmanager
    async def make() -> AsyncIterator[ConformanceBench]:
        async with SocketNetwork(SOON) as network:
            lanes: dict[str, Any] = {"work_lane": LANE, "control_lane": LANE}
            peers = [await opened(network, name, address(), **lanes) for name in ("receiver", "sender", "other")]
            introduce(*peers)
            receiver, sender, other = peers

            async def rebuild() -> SocketComms:
                rebuilt = await opened(network, "receiver", None, **lanes)
                for peer in (sender, other):
                    rebuilt.trust(peer.endpoint())
                return rebuilt

            yield ConformanceBench(
                receiver=receiver, senders=(sender, other), rebuild=rebuild, work_lane=LANE, control_lane=LANE
            )

    return make
