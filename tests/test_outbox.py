"""The outbox by itself: drawn stories against a ledger, and its bounds, by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from meerkat_trio import Backoff, Envelope, EnvelopeKind, MemoryComms, MemoryNetwork, Receipt, ResponseStatus
from meerkat_trio._outbox import ATTEMPTS, PATIENCE, Outbox, Reply

from .comms.conftest import run_in_virtual_time
from .rig import cancelled_elsewhere, settle

ACCEPTED, COMPLETED = ResponseStatus.ACCEPTED, ResponseStatus.COMPLETED
PEERS = ("x", "y", "z")


class Line(MemoryComms):
    """A transport that fails before it sends, or after, as often as it is told to."""

    failures = 0
    losses = 0
    error: BaseException = OSError("the line is down")

    def _before(self) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error

    def _after(self, receipt: Receipt) -> Receipt:
        if self.losses:
            self.losses -= 1
            raise trio.BrokenResourceError
        return receipt

    async def send(self, envelope: Envelope) -> Receipt:
        self._before()
        return self._after(await super().send(envelope))

    def send_nowait(self, envelope: Envelope) -> Receipt:
        self._before()
        return self._after(super().send_nowait(envelope))


class Office:
    """Whom an outbox works for, with peers that take what they are sent when they are told to."""

    is_over = False
    is_recorded = False

    async def until_durable(self) -> None:
        pass

    def __init__(self, nursery: trio.Nursery, *, bound: int = 1000, room: int = 1) -> None:
        self.nursery = nursery
        self.network = MemoryNetwork()
        self.comms = Line(self.network, "a")
        self.peers = {name: MemoryComms(self.network, name, control_lane=room) for name in PEERS}
        self.outbox = Outbox(self, bound=bound, backoff=Backoff(), random=lambda: 0.0)
        self.put: dict[str, list[int]] = defaultdict(list)
        self.taken: dict[str, list[int]] = defaultdict(list)
        self.out: list[int] = []
        self.given_up: dict[int, object] = {}
        self.faults: list[Exception] = []

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        self.nursery.start_soon(child, *args)

    def contain(self, error: Exception) -> None:
        self.faults.append(error)

    def conclude(self, reply: Reply, problem: object | None) -> None:
        number = reply.envelope.body
        assert number not in self.out
        assert number not in self.given_up
        if problem is None:
            self.out.append(number)
        else:
            self.given_up[number] = problem

    def hand_in(self, peer: str, status: ResponseStatus = COMPLETED) -> int:
        number = sum(map(len, self.put.values()))
        self.put[peer].append(number)
        envelope = self.comms.envelope(
            self.peers[peer].peer_id,
            number,
            kind=EnvelopeKind.RESPONSE,
            correlation=f"c{number}",
            status=status,
        )
        self.outbox.put(Reply(self.comms, envelope))
        return number

    def take(self, peer: str) -> None:
        claim = self.peers[peer].claim_ready()
        if claim is not None:
            with claim:
                self.taken[peer].append(claim.envelope.body)
                claim.commit()

    def rebind(self) -> None:
        successor = Line(self.network, "a")
        successor.failures, successor.losses = self.comms.failures, self.comms.losses
        successor.take_over(self.comms)
        self.comms = successor
        self.outbox.reroute(successor)

    def check(self) -> None:
        """Nothing is lost, doubled or out of order, and whatever is open is waited for."""
        concluded = {*self.out, *self.given_up}
        assert self.faults == []
        assert len(self.outbox) == sum(map(len, self.put.values())) - len(concluded)
        assert self.outbox.tasks <= len(PEERS)
        for peer in PEERS:
            # What is out is what the peer has, in order, each once.
            assert self.taken[peer] == sorted(set(self.taken[peer]))
            arrived = [*self.taken[peer]]
            arrived += [None] * self.peers[peer].statistics().control_waiting  # type: ignore[list-item]
            out = [number for number in self.put[peer] if number in self.out]
            assert self.taken[peer] == [n for n in self.put[peer] if n in self.taken[peer]]
            assert len(out) <= len(arrived)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(PEERS)),
        st.tuples(st.just("put"), st.sampled_from(PEERS)),
        st.tuples(st.just("progress"), st.sampled_from(PEERS)),
        st.tuples(st.just("take"), st.sampled_from(PEERS)),
        st.tuples(st.just("fail"), st.integers(1, 2)),
        st.tuples(st.just("lose"), st.integers(1, 2)),
        st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.01, 0.5, 2.0])),
        st.tuples(st.just("rebind"), st.none()),
    ),
    max_size=40,
)


async def play(office: Office, steps: list[tuple[str, Any]]) -> None:
    for step, what in steps:
        match step:
            case "put":
                office.hand_in(what)
            case "progress":
                office.hand_in(what, ACCEPTED)
            case "take":
                office.take(what)
            case "fail":
                office.comms.failures = what
            case "lose":
                office.comms.losses = what
            case "sleep":
                await trio.sleep(what)
            case "rebind":
                office.rebind()
        office.check()


async def take_all(office: Office) -> None:
    while True:
        for peer in PEERS:
            office.take(peer)
        await trio.sleep(1)


@settings(deadline=None, max_examples=100)
@given(steps=STEPS, room=st.integers(1, 2))
def test_every_reply_arrives_once_and_in_order_when_breaks_are_short(steps: list[tuple[str, Any]], room: int) -> None:
    # Breaks that no reply can have used up its attempts in, with what the steps take at the longest.
    breaks = [place for place, (step, _) in enumerate(steps) if step in {"fail", "lose"}][2:]
    steps = [step for place, step in enumerate(steps) if place not in breaks]

    async def story() -> None:
        async with trio.open_nursery() as nursery:
            office = Office(nursery, room=room)
            await play(office, steps)
            nursery.start_soon(take_all, office)
            await trio.sleep(100)
            office.check()
            assert office.taken == office.put
            assert office.given_up == {}
            assert office.outbox.tasks == 0
            nursery.cancel_scope.cancel()

    run_in_virtual_time(story)


@settings(deadline=None, max_examples=100)
@given(steps=STEPS, bound=st.integers(1, 3), grace=st.sampled_from([0.0, 1.0, 1000.0]))
def test_every_reply_ends_once_whatever_its_bound_and_the_end(
    steps: list[tuple[str, Any]], bound: int, grace: float
) -> None:
    async def story() -> None:
        async with trio.open_nursery() as nursery:
            office = Office(nursery, bound=bound)
            await play(office, steps)
            assert len(office.outbox) <= bound * len(PEERS)
            start = trio.current_time()
            async with trio.open_nursery() as lanes:
                # The lanes are joined under a cancellation, which they outlive by the grace time at the most.
                office.outbox.end(trio.current_time() + grace)
                lanes.start_soon(trio.sleep, grace)
                nursery.cancel_scope.cancel()
        if grace < 1000:
            assert trio.current_time() - start <= grace
        assert len(office.outbox) == office.outbox.tasks == 0
        for peer in PEERS:
            while office.peers[peer].statistics().control_waiting:
                office.take(peer)
        numbers = sorted(number for put in office.put.values() for number in put)
        assert sorted([*office.out, *office.given_up]) == numbers
        for peer in PEERS:
            assert office.taken[peer] == sorted(set(office.taken[peer]))
            assert {n for n in office.put[peer] if n in office.out} <= {*office.taken[peer]}

    run_in_virtual_time(story)


# --- by hand ---------------------------------------------------------------------------------------


async def test_a_reply_that_can_go_out_needs_no_task() -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery, room=3)
        for _ in range(3):
            office.hand_in("x")
        assert office.out == [0, 1, 2]
        assert nursery.child_tasks == frozenset()


async def test_a_reply_is_given_up_after_its_attempts(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        office.comms.failures = 10_000
        start = trio.current_time()
        office.hand_in("x")
        while office.outbox.tasks:
            await trio.sleep(0.05)
        assert 10_000 - office.comms.failures == ATTEMPTS
        assert trio.current_time() - start < 10
        assert isinstance(office.given_up[0], OSError)


async def test_a_peer_that_never_makes_room_has_its_patience_in_each_attempt(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        office.hand_in("x")
        start = trio.current_time()
        office.hand_in("x")
        while office.outbox.tasks:
            await trio.sleep(1)
        assert ATTEMPTS * PATIENCE <= trio.current_time() - start <= ATTEMPTS * PATIENCE + 10
        assert office.given_up == {1: "no room at the peer within 30 seconds"}
        assert office.peers["x"].statistics().parked_senders == 0


async def test_what_no_attempt_can_mend_is_given_up_at_once(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        stranger = MemoryComms(office.network, "stranger")
        envelope = stranger.envelope(
            office.peers["x"].peer_id, 0, kind=EnvelopeKind.RESPONSE, correlation="c", status=COMPLETED
        )
        office.outbox.put(Reply(office.comms, envelope))
        assert isinstance(office.given_up[0], ValueError)
        office.put["x"].append(0)
        office.comms.failures, office.comms.error = 2, ValueError("cannot be said")
        office.hand_in("x")
        assert isinstance(office.given_up[1], ValueError)


async def test_a_rebind_ends_the_wait_for_the_next_attempt_and_counts_anew(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        office.comms.failures = 6
        office.hand_in("x")
        await trio.sleep(2)
        assert office.out == []
        office.comms.failures = 0
        start = trio.current_time()
        office.rebind()
        await settle()
        assert (office.out, trio.current_time()) == ([0], start)


async def test_a_cancellation_of_another_task_is_a_failed_attempt(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        office.comms.failures = 1
        office.hand_in("x")
        office.comms.failures, office.comms.error = 3, await cancelled_elsewhere()
        await trio.sleep(10)
        assert office.out == [0]


async def test_a_fault_of_ours_is_told_and_leaves_no_reply_behind(autojump_clock: object) -> None:
    fault = RuntimeError("a bug")

    class Broken:
        def delay(self, _: int, __: object) -> float:
            raise fault

    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        for _ in range(3):
            office.hand_in("x")
        await settle()
        office.outbox._backoff = Broken()  # type: ignore[assignment]
        office.comms.failures = 1
        office.take("x")
        await settle()
        assert office.faults == [fault]
        assert office.out == [0, 1]
        assert office.given_up == {2: "the session has ended"}
        assert office.outbox.tasks == 0


async def test_after_the_end_a_reply_goes_out_at_once_or_never(autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        office.is_over = True
        office.hand_in("x")
        office.hand_in("x")
        assert (office.out, office.given_up) == ([0], {1: "the session has ended"})
        assert math.isinf(office.outbox._deadline)
