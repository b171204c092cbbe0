"""Whatever connects: it is refused, nothing of it is admitted, and honest peers are served meanwhile."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meerkat_trio import (
    BindMember,
    DeliverMemberInput,
    DropReason,
    EnvelopeKind,
    ReceiptStatus,
    SessionRun,
    TrustSource,
    open_machine,
)
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.comms import Identity, SocketLimits, SocketNetwork
from meerkat_trio.comms import _bundle as bundles
from meerkat_trio.comms._cbor import BYTES, write_head
from meerkat_trio.comms._envelope import Header, encode_envelope
from meerkat_trio.comms._frames import Answer, ByeCode, Receipts, encode_hello, encode_receipts
from meerkat_trio.comms._prefix import PREFIX, VERSION, frame

from .attacker import FRIEND, HELLO, QUIET, STRANGER, Attacker, Scene, connect, scene
from .crowd import crowd, crowd_arguments
from .rig import opened

GARBAGE = bytes(range(1, 256)) * 40
FRIEND_THERE = FRIEND.endpoint("friend", "tcp://127.0.0.1:1")


class Clock:
    """A clock on the wall that is set by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._began = 1_700_000_000.0

    def __call__(self) -> float:
        return self._began + self.ahead

    @property
    def milliseconds(self) -> int:
        return int(self() * 1000)


@pytest.mark.parametrize(
    "data",
    [
        b"\x02" + bytes(40),
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        PREFIX.pack(VERSION, 513),
        PREFIX.pack(VERSION, 0xFFFFFFFF),
        PREFIX.pack(VERSION, 2) + b"\x83\x09",
        PREFIX.pack(VERSION, 100) + b"\x85\x03" + bytes(98),
        frame(b"\x83\x01", b"\x58\x20", bytes(32), b"\x58\x20", bytes(32)),
        GARBAGE,
    ],
    ids=["version", "http", "too long", "endless", "type", "bundle", "no key", "garbage"],
)
async def test_what_is_no_handshake_is_refused(data: bytes) -> None:
    async with scene() as it:
        attacker = await it.attack(shake_hands=False)
        await attacker.write(data)
        bye = await attacker.end()
        assert bye is None or bye.code == ByeCode.REFUSED
        await it.honest_is_served()


@pytest.mark.parametrize(
    "piece", [b"", b"\x01", PREFIX.pack(VERSION, 100) + b"\x83\x01\x58"], ids=["nothing", "a byte", "half"]
)
async def test_a_handshake_that_does_not_go_on_ends_in_time(piece: bytes) -> None:
    async with scene(first_frame_timeout=0.05, handshake_timeout=0.1) as it:
        attacker = await it.attack(shake_hands=False)
        await attacker.write(piece)
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.TIMEOUT


async def test_a_handshake_without_a_proof_ends_in_time() -> None:
    async with scene(first_frame_timeout=0.05, handshake_timeout=0.1) as it:
        attacker = await it.attack(shake_hands=False)
        await attacker.write(frame(HELLO))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.TIMEOUT


async def test_a_proof_of_another_key_is_refused() -> None:
    async with scene() as it:
        attacker = await it.attack(shake_hands=False)
        await attacker.write(frame(HELLO) + frame(b"\x82\x02\x58\x40", STRANGER.sign(b"anything")))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED


async def test_a_byte_at_a_time_is_a_frame_in_the_end() -> None:
    async with scene() as it:
        attacker = await it.attack()
        for byte in attacker.bundle(it.victim, attacker.envelope(it.victim, "slow")):
            await attacker.stream.send_all(bytes((byte,)))
        (answer,) = await attacker.answers(1)
        assert answer.reason is None
        assert it.strangely_admitted == ["slow"]


async def test_a_frame_that_does_not_come_whole_admits_nothing() -> None:
    async with scene() as it:
        attacker = await it.attack()
        await attacker.write(attacker.bundle(it.victim, attacker.envelope(it.victim))[:-1])
        await attacker.stream.send_eof()
        await attacker.end()
        assert it.strangely_admitted == []


