"""Commands whose answer waits, and handlers and replies that take their time: nobody else waits for them."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    DeliverMemberInput,
    InterruptMember,
    ObserveMember,
    RejectionCause,
    RetireMember,
    RevokeOwnSupervision,
    SessionRun,
    TrustSource,
    UnwireMember,
    WireMember,
)
from meerkat_trio._supervision import OPEN_COMMANDS

from ..authority.cast import endpoint
from ..rig import settle
from .rig import EVE, Commands, Silent, commanding, rejection

OBSERVE = ObserveMember(epoch=1)


async def hour(_: SessionRun) -> None:
    await trio.sleep(3600)


async def command_everything(rig: Commands) -> None:
    """Give every command that does not end the member."""
    start = trio.current_time()
    for command in (
        OBSERVE,
        DeliverMemberInput(epoch=1, input_id="1"),
        WireMember(epoch=1, peer=EVE),
        UnwireMember(epoch=1, peer=EVE),
        RetireMember(epoch=1),
        AuthorizeNextSupervisor(next=rig.ann_comms.endpoint(), epoch=2),
        InterruptMember(epoch=2),
        RevokeOwnSupervision(epoch=2),
    ):
        await rig.ann.command(rig.id, command)
    await rig.bound(3)
    assert trio.current_time() == start


# --- in nobody's way --------------------------------------------------------------------------------


async def test_a_handler_that_takes_an_hour_is_in_no_commands_way(autojump_clock: object) -> None:
    async with commanding(hour) as rig:
        await rig.bound()
        await rig.ann.send(rig.id, "work")
        await settle()
        await command_everything(rig)


async def test_a_full_work_queue_is_in_no_commands_way(autojump_clock: object) -> None:
    async with commanding(hour, work_queue=1) as rig:
        await rig.bound()
        for number in range(10):
            await rig.ann.send(rig.id, number)
        await settle()
        await command_everything(rig)


@pytest.mark.parametrize("route", ["full", "dead"])
async def test_a_reply_that_cannot_be_sent_is_in_no_commands_way(route: str, autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        blocked = Silent(rig, "blocked", control_lane=1)
        friend = Silent(rig, "friend")
        receipts = [blocked.send(OBSERVE) for _ in range(5)]
        if route == "dead":
            await blocked.comms.aclose()
        friend.send(OBSERVE)
        await settle()
        assert all(receipt.reason is None for receipt in receipts)
        assert rig.member.statistics().replies_waiting == (5 if route == "dead" else 4)
        assert len(friend.heard()) == 1
        await command_everything(rig)
        await trio.sleep(1000)
        assert rig.member.statistics().replies_waiting == 0
        assert rig.member._tasks.state.requests.inbound == frozenset()


async def test_a_store_that_hangs_is_in_the_way_of_those_alone_who_wait_for_it(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        friend = Silent(rig, "friend")
        rig.comms.delay = 3600.0
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.ann.command, rig.id, WireMember(epoch=1, peer=EVE))
            await settle()
            await rig.ann.command(rig.id, OBSERVE)
            await rig.ann.command(rig.id, DeliverMemberInput(epoch=1, input_id="1"))
            friend.send(OBSERVE)
            await settle()
            assert len(friend.heard()) == 1
            assert trio.current_time() == start
            rig.comms.delay = 0.0


async def test_a_caller_that_gives_up_is_in_nobodys_way(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.refused[EVE.peer_id] = OSError("disk full")
        with trio.move_on_after(0.1):
            await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE))
        await rig.ann.command(rig.id, OBSERVE)
        rig.comms.refused.clear()
        assert (await rig.ann.command(rig.id, WireMember(epoch=1, peer=EVE)))["already"] is True
        assert rig.member._tasks.state.requests.inbound == frozenset()


# --- how many ---------------------------------------------------------------------------------------


async def test_so_many_commands_wait_for_the_store_and_no_more(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        ann = Silent(rig, "second", control_lane=OPEN_COMMANDS + 2)
        await rig.ann.command(rig.id, AuthorizeNextSupervisor(next=ann.comms.endpoint(), epoch=2))
        await rig.member.wait_supervisor_settled()
        rig.comms.refused[None] = OSError("cannot be read")
        wire = WireMember(epoch=2, peer=EVE)
        for number in range(OPEN_COMMANDS):
            ann.send(wire, f"wire {number}")
            await settle()
        before = rig.member._tasks.state
        for name, refused in (
            ("wire", WireMember(epoch=2, peer=endpoint(5))),
            ("unwire", UnwireMember(epoch=2, peer=EVE)),
            ("rotate", AuthorizeNextSupervisor(next=EVE, epoch=3)),
        ):
            ann.send(refused, name)
            await settle()
            answer = {"cause": "internal", "detail": "too many commands wait for the trust store"}
            assert ann.heard() == [(name, answer)]
        assert rig.member._tasks.state == before
        ann.send(ObserveMember(epoch=2), "observe")
        await settle()
        assert [name for name, _ in ann.heard()] == ["observe"]
        rig.comms.refused.clear()
        await trio.sleep(60)
        assert sorted(body["already"] for _, body in ann.heard()) == [False] + [True] * (OPEN_COMMANDS - 1)
        ann.send(wire)
        await settle()
        assert [body for _, body in ann.heard()] == [{"already": True}]


async def test_many_commands_at_once_are_answered_once_each_and_leave_nothing_behind(autojump_clock: object) -> None:
    count = 10_000
    heard: list[Any] = []
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand", control_lane=1024)
        await rig.comms.add_trusted_peer(ann.comms.endpoint(), TrustSource.MANUAL)
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        await settle()
        for number in range(count):
            ann.send(WireMember(epoch=1, peer=EVE) if number % 2 else OBSERVE, str(number))
            if number % 50 == 0:
                await settle()
                heard += ann.heard()
        await trio.sleep(1)
        heard += ann.heard()
        assert sorted(name for name, _ in heard) == sorted(["bind", *map(str, range(count))])
        assert not any("cause" in body for _, body in heard)
        tasks = rig.member._tasks
        assert tasks.supervision is not None
        assert tasks.supervision.open_commands == 0
        assert tasks.requests is not None
        assert (len(tasks.requests._held), len(tasks.requests.outbox)) == (0, 0)
        assert not tasks.waiters.waiting
        assert tasks.state.requests.inbound == frozenset()


async def test_commands_do_not_wait_in_line_with_what_waits(autojump_clock: object) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand")
        rig.comms.delay = 1.0
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        ann.send(WireMember(epoch=1, peer=EVE), "wire")
        ann.send(OBSERVE, "observe")
        await settle()
        assert [name for name, _ in ann.heard()] == ["observe"]
        await trio.sleep(30)
        assert {name for name, _ in ann.heard()} == {"bind", "wire"}


async def test_only_the_last_of_two_that_contradict_each_other_comes_about(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        rig.comms.delay = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.ann.command, rig.id, WireMember(epoch=1, peer=EVE))
            await trio.sleep(0.1)
            nursery.start_soon(rig.ann.command, rig.id, UnwireMember(epoch=1, peer=EVE))
        assert {source for peer_id, source in rig.comms._trust.snapshot() if peer_id == EVE.peer_id} == set()
        async with rejection(RejectionCause.SENDER_MISMATCH):
            await rig.ben.command(rig.id, OBSERVE)
