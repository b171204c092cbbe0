"""Every public async call of machine and session, alone and two at once, as scenarios for the explorer."""

from __future__ import annotations

import contextvars
import itertools
from contextlib import suppress
from typing import Final

import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    CommandRejected,
    CommsDrainMode,
    DeliverMemberInput,
    DestroyMember,
    EnvelopeKind,
    HardCancelMember,
    InterruptMember,
    ObserveMember,
    ReceiptStatus,
    ResponseStatus,
    RetireMember,
    RevokeOwnSupervision,
    Session,
    SessionRun,
    TrustSource,
    Unbound,
    UnwireMember,
    WireMember,
    open_machine,
)
from meerkat_trio._drain import BATCH
from meerkat_trio.testing import Exploration, MemoryJournal, WriteFault

from ..journal.rig import Shared
from ..rig import Rig
from .stage import REFUSALS, Call, Scenario, Stage, wait

__all__ = ["ALONE", "CALLS", "CLOSING", "MEETING", "PAIRS", "RECORDED", "SOURCE"]

SOURCE: Final = tuple(
    f"meerkat_trio.{name}"
    for name in (
        "_machine",
        "_session",
        "_calls",
        "_ingress",
        "_tasks",
        "_peers",
        "_reconcile",
        "_trust_task",
        "_drain_task",
        "_drain",
        "_admission",
        "_session_record",
        "_executor",
        "_correspondence",
        "_requests",
        "_supervision",
        "_outbox",
        "_parts",
        "_waiters",
        "_subscription",
        "comms._inbox",
        "comms._inbox_comms",
        "comms._lane",
        "comms._memory",
        "comms._trust",
    )
)
"""The shell, and the transport it is explored with: the code whose await lines have to be struck."""
_variable: Final = contextvars.ContextVar[object]("variable")


async def rebind(stage: Stage) -> None:
    await stage.session.attach_ingress(stage.spare)


async def promote(stage: Stage) -> None:
    await stage.session.attach_mob_ingress(stage.comms, "mob")


async def promote_and_rebind(stage: Stage) -> None:
    await stage.session.attach_mob_ingress(stage.spare, "mob")


async def promote_and_detach(stage: Stage) -> None:
    await stage.session.attach_mob_ingress(stage.comms, "mob")
    await stage.session.detach_mob_ingress("mob")


async def stop_and_attach(stage: Stage) -> None:
    await stage.session.stop_drain()
    await stage.session.attach_ingress(stage.comms)


async def idle_out(stage: Stage) -> None:
    await stage.session.stop_drain()
    await stage.session.attach_ingress(stage.comms, mode=CommsDrainMode.TIMED, idle_timeout=1.0)
    stage.declare()
    if stage.session.drain.mode is CommsDrainMode.TIMED:
        # Not another call's drain, which may be there to stay.
        await stage.session.wait_drain_exited()


async def crash_and_respawn(stage: Stage) -> None:
    stage.comms.crashes = 1
    await stage.session.stop_drain()
    await stage.session.attach_ingress(stage.comms)
    await trio.sleep(1)


async def wait_ended(stage: Stage) -> None:
    with trio.move_on_after(1):
        assert (await stage.session.wait_ended()).session_id == "a"


async def swap_executor(stage: Stage) -> None:
    await stage.session.detach_executor()
    await stage.session.attach_executor(stage.handle)


async def deliver(stage: Stage) -> None:
    for _ in range(3):
        await stage.session.deliver("local")


async def fail_handler(stage: Stage) -> None:
    stage.failures = 1
    await trio.sleep(0.3)


async def give_up(stage: Stage) -> None:
    stage.failures = 2
    await trio.sleep(0.3)


async def send(stage: Stage) -> None:
    await stage.rig.send(stage.comms, next(stage.bodies))


async def register_another(stage: Stage) -> None:
    other = await stage.machine.register("b", stage.handle)
    await other.destroy()


