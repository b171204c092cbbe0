"""Envelopes and bundles: what comes through, and what is said of what does not."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio import DropReason, Envelope, EnvelopeKind, Lane, ResponseStatus
from meerkat_trio.comms._bundle import MAX_BUNDLE, Bundle, SignedEnvelope, pack, parse_bundle, seal
from meerkat_trio.comms._envelope import (
    KIND_CODES,
    LANE_CODES,
    MAX_ENVELOPE,
    MAX_TEXT,
    STATUS_CODES,
    Header,
    acceptance,
    encode_envelope,
    parse_headers,
)
from meerkat_trio.comms._exceptions import WireRefused
from meerkat_trio.comms._prefix import MAX_FRAME, PREFIX

from .wire import ALICE, BOB, EVE, NOW, bundle, decoded, envelope, envelopes, part


def reasons(opened: Bundle, **changed: Any) -> list[DropReason | None]:
    return [each.reason for each in opened.open(**{"recipient": BOB.public_key, "now": NOW, **changed})]


def refusal(data: bytes) -> WireRefused:
    with pytest.raises(WireRefused) as refused:
        decoded(data)
    return refused.value


@given(st.lists(envelopes(), min_size=1, max_size=5))
def test_envelopes_come_out_as_they_went_in(sent: list[Envelope]) -> None:
    opened = list(bundle(*(encode_envelope(each, NOW) for each in sent)).open(recipient=BOB.public_key, now=NOW))
    assert [each.envelope for each in opened] == sent
    assert [(each.id, each.issued_at, each.reason) for each in opened] == [(each.id, NOW, None) for each in sent]


def test_every_member_has_a_code_of_its_own() -> None:
    for codes, members in ((KIND_CODES, EnvelopeKind), (LANE_CODES, Lane), (STATUS_CODES, ResponseStatus)):
        assert list(codes) == sorted(members, key=list(codes).index)
        assert len({*codes.values()}) == len(members)


def test_one_signature_covers_up_to_64_envelopes() -> None:
    parts = [part(n) for n in range(MAX_BUNDLE)]
    assert reasons(bundle(*parts)) == [None] * 64
    for too_many in ([], [*parts, part()]):
        with pytest.raises(WireRefused) as refused:
            seal(ALICE, BOB.public_key, too_many)
        assert refused.value.reason is DropReason.OVERSIZE


@given(st.lists(st.sampled_from([1, 100, 40_000, MAX_ENVELOPE - 5, MAX_ENVELOPE]), max_size=200))
def test_whatever_is_packed_fits(sizes: list[int]) -> None:
    parts = [b"x" * size for size in sizes]
    packed = list(pack(parts))
    assert [each for bundle in packed for each in bundle] == parts
    for each in packed:
        assert 1 <= len(each) <= MAX_BUNDLE
        assert 141 + sum(len(one) + 5 for one in each) <= MAX_FRAME
    for before, after in itertools.pairwise(packed):
        assert len(before) == MAX_BUNDLE or sum(len(one) + 5 for one in [*before, after[0]]) > MAX_ENVELOPE


def test_the_largest_envelope_fits_into_a_frame_of_its_own() -> None:
    room = MAX_ENVELOPE - len(part(body=b"x" * 100_000)) + 100_000
    largest = part(body=b"x" * room)
    assert len(largest) == MAX_ENVELOPE
    assert reasons(bundle(largest)) == [None]
    with pytest.raises(WireRefused) as refused:
        part(body=b"x" * (room + 1))
    assert refused.value.reason is DropReason.OVERSIZE


@pytest.mark.parametrize("text", ["x" * MAX_TEXT, "é" * (MAX_TEXT // 2), "\U0001f9a6" * (MAX_TEXT // 4)])
def test_texts_have_a_bound_in_bytes(text: str) -> None:
    request: dict[str, Any] = {"kind": EnvelopeKind.REQUEST, "intent": text, "correlation": text}
    (opened,) = bundle(part(id=text, **request)).open(recipient=BOB.public_key, now=NOW)
    assert opened.envelope is not None
    assert opened.envelope.intent == text
    for field in ("id", "intent", "correlation"):
        with pytest.raises(WireRefused) as refused:
            part(**{**request, field: text + "x"})
        assert refused.value.reason is DropReason.OVERSIZE
    with pytest.raises(WireRefused) as refused:
        parse_headers([cbor2.dumps([text + "x", 1, 1, None, None, None, NOW, b"\x00"])])
    assert refused.value.reason is DropReason.MALFORMED


@pytest.mark.parametrize("issued_at", [-1, 2**53])
def test_a_time_that_is_none_is_a_callers_mistake(issued_at: int) -> None:
    with pytest.raises(ValueError, match="issued_at"):
        encode_envelope(envelope(), issued_at)


# --- forged ---------------------------------------------------------------------------------------------------


def test_a_signature_holds_for_these_envelopes_in_this_order_from_this_sender_to_this_recipient_alone() -> None:
    good = bundle(part(1), part(2))
    assert reasons(good) == [None, None]
    forged = [
        Bundle(good.sender, good.recipient, good.signature, (good.parts[1], good.parts[0])),
        Bundle(good.sender, good.recipient, good.signature, good.parts[:1]),
        Bundle(good.sender, good.recipient, good.signature, (*good.parts, part(3))),
        Bundle(good.sender, good.recipient, good.signature, (part(1, "other"), good.parts[1])),
        Bundle(good.sender, good.recipient, bytes(64), good.parts),
        Bundle(good.sender, good.recipient, good.signature[:-1], good.parts),
        Bundle(EVE.public_key, good.recipient, good.signature, good.parts),
        Bundle(good.sender, EVE.public_key, good.signature, good.parts),
    ]
    for each in forged:
        assert set(reasons(each, recipient=each.recipient)) == {DropReason.BAD_SIGNATURE}
        assert not any(one.is_signed() for one in each.signed_envelopes())


@given(st.data())
def test_no_byte_of_a_bundle_can_be_changed_unnoticed(data: st.DataObject) -> None:
    original = seal(ALICE, BOB.public_key, [part(1), part(2)])
    changed = bytearray(original)
    at = data.draw(st.integers(0, len(original) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        opened = [
            one.reason
            for frame in decoded(bytes(changed))
            if isinstance(frame, Bundle)
            for one in frame.open(recipient=BOB.public_key, now=NOW)
        ]
    except WireRefused:
        return
    assert None not in opened


def test_a_bundle_for_somebody_else_is_refused_unverified() -> None:
    assert reasons(bundle(part(1), part(2)), recipient=EVE.public_key) == [DropReason.WRONG_RECIPIENT] * 2


def test_the_judge_is_asked_before_the_signature_is_checked_and_the_body_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*args: object) -> Any:
        raise AssertionError(args)

    monkeypatch.setattr("meerkat_trio.comms._bundle.verify", never)
    monkeypatch.setattr("meerkat_trio.comms._envelope.decode_body", never)
    asked: list[Header] = []

    def judge(header: Header) -> DropReason:
        asked.append(header)
        return DropReason.UNTRUSTED_SENDER

    assert reasons(bundle(part(1), part(2)), judge=judge) == [DropReason.UNTRUSTED_SENDER] * 2
    assert [(header.id, len(header.body)) for header in asked] == [("m-1", 6), ("m-2", 6)]


def test_bodies_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded_bodies: list[bytes] = []

    def watched(data: bytes) -> str:
        decoded_bodies.append(data)
        return "body"

    opened = bundle(part(1), part(2)).open(recipient=BOB.public_key, now=NOW)
    monkeypatch.setattr("meerkat_trio.comms._envelope.decode_body", watched)
    for expected in (1, 2):
        next(opened)
        assert len(decoded_bodies) == expected


def test_a_judge_may_refuse_one_and_let_the_others_in() -> None:
    def judge(header: Header) -> DropReason | None:
        return DropReason.OVERSIZE if len(header.body) > 100 else None

    assert reasons(bundle(part(1), part(2, "x" * 200), part(3)), judge=judge) == [None, DropReason.OVERSIZE, None]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, None),
        (300_000, None),
        (300_001, DropReason.EXPIRED),
        (-60_000, None),
        (-60_001, DropReason.EXPIRED),
    ],
)
def test_an_envelope_is_good_for_the_window_and_a_clock_may_be_fast(offset: int, expected: DropReason | None) -> None:
    assert reasons(bundle(), now=NOW + offset) == [expected]


def test_the_window_is_a_pure_function() -> None:
    assert acceptance(1_000_000) == (700_000, 1_060_000)
    assert acceptance(1_000_000, window=1.5, skew=0) == (998_500, 1_000_000)


# --- malformed ------------------------------------------------------------------------------------------------


def test_a_malformed_body_is_dropped_alone() -> None:
    bad = cbor2.dumps(["m-2", 1, 1, None, None, None, NOW, b"\xff"])
    opened = list(bundle(part(1), bad, part(3)).open(recipient=BOB.public_key, now=NOW))
    assert [(each.id, each.reason) for each in opened] == [
        ("m-1", None),
        ("m-2", DropReason.MALFORMED),
        ("m-3", None),
    ]
    assert repr(opened[0]) == "<Opened 'm-1': an envelope>"
    assert repr(opened[1]) == "<Opened 'm-2': malformed>"


@pytest.mark.parametrize(
    "fields",
    [
        ["m", 0, 1, None, None, None, NOW, b"\x00"],  # a message in the control lane
        ["m", 1, 2, "supervisor.bridge", "c", None, NOW, b"\x00"],  # a command in the work lane
        ["m", 1, 1, "intent", None, None, NOW, b"\x00"],
        ["m", 1, 2, None, "c", None, NOW, b"\x00"],
        ["m", 1, 2, "intent", None, None, NOW, b"\x00"],
        ["m", 0, 3, None, "c", None, NOW, b"\x00"],
        ["m", 1, 1, None, None, 1, NOW, b"\x00"],
        ["m", 1, 1, None, None, None, NOW, b""],
        ["m", 1, 1, None, None, None, NOW, b"\x00\x00"],
    ],
)
def test_fields_that_do_not_fit_the_kind_are_malformed(fields: list[Any]) -> None:
    assert reasons(bundle(cbor2.dumps(fields))) == [DropReason.MALFORMED]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x88",
        b"\x80",
        b"\x87" + bytes(7),
        b"\x98\x08" + bytes(8),
        b"\xf7",
        *(
            cbor2.dumps(fields)
            for fields in (
                ["", 1, 1, None, None, None, NOW, b"\x00"],
                [b"m", 1, 1, None, None, None, NOW, b"\x00"],
                [1, 1, 1, None, None, None, NOW, b"\x00"],
                ["m", 2, 1, None, None, None, NOW, b"\x00"],
                ["m", True, 1, None, None, None, NOW, b"\x00"],
                ["m", 1, 0, None, None, None, NOW, b"\x00"],
                ["m", 1, 8, None, None, None, NOW, b"\x00"],
                ["m", 1, "message", None, None, None, NOW, b"\x00"],
                ["m", 1, 1.0, None, None, None, NOW, b"\x00"],
                ["m", 1, 1, "", None, None, NOW, b"\x00"],
                ["m", 1, 1, None, 5, None, NOW, b"\x00"],
                ["m", 1, 1, None, None, 4, NOW, b"\x00"],
                ["m", 1, 1, None, None, False, NOW, b"\x00"],
                ["m", 1, 1, None, None, None, -1, b"\x00"],
                ["m", 1, 1, None, None, None, 2**53, b"\x00"],
                ["m", 1, 1, None, None, None, 1.0, b"\x00"],
                ["m", 1, 1, None, None, None, NOW, "text"],
                ["m", 1, 1, None, None, None, NOW, None],
                ["m", 1, 1, None, None, None, NOW, b"\x00", 1],
                ["m", 1, 1, None, None, None, NOW],
                [["m"], 1, 1, None, None, None, NOW, b"\x00"],
                ["m", 1, 1, None, None, None, [], b"\x00"],
                [cbor2.CBORTag(1, 0), 1, 1, None, None, None, NOW, b"\x00"],
            )
        ),
        cbor2.dumps(["m", 1, 1, None, None, None, NOW, b"\x00"]) + b"\x00",
    ],
)
def test_a_header_that_could_not_be_answered_refuses_the_bundle(data: bytes) -> None:
    with pytest.raises(WireRefused) as refused:
        parse_headers([data])
    assert refused.value.reason is DropReason.MALFORMED
    with pytest.raises(WireRefused):
        reasons(bundle(part(), data))


@given(st.binary(max_size=100).map(lambda rest: b"\x88" + rest))
def test_whatever_a_header_holds_it_is_one_or_malformed(data: bytes) -> None:
    with contextlib.suppress(WireRefused):
        parse_headers([data])


def body_of_a_bundle() -> bytes:
    return seal(ALICE, BOB.public_key, [b"x" * 10, b"y" * 300])[PREFIX.size :]


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-1],
        lambda body: body + b"\x00",
        lambda body: body[:100],
        lambda body: body[:138],
        lambda body: body[:4] + bytes(32) + body[36:],
        lambda body: body[:38] + bytes(32) + body[70:],
        lambda body: body[:2] + b"\x59\x00" + body[4:],
        lambda body: body[:36] + b"\x58\x21" + body[38:],
        lambda body: body[:70] + b"\x58\x3f" + body[72:],
        lambda body: body[:136] + b"\x80",
        lambda body: body[:136] + b"\x98\x41" + b"\x40" * 65,
        lambda body: body[:136] + b"\x9a\x7f\xff\xff\xff" + body[137:],
        lambda body: body[:136] + b"\x98\x02" + body[137:],
        lambda body: body[:136] + b"\x82\x5b" + bytes(8),
        lambda body: body[:136] + b"\x81\x5a\xff\xff\xff\xff",
        lambda body: body[:136] + b"\x81\x61x",
        lambda body: body[:136] + b"\x9f\xff",
    ],
)
def test_a_bundle_that_is_not_laid_out_as_one_is_malformed(change: Any) -> None:
    body = body_of_a_bundle()
    assert parse_bundle(body).parts == (b"x" * 10, b"y" * 300)
    with pytest.raises(WireRefused) as refused:
        parse_bundle(change(body))
    assert refused.value.reason is DropReason.MALFORMED


def test_a_megabyte_of_empty_envelopes_costs_nothing() -> None:
    body = body_of_a_bundle()[:136] + b"\x9a\x00\x0f\x00\x00" + b"\x40" * 0xF0000
    tracemalloc.start()
    try:
        with pytest.raises(WireRefused):
            parse_bundle(body)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_the_body_of_a_bundle_is_cbor() -> None:
    assert cbor2.loads(body_of_a_bundle())[0::4] == [3, [b"x" * 10, b"y" * 300]]


@pytest.mark.parametrize("key", [b"", bytes(32), b"x" * 31])
def test_a_bundle_is_not_sealed_for_what_is_no_key(key: bytes) -> None:
    with pytest.raises(WireRefused):
        seal(ALICE, key, [part()])


# --- stored ---------------------------------------------------------------------------------------------------


def test_a_stored_envelope_is_verified_alone() -> None:
    for number, stored in enumerate(bundle(*(part(n) for n in range(64))).signed_envelopes()):
        again = SignedEnvelope.from_bytes(stored.to_bytes())
        assert again == stored
        assert again.is_signed()
        assert again.envelope() == envelope(number)


def test_a_stored_envelope_that_was_changed_is_not_signed() -> None:
    first, second = bundle(part(1), part(2)).signed_envelopes()
    for data, index, digests in (
        (part(3), 0, first.digests),
        (second.data, 0, first.digests),
        (first.data, 1, first.digests),
        (first.data, 0, first.digests[:32]),
        (first.data, 0, first.digests[:32] * 2),
    ):
        changed = SignedEnvelope(
            sender=first.sender,
            recipient=first.recipient,
            signature=first.signature,
            digests=digests,
            index=index,
            data=data,
        )
        assert not changed.is_signed()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1, "x"),
        (1, bytes(32)),
        (2, b"x" * 31),
        (3, None),
        (4, b""),
        (4, b"x" * 33),
        (4, b"x" * 65 * 32),
        (5, -1),
        (5, 1),
        (5, True),
        (5, 0.0),
        (6, "text"),
    ],
)
def test_what_was_not_stored_so_is_malformed(at: int, value: Any) -> None:
    (stored,) = bundle().signed_envelopes()
    fields = cbor2.loads(stored.to_bytes())
    assert SignedEnvelope.from_bytes(cbor2.dumps(fields)) == stored
    fields[at] = value
    for bad in (cbor2.dumps(fields), b"\x87\x02" + stored.to_bytes()[2:], stored.to_bytes() + b"\x00", b""):
        with pytest.raises(WireRefused) as refused:
            SignedEnvelope.from_bytes(bad)
        assert refused.value.reason is DropReason.MALFORMED


def test_a_frame_that_would_be_too_long_is_not_made() -> None:
    with pytest.raises(WireRefused) as refused:
        seal(ALICE, BOB.public_key, [b"x" * MAX_FRAME])
    assert refused.value.reason is DropReason.OVERSIZE
    assert str(refused.value).startswith("oversize: ")
    assert refusal(b"\x01\x00\x10\x00\x01").reason is DropReason.OVERSIZE
