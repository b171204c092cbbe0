"""The executor: calls the application's handler with one message at a time, in order (SPEC 6).

It owns the queue of admitted messages. It knows no session: what it has to report goes to the callbacks it is given.
A message stays at the head of the queue until it is consumed or abandoned, so whatever is cancelled, it is still there.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, final

import trio

from ._cancelled import is_being_cancelled, split_cancelled
from ._drain import BATCH
from .authority import RunOutcome

if TYPE_CHECKING:
    from ._exceptions import RunInterrupted
    from ._messages import Envelope, Receipt
    from ._policy import Backoff, Random
    from .authority import AdmissionClass, PeerId, ResponseStatus, RunId

__all__ = ["Executor", "Run", "Work", "WorkQueue"]

S = TypeVar("S", bound="Correspondent")


class Correspondent(Protocol):
    """What a session has to be for its runs."""

    def send(self, peer_id: PeerId, body: Any) -> Awaitable[Receipt]:
        """Send a message to a peer."""

    def reply_to(self, message: Envelope, status: ResponseStatus, result: Any = None) -> Awaitable[None]:
        """Answer a request."""


@final
class Run(Generic[S]):
    """One attempt to handle one message."""

    __slots__ = ("admission", "attempt", "message", "session")

    session: S
    """The session it belongs to."""
    message: Envelope
    """The message to handle."""
    attempt: int
    """1 for the first attempt; a message that was returned keeps its number."""
    admission: AdmissionClass
    """What the message is to the session."""

    def __init__(self, session: S, message: Envelope, attempt: int, admission: AdmissionClass) -> None:
        self.session = session
        self.message = message
        self.attempt = attempt
        self.admission = admission

    async def reply(self, status: ResponseStatus, result: Any = None) -> None:
        """Answer the request that is being handled: ACCEPTED as often as it goes on, then COMPLETED or FAILED once.

        A request that its handler leaves unanswered is answered COMPLETED when the handler returns, with no body, and
        FAILED with the cause when it is given up. The reply goes out by itself, over the way on which the request came,
        also after a rebind, a detach or a loss of trust; nothing here waits for the peer.

        Raises:
            NotARequest: the message asks for nothing.
            RequestAnswered: COMPLETED or FAILED was said before, by an earlier attempt maybe, or the handler has
                returned.
            TypeError: ``status`` is no `ResponseStatus`.

        **Cancellation:** cancelled, nothing was said; returned, the reply is on its way and will be sent once. It
        stands, also if the attempt then fails.
        """
        await self.session.reply_to(self.message, status, result)

    async def send(self, peer_id: PeerId, body: Any) -> Receipt:
        """Send a message to a peer, as `Session.send` does, with the same errors.

        **Cancellation:** as `Session.send`.
        """
        return await self.session.send(peer_id, body)

    def __repr__(self) -> str:
        return f"<Run {self.message.id!r} attempt {self.attempt}>"


Work: TypeAlias = "tuple[Envelope, AdmissionClass]"


@final
class WorkQueue:
    """What was admitted and not yet handled: first in, first out, with the attempts of its head."""

    __slots__ = ("attempt", "bound", "error", "work")

    work: deque[Work] | None
    """The messages; made on first use, for an empty deque is larger than the rest of an idle session's queue."""
    attempt: int
    """The number of the next attempt at the head, from 1 up."""
    error: BaseException | None
    """What the last attempt at the head failed with."""

    def __init__(self, bound: int) -> None:
        self.bound: int = bound
        self.work = None
        self.attempt = 1
        self.error = None

    def __len__(self) -> int:
        return 0 if self.work is None else len(self.work)

    def has_room(self) -> bool:
        """Say whether fewer than ``bound`` messages are queued."""
        return self.work is None or len(self.work) < self.bound

    def append(self, work: Work) -> None:
        """Queue a message behind the others."""
        if self.work is None:
            self.work = deque()
        self.work.append(work)

    def keep_head(self, error: BaseException) -> None:
        """Leave the head where it is: an attempt has failed, and another one is to follow."""
        self.attempt += 1
        self.error = error

    def pop(self) -> Work:
        """Remove the head."""
        if not self.work:
            raise IndexError("no message is queued")
        if self.attempt != 1:
            self.attempt = 1
            self.error = None
        return self.work.popleft()

    def drain_all(self) -> tuple[Work, ...]:
        """Remove and return everything."""
        work = tuple(self.work or ())
        self.work = None
        self.attempt = 1
        self.error = None
        return work


