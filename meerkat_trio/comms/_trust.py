"""The trust store of one comms runtime: edges by peer and source.

It stores what it is told; who ought to be trusted is decided elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .._messages import TrustSource

if TYPE_CHECKING:
    from ..authority import PeerEndpoint, PeerId

__all__ = ["TrustStore"]

_MANUAL = TrustSource.MANUAL


@final
class TrustStore:
    """Trust edges keyed by (peer id, source): no source can touch another's edge (SPEC 8)."""

    __slots__ = ("_edges", "_manual")

    _edges: dict[tuple[PeerId, TrustSource], PeerEndpoint] | None
    _manual: set[PeerId] | None
    """Who has an edge of source MANUAL: asked for every message."""

    def __init__(self) -> None:
        # Thousands of idle sessions have no edge of their own; dict and set come with the first one.
        self._edges = None
        self._manual = None

    def add(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        """Add the edge, or replace what it says of the same peer."""
        if self._edges is None:
            self._edges = {}
        self._edges[endpoint.peer_id, source] = endpoint
        if source is _MANUAL:
            if self._manual is None:
                self._manual = set()
            self._manual.add(endpoint.peer_id)

    def remove(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove the edge; say whether it was there."""
        if source is _MANUAL and self._manual is not None:
            self._manual.discard(peer_id)
        return self._edges is not None and self._edges.pop((peer_id, source), None) is not None

    def has_manual(self, peer_id: PeerId) -> bool:
        """Say whether the peer has an edge of source MANUAL."""
        return self._manual is not None and peer_id in self._manual

    def snapshot(self) -> dict[tuple[PeerId, TrustSource], PeerEndpoint]:
        """Copy the edges."""
        return dict(self._edges or {})

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return what one of the edges says of a peer, or None if it has none."""
        if self._edges is None:
            return None
        return next((found for source in TrustSource if (found := self._edges.get((peer_id, source)))), None)

    def by_peer(self) -> dict[PeerId, PeerEndpoint]:
        """Return every peer that has an edge."""
        return {peer_id: endpoint for (peer_id, _), endpoint in (self._edges or {}).items()}
