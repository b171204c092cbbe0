"""What is not understood, or malformed: each is rejected over the transport, and nothing is done."""

from __future__ import annotations

from typing import Any

import pytest

from meerkat_trio import (
    DeliverMemberInput,
    InterruptMember,
    ObserveMember,
    PeerEndpoint,
    RejectionCause,
    RevokeOwnSupervision,
    WireMember,
)
from meerkat_trio.authority import PeerAddress

from ..authority.cast import endpoint
from .rig import EVE, commanding, peer, raw, rejection, reply_of

Cause = RejectionCause
CLAIMED = PeerAddress("tcp://claimed-host:6666")
SECRET = "a-token-of-theirs"  # noqa: S105 - not a secret
OBSERVE = ObserveMember(epoch=1)
WIRE = WireMember(epoch=1, peer=EVE)
SAID = DeliverMemberInput(epoch=1, input_id="1")
NO_MAPPING = "params: a mapping is needed"
VERSION = "protocol_version: 1 is spoken"
COMMAND = "command: not one of those that are known"
FIELD = "fields: one is not known"
MALFORMED = "fields: one is malformed"
UNKNOWN: dict[str, tuple[object, str]] = {
    "no params": (None, NO_MAPPING),
    "a list": (["observe_member"], NO_MAPPING),
    "a text": ("observe_member", NO_MAPPING),
    "nothing in it": ({}, VERSION),
    "no version": (raw(OBSERVE, "protocol_version"), VERSION),
    **{
        f"version {version!r}": (raw(OBSERVE, protocol_version=version), VERSION)
        for version in (0, 2, True, 1.0, "1", None, [1])
    },
    "a version of many digits": (raw(OBSERVE, protocol_version=10**5000), VERSION),
    "an unknown version and command": (raw(OBSERVE, protocol_version=2, command="obey"), VERSION),
    **{
        f"command {name!r}": (raw(OBSERVE, command=name), COMMAND)
        for name in ("obey", "", None, 1, ["observe_member"], "OBSERVE_MEMBER")
    },
    "no command": (raw(OBSERVE, "command"), COMMAND),
    "an unknown command and field": (raw(OBSERVE, command="obey", obey=1), COMMAND),
    "an unknown field": (raw(OBSERVE, obey=1), FIELD),
    "a field that is no text": (dict[object, object](raw(OBSERVE)) | {1: 1}, FIELD),
    "an unknown field and none that is needed": (raw(OBSERVE, "epoch", obey=1), FIELD),
    "no epoch": (raw(OBSERVE, "epoch"), "epoch: missing"),
    "no input id": (raw(SAID, "input_id"), "input_id: missing"),
    "no peer": (raw(WIRE, "peer"), "peer: missing"),
    **{f"epoch {epoch!r}": (raw(OBSERVE, epoch=epoch), MALFORMED) for epoch in (True, 0, -1, 1.0, "1", None, [1])},
    "an epoch of many digits below 1": (raw(OBSERVE, epoch=-(10**5000)), MALFORMED),
    "an epoch that is none beside an unfit peer": (raw(WIRE, epoch=True, peer={}), MALFORMED),
    **{f"input id {value!r}": (raw(SAID, input_id=value), MALFORMED) for value in ("", "  ", 1, None, ["1"])},
    "a reason that is no text": (raw(InterruptMember(epoch=1), reason=1), MALFORMED),
}


@pytest.mark.parametrize("kind", UNKNOWN)
async def test_what_is_not_understood_is_rejected_and_nothing_is_done(kind: str, autojump_clock: object) -> None:
    said, detail = UNKNOWN[kind]
    cause = Cause.UNSUPPORTED_PROTOCOL_VERSION if detail == VERSION else Cause.UNSUPPORTED
    async with commanding() as rig:
        await rig.bound()
        before = rig.member._tasks.state
        assert await reply_of(rig.ann, rig.id, said) == {"cause": cause.value, "detail": detail}
        assert rig.member._tasks.state == before


