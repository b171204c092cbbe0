"""The one file that touches private names of Trio: what the kit needs of its inside to control and read a run.

Every private name in use stands in `_NEEDED`; `require_internals` says which of them a Trio version lacks. Decides
nothing: it looks, orders a batch, and puts back what it replaced.
"""

from __future__ import annotations

import ctypes
import importlib
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio.lowlevel import Task

__all__ = [
    "Order",
    "UnsupportedTrioError",
    "controlled_schedule",
    "generator_for",
    "is_being_cancelled",
    "is_over",
    "is_reached",
    "keep_alive_for_ever",
    "require_internals",
    "scopes_of",
    "waits_for_idle",
]

Order: TypeAlias = Literal["oldest", "newest"] | int
"""Which of the runnable tasks goes first: the one spawned first, the one spawned last, or as a seed decides."""

_RUN: Final[Any] = importlib.import_module("trio._core._run")
_SCHEDULE: Final = ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r")
_NEEDED: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("", (*_SCHEDULE, "GLOBAL_RUN_CONTEXT")),
    ("Runner", ("waiting_for_idle",)),
    ("Task", ("_cancel_status", "_next_send")),
    ("CancelStatus", ("_scope", "_parent")),
    ("CancelScope", ("_cancel_status", "_has_been_entered")),
)


class UnsupportedTrioError(RuntimeError):
    """This version of Trio lacks the names through which a run is controlled."""


def require_internals(needed: Iterable[tuple[str, Iterable[str]]] = _NEEDED) -> None:
    """Refuse a Trio whose inside is not the known one.

    Raises:
        UnsupportedTrioError: naming what is missing.
    """
    for owner, names in needed:
        holder = getattr(_RUN, owner, None) if owner else _RUN
        known = getattr(holder, "__annotations__", ())
        missing = [name for name in names if not hasattr(holder, name) and name not in known]
        if missing:
            place = f"trio._core._run.{owner}".rstrip(".")
            raise UnsupportedTrioError(
                f"Trio {trio.__version__} does not let its runs be controlled: {place} lacks {', '.join(missing)};"
                " use a release of Trio or of this package that knows the other"
            )


class _Straight(random.Random):
    """Oldest or newest first. Trio hands over the batch by age and takes tasks from its end."""

    def __init__(self, *, oldest_first: bool) -> None:
        super().__init__(0)
        self._oldest_first = oldest_first

    def shuffle(self, x: Any) -> None:
        if self._oldest_first:
            x.reverse()


def generator_for(order: Order) -> random.Random:
    """What `controlled_schedule` has to be given for an order."""
    if isinstance(order, int):
        return random.Random(order)  # noqa: S311 - an order, no secret
    return _Straight(oldest_first=order == "oldest")


@contextmanager
def controlled_schedule(order: random.Random | Any) -> Iterator[None]:
    """Let ``order`` decide in which order the runnable tasks of a tick run: its ``shuffle`` gets them oldest first.

    Trio takes them from the end. What was there before is put back at the end of the block. Holds for every run of
    this process, so only one thread may do this at a time.

    Raises:
        UnsupportedTrioError: this version of Trio does not have what is needed.
    """
    require_internals([("", _SCHEDULE)])
    before = _RUN._ALLOW_DETERMINISTIC_SCHEDULING, _RUN._r
    _RUN._ALLOW_DETERMINISTIC_SCHEDULING, _RUN._r = True, order
    try:
        yield
    finally:
        _RUN._ALLOW_DETERMINISTIC_SCHEDULING, _RUN._r = before


def waits_for_idle() -> bool:
    """Whether somebody is in `trio.testing.wait_all_tasks_blocked`, which Trio wakes before a clock may jump."""
    return bool(_RUN.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle)


def is_over(scope: trio.CancelScope) -> bool:
    """Whether the scope's block was left, after which cancelling it does nothing."""
    private: Any = scope
    return bool(private._has_been_entered and private._cancel_status is None)


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


def is_being_cancelled(task: Task) -> bool:
    """Whether the step that a runnable task is about to take begins by raising `trio.Cancelled`."""
    private: Any = task
    return isinstance(getattr(private._next_send, "error", None), trio.Cancelled)


def keep_alive_for_ever(tasks: Iterable[Task]) -> None:
    """Never let the coroutines of these tasks be collected, not even when the interpreter ends.

    Collecting one throws GeneratorExit into it. Code that swallows Cancelled may well swallow that too, and then warns
    in the middle of somebody else's test, or spins.
    """
    for task in tasks:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(task.coro))
