"""Values are validated when they are made, and a refusal names the field."""

from __future__ import annotations

import uuid
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio.authority import (
    ApplyMobPeerOverlay,
    AttachMobIngress,
    Bound,
    CommsDrainMode,
    DrainStopping,
    Ending,
    MobOwned,
    OpenRequest,
    PeerAddress,
    PeerEndpoint,
    PeerId,
    RemoveDirectPeerEndpoint,
    ReplySent,
    ResponseArrived,
    ResponseStatus,
    RevokeSupervisor,
    SessionOwned,
    SessionPhase,
    StopDrain,
    SupervisorTrustEdgePublished,
    SupervisorTrustEdgePublishFailed,
    SupervisorTrustEdgeRevoked,
    SupervisorTrustEdgeRevokeFailed,
    parse_peer_name,
)

from .cast import ALICE, ALICE_MOVED, BOB

NAMESPACE = uuid.UUID("6d656572-6b61-7450-6565-724964300001")
KEY = bytes(range(32))
GOOD: dict[str, Any] = {
    "name": "alice",
    "peer_id": PeerId.of_key(KEY),
    "address": "tcp://host:4000",
    "signing_key": KEY,
}


def uuid5_of_bytes(key: bytes) -> str:
    """UUIDv5 of raw bytes; `uuid.uuid5` takes text alone before Python 3.12, and latin-1 would double bytes."""
    import hashlib  # noqa: PLC0415 - written out here, so that the rule is not taken from the code

    digest = bytearray(hashlib.sha1(NAMESPACE.bytes + key).digest()[:16])  # noqa: S324
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@given(st.binary(min_size=32, max_size=32).filter(any))
def test_a_peer_id_is_the_uuid5_of_its_key(key: bytes) -> None:
    peer_id = PeerId.of_key(key)
    assert peer_id == uuid5_of_bytes(key)
    assert uuid.UUID(peer_id).version == 5


@given(st.text(st.characters(max_codepoint=127), min_size=32, max_size=32).filter(lambda text: any(text.encode())))
def test_for_an_ascii_key_the_standard_library_agrees(text: str) -> None:
    assert PeerId.of_key(text.encode()) == str(uuid.uuid5(NAMESPACE, text))


@pytest.mark.parametrize("spell", [str.upper, str.lower, lambda s: s.replace("-", ""), lambda s: f"{{{s}}}"])
def test_every_spelling_of_an_id_is_the_same_id(spell: Any) -> None:
    peer_id = PeerId.of_key(KEY)
    assert PeerId(spell(str(peer_id))) == peer_id
    assert hash(PeerId(spell(str(peer_id)))) == hash(peer_id)
    assert attrs.evolve(PeerEndpoint(**GOOD), peer_id=spell(str(peer_id))) == PeerEndpoint(**GOOD)
    assert RemoveDirectPeerEndpoint(spell(str(peer_id))).peer_id == peer_id


_MOB: dict[str, Any] = {"comms_runtime_id": "comms", "mob_id": "mob"}
_SPAWN: dict[str, Any] = {"mode": CommsDrainMode.TIMED, "idle_timeout": 1.0}


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (RemoveDirectPeerEndpoint, "peer_id"),
        (lambda who: RevokeSupervisor(who, 1), "peer_id"),
        (lambda who: SupervisorTrustEdgePublished(who, 1), "peer_id"),
        (lambda who: SupervisorTrustEdgePublishFailed(peer_id=who, epoch=1, reason=""), "peer_id"),
        (lambda who: SupervisorTrustEdgeRevoked(who, 1), "peer_id"),
        (lambda who: SupervisorTrustEdgeRevokeFailed(peer_id=who, epoch=1, reason=""), "peer_id"),
        (lambda who: AttachMobIngress(**_MOB, **_SPAWN, mob_peer_id=who), "mob_peer_id"),
        (lambda who: MobOwned(**_MOB, mob_peer_id=who), "mob_peer_id"),
        (lambda who: OpenRequest("c", who), "addressee"),
        (lambda who: ResponseArrived("c", who, ResponseStatus.COMPLETED), "sender"),
        (lambda who: ReplySent(who, "c"), "sender"),
    ],
)
def test_an_id_is_parsed_wherever_it_enters(make: Any, field: str) -> None:
    shouted = make(str(ALICE.peer_id).upper())
    assert shouted == make(ALICE.peer_id)
    assert type(getattr(shouted, field)) is PeerId
    with pytest.raises(ValueError, match=r"^peer_id: "):
        make("alice")


def test_a_mob_may_have_no_peer_id() -> None:
    assert MobOwned(**_MOB).mob_peer_id is None
    assert AttachMobIngress(**_MOB, **_SPAWN).mob_peer_id is None


@pytest.mark.parametrize("cause", [DrainStopping.SHUTDOWN, None, "abort"])
def test_a_drain_is_stopped_by_abort_or_detach_alone(cause: Any) -> None:
    StopDrain(DrainStopping.ABORT)
    StopDrain(DrainStopping.DETACH)
    with pytest.raises(ValueError, match=r"^cause: ABORT or DETACH is needed"):
        StopDrain(cause)


