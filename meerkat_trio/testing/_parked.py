"""Where tasks are, what they are called, and for whom they wait. Reads a run, changes nothing."""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from types import CoroutineType, FrameType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, final

import trio

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Labels", "caller", "living_tasks", "place_of", "short", "stack", "waiting"]

_HERE: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120
_MACHINERY: Final = (os.path.dirname(trio.__file__) + os.sep, contextlib.__file__, _HERE)  # noqa: PTH120
_INIT: Final = "<init>"


@functools.cache
def is_machinery(filename: str) -> bool:
    """Whether a file is Trio's, contextlib's or this kit's."""
    return filename.startswith((*_MACHINERY, "<attrs generated"))


@functools.cache
def short(filename: str) -> str:
    """Return a file's path as people read it: relative to where they are."""
    with contextlib.suppress(ValueError):  # another drive
        relative = os.path.relpath(filename)
        return filename if relative.startswith(os.pardir) else relative
    return filename


def stack(task: Task) -> list[tuple[str, int]]:
    """Return (file, line) of each await at which a task is parked, outermost first, without machinery."""
    found = []
    awaiting: Any = task.coro
    while type(awaiting) is CoroutineType:
        frame = awaiting.cr_frame
        if frame is not None and not is_machinery(filename := frame.f_code.co_filename):
            found.append((filename, frame.f_lineno))
        awaiting = awaiting.cr_await
    if awaiting is None or type(awaiting) is GeneratorType:
        return found
    # An async generator is on the way; only Trio knows how to look into those.
    return [
        (frame.f_code.co_filename, line)
        for frame, line in task.iter_await_frames()
        if not is_machinery(frame.f_code.co_filename)
    ]


def place_of(lines: list[tuple[str, int]]) -> str:
    """Return the innermost of such lines as ``file:line``; empty if there is none."""
    return f"{short(lines[-1][0])}:{lines[-1][1]}" if lines else ""


def caller_frame(depth: int = 1) -> FrameType | None:
    """Return the innermost frame on the stack that is not machinery."""
    frame: FrameType | None = sys._getframe(depth)  # noqa: SLF001
    while frame is not None and is_machinery(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def caller(depth: int = 2) -> str:
    """Return the `file:line` of the innermost frame on the stack that is not machinery; empty if there is none."""
    frame = caller_frame(depth)
    return "" if frame is None else f"{short(frame.f_code.co_filename)}:{frame.f_lineno}"


def living_tasks(root: Task | None = None) -> Iterator[Task]:
    """Yield every task below the root, or of the current run, in no order one could rely on."""
    root = root or trio.lowlevel.current_root_task()
    todo = [root] if root is not None else []
    while todo:
        task = todo.pop()
        yield task
        todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def is_own(task: Task) -> bool:
    """Whether a task is the scenario's, not one of Trio's."""
    return task.name != _INIT


@final
class Labels:
    """Names of tasks that are the same in every run of a plan: by function, and counted in the order of spawning."""

    def __init__(self) -> None:
        self._labels: dict[Task, str] = {}
        self._namesakes: collections.Counter[str] = collections.Counter()

    def is_given(self, label: str) -> bool:
        """Whether some task has this label."""
        name, _, count = label.partition("~")
        return self._namesakes[name] >= int(count or 1)

    def of(self, task: Task) -> str:
        """Return a task's label."""
        label = self._labels.get(task)
        if label is None:
            name = _plain(task.name)
            self._namesakes[name] += 1
            count = self._namesakes[name]
            label = self._labels[task] = name if count == 1 else f"{name}~{count}"
        return label


def _plain(name: str) -> str:
    """Return a task's name without where its function was defined: `file:line` says that better."""
    if name.startswith("<"):
        return name
    plain = name.rpartition("<locals>.")[2].rpartition(".")[2]
    return "".join("_" if char in ";@ \t\n" else char for char in plain) or "task"


def waiting(labels: Labels) -> str:
    """Say where every task of the scenario is parked and whom it waits for, one line each."""
    lines = []
    for task in living_tasks():
        if not is_own(task):
            continue
        place, waits_for = "", ""
        for frame, line in task.iter_await_frames():
            filename = frame.f_code.co_filename
            if not is_machinery(filename):
                place = f"{short(filename)}:{line}"
            else:
                waits_for = _object_waited_for(frame, labels) or waits_for
        if place:
            lines.append(f"\n    {labels.of(task)} @ {place}{waits_for}")
    return "".join(sorted(lines))


def _object_waited_for(frame: FrameType, labels: Labels) -> str:
    awaited: Any = frame.f_locals.get("self")
    name = type(awaited).__name__
    match awaited:
        case trio.Lock() | trio.StrictFIFOLock():
            owner = awaited.statistics().owner
            return f" waits for a {name} held by {labels.of(owner)}" if owner is not None else f" waits for a {name}"
        case trio.CapacityLimiter():
            borrowers = [
                labels.of(borrower) if isinstance(borrower, trio.lowlevel.Task) else repr(borrower)
                for borrower in awaited.statistics().borrowers
            ]
            return f" waits for a {name} whose tokens are with {', '.join(sorted(borrowers))}"
        case (
            trio.Event() | trio.Condition() | trio.Semaphore() | trio.MemorySendChannel() | trio.MemoryReceiveChannel()
        ):
            return f" waits for {'an' if name[0] in 'AEIOU' else 'a'} {name}"
        case trio.Nursery():
            children = sorted(labels.of(child) for child in awaited.child_tasks)
            return f" waits for its children {', '.join(children)}" if children else ""
        case _:
            return ""
