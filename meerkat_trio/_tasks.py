"""The tasks of one session: its nursery, its authority, and the realising of effects.

The driving contract:

1. One task tree owns a session. An input is applied, then all its effects are realised, then the next input.
2. Applying is synchronous. Observations are applied in a ``finally``, without awaiting.
3. No rule of the authority is repeated here. A condition on a phase would mean that the table lacks a row.
4. Every effect has its case in `SessionTasks._realise`, and there is no default case.
5. What is shielded is bounded by the grace time.
6. The cancel scope is kept, never the task. Stopping means cancel and join.

The session's own task is its executor: it parks when there is nothing to handle. The drain is its child, in
`_drain_task`.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from . import authority
from ._admission import Admission
from ._cancelled import is_being_cancelled, is_own_cancellation
from ._drain_task import DrainTask
from ._exceptions import RunInterrupted, SessionEnded, SessionMoved
from ._executor import Executor, WorkQueue
from ._parts import Counts, Line, SessionSettings
from ._reports import AbandonCause, Abandoned, SessionEnd
from ._requests import Requests
from ._supervision import Supervision
from ._trust_task import TrustTask
from ._waiters import Waiters
from .authority import AdmissionClass, BeginRun, Ending, EnvelopeKind, RunFinished, RunOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ._entries import Memory
    from ._executor import Handler
    from ._messages import Envelope
    from ._parts import Binding
    from ._session_record import SessionRecord
    from ._subscription import StepStream
    from .abc import CommsRuntime
    from .authority import Authority, Effect, Input, RunId, Step

# Looking a member up in its enumeration costs more than the branch it is for.
_CONSUMED: Final = RunOutcome.CONSUMED
_REQUEST: Final = EnvelopeKind.REQUEST
_PLAIN: Final = EnvelopeKind.MESSAGE
_COMMAND: Final = AdmissionClass.BRIDGE_COMMAND

__all__ = ["SessionTasks"]

_logger: Final = logging.getLogger("meerkat_trio.session")
_executor_logger: Final = logging.getLogger("meerkat_trio.executor")


@final
class SessionTasks(Admission):
    """The shell of one session; `Session` is its public face."""

    __slots__ = (
        "_parked",
        "_pending",
        "_task",
        "abandoned",
        "authority",
        "bound_comms",
        "counts",
        "drain",
        "end",
        "error",
        "executor",
        "handler",
        "is_over",
        "line",
        "nursery",
        "on_fatal",
        "on_over",
        "queue",
        "record",
        "requests",
        "resumed_commands",
        "room_scope",
        "session",
        "settings",
        "shutting_down",
        "subscriptions",
        "supervision",
        "trust_task",
        "waiters",
    )

    def __init__(
        self,
        state: authority.SessionState,
        settings: SessionSettings,
        *,
        serving: dict[int, DrainTask],
        subscriptions: list[StepStream],
        on_over: Callable[[SessionTasks], None],
        on_fatal: Callable[[], None],
        record: SessionRecord | None = None,
    ) -> None:
        self.record: SessionRecord | None = record
        self.authority: Authority = authority.Authority(state)
        self.settings: SessionSettings = settings
        self.session: Any = None
        self.queue: WorkQueue = WorkQueue(settings.work_queue)
        self.requests: Requests | None = None
        self.resumed_commands: tuple[tuple[Envelope, bool], ...] = ()
        self.supervision: Supervision | None = None
        self.counts: Counts = Counts()
        self.waiters: Waiters = Waiters()
        self.abandoned: deque[Abandoned] | None = None
        self.subscriptions: list[StepStream] = subscriptions
        self.on_over: Callable[[SessionTasks], None] = on_over
        self.on_fatal: Callable[[], None] = on_fatal
        self.handler: Handler[Any] | None = None
        self.executor: Executor | None = None
        self.drain: DrainTask = DrainTask(self, serving)
        self.bound_comms: CommsRuntime | None = None
        self.trust_task: TrustTask | None = None
        self.room_scope: trio.CancelScope | None = None
        self.end: SessionEnd | None = None
        self.error: BaseException | None = None
        self.is_over: bool = True
        self.line: Line = Line()
        self.nursery: trio.Nursery | None = None
        self.shutting_down: bool = False
        self._task: trio.lowlevel.Task | None = None
        self._parked = False
        self._pending: tuple[tuple[Callable[..., Awaitable[None]], tuple[object, ...]], ...] = ()

    @property
    def state(self) -> authority.SessionState:
        """The session's current state."""
        return self.authority.state

    @property
    def has_ended(self) -> bool:
        """Whether the session has ended, in its authority or, where that could not be told, in its tasks alone."""
        return self.is_over or self.state.session.ended is not None

    @property
    def is_leaving(self) -> bool:
        """Whether another process goes on with the session."""
        return self.record is not None and self.record.is_sealed

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept."""
        return self.record is not None

    @property
    def binding(self) -> Binding | None:
        """What the drain is to serve now."""
        return self.drain.binding

    @property
    def arrival_comms(self) -> CommsRuntime | None:
        """What brings envelopes: also where the session has just let go of it."""
        return self.bound_comms if self.drain.binding is None else self.drain.binding.comms

    # --- applying and realising ---------------------------------------------------------------------

    def apply(self, input_: Input) -> Step:
        """Apply one input, realise its effects, tell whoever watches."""
        try:
            step = self.authority.apply(input_)
        except authority.InvariantViolated as error:
            self._broken(error)
            raise
        if step.effects or self.subscriptions or self.waiters.waiting or self.record is not None:
            self._publish(step)
        return step

    def rehearse(self, *inputs: Input) -> tuple[Step, ...]:
        """Apply inputs one upon the other without committing; see `commit`."""
        try:
            return self.authority.rehearse(*inputs)
        except authority.InvariantViolated as error:
            self._broken(error)
            raise

    def _broken(self, error: authority.InvariantViolated) -> None:
        if self.error is None:
            self.fault(error)

    def commit(self, steps: tuple[Step, ...]) -> None:
        """Commit rehearsed steps and realise them in order."""
        self.authority.commit(steps)
        for step in steps:
            if step.effects or self.subscriptions or self.waiters.waiting or self.record is not None:
                self._publish(step)

    def _publish(self, step: Step) -> None:
        if self.record is not None:
            self.record.note_step(step)
        for effect in step.effects:
            self._realise(effect, step)
        if self.subscriptions:
            for subscription in self.subscriptions:
                subscription.offer(step)
        if self.waiters.waiting:
            self.waiters.ask()

    def _realise(self, effect: Effect, step: Step) -> None:  # noqa: C901, PLR0912 - one case per effect
        match effect:
            case authority.Admitted() | authority.Dropped():
                pass  # the answer to `offer`, which reads it from the step
            case authority.StartDrain(generation=generation):
                self._start_drain(generation, step)
            case authority.SwapDrain(generation=generation):
                self._swap_drain(generation)
            case authority.CancelDrain():
                # While the machine shuts down, its root scope is cancelled once for all drains.
                if not self.shutting_down:
                    self.drain.cancel()
                self._release_callers()
            case authority.DrainEnded(exit=drain_exit):
                self.drain.end()
                if self.record is not None:
                    self.record.withdraw_claimed()
                _logger.debug("session %s: drain ended: %s", step.session_id, drain_exit)
            case authority.ScheduleRespawn(generation=generation):
                self.drain.schedule_respawn(generation)
            case authority.CancelRespawn():
                self.drain.cancel_respawn()
            case authority.RespawnExhausted(generation=generation):
                self.drain.give_up(generation)
            case authority.StartExecutor():
                self._start_executor()
            case authority.StopExecutor():
                self._stop_executor()
                self._release_callers()
            case authority.FinishExecutor():
                if self.executor is not None:
                    self.executor.finish()
                    self._wake()
            case authority.MessageAbandoned():
                pass  # `finish_run` keeps the message with its error, which the authority does not know
            case authority.SessionRetired():
                # Work that nobody takes any more is in nobody's way: its senders are answered.
                self._open_lane()
                _logger.debug("session %s: retired", step.session_id)
            case authority.SessionFinished(cause=cause):
                self._finish(cause)
            case (
                authority.TrustEdgesChanged()
                | authority.LocalEndpointChanged()
                | authority.CommsTrustReconcileRequested()
            ):
                self.reconcile_trust()
            case authority.PeerProjectionChanged():
                pass  # for those who watch; the request to reconcile comes with it
            case authority.RevokeEdges():
                if self.bound_comms is not None:
                    self._have_trust_task().revoke(step.before)

    # --- the journal --------------------------------------------------------------------------------

    async def until_durable(self) -> None:
        """Wait until what was recorded is durable; without a checkpoint if it is, or if no journal is kept.

        **Cancellation:** nothing is lost. In a session that has another home now this is where everything ends: it is
        being stopped.
        """
        if self.record is not None:
            try:
                await self.record.until_sure()
            except SessionMoved:
                await trio.sleep_forever()

    def move_away(self) -> None:
        """Stop the session, and record and say nothing more of it: another process is its home now."""
        if self.record is not None:
            if self.record.is_moved:
                return
            self.record.is_moved = True
            self.record.seal()
        self.fault(SessionMoved(self.state.session.session_id))

    def resume(self, memory: Memory) -> None:
        """Know what a process before this one has known; `start`, `resume_replies` and `AttachExecutor` follow."""
        record, self.record = self.record, None
        if record is not None:
            record.resume(memory)
        for each in memory.messages:
            work = each.envelope, each.admission
            if each.envelope.kind is _REQUEST:
                self.made_requests().hold(each.envelope, None, answered=each.answered)
            if each.admission is _COMMAND:
                self.resumed_commands += ((each.envelope, each.attempts > 0),)
            elif each.admission is not AdmissionClass.DISMISSAL:
                if not self.queue:
                    self.queue.attempt = each.attempts + 1
                self.queue.append(work)
        if memory.abandoned:
            self.abandoned = deque((each for _, each in memory.abandoned), self.settings.abandoned_limit)
        if memory.inputs:
            self.made_supervision().resume(memory.inputs)
        self.record = record
        if record is not None:
            record.forget_requests(correlation for correlation, _, _ in memory.requests)
        self.apply(authority.Restore(memory.remembered))
        if any(each.admission is AdmissionClass.DISMISSAL for each in memory.messages):
            self.apply(authority.Stop("dismissed"))

    def resume_replies(self, replies: Iterable[Envelope]) -> None:
        """Send the answers that a process before this one has given; what has ended sends nothing any more."""
        for reply in replies:
            if not self.is_over:
                self.made_requests().resume(reply)
            elif self.record is not None:
                self.record.note_reply_over(reply, is_out=False)

    # --- trust --------------------------------------------------------------------------------------

    def reconcile_trust(self) -> None:
        """Bring the trust store to the newest desired set; with no comms runtime, end what is under way."""
        if self.bound_comms is not None:
            self._have_trust_task().request()
        elif self.trust_task is not None:
            self.trust_task.request()

    def show_trust(self) -> Awaitable[None]:
        """Make one pass over the store of the comms runtime that is about to be served."""
        return self._have_trust_task().show()

    def _have_trust_task(self) -> TrustTask:
        if self.trust_task is None:
            self.trust_task = TrustTask(self)
        return self.trust_task

    # --- the session's own task ---------------------------------------------------------------------

    async def run(self) -> None:
        """Be the session's task, until the session has ended.

        **Cancellation:** the session stops: its children are joined, its authority is told, nothing is left.
        """
        self._task = trio.lowlevel.current_task()
        try:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                for child, args in self._pending:
                    nursery.start_soon(child, *args)
                self._pending = ()
                try:
                    await self._serve_executors()
                finally:
                    # The nursery closes now: from here on nothing may be started in it.
                    self._tell_to_end("the session's task has ended")
                    self._bound_outbox()
                    if self.executor is not None:
                        # It was attached, and this task was cancelled before it could serve.
                        self._executor_is_out()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in here is this session's alone
            self.contain(error)
        except BaseException:
            # Being cancelled, the machine closes: everybody was told before.
            if not is_being_cancelled():
                self.on_fatal()
            raise
        finally:
            self._conclude()

    async def _serve_executors(self) -> None:
        while self.end is None:
            executor = self.executor
            if executor is None:
                self._parked = True
                await trio.lowlevel.wait_task_rescheduled(self._unpark)
                continue
            try:
                await executor.serve()
            except BaseException as error:
                # Known before the authority hears of the executor's end, which may be the session's.
                if not is_own_cancellation(error):
                    self.error = self.error or error
                raise
            finally:
                self._executor_is_out()

    def _executor_is_out(self) -> None:
        self.executor = None
        if self.queue.has_room():
            # Half of the queue will not become free while nobody handles it.
            self._open_lane()
        self.apply(authority.ExecutorStopped())

    def _unpark(self, _: object) -> trio.lowlevel.Abort:
        self._parked = False
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        if self._parked and self._task is not None:
            self._parked = False
            trio.lowlevel.reschedule(self._task)

    def start(self, nursery: trio.Nursery) -> None:
        """Start the session's task in the machine's nursery."""
        self.is_over = False
        self.end = None
        self.error = None
        self.waiters.open()
        if self.requests is not None:
            self.requests.open()
        nursery.start_soon(self.run, name=f"session {self.state.session.session_id}")

    def resettle(self, settings: SessionSettings) -> None:
        """Take the settings with which a stopped session is revived."""
        self.settings = settings
        if self.record is not None:
            self.record.set_options(settings)
            self.record.trim_abandoned(settings.abandoned_limit)
        self.drain.forget_restarts()
        self.queue.bound = settings.work_queue
        if self.abandoned is not None:
            self.counts.abandoned_forgotten += max(0, len(self.abandoned) - settings.abandoned_limit)
            self.abandoned = deque(self.abandoned, settings.abandoned_limit)

    def shut_down(self) -> None:
        """Tell the session to end because the machine closes, which then cancels all sessions at once."""
        self.shutting_down = True
        if self.record is not None:
            # Only its process ends: another one goes on with the session as it is now.
            self.record.seal()
        self._tell_to_end("the machine closes")
        # A handler that was told before, without a shield, keeps what is left of its time.
        self._stop_executor()
        self._bound_outbox()

    def begin_leave(self) -> None:
        """Tell the session to end here, because another process goes on with it."""
        if not self.is_over:
            if self.record is not None:
                self.record.seal()
            self._tell_to_end("another process goes on with it")
            self._bound_outbox()

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task in the session's nursery, as soon as there is one."""
        if self.nursery is None:
            self._pending += ((child, args),)
        else:
            self.nursery.start_soon(child, *args)

    def fault(self, error: BaseException) -> None:
        """Stop the session because of a fault inside it; the others go on."""
        _logger.error("session %s: fault", self.state.session.session_id, exc_info=error)
        self.error = self.error or error
        try:
            self.apply(authority.Stop(reason=f"fault: {error!r}"))
        except authority.InvariantViolated:
            if self.nursery is not None:
                self.nursery.cancel_scope.cancel()

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours; the machine with it if it is strict."""
        if self.settings.strict:
            self.on_fatal()
            raise error
        self.fault(error)

    def _tell_to_end(self, reason: str) -> None:
        if self.state.session.ending is None:
            with suppress(authority.InvariantViolated):
                self.apply(authority.Stop(reason))

    def _conclude(self) -> None:
        """Bring the authority to where the tasks are: nothing runs any more."""
        self.nursery = None
        self._task = None
        self.is_over = True
        trust_task, self.trust_task = self.trust_task, None
        self._tell_to_end("the session's task has ended")
        if self.end is None:
            _logger.critical("session %s: cannot even be stopped", self.state.session.session_id)
            self._finish(Ending.STOP)
        if trust_task is not None and trust_task.left and self.end is not None:
            self.end = attrs.evolve(self.end, edges_left=trust_task.left)
        self.on_over(self)
        self.waiters.close(lambda: trio.ClosedResourceError("the session ended meanwhile"))

    def _finish(self, cause: Ending) -> None:
        failed_attempts, last_error = self.queue.attempt - 1, self.queue.error
        work = self.queue.drain_all()
        for message, _ in work:
            # Where only the process ends, another one goes on with them.
            self._abandon(
                Abandoned(
                    message=message,
                    cause=AbandonCause.SESSION_ENDED,
                    attempts=failed_attempts,
                    error=last_error,
                )
            )
            # Only the head was tried.
            failed_attempts, last_error = 0, None
        session_id = self.state.session.session_id
        # An ending that was raised while it was being joined hands back what the lower one found.
        earlier = () if self.end is None or self.is_over else self.end.unfinished
        self.end = SessionEnd(
            session_id=session_id,
            cause=cause,
            error=self.error,
            unfinished=(*earlier, *(message for message, _ in work)),
        )
        self.bound_comms = None
        goes_on = self.record is not None and self.record.is_sealed
        if self.supervision is not None:
            self.supervision.end(goes_on=goes_on)
        if self.requests is not None:
            unanswered = () if goes_on else tuple(message for message, _ in (*work, *self.resumed_commands))
            self.requests.end(unanswered, trio.current_time() + self.settings.grace)
        if self.record is not None:
            self.record.note_ended()
        self.resumed_commands = ()
        if self.trust_task is not None:
            self.trust_task.stop()
        self._wake()
        _logger.debug("session %s: ended by %s", session_id, cause.value)
        if self.is_over:
            self.on_over(self)

    def is_called_from_inside(self) -> bool:
        """Say whether the calling task belongs to this session, so that joining it would be joining itself."""
        task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        while task is not None:
            if task is self._task:
                return True
            nursery = task.parent_nursery
            task = nursery.parent_task if nursery is not None else None
        return False

    # --- the drain ----------------------------------------------------------------------------------

    def _start_drain(self, generation: int, step: Step) -> None:
        if self.bound_comms is None:
            raise RuntimeError("a drain was started without a comms runtime")
        is_respawn = isinstance(step.input, authority.RespawnDue)
        self.counts.respawns += is_respawn
        self.drain.start(generation, self.bound_comms, is_respawn=is_respawn)
        self._reroute(self.bound_comms)
        if self.resumed_commands:
            self.start_child(self._resume_commands)

    def _swap_drain(self, generation: int) -> None:
        if self.bound_comms is None:
            raise RuntimeError("a drain was rebound without a comms runtime")
        self.counts.rebinds += 1
        if self.trust_task is not None:
            self.trust_task.request()
        old = self.drain.swap(generation, self.bound_comms)
        _logger.debug("session %s: drain %d replaces %d", self.state.session.session_id, generation, old)
        self._reroute(self.bound_comms)

    # --- requests -----------------------------------------------------------------------------------

    async def _resume_commands(self) -> None:
        """Carry out the commands that a process before this one had admitted, now that their answers have a way.

        A task of its own, without a checkpoint: the step that has started the drain comes first.
        """
        if self.state.session.ending is not None:
            # They are answered with its end, or by the process that goes on with it.
            return
        commands, self.resumed_commands = self.resumed_commands, ()
        try:
            for command, is_carried_out in commands:
                if is_carried_out:
                    self.made_supervision().take_up(command)
                else:
                    self.made_supervision().take(command)
        except Exception as fault:  # noqa: BLE001 - a fault of ours, which is this session's alone
            self.contain(fault)

    def made_supervision(self) -> Supervision:
        """Return the session's bridge, made now if there was none."""
        if self.supervision is None:
            self.supervision = Supervision(self)
        return self.supervision

    def made_requests(self) -> Requests:
        """Return the session's requests, made now if there were none."""
        if self.requests is None:
            self.requests = Requests(self)
        return self.requests

    def make_end_error(self) -> Exception:
        """Say that the session is ending, as those who wait are told."""
        if self.shutting_down:
            return trio.ClosedResourceError("the machine closed meanwhile")
        return SessionEnded(self.state.session.session_id)

    def _reroute(self, comms: CommsRuntime) -> None:
        if self.requests is not None:
            self.requests.reroute(comms)

    def _release_callers(self) -> None:
        """Wake those who wait for a response once the session is told to end: nothing lets one in any more."""
        if self.requests is not None and self.state.session.ending is not None:
            self.requests.fail_pending()

    def _bound_outbox(self) -> None:
        if self.requests is not None:
            self.requests.outbox.end(trio.current_time() + self.settings.grace)

    # --- the executor -------------------------------------------------------------------------------

    def _start_executor(self) -> None:
        if self.handler is None:
            raise RuntimeError("an executor was started without a handler")
        settings = self.settings
        self.executor = Executor(
            self,
            self.session,
            self.queue,
            self.handler,
            max_attempts=settings.max_attempts,
            backoff=settings.retry_backoff,
            random=settings.random,
            limiter=settings.limiter,
            until_durable=self.until_durable if self.is_recorded else None,
        )
        self._wake()

    def _stop_executor(self) -> None:
        if self.executor is not None:
            self.executor.stop(trio.current_time() + self.settings.grace, shield=self.shutting_down)

    def begin_run(self, message: Envelope) -> RunId:
        """Record that a run begins."""
        counts = self.counts
        counts.runs += 1
        run_id = str(counts.runs)
        if self.subscriptions or self.waiters.waiting or not self.authority.begin_run(run_id):
            self.apply(BeginRun(run_id, message.id))
        return run_id

    def consume(self, run_id: RunId) -> None:
        """Record that a run has handled its message, and take that off the queue."""
        self.counts.handled += 1
        message, _ = self.queue.pop()
        if message.kind is not _PLAIN or self.room_scope is not None:
            self._done_with(message)
        if self.record is not None:
            self.record.note_done(message)
        if self.subscriptions or self.waiters.waiting or not self.authority.finish_run(run_id):
            self.apply(RunFinished(run_id, _CONSUMED))

    def finish_run(self, run_id: RunId, outcome: RunOutcome, error: BaseException | None) -> None:
        """Record how else a run ended, and take its message off the queue if it is given up."""
        counts = self.counts
        if outcome is RunOutcome.ABANDONED:
            attempts = self.queue.attempt
            message, _ = self.queue.pop()
            _executor_logger.warning(
                "session %s: gave up message %s: %r",
                self.state.session.session_id,
                message.id,
                error,
            )
            hard = isinstance(error, RunInterrupted) and error.hard
            cause = AbandonCause.HARD_CANCELLED if hard else AbandonCause.ATTEMPTS_EXHAUSTED
            self._abandon(Abandoned(message=message, cause=cause, attempts=attempts, error=error))
            self._done_with(message, cause)
        elif outcome is RunOutcome.RETRY:
            counts.retried += 1
            if self.record is not None and self.queue.work:
                self.record.note_attempt(self.queue.work[0][0], self.queue.attempt - 1)
        else:
            counts.returned += 1
            if error is not None:
                session_id = self.state.session.session_id
                _executor_logger.error(
                    "session %s: a handler's tasks failed over its cancellation", session_id, exc_info=error
                )
        self.apply(RunFinished(run_id, outcome))

    def _done_with(self, message: Envelope, cause: AbandonCause | None = None) -> None:
        if message.kind is _REQUEST and self.requests is not None:
            self.requests.release(message, cause)
        # Half the queue is free before a shut lane opens again: a wake-up per message would cost more than it gives.
        if self.room_scope is not None and len(self.queue) <= self.queue.bound // 2:
            self._open_lane()

    def _open_lane(self) -> None:
        if self.room_scope is not None:
            self.room_scope.cancel()
            self.room_scope = None

    def _abandon(self, abandoned: Abandoned) -> None:
        kept = self.abandoned
        if kept is None:
            kept = self.abandoned = deque(maxlen=self.settings.abandoned_limit)
        if len(kept) == kept.maxlen:
            self.counts.abandoned_forgotten += 1
        self.counts.abandoned += 1
        kept.append(abandoned)
        if self.record is not None:
            self.record.note_abandoned(abandoned, self.settings.abandoned_limit)