async def stop_and_revive(stage: Stage) -> None:
    await stage.session.stop()
    await stage.machine.register("a", stage.handle)


async def watch(stage: Stage) -> None:
    with trio.move_on_after(1):
        async with stage.machine.subscribe() as steps:
            await stage.session.set_silent_intents(["x"])
            async for _ in steps:
                pass


async def request(stage: Stage) -> None:
    """Ask a session that answers, then one that cannot."""
    peer, mute = stage.meet(), stage.meet(work_lane=1)
    answering = await stage.machine.register(peer.runtime_id, _answer)
    await answering.attach_ingress(peer)
    with trio.move_on_after(0.5):
        progress: list[object] = []
        answer = await stage.session.request(peer.peer_id, "work", peer.runtime_id, on_progress=progress.append)
        assert (answer, progress) == (peer.runtime_id, ["at it"])
        with suppress(CommandRejected):
            await stage.session.command(peer.peer_id, ObserveMember(epoch=1))
        for _ in range(2):
            with trio.move_on_after(0.1):
                await stage.session.request(mute.peer_id, "work", "in vain")


async def _answer(run: SessionRun) -> None:
    await run.reply(ResponseStatus.ACCEPTED, "at it")
    await trio.lowlevel.checkpoint()
    await run.reply(ResponseStatus.COMPLETED, run.message.body)


async def reply(stage: Stage) -> None:
    """Let a peer ask that makes room for one answer at a time, and one that is gone before it is answered."""
    peer, gone = stage.meet(control_lane=1), stage.meet()
    for _ in range(2):
        stage.ask(peer)
    stage.ask(gone)
    await gone.aclose()
    for _ in range(5):
        await trio.sleep(0.1)
        stage.declare()
        stage.hear(peer)


async def send_to_peer(stage: Stage) -> None:
    """Send to a peer that makes room for one message at a time."""
    peer = stage.meet(work_lane=1)
    async with trio.open_nursery() as nursery:

        async def take() -> None:
            for _ in range(3):
                await trio.sleep(0.1)
                stage.hear(peer)

        nursery.start_soon(take)
        with suppress(*REFUSALS):
            for body in range(2):
                stage.said.append((peer, body, await stage.session.send(peer.peer_id, body)))


async def wire(stage: Stage) -> None:
    peer = stage.fragile()
    await stage.session.add_direct_peer(peer)
    stage.declare()
    await stage.session.remove_direct_peer(peer.peer_id)


async def overlay(stage: Stage) -> None:
    session = stage.session
    for _ in range(2):
        await session.apply_mob_overlay(session._tasks.state.peers.overlay_epoch + 1, [stage.fragile()])


async def rotate(stage: Stage) -> None:
    session = stage.session
    for _ in range(2):
        supervise = session.bind_supervisor if isinstance(session.supervisor, Unbound) else session.authorize_supervisor
        supervise(stage.fragile(), epoch=session._tasks.state.supervisor.epoch_floor + 1)
        await session.wait_supervisor_settled()


async def bind_and_revoke(stage: Stage) -> None:
    session = stage.session
    supervisor, epoch = stage.fragile(), session._tasks.state.supervisor.epoch_floor + 1
    session.bind_supervisor(supervisor, epoch=epoch, bootstrap_token=session.issue_bootstrap_token())
    await trio.lowlevel.checkpoint()
    session.revoke_supervisor(supervisor.peer_id, epoch=epoch)
    await session.wait_supervisor_settled()


async def command_bind(stage: Stage) -> None:
    """Bind over the bridge, and again, as one whose answer was not heard; then give it up, twice."""
    boss, token = stage.meet(), stage.session.issue_bootstrap_token()
    stage.shake()
    epoch = stage.session._tasks.state.supervisor.epoch_floor + 1
    bind = BindMember(
        supervisor=boss.endpoint(),
        epoch=epoch,
        expected_peer_id=stage.comms.peer_id,
        expected_address=stage.comms.advertised_address,
        bootstrap_token=token,
    )
    await stage.command(boss, bind, bind)
    await stage.command(boss, RevokeOwnSupervision(epoch=epoch), RevokeOwnSupervision(epoch=epoch))