async def test_who_never_reads_is_cut() -> None:
    async with scene(write_timeout=0.05) as it:
        attacker = await it.attack()
        number = 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                number += 1
                envelopes = [attacker.envelope(it.victim, id=f"{number}-{n}".ljust(250, ".")) for n in range(64)]
                # For somebody else, so that each is answered at once; the answers are never read.
                await attacker.stream.send_all(
                    bundles.seal(FRIEND, STRANGER.public_key, [encode_envelope(each, 0) for each in envelopes])
                )
        assert it.strangely_admitted == []


@pytest.mark.parametrize("how", ["forged", "stripped", "moved"])
async def test_a_signature_that_is_not_good_admits_nothing(how: str) -> None:
    async with scene() as it:
        attacker = await it.attack()
        data = bytearray(attacker.bundle(it.victim, attacker.envelope(it.victim)))
        at = PREFIX.size + 72
        if how == "forged":
            data[at] ^= 1
        elif how == "stripped":
            data[at : at + 64] = bytes(64)
        else:
            other = attacker.bundle(it.victim, attacker.envelope(it.victim, "other"))
            data[at : at + 64] = other[at : at + 64]
        await attacker.write(bytes(data))
        (answer,) = await attacker.answers(1)
        assert answer.reason is DropReason.BAD_SIGNATURE
        assert it.strangely_admitted == []


async def test_a_bundle_for_somebody_else_is_answered_so() -> None:
    async with scene() as it:
        attacker = await it.attack()
        now = int(time.time() * 1000)
        data = bundles.seal(FRIEND, STRANGER.public_key, [encode_envelope(attacker.envelope(it.victim), now)])
        await attacker.write(data)
        (answer,) = await attacker.answers(1)
        assert answer.reason is DropReason.WRONG_RECIPIENT
        assert it.strangely_admitted == []


async def test_a_bundle_in_another_name_ends_the_connection() -> None:
    async with scene() as it:
        recorded = (await it.attack()).bundle(it.victim, (await it.attack()).envelope(it.victim))
        attacker = await it.attack(STRANGER)
        await attacker.write(recorded)
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED
        assert it.strangely_admitted == []


async def test_d23_a_recorded_bundle_is_admitted_once_and_answered_as_the_first_time() -> None:
    async with scene() as it:
        attacker = await it.attack()
        recorded = attacker.bundle(it.victim, attacker.envelope(it.victim, "once"))
        for _ in range(2):
            await attacker.write(recorded)
            (answer,) = await attacker.answers(1)
            assert answer.reason is None
        again = await it.attack()
        await again.write(recorded)
        (answer,) = await again.answers(1)
        assert answer.reason is None
        assert it.strangely_admitted == ["once"]


@pytest.mark.parametrize(
    ("age", "reason"), [(310, DropReason.EXPIRED), (290, None), (-50, None), (-70, DropReason.EXPIRED)]
)
async def test_clocks_may_differ_by_so_much(age: float, reason: DropReason | None) -> None:
    async with scene() as it:
        attacker = await it.attack()
        issued_at = int((time.time() - age) * 1000)
        await attacker.write(attacker.bundle(it.victim, attacker.envelope(it.victim), issued_at=issued_at))
        (answer,) = await attacker.answers(1)
        assert answer.reason is reason


def _with_body(body: bytes) -> bytes:
    """Encode an envelope by hand, around a body that no honest peer would send."""
    header = [b"\x62id", b"\x01", b"\x01", b"\xf6", b"\xf6", b"\xf6", b"\x1b" + int(time.time() * 1000).to_bytes(8)]
    return b"\x88" + b"".join(header) + write_head(BYTES, len(body)) + body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x81" * 5_000 + b"\x00", DropReason.MALFORMED),
        (b"\xa2\x61a\x01\x61a\x02", DropReason.MALFORMED),
        (b"\x9f\x01\xff", DropReason.MALFORMED),
        (b"\xc1\x00", DropReason.MALFORMED),
        (b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00", DropReason.MALFORMED),
        (b"\x81\x00" * 40_000, DropReason.MALFORMED),
        (cbor2.dumps([0] * 70_000), DropReason.OVERSIZE),
        (b"", DropReason.MALFORMED),
    ],
)
async def test_a_body_that_is_no_body_is_refused(body: bytes, reason: DropReason) -> None:
    async with scene() as it:
        attacker = await it.attack()
        await attacker.write(bundles.seal(FRIEND, it.victim.public_key, [_with_body(body)]))
        (answer,) = await attacker.answers(1)
        assert answer.reason is reason
        assert it.strangely_admitted == []


