"""The defects of the Rust original that are about trust: each test is red on an implementation that has that defect."""

from __future__ import annotations

import pytest
import trio

from meerkat_trio import (
    AddTrustFailed,
    BootstrapTokenRefused,
    PeerEndpoint,
    ReceiptStatus,
    TransitionRejected,
    Unbound,
)

from .authority.cast import ALICE, BOB, endpoint
from .rig import settle
from .test_defects import rigged
from .trust_rig import DIRECT, MANUAL, OVERLAY, SUPERVISOR, edges, store

ANN, BEN, CAL = endpoint(11, "ann"), endpoint(12, "ben"), endpoint(13, "cal")


async def test_d12_an_acknowledged_revocation_is_recorded_though_nobody_is_bound(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        session.revoke_supervisor(ANN.peer_id, epoch=1)
        assert session.supervisor == Unbound()
        with trio.fail_after(60):
            await session.wait_supervisor_settled()
        assert session._tasks.state.supervisor.obligations == {}
        assert edges(comms) == set()


@pytest.mark.parametrize("epoch", [1, 4, 5])
@pytest.mark.parametrize("supervisor", [ANN, BEN], ids=["same", "other"])
async def test_d13_no_epoch_that_was_reached_rotates_the_supervisor(
    epoch: int, supervisor: PeerEndpoint, autojump_clock: object
) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=5)
        await session.wait_supervisor_settled()
        with pytest.raises(TransitionRejected) as rejected:
            session.authorize_supervisor(supervisor, epoch=epoch)
        assert rejected.value.guard == "epoch_above_floor"
        assert edges(comms) == {(ANN.peer_id, SUPERVISOR)}


async def test_d13_a_rotation_that_comes_to_nothing_does_not_open_its_epoch_again(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=5)
        await session.wait_supervisor_settled()
        comms.refused[BEN.peer_id] = ValueError("no such address here")
        session.authorize_supervisor(BEN, epoch=6)
        assert (await session.wait_supervisor_settled()).supervisor != Unbound()
        comms.refused.clear()
        with pytest.raises(TransitionRejected):
            session.authorize_supervisor(BEN, epoch=6)
        session.authorize_supervisor(CAL, epoch=7)
        await session.wait_supervisor_settled()
        assert edges(comms) == {(CAL.peer_id, SUPERVISOR)}


