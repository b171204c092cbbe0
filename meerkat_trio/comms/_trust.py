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

    __slots__ = ("_edges",)

    _edges: dict[tuple[PeerId, TrustSource], PeerEndpoint] | None

    def __init__(self) -> None:
        # Thousands of idle sessions have no edge of their own; the dict comes with the first one.
        self._edges = None

    def add(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        """Add the edge, or replace what it says of the same peer."""
        if self._edges is None:
            self._edges = {}
        self._edges[endpoint.peer_id, source] = endpoint

    def remove(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove the edge; say whether it was there."""
        return self._edges is not None and self._edges.pop((peer_id, source), None) is not None

    def has_manual(self, peer_id: PeerId) -> bool:
        """Say whether the peer has an edge of source MANUAL; asked for every message, so one lookup."""
        return self._edges is not None and (peer_id, _MANUAL) in self._edges

    def snapshot(self) -> dict[tuple[PeerId, TrustSource], PeerEndpoint]:
        """Copy the edges."""
        return dict(self._edges or {})