async def test_an_unknown_kind_ends_the_connection() -> None:
    async with scene() as it:
        attacker = await it.attack()
        part = bytearray(_with_body(b"\x00"))
        part[5] = 9
        await attacker.write(bundles.seal(FRIEND, it.victim.public_key, [bytes(part)]))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED


async def test_receipts_that_the_other_side_did_not_make_end_the_connection() -> None:
    async with scene() as it:
        attacker = await it.attack()
        await attacker.write(encode_receipts(Receipts(bytes(16), cbor2.dumps(["id", 1]))))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED


async def test_a_second_hello_ends_the_connection() -> None:
    async with scene() as it:
        attacker = await it.attack()
        await attacker.write(frame(HELLO))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED


async def test_a_stranger_is_refused_without_a_look_at_signature_or_body(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as it:
        attacker = await it.attack(STRANGER)
        data = attacker.bundle(it.victim, *(attacker.envelope(it.victim, number) for number in range(10)))
        looked: list[Any] = []
        monkeypatch.setattr(bundles.Bundle, "is_signed", looked.append)
        monkeypatch.setattr(Header, "envelope", looked.append)
        await attacker.write(data)
        answers = await attacker.answers(10)
        assert {answer.reason for answer in answers} == {DropReason.UNTRUSTED_SENDER}
        assert looked == []
        monkeypatch.undo()
        assert it.strangely_admitted == []


async def test_a_strangers_commands_are_small_and_not_many() -> None:
    async with scene() as it:
        attacker = await it.attack(STRANGER)
        command: dict[str, Any] = {"kind": EnvelopeKind.REQUEST, "intent": BRIDGE_INTENT, "correlation": "c"}
        large = attacker.envelope(it.victim, "x" * 5_000, id="large", **command)
        await attacker.write(attacker.bundle(it.victim, large))
        (answer,) = await attacker.answers(1)
        assert answer.reason is DropReason.OVERSIZE
        for start in range(0, 120, 40):
            few = [attacker.envelope(it.victim, n, **command) for n in range(start, start + 40)]
            await attacker.write(attacker.bundle(it.victim, *few))
        reasons = {answer.id: answer.reason for answer in await attacker.answers(120)}
        # How many more than the burst get through depends on how long this takes.
        assert {reasons[f"id {number}"] for number in range(64)} == {None}
        assert set(reasons.values()) == {None, DropReason.RATE_LIMITED}


async def test_a_strangers_frames_end_where_its_limit_is() -> None:
    async with scene() as it:
        attacker = await it.attack(STRANGER)
        await attacker.write(attacker.bundle(it.victim, attacker.envelope(it.victim, "x" * 9_000, id="large")))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.REFUSED


async def test_connections_without_a_handshake_cost_the_oldest_of_them_its_place() -> None:
    async with scene(max_unproven=8) as it:
        attackers = [await it.attack(shake_hands=False) for _ in range(40)]
        await it.honest_is_served()
        assert await attackers[0].end() is None
        assert it.connections <= 8 + 1


async def test_strangers_cost_the_oldest_of_them_its_place() -> None:
    async with scene(max_strangers=4) as it:
        attackers = [await it.attack(Identity(bytes((number,)) * 32)) for number in range(1, 13)]
        await it.honest_is_served()
        assert await attackers[0].end() is None
        assert it.connections <= 4 + 1


async def test_a_crowd_from_one_host_costs_no_other_host_its_place() -> None:
    async with scene(max_unproven=4, crowd_pause=0.001) as it:
        address = it.victim.advertised_address
        stream = await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]), local_address="127.0.0.2")
        elsewhere = Attacker(stream, FRIEND)
        it.attackers.append(elsewhere)
        crowding = [await it.attack(shake_hands=False) for _ in range(12)]
        assert await crowding[0].end() is None
        await elsewhere.shake_hands()
        await it.honest_is_served()


