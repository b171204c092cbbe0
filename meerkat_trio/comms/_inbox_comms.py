"""What the transports of this package share: who they are, an inbox that is claimed from, a trust store.

How envelopes come and go is each one's own business.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import trio

from .._messages import Envelope, TrustSource
from ..abc import ALL_LANES, Claim, CommsRuntime, CommsStatistics
from ..authority import EnvelopeKind, PeerAddress, PeerEndpoint, PeerId, parse_peer_name
from ._inbox import Inbox
from ._trust import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..authority import CommsRuntimeId, CorrelationId, Lane, MessageId, ResponseStatus

__all__ = ["InboxComms", "require_runtime_id"]


def require_runtime_id(runtime_id: CommsRuntimeId) -> None:
    """Refuse a logical id that cannot name a peer.

    Raises:
        ValueError: it cannot.
    """
    try:
        parse_peer_name(runtime_id)
    except ValueError as error:
        raise ValueError(f"runtime_id: {runtime_id!r} cannot name a peer ({error})") from None


_Comms = TypeVar("_Comms", bound="InboxComms")


class InboxComms(CommsRuntime):
    """A comms runtime around an `Inbox` and a `TrustStore`, on a network that it shares with its peers."""

    __slots__ = ("__weakref__", "_address", "_network", "_peer_id", "_public_key", "_runtime_id", "_trust", "inbox")

    inbox: Inbox
    """What this instance has accepted and not yet admitted; for those who connect it alone."""
    _network: object

    def __init__(self, runtime_id: CommsRuntimeId, public_key: bytes, address: PeerAddress, inbox: Inbox) -> None:
        self._peer_id = PeerId.of_key(public_key)
        self._address = address
        self.inbox = inbox
        self._runtime_id = runtime_id
        self._public_key = public_key
        self._trust = TrustStore()

    @property
    def runtime_id(self) -> CommsRuntimeId:
        """The logical id."""
        return self._runtime_id

    @property
    def peer_id(self) -> PeerId:
        """The id of `public_key`."""
        return self._peer_id

    @property
    def public_key(self) -> bytes:
        """Who this side is, 32 bytes."""
        return self._public_key

    @property
    def advertised_address(self) -> PeerAddress:
        """Where peers reach this side."""
        return self._address

    def endpoint(self, name: str | None = None) -> PeerEndpoint:
        """Return this side as others trust it; ``name`` is for display, by default the logical id."""
        return PeerEndpoint(
            name=self._runtime_id if name is None else name,
            peer_id=self._peer_id,
            address=self.advertised_address,
            signing_key=self._public_key,
        )

    def envelope(
        self,
        recipient: PeerId,
        body: Any = None,
        *,
        id: MessageId | None = None,  # noqa: A002 - the field's name
        kind: EnvelopeKind = EnvelopeKind.MESSAGE,
        intent: str | None = None,
        correlation: CorrelationId | None = None,
        status: ResponseStatus | None = None,
    ) -> Envelope:
        """Make an envelope from this side, with a new id unless one is given.

        Raises:
            ValueError: the fields do not fit together.
        """
        return Envelope(
            id=self._next_message_id() if id is None else id,
            sender=self._peer_id,
            recipient=recipient,
            kind=kind,
            body=body,
            intent=intent,
            correlation=correlation,
            status=status,
        )

    @abstractmethod
    def _next_message_id(self) -> MessageId:
        """Mint an id that no other message of this side has."""

    # `claim` hands out the inbox's own coroutine: one frame less for each drain that is parked in it.
    def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Coroutine[Any, Any, Claim]:
        """Wait for an envelope of one of ``lanes`` and claim it; see `CommsRuntime.claim`.

        **Cancellation:** nothing is lost.
        """
        return self.inbox.claim(lanes)

    def claim_untaken(self, take: Callable[[Envelope], bool]) -> Coroutine[Any, Any, Claim]:
        """Wait for an envelope that ``take`` leaves, and claim it; see `CommsRuntime.claim_untaken`.

        **Cancellation:** nothing is lost.
        """
        # A subclass that claims in a way of its own has its way.
        return self.inbox.claim(take=take) if type(self).claim is InboxComms.claim else self.claim()

    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        """Claim an envelope that is there already; see `CommsRuntime.claim_nowait`."""
        return self.inbox.claim_nowait(lanes)

    def claim_ready(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim | None:
        """Claim an envelope that is there already, or return None; see `CommsRuntime.claim_ready`."""
        return self.inbox.claim_ready(lanes)

    def _refuse_send(self, envelope: Envelope) -> NoReturn:
        if envelope.sender != self._peer_id:
            raise ValueError(f"sender: {envelope.sender} is not this side ({self._peer_id})")
        raise trio.ClosedResourceError("send: this comms runtime is closed or was taken over")

    def _to_be_taken_over(self, previous: CommsRuntime, kind: type[_Comms]) -> _Comms | None:
        """Return an instance whose inbox this one can take over; None if there is nothing to take.

        Raises:
            TypeError: ``previous`` is of another class.
            ValueError: ``previous`` is on another network.
            trio.ClosedResourceError: this runtime is closed.
        """
        if not isinstance(previous, kind):
            raise TypeError(f"take_over: a {kind.__name__} cannot take over a {type(previous).__name__}")
        if self.inbox.closed is not None:
            raise trio.ClosedResourceError("take_over: this comms runtime is closed or was taken over")
        if previous is self or previous.inbox.closed is not None:
            return None
        if previous._network is not self._network:  # noqa: SLF001 - of our own class
            raise ValueError(f"take_over: the previous comms runtime is on another {type(self._network).__name__}")
        return previous

    def is_manually_trusted(self, peer_id: PeerId) -> bool:
        """Say whether ``peer_id`` has an edge of source MANUAL."""
        return self._trust.has_manual(peer_id)

    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        """Add or replace the edge (``endpoint.peer_id``, ``source``).

        **Cancellation:** cancelled, nothing was stored.
        """
        await trio.lowlevel.checkpoint()
        self._trust.add(endpoint, source)

    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove the edge (``peer_id``, ``source``); say whether it was there.

        **Cancellation:** cancelled, nothing was removed.
        """
        await trio.lowlevel.checkpoint()
        return self._trust.remove(PeerId(peer_id), source)

    async def trusted_peers(self) -> dict[tuple[PeerId, TrustSource], PeerEndpoint]:
        """Return a snapshot of the trust store.

        **Cancellation:** nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        return self._trust.snapshot()

    def statistics(self) -> CommsStatistics:
        """Count what the inbox holds."""
        return self.inbox.statistics()

    def __repr__(self) -> str:
        closed = " closed" if self.inbox.closed is not None else ""
        return f"<{type(self).__name__} {self._runtime_id!r}{closed}>"
