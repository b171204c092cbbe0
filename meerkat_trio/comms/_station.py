"""One identity on a socket network: its instances, its peers, its connections, what it has been sent.

The first instance is the route: envelopes go to its inbox. Later ones stand by; one of them becomes the route when it
takes the present one over, or when that one closes. A take-over so touches no connection.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from .._rate import RateLimit
from ..authority import DropReason
from ._addresses import connect
from ._arrivals import Arrival
from ._connection import Connection
from ._correspondent import Correspondent
from ._frames import ByeCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..authority import PeerEndpoint, PeerId
    from ._addresses import Listening
    from ._arrivals import Arrivals
    from ._bundle import Opened
    from ._identity import Identity
    from ._inbox import Inbox
    from ._limits import SocketLimits
    from ._outgoing import Letter

__all__ = ["Instance", "Network", "Station"]

_logger = logging.getLogger("meerkat_trio.comms.socket")

_SENT: Final = 1024
"""Of how many ids is known that this side has sent them."""
_COMMANDS: Final = 64
_COMMANDS_PER_SECOND: Final = 16.0
_ALL_COMMANDS: Final = 256
_ALL_COMMANDS_PER_SECOND: Final = 64.0
"""What is verified for those who are not trusted; the session that is commanded has bounds of its own (SPEC 3)."""


class Instance(Protocol):
    """A comms runtime, as its station knows it."""

    inbox: Inbox
    patience: float
    listens_at: set[str]

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return where a peer is reached, if it is trusted."""


