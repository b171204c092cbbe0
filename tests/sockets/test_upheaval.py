"""Whatever is cancelled, closed, opened anew or cut, and whenever: nothing hangs, is lost, doubled or reordered."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meerkat_trio import DropReason, EnvelopeKind
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.comms import Identity, SocketComms, SocketLimits, SocketNetwork
from meerkat_trio.comms._bundle import seal
from meerkat_trio.comms._envelope import encode_envelope

from .attacker import FRIEND, QUIET, STRANGER, connect
from .rig import introduce, opened

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from meerkat_trio import Receipt

TCP = "tcp://127.0.0.1:0"
FAST = SocketLimits(linger=0.1, first_backoff=0.001, max_backoff=0.01, stranger_pause=0.001)


async def admit(comms: SocketComms) -> Any:
    """Admit the next envelope; return its body."""
    with await comms.claim() as claim:
        claim.commit()
        return claim.envelope.body


async def settled(receipt: Receipt) -> DropReason | None:
    """Wait for a receipt that should be settled by now."""
    with trio.fail_after(20):
        await receipt.wait()
    return receipt.reason


# --- closing


async def test_a_peer_that_keeps_talking_after_our_goodbye_holds_nobody_up(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = QUIET
    async with SocketNetwork(FAST) as network, trio.open_nursery() as nursery:
        victim = await opened(network, "victim", TCP)
        attacker = await connect(victim, STRANGER)

        async def talk() -> None:
            for number in range(10_000):
                await attacker.write(attacker.bundle(victim, attacker.envelope(victim, number)))
                await trio.sleep(0.05)

        nursery.start_soon(talk)
        await wait_all_tasks_blocked(QUIET)
        with trio.fail_after(10):
            await victim.aclose()
        assert network._stations == {}
        nursery.cancel_scope.cancel()
        await attacker.stream.aclose()


async def test_a_station_that_was_followed_by_another_is_still_looked_after(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = QUIET
    async with SocketNetwork(FAST) as network, trio.open_nursery() as nursery:
        victim = await opened(network, "victim", TCP, trusted=[FRIEND.endpoint("friend", "tcp://127.0.0.1:1")])
        attacker = await connect(victim, FRIEND)  # it never says goodbye
        closed = trio.Event()

        async def close() -> None:
            await victim.aclose()
            closed.set()

        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        assert not closed.is_set()
        again = await opened(network, "victim", TCP)
        with trio.fail_after(10):
            await closed.wait()
        await again.aclose()
        await attacker.stream.aclose()


async def test_what_was_not_in_line_yet_is_owed_no_answer_after_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"uds://{tmp_path}/victim"
    async with SocketNetwork(FAST) as network, SocketNetwork(FAST) as elsewhere:
        victim = await opened(network, "victim", address, work_lane=1)
        sender = await opened(elsewhere, "sender", TCP, trusted=[victim.endpoint()], patience=60.0)
        victim.trust(sender.endpoint())
        receipts = [await sender.send(sender.envelope(victim.peer_id, "first"))]
        await wait_all_tasks_blocked(QUIET)
        station = victim._station
        spawn, pumps = station.spawn, trio.Event()

        def close(call: Any, *arguments: Any) -> None:
            # The task that puts the second in line was started, and has not run.
            spawn(call, *arguments)
            station.leave(victim)
            victim.inbox.close()
            pumps.set()

        monkeypatch.setattr(station, "spawn", close)
        receipts.append(await sender.send(sender.envelope(victim.peer_id, "second")))
        await pumps.wait()
        await victim.aclose()
        again = await opened(network, "victim", address)
        again.trust(sender.endpoint())
        with trio.fail_after(10):
            assert [await admit(again), await admit(again)] == ["first", "second"]
        assert [await settled(receipt) for receipt in receipts] == [None, None]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("committed", [False, True])
async def test_what_is_claimed_when_its_side_closes_keeps_its_place(tmp_path: Path, cut: bool, committed: bool) -> None:
    address = f"uds://{tmp_path}/victim"
    async with SocketNetwork(FAST) as network, SocketNetwork(FAST) as elsewhere:
        victim = await opened(network, "victim", address)
        sender = await opened(elsewhere, "sender", TCP, trusted=[victim.endpoint()], patience=60.0)
        victim.trust(sender.endpoint())
        first = await sender.send(sender.envelope(victim.peer_id, "first"))
        with await victim.claim() as claim:
            await victim.aclose()
            second = await sender.send(sender.envelope(victim.peer_id, "second"))
            for _ in range(2):
                again = await opened(network, "victim", address)
                again.trust(sender.endpoint())
                # Connections end, as they do: the next carries twins to the instance that is there now.
                for connection in list(victim._station.connections) if cut else ():
                    connection.scope.cancel()
                await wait_all_tasks_blocked(QUIET)
                await again.aclose()
            again = await opened(network, "victim", address)
            again.trust(sender.endpoint())
            await wait_all_tasks_blocked(QUIET)
            assert first.reason is None
            if committed:
                claim.commit()
        with trio.fail_after(20):
            bodies = [await admit(again) for _ in range(1 if committed else 2)]
        assert bodies == (["second"] if committed else ["first", "second"])
        assert [await settled(each) for each in (first, second)] == [None, None]


async def test_who_is_closing_does_not_call_its_peers_strangers(tmp_path: Path) -> None:
    address = f"uds://{tmp_path}/victim"
    async with SocketNetwork(FAST) as network, SocketNetwork(FAST) as elsewhere, trio.open_nursery() as nursery:
        victim = await opened(network, "victim", address)
        sender = await opened(elsewhere, "sender", TCP, trusted=[victim.endpoint()], patience=60.0)
        introduce(victim, sender)
        await victim.send(victim.envelope(sender.peer_id, "nobody claims it"))
        await wait_all_tasks_blocked(QUIET)
        # It waits for the answer to that, for a while.
        nursery.start_soon(victim.aclose)
        await wait_all_tasks_blocked()
        receipt = await sender.send(sender.envelope(victim.peer_id, "late " + "x" * 10_000))
        await wait_all_tasks_blocked(QUIET)
        again = await opened(network, "victim", address)
        again.trust(sender.endpoint())
        assert (await admit(again)).startswith("late")
        assert await settled(receipt) is None


# --- the network's end


async def test_leaving_by_an_exception_settles_and_wakes_everybody() -> None:
    receipts: list[Receipt] = []
    ended: list[str] = []

    async def claim(comms: SocketComms) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await comms.claim()
        ended.append("claim")

    async def send(comms: SocketComms) -> None:
        receipts.append(await comms.send(comms.envelope(FRIEND.peer_id, 1)))
        receipts.append(await comms.send(comms.envelope(FRIEND.peer_id, 2)))
        ended.append("send")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyError):
                async with SocketNetwork(SocketLimits(unanswered=1)) as network:
                    endpoint = FRIEND.endpoint("friend", "tcp://127.0.0.1:1")
                    comms = await opened(network, "one", TCP, trusted=[endpoint], patience=60.0)
                    nursery.start_soon(claim, comms)
                    nursery.start_soon(send, comms)
                    await wait_all_tasks_blocked()
                    raise KeyError
            with pytest.raises(trio.ClosedResourceError):
                await comms.send(comms.envelope(FRIEND.peer_id, "late"))
            with pytest.raises(RuntimeError, match="enter the network"):
                await opened(network, "two", TCP)
    assert sorted(ended) == ["claim", "send"]
    assert {await settled(receipt) for receipt in receipts} == {DropReason.CLOSED}


async def test_a_claim_may_be_committed_after_the_networks_end() -> None:
    async with SocketNetwork(FAST) as elsewhere:
        async with SocketNetwork(FAST) as network:
            victim = await opened(network, "victim", TCP)
            sender = await opened(elsewhere, "sender", TCP, trusted=[victim.endpoint()])
            victim.trust(sender.endpoint())
            receipt = await sender.send(sender.envelope(victim.peer_id, "claimed"))
            claim = await victim.claim()
        with claim:
            claim.commit()
        assert await settled(receipt) is DropReason.CLOSED


async def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    async with SocketNetwork(FAST) as network:
        wrong: Any = ["no endpoint"]
        with pytest.raises(TypeError, match="PeerEndpoint"):
            await opened(network, "victim", f"uds://{tmp_path}/victim", trusted=wrong)
        assert list(tmp_path.iterdir()) == []
        await opened(network, "victim", f"uds://{tmp_path}/victim")


async def test_an_address_that_is_shared_stays_while_somebody_listens_there() -> None:
    async with SocketNetwork(FAST) as network, SocketNetwork(FAST) as elsewhere:
        victim = await opened(network, "victim", TCP)
        (address,) = victim.listens_at
        standby = await opened(network, "victim", address)
        victim.stop_listening(address)
        sender = await opened(elsewhere, "sender", TCP, trusted=[standby.endpoint()])
        introduce(victim, sender)
        receipt = await sender.send(sender.envelope(victim.peer_id, "here"))
        await admit(victim)
        assert await settled(receipt) is None
        standby.stop_listening(address)
        assert victim._station.listening == {}


# --- what hostile peers would do with it


async def test_one_connection_too_many_does_not_end_the_network(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = QUIET
    async with SocketNetwork(SocketLimits(max_per_peer=1, stranger_pause=1.0)) as network:
        victim = await opened(network, "victim", TCP)
        first = await connect(victim, STRANGER)
        await first.write(first.bundle(victim, first.envelope(victim)))
        await first.answers(1)
        # Its next reading is in a pause when the goodbye is written.
        second = await connect(victim, STRANGER)
        await trio.sleep(2.0)
        await first.stream.aclose()
        await second.stream.aclose()


async def test_strangers_whose_commands_wait_for_room_are_forgotten_too() -> None:
    async with SocketNetwork(FAST) as network:
        victim = await opened(network, "victim", TCP, control_lane=1)
        command: dict[str, Any] = {"kind": EnvelopeKind.REQUEST, "intent": BRIDGE_INTENT, "correlation": "c"}
        for number in range(3):
            attacker = await connect(victim, Identity(bytes((number + 1,)) * 32))
            await attacker.write(attacker.bundle(victim, *(attacker.envelope(victim, n, **command) for n in range(3))))
            await attacker.frame()
            await attacker.stream.aclose()
        await wait_all_tasks_blocked(QUIET)
        for _ in range(9):
            await admit(victim)
        await wait_all_tasks_blocked(QUIET)
        assert victim._station.correspondents == {}
        assert victim._station._owed == 0


# --- full in both directions


async def test_large_messages_that_wait_for_room_do_not_stop_the_answers_behind_them() -> None:
    bounds = SocketLimits(held_bytes=256 * 1024, linger=0.1)
    async with SocketNetwork(bounds) as here, SocketNetwork(bounds) as there, trio.open_nursery() as nursery:
        worker = await opened(here, "worker", TCP, work_lane=1, patience=60.0)
        boss = await opened(there, "boss", TCP, patience=60.0)
        introduce(worker, boss)

        async def give_work() -> None:
            for number in range(200):
                await boss.send(boss.envelope(worker.peer_id, [number, "x" * 100_000]))

        nursery.start_soon(give_work)
        for number in range(200):
            with await worker.claim() as claim:
                if number in {0, 5}:
                    await wait_all_tasks_blocked(QUIET)
                    # It goes on once it was heard.
                    note = worker.envelope(boss.peer_id, "wait", kind=EnvelopeKind.PEER_ADDED)
                    receipt = await worker.send(note)
                    assert await admit(boss) == "wait"
                    assert await settled(receipt) is None
                assert claim.envelope.body[0] == number
                claim.commit()


async def test_answers_that_nobody_reads_are_not_heaped_up() -> None:
    async with SocketNetwork(SocketLimits(linger=0.1)) as network:
        victim = await opened(network, "victim", TCP, trusted=[FRIEND.endpoint("friend", "tcp://127.0.0.1:1")])
        attacker = await connect(victim, FRIEND)
        envelopes = [attacker.envelope(victim, id=str(n).ljust(250, ".")) for n in range(64)]
        bad = seal(FRIEND, STRANGER.public_key, [encode_envelope(each, 0) for each in envelopes])
        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    for _ in range(5_000):
                        await attacker.write(bad)

                nursery.start_soon(write)
                await wait_all_tasks_blocked(QUIET)
                (connection,) = victim._station.connections
                assert len(connection._answers) < 10_000
                nursery.cancel_scope.cancel()
        await attacker.stream.aclose()


async def test_a_listener_that_breaks_is_not_advertised_and_its_address_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(_: trio.SocketListener) -> trio.SocketStream:
        raise OSError(errno.EINVAL, "it broke")

    async with SocketNetwork(FAST) as network:
        with monkeypatch.context() as patch:
            patch.setattr(trio.SocketListener, "accept", breaks)
            victim = await opened(network, "victim", TCP)
            address = victim.advertised_address
            await wait_all_tasks_blocked(QUIET)
        assert "listens no longer" in caplog.text
        assert victim.advertised_address.scheme == "inproc"
        assert await victim.listen(address) == address == victim.advertised_address


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_comms_runtime_that_cannot_be_made_leaves_nothing_open(tmp_path: Path, is_open: bool) -> None:
    class Broken(SocketComms):
        def __init__(self, *_: Any) -> None:
            raise LookupError("no such thing")

    address = f"uds://{tmp_path}/victim"
    async with SocketNetwork(FAST) as network:
        before = [await opened(network, "victim", TCP)] if is_open else []
        with pytest.raises(LookupError):
            await opened(network, "victim", address, kind=Broken)
        assert not (tmp_path / "victim").exists()
        assert [list(each.instances) for each in network._all_stations] == [before] * is_open
        assert address not in {each for station in network._all_stations for each in station.listening}
        again = await opened(network, "victim", address)
        assert again.listens_at == {address}
