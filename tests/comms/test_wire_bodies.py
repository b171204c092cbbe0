"""The CBOR of bodies: what is carried, what is refused, and what it may cost."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import enum
import io
import tracemalloc
from typing import Any, NamedTuple

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meerkat_trio import DropReason, PeerId
from meerkat_trio.comms._cbor import (
    _NO_TAGS,
    MAX_DEPTH,
    MAX_ITEMS,
    _scan,
    decode_body,
    encode_body,
    read_head,
    write_head,
)
from meerkat_trio.comms._exceptions import WireRefused

from .wire import BODIES


class Colour(enum.IntEnum):
    RED = 3


class Pair(NamedTuple):
    first: int
    second: str


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@given(BODIES)
def test_a_body_comes_out_as_it_went_in(body: Any) -> None:
    data = encode_body(body)
    assert decode_body(data) == body
    _scan(data)


@pytest.mark.parametrize(
    ("given_", "got"),
    [
        ((1, (2,)), [1, [2]]),
        (Pair(1, "x"), [1, "x"]),
        (Colour.RED, 3),
        (PeerId("6d656572-6b61-7450-6565-724964300000"), "6d656572-6b61-7450-6565-724964300000"),
        (bytearray(b"x"), b"x"),
        (collections.OrderedDict(a=1), {"a": 1}),
        ({"a": {b"b": None}}, {"a": {b"b": None}}),
        (float("inf"), float("inf")),
    ],
)
def test_what_is_like_a_plain_value_comes_out_as_one(given_: Any, got: Any) -> None:
    result = decode_body(encode_body(given_))
    assert result == got
    assert type(result) is type(got)


@pytest.mark.parametrize(
    "body",
    [
        {1, 2},
        object(),
        1j,
        2**64,
        -(2**64) - 1,
        dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        decimal.Decimal(1),
        {1: 2},
        {None: 2},
        {(1,): 2},
        "\ud800",
        ["\ud800"],
        io.BytesIO(),
        cbor2.undefined,
        cbor2.CBORTag(1, 1),
        cbor2.CBORSimpleValue(1),
        memoryview(b"x"),
        [[{"a": {1}}]],
        nested(MAX_DEPTH + 1),
        nested(100_000),  # the library alone would end the process
    ],
    ids=lambda body: type(body).__name__,
)
def test_what_the_wire_cannot_carry_is_malformed(body: Any) -> None:
    with pytest.raises(WireRefused) as refused:
        encode_body(body)
    assert refused.value.reason is DropReason.MALFORMED


def test_a_body_in_itself_is_malformed() -> None:
    body: list[Any] = []
    body += [body, body]
    with pytest.raises(WireRefused) as refused:
        encode_body(body)
    assert refused.value.reason is DropReason.MALFORMED


def test_a_small_body_that_unfolds_into_a_huge_one_is_oversize() -> None:
    body: Any = [1, 2, 3]
    for _ in range(60):
        body = [body, body]
    with pytest.raises(WireRefused) as refused:
        encode_body(body)
    assert refused.value.reason is DropReason.OVERSIZE


@pytest.mark.parametrize("body", [[None] * (MAX_ITEMS - 1), {str(n): [] for n in range((MAX_ITEMS - 1) // 2)}])
def test_both_sides_count_the_same_items(body: Any) -> None:
    assert decode_body(encode_body(body)) == body
    with pytest.raises(WireRefused) as refused:
        encode_body([body])
        encode_body([body, []])
    assert refused.value.reason is DropReason.OVERSIZE
    with pytest.raises(WireRefused) as refused:
        decode_body(b"\x82" + encode_body(body) + b"\x00")
    assert refused.value.reason is DropReason.OVERSIZE


def test_both_sides_have_the_same_depth() -> None:
    deepest = nested(MAX_DEPTH)
    data = encode_body(deepest)
    assert decode_body(data) == deepest
    _scan(data)
    for too_deep in (b"\x81" + data, b"\xa1\x61x" * (MAX_DEPTH + 1) + b"\x00", b"\x81" * 100_000 + b"\x00"):
        with pytest.raises(WireRefused) as refused:
            decode_body(too_deep)
        assert refused.value.reason is DropReason.MALFORMED
        with pytest.raises(WireRefused, match="nested"):
            _scan(too_deep)


REFUSED = {
    "nothing": "",
    "two items": "0000",
    "an array and more": "8100f6",
    "a date": "c06161",
    "a time": "c100",
    "a big number": "c24101",
    "a fraction": "c48201c24101",
    "a pattern": "d8236161",
    "a shared value": "d81c80",
    "a cycle": "d81c81d81d00",
    "a string reference": "d9010080",
    "a set": "d9010280",
    "self-described": "d9d9f700",
    "an unknown tag": "d9ffff00",
    "a tag of eight bytes": "dbffffffffffffffff00",
    "a tag deep inside": "81a16161c101",
    "undefined": "f7",
    "a simple value": "e0",
    "a simple value of a byte": "f8ff",
    "an ill-formed simple value": "f818",
    "a break": "ff",
    "a reserved head": "1c",
    "an indefinite array": "9fff",
    "an indefinite map": "bfff",
    "indefinite bytes": "5f4161ff",
    "indefinite text": "7f6161ff",
    "equal keys": "a2616101616102",
    "equal keys, one spelled long": "a261610178016102",
    "a number for a key": "a10001",
    "an array for a key": "a1800 1".replace(" ", ""),
    "null for a key": "a1f601",
    "a huge array": "9b0fffffffffffffff",
    "a large array": "9a7fffffff",
    "a huge map": "bb7fffffffffffffff",
    "huge bytes": "5b7fffffffffffffff",
    "the hugest bytes": "5bffffffffffffffff",
    "huge text": "7b7fffffffffffffff",
    "a truncated number": "1a0000",
    "a truncated float": "fb0000",
    "a truncated text": "6261",
    "a truncated array": "8200",
    "text that is no UTF-8": "62c328",
    "a surrogate": "63eda080",
}


@pytest.mark.parametrize("data", [pytest.param(bytes.fromhex(data), id=name) for name, data in REFUSED.items()])
def test_what_is_no_acceptable_cbor_is_malformed(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(WireRefused) as refused:
            decode_body(data)
        assert refused.value.reason is DropReason.MALFORMED
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [pytest.param(bytes.fromhex(data), id=name) for name, data in REFUSED.items()])
def test_a_large_body_is_refused_for_the_same(data: bytes) -> None:
    large = b"\x82\x5a" + (MAX_ITEMS + 1).to_bytes(4) + bytes(MAX_ITEMS + 1)
    assert decode_body(large + b"\xf6") == [bytes(MAX_ITEMS + 1), None]
    with pytest.raises(WireRefused) as refused:
        decode_body(large + data)
    assert refused.value.reason is DropReason.MALFORMED


def test_no_tag_has_a_decoder_however_it_is_looked_up() -> None:
    for decoder in (_NO_TAGS[2], _NO_TAGS.get(2)):
        with pytest.raises(ValueError, match="tags"):
            decoder(None)


@pytest.mark.parametrize(
    ("data", "value"),
    [("1800", 0), ("1b0000000000000001", 1), ("780161", "a"), ("580161", b"a"), ("980100", [0]), ("f93e00", 1.5)],
)
def test_longer_forms_and_short_floats_are_accepted_in_bodies(data: str, value: Any) -> None:
    assert decode_body(bytes.fromhex(data)) == value


def test_the_order_of_keys_is_the_senders() -> None:
    assert list(decode_body(bytes.fromhex("a2616201616102"))) == ["b", "a"]


@given(st.binary(max_size=200))
@example(b"\x82\x00\x50" + bytes(16))
@example(b"\xf9\x7e\x00")
def test_whatever_bytes_come_they_are_a_plain_value_or_refused(data: bytes) -> None:
    try:
        value = decode_body(data)
    except WireRefused:
        return
    # What was accepted can be sent on, and both ways to look at it agree.
    assert decode_body(encode_body(value)) == value or "nan" in repr(value)
    _scan(data)


@given(BODIES, st.data())
def test_a_body_with_one_byte_changed_is_a_plain_value_or_refused(body: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode_body(body))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireRefused):
        encode_body(decode_body(bytes(encoded)))


@pytest.mark.parametrize("item", [b"\x80", b"\xa0", b"\x60", b"\x01", b"\xf9\x7e\x00"])
def test_a_megabyte_of_the_smallest_items_costs_no_more_memory_than_its_size(item: bytes) -> None:
    count = 1_000_000 // len(item)
    data = b"\x9a" + count.to_bytes(4) + item * count
    tracemalloc.start()
    try:
        with pytest.raises(WireRefused) as refused:
            decode_body(data)
        assert refused.value.reason is DropReason.OVERSIZE
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_as_many_items_as_are_allowed_cost_few_megabytes() -> None:
    data = b"\x9a" + (MAX_ITEMS - 1).to_bytes(4) + b"\xa0" * (MAX_ITEMS - 1)
    tracemalloc.start()
    try:
        decode_body(data)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@given(st.integers(0, 2**32 - 1))
def test_a_head_is_written_as_the_library_writes_it(argument: int) -> None:
    head = write_head(0x80, argument)
    assert read_head(head, 0, 0x80) == (argument, len(head))
    if argument < 300:
        assert cbor2.dumps([0] * argument).startswith(head)


@pytest.mark.parametrize("head", ["", "40", "9800", "9817", "98", "990000", "9900ff", "99ff", "9a0000ffff", "9b", "9f"])
def test_a_head_that_is_not_the_shortest_is_refused(head: str) -> None:
    with pytest.raises(WireRefused):
        read_head(bytes.fromhex(head), 0, 0x80)
