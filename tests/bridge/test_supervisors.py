"""Binding, rotating and revoking over the transport: what is answered, when, and what a retry repairs."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    CommandRejected,
    ObserveMember,
    RejectionCause,
    RevokeOwnSupervision,
    Unbound,
)
from meerkat_trio._bridge import COMMANDS
from meerkat_trio.authority import PeerAddress

from ..rig import settle
from ..trust_rig import MANUAL, SUPERVISOR
from .rig import Silent, commanding, rejection

Cause = RejectionCause


# --- bind -------------------------------------------------------------------------------------------


async def test_who_has_the_token_becomes_the_supervisor_and_is_told_who_the_member_is(autojump_clock: object) -> None:
    async with commanding() as rig:
        answer = await rig.ann.command(rig.id, rig.bind(rig.member.issue_bootstrap_token(), 3))
        assert answer == {
            "already": False,
            "peer_id": rig.id,
            "address": "inproc://member",
            "capabilities": sorted(COMMANDS),
            "protocol_version": 1,
        }
        assert rig.supervisor == (rig.ann_comms.peer_id, 3)
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}


async def test_a_bind_is_answered_once_the_store_shows_the_edge(autojump_clock: object) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand")
        rig.comms.refused[ann.comms.peer_id] = OSError("disk full")
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms))
        await trio.sleep(0.3)
        assert rig.supervisor == (ann.comms.peer_id, 1)
        assert ann.heard() == []
        rig.comms.refused.clear()
        await trio.sleep(1)
        ((_, body),) = ann.heard()
        assert body["already"] is False
        assert rig.supervisor_edges == {ann.comms.peer_id}


@pytest.mark.parametrize("error", [ValueError("no such address here"), OSError("disk full")])
async def test_a_bind_whose_edge_cannot_be_stored_comes_to_nothing(error: Exception, autojump_clock: object) -> None:
    async with commanding() as rig:
        rig.comms.refused[rig.ann_comms.peer_id] = error
        async with rejection(Cause.PUBLISH_FAILED) as failed:
            await rig.bound(3)
        assert failed.value.epoch_floor == 3
        assert rig.member.supervisor == Unbound()
        rig.comms.refused.clear()
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.bound(3)
        await rig.bound(4)
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}


async def test_a_bind_that_is_sent_again_repairs_the_edge_before_it_is_answered(autojump_clock: object) -> None:
    async with commanding() as rig:
        bind = await rig.bound()
        await rig.comms.remove_trusted_peer(rig.ann_comms.peer_id, SUPERVISOR)
        rig.comms.delay = 1.0
        answer = await rig.ann.command(rig.id, bind)
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}
        assert answer["already"] is True


async def test_a_bind_that_is_sent_again_waits_for_a_store_that_fails_at_first(autojump_clock: object) -> None:
    async with commanding() as rig:
        bind = await rig.bound()
        await rig.comms.remove_trusted_peer(rig.ann_comms.peer_id, SUPERVISOR)
        rig.comms.refused[None] = OSError("cannot be read")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.ann.command, rig.id, bind)
            await trio.sleep(0.5)
            assert rig.member._tasks.supervision is not None
            assert rig.member._tasks.supervision.open_commands == 1
            rig.comms.refused.clear()
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}


@pytest.mark.parametrize("peer", ["theirs", None])
@pytest.mark.parametrize("error", [ValueError("never"), OSError("not now")])
async def test_nobody_waits_for_ever_for_a_repair_that_is_refused(
    error: Exception, peer: str | None, autojump_clock: object
) -> None:
    async with commanding() as rig:
        bind = await rig.bound(2)
        await rig.comms.remove_trusted_peer(rig.ann_comms.peer_id, SUPERVISOR)
        rig.comms.refused[rig.ann_comms.peer_id if peer else None] = error
        for _ in range(2):
            async with rejection(Cause.PUBLISH_FAILED) as failed:
                await rig.ann.command(rig.id, bind)
            assert failed.value.epoch_floor == 2
        # It is bound all the same, and the session goes on trying.
        assert rig.supervisor == (rig.ann_comms.peer_id, 2)
        rig.comms.refused.clear()
        await trio.sleep(60)
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}
        assert (await rig.ann.command(rig.id, bind))["already"] is True


async def test_a_bind_that_is_sent_again_is_told_our_address_and_not_its_own(autojump_clock: object) -> None:
    async with commanding() as rig:
        token = rig.member.issue_bootstrap_token()
        await rig.ann.command(rig.id, rig.bind(token))
        claimed = rig.bind(token, expected_address=PeerAddress("tcp://claimed:1"))
        answer = await rig.ann.command(rig.id, claimed)
        assert (answer["already"], answer["address"]) == (True, "inproc://member")


async def test_a_token_is_good_once_and_only_the_last_one(autojump_clock: object) -> None:
    async with commanding() as rig:
        first = rig.member.issue_bootstrap_token()
        second = rig.member.issue_bootstrap_token()
        async with rejection(Cause.INVALID_BOOTSTRAP_TOKEN):
            await rig.ann.command(rig.id, rig.bind(first))
        await rig.ann.command(rig.id, rig.bind(second))
        await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=1))
        for token in (first, second):
            async with rejection(Cause.INVALID_BOOTSTRAP_TOKEN):
                await rig.ann.command(rig.id, rig.bind(token, 2))
        assert rig.member.supervisor == Unbound()


async def test_of_two_who_hold_the_token_one_is_bound(autojump_clock: object) -> None:
    outcomes: list[str] = []
    async with commanding() as rig:
        token = rig.member.issue_bootstrap_token()

        async def bind(by: str) -> None:
            session, comms = (rig.ann, rig.ann_comms) if by == "ann" else (rig.ben, rig.ben_comms)
            try:
                await session.command(rig.id, rig.bind(token, by=comms))
            except CommandRejected as rejected:
                outcomes.append(rejected.cause.value)
            else:
                outcomes.append("bound")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bind, "ann")
            nursery.start_soon(bind, "ben")
        assert Counter(outcomes) == {"bound": 1, "already_bound": 1}
        assert rig.supervisor is not None
        assert rig.supervisor_edges == {rig.supervisor[0]}


async def test_a_retired_session_can_be_bound(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.member.retire()
        await rig.bound()
        assert (await rig.ann.command(rig.id, ObserveMember(epoch=1)))["phase"] == "retired"


async def test_a_session_is_bound_by_one_of_the_same_machine(autojump_clock: object) -> None:
    async with commanding() as rig:
        colleague = await rig.machine.register("colleague")
        comms = Silent(rig, "colleague").comms
        await comms.add_trusted_peer(rig.comms.endpoint(), MANUAL)
        await colleague.attach_ingress(comms)
        await colleague.command(rig.id, rig.bind(rig.member.issue_bootstrap_token(), by=comms))
        assert rig.supervisor == (comms.peer_id, 1)


# --- authorize --------------------------------------------------------------------------------------


async def test_a_rotation_hands_the_member_over(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await rig.ann.command(rig.id, rig.rotate()) == {"already": False}
        await rig.member.wait_supervisor_settled()
        assert rig.supervisor == (rig.ben_comms.peer_id, 2)
        assert rig.supervisor_edges == {rig.ben_comms.peer_id}
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.ann.command(rig.id, ObserveMember(epoch=1))
        async with rejection(Cause.SENDER_MISMATCH):
            await rig.ann.command(rig.id, ObserveMember(epoch=2))
        await rig.ben.command(rig.id, ObserveMember(epoch=2))


async def test_a_supervisor_renews_itself_with_a_higher_epoch(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await rig.ann.command(rig.id, rig.rotate(5, rig.ann_comms)) == {"already": False}
        await rig.member.wait_supervisor_settled()
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.ann.command(rig.id, ObserveMember(epoch=1))
        await rig.ann.command(rig.id, ObserveMember(epoch=5))


async def test_a_rotation_whose_edge_cannot_be_stored_leaves_the_supervisor_that_was(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[rig.ben_comms.peer_id] = ValueError("no such address here")
        async with rejection(Cause.PUBLISH_FAILED) as failed:
            await rig.ann.command(rig.id, rig.rotate(8))
        assert failed.value.epoch_floor == 8
        await rig.ann.command(rig.id, ObserveMember(epoch=1))
        async with rejection(Cause.STALE_SUPERVISOR):
            await rig.ann.command(rig.id, rig.rotate(8))
        rig.comms.refused.clear()
        await rig.ann.command(rig.id, rig.rotate(9))


@pytest.mark.parametrize("by", ["ann", "ben"])
async def test_a_rotation_that_is_not_confirmed_may_be_sent_again_by_both(by: str, autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[rig.ben_comms.peer_id] = OSError("disk full")
        answers = []

        async def rotate(session: str) -> None:
            answers.append(await getattr(rig, session).command(rig.id, rig.rotate()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate, "ann")
            await trio.sleep(0.1)
            nursery.start_soon(rotate, by)
            await trio.sleep(0.1)
            assert answers == []
            rig.comms.refused.clear()
        assert sorted(answer["already"] for answer in answers) == [False, True]
        assert rig.supervisor_edges >= {rig.ben_comms.peer_id}


async def test_the_new_supervisor_may_send_the_rotation_again_and_repairs_its_edge(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        await rig.ann.command(rig.id, rig.rotate())
        await rig.member.wait_supervisor_settled()
        await rig.comms.remove_trusted_peer(rig.ben_comms.peer_id, SUPERVISOR)
        assert await rig.ben.command(rig.id, rig.rotate()) == {"already": True}
        assert rig.supervisor_edges == {rig.ben_comms.peer_id}
        async with rejection(Cause.SENDER_MISMATCH):
            await rig.ann.command(rig.id, rig.rotate())


async def test_a_rotation_that_another_one_overtakes_is_told_so(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.delay = 2.0
        causes = []

        async def renew(epoch: int) -> None:
            try:
                await rig.ann.command(rig.id, AuthorizeNextSupervisor(next=rig.ann_comms.endpoint(), epoch=epoch))
            except CommandRejected as rejected:
                causes.append((epoch, rejected.cause, rejected.epoch_floor))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, 2)
            await trio.sleep(0.1)
            nursery.start_soon(renew, 3)
        assert causes == [(2, Cause.PUBLISH_FAILED, 3)]
        assert rig.supervisor == (rig.ann_comms.peer_id, 3)


# --- revoke -----------------------------------------------------------------------------------------


async def test_a_revocation_frees_the_member_and_may_be_sent_again(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=1)) == {"already": False}
        assert rig.member.supervisor == Unbound()
        assert await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=1)) == {"already": True}
        await rig.member.wait_supervisor_settled()
        assert rig.supervisor_edges == set()
        async with rejection(Cause.NOT_BOUND):
            await rig.ben.command(rig.id, RevokeOwnSupervision(epoch=1))
        async with rejection(Cause.NOT_BOUND):
            await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=2))


async def test_a_revocation_waits_for_no_store(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[rig.ann_comms.peer_id] = OSError("disk full")
        start = trio.current_time()
        await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=1))
        assert trio.current_time() == start
        rig.comms.refused.clear()
        await trio.sleep(60)
        assert rig.supervisor_edges == set()


async def test_a_bind_that_a_revocation_overtakes_is_told_so(autojump_clock: object) -> None:
    async with commanding() as rig:
        rig.comms.delay = 2.0
        ann = Silent(rig, "ann-by-hand")
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        ann.send(RevokeOwnSupervision(epoch=1), "revoke")
        await trio.sleep(30)
        assert dict(ann.heard()) == {
            "revoke": {"already": False},
            "bind": {"cause": "publish_failed", "epoch_floor": 1},
        }
        assert rig.supervisor_edges == set()


async def test_an_epoch_is_never_reached_twice(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.know()
        for epoch in (3, 5, 6):
            await rig.bound(epoch)
            await rig.ann.command(rig.id, RevokeOwnSupervision(epoch=epoch))
            for stale in (1, epoch - 1, epoch):
                async with rejection(Cause.STALE_SUPERVISOR):
                    await rig.ann.command(rig.id, rig.bind(rig.member.issue_bootstrap_token(), stale))


async def test_the_floor_outlives_the_session(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound(7)
        await rig.member.unregister()
        member = await rig.machine.register("member")
        await member.attach_ingress(rig.comms)
        for epoch, is_stale in ((7, True), (8, False)):
            bind: BindMember = rig.bind(member.issue_bootstrap_token(), epoch)
            if is_stale:
                async with rejection(Cause.STALE_SUPERVISOR):
                    await rig.ann.command(rig.id, bind)
            else:
                await rig.ann.command(rig.id, bind)


async def test_a_command_that_is_open_twice_is_a_duplicate(autojump_clock: object) -> None:
    async with commanding() as rig:
        rig.comms.delay = 1.0
        ann = Silent(rig, "ann-by-hand")
        bind = rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms)
        ann.send(bind, "one")
        await settle()
        again = ann.send(bind, "one")
        other = ann.send(bind, "two")
        await settle()
        assert again.reason is not None
        assert (again.reason.value, other.reason) == ("duplicate", None)
        await trio.sleep(30)
        assert {name: body["already"] for name, body in ann.heard()} == {"one": False, "two": True}
