"""The transport of a member in the supervised demo: its trust store and its replies fail as they are told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from ..authority import EnvelopeKind
from ..comms import MemoryComms, MemoryNetwork

if TYPE_CHECKING:
    from .._messages import Envelope, Receipt, TrustSource
    from ..authority import PeerEndpoint, PeerId
    from ._mob_cast import Tally

__all__ = ["FaultyComms"]

_LANE: Final = 8  # small, so that senders wait often
_EVERY: Final = 3


class FaultyComms(MemoryComms):
    """A transport whose trust store fails every third call, and whose responses fail when it is told so."""

    __slots__ = ("_calls", "_is_faulty", "_missing", "_refused", "_sends_to_fail", "_tally")

    def __init__(
        self, network: MemoryNetwork, runtime_id: str, tally: Tally, *, faulty: bool, refused: frozenset[PeerId]
    ) -> None:
        """Join ``network``.

        Args:
            network: what this side sends and receives on.
            runtime_id: the logical id.
            tally: where faults and late edges are counted.
            faulty: whether the trust store fails.
            refused: peers whose edge can never be stored.
        """
        super().__init__(network, runtime_id, work_lane=_LANE, control_lane=_LANE)
        self._tally = tally
        self._is_faulty = faulty
        self._refused = refused
        self._calls = 0
        self._sends_to_fail = 0
        self._missing: set[tuple[PeerId, TrustSource]] = set()

    # --- the trust store ----------------------------------------------------------------------------

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._is_faulty = False
        self._sends_to_fail = 0

    async def lose(self, peer_id: PeerId, source: TrustSource) -> None:
        """Lose an edge behind everybody's back."""
        await super().remove_trusted_peer(peer_id, source)

    async def shows(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Say whether an edge is stored; never fails."""
        return (peer_id, source) in await super().trusted_peers()

    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        """Store an edge, or fail.

        **Cancellation:** cancelled, nothing was stored.
        """
        edge = (endpoint.peer_id, source)
        if endpoint.peer_id in self._refused:
            await trio.lowlevel.checkpoint()
            raise ValueError("this peer is never stored")
        try:
            await self._fail_at_times()
        except OSError:
            self._missing.add(edge)
            raise
        await super().add_trusted_peer(endpoint, source)
        if edge in self._missing:
            self._missing.remove(edge)
            self._tally.repaired["edge_stored_late"] += 1

    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove an edge, or fail.

        **Cancellation:** cancelled, nothing was removed.
        """
        await self._fail_at_times()
        return await super().remove_trusted_peer(peer_id, source)

    async def trusted_peers(self) -> dict[tuple[PeerId, TrustSource], PeerEndpoint]:
        """Return a snapshot of the trust store, or fail.

        **Cancellation:** nothing is lost.
        """
        await self._fail_at_times()
        return await super().trusted_peers()

    async def _fail_at_times(self) -> None:
        self._calls += 1
        if self._is_faulty and self._calls % _EVERY == 0:
            await trio.lowlevel.checkpoint()
            self._tally.faults["store_failures"] += 1
            raise OSError("the trust store does not answer")

    # --- replies ------------------------------------------------------------------------------------

    def fail_responses(self, count: int) -> None:
        """Let the next ``count`` attempts to send a response fail."""
        self._sends_to_fail = count

    def _fail_if_told(self, envelope: Envelope) -> None:
        if envelope.kind is EnvelopeKind.RESPONSE and self._sends_to_fail:
            self._sends_to_fail -= 1
            self._tally.faults["slow_replies"] += 1
            raise ConnectionError("the route is down")

    async def send(self, envelope: Envelope) -> Receipt:
        """Send an envelope, or fail.

        **Cancellation:** cancelled, the envelope was not sent; returned, it was accepted.
        """
        self._fail_if_told(envelope)
        return await super().send(envelope)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        """Send an envelope for which there is room, or fail."""
        self._fail_if_told(envelope)
        return super().send_nowait(envelope)
