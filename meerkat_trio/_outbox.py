"""The outbox: replies on their way to the peers that asked, each with the route it holds (SPEC 6, 7).

It knows no session: whom it works for starts its tasks and is told what became of each reply. What holds:

1. A reply that can go out at once does so in the call that hands it in, and needs no task; unless a journal is kept,
   which has to know of it before its peer does.
2. What cannot waits in a lane, one for each pair of peers (ours, theirs), in order, and a task serves that lane for as
   long as something is in it. So a dead or slow peer is in nobody's way but its own.
3. A reply holds its route, the comms runtime that brought the request, until it is out or has failed for good. A newer
   instance of the same peer takes the route over (`Outbox.reroute`); a detach or a loss of trust does not touch it.
4. However often a reply is tried, it has one envelope id: what had arrived after all is a DUPLICATE, which is as good.
5. A reply is concluded once, without a checkpoint between the answer of the transport and the conclusion. It is out
   once the transport has accepted it. Where a journal is kept, that is told when its peer has it, and it comes back
   here if the transport gives it up.
6. Lanes are shielded, for what was promised outlives a cancellation; `Outbox.end` bounds that by a deadline.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, final

import trio

from ._cancelled import is_being_cancelled, split_cancelled
from ._messages import ReceiptStatus
from .authority import DropReason, ResponseStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._messages import Envelope, Receipt
    from ._policy import Backoff, Random
    from .abc import CommsRuntime
    from .authority import PeerId

__all__ = ["ATTEMPTS", "PATIENCE", "Outbox", "OutboxHost", "Reply", "judge"]

ATTEMPTS: Final = 8
"""Times one reply is tried over one route before it has failed for good."""
PATIENCE: Final = 30.0
"""Seconds that one attempt may wait for room at the peer."""

_PASSING: Final = frozenset({DropReason.CLOSED, DropReason.INBOX_FULL, DropReason.RATE_LIMITED})
"""Refusals that another attempt may not meet."""

Problem: TypeAlias = "BaseException | DropReason | str"
"""Why a reply is not out."""
_ENDED: Final = "the session has ended"
_UNRECORDED: Final = "it is not recorded yet"
_NO_ROUTE: Final = "no comms runtime of this peer id is attached"
_FULL: Final = "too many replies wait for this peer"


@final
class Reply:
    """A response that has to reach the peer that asked."""

    __slots__ = ("attempts", "comms", "envelope", "is_again", "is_over", "receipt")

    comms: CommsRuntime | None
    """The route: what it is sent through; None until there is one."""
    envelope: Envelope
    """The response."""
    attempts: int
    """How often it was tried over this route."""
    is_over: bool
    """Whether it is out or has failed for good."""
    is_again: bool
    """Whether it was out, and the transport has given it up."""
    receipt: Receipt | None
    """What the transport has said of it; it may be QUEUED there when it is out."""

    def __init__(self, comms: CommsRuntime | None, envelope: Envelope) -> None:
        self.comms = comms
        self.envelope = envelope
        self.attempts = 0
        self.is_over = False
        self.is_again = False
        self.receipt = None

    def __repr__(self) -> str:
        return f"<Reply {self.envelope.id!r} to {self.envelope.recipient}>"


class OutboxHost(Protocol):
    """Whom an outbox works for."""

    @property
    def is_over(self) -> bool:
        """Whether no task can be started any more."""

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives no longer than the session."""

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept, which has to know of a reply before its peer does."""

    async def until_durable(self) -> None:
        """Wait until what was recorded is durable."""

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours."""

    def conclude(self, reply: Reply, problem: object | None) -> None:
        """Take note that a reply is out (None), or why it never will be."""


@final
class _Lane:
    """The replies from one of our peer ids to one peer."""

    __slots__ = ("key", "pause", "replies", "scope")

    def __init__(self, key: tuple[PeerId, PeerId], deadline: float) -> None:
        self.key: tuple[PeerId, PeerId] = key
        self.replies: deque[Reply] = deque()
        self.scope: trio.CancelScope = trio.CancelScope(deadline=deadline, shield=True)
        self.pause: trio.CancelScope | None = None


