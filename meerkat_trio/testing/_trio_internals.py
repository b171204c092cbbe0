"""The one file that touches private names of Trio: what the kit needs of its inside to control and read a run.

Every private name in use stands in `_NEEDED`; `require_internals` says which of them a Trio version lacks. Decides
nothing: it runs, looks, orders a batch, and puts back what it replaced.
"""

from __future__ import annotations

import contextvars
import ctypes
import importlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = [
    "Batcher",
    "Hooks",
    "OutsideWorld",
    "UnsupportedTrioError",
    "cancellation_of",
    "controlled_schedule",
    "count_of_tasks",
    "is_cancelled",
    "is_closed_channel",
    "is_over",
    "is_parked",
    "is_reached",
    "keep_alive_for_ever",
    "patched",
    "pending_callbacks",
    "put_back",
    "require_internals",
    "run_isolated",
    "scopes_of",
    "scopes_with_deadlines",
    "suspended_generators",
    "waits_for_idle",
    "without_threads",
]

_RUN: Final[Any] = importlib.import_module("trio._core._run")
_ENTRY_QUEUE: Final[Any] = importlib.import_module("trio._core._entry_queue")
_THREADS: Final[Any] = importlib.import_module("trio._threads")
_KI: Final[Any] = importlib.import_module("trio._core._ki")
_SCHEDULE: Final = ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r")
_NEEDED: Final[tuple[tuple[Any, tuple[str, ...]], ...]] = (
    (_RUN, (*_SCHEDULE, "GLOBAL_RUN_CONTEXT", "unrolled_run", "Runner", "CancelStatus", "NurseryManager")),
    (_RUN.Runner, ("waiting_for_idle", "runq", "deadlines", "asyncgens", "entry_queue", "task_exited", "init")),
    (_RUN.Task, ("_cancel_status", "_next_send", "_next_send_fn")),
    (_RUN.CancelStatus, ("_scope", "_parent")),
    (_RUN.CancelScope, ("_cancel_status", "_has_been_entered", "_registered_deadline", "_close", "_cancel_called")),
    (_RUN.Deadlines, ("_heap",)),
    (_ENTRY_QUEUE, ("EntryQueue",)),
    (_THREADS, ("start_thread_soon",)),
    (_KI, ("KIManager",)),
    (trio.MemorySendChannel, ("_closed",)),
)


class UnsupportedTrioError(RuntimeError):
    """This version of Trio lacks the names through which a run is controlled."""


def require_internals(needed: Iterable[tuple[Any, Iterable[str]]] = _NEEDED) -> None:
    """Refuse a Trio whose inside is not the known one.

    Raises:
        UnsupportedTrioError: naming what is missing.
    """
    for holder, names in needed:
        known = getattr(holder, "__annotations__", ())
        missing = [name for name in names if not hasattr(holder, name) and name not in known]
        if missing:
            place = getattr(holder, "__qualname__", holder.__name__)
            raise UnsupportedTrioError(
                f"Trio {trio.__version__} does not let its runs be controlled: {place} lacks {', '.join(missing)};"
                " use a release of Trio or of this package that knows the other"
            )


# --- a run without the outside world ---------------------------------------------------------------


class OutsideWorldError(RuntimeError):
    """A scenario reached for real I/O, which can be neither ordered nor repeated."""


@final
class OutsideWorld:
    """Stands in for Trio's I/O and its wake-up socket: nothing ever comes from outside, and reaching out is noted."""

    def __init__(self) -> None:
        self.touched: str | None = None
        """What the run used of the outside world, in words; None if nothing."""
        self._thread = threading.get_ident()

    # What Trio asks of its I/O manager.

    def statistics(self) -> object:
        return self

    def close(self) -> None:
        pass

    def force_wakeup(self) -> None:
        pass

    def get_events(self, timeout: float) -> tuple[()]:  # noqa: ARG002
        return ()

    def process_events(self, events: object) -> None:  # noqa: ARG002
        queue: Any = _RUN.GLOBAL_RUN_CONTEXT.runner.entry_queue
        while queue.size():
            jobs = [*queue.queue, *queue.idempotent_queue]
            queue.queue.clear()
            queue.idempotent_queue.clear()
            for function, args in jobs:
                function(*args)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        async def refuse(*_: object) -> None:  # noqa: ASYNC124 - Trio awaits it
            raise self.refused(f"real I/O ({name})")

        return refuse if name.startswith("wait_") else lambda *_: refuse().send(None)

    def refused(self, what: str) -> OutsideWorldError:
        self.touched = self.touched or what
        return OutsideWorldError(f"an explored scenario must not use {what}: replace it by a fake")

    # What its entry queue asks of a wake-up socket.

    def wakeup_thread_and_signal_safe(self) -> None:
        if threading.get_ident() != self._thread:
            self.touched = self.touched or "threads"


