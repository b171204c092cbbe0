"""The server need not be trusted: what somebody else puts into the streams is put aside, and believed nowhere."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from meerkat_trio import Envelope, ReceiptStatus
from meerkat_trio.comms import RedisLimits, RedisNetwork
from meerkat_trio.comms._bundle import seal
from meerkat_trio.comms._envelope import encode_envelope
from meerkat_trio.comms._frames import Answer
from meerkat_trio.comms._redis_entries import sign_answers
from meerkat_trio.comms._redis_scripts import ADD

from .rig import PATIENCE, SOON, identity, introduce, opened, peers, take, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meerkat_trio.comms import RedisComms

    from .rig import Server

ALICE, BOB, MALLORY = identity("alice"), identity("bob"), identity("mallory")


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Return a namespace that no other test has."""
    name: str = request.node.name
    return name.replace("[", "-").replace("]", "")


def put(server: Server, stream: str, **fields: bytes) -> None:
    """Add an entry by hand."""
    put_all(server, stream, [fields])


def put_all(server: Server, stream: str, entries: Iterable[Mapping[str, bytes]]) -> None:
    """Add entries by hand, in one go."""
    commands = b""
    for fields in entries:
        words = [b"XADD", stream.encode(), b"*"]
        for name, value in fields.items():
            words += [name.encode(), value]
        commands += b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)])
    subprocess.run(
        ["redis-cli", "-s", str(server.socket), "--pipe"], input=commands, capture_output=True, timeout=10, check=True
    )


def bundle(network: RedisNetwork, body: object = "forged", *, sender: object = ALICE, to: object = BOB) -> bytes:
    """Make a frame as a sender would."""
    assert isinstance(sender, type(ALICE))
    assert isinstance(to, type(BOB))
    envelope = Envelope(id=f"by-hand-{body}", sender=sender.peer_id, recipient=to.peer_id, body=body)
    return seal(sender, to.public_key, [encode_envelope(envelope, network.now())])


async def refused(server: Server, place: str, there: RedisNetwork, bob: RedisComms, reason: str) -> None:
    """Wait until the entry is put aside, and see that nothing else has come of it."""
    await until(lambda: there.statistics().dead_letters == 1)
    dead = f"{place}:{BOB.peer_id}:dead"
    await until(lambda: server.cli("XLEN", dead) == "1")
    assert reason in server.cli("XRANGE", dead, "-", "+").splitlines()
    assert server.cli("XLEN", f"{place}:{BOB.peer_id}:work") == "0"
    with pytest.raises(trio.WouldBlock):
        bob.claim_nowait()


@pytest.mark.parametrize("harm", ["signature", "nothing", "fields", "recipient", "lane", "prefix", "answers"])
async def test_what_is_forged_is_put_aside_with_its_reason(shared_server: Server, place: str, harm: str) -> None:
    async with RedisNetwork(shared_server.url, namespace=place, limits=SOON) as there:
        _, bob = await peers((there, "alice"), (there, "bob"))
        frame = bundle(there)
        fields, lane, reason = {"bundle": frame, "answers": b"nowhere"}, "work", "malformed"
        if harm == "signature":
            at = frame.index(ALICE.public_key) + 32 + 2 + 32 + 2 + 5
            fields["bundle"], reason = frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :], "bad_signature"
        elif harm == "nothing":
            fields = {"bundle": b"", "answers": b""}
        elif harm == "fields":
            fields = {"something": b"else"}
        elif harm == "recipient":
            fields["bundle"], reason = bundle(there, to=MALLORY), "wrong_recipient"
        elif harm == "lane":
            lane = "control"
        elif harm == "prefix":
            fields["bundle"] = frame[5:]
        else:
            fields["answers"] = b"\xff"
        put(shared_server, f"{place}:{BOB.peer_id}:{lane}", **fields)
        await refused(shared_server, place, there, bob, reason)


async def test_a_stranger_s_message_is_put_aside_and_after_too_many_none_is_looked_at(
    shared_server: Server, place: str
) -> None:
    async with RedisNetwork(shared_server.url, namespace=place, limits=SOON) as there:
        bob = await opened(there, "bob")
        many = [{"bundle": bundle(there, number, sender=MALLORY), "answers": b"nowhere"} for number in range(200)]
        put_all(shared_server, f"{place}:{BOB.peer_id}:work", many)
        await until(lambda: there.statistics().dead_letters == 200)
        dead = f"{place}:{BOB.peer_id}:dead"
        await until(lambda: shared_server.cli("XLEN", dead) == "200")
        told = shared_server.cli("XRANGE", dead, "-", "+").splitlines()
        assert told.count("untrusted_sender") >= 64
        assert told.count("rate_limited") >= 1
        assert told.count("untrusted_sender") + told.count("rate_limited") == 200
        with pytest.raises(trio.WouldBlock):
            bob.claim_nowait()


