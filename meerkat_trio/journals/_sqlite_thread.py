"""The one thread that touches the file: it has it open, does one job after the other, and answers who waits.

Jobs come through a queue. It takes every append that waits, writes them in one transaction, and commits once for all,
so that nothing else of the run ever waits for the disk. Only `Worker` crosses between the run and the thread.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, final

import trio

from .._exceptions import JournalFailed
from ._sqlite_file import STEPS, opened_for_writing, telling_why
from ._sqlite_rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..abc import Change
    from ..authority import SessionId
    from ._sqlite_file import Durability

__all__ = ["Call", "Worker"]

_T = TypeVar("_T")

_GROUP: Final = 512
"""So many appends are committed together at most."""
_PATIENCE: Final = 0.002
"""Seconds for which the thread gets nothing done before it is given a turn."""
_TURN: Final = 0.001
"""Seconds of a turn."""
_NOBODY: Final[frozenset[SessionId]] = frozenset()


class _Job:
    """Something for the thread to do, and the task that waits for it."""

    __slots__ = ("failure", "task")

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.failure: Exception | None = None


@final
class _Append(_Job):
    __slots__ = ("changes",)

    def __init__(self, changes: Mapping[SessionId, Sequence[Change]]) -> None:
        super().__init__()
        self.changes = changes


@final
class Call(_Job, Generic[_T]):
    """Anything but an append. It can be given up: SQLite then stops in the middle, and nothing has changed."""

    __slots__ = ("given_up", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], _T]) -> None:
        super().__init__()
        self.work = work
        self.result: _T | None = None
        self.given_up: Callable[[], NoReturn] | None = None

    def is_given_up(self) -> bool:
        return self.given_up is not None

    def give_up(self, raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        self.given_up = raise_cancel
        return trio.lowlevel.Abort.FAILED


@final
class _Leave(_Job):
    __slots__ = ()


@final
class _Turns(trio.abc.Instrument):
    """Gives the thread a turn of the interpreter when a run that is never idle would starve it.

    Such a run lets go of the interpreter's lock for a microsecond each round, to look for I/O. That is too short for
    the thread to get it, and long enough for it never to demand it: its commit would take seconds.
    """

    __slots__ = ("_answered", "_patience", "_since", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._answered = 0
        self._patience = _PATIENCE
        self._since = 0.0

    def before_io_wait(self, timeout: float) -> None:
        worker = self._worker
        if timeout > 0 or worker.answered == worker.handed:
            return
        now = time.monotonic()
        if worker.answered != self._answered:
            self._answered = worker.answered
            self._patience = _PATIENCE
            self._since = now
        elif now - self._since > self._patience:
            time.sleep(_TURN)
            # It may be the disk that it waits for, which no turn helps.
            self._patience *= 2
            self._since = now + _TURN


class Worker:
    """The thread that has the file open, from `start` until `stop`."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.appends = 0
        self.commits = 0
        self.handed = 0
        self.answered = 0
        self.real = Path(os.path.realpath(path))
        """Where it is, also once the process is in another directory."""
        self._path = path
        self._durability = durability
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._turns = _Turns(self)

    # --- in the run ----------------------------------------------------------------------------------
    # Protected from KeyboardInterrupt: who is answered has to be waiting.

    @trio.lowlevel.enable_ki_protection
    async def start(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        entering = Call[None](lambda _: None)
        self._thread = threading.Thread(target=self._run, args=(entering,), name=f"journal {self._path}", daemon=False)
        self.handed += 1
        self._thread.start()
        trio.lowlevel.add_instrument(self._turns)
        try:
            await self._outcome(entering)
        except BaseException:
            self._end()
            raise

    @trio.lowlevel.enable_ki_protection
    async def stop(self) -> None:
        leaving = _Leave()
        self._hand(leaving)
        await trio.lowlevel.wait_task_rescheduled(_stay)
        self._end()
        if leaving.failure is not None:
            raise leaving.failure

    @trio.lowlevel.enable_ki_protection
    async def append(self, changes: Mapping[SessionId, Sequence[Change]]) -> frozenset[SessionId]:
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Append(changes)
        self._hand(job)
        await trio.lowlevel.wait_task_rescheduled(_stay)
        if job.failure is not None:
            raise job.failure
        return _NOBODY

    @trio.lowlevel.enable_ki_protection
    async def call(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        await trio.lowlevel.checkpoint_if_cancelled()
        job = Call(work)
        self._hand(job)
        return await self._outcome(job)

    async def _outcome(self, job: Call[_T]) -> _T:
        await trio.lowlevel.wait_task_rescheduled(job.give_up)
        if job.failure is not None:
            if job.given_up is not None:
                job.given_up()
            raise job.failure
        return job.result  # type: ignore[return-value] # without an error there is one

    def _hand(self, job: _Job) -> None:
        self.handed += 1
        self._jobs.put(job)

    def _end(self) -> None:
        trio.lowlevel.remove_instrument(self._turns)
        # It has nothing left to do but to return.
        self._thread.join()

    # --- in the thread -------------------------------------------------------------------------------

    def _run(self, entering: Call[None]) -> None:
        last: _Job = entering
        try:
            with opened_for_writing(self._path, self._durability, stop=entering.is_given_up) as connection:
                self._answer([entering])
                last = self._serve(connection)
        except Exception as error:  # noqa: BLE001 - it is raised in the task that waits
            last.failure = error
        self._answer([last])

    def _serve(self, connection: sqlite3.Connection) -> _Leave:
        rows = Rows(connection)
        while True:
            job: _Job | None = self._jobs.get()
            group: list[_Append] = []
            while isinstance(job, _Append):
                group.append(job)
                job = self._next() if len(group) < _GROUP else None
            if group:
                self._write_group(connection, rows, group)
                self._answer(group)
            if isinstance(job, Call):
                self._do(connection, job)
                self._answer([job])
            elif isinstance(job, _Leave):
                return job

    def _next(self) -> _Job | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            return None

    def _write_group(self, connection: sqlite3.Connection, rows: Rows, group: list[_Append]) -> None:
        error = self._write(connection, rows, group)
        if error is None:
            return
        if len(group) == 1 or _is_busy(error):
            for job in group:
                job.failure = self._told(error)
            return
        # What one has in it must not fail the others.
        for job in group:
            alone = self._write(connection, rows, [job])
            if alone is not None:
                job.failure = self._told(alone)

    def _write(self, connection: sqlite3.Connection, rows: Rows, group: Sequence[_Append]) -> Exception | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            rows.write(job.changes for job in group)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is raised in the tasks that wait
            rows.rolled_back()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error
        self.appends += len(group)
        self.commits += 1
        return None

    def _told(self, error: Exception) -> JournalFailed:
        name = getattr(error, "sqlite_errorname", None)
        told = JournalFailed(str(self._path), f"nothing was written: {error}{f' ({name})' if name else ''}")
        told.__cause__ = error
        return told

    def _do(self, connection: sqlite3.Connection, job: Call[Any]) -> None:
        connection.set_progress_handler(job.is_given_up, STEPS)
        try:
            with telling_why(self._path):
                job.result = job.work(connection)
        except Exception as error:  # noqa: BLE001 - it is raised in the task that waits
            job.failure = error
        finally:
            connection.set_progress_handler(None, 0)

    def _answer(self, jobs: Sequence[_Job]) -> None:
        self.answered += len(jobs)
        # A run that is over has nobody who waits.
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(_wake, jobs)


def _wake(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        trio.lowlevel.reschedule(job.task)


def _stay(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