async def command_rotate(stage: Stage) -> None:
    """Hand over to the next supervisor over the bridge, and again."""
    boss, epoch = stage.supervise()
    stage.shake()
    following = stage.meet()
    rotate = AuthorizeNextSupervisor(next=following.endpoint(), epoch=epoch + 1)
    await stage.command(boss, rotate, rotate)
    await stage.command(following, rotate)


async def command_run(stage: Stage) -> None:
    """Deliver inputs, one of them twice, and cancel runs."""
    boss, epoch = stage.supervise()
    inputs = [DeliverMemberInput(epoch=epoch, input_id=f"{epoch} {name}", content=f"{epoch} {name}") for name in "aab"]
    await stage.command(boss, *inputs, InterruptMember(epoch=epoch), ObserveMember(epoch=epoch))
    await stage.command(boss, *inputs, HardCancelMember(epoch=epoch))


async def command_wire(stage: Stage) -> None:
    """Wire a peer and unwire it, both twice."""
    boss, epoch = stage.supervise()
    peer = stage.fragile()
    await stage.command(boss, WireMember(epoch=epoch, peer=peer), WireMember(epoch=epoch, peer=peer))
    await stage.command(boss, UnwireMember(epoch=epoch, peer=peer), UnwireMember(epoch=epoch, peer=peer))


async def command_retire(stage: Stage) -> None:
    boss, epoch = stage.supervise()
    await stage.command(boss, RetireMember(epoch=epoch), RetireMember(epoch=epoch))


async def command_destroy(stage: Stage) -> None:
    """Destroy over the bridge while the supervisor has no room for the answer, and again."""
    boss, epoch = stage.supervise(control_lane=1)
    stage.rig.peer.send_nowait(stage.rig.peer.envelope(boss.peer_id, kind=EnvelopeKind.PEER_ADDED))
    await stage.command(boss, DestroyMember(epoch=epoch), DestroyMember(epoch=epoch))


async def local_endpoint(stage: Stage) -> None:
    await stage.session.publish_local_endpoint(stage.fragile())
    await stage.session.clear_local_endpoint()


CALLS: Final[dict[str, Call]] = {
    "rebind": rebind,
    "promote": promote,
    "promote and rebind": promote_and_rebind,
    "detach": lambda stage: stage.session.detach_ingress(),
    "promote and detach": promote_and_detach,
    "stop_drain": lambda stage: stage.session.stop_drain(),
    "stop_drains": lambda stage: stage.machine.stop_drains(),
    "stop and attach": stop_and_attach,
    "idle out": idle_out,
    "crash and respawn": crash_and_respawn,
    "wait": wait,
    "swap executor": swap_executor,
    "deliver": deliver,
    "fail": fail_handler,
    "give up": give_up,
    "send": send,
    "request": request,
    "reply": reply,
    "send to peer": send_to_peer,
    "wait ended": wait_ended,
    "retire": lambda stage: stage.session.retire(),
    "stop": lambda stage: stage.session.stop(),
    "stop and revive": stop_and_revive,
    "unregister": lambda stage: stage.session.unregister(),
    "destroy": lambda stage: stage.session.destroy(),
    "register": register_another,
    "set_silent_intents": lambda stage: stage.session.set_silent_intents(["x"]),
    "watch": watch,
    "wire": wire,
    "overlay": overlay,
    "rotate": rotate,
    "bind and revoke": bind_and_revoke,
    "local endpoint": local_endpoint,
    "command bind": command_bind,
    "command rotate": command_rotate,
    "command run": command_run,
    "command wire": command_wire,
    "command retire": command_retire,
    "command destroy": command_destroy,
}