class ExecutorHost(Protocol):
    """Whom the executor works for."""

    def begin_run(self, message: Envelope) -> RunId:
        """Record that a run begins."""

    def consume(self, run_id: RunId) -> None:
        """Record that a run has handled its message, which leaves the queue."""

    def finish_run(self, run_id: RunId, outcome: RunOutcome, error: BaseException | None) -> None:
        """Record how else a run ended; the message has left the queue if it was abandoned."""


def _takes_back(context: contextvars.Context) -> bool:
    """Say whether a handler has set a variable; if so the task goes on in a fresh copy from its next step on."""
    strayed = _has_strayed(context)
    if strayed:
        trio.lowlevel.current_task().context = context.copy()
    return strayed


def _has_strayed(context: contextvars.Context) -> bool:
    """Whether a variable was set in the current context since ``context`` was copied from it."""
    try:
        # Nothing was set: both share their insides, and no value is looked at.
        return contextvars.copy_context() != context
    except Exception:  # noqa: BLE001 - two values that do not compare are not the same
        return True


Handler: TypeAlias = Callable[[Run[S]], Awaitable[None]]


@final
class Executor:
    """Serves one handler in the task that calls `serve`, until it is told to stop or to finish."""

    __slots__ = (
        "_backoff",
        "_finishing",
        "_handler",
        "_host",
        "_interruption",
        "_limiter",
        "_max_attempts",
        "_queue",
        "_random",
        "_running",
        "_scope",
        "_session",
        "_stopping",
        "_until_durable",
        "parked",
    )

    parked: trio.lowlevel.Task | None
    """The task that serves, while it waits for a message; then it has to be told of one with `wake`."""

    def __init__(
        self,
        host: ExecutorHost,
        session: Any,
        queue: WorkQueue,
        handler: Handler[Any],
        *,
        max_attempts: int,
        backoff: Backoff,
        random: Random,
        limiter: trio.CapacityLimiter | None,
        until_durable: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._until_durable = until_durable
        self._host = host
        self._session = session
        self._queue = queue
        self._handler = handler
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._random = random
        self._limiter = limiter
        self._scope: trio.CancelScope | None = None
        self.parked = None
        self._running = False
        self._stopping = False
        self._finishing = False
        self._interruption: RunInterrupted | None = None

    def wake(self) -> None:
        """Tell the executor that a message was queued."""
        if self.parked is not None:
            trio.lowlevel.reschedule(self.parked)
            self.parked = None

    def stop(self, deadline: float, *, shield: bool) -> None:
        """Take no further message; a handler that is running has until ``deadline``.

        With ``shield`` it has that time even while everything around it is being cancelled.
        """
        self._stopping = True
        if self._scope is not None:
            if self._running:
                self._scope.shield = self._scope.shield or shield
                self._scope.deadline = min(self._scope.deadline, deadline)
            else:
                self._scope.cancel()
        self.wake()

    def interrupt(self, interruption: RunInterrupted) -> bool:
        """Cancel the run that is going on, which is an attempt; say whether there is one.

        A hard one gives its message up. One that comes while the handler is on its way out counts all the same.
        """
        if not self._running or self._scope is None:
            return False
        if self._interruption is None or interruption.hard:
            self._interruption = interruption
        self._scope.cancel()
        return True

    def finish(self) -> None:
        """Handle what is queued, then end."""
        self._finishing = True
        self.wake()

    async def serve(self) -> None:
        """Handle messages until told otherwise.

        **Cancellation:** the message whose handler was running is at the head of the queue again, with the same
        attempt number.
        """
        # An executor that was never given a message does without a cancel scope: 100,000 of them may idle.
        while not self._stopping and not self._queue.work and not self._finishing:
            await self._park()
        context = contextvars.copy_context()
        while not self._is_done():
            try:
                with trio.CancelScope() as self._scope:
                    if self._interruption is not None:
                        self._interruption = None
                        await self._back_off()
                    await self._work(context)
            finally:
                _takes_back(context)  # this task serves nothing before it has waited
            self._scope = None

    def _is_done(self) -> bool:
        return self._stopping or (self._finishing and not self._queue.work)

    async def _work(self, context: contextvars.Context) -> None:
        queue, limiter = self._queue, self._limiter
        turns = BATCH
        while not self._stopping:
            if not queue.work and self._finishing:
                return
            if not queue.work and turns > BATCH // 2:
                await self._park()
                turns = BATCH
            elif not queue.work or turns == 0:
                # Where much has come, more comes in one turn of the others, and senders find room meanwhile.
                await trio.lowlevel.checkpoint()
                turns = BATCH
            else:
                turns -= 1
                if self._until_durable is not None:
                    # So that of all that was handled, another process handles the last one again at the most.
                    await self._until_durable()
                    if self._stopping:
                        return
                if limiter is None:
                    failed = await self._handle(queue.work[0])
                else:
                    async with limiter:
                        failed = not self._stopping and await self._handle(queue.work[0])
                if _takes_back(context):
                    await trio.lowlevel.checkpoint()
                if self._interruption is not None:
                    # This scope is used up.
                    return
                if failed and not self._is_done():
                    await self._back_off()

    async def _back_off(self) -> None:
        failed = self._queue.attempt - 1
        await trio.sleep(self._backoff.delay(failed, self._random) if failed else 0)

    async def _handle(self, work: Work) -> bool:
        """Make one attempt; say whether it failed and has to be made again."""
        message, admission = work
        host, queue = self._host, self._queue
        run_id = host.begin_run(message)
        self._running = True
        try:
            await self._handler(Run(self._session, message, queue.attempt, admission))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is an attempt
            return self._failed(run_id, error)
        except BaseException as error:
            cancelled, rest = split_cancelled(error)
            fatal = not isinstance(rest, Exception | None)
            if not fatal and not is_being_cancelled():
                return self._failed(run_id, error)  # noqa: ASYNC104 - the Cancelled belongs to another task
            if self._interruption is not None and cancelled is not None and not fatal:
                # What its own tasks failed with over that is kept.
                self._failed(run_id, rest or self._interruption)
                raise cancelled from None  # noqa: ASYNC104 - what of it is Cancelled
            # The handler was cancelled; what its own tasks failed with over that is kept.
            host.finish_run(run_id, RunOutcome.RETURNED, None if cancelled is None else rest)
            if cancelled is None or fatal:
                raise
            raise cancelled from None  # noqa: ASYNC104 - what of it is Cancelled
        else:
            host.consume(run_id)
            return False
        finally:
            self._running = False

    def _failed(self, run_id: RunId, error: BaseException) -> bool:
        interruption = self._interruption
        if interruption is not None and interruption.hard:
            if error is not interruption:
                interruption.__cause__ = error
            self._host.finish_run(run_id, RunOutcome.ABANDONED, interruption)
            return False
        if self._queue.attempt < self._max_attempts:
            self._queue.keep_head(error)
            self._host.finish_run(run_id, RunOutcome.RETRY, error)
            return True
        self._host.finish_run(run_id, RunOutcome.ABANDONED, error)
        return False

    # Not async itself: one frame less for each executor that is parked.
    def _park(self) -> Awaitable[object]:
        self.parked = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._unpark)  # noqa: ASYNC105 - the caller awaits it

    def _unpark(self, _: object) -> trio.lowlevel.Abort:
        self.parked = None
        return trio.lowlevel.Abort.SUCCEEDED
