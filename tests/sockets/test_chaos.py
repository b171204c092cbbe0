"""Everything at random moments, by a seed: what was accepted is admitted once, in order, and receipts settle."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from meerkat_trio import DropReason, EnvelopeKind
from meerkat_trio.comms import SocketComms, SocketLimits, SocketNetwork

from .rig import introduce, opened

if TYPE_CHECKING:
    from pathlib import Path

    from meerkat_trio import Receipt

BOUNDS = SocketLimits(
    unanswered=8, linger=0.05, first_backoff=0.001, max_backoff=0.01, max_per_peer=2, held_envelopes=8, held_bytes=4096
)
STEPS = 60


class Story:
    """Identity "a" stays; identity "b" is closed, opened anew and taken over, at the address it had."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.dice = random.Random(seed)
        self.address = f"uds://{directory}/b"
        self.a: SocketComms
        self.b: SocketComms
        self.here: SocketNetwork
        self.there: SocketNetwork
        self.accepted: dict[tuple[str, str], list[int]] = {}
        self.admitted: dict[tuple[str, str], list[int]] = {}
        self.receipts: dict[tuple[str, str, int], Receipt] = {}
        self.is_over = False

    async def a_while(self, most: int = 30) -> None:
        for _ in range(self.dice.randrange(1, most)):
            await trio.lowlevel.checkpoint()

    async def send_all(self, name: str, kind: EnvelopeKind) -> None:
        """Send numbers; sends are cancelled at random, and what was not accepted then is passed over."""
        stream = (name, kind.value)
        accepted = self.accepted.setdefault(stream, [])
        number = 0
        while not self.is_over:
            number += 1
            comms, other = (self.a, self.b) if name == "a" else (self.b, self.a)
            body = [number, "x" * self.dice.choice((0, 0, 900))]
            envelope = comms.envelope(other.peer_id, body, kind=kind)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_soon, nursery.cancel_scope)
                try:
                    receipt = await comms.send(envelope)
                except trio.ClosedResourceError:
                    pass  # it was just closed
                else:
                    accepted.append(number)
                    self.receipts[*stream, number] = receipt
                nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()

    async def _cancel_soon(self, scope: trio.CancelScope) -> None:
        await self.a_while(60)
        if self.dice.random() < 0.3:
            scope.cancel()

    async def admit_all(self, name: str) -> None:
        while True:
            comms = self.a if name == "a" else self.b
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_soon, scope)
                    await self._admit(name, comms)
                    nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()

    async def _admit(self, name: str, comms: SocketComms) -> None:
        try:
            claim = await comms.claim()
        except trio.ClosedResourceError:
            return
        with claim:
            if self.dice.random() < 0.3:
                await self.a_while()  # cancelled here it is left
            sender = "b" if name == "a" else "a"
            if claim.inbox.closed is None:  # type: ignore[attr-defined] # of this implementation
                self.admitted.setdefault((sender, claim.envelope.kind.value), []).append(claim.envelope.body[0])
                claim.commit()

    async def open_b(self, **options: Any) -> SocketComms:
        comms = await opened(self.there, "b", patience=60.0, work_lane=2, control_lane=2, **options)
        comms.trust(self.a.endpoint())
        return comms

    async def step(self) -> None:
        await self.a_while()
        match self.dice.randrange(6):
            case 0:
                successor = await self.open_b(address=self.address)
                await self.a_while()
                successor.take_over(self.b)
                previous, self.b = self.b, successor
                await previous.aclose()
            case 1:
                with trio.CancelScope() as scope:
                    if self.dice.random() < 0.5:
                        scope.cancel()
                    await self.b.aclose()
                await self.a_while()
                self.b = await self.open_b(address=self.address)
            case 2:
                for comms in (self.a, self.b):
                    for connection in list(comms._station.connections):
                        if self.dice.random() < 0.5:
                            connection.scope.cancel()
            case 3:
                self.b.stop_listening(self.address)
                await self.a_while()
                await self.b.listen(self.address)
            case 4:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await self.open_b(address=self.address)
            case _:
                # Both look for each other at the same time.
                for comms in (self.a, self.b):
                    for connection in list(comms._station.connections):
                        connection.leave(0, "somebody asks for it")

    async def play(self) -> None:
        async with SocketNetwork(BOUNDS) as self.here, SocketNetwork(BOUNDS) as self.there:
            self.a = await opened(self.here, "a", "tcp://127.0.0.1:0", patience=60.0, work_lane=2, control_lane=2)
            self.b = await self.open_b(address=self.address)
            introduce(self.a, self.b)
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as sending:
                    for name in ("a", "b"):
                        nursery.start_soon(self.admit_all, name)
                        for kind in (EnvelopeKind.MESSAGE, EnvelopeKind.PEER_ADDED):
                            sending.start_soon(self.send_all, name, kind)
                    for _ in range(STEPS):
                        await self.step()
                    self.is_over = True
                for receipt in self.receipts.values():
                    await receipt.wait()
                nursery.cancel_scope.cancel()


async def play(seed: int, directory: Path) -> None:
    story = Story(seed, directory)
    with trio.fail_after(60):
        await story.play()
    for stream, accepted in story.accepted.items():
        admitted = story.admitted.get(stream, [])
        assert len(set(admitted)) == len(admitted), f"{stream}: doubled"
        reasons = {number: story.receipts[*stream, number].reason for number in accepted}
        heard = {number for number, reason in reasons.items() if reason is None}
        assert heard <= set(admitted), f"{stream}: lost"
        # What was given up may still come, at any time.
        in_order = [number for number in admitted if number in heard]
        assert in_order == sorted(in_order), f"{stream}: out of order"
        # Only who was closed gives up what is on its way.
        expected = {None} if stream[0] == "a" else {None, DropReason.CLOSED}
        assert set(reasons.values()) <= expected
        if stream[0] == "a":
            assert admitted == accepted
    assert sum(map(len, story.admitted.values())) > STEPS


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_when(seed: int, tmp_path: Path) -> None:
    await play(seed, tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(100, 300))
async def test_many_stories(seed: int, tmp_path: Path) -> None:
    await play(seed, tmp_path)
