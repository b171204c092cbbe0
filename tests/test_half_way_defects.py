"""A command that is cut half-way leaves binding and trust disagreeing: red on an implementation that has this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    BridgeCommand,
    RevokeOwnSupervision,
    SessionPhase,
    SessionRun,
    TrustSource,
    Unbound,
    UnwireMember,
    WireMember,
)

from .bridge.rig import EVE, Commands, Silent, commanding
from .rig import settle
from .trust_rig import DIRECT, SUPERVISOR, Store, edges


@asynccontextmanager
async def supervised(*, before: str, **options: Any) -> AsyncIterator[tuple[Commands, Silent, BridgeCommand]]:
    """A member, ann who supervises it by hand, and the command that she is about to send."""
    async with commanding(**options) as rig:
        ann = Silent(rig, "ann-by-hand")
        bind = rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms)
        commands: dict[str, BridgeCommand] = {
            "bind": bind,
            "rotate": AuthorizeNextSupervisor(next=rig.ben_comms.endpoint(), epoch=2),
            "renew": AuthorizeNextSupervisor(next=ann.comms.endpoint(), epoch=2),
            "revoke": RevokeOwnSupervision(epoch=1),
            "wire": WireMember(epoch=1, peer=EVE),
            "unwire": UnwireMember(epoch=1, peer=EVE),
        }
        if before != "bind":
            ann.send(bind)
            await settle()
        if before == "unwire":
            ann.send(commands["wire"])
            await settle()
        ann.heard()
        yield rig, ann, commands[before]


def applied(rig: Commands, ann: Silent, before: str) -> bool:
    """Whether the command's change is made, as the session sees it."""
    ann_id, direct = ann.comms.peer_id, rig.member._tasks.state.peers.direct
    return {
        "bind": rig.supervisor == (ann_id, 1),
        "rotate": rig.supervisor == (rig.ben_comms.peer_id, 2),
        "renew": rig.supervisor == (ann_id, 2),
        "revoke": rig.supervisor is None,
        "wire": EVE.peer_id in direct,
        "unwire": EVE.peer_id not in direct,
    }[before]


def require_agreement(rig: Commands) -> None:
    """What the session has decided and what its trust store shows are the same."""
    state = rig.member._tasks.state
    comms = rig.member._tasks.bound_comms or rig.comms
    assert isinstance(comms, Store)
    assert state.supervisor.obligations == {}
    assert edges(comms) == {
        *((peer_id, SUPERVISOR) for peer_id in state.supervisor.endpoints),
        *((peer_id, DIRECT) for peer_id in state.peers.direct),
    }


async def rebind(rig: Commands) -> None:
    await rig.member.attach_ingress(await rig.rebuilt())


async def rebind_twice(rig: Commands) -> None:
    await rebind(rig)
    await rebind(rig)


async def stop_the_drain(rig: Commands) -> None:
    await rig.member.stop_drain()


async def stop_all_drains(rig: Commands) -> None:
    await rig.machine.stop_drains()


async def detach(rig: Commands) -> None:
    await rig.member.detach_ingress()


async def promote(rig: Commands) -> None:
    await rig.member.attach_mob_ingress(await rig.rebuilt(), "mob")


async def retire(rig: Commands) -> None:
    await rig.member.retire()


CUTS: dict[str, Callable[[Commands], Awaitable[None]]] = {
    each.__name__: each for each in (rebind, rebind_twice, stop_the_drain, stop_all_drains, detach, promote, retire)
}
COMMANDS = ("bind", "rotate", "renew", "revoke", "wire", "unwire")
ACK: dict[str, Any] = {"already": False}


async def attached_again(rig: Commands) -> None:
    if rig.member.drain.phase.value != "running":
        await rig.member.attach_ingress(rig.comms)
    await trio.sleep(120)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("command", COMMANDS)
async def test_d28_a_command_whose_answer_waits_is_finished_whatever_happens_meanwhile(
    command: str, cut: str, autojump_clock: object
) -> None:
    async with supervised(before=command) as (rig, ann, said):
        rig.comms.delay = 2.0
        ann.send(said, "1")
        await trio.sleep(1)
        assert applied(rig, ann, command)
        await CUTS[cut](rig)
        rig.comms.delay = 0.0
        await attached_again(rig)
        ((correlation, body),) = ann.heard()
        assert (correlation, {**body, **ACK}) == ("1", body)
        assert applied(rig, ann, command)
        require_agreement(rig)
        assert not rig.member._tasks.waiters.waiting


