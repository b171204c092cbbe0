"""The transport inside one process: `MemoryComms`, connected by a `MemoryNetwork`.

Bounded inboxes with back-pressure and nothing in between. It may not know a session.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, final

import trio

from .._messages import Receipt
from ..authority import DropReason, PeerAddress
from ._inbox import Inbox
from ._inbox_comms import InboxComms, require_runtime_id

if TYPE_CHECKING:
    from .._messages import Envelope
    from ..abc import CommsRuntime
    from ..authority import CommsRuntimeId, MessageId, PeerId

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


class MemoryComms(InboxComms):
    """A comms runtime inside one process, on a `MemoryNetwork`.

    Two instances with the same ``runtime_id`` and no key of their own are the same peer, as a rebuilt
    transport has to be.
    """

    __slots__ = ()

    _network: MemoryNetwork

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
        require_runtime_id(runtime_id)
        key = hashlib.sha256(runtime_id.encode()).digest() if public_key is None else public_key
        inbox = Inbox(work_lane=work_lane, control_lane=control_lane, dedupe_window=dedupe_window)
        super().__init__(runtime_id, key, PeerAddress(f"inproc://{runtime_id}"), inbox)
        self._network = network
        network.join(self)

    def _next_message_id(self) -> MessageId:
        return self._network.next_message_id(self._peer_id)

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

    def take_over(self, previous: CommsRuntime) -> None:
        """Move everything ``previous`` has accepted into this runtime; see `CommsRuntime.take_over`.

        The route moves too if both have the same peer id; else the previous peer id has no route any more.

        Raises:
            TypeError: ``previous`` is no `MemoryComms`; nothing has changed.
            ValueError: ``previous`` is on another network; nothing has changed.
            trio.ClosedResourceError: this runtime is closed; nothing has changed.
        """
        taken = self._to_be_taken_over(previous, MemoryComms)
        if taken is not None:
            self._network.replace(taken, self)
            self.inbox.take_over(taken.inbox)

    async def aclose(self) -> None:
        """Leave the network and drop what was accepted and not admitted; see `CommsRuntime.aclose`.

        **Cancellation:** closed in any case.
        """
        self._network.leave(self)
        self.inbox.close()
        await trio.lowlevel.checkpoint()
