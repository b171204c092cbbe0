"""Transports that break a promise of closing or of take-over, each as little as it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from meerkat_trio._messages import Receipt
from meerkat_trio.abc import ALL_LANES
from meerkat_trio.authority import DropReason, Lane
from meerkat_trio.comms import MemoryComms
from meerkat_trio.comms._lane import ParkedSender

from .fragile import Fragile

if TYPE_CHECKING:
    from meerkat_trio._messages import Envelope
    from meerkat_trio.abc import Claim, CommsRuntime
    from meerkat_trio.comms._inbox import InboxClaim


class KeepsReceiptsOpen(Fragile):
    async def aclose(self) -> None:
        if self.inbox._work.queue:
            self.inbox._work.queue.clear()
        await super().aclose()


class KeepsControlReceiptsOpen(Fragile):
    async def aclose(self) -> None:
        if self.inbox._control.queue:
            self.inbox._control.queue.clear()
        await super().aclose()


class ParkedSleepOn(Fragile):
    async def aclose(self) -> None:
        self.inbox._work.parked = None
        await super().aclose()


class ParkedControlSleepsOn(Fragile):
    async def aclose(self) -> None:
        self.inbox._control.parked = None
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


class LosesControl(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms) and previous.inbox._control.queue and self.inbox.closed is None:
            previous.inbox._control.queue.clear()
        super().take_over(previous)


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


class LeavesControlSenders(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms) and self.inbox.closed is None:
            previous.inbox._control.parked = None
        super().take_over(previous)


class _Deaf:
    """Where a moved sender still believes that it waits."""

    def forget(self, sender: ParkedSender) -> None:
        async def sleep_until_woken() -> None:
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

        # It stays in its lane, and somebody has to be there to be woken in its place.
        sender.task = trio.lowlevel.spawn_system_task(sleep_until_woken)


class MovedCannotLeave(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        for lane in (self.inbox._control, self.inbox._work):
            for sender in lane.parked or ():
                sender.inbox = _Deaf()  # type: ignore[assignment]


class DropsMovedSenders(Fragile):
    successor: MemoryComms | None = None

    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        if isinstance(previous, DropsMovedSenders):
            previous.successor = self

    async def aclose(self) -> None:
        if self.successor is not None:
            lane = self.successor.inbox._work
            parked, lane.parked = lane.parked or (), None
            for sender in parked:
                sender.receipt = Receipt.dropped(DropReason.CLOSED)
                trio.lowlevel.reschedule(sender.task)
        await super().aclose()


class FreshWindow(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms):
            previous.inbox._seen = None
        super().take_over(previous)


class ForgetsItsOwnWindow(Fragile):
    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, MemoryComms) and self.inbox.closed is None and previous.inbox._seen:
            self.inbox._seen = None
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


class SendsOn(Fragile):
    taken = False

    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        if isinstance(previous, SendsOn):
            previous.taken = True

    async def send(self, envelope: Envelope) -> Receipt:
        if self.taken and envelope.sender == self.peer_id:
            return await self.inbox_for(envelope).put(envelope)
        return await super().send(envelope)


class SendsOnNowait(Fragile):
    taken = False

    def take_over(self, previous: CommsRuntime) -> None:
        super().take_over(previous)
        if isinstance(previous, SendsOnNowait):
            previous.taken = True

    def send_nowait(self, envelope: Envelope) -> Receipt:
        if self.taken and envelope.sender == self.peer_id:
            return self.inbox_for(envelope).put_nowait(envelope)
        return super().send_nowait(envelope)


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


class DropsTheMovedClaim(Fragile):
    moved: tuple[InboxClaim, ...] = ()

    def take_over(self, previous: CommsRuntime) -> None:
        if isinstance(previous, DropsTheMovedClaim):
            previous.moved = tuple(previous.inbox._open_claims())
        super().take_over(previous)

    async def aclose(self) -> None:
        for claim in self.moved:
            if claim.entry is not None:
                claim.lane.discard(claim.entry)
                claim.entry[1].settle(DropReason.CLOSED)
        await super().aclose()
