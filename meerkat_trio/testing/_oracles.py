"""Judges what code does with a cancellation: does it pass it on, and does it lose an error over it?

Only the cancellations that the explorer itself makes are judged: it knows who was meant.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, final

import trio

from ._findings import Finding
from ._parked import place_of, short, stack
from ._trio_internals import is_reached, scopes_of

if TYPE_CHECKING:
    from types import FrameType

    from trio.lowlevel import Task

__all__ = ["CancellationWatch"]


@final
class _Struck:
    """A scope that the explorer has cancelled, and who has felt it."""

    def __init__(self, name: str, time: float) -> None:
        self.name = name
        self.time = time
        self.felt_by: dict[Task, str] = {}
        self.raised: dict[Task, list[tuple[BaseException, str]]] = {}
        self.swallowed_by: set[Task] = set()
        self.is_over = False


@final
class CancellationWatch:
    """Follows the explorer's cancellations through one run."""

    def __init__(
        self,
        found: Callable[[Finding], None],
        label: Callable[[Task], str],
        escapes: frozenset[tuple[str, str]],
        dies_within: float | None,
    ) -> None:
        self._found = found
        self._label = label
        self._known_escapes = escapes
        self._dies_within = dies_within
        self._struck: dict[trio.CancelScope, _Struck] = {}
        self.escapes: set[tuple[str, str]] = set()
        """Victims that an error left, by name, and the error's type."""
        self.strikes: set[tuple[str, str]] = set()
        """Where a Cancelled was raised for whom: (`file:line`, victim)."""
        self.struck_lines: set[tuple[str, int]] = set()
        """All lines on the way of a Cancelled: (file, line)."""

    def struck(self, scope: trio.CancelScope, name: str, time: float) -> None:
        """Note that the explorer cancels a scope."""
        self._struck[scope] = _Struck(name, time)

    def is_passed_on_by(self, task: Task) -> None:
        """Note a task that waits for its children: a cancellation reaches it, and goes on to them."""
        lines = stack(task)
        if lines:
            self.struck_lines.add(lines[-1])

    def is_about_to_raise(self, task: Task, cancelled: BaseException) -> None:
        """Note that a Cancelled is raised in a task in its next step."""
        for scope, struck in self._struck.items():
            if not struck.is_over and is_reached(task, scope):
                lines = stack(task)
                place = place_of(lines)
                self._judge_going_on(struck, task)
                struck.felt_by[task] = place
                struck.raised.setdefault(task, []).append((cancelled, place))
                self.strikes.add((place, struck.name))
                self.struck_lines.update(lines)

    def closed(
        self, scope: trio.CancelScope, name: str, arrived: BaseException | None, left: BaseException | None, time: float
    ) -> None:
        """Judge how a victim's scope ended."""
        struck = self._struck.get(scope)
        if struck is None:
            if left is not None and not isinstance(left, trio.Cancelled):
                self.escapes |= {(name, type(leaf).__name__) for leaf in _leaves(left)}
            return
        struck.is_over = True
        for felt in struck.raised:
            self._judge_going_on(struck, felt)
        struck.raised.clear()
        if arrived is None and struck.felt_by and not scope.cancelled_caught:
            self._swallowed(struck, *next(reversed(struck.felt_by.items())))
        if self._dies_within is not None and time - struck.time > self._dies_within:
            took = f"{time - struck.time:g} s from its cancellation to its end, {self._dies_within:g} s are allowed"
            self._found(Finding(kind="slow to die", message=f"{struck.name}: {took}"))
        if arrived is not None and scope.cancelled_caught:
            for leaf in _leaves(arrived):
                if isinstance(leaf, trio.Cancelled):
                    self._judge_masking(leaf, struck.name)

    def passed(self, task: Task, arrived: BaseException | None, left: BaseException | None) -> None:
        """Forget what another scope around a task has caught, being cancelled itself: that is how Trio works."""
        if arrived is None or not self._struck:
            return
        for struck in self._struck.values():
            raised = struck.raised.get(task)
            if raised and _contains(arrived, raised[-1][0]) and not _contains(left, raised[-1][0]):
                self._judge_going_on(struck, task)
                del struck.raised[task], struck.felt_by[task]

    def exited(self, task: Task, error: BaseException | None) -> None:
        """Judge how a task ended."""
        if error is None:
            for scope, struck in self._struck.items():
                if task in struck.felt_by and scope in scopes_of(task):
                    self._swallowed(struck, task, struck.felt_by[task])
            return
        if any(isinstance(leaf, trio.Cancelled) for leaf in _leaves(error)) and not any(
            scope.cancel_called for scope in scopes_of(task)
        ):
            self._found(
                Finding(
                    kind="foreign",
                    message=f"{self._label(task)} ended with a Cancelled, and no scope around it is cancelled:"
                    " the exception belongs to another task, or to a scope that is over",
                    exception=error,
                )
            )

    def _judge_going_on(self, struck: _Struck, task: Task) -> None:
        """Judge a task that was cancelled twice: if the first Cancelled was still on its way, the second knows it."""
        raised = struck.raised.get(task, ())
        if len(raised) > 1 and not _knows(raised[-1][0], raised[-2][0]):
            self._swallowed(struck, task, raised[-2][1])

    def _swallowed(self, struck: _Struck, task: Task, place: str) -> None:
        if task in struck.swallowed_by:
            return
        struck.swallowed_by.add(task)
        at = f" at {place}" if place else ""
        self._found(
            Finding(
                kind="swallowed",
                message=f"{struck.name} was cancelled and a Cancelled was raised in {self._label(task)}{at},"
                " but never came out: some code caught it and did not raise it again",
            )
        )

    def _judge_masking(self, cancelled: BaseException, victim: str) -> None:
        lost = cancelled.__context__
        while isinstance(lost, trio.Cancelled | GeneratorExit):
            lost = lost.__context__
        if not isinstance(lost, Exception) or isinstance(lost, StopIteration | StopAsyncIteration):
            return
        in_clean_up = isinstance(lost.__context__, trio.Cancelled)
        if not in_clean_up and (victim, type(lost).__name__) not in self._known_escapes:
            return
        place = _where_lost(lost, cancelled)
        if place is not None:
            self._found(
                Finding(
                    kind="masked",
                    message=f"{type(lost).__name__}({lost}) was on its way out of {victim} when a Cancelled at {place}"
                    " took its place: nobody gets to know of it",
                    exception=lost,
                )
            )


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if error is None:
        return
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _contains(error: BaseException | None, cancelled: BaseException) -> bool:
    """Whether an exception is or holds a Cancelled, or another one that took its place."""
    return any(leaf is cancelled or _knows(leaf, cancelled) for leaf in _leaves(error))


