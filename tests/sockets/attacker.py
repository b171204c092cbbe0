"""Somebody who speaks the wire by hand, and need not keep to it."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from meerkat_trio import Envelope, EnvelopeKind
from meerkat_trio.comms import Identity, SocketComms, SocketLimits, SocketNetwork
from meerkat_trio.comms import _addresses as addresses
from meerkat_trio.comms._bundle import seal
from meerkat_trio.comms._envelope import encode_envelope
from meerkat_trio.comms._frames import Answer, Bye, FrameDecoder, Receipts
from meerkat_trio.comms._handshake import Handshake, Link
from meerkat_trio.comms._prefix import MAX_FRAME

from .rig import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio.authority import PeerEndpoint

__all__ = ["FRIEND", "HELLO", "QUIET", "STRANGER", "Attacker", "Scene", "connect", "scene"]

FRIEND = Identity(b"friend".ljust(32, b"."))
"""Somebody the victim trusts."""
HELLO = b"".join((b"\x83\x01\x58\x20", FRIEND.public_key, b"\x58\x20", b"e" * 32))
"""His hello, written by hand."""
STRANGER = Identity(b"stranger".ljust(32, b"."))
QUIET = 0.02


class Attacker:
    """One connection to the victim."""

    def __init__(self, stream: trio.SocketStream, identity: Identity) -> None:
        self.stream = stream
        self.identity = identity
        self.decoder = FrameDecoder(MAX_FRAME)
        self.link: Link

    async def shake_hands(self, *, connects: bool = True) -> Attacker:
        handshake = Handshake(self.identity, connects=connects)
        await self.stream.send_all(handshake.start())
        while handshake.link is None:
            frame = await self.frame()
            assert frame is not None
            await self.stream.send_all(handshake.receive(frame))
        self.link = handshake.link
        return self

    async def frame(self) -> Any:
        """Return the next frame; None where the connection ends."""
        while (frame := next(self.decoder, None)) is None:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self.decoder.feed(data)
        return frame

    async def write(self, data: bytes) -> None:
        """Write, if the victim still takes it."""
        with suppress(trio.BrokenResourceError):
            await self.stream.send_all(data)

    async def answers(self, count: int) -> list[Answer]:
        """Read so many last answers."""
        found: list[Answer] = []
        while len(found) < count:
            frame = await self.frame()
            assert isinstance(frame, Receipts), frame
            found += [answer for answer in self.link.open(frame) if answer.status.value != "queued"]
        return found

    async def end(self) -> Bye | None:
        """Read to the end; return the victim's goodbye."""
        bye = None
        while (frame := await self.frame()) is not None:
            bye = frame if isinstance(frame, Bye) else bye
        return bye

    def envelope(self, victim: SocketComms | PeerEndpoint, body: Any = "bad", **fields: Any) -> Envelope:
        options: dict[str, Any] = {"id": f"id {body}", "kind": EnvelopeKind.MESSAGE, **fields}
        return Envelope(sender=self.identity.peer_id, recipient=victim.peer_id, body=body, **options)

    def bundle(self, victim: SocketComms | PeerEndpoint, *envelopes: Envelope, issued_at: int | None = None) -> bytes:
        now = int(time.time() * 1000) if issued_at is None else issued_at
        key = victim.public_key if isinstance(victim, SocketComms) else victim.signing_key
        return seal(self.identity, key, [encode_envelope(each, now) for each in envelopes])


async def connect(victim: SocketComms, identity: Identity, *, shake_hands: bool = True) -> Attacker:
    """Connect to where a victim listens."""
    attacker = Attacker(await addresses.connect(victim.advertised_address), identity)
    return await attacker.shake_hands() if shake_hands else attacker


class Scene:
    """A victim, an honest peer, and what the victim has admitted."""

    def __init__(self, network: SocketNetwork, victim: SocketComms, honest: SocketComms) -> None:
        self.network = network
        self.victim = victim
        self.honest = honest
        self.admitted: list[Any] = []
        self.attackers: list[Attacker] = []
        self._numbers = 0

    async def attack(self, identity: Identity = FRIEND, *, shake_hands: bool = True) -> Attacker:
        """Connect to the victim."""
        attacker = await connect(self.victim, identity, shake_hands=shake_hands)
        self.attackers.append(attacker)
        return attacker

    async def admit_all(self) -> None:
        while True:
            with await self.victim.claim() as claim:
                self.admitted.append(claim.envelope.body)
                claim.commit()

    async def honest_is_served(self) -> None:
        self._numbers += 1
        body = f"honest {self._numbers}"
        receipt = await self.honest.send(self.honest.envelope(self.victim.peer_id, body))
        await receipt.wait()
        assert receipt.reason is None
        assert self.admitted[-1] == body

    @property
    def strangely_admitted(self) -> list[Any]:
        return [body for body in self.admitted if not str(body).startswith("honest")]

    @property
    def connections(self) -> int:
        """Connections that the victim's side counts, whatever it knows of them."""
        network = self.network
        return len(network._unproven) + len(network._strangers) + len(network._trusted)


@asynccontextmanager
async def scene(*, within: float = 30.0, **limits: Any) -> AsyncIterator[Scene]:
    """Set everything up; afterwards the honest peer is served, and nothing of the attackers is left.

    Who waits for longer than ``within`` seconds waits in vain.
    """
    bounds = SocketLimits(**{"linger": 0.1, "first_backoff": 0.001, "stranger_pause": 0.001, **limits})
    async with SocketNetwork(bounds) as network, SocketNetwork() as elsewhere, trio.open_nursery() as nursery:
        victim = await opened(network, "victim", "tcp://127.0.0.1:0")
        honest = await opened(elsewhere, "honest", "tcp://127.0.0.1:0", trusted=[victim.endpoint()], patience=60.0)
        victim.trust(honest.endpoint())
        victim.trust(FRIEND.endpoint("friend", "tcp://127.0.0.1:1"))
        it = Scene(network, victim, honest)
        nursery.start_soon(it.admit_all)
        await it.honest_is_served()
        try:
            with trio.fail_after(within):
                yield it
                await it.honest_is_served()
        finally:
            for attacker in it.attackers:
                await attacker.stream.aclose()
        await wait_all_tasks_blocked(QUIET)
        station = victim._station
        assert set(station.correspondents) <= {honest.peer_id, FRIEND.peer_id}
        assert it.connections <= 1
        # Nothing is remembered of what was refused, and no answer is owed.
        assert len(station._arrivals) == len(it.admitted)
        assert station._owed == 0
        nursery.cancel_scope.cancel()