def spoiled_binds() -> dict[str, tuple[dict[str, Any], RejectionCause]]:
    malformed = {
        "expected_peer_id": ("x", None, 1, [], "\ud800"),
        "expected_address": ("x", None, 1, "tcp://host", f"tcp://host:{'9' * 5000}", "\ud800"),
        "bootstrap_token": ("", " ", None, 1, b"token", ["token"]),
    }
    return {
        f"{name} {value!r:.30}": ({name: value}, Cause.UNSUPPORTED)
        for name, values in malformed.items()
        for value in values
    } | {
        f"supervisor {name}": ({"supervisor": said}, Cause.INVALID_SUPERVISOR_SPEC)
        for name, said in spoiled_peers(endpoint(11, "ann")).items()
    }


def spoiled_peers(of: PeerEndpoint) -> dict[str, object]:
    said = peer(of)
    return {
        "none": None,
        "a text": str(of.peer_id),
        "empty": {},
        "with a field more": {**said, "admin": True},
        "with a field less": {name: value for name, value in said.items() if name != "address"},
        "with a blank name": {**said, "name": " "},
        "with a name of control characters": {**said, "name": "a\nb"},
        "with a name that is too long": {**said, "name": "a" * 129},
        "with somebody else's id": {**said, "peer_id": str(endpoint(99).peer_id)},
        "with an id that is none": {**said, "peer_id": "x"},
        "with an address that is none": {**said, "address": "x"},
        "with a key that is none": {**said, "signing_key": "x"},
        "with a key of bytes": {**said, "signing_key": of.signing_key},
        "with a key of zeros": {**said, "signing_key": "00" * 32},
        "with a short key": {**said, "signing_key": "01" * 31},
        "with numbers": dict.fromkeys(said, 1),
    }


@pytest.mark.parametrize("kind", spoiled_binds())
async def test_a_malformed_bind_is_rejected_and_the_token_stays_good(kind: str, autojump_clock: object) -> None:
    changed, cause = spoiled_binds()[kind]
    async with commanding() as rig:
        await rig.know()
        token = rig.member.issue_bootstrap_token()
        assert (await reply_of(rig.ann, rig.id, raw(rig.bind(token), **changed)))["cause"] == cause.value
        await rig.ann.command(rig.id, rig.bind(token))


async def test_whether_a_supervisor_is_fit_is_asked_before_whether_there_is_one(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        said = raw(rig.bind(SECRET, 9, expected_address=CLAIMED), supervisor={})
        assert await reply_of(rig.ben, rig.id, said) == {"cause": "invalid_supervisor_spec"}
        said = raw(rig.rotate(), next={})
        assert await reply_of(rig.ben, rig.id, said) == {"cause": "invalid_supervisor_spec"}


@pytest.mark.parametrize("kind", spoiled_peers(EVE))
@pytest.mark.parametrize("name", ["wire_member", "unwire_member"])
async def test_an_unfit_peer_is_rejected_after_the_gate(name: str, kind: str, autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.know()
        unfit = spoiled_peers(EVE)[kind]
        said = raw(WireMember(epoch=1, peer=EVE), command=name, peer=unfit)
        assert await reply_of(rig.ann, rig.id, said) == {"cause": "not_bound"}
        await rig.bound()
        assert await reply_of(rig.ann, rig.id, said) == {"cause": "invalid_peer_spec"}
        assert await reply_of(rig.ann, rig.id, {**said, "epoch": 2}) == {"cause": "stale_supervisor"}
        assert await reply_of(rig.ben, rig.id, said) == {"cause": "sender_mismatch"}
        await rig.member.retire()
        assert await reply_of(rig.ann, rig.id, said) == {"cause": "invalid_peer_spec"}
        assert rig.member._tasks.state.peers.direct == {}


@pytest.mark.parametrize("token", ["\ud800", "\udfff" * 40, "\x00", "é"])
async def test_a_token_of_any_characters_is_just_a_wrong_one(token: str, autojump_clock: object) -> None:
    async with commanding() as rig:
        rig.member.issue_bootstrap_token()
        async with rejection(Cause.INVALID_BOOTSTRAP_TOKEN):
            await rig.ann.command(rig.id, rig.bind(token))


async def test_an_epoch_of_many_digits_is_an_epoch_like_any_other(autojump_clock: object) -> None:
    huge = 10**5000
    async with commanding() as rig:
        await rig.know()
        await rig.bound(huge)
        await rig.ann.command(rig.id, ObserveMember(epoch=huge))
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.ann.command(rig.id, ObserveMember(epoch=huge + 1))
        await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=huge))
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.bound(huge)
        await rig.bound(huge + 1)
