"""A session's bridge: carries out the commands of supervisors and answers them (SPEC 7).

It decides nothing: `_bridge` does. What a command changes is applied in the step in which it is admitted; what its
answer waits for is watched for at every later step, in no task's stack frame. So whatever is cancelled, a command is
finished or was never begun, and its answer goes out once. Made for a session with its first command: one without a
supervisor does without.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import trio

from . import authority
from ._bridge import (
    COMMANDS,
    PROTOCOL_VERSION,
    Acceptance,
    AuthorizeNextSupervisor,
    BindMember,
    BridgeCommand,
    DeliverMemberInput,
    DestroyMember,
    HardCancelMember,
    InterruptMember,
    ObserveMember,
    Rejection,
    RetireMember,
    RevokeOwnSupervision,
    Situation,
    UnwireMember,
    WireMember,
    decide,
    parse_command,
)
from ._drain import Verdict
from ._exceptions import RejectionCause, RunInterrupted
from ._messages import Envelope, TrustSource
from ._rate import RateLimit
from ._trust_task import is_final
from .authority import Bound, DropReason, ObligationKind, ResponseStatus
from .comms._exceptions import WireRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ._executor import Executor, WorkQueue
    from ._outbox import Reply
    from ._parts import SessionSettings
    from ._reconcile import Edge
    from ._requests import Requests
    from ._session_record import SessionRecord
    from ._trust_task import TrustTask
    from ._waiters import Waiters, Watch
    from .abc import CommsRuntime
    from .authority import Input, PeerAddress, SessionState, Step

__all__ = ["INPUTS_REMEMBERED", "OPEN_COMMANDS", "STRANGERS_LIMIT", "Supervision", "SupervisionHost"]

_logger: Final = logging.getLogger("meerkat_trio.bridge")

INPUTS_REMEMBERED: Final = 1024
"""Delivered inputs of which the supervisor and the id are remembered, at the most; the oldest are forgotten first."""
OPEN_COMMANDS: Final = 256
"""Commands that wait for the trust store at once, at the most; further ones are rejected, and nothing is done."""
STRANGERS_LIMIT: Final = 4096
"""Bytes that a command of a stranger may have, written as JSON, its correlation included."""
_STRANGERS_BURST: Final = 8
_STRANGERS_RATE: Final = 1.0
_ALL_STRANGERS_BURST: Final = 64
_ALL_STRANGERS_RATE: Final = 8.0

_WAITING: Final = (BindMember, AuthorizeNextSupervisor, WireMember, UnwireMember)
"""The commands whose answer waits for the trust store."""

_COMPLETED, _FAILED = ResponseStatus.COMPLETED, ResponseStatus.FAILED
_Answer: TypeAlias = "dict[str, Any] | Rejection"
"""The body of a COMPLETED response, or a rejection."""


class SupervisionHost(Protocol):
    """Whom the bridge belongs to."""

    settings: SessionSettings
    waiters: Waiters
    bound_comms: CommsRuntime | None
    trust_task: TrustTask | None
    executor: Executor | None
    queue: WorkQueue
    record: SessionRecord | None

    @property
    def state(self) -> SessionState:
        """The session's current state."""

    @property
    def arrival_comms(self) -> CommsRuntime | None:
        """What brings envelopes: also where the session has just let go of it."""

    def apply(self, input_: Input) -> Step:
        """Apply what is asked or was observed."""

    def rehearse(self, *inputs: Input) -> tuple[Step, ...]:
        """Apply inputs one upon the other without committing."""

    def commit(self, steps: tuple[Step, ...]) -> None:
        """Commit rehearsed steps and realise them in order."""

    def has_room(self) -> bool:
        """Say whether another message may be offered."""

    def offer(self, envelope: Envelope) -> Verdict | DropReason:
        """Let the authority decide on an envelope, and take it in if it is admitted."""

    def reconcile_trust(self) -> None:
        """Bring the trust store to the newest desired set."""

    def made_requests(self) -> Requests:
        """Return the session's requests."""

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives no longer than the session."""

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours."""


