"""A session: what an application holds and calls. The tasks behind it are in `_tasks`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, final

import trio

from . import authority
from ._correspondence import Correspondence
from ._exceptions import DeliveryRefused, JournalFailed, SessionEnded, SessionMoved
from ._executor import Run
from ._ingress import IngressCalls, require_text
from ._messages import LOCAL_PEER_ID, Envelope
from ._peers import TrustCalls
from ._reports import DrainSnapshot, SessionStatistics
from .authority import (
    AdmissionTrust,
    DropReason,
    EnvelopeKind,
    PeerId,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._reports import Abandoned, SessionEnd
    from ._tasks import SessionTasks
    from .authority import (
        PeerIngressOwner,
        SessionId,
        SessionPhase,
        SupervisorBinding,
    )

__all__ = ["Handler", "Session", "SessionRun", "require_callable", "require_text"]

T = TypeVar("T")


@final
class Session(Correspondence, IngressCalls, TrustCalls):
    """One agent session. Made by `MeerkatMachine.register`.

    Calls that change something commit at once, without a checkpoint: a cancelled caller leaves either the whole
    change or none of it. Calls that stop something join it, but when they are made from inside the session (its
    handler, or a task that the handler started) they return without joining: nothing waits for itself. A call that the
    handler makes in a thread and brings back with an explicit ``trio_token`` runs outside of the session: it does join.
    """

    __slots__ = ("_new_id",)

    def __init__(self, tasks: SessionTasks, new_id: Callable[[], str]) -> None:
        super().__init__(tasks)
        self._new_id = new_id

    # --- reads --------------------------------------------------------------------------------------

    @property
    def id(self) -> SessionId:
        """The session's id."""
        return self._tasks.state.session.session_id

    @property
    def phase(self) -> SessionPhase:
        """Where the session stands."""
        return self._tasks.state.session.phase

    @property
    def ingress_owner(self) -> PeerIngressOwner:
        """Who owns the peer ingress."""
        return self._tasks.state.ingress

    @property
    def supervisor(self) -> SupervisorBinding:
        """The supervisor in force."""
        return self._tasks.state.supervisor.binding

    @property
    def drain(self) -> DrainSnapshot:
        """The drain, as it is now."""
        region = self._tasks.state.drain
        return DrainSnapshot(
            phase=region.phase,
            mode=region.mode,
            generation=region.generation,
            last_exit=region.last_exit,
        )

    @property
    def peers(self) -> tuple[authority.PeerEndpoint, ...]:
        """The peers the session trusts, supervisors included."""
        return tuple(self._tasks.state.effective_peers.values())

    @property
    def abandoned(self) -> tuple[Abandoned, ...]:
        """Messages that were admitted and will not be handled, oldest first; bounded by ``abandoned_limit``."""
        return tuple(self._tasks.abandoned or ())

    @property
    def end(self) -> SessionEnd | None:
        """How the session ended; None until that is over: nothing of it runs any more, and its edges are removed."""
        return self._tasks.end if self._tasks.is_over else None

    def statistics(self) -> SessionStatistics:
        """Return a snapshot of the session's counters."""
        tasks = self._tasks
        counts = tasks.counts
        return SessionStatistics(
            phase=tasks.state.session.phase,
            queued=len(tasks.queue),
            admitted=counts.admitted,
            handled=counts.handled,
            retried=counts.retried,
            returned=counts.returned,
            abandoned=counts.abandoned,
            abandoned_forgotten=counts.abandoned_forgotten,
            dropped=dict(counts.dropped or {}),
            rebinds=counts.rebinds,
            respawns=counts.respawns,
            replies_waiting=0 if tasks.requests is None else len(tasks.requests.outbox),
            replies_given_up=0 if tasks.requests is None else tasks.requests.given_up,
        )

    def __repr__(self) -> str:
        return f"<Session {self.id!r} {self.phase.value}>"

    # --- executor -----------------------------------------------------------------------------------

    async def attach_executor(self, handler: Handler) -> None:
        """Call ``handler`` with every message from now on, one at a time (SPEC 6).

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: there is an executor already.

        **Cancellation:** cancelled, there is no executor; returned, it stands. It runs in the session's task, in the
        context of `MeerkatMachine.register`, not in the caller's, afresh for every attempt.
        """
        require_callable(handler)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_living()
        steps = self._tasks.rehearse(authority.AttachExecutor())
        self._tasks.handler = handler
        self._tasks.commit(steps)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def detach_executor(self) -> None:
        """Stop calling the handler, and wait until it is out; what is queued stays queued (SPEC 3).

        A handler that is running gets the grace time, is then cancelled, and its message returns to the head with the
        same attempt number.

        Raises:
            SessionEnded: the session has ended.

        **Cancellation:** the executor is told to stop in any case; only the waiting ends. Any number of tasks may call.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_not_ended()
        tasks = self._tasks
        tasks.apply(authority.DetachExecutor())
        await self._join(lambda: True if not tasks.state.session.executor_attached else None)

    async def set_silent_intents(self, intents: Iterable[str]) -> None:
        """Replace the intents whose requests are admitted as SILENT_REQUEST.

        Raises:
            SessionEnded: the session has ended.
            trio.ClosedResourceError: the machine closes, and what is changed now would not be recorded.
            TypeError: ``intents`` is one text, or not all of them are texts.

        **Cancellation:** cancelled, nothing has changed.
        """
        wanted = frozenset(intents)
        if isinstance(intents, str) or not all(isinstance(intent, str) for intent in wanted):
            raise TypeError(f"intents: several texts are needed, not {intents!r}")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_not_ended()
        self._require_record()
        self._tasks.apply(authority.SetSilentIntents(wanted))
        await trio.lowlevel.cancel_shielded_checkpoint()
        await self._until_durable()

    # --- messages -----------------------------------------------------------------------------------

    async def deliver(self, body: Any, *, sender: PeerId | None = None) -> None:
        """Queue a message without a transport, waiting while the work queue is full.

        Once it was full, what waits in the transport has its part first: then half of the queue has to be free.

        Args:
            body: what the handler finds in ``run.message.body``.
            sender: in whose name; by default this process's own.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: the session takes no new work in its phase.
            trio.WouldBlock: the queue is full and the caller is the session's own handler, which alone can empty it.
            trio.ClosedResourceError: the machine closed while this waited.
            DeliveryRefused: with a journal: it cannot be written (NOT_RECORDED), or cannot hold this body.

        **Cancellation:** cancelled, the message was not queued; returned, it was, and with a journal it outlives the
        process. Any number of tasks may deliver.
        """
        envelope = Envelope(
            id=self._new_id(),
            sender=LOCAL_PEER_ID if sender is None else sender,
            recipient=LOCAL_PEER_ID,
            body=body,
        )
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_admission(envelope)
        if tasks.is_recorded:
            await self._deliver_recorded(envelope)
        elif tasks.may_deliver():
            tasks.offer(envelope, AdmissionTrust.LOCAL)
        elif tasks.is_called_from_inside():
            self._require_room()
            tasks.offer(envelope, AdmissionTrust.LOCAL)
        else:
            await self._deliver_in_turn(envelope)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _deliver_in_turn(self, envelope: Envelope) -> None:
        tasks = self._tasks
        async with tasks.line.in_turn():
            await tasks.wait_for_room()
            self._require_admission(envelope, waiting=True)
            tasks.offer(envelope, AdmissionTrust.LOCAL)

    async def _deliver_recorded(self, envelope: Envelope) -> None:
        """Deliver what is on record first."""
        tasks = self._tasks
        try:
            if tasks.is_called_from_inside():
                self._require_room()
                await self._record(envelope)
                self._require_admission(envelope, waiting=True)
                self._require_room()
                tasks.offer_secured(envelope, AdmissionTrust.LOCAL)
            else:
                async with tasks.line.in_turn():
                    await tasks.wait_for_room()
                    await self._record(envelope)
                    # The drain may have taken the place meanwhile.
                    await tasks.wait_for_room()
                    self._require_admission(envelope, waiting=True)
                    tasks.offer_secured(envelope, AdmissionTrust.LOCAL)
        except Exception:
            # Until it is forgotten, a process after this one would handle it, whatever is said here.
            with suppress(JournalFailed, SessionMoved):
                await tasks.withdraw(envelope)  # noqa: ASYNC120 - cancelled, the caller is told nothing else
            raise
        finally:
            if tasks.record is not None:
                tasks.record.withdraw(envelope.key)

    def _require_room(self) -> None:
        if not self._tasks.has_room():
            raise trio.WouldBlock

    async def _record(self, envelope: Envelope) -> None:
        self._require_admission(envelope, waiting=True)
        refused = await self._tasks.secure(envelope, AdmissionTrust.LOCAL)
        if isinstance(refused, DropReason):
            raise DeliveryRefused(self.id, refused)

    # --- ends ---------------------------------------------------------------------------------------

    async def retire(self) -> int | None:
        """Take no new work, let the executor finish what is queued, and join it; the drain stays for control messages.

        Returns how many messages are still queued: none, unless there was no executor or it was detached meanwhile; the
        next executor finishes them. None when called from inside.

        A handler is waited for as long as it takes, without the grace time. Two handlers that retire each other's
        session therefore wait for ever; `trio.fail_after` bounds it, and `stop` and the machine's end cut it short.

        Raises:
            SessionEnded: the session is ending or has ended, or ended before the queue was empty.
            trio.ClosedResourceError: the machine closed before the queue was empty.

        **Cancellation:** the session is retired in any case; only the waiting ends.
        """
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_living()
        tasks.apply(authority.Retire())
        joined = await self._join(lambda: True if not tasks.state.session.executor_attached else None)
        if joined is None:
            return None
        self._require_living(waiting=True)
        await self._until_durable()
        return len(tasks.queue)

    async def stop(self, reason: str = "") -> SessionEnd | None:
        """End the session and join its drain and executor; `MeerkatMachine.register` can revive it (SPEC 4).

        A handler that is running gets the grace time. Returns how it ended; None when called from inside.

        Raises:
            SessionEnded: the session has ended.
            trio.ClosedResourceError: the machine closes, and with a journal only the process of the session ends.
            TypeError: ``reason`` is no text.

        **Cancellation:** the session is told to end in any case; only the waiting ends.
        """
        if not isinstance(reason, str):
            raise TypeError(f"reason: a text is needed, not {reason!r}")
        return await self._end(authority.Stop(reason))

    async def unregister(self) -> SessionEnd | None:
        """End the session, join it, and let the machine forget it; the id may be registered anew (SPEC 4).

        Raises:
            SessionEnded: the session has ended, unless it was stopped.
            trio.ClosedResourceError: as `stop`.

        **Cancellation:** as `stop`.
        """
        return await self._end(authority.Unregister())

    async def destroy(self) -> SessionEnd | None:
        """End the session for good, join it, and let the machine forget it (SPEC 4).

        Raises:
            SessionEnded: the session has ended, unless it was stopped.
            trio.ClosedResourceError: as `stop`.

        **Cancellation:** as `stop`.
        """
        return await self._end(authority.Destroy())

    async def leave(self) -> None:
        """End here, and not in the journal. For `MeerkatMachine.release`.

        **Cancellation:** it ends in any case; only the waiting ends.
        """
        tasks = self._tasks
        tasks.begin_leave()
        await tasks.waiters.wait(lambda: True if tasks.is_over else None)
        if tasks.record is not None:
            with suppress(SessionMoved):
                await tasks.record.until_durable()

    async def wait_ended(self) -> SessionEnd:
        """Wait until the session has ended, whoever ends it, and say how; at once if it has ended before.

        For those who did not end it themselves: a supervisor may, or a fault.

        **Cancellation:** nothing is lost; any number of tasks may wait. A handler that waits for its own session's end
        is cancelled after the grace time.
        """
        tasks = self._tasks
        return await tasks.waiters.wait(lambda: tasks.end if tasks.is_over else None)

    async def _end(self, input_: authority.Stop | authority.Unregister | authority.Destroy) -> SessionEnd | None:
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        if tasks.has_ended and (
            tasks.state.session.ended is not authority.Ending.STOP or isinstance(input_, authority.Stop)
        ):
            raise SessionEnded(self.id)
        self._require_record()
        tasks.apply(input_)
        ended = await self._join(lambda: tasks.end if tasks.is_over else None)
        if ended is not None:
            await self._until_durable()
        return ended

    # --- what the calls share -----------------------------------------------------------------------

    def _require_admission(self, envelope: Envelope, *, waiting: bool = False) -> None:
        self._require_living(waiting=waiting)
        if not self._tasks.state.takes_work:
            refused = authority.Admit(EnvelopeKind.MESSAGE, envelope.sender, AdmissionTrust.LOCAL)
            raise authority.TransitionRejected(self.phase, refused, "phase")


SessionRun: TypeAlias = "Run[Session]"
"""What a handler is called with: `Run` with its session."""

Handler: TypeAlias = "Callable[[Run[Session]], Awaitable[None]]"
"""An application's handler: an async function that takes a `SessionRun`."""


def require_callable(handler: object) -> None:
    plain = inspect.isfunction(handler) or inspect.ismethod(handler)
    if not callable(handler) or (plain and not inspect.iscoroutinefunction(handler)):
        raise TypeError(f"handler: an async function is needed, not {handler!r}")