class Network(Protocol):
    """What the stations of one process share."""

    limits: SocketLimits

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""

    def jitter(self) -> float:
        """Return a random number between 0 and 1."""

    @property
    def nursery(self) -> trio.Nursery:
        """Where the tasks are: they live as long as the network."""

    def spawn(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task that lives as long as the network; after its end nothing is started."""

    def count_unproven(self, connection: Connection) -> None:
        """Count a connection whose other side has not proved who it is; it may cost another its place."""

    @property
    def is_crowded(self) -> bool:
        """Whether many connections have not proved who their other side is."""

    def admits(self, connection: Connection, *, trusted: bool) -> bool:
        """Count a connection whose other side has proved who it is, and make room for it."""

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection."""

    def leave(self, station: Station) -> None:
        """Forget a station that has nothing left to do."""


@final
class _PatientListener(trio.abc.Listener[trio.SocketStream]):
    """Takes connections in more slowly while there is a crowd, so that those that are in are served meanwhile."""

    def __init__(self, listener: trio.SocketListener, network: Network) -> None:
        self._listener = listener
        self._network = network

    async def accept(self) -> trio.SocketStream:
        """Take in the next connection.

        **Cancellation:** nothing was taken in.
        """
        if self._network.is_crowded:
            await trio.sleep(self._network.limits.crowd_pause)
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()


@final
class Station:
    """One identity on a network."""

    def __init__(
        self, network: Network, identity: Identity, arrivals: Arrivals, formers: tuple[trio.Event, ...]
    ) -> None:
        self._network = network
        self.identity = identity
        self.limits: SocketLimits = network.limits
        self.instances: list[Instance] = []
        self.listening: dict[str, tuple[Listening, trio.CancelScope]] = {}
        self.connections: list[Connection] = []
        self.correspondents: dict[PeerId, Correspondent] = {}
        self._arrivals = arrivals
        self._formers = formers
        self._is_winding_up = False
        self._owed = 0
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._patience = 0.0
        self._commands = RateLimit(
            burst=_COMMANDS,
            rate=_COMMANDS_PER_SECOND,
            burst_of_all=_ALL_COMMANDS,
            rate_of_all=_ALL_COMMANDS_PER_SECOND,
            now=trio.current_time(),
        )
        self.settled: trio.Event = trio.Event()
        """Set once it is closed and owes no answers."""
        self.gone: trio.Event = trio.Event()

    # -- instances

    @property
    def inbox(self) -> Inbox | None:
        """Where envelopes go at this moment."""
        return self.instances[0].inbox if self.instances else None

    def join(self, instance: Instance) -> None:
        """Let an instance be the route, or stand by."""
        self.instances.append(instance)
        self._patience = instance.patience

    def replace(self, previous: Instance, successor: Instance) -> None:
        """Leave one of two instances, in the better place."""
        place = min(self.instances.index(previous), self.instances.index(successor))
        self.instances.remove(previous)
        self.instances.remove(successor)
        self.instances.insert(place, successor)

    def leave(self, instance: Instance) -> None:
        """Forget an instance; after the last one nothing is taken in any more, and what is not owed an answer ends."""
        if instance in self.instances:
            self.instances.remove(instance)
        if self.instances:
            return
        self.stop_listening()
        for correspondent in self.correspondents.values():
            for arrival in correspondent.discard_incoming():
                self._arrivals.forget(arrival)
                self._owed -= 1
        if not self._owed:
            self.settled.set()

    def say_goodbye(self) -> None:
        """Go away once nothing is owed, if no instance is left."""
        if self.instances or self._owed or self._is_winding_up:
            return
        self.give_up()
        for connection in self.connections:
            connection.leave(ByeCode.CLOSED, "this side goes away")
        if not self.connections:
            self._network.leave(self)
            self.gone.set()

    def give_up(self) -> None:
        """Drop everything on its way to peers."""
        for correspondent in self.correspondents.values():
            correspondent.give_up()

    async def wait_for_former(self) -> None:
        """Wait until those that were this side before owe no answers: what comes again may have to come first.

        **Cancellation:** nothing is lost.
        """
        for settled in self._formers:
            await settled.wait()
        self._formers = ()

    @property
    def is_leaving(self) -> bool:
        """Whether its last instance is closed."""
        return not self.instances

    async def wind_up(self) -> None:
        """With no instance left, wait for the answers to what is on its way, then go away.

        **Cancellation:** goes on in the background, without waiting for answers.
        """
        if not self.instances and not self.gone.is_set():
            self._is_winding_up = True
            try:
                with trio.move_on_after(self.limits.linger):
                    for letter in self._on_their_way():
                        await letter.receipt.wait()
            finally:
                self._is_winding_up = False
                self.say_goodbye()
            # Open claims decide when they will; whoever closes is not made to wait for them.
            if not self._owed:
                await self.gone.wait()
        await trio.lowlevel.checkpoint()

    def _on_their_way(self) -> list[Letter]:
        return [
            letter
            for correspondent in self.correspondents.values()
            if correspondent.carrier is not None
            for lane in correspondent.lanes.values()
            for letter in lane.accepted.values()
        ]

    # -- listening

    def add_listener(self, listening: Listening) -> None:
        """Serve who connects."""
        scope = trio.CancelScope()
        self.listening[listening.address] = listening, scope
        self._network.spawn(self._serve, listening, scope)

    async def _serve(self, listening: Listening, scope: trio.CancelScope) -> None:
        try:
            with scope:
                patient = _PatientListener(listening.listener, self._network)
                await trio.serve_listeners(self._serve_one, [patient], handler_nursery=self._network.nursery)
        except* trio.ClosedResourceError:
            pass  # it was closed before its task saw that it is cancelled
        except* OSError as failed:
            _logger.exception("%s listens no longer at %s: %s", self, listening.address, failed.exceptions[0])
        finally:
            listening.close()
            if self.listening.get(listening.address) == (listening, scope):
                del self.listening[listening.address]

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        connection = Connection(self, stream)
        self._network.count_unproven(connection)
        await connection.run(connects=False)

    def stop_listening(self, address: str | None = None) -> None:
        """Close the listener at an address, or all of them; connections stay."""
        for known in list(self.listening):
            if address in {None, known}:
                listening, scope = self.listening.pop(known)
                scope.cancel()
                listening.close()

    # -- connections

    def welcome(self, connection: Connection, peer_id: PeerId) -> Correspondent | None:
        """Take in a connection whose other side has proved who it is; None if there are too many."""
        if not self._network.admits(connection, trusted=self.is_trusted(peer_id)):
            return None
        correspondent = self._correspondent(peer_id)
        self.connections.append(connection)
        of_peer = [each for each in self.connections if each.peer_id == peer_id]
        if len(of_peer) > self.limits.max_per_peer:
            of_peer[0].leave(ByeCode.BUSY, "too many connections of one peer")
        correspondent.carried_by(connection)
        if not self.instances and not self._owed:
            connection.leave(ByeCode.CLOSED, "this side goes away")
        return correspondent

    def farewell(self, connection: Connection) -> None:
        """Note that a connection is over; another one, or a new one, carries what it had not."""
        self._network.forget(connection)
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        correspondent = connection.correspondent
        others = [each for each in self.connections if each.peer_id == connection.peer_id]
        correspondent.lost(connection, others[-1] if others else None)
        self.has_less_of(correspondent)
        self.say_goodbye()

    def _correspondent(self, peer_id: PeerId) -> Correspondent:
        correspondent = self.correspondents.get(peer_id)
        if correspondent is None:
            correspondent = self.correspondents[peer_id] = Correspondent(self, peer_id)
        return correspondent

    def has_less_of(self, correspondent: Correspondent) -> None:
        """Keep nothing of peers with whom there is nothing to do."""
        if correspondent.carrier is None and not correspondent.is_sought and correspondent.is_idle:
            self.correspondents.pop(correspondent.peer_id, None)

    def look_for(self, correspondent: Correspondent) -> None:
        """See to it that there is a connection soon, or that what waits for it is given up."""
        correspondent.is_sought = True
        self._network.spawn(self._seek, correspondent)

    async def _seek(self, correspondent: Correspondent) -> None:
        """Connect to a peer until there is a connection, whoever has made it, or patience ends."""
        since, pause = trio.current_time(), self.limits.first_backoff
        try:
            while correspondent.carrier is None and correspondent.has_unanswered:
                if await self._try_once(correspondent):
                    # It was of use, so the search begins anew.
                    since, pause = trio.current_time(), self.limits.first_backoff
                if correspondent.carrier is not None:
                    break
                correspondent.expire()
                left = since + self._patience - trio.current_time()
                if left <= 0:
                    correspondent.give_up()
                    break
                await trio.sleep(min(left, pause * (0.5 + self._network.jitter())))
                pause = min(2 * pause, self.limits.max_backoff)
        finally:
            correspondent.is_sought = False
            self.has_less_of(correspondent)

    async def _try_once(self, correspondent: Correspondent) -> bool:
        """Connect, and carry until the connection ends; say whether anything came by it."""
        endpoint = self.endpoint_of(correspondent.peer_id)
        if endpoint is None:
            return False
        try:
            with trio.fail_after(self.limits.connect_timeout):
                stream = await connect(endpoint.address)
        except (OSError, ValueError, trio.TooSlowError) as error:
            _logger.debug("%s does not reach %s: %s", self, endpoint.address, error)
            return False
        connection = Connection(self, stream)
        await connection.run(connects=True, expected=endpoint.signing_key)
        return connection.was_of_use

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return where a peer is reached, if an instance trusts it; the route is asked first."""
        return next((found for each in self.instances if (found := each.endpoint_of(peer_id))), None)

    # -- what a connection asks

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""
        return self._network.now()

    def is_trusted(self, peer_id: PeerId) -> bool:
        """Say whether a peer has a trust edge, of whatever source."""
        return self.endpoint_of(peer_id) is not None

    def may_command(self, peer_id: PeerId) -> bool:
        """Say whether one that is not trusted may send one more command, and count it."""
        return self._commands.admits(peer_id, trio.current_time())

    def find(self, peer_id: PeerId, message_id: str) -> Arrival | None:
        """Return the arrival of which an envelope would be a twin."""
        return self._arrivals.get(peer_id, message_id)

    def arrive(self, connection: Connection, opened: Opened, size: int) -> None:
        """Take an envelope that was not refused; with no instance left it is as if it had not come."""
        envelope = opened.envelope
        if envelope is None or not self.instances:
            return
        arrival = Arrival(self, envelope.sender, envelope.id, opened.issued_at, connection)
        self._arrivals.add(arrival, self.now())
        self._owed += 1
        connection.owe(arrival)
        connection.correspondent.deliver(envelope, arrival, size)

    def has_answered(self, arrival: Arrival) -> bool:
        """Note that an answer is known; say whether to tell it.

        Of what was dropped because this side goes away nothing is said: whoever is here next may admit it. What could
        not be recorded is told, and may be sent again.
        """
        self._owed -= 1
        tells = bool(self.instances) or arrival.reason is not DropReason.CLOSED
        if not tells or arrival.reason is DropReason.NOT_RECORDED:
            self._arrivals.forget(arrival)
        if not self.instances and not self._owed:
            self.settled.set()
            self._network.spawn(self._leave_later)
        return tells

    async def _leave_later(self) -> None:
        # Not in the step of the answer: its connection has yet to be told.
        await trio.lowlevel.checkpoint()
        self.say_goodbye()

    # -- what a correspondent asks

    def is_new(self, message_id: str) -> bool:
        """Say whether this side has not sent such an id, and remember it."""
        if message_id in self._sent:
            return False
        self._sent[message_id] = None
        if len(self._sent) > _SENT:
            self._sent.popitem(last=False)
        return True

    def may_be_sent_again(self, message_id: str) -> None:
        """Forget that an id was sent."""
        self._sent.pop(message_id, None)

    def spawn(self, call: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Start a task that lives as long as the network."""
        self._network.spawn(call, *arguments)

    # -- what an instance asks

    def correspondent_for(self, peer_id: PeerId) -> Correspondent | None:
        """Return a peer that can be reached, or that has a connection; else None."""
        correspondent = self.correspondents.get(peer_id)
        if correspondent is None and self.is_trusted(peer_id):
            correspondent = self._correspondent(peer_id)
        return correspondent

    def parked_senders(self) -> int:
        """Count the tasks of this side that wait for room at a peer."""
        return sum(each.parked_senders for each in self.correspondents.values())

    def housekeeping(self, now: float) -> None:
        """Cut connections whose other side keeps them waiting for too long."""
        for connection in list(self.connections):
            if (why := connection.is_overdue(now)) is not None:
                _logger.warning("%s is cut: %s", connection, why)
                connection.scope.cancel()

    def __repr__(self) -> str:
        return f"<Station of {self.identity.peer_id}>"
