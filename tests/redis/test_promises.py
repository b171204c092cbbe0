"""What is promised between processes: two networks, each as a process would have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from meerkat_trio import EnvelopeKind, ReceiptStatus
from meerkat_trio.authority import DropReason
from meerkat_trio.comms import Fence, RedisLimits, RedisNetwork

from .rig import LANE, PATIENCE, SOON, identity, introduce, opened, peers, take, until

if TYPE_CHECKING:
    from meerkat_trio.comms import RedisComms

    from .rig import Server

LATE = attrs.evolve(SOON, gone_after=30.0)
"""Nobody is taken for dead, and nobody looks whether its lease is lost."""


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Return a namespace that no other test has."""
    name: str = request.node.name
    return name


async def test_two_networks_exchange_messages_both_ways(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=SOON) as there,
    ):
        alice, bob = await peers((here, "alice"), (there, "bob"))
        receipts = []
        async with trio.open_nursery() as nursery:

            async def send(one: RedisComms, other: RedisComms) -> None:
                receipts.extend([await one.send(one.envelope(other.peer_id, number)) for number in range(50)])

            nursery.start_soon(send, alice, bob)
            nursery.start_soon(send, bob, alice)
            assert list(range(50)) == await take(bob, 50)
            assert list(range(50)) == await take(alice, 50)
        with trio.fail_after(PATIENCE):
            assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 100
    assert shared_server.cli("KEYS", f"{place}:alive:*") == ""


async def test_what_is_sent_while_nobody_is_home_waits_for_who_comes(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with RedisNetwork(url, namespace=place, limits=SOON) as here:
        alice = await opened(here, "alice")
        alice.trust(identity("bob").endpoint("bob", "inproc://bob"))
        receipt = await alice.send(alice.envelope(identity("bob").peer_id, "early"))
        assert ReceiptStatus.QUEUED is receipt.status
        async with RedisNetwork(url, namespace=place, limits=SOON) as there:
            bob = await opened(there, "bob")
            introduce(alice, bob)
            assert await take(bob, 1) == ["early"]
            with trio.fail_after(PATIENCE):
                assert ReceiptStatus.ADMITTED is await receipt.wait()


async def test_what_was_not_admitted_is_given_back_for_the_next_host(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=SOON) as old,
        RedisNetwork(url, namespace=place, limits=SOON) as new,
    ):
        alice, bob = await peers((here, "alice"), (old, "bob"))
        receipts = [await alice.send(alice.envelope(bob.peer_id, number)) for number in range(3)]
        await until(lambda: bob.statistics().work_waiting == 3)
        assert await take(bob, 1) == [0]
        await bob.aclose()
        successor = await opened(new, "bob")
        introduce(alice, successor)
        assert await take(successor, 2) == [1, 2]
        with trio.fail_after(PATIENCE):
            assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 3
        # The host that bob has left reaches him where he is now.
        neighbour = await opened(old, "neighbour")
        introduce(neighbour, successor)
        await neighbour.send(neighbour.envelope(bob.peer_id, "after you left"))
        assert await take(successor, 1) == ["after you left"]


async def test_what_a_process_had_read_when_it_died_is_taken_over_in_order(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        trio.open_nursery() as nursery,
    ):
        scope = trio.CancelScope()
        bobs: list[RedisComms] = []

        async def die() -> None:
            # Cancelled, a network writes nothing more: to the server it looks like a process that was killed.
            with scope:
                async with RedisNetwork(url, namespace=place, limits=SOON) as dying:
                    bobs.append(await opened(dying, "bob"))
                    introduce(alice, bobs[0])
                    await trio.sleep_forever()

        alice = await opened(here, "alice")
        nursery.start_soon(die)
        await until(lambda: bobs)
        receipts = [await alice.send(alice.envelope(bobs[0].peer_id, number)) for number in range(LANE)]
        await until(lambda: bobs[0].statistics().work_waiting == LANE)
        scope.cancel()
        async with RedisNetwork(url, namespace=place, limits=SOON) as there:
            bob = await opened(there, "bob")
            introduce(alice, bob)
            assert list(range(LANE)) == await take(bob, LANE)
            with trio.fail_after(PATIENCE):
                assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * LANE
            await until(lambda: shared_server.cli("XLEN", f"{place}:{bob.peer_id}:work") == "0")


