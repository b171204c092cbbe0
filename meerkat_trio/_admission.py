"""How an envelope gets into a session: the part of its tasks that decides, with the authority, on what is offered.

Deciding and taking in are one step. Where a journal is kept, the message is recorded before that step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import authority
from ._drain import Verdict
from .authority import (
    AdmissionClass,
    AdmissionTrust,
    Admit,
    Admitted,
    Dropped,
    DropReason,
    EnvelopeKind,
)

if TYPE_CHECKING:
    import trio

    from ._drain_task import DrainTask
    from ._executor import Executor, WorkQueue
    from ._messages import Envelope
    from ._parts import Counts, Line
    from ._requests import Requests
    from ._session_record import SessionRecord
    from ._subscription import StepStream
    from ._supervision import Supervision
    from ._waiters import Waiters
    from .abc import CommsRuntime
    from .authority import Authority, Effect, Input, PeerId, SessionState, Step

__all__ = ["Admission"]

# Looking a member up in its enumeration costs more than the branch it is for.
_ADMITTED: Final = Verdict.ADMITTED
_DISMISSED: Final = Verdict.DISMISSED
_MANUAL: Final = AdmissionTrust.MANUAL
_NONE: Final = AdmissionTrust.NONE
_DISMISSAL: Final = AdmissionClass.DISMISSAL
_COMMAND: Final = AdmissionClass.BRIDGE_COMMAND
_PLAIN: Final = EnvelopeKind.MESSAGE
_MESSAGE: Final = AdmissionClass.ACTIONABLE_MESSAGE
_REQUESTS: Final = frozenset({AdmissionClass.ACTIONABLE_REQUEST, AdmissionClass.SILENT_REQUEST})
_RESPONSES: Final = frozenset({AdmissionClass.RESPONSE_PROGRESS, AdmissionClass.RESPONSE_TERMINAL})
_RECORDED: Final = _REQUESTS | {_MESSAGE, _COMMAND, _DISMISSAL}
"""What outlives the process: an answer does not, for nobody waits for it then."""


class Admission:
    """The part of `SessionTasks` that lets envelopes in."""

    __slots__ = ()

    # The attributes of `SessionTasks`, which has the slots.
    authority: Authority
    counts: Counts
    drain: DrainTask
    executor: Executor | None
    line: Line
    queue: WorkQueue
    record: SessionRecord | None
    room_scope: trio.CancelScope | None
    subscriptions: list[StepStream]
    waiters: Waiters

    if TYPE_CHECKING:

        @property
        def state(self) -> SessionState: ...
        @property
        def arrival_comms(self) -> CommsRuntime | None: ...
        def apply(self, input_: Input) -> Step: ...
        def rehearse(self, *inputs: Input) -> tuple[Step, ...]: ...
        def made_requests(self) -> Requests: ...
        def made_supervision(self) -> Supervision: ...

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
        return None if state.session.ending is not None else self.made_supervision().screen(envelope)

    async def secure(self, envelope: Envelope, trust: AdmissionTrust | None = None) -> Verdict | DropReason | None:
        """Record an envelope that the authority would admit; None: go on with `offer_secured`.

        ADMITTED: it was admitted before, by this process or one before it. A reason: it is refused.

        Raises:
            SessionMoved: another process is the session's home now.

        **Cancellation:** it may be recorded; it is offered again, or withdrawn.
        """
        record = self.record
        if record is None:
            return None
        if record.knows(envelope.key):
            return _ADMITTED
        admission: AdmissionClass | DropReason | None = _MESSAGE
        if not record.is_asked(envelope.key):
            admission = self._foreseen(envelope, trust)
        if not isinstance(admission, AdmissionClass):
            return admission
        refused = await record.record(envelope, admission)
        return None if refused is None else self._dropped(Dropped(refused))

    def _foreseen(self, envelope: Envelope, trust: AdmissionTrust | None) -> AdmissionClass | DropReason | None:
        """Say as what an envelope that is to be recorded would be admitted, or why it is not looked at."""
        if trust is None:
            trust = self._trust_in(envelope.sender)
        unfit = self._screen(envelope, trust)
        if unfit is not None:
            return self._dropped(Dropped(unfit))
        try:
            effect = self.rehearse(_admit(envelope, trust))[0].effects[0]
        except authority.TransitionRejected:
            return None
        admission: AdmissionClass | None = effect.admission if isinstance(effect, Admitted) else None
        return admission if admission in _RECORDED else None

    def offer_secured(self, envelope: Envelope, trust: AdmissionTrust | None = None) -> Verdict | DropReason:
        """As `offer`, for an envelope that `secure` has let pass."""
        return self._decide(envelope, self._trust_in(envelope.sender) if trust is None else trust)

    async def withdraw(self, envelope: Envelope) -> None:
        """Forget an envelope that was recorded and is refused after all, before its sender is told.

        Raises:
            SessionMoved: another process is the session's home now.

        **Cancellation:** it is forgotten all the same.
        """
        record = self.record
        if record is not None and record.is_asked(envelope.key):
            record.withdraw(envelope.key)
            await record.until_durable()

    def _decide(self, envelope: Envelope, trust: AdmissionTrust) -> Verdict | DropReason:
        try:
            step = self.apply(_admit(envelope, trust))
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
            if self.record is not None:
                self.record.admit(envelope, admission)
            return _DISMISSED
        if admission is _COMMAND:
            if self.record is not None:
                self.record.admit(envelope, admission)
            self._hold(envelope)
            self.made_supervision().take(envelope)
        elif admission in _RESPONSES:
            self.made_requests().take(envelope)
        return _ADMITTED

    def _take_work(self, envelope: Envelope, admission: AdmissionClass) -> Verdict:
        if self.record is not None:
            self.record.admit(envelope, admission)
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


def _admit(envelope: Envelope, trust: AdmissionTrust) -> Admit:
    return Admit(envelope.kind, envelope.sender, trust, envelope.intent, envelope.correlation, envelope.status)