async def test_in_a_crowd_others_are_taken_in_with_pauses() -> None:
    async with scene(crowd_pause=60.0) as it:
        await it.honest_is_served()
        attackers = [await it.attack(shake_hands=False) for _ in range(10)]
        await wait_all_tasks_blocked(QUIET)
        # The fifth was waited for when the fourth came.
        assert it.connections <= 1 + 5
        await it.honest_is_served()
        for attacker in attackers:
            await attacker.stream.aclose()


async def test_a_peer_has_so_many_connections() -> None:
    async with scene(max_per_peer=2) as it:
        first, *_ = [await it.attack() for _ in range(3)]
        with trio.fail_after(10):
            bye = await first.end()
        assert bye is not None
        assert bye.code == ByeCode.BUSY


async def test_above_all_connections_one_is_turned_away() -> None:
    async with scene(max_connections=2) as it:
        await it.attack()
        second = await it.attack()
        bye = await second.end()
        assert bye is not None
        assert bye.code == ByeCode.BUSY


# --- replays


async def test_d23_a_twin_that_comes_while_the_first_waits_for_room_is_answered_with_it() -> None:
    async with SocketNetwork(SocketLimits(linger=0.1)) as network:
        victim = await opened(network, "victim", "tcp://127.0.0.1:0", trusted=[FRIEND_THERE], work_lane=1)
        first, second = await connect(victim, FRIEND), await connect(victim, FRIEND)
        recorded = first.bundle(victim, *(first.envelope(victim, number) for number in range(3)))
        for attacker in (first, second, first):
            await attacker.write(recorded)
            await wait_all_tasks_blocked(QUIET)
        for number in range(3):
            with await victim.claim() as claim:
                assert claim.envelope.body == number
                claim.commit()
        for attacker in (first, second):
            assert [(each.id, each.reason) for each in await attacker.answers(3)] == [
                (f"id {number}", None) for number in range(3)
            ]
            await attacker.stream.aclose()
        assert victim.statistics().work_waiting == 0
        assert len(victim._station._arrivals) == 3


async def test_d23_a_recorded_bundle_is_of_no_use_once_it_is_forgotten() -> None:
    clock = Clock()
    async with SocketNetwork(SocketLimits(linger=0.1), wall_clock=clock) as network:
        victim = await opened(network, "victim", "tcp://127.0.0.1:0", trusted=[FRIEND_THERE])
        attacker = await connect(victim, FRIEND)
        recorded = attacker.bundle(victim, attacker.envelope(victim, "once"), issued_at=clock.milliseconds)
        await attacker.write(recorded)
        with await victim.claim() as claim:
            claim.commit()
        assert [each.reason for each in await attacker.answers(1)] == [None]
        # As long as it is remembered it is answered as the first time; others push it out when its time is over.
        for age, reason in ((300.0, None), (300.1, None), (360.0, None), (360.1, DropReason.EXPIRED)):
            clock.ahead = age
            other = attacker.envelope(victim, age)
            await attacker.write(attacker.bundle(victim, other, issued_at=clock.milliseconds))
            with await victim.claim() as claim:
                assert claim.envelope.body == age
                claim.commit()
            await attacker.answers(1)
            again = await connect(victim, FRIEND)
            await again.write(recorded)
            assert [each.reason for each in await again.answers(1)] == [reason]
            await again.stream.aclose()
        await attacker.stream.aclose()