class _Runner(_RUN.Runner):  # type: ignore[misc]
    """Trio's runner without the task that waits for callbacks from outside: a third of what a short run costs."""

    async def init(self, async_fn: Callable[[], Awaitable[object]], args: tuple[()]) -> None:
        async with trio.open_nursery() as self.system_nursery:
            async with trio.open_nursery() as main_nursery:
                self.main_task = self.spawn_impl(async_fn, args, main_nursery, None)
            self.system_nursery.cancel_scope.cancel(reason="the main task has ended")
        asyncgens = self.asyncgens
        while alive := {*asyncgens.alive, *asyncgens.trailing_needs_finalize}:
            asyncgens.trailing_needs_finalize.clear()
            for agen in sorted(alive, key=lambda agen: agen.__qualname__):
                asyncgens.alive.discard(agen)
                await asyncgens._finalize_one(agen, agen.__qualname__)


@final
class Hooks(dict[str, Callable[..., None]]):
    """Stands in for Trio's collection of instruments: one function for each hook that is wanted, which never raises."""

    def call(self, name: str, *args: object) -> None:
        self[name](*args)

    def add_instrument(self, instrument: object) -> None:
        raise RuntimeError(f"an explored scenario must not add instruments of its own: {instrument!r}")


def run_isolated(
    async_fn: Callable[[], Awaitable[object]],
    *,
    clock: trio.abc.Clock,
    hooks: Hooks,
    world: OutsideWorld,
) -> None:
    """As `trio.run`, without sockets, signal handlers and epoll: twice as fast, and nothing can come from outside.

    Raises:
        trio.TrioInternalError: Trio's run loop broke.
    """
    runner = _Runner(
        clock=clock,
        instruments=hooks,
        io_manager=world,
        system_context=contextvars.copy_context(),
        ki_manager=_KI.KIManager(),
        strict_exception_groups=True,
        entry_queue=_ENTRY_QUEUE.EntryQueue(wakeup=world),
    )
    runner.asyncgens.install_hooks(runner)
    _RUN.GLOBAL_RUN_CONTEXT.runner = runner
    loop = _RUN.unrolled_run(runner, async_fn, (), host_uses_signal_set_wakeup_fd=True)
    send = loop.send
    try:
        send(None)
        while True:
            send(())
    except StopIteration:
        runner.main_task_outcome.unwrap()


@contextmanager
def without_threads() -> Iterator[None]:
    """Refuse to start Trio's worker threads, for the length of the block, in a run without the outside world."""
    real = _THREADS.start_thread_soon

    def start_thread_soon(*args: Any, **kwargs: Any) -> None:
        world = _RUN.GLOBAL_RUN_CONTEXT.runner.io_manager
        if isinstance(world, OutsideWorld):
            raise world.refused("threads")
        real(*args, **kwargs)

    _THREADS.start_thread_soon = start_thread_soon
    try:
        yield
    finally:
        _THREADS.start_thread_soon = real


# --- the schedule ----------------------------------------------------------------------------------


class Batcher(Protocol):
    """What stands in for Trio's random generator."""

    def shuffle(self, batch: list[Task]) -> None:
        """Order a batch that comes by age; Trio takes tasks from its end."""

    def random(self) -> float:
        """Return a number in [0, 1)."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between both."""


@contextmanager
def controlled_schedule() -> Iterator[Callable[[Batcher], None]]:
    """Let batchers order what Trio runs next, for the length of the block; yields a function that sets the next one."""
    before = _RUN._ALLOW_DETERMINISTIC_SCHEDULING, _RUN._r
    _RUN._ALLOW_DETERMINISTIC_SCHEDULING = True

    def order_by(batcher: Batcher) -> None:
        _RUN._r = batcher

    try:
        yield order_by
    finally:
        _RUN._ALLOW_DETERMINISTIC_SCHEDULING, _RUN._r = before


def put_back(tasks: Sequence[Task]) -> None:
    """Leave tasks that were about to run for the next batch."""
    _RUN.GLOBAL_RUN_CONTEXT.runner.runq.extend(tasks)


def scopes_with_deadlines(until: float) -> list[tuple[float, trio.CancelScope]]:
    """Return the living scopes whose deadline is at most ``until``, with their deadlines, in no particular order."""
    deadlines: Any = _RUN.GLOBAL_RUN_CONTEXT.runner.deadlines
    found = {
        (deadline, scope)
        for deadline, _, scope in deadlines._heap
        if deadline == scope._registered_deadline and deadline <= until
    }
    return list(found)


