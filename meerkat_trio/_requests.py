"""A session's open requests: its own, each with the caller that waits, and others', each with its route (SPEC 6).

Which response answers which request, and what counts as open, is decided by the authority; here are the callers to
wake and the replies to send. Made for a session on first use: one that never talks to a peer does without.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio

from ._exceptions import NotARequest, RequestAnswered, RequestDropped, RequestFailed
from ._messages import Envelope, ReceiptStatus
from ._outbox import ATTEMPTS, Outbox, Reply, judge
from ._policy import Backoff
from ._reports import AbandonCause
from .authority import CloseRequest, EnvelopeKind, OpenRequest, ReplySent, ResponseArrived, ResponseStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ._messages import Receipt
    from ._parts import SessionSettings
    from ._reports import SessionEnd
    from ._session_record import SessionRecord
    from .abc import CommsRuntime
    from .authority import CorrelationId, DropReason, Input, SessionState, Step

__all__ = ["PROGRESS_KEPT", "PendingRequest", "Requests", "RequestsHost"]

PROGRESS_KEPT: Final = 64
"""Progress responses kept for a caller that has not been told yet; the oldest go first."""
_BACKOFF: Final = Backoff()
_outbox_logger: Final = logging.getLogger("meerkat_trio.outbox")


class RequestsHost(Protocol):
    """Whom the requests belong to."""

    settings: SessionSettings
    is_over: bool
    shutting_down: bool
    end: SessionEnd | None
    record: SessionRecord | None

    @property
    def state(self) -> SessionState:
        """The session's current state."""

    def apply(self, input_: Input) -> Step:
        """Apply what is asked or was observed."""

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives no longer than the session."""

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours."""

    def make_end_error(self) -> Exception:
        """Say that the session is ending, as those who wait are told."""

    async def until_durable(self) -> None:
        """Wait until what was recorded is durable."""


@final
class PendingRequest:
    """A request of ours and what has come of it so far; one task waits for it."""

    __slots__ = ("_arrived", "_progress", "_request", "error", "response", "sending")

    response: Envelope | None
    """The terminal response."""
    error: Exception | None
    """Why there will be none."""

    def __init__(self, request: Envelope) -> None:
        self._request = request
        self._arrived = trio.Event()
        self._progress: deque[Any] = deque(maxlen=PROGRESS_KEPT)
        self.response = None
        self.error = None
        self.sending: trio.CancelScope = trio.CancelScope()

    def take(self, response: Envelope) -> None:
        """Take a response in and wake the caller."""
        if response.status is ResponseStatus.ACCEPTED:
            self._progress.append(response.body)
        else:
            self.response = response
        self._wake()

    def fail(self, error: Exception) -> None:
        """Wake the caller with an error, unless it has its answer."""
        if self.response is None and self.error is None:
            self.error = error
            self._wake()

    def drop(self, reason: DropReason | None) -> None:
        """Take note that the addressee never let the request in."""
        self.fail(RequestDropped(self._request.recipient, self._request.intent or "", reason))

    def _wake(self) -> None:
        # Whoever answers has the request, whatever the transport has said of it so far.
        self.sending.cancel()
        self._arrived.set()

    async def wait(self, on_progress: Callable[[Any], object] | None) -> Any:
        """Wait for the terminal response and return its body, telling of progress in between.

        **Cancellation:** what had arrived and was not returned is gone with the caller.
        """
        while True:
            while self._progress:
                body = self._progress.popleft()
                if on_progress is not None:
                    on_progress(body)
            if self.error is not None:
                raise self.error
            if self.response is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return self._result(self.response)
            self._arrived = trio.Event()
            await self._arrived.wait()

    def _result(self, response: Envelope) -> Any:
        if response.status is ResponseStatus.FAILED:
            raise RequestFailed(self._request.recipient, self._request.intent or "", response.body)
        return response.body


@final
class _Held:
    """A request of somebody else, from its admission until its message is done with."""

    __slots__ = ("answered", "comms", "message")

    def __init__(self, message: Envelope, comms: CommsRuntime | None, *, answered: bool) -> None:
        self.message: Envelope = message
        self.comms: CommsRuntime | None = comms
        self.answered: bool = answered