async def test_what_is_copied_is_admitted_once_and_answered_as_the_first_time(
    shared_server: Server, place: str
) -> None:
    async with RedisNetwork(shared_server.url, namespace=place, limits=SOON) as there:
        _, bob = await peers((there, "alice"), (there, "bob"))
        frame, stream = bundle(there), f"{place}:{BOB.peer_id}:work"
        answers = f"{place}:copied"
        shared_server.cli("XGROUP", "CREATE", answers, "any", "0", "MKSTREAM")
        for _ in range(3):
            put(shared_server, stream, bundle=frame, answers=answers.encode())
        assert await take(bob, 1) == ["forged"]
        put(shared_server, stream, bundle=frame, answers=answers.encode())
        await until(lambda: shared_server.cli("XLEN", stream) == "0")
        assert there.statistics().dead_letters == 0
        with pytest.raises(trio.WouldBlock):
            bob.claim_nowait()
        assert shared_server.cli("XLEN", answers) >= "1"


async def test_a_copy_that_comes_after_other_messages_is_not_admitted(shared_server: Server, place: str) -> None:
    async with RedisNetwork(shared_server.url, namespace=place, limits=SOON) as there:
        _, bob = await peers((there, "alice"), (there, "bob"))
        frames = [{"bundle": bundle(there, body), "answers": b"nowhere"} for body in ("one", "two", "three")]
        put_all(shared_server, f"{place}:{BOB.peer_id}:work", [*frames[:2], *frames])
        assert await take(bob, 3) == ["one", "two", "three"]


def test_a_bundle_that_is_added_again_is_stored_once(shared_server: Server, place: str) -> None:
    stream, once = f"{place}:stream", f"{place}:once"

    def add(number: int) -> str:
        # What is asked when the reply to the first time was lost.
        rest = ["100", "60000", "bundle", "answers", "0", "group", "me", "alive:"]
        return shared_server.cli("EVAL", ADD, "3", stream, once, "", "", str(number), *rest)

    first = add(1)
    assert add(1) == first
    assert shared_server.cli("XLEN", stream) == "1"
    assert add(2) != first
    assert shared_server.cli("XLEN", stream) == "2"


async def test_what_is_too_old_is_answered_and_put_aside(shared_server: Server, place: str) -> None:
    limits = RedisLimits(acceptance_window=10.0)
    now = 1_000_000.0
    async with RedisNetwork(shared_server.url, namespace=place, limits=limits, wall_clock=lambda: now) as there:
        _, bob = await peers((there, "alice"), (there, "bob"))
        frame = bundle(there)
        now += 11
        put(shared_server, f"{place}:{BOB.peer_id}:work", bundle=frame, answers=there.answers.encode())
        await refused(shared_server, place, there, bob, "expired")


async def test_answers_that_the_recipient_has_not_signed_are_passed_over(shared_server: Server, place: str) -> None:
    url = shared_server.url
    async with (
        RedisNetwork(url, namespace=place, limits=SOON) as here,
        RedisNetwork(url, namespace=place, limits=SOON) as there,
    ):
        alice = await opened(here, "alice")
        alice.trust(BOB.endpoint("bob", "inproc://bob"))
        receipt = await alice.send(alice.envelope(BOB.peer_id, 1, id="one"))
        (signed,) = sign_answers(MALLORY, ALICE.peer_id, [Answer("one")])
        for by in (BOB.public_key, MALLORY.public_key, b"short"):
            put(
                shared_server,
                here.answers,
                by=by,
                to=ALICE.peer_id.encode(),
                answers=signed.payload,
                signature=signed.signature,
            )
        put(shared_server, here.answers, something=b"else")
        await until(lambda: shared_server.cli("XLEN", here.answers) == "0")
        assert ReceiptStatus.QUEUED is receipt.status
        bob = await opened(there, "bob")
        introduce(alice, bob)
        assert await take(bob, 1) == [1]
        with trio.fail_after(PATIENCE):
            assert ReceiptStatus.ADMITTED is await receipt.wait()


async def test_so_many_dead_letters_are_kept(shared_server: Server, place: str) -> None:
    limits = RedisLimits(dead_letters=10)
    async with RedisNetwork(shared_server.url, namespace=place, limits=limits) as there:
        await opened(there, "bob")
        stream = f"{place}:{BOB.peer_id}:work"
        for _ in range(3):
            script = f"for i = 1, 200 do redis.call('XADD', '{stream}', '*', 'bundle', 'x') end"
            shared_server.cli("EVAL", script, "0")
        await until(lambda: there.statistics().dead_letters == 600)
        await until(lambda: shared_server.cli("XLEN", stream) == "0")
        # The server trims by the node, of a hundred entries.
        assert 10 <= int(shared_server.cli("XLEN", f"{place}:{BOB.peer_id}:dead")) <= 110