def _knows(later: BaseException, earlier: BaseException) -> bool:
    """Whether an exception was raised while another one was being handled."""
    todo: list[BaseException | None] = [later.__context__]
    seen: set[int] = set()
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        if error is earlier:
            return True
        if isinstance(error, GeneratorExit) and error.__context__ is None:
            # An async generator that is closed does not know what for: it may be the earlier one.
            return True
        seen.add(id(error))
        todo.append(error.__context__)
        if isinstance(error, BaseExceptionGroup):
            todo += error.exceptions
    return False


def _where_lost(lost: BaseException, cancelled: BaseException) -> str | None:
    """Return where a Cancelled replaced an error that nobody had handled; None if it had been caught."""
    caught_in = lost.__traceback__
    if caught_in is None:
        return None
    passing = cancelled.__traceback__
    while passing is not None:
        if passing.tb_frame is caught_in.tb_frame:
            place = f"{short(passing.tb_frame.f_code.co_filename)}:{passing.tb_lineno}"
            return None if _is_handled_at(passing.tb_frame, passing.tb_lineno) else place
        passing = passing.tb_next
    return None


def _is_handled_at(frame: FrameType, line: int) -> bool:
    """Whether a line is in an `except` clause that keeps what it caught to itself."""
    innermost: ast.ExceptHandler | None = None
    in_finally = False
    for node in _tries(frame.f_code.co_filename):
        for handler in node.handlers:
            if handler.lineno <= line <= (handler.end_lineno or handler.lineno):
                innermost, in_finally = handler, False
        if node.finalbody and node.finalbody[0].lineno <= line <= (node.finalbody[-1].end_lineno or line):
            in_finally = True
    if in_finally or innermost is None:
        return False
    # What is raised before, as when all attempts are used up, was not raised this time.
    return not any(isinstance(node, ast.Raise) and node.lineno > line for node in ast.walk(innermost))


@functools.cache
def _tries(filename: str) -> tuple[ast.Try, ...]:
    """Return the `try` statements of a file, outer ones before inner ones."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return ()
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
    return tuple(sorted(found, key=lambda node: (node.lineno, -(node.end_lineno or 0))))
