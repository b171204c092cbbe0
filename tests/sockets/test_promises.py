"""What the docs promise of sockets, one promise at a time, with a peer that is played by hand.

Time is virtual: it goes on where nothing else does, so that who waits for nothing is found out at once.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meerkat_trio import DropReason, EnvelopeKind, ReceiptStatus, TrustSource
from meerkat_trio.authority import Lane
from meerkat_trio.comms import Identity, SocketComms, SocketLimits, SocketNetwork
from meerkat_trio.comms import _station as station
from meerkat_trio.comms._bundle import Bundle, seal
from meerkat_trio.comms._envelope import encode_envelope
from meerkat_trio.comms._frames import Answer, Bye, ByeCode, Receipts
from meerkat_trio.comms._prefix import frame

from .attacker import FRIEND, HELLO, QUIET, STRANGER, Attacker, connect
from .rig import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from meerkat_trio import Receipt

TCP = "tcp://127.0.0.1:0"
NOBODY = "tcp://127.0.0.1:1"
FRIEND_THERE = FRIEND.endpoint("friend", NOBODY)
OTHER = Identity(b"other".ljust(32, b"."))


class Stage:
    """The side that keeps its promises, and the connections to it."""

    def __init__(self, network: SocketNetwork, comms: SocketComms) -> None:
        self.network = network
        self.comms = comms
        self.attackers: list[Attacker] = []
        self.receipts: list[Receipt] = []

    async def attack(self, identity: Identity = FRIEND, *, shake_hands: bool = True) -> Attacker:
        attacker = await connect(self.comms, identity, shake_hands=shake_hands)
        self.attackers.append(attacker)
        return attacker

    def send(self, *bodies: Any, kind: EnvelopeKind = EnvelopeKind.MESSAGE, size: int = 0) -> None:
        """Send to the friend; each id is that of the body, and each body as long as it is asked to be."""
        for body in bodies:
            envelope = self.comms.envelope(FRIEND.peer_id, [body, "x" * size], kind=kind, id=f"id {body}")
            self.receipts.append(self.comms.send_nowait(envelope))

    async def admit(self) -> Any:
        with await self.comms.claim() as claim:
            claim.commit()
            return claim.envelope.body


@asynccontextmanager
async def stage(
    clock: MockClock, *, within: float = 25.0, wall: list[float] | None = None, **bounds: Any
) -> AsyncIterator[Stage]:
    """Open the side, which trusts the friend; whoever waits for ``within`` seconds of virtual time waits in vain."""
    clock.autojump_threshold = QUIET
    lanes = {key: bounds.pop(key) for key in ("work_lane", "patience") if key in bounds}
    options: dict[str, Any] = {} if wall is None else {"wall_clock": lambda: wall[0]}
    limits = SocketLimits(**{"linger": 0.1, "first_backoff": 1.0, **bounds})
    async with SocketNetwork(limits, **options) as network:
        comms = await opened(network, "victim", TCP, trusted=[FRIEND_THERE], **{"patience": 60.0, **lanes})
        it = Stage(network, comms)
        try:
            with trio.fail_after(within):
                yield it
        finally:
            for attacker in it.attackers:
                await attacker.stream.aclose()


async def bundle(attacker: Attacker) -> Bundle:
    """Read the next bundle; answers are passed over."""
    while not isinstance(found := await attacker.frame(), Bundle):
        assert found is not None
    return found


async def carried(attacker: Attacker, count: int) -> list[bytes]:
    """Read so many envelopes, in however many bundles."""
    parts: list[bytes] = []
    while len(parts) < count:
        parts += (await bundle(attacker)).parts
    return parts


def ids(parts: list[bytes] | tuple[bytes, ...]) -> list[str]:
    return [header.id for header in Bundle(b"", b"", b"", tuple(parts)).headers()]


async def answer(attacker: Attacker, *answers: Answer) -> None:
    for data in attacker.link.seal(answers):
        await attacker.write(data)


def acked(message_id: str) -> Answer:
    return Answer(message_id, ReceiptStatus.QUEUED)


async def told(attacker: Attacker) -> list[ReceiptStatus]:
    """Read the next answers, acks among them."""
    found = await attacker.frame()
    assert isinstance(found, Receipts)
    return [each.status for each in attacker.link.open(found)]


async def is_silent(attacker: Attacker) -> bool:
    """Say whether nothing comes any more."""
    with trio.move_on_after(0.5) as scope:
        await attacker.frame()
    return scope.cancelled_caught


# --- what is sent


async def test_what_has_no_answer_is_sent_again_over_the_newest_connection_in_the_old_order(
    autojump_clock: MockClock,
) -> None:
    async with stage(autojump_clock) as it:
        first = await it.attack()
        it.send(*range(5), size=2_500)
        # The others wait for an answer: no connection has carried them.
        sent = (await bundle(first)).parts
        assert ids(sent) == ["id 0", "id 1"]
        second = await it.attack()
        again = await carried(second, 2)
        await answer(second, acked("id 0"))
        again += await carried(second, 3)
        assert ids(again) == [f"id {number}" for number in range(5)]
        assert again[:2] == list(sent)
        await answer(second, *(Answer(f"id {number}") for number in range(5)))
        for receipt in it.receipts:
            await receipt.wait()
        assert {receipt.status for receipt in it.receipts} == {ReceiptStatus.ADMITTED}


async def test_when_the_newest_connection_ends_the_one_before_it_carries_on(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        first, second = await it.attack(), await it.attack()
        it.send("once")
        sent = await carried(second, 1)
        await second.stream.aclose()
        assert await carried(first, 1) == sent


async def test_an_ack_is_no_answer(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        attacker = await it.attack()
        it.send("first", "second")
        await carried(attacker, 2)
        (first, second) = it.receipts
        await answer(attacker, acked("id first"), Answer("id second", ReceiptStatus.DROPPED, DropReason.INBOX_FULL))
        await second.wait()
        assert second.reason is DropReason.INBOX_FULL
        assert first.status is ReceiptStatus.QUEUED
        await answer(attacker, Answer("id first"))
        await first.wait()
        assert first.status is ReceiptStatus.ADMITTED


async def test_until_it_is_trusted_a_side_sends_one_small_bundle_at_a_time(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        attacker = await it.attack()
        it.send(*range(8), size=2_500)
        sent: list[bytes] = []
        for _ in range(2):
            parts = (await bundle(attacker)).parts
            assert sum(map(len, parts)) <= 6 * 1024
            assert await is_silent(attacker)
            sent += parts
            # Not even a stranger would get another answer.
            untrusted = ReceiptStatus.DROPPED, DropReason.UNTRUSTED_SENDER
            await answer(attacker, *(Answer(each, *untrusted) for each in ids(parts)))
        parts = (await bundle(attacker)).parts
        await answer(attacker, acked(ids(parts)[0]))
        rest = (await bundle(attacker)).parts
        assert ids([*sent, *parts, *rest]) == [f"id {number}" for number in range(8)]


async def test_half_of_what_the_other_side_holds_is_on_its_way_in_one_lane(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, held_bytes=40_000) as it:
        attacker = await it.attack()
        it.send(*range(3), kind=EnvelopeKind.PEER_ADDED, size=9_000)
        parts = await carried(attacker, 1)
        await answer(attacker, acked("id 0"))
        parts += await carried(attacker, 1)
        assert await is_silent(attacker)
        # The other lane goes on.
        it.send("work")
        assert ids(await carried(attacker, 1)) == ["id work"]
        await answer(attacker, Answer("id 0"))
        parts += await carried(attacker, 1)
        assert ids(parts) == ["id 0", "id 1", "id 2"]


async def test_what_has_waited_for_room_is_issued_when_it_is_accepted(autojump_clock: MockClock) -> None:
    wall = [1_700_000_000.0]
    async with stage(autojump_clock, wall=wall, unanswered=1) as it, trio.open_nursery() as nursery:
        attacker = await it.attack()
        it.send("first")
        await carried(attacker, 1)
        nursery.start_soon(it.comms.send, it.comms.envelope(FRIEND.peer_id, "second"))
        await wait_all_tasks_blocked()
        # Issued when it came it would be of no use to anybody.
        wall[0] += 400.0
        await answer(attacker, Answer("id first"))
        (header,) = (await bundle(attacker)).headers()
        assert header.issued_at == wall[0] * 1000


async def test_what_nobody_takes_within_its_time_is_expired(autojump_clock: MockClock) -> None:
    wall = [1_700_000_000.0]
    async with stage(autojump_clock, wall=wall, patience=math.inf) as it:
        it.send("old")
        (receipt,) = it.receipts
        wall[0] += 300.0
        await trio.sleep(5.0)
        assert receipt.status is ReceiptStatus.QUEUED
        wall[0] += 1.0
        await receipt.wait()
        assert receipt.reason is DropReason.EXPIRED
        # With the same id, for whether the other side has had it is not known.
        it.send("old")
        assert it.receipts[-1].status is ReceiptStatus.QUEUED


async def test_who_waits_for_room_at_a_peer_that_is_not_found_is_told(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, unanswered=1, patience=1.0) as it:
        it.send("accepted")
        it.receipts.append(await it.comms.send(it.comms.envelope(FRIEND.peer_id, "parked")))
        for receipt in it.receipts:
            await receipt.wait()
        assert {receipt.reason for receipt in it.receipts} == {DropReason.CLOSED}


async def accepted(listener: trio.SocketListener) -> Attacker:
    """Be connected to, as the friend."""
    return await Attacker(await listener.accept(), FRIEND).shake_hands(connects=False)


async def test_patience_begins_anew_with_each_connection_that_was_of_use(autojump_clock: MockClock) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, stage(autojump_clock, patience=5.0) as it:
        port = listener.socket.getsockname()[1]
        it.comms.trust(FRIEND.endpoint("friend", f"tcp://127.0.0.1:{port}"))
        it.send("first")
        attacker = await accepted(listener)
        async with attacker.stream:
            await carried(attacker, 1)
            await answer(attacker, Answer("id first"))
            await trio.sleep(10.0)
            it.send("second")
            sent = await carried(attacker, 1)
        again = await accepted(listener)
        async with again.stream:
            assert await carried(again, 1) == sent


async def test_an_attempt_to_connect_ends_in_time(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "connect", lambda _: trio.sleep_forever())
    async with stage(autojump_clock, patience=1.0, connect_timeout=5.0) as it:
        it.send("nobody is there")
        (receipt,) = it.receipts
        await receipt.wait()
        assert receipt.reason is DropReason.CLOSED


# --- what comes


async def test_an_answer_goes_over_each_connection_by_which_a_twin_has_come(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        attackers = [await it.attack() for _ in range(3)]
        recorded = attackers[0].bundle(it.comms, attackers[0].envelope(it.comms, "once"))
        for attacker in attackers:
            await attacker.write(recorded)
            assert await told(attacker) == [ReceiptStatus.QUEUED]
        first, *others = attackers
        await first.stream.aclose()
        assert await it.admit() == "once"
        for attacker in others:
            assert await told(attacker) == [ReceiptStatus.ADMITTED]


async def test_a_full_lane_stops_neither_answers_nor_the_other_lane(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, work_lane=1) as it:
        attacker = await it.attack()
        work = [attacker.envelope(it.comms, number) for number in range(4)]
        await attacker.write(attacker.bundle(it.comms, *work))
        assert set(await told(attacker)) == {ReceiptStatus.QUEUED}
        it.send("question")
        await carried(attacker, 1)
        await answer(attacker, Answer("id question"))
        await it.receipts[0].wait()
        note = attacker.envelope(it.comms, "note", kind=EnvelopeKind.PEER_ADDED)
        await attacker.write(attacker.bundle(it.comms, note))
        with await it.comms.claim(lanes=frozenset({Lane.CONTROL})) as claim:
            assert claim.envelope.body == "note"
            claim.commit()
        assert [await it.admit() for _ in work] == [0, 1, 2, 3]


@pytest.mark.parametrize("bounds", [{"held_envelopes": 2}, {"held_bytes": 150_000}])
async def test_who_sends_more_than_there_is_room_for_is_not_read(
    autojump_clock: MockClock, bounds: dict[str, Any]
) -> None:
    async with stage(autojump_clock, work_lane=1, **bounds) as it, trio.open_nursery() as nursery:
        attacker = await it.attack()
        many = [[number, "x" * 100_000] for number in range(30)]

        async def write() -> None:
            for body in many:
                await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms, body, id=f"id {body[0]}")))

        nursery.start_soon(write)
        await wait_all_tasks_blocked(QUIET)
        assert it.comms._station.correspondents[FRIEND.peer_id].held == 2
        assert [await it.admit() for _ in many] == many


async def test_what_comes_while_its_side_closes_is_not_answered(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, linger=5.0) as it, trio.open_nursery() as nursery:
        attacker = await it.attack()
        # It is waited for, so that the connection stays for a while.
        it.send("question")
        await carried(attacker, 1)
        nursery.start_soon(it.comms.aclose)
        await wait_all_tasks_blocked()
        await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms, "late")))
        frames = [await attacker.frame()]
        while frames[-1] is not None:
            frames.append(await attacker.frame())
        assert [type(each) for each in frames[:-1]] == [Bye]


async def test_what_is_admitted_is_answered_before_the_goodbye(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        attacker = await it.attack()
        await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms)))
        assert await told(attacker) == [ReceiptStatus.QUEUED]
        await it.admit()
        # At once: the answer is not written yet.
        await it.comms.aclose()
        assert await told(attacker) == [ReceiptStatus.ADMITTED]
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.CLOSED


async def test_who_is_opened_again_is_not_read_before_the_open_claim_is_decided(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        attacker = await it.attack()
        bodies = ["first", "second"]
        first, second = (attacker.envelope(it.comms, body) for body in bodies)
        await attacker.write(attacker.bundle(it.comms, first))
        with await it.comms.claim():
            await it.comms.aclose()
            it.comms = await opened(it.network, "victim", TCP, trusted=[FRIEND_THERE])
            again = await it.attack()
            await again.write(again.bundle(it.comms, first, second))
            await wait_all_tasks_blocked(QUIET)
            assert it.comms.statistics().work_waiting == 0
        assert [await it.admit() for _ in bodies] == bodies
        assert [each.reason for each in await again.answers(2)] == [None, None]


# --- who may send


async def test_an_edge_that_is_removed_counts_for_the_next_bundle(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        attacker = await it.attack()
        await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms, "x" * 9_000, id="before")))
        await it.admit()
        assert [each.reason for each in await attacker.answers(1)] == [None]
        await it.comms.remove_trusted_peer(FRIEND.peer_id, TrustSource.MANUAL)
        await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms, "after")))
        assert [each.reason for each in await attacker.answers(1)] == [DropReason.UNTRUSTED_SENDER]
        await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms, "x" * 9_000, id="large")))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED


async def test_who_is_trusted_may_not_speak_for_another_who_is(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock) as it:
        it.comms.trust(OTHER.endpoint("other", NOBODY))
        friend, other = await it.attack(), await it.attack(OTHER)
        await other.write(friend.bundle(it.comms, friend.envelope(it.comms)))
        bye = await other.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED
        assert it.comms.statistics().work_waiting == 0


async def test_a_stranger_is_read_slowly(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, within=200.0, stranger_pause=10.0) as it:
        attacker = await it.attack(STRANGER)
        began = trio.current_time()
        for number in range(5):
            await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms, number)))
            assert [each.reason for each in await attacker.answers(1)] == [DropReason.UNTRUSTED_SENDER]
        assert trio.current_time() - began >= 40.0


# --- who is not waited for


async def test_who_says_nothing_at_first_is_left(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, first_frame_timeout=5.0, handshake_timeout=100.0) as it:
        attacker = await it.attack(shake_hands=False)
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.TIMEOUT


async def test_who_does_not_end_the_handshake_is_left(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, handshake_timeout=10.0) as it:
        attacker = await it.attack(shake_hands=False)
        await attacker.write(frame(HELLO))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.TIMEOUT


async def test_who_does_not_read_is_cut(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, write_timeout=5.0) as it:
        attacker = await it.attack()
        # For somebody else, so that each is answered at once.
        envelopes = [attacker.envelope(it.comms, id=str(number).ljust(250, ".")) for number in range(64)]
        bad = seal(FRIEND, STRANGER.public_key, [encode_envelope(each, 0) for each in envelopes])
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await attacker.stream.send_all(bad)


async def test_who_does_not_answer_is_cut_and_it_is_sent_elsewhere(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, receipt_timeout=10.0) as it:
        first, second = await it.attack(), await it.attack()
        it.send("once")
        sent = await carried(second, 1)
        assert await second.end() is None
        assert await carried(first, 1) == sent


async def test_who_owes_an_answer_says_so_at_once_and_now_and_then(autojump_clock: MockClock) -> None:
    async with stage(autojump_clock, within=100.0) as it:
        attacker = await it.attack()
        await attacker.write(attacker.bundle(it.comms, attacker.envelope(it.comms)))
        for patience in (1.0, 15.0, 15.0):
            with trio.fail_after(patience):
                assert await told(attacker) == [ReceiptStatus.QUEUED]


async def test_a_connection_with_nothing_to_do_is_closed_and_the_next_envelope_makes_a_new_one(
    autojump_clock: MockClock,
) -> None:
    async with stage(autojump_clock, idle_timeout=10.0) as it:
        attacker = await it.attack()
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.DONE
        await attacker.stream.aclose()
        it.send("more")
        again = await it.attack()
        assert ids(await carried(again, 1)) == ["id more"]
