"""Whatever the network does: nothing lost, nothing doubled, nothing reordered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from meerkat_trio import SessionRun, open_machine
from meerkat_trio.authority import EnvelopeKind
from meerkat_trio.comms import SocketComms, SocketLimits, SocketNetwork

from .proxy import Proxy
from .rig import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio import Receipt

FAST = SocketLimits(unanswered=32, linger=1.0, first_backoff=0.001, max_backoff=0.01)
MESSAGES = 300


async def _send(sender: SocketComms, recipient: SocketComms, receipts: list[Receipt]) -> None:
    for number in range(MESSAGES):
        envelope = sender.envelope(recipient.peer_id, number)
        receipts.append(await sender.send(envelope))


async def _notify(sender: SocketComms, recipient: SocketComms, receipts: list[Receipt]) -> None:
    for number in range(MESSAGES):
        note = sender.envelope(recipient.peer_id, number, kind=EnvelopeKind.PEER_ADDED)
        receipts.append(await sender.send(note))


async def _take(comms: SocketComms, taken: list[int], lane_of: dict[int, str]) -> None:
    while len(taken) < 2 * MESSAGES:
        with await comms.claim() as claim:
            taken.append(claim.envelope.body)
            lane_of[len(taken) - 1] = claim.envelope.lane.value
            claim.commit()


async def _play(seed: int) -> int:
    """Send both ways, in both lanes, through a proxy; return how many connections it cut."""
    async with SocketNetwork(FAST) as here, SocketNetwork(FAST) as there, trio.open_nursery() as nursery:
        a = await opened(here, "a", "tcp://127.0.0.1:0", patience=60.0)
        b = await opened(there, "b", "tcp://127.0.0.1:0", patience=60.0)
        proxies = {comms: Proxy(comms.advertised_address, seed, faults=20) for comms in (a, b)}
        for comms, other in ((a, b), (b, a)):
            await nursery.start(proxies[other].run)
            _trust_at(comms, other, proxies[other].address)
        receipts: list[Receipt] = []
        taken: dict[str, list[int]] = {"a": [], "b": []}
        lanes: dict[str, dict[int, str]] = {"a": {}, "b": {}}
        async with trio.open_nursery() as sending:
            for name, comms, other in (("a", a, b), ("b", b, a)):
                sending.start_soon(_send, comms, other, receipts)
                sending.start_soon(_notify, comms, other, receipts)
                sending.start_soon(_take, comms, taken[name], lanes[name])
        for receipt in receipts:
            await receipt.wait()
        assert {receipt.reason for receipt in receipts} == {None}
        for name in ("a", "b"):
            for lane in ("work", "control"):
                got = [body for at, body in enumerate(taken[name]) if lanes[name][at] == lane]
                assert got == list(range(MESSAGES))
        nursery.cancel_scope.cancel()
    return sum(proxy.cuts for proxy in proxies.values())


@pytest.mark.parametrize("seed", range(6))
async def test_cut_connections_lose_double_and_reorder_nothing(seed: int) -> None:
    assert await _play(seed) > 0


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(100, 200))
async def test_many_networks(seed: int) -> None:
    await _play(seed)


async def test_a_session_is_rebound_and_moves_while_connections_are_cut() -> None:
    handled: list[int] = []
    done = trio.Event()

    async def handle(run: SessionRun) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(run.message.body)
        if len(handled) == MESSAGES:
            done.set()

    async with SocketNetwork(FAST) as here, SocketNetwork(FAST) as there, open_machine() as machine:
        sender = await opened(here, "sender", "tcp://127.0.0.1:0", patience=60.0)
        comms = await opened(there, "receiver", "tcp://127.0.0.1:0", patience=60.0)
        session = await machine.register("receiver", handle)
        comms.trust(sender.endpoint())
        await session.attach_ingress(comms)
        async with trio.open_nursery() as nursery:
            proxy = Proxy(comms.advertised_address, 1, faults=8)
            await nursery.start(proxy.run)
            _trust_at(sender, comms, proxy.address)
            receipts: list[Receipt] = []
            nursery.start_soon(_send, sender, comms, receipts)
            async for _ in _now_and_then(handled, 10):
                # Another instance at another address; the old listener closes in the middle of traffic.
                successor = await opened(there, "receiver", "tcp://127.0.0.1:0", patience=60.0)
                successor.trust(sender.endpoint())
                (new,) = successor.listens_at
                await session.attach_ingress(successor)
                await comms.aclose()
                _trust_at(sender, successor, new)
                for address in successor.listens_at - {new}:
                    successor.stop_listening(address)
                comms = successor
            await done.wait()
            for receipt in receipts:
                await receipt.wait()
            nursery.cancel_scope.cancel()
    assert handled == list(range(MESSAGES))
    assert {receipt.reason for receipt in receipts} == {None}


def _trust_at(comms: SocketComms, other: SocketComms, address: Any) -> None:
    endpoint = other.endpoint()
    comms.trust(
        type(endpoint)(name=endpoint.name, peer_id=endpoint.peer_id, address=address, signing_key=endpoint.signing_key)
    )


async def _now_and_then(handled: list[int], times: int) -> AsyncIterator[None]:
    """Come back whenever some more were handled."""
    for time in range(1, times + 1):
        while len(handled) < time * MESSAGES // (times + 1):
            await trio.lowlevel.checkpoint()
        yield
