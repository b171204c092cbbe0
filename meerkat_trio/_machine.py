"""The machine: hosts sessions in one nursery tree, and takes them down together.

The tree lives in a task of its own whose scope is shielded: a cancellation around `open_machine` reaches the body
first, and the sessions are told in order when the body is left. What is shielded then has the grace time, no more.
"""

from __future__ import annotations

import logging
import random as _random
import secrets
import uuid
from collections.abc import Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Final, final

import trio

from . import authority
from ._exceptions import JournalRefused, SessionExists, SessionNotRegistered
from ._parts import SessionSettings
from ._policy import Backoff, RespawnPolicy, as_float
from ._reports import MachineStatistics
from ._session import Session, require_callable, require_text
from ._subscription import StepStream
from ._tasks import SessionTasks
from .abc import Journal
from .authority import Counters, DropReason, Ending, SessionState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._drain_task import DrainTask
    from ._entries import Memory
    from ._journal_writer import JournalWriter
    from ._policy import Random
    from ._session import Handler
    from ._session_record import SessionRecord
    from .abc import Entry
    from .authority import DrainExit, SessionId

__all__ = ["MeerkatMachine", "open_machine"]

_logger: Final = logging.getLogger("meerkat_trio.machine")

_RETRY_BACKOFF: Final = Backoff()