@final
class Supervision:
    """What one session does at its supervisors' command."""

    __slots__ = ("_due", "_host", "_inputs", "_is_answering", "_is_destroying", "_open", "_strangers")

    def __init__(self, host: SupervisionHost) -> None:
        self._host = host
        # Commands whose answer waits for something, by the identity of their envelope.
        self._open: dict[int, tuple[Envelope, Callable[[], _Answer | None], Watch]] = {}
        self._due: deque[tuple[Envelope, _Answer]] = deque()
        self._is_answering = False
        self._is_destroying = False
        self._inputs: OrderedDict[str, None] = OrderedDict()
        self._strangers: RateLimit | None = None

    @property
    def open_commands(self) -> int:
        """How many commands wait for their answer."""
        return len(self._open) + len(self._due)

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return self._is_answering + self._is_destroying

    # --- strangers ----------------------------------------------------------------------------------

    def screen(self, command: Envelope) -> DropReason | None:
        """Say why a stranger's command is not even looked at, if it is not."""
        now = trio.current_time()
        if self._strangers is None:
            self._strangers = RateLimit(
                burst=_STRANGERS_BURST,
                rate=_STRANGERS_RATE,
                burst_of_all=_ALL_STRANGERS_BURST,
                rate_of_all=_ALL_STRANGERS_RATE,
                now=now,
            )
        if not self._strangers.admits(command.sender, now):
            return DropReason.RATE_LIMITED
        return _measured((command.correlation, command.body))

    # --- commands -----------------------------------------------------------------------------------

    def take(self, message: Envelope) -> None:
        """Carry out a command that was admitted, or reject it; its answer follows now or later."""
        decision = self._decide(message)
        if isinstance(decision, Rejection):
            _logger.info("session %s: rejected a command: %s", self._session_id, decision.cause.value)
            self._answer(message, decision)
            return
        if len(self._open) >= OPEN_COMMANDS and isinstance(decision.command, _WAITING):
            detail = "too many commands wait for the trust store"
            self._answer(message, Rejection(cause=RejectionCause.INTERNAL, detail=detail))
            return
        try:
            if decision.inputs:
                self._host.commit(self._host.rehearse(*decision.inputs))
        except authority.TransitionRejected as rejected:
            # The checks know the guards; what they do not know is a phase that a command has no check for.
            in_phase = rejected.guard not in {"phase", "not_ending"}
            cause = RejectionCause.INTERNAL if in_phase else RejectionCause.NOT_IN_PHASE
            self._answer(message, Rejection(cause=cause))
            return
        self._realise(message, decision)

    def take_up(self, message: Envelope) -> None:
        """Answer a command that a process before this one has carried out: what has changed since then stands."""
        command = parse_command(message.body)
        if not isinstance(command, _WAITING):
            raise TypeError(f"a command whose answer waits for nothing: {command!r}")
        self._realise(message, Acceptance(command=command))

    def _decide(self, message: Envelope) -> Acceptance | Rejection:
        try:
            command = parse_command(message.body)
            if isinstance(command, Rejection):
                return command
            situation = Situation(
                state=self._host.state,
                sender=message.sender,
                peer_id=message.recipient,
                address=self._address(),
            )
            return decide(command, situation)
        except Exception as error:  # noqa: BLE001 - what a body raises is no fault of ours
            # In one process a body may be any object, which may raise anything.
            _logger.warning("session %s: a command could not be read: %r", self._session_id, error)
            return Rejection(cause=RejectionCause.INTERNAL)

    def _address(self) -> PeerAddress | None:
        """Return where the session is reached, as far as it knows."""
        local, comms = self._host.state.peers.local_endpoint, self._host.arrival_comms
        if local is not None:
            return local.address
        return None if comms is None else comms.advertised_address

    def _realise(self, message: Envelope, accepted: Acceptance) -> None:
        command, already = accepted.command, accepted.already
        match command:
            case BindMember() | AuthorizeNextSupervisor():
                self._answer_when_published(message, command, already=already)
            case WireMember() | UnwireMember():
                self._answer_when_shown(message, command, already=already)
            case RevokeOwnSupervision():
                self._answer(message, {"already": already})
            case DeliverMemberInput():
                self._answer(message, self._deliver(message, command))
            case ObserveMember():
                self._answer(message, self._observation())
            case InterruptMember() | HardCancelMember():
                self._answer(message, {"run": self._interrupt(command)})
            case RetireMember():
                self._answer(message, {"queued": len(self._host.queue)})
            case DestroyMember():
                self._destroy(message)
            case _:
                raise TypeError(f"a command that nobody carries out: {command!r}")

    # --- inputs and runs ----------------------------------------------------------------------------

    def _deliver(self, message: Envelope, command: DeliverMemberInput) -> dict[str, Any]:
        key = f"{message.sender}{command.input_id}"
        if key in self._inputs:
            return {"result": "deduplicated"}
        if not self._host.has_room():
            return _refused(DropReason.INBOX_FULL)
        try:
            verdict = self._host.offer(
                Envelope(id=command.input_id, sender=message.sender, recipient=message.recipient, body=command.content)
            )
        except WireRefused as refused:
            # Its id is a longer one than a message can have that is kept.
            return _refused(refused.reason)
        if isinstance(verdict, DropReason):
            return _refused(verdict)
        self._inputs[key] = None
        forgotten = self._inputs.popitem(last=False)[0] if len(self._inputs) > INPUTS_REMEMBERED else None
        if self._host.record is not None:
            self._host.record.note_input(key, forgotten)
        return {"result": "accepted"}

    def _interrupt(self, command: InterruptMember | HardCancelMember) -> str | None:
        executor, run_id = self._host.executor, self._host.state.session.run_id
        interruption = RunInterrupted(command.reason, hard=isinstance(command, HardCancelMember))
        if executor is None or run_id is None or not executor.interrupt(interruption):
            return None
        return run_id

    def _observation(self) -> dict[str, Any]:
        state = self._host.state
        comms = self._host.arrival_comms
        waiting = None if comms is None else comms.statistics()
        return {
            "phase": state.session.phase.value,
            "run": state.session.run_id,
            "drain": {
                "phase": state.drain.phase.value,
                "mode": None if state.drain.mode is None else state.drain.mode.value,
                "generation": state.drain.generation,
            },
            "queued": len(self._host.queue),
            "work_waiting": 0 if waiting is None else waiting.work_waiting,
            "control_waiting": 0 if waiting is None else waiting.control_waiting,
        }

    def _destroy(self, message: Envelope) -> None:
        # Done is it with the session's end: another process would go on with it.
        reply = self._answer(message, {"queued": len(self._host.queue)}, is_done=False)
        if self._is_destroying:
            return
        if reply is None or reply.is_over:
            self._host.apply(authority.Destroy())
        else:
            self._is_destroying = True
            self._host.start_child(self._destroy_after, reply)

    async def _destroy_after(self, reply: Reply) -> None:
        """Destroy the session when the reply is out, or has failed for good, or after the grace time."""
        host = self._host
        try:
            with trio.move_on_after(host.settings.grace):
                await host.waiters.wait(lambda: True if reply.is_over or host.state.session.ending else None)
        finally:
            self._is_destroying = False
            host.apply(authority.Destroy())

    # --- what the trust store has to show -----------------------------------------------------------

    def _answer_when_published(
        self, message: Envelope, command: BindMember | AuthorizeNextSupervisor, *, already: bool
    ) -> None:
        host = self._host
        bound = host.state.supervisor.binding
        made = command.supervisor if isinstance(command, BindMember) else command.next
        if not isinstance(bound, Bound) or (bound.peer_id, bound.epoch) != (made.peer_id, command.epoch):
            # A process before this one had made it.
            self._answer(message, self._unpublished())
            return
        obligation = (ObligationKind.PUBLISH, bound.peer_id, bound.epoch)
        edge = (bound.peer_id, TrustSource.SUPERVISOR)
        # With nothing owed, the edge was there; whether it still is, another pass will tell.
        shown = self._make_sight() if obligation not in host.state.supervisor.obligations else None

        def answer() -> _Answer | None:
            region = host.state.supervisor
            if region.binding != bound or self._is_ending:
                return self._unpublished()
            if shown is None:
                return None if obligation in region.obligations else self._about_us(message, command, already=already)
            stands = shown(edge)
            if stands is None:
                return None
            return self._about_us(message, command, already=already) if stands else self._unpublished()

        self._watch(message, answer)

    def _unpublished(self) -> Rejection:
        return Rejection(cause=RejectionCause.PUBLISH_FAILED, epoch_floor=self._host.state.supervisor.epoch_floor)

    def _about_us(self, message: Envelope, command: BridgeCommand, *, already: bool) -> dict[str, Any]:
        if not isinstance(command, BindMember):
            return {"already": already}
        # A retry may claim to expect anything: what is said here is ours.
        address = self._address()
        return {
            "already": already,
            "peer_id": str(message.recipient),
            "address": None if address is None else str(address),
            "capabilities": sorted(COMMANDS),
            "protocol_version": PROTOCOL_VERSION,
        }

    def _answer_when_shown(self, message: Envelope, command: WireMember | UnwireMember, *, already: bool) -> None:
        shown = self._make_sight()
        edge = (command.peer.peer_id, TrustSource.DIRECT)

        def answer() -> _Answer | None:
            if self._is_ending:
                return Rejection(cause=RejectionCause.NOT_IN_PHASE)
            stands = shown(edge)
            if stands is None:
                return None
            return {"already": already} if stands else Rejection(cause=RejectionCause.PUBLISH_FAILED)

        self._watch(message, answer)

    def _make_sight(self) -> Callable[[Edge], bool | None]:
        """Ask for a pass over the trust store; return what says whether an edge is as it should be, once that is known.

        What the store refuses for good, or has refused often enough, nobody waits for; it is tried again all the same.
        """
        host = self._host
        host.reconcile_trust()
        task = host.trust_task
        request = 0 if task is None else task.request_number

        def shown(edge: Edge) -> bool | None:
            now = host.trust_task
            # Another task began with a pass over what is bound now, and so with one after this.
            if now is None or (now is task and not task.has_seen_to(request)):
                return None
            last = now.last
            if last is None or last.store is not host.bound_comms:
                return None
            failure = last.failures.get(None) or last.failures.get(edge)
            if failure is None:
                return True
            return False if is_final(failure, failure.attempts) else None

        return shown

    # --- answers ------------------------------------------------------------------------------------

    def _watch(self, message: Envelope, answer: Callable[[], _Answer | None]) -> None:
        """Answer as soon as there is one, at whatever step that is."""

        def take(found: _Answer) -> None:
            del self._open[id(message)]
            self._due.append((message, found))
            if not self._is_answering:
                self._is_answering = True
                self._host.start_child(self._answer_due)

        found = answer()
        if found is not None:
            self._answer(message, found)
            return
        self._open[id(message)] = message, answer, self._host.waiters.watch(answer, take)
        if self._host.record is not None:
            # Another process would decide anew, in another situation.
            self._host.record.note_attempt(message, 1)

    async def _answer_due(self) -> None:
        """Answer what can be answered.

        A task of its own, without a checkpoint: in the step that made the answer, its own effects come first.
        """
        try:
            self._settle_due()
        except Exception as fault:  # noqa: BLE001 - a fault of ours, which is this session's alone
            self._host.contain(fault)
        finally:
            self._is_answering = False

    def _settle_due(self) -> None:
        while self._due:
            self._answer(*self._due.popleft())

    def _answer(self, message: Envelope, answer: _Answer, *, is_done: bool = True) -> Reply | None:
        requests = self._host.made_requests()
        if isinstance(answer, Rejection):
            reply = requests.settle(message, _FAILED, answer.body())
        else:
            reply = requests.settle(message, _COMPLETED, answer)
        if is_done and self._host.record is not None:
            self._host.record.note_done(message)
        return reply

    def resume(self, inputs: Iterable[str]) -> None:
        """Know the inputs that were delivered to a process before this one."""
        self._inputs.update(dict.fromkeys(inputs))

    def end(self, *, goes_on: bool) -> None:
        """Answer what waits: the session has ended, and nothing of it will come any more.

        With ``goes_on`` only its process ends, and another one will answer.
        """
        for message, answer, watch in self._open.values():
            self._host.waiters.forget(watch)
            if not goes_on:
                self._due.append((message, answer() or Rejection(cause=RejectionCause.NOT_IN_PHASE)))
        self._open.clear()
        self._settle_due()

    @property
    def _is_ending(self) -> bool:
        """Whether the session ends, and not only its process."""
        record = self._host.record
        return self._host.state.session.ending is not None and not (record is not None and record.is_sealed)

    @property
    def _session_id(self) -> str:
        return self._host.state.session.session_id


def _refused(reason: DropReason) -> dict[str, Any]:
    return {"result": "rejected", "reason": reason.value}


def _measured(said: object) -> DropReason | None:
    """Say what is wrong with what a stranger says: too large, or nothing that could have come over a wire."""
    size = 0
    try:
        for piece in json.JSONEncoder(check_circular=True).iterencode(said):
            size += len(piece.encode("utf-8", "surrogatepass"))
            if size > STRANGERS_LIMIT:
                return DropReason.OVERSIZE
    except Exception:  # noqa: BLE001 - in one process a body may be any object, which may raise anything
        return DropReason.MALFORMED
    return None
