"""Commands under every schedule, with rebinds, ends and cancellations at any point: each is answered once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    Backoff,
    BindMember,
    BridgeCommand,
    DeliverMemberInput,
    DestroyMember,
    EnvelopeKind,
    HardCancelMember,
    InterruptMember,
    MeerkatError,
    MeerkatMachine,
    MemoryComms,
    MemoryNetwork,
    ReceiptStatus,
    RetireMember,
    RevokeOwnSupervision,
    Session,
    SessionRun,
    UnwireMember,
    WireMember,
    open_machine,
)
from meerkat_trio._trust_task import desired_edges
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.testing import Exploration, explore

from ..authority.cast import endpoint
from ..pair import responses
from ..trust_rig import MANUAL

EVE = endpoint(3, "eve")
BEN = endpoint(12, "ben")


class Fickle(MemoryComms):
    """A transport whose trust store fails now and then, as the explorer chooses."""

    x: Exploration | None = None
    mishaps = 0

    async def trusted_peers(self) -> dict[object, object]:  # type: ignore[override]
        shown = await super().trusted_peers()
        if self.mishaps and self.x is not None and self.x.choose(2):
            self.mishaps -= 1
            raise OSError("the trust store failed")
        return shown  # type: ignore[return-value]


async def hour(_: SessionRun) -> None:
    await trio.sleep(3600)


Meanwhile = Callable[[MeerkatMachine, Session, MemoryComms, MemoryComms], Awaitable[object]]


async def rebind(_: MeerkatMachine, session: Session, __: MemoryComms, spare: MemoryComms) -> None:
    await session.attach_ingress(spare)


async def detach_and_attach(_: MeerkatMachine, session: Session, __: MemoryComms, spare: MemoryComms) -> None:
    await session.detach_ingress()
    await session.attach_ingress(spare)


async def stop_and_attach(_: MeerkatMachine, session: Session, comms: MemoryComms, __: MemoryComms) -> None:
    await session.stop_drain()
    await session.attach_ingress(comms)


async def stop(_: MeerkatMachine, session: Session, *__: MemoryComms) -> None:
    await session.stop()


async def stop_and_revive(machine: MeerkatMachine, session: Session, _: MemoryComms, spare: MemoryComms) -> None:
    await session.stop()
    await (await machine.register("member", hour)).attach_ingress(spare)


async def destroy(_: MeerkatMachine, session: Session, *__: MemoryComms) -> None:
    await session.destroy()


async def close(machine: MeerkatMachine, *_: object) -> None:
    await trio.lowlevel.checkpoint()
    machine.begin_close()


async def swap_executor(_: MeerkatMachine, session: Session, *__: MemoryComms) -> None:
    await session.detach_executor()
    await session.attach_executor(hour)


MEANWHILE: dict[str, Meanwhile] = {
    each.__name__: each
    for each in (rebind, detach_and_attach, stop_and_attach, stop, stop_and_revive, destroy, close, swap_executor)
}
SAID: dict[str, tuple[BridgeCommand, ...]] = {
    "bind": (),
    "rotate": (AuthorizeNextSupervisor(next=BEN, epoch=2),),
    "revoke": (RevokeOwnSupervision(epoch=1),),
    "wire": (WireMember(epoch=1, peer=EVE), UnwireMember(epoch=1, peer=EVE)),
    "interrupt": (
        DeliverMemberInput(epoch=1, input_id="1"),
        InterruptMember(epoch=1),
        HardCancelMember(epoch=1),
    ),
    "retire": (DeliverMemberInput(epoch=1, input_id="1"), RetireMember(epoch=1), HardCancelMember(epoch=1)),
    "destroy": (DestroyMember(epoch=1), DestroyMember(epoch=1)),
}


def scenario(meanwhile: str, said: str, control_lane: int) -> Callable[[Exploration], Awaitable[None]]:
    async def play(x: Exploration) -> None:
        network = MemoryNetwork()
        ann = MemoryComms(network, "ann", control_lane=control_lane)
        comms, spare = Fickle(network, "member"), Fickle(network, "member")
        for each in (comms, spare):
            each.x, each.mishaps = x, 1
            each._trust.add(ann.endpoint(), MANUAL)
        receipts = {}
        heard = []
        async with open_machine(grace=1.0, random=lambda: 0.0) as machine:
            session = await machine.register("member", hour, max_attempts=2, retry_backoff=Backoff(first=0.1))
            await session.attach_ingress(comms)
            bind = BindMember(
                supervisor=ann.endpoint(),
                epoch=1,
                expected_peer_id=comms.peer_id,
                expected_address=comms.advertised_address,
                bootstrap_token=session.issue_bootstrap_token(),
            )
            with x.victim(name="caller"):
                tasks = session._tasks
                x.victim(machine._root_scope, name="machine")
                assert tasks.nursery is not None
                assert tasks.binding is not None
                x.victim(tasks.nursery.cancel_scope, name="session")
                x.victim(tasks.binding.scope, name="drain")
                for number, command in enumerate((bind, *SAID[said])):
                    receipts[f"c{number}"] = ann.send_nowait(
                        ann.envelope(
                            comms.peer_id,
                            command.params(),
                            kind=EnvelopeKind.REQUEST,
                            intent=BRIDGE_INTENT,
                            correlation=f"c{number}",
                        )
                    )
                with suppress(MeerkatError, trio.ClosedResourceError):
                    await MEANWHILE[meanwhile](machine, session, comms, spare)
            for _ in range(60):
                heard += responses(ann)
                await trio.sleep(0.1)
            state = tasks.state
            if state.drain.live and tasks.bound_comms is not None:
                assert isinstance(tasks.bound_comms, MemoryComms)
                stored = tasks.bound_comms._trust.snapshot()
                shown = {edge: peer for edge, peer in stored.items() if edge[1] is not MANUAL}
                assert shown == desired_edges(state)
                assert not state.supervisor.obligations
                assert tasks.supervision is None or tasks.supervision.open_commands == 0
                assert not tasks.waiters.waiting
        heard += responses(ann)
        answered = sorted(str(each.correlation) for each in heard)
        assert answered == sorted(name for name, each in receipts.items() if each.status is ReceiptStatus.ADMITTED)
        assert tasks.requests is None or tasks.requests._held == {}
        assert tasks.supervision is None or tasks.supervision.open_commands == 0

    return play


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_every_command_that_was_admitted_is_answered_once_whatever_happens(meanwhile: str, said: str) -> None:
    for control_lane in (64, 1):
        explore(scenario(meanwhile, said, control_lane), runs=8).raise_if_failed()


@pytest.mark.deep
@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_it_is_answered_once_under_many_more_schedules(meanwhile: str, said: str) -> None:
    for control_lane in (64, 1):
        explore(scenario(meanwhile, said, control_lane), runs=150, mode="fair").raise_if_failed()
        explore(scenario(meanwhile, said, control_lane), runs=150).raise_if_failed()
