"""What one session has its machine's journal remember: which change of the session becomes which entries.

Everything here is put without waiting, in the step in which it happens; `SessionRecord.until_durable` waits for all of
it, and whoever is about to do what can be seen from outside waits there first. A message is recorded before it is
admitted, so that what is admitted is durable.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, final

from . import authority
from ._entries import (
    ABANDONED,
    ANSWERED,
    ATTEMPTS,
    DONE,
    INPUT,
    MESSAGE,
    PEERS,
    REPLY,
    REQUEST,
    SESSION,
    SUPERVISOR,
    SessionOptions,
    encode_abandoned,
    encode_attempts,
    encode_message,
    encode_peers,
    encode_reply,
    encode_request,
    encode_session,
    encode_supervisor,
)
from ._exceptions import SessionMoved
from ._messages import LOCAL_PEER_ID
from ._reports import AbandonCause, Abandoned
from .abc import Delete, Entry, Forget
from .authority import Ending
from .comms._exceptions import WireRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

    import trio

    from ._entries import Memory
    from ._journal_writer import Admission, JournalWriter
    from ._messages import Envelope
    from ._parts import SessionSettings
    from .abc import Change
    from .authority import AdmissionClass, DropReason, RequestsRegion, SessionId, SessionState, Step

__all__ = ["REMEMBERED_IDS", "SessionRecord"]

REMEMBERED_IDS: Final = 1024
"""Messages that are done with and still known by sender and id, at the most; the oldest are forgotten first."""


@final
class SessionRecord:
    """The entries of one session."""

    __slots__ = (
        "_abandoned",
        "_annotated",
        "_asked",
        "_done",
        "_is_forgotten",
        "_keys",
        "_last",
        "_position",
        "_session_id",
        "_unfinished",
        "_writer",
        "is_moved",
        "is_sealed",
        "options",
    )

    is_moved: bool
    """Whether another process is the session's home now."""
    is_sealed: bool
    """Whether the process ends, and the session does not."""

    def __init__(self, session_id: SessionId, writer: JournalWriter) -> None:
        self._session_id = session_id
        self._writer = writer
        self._position = 1
        self._last: trio.Event | None = None
        # By key: what is recorded and not admitted yet, and whether `deliver` has it, not a drain.
        self._asked: dict[str, tuple[Admission, bytes, bool]] = {}
        # By the identity of the envelope: under which key, and as which bytes, a message is recorded.
        self._unfinished: dict[int, tuple[str, bytes]] = {}
        self._keys: set[str] = set()
        self._done: OrderedDict[str, None] = OrderedDict()
        # Keys of messages of which more is recorded than the message.
        self._annotated: set[str] = set()
        self._abandoned: deque[int] = deque()
        self._is_forgotten = False
        self.is_sealed = False
        self.is_moved = False
        self.options: SessionOptions | None = None

    def set_options(self, settings: SessionSettings) -> None:
        """Take what the session is registered with; `note_step` records it with the registration."""
        self.options = SessionOptions(
            work_queue=settings.work_queue,
            max_attempts=settings.max_attempts,
            abandoned_limit=settings.abandoned_limit,
            outbox=settings.outbox,
            retry_backoff=settings.retry_backoff,
        )

    def resume(self, memory: Memory) -> None:
        """Go on where a process before this one has ended."""
        self.options = memory.options
        self._position = memory.next_position
        for message in memory.messages:
            self._unfinished[id(message.envelope)] = message.key, encode_message(message.envelope, message.admission)
            self._keys.add(message.key)
            if message.attempts or message.answered:
                self._annotated.add(message.key)
        self._done.update(dict.fromkeys(memory.done))
        self._abandoned.extend(position for position, _ in memory.abandoned)

    # --- waiting ------------------------------------------------------------------------------------

    async def until_durable(self) -> None:
        """Wait until everything that was put is written; without a checkpoint if it is.

        Raises:
            JournalFailed: the machine has closed, and it was not written.
            SessionMoved: another process is the session's home now.

        **Cancellation:** it will be written all the same.
        """
        while self._last is not None and not self._last.is_set():
            await self._writer.until(self._last)
        if self.is_moved:
            raise SessionMoved(self._session_id)

    async def until_sure(self) -> None:
        """As `until_durable`, and this process is known to be the session's home: it may have stood still.

        Raises:
            JournalFailed: the machine has closed, and it was not written.
            SessionMoved: another process is the session's home now.

        **Cancellation:** it will be written all the same.
        """
        await self.until_durable()
        if self._writer.is_doubtful(self._session_id):
            self._last = self._writer.find_out(self._session_id)
            await self.until_durable()

    def seal(self) -> None:
        """Record no more changes of the session itself: its process ends, and the session does not."""
        self.is_sealed = True

    def _put(self, kind: str, key: str, value: bytes, position: int | None = None) -> None:
        if position is None:
            position = self._next_position()
        self._write(Entry(kind, key, position, value))

    def _delete(self, kind: str, key: str) -> None:
        self._write(Delete(kind, key))

    def _write(self, change: Change) -> None:
        if not self.is_moved:
            self._last = self._writer.put(self._session_id, change)

    def _next_position(self) -> int:
        self._position += 1
        return self._position - 1

    # --- steps --------------------------------------------------------------------------------------

    def note_step(self, step: Step) -> None:
        """Record what a step has changed and is to be remembered."""
        before, after = step.before, step.after
        if after is before or self.is_sealed:
            return
        ended = after.session.ended
        if isinstance(step.input, authority.Restore) and (
            ended is None or (ended is Ending.STOP and step.input.remembered.is_bare)
        ):
            # It is on record. One whose end was cut short ends in this very step, which is not.
            return
        has_gone = ended not in {before.session.ended, None, Ending.STOP}
        if has_gone:
            # Nothing is left of it but its counters, which are written anew, whether this step has changed them or not.
            self._write(Forget())
            self._unfinished.clear()
            self._is_forgotten = True
        if has_gone or _is_another(before, after) or isinstance(step.input, authority.Register):
            self._note_session(after)
        if has_gone or after.supervisor is not before.supervisor:
            self._put(SUPERVISOR, "", encode_supervisor(after.supervisor), 0)
        if has_gone or after.peers is not before.peers:
            self._put(PEERS, "", encode_peers(after.peers), 0)
        if after.requests.outbound is not before.requests.outbound:
            self._note_requests(before.requests, after.requests)

    def _note_session(self, state: SessionState) -> None:
        if self.options is not None:
            self._put(SESSION, "", encode_session(state, self.options), 0)

    def _note_requests(self, before: RequestsRegion, after: RequestsRegion) -> None:
        for correlation in before.outbound.keys() - after.outbound.keys():
            self._delete(REQUEST, correlation)
        for correlation, open_request in after.outbound.items():
            if before.outbound.get(correlation) != open_request:
                self._put(REQUEST, correlation, encode_request(*open_request))

    def forget_requests(self, correlations: Iterable[str]) -> None:
        """Record that nobody waits for these answers any more."""
        for correlation in correlations:
            self._delete(REQUEST, correlation)

    # --- messages -----------------------------------------------------------------------------------

    def knows(self, key: str) -> bool:
        """Say whether a message was admitted before."""
        return key in self._keys or key in self._done

    def is_asked(self, key: str) -> bool:
        """Say whether a message is recorded, or about to be, and not admitted."""
        return key in self._asked

    async def record(self, envelope: Envelope, admission: AdmissionClass) -> DropReason | None:
        """Record a message that is about to be admitted, or say why that cannot be.

        Raises:
            SessionMoved: another process is the session's home now.

        **Cancellation:** it may be recorded; `admit` it, or `withdraw` it.
        """
        if self.is_moved:
            raise SessionMoved(self._session_id)
        asked = self._asked.get(envelope.key)
        if asked is None:
            try:
                value = encode_message(envelope, admission)
            except WireRefused as refused:
                return refused.reason
            entry = Entry(MESSAGE, envelope.key, self._next_position(), value)
            is_local = envelope.recipient == LOCAL_PEER_ID
            asked = self._asked[envelope.key] = self._writer.ask(self._session_id, entry), value, is_local
        await asked[0].wait()
        if self.is_moved:
            raise SessionMoved(self._session_id)
        if asked[0].is_written:
            return None
        self._asked.pop(envelope.key, None)
        return authority.DropReason.NOT_RECORDED

    def withdraw(self, key: str) -> None:
        """Forget a message that was recorded and is not admitted."""
        if self._asked.pop(key, None) is not None:
            self._delete(MESSAGE, key)

    def withdraw_claimed(self) -> None:
        """Forget what a drain had recorded and not admitted: it has ended, and admits nothing any more."""
        for key, (_, _, is_local) in tuple(self._asked.items()):
            if not is_local:
                self.withdraw(key)

    def admit(self, envelope: Envelope, admission: AdmissionClass) -> None:
        """Note that a message is admitted; one that was not recorded before is now, and waits for nobody."""
        asked = self._asked.pop(envelope.key, None)
        if asked is not None:
            key, value = envelope.key, asked[1]
        else:
            # Its sender may have used this id for a message too.
            key, value = f"{envelope.key} {self._position}", encode_message(envelope, admission)
            self._put(MESSAGE, key, value)
        self._unfinished[id(envelope)] = key, value
        self._keys.add(key)

    def note_attempt(self, envelope: Envelope, failed: int) -> None:
        """Record how often a message has failed."""
        known = self._unfinished.get(id(envelope))
        if known is not None:
            self._annotated.add(known[0])
            self._put(ATTEMPTS, known[0], encode_attempts(failed), 0)

    def note_done(self, envelope: Envelope) -> None:
        """Record that a message is done with."""
        self._note_done(id(envelope))

    def _note_done(self, identity: int) -> None:
        known = self._unfinished.pop(identity, None)
        if known is None:
            return
        key = known[0]
        self._delete(MESSAGE, key)
        if key in self._annotated:
            self._annotated.remove(key)
            self._delete(ATTEMPTS, key)
            self._delete(ANSWERED, key)
        self._keys.discard(key)
        self._done[key] = None
        self._put(DONE, key, b"")
        if len(self._done) > REMEMBERED_IDS:
            self._delete(DONE, self._done.popitem(last=False)[0])

    def note_abandoned(self, abandoned: Abandoned, limit: int) -> None:
        """Record that a message is given up; of more than ``limit`` the oldest are forgotten."""
        known = self._unfinished.get(id(abandoned.message))
        if known is None or (self.is_sealed and abandoned.cause is AbandonCause.SESSION_ENDED):
            return
        position = self._next_position()
        self._put(ABANDONED, str(position), encode_abandoned(known[1], abandoned), position)
        self._abandoned.append(position)
        self.trim_abandoned(limit)
        self.note_done(abandoned.message)

    def trim_abandoned(self, limit: int) -> None:
        """Forget the oldest of more than ``limit`` messages that were given up."""
        while len(self._abandoned) > limit:
            self._delete(ABANDONED, str(self._abandoned.popleft()))

    def note_ended(self) -> None:
        """Record that nothing of the session is unfinished any more, unless only its process ends.

        What was not admitted is forgotten in any case.
        """
        # Nobody is about to admit these any more; the writer may be gone before whoever waits can say so.
        for key in tuple(self._asked):
            self.withdraw(key)
        if not self.is_sealed:
            for identity in tuple(self._unfinished):
                self._note_done(identity)

    # --- requests and inputs ------------------------------------------------------------------------

    def note_answer(self, request: Envelope, reply: Envelope) -> None:
        """Record the last word on a request, which is on its way from now on.

        Raises:
            ValueError: its body cannot be kept.
        """
        try:
            value = encode_reply(reply)
        except WireRefused as refused:
            raise ValueError(f"result: cannot be recorded: {refused}") from None
        if self._is_forgotten:
            return
        self._put(REPLY, reply.id, value)
        known = self._unfinished.get(id(request))
        if known is not None:
            self._annotated.add(known[0])
            self._put(ANSWERED, known[0], b"", 0)

    def note_reply_over(self, reply: Envelope, *, is_out: bool) -> None:
        """Record that a reply is out or given up; at the end of the process, what is not out is kept."""
        if is_out or not self.is_sealed:
            self._delete(REPLY, reply.id)

    def note_input(self, key: str, forgotten: str | None) -> None:
        """Record that an input was delivered, and which one is forgotten for it."""
        self._put(INPUT, key, b"")
        if forgotten is not None:
            self._delete(INPUT, forgotten)


def _is_another(before: SessionState, after: SessionState) -> bool:
    was, now = before.session, after.session
    retired = authority.SessionPhase.RETIRED
    return (
        was.ending is not now.ending
        or was.ended is not now.ended
        or was.silent_intents is not now.silent_intents
        or (was.phase is retired) is not (now.phase is retired)
        or before.drain.generation != after.drain.generation
    )
