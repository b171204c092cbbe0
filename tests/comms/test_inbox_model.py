"""`Inbox` against a naive model, step by step, and under fire with nothing but a ledger."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from meerkat_trio._messages import Envelope, Receipt, ReceiptStatus
from meerkat_trio.authority import DropReason, EnvelopeKind, Lane, PeerId
from meerkat_trio.comms._inbox import Inbox, InboxClaim

from .conftest import run_in_virtual_time
from .model import CONTROL, WORK, ModelInbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PEERS = [PeerId.of_key(bytes([n]) * 32) for n in range(1, 6)]
KINDS = {CONTROL: EnvelopeKind.PEER_ADDED, WORK: EnvelopeKind.MESSAGE}
LANES = {CONTROL: Lane.CONTROL, WORK: Lane.WORK}
SHOTS_IN_FIVE, COMMITS_IN_FIVE = 3, 4
MESSAGES = 40
WANTED = [(CONTROL, WORK), (CONTROL,), (WORK,)]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([CONTROL, WORK, WORK])),
        st.tuples(st.just("send_twice"), st.integers(0, 30)),
        st.tuples(st.just("cancel_send"), st.integers(0, 30)),
        st.tuples(st.just("claim"), st.sampled_from(WANTED)),
        st.tuples(st.just("cancel_claim"), st.none()),
        st.tuples(st.just("commit"), st.none()),
        st.tuples(st.just("leave"), st.none()),
        st.tuples(st.just("rebind"), st.integers(1, 4)),
    ),
    max_size=40,
)


class Task:
    """A call in a task of its own."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.result: Any = None
        self.done = False

    async def run(self, call: Callable[[], Awaitable[Any]]) -> None:
        with self.scope:
            try:
                self.result = await call()
            except (trio.BusyResourceError, trio.ClosedResourceError) as exc:
                self.result = exc
        self.done = True