@pytest.mark.parametrize(
    ("ahead", "reason"),
    [(300.0, None), (300.001, DropReason.EXPIRED), (-60.0, None), (-60.001, DropReason.EXPIRED)],
)
async def test_the_edges_of_what_clocks_may_differ_by(ahead: float, reason: DropReason | None) -> None:
    clock = Clock()
    async with SocketNetwork(SocketLimits(linger=0.1), wall_clock=clock) as network:
        victim = await opened(network, "victim", "tcp://127.0.0.1:0", trusted=[FRIEND_THERE])
        attacker = await connect(victim, FRIEND)
        issued_at = clock.milliseconds
        clock.ahead = ahead
        await attacker.write(attacker.bundle(victim, attacker.envelope(victim), issued_at=issued_at))
        if reason is None:
            with await victim.claim() as claim:
                claim.commit()
        assert [each.reason for each in await attacker.answers(1)] == [reason]
        assert len(victim._station._arrivals) == (reason is None)
        await attacker.stream.aclose()


async def test_receipts_count_once_and_on_their_own_connection() -> None:
    async with SocketNetwork(SocketLimits(linger=0.1)) as network:
        victim = await opened(network, "victim", "tcp://127.0.0.1:0", trusted=[FRIEND_THERE])
        for replay_on_another in (False, True):
            attacker, other = await connect(victim, FRIEND), await connect(victim, FRIEND)
            (recorded,) = attacker.link.seal([Answer("unknown")])
            await attacker.write(recorded)
            target = other if replay_on_another else attacker
            await target.write(recorded)
            bye = await target.end()
            assert bye is not None
            assert bye.code == ByeCode.REFUSED
            for each in (attacker, other):
                await each.stream.aclose()


async def test_a_peer_can_answer_for_nobody_else() -> None:
    async with SocketNetwork(SocketLimits(linger=0.1)) as network:
        stranger_there = STRANGER.endpoint("stranger", "tcp://127.0.0.1:1")
        victim = await opened(network, "victim", "tcp://127.0.0.1:0", trusted=[FRIEND_THERE, stranger_there])
        friend, other = await connect(victim, FRIEND), await connect(victim, STRANGER)
        receipt = await victim.send(victim.envelope(FRIEND.peer_id, "secret", id="mine"))
        (forged,) = other.link.seal([Answer("mine"), Answer("nobody's")])
        await other.write(forged)
        await wait_all_tasks_blocked(QUIET)
        assert receipt.status is ReceiptStatus.QUEUED
        (told,) = friend.link.seal([Answer("mine", ReceiptStatus.DROPPED, DropReason.INBOX_FULL)])
        await friend.write(told)
        await receipt.wait()
        assert receipt.reason is DropReason.INBOX_FULL
        for each in (friend, other):
            await each.stream.aclose()


# --- trust


async def test_an_edge_that_is_removed_while_a_message_is_on_its_way_counts() -> None:
    handled: list[Any] = []
    inside, go_on = trio.Event(), trio.Event()

    async def handle(run: SessionRun) -> None:
        handled.append(run.message.body)
        inside.set()
        await go_on.wait()

    async with SocketNetwork(SocketLimits(linger=0.1)) as network, open_machine() as machine:
        comms = await opened(network, "victim", "tcp://127.0.0.1:0", trusted=[FRIEND_THERE])
        session = await machine.register("victim", handle, work_queue=1)
        await session.attach_ingress(comms)
        attacker = await connect(comms, FRIEND)
        await attacker.write(attacker.bundle(comms, *(attacker.envelope(comms, number) for number in range(6))))
        await inside.wait()
        await wait_all_tasks_blocked(QUIET)
        assert comms.statistics().work_waiting > 0
        await comms.remove_trusted_peer(FRIEND.peer_id, TrustSource.MANUAL)
        go_on.set()
        reasons = [answer.reason for answer in await attacker.answers(6)]
        await wait_all_tasks_blocked(QUIET)
        assert reasons == [None] * len(handled) + [DropReason.UNTRUSTED_SENDER] * (6 - len(handled))
        assert 0 < len(handled) < 6
        await attacker.write(attacker.bundle(comms, attacker.envelope(comms, "later")))
        assert [each.reason for each in await attacker.answers(1)] == [DropReason.UNTRUSTED_SENDER]
        await attacker.stream.aclose()
        await session.retire()


