"""The server fails in every way it can; nothing is lost or doubled, and everybody goes on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import attrs
import trio

from meerkat_trio import ReceiptStatus
from meerkat_trio.comms import RedisNetwork

from .rig import LANE, SOON, identity, opened, peers, running, take, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from meerkat_trio._messages import Receipt
    from meerkat_trio.comms import RedisComms

    from .rig import Server


class Traffic:
    """Messages that go one way as long as they are wanted, and what became of them."""

    def __init__(self, sender: RedisComms, receiver: RedisComms) -> None:
        self._sender = sender
        self._receiver = receiver
        self.receipts: list[Receipt] = []
        self.admitted: list[int] = []
        self.ends = False

    async def run(self) -> None:
        """Send and admit until it has ended and everything was answered."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admit)
            while not self.ends:
                envelope = self._sender.envelope(self._receiver.peer_id, len(self.receipts))
                self.receipts.append(await self._sender.send(envelope))
            for receipt in self.receipts:
                await receipt.wait()
            nursery.cancel_scope.cancel()

    async def _admit(self) -> None:
        while True:
            with await self._receiver.claim() as claim:
                self.admitted.append(claim.envelope.body)
                claim.commit()

    async def goes_on(self) -> None:
        """Wait until more has come."""
        so_far = len(self.admitted)
        await until(lambda: len(self.admitted) >= so_far + 2 * LANE)

    def balances(self) -> None:
        """Everything was admitted once, in order, and nothing else is said of it."""
        assert list(range(len(self.receipts))) == self.admitted
        assert {ReceiptStatus.ADMITTED} == {receipt.status for receipt in self.receipts}


async def through(server: Server, harm: Any, **options: Any) -> tuple[RedisNetwork, RedisNetwork]:
    """Let messages go while something is done to the server."""
    async with (
        RedisNetwork(server.url, limits=options.get("limits", SOON)) as here,
        RedisNetwork(server.url, limits=options.get("limits", SOON)) as there,
    ):
        alice, bob = await peers((here, "alice"), (there, "bob"))
        traffic = Traffic(alice, bob)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run)
                await traffic.goes_on()
                await harm(here, there, traffic)
                await traffic.goes_on()
                traffic.ends = True
        traffic.balances()
    return here, there


async def test_a_server_that_stands_still_for_a_while_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:

        async def harm(here: RedisNetwork, there: RedisNetwork, _traffic: Traffic) -> None:
            server.signal(signal.SIGSTOP)
            try:
                await until(lambda: not here.statistics().connected and not there.statistics().connected)
            finally:
                server.signal(signal.SIGCONT)

        here, _ = await through(server, harm)
        assert here.statistics().reconnects >= 1


async def test_what_was_stored_outlives_the_death_of_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "meerkat_trio")
    with running(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:

        async def harm(here: RedisNetwork, there: RedisNetwork, traffic: Traffic) -> None:
            for _ in range(3):
                server.kill()
                await until(lambda: not here.statistics().connected and not there.statistics().connected)
                server.start()
                await traffic.goes_on()

        await through(server, harm)
    told = [(record.levelname, record.name) for record in caplog.records if "meerkat_trio" in record.name]
    assert ("WARNING", "meerkat_trio.comms.redis") in told
    assert ("INFO", "meerkat_trio.comms.redis") in told


async def test_connections_that_are_cut_lose_and_double_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as server:

        async def harm(here: RedisNetwork, there: RedisNetwork, traffic: Traffic) -> None:
            for _ in range(10):
                before = here.statistics().reconnects, there.statistics().reconnects
                server.cli("CLIENT", "KILL", "TYPE", "normal")
                await until(
                    lambda before=before: (  # type: ignore[misc]
                        here.statistics().reconnects > before[0] and there.statistics().reconnects > before[1]
                    )
                )
                await traffic.goes_on()

        here, _ = await through(server, harm)
        assert here.statistics().reconnects >= 20


async def test_a_server_without_memory_makes_senders_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "meerkat_trio")
    with running(tmp_path, "--maxmemory-policy", "noeviction") as server:

        async def harm(here: RedisNetwork, _there: RedisNetwork, traffic: Traffic) -> None:
            server.cli("CONFIG", "SET", "maxmemory", "1")
            alice = here._posts[identity("alice").peer_id]
            ways = [way for route in alice.routes.values() for way in route.ways.values()]
            await until(lambda: any(way.was_refused for way in ways))
            so_far = len(traffic.receipts)
            # It neither gets through nor gives up.
            with trio.move_on_after(0.2):
                await trio.sleep_forever()
            assert so_far == len(traffic.receipts)
            server.cli("CONFIG", "SET", "maxmemory", "0")

        await through(server, harm)
    told = [(record.levelname, record.getMessage()) for record in caplog.records if "meerkat_trio" in record.name]
    assert ("WARNING", "Redis: the server has no memory left; what is to be sent waits, and it is tried again") in told
    assert ("INFO", "Redis: all is well again") in told


async def test_a_stream_that_somebody_deletes_is_made_again(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with RedisNetwork(server.url, limits=SOON) as network:
            alice, bob = await peers((network, "alice"), (network, "bob"))
            await alice.send(alice.envelope(bob.peer_id, 1))
            assert await take(bob, 1) == [1]
            await until(lambda: not network.statistics().unanswered)
            server.cli("FLUSHALL")
            server.cli("SCRIPT", "FLUSH")
            receipt = await alice.send(alice.envelope(bob.peer_id, 2))
            assert await take(bob, 1) == [2]
            with trio.fail_after(20):
                assert ReceiptStatus.ADMITTED is await receipt.wait()


async def test_a_send_that_is_cancelled_while_there_is_no_server_was_not_sent(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with RedisNetwork(server.url, limits=SOON) as network:
            alice, bob = await peers((network, "alice"), (network, "bob"))
            await alice.send(alice.envelope(bob.peer_id, 1))
            server.kill()
            await until(lambda: not network.statistics().connected)
            with trio.move_on_after(0.05) as scope:
                await alice.send(alice.envelope(bob.peer_id, 2, id="again"))
            assert scope.cancelled_caught
            server.start()
            await alice.send(alice.envelope(bob.peer_id, 3, id="again"))
            # Without a file of its own the server has forgotten what it had; what it is sent now it has.
            with trio.fail_after(20):
                found = await take(bob, 1)
                while 3 not in found:
                    found += await take(bob, 1)
            assert 2 not in found


async def test_a_network_that_never_finds_its_server_ends_all_the_same(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with RedisNetwork(f"unix://{tmp_path}/nothing", limits=attrs.evolve(SOON, linger=0.1)) as network:
            alice, bob = await opened(network, "alice"), await opened(network, "bob")
            alice.trust(bob.endpoint())
            receipt = alice.send_nowait(alice.envelope(bob.peer_id, 1))
            assert not network.statistics().connected
    assert ReceiptStatus.DROPPED is receipt.status
