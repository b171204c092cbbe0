"""Checks the vectors twice: against the code, and against what `docs/wire.md` says, put down here a second time.

The second way knows nothing of the package; a library for CBOR, Ed25519 and X25519 is all it has.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from typing import TYPE_CHECKING, Any

import cbor2
import nacl.bindings
import nacl.exceptions

from meerkat_trio.comms._bundle import Bundle, SignedEnvelope
from meerkat_trio.comms._cbor import decode_body, encode_body
from meerkat_trio.comms._exceptions import WireRefused
from meerkat_trio.comms._frames import FrameDecoder
from meerkat_trio.comms._prefix import MAX_FRAME

from ..comms.wire import NOW
from . import make

if TYPE_CHECKING:
    from collections.abc import Callable

Vectors = dict[str, Any]
KINDS = ["message", "request", "response", "peer_added", "peer_retired", "peer_unwired", "dismiss"]
STATUSES = ["accepted", "completed", "failed"]
REASONS = [
    "untrusted_sender",
    "not_admitted_in_phase",
    "no_such_request",
    "wrong_responder",
    "duplicate",
    "expired",
    "oversize",
    "malformed",
    "bad_signature",
    "wrong_recipient",
    "rate_limited",
    "inbox_full",
    "closed",
    "not_recorded",
]


def check() -> list[str]:
    """Return what does not hold."""
    vectors = json.loads(make.FILE.read_text(encoding="utf-8"))
    failures = []
    for one in CHECKS:
        try:
            one(vectors)
        except Exception as error:
            failures.append(f"{one.__name__}: {type(error).__name__}: {error}")
    return failures


# --- the code ---------------------------------------------------------------------------------------------


def the_code_makes_the_same_bytes(vectors: Vectors) -> None:
    made = json.loads(json.dumps(make.made()))
    for key in vectors.keys() | made.keys():
        assert made.get(key) == vectors.get(key), key


def the_code_opens_the_bundle(vectors: Vectors) -> None:
    opened = _bundle(vectors["bundle"]["frame"]).open(recipient=make.BOB.public_key, now=NOW)
    expected = [make.envelope_of(each["fields"]) for each in vectors["envelopes"]]
    assert [each.envelope for each in opened] == expected
    stored = [SignedEnvelope.from_bytes(bytes.fromhex(each)) for each in vectors["stored"]]
    assert all(each.is_signed() for each in stored)
    assert [each.envelope() for each in stored] == expected[: len(stored)]


def the_code_accepts_and_refuses_bodies(vectors: Vectors) -> None:
    for each in vectors["bodies"]["accepted"]:
        encode_body(decode_body(bytes.fromhex(each["bytes"])))
    for each in vectors["bodies"]["refused"]:
        assert _reason(decode_body, bytes.fromhex(each["bytes"])) == "malformed", each


def the_code_refuses_frames(vectors: Vectors) -> None:
    for each in vectors["refused_frames"]:
        decoder = FrameDecoder(MAX_FRAME)
        decoder.feed(bytes.fromhex(each["bytes"]))
        assert _reason(list, decoder) == each["reason"], each


def _reason(call: Callable[[Any], object], argument: object) -> str | None:
    try:
        call(argument)
    except WireRefused as refused:
        return refused.reason.value
    return None


def the_code_drops_envelopes(vectors: Vectors) -> None:
    for each in vectors["dropped"]:
        opened = _bundle(each["frame"]).open(recipient=make.BOB.public_key, now=each["now"])
        assert [one.reason and one.reason.value for one in opened] == each["reasons"], each


def _bundle(data: str) -> Bundle:
    decoder = FrameDecoder(MAX_FRAME)
    decoder.feed(bytes.fromhex(data))
    (bundle,) = decoder
    assert isinstance(bundle, Bundle)
    return bundle


# --- what the page says -------------------------------------------------------------------------------------


def peer_ids_are_as_the_page_says(vectors: Vectors) -> None:
    namespace = uuid.UUID("6d656572-6b61-7450-6565-724964300001")
    for key in vectors["keys"].values():
        public, _ = nacl.bindings.crypto_sign_seed_keypair(bytes.fromhex(key["seed"]))
        assert public.hex() == key["public_key"]
        digest = hashlib.sha1(namespace.bytes + public).digest()  # noqa: S324
        assert str(uuid.UUID(bytes=digest[:16], version=5)) == key["peer_id"]


def envelopes_are_as_the_page_says(vectors: Vectors) -> None:
    for each in vectors["envelopes"]:
        fields = each["fields"]
        id_, lane, kind, intent, correlation, status, issued_at, body = cbor2.loads(bytes.fromhex(each["bytes"]))
        assert (id_, KINDS[kind - 1], issued_at) == (fields["id"], fields["kind"], each["issued_at"])
        assert ["control", "work"][lane] == each["lane"]
        assert (intent, correlation) == (fields.get("intent"), fields.get("correlation"))
        assert (status and STATUSES[status - 1]) == fields.get("status")
        assert cbor2.loads(body) == fields["body"]


def the_bundle_is_as_the_page_says(vectors: Vectors) -> None:
    for name in ("bundle", "bundle_of_one"):
        body = _body(bytes.fromhex(vectors[name]["frame"]))
        kind, sender, recipient, signature, parts = cbor2.loads(body)
        assert kind == 3
        assert body[4:36] == sender == bytes.fromhex(vectors["keys"][vectors[name]["from"]]["public_key"])
        assert body[38:70] == recipient == bytes.fromhex(vectors["keys"][vectors[name]["to"]]["public_key"])
        assert body[72:136] == signature
        assert [part.hex() for part in parts] == [each["bytes"] for each in vectors["envelopes"]][: len(parts)]
        digests = b"".join(hashlib.sha256(part).digest() for part in parts)
        _verify(sender, b"meerkat-trio bundle 1\x00" + sender + recipient + digests, signature)
        for index, stored in enumerate(vectors["stored"] if name == "bundle" else []):
            again = [1, sender, recipient, signature, digests, index, parts[index]]
            assert cbor2.loads(bytes.fromhex(stored)) == again


def the_handshake_is_as_the_page_says(vectors: Vectors) -> None:
    handshake = vectors["handshake"]
    first, second, third = (bytes.fromhex(each["frame"]) for each in handshake["frames"])
    hello, hello_back = _body(first), _body(second[:75])
    assert hello == cbor2.dumps([1, *cbor2.loads(hello)[1:]])
    assert (len(hello), len(hello_back)) == (70, 70)
    transcript = hashlib.sha256(b"meerkat-trio handshake 1\x00" + hello + hello_back).digest()
    keys = {"connector": cbor2.loads(hello), "listener": cbor2.loads(hello_back)}
    for side, proof in (("listener", second[75:]), ("connector", third)):
        two, signature = cbor2.loads(_body(proof))
        assert two == 2
        _verify(keys[side][1], f"meerkat-trio proof 1 {side}\x00".encode() + transcript, signature)
        assert keys[side][1].hex() == vectors["keys"][handshake[side]]["public_key"]
    shared = nacl.bindings.crypto_scalarmult(bytes.fromhex(handshake["connector_secret"]), keys["listener"][2])
    agreed = hmac.digest(transcript, shared, "sha256")
    counts = {"connector": 0, "listener": 0}
    for receipts in handshake["receipts"]:
        side = receipts["from"]
        four, tag, payload = cbor2.loads(_body(bytes.fromhex(receipts["frame"])))
        assert four == 4
        secret = hmac.digest(agreed, f"meerkat-trio receipts 1 {side}\x00".encode(), "sha256")
        assert tag == hmac.digest(secret, counts[side].to_bytes(8) + payload, "sha256")[:16]
        counts[side] += 1
        flat = cbor2.loads(payload)
        codes: dict[tuple[Any, ...], int] = {
            ("queued", None): 0,
            ("admitted", None): 1,
            **{("dropped", r): 2 + n for n, r in enumerate(REASONS)},
        }
        assert flat == [part for id_, *said in receipts["answers"] for part in (id_, codes[tuple(said)])]


def the_bye_is_as_the_page_says(vectors: Vectors) -> None:
    bye = vectors["bye"]
    assert cbor2.loads(_body(bytes.fromhex(bye["frame"]))) == [5, bye["code"], bye["detail"]]


def _body(frame: bytes) -> bytes:
    assert frame[0] == 1
    assert int.from_bytes(frame[1:5]) == len(frame) - 5
    return frame[5:]


def _verify(key: bytes, data: bytes, signature: bytes) -> None:
    assert nacl.bindings.crypto_sign_open(signature + data, key) == data


CHECKS: list[Callable[[Vectors], None]] = [
    the_code_makes_the_same_bytes,
    the_code_opens_the_bundle,
    the_code_accepts_and_refuses_bodies,
    the_code_refuses_frames,
    the_code_drops_envelopes,
    peer_ids_are_as_the_page_says,
    envelopes_are_as_the_page_says,
    the_bundle_is_as_the_page_says,
    the_handshake_is_as_the_page_says,
    the_bye_is_as_the_page_says,
]
