"""Inputs, observation, wiring, retiring and destroying, over the transport."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    DeliverMemberInput,
    DestroyMember,
    DropReason,
    ObserveMember,
    RejectionCause,
    RetireMember,
    SessionEnded,
    SessionPhase,
    SessionRun,
    Unbound,
    UnwireMember,
    WireMember,
)
from meerkat_trio._supervision import INPUTS_REMEMBERED
from meerkat_trio.authority import AddDirectPeerEndpoint

from ..authority.cast import endpoint
from ..rig import settle
from ..trust_rig import DIRECT, SUPERVISOR
from .rig import EVE, Commands, Handler, Silent, commanding, rejection

Cause = RejectionCause
ACCEPTED, DEDUPLICATED = {"result": "accepted"}, {"result": "deduplicated"}
FULL = {"result": "rejected", "reason": "inbox_full"}
NOT_NOW = {"result": "rejected", "reason": "not_admitted_in_phase"}


def into(handled: list[Any], gate: trio.Event | None = None) -> Handler:
    async def handle(run: SessionRun) -> None:
        if gate is not None:
            await gate.wait()
        handled.append(run.message.body)

    return handle


async def deliver(rig: Commands, input_id: str, content: Any = None, epoch: int = 1) -> dict[str, Any]:
    return await rig.ann.command(rig.id, DeliverMemberInput(epoch=epoch, input_id=input_id, content=content))


# --- deliver_member_input ---------------------------------------------------------------------------


async def test_an_input_is_handled_once_however_often_it_is_sent(autojump_clock: object) -> None:
    runs: list[SessionRun] = []

    async def handle(run: SessionRun) -> None:
        runs.append(run)

    async with commanding(handle) as rig:
        await rig.bound()
        assert await deliver(rig, "1", {"do": "this"}) == ACCEPTED
        assert await deliver(rig, "1", {"do": "that"}) == DEDUPLICATED
        await settle()
        assert await deliver(rig, "1") == DEDUPLICATED
        (run,) = runs
        assert (run.message.id, run.message.body) == ("1", {"do": "this"})
        assert (run.message.sender, run.message.recipient) == (rig.ann_comms.peer_id, rig.id)


async def test_inputs_are_handled_in_the_order_in_which_they_came(autojump_clock: object) -> None:
    handled: list[Any] = []
    async with commanding(into(handled)) as rig:
        await rig.bound()
        for number in range(20):
            await deliver(rig, str(number), number)
        await settle()
        assert handled == list(range(20))


async def test_an_input_waits_for_an_executor(autojump_clock: object) -> None:
    handled: list[Any] = []
    async with commanding() as rig:
        await rig.bound()
        assert await deliver(rig, "1", "early") == ACCEPTED
        await rig.member.attach_executor(into(handled))
        await settle()
        assert handled == ["early"]


async def test_an_input_for_which_there_is_no_room_is_rejected_and_may_be_sent_again(autojump_clock: object) -> None:
    handled: list[Any] = []
    gate = trio.Event()
    async with commanding(into(handled, gate), work_queue=2) as rig:
        await rig.bound()
        assert [await deliver(rig, name, name) for name in "abcd"] == [ACCEPTED, ACCEPTED, FULL, FULL]
        assert await deliver(rig, "a") == DEDUPLICATED
        gate.set()
        await settle()
        assert [await deliver(rig, name, name) for name in "cd"] == [ACCEPTED, ACCEPTED]
        await settle()
        assert handled == ["a", "b", "c", "d"]


async def test_a_retired_member_takes_no_input(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await deliver(rig, "1") == ACCEPTED
        await rig.member.retire()
        assert await deliver(rig, "1") == DEDUPLICATED
        assert await deliver(rig, "2") == NOT_NOW
        assert await deliver(rig, "2") == NOT_NOW
        assert rig.member.statistics().dropped == {DropReason.NOT_ADMITTED_IN_PHASE: 2}


async def test_inputs_are_known_by_supervisor_and_id(autojump_clock: object) -> None:
    handled: list[Any] = []
    async with commanding(into(handled)) as rig:
        await rig.bound()
        assert await deliver(rig, "1", "of ann") == ACCEPTED
        await rig.ann.command(rig.id, AuthorizeNextSupervisor(next=rig.ben_comms.endpoint(), epoch=2))
        said = DeliverMemberInput(epoch=2, input_id="1", content="of ben")
        assert await rig.ben.command(rig.id, said) == ACCEPTED
        assert await rig.ben.command(rig.id, said) == DEDUPLICATED
        await settle()
        assert handled == ["of ann", "of ben"]


async def test_an_input_is_known_in_a_later_epoch_of_the_same_supervisor(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await deliver(rig, "1") == ACCEPTED
        await rig.ann.command(rig.id, AuthorizeNextSupervisor(next=rig.ann_comms.endpoint(), epoch=2))
        assert await deliver(rig, "1", epoch=2) == DEDUPLICATED


async def test_so_many_inputs_are_remembered_and_no_more(autojump_clock: object) -> None:
    handled: list[Any] = []
    async with commanding(into(handled)) as rig:
        await rig.bound()
        for number in range(INPUTS_REMEMBERED):
            assert await deliver(rig, str(number)) == ACCEPTED
        assert await deliver(rig, "0") == DEDUPLICATED
        assert await deliver(rig, "one more") == ACCEPTED
        assert await deliver(rig, "1") == DEDUPLICATED
        assert await deliver(rig, "0") == ACCEPTED, "the oldest was forgotten"
        supervision = rig.member._tasks.supervision
        assert supervision is not None
        assert len(supervision._inputs) == INPUTS_REMEMBERED


# --- observe_member ---------------------------------------------------------------------------------


async def test_an_observation_says_how_the_member_is(autojump_clock: object) -> None:
    gate = trio.Event()
    async with commanding(into([], gate), work_queue=2) as rig:
        await rig.bound()
        observe = ObserveMember(epoch=1)
        idle = {
            "phase": "attached",
            "run": None,
            "drain": {"phase": "running", "mode": "persistent_host", "generation": 1},
            "queued": 0,
            "work_waiting": 0,
            "control_waiting": 0,
        }
        assert await rig.ann.command(rig.id, observe) == idle
        for number in range(5):
            await rig.ann.send(rig.id, number)
        await settle()
        run = rig.member._tasks.state.session.run_id
        assert run is not None
        assert await rig.ann.command(rig.id, observe) == {
            **idle,
            "phase": "running",
            "run": run,
            "queued": 2,
            "work_waiting": 3,
        }
        gate.set()
        await settle()
        await rig.member.attach_ingress(await rig.rebuilt())
        after = await rig.ann.command(rig.id, observe)
        assert after == {**idle, "drain": {**idle["drain"], "generation": 2}}  # type: ignore[dict-item]


async def test_an_observation_changes_nothing(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        before = rig.member._tasks.state
        await rig.ann.command(rig.id, ObserveMember(epoch=1))
        assert rig.member._tasks.state == before


# --- wire_member, unwire_member ---------------------------------------------------------------------


async def test_a_wired_peer_is_trusted_once_that_is_answered(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.delay = 1.0
        assert await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE)) == {"already": False}
        assert rig.comms._trust.snapshot()[EVE.peer_id, DIRECT] == EVE
        assert await rig.ann.command(rig.id, UnwireMember(epoch=1, peer=EVE)) == {"already": False}
        assert (EVE.peer_id, DIRECT) not in rig.comms._trust.snapshot()
        assert rig.supervisor_edges == {rig.ann_comms.peer_id}


async def test_wiring_again_repairs_the_edge_before_it_is_answered(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        wire = WireMember(epoch=1, peer=EVE)
        await rig.ann.command(rig.id, wire)
        await rig.comms.remove_trusted_peer(EVE.peer_id, DIRECT)
        assert await rig.ann.command(rig.id, wire) == {"already": True}
        assert (EVE.peer_id, DIRECT) in rig.comms._trust.snapshot()


async def test_unwiring_again_repairs_as_well(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        await rig.comms.add_trusted_peer(EVE, DIRECT)
        assert await rig.ann.command(rig.id, UnwireMember(epoch=1, peer=EVE)) == {"already": True}
        assert (EVE.peer_id, DIRECT) not in rig.comms._trust.snapshot()


async def test_wiring_a_peer_that_has_moved_replaces_it(autojump_clock: object) -> None:
    moved = endpoint(3, "eve", 4001)
    async with commanding() as rig:
        await rig.bound()
        await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE))
        assert await rig.ann.command(rig.id, WireMember(epoch=1, peer=moved)) == {"already": False}
        assert rig.comms._trust.snapshot()[EVE.peer_id, DIRECT] == moved


async def test_wiring_waits_for_a_store_that_fails_at_first(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[EVE.peer_id] = OSError("disk full")
        answers: list[Any] = []

        async def wire() -> None:
            answers.append(await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire)
            await trio.sleep(0.5)
            assert answers == []
            rig.comms.refused.clear()
        assert answers == [{"already": False}]


@pytest.mark.parametrize("error", [ValueError("never"), OSError("not now")])
@pytest.mark.parametrize("command", [WireMember, UnwireMember])
async def test_nobody_waits_for_ever_for_an_edge_that_the_store_refuses(
    command: type[WireMember | UnwireMember], error: Exception, autojump_clock: object
) -> None:
    async with commanding() as rig:
        await rig.bound()
        said = command(epoch=1, peer=EVE)
        if command is UnwireMember:
            await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE))
        rig.comms.refused[EVE.peer_id] = error
        for _ in range(2):
            async with rejection(Cause.PUBLISH_FAILED):
                await rig.ann.command(rig.id, said)
        # It stands, and is tried again.
        assert (EVE.peer_id in rig.member._tasks.state.peers.direct) is (command is WireMember)
        rig.comms.refused.clear()
        await trio.sleep(60)
        assert ((EVE.peer_id, DIRECT) in rig.comms._trust.snapshot()) is (command is WireMember)
        assert await rig.ann.command(rig.id, said) == {"already": True}


async def test_an_edge_of_somebody_else_that_fails_holds_no_answer_up(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[endpoint(5).peer_id] = OSError("disk full")
        rig.member._tasks.apply(AddDirectPeerEndpoint(endpoint(5)))
        start = trio.current_time()
        await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE))
        assert trio.current_time() == start


async def test_a_supervisor_that_is_wired_as_well_is_trusted_twice_over(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        await rig.ann.command(rig.id, WireMember(epoch=1, peer=rig.ann_comms.endpoint()))
        shown = rig.comms._trust.snapshot()
        assert {source for peer_id, source in shown if peer_id == rig.ann_comms.peer_id} == {DIRECT, SUPERVISOR}


# --- retire_member, destroy_member ------------------------------------------------------------------


async def test_a_retired_member_finishes_what_it_has_and_goes_on_being_commanded(autojump_clock: object) -> None:
    handled: list[Any] = []
    gate = trio.Event()
    async with commanding(into(handled, gate)) as rig:
        await rig.bound()
        for name in "ab":
            await deliver(rig, name, name)
        await settle()
        assert await rig.ann.command(rig.id, RetireMember(epoch=1)) == {"queued": 2}
        assert await rig.ann.command(rig.id, RetireMember(epoch=1)) == {"queued": 2}
        assert rig.member.phase is SessionPhase.RETIRED
        gate.set()
        await settle()
        assert handled == ["a", "b"]
        assert (await rig.ann.command(rig.id, ObserveMember(epoch=1)))["phase"] == "retired"
        assert rig.member.drain.phase.value == "running"


async def test_a_destroyed_member_has_said_so_and_is_gone(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        assert await deliver(rig, "1") == ACCEPTED
        assert await rig.ann.command(rig.id, DestroyMember(epoch=1)) == {"queued": 1}
        await settle()
        assert rig.member.phase is SessionPhase.DESTROYED
        assert rig.member.supervisor == Unbound()
        assert "member" not in rig.machine
        assert rig.supervisor_edges == set()
        assert rig.member.end is not None
        assert [message.id for message in rig.member.end.unfinished] == ["1"]


@pytest.mark.parametrize("route", ["full", "dead", "slow"])
async def test_a_member_waits_for_its_last_word_no_longer_than_the_grace_time(
    route: str, autojump_clock: object
) -> None:
    async with commanding(grace=5.0) as rig:
        ann = Silent(rig, "ann-by-hand", control_lane=1)
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        await settle()
        assert [name for name, _ in ann.heard()] == ["bind"]
        ann.send(ObserveMember(epoch=1), "observe")
        await settle()
        start = trio.current_time()
        ann.send(DestroyMember(epoch=1), "destroy")
        if route == "dead":
            await ann.comms.aclose()
        await trio.sleep(3)
        # The reply is on its way: the drain serves on.
        assert rig.member.drain.phase.value == "running"
        if route == "slow":
            assert [name for name, _ in ann.heard()] == ["observe", "destroy"]
        with pytest.raises(SessionEnded):
            while True:
                await trio.sleep(0.125)
                await rig.member.wait_supervisor_settled()
        waited = trio.current_time() - start
        assert waited <= (3.25 if route == "slow" else 5.25)
        await trio.sleep(10)
        assert rig.member.phase is SessionPhase.DESTROYED


async def test_a_destruction_that_is_sent_again_while_its_reply_waits_is_answered_too(autojump_clock: object) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand", control_lane=1)
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        await settle()
        for name in ("one", "two", "three"):
            ann.send(DestroyMember(epoch=1), name)
            await settle()
        heard = []
        for _ in range(4):
            heard += [name for name, _ in ann.heard()]
            await settle()
        assert heard == ["bind", "one", "two", "three"]
        await trio.sleep(1)
        assert rig.member.phase is SessionPhase.DESTROYED


async def test_a_member_that_is_stopped_before_its_last_word_is_out_is_destroyed_all_the_same(
    autojump_clock: object,
) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand", control_lane=1)
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        await settle()
        ann.send(DestroyMember(epoch=1), "destroy")
        await settle()
        assert rig.member.phase is SessionPhase.IDLE
        end = await rig.member.stop()
        assert end is not None
        assert rig.member.phase is SessionPhase.DESTROYED
        assert "member" not in rig.machine


async def test_a_running_handler_has_the_grace_time_when_its_member_is_destroyed(autojump_clock: object) -> None:
    handled: list[float] = []

    async def slow(_: SessionRun) -> None:
        await trio.sleep(3)
        handled.append(trio.current_time())

    async with commanding(slow, grace=5.0) as rig:
        await rig.bound()
        await deliver(rig, "1")
        await settle()
        await rig.ann.command(rig.id, DestroyMember(epoch=1))
        await trio.sleep(10)
        assert len(handled) == 1
        assert rig.member.phase is SessionPhase.DESTROYED
