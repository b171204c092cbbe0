"""Frames: any bytes in any pieces are frames or one typed refusal, and cost what they are worth."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio import DropReason, ReceiptStatus
from meerkat_trio.comms._bundle import Bundle, seal
from meerkat_trio.comms._envelope import MAX_ENVELOPE, MAX_TEXT, encode_envelope
from meerkat_trio.comms._exceptions import WireRefused
from meerkat_trio.comms._frames import (
    ANSWER_CODES,
    HANDSHAKE_LIMIT,
    MAX_RECEIPTS,
    Answer,
    Bye,
    ByeCode,
    Frame,
    FrameDecoder,
    Hello,
    Proof,
    Receipts,
    encode_bye,
    encode_hello,
    encode_proof,
    encode_receipts,
    pack_answers,
    parse_answers,
)
from meerkat_trio.comms._prefix import MAX_FRAME, frame

from .wire import ALICE, BOB, NOW, decoded, envelopes, part

if TYPE_CHECKING:
    from collections.abc import Iterable

HELLO = Hello(b"k" * 32, b"e" * 32)
PROOF = Proof(b"s" * 64)
RECEIPTS = Receipts(b"t" * 16, b"payload")
SMALL = [frame(encode_hello(HELLO)), encode_proof(PROOF), encode_receipts(RECEIPTS), encode_bye(ByeCode.BUSY, "full")]
GOOD = [*SMALL, seal(ALICE, BOB.public_key, [part(1), part(2)])]


def fed(pieces: Iterable[bytes], limit: int = MAX_FRAME) -> tuple[list[Frame], WireRefused | None]:
    """Return the frames of a connection that brings these pieces and ends, and the refusal."""
    decoder = FrameDecoder(limit)
    frames: list[Frame] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            frames += decoder
        decoder.finish()
    except WireRefused as refused:
        return frames, refused
    return frames, None


def bytewise(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def shown(frames: list[Frame]) -> list[object]:
    return [(f.sender, f.recipient, f.signature, f.parts) if isinstance(f, Bundle) else f for f in frames]


def test_frames_come_out_as_they_went_in() -> None:
    frames, refused = fed([b"".join(GOOD)])
    assert refused is None
    assert frames[:4] == [HELLO, PROOF, RECEIPTS, Bye(4, "full")]
    assert isinstance(frames[4], Bundle)
    assert frames[4].parts == (part(1), part(2))


def test_a_byte_at_a_time_makes_no_difference() -> None:
    whole, _ = fed([b"".join(GOOD)])
    frames, refused = fed(bytewise(b"".join(GOOD)))
    assert refused is None
    assert shown(frames) == shown(whole)


def test_what_came_before_a_refusal_comes_out() -> None:
    frames, refused = fed([b"".join([*GOOD, b"\x02"])])
    assert len(frames) == 5
    assert refused is not None


def test_every_frame_is_cbor() -> None:
    assert [cbor2.loads(each[5:])[0] for each in GOOD] == [1, 2, 4, 5, 3]


# --- refused at the first byte that shows it -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00", DropReason.MALFORMED),
        (b"\x02", DropReason.MALFORMED),
        (b"G", DropReason.MALFORMED),  # of HTTP
        (b"\x16", DropReason.MALFORMED),  # of TLS
        (b"\x01\x00\x10\x00\x01", DropReason.OVERSIZE),
        (b"\x01\xff\xff\xff\xff", DropReason.OVERSIZE),
        (b"\x01\x00\x00\x00\x00", DropReason.MALFORMED),
        (b"\x01\x00\x00\x00\x01", DropReason.MALFORMED),
        (b"\x01\x00\x00\x00\x50\x84\x01", DropReason.MALFORMED),
        (b"\x01\x00\x00\x00\x50\x83\x06", DropReason.MALFORMED),
        (b"\x01\x00\x00\x00\x50\xa1\x01", DropReason.MALFORMED),
        (b"\x01\x00\x00\x02\x01\x83\x01", DropReason.OVERSIZE),
        (b"\x01\x00\x00\x02\x01\x82\x02", DropReason.OVERSIZE),
        (b"\x01\x00\x01\x00\x01\x83\x04", DropReason.OVERSIZE),
        (b"\x01\x00\x00\x02\x01\x83\x05", DropReason.OVERSIZE),
    ],
)
def test_a_frame_is_refused_at_the_first_byte_that_shows_it(data: bytes, reason: DropReason) -> None:
    decoder = FrameDecoder(MAX_FRAME)
    *before, last = bytewise(data)
    for byte in before:
        decoder.feed(byte)
        assert list(decoder) == []
    decoder.feed(last)
    with pytest.raises(WireRefused) as refused:
        list(decoder)
    assert refused.value.reason is reason


def test_a_refusal_is_final_and_what_comes_after_it_is_let_go_of() -> None:
    decoder = FrameDecoder()
    decoder.feed(b"\x02")
    for _ in range(3):
        with pytest.raises(WireRefused, match="version 1"):
            next(decoder)
        decoder.feed(GOOD[0])
        assert decoder.is_empty
    decoder.finish()


@pytest.mark.parametrize("data", GOOD)
def test_a_connection_that_ends_inside_a_frame_is_refused(data: bytes) -> None:
    for size in range(1, len(data)):
        frames, refused = fed([data[:size]])
        assert frames == []
        assert refused is not None
        assert refused.reason is DropReason.MALFORMED


def test_before_it_is_known_who_speaks_frames_are_small() -> None:
    assert HANDSHAKE_LIMIT == 512
    decoder = FrameDecoder()
    decoder.feed(GOOD[0] + b"\x01\x00\x00\x02\x01")
    assert next(decoder) == HELLO
    with pytest.raises(WireRefused) as refused:
        next(decoder)
    assert refused.value.reason is DropReason.OVERSIZE


def test_the_limit_may_be_raised_between_two_frames() -> None:
    decoder = FrameDecoder()
    large = seal(ALICE, BOB.public_key, [part(body="x" * 2000)])
    decoder.feed(GOOD[0] + large)
    assert next(decoder) == HELLO
    decoder.limit = MAX_FRAME
    assert isinstance(next(decoder), Bundle)


def test_what_is_kept_is_one_frame_and_the_last_piece() -> None:
    room = MAX_ENVELOPE - len(part(body=b"x" * 100_000)) + 100_000
    data = seal(ALICE, BOB.public_key, [part(body=b"x" * room)]) * 5
    tracemalloc.start()
    try:
        decoder = FrameDecoder(MAX_FRAME)
        count = 0
        for start in range(0, len(data), 65_536):
            decoder.feed(data[start : start + 65_536])
            for _ in decoder:
                count += 1
        assert count == 5
        # The frame as it comes, as it is parsed, its part, and that of the frame before, which is still held here.
        assert tracemalloc.get_traced_memory()[1] < 4.25 * MAX_FRAME
    finally:
        tracemalloc.stop()
    assert decoder.is_empty


def test_an_announced_megabyte_that_does_not_come_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        decoders = [FrameDecoder(MAX_FRAME) for _ in range(100)]
        for decoder in decoders:
            decoder.feed(b"\x01\x00\x10\x00\x00\x85\x03")
            assert list(decoder) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"\x83\x01",
        encode_hello(HELLO)[:-1],
        encode_hello(HELLO) + b"\x00",
        encode_hello(Hello(bytes(32), b"e" * 32)),
        encode_hello(Hello(b"k" * 32, bytes(32))),
        b"\x83\x01\x59\x00" + encode_hello(HELLO)[4:],
        b"\x82\x02",
        b"\x82\x02\x58\x3f" + bytes(63),
        b"\x82\x02\x58\x40" + bytes(63),
        b"\x82\x02\x58\x40" + bytes(65),
        b"\x83\x04",
        b"\x83\x04\x51" + bytes(17) + b"\x40",
        b"\x83\x04\x50" + bytes(16),
        b"\x83\x04\x50" + bytes(16) + b"\x41",
        b"\x83\x04\x50" + bytes(16) + b"\x40\x00",
        b"\x83\x04\x50" + bytes(16) + b"\x58\x01x",
        b"\x83\x05",
        b"\x83\x05\x00\x60",
        b"\x83\x05\x00\x00",
        b"\x83\x05\x20\x61x",
        b"\x83\x05\x19\x01\x00\x61x",
        b"\x83\x05\xf5\x61x",
        b"\x83\x05\x00\x61x\x00",
        b"\x83\x05\x80\x61x",
        b"\x85\x03",
    ],
)
def test_a_frame_that_is_not_laid_out_as_its_type_is_malformed(body: bytes) -> None:
    frames, refused = fed([frame(body)])
    assert frames == []
    assert refused is not None
    assert refused.reason is DropReason.MALFORMED


# --- receipts, byes -------------------------------------------------------------------------------------------

ANSWERS = st.builds(Answer, st.text(min_size=1, max_size=64)) | st.builds(
    lambda id_, reason: Answer(id_, ReceiptStatus.DROPPED, reason),
    st.text(min_size=1, max_size=64),
    st.sampled_from(DropReason),
)


def test_every_reason_has_a_code_of_its_own() -> None:
    assert {*ANSWER_CODES} == {None, *DropReason}
    assert len({*ANSWER_CODES.values()}) == len(ANSWER_CODES)


@given(st.lists(ANSWERS | st.just(Answer("x", ReceiptStatus.QUEUED)), max_size=30))
def test_answers_come_out_as_they_went_in(answers: list[Answer]) -> None:
    assert [each for payload in pack_answers(answers) for each in parse_answers(payload)] == answers


def test_answers_are_divided_into_frames_that_fit() -> None:
    answers = [Answer("é" * (MAX_TEXT // 2)) for _ in range(1000)]
    payloads = list(pack_answers(answers))
    assert [each for payload in payloads for each in parse_answers(payload)] == answers
    assert 4 <= len(payloads) <= 5
    for payload in payloads:
        assert len(decoded(encode_receipts(Receipts(bytes(16), payload)))) == 1
        assert len(payload) + 24 <= MAX_RECEIPTS


NO_PAIRS: list[object] = [{}, ["x"], ["x", 16], ["x", -1], ["x", True], ["x", None], [1, 1], ["", 1], [["x"], 1]]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        *(cbor2.dumps(value) for value in NO_PAIRS),
        b"\x80\x00",
        cbor2.dumps(["x" * (MAX_TEXT + 1), 1]),
    ],
)
def test_receipts_that_hold_something_else_are_malformed(payload: bytes) -> None:
    with pytest.raises(WireRefused) as refused:
        parse_answers(payload)
    assert refused.value.reason is DropReason.MALFORMED


@pytest.mark.parametrize(
    ("detail", "got"), [("", "-"), ("é" * 500, "é" * 128), ("\ud800", "?"), ("x" * 255 + "é", "x" * 255)]
)
def test_a_bye_says_why_as_far_as_there_is_room(detail: str, got: str) -> None:
    assert decoded(encode_bye(ByeCode.REFUSED, detail)) == [Bye(1, got)]


# --- anything -------------------------------------------------------------------------------------------------


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), st.lists(st.lists(envelopes(), min_size=1, max_size=3), max_size=3))
def test_pieces_make_no_difference(data: st.DataObject, bundles: list[list[object]]) -> None:
    sent = b"".join(
        seal(ALICE, BOB.public_key, [encode_envelope(each, NOW) for each in bundle])  # type: ignore[arg-type]
        for bundle in bundles
    )
    frames, refused = fed(data.draw(pieces_of(sent)))
    assert refused is None
    assert shown(frames) == shown(decoded(sent))


HEADS = [b"\x83\x01", b"\x82\x02", b"\x85\x03", b"\x83\x04", b"\x83\x05"]
BITS = (
    st.binary(max_size=40)
    | st.sampled_from(GOOD)
    | st.sampled_from([b"\x01\x00\x00\x00", b"\x85\x03\x58\x20", b"\x83\x04\x50", b"\x9a", *HEADS])
    | st.builds(lambda head, rest: frame(head + rest), st.sampled_from(HEADS), st.binary(max_size=200))
)


@given(st.data(), st.lists(BITS, max_size=6).map(b"".join))
def test_whatever_bytes_come_in_whatever_pieces_it_is_frames_or_one_refusal(data: st.DataObject, sent: bytes) -> None:
    whole, refused = fed([sent])
    frames, refused_too = fed(data.draw(pieces_of(sent)))
    assert shown(frames) == shown(whole)
    assert str(refused) == str(refused_too)
    take_apart(frames)


def take_apart(frames: list[Frame]) -> None:
    for each in frames:
        try:
            if isinstance(each, Bundle):
                list(each.open(recipient=BOB.public_key, now=NOW))
                for stored in each.signed_envelopes():
                    stored.envelope()
            elif isinstance(each, Receipts):
                parse_answers(each.payload)
        except WireRefused:
            pass


@given(st.data(), st.sampled_from(GOOD))
def test_a_frame_with_bytes_changed_is_frames_or_one_refusal(data: st.DataObject, sent: bytes) -> None:
    changed = bytearray(sent)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    frames, _ = fed([bytes(changed)])
    take_apart(frames)
