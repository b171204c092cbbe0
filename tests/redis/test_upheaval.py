"""A peer moves from host to host while connections are cut: everything is admitted once."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from meerkat_trio import ReceiptStatus
from meerkat_trio.comms import RedisNetwork

from .rig import SOON, identity, introduce, opened, running

if TYPE_CHECKING:
    from pathlib import Path

    from meerkat_trio._messages import Receipt
    from meerkat_trio.comms import RedisComms

MESSAGES = 300
BOB = identity("bob")


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_a_peer_that_moves_between_hosts_gets_everything_once(tmp_path: Path, seed: int, cuts: bool) -> None:
    chance = random.Random(seed)
    limits = attrs.evolve(SOON, unanswered=16, gone_after=30.0)
    admitted: list[tuple[str, int]] = []
    receipts: list[Receipt] = []
    with running(tmp_path) as server:
        async with (
            RedisNetwork(server.url, limits=limits) as here,
            RedisNetwork(server.url, limits=limits) as east,
            RedisNetwork(server.url, limits=limits) as west,
            trio.open_nursery() as nursery,
        ):
            senders = [await opened(here, name) for name in ("alice", "carol")]
            for sender in senders:
                sender.trust(BOB.endpoint("bob", "inproc://bob"))

            async def send(sender: RedisComms) -> None:
                for number in range(MESSAGES):
                    receipts.append(await sender.send(sender.envelope(BOB.peer_id, [sender.runtime_id, number])))  # noqa: PERF401

            async def cut() -> None:
                while True:
                    await trio.sleep(chance.uniform(0.02, 0.2))
                    server.cli("CLIENT", "KILL", "TYPE", "normal")

            async def serve(network: RedisNetwork, count: int) -> None:
                bob = await opened(network, "bob")
                introduce(bob, *senders)
                for _ in range(count):
                    with await bob.claim() as claim:
                        admitted.append(tuple(claim.envelope.body))
                        claim.commit()
                await bob.aclose()

            for sender in senders:
                nursery.start_soon(send, sender)
            if cuts:
                nursery.start_soon(cut)
            with trio.fail_after(50):
                while len(admitted) < 2 * MESSAGES:
                    host = chance.choice([east, west])
                    await serve(host, min(chance.randrange(1, 60), 2 * MESSAGES - len(admitted)))
                for receipt in receipts:
                    await receipt.wait()
            nursery.cancel_scope.cancel()
    assert Counter(receipt.status for receipt in receipts) == {ReceiptStatus.ADMITTED: 2 * MESSAGES}
    for name in ("alice", "carol"):
        assert list(range(MESSAGES)) == [number for sender, number in admitted if sender == name]