async def test_of_a_bundle_that_was_answered_in_part_only_the_rest_is_taken_over(
    shared_server: Server, place: str
) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=RedisLimits()) as here,
        trio.open_nursery() as nursery,
    ):
        alice = await opened(here, "alice")
        alice.trust(identity("bob").endpoint("bob", "inproc://bob"))
        for number in range(10):
            receipt = alice.send_nowait(alice.envelope(identity("bob").peer_id, number))  # all in one bundle
        scope = trio.CancelScope()
        admitted: list[int] = []

        async def die() -> None:
            with scope:
                async with RedisNetwork(url, namespace=place, limits=SOON) as dying:
                    bob = await opened(dying, "bob")
                    introduce(alice, bob)
                    admitted.extend(await take(bob, 3))
                    await trio.sleep_forever()

        nursery.start_soon(die)
        await until(lambda: here.statistics().unanswered == 7)
        scope.cancel()
        async with RedisNetwork(url, namespace=place, limits=SOON) as there:
            bob = await opened(there, "bob")
            introduce(alice, bob)
            assert list(range(10)) == admitted + await take(bob, 7)
            with trio.fail_after(PATIENCE):
                assert ReceiptStatus.ADMITTED is await receipt.wait()
        assert shared_server.cli("HLEN", f"{place}:{bob.peer_id}:parts") == "0"


async def test_a_full_stream_stops_its_senders_until_somebody_reads(shared_server: Server, place: str) -> None:
    limits = RedisLimits(stream_limit=2, full_pause=0.01)
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=limits) as here,
        trio.open_nursery() as nursery,
    ):
        alice = await opened(here, "alice")
        bob_id = identity("bob").peer_id
        alice.trust(identity("bob").endpoint("bob", "inproc://bob"))
        for number in range(2):
            await alice.send(alice.envelope(bob_id, number))

        async def send(number: int) -> None:
            await alice.send(alice.envelope(bob_id, number))

        with trio.move_on_after(0.1) as scope:
            await send(99)
        assert scope.cancelled_caught  # so it was not sent
        for number in (2, 3):
            nursery.start_soon(send, number)
            await until(lambda number=number: alice.statistics().parked_senders == number - 1)  # type: ignore[misc]
        # Control has room of its own.
        await alice.send(alice.envelope(bob_id, "control", kind=EnvelopeKind.PEER_ADDED))
        async with RedisNetwork(url, namespace=place, limits=SOON) as there:
            bob = await opened(there, "bob")
            introduce(alice, bob)
            found = await take(bob, 5)
            assert [body for body in found if body != "control"] == [0, 1, 2, 3]


async def test_without_an_answer_a_receipt_is_expired_in_the_end(shared_server: Server, place: str) -> None:
    now = 1_000_000.0
    limits = RedisLimits(gone_after=0.1, acceptance_window=100.0)
    async with RedisNetwork(shared_server.url, namespace=place, limits=limits, wall_clock=lambda: now) as here:
        alice = await opened(here, "alice")
        alice.trust(identity("bob").endpoint("bob", "inproc://bob"))
        receipt = await alice.send(alice.envelope(identity("bob").peer_id, 1))
        now += 161
        with trio.fail_after(PATIENCE):
            assert ReceiptStatus.DROPPED is await receipt.wait()
        assert DropReason.EXPIRED is receipt.reason


async def test_a_peer_that_is_not_known_is_closed_to_us(shared_server: Server, place: str) -> None:
    async with RedisNetwork(shared_server.url, namespace=place, limits=SOON) as here:
        alice = await opened(here, "alice")
        receipt = await alice.send(alice.envelope(identity("bob").peer_id, 1))
        assert DropReason.CLOSED is receipt.reason


async def test_a_stranger_commands_and_is_answered_and_sends_nothing_else(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=SOON) as there,
    ):
        stranger, bob = await opened(here, "stranger"), await opened(there, "bob")
        stranger.trust(bob.endpoint())
        command = stranger.envelope(
            bob.peer_id, {"command": "x"}, kind=EnvelopeKind.REQUEST, intent="supervisor.bridge", correlation="c"
        )
        await stranger.send(command)
        assert await take(bob, 1) == [{"command": "x"}]
        receipt = await stranger.send(stranger.envelope(bob.peer_id, "hello"))
        with trio.fail_after(PATIENCE):
            await receipt.wait()
        assert DropReason.UNTRUSTED_SENDER is receipt.reason
        # Whoever has commanded can be answered.
        bob.send_nowait(bob.envelope(stranger.peer_id, "hello yourself"))
        stranger_trusts = stranger.trusted_peers
        assert await stranger_trusts()
        assert await take(stranger, 1) == ["hello yourself"]
        assert there.statistics().dead_letters == 1


