"""The transport inside one process: `MemoryComms`, connected by a `MemoryNetwork`.

Bounded inboxes with back-pressure and nothing in between. It may not know a session.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any, NoReturn, final

import trio

from .._messages import Envelope, Receipt, TrustSource
from ..abc import ALL_LANES, Claim, CommsRuntime, CommsStatistics
from ..authority import DropReason, EnvelopeKind, PeerAddress, PeerEndpoint, PeerId, parse_peer_name
from ._inbox import Inbox
from ._trust import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..authority import CommsRuntimeId, CorrelationId, Lane, MessageId, ResponseStatus

__all__ = ["MemoryComms", "MemoryNetwork"]


@final
class MemoryNetwork:
    """What connects the `MemoryComms` of one process: who answers for which peer id.

    The first instance with a peer id is the route to it. Later ones stand by; one of them becomes the
    route when it takes the current one over, or when that one closes.
    """

    __slots__ = ("_instances", "_numbers", "routes")

    routes: dict[PeerId, Inbox]
    """Where envelopes for a peer go right now."""

    def __init__(self) -> None:
        # By peer id: the route first, then those that stand by, oldest first.
        self._instances: dict[PeerId, list[MemoryComms]] = {}
        self.routes = {}
        # One count for the whole network: a rebuilt instance must not use its predecessor's ids again.
        self._numbers = itertools.count(1)

    def join(self, comms: MemoryComms) -> None:
        """Make an instance the route to its peer id, or a stand-by."""
        self._instances.setdefault(comms.peer_id, []).append(comms)
        self._reroute(comms.peer_id)

    def leave(self, comms: MemoryComms) -> None:
        """Forget an instance; the oldest stand-by becomes the route."""
        instances = self._instances.get(comms.peer_id, [])
        if comms in instances:
            instances.remove(comms)
        self._reroute(comms.peer_id)

    def replace(self, previous: MemoryComms, successor: MemoryComms) -> None:
        """Leave one of two instances of one peer, in the better place; else ``previous`` goes."""
        if previous.peer_id != successor.peer_id:
            self.leave(previous)
            return
        instances = self._instances[previous.peer_id]
        place = min(instances.index(previous), instances.index(successor))
        instances.remove(previous)
        instances.remove(successor)
        instances.insert(place, successor)
        self._reroute(previous.peer_id)

    def _reroute(self, peer_id: PeerId) -> None:
        instances = self._instances.get(peer_id)
        if instances:
            self.routes[peer_id] = instances[0].inbox
        else:
            self._instances.pop(peer_id, None)
            self.routes.pop(peer_id, None)

    def next_message_id(self, sender: PeerId) -> MessageId:
        """Mint a message id that no other message of this network has."""
        return f"{sender[:8]}-{next(self._numbers)}"

    def __repr__(self) -> str:
        return f"<MemoryNetwork of {len(self.routes)} peers>"


class MemoryComms(CommsRuntime):
    """A comms runtime inside one process, on a `MemoryNetwork`.

    Two instances with the same ``runtime_id`` and no key of their own are the same peer, as a rebuilt
    transport has to be.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_network",
        "_peer_id",
        "_public_key",
        "_runtime_id",
        "_trust",
        "inbox",
    )

    inbox: Inbox
    """What this instance has accepted and not yet admitted; for the network alone."""

    def __init__(
        self,
        network: MemoryNetwork,
        runtime_id: CommsRuntimeId,
        *,
        public_key: bytes | None = None,
        work_lane: int = 64,
        control_lane: int = 64,
        dedupe_window: int = 1024,
    ) -> None:
        """Join ``network``.

        Args:
            network: what this instance sends and receives on.
            runtime_id: the logical id, the same for every rebuilt instance.
            public_key: 32 bytes; without it a key that follows from ``runtime_id``.
            work_lane: how many envelopes the work lane holds, from 1 up.
            control_lane: how many envelopes the control lane holds, from 1 up.
            dedupe_window: of how many envelopes (sender, id) is remembered, from 1 up.

        Raises:
            ValueError: a bound or the key is out of range, or ``runtime_id`` cannot name a peer.
            TypeError: ``network`` is no `MemoryNetwork`.
        """
        if not isinstance(network, MemoryNetwork):
            raise TypeError(f"network: a MemoryNetwork is needed, not {network!r}")
        try:
            parse_peer_name(runtime_id)
        except ValueError as error:
            raise ValueError(f"runtime_id: {runtime_id!r} cannot name a peer ({error})") from None
        key = hashlib.sha256(runtime_id.encode()).digest() if public_key is None else public_key
        self._peer_id = PeerId.of_key(key)
        self._address = PeerAddress(f"inproc://{runtime_id}")
        self.inbox = Inbox(work_lane=work_lane, control_lane=control_lane, dedupe_window=dedupe_window)
        self._network = network
        self._runtime_id = runtime_id
        self._public_key = key
        self._trust = TrustStore()
        network.join(self)

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
        """``inproc://`` and the logical id."""
        return self._address

    def endpoint(self, name: str | None = None) -> PeerEndpoint:
        """Return this side as others trust it; ``name`` is for display, by default the logical id."""
        return PeerEndpoint(
            name=self._runtime_id if name is None else name,
            peer_id=self._peer_id,
            address=self._address,
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
            id=self._network.next_message_id(self._peer_id) if id is None else id,
            sender=self._peer_id,
            recipient=recipient,
            kind=kind,
            body=body,
            intent=intent,
            correlation=correlation,
            status=status,
        )

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
        return self.inbox.claim(take=take) if type(self).claim is MemoryComms.claim else self.claim()

    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        """Claim an envelope that is there already; see `CommsRuntime.claim_nowait`."""
        return self.inbox.claim_nowait(lanes)

    def claim_ready(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim | None:
        """Claim an envelope that is there already, or return None; see `CommsRuntime.claim_ready`."""
        return self.inbox.claim_ready(lanes)

    async def send(self, envelope: Envelope) -> Receipt:
        """Send an envelope, waiting while there is no room; see `CommsRuntime.send`.

        An envelope that already waits for room at its recipient stays there when this side closes.

        **Cancellation:** cancelled, the envelope was not sent; returned, it was accepted.
        """
        if envelope.sender != self._peer_id or self.inbox.closed is not None:
            self._refuse_send(envelope)
        inbox = self._network.routes.get(envelope.recipient)
        if inbox is None:
            await trio.lowlevel.checkpoint()
            return Receipt.dropped(DropReason.CLOSED)
        return await inbox.put(envelope)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        """Send an envelope for which there is room; see `CommsRuntime.send_nowait`."""
        if envelope.sender != self._peer_id or self.inbox.closed is not None:
            self._refuse_send(envelope)
        inbox = self._network.routes.get(envelope.recipient)
        return Receipt.dropped(DropReason.CLOSED) if inbox is None else inbox.put_nowait(envelope)

    def _refuse_send(self, envelope: Envelope) -> NoReturn:
        if envelope.sender != self._peer_id:
            raise ValueError(f"sender: {envelope.sender} is not this side ({self._peer_id})")
        raise trio.ClosedResourceError("send: this comms runtime is closed or was taken over")

    def take_over(self, previous: CommsRuntime) -> None:
        """Move everything ``previous`` has accepted into this runtime; see `CommsRuntime.take_over`.

        The route moves too if both have the same peer id; else the previous peer id has no route any more.

        Raises:
            TypeError: ``previous`` is no `MemoryComms`; nothing has changed.
            ValueError: ``previous`` is on another network; nothing has changed.
            trio.ClosedResourceError: this runtime is closed; nothing has changed.
        """
        if not isinstance(previous, MemoryComms):
            raise TypeError(f"take_over: a MemoryComms cannot take over a {type(previous).__name__}")
        if self.inbox.closed is not None:
            raise trio.ClosedResourceError("take_over: this comms runtime is closed or was taken over")
        if previous is self or previous.inbox.closed is not None:
            return
        if previous._network is not self._network:  # noqa: SLF001 - of our own class
            raise ValueError("take_over: the previous comms runtime is on another MemoryNetwork")
        self._network.replace(previous, self)
        self.inbox.take_over(previous.inbox)

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

    async def aclose(self) -> None:
        """Leave the network and drop what was accepted and not admitted; see `CommsRuntime.aclose`.

        **Cancellation:** closed in any case.
        """
        self._network.leave(self)
        self.inbox.close()
        await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<MemoryComms {self._runtime_id!r}{' closed' if self.inbox.closed is not None else ''}>"
