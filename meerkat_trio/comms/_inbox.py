"""The receiving half of a comms runtime: two bounded lanes, claim and commit, take-over.

Sans-network: it queues envelopes, parks tasks and settles receipts. It may not know a session, a route or
a wire; whoever owns it checks who an envelope is from and for.

What holds at every moment:

1. An envelope stays in its lane's queue, at its place, until it is committed. A claim only points at it, so
   putting it back needs no queue operation, and an open claim holds its slot in the bound.
2. A sender is parked only while its lane is full; whoever makes room moves the parked envelope into the
   queue and then wakes its sender. So a parked sender that is cancelled was not sent, a woken one was, or its
   receipt says that a twin was accepted before. What is parked is no twin yet.
3. A wake-up of the claimer carries no envelope: it takes the head itself when it runs. So a claimer that is
   cancelled between the two has nothing to lose.
4. A claim is granted only while no other is open, so no granted head can be another's.
5. A claimer that sleeps may have left a function that takes envelopes in the call that sends them. It is asked only
   while nothing is before the envelope, and never once the claimer was woken or cancelled.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from .._messages import Receipt
from ..abc import ALL_LANES, CommsStatistics
from ..authority import DropReason, Lane
from ._lane import LaneQueue, ParkedSender

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .._messages import Envelope
    from ._lane import Entry

__all__ = ["Inbox", "InboxClaim"]

# Looking a member up in its enumeration costs more than the branch it is for.
_CONTROL: Final = Lane.CONTROL
_WORK: Final = Lane.WORK
_CLOSED: Final = DropReason.CLOSED
_DUPLICATE: Final = DropReason.DUPLICATE
_NOT_RECORDED: Final = DropReason.NOT_RECORDED

_Key: TypeAlias = str
"""The key of an envelope: a text, for what the collector need not track costs no pause."""


@final
class InboxClaim:
    """An open claim on the head of a lane; see `meerkat_trio.abc.Claim`."""

    __slots__ = ("entry", "envelope", "inbox", "lane")

    entry: Entry | None
    """What is claimed; None once the claim is closed."""
    inbox: Inbox
    """Who holds the entry now; follows take-overs, as ``lane`` does."""

    def __init__(self, inbox: Inbox, lane: LaneQueue, entry: Entry) -> None:
        self.inbox = inbox
        self.lane: LaneQueue = lane
        self.entry = entry
        self.envelope: Envelope = entry[0]

    def commit(self, dropped: DropReason | None = None) -> None:
        """Remove the envelope for good and settle its receipt: ADMITTED, or DROPPED with a reason.

        Raises:
            trio.ClosedResourceError: the claim was committed or left before.
        """
        entry = self.entry
        if entry is None:
            raise trio.ClosedResourceError("commit: this claim was committed or left before")
        self.entry = None
        lane, inbox = self.lane, self.inbox
        queue = lane.queue
        # The plain case is spelled out here: two calls less for each message.
        if queue and queue[0] is entry:
            queue.popleft()
        else:
            lane.discard(entry)
        if dropped is _NOT_RECORDED:
            inbox.let_come_again(self.envelope)
        entry[1].settle(dropped)
        if lane.parked:
            lane.hand_over()
        if inbox.open_claim is self:
            inbox.open_claim = None
        else:
            inbox.end_claim(self)

    def __enter__(self) -> InboxClaim:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        entry = self.entry
        if entry is not None:
            self.entry = None
            if self.inbox.closed is not None:
                entry[1].settle(_CLOSED)
            self.inbox.end_claim(self)

    def __repr__(self) -> str:
        return f"<InboxClaim of {self.envelope.id!r}, {'closed' if self.entry is None else 'open'}>"


@final
class Inbox:
    """Two lanes of accepted envelopes, their senders, their one claimer."""

    __slots__ = (
        "_asleep",
        "_claimer",
        "_control",
        "_inherited",
        "_seen",
        "_take",
        "_wanted",
        "_window",
        "_work",
        "closed",
        "open_claim",
    )

    _claimer: trio.lowlevel.Task | None
    closed: str | None
    """None while it is open; then why it is not, for the error's text."""
    _inherited: list[InboxClaim] | None
    open_claim: InboxClaim | None
    """The claim granted here that is still open; one that a take-over brought is not this one."""
    _seen: OrderedDict[_Key, None] | None

    def __init__(self, *, work_lane: int = 64, control_lane: int = 64, dedupe_window: int = 1024) -> None:
        """Make an empty inbox.

        Args:
            work_lane: how many envelopes the work lane holds, from 1 up.
            control_lane: how many envelopes the control lane holds, from 1 up.
            dedupe_window: of how many envelopes (sender, id) is remembered, from 1 up; the oldest goes first.
        """
        bounds = {"work_lane": work_lane, "control_lane": control_lane, "dedupe_window": dedupe_window}
        for name, value in bounds.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: at least 1 is needed, not {value!r}")
        self._control = LaneQueue(control_lane)
        self._work = LaneQueue(work_lane)
        self._window = dedupe_window
        self._seen = None
        self.open_claim = None
        self._inherited = None  # open claims that came with a take-over
        self._claimer = None
        self._asleep = False  # the claimer is parked and nobody has woken it yet
        self._wanted = ALL_LANES
        self._take: Callable[[Envelope], bool] | None = None
        self.closed = None

    # -- the senders' side

    def put_nowait(self, envelope: Envelope) -> Receipt:
        """Accept an envelope; closed or a duplicate, its receipt is settled at once.

        Raises:
            trio.WouldBlock: its lane is full.
        """
        if self.closed is not None:
            return Receipt.dropped(_CLOSED)
        key = envelope.key
        seen = self._seen
        if seen is None:
            seen = self._seen = OrderedDict()
        elif key in seen:
            return Receipt.dropped(_DUPLICATE)
        lane = self._control if envelope.lane is _CONTROL else self._work
        queue = lane.queue
        if queue is not None and len(queue) >= lane.limit:
            raise trio.WouldBlock
        taken = self._asleep and self._take is not None and not queue and not self._inherited and self._take(envelope)
        seen[key] = None
        if len(seen) > self._window:
            seen.popitem(last=False)
        if taken:
            return Receipt.admitted()
        receipt = Receipt()
        if queue is None:
            queue = lane.queue = deque()
        queue.append((envelope, receipt))
        if self._asleep:
            self._wake_claimer()
        return receipt

    def has_room(self, lane: Lane) -> bool:
        """Say whether `put_nowait` would take an envelope of this lane."""
        found = self._control if lane is _CONTROL else self._work
        return self.closed is None and (found.queue is None or len(found.queue) < found.limit)

    async def put(self, envelope: Envelope) -> Receipt:
        """Accept an envelope, waiting while its lane is full.

        **Cancellation:** cancelled, it was not accepted, and its id may be sent again.
        """
        sender = self.park_if_full(envelope)
        if sender is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            receipt = self.put_nowait(envelope)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return receipt
        await trio.lowlevel.wait_task_rescheduled(sender.abort)
        # Only `hand_over` and `close` wake a parked sender, and both leave a receipt first.
        return sender.receipt or Receipt.dropped(_CLOSED)

    def park_if_full(self, envelope: Envelope) -> ParkedSender | None:
        """Put the calling task in line, which then has to sleep; None if `put_nowait` would not raise WouldBlock."""
        lane = self._control if envelope.lane is _CONTROL else self._work
        queue = lane.queue
        if queue is None or len(queue) < lane.limit or (self._seen and envelope.key in self._seen):
            return None
        sender = ParkedSender(self, envelope)
        parked = lane.parked
        if parked is None:
            parked = lane.parked = OrderedDict()
        parked[sender] = None
        return sender

    def forget(self, sender: ParkedSender) -> None:
        """Take a cancelled sender out of its lane."""
        parked = self._lane(sender.envelope).parked
        if parked is not None:
            parked.pop(sender, None)

    def is_new(self, key: str) -> bool:
        """Say whether an envelope of this key is no duplicate, and remember it."""
        seen = self._seen
        if seen is None:
            seen = self._seen = OrderedDict()
        elif key in seen:
            return False
        seen[key] = None
        if len(seen) > self._window:
            seen.popitem(last=False)
        return True

    # -- the claimer's side

    def claim_nowait(self, lanes: frozenset[Lane] = ALL_LANES) -> InboxClaim:
        """Claim the first envelope of ``lanes``; see `CommsRuntime.claim_nowait`."""
        claim = self.claim_ready(lanes)
        if claim is None:
            raise trio.WouldBlock
        return claim

    def claim_ready(self, lanes: frozenset[Lane] = ALL_LANES) -> InboxClaim | None:
        """Claim the first envelope of ``lanes``, or return None; see `CommsRuntime.claim_ready`."""
        if self.closed is not None or self._claimer is not None or self.open_claim is not None:
            self._refuse_claim()
        # As `_claim_head`, spelled out: asked after every envelope.
        if self._inherited:
            return None
        lane = self._control
        queue = lane.queue
        if not queue or _CONTROL not in lanes:
            lane = self._work
            queue = lane.queue
            if not queue or _WORK not in lanes:
                return None
        claim = self.open_claim = InboxClaim(self, lane, queue[0])
        return claim

    async def claim(
        self, lanes: frozenset[Lane] = ALL_LANES, take: Callable[[Envelope], bool] | None = None
    ) -> InboxClaim:
        """Wait for an envelope of ``lanes`` and claim it; see `CommsRuntime.claim` and `CommsRuntime.claim_untaken`.

        **Cancellation:** nothing is lost; the head is taken after the last checkpoint.
        """
        if self.closed is not None or self._claimer is not None or self.open_claim is not None:
            self._refuse_claim()
        self._claimer = trio.lowlevel.current_task()
        try:
            if self._has_head(lanes):
                await trio.lowlevel.checkpoint()
            # A take-over between wake-up and run may have brought an open claim: then wait on.
            while self.closed is None:
                claim = self._claim_head(lanes)
                if claim is not None:
                    return claim
                self._wanted, self._take = lanes, take
                self._asleep = True
                await trio.lowlevel.wait_task_rescheduled(self._abort_claimer)
        finally:
            self._claimer = self._take = None
        raise trio.ClosedResourceError(self.closed)

    def _abort_claimer(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._asleep = False
        return trio.lowlevel.Abort.SUCCEEDED

    def _refuse_claim(self) -> None:
        if self.closed is not None:
            raise trio.ClosedResourceError(self.closed)
        if self._claimer is not None:
            raise trio.BusyResourceError("claim: another task is claiming; one claims at a time")
        raise trio.BusyResourceError("claim: a claim is open; commit or leave it first")

    def _claim_head(self, lanes: frozenset[Lane]) -> InboxClaim | None:
        if self._inherited:
            return None
        lane = self._control
        queue = lane.queue
        if not queue or _CONTROL not in lanes:
            lane = self._work
            queue = lane.queue
            if not queue or _WORK not in lanes:
                return None
        claim = self.open_claim = InboxClaim(self, lane, queue[0])
        return claim

    def _has_head(self, lanes: frozenset[Lane]) -> bool:
        return bool((self._control.queue and _CONTROL in lanes) or (self._work.queue and _WORK in lanes))

    def _wake_claimer(self) -> None:
        if self._asleep and self._claimer is not None and self._has_head(self._wanted):
            self._asleep = False
            trio.lowlevel.reschedule(self._claimer)

    # -- how a claim ends

    def end_claim(self, claim: InboxClaim) -> None:
        """Let the next claim be granted."""
        if self.open_claim is claim:
            self.open_claim = None
        elif self._inherited:
            self._inherited.remove(claim)
            self._wake_claimer()

    def _open_claims(self) -> list[InboxClaim]:
        own = [] if self.open_claim is None else [self.open_claim]
        return (self._inherited or []) + own

    # -- the whole inbox

    def take_over(self, previous: Inbox) -> None:
        """Move all of ``previous`` in front of our own, at once; see `CommsRuntime.take_over`.

        Raises:
            trio.ClosedResourceError: this inbox is closed; nothing has changed.
        """
        if self.closed is not None:
            raise trio.ClosedResourceError(self.closed)
        if previous is self or previous.closed is not None:
            return
        claims = previous._open_claims()
        for claim in claims:
            claim.inbox = self
            claim.lane = self._lane(claim.envelope)
        if claims:
            self._inherited = (self._inherited or []) + claims
        if previous._seen:
            # What is moved counts as older than our own.
            previous._seen.update(self._seen or {})
            self._seen = previous._seen
            self._trim_window()
        self._take_lane(self._control, previous._control)
        self._take_lane(self._work, previous._work)
        previous._seen = previous.open_claim = previous._inherited = None
        previous._shut("this inbox was taken over; claim from the one that took it")
        self._wake_claimer()

    def _take_lane(self, ours: LaneQueue, theirs: LaneQueue) -> None:
        if theirs.queue:
            theirs.queue.extend(ours.queue or ())
            ours.queue = theirs.queue
        if theirs.parked:
            for sender in theirs.parked:
                sender.inbox = self
            theirs.parked.update(ours.parked or {})
            ours.parked = theirs.parked
        theirs.queue = theirs.parked = None
        ours.hand_over()

    def close(self) -> None:
        """Refuse from now on and settle what is left as DROPPED(CLOSED); an open claim decides for itself."""
        if self.closed is not None:
            return
        claimed = {id(claim.entry) for claim in self._open_claims()}
        for lane in (self._control, self._work):
            entries, parked = lane.queue or (), lane.parked or ()
            lane.queue = lane.parked = None
            for entry in entries:
                if id(entry) not in claimed:
                    entry[1].settle(_CLOSED)
            for sender in parked:
                sender.receipt = Receipt.dropped(_CLOSED)
                trio.lowlevel.reschedule(sender.task)
        self._seen = None
        self._shut("this inbox is closed")

    def _shut(self, why: str) -> None:
        self.closed = why
        if self._asleep and self._claimer is not None:
            self._asleep = False
            trio.lowlevel.reschedule(self._claimer)

    def statistics(self) -> CommsStatistics:
        """Count what is held."""
        claims = self._open_claims()
        in_control = sum(claim.envelope.lane is _CONTROL for claim in claims) if self.closed is None else 0
        in_work = len(claims) - in_control if self.closed is None else 0
        return CommsStatistics(
            control_waiting=len(self._control.queue or ()) - in_control,
            work_waiting=len(self._work.queue or ()) - in_work,
            parked_senders=len(self._control.parked or ()) + len(self._work.parked or ()),
            claim_open=bool(claims),
        )

    def _lane(self, envelope: Envelope) -> LaneQueue:
        return self._control if envelope.lane is _CONTROL else self._work

    def let_come_again(self, envelope: Envelope) -> None:
        """Take an envelope as if it had never come: it may be sent again. For claims."""
        if self._seen is not None:
            self._seen.pop(envelope.key, None)

    def _trim_window(self) -> None:
        while self._seen is not None and len(self._seen) > self._window:
            self._seen.popitem(last=False)