@pytest.mark.parametrize(
    ("command", "cut"),
    # A retired session is not wired.
    [each for each in product(COMMANDS, CUTS) if each not in {("wire", "retire"), ("unwire", "retire")}],
)
async def test_d28_a_command_that_comes_in_at_that_very_moment_is_made_or_was_never_begun(
    command: str, cut: str, autojump_clock: object
) -> None:
    async with supervised(before=command) as (rig, ann, said):
        # The drain is woken for it, and has not run when it is told to go.
        ann.send(said, "1")
        await CUTS[cut](rig)
        await attached_again(rig)
        ((correlation, body),) = ann.heard()
        assert (correlation, {**body, **ACK}) == ("1", body)
        assert applied(rig, ann, command)
        require_agreement(rig)


@pytest.mark.parametrize("command", ["bind", "rotate", "wire"])
async def test_d28_a_store_that_fails_during_a_rebind_is_told_by_the_next_one(
    command: str, autojump_clock: object
) -> None:
    async with supervised(before=command) as (rig, ann, said):
        rig.comms.refused[None] = OSError("cannot be read")
        ann.send(said, "1")
        await trio.sleep(0.2)
        assert ann.heard() == []
        await rebind(rig)
        await trio.sleep(1)
        assert [name for name, _ in ann.heard()] == ["1"]
        assert applied(rig, ann, command)
        require_agreement(rig)


async def test_d28_what_the_old_store_showed_is_no_answer_after_a_rebind(autojump_clock: object) -> None:
    async with supervised(before="wire") as (rig, ann, said):
        ann.send(said, "1")
        await settle()
        assert ann.heard() == [("1", ACK)]
        new = await rig.rebuilt()
        new.refused[EVE.peer_id] = OSError("disk full")
        await rig.member.attach_ingress(new)
        ann.send(said, "2")
        await trio.sleep(0.1)
        assert ann.heard() == []
        new.refused.clear()
        await trio.sleep(10)
        assert ann.heard() == [("2", {"already": True})]
        assert (EVE.peer_id, DIRECT) in edges(new)


ENDED: dict[str, dict[str, Any]] = {
    "bind": {"cause": "publish_failed", "epoch_floor": 1},
    "rotate": {"cause": "publish_failed", "epoch_floor": 2},
    "renew": {"cause": "publish_failed", "epoch_floor": 2},
    "revoke": ACK,
    "wire": {"cause": "not_in_phase"},
    "unwire": {"cause": "not_in_phase"},
}


@pytest.mark.parametrize("end", ["stop", "unregister", "destroy"])
@pytest.mark.parametrize("command", COMMANDS)
async def test_d28_a_command_that_the_end_overtakes_is_answered_once(
    command: str, end: str, autojump_clock: object
) -> None:
    async with supervised(before=command) as (rig, ann, said):
        rig.comms.delay = 1.0
        ann.send(said, "1")
        await trio.sleep(0.5)
        await getattr(rig.member, end)()
        await trio.sleep(30)
        assert ann.heard() == [("1", ENDED[command])]
        assert rig.member.supervisor == Unbound()
        rig.comms.delay = 0.0
        if end == "stop":
            member = await rig.machine.register("member")
            await member.attach_ingress(rig.comms)
            await settle()
        assert edges(rig.comms) == set()


@pytest.mark.parametrize("end", ["stop", "unregister", "destroy"])
@pytest.mark.parametrize("command", ["bind", "rotate", "renew", "wire", "unwire"])
async def test_d28_a_command_that_waits_with_no_drain_left_is_answered_at_the_end(
    command: str, end: str, autojump_clock: object
) -> None:
    async with supervised(before=command) as (rig, ann, said):
        rig.comms.delay = 1.0
        ann.send(said, "1")
        await trio.sleep(0.5)
        await rig.member.stop_drain()
        assert ann.heard() == []
        # Nothing runs any more: told to end, it has ended.
        await getattr(rig.member, end)()
        assert ann.heard() == [("1", ENDED[command])]
        await trio.sleep(30)
        assert ann.heard() == []
        assert not rig.member._tasks.waiters.waiting