def waits_for_idle() -> bool:
    """Whether somebody is in `trio.testing.wait_all_tasks_blocked`, which Trio wakes before a clock may jump."""
    return bool(_RUN.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle)


def pending_callbacks() -> int:
    """Return how many callbacks wait to be called by Trio's loop."""
    size: int = _RUN.GLOBAL_RUN_CONTEXT.runner.entry_queue.size()
    return size


def count_of_tasks() -> int:
    """Return how many tasks there are, Trio's own included."""
    return len(_RUN.GLOBAL_RUN_CONTEXT.runner.tasks)


def suspended_generators() -> list[Any]:
    """Return the async generators that were begun and neither exhausted nor closed, in no particular order."""
    return [agen for agen in _RUN.GLOBAL_RUN_CONTEXT.runner.asyncgens.alive if agen.ag_frame is not None]


# --- reading scopes and tasks ----------------------------------------------------------------------


def is_over(scope: trio.CancelScope) -> bool:
    """Whether the scope's block was left, after which cancelling it does nothing."""
    private: Any = scope
    return bool(private._has_been_entered and private._cancel_status is None)


def is_cancelled(scope: trio.CancelScope) -> bool:
    """Whether the scope is cancelled; unlike `cancel_called` this does not let its deadline expire."""
    private: Any = scope
    return bool(private._cancel_called)


def scopes_of(task: Task) -> Iterator[trio.CancelScope]:
    """Yield the scopes around a task's current place, innermost first, those around its nursery included."""
    private: Any = task
    status = private._cancel_status
    while status is not None:
        yield status._scope
        status = status._parent


def is_reached(task: Task, scope: trio.CancelScope) -> bool:
    """Whether cancelling the scope reaches the task: it is inside, and no shield is in between."""
    for around in scopes_of(task):
        if around is scope:
            return True
        if around.shield:
            return False
    return False


def cancellation_of(task: Task) -> trio.Cancelled | None:
    """Return the `trio.Cancelled` with which the next step of a runnable task begins; None if it does not."""
    private: Any = task
    error = getattr(private._next_send, "error", None)
    return error if isinstance(error, trio.Cancelled) else None


def is_parked(task: Task) -> bool:
    """Whether a task waits for somebody to wake it."""
    private: Any = task
    return private._next_send_fn is None


def is_closed_channel(channel: object) -> bool:
    """Whether this clone of a memory channel is closed."""
    private: Any = channel
    return bool(private._closed)


def keep_alive_for_ever(tasks: Iterable[Task]) -> None:
    """Never let the coroutines of these tasks be collected, not even when the interpreter ends.

    Collecting one throws GeneratorExit into it. Code that swallows Cancelled may well swallow that too, and then warns
    in the middle of somebody else's test, or spins.
    """
    for task in tasks:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(task.coro))


# --- listening in ----------------------------------------------------------------------------------

EnterHook = Callable[[trio.CancelScope], None]
CloseHook = Callable[[trio.CancelScope, BaseException | None, BaseException | None], None]
ExitHook = Callable[["Task", BaseException | None], None]


@contextmanager
def patched(
    *,
    entered: EnterHook,
    cancelled: EnterHook,
    closed: CloseHook,
    exited: ExitHook,
) -> Iterator[None]:
    """Call back when any scope is entered, cancelled by code, or closed, and when any task has ended.

    ``closed`` is given what arrived at the scope and what went on from there; ``exited`` what the task raised.
    """
    scope, runner = _RUN.CancelScope, _RUN.Runner
    real_enter, real_cancel, real_close, real_exited = scope.__enter__, scope.cancel, scope._close, runner.task_exited

    def __enter__(self: Any) -> Any:  # noqa: N807
        result = real_enter(self)
        entered(self)
        return result

    def cancel(self: Any, reason: str | None = None) -> None:
        cancelled(self)
        real_cancel(self, reason)

    def close(self: Any, exc: BaseException | None) -> BaseException | None:
        left: BaseException | None = real_close(self, exc)
        closed(self, exc, left)
        return left

    def task_exited(self: Any, task: Task, outcome: Any) -> None:
        exited(task, getattr(outcome, "error", None))
        real_exited(self, task, outcome)

    for wrapper in (__enter__, cancel, close, task_exited):
        trio.lowlevel.enable_ki_protection(wrapper)
    scope.__enter__, scope.cancel, scope._close, runner.task_exited = __enter__, cancel, close, task_exited
    try:
        yield
    finally:
        scope.__enter__, scope.cancel, scope._close, runner.task_exited = (
            real_enter,
            real_cancel,
            real_close,
            real_exited,
        )