@final
class Requests:
    """What one session has asked and been asked."""

    __slots__ = ("_departing", "_held", "_host", "_pending", "given_up", "kept", "outbox")

    given_up: int
    """Replies that have failed for good."""
    kept: set[Reply]
    """Replies that are out, and on record until their peers have them; a task waits for each."""

    def __init__(self, host: RequestsHost) -> None:
        self._host = host
        self._pending: dict[CorrelationId, PendingRequest] = {}
        # By identity: a peer may use a correlation again as soon as it has its answer.
        self._held: dict[int, _Held] = {}
        self._departing: set[trio.CancelScope] = set()
        self.kept: set[Reply] = set()
        self.given_up = 0
        self.outbox: Outbox = self._make_outbox()

    def open(self) -> None:
        """Begin anew with the settings of a revived session."""
        self.outbox = self._make_outbox()

    def _make_outbox(self) -> Outbox:
        settings = self._host.settings
        return Outbox(self, bound=settings.outbox, backoff=_BACKOFF, random=settings.random)

    # --- what others ask ----------------------------------------------------------------------------

    def hold(self, message: Envelope, comms: CommsRuntime | None, *, answered: bool = False) -> None:
        """Keep the route of a request that was admitted; None: the next comms runtime of that peer id is the route."""
        self._held[id(message)] = _Held(message, comms, answered=answered)

    def resume(self, reply: Envelope) -> None:
        """Send an answer that a process before this one had given, as soon as there is a route."""
        self.outbox.put(Reply(None, reply))

    def answer(self, message: Envelope, status: ResponseStatus, body: Any) -> None:
        """Send a reply in the name of a handler.

        Raises:
            NotARequest: the message asks for nothing.
            RequestAnswered: it is over.
        """
        if message.kind is not EnvelopeKind.REQUEST:
            raise NotARequest(message.id, message.kind)
        held = self._held.get(id(message))
        if held is None or held.answered:
            raise RequestAnswered(message.id, message.sender)
        self._reply(held, status, body)

    def settle(self, message: Envelope, status: ResponseStatus, body: Any) -> Reply | None:
        """Answer a request in the session's own name, once and for all; None if that was done before."""
        held = self._held.pop(id(message), None)
        return None if held is None or held.answered else self._reply(held, status, body)

    def release(self, message: Envelope, cause: AbandonCause | None = None) -> None:
        """Answer a request that is done with, unless its handler did: COMPLETED, or FAILED if it was abandoned."""
        if cause is None:
            self.settle(message, ResponseStatus.COMPLETED, None)
        else:
            self.settle(message, ResponseStatus.FAILED, {"cause": cause.value})

    def _reply(self, held: _Held, status: ResponseStatus, body: Any) -> Reply:
        message = held.message
        envelope = Envelope(
            id=self._host.settings.new_id(),
            sender=message.recipient,
            recipient=message.sender,
            kind=EnvelopeKind.RESPONSE,
            body=body,
            correlation=message.correlation,
            status=status,
        )
        is_last = status is not ResponseStatus.ACCEPTED
        if is_last and self._host.record is not None:
            self._host.record.note_answer(message, envelope)
        held.answered = is_last
        reply = Reply(held.comms, envelope)
        self.outbox.put(reply)
        return reply

    def reroute(self, comms: CommsRuntime) -> None:
        """Let ``comms`` carry what is still to be said in the name of its peer id."""
        for held in self._held.values():
            if held.message.recipient == comms.peer_id:
                held.comms = comms
        for reply in self.kept:
            if reply.envelope.sender == comms.peer_id:
                reply.comms, reply.attempts = comms, 0
        self.outbox.reroute(comms)

    # --- what the outbox tells ----------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether no task can be started any more."""
        return self._host.is_over

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives no longer than the session."""
        self._host.start_child(child, *args)

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours."""
        self._host.contain(error)

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept."""
        return self._host.record is not None

    async def until_durable(self) -> None:
        """Wait until what was recorded is durable.

        **Cancellation:** nothing is lost.
        """
        await self._host.until_durable()

    def conclude(self, reply: Reply, problem: object | None) -> None:
        """Take note that a reply is out, or why it never will be."""
        envelope = reply.envelope
        reply.is_over = True
        if problem is not None:
            self._give_up(envelope, problem)
        record = self._host.record
        if record is not None and envelope.status is not ResponseStatus.ACCEPTED:
            receipt = reply.receipt
            if problem is not None or receipt is None or receipt.status is not ReceiptStatus.QUEUED:
                record.note_reply_over(envelope, is_out=problem is None)
            elif self._host.is_over or self._host.end is not None:
                record.note_reply_over(envelope, is_out=False)
            else:
                self.kept.add(reply)
                self._host.start_child(self._keep_until_settled, reply, receipt, record)
        # A session that has ended has forgotten its requests, in the step in which it ended; and a request whose answer
        # was out before may have been followed by another of the same correlation.
        is_last = envelope.status is not ResponseStatus.ACCEPTED and not reply.is_again
        if is_last and envelope.correlation and self._host.end is None:
            self._host.apply(ReplySent(envelope.recipient, envelope.correlation))

    def _give_up(self, envelope: Envelope, problem: object) -> None:
        self.given_up += 1
        _outbox_logger.warning(
            "session %s: gave up the %s reply to %s for its request %s: %r",
            self._host.state.session.session_id,
            envelope.status and envelope.status.value,
            envelope.recipient,
            envelope.correlation,
            problem,
        )

    async def _keep_until_settled(self, reply: Reply, receipt: Receipt, record: SessionRecord) -> None:
        """Keep a reply that the transport has accepted on record until its peer has it: a kill takes the transport too.

        What it is refused for meanwhile counts as an attempt.
        """
        try:
            with self.until_end():
                await receipt.wait()
        finally:
            self.kept.remove(reply)
            problem, is_final = judge(receipt)
            is_settled = receipt.status is not ReceiptStatus.QUEUED
            is_last_try = is_final or reply.attempts >= ATTEMPTS or self.is_over or self._host.end is not None
            if is_settled and not is_last_try:
                reply.attempts += 1
                reply.receipt = None
                reply.is_again = True
                self.outbox.put(reply)
            else:
                if problem is not None and not record.is_sealed:
                    self._give_up(reply.envelope, problem)
                record.note_reply_over(reply.envelope, is_out=is_settled and problem is None)

    # --- what this session asks ---------------------------------------------------------------------

    @contextmanager
    def opened(self, request: Envelope) -> Iterator[PendingRequest]:
        """Have a request open for the length of the block.

        Raises:
            TransitionRejected: the session asks for nothing in its phase.
        """
        correlation = request.correlation or ""
        self._host.apply(OpenRequest(correlation, request.recipient))
        pending = self._pending[correlation] = PendingRequest(request)
        try:
            yield pending
        finally:
            del self._pending[correlation]
            if pending.response is None:
                self._host.apply(CloseRequest(correlation))

    def take(self, response: Envelope) -> None:
        """Hand a response that was admitted to whoever waits for it."""
        correlation, status = response.correlation, response.status
        if correlation is None or status is None:
            return
        self._host.apply(ResponseArrived(correlation, response.sender, status))
        pending = self._pending.get(correlation)
        if pending is not None:
            pending.take(response)

    @contextmanager
    def until_end(self) -> Iterator[None]:
        """Wait in the block no longer than the session lives."""
        with trio.CancelScope() as scope:
            self._departing.add(scope)
            try:
                yield
            finally:
                self._departing.remove(scope)

    # --- the end ------------------------------------------------------------------------------------

    def fail_pending(self) -> None:
        """Wake everybody who waits for a response: none can come any more."""
        for pending in tuple(self._pending.values()):
            pending.fail(self._host.make_end_error())

    def end(self, unfinished: tuple[Envelope, ...], deadline: float) -> None:
        """Answer what will not be handled, and give the outbox until ``deadline``."""
        for message in unfinished:
            self.release(message, AbandonCause.SESSION_ENDED)
        self._held.clear()
        self.fail_pending()
        for scope in tuple(self._departing):
            scope.cancel()
        self.outbox.end(deadline)