@pytest.mark.parametrize("how", ["leaves the block", "is cancelled"])
@pytest.mark.parametrize("command", COMMANDS)
async def test_d28_a_command_that_the_machines_end_overtakes_is_answered_once(
    command: str, how: str, autojump_clock: object
) -> None:
    with trio.CancelScope() as scope:
        async with supervised(before=command) as (rig, ann, said):
            rig.comms.delay = 2.0
            ann.send(said, "1")
            await trio.sleep(1)
            if how == "is cancelled":
                scope.cancel()
    assert ann.heard() == [("1", ENDED[command])]
    assert rig.member.supervisor == Unbound()
    assert rig.member.phase is SessionPhase.STOPPED


@pytest.mark.parametrize("end", ["stop", "destroy"])
@pytest.mark.parametrize("command", COMMANDS)
async def test_d28_a_command_that_comes_in_as_the_session_ends_is_made_or_was_never_begun(
    command: str, end: str, autojump_clock: object
) -> None:
    async with supervised(before=command) as (rig, ann, said):
        receipt = ann.send(said, "1")
        await getattr(rig.member, end)()
        await trio.sleep(30)
        heard = ann.heard()
        waits = rig.comms.statistics().control_waiting
        # Answered, or still where it was.
        assert (len(heard), waits, receipt.status.value) in {(0, 1, "queued"), (1, 0, "admitted")}


@pytest.mark.parametrize("command", ["bind", "rotate", "wire"])
async def test_d28_a_drain_that_fails_leaves_no_command_behind(command: str, autojump_clock: object) -> None:
    class Failing(Store):
        fails = False

        async def claim(self, **lanes: Any) -> Any:
            if self.fails:
                self.fails = False
                raise OSError("the line is down")
            return await super().claim(**lanes)

    async with supervised(before=command) as (rig, ann, said):
        failing = await rig.rebuilt(Failing)
        assert isinstance(failing, Failing)
        await rig.member.attach_ingress(failing)
        failing.fails = True
        failing.delay = 2.0
        ann.send(said, "1")
        await trio.sleep(30)
        assert rig.member.statistics().respawns == 1
        assert [name for name, _ in ann.heard()] == ["1"]
        assert applied(rig, ann, command)
        require_agreement(rig)


async def test_d28_a_stopped_session_that_is_revived_owes_no_old_answer(autojump_clock: object) -> None:
    async with supervised(before="bind") as (rig, ann, said):
        rig.comms.refused[ann.comms.peer_id] = OSError("disk full")
        ann.send(said, "1")
        await trio.sleep(0.1)
        await rig.member.stop()
        rig.comms.refused.clear()
        member = await rig.machine.register("member")
        await member.attach_ingress(rig.comms)
        assert isinstance(said, BindMember)
        ann.send(rig.bind(member.issue_bootstrap_token(), 2, ann.comms), "2")
        await trio.sleep(10)
        heard = dict(ann.heard())
        assert heard["1"] == ENDED["bind"]
        assert heard["2"]["already"] is False
        assert len(heard) == 2
        assert edges(rig.comms) == {(ann.comms.peer_id, SUPERVISOR)}


async def test_d28_a_handler_that_is_told_to_go_does_not_take_a_command_along(autojump_clock: object) -> None:
    async def reattach(run: SessionRun) -> None:
        await run.session.stop_drain()
        await run.session.detach_ingress()

    async with commanding(reattach) as rig:
        ann = Silent(rig, "ann-by-hand")
        await rig.comms.add_trusted_peer(ann.comms.endpoint(), TrustSource.MANUAL)
        rig.comms.delay = 1.0
        ann.comms.send_nowait(ann.comms.envelope(rig.id, "go"))
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms), "bind")
        await trio.sleep(10)
        rig.comms.delay = 0.0
        await attached_again(rig)
        assert [(name, body["already"]) for name, body in ann.heard()] == [("bind", False)]
        require_agreement(rig)
