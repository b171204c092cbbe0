"""Transports that break a promise of the claiming or the sending side, each as little as it can."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio
from attrs import evolve

from meerkat_trio._messages import Receipt, TrustSource
from meerkat_trio.abc import ALL_LANES
from meerkat_trio.authority import DropReason, Lane
from meerkat_trio.comms._lane import LaneQueue

from .fragile import WORK_LANE, WORK_ONLY, Fragile, WrappedClaim, Wrapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from meerkat_trio._messages import Envelope
    from meerkat_trio.abc import Claim, CommsStatistics
    from meerkat_trio.authority import CommsRuntimeId, PeerId


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
            return super().claim_nowait(lanes=lanes & WORK_ONLY)
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


class NoLanesAreAll(Fragile):
    def claim_ready(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim | None:
        return super().claim_ready(lanes=lanes or ALL_LANES)


class _Taking(Fragile):
    """Lets envelopes be taken in a way of its own."""

    taker: Callable[[Envelope], bool] | None = None

    async def claim_untaken(self, take: Callable[[Envelope], bool]) -> Claim:
        self.taker = take
        claim = await self.claim()
        self.taker = None
        return claim

    def may_take(self) -> bool:
        return not self.inbox._work.queue

    def send_nowait(self, envelope: Envelope) -> Receipt:
        recipient = self._network._instances[envelope.recipient][0]
        assert isinstance(recipient, _Taking)
        if recipient.taker is not None and recipient.may_take() and recipient.taker(envelope):
            return recipient.take(envelope)
        return super().send_nowait(envelope)

    def take(self, _envelope: Envelope) -> Receipt:
        return Receipt.admitted()


class TakesAndQueues(_Taking):
    def take(self, envelope: Envelope) -> Receipt:
        return self.inbox.put_nowait(envelope)


class TakesWhatIsBehind(_Taking):
    def may_take(self) -> bool:
        return True


class TakesForTheCancelled(_Taking):
    """It forgets who takes only when a claim was granted."""


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


class _PatientLane(LaneQueue):
    def hand_over(self) -> None:
        async def later() -> None:
            LaneQueue.hand_over(self)

        if self.parked:
            trio.lowlevel.spawn_system_task(later)


class SendOvertakes(Fragile):
    """Its `send_nowait` looks who waits; its `send` does not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inbox._work = _PatientLane(self.inbox._work.limit)

    def send_nowait(self, envelope: Envelope) -> Receipt:
        inbox = self._network.routes.get(envelope.recipient)
        if inbox is not None and inbox._lane(envelope).parked:
            raise trio.WouldBlock
        return super().send_nowait(envelope)


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


class CheckpointAfterAccepting(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            receipt = self.send_nowait(envelope)
        except trio.WouldBlock:
            return await super().send(envelope)
        await trio.lowlevel.checkpoint()
        return receipt


class NoWindow(Fragile):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, dedupe_window=1)

    async def send(self, envelope: Envelope) -> Receipt:
        self.inbox_for(envelope)._seen = None
        return await super().send(envelope)


class TakesTwinsOfParked(Fragile):
    async def send(self, envelope: Envelope) -> Receipt:
        parked = self.inbox_for(envelope)._lane(envelope).parked or ()
        if any(sender.envelope.id == envelope.id for sender in parked):
            envelope = attrs.evolve(envelope, id=f"{envelope.id} again")
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