@final
class MeerkatMachine:
    """Hosts sessions. Made by `open_machine`.

    Indexing by session id gives the session; iterating gives the sessions in the order of their registration.
    """

    __slots__ = (
        "_closed",
        "_executors",
        "_floors",
        "_grace",
        "_journal",
        "_limiter",
        "_new_id",
        "_new_token",
        "_random",
        "_respawn",
        "_root",
        "_root_scope",
        "_serving",
        "_sessions",
        "_settings",
        "_strict",
        "_subscriptions",
        "_writer",
    )

    def __init__(
        self,
        *,
        respawn: RespawnPolicy,
        grace: float,
        strict: bool,
        limiter: trio.CapacityLimiter | None,
        new_id: Callable[[], str],
        new_token: Callable[[], str],
        random: Random,
        journal: Journal | None,
        executors: Callable[[SessionId], Handler | None],
    ) -> None:
        self._journal = journal
        self._executors = executors
        self._writer: JournalWriter | None = None
        if journal is not None:
            # The forms of its entries need a library that is an extra.
            writer = import_module("._journal_writer", __package__)
            self._writer = writer.JournalWriter(journal, on_moved=self.disown, random=random)
        self._respawn = respawn
        self._grace = grace
        self._strict = strict
        self._limiter = limiter
        self._new_id = new_id
        self._new_token = new_token
        self._random = random
        self._sessions: dict[SessionId, SessionTasks] = {}
        # Never forgotten: an id that comes back must not be able to lower a counter (SPEC 2).
        self._floors: dict[SessionId, Counters] = {}
        self._serving: dict[int, DrainTask] = {}
        self._subscriptions: list[StepStream] = []
        self._settings: SessionSettings | None = None
        self._root: trio.Nursery | None = None
        self._root_scope = trio.CancelScope(shield=True)
        self._closed = False

    @property
    def grace(self) -> float:
        """Seconds that running handlers get when their session ends."""
        return self._grace

    # --- sessions -----------------------------------------------------------------------------------

    async def register(
        self,
        session_id: SessionId,
        executor: Handler | None = None,
        *,
        work_queue: int = 64,
        max_attempts: int = 5,
        abandoned_limit: int = 1000,
        retry_backoff: Backoff = _RETRY_BACKOFF,
        outbox: int = 64,
    ) -> Session:
        """Register a session, or revive one that was stopped (SPEC 4).

        Args:
            session_id: not blank.
            executor: called with every message; can be attached later. It runs in the caller's context as it is now;
                what it sets there (`contextvars`) the next message does not see.
            work_queue: messages admitted and not handled, at the most; 1 or more.
            max_attempts: attempts per message before it is abandoned; 1 or more.
            abandoned_limit: abandoned messages kept, the oldest are forgotten first; 1 or more.
            retry_backoff: the wait between the attempts for one message.
            outbox: replies that wait for one peer, at the most; 1 or more.

        Raises:
            SessionExists: the id is registered and was not stopped; or another machine goes on with it, and it is here
                until it is released.
            trio.ClosedResourceError: the machine is closed.
            TypeError, ValueError: an argument is of no use.

        **Cancellation:** cancelled, nothing was registered; returned, the session is there. With a journal, one that is
        cancelled while that is being written has registered it.
        """
        require_text("session_id", session_id)
        if self._journal is not None and not _is_unicode(session_id):
            # Nothing could be written any more, of any session.
            raise ValueError(f"session_id: no journal can keep {session_id!r}")
        if executor is not None:
            require_callable(executor)
        for name, bound in (
            ("work_queue", work_queue),
            ("max_attempts", max_attempts),
            ("abandoned_limit", abandoned_limit),
            ("outbox", outbox),
        ):
            if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
                raise ValueError(f"{name}: 1 or more is needed, not {bound!r}")
        if not isinstance(retry_backoff, Backoff):
            raise TypeError(f"retry_backoff: a Backoff is needed, not {retry_backoff!r}")
        await trio.lowlevel.checkpoint_if_cancelled()
        root = self._root
        if self._closed or root is None:
            raise trio.ClosedResourceError("the machine is closed")
        settings = self._make_settings(
            work_queue=work_queue,
            max_attempts=max_attempts,
            abandoned_limit=abandoned_limit,
            retry_backoff=retry_backoff,
            outbox=outbox,
        )
        tasks = self._enter(root, session_id, settings, executor)
        await trio.lowlevel.cancel_shielded_checkpoint()
        if tasks.record is not None:
            await tasks.record.until_durable()
        session: Session = tasks.session
        return session

    def _make_settings(
        self, *, work_queue: int, max_attempts: int, abandoned_limit: int, retry_backoff: Backoff, outbox: int
    ) -> SessionSettings:
        settings = SessionSettings(
            work_queue=work_queue,
            max_attempts=max_attempts,
            abandoned_limit=abandoned_limit,
            retry_backoff=retry_backoff,
            respawn=self._respawn,
            grace=self._grace,
            limiter=self._limiter,
            outbox=outbox,
            random=self._random,
            new_id=self._new_id,
            new_token=self._new_token,
            strict=self._strict,
        )
        if settings == self._settings:
            # Sessions that are run alike share what says so: thousands of them may idle.
            return self._settings
        self._settings = settings
        return settings

    def _enter(
        self, root: trio.Nursery, session_id: SessionId, settings: SessionSettings, executor: Handler | None
    ) -> SessionTasks:
        tasks = self._sessions.get(session_id)
        if tasks is None:
            tasks = self._make_tasks(session_id, settings)
            if tasks.record is not None:
                tasks.record.set_options(settings)
        elif not tasks.is_over or tasks.state.session.ended is not Ending.STOP or tasks.is_leaving:
            raise SessionExists(session_id)
        else:
            tasks.resettle(settings)
        tasks.apply(authority.Register(session_id, self._floors.get(session_id, Counters())))
        self._sessions[session_id] = tasks
        tasks.start(root)
        if executor is not None:
            tasks.handler = executor
            tasks.apply(authority.AttachExecutor())
        return tasks

    def _make_tasks(self, session_id: SessionId, settings: SessionSettings) -> SessionTasks:
        record: SessionRecord | None = None
        if self._writer is not None:
            record = import_module("._session_record", __package__).SessionRecord(session_id, self._writer)
        tasks = SessionTasks(
            SessionState.initial(session_id),
            settings,
            serving=self._serving,
            subscriptions=self._subscriptions,
            on_over=self._forget_ended,
            on_fatal=self.begin_close,
            record=record,
        )
        tasks.session = Session(tasks, self._new_id)
        return tasks

    def _forget_ended(self, tasks: SessionTasks) -> None:
        state = tasks.state
        session_id = state.session.session_id
        self._floors[session_id] = state.counters
        if state.session.ended is not Ending.STOP and self._sessions.get(session_id) is tasks:
            del self._sessions[session_id]

    def __getitem__(self, session_id: SessionId) -> Session:
        try:
            session: Session = self._sessions[session_id].session
        except KeyError:
            raise SessionNotRegistered(session_id) from None
        return session

    def sessions(self) -> tuple[Session, ...]:
        """Return the registered sessions, stopped ones included."""
        return tuple(tasks.session for tasks in self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self.sessions())

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._sessions

    async def stop_drains(self) -> Mapping[SessionId, DrainExit | None]:
        """Stop every session's drain: all are told first, then all are joined (SPEC 4).

        Called from inside a session, that session's drain is told and not joined.

        **Cancellation:** every drain is told to stop in any case; only the waiting ends.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        told = [
            (tasks, tasks.session.begin_stop_drain())
            for tasks in tuple(self._sessions.values())
            if tasks.state.session.ended is None
        ]
        exits: dict[SessionId, DrainExit | None] = {}
        for tasks, generation in told:
            session: Session = tasks.session
            exits[session.id] = None if generation is None else await session.join_drain(generation)
        await trio.lowlevel.checkpoint()
        return exits

    # --- the journal --------------------------------------------------------------------------------

    async def restore_all(self) -> None:
        """Go on with every session that the journal remembers. For `open_machine`.

        Raises:
            JournalRefused: it is damaged; no session was restored.
            JournalFailed: it cannot be read.

        **Cancellation:** no session was restored.
        """
        if self._journal is None:
            await trio.lowlevel.checkpoint()
            return
        memories = self._read(await self._journal.restore())
        for memory in memories:
            self._resume(memory)

    async def restore(self, session_id: SessionId) -> Session | None:
        """Go on with a session that the journal remembers and this machine has not; None if it remembers none.

        For journals that several machines share: a journal of one machine is restored when that is opened.

        Raises:
            SessionExists: the session is here.
            JournalRefused: what is remembered is damaged.
            JournalFailed: it cannot be read.
            trio.ClosedResourceError: the machine is closed, or has no journal.
            TypeError, ValueError: an argument is of no use.

        **Cancellation:** cancelled, nothing was restored; returned, the session is there.
        """
        require_text("session_id", session_id)
        if self._journal is None:
            raise trio.ClosedResourceError("this machine has no journal")
        await trio.lowlevel.checkpoint_if_cancelled()
        if session_id in self._sessions:
            raise SessionExists(session_id)
        memories = self._read(await self._journal.restore(session_id))
        if self._closed or self._root is None:
            raise trio.ClosedResourceError("the machine is closed")
        if session_id in self._sessions:
            raise SessionExists(session_id)
        for memory in memories:
            self._resume(memory)
        tasks = self._sessions.get(session_id)
        found: Session | None = None if tasks is None else tasks.session
        return found

    async def release(self, session_id: SessionId) -> None:
        """Let a session go, so that another machine can go on with it: here it ends, in the journal it does not.

        Its drain is stopped and joined; a handler that is running gets the grace time, and its message is unfinished
        if that does not suffice. Returns when everything is written and the session is gone from here. One that has
        moved away already, or was stopped, is only forgotten.

        Raises:
            SessionNotRegistered: it is not here.
            trio.ClosedResourceError: the machine has no journal.
            JournalFailed: the machine closed, and not everything was written.

        **Cancellation:** the session ends here in any case, and stays among `sessions` until it is released again.
        """
        if self._journal is None:
            raise trio.ClosedResourceError("this machine has no journal")
        await trio.lowlevel.checkpoint_if_cancelled()
        session = self[session_id]
        await session.leave()
        if session_id in self._sessions and self._sessions[session_id].session is session:
            del self._sessions[session_id]

    def disown(self, session_id: SessionId) -> None:
        """Stop a session whose home is elsewhere now: nothing more of it is recorded, answered or admitted here.

        `release` then removes it. One that is not here is none of this machine's.
        """
        tasks = self._sessions.get(session_id)
        if tasks is not None:
            tasks.move_away()

    def _read(self, found: Mapping[SessionId, Sequence[Entry]]) -> list[Memory]:
        decode = import_module("._entries", __package__).decode_memory
        memories = []
        for session_id, entries in found.items():
            try:
                memory: Memory = decode(session_id, entries)
                authority.apply(SessionState.initial(session_id), authority.Restore(memory.remembered))
            except (ValueError, authority.InvariantViolated) as error:
                raise JournalRefused(repr(self._journal), f"session {session_id!r}: {error}") from None
            memories.append(memory)
        return memories

    def _resume(self, memory: Memory) -> None:
        remembered, options = memory.remembered, memory.options
        session_id = remembered.session_id
        self._floors[session_id] = remembered.counters
        if memory.is_forgotten:
            return
        settings = self._make_settings(
            work_queue=options.work_queue,
            max_attempts=options.max_attempts,
            abandoned_limit=options.abandoned_limit,
            retry_backoff=options.retry_backoff,
            outbox=options.outbox,
        )
        tasks = self._sessions[session_id] = self._make_tasks(session_id, settings)
        if memory.requests:
            correlations = ", ".join(correlation for correlation, _, _ in memory.requests)
            _logger.warning("session %s: nobody waits any more for the answers to %s", session_id, correlations)
        tasks.resume(memory)
        if tasks.state.session.ended is None and self._root is not None:
            tasks.start(self._root)
        tasks.resume_replies(memory.replies)
        if tasks.is_over:
            return
        handler = self._executors(session_id)
        if handler is not None:
            require_callable(handler)
            tasks.handler = handler
            tasks.apply(authority.AttachExecutor())

    def start_writing(self, nursery: trio.Nursery) -> None:
        """Start the task that writes the journal, if there is one. For `open_machine`.

        It is shielded until the sessions are over, and then for at most the grace time.
        """
        if self._writer is not None:
            nursery.start_soon(self._writer.run)

    # --- watching -----------------------------------------------------------------------------------

    def subscribe(self, buffer: int = 1024) -> AbstractAsyncContextManager[StepStream]:
        """Watch every step of every session, while the block lasts.

        Args:
            buffer: steps a slow reader may fall behind before it misses some; 1 or more.

        Raises:
            ValueError: ``buffer`` is less than 1.
        """
        if not isinstance(buffer, int) or buffer < 1:
            raise ValueError(f"buffer: 1 or more is needed, not {buffer!r}")
        return self._subscribed(buffer)

    @asynccontextmanager
    async def _subscribed(self, buffer: int) -> AsyncGenerator[StepStream, None]:
        stream = StepStream(buffer)
        if self._root is None:
            stream.close()
        self._subscriptions.append(stream)
        try:
            yield stream
        finally:
            self._subscriptions.remove(stream)
            stream.close()

    def statistics(self) -> MachineStatistics:
        """Return a snapshot of the counters of all registered sessions."""
        all_tasks = self._sessions.values()
        dropped: dict[DropReason, int] = {}
        for tasks in all_tasks:
            for reason, count in (tasks.counts.dropped or {}).items():
                dropped[reason] = dropped.get(reason, 0) + count
        return MachineStatistics(
            sessions=len(self._sessions),
            live_drains=sum(tasks.state.drain.live for tasks in all_tasks),
            queued=sum(len(tasks.queue) for tasks in all_tasks),
            handled=sum(tasks.counts.handled for tasks in all_tasks),
            abandoned=sum(tasks.counts.abandoned for tasks in all_tasks),
            dropped=dropped,
        )

    def __repr__(self) -> str:
        return f"<MeerkatMachine {'closed' if self._closed else 'open'}, {len(self._sessions)} sessions>"

    # --- the tree -----------------------------------------------------------------------------------

    async def run_tree(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the task under which all sessions live, until `begin_close`. For `open_machine`.

        **Cancellation:** shielded; ended by `begin_close` alone, or by a session that fails for good.
        """
        try:
            with self._root_scope:
                async with trio.open_nursery() as self._root:
                    task_status.started()
                    try:
                        await trio.sleep_forever()
                    finally:
                        # The nursery closes now: from here on no session may be started in it.
                        self._closed = True
        finally:
            self._root = None
            if self._writer is not None:
                self._writer.close(trio.current_time() + self._grace)
            for stream in self._subscriptions:
                stream.close()

    def begin_close(self) -> None:
        """Tell every session to end, then cancel all of them at once.

        For `open_machine`, and for a session that takes the machine down.
        """
        try:
            self._tell_all()
        finally:
            # Whatever goes wrong above, a tree that nobody cancels would stay for ever.
            self._root_scope.cancel()

    def _tell_all(self) -> None:
        self._closed = True
        _logger.debug("the machine closes: %d sessions", len(self._sessions))
        for tasks in tuple(self._sessions.values()):
            tasks.shut_down()