@final
class Outbox:
    """The replies of one session that are not out yet."""

    __slots__ = ("_backoff", "_bound", "_deadline", "_host", "_lanes", "_random")

    def __init__(self, host: OutboxHost, *, bound: int, backoff: Backoff, random: Random) -> None:
        self._host = host
        self._bound = bound
        self._backoff = backoff
        self._random = random
        self._deadline = math.inf
        self._lanes: dict[tuple[PeerId, PeerId], _Lane] = {}

    def __len__(self) -> int:
        return sum(len(lane.replies) for lane in self._lanes.values())

    @property
    def tasks(self) -> int:
        """How many tasks there are: one for each lane."""
        return len(self._lanes)

    def put(self, reply: Reply) -> None:
        """Take a reply: it is out when this returns, waits in its lane, or has failed for good."""
        key = reply.envelope.sender, reply.envelope.recipient
        lane = self._lanes.get(key)
        if lane is None:
            problem, is_final = (_UNRECORDED, False) if self._host.is_recorded else _send_now(reply)
            if problem is not None and not is_final:
                if self._host.is_over:
                    problem = _ENDED
                else:
                    lane = self._lanes[key] = _Lane(key, self._deadline)
                    lane.replies.append(reply)
                    self._host.start_child(self._serve, lane)
                    return
            self._host.conclude(reply, problem)
        elif len(lane.replies) < self._bound or self._give_way(lane, reply):
            lane.replies.append(reply)
        else:
            self._host.conclude(reply, _FULL)

    def _give_way(self, lane: _Lane, reply: Reply) -> bool:
        """Give up the oldest progress that is not being sent, so that an answer finds room; say whether it does."""
        if reply.envelope.status is not ResponseStatus.ACCEPTED:
            for index in range(1, len(lane.replies)):
                expendable = lane.replies[index]
                if expendable.envelope.status is ResponseStatus.ACCEPTED:
                    del lane.replies[index]
                    self._host.conclude(expendable, _FULL)
                    return True
        return False

    def reroute(self, comms: CommsRuntime) -> None:
        """Send what is left in the name of this peer through ``comms`` from now on, at once."""
        for lane in self._lanes.values():
            if lane.key[0] == comms.peer_id:
                for reply in lane.replies:
                    reply.comms, reply.attempts = comms, 0
                if lane.pause is not None:
                    lane.pause.cancel()

    def end(self, deadline: float) -> None:
        """Give what is left until ``deadline``; an earlier one stands."""
        self._deadline = min(self._deadline, deadline)
        for lane in self._lanes.values():
            lane.scope.deadline = self._deadline

    async def _serve(self, lane: _Lane) -> None:
        replies = lane.replies
        try:
            with lane.scope:
                while replies:
                    await self._host.until_durable()
                    problem = await self._deliver(lane, replies[0])
                    self._host.conclude(replies.popleft(), problem)
        except Exception as fault:  # noqa: BLE001 - a fault of ours, which is this session's alone
            self._host.contain(fault)
        finally:
            del self._lanes[lane.key]
            while replies:
                self._host.conclude(replies.popleft(), _ENDED)

    async def _deliver(self, lane: _Lane, reply: Reply) -> Problem | None:
        """Try until the reply is out, and return None, or why it never will be."""
        while True:
            if reply.comms is None:
                with trio.CancelScope() as lane.pause:
                    await trio.sleep_forever()
                lane.pause = None
                continue
            problem, is_final = await _send(reply.comms, reply)
            if problem is None or is_final:
                return problem
            reply.attempts += 1
            if reply.attempts >= ATTEMPTS:
                return problem
            with trio.CancelScope() as lane.pause:
                await trio.sleep(self._backoff.delay(reply.attempts, self._random))
            lane.pause = None


Outcome: TypeAlias = "tuple[Problem | None, bool]"
"""What is wrong, None if the reply is out; whether trying again is of no use."""


def _send_now(reply: Reply) -> Outcome:
    if reply.comms is None:
        return _NO_ROUTE, False
    try:
        return judge(reply.comms.send_nowait(reply.envelope))
    except trio.WouldBlock as full:
        return full, False
    except Exception as error:  # noqa: BLE001 - whatever a transport raises is an attempt
        reply.attempts += 1
        return error, isinstance(error, ValueError)


async def _send(comms: CommsRuntime, reply: Reply) -> Outcome:
    receipt: Receipt | None = None
    try:
        with trio.move_on_after(PATIENCE):
            receipt = await comms.send(reply.envelope)
    except BaseException as error:  # noqa: ASYNC103 - a Cancelled of another task is a failure
        cancelled, rest = split_cancelled(error)
        if not isinstance(rest, Exception | None) or (cancelled is not None and is_being_cancelled()):
            raise
        # What is not this side's, or cannot be said at all, stays so.
        return error, isinstance(error, ValueError)  # noqa: ASYNC104 - the Cancelled belongs to another task
    if receipt is None:
        return f"no room at the peer within {PATIENCE:g} seconds", False
    reply.receipt = receipt
    return judge(receipt)


def judge(receipt: Receipt) -> Outcome:
    """Say what a receipt means for a reply; one that is QUEUED is out."""
    reason = receipt.reason
    if receipt.status is not ReceiptStatus.DROPPED or reason is DropReason.DUPLICATE:
        return None, True
    return reason or "dropped without a reason", reason not in _PASSING