BAD_FIELDS: list[tuple[str, Any]] = [
    ("name", ""),
    ("name", " \t"),
    ("name", "a" * 129),
    ("name", "two\nlines"),
    ("name", "bell\x07"),
    ("name", "\x7f"),
    ("name", "\x9b31m"),
    ("name", "next\x85line"),
    ("name", None),
    ("name", b"bytes"),
    ("peer_id", ""),
    ("peer_id", "alice"),
    ("peer_id", None),
    ("peer_id", 7),
    ("peer_id", "00000000-0000-5000-8000-000000000000"),
    ("address", ""),
    ("address", "host:4000"),
    ("address", "http://host:4000"),
    ("address", "inproc://"),
    ("address", "inproc:// name"),
    ("address", "inproc://na\x00me"),
    ("address", "uds://relative"),
    ("address", "uds:///"),
    ("address", "tcp://host"),
    ("address", "tcp://:4000"),
    ("address", "tcp://host:"),
    ("address", "tcp://host:0"),
    ("address", "tcp://host:65536"),
    ("address", "tcp://host:-1"),
    ("address", "tcp://host:4e3"),
    ("address", "tcp://host:\u0664\u0660"),
    ("address", "tcp://host:4000\n"),
    ("address", None),
    ("signing_key", b""),
    ("signing_key", bytes(31)),
    ("signing_key", bytes([1]) * 31),
    ("signing_key", bytes([1]) * 33),
    ("signing_key", bytes(32)),
    ("signing_key", "0" * 32),
    ("signing_key", None),
]


@pytest.mark.parametrize("make", [PeerEndpoint, lambda **fields: Bound(epoch=1, **fields)], ids=["endpoint", "bound"])
@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_bad_field_is_refused_by_name(make: Any, field: str, value: Any) -> None:
    make(**GOOD)
    with pytest.raises(ValueError, match=f"^{field}: "):
        make(**{**GOOD, field: value})


@pytest.mark.parametrize("make", [PeerEndpoint, lambda **fields: Bound(epoch=1, **fields)], ids=["endpoint", "bound"])
def test_an_id_has_to_belong_to_its_key(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^peer_id: .* does not belong to signing_key"):
        make(**{**GOOD, "peer_id": BOB.peer_id})


@pytest.mark.parametrize("epoch", [0, -1, 1.5, "1", None])
def test_an_epoch_is_a_whole_number_from_one_up(epoch: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="epoch"):
        Bound(epoch=epoch, **GOOD)


@pytest.mark.parametrize(
    "name", ["a", "a" * 128, "Élodie Dupont", "名前", "Zoé\u00a0Weiß", "👩\u200d👧\u200d👦", "नमस्\u200cते"]
)
def test_names_that_people_have_are_allowed(name: str) -> None:
    assert parse_peer_name(name) == name


@pytest.mark.parametrize(
    ("text", "scheme", "location"),
    [
        ("inproc://name", "inproc", "name"),
        ("uds:///run/meerkat.sock", "uds", "/run/meerkat.sock"),
        ("tcp://host:1", "tcp", "host:1"),
        ("tcp://[::1]:65535", "tcp", "[::1]:65535"),
    ],
)
def test_an_address_knows_its_parts(text: str, scheme: str, location: str) -> None:
    address = PeerAddress(text)
    assert (address, address.scheme, address.location) == (text, scheme, location)
    assert PeerAddress(address) is address


@given(st.text())
def test_no_text_crashes_the_parsers(text: str) -> None:
    for parse, field in ((PeerId, "peer_id"), (PeerAddress, "address"), (parse_peer_name, "name")):
        refusal = f"{field}: "
        try:
            parse(text)
        except ValueError as error:
            refusal = str(error)
        assert refusal.startswith(f"{field}: ")


def test_keys_are_never_shown() -> None:
    for value in (PeerEndpoint(**GOOD), Bound(epoch=1, **GOOD)):
        assert "signing_key" not in repr(value)


def test_a_half_filled_owner_cannot_be_written_down() -> None:
    with pytest.raises(TypeError):
        SessionOwned()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        MobOwned(comms_runtime_id="comms")  # type: ignore[call-arg]


def test_an_overlay_names_each_peer_once() -> None:
    with pytest.raises(ValueError, match=r"^endpoints: "):
        ApplyMobPeerOverlay(1, (ALICE, ALICE_MOVED))
    assert ApplyMobPeerOverlay(1, [ALICE, BOB]).endpoints == (ALICE, BOB)  # type: ignore[arg-type]


def test_endings_are_ranked() -> None:
    order = [None, Ending.STOP, Ending.UNREGISTER, Ending.DESTROY]
    for low, lower in enumerate(order):
        for high, ending in enumerate(order[1:], start=1):
            assert ending is not None
            assert ending.outranks(lower) is (high > low)


def test_members_are_short_in_print() -> None:
    assert repr(SessionPhase.IDLE) == "SessionPhase.IDLE"