async def test_d14_wiring_a_peer_leaves_the_edges_of_others(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        await session.apply_mob_overlay(1, [BOB])
        await session.add_direct_peer(ALICE)
        await session.remove_direct_peer(ALICE.peer_id)
        assert set(comms._trust.snapshot()) == {
            (rig.peer.peer_id, MANUAL),
            (ANN.peer_id, SUPERVISOR),
            (BOB.peer_id, OVERLAY),
        }


async def test_d14_a_peer_that_one_source_lets_go_of_is_trusted_by_the_others(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(rig.peer.endpoint())
        await session.remove_direct_peer(rig.peer.peer_id)
        assert set(comms._trust.snapshot()) == {(rig.peer.peer_id, MANUAL)}
        (receipt,) = await rig.send(comms, "still trusted")
        assert await receipt.wait() is ReceiptStatus.ADMITTED


@pytest.mark.parametrize("field", ["name", "address"])
async def test_d15_a_renamed_peer_is_not_deleted(field: str, autojump_clock: object) -> None:
    renamed = endpoint(1, "alicia") if field == "name" else endpoint(1, "alice", 4001)
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        await session.add_direct_peer(renamed)
        assert comms._trust.snapshot()[ALICE.peer_id, DIRECT] == renamed
        assert [verb for verb, *_ in comms.changes] == ["add", "add"]


@pytest.mark.parametrize("older", [[ALICE, BOB], [ALICE]], ids=["first of two", "last"])
async def test_d16_a_newer_set_has_the_last_word(older: list[PeerEndpoint], autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.delay = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.apply_mob_overlay, 1, older)
            # It has read the store and is about to add the first of them.
            await trio.sleep(1.5)
            await session.apply_mob_overlay(2, [BOB])
            assert edges(comms) == {(BOB.peer_id, OVERLAY)}
        await trio.sleep(100)
        assert edges(comms) == {(BOB.peer_id, OVERLAY)}


async def test_d16_calls_at_once_are_all_in_the_store(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        peers = [endpoint(number) for number in range(30, 40)]
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(session.add_direct_peer, peer)
                await trio.lowlevel.checkpoint()
        assert edges(comms) == {(peer.peer_id, DIRECT) for peer in peers}


async def test_d17_what_failed_is_tried_again_by_the_session(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.refused[ALICE.peer_id] = OSError("the store is broken")
        with pytest.raises(AddTrustFailed):
            await session.add_direct_peer(ALICE)
        await trio.sleep(10)
        comms.refused.clear()
        await trio.sleep(60)
        assert edges(comms) == {(ALICE.peer_id, DIRECT)}


async def test_d18_another_instance_is_given_the_trust_before_it_serves(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        await session.attach_ingress(await store(rig))
        await session.add_direct_peer(ALICE)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        rebuilt = await store(rig)
        rebuilt.delay = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.attach_ingress, rebuilt)
            await trio.sleep(0.5)
            (receipt,) = await rig.send(rebuilt, "early")
            while receipt.status is ReceiptStatus.QUEUED:
                assert rig.handled == []
                await trio.sleep(0.1)
            assert edges(rebuilt) == {(ALICE.peer_id, DIRECT), (ANN.peer_id, SUPERVISOR)}
        await settle()
        assert rig.handled == ["early"]


async def test_d19_an_endpoint_that_cannot_be_stored_blocks_no_other(autojump_clock: object) -> None:
    with pytest.raises(ValueError, match="address"):
        endpoint(1, "alice", 0)
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.refused[ALICE.peer_id] = ValueError("no such address here")
        with pytest.raises(AddTrustFailed):
            await session.add_direct_peer(ALICE)
        await session.add_direct_peer(BOB)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        rebuilt = await store(rig)
        rebuilt.refused = comms.refused
        await session.attach_ingress(rebuilt)
        assert edges(rebuilt) == {(BOB.peer_id, DIRECT), (ANN.peer_id, SUPERVISOR)}


async def test_d20_an_upper_case_id_is_the_same_supervisor(autojump_clock: object) -> None:
    shouted = PeerEndpoint(
        name="ann",
        peer_id=ANN.peer_id.upper(),
        address=ANN.address,
        signing_key=ANN.signing_key,
    )
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        session.authorize_supervisor(shouted, epoch=2)
        await session.wait_supervisor_settled()
        assert edges(comms) == {(ANN.peer_id, SUPERVISOR)}
        assert ("remove", ANN.peer_id, SUPERVISOR) not in comms.changes
        session.revoke_supervisor(ANN.peer_id.upper(), epoch=2)  # type: ignore[arg-type]
        await session.wait_supervisor_settled()
        assert edges(comms) == set()


async def test_d23_a_bootstrap_token_is_good_for_one_bind() -> None:
    async with rigged() as (_, _, session):
        token = session.issue_bootstrap_token()
        session.bind_supervisor(ANN, epoch=1, bootstrap_token=token)
        session.revoke_supervisor(ANN.peer_id, epoch=1)
        with pytest.raises(BootstrapTokenRefused):
            session.bind_supervisor(ANN, epoch=2, bootstrap_token=token)
        assert session.supervisor == Unbound()


async def test_d23_a_recorded_bind_is_refused_by_its_epoch() -> None:
    async with rigged() as (_, _, session):
        session.bind_supervisor(ANN, epoch=1)
        session.revoke_supervisor(ANN.peer_id, epoch=1)
        with pytest.raises(TransitionRejected) as rejected:
            session.bind_supervisor(ANN, epoch=1)
        assert rejected.value.guard == "epoch_above_floor"
