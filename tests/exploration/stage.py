"""What explorations of the shell share: a machine with a session at its work, and what must hold afterwards."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import attrs
import trio

from meerkat_trio import (
    Backoff,
    BridgeCommand,
    CommsDrainPhase,
    DeliverMemberInput,
    DropReason,
    Ending,
    Envelope,
    EnvelopeKind,
    MeerkatError,
    MeerkatMachine,
    MemoryComms,
    PeerEndpoint,
    PeerId,
    Receipt,
    ReceiptStatus,
    ResponseStatus,
    Session,
    SessionRun,
    TrustSource,
    Unbound,
    open_machine,
)
from meerkat_trio._trust_task import desired_edges
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.testing import Exploration, MemoryJournal

from ..authority.cast import endpoint as endpoint_of
from ..rig import Rig

__all__ = ["REFUSALS", "SENT", "Call", "Crashes", "Scenario", "Stage", "wait"]

SENT = 4
"""Messages that wait in the transport when the calls begin."""
REFUSALS = (MeerkatError, trio.ClosedResourceError, trio.BrokenResourceError)

Scenario = Callable[[Exploration], Awaitable[None]]


class Crashes(MemoryComms):
    """A transport whose claim fails as often as it is told to, and whose trust store fails as the explorer chooses."""

    crashes = 0
    x: Exploration | None = None
    mishaps = 0
    """How many calls of the trust store may still fail."""

    def _may_fail(self) -> None:
        if self.mishaps and self.x is not None and self.x.choose(2):
            self.mishaps -= 1
            raise OSError("the trust store failed")

    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        await super().add_trusted_peer(endpoint, source)
        # It may have happened all the same.
        self._may_fail()

    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        await trio.lowlevel.checkpoint()
        self._may_fail()
        return await super().remove_trusted_peer(peer_id, source)

    async def claim(self, **options: Any) -> Any:
        if self.crashes:
            self.crashes -= 1
            raise OSError("the transport broke")
        return await super().claim(**options)


@attrs.define(eq=False)
class Stage:
    """A session with a drain, an executor and messages on their way, and what calls may use."""

    x: Exploration
    rig: Rig
    machine: MeerkatMachine
    session: Session
    comms: Crashes
    spare: Crashes
    failures: int = 0
    """How many attempts of the handler are still to fail."""
    peers: list[MemoryComms] = attrs.Factory(list)
    """Peers that speak with the session, beside the one that sends."""
    asked: list[tuple[MemoryComms, str, Receipt]] = attrs.Factory(list)
    """Requests of peers: who asked, the correlation, the receipt."""
    responses: list[Envelope] = attrs.Factory(list)
    """What these were answered."""
    given_up: set[tuple[object, object]] = attrs.Factory(set)
    """Who was not answered, and on what, as the log has it."""
    said: list[tuple[MemoryComms, int, Receipt]] = attrs.Factory(list)
    """Messages of the session to peers."""
    heard: list[tuple[MemoryComms, int]] = attrs.Factory(list)
    """Those that arrived."""
    inputs: dict[str, str] = attrs.Factory(dict)
    """Inputs that a supervisor delivers, by the correlation of the command."""
    goes_on: bool = False
    """Whether another process would go on with the session: then what is not answered at the end is not given up."""
    named: int = 0
    bodies: Iterator[int] = attrs.Factory(partial(itertools.count, SENT))
    """What further messages say: each something else, in the order in which they are sent."""

    @classmethod
    async def play(
        cls,
        x: Exploration,
        *calls: Call,
        close: bool = False,
        limit: int | None = None,
        journal: MemoryJournal | None = None,
    ) -> None:
        """Make calls at once while everybody may be cancelled; check what is left."""
        with reading_the_log() as given_up:
            await cls._play(x, *calls, close=close, limit=limit, given_up=given_up, journal=journal)

    @classmethod
    async def _play(
        cls,
        x: Exploration,
        *calls: Call,
        close: bool,
        limit: int | None,
        given_up: set[tuple[object, object]],
        journal: MemoryJournal | None,
    ) -> None:
        rig = Rig()
        # Set up without a checkpoint more than it takes: what is explored begins with the calls.
        comms, spare = (_trusting(rig) for _ in range(2))
        limiter = None if limit is None else trio.CapacityLimiter(limit)
        async with open_machine(grace=1.0, random=lambda: 0.0, limiter=limiter, journal=journal) as machine:
            session = await machine.register("a", None, work_queue=2, max_attempts=2, retry_backoff=Backoff(first=0.1))
            stage = cls(x, rig, machine, session, comms, spare, given_up=given_up, goes_on=journal is not None)
            await session.attach_executor(stage.handle)
            await session.attach_ingress(comms)
            stage.send(*range(SENT))
            with x.victim(name="caller"):
                stage.declare()
                async with trio.open_nursery() as nursery:
                    if wait in calls:
                        nursery.start_soon(stage.refusable, wait)
                    async with trio.open_nursery() as callers:
                        for call in calls:
                            if call is not wait:
                                callers.start_soon(stage.refusable, call)
                        if close:
                            callers.start_soon(stage.close)
                    if wait in calls:
                        await stage.refusable(lambda stage: stage.session.stop_drain())
            stage.agree()
            await stage.rest()
        stage.agree()
        stage.settle_requests()
        stage.settle_inputs()
        stage.balance()
        assert limiter is None or limiter.borrowed_tokens == 0

    async def handle(self, run: SessionRun) -> None:
        """Be the session's handler."""
        await trio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise OSError("the handler failed")
        if run.message.kind is EnvelopeKind.REQUEST:
            await run.reply(ResponseStatus.ACCEPTED)
            await run.reply(ResponseStatus.COMPLETED)
            with suppress(*REFUSALS):
                await run.send(run.message.sender, "thanks for asking")
            return
        self.rig.handled.append(run.message.body)

    def send(self, *bodies: object) -> None:
        """Send without waiting."""
        for body in bodies:
            self.rig.receipts.append((body, self.rig.peer.send_nowait(self.rig.envelope(self.comms, body))))

    def meet(self, **bounds: Any) -> MemoryComms:
        """Make a peer that the session trusts."""
        peer = MemoryComms(self.rig.network, f"peer {len(self.peers)}", **bounds)
        self.peers.append(peer)
        for comms in (self.comms, self.spare):
            comms._trust.add(peer.endpoint(), TrustSource.MANUAL)
        peer._trust.add(self.comms.endpoint(), TrustSource.MANUAL)
        return peer

    def ask(self, peer: MemoryComms, params: object = "request", intent: str = "work") -> str:
        """Let a peer ask the session for something; return the correlation."""
        correlation = f"c{len(self.asked)}"
        receipt = peer.send_nowait(
            peer.envelope(self.comms.peer_id, params, kind=EnvelopeKind.REQUEST, intent=intent, correlation=correlation)
        )
        self.asked.append((peer, correlation, receipt))
        return correlation

    async def command(self, peer: MemoryComms, *commands: BridgeCommand) -> None:
        """Let a peer command the session, and be cancellable while it waits for the answers."""
        for command in commands:
            correlation = self.ask(peer, command.params(), BRIDGE_INTENT)
            if isinstance(command, DeliverMemberInput):
                self.inputs[correlation] = command.input_id
        for _ in range(3):
            await trio.sleep(0.1)
            self.declare()
            self.hear(peer)

    def supervise(self, **bounds: Any) -> tuple[MemoryComms, int]:
        """Make a new peer the supervisor; return it and its epoch."""
        peer, epoch = self.meet(**bounds), self.session._tasks.state.supervisor.epoch_floor + 1
        with suppress(*REFUSALS):
            supervise = (
                self.session.bind_supervisor
                if isinstance(self.session.supervisor, Unbound)
                else self.session.authorize_supervisor
            )
            supervise(peer.endpoint(), epoch=epoch)
        return peer, epoch

    def hear(self, peer: MemoryComms) -> None:
        """Take what a peer was sent that nobody serves."""
        with suppress(trio.ClosedResourceError, trio.BusyResourceError):
            while (claim := peer.claim_ready()) is not None:
                with claim:
                    if claim.envelope.kind is EnvelopeKind.RESPONSE:
                        self.responses.append(claim.envelope)
                    elif isinstance(claim.envelope.body, int):
                        self.heard.append((peer, claim.envelope.body))
                    claim.commit()

    def declare(self) -> None:
        """Let the machine's, the session's and the drain's scopes of this moment be cancelled."""
        tasks = self.session._tasks
        self.x.victim(self.machine._root_scope, name="machine")
        if tasks.nursery is not None:
            self.x.victim(tasks.nursery.cancel_scope, name="session")
        if tasks.binding is not None:
            self.x.victim(tasks.binding.scope, name="drain")
        if tasks.requests is not None:
            for lane in tasks.requests.outbox._lanes.values():
                self.x.victim(lane.scope, name="outbox")

    async def refusable(self, call: Call) -> None:
        """Make a call that may be refused, and go on being cancellable in what it has brought about."""
        with suppress(*REFUSALS):
            await call(self)
            self.declare()

    async def close(self) -> None:
        """Close the machine in the middle."""
        await trio.lowlevel.checkpoint()
        self.machine.begin_close()

    def agree(self) -> None:
        """Check that the authority says what the tasks are."""
        tasks = self.session._tasks
        region = tasks.state.drain
        assert region.live == (tasks.binding is not None)
        if tasks.binding is not None:
            assert tasks.binding.generation == region.generation
        children = len(tasks.nursery.child_tasks) if tasks.nursery is not None else 0
        children -= tasks.requests.outbox.tasks + len(tasks.requests.kept) if tasks.requests is not None else 0
        children -= tasks.supervision.tasks if tasks.supervision is not None else 0
        # At the end the pass that is being cancelled is joined by the task that removes the edges.
        trusting = 0 if tasks.trust_task is None else 1 + (tasks.trust_task._revoked is not None)
        assert children <= 1 + tasks.drain.is_respawning + trusting
        assert region.phase is not CommsDrainPhase.STARTING or children >= 1
        if tasks.requests is not None and tasks.state.session.ended is None:
            owed = {
                (held.message.sender, held.message.correlation)
                for held in tasks.requests._held.values()
                if not held.answered
            }
            for lane in tasks.requests.outbox._lanes.values():
                envelopes = [reply.envelope for reply in lane.replies]
                owed |= {
                    (each.recipient, each.correlation)
                    for each in envelopes
                    if each.status is not ResponseStatus.ACCEPTED
                }
            assert tasks.state.requests.inbound == owed
            assert {*tasks.state.requests.outbound} == {*tasks.requests._pending}
        if tasks.is_over:
            assert tasks.state.session.ended in set(Ending)
            assert tasks.executor is None
            assert tasks._task is None

    async def rest(self) -> None:
        """Wait until nothing is tried again any more; check that the trust store shows what the authority wants."""
        tasks = self.session._tasks
        for _ in range(10):
            if tasks.trust_task is None:
                break
            await trio.sleep(1)
        if tasks.is_over or tasks.state.session.ending is not None or tasks.bound_comms is None:
            return
        assert isinstance(tasks.bound_comms, Crashes)
        stored = tasks.bound_comms._trust.snapshot()
        shown = {edge: endpoint for edge, endpoint in stored.items() if edge[1] is not TrustSource.MANUAL}
        # With no drain that serves it, another instance is brought up to date when there is one.
        if tasks.state.drain.live:
            assert shown == desired_edges(tasks.state)
            assert not tasks.state.supervisor.obligations
            assert tasks.trust_task is None

    def fragile(self) -> PeerEndpoint:
        """Let the trust stores fail from now on, twice each; return a peer that nobody else has named."""
        self.named += 1
        self.shake()
        return endpoint_of(100 + self.named)

    def shake(self) -> None:
        """Let the trust stores fail from now on, twice each."""
        for comms in (self.comms, self.spare):
            comms.x, comms.mishaps = self.x, 2

    def balance(self) -> None:
        """Check that what was accepted is handled, handed back, still in a transport, or its sender was told: once."""
        taken = [
            body
            for body in (*self.rig.handled, *(each.message.body for each in self.session.abandoned))
            if isinstance(body, int)
        ]
        left: list[int] = []
        for comms in (self.comms, self.spare):
            with suppress(trio.ClosedResourceError):
                while (claim := comms.claim_ready()) is not None:
                    with claim:
                        if isinstance(claim.envelope.body, int):
                            left.append(claim.envelope.body)
                        # Dropped, so that it does not pass for admitted; it is counted here.
                        claim.commit(DropReason.EXPIRED)
        told = [
            body
            for body, receipt in self.rig.receipts
            if isinstance(body, int)
            and receipt.status is ReceiptStatus.DROPPED
            and receipt.reason is not DropReason.EXPIRED
        ]
        assert sorted(taken + left + told) == sorted(body for body, _ in self.rig.receipts if isinstance(body, int))
        assert self.failures_reorder or taken == sorted(taken)
        assert left == sorted(left)
        assert DropReason.UNTRUSTED_SENDER not in {receipt.reason for _, receipt in self.rig.receipts}
        for body, receipt in self.rig.receipts:
            assert (receipt.status is ReceiptStatus.ADMITTED) == (body in taken)

    def settle_inputs(self) -> None:
        """Check that what a supervisor delivered came in once, and only if it was told so."""
        taken = [*self.rig.handled, *(each.message.body for each in self.session.abandoned)]
        results = {
            each.correlation: each.body["result"]
            for each in self.responses
            if each.correlation in self.inputs and each.status is ResponseStatus.COMPLETED
        }
        for input_id in {*self.inputs.values()}:
            mine = [results.get(correlation) for correlation, each in self.inputs.items() if each == input_id]
            assert mine.count("accepted") <= 1
            assert taken.count(input_id) <= 1
            if "accepted" in mine:
                assert input_id in taken

    def settle_requests(self) -> None:
        """Check that every request ended once, and that what was said arrived once."""
        requests = self.session._tasks.requests
        if requests is not None:
            assert requests._pending == {}
            assert requests._held == {}
            assert requests._departing == set()
            assert requests.outbox.tasks == len(requests.outbox) == 0
        supervision = self.session._tasks.supervision
        if supervision is not None:
            assert supervision.open_commands == supervision.tasks == 0
        assert self.session._tasks.state.requests.outbound == {}
        for peer in self.peers:
            self.hear(peer)
        for peer, correlation, receipt in self.asked:
            answers = [
                response.status
                for response in self.responses
                if (response.recipient, response.correlation) == (peer.peer_id, correlation)
            ]
            terminal = [status for status in answers if status is not ResponseStatus.ACCEPTED]
            assert len(terminal) <= 1
            # Nothing is said after the answer.
            assert not terminal or answers[-1] is terminal[0]
            if receipt.status is ReceiptStatus.ADMITTED:
                is_given_up = (peer.peer_id, correlation) in self.given_up
                assert bool(terminal) != is_given_up or (self.goes_on and not terminal)
            else:
                assert not answers
        for peer in self.peers:
            said = [body for to, body, receipt in self.said if to is peer and receipt.reason is None]
            heard = [body for to, body in self.heard if to is peer]
            # One that was accepted in the step in which its sender was cancelled is not among the receipts.
            assert heard == sorted(set(heard))
            assert {*said} <= {*heard}

    @property
    def failures_reorder(self) -> bool:
        """Whether a message was given up, which puts it behind those that were handled after it."""
        return bool(self.session.statistics().abandoned)


@contextmanager
def reading_the_log() -> Iterator[set[tuple[object, object]]]:
    """Collect who is not answered, and on what."""
    given_up: set[tuple[object, object]] = set()

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert isinstance(record.args, tuple)
            _, status, peer_id, correlation, _ = record.args
            if status != ResponseStatus.ACCEPTED.value:
                given_up.add((peer_id, correlation))

    logger, reader = logging.getLogger("meerkat_trio.outbox"), Reader()
    logger.addHandler(reader)
    try:
        yield given_up
    finally:
        logger.removeHandler(reader)


def _trusting(rig: Rig) -> Crashes:
    comms = Crashes(rig.network, "a", work_lane=100)
    comms._trust.add(rig.peer.endpoint(), TrustSource.MANUAL)
    return comms


Call = Callable[[Stage], Awaitable[Any]]


async def wait(stage: Stage) -> None:
    """Wait until the drain has ended: for ever, unless somebody ends it."""
    assert await stage.session.wait_drain_exited() is not None, "nothing had ended"
