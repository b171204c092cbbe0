"""The original's defects as they would show over the bridge: each test is red on an implementation that has one."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BridgeCommand,
    DeliverMemberInput,
    ObserveMember,
    PeerId,
    RejectionCause,
    RevokeOwnSupervision,
    SessionPhase,
    SessionRun,
    Unbound,
)

from .bridge.rig import Commands, Silent, commanding, peer, raw, rejection, reply_of
from .pair import Flaky
from .rig import settle
from .test_half_way_defects import ACK, rebind, require_agreement, supervised
from .trust_rig import SUPERVISOR, Store

Cause = RejectionCause


# --- D21: replies are sent after their route is gone -------------------------------------------------


@pytest.mark.parametrize("command", ["revoke", "rotate"])
@pytest.mark.parametrize("route", ["free", "full"])
async def test_d21_who_gives_its_own_trust_up_is_answered(command: str, route: str, autojump_clock: object) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand", control_lane=1)
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        await settle()
        if route == "free":
            ann.heard()
        said: dict[str, BridgeCommand] = {
            "revoke": RevokeOwnSupervision(epoch=1),
            "rotate": AuthorizeNextSupervisor(next=rig.ben_comms.endpoint(), epoch=2),
        }
        ann.send(said[command], command)
        await trio.sleep(5)
        assert ann.comms.peer_id not in rig.supervisor_edges
        await rebind(rig)
        await rig.comms.aclose()
        heard = dict(ann.heard())
        await trio.sleep(5)
        heard |= dict(ann.heard())
        assert heard[command] == ACK
        assert rig.member.statistics().replies_given_up == 0


async def test_d21_the_reply_to_a_revocation_is_tried_again_after_the_route_was_gone(autojump_clock: object) -> None:
    class FlakyStore(Flaky, Store):
        pass

    async with supervised(before="revoke") as (rig, ann, said):
        flaky = await rig.rebuilt(FlakyStore)
        assert isinstance(flaky, FlakyStore)
        await rig.member.attach_ingress(flaky)
        flaky.failures = 5
        ann.send(said, "1")
        await settle()
        assert (rig.supervisor, ann.heard()) == (None, [])
        await trio.sleep(30)
        assert ann.heard() == [("1", ACK)]


# --- D23: recorded envelopes can be replayed; the bootstrap token is good for ever --------------------


async def test_d23_a_recorded_bind_that_is_replayed_binds_nobody(autojump_clock: object) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand")
        bind = rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms)
        for said in (bind, RevokeOwnSupervision(epoch=1), bind):
            ann.send(said)
            await settle()
        assert rig.member.supervisor == Unbound()
        assert ann.heard()[-1][1] == {"cause": "invalid_bootstrap_token"}
        rig.member.issue_bootstrap_token()
        ann.send(bind)
        await settle()
        assert ann.heard()[-1][1] == {"cause": "invalid_bootstrap_token"}


async def test_d23_an_epoch_that_was_reached_is_not_bound_with_a_new_token_either(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound(4)
        await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=4))
        for epoch in (1, 3, 4):
            async with rejection(Cause.STALE_SUPERVISOR):
                await rig.bound(epoch)
        token = rig.member.issue_bootstrap_token()
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.ann.command(rig.id, rig.bind(token, 4))
        await rig.ann.command(rig.id, rig.bind(token, 5)), "a rejected bind uses no token up"


async def test_d23_a_replayed_rotation_does_not_bring_the_old_supervisor_back(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        to_ben, back = rig.rotate(2), rig.rotate(3, rig.ann_comms)
        await rig.ann.command(rig.id, to_ben)
        await rig.ben.command(rig.id, back)
        await rig.ann.command(rig.id, rig.rotate(4))
        for by, said in ((rig.ann, to_ben), (rig.ben, back)):
            with pytest.raises(Exception, match="rejected the command"):
                await by.command(rig.id, said)
        assert rig.supervisor == (rig.ben_comms.peer_id, 4)


# --- D12, D13, D20, D26 ------------------------------------------------------------------------------


async def test_d12_a_revocation_over_the_bridge_is_acknowledged_by_the_store_though_nobody_is_bound(
    autojump_clock: object,
) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[rig.ann_comms.peer_id] = OSError("disk full")
        await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=1))
        await trio.sleep(0.1)
        assert rig.member._tasks.state.supervisor.obligations != {}
        rig.comms.refused.clear()
        await trio.sleep(60)
        require_agreement(rig)


@pytest.mark.parametrize("epoch", [1, 4, 5])
@pytest.mark.parametrize("to", ["ann", "ben"])
async def test_d13_no_epoch_that_was_reached_is_authorized_over_the_bridge(
    epoch: int, to: str, autojump_clock: object
) -> None:
    async with commanding() as rig:
        await rig.bound(5)
        said = rig.rotate(epoch, rig.ann_comms if to == "ann" else rig.ben_comms)
        if (epoch, to) == (5, "ann"):
            assert await rig.ann.command(rig.id, said) == {"already": True}
        else:
            async with rejection(Cause.STALE_SUPERVISOR):
                await rig.ann.command(rig.id, said)
        assert rig.supervisor == (rig.ann_comms.peer_id, 5)


async def test_d20_a_supervisor_that_spells_its_id_in_capitals_renews_itself(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        me = rig.ann_comms.endpoint()
        shouted = {**peer(me), "peer_id": me.peer_id.upper()}
        said = raw(AuthorizeNextSupervisor(next=me, epoch=2), next=shouted)
        assert await rig.ann.request(rig.id, "supervisor.bridge", said) == ACK
        await rig.member.wait_supervisor_settled()
        assert rig.supervisor_edges == {PeerId(me.peer_id)}
        assert ("remove", me.peer_id, SUPERVISOR) not in rig.comms.changes
        again = await rig.ann.request(rig.id, "supervisor.bridge", said)
        assert again == {"already": True}


async def test_d26_an_edge_that_cannot_be_published_stops_neither_commands_nor_messages(
    autojump_clock: object,
) -> None:
    handled: list[Any] = []

    async def record(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with commanding(record) as rig:
        await rig.bound()
        rig.comms.refused[rig.ben_comms.peer_id] = OSError("disk full")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_failure, rig)
            await settle()
            start = trio.current_time()
            await rig.ben.command(rig.id, ObserveMember(epoch=2))
            await rig.ben.command(rig.id, DeliverMemberInput(epoch=2, input_id="1", content="work"))
            await settle()
            assert (handled, trio.current_time()) == (["work"], start)


async def expect_failure(rig: Commands) -> None:
    async with rejection(Cause.PUBLISH_FAILED):
        await rig.ann.command(rig.id, rig.rotate())


async def test_d22_only_the_bridge_of_the_supervisor_ends_a_member(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        said = {"command": "destroy_member", "protocol_version": 1, "epoch": 1}
        assert await reply_of(rig.ben, rig.id, said) == {"cause": "sender_mismatch"}
        await settle()
        assert rig.member.phase is SessionPhase.IDLE
