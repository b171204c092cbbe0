"""One lane of an inbox: its queue, and the senders that wait for room in it.

Knows order and room alone; who may claim, and what counts as a duplicate, is the inbox's business.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, TypeAlias

import trio

from .._messages import Envelope, Receipt
from ..authority import DropReason

if TYPE_CHECKING:
    from ._inbox import Inbox

__all__ = ["Entry", "LaneQueue", "ParkedSender"]

Entry: TypeAlias = tuple[Envelope, Receipt]
"""What a queue holds; the receipt is settled when the entry leaves."""


class LaneQueue:
    """One lane. Queue and parked senders are made when first needed: an idle inbox stays small."""

    __slots__ = ("limit", "parked", "queue")

    queue: deque[Entry] | None
    parked: OrderedDict[ParkedSender, None] | None

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.queue = None
        self.parked = None

    def hand_over(self) -> None:
        """Give the room there is to parked senders, in their order; a twin of what was accepted needs none."""
        queue, parked, limit = self.queue, self.parked, self.limit
        while parked and queue is not None and len(queue) < limit:
            sender, _ = parked.popitem(last=False)
            envelope = sender.envelope
            if sender.inbox.is_new(envelope.key):
                receipt = Receipt()
                queue.append((envelope, receipt))
            else:
                receipt = Receipt.dropped(DropReason.DUPLICATE)
            sender.receipt = receipt
            trio.lowlevel.reschedule(sender.task)

    def discard(self, entry: Entry) -> None:
        """Remove an entry wherever it stands; a claim that was moved here need not be at the head."""
        queue = self.queue
        if queue is None:
            return  # the inbox was closed; what was claimed then is settled by its claim alone
        for index, candidate in enumerate(queue):
            if candidate is entry:
                del queue[index]
                return


class ParkedSender:
    """A task that waits for room; it moves with its envelope when the inbox is taken over."""

    __slots__ = ("envelope", "inbox", "receipt", "task")

    receipt: Receipt | None

    def __init__(self, inbox: Inbox, envelope: Envelope) -> None:
        self.inbox: Inbox = inbox
        self.envelope: Envelope = envelope
        self.task: trio.lowlevel.Task = trio.lowlevel.current_task()
        self.receipt = None

    def abort(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        """Leave the lane: the envelope was not sent."""
        self.inbox.forget(self)
        return trio.lowlevel.Abort.SUCCEEDED
