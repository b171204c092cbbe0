"""Makes the vectors from the code. A change of what this prints is a change of the protocol's version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import cbor2

from meerkat_trio import DropReason, Envelope, EnvelopeKind, ReceiptStatus, ResponseStatus
from meerkat_trio.comms._bundle import seal
from meerkat_trio.comms._envelope import encode_envelope
from meerkat_trio.comms._frames import Answer, ByeCode, FrameDecoder, encode_bye
from meerkat_trio.comms._handshake import Handshake
from meerkat_trio.comms._identity import Identity
from meerkat_trio.comms._prefix import MAX_FRAME, frame

from ..comms.test_wire_bodies import REFUSED
from ..comms.wire import NOW, bundle

FILE: Final = Path(__file__).with_name("wire.json")

ALICE: Final = Identity(b"a" * 32)
BOB: Final = Identity(b"b" * 32)
CONNECTOR_SECRET: Final = b"c" * 32
LISTENER_SECRET: Final = b"l" * 32

ENVELOPES: Final[list[dict[str, Any]]] = [
    {"id": "m-1", "kind": "message", "body": "hello"},
    {"id": "m-2", "kind": "message", "body": {"text": "grüße", "n": [1, -1, 1.5, None, True, 4294967296], "empty": {}}},
    {"id": "r-1", "kind": "request", "intent": "sum", "correlation": "c-1", "body": [1, 2]},
    {"id": "r-2", "kind": "request", "intent": "supervisor.bridge", "correlation": "c-2", "body": {}},
    {"id": "a-1", "kind": "response", "correlation": "c-1", "status": "completed", "body": 3},
    {"id": "l-1", "kind": "peer_added", "body": None},
    {"id": "d-1", "kind": "dismiss", "body": None},
]
ANSWERS: Final = [
    ("m-1", "queued", None),
    ("m-1", "admitted", None),
    *(("m-2", "dropped", reason.value) for reason in DropReason),
]
ACCEPTED: Final = {
    "the largest number": "1bffffffffffffffff",
    "the smallest number": "3bffffffffffffffff",
    "a number in a longer form": "1a00000001",
    "a text in a longer form": "780161",
    "an array in a longer form": "980100",
    "a float of two bytes": "f93e00",
    "a float of four bytes": "fa3fc00000",
    "not a number": "f97e00",
    "bytes": "43010203",
    "keys that are bytes": "a1416101",
    "a text and bytes as two keys": "a2616101416102",
    "keys in any order": "a2616201616102",
    "64 arrays": "81" * 63 + "80",
}


def envelope_of(fields: dict[str, Any]) -> Envelope:
    """Make the envelope that a vector describes."""
    return Envelope(
        **{
            **fields,
            "kind": EnvelopeKind(fields["kind"]),
            "status": ResponseStatus(fields["status"]) if "status" in fields else None,
            "sender": ALICE.peer_id,
            "recipient": BOB.peer_id,
        }
    )


def answers() -> list[Answer]:
    """Make the answers of the receipts."""
    return [
        Answer(id_, ReceiptStatus(status), None if reason is None else DropReason(reason))
        for id_, status, reason in ANSWERS
    ]


def made() -> dict[str, Any]:
    """Make everything."""
    parts = [encode_envelope(envelope_of(fields), NOW) for fields in ENVELOPES]
    sealed = seal(ALICE, BOB.public_key, parts)
    first = bundle(*parts)
    return {
        "version": 1,
        "keys": {name: _key(identity) for name, identity in (("alice", ALICE), ("bob", BOB))},
        "envelopes": [
            {"fields": fields, "lane": envelope_of(fields).lane.value, "issued_at": NOW, "bytes": part.hex()}
            for fields, part in zip(ENVELOPES, parts, strict=True)
        ],
        "bundle": {"from": "alice", "to": "bob", "frame": sealed.hex()},
        "bundle_of_one": {"from": "alice", "to": "bob", "frame": seal(ALICE, BOB.public_key, parts[:1]).hex()},
        "stored": [stored.to_bytes().hex() for stored in first.signed_envelopes()][:2],
        "handshake": _handshake(),
        "bye": {"code": 1, "detail": "too long", "frame": encode_bye(ByeCode.REFUSED, "too long").hex()},
        "bodies": {
            "accepted": [{"what": what, "bytes": data} for what, data in ACCEPTED.items()],
            "refused": [{"what": what, "bytes": data.replace(" ", "")} for what, data in REFUSED.items()],
        },
        "refused_frames": [
            {"what": what, "bytes": data.hex(), "reason": reason.value} for what, data, reason in _refused(sealed)
        ],
        "dropped": [
            {"what": what, "frame": data.hex(), "now": now, "reasons": reasons}
            for what, data, now, reasons in _dropped(parts)
        ],
    }


def _key(identity: Identity) -> dict[str, str]:
    seed = {ALICE.peer_id: b"a" * 32, BOB.peer_id: b"b" * 32}[identity.peer_id]
    return {"seed": seed.hex(), "public_key": identity.public_key.hex(), "peer_id": identity.peer_id}


def _handshake() -> dict[str, Any]:
    connector = Handshake(ALICE, connects=True, secret=CONNECTOR_SECRET)
    listener = Handshake(BOB, connects=False, secret=LISTENER_SECRET)
    frames = [{"from": "connector", "frame": connector.start().hex()}]
    to_connector = listener.receive(_only(connector.start()))
    decoder = FrameDecoder()
    decoder.feed(to_connector)
    proof = b"".join(connector.receive(each) for each in decoder)
    listener.receive(_only(proof))
    frames += [{"from": "listener", "frame": to_connector.hex()}, {"from": "connector", "frame": proof.hex()}]
    assert connector.link is not None
    assert listener.link is not None
    receipts = [
        {"from": side, "answers": ANSWERS, "frame": each.hex()}
        for side, link in (("listener", listener.link), ("listener", listener.link), ("connector", connector.link))
        for each in link.seal(answers())
    ]
    return {
        "connector": "alice",
        "listener": "bob",
        "connector_secret": CONNECTOR_SECRET.hex(),
        "listener_secret": LISTENER_SECRET.hex(),
        "frames": frames,
        "receipts": receipts,
    }


def _only(data: bytes) -> Any:
    decoder = FrameDecoder()
    decoder.feed(data)
    (only,) = decoder
    return only


def _refused(sealed: bytes) -> list[tuple[str, bytes, DropReason]]:
    body = sealed[5:]
    malformed, oversize = DropReason.MALFORMED, DropReason.OVERSIZE
    return [
        ("version 0", b"\x00" + sealed[1:], malformed),
        ("version 2, from its first byte", b"\x02", malformed),
        ("one byte too long, from the prefix", b"\x01" + (MAX_FRAME + 1).to_bytes(4), oversize),
        ("no body", b"\x01\x00\x00\x00\x00", malformed),
        ("an unknown type, from its first two bytes", b"\x01\x00\x00\x00\x50\x83\x06", malformed),
        ("a hello that is too long, from its type", b"\x01\x00\x00\x02\x01\x83\x01", oversize),
        ("receipts that are too long, from their type", b"\x01\x00\x01\x00\x01\x83\x04", oversize),
        ("a bundle of nothing", frame(body[:136] + b"\x80"), malformed),
        ("a bundle of 65", frame(body[:136] + b"\x98\x41" + b"\x40" * 65), malformed),
        ("a bundle with a length in a longer form", frame(body[:136] + b"\x98\x01\x41\x00"), malformed),
        ("a bundle whose last length is too great", frame(body[:136] + b"\x81\x42\x00"), malformed),
        ("a bundle with a byte too many", frame(body + b"\x00"), malformed),
        ("a bundle from a key of zero bytes", frame(body[:4] + bytes(32) + body[36:]), malformed),
        ("a bundle for a key of zero bytes", frame(body[:38] + bytes(32) + body[70:]), malformed),
    ]


def _dropped(parts: list[bytes]) -> list[tuple[str, bytes, int, list[str | None]]]:
    pair = seal(ALICE, BOB.public_key, parts[:2])

    def odd(*fields: Any) -> bytes:
        return seal(ALICE, BOB.public_key, [parts[0], cbor2.dumps(list(fields))])

    return [
        ("nothing", pair, NOW, [None, None]),
        ("the last moment", pair, NOW + 300_000, [None, None]),
        ("one too late", pair, NOW + 300_001, ["expired"] * 2),
        ("a clock as fast as may be", pair, NOW - 60_000, [None, None]),
        ("one too early", pair, NOW - 60_001, ["expired"] * 2),
        ("for somebody else", seal(ALICE, ALICE.public_key, parts[:2]), NOW, ["wrong_recipient"] * 2),
        ("a stripped signature", pair[:77] + bytes(64) + pair[141:], NOW, ["bad_signature"] * 2),
        ("a changed last byte", pair[:-1] + bytes((pair[-1] ^ 1,)), NOW, ["bad_signature"] * 2),
        ("a body that is no CBOR", odd("x", 1, 1, None, None, None, NOW, b"\xff"), NOW, [None, "malformed"]),
        ("the wrong lane", odd("x", 0, 1, None, None, None, NOW, b"\x00"), NOW, [None, "malformed"]),
        ("a message with an intent", odd("x", 1, 1, "y", None, None, NOW, b"\x00"), NOW, [None, "malformed"]),
    ]


def write() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(made(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
