"""Many who connect to a victim and mean no good; ``python -m tests.sockets.crowd`` gives them their own process."""

from __future__ import annotations

import random
import sys
from contextlib import suppress

import trio

from meerkat_trio.authority import PeerAddress, PeerEndpoint, PeerId
from meerkat_trio.comms import Identity
from meerkat_trio.comms import _addresses as addresses

from .attacker import Attacker

__all__ = ["crowd", "crowd_arguments"]


async def crowd(victim: PeerEndpoint, count: int, at_once: int) -> None:
    """Open so many connections that stay as long as the victim lets them, at most 2 s."""
    width = trio.CapacityLimiter(at_once)

    async def one(number: int) -> None:
        async with width:
            with suppress(OSError, trio.BrokenResourceError, AssertionError):
                await _misbehave(victim, number)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
            await trio.lowlevel.checkpoint()


async def _misbehave(victim: PeerEndpoint, number: int) -> None:
    identity = Identity(number.to_bytes(32, "big") if number else b"\xff" * 32)
    attacker = Attacker(await addresses.connect(victim.address), identity)
    try:
        with trio.move_on_after(2):
            match number % 5:
                case 0:
                    await attacker.write(random.Random(number).randbytes(3_000))
                case 1:
                    await attacker.write(b"\x00\x00\x00")
                case 3 | 4:
                    await attacker.shake_hands()
                    await attacker.write(attacker.bundle(victim, attacker.envelope(victim, number)))
                    if number % 5 == 3:
                        await attacker.answers(1)
            await attacker.end()
    finally:
        await attacker.stream.aclose()


def crowd_arguments(victim: PeerEndpoint, count: int, at_once: int) -> list[str]:
    """Return what the process of a crowd is started with."""
    return [victim.address, victim.signing_key.hex(), str(count), str(at_once)]


def _main(address: str, key: str, count: str, at_once: str) -> None:
    signing_key = bytes.fromhex(key)
    victim = PeerEndpoint(
        peer_id=PeerId.of_key(signing_key), name="victim", address=PeerAddress(address), signing_key=signing_key
    )
    trio.run(crowd, victim, int(count), int(at_once))


if __name__ == "__main__":
    _main(*sys.argv[1:])