@asynccontextmanager
async def open_machine(
    *,
    respawn: RespawnPolicy | None = None,
    grace: float = 5.0,
    strict: bool = False,
    limiter: trio.CapacityLimiter | None = None,
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    new_token: Callable[[], str] = secrets.token_urlsafe,
    random: Random = _random.random,
    journal: Journal | None = None,
    executors: Mapping[SessionId, Handler] | Callable[[SessionId], Handler | None] | None = None,
) -> AsyncGenerator[MeerkatMachine, None]:
    """Open a machine for the length of an ``async with`` block (SPEC 4).

    Leaving the block, normally or not, ends every session: all are told at once, the handlers that are running get the
    grace time, drains get none, everything is joined. A single exception of the body leaves as it is, in no group.

    Args:
        respawn: when failed drains are started again.
        grace: seconds that running handlers get when their session ends; 0 or more.
        strict: raise a fault inside a session instead of stopping that session alone.
        limiter: bounds the handlers that run at once, over all sessions.
        new_id: makes the ids that are minted here.
        new_token: makes bootstrap tokens; each must be new and cannot be guessed.
        random: numbers in [0, 1) for the jitter of waits.
        journal: what sessions remember over the end of the process; entered and left by the machine. Every session that
            it remembers is there when the block begins, and goes on. Without one everything is in memory.
        executors: the handlers of sessions that the journal remembers, by session id, or a function that is called with
            the id; one without a handler waits for `Session.attach_executor`.

    Raises:
        ValueError: ``grace`` is not a number from 0 up.
        JournalRefused: the journal is damaged, of another program or version, or in use; it was left as it is.
        JournalFailed: the journal cannot be made or read.
        TypeError: another argument is of no use.

    **Cancellation:** a cancellation around the block reaches its body; the sessions are then ended as above. Nothing is
    left behind: no task, no open claim.
    """
    if not _is_grace(grace):
        raise ValueError(f"grace: seconds, 0 or more, are needed, not {grace!r}")
    if not isinstance(respawn, RespawnPolicy | None):
        raise TypeError(f"respawn: a RespawnPolicy is needed, not {respawn!r}")
    if not isinstance(limiter, trio.CapacityLimiter | None):
        raise TypeError(f"limiter: a trio.CapacityLimiter is needed, not {limiter!r}")
    for name, function in (("new_id", new_id), ("new_token", new_token), ("random", random)):
        if not callable(function):
            raise TypeError(f"{name}: a function is needed, not {function!r}")
    if not isinstance(journal, Journal | None):
        raise TypeError(f"journal: a Journal is needed, not {journal!r}")
    executors = _as_function(executors)
    machine = MeerkatMachine(
        respawn=respawn or RespawnPolicy(),
        grace=as_float(grace),
        strict=strict,
        limiter=limiter,
        new_id=new_id,
        new_token=new_token,
        random=random,
        journal=journal,
        executors=executors,
    )
    async with _entered(journal), _running(machine):
        yield machine


