"""Trust as a session has it: its calls, what they wait for, what they raise, and what is left when it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from meerkat_trio import (
    AddTrustFailed,
    BootstrapTokenRefused,
    Bound,
    Ending,
    PeerEndpoint,
    PeerId,
    ReceiptStatus,
    ReconcileError,
    ReconcileReport,
    RemoveTrustFailed,
    Session,
    SessionEnded,
    SupervisorReport,
    TransitionRejected,
    TrustSnapshotUnavailable,
    Unbound,
    open_machine,
)

from .authority.cast import ALICE, ALICE_MOVED, BOB, EVE, endpoint
from .rig import settle
from .test_defects import rigged
from .trust_rig import DIRECT, MANUAL, OVERLAY, SUPERVISOR, edges, store

ANN, BEN = endpoint(11, "ann"), endpoint(12, "ben")
BROKEN = OSError("the store is broken")
UNFIT = ValueError("no such address here")


def direct(*endpoints: PeerEndpoint) -> set[Any]:
    return {(each.peer_id, DIRECT) for each in endpoints}


# --- peers -----------------------------------------------------------------------------------------


async def test_each_change_of_the_peers_is_in_the_store_when_the_call_returns(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        assert await session.add_direct_peer(ALICE) == ReconcileReport(epoch=1)
        assert edges(comms) == direct(ALICE)
        assert await session.apply_mob_overlay(7, [ALICE, BOB]) == ReconcileReport(epoch=2)
        assert edges(comms) == direct(ALICE) | {(ALICE.peer_id, OVERLAY), (BOB.peer_id, OVERLAY)}
        assert await session.remove_direct_peer(ALICE.peer_id) == ReconcileReport(epoch=3)
        assert edges(comms) == {(ALICE.peer_id, OVERLAY), (BOB.peer_id, OVERLAY)}
        assert await session.publish_local_endpoint(EVE) == ReconcileReport(epoch=3)
        assert await session.clear_local_endpoint() == ReconcileReport(epoch=3)
        assert await session.apply_mob_overlay(8, []) == ReconcileReport(epoch=4)
        assert edges(comms) == set()
        assert (rig.peer.peer_id, MANUAL) in comms._trust.snapshot()


async def test_with_no_transport_changes_are_deferred_until_there_is_one(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        assert await session.add_direct_peer(ALICE) == ReconcileReport(epoch=1, deferred=True)
        session.bind_supervisor(ANN, epoch=1)
        assert await session.wait_supervisor_settled() == SupervisorReport(supervisor=session.supervisor, deferred=True)
        comms = await store(rig)
        await session.attach_ingress(comms)
        assert edges(comms) == direct(ALICE) | {(ANN.peer_id, SUPERVISOR)}
        assert await session.wait_supervisor_settled() == SupervisorReport(supervisor=session.supervisor)


Call = Callable[[Session], Awaitable[object]]
CALLS: dict[str, Call] = {
    "add": lambda session: session.add_direct_peer(BOB),
    "remove": lambda session: session.remove_direct_peer(ALICE.peer_id),
    "overlay": lambda session: session.apply_mob_overlay(1, [BOB]),
    "publish": lambda session: session.publish_local_endpoint(EVE),
    "settled": lambda session: session.wait_supervisor_settled(),
}
FAILING: list[tuple[str, PeerId | None, type[ReconcileError]]] = [
    ("add", BOB.peer_id, AddTrustFailed),
    ("remove", ALICE.peer_id, RemoveTrustFailed),
    ("overlay", BOB.peer_id, AddTrustFailed),
    ("add", None, TrustSnapshotUnavailable),
    ("remove", None, TrustSnapshotUnavailable),
    ("overlay", None, TrustSnapshotUnavailable),
    ("publish", None, TrustSnapshotUnavailable),
]


@pytest.mark.parametrize(("call", "refused", "error"), FAILING)
async def test_what_the_store_refuses_is_raised_stands_and_is_tried_again(
    call: str, refused: PeerId | None, error: type[ReconcileError], autojump_clock: object
) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        comms.refused[refused] = BROKEN
        with pytest.raises(error) as raised:
            await CALLS[call](session)
        assert (raised.value.peer_id, raised.value.cause) == (refused, BROKEN)
        assert "'a'" in str(raised.value)
        assert str(BROKEN) in str(raised.value)
        comms.refused.clear()
        await trio.sleep(100)
        wanted = {(peer, source) for peer, source in edges_wanted(session)}
        assert edges(comms) == wanted
        assert session._tasks.trust_task is None


def edges_wanted(session: Session) -> set[Any]:
    peers = session._tasks.state.peers
    return {(peer, DIRECT) for peer in peers.direct} | {(peer, OVERLAY) for peer in peers.overlay}


async def test_an_edge_of_another_change_is_reported_and_not_raised(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.refused[ALICE.peer_id] = BROKEN
        with pytest.raises(AddTrustFailed):
            await session.add_direct_peer(ALICE)
        report = await session.add_direct_peer(BOB)
        assert report.epoch == 2
        assert [(error.peer_id, error.source) for error in report.failed] == [(ALICE.peer_id, "direct")]
        assert edges(comms) == direct(BOB)


async def test_who_waits_for_an_older_epoch_is_released_by_the_pass_of_a_newer_one(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.delay = 1.0
        reports: list[ReconcileReport] = []

        async def add(peer: PeerEndpoint) -> None:
            reports.append(await session.add_direct_peer(peer))

        async with trio.open_nursery() as nursery:
            for peer in (ALICE, BOB, EVE):
                nursery.start_soon(add, peer)
        assert reports == [ReconcileReport(epoch=3)] * 3
        assert comms.reads == 1  # one pass for them all; before, there was nothing to show


@pytest.mark.parametrize("call", [name for name in CALLS if name != "settled"])
@pytest.mark.parametrize("end", ["stop", "unregister", "machine"])
async def test_who_waits_when_the_session_ends_is_told(call: str, end: str, autojump_clock: object) -> None:
    async with rigged() as (rig, machine, session), trio.open_nursery() as nursery:
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        comms.delay = 3.0

        async def told() -> None:
            with pytest.raises(trio.ClosedResourceError if end == "machine" else SessionEnded):
                await CALLS[call](session)

        nursery.start_soon(told)
        await settle()
        if end == "machine":
            machine.begin_close()
        else:
            await getattr(session, end)()


async def test_who_waits_when_the_transport_is_detached_is_deferred(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session), trio.open_nursery() as nursery:
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.delay = 3.0
        reports: list[object] = []

        async def add() -> None:
            reports.append(await session.add_direct_peer(ALICE))

        nursery.start_soon(add)
        await settle()
        await session.detach_ingress()
        await settle()
        assert reports == [ReconcileReport(epoch=1, deferred=True)]
        assert session._tasks.trust_task is None


async def test_a_cancelled_caller_leaves_its_change_and_the_session_stores_it(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.delay = 1.0
        with trio.move_on_after(0.5):
            await session.add_direct_peer(ALICE)
        await trio.sleep(5)
        assert edges(comms) == direct(ALICE)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.add_direct_peer("alice"), TypeError, "endpoint: a PeerEndpoint is needed, not 'alice'"),
        (lambda s: s.publish_local_endpoint(None), TypeError, "endpoint: a PeerEndpoint is needed, not None"),
        (lambda s: s.apply_mob_overlay(1, [1]), TypeError, "endpoints: a PeerEndpoint is needed, not 1"),
        (lambda s: s.apply_mob_overlay(True, []), ValueError, "epoch: a whole number from 1 up is needed, not True"),
        (lambda s: s.apply_mob_overlay(1, [BOB, BOB]), ValueError, "endpoints: a peer id stands twice in the overlay"),
        (lambda s: s.remove_direct_peer("bob"), ValueError, "peer_id: not a UUID: 'bob'"),
    ],
)
async def test_bad_arguments_are_named(call: Call, error: type[Exception], message: str) -> None:
    async with rigged() as (_, _, session):
        with pytest.raises(error) as raised:
            await call(session)
        assert str(raised.value) == message
        with pytest.raises(TypeError, match="supervisor: a PeerEndpoint is needed"):
            session.bind_supervisor(1, epoch=1)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="epoch: a whole number"):
            session.bind_supervisor(ANN, epoch=0)
        assert session.peers == ()


@pytest.mark.parametrize("call", CALLS)
async def test_a_session_that_has_ended_refuses(call: str) -> None:
    async with rigged() as (_, _, session):
        await session.stop()
        with pytest.raises(SessionEnded):
            await CALLS[call](session)
        with pytest.raises(SessionEnded):
            session.bind_supervisor(ANN, epoch=1)
        with pytest.raises(SessionEnded):
            session.authorize_supervisor(ANN, epoch=1)
        with pytest.raises(SessionEnded):
            session.revoke_supervisor(ANN.peer_id, epoch=1)
        with pytest.raises(SessionEnded):
            session.issue_bootstrap_token()


async def test_a_refused_change_changes_nothing(autojump_clock: object) -> None:
    async with rigged() as (_, _, session):
        await session.add_direct_peer(ALICE)
        refused: list[tuple[Call, str]] = [
            (lambda session: session.add_direct_peer(ALICE), "endpoint_not_already_direct"),
            (lambda session: session.remove_direct_peer(BOB.peer_id), "endpoint_present_in_direct"),
            (lambda session: session.clear_local_endpoint(), "local_endpoint_present"),
        ]
        for call, guard in refused:
            with pytest.raises(TransitionRejected) as rejected:
                await call(session)
            assert rejected.value.guard == guard
        assert session.peers == (ALICE,)


# --- no task while there is nothing to do -----------------------------------------------------------


async def test_the_task_is_there_only_while_there_is_work(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        tasks = session._tasks
        comms = await store(rig)
        await session.attach_ingress(comms)
        assert tasks.trust_task is None
        assert tasks.nursery is not None
        await session.add_direct_peer(ALICE)
        await settle()
        assert tasks.trust_task is None
        assert len(tasks.nursery.child_tasks) == 1


async def test_a_binding_serves_after_one_pass_even_if_edges_failed(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        await session.add_direct_peer(ALICE)
        await session.add_direct_peer(BOB)
        comms = await store(rig)
        comms.refused[ALICE.peer_id] = BROKEN
        comms.delay = 1.0
        receipts = await rig.send(comms, "early")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.attach_ingress, comms)
            await trio.sleep(2.5)
            assert receipts[0].status is ReceiptStatus.QUEUED
            await trio.sleep(1)
            assert receipts[0].status is ReceiptStatus.ADMITTED
            assert edges(comms) == direct(BOB)
            comms.refused.clear()
        await trio.sleep(10)
        assert edges(comms) == direct(ALICE, BOB)


# --- endings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["unregister", "destroy"])
async def test_an_end_removes_the_own_edges_first(end: str, autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        before = set(comms._trust.snapshot())
        ended = await getattr(session, end)()
        assert ended.edges_left == ()
        assert set(comms._trust.snapshot()) == before - direct(ALICE) - {(ANN.peer_id, SUPERVISOR)}
        assert before & {(rig.peer.peer_id, MANUAL)}


@pytest.mark.parametrize("refused", [ALICE.peer_id, None], ids=["edge", "store"])
async def test_what_cannot_be_removed_within_the_grace_time_is_named(
    refused: PeerId | None, autojump_clock: object
) -> None:
    async with rigged(grace=7.0) as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        await session.add_direct_peer(BOB)
        comms.refused[refused] = BROKEN
        start = trio.current_time()
        ended = await session.unregister()
        assert trio.current_time() - start == 7.0
        assert ended is not None
        assert set(ended.edges_left) == (direct(ALICE) if refused else direct(ALICE, BOB))
        assert ended.cause is Ending.UNREGISTER


async def test_an_end_while_an_edge_is_being_stored_leaves_none(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session), trio.open_nursery() as nursery:
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.delay = 0.5

        async def add() -> None:
            with pytest.raises(SessionEnded):
                await session.add_direct_peer(ALICE)

        nursery.start_soon(add)
        await trio.sleep(0.75)
        ended = await session.destroy()
        assert ended is not None
        assert (ended.edges_left, edges(comms)) == ((), set())


async def test_an_end_is_told_once_the_edges_are_removed(autojump_clock: object) -> None:
    async with rigged(grace=7.0) as (rig, _, session), trio.open_nursery() as nursery:
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        await session.add_direct_peer(BOB)
        comms.delay = 0.5
        comms.refused[BOB.peer_id] = BROKEN
        nursery.start_soon(session.destroy)
        # As one sees it who did not call `destroy`.
        while session.end is None:
            await trio.sleep(0.125)
        assert edges(comms) == direct(BOB)
        assert set(session.end.edges_left) == direct(BOB)


async def test_edges_are_removed_while_the_machine_closes_too(autojump_clock: object) -> None:
    async with rigged(grace=7.0) as (rig, machine, session), trio.open_nursery() as nursery:
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        comms.delay = 1.0
        nursery.start_soon(session.unregister)
        await trio.sleep(0.5)
        machine.begin_close()
        await trio.sleep(3)
        assert edges(comms) == set()


async def test_detaching_and_stopping_leave_the_edges_and_a_revival_removes_them(autojump_clock: object) -> None:
    async with rigged() as (rig, machine, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ALICE)
        await session.detach_ingress()
        assert edges(comms) == direct(ALICE)
        await session.attach_ingress(comms)
        ended = await session.stop()
        assert ended is not None
        assert (ended.edges_left, edges(comms)) == ((), direct(ALICE))
        revived = await machine.register("a")
        await revived.attach_ingress(comms)
        assert edges(comms) == set()
        assert (await revived.add_direct_peer(ALICE_MOVED)).epoch == 2


# --- supervisors ------------------------------------------------------------------------------------


def bound(supervisor: PeerEndpoint, epoch: int) -> Bound:
    return Bound(
        name=supervisor.name,
        peer_id=supervisor.peer_id,
        address=supervisor.address,
        signing_key=supervisor.signing_key,
        epoch=epoch,
    )


async def test_a_supervisor_is_bound_rotated_and_revoked_and_the_store_follows(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        assert session.bind_supervisor(ANN, epoch=1).row.name == "bind-supervisor"
        assert session.supervisor == bound(ANN, 1)
        assert await session.wait_supervisor_settled() == SupervisorReport(supervisor=bound(ANN, 1))
        assert edges(comms) == {(ANN.peer_id, SUPERVISOR)}
        session.authorize_supervisor(BEN, epoch=2)
        assert await session.wait_supervisor_settled() == SupervisorReport(supervisor=bound(BEN, 2))
        assert edges(comms) == {(BEN.peer_id, SUPERVISOR)}
        session.revoke_supervisor(BEN.peer_id, epoch=2)
        assert await session.wait_supervisor_settled() == SupervisorReport(supervisor=Unbound())
        assert edges(comms) == set()
        assert [verb for verb, *_ in comms.changes] == ["add", "add", "remove", "remove"]


async def test_the_former_supervisor_stays_until_the_edge_of_the_next_one_stands(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        comms.refused[BEN.peer_id] = BROKEN
        session.authorize_supervisor(BEN, epoch=2)
        await trio.sleep(1)
        assert session._tasks.state.supervisor.previous == bound(ANN, 1)
        assert edges(comms) == {(ANN.peer_id, SUPERVISOR)}
        comms.refused.clear()
        await session.wait_supervisor_settled()
        assert edges(comms) == {(BEN.peer_id, SUPERVISOR)}


@pytest.mark.parametrize(
    ("refused", "cause", "attempts"), [(BEN.peer_id, BROKEN, 8), (BEN.peer_id, UNFIT, 1), (None, BROKEN, 8)]
)
async def test_a_supervisor_whose_edge_cannot_be_stored_is_given_up(
    refused: PeerId | None, cause: BaseException, attempts: int, autojump_clock: object
) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        comms.refused[refused] = cause
        before = comms.attempts if refused else comms.reads
        session.authorize_supervisor(BEN, epoch=2)
        with trio.move_on_after(100):
            await session.wait_supervisor_settled()
        assert (comms.attempts if refused else comms.reads) - before >= attempts
        assert session.supervisor == bound(ANN, 1)
        comms.refused.clear()
        assert (await session.wait_supervisor_settled()).supervisor == bound(ANN, 1)
        assert edges(comms) == {(ANN.peer_id, SUPERVISOR)}
        # The floor stays where it was raised to.
        with pytest.raises(TransitionRejected):
            session.authorize_supervisor(BEN, epoch=2)


async def test_a_burst_of_changes_does_not_use_the_attempts_up(autojump_clock: object) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        comms.refused[ANN.peer_id] = BROKEN
        session.bind_supervisor(ANN, epoch=1)
        for number in range(20):
            await session.add_direct_peer(endpoint(30 + number))
        assert session.supervisor == bound(ANN, 1)
        assert comms.attempts == 20 + 1


async def test_a_supervisor_is_in_force_for_admission_and_a_direct_peer_of_the_same_id_stays(
    autojump_clock: object,
) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)
        await session.add_direct_peer(ANN)
        session.bind_supervisor(ANN, epoch=1)
        await session.wait_supervisor_settled()
        session.revoke_supervisor(ANN.peer_id, epoch=1)
        await session.wait_supervisor_settled()
        assert edges(comms) == direct(ANN)


async def test_a_token_binds_once_and_the_one_before_is_good_no_more() -> None:
    tokens = iter(["first", "second", "third"])
    async with open_machine(new_token=lambda: next(tokens)) as machine:
        session = await machine.register("a")
        first = session.issue_bootstrap_token()
        second = session.issue_bootstrap_token()
        assert (first, second) == ("first", "second")
        assert second.encode() not in repr(session._tasks.state).encode()
        for wrong in ("", first, "guessed"):
            with pytest.raises(BootstrapTokenRefused, match="'a'"):
                session.bind_supervisor(ANN, epoch=1, bootstrap_token=wrong)
        assert session.supervisor == Unbound()
        assert session.bind_supervisor(ANN, epoch=1, bootstrap_token=second).after.supervisor.token_hash is not None
        assert session._tasks.state.supervisor.token_hash is None


async def test_a_refused_bind_leaves_the_token() -> None:
    async with rigged() as (_, _, session):
        session.bind_supervisor(ANN, epoch=5)
        session.revoke_supervisor(ANN.peer_id, epoch=5)
        token = session.issue_bootstrap_token()
        with pytest.raises(TransitionRejected):
            session.bind_supervisor(ANN, epoch=5, bootstrap_token=token)
        session.bind_supervisor(ANN, epoch=6, bootstrap_token=token)


async def test_a_fault_in_the_trust_task_stops_its_session(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    async with rigged() as (rig, _, session):
        comms = await store(rig)
        await session.attach_ingress(comms)

        def broken(*_: object) -> None:
            raise RuntimeError("a bug of ours")

        monkeypatch.setattr("meerkat_trio._reconcile.Reconciler._plan", broken)
        with pytest.raises((SessionEnded, trio.ClosedResourceError)):
            await session.add_direct_peer(ALICE)
        await settle()
        assert session.end is not None
        assert repr(session.end.error) == "RuntimeError('a bug of ours')"
