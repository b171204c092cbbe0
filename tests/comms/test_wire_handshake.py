"""The handshake: who is at the other end, and what they alone can say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio import DropReason, ReceiptStatus
from meerkat_trio.comms._exceptions import WireRefused
from meerkat_trio.comms._frames import Answer, Bye, Frame, Hello, Proof, Receipts
from meerkat_trio.comms._handshake import Handshake, Link
from meerkat_trio.comms._identity import Identity
from meerkat_trio.comms._signing import exchange_key

from .wire import ALICE, BOB, EVE, bundle, decoded

ANSWERS = [Answer("m-1"), Answer("m-2", ReceiptStatus.DROPPED, DropReason.EXPIRED)]


def between(connector: Handshake, listener: Handshake) -> tuple[Link, Link]:
    to_listener = decoded(connector.start())
    assert listener.start() == b""
    while to_listener:
        to_connector = [reply for frame in to_listener for reply in decoded(listener.receive(frame))]
        to_listener = [reply for frame in to_connector for reply in decoded(connector.receive(frame))]
    assert connector.link is not None
    assert listener.link is not None
    return connector.link, listener.link


def connected() -> tuple[Link, Link]:
    return between(Handshake(ALICE, connects=True), Handshake(BOB, connects=False))


def reason_of(handshake: Handshake, frame: Frame) -> DropReason:
    with pytest.raises(WireRefused) as refused:
        handshake.receive(frame)
    assert handshake.link is None
    return refused.value.reason


def test_both_sides_know_each_other_afterwards() -> None:
    at_alice, at_bob = connected()
    assert (at_alice.key, at_alice.peer_id) == (BOB.public_key, BOB.peer_id)
    assert (at_bob.key, at_bob.peer_id) == (ALICE.public_key, ALICE.peer_id)


def test_receipts_go_both_ways() -> None:
    for here, there in (connected(), connected()[::-1]):
        for _ in range(3):
            (frame,) = here.seal(ANSWERS)
            (receipts,) = decoded(frame)
            assert isinstance(receipts, Receipts)
            assert there.open(receipts) == ANSWERS


def sealed(link: Link, answers: list[Answer]) -> Receipts:
    (frame,) = link.seal(answers)
    (receipts,) = decoded(frame)
    assert isinstance(receipts, Receipts)
    return receipts


def refuses(link: Link, receipts: Receipts) -> None:
    with pytest.raises(WireRefused) as refused:
        link.open(receipts)
    assert refused.value.reason is DropReason.BAD_SIGNATURE


def test_receipts_that_are_forged_repeated_left_out_or_sent_back_are_refused() -> None:
    at_alice, at_bob = connected()
    first, second = sealed(at_bob, ANSWERS), sealed(at_bob, ANSWERS)
    refuses(at_alice, second)
    refuses(at_bob, first)
    refuses(at_alice, Receipts(bytes(16), first.payload))
    refuses(at_alice, Receipts(first.tag, second.payload[:-1] + b"\x01"))
    refuses(at_alice, Receipts(b"", first.payload))
    assert at_alice.open(first) == ANSWERS
    refuses(at_alice, first)
    assert at_alice.open(second) == ANSWERS


def test_receipts_of_another_connection_are_refused() -> None:
    refuses(connected()[0], sealed(connected()[1], ANSWERS))


def test_somebody_else_than_expected_is_refused() -> None:
    connector = Handshake(ALICE, connects=True, expected=BOB.public_key)
    assert reason_of(connector, Hello(EVE.public_key, b"e" * 32)) is DropReason.WRONG_RECIPIENT
    connector = Handshake(ALICE, connects=True, expected=BOB.public_key)
    between(connector, Handshake(BOB, connects=False, expected=ALICE.public_key))


def test_who_does_not_hold_the_key_is_refused() -> None:
    connector, listener = Handshake(ALICE, connects=True), Handshake(BOB, connects=False)
    (hello,) = decoded(connector.start())
    hello_back, proof = decoded(listener.receive(hello))
    # Eve says she is Bob, and cannot sign it.
    forged = Handshake(EVE, connects=False)
    connector.receive(hello_back)
    _, eves_proof = decoded(forged.receive(hello))
    assert reason_of(connector, eves_proof) is DropReason.BAD_SIGNATURE
    connector.receive(proof)
    assert connector.link is not None


def test_a_recorded_handshake_is_good_for_no_other() -> None:
    connector, listener = Handshake(ALICE, connects=True), Handshake(BOB, connects=False)
    (hello,) = decoded(connector.start())
    hello_back, _ = decoded(listener.receive(hello))
    (proof,) = decoded(connector.receive(hello_back))
    later = Handshake(BOB, connects=False)
    later.receive(hello)
    assert reason_of(later, proof) is DropReason.BAD_SIGNATURE


def test_nobody_speaks_with_a_mirror() -> None:
    connector = Handshake(ALICE, connects=True)
    (hello,) = decoded(connector.start())
    assert reason_of(connector, hello) is DropReason.WRONG_RECIPIENT


def test_a_proof_cannot_be_sent_back() -> None:
    # Eve connects to Bob and repeats his own proof.
    listener = Handshake(BOB, connects=False)
    _, proof = decoded(listener.receive(Hello(EVE.public_key, b"e" * 32)))
    assert reason_of(listener, proof) is DropReason.BAD_SIGNATURE


def test_frames_out_of_place_are_malformed() -> None:
    proof, hello = Proof(bytes(64)), Hello(EVE.public_key, b"e" * 32)
    listener = Handshake(BOB, connects=False)
    for frame in (proof, bundle(), Receipts(bytes(16), b""), Bye(0, "-")):
        assert reason_of(listener, frame) is DropReason.MALFORMED
    listener.receive(hello)
    assert reason_of(listener, hello) is DropReason.MALFORMED
    connector, listener = Handshake(ALICE, connects=True), Handshake(BOB, connects=False)
    between(connector, listener)
    for late in (hello, proof):
        with pytest.raises(WireRefused):
            connector.receive(late)


@pytest.mark.parametrize("point", [b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_an_ephemeral_key_that_agrees_with_everybody_is_refused(point: bytes) -> None:
    listener = Handshake(BOB, connects=False)
    listener.receive(Hello(EVE.public_key, point))
    hello = Handshake(EVE, connects=True)
    hello._hello = b"\x83\x01\x58\x20" + EVE.public_key + b"\x58\x20" + point
    again = Handshake(BOB, connects=False, secret=b"s" * 32)
    back, _ = decoded(again.receive(Hello(EVE.public_key, point)))
    (proof,) = decoded(hello.receive(back))
    assert reason_of(again, proof) is DropReason.MALFORMED


def test_every_connection_has_an_ephemeral_key_of_its_own() -> None:
    hellos = [decoded(Handshake(ALICE, connects=True).start())[0] for _ in range(3)]
    assert len({hello.ephemeral for hello in hellos if isinstance(hello, Hello)}) == 3
    (fixed,) = decoded(Handshake(ALICE, connects=True, secret=b"s" * 32).start())
    assert fixed == Hello(ALICE.public_key, exchange_key(b"s" * 32))


def test_a_connection_carries_its_two_peers_own_bundles() -> None:
    at_alice, at_bob = connected()
    at_bob.require_sender(bundle())
    with pytest.raises(WireRefused) as refused:
        at_alice.require_sender(bundle())
    assert refused.value.reason is DropReason.BAD_SIGNATURE


@given(st.data(), st.booleans())
def test_a_handshake_of_which_a_byte_was_changed_is_refused(data: st.DataObject, to_listener: bool) -> None:
    connector, listener = Handshake(ALICE, connects=True), Handshake(BOB, connects=False)

    def changed(sent: bytes) -> bytes:
        at = data.draw(st.integers(0, len(sent) - 1))
        return sent[:at] + bytes((sent[at] ^ data.draw(st.integers(1, 255)),)) + sent[at + 1 :]

    with pytest.raises((WireRefused, AssertionError)):
        # Whichever way it was changed, the listener never has a link to show for it.
        hello = decoded(changed(connector.start()) if to_listener else connector.start())
        back = b"".join(listener.receive(frame) for frame in hello)
        proofs = [decoded(connector.receive(frame)) for frame in decoded(back if to_listener else changed(back))]
        for frames in proofs:
            for frame in frames:
                listener.receive(frame)
        assert connector.link is not None
        assert listener.link is not None
    assert not (connector.link and listener.link)


def test_an_identity_of_generated_keys_shakes_hands_as_well() -> None:
    one, other = Identity.generate(), Identity.generate()
    link, _ = between(Handshake(one, connects=True), Handshake(other, connects=False))
    assert link.peer_id == other.peer_id