MEETING: Final = (
    ("rebind", "stop_drain"),
    ("rebind", "wait"),
    ("stop_drain", "wait"),
    ("stop and attach", "wait"),
    ("unregister", "rebind"),
    ("destroy", "rebind"),
    ("promote", "detach"),
    ("promote", "rebind"),
    ("promote and detach", "rebind"),
    ("stop", "swap executor"),
    ("stop", "destroy"),
    ("retire", "stop_drain"),
    ("deliver", "stop"),
    ("deliver", "retire"),
    ("send", "detach"),
    ("stop and revive", "rebind"),
    ("crash and respawn", "stop_drain"),
    ("request", "destroy"),
    ("request", "rebind"),
    ("request", "stop_drain"),
    ("reply", "rebind"),
    ("reply", "detach"),
    ("reply", "destroy"),
    ("reply", "give up"),
    ("send to peer", "stop"),
    ("rebind", "wire"),
    ("rebind", "rotate"),
    ("promote and rebind", "rotate"),
    ("detach", "wire"),
    ("stop and attach", "rotate"),
    ("unregister", "wire"),
    ("destroy", "rotate"),
    ("stop and revive", "wire"),
    ("wire", "wire"),
    ("overlay", "overlay"),
    ("wire", "overlay"),
    ("rotate", "rotate"),
    ("rotate", "bind and revoke"),
    ("rebind", "command rotate"),
    ("reply", "command bind"),
    ("stop_drain", "command bind"),
    ("rebind", "command bind"),
    ("detach", "command bind"),
    ("stop and attach", "command wire"),
    ("command wire", "command wire"),
    ("retire", "command run"),
    ("rebind", "command run"),
    ("command run", "command retire"),
    ("request", "command destroy"),
    ("rebind", "command destroy"),
    ("stop", "command wire"),
    ("stop", "command destroy"),
    ("stop and revive", "command rotate"),
)
"""Pairs that act on the same thing."""


def _playing(*calls: str, close: bool = False, limit: int | None = None) -> Scenario:
    async def scenario(x: Exploration) -> None:
        await Stage.play(x, *(CALLS[call] for call in calls), close=close, limit=limit)

    return scenario


def _recorded(*calls: str, close: bool = False) -> Scenario:
    """The same with a journal, of which a write may fail; what is left in it is what a next process has to finish."""

    async def scenario(x: Exploration) -> None:
        left = [1]

        def fault() -> WriteFault:
            if left[0] and x.choose(2):
                left[0] -= 1
                return WriteFault.FAILS
            return WriteFault.NONE

        journal = MemoryJournal(fault, seconds=0.01)
        await Stage.play(x, *(CALLS[call] for call in calls), close=close, journal=journal)

    return scenario


async def opening(x: Exploration) -> None:
    """Open a machine, use it, leave it; the opener is cancelled anywhere."""
    rig = Rig()
    comms = await rig.comms("a")
    receipt = rig.peer.send_nowait(rig.envelope(comms, "waits"))
    sessions: list[Session] = []
    with x.victim(name="opener"):
        async with open_machine(grace=1.0) as machine:
            session = await machine.register("a", rig.record)
            sessions.append(session)
            await session.attach_ingress(comms)
            await session.detach_ingress()
    taken = rig.handled + [given_up.message.body for each in sessions for given_up in each.abandoned]
    assert taken == (["waits"] if receipt.status is ReceiptStatus.ADMITTED else [])
    assert len(taken) + comms.statistics().work_waiting == 1


async def moving(x: Exploration) -> None:
    """A session that one machine lets go and another takes up, both cancelled anywhere; then a third one finishes."""
    rig, journal = Rig(), Shared()
    for pause in (1.0, 1.0, 0.0):

        async def handler(run: SessionRun, pause: float = pause) -> None:
            await trio.sleep(pause)
            rig.handled.append(run.message.body)

        async with open_machine(journal=journal, executors={"a": handler}, grace=0.5) as machine:
            with x.victim(name="caller") if pause else trio.CancelScope(), suppress(*REFUSALS):
                session = await machine.restore("a") or await machine.register("a", handler, work_queue=1)
                if pause:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_delivering, session, f"{pause} one")
                        nursery.start_soon(_delivering, session, f"{pause} two")
                        await trio.sleep(0.1)
                        nursery.start_soon(machine.release, "a")
                await trio.sleep(10)
    assert len(set(rig.handled)) == len(rig.handled)


