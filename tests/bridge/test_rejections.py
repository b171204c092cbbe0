"""Rejections as they come over the transport: each cause, and nothing in them of what the caller sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import pytest
import trio

from meerkat_trio import (
    BindMember,
    CommandRejected,
    MemoryComms,
    ObserveMember,
    RejectionCause,
    RequestFailed,
    RevokeOwnSupervision,
    WireMember,
)
from meerkat_trio._bridge import COMMANDS, PROTOCOL_VERSION
from meerkat_trio.authority import PeerAddress, PeerId

from ..authority.cast import endpoint
from .rig import EVE, Commands, Silent, commanding, peer, raw, rejection, reply_of

Cause = RejectionCause
CLAIMED = PeerAddress("tcp://claimed-host:6666")
SECRET = "a-token-of-theirs"  # noqa: S105 - not a secret


# --- each cause over the transport ------------------------------------------------------------------


async def not_bound(rig: Commands) -> None:
    await rig.ann.command(rig.id, ObserveMember(epoch=1))


async def already_bound(rig: Commands) -> None:
    await rig.bound()
    await rig.ben.command(rig.id, rig.bind(SECRET, 2, rig.ben_comms))


async def stale_supervisor(rig: Commands) -> None:
    await rig.bound(3)
    await rig.ann.command(rig.id, ObserveMember(epoch=2))


async def sender_mismatch(rig: Commands) -> None:
    await rig.bound()
    await rig.ben.command(rig.id, ObserveMember(epoch=1))


async def invalid_bootstrap_token(rig: Commands) -> None:
    rig.member.issue_bootstrap_token()
    await rig.ann.command(rig.id, rig.bind(SECRET))


async def address_mismatch(rig: Commands) -> None:
    token = rig.member.issue_bootstrap_token()
    await rig.ann.command(rig.id, rig.bind(token, expected_address=CLAIMED))


async def other_peer_id(rig: Commands) -> None:
    token = rig.member.issue_bootstrap_token()
    await rig.ann.command(rig.id, rig.bind(token, expected_peer_id=EVE.peer_id))


async def somebody_elses_bind(rig: Commands) -> None:
    token = rig.member.issue_bootstrap_token()
    await rig.ben.command(rig.id, rig.bind(token))


async def invalid_supervisor_spec(rig: Commands) -> None:
    said = raw(rig.bind(SECRET), supervisor={**peer(EVE), "name": ""})
    await rig.ann.request(rig.id, "supervisor.bridge", said)


async def invalid_peer_spec(rig: Commands) -> None:
    await rig.bound()
    said = raw(WireMember(epoch=1, peer=EVE), peer={**peer(EVE), "peer_id": str(rig.ben_comms.peer_id)})
    await rig.ann.request(rig.id, "supervisor.bridge", said)


async def not_in_phase(rig: Commands) -> None:
    await rig.bound()
    await rig.member.retire()
    await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE))


async def publish_failed(rig: Commands) -> None:
    rig.comms.refused[rig.ann_comms.peer_id] = ValueError("no such address here")
    await rig.bound(7)


async def unsupported_protocol_version(rig: Commands) -> None:
    await rig.ann.request(rig.id, "supervisor.bridge", raw(ObserveMember(epoch=1), protocol_version=2))


async def unsupported(rig: Commands) -> None:
    await rig.ann.request(rig.id, "supervisor.bridge", raw(ObserveMember(epoch=1), command="obey"))


class Angry(Mapping[str, Any]):
    """What only a sender in the same process can say."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(f"{SECRET}: do not touch {key}")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError(SECRET)

    def __len__(self) -> int:
        return 1


async def internal(rig: Commands) -> None:
    await rig.bound()
    await rig.ann.request(rig.id, "supervisor.bridge", Angry())


WAYS: list[tuple[RejectionCause, Callable[[Commands], Any]]] = [
    (Cause.NOT_BOUND, not_bound),
    (Cause.ALREADY_BOUND, already_bound),
    (Cause.STALE_SUPERVISOR, stale_supervisor),
    (Cause.SENDER_MISMATCH, sender_mismatch),
    (Cause.SENDER_MISMATCH, somebody_elses_bind),
    (Cause.INVALID_BOOTSTRAP_TOKEN, invalid_bootstrap_token),
    (Cause.ADDRESS_MISMATCH, address_mismatch),
    (Cause.ADDRESS_MISMATCH, other_peer_id),
    (Cause.INVALID_SUPERVISOR_SPEC, invalid_supervisor_spec),
    (Cause.INVALID_PEER_SPEC, invalid_peer_spec),
    (Cause.NOT_IN_PHASE, not_in_phase),
    (Cause.PUBLISH_FAILED, publish_failed),
    (Cause.UNSUPPORTED_PROTOCOL_VERSION, unsupported_protocol_version),
    (Cause.UNSUPPORTED, unsupported),
    (Cause.INTERNAL, internal),
]


def test_every_cause_is_reached() -> None:
    assert {cause for cause, _ in WAYS} == set(RejectionCause)


@pytest.mark.parametrize(("cause", "way"), WAYS)
async def test_a_rejection_says_its_cause_and_nothing_of_what_was_sent(
    cause: RejectionCause, way: Callable[[Commands], Any], autojump_clock: object
) -> None:
    async with commanding() as rig:
        with pytest.raises(RequestFailed) as failed:
            await way(rig)
        body = failed.value.body
        assert body["cause"] == cause.value
        assert set(body) <= {"cause", "detail", "epoch_floor"}
        said = json.dumps(body)
        theirs = (rig.ann_comms, rig.ben_comms)
        for secret in (CLAIMED, SECRET, EVE.peer_id, *(each.peer_id for each in theirs), rig.id, "obey"):
            assert secret not in said


