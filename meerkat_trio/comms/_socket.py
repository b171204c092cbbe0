"""The transport between processes: `SocketComms`, over TCP and Unix sockets, on a `SocketNetwork`.

A network has the tasks; a comms runtime has an inbox and a trust store, as every other. So a session that is bound
to another instance, or cancelled, leaves the connections as they are.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from typing import TYPE_CHECKING, Final, Self, final

import trio

from .._messages import Receipt, TrustSource
from ..abc import CommsStatistics
from ..authority import DropReason, PeerAddress, PeerEndpoint
from ._addresses import listen as listen_at
from ._arrivals import Arrivals
from ._crowd import Crowd
from ._identity import Identity
from ._inbox import Inbox
from ._inbox_comms import InboxComms, require_runtime_id
from ._limits import SocketLimits
from ._station import Station

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .._messages import Envelope
    from ..abc import CommsRuntime
    from ..authority import CommsRuntimeId, MessageId, PeerId
    from ._addresses import Listening
    from ._connection import Connection

__all__ = ["SocketComms", "SocketNetwork"]

_HOUSEKEEPING: Final = 1.0
"""Seconds between two looks at the deadlines of connections."""
_CROWDED: Final = 4
"""From so many unproven connections up others are taken in with pauses: those that are in are served meanwhile."""


def _require_endpoints(endpoints: Iterable[PeerEndpoint]) -> list[PeerEndpoint]:
    found = list(endpoints)
    for each in found:
        if not isinstance(each, PeerEndpoint):
            raise TypeError(f"trusted: a PeerEndpoint is needed, not {each!r}")
    return found


@final
class SocketNetwork:
    """What the `SocketComms` of one process share: tasks, connections, bounds. Use it with ``async with``.

    Leaving closes what is open: answers that are owed are written, and goodbye is said, for at most ``linger`` seconds.
    Leaving by an exception or cancelled, everything is cut at once.
    """

    def __init__(self, limits: SocketLimits | None = None, *, wall_clock: Callable[[], float] = time.time) -> None:
        """Make a network; it does nothing before it is entered.

        Args:
            limits: the bounds.
            wall_clock: seconds since 1970, UTC. A peer's clock may be up to 60 s ahead of ours, or 240 s behind
                with a minute left for the way.
        """
        self.limits: SocketLimits = SocketLimits() if limits is None else limits
        self._wall_clock = wall_clock
        self._opening: AbstractAsyncContextManager[trio.Nursery]
        self.nursery: trio.Nursery
        self._is_entered = False
        self._stations: dict[PeerId, Station] = {}
        # With those that are leaving, whose identity may be open again.
        self._all_stations: set[Station] = set()
        # These outlive stations: what an identity has admitted it does not admit again when it is opened anew.
        self._arrivals: dict[PeerId, Arrivals] = {}
        self._open: set[SocketComms] = set()
        self._unproven = Crowd(self.limits.max_unproven)
        self._strangers = Crowd(self.limits.max_strangers)
        self._trusted: set[Connection] = set()
        self._prefix = secrets.token_hex(6)
        self._numbers = 0

    async def __aenter__(self) -> Self:
        """Start.

        **Cancellation:** nothing is open.
        """
        self._opening = trio.open_nursery()
        self.nursery = await self._opening.__aenter__()
        self.nursery.start_soon(self._keep_house)
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Close what is open.

        **Cancellation:** everything is cut at once.
        """
        try:
            if exc is None:
                while self._open:  # also what others open meanwhile
                    async with trio.open_nursery() as closing:
                        for comms in list(self._open):
                            closing.start_soon(comms.aclose)
        finally:
            self._is_entered = False
            self.nursery.cancel_scope.cancel()
            for comms in list(self._open):
                comms.shut()
            for station in list(self._all_stations):
                station.give_up()
            # Without the body's exception: it leaves as it is, in no group.
            await self._opening.__aexit__(None, None, None)  # noqa: ASYNC102 - all in it is cancelled

    async def open(
        self,
        identity: Identity,
        *,
        runtime_id: CommsRuntimeId,
        listen: str | None = None,
        trusted: Iterable[PeerEndpoint] = (),
        patience: float = 30.0,
        advertise: str | None = None,
        work_lane: int = 64,
        control_lane: int = 64,
        kind: type[SocketComms] | None = None,
    ) -> SocketComms:
        """Make a comms runtime, and listen.

        Several with one identity are the same peer, as a rebuilt transport has to be: the first is the one to which
        envelopes go, another stands by until it takes that one over, or until that one closes.

        Args:
            identity: who it is.
            runtime_id: the logical id, the same for every rebuilt instance.
            listen: ``tcp://host:port`` (port 0 takes a free one) or ``uds:///path``. None: peers are connected to only,
                or reach an instance that listens already. An address at which another instance of this identity
                listens is shared with it.
            trusted: who is trusted by hand.
            patience: for how many seconds a peer that is gone is looked for, before what waits for it is dropped as
                CLOSED; from 0 up, `math.inf` for ever.
            advertise: the address that peers are told, by default where it listens.
            work_lane: how many envelopes the work lane holds, from 1 up.
            control_lane: how many envelopes the control lane holds, from 1 up.
            kind: the class to make, for those who derive from `SocketComms`.

        Raises:
            ValueError: an argument is out of range.
            OSError: it cannot listen there.
            RuntimeError: the network is not entered.

        **Cancellation:** cancelled, nothing was opened.
        """
        require_runtime_id(runtime_id)
        if not isinstance(identity, Identity):
            raise TypeError(f"identity: an Identity is needed, not {identity!r}")
        if math.isnan(patience) or patience < 0:
            raise ValueError(f"patience: seconds from 0 up are needed, not {patience!r}")
        if not self._is_entered:
            raise RuntimeError("open: enter the network first, with `async with`")
        # The window of the station knows every twin; the inbox needs none of its own.
        inbox = Inbox(work_lane=work_lane, control_lane=control_lane, dedupe_window=1)
        told = None if advertise is None else PeerAddress(advertise)
        endpoints = _require_endpoints(trusted)
        listening = await self._listen(identity, listen)
        station = self._station(identity)
        try:
            comms = (kind or SocketComms)(self, station, runtime_id, inbox, patience, told)
            for endpoint in endpoints:
                comms.trust(endpoint)
        except BaseException:
            if listening is not None:
                listening.close()
            station.say_goodbye()  # if it is there for this alone
            raise
        station.join(comms)
        self._open.add(comms)
        address = listen if listening is None else listening.address
        if listening is not None:
            station.add_listener(listening)
        if address is not None:
            comms.listens_at.add(address)
        return comms

    async def _listen(self, identity: Identity, address: str | None) -> Listening | None:
        """Listen at an address, unless another instance of this identity does."""

        def is_shared() -> bool:
            station = self._stations.get(identity.peer_id)
            return station is not None and address in station.listening

        if address is None or is_shared():
            await trio.lowlevel.checkpoint()
        # Asked again: who listens there may have closed meanwhile.
        listening = None if address is None or is_shared() else await listen_at(address)
        if not self._is_entered:
            if listening is not None:
                listening.close()
            raise RuntimeError("open: the network has ended")
        return listening

    def _station(self, identity: Identity) -> Station:
        """Return the station of an identity; who leaves is followed by another."""
        former = self._stations.get(identity.peer_id)
        if former is not None and not former.is_leaving:
            return former
        arrivals = self._arrivals.setdefault(identity.peer_id, Arrivals(self.limits.remembered))
        formers = tuple(each.settled for each in self._stations_of(identity.peer_id))
        station = self._stations[identity.peer_id] = Station(self, identity, arrivals, formers)
        self._all_stations.add(station)
        return station

    def _stations_of(self, peer_id: PeerId) -> list[Station]:
        """Return the station of an identity, and those that are leaving."""
        return [each for each in self._all_stations if each.identity.peer_id == peer_id]

    # -- what stations ask

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""
        return int(self._wall_clock() * 1000)

    def jitter(self) -> float:
        """Return a random number between 0 and 1."""
        return random.random()  # noqa: S311 - it only keeps peers apart

    def spawn(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task that lives as long as the network; after its end nothing is started."""
        if self._is_entered:
            self.nursery.start_soon(call, *arguments)

    def next_message_id(self) -> MessageId:
        """Mint an id that no other message has, of this or another process."""
        self._numbers += 1
        return f"{self._prefix}-{self._numbers}"

    def count_unproven(self, connection: Connection) -> None:
        """Count a connection whose other side has not proved who it is; it may cost another its place."""
        self._unproven.add(connection)

    @property
    def is_crowded(self) -> bool:
        """Whether many connections have not proved who their other side is."""
        return len(self._unproven) >= _CROWDED

    def admits(self, connection: Connection, *, trusted: bool) -> bool:
        """Count a connection whose other side has proved who it is, and make room for it."""
        self._unproven.discard(connection)
        if not trusted:
            self._strangers.add(connection)
            return True
        if len(self._trusted) >= self.limits.max_connections:
            return False
        self._trusted.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection."""
        self._unproven.discard(connection)
        self._strangers.discard(connection)
        self._trusted.discard(connection)

    def leave(self, station: Station) -> None:
        """Forget a station that has nothing left to do."""
        self._all_stations.discard(station)
        if self._stations.get(station.identity.peer_id) is station:
            del self._stations[station.identity.peer_id]

    def has_closed(self, comms: SocketComms) -> None:
        """Forget a comms runtime."""
        self._open.discard(comms)

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(_HOUSEKEEPING)
            now = trio.current_time()
            for station in list(self._all_stations):
                station.housekeeping(now)
            for peer_id, arrivals in list(self._arrivals.items()):
                arrivals.expire(self.now())
                if not arrivals and not self._stations_of(peer_id):
                    del self._arrivals[peer_id]

    def __repr__(self) -> str:
        connections = len(self._trusted) + len(self._strangers)
        return f"<SocketNetwork of {len(self._stations)} identities, {connections} connections>"


class SocketComms(InboxComms):
    """A comms runtime over TCP or Unix sockets; made by `SocketNetwork.open`.

    A receipt is QUEUED once the envelope is accepted on this side. From then on it is sent, and sent again over other
    connections, until the other side answers: at least once on the wire, once at admission (SPEC 9). It is
    DROPPED(CLOSED) if the peer was not found for ``patience`` seconds, and DROPPED(EXPIRED) if it was not taken within
    its 300 s; neither says that the peer has never had it.
    """

    __slots__ = ("_carried", "_station", "_told", "listens_at", "patience")

    _network: SocketNetwork
    listens_at: set[str]
    """The addresses of this instance's listeners; those of an instance it took over are among them."""
    patience: float
    """For how many seconds a peer that is gone is looked for."""

    def __init__(  # noqa: PLR0917 - for `SocketNetwork.open` alone
        self,
        network: SocketNetwork,
        station: Station,
        runtime_id: CommsRuntimeId,
        inbox: Inbox,
        patience: float,
        told: PeerAddress | None,
    ) -> None:
        nowhere = PeerAddress(f"inproc://{runtime_id}")
        super().__init__(runtime_id, station.identity.public_key, nowhere, inbox)
        self._network = network
        self._station = station
        self._told = told
        self._carried: dict[PeerId, PeerEndpoint] = {}
        self.patience = patience
        self.listens_at = set()

    def _next_message_id(self) -> MessageId:
        return self._network.next_message_id()

    @property
    def advertised_address(self) -> PeerAddress:
        """Where peers reach this side: where it listens, unless something else was given.

        Who listens nowhere is reached over its own connections alone, and advertises ``inproc://`` and the logical id.
        """
        if self._told is not None:
            return self._told
        return next((PeerAddress(each) for each in self._station.listening), self._address)

    def trust(self, endpoint: PeerEndpoint) -> None:
        """Trust a peer by hand: `add_trusted_peer` with MANUAL, at once."""
        self._trust.add(endpoint, TrustSource.MANUAL)

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return where a peer is reached, if it is trusted here, or was by an instance that this one took over."""
        return self._trust.endpoint_of(peer_id) or self._carried.get(peer_id)

    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove the edge (``peer_id``, ``source``); say whether it was there.

        **Cancellation:** cancelled, nothing was removed.
        """
        removed = await super().remove_trusted_peer(peer_id, source)
        self._carried.pop(peer_id, None)
        return removed

    async def listen(self, address: str) -> PeerAddress:
        """Listen at one more address; return it with the real port.

        Raises:
            ValueError, OSError: as for `SocketNetwork.open`.
            trio.ClosedResourceError: this runtime is closed.

        **Cancellation:** nobody listens there.
        """
        listening = await listen_at(address)
        if self.inbox.closed is not None:
            listening.close()
            raise trio.ClosedResourceError("listen: this comms runtime is closed or was taken over")
        self._station.add_listener(listening)
        self.listens_at.add(listening.address)
        return listening.address

    def stop_listening(self, address: str) -> None:
        """Close the listener at an address, unless another instance shares it; connections that were made stay.

        Raises:
            ValueError: this instance does not listen there.
        """
        if address not in self.listens_at:
            raise ValueError(f"address: this comms runtime does not listen at {address}")
        self.listens_at.discard(address)
        if not any(address in each.listens_at for each in self._station.instances):
            self._station.stop_listening(address)

    async def send(self, envelope: Envelope) -> Receipt:
        """Send an envelope, waiting while there is no room; see `CommsRuntime.send`.

        To a peer that is neither trusted nor connected: DROPPED(CLOSED). What the wire cannot carry: DROPPED(MALFORMED)
        or DROPPED(OVERSIZE).

        **Cancellation:** cancelled, the envelope was not sent; returned, it was accepted.
        """
        if envelope.sender != self._peer_id or self.inbox.closed is not None:
            self._refuse_send(envelope)
        correspondent = self._station.correspondent_for(envelope.recipient)
        if correspondent is None:
            await trio.lowlevel.checkpoint()
            return Receipt.dropped(DropReason.CLOSED)
        return await correspondent.send(envelope)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        """Send an envelope for which there is room; see `CommsRuntime.send_nowait`."""
        if envelope.sender != self._peer_id or self.inbox.closed is not None:
            self._refuse_send(envelope)
        correspondent = self._station.correspondent_for(envelope.recipient)
        return Receipt.dropped(DropReason.CLOSED) if correspondent is None else correspondent.send_nowait(envelope)

    def take_over(self, previous: CommsRuntime) -> None:
        """Move everything ``previous`` has accepted into this runtime; see `CommsRuntime.take_over`.

        With the same identity its listeners and its connections move too, and what is on its way to peers.

        Raises:
            TypeError: ``previous`` is no `SocketComms`; nothing has changed.
            ValueError: ``previous`` is on another network; nothing has changed.
            trio.ClosedResourceError: this runtime is closed; nothing has changed.
        """
        taken = self._to_be_taken_over(previous, SocketComms)
        if taken is None:
            return
        station = taken._station  # noqa: SLF001 - of our own class
        self.inbox.take_over(taken.inbox)
        if station is self._station:
            station.replace(taken, self)
            self.listens_at |= taken.listens_at
            # Until the session has shown its trust here, its peers are not strangers.
            self._carried |= {**taken._carried, **taken._trust.by_peer()}  # noqa: SLF001
        else:
            station.leave(taken)
            station.say_goodbye()
        taken.listens_at.clear()

    def statistics(self) -> CommsStatistics:
        """Count what the inbox holds, and the tasks of this side that wait for room at a peer."""
        found = self.inbox.statistics()
        return CommsStatistics(
            control_waiting=found.control_waiting,
            work_waiting=found.work_waiting,
            parked_senders=found.parked_senders + self._station.parked_senders(),
            claim_open=found.claim_open,
        )

    async def aclose(self) -> None:
        """Leave the network; see `CommsRuntime.aclose`.

        With the last instance of an identity its listeners close. What is on its way to connected peers is waited for,
        for ``linger`` seconds; then every answer that is known is written, and goodbye is said. What came and was not
        admitted stays with its senders: they look for whoever is here next.

        **Cancellation:** closed in any case; goodbyes are then said in the background, while the network lives.
        """
        self.shut()
        await self._station.wind_up()

    def shut(self) -> None:
        """Close the inbox and the listeners, at once and without a goodbye; `aclose` says that too."""
        self._network.has_closed(self)
        self._station.leave(self)
        for address in list(self.listens_at):
            self.stop_listening(address)
        self.inbox.close()
