"""What the tests of trust share: a transport whose trust store fails, hangs and remembers what was done to it."""

from __future__ import annotations

from typing import Any, Final

import trio

from meerkat_trio import MemoryComms, PeerEndpoint, PeerId, TrustSource

from .rig import Rig

__all__ = ["DIRECT", "MANUAL", "OVERLAY", "SUPERVISOR", "Edge", "Store", "edges", "store"]

MANUAL: Final = TrustSource.MANUAL
DIRECT: Final = TrustSource.DIRECT
OVERLAY: Final = TrustSource.OVERLAY
SUPERVISOR: Final = TrustSource.SUPERVISOR
Edge = tuple[PeerId, TrustSource]


class Store(MemoryComms):
    """A transport whose trust store does as it is told."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.refused: dict[PeerId | None, BaseException] = {}
        """What happens to edges of a peer; under None, what happens when the store is read."""
        self.delay = 0.0
        """Seconds that every call takes."""
        self.changes: list[tuple[str, PeerId, TrustSource]] = []
        self.attempts = 0
        self.reads = 0

    async def _come_to(self, peer_id: PeerId | None) -> None:
        self.attempts += peer_id is not None
        self.reads += peer_id is None
        await trio.sleep(self.delay)
        if peer_id in self.refused:
            raise self.refused[peer_id]

    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        if source is not MANUAL:
            await self._come_to(endpoint.peer_id)
            self.changes.append(("add", endpoint.peer_id, source))
        await super().add_trusted_peer(endpoint, source)

    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        if source is not MANUAL:
            await self._come_to(peer_id)
            self.changes.append(("remove", peer_id, source))
        return await super().remove_trusted_peer(peer_id, source)

    async def trusted_peers(self) -> dict[Edge, PeerEndpoint]:
        await self._come_to(None)
        return await super().trusted_peers()


async def store(rig: Rig) -> Store:
    """A transport of the session "a"."""
    made = await rig.comms("a", kind=Store)
    assert isinstance(made, Store)
    return made


def edges(comms: MemoryComms) -> set[Edge]:
    """What the store shows, but for what was put there by hand."""
    return {edge for edge in comms._trust.snapshot() if edge[1] is not MANUAL}