@pytest.mark.parametrize("way", [unsupported, internal, invalid_peer_spec])
async def test_what_is_rejected_is_logged_without_what_was_sent(
    way: Callable[[Commands], Any], autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "meerkat_trio.bridge"):
        async with commanding() as rig:
            with pytest.raises(RequestFailed):
                await way(rig)
    assert "rejected a command" in caplog.text
    assert "obey" not in caplog.text
    assert EVE.peer_id not in caplog.text


async def test_a_rejection_leaves_the_session_as_it_was(autojump_clock: object) -> None:
    async with commanding() as rig:
        token = rig.member.issue_bootstrap_token()
        before = rig.member._tasks.state
        for said in (
            rig.bind(token, 1, rig.ben_comms),
            rig.bind(SECRET),
            rig.bind(token, expected_address=CLAIMED),
            ObserveMember(epoch=1),
        ):
            with pytest.raises(CommandRejected):
                await rig.ann.command(rig.id, said)
        assert rig.member._tasks.state == before
        await rig.ann.command(rig.id, rig.bind(token))
        assert rig.supervisor == (rig.ann_comms.peer_id, 1)


async def test_only_who_had_a_binding_come_to_nothing_is_told_the_floor(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound(4)
        rig.comms.refused[rig.ben_comms.peer_id] = ValueError("no such address here")
        async with rejection(Cause.PUBLISH_FAILED) as failed:
            await rig.ann.command(rig.id, rig.rotate(9))
        assert failed.value.epoch_floor == 9
        async with rejection(Cause.SENDER_MISMATCH) as refused:
            await rig.ben.command(rig.id, ObserveMember(epoch=4))
        assert refused.value.epoch_floor is None
        assert rig.supervisor == (rig.ann_comms.peer_id, 4)


async def test_a_body_that_raises_is_nobodys_fault_and_the_drain_serves_on(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await reply_of(rig.ann, rig.id, Angry()) == {"cause": "internal"}
        assert (await rig.ann.command(rig.id, ObserveMember(epoch=1)))["drain"]["generation"] == 1


async def test_a_member_that_knows_no_address_of_its_own_is_not_bound(autojump_clock: object) -> None:
    class Nowhere(MemoryComms):
        @property
        def advertised_address(self) -> PeerAddress:
            raise OSError("not listening yet")

    async with commanding() as rig:
        await rig.member.attach_ingress(Nowhere(rig.network, "member"))
        async with rejection(Cause.INTERNAL):
            await rig.ann.command(rig.id, rig.bind(rig.member.issue_bootstrap_token()))
        await rig.member.publish_local_endpoint(rig.comms.endpoint())
        assert (await rig.bound()).epoch == 1


async def test_a_member_goes_by_the_address_that_it_has_published(autojump_clock: object) -> None:
    published = endpoint(40, "member", 4004)
    async with commanding() as rig:
        await rig.member.publish_local_endpoint(published)
        token = rig.member.issue_bootstrap_token()
        async with rejection(Cause.ADDRESS_MISMATCH):
            await rig.ann.command(rig.id, rig.bind(token))
        answer = await rig.ann.command(rig.id, rig.bind(token, expected_address=published.address))
        assert (answer["address"], answer["peer_id"]) == (published.address, rig.id)


@pytest.mark.parametrize("name", COMMANDS)
async def test_whoever_is_not_the_supervisor_commands_nothing(name: str, autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound(5)
        fields = {
            "supervisor": peer(rig.ben_comms.endpoint()),
            "next": peer(rig.ben_comms.endpoint()),
            "expected_peer_id": str(rig.id),
            "expected_address": str(rig.comms.advertised_address),
            "bootstrap_token": SECRET,
            "input_id": "1",
            "peer": peer(EVE),
        }
        said = {
            "command": name,
            "protocol_version": PROTOCOL_VERSION,
            "epoch": 5,
            **{field.name: fields[field.name] for field in attrs.fields(COMMANDS[name]) if field.name in fields},
        }
        before = rig.member._tasks.state
        expected = "already_bound" if COMMANDS[name] is BindMember else "sender_mismatch"
        assert await reply_of(rig.ben, rig.id, said) == {"cause": expected}
        assert rig.member._tasks.state == before


async def test_a_name_or_a_field_proves_nothing(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        forger = Silent(rig, "forger")
        forger.send(raw(ObserveMember(epoch=1)))
        token = rig.member.issue_bootstrap_token()
        await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=1))
        forger.send(raw(rig.bind(token, 2), supervisor={**peer(forger.comms.endpoint()), "name": "ann"}))
        forger.send(raw(rig.bind(token, 2)))
        await trio.sleep(1)
        heard = dict(forger.heard())
        assert heard["c1"] == {"cause": "sender_mismatch"}
        # The token alone is the proof of who may become a supervisor, and the transport of who that is.
        assert heard["c2"]["peer_id"] == rig.id
        assert heard["c3"] == {"cause": "already_bound"}
        assert rig.supervisor == (PeerId(forger.comms.peer_id), 2)
