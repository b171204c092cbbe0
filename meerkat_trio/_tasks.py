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
from ._cancelled import is_being_cancelled, is_own_cancellation
from ._drain import Verdict
from ._drain_task import DrainTask
from ._exceptions import RunInterrupted, SessionEnded
from ._executor import Executor, WorkQueue
from ._parts import Counts, Line, SessionSettings
from ._reports import AbandonCause, Abandoned, SessionEnd
from ._requests import Requests
from ._supervision import Supervision
from ._trust_task import TrustTask
from ._waiters import Waiters
from .authority import (
    AdmissionClass,
    AdmissionTrust,
    Admit,
    Admitted,
    BeginRun,
    Dropped,
    DropReason,
    Ending,
    EnvelopeKind,
    RunFinished,
    RunOutcome,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._executor import Handler
    from ._messages import Envelope
    from ._parts import Binding
    from ._subscription import StepStream
    from .abc import CommsRuntime
    from .authority import Authority, Effect, Input, PeerId, RunId, Step

# Looking a member up in its enumeration costs more than the branch it is for.
_ADMITTED: Final = Verdict.ADMITTED
_DISMISSED: Final = Verdict.DISMISSED
_MANUAL: Final = AdmissionTrust.MANUAL
_NONE: Final = AdmissionTrust.NONE
_DISMISSAL: Final = AdmissionClass.DISMISSAL
_CONSUMED: Final = RunOutcome.CONSUMED
_REQUEST: Final = EnvelopeKind.REQUEST
_PLAIN: Final = EnvelopeKind.MESSAGE
_MESSAGE: Final = AdmissionClass.ACTIONABLE_MESSAGE

__all__ = ["SessionTasks"]

_logger: Final = logging.getLogger("meerkat_trio.session")
_executor_logger: Final = logging.getLogger("meerkat_trio.executor")

_REQUESTS: Final = frozenset({AdmissionClass.ACTIONABLE_REQUEST, AdmissionClass.SILENT_REQUEST})
_RESPONSES: Final = frozenset({AdmissionClass.RESPONSE_PROGRESS, AdmissionClass.RESPONSE_TERMINAL})


@final
class SessionTasks:
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
        "requests",
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
    ) -> None:
        self.authority: Authority = authority.Authority(state)
        self.settings: SessionSettings = settings
        self.session: Any = None
        self.queue: WorkQueue = WorkQueue(settings.work_queue)
        self.requests: Requests | None = None
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
        if step.effects or self.subscriptions or self.waiters.waiting:
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
            if step.effects or self.subscriptions or self.waiters.waiting:
                self._publish(step)

    def _publish(self, step: Step) -> None:
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
        self.drain.forget_restarts()
        self.queue.bound = settings.work_queue
        if self.abandoned is not None:
            self.counts.abandoned_forgotten += max(0, len(self.abandoned) - settings.abandoned_limit)
            self.abandoned = deque(self.abandoned, settings.abandoned_limit)

    def shut_down(self) -> None:
        """Tell the session to end because the machine closes, which then cancels all sessions at once."""
        self.shutting_down = True
        self._tell_to_end("the machine closes")
        # A handler that was told before, without a shield, keeps what is left of its time.
        self._stop_executor()
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
        if self.supervision is not None:
            self.supervision.end()
        if self.requests is not None:
            self.requests.end(tuple(message for message, _ in work), trio.current_time() + self.settings.grace)
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

    # --- admission ----------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Say whether another message may be offered: there is room, or it would be refused in any case."""
        queue = self.queue
        work = queue.work
        return work is None or len(work) < queue.bound or not self.authority.state.takes_work

    def offer(self, envelope: Envelope, trust: AdmissionTrust | None = None) -> Verdict | DropReason:
        """Let the authority decide on an envelope, and take it in if it is admitted."""
        if trust is None:
            trust = self._trust_in(envelope.sender)
        if self._admits_unseen(envelope, trust):
            return self._take_work(envelope, _MESSAGE)
        unfit = self._screen(envelope, trust)
        return self._decide(envelope, trust) if unfit is None else self._dropped(Dropped(unfit))

    def take(self, envelope: Envelope) -> bool:
        """Take a plain message in while the drain sleeps, if there is room: a wake-up less for each message."""
        queue = self.queue
        work = queue.work
        if work is not None and len(work) >= queue.bound:
            return False
        try:
            if not self._admits_unseen(envelope, self._trust_in(envelope.sender)):
                return False
        except Exception:  # noqa: BLE001 - our transport's failure is our drain's, which meets it next, not the sender's
            return False
        self._take_work(envelope, _MESSAGE)
        return True

    def _trust_in(self, sender: PeerId) -> AdmissionTrust:
        # What comes from a transport is judged by it, also when the session has just let go of it.
        binding = self.drain.binding
        return _MANUAL if binding is not None and binding.comms.is_manually_trusted(sender) else _NONE

    def _admits_unseen(self, envelope: Envelope, trust: AdmissionTrust) -> bool:
        """Say whether a message is admitted without a step that anybody would see."""
        return (
            envelope.kind is _PLAIN
            and not self.subscriptions
            and not self.waiters.waiting
            and self.authority.admits_message(envelope.sender, trust)
        )

    def _screen(self, envelope: Envelope, trust: AdmissionTrust) -> DropReason | None:
        """Say what is wrong with a stranger's command, of which there is no more than can be borne."""
        state = self.state
        if envelope.intent != authority.BRIDGE_INTENT or trust is not _NONE or state.trusts(envelope.sender):
            return None
        return None if state.session.ending is not None else self._made_supervision().screen(envelope)

    def _decide(self, envelope: Envelope, trust: AdmissionTrust) -> Verdict | DropReason:
        admit = Admit(envelope.kind, envelope.sender, trust, envelope.intent, envelope.correlation, envelope.status)
        try:
            step = self.apply(admit)
        except authority.TransitionRejected:
            if self.state.session.ending is not None:
                return Verdict.REFUSED
            # No row knows what to do with it: left at the head it would be in the way for ever.
            return self._dropped(Dropped(DropReason.MALFORMED))
        effect = step.effects[0]
        if effect.__class__ is not Admitted:
            return self._dropped(effect)
        admission = effect.admission
        if admission is _MESSAGE or admission in _REQUESTS:
            if admission is not _MESSAGE:
                self._hold(envelope)
            return self._take_work(envelope, admission)
        if admission is _DISMISSAL:
            return _DISMISSED
        if admission is AdmissionClass.BRIDGE_COMMAND:
            self._hold(envelope)
            self._made_supervision().take(envelope)
        elif admission in _RESPONSES:
            self.made_requests().take(envelope)
        return _ADMITTED

    def _made_supervision(self) -> Supervision:
        if self.supervision is None:
            self.supervision = Supervision(self)
        return self.supervision

    def _take_work(self, envelope: Envelope, admission: AdmissionClass) -> Verdict:
        self.counts.admitted += 1
        self.queue.append((envelope, admission))
        executor = self.executor
        if executor is not None and executor.parked is not None:
            executor.wake()
        return _ADMITTED

    def _hold(self, request: Envelope) -> None:
        comms = self.arrival_comms
        if comms is not None:
            self.made_requests().hold(request, comms)

    # --- the session's own entrance -----------------------------------------------------------------

    def may_deliver(self) -> bool:
        """Say whether a message may be delivered at once, without overtaking another that waits."""
        return not self.line and self._has_room_for_delivery()

    async def wait_for_room(self) -> None:
        """Wait until the first of the line may deliver, or the session takes no work any more.

        **Cancellation:** nothing is lost.
        """
        # The drain may take the place between the wake-up and the moment in which this task runs.
        while self.state.takes_work and not self._has_room_for_delivery():
            await self.waiters.wait(self._has_opened if self.queue.has_room() else self._has_freed)

    def _has_room_for_delivery(self) -> bool:
        """Say whether there is room that nothing in the transport waits for as well.

        While something there waits before a shut lane, neither gets in before half of the queue is free; else a steady
        flow of deliveries would take every place as it becomes free, and the lane would stay shut.
        """
        if not self.queue.has_room():
            return False
        binding = self.drain.binding
        return self.room_scope is None or binding is None or not binding.comms.statistics().work_waiting

    def _has_opened(self) -> bool | None:
        return True if self.room_scope is None or not self.state.takes_work else None

    def _has_freed(self) -> bool | None:
        return True if self.queue.has_room() or not self.state.takes_work else None

    def _dropped(self, effect: Effect) -> DropReason:
        if not isinstance(effect, Dropped):
            raise TypeError(f"an admission has one answer, not {effect!r}")
        dropped = self.counts.dropped = self.counts.dropped or {}
        dropped[effect.reason] = dropped.get(effect.reason, 0) + 1
        return effect.reason

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
