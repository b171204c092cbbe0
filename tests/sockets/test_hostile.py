"""Whatever connects: it is refused, nothing of it is admitted, and honest peers are served meanwhile."""

from __future__ import annotations

import time
from typing import Any

import cbor2
import pytest
import trio

from meerkat_trio import DropReason, EnvelopeKind
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.comms import Identity
from meerkat_trio.comms import _bundle as bundles
from meerkat_trio.comms._cbor import BYTES, write_head
from meerkat_trio.comms._envelope import Header, encode_envelope
from meerkat_trio.comms._frames import ByeCode, Receipts, encode_hello, encode_receipts
from meerkat_trio.comms._prefix import PREFIX, VERSION, frame

from .attacker import FRIEND, STRANGER, scene

GARBAGE = bytes(range(1, 256)) * 40


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
        hello = b"".join((b"\x83\x01\x58\x20", FRIEND.public_key, b"\x58\x20", b"e" * 32))
        await attacker.write(frame(hello))
        bye = await attacker.end()
        assert bye is not None
        assert bye.code == ByeCode.TIMEOUT


async def test_a_proof_of_another_key_is_refused() -> None:
    async with scene() as it:
        attacker = await it.attack(shake_hands=False)
        hello = b"".join((b"\x83\x01\x58\x20", FRIEND.public_key, b"\x58\x20", b"e" * 32))
        await attacker.write(frame(hello) + frame(b"\x82\x02\x58\x40", STRANGER.sign(b"anything")))
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
        await attacker.write(frame(b"".join((b"\x83\x01\x58\x20", FRIEND.public_key, b"\x58\x20", b"e" * 32))))
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
        reasons = [answer.reason for answer in await attacker.answers(120)]
        # How many more than the burst get through depends on how long this takes.
        assert reasons.count(None) >= 64
        assert reasons.count(DropReason.RATE_LIMITED) > 0


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


async def test_a_peer_has_so_many_connections() -> None:
    async with scene(max_per_peer=2) as it:
        first, *_ = [await it.attack() for _ in range(3)]
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


def test_hello_is_what_the_attacks_say() -> None:
    # The hellos above are written by hand; this is what the code makes.
    from meerkat_trio.comms._frames import Hello  # noqa: PLC0415

    by_hand = b"".join((b"\x83\x01\x58\x20", FRIEND.public_key, b"\x58\x20", b"e" * 32))
    assert encode_hello(Hello(FRIEND.public_key, b"e" * 32)) == by_hand