async def _delivering(session: Session, body: str) -> None:
    with suppress(*REFUSALS):
        await session.deliver(body)


async def reopening(x: Exploration) -> None:
    """A process that finds a session with a message, a request and an answer that is not out, cancelled anywhere."""
    rig, journal = Rig(), MemoryJournal(seconds=0.01)

    async def answers(run: SessionRun) -> None:
        if run.message.kind is EnvelopeKind.REQUEST:
            await run.reply(ResponseStatus.COMPLETED, run.message.body)
        elif run.message.body == "slow":
            await trio.sleep(3600)
        rig.handled.append(run.message.body)

    comms = await rig.comms("a")
    ask = {"kind": EnvelopeKind.REQUEST, "intent": "ask"}
    async with open_machine(journal=journal, grace=0.0) as machine:
        session = await machine.register("a", answers)
        await session.attach_ingress(comms)
        for fields in (
            {"body": "why", "correlation": "1", **ask},
            {"body": "slow"},
            {"body": "how", "correlation": "2", **ask},
        ):
            rig.peer.send_nowait(rig.envelope(comms, **fields))
        await trio.sleep(1)
    await comms.aclose()
    with x.victim(name="opener"), suppress(*REFUSALS):
        async with open_machine(journal=journal, executors={"a": answers}, grace=0.5) as machine:
            tasks = machine["a"]._tasks
            for lane in tasks.made_requests().outbox._lanes.values():
                x.victim(lane.scope, name="outbox")
            with trio.move_on_after(1):
                await machine["a"].stop_drain()
                await machine["a"].add_direct_peer(rig.peer.endpoint())
                await trio.sleep_forever()
            await machine["a"].attach_ingress(await rig.comms("a"))
            await trio.sleep(1)
    # Whatever was cancelled, the next process finds all that is not done.
    async with open_machine(journal=journal) as machine:
        assert len(machine["a"]._tasks.queue) == 2


async def recorded_from_inside(x: Exploration) -> None:
    """A handler that delivers to its own session, whose queue is full now and then, with a journal."""
    rig, journal = Rig(), MemoryJournal(seconds=0.01)
    comms = await rig.comms("a")
    async with open_machine(journal=journal, grace=1.0) as machine:

        async def handler(run: SessionRun) -> None:
            with x.victim(name="handler"), suppress(trio.WouldBlock, *REFUSALS):
                if isinstance(run.message.body, int) and run.message.body < 3:
                    await run.session.deliver("from inside")
            rig.handled.append(run.message.body)

        session = await machine.register("a", handler, work_queue=2)
        await session.attach_ingress(comms)
        with x.victim(name="caller"), suppress(*REFUSALS):
            async with trio.open_nursery() as nursery:
                for body in range(4):
                    nursery.start_soon(_delivering, session, f"outside {body}")
                    rig.peer.send_nowait(rig.envelope(comms, body))
                await trio.sleep(1)
                await session.stop()
    left = [each.message.body for each in session.abandoned]
    sent = [body for body in (*rig.handled, *left) if isinstance(body, int)]
    assert sent == sorted(sent)