async def test_a_host_that_lost_its_lease_acknowledges_and_answers_nothing(
    shared_server: Server, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, lease = shared_server.url, f"{place}:lease"
    shared_server.cli("SET", lease, "first")
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=LATE) as old,
        RedisNetwork(url, namespace=place, limits=SOON) as new,
    ):
        alice = await opened(here, "alice")
        stale = await opened(old, "bob", fence=Fence(lease, "first"))
        introduce(alice, stale)
        await alice.send(alice.envelope(stale.peer_id, 1))
        assert await take(stale, 1) == [1]
        await until(lambda: not here.statistics().unanswered)
        shared_server.cli("SET", lease, "second")
        receipts = [await alice.send(alice.envelope(stale.peer_id, number)) for number in (2, 3)]
        assert await take(stale, 1) == [2]
        await until(lambda: stale.is_fenced)
        with pytest.raises(trio.ClosedResourceError):
            stale.claim_nowait()
        assert [receipt.status for receipt in receipts] == [ReceiptStatus.QUEUED] * 2
        assert "has lost its lease" in caplog.text
        fresh = await opened(new, "bob", fence=Fence(lease, "second"))
        introduce(alice, fresh)
        assert await take(fresh, 2) == [2, 3]
        with trio.fail_after(PATIENCE):
            assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 2


async def test_who_has_the_lease_takes_over_what_another_has_read_before_anything_newer(
    shared_server: Server, place: str
) -> None:
    url, lease = shared_server.url, f"{place}:lease"
    shared_server.cli("SET", lease, "first")
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=LATE) as old,
        RedisNetwork(url, namespace=place, limits=LATE) as new,
    ):
        alice = await opened(here, "alice")
        # With room for no more, it reads nothing that comes later.
        stale = await opened(old, "bob", fence=Fence(lease, "first"), lane=3)
        introduce(alice, stale)
        for number in (1, 2, 3):
            await alice.send(alice.envelope(stale.peer_id, number))
        await until(lambda: stale.statistics().work_waiting == 3)
        shared_server.cli("SET", lease, "second")
        fresh = await opened(new, "bob", fence=Fence(lease, "second"))
        introduce(alice, fresh)
        await alice.send(alice.envelope(stale.peer_id, 4))
        assert await take(fresh, 4) == [1, 2, 3, 4]


async def test_a_lease_that_is_lost_is_noticed_though_there_is_nothing_to_write(
    shared_server: Server, place: str
) -> None:
    url, lease = shared_server.url, f"{place}:lease"
    shared_server.cli("SET", lease, "first")
    async with RedisNetwork(url, namespace=place, limits=SOON) as network:
        bob = await opened(network, "bob", fence=Fence(lease, "first"))
        shared_server.cli("SET", lease, "second")
        await until(lambda: bob.is_fenced)


async def test_what_a_host_without_its_lease_sends_is_not_sent(shared_server: Server, place: str) -> None:
    url, lease = shared_server.url, f"{place}:lease"
    shared_server.cli("SET", lease, "other")
    async with RedisNetwork(url, namespace=place, limits=SOON) as here:
        alice = await opened(here, "alice", fence=Fence(lease, "mine"))
        alice.trust(identity("bob").endpoint("bob", "inproc://bob"))
        receipt = await alice.send(alice.envelope(identity("bob").peer_id, 1))
        assert DropReason.CLOSED is receipt.reason
        await until(lambda: alice.is_fenced)
        assert shared_server.cli("EXISTS", f"{place}:{identity('bob').peer_id}:work") == "0"


async def test_a_host_that_has_nothing_to_write_learns_in_time_that_its_lease_is_lost(
    shared_server: Server, place: str
) -> None:
    lease = f"{place}:lease"
    shared_server.cli("SET", lease, "first")
    async with RedisNetwork(shared_server.url, namespace=place, limits=SOON) as here:
        bob = await opened(here, "bob", fence=Fence(lease, "first"))
        rebuilt = await opened(here, "bob")
        await until(lambda: shared_server.cli("EXISTS", f"{place}:{bob.peer_id}:work") == "1")
        assert not bob.is_fenced
        shared_server.cli("DEL", lease)
        await until(lambda: bob.is_fenced and rebuilt.is_fenced)
        with pytest.raises(trio.ClosedResourceError):
            await bob.claim()
        # Opened again without a lease it is served without one.
        again = await opened(here, "bob")
        alice = await opened(here, "alice")
        introduce(alice, again)
        await alice.send(alice.envelope(again.peer_id, 1))
        assert await take(again, 1) == [1]


async def test_an_identity_that_is_opened_again_gets_what_it_left(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=SOON) as there,
    ):
        alice, bob = await peers((here, "alice"), (there, "bob"))
        receipts = [await alice.send(alice.envelope(bob.peer_id, number)) for number in range(3)]
        await until(lambda: bob.statistics().work_waiting == 3)
        for _ in range(3):
            bob.shut()
            bob = await opened(there, "bob")
            introduce(alice, bob)
        assert await take(bob, 3) == [0, 1, 2]
        with trio.fail_after(PATIENCE):
            assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 3


async def test_a_network_that_is_not_entered_opens_nothing() -> None:
    network = RedisNetwork("redis://localhost")
    with pytest.raises(RuntimeError, match="enter the network"):
        await opened(network, "alice")


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        RedisNetwork(url)
