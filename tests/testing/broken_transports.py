"""One deliberately broken transport for each conformance rule: the proof that the suite can say no.

Each breaks as little as it can, so that it is refused with the name of its own rule. They reach into
`MemoryComms` freely; nothing but tests may do that.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import trio
from attrs import evolve

from meerkat_trio._messages import Receipt, TrustSource
from meerkat_trio.abc import ALL_LANES
from meerkat_trio.authority import DropReason, Lane
from meerkat_trio.comms import MemoryComms, MemoryNetwork
from meerkat_trio.comms._lane import LaneQueue
from meerkat_trio.testing._conformance import ConformanceBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio._messages import Envelope
    from meerkat_trio.abc import Claim, CommsRuntime, CommsStatistics
    from meerkat_trio.authority import CommsRuntimeId, PeerId
    from meerkat_trio.comms._inbox import Inbox

WORK_LANE: Final = 4
CONTROL_LANE_BOUND: Final = 3
_WORK_ONLY: Final = frozenset({Lane.WORK})


@asynccontextmanager
async def bench_of(kind: type[MemoryComms] = MemoryComms) -> AsyncIterator[ConformanceBench]:
    """Three peers of one class on a network of their own."""
    network = MemoryNetwork()
    made: list[MemoryComms] = []

    def make(name: str) -> MemoryComms:
        made.append(kind(network, name, work_lane=WORK_LANE, control_lane=CONTROL_LANE_BOUND))
        return made[-1]

    async def rebuild() -> MemoryComms:
        await trio.lowlevel.checkpoint()
        return make("receiver")

    yield ConformanceBench(
        receiver=make("receiver"),
        senders=(make("sender"), make("other")),
        rebuild=rebuild,
        work_lane=WORK_LANE,
        control_lane=CONTROL_LANE_BOUND,
    )
    for comms in made:
        await comms.aclose()


class Fragile(MemoryComms):
    """`MemoryComms` with the ways in that the broken ones share."""

    def inbox_for(self, envelope: Envelope) -> Inbox:
        return self._network.routes[envelope.recipient]

    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return await super().claim(lanes=lanes)


class WrappedClaim:
    """A claim that passes everything on."""

    def __init__(self, claim: Claim, comms: MemoryComms) -> None:
        self._claim = claim
        self._comms = comms

    @property
    def envelope(self) -> Envelope:
        return self._claim.envelope

    def commit(self, dropped: DropReason | None = None) -> None:
        self._claim.commit(dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._claim.__exit__(*args)  # type: ignore[arg-type]


class Wrapping(Fragile):
    """Hands out claims of its own."""

    wrapper: type[WrappedClaim] = WrappedClaim

    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return self.wrapper(await super().claim(lanes=lanes), self)

    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return self.wrapper(super().claim_nowait(lanes=lanes), self)


class IdIsAnAddress(Fragile):
    @property
    def runtime_id(self) -> CommsRuntimeId:
        return hex(id(self))


class LastInFirstOut(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        receipt = await super().send(envelope)
        for lane in (self.inbox_for(envelope)._work, self.inbox_for(envelope)._control):
            if lane.queue:
                lane.queue.rotate(1)
        return receipt


class ClaimNeverWakes(Fragile):
    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        try:
            return self.claim_nowait(lanes=lanes)
        except trio.WouldBlock:
            await trio.sleep_forever()
            raise


class WorkFirst(Fragile):
    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        try:
            return super().claim_nowait(lanes=lanes & _WORK_ONLY)
        except trio.WouldBlock:
            return super().claim_nowait(lanes=lanes)


class IgnoresLanes(Fragile):
    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        return await super().claim(lanes=lanes | ALL_LANES)


class RaisesItsOwn(Fragile):
    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        try:
            return super().claim_nowait(lanes=lanes)
        except trio.WouldBlock:
            raise IndexError("the inbox is empty") from None


class ReadyOrBlocked(Fragile):
    def claim_ready(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim | None:
        return self.claim_nowait(lanes=lanes)


class _TailClaim(WrappedClaim):
    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        queue = self._comms.inbox._work.queue
        if queue and queue[0][0] is self.envelope:
            queue.rotate(-1)


class BackToTheTail(Wrapping):
    wrapper = _TailClaim


class _LenientClaim(WrappedClaim):
    def commit(self, dropped: DropReason | None = None) -> None:
        with suppress(trio.ClosedResourceError):
            super().commit(dropped)


class CommitsTwice(Wrapping):
    wrapper = _LenientClaim


class _CheerfulClaim(WrappedClaim):
    def commit(self, dropped: DropReason | None = None) -> None:
        del dropped
        super().commit()


class AlwaysAdmitted(Wrapping):
    wrapper = _CheerfulClaim


class NeverBusy(Fragile):
    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        try:
            return super().claim_nowait(lanes=lanes)
        except trio.BusyResourceError:
            raise trio.WouldBlock from None


class CheckpointAfterClaim(Fragile):
    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        claim = await super().claim(lanes=lanes)
        await trio.lowlevel.checkpoint()
        return claim


class SkipsCheckpoints(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        try:
            return self.send_nowait(envelope)
        except trio.WouldBlock:
            return await super().send(envelope)


class ForgetsParked(Fragile):
    def statistics(self) -> CommsStatistics:
        return evolve(super().statistics(), parked_senders=0)


class DropsWhenFull(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        await trio.lowlevel.checkpoint()
        try:
            return self.send_nowait(envelope)
        except trio.WouldBlock:
            return Receipt.dropped(DropReason.INBOX_FULL)

    def statistics(self) -> CommsStatistics:
        found = super().statistics()
        # It has no parked senders to count; without this it would be refused for its statistics.
        return evolve(found, parked_senders=int(found.work_waiting == WORK_LANE))


class OneBoundForBoth(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        inbox = self.inbox_for(envelope)
        while envelope.lane is Lane.CONTROL and inbox.statistics().work_waiting >= WORK_LANE:
            await trio.sleep_forever()
        return await super().send(envelope)


class _LastLane(LaneQueue):
    def hand_over(self) -> None:
        if self.parked and self.queue is not None and len(self.queue) < self.limit:
            self.parked.move_to_end(next(reversed(self.parked)), last=False)
        super().hand_over()


class LastParkedFirst(Fragile):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inbox._work = _LastLane(self.inbox._work.limit)


class _LateLane(LaneQueue):
    def hand_over(self) -> None:
        async def later() -> None:
            LaneQueue.hand_over(self)

        trio.lowlevel.spawn_system_task(later)


class LateHandOver(Fragile):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inbox._work = _LateLane(self.inbox._work.limit)


class CancelledIsSentAnyway(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        full = self.inbox_for(envelope).statistics().work_waiting >= WORK_LANE
        try:
            return await super().send(envelope)
        except trio.Cancelled:
            queue = self.inbox_for(envelope)._work.queue
            if full and queue is not None and envelope.lane is Lane.WORK:
                queue.append((envelope, Receipt()))
            raise


class CheckpointAfterWaiting(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        receipt = await super().send(envelope)
        await trio.lowlevel.checkpoint()
        return receipt


class NoWindow(Fragile):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, dedupe_window=1)

    async def send(self, envelope: Envelope) -> Receipt:
        self.inbox_for(envelope)._seen = None
        return await super().send(envelope)


class BelievesAnySender(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        if envelope.sender == self.peer_id:
            return await super().send(envelope)
        return await self.inbox_for(envelope).put(envelope)


class UnsettledReceipts(Fragile):
    def send_nowait(self, envelope: Envelope) -> Receipt:
        super().send_nowait(envelope)
        return Receipt()


class OneEdgePerPeer(Fragile):
    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        removed = await super().remove_trusted_peer(peer_id, source)
        for other in TrustSource:
            await super().remove_trusted_peer(peer_id, other)
        return removed


class AnyEdgeIsManual(Fragile):
    def is_manually_trusted(self, peer_id: PeerId) -> bool:
        return any(peer == peer_id for peer, _ in self._trust.snapshot())


class KeepsReceiptsOpen(Fragile):
    async def aclose(self) -> None:
        if self.inbox._work.queue:
            self.inbox._work.queue.clear()
        await super().aclose()


class ParkedSleepOn(Fragile):
    async def aclose(self) -> None:
        self.inbox._work.parked = None
        await super().aclose()


class CancelledStaysOpen(Fragile):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        await super().aclose()


class ClosingOverrulesClaims(Fragile):
    async def aclose(self) -> None:
        for _, receipt in self.inbox._work.queue or ():
            receipt.settle(DropReason.CLOSED)
        await super().aclose()


class RaisesForClosedRecipient(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        if envelope.recipient not in self._network.routes:
            raise trio.BrokenResourceError
        return await super().send(envelope)


class ClosedLooksEmpty(Fragile):
    closing = False

    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        if self.closing and self.inbox.closed is not None:
            raise trio.BrokenResourceError
        return await super().claim(lanes=lanes)

    async def aclose(self) -> None:
        self.closing = True
        await super().aclose()


class IgnoresStrangers(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms):
            super().take_over(previous)


class ClosedTakesOver(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if self.inbox.closed is None:
            super().take_over(previous)


class LosesTheTail(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        if self.inbox._work.queue:
            self.inbox._work.queue.pop()


class GoesBehind(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        own = self.statistics().work_waiting
        super().take_over(previous)
        if self.inbox._work.queue:
            self.inbox._work.queue.rotate(own)


class ParkedAreDropped(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms):
            for sender in previous.inbox._work.parked or ():
                sender.receipt = Receipt.dropped(DropReason.CLOSED)
                trio.lowlevel.reschedule(sender.task)
            previous.inbox._work.parked = None
        super().take_over(previous)


class FreshWindow(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms):
            previous.inbox._seen = None
        super().take_over(previous)


class TwoOpenClaims(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        self.inbox._inherited = None


class ClaimerSleepsOn(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms):
            previous.inbox._asleep = False
        super().take_over(previous)


class ArrivesUnnoticed(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        asleep, self.inbox._asleep = self.inbox._asleep, False
        super().take_over(previous)
        self.inbox._asleep = asleep


class LooksEmptyAfterwards(Fragile):
    taken = False

    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        if isinstance(previous, LooksEmptyAfterwards):
            previous.taken = True

    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        if self.taken:
            raise trio.WouldBlock
        return super().claim_nowait(lanes=lanes)


class ClosesItsSuccessor(Fragile):
    successor: MemoryComms | None = None

    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        if isinstance(previous, ClosesItsSuccessor):
            previous.successor = self

    async def aclose(self) -> None:
        await super().aclose()
        if self.successor is not None:
            await self.successor.aclose()


BROKEN: Final[dict[str, type[MemoryComms]]] = {
    "identity": IdIsAnAddress,
    "claim-nowait": RaisesItsOwn,
    "order": LastInFirstOut,
    "arrival-wakes": ClaimNeverWakes,
    "control-first": WorkFirst,
    "wanted-lanes": IgnoresLanes,
    "claim-ready": ReadyOrBlocked,
    "left-claim": BackToTheTail,
    "commit-once": CommitsTwice,
    "receipts": AlwaysAdmitted,
    "one-claimer": NeverBusy,
    "cancelled-claim": CheckpointAfterClaim,
    "checkpoints": SkipsCheckpoints,
    "statistics": ForgetsParked,
    "full-lane": DropsWhenFull,
    "lanes-apart": OneBoundForBoth,
    "parked-order": LastParkedFirst,
    "no-overtaking": LateHandOver,
    "cancelled-send": CancelledIsSentAnyway,
    "all-or-nothing": CheckpointAfterWaiting,
    "duplicates": NoWindow,
    "own-sender": BelievesAnySender,
    "receipt-waiters": UnsettledReceipts,
    "trust-by-source": OneEdgePerPeer,
    "manual-trust": AnyEdgeIsManual,
    "closing": KeepsReceiptsOpen,
    "closing-wakes": ParkedSleepOn,
    "closing-cancelled": CancelledStaysOpen,
    "closing-claim": ClosingOverrulesClaims,
    "closed-recipient": RaisesForClosedRecipient,
    "closed-refuses": ClosedLooksEmpty,
    "take-over-foreign": IgnoresStrangers,
    "take-over-closed": ClosedTakesOver,
    "take-over-queue": LosesTheTail,
    "take-over-front": GoesBehind,
    "take-over-parked": ParkedAreDropped,
    "take-over-window": FreshWindow,
    "take-over-claim": TwoOpenClaims,
    "take-over-wakes": ClaimerSleepsOn,
    "take-over-arrives": ArrivesUnnoticed,
    "take-over-refuses": LooksEmptyAfterwards,
    "take-over-close": ClosesItsSuccessor,
}
"""By the name of the rule it breaks."""