async def elsewhere(x: Exploration) -> None:
    """A session that has another home while its handler runs: nothing more of it is begun, or recorded."""
    rig, journal, left = Rig(), Shared(), []

    async def handler(run: SessionRun) -> None:
        rig.handled.append(run.message.body)
        if run.message.body == "first":
            journal.moved = {"a"}
            left.append(await journal.restore("a"))
            await run.session.deliver("late")

    async with open_machine(journal=journal, grace=0.5) as machine:
        with x.victim(name="caller"), suppress(*REFUSALS):
            session = await machine.register("a", handler)
            for body in ("first", "second"):
                await session.deliver(body)
            await trio.sleep(5)
            await machine.release("a")
    assert "second" not in rig.handled or not left
    if left:
        assert await journal.restore("a") == left[0]


async def full_lanes(x: Exploration) -> None:
    """Senders that wait for room in a transport, which is closed in the end."""
    rig = Rig()
    comms = await rig.comms("a", work_lane=1)
    accepted = []

    async def send(body: int) -> None:
        with x.victim(name=f"sender-{body}"), suppress(trio.ClosedResourceError):
            accepted.append(await rig.peer.send(rig.envelope(comms, body)))

    async with trio.open_nursery() as nursery:
        for body in range(3):
            nursery.start_soon(send, body)
        with trio.move_on_after(1), x.victim(name="claimer"):
            for _ in range(2):
                with await comms.claim() as claim:
                    claim.commit()
        await comms.aclose()
    for receipt in accepted:
        assert receipt.status is not ReceiptStatus.QUEUED


async def trust(x: Exploration) -> None:
    """The trust store of a transport."""
    rig = Rig()
    comms = rig.peer
    with x.victim(name="caller"):
        await comms.add_trusted_peer(comms.endpoint(), TrustSource.MANUAL)
        assert comms.is_manually_trusted(comms.peer_id)
        assert len(await comms.trusted_peers()) == 1
        assert await comms.remove_trusted_peer(comms.peer_id, TrustSource.MANUAL)
    await comms.aclose()


async def many(x: Exploration) -> None:
    """More messages than are handled without letting others run."""
    handled = []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with open_machine(grace=1.0) as machine:
        session = await machine.register("a", work_queue=BATCH + 2)
        for body in range(BATCH + 2):
            await session.deliver(body)
        with x.victim(name="caller"), suppress(*REFUSALS):
            x.victim(machine._root_scope, name="machine")
            await session.attach_executor(handler)
            await session.retire()
    assert handled == list(range(len(handled)))


async def from_inside(x: Exploration) -> None:
    """A handler that stops its own session, which must not wait for itself."""
    rig = Rig()
    async with open_machine(grace=1.0) as machine:
        session = await machine.register("a")

        async def handler(run: SessionRun) -> None:
            _variable.set(run.message.body)
            if run.message.body == "stop":
                with x.victim(name="handler"):
                    await session.stop()
            rig.handled.append(run.message.body)

        await session.attach_executor(handler)
        with x.victim(name="caller"):
            for body in ("first", "stop"):
                await session.deliver(body)
            await trio.sleep(1)
    left = [each.message.body for each in session.abandoned]
    assert (rig.handled + left) in ([], ["first"], ["first", "stop"])


ALONE: Final[dict[str, Scenario]] = {
    **{name: _playing(name) for name in CALLS if name != "wait"},
    "wait and stop": _playing("wait"),
    "one handler at a time": _playing("swap executor", limit=1),
    "opening": opening,
    "full lanes": full_lanes,
    "trust": trust,
    "many": many,
    "from inside": from_inside,
}
RECORDED: Final[dict[str, Scenario]] = {
    "moving": moving,
    "elsewhere": elsewhere,
    "reopening": reopening,
    "from inside, recorded": recorded_from_inside,
    **{f"{name} with a journal": _recorded(name) for name in CALLS if name != "wait"},
    **{f"{name} with a journal, while closing": _recorded(name, close=True) for name in CALLS},
}
CLOSING: Final[dict[str, Scenario]] = {f"{name} while closing": _playing(name, close=True) for name in CALLS}
PAIRS: Final[dict[str, Scenario]] = {
    f"{one} x {other}": _playing(one, other) for one, other in itertools.combinations_with_replacement(CALLS, 2)
}