@asynccontextmanager
async def _entered(journal: Journal | None) -> AsyncGenerator[None, None]:
    if journal is None:
        yield
        return
    await journal.__aenter__()
    try:
        yield
    finally:
        # What it was given is written; it lets go however the block was left, and bounds that itself.
        await journal.__aexit__(None, None, None)  # noqa: ASYNC102


@asynccontextmanager
async def _running(machine: MeerkatMachine) -> AsyncGenerator[None, None]:
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            machine.start_writing(nursery)
            # Cancelled in `start`, the tree would stay in the nursery that `start` keeps to itself, shielded for ever.
            with trio.CancelScope(shield=True):
                await nursery.start(machine.run_tree)
            try:
                await machine.restore_all()
                yield
            except BaseException as error:  # noqa: BLE001, ASYNC103 - raised below, outside the nursery, which would wrap it
                failure = error
            finally:
                machine.begin_close()
    except BaseExceptionGroup as group:
        if isinstance(failure, BaseExceptionGroup):
            # What the failing tree has cancelled in the body ends here.
            failure = failure.split(trio.Cancelled)[1]
        if failure is None or isinstance(failure, trio.Cancelled):
            raise _bare(group) from None
        raise BaseExceptionGroup("the body and a session failed", [failure, group]) from None
    if failure is not None:
        raise failure


def _as_function(
    executors: Mapping[SessionId, Handler] | Callable[[SessionId], Handler | None] | None,
) -> Callable[[SessionId], Handler | None]:
    if executors is None:
        return lambda _: None
    if isinstance(executors, Mapping):
        for handler in executors.values():
            require_callable(handler)
        return executors.get
    if not callable(executors):
        raise TypeError(f"executors: handlers by session id, or a function, are needed, not {executors!r}")
    return executors


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_grace(seconds: object) -> bool:
    try:
        return isinstance(seconds, int | float) and as_float(seconds) >= 0
    except ValueError:
        return False


def _bare(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