async def test_a_supervisor_that_nobody_trusts_yet_can_bind() -> None:
    worked_on: list[Any] = []

    async def handle(run: SessionRun) -> None:
        await trio.lowlevel.checkpoint()
        worked_on.append(run.message.body)

    async with SocketNetwork() as here, SocketNetwork() as there, open_machine() as machine:
        member_comms = await opened(here, "member", "tcp://127.0.0.1:0")
        boss_comms = await opened(there, "boss", "tcp://127.0.0.1:0", patience=60.0)
        member = await machine.register("member", handle)
        await member.attach_ingress(member_comms)
        boss = await machine.register("boss")
        await boss.attach_ingress(boss_comms)
        await boss.add_direct_peer(member_comms.endpoint())
        # Before it has bound, nothing else of it counts.
        receipt = await boss_comms.send(boss_comms.envelope(member_comms.peer_id, "work"))
        await receipt.wait()
        assert receipt.reason is DropReason.UNTRUSTED_SENDER
        bind = BindMember(
            supervisor=boss_comms.endpoint(),
            epoch=1,
            expected_peer_id=member_comms.peer_id,
            expected_address=member_comms.advertised_address,
            bootstrap_token=member.issue_bootstrap_token(),
        )
        answer = await boss.command(member_comms.peer_id, bind)
        assert answer["already"] is False
        await boss.command(member_comms.peer_id, DeliverMemberInput(epoch=1, input_id="first", content="x" * 50_000))
        for session in (member, boss):
            await session.retire()
    assert len(worked_on) == 1


# --- many


async def times_meanwhile(it: Scene, attack: Callable[[], Awaitable[object]]) -> list[float]:
    """Return how long honest messages take, in order, while an attack lasts."""
    took: list[float] = []

    async def attack_all() -> None:
        await attack()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack_all)
        while True:
            took.append(await _serve_once(it))
            await trio.sleep(0.02)
    return sorted(took)


async def test_a_crowd_is_no_obstacle() -> None:
    async with scene(first_frame_timeout=0.2, handshake_timeout=0.5, max_unproven=16, max_strangers=8) as it:
        took = await times_meanwhile(it, lambda: crowd(it.victim.endpoint(), 300, 100))
        assert took
        assert it.strangely_admitted == []
        assert len(it.victim._station._arrivals) == len(it.admitted)


@pytest.mark.deep
async def test_ten_thousand_are_no_obstacle(record_property: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "meerkat_trio")  # what is kept of the log is no memory of ours
    async with scene(within=500.0) as it:

        def attack(count: int) -> Awaitable[object]:
            arguments = crowd_arguments(it.victim.endpoint(), count, 500)
            return trio.run_process([sys.executable, "-m", "tests.sockets.crowd", *arguments])

        await times_meanwhile(it, lambda: attack(1_000))  # as many connections as there may be take their memory
        calm, before = await times_meanwhile(it, lambda: trio.sleep(5)), _resident()
        took, after = await times_meanwhile(it, lambda: attack(10_000)), _resident()
        for name, times in (("alone", calm), ("among 10,000", took)):
            record_property(f"honest messages, p99 {name}", f"{times[len(times) * 99 // 100] * 1000:.1f} ms")
        record_property("resident memory", f"{before} KiB before, {after} KiB after")
        assert it.strangely_admitted == []


async def _serve_once(it: Scene) -> float:
    begin = time.perf_counter()
    await it.honest_is_served()
    return time.perf_counter() - begin


def _resident() -> int:
    gc.collect()
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1])


def test_hello_is_what_the_attacks_say() -> None:
    # It is written by hand; this is what the code makes.
    from meerkat_trio.comms._frames import Hello  # noqa: PLC0415

    assert encode_hello(Hello(FRIEND.public_key, b"e" * 32)) == HELLO