class Twin:
    """An inbox and its model, driven by the same steps."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.inbox = Inbox(work_lane=2, control_lane=1)
        self.model = ModelInbox(2, 1)
        self.sends: dict[str, Task] = {}
        self.claimer: Task | None = None
        self.claim: InboxClaim | None = None

    def envelope(self, name: str, lane: str) -> Envelope:
        return Envelope(id=name, sender=PEERS[0], recipient=PEERS[1], kind=KINDS[lane])

    async def start(self, call: Callable[[], Awaitable[Any]]) -> Task:
        task = Task()
        self.nursery.start_soon(task.run, call)
        await trio.testing.wait_all_tasks_blocked()
        return task

    async def send(self, lane: str) -> None:
        name = f"e{len(self.sends)}"
        envelope = self.envelope(name, lane)
        self.model.send(name, lane)
        inbox = self.inbox
        self.sends[name] = await self.start(lambda: inbox.put(envelope))

    async def send_twice(self, number: int) -> None:
        name = f"e{number}"
        if name in self.sends and not self.sends[name].scope.cancel_called:
            twin = self.envelope(name, self.model.lane_of[name])
            if self.sends[name].done:
                assert self.inbox.put_nowait(twin).reason is DropReason.DUPLICATE
            else:
                with pytest.raises(trio.WouldBlock):
                    self.inbox.put_nowait(twin)

    async def cancel_send(self, number: int) -> None:
        name = f"e{number}"
        if name in self.sends and not self.sends[name].done:
            assert self.model.cancel_send(name)
            self.sends[name].scope.cancel()

    async def claim_(self, wanted: tuple[str, ...]) -> None:
        accepted = self.model.claim(wanted)
        inbox, lanes = self.inbox, frozenset(LANES[name] for name in wanted)
        task = await self.start(lambda: inbox.claim(lanes))
        assert accepted == (not isinstance(task.result, trio.BusyResourceError))
        if accepted:
            self.claimer = task

    async def cancel_claim(self, _: None) -> None:
        if self.claimer is not None and not self.claimer.done:
            self.model.wanted = None
            self.claimer.scope.cancel()

    async def commit(self, _: None) -> None:
        self.model.end_claim(commit=True)
        if self.claim is not None:
            claim, self.claim = self.claim, None
            claim.commit()

    async def leave(self, _: None) -> None:
        self.model.end_claim(commit=False)
        if self.claim is not None:
            claim, self.claim = self.claim, None
            with claim:
                pass

    async def rebind(self, limit: int) -> None:
        self.model.rebind(limit)
        previous, self.inbox = self.inbox, Inbox(work_lane=limit, control_lane=1)
        self.inbox.take_over(previous)
        previous.close()
        await trio.testing.wait_all_tasks_blocked()
        if self.claimer is not None and not isinstance(self.claimer.result, InboxClaim):
            assert self.claimer.scope.cancelled_caught or isinstance(self.claimer.result, trio.ClosedResourceError)
            self.claimer = None

    async def compare(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if self.claimer is not None and self.claimer.done:
            if isinstance(self.claimer.result, InboxClaim):
                self.claim = self.claimer.result
            self.claimer = None
        assert self.model.claimed == (None if self.claim is None else self.claim.envelope.id)
        assert (self.model.wanted is not None) == (self.claimer is not None)
        found = self.inbox.statistics()
        control, work = self.model.lanes[CONTROL], self.model.lanes[WORK]
        taken = None if self.model.claimed is None else self.model.lane_of[self.model.claimed]
        assert len(control.queue) - (taken == CONTROL) == found.control_waiting
        assert len(work.queue) - (taken == WORK) == found.work_waiting
        assert len(control.parked) + len(work.parked) == found.parked_senders
        for name, task in self.sends.items():
            parked = name in self.model.lanes[self.model.lane_of[name]].parked
            assert parked == (not task.done)
            if isinstance(task.result, Receipt):
                admitted = name in self.model.admitted
                assert admitted == (task.result.status is ReceiptStatus.ADMITTED)

    async def drain(self) -> None:
        """Take all that is left, in the order the model has it."""
        await self.cancel_claim(None)
        await self.compare()
        await self.leave(None)
        while any(lane.queue for lane in self.model.lanes.values()):
            await self.claim_((CONTROL, WORK))
            await self.compare()
            await self.commit(None)


@given(STEPS)
@settings(deadline=None, max_examples=150)
def test_an_inbox_does_what_a_naive_model_does(steps: list[tuple[str, Any]]) -> None:
    async def walk() -> None:
        async with trio.open_nursery() as nursery:
            twin = Twin(nursery)
            for name, argument in steps:
                await getattr(twin, "claim_" if name == "claim" else name)(argument)
                await twin.compare()
            await twin.drain()
            accepted = [n for n, task in twin.sends.items() if isinstance(task.result, Receipt)]
            assert sorted(accepted) == sorted(twin.model.admitted)

    run_in_virtual_time(walk)


class Ledger:
    """Who was told that a message was accepted, and what was handled."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.inbox = Inbox(work_lane=3, control_lane=2)
        self.accepted: dict[PeerId, list[int]] = {peer: [] for peer in PEERS}
        self.handled: dict[PeerId, list[tuple[Lane, int]]] = {peer: [] for peer in PEERS}
        self.cancelled = 0

    async def pause(self) -> None:
        for _ in range(self.random.randrange(4)):
            await trio.lowlevel.checkpoint()

    async def under_fire(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call whose scope is cancelled after a while, unless it is done by then."""
        result = None
        async with trio.open_nursery() as nursery:

            async def shoot() -> None:
                await self.pause()
                await self.pause()
                nursery.cancel_scope.cancel()

            if self.random.randrange(5) < SHOTS_IN_FIVE:
                nursery.start_soon(shoot)
            result = await call()
            nursery.cancel_scope.cancel()
        self.cancelled += result is None
        return result

    async def sender(self, peer: PeerId) -> None:
        for number in range(MESSAGES):
            kind = self.random.choice([EnvelopeKind.MESSAGE, EnvelopeKind.MESSAGE, EnvelopeKind.PEER_ADDED])
            envelope = Envelope(id=f"{number}", sender=peer, recipient=PEERS[0], kind=kind, body=number)
            receipt = None
            while receipt is None:
                receipt = await self.under_fire(partial(self.put, envelope))
            assert receipt.reason is None, "a message was dropped although nothing closed for good"
            self.accepted[peer].append(number)

    async def put(self, envelope: Envelope) -> Receipt:
        return await self.inbox.put(envelope)

    async def claim_one(self) -> bool | None:
        with await self.inbox.claim() as claim:
            await self.pause()
            if self.random.randrange(5) < COMMITS_IN_FIVE:
                self.handled[claim.envelope.sender].append((claim.envelope.lane, claim.envelope.body))
                claim.commit()
        return True

    async def claimer(self) -> None:
        while True:
            try:
                await self.under_fire(self.claim_one)
            except* trio.ClosedResourceError:
                await trio.lowlevel.checkpoint()

    async def rebinder(self) -> None:
        while True:
            for _ in range(self.random.randrange(30)):
                await trio.lowlevel.checkpoint()
            previous, self.inbox = self.inbox, Inbox(work_lane=self.random.randint(1, 4), control_lane=2)
            self.inbox.take_over(previous)
            previous.close()

    async def run(self) -> None:
        async with trio.open_nursery() as everything:
            everything.start_soon(self.claimer)
            everything.start_soon(self.rebinder)
            async with trio.open_nursery() as senders:
                for peer in PEERS:
                    senders.start_soon(self.sender, peer)
            for _ in range(10_000):
                if sum(map(len, self.handled.values())) == MESSAGES * len(PEERS):
                    break
                await trio.lowlevel.checkpoint()
            everything.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_doubled_or_reordered_under_cancellation_and_rebinds(seed: int) -> None:
    ledger = Ledger(seed)
    run_in_virtual_time(ledger.run)
    assert ledger.cancelled > 0
    for peer in PEERS:
        assert ledger.accepted[peer] == sorted(number for _, number in ledger.handled[peer])
        for lane in Lane:
            # Order is promised inside a lane; control may overtake work.
            numbers = [number for found, number in ledger.handled[peer] if found is lane]
            assert numbers == sorted(numbers)
