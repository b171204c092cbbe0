"""A comms runtime over Redis, as sessions know it: an inbox and a trust store, as every other has.

Its mailbox has read what is in the inbox, its post sends what it sends; both outlive it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from .._messages import Receipt, TrustSource
from ..abc import CommsStatistics
from ..authority import DropReason
from ._inbox_comms import InboxComms

if TYPE_CHECKING:
    from .._messages import Envelope
    from ..abc import CommsRuntime
    from ..authority import CommsRuntimeId, MessageId, PeerAddress, PeerEndpoint, PeerId
    from ._inbox import Inbox
    from ._redis_mailbox import Mailbox
    from ._redis_outgoing import Post, Route

__all__ = ["RedisComms"]

_CLOSED: Final = DropReason.CLOSED


class Network(Protocol):
    """What the comms runtimes of one process share."""

    def next_message_id(self) -> MessageId:
        """Mint an id that no other message has, of this or another process."""

    def leave(self, comms: RedisComms, mailbox: Mailbox) -> None:
        """Forget an instance; after the last one its mailbox is closed, once its inbox is."""

    def forget(self, comms: RedisComms) -> None:
        """Forget an instance that was taken over."""

    def drop_senders_to(self, mailbox: Mailbox) -> None:
        """Tell the senders of this process that nobody is here for what has not come here yet."""

    async def wait_closed(self, mailbox: Mailbox) -> None:
        """Wait until the answers that are known are written, and the rest is given back, for a while."""


class RedisComms(InboxComms):
    """A comms runtime over Redis; made by `RedisNetwork.open`.

    When `send` returns, the envelope is in the recipient's stream: it waits there until somebody serves that peer, on
    whatever host, and it outlives this process. `send_nowait` returns when it is accepted on this side; the server has
    it soon after. It is admitted once; the receipt is DROPPED(EXPIRED) if no answer comes in the acceptance window.
    """

    __slots__ = ("_carried", "_mailbox", "_post", "is_fenced")

    _network: Network
    is_fenced: bool
    """Whether it was closed because its lease was lost."""

    def __init__(  # noqa: PLR0917 - for `RedisNetwork.open` alone
        self,
        network: Network,
        mailbox: Mailbox,
        post: Post,
        runtime_id: CommsRuntimeId,
        address: PeerAddress,
        inbox: Inbox,
    ) -> None:
        super().__init__(runtime_id, mailbox.identity.public_key, address, inbox)
        self._network = network
        self._mailbox = mailbox
        self._post = post
        self._carried: dict[PeerId, PeerEndpoint] = {}
        self.is_fenced = False

    def _next_message_id(self) -> MessageId:
        return self._network.next_message_id()

    def trust(self, endpoint: PeerEndpoint) -> None:
        """Trust a peer by hand: `add_trusted_peer` with MANUAL, at once."""
        self._trust.add(endpoint, TrustSource.MANUAL)

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return what is known of a peer, if it is trusted here, or was by an instance that this one took over."""
        return self._trust.endpoint_of(peer_id) or self._carried.get(peer_id)

    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove the edge (``peer_id``, ``source``); say whether it was there.

        **Cancellation:** cancelled, nothing was removed.
        """
        removed = await super().remove_trusted_peer(peer_id, source)
        self._carried.pop(peer_id, None)
        return removed

    def _route(self, envelope: Envelope) -> Route | None:
        """Return the way to a peer that is trusted, or has sent something; else None."""
        if envelope.sender != self._peer_id or self.inbox.closed is not None:
            self._refuse_send(envelope)
        peer_id = envelope.recipient
        route = self._post.routes.get(peer_id)
        endpoint = self._mailbox.endpoint_of(peer_id)
        key = self._mailbox.known.get(peer_id) if endpoint is None else endpoint.signing_key
        if key is None:
            return None
        return route or self._post.route(peer_id, key)

    async def send(self, envelope: Envelope) -> Receipt:
        """Send an envelope, waiting while there is no room, or no server; see `CommsRuntime.send`.

        To a peer that is neither trusted nor has sent anything: DROPPED(CLOSED). What the wire cannot carry:
        DROPPED(MALFORMED) or DROPPED(OVERSIZE).

        **Cancellation:** cancelled, the envelope was not sent; returned, it was accepted. Cancelled while it is not
        known whether the server has it, this returns: the envelope is accepted, and is sent until that is known.
        """
        route = self._route(envelope)
        letter = None if route is None else route.prepare(envelope)
        if route is None or letter is None or letter.receipt.reason is not None:
            await trio.lowlevel.checkpoint()
            return Receipt.dropped(_CLOSED) if letter is None else letter.receipt
        return await route.ways[envelope.lane].send(letter)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        """Send an envelope for which there is room on this side; see `CommsRuntime.send_nowait`."""
        route = self._route(envelope)
        if route is None:
            return Receipt.dropped(_CLOSED)
        letter = route.prepare(envelope)
        return letter.receipt if letter.receipt.reason is not None else route.ways[envelope.lane].send_nowait(letter)

    def take_over(self, previous: CommsRuntime) -> None:
        """Move everything ``previous`` has accepted into this runtime; see `CommsRuntime.take_over`.

        Nothing of it is asked of the server. With another identity, what was read for the previous one and is in its
        inbox moves, and is answered as its own.

        Raises:
            TypeError: ``previous`` is no `RedisComms`; nothing has changed.
            ValueError: ``previous`` is on another network; nothing has changed.
            trio.ClosedResourceError: this runtime is closed; nothing has changed.
        """
        taken = self._to_be_taken_over(previous, RedisComms)
        if taken is None:
            return
        mailbox = taken._mailbox  # noqa: SLF001 - of our own class
        self.inbox.take_over(taken.inbox)
        if mailbox is self._mailbox:
            # Until the session has shown its trust here, its peers are not strangers.
            self._carried |= {**taken._carried, **taken._trust.by_peer()}  # noqa: SLF001
            mailbox.replace(taken, self)
            self._network.forget(taken)
        else:
            self._network.leave(taken, mailbox)
            self._network.drop_senders_to(mailbox)

    def statistics(self) -> CommsStatistics:
        """Count what the inbox holds, and the tasks of this side that wait for room or for the server."""
        found = self.inbox.statistics()
        return CommsStatistics(
            control_waiting=found.control_waiting,
            work_waiting=found.work_waiting,
            parked_senders=found.parked_senders + self._post.parked_senders,
            claim_open=found.claim_open,
        )

    async def aclose(self) -> None:
        """Close; see `CommsRuntime.aclose`.

        With the last instance of an identity the answers that are known are written, and what came from other hosts and
        was not admitted is given back to its stream, for whoever serves this peer next, which is waited for, for at
        most ``linger`` seconds. What came from this network is dropped as CLOSED.

        **Cancellation:** closed in any case; the rest is then done in the background, while the network lives.
        """
        self.shut()
        await self._network.wait_closed(self._mailbox)

    def shut(self) -> None:
        """Close the inbox, at once; `aclose` waits for answers too."""
        was_open = self.inbox.closed is None
        self._network.leave(self, self._mailbox)
        self.inbox.close()
        if was_open and not self._mailbox.instances and not self._mailbox.is_fenced:
            self._network.drop_senders_to(self._mailbox)

    def be_fenced(self) -> None:
        """Close: the lease is lost."""
        self.is_fenced = True
        self.shut()
