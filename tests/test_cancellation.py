"""Every public async call, and pairs of calls at once, with a cancellation at every event of the scheduler.

Cancelled is in turn the caller, the drain, the session and the machine. Afterwards authority and tasks agree, nothing
is lost, doubled or reordered, and no task is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio

from meerkat_trio import (
    CommsDrainMode,
    CommsDrainPhase,
    DropReason,
    Ending,
    MeerkatError,
    MeerkatMachine,
    MemoryComms,
    ReceiptStatus,
    Session,
    SessionRun,
    open_machine,
)
from meerkat_trio.testing import Sweep, cancel_at_every_event

from .rig import Rig

SENT = 6
REFUSALS = (MeerkatError, trio.ClosedResourceError, trio.BrokenResourceError)


@attrs.define
class Stage:
    """What a call may use."""

    rig: Rig
    machine: MeerkatMachine
    session: Session
    comms: MemoryComms
    spare: MemoryComms
    made: list[MemoryComms]


Call = Callable[[Stage], Awaitable[Any]]


async def attach_fresh(stage: Stage) -> None:
    await stage.session.attach_ingress(stage.spare)


async def promote(stage: Stage) -> None:
    await stage.session.attach_mob_ingress(stage.comms, "mob")


async def promote_and_rebind(stage: Stage) -> None:
    await stage.session.attach_mob_ingress(stage.spare, "mob")


async def promote_and_detach(stage: Stage) -> None:
    await stage.session.attach_mob_ingress(stage.comms, "mob")
    await stage.session.detach_mob_ingress("mob")


async def rebind_and_stop(stage: Stage) -> None:
    await stage.session.attach_ingress(stage.spare)
    await stage.session.stop_drain()


async def wait_until_idle(stage: Stage) -> None:
    await stage.session.stop_drain()
    await stage.session.attach_ingress(stage.comms, mode=CommsDrainMode.TIMED, idle_timeout=1.0)
    await stage.session.wait_drain_exited()


async def stop_and_attach(stage: Stage) -> None:
    await stage.session.stop_drain()
    await stage.session.attach_ingress(stage.comms)


async def swap_executor(stage: Stage) -> None:
    await stage.session.detach_executor()
    await stage.session.attach_executor(stage.rig.record)


async def deliver(stage: Stage) -> None:
    await stage.session.deliver("local")


async def deliver_some(stage: Stage) -> None:
    for _ in range(3):
        await stage.session.deliver("local")


async def send(stage: Stage) -> None:
    await stage.rig.send(stage.comms, SENT)


async def register_another(stage: Stage) -> None:
    other = await stage.machine.register("b", stage.rig.record)
    await other.destroy()


async def stop_and_revive(stage: Stage) -> None:
    await stage.session.stop()
    await stage.machine.register("a", stage.rig.record)


async def watch(stage: Stage) -> None:
    async with stage.machine.subscribe() as steps:
        await stage.session.set_silent_intents(["x"])
        async for step in steps:
            if step.session_id:
                break


CALLS: dict[str, Call] = {
    "rebind": attach_fresh,
    "promote": promote,
    "promote and rebind": promote_and_rebind,
    "detach": lambda stage: stage.session.detach_ingress(),
    "promote and detach": promote_and_detach,
    "stop_drain": lambda stage: stage.session.stop_drain(),
    "stop and attach": stop_and_attach,
    "stop_drains": lambda stage: stage.machine.stop_drains(),
    "wait": wait_until_idle,
    "swap executor": swap_executor,
    "deliver": deliver,
    "send": send,
    "retire": lambda stage: stage.session.retire(),
    "stop": lambda stage: stage.session.stop(),
    "stop and revive": stop_and_revive,
    "unregister": lambda stage: stage.session.unregister(),
    "destroy": lambda stage: stage.session.destroy(),
    "register": register_another,
    "set_silent_intents": lambda stage: stage.session.set_silent_intents(["x"]),
    "watch": watch,
}


async def wait(stage: Stage) -> None:
    """Wait until the drain has ended: for ever, unless the other call ends it."""
    assert await stage.session.wait_drain_exited() is not None, "nothing had ended"


PAIRS: dict[str, tuple[Call, Call]] = {
    "rebind x stop_drain": (CALLS["rebind"], CALLS["stop_drain"]),
    "stop_drain x wait": (CALLS["stop_drain"], wait),
    "rebind x wait": (rebind_and_stop, wait),
    "stop and attach x wait": (stop_and_attach, wait),
    "unregister x attach": (CALLS["unregister"], CALLS["rebind"]),
    "destroy x rebind": (CALLS["destroy"], CALLS["rebind"]),
    "promote x detach": (CALLS["promote"], CALLS["detach"]),
    "promote and detach x rebind": (CALLS["promote and detach"], CALLS["rebind"]),
    "promote x rebind": (CALLS["promote"], CALLS["rebind"]),
    "stop x swap executor": (CALLS["stop"], CALLS["swap executor"]),
    "stop x destroy": (CALLS["stop"], CALLS["destroy"]),
    "retire x stop_drain": (CALLS["retire"], CALLS["stop_drain"]),
    "deliver x stop": (CALLS["deliver"], CALLS["stop"]),
    "deliver x retire": (deliver_some, CALLS["retire"]),
    "deliver x deliver": (deliver_some, deliver_some),
    "send x detach": (CALLS["send"], CALLS["detach"]),
    "revive x rebind": (CALLS["stop and revive"], CALLS["rebind"]),
}


def scenario_of(*calls: Call, close: bool = False) -> Callable[[Sweep], Awaitable[None]]:
    async def scenario(sweep: Sweep) -> None:
        rig = Rig()

        async def handler(run: SessionRun) -> None:
            await trio.lowlevel.checkpoint()
            rig.handled.append(run.message.body)

        made: list[MemoryComms] = []
        for _ in range(2):
            made.append(await rig.comms("a", work_lane=100))  # noqa: PERF401 - one after the other
        async with open_machine(grace=1.0, random=lambda: 0.0) as machine:
            session = await machine.register("a", handler, work_queue=2)
            await session.attach_ingress(made[0])
            stage = Stage(rig, machine, session, made[0], made[1], made)
            await rig.send(made[0], *range(SENT - 1))
            with sweep.victim("caller"):
                declare(sweep, machine, session)
                async with trio.open_nursery() as nursery:
                    for call in calls:
                        nursery.start_soon(refusable, call, stage)
                    if close:
                        nursery.start_soon(sweepable_close, machine)
            agree(session)
        agree(session)
        balance(rig, session, made)

    return scenario


def declare(sweep: Sweep, machine: MeerkatMachine, session: Session) -> None:
    tasks = session._tasks
    sweep.victim("machine", machine._root_scope)
    if tasks.nursery is not None:
        sweep.victim("session", tasks.nursery.cancel_scope)
    if tasks.binding is not None:
        sweep.victim("drain", tasks.binding.scope)


async def refusable(call: Call, stage: Stage) -> None:
    with suppress(*REFUSALS):
        await call(stage)


async def sweepable_close(machine: MeerkatMachine) -> None:
    await trio.lowlevel.checkpoint()
    machine.begin_close()


def agree(session: Session) -> None:
    """The authority says what the tasks are."""
    tasks = session._tasks
    region = tasks.state.drain
    assert region.live == (tasks.binding is not None)
    if tasks.binding is not None:
        assert tasks.binding.generation == region.generation
    children = len(tasks.nursery.child_tasks) if tasks.nursery is not None else 0
    assert children <= 1 + tasks.drain.is_respawning
    assert region.phase is not CommsDrainPhase.STARTING or children == 1
    if tasks.is_over:
        assert tasks.state.session.ended in set(Ending)
        assert tasks.executor is None
        assert tasks._task is None


def balance(rig: Rig, session: Session, made: list[MemoryComms]) -> None:
    """What was accepted is handled, handed back, still in a transport, or its sender was told: once, in order."""
    own = [body for body in rig.handled if body != "local"]
    back = [each.message.body for each in session.abandoned if each.message.body != "local"]
    left = []
    for comms in made:
        with suppress(trio.ClosedResourceError):
            while (claim := comms.claim_ready()) is not None:
                with claim:
                    left.append(claim.envelope.body)
                    # Dropped, so that it does not pass for admitted; it is counted here.
                    claim.commit(DropReason.EXPIRED)
    told = [
        body
        for body, receipt in rig.receipts
        if receipt.status is ReceiptStatus.DROPPED and receipt.reason is not DropReason.EXPIRED
    ]
    assert own + back + left + told == [body for body, _ in rig.receipts]
    assert DropReason.UNTRUSTED_SENDER not in {receipt.reason for _, receipt in rig.receipts}
    for body, receipt in rig.receipts:
        assert (receipt.status is ReceiptStatus.ADMITTED) == (body in own + back)


STRUCK: set[tuple[str, str]] = set()
"""Every (await line, cancelled scope) that was struck by the sweeps of this file so far."""

STRUCK_AT_LEAST = 42
"""May be raised, never lowered: a sweep that strikes fewer places has lost its reach."""


@pytest.mark.parametrize("name", CALLS)
def test_a_call_cancelled_anywhere_leaves_everything_whole(name: str) -> None:
    report = cancel_at_every_event(scenario_of(CALLS[name]), seeds=(0,))
    report.raise_if_failed()
    STRUCK.update(report.strikes)


@pytest.mark.parametrize("name", PAIRS)
def test_two_calls_at_once_cancelled_anywhere_leave_everything_whole(name: str) -> None:
    report = cancel_at_every_event(scenario_of(*PAIRS[name]), seeds=(0,))
    report.raise_if_failed()
    STRUCK.update(report.strikes)


@pytest.mark.parametrize("name", [*CALLS, "wait for ever"])
def test_a_call_while_the_machine_closes_leaves_everything_whole(name: str) -> None:
    report = cancel_at_every_event(scenario_of(CALLS.get(name, wait), close=True), seeds=(0,))
    report.raise_if_failed()
    STRUCK.update(report.strikes)


def test_opening_a_machine_cancelled_anywhere_leaves_nothing() -> None:
    async def scenario(sweep: Sweep) -> None:
        rig = Rig()
        comms = await rig.comms("a")
        receipt = rig.peer.send_nowait(rig.envelope(comms, "waits"))
        sessions: list[Session] = []
        with sweep.victim("opener"):
            async with open_machine(grace=1.0) as machine:
                session = await machine.register("a", rig.record)
                sessions.append(session)
                await session.attach_ingress(comms)
                await session.detach_ingress()
        taken = rig.handled + [given_up.message.body for each in sessions for given_up in each.abandoned]
        assert taken == (["waits"] if receipt.status is ReceiptStatus.ADMITTED else [])
        assert len(taken) + comms.statistics().work_waiting == 1

    report = cancel_at_every_event(scenario)
    report.raise_if_failed()
    STRUCK.update(report.strikes)


def test_the_sweeps_keep_their_reach(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f" {len(STRUCK)} places struck ", end="")
    if len(STRUCK) == 0:
        pytest.skip("runs after the sweeps of this file only")
    assert len(STRUCK) >= STRUCK_AT_LEAST
