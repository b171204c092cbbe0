"""A run that also writes down what happens, where it can be cancelled, and where it can deviate."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, final

import trio
from attrs import frozen

from ._controlled_run import ControlledRun, RunSettings, Scenario
from ._findings import without_addresses
from ._parked import is_own, place_of, stack
from ._trace import Moment, What
from ._trio_internals import Hooks, cancellation_of

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ._findings import Finding
    from ._plan import Plan
    from ._trace import Kind

__all__ = ["Point", "TracedRun"]


@frozen
class Point:
    """An event, as the search needs it."""

    event: int
    """Its number."""
    victims: tuple[str, ...]
    """For whom cancelling here makes a run of its own."""
    state: int
    """A hash of where everybody is: the same in events that may well be equivalent."""


@final
class TracedRun(ControlledRun):
    """A run with its trace; some three times slower than one without."""

    def __init__(self, plan: Plan, settings: RunSettings, scenario: Scenario) -> None:
        super().__init__(plan, settings, scenario)
        self.trace: list[Moment] = []
        self.points: list[Point] = []
        self.reached_lines: set[tuple[str, int]] = set()
        self.scheduler.keep_ticks = True
        self._places: dict[str, str] = {}
        self._runnable: set[str] = set()
        self._woken_by: dict[str, str] = {}

    def _note(self, what: What, task: str = "", place: str = "", detail: str = "", event: int | None = None) -> None:
        self.trace.append(Moment(self.time.now, event, what, task, place, without_addresses(detail)))

    def found(self, finding: Finding) -> None:
        """Note what is wrong, on the timeline too."""
        super().found(finding)
        self._note("finding", detail=f"{finding.kind}: {finding.message.splitlines()[0]}")

    def log(self, text: str) -> None:
        """Note what the scenario has to say."""
        self._note("log", self._current_label() or "", detail=text)

    def _current_label(self) -> str | None:
        try:
            return self.labels.of(trio.lowlevel.current_task())
        except RuntimeError:
            return None

    def _hooks(self) -> Hooks:
        hooks = super()._hooks()
        hooks.update(task_scheduled=self.task_scheduled, after_task_step=self.after_task_step)
        return hooks

    def task_scheduled(self, task: Task) -> None:
        """Trio's hook."""
        if is_own(task):
            label = self.labels.of(task)
            self._runnable.add(label)
            waker = self._current_label()
            self._woken_by[label] = f"{waker} in [{self.events - 1}]" if waker else "a deadline"

    def before_task_step(self, task: Task) -> None:
        """Trio's hook."""
        if is_own(task):
            self._runnable.discard(self.labels.of(task))
        super().before_task_step(task)

    def after_task_step(self, task: Task) -> None:
        """Trio's hook."""
        try:
            if not is_own(task):
                return
            label = self.labels.of(task)
            if inspect.getcoroutinestate(task.coro) == inspect.CORO_CLOSED:
                self._note("ends", label)
                self._places.pop(label, None)
                return
            lines = stack(task)
            place = self._places[label] = place_of(lines)
            self._note("parks", label, place)
            self.reached_lines.update(lines)
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)

    def _event(self, kind: Kind, task: Task | None, only: str | None = None) -> None:
        if task is not None and not is_own(task):
            self.points.append(Point(self.events, (), 0))
            super()._event(kind, task, only)
            return
        label = "" if task is None else self.labels.of(task)
        place = self._places.get(label, "")
        woken_by = self._woken_by.pop(label, "")
        detail = f"woken by {woken_by}" if woken_by and not woken_by.startswith(f"{label} in ") else only or ""
        self._note(kind, label, place, detail, event=self.events)
        state = hash((kind, label, only, tuple(sorted(self._places.items())), tuple(sorted(self._runnable))))
        self.points.append(Point(self.events, tuple(self.victims.living(only)), state))
        if task is not None and (cancelled := cancellation_of(task)) is not None:
            cause = getattr(cancelled, "reason", None) or getattr(cancelled, "source", None)
            self._note("raises", label, place, f"Cancelled: {cause}" if cause else "Cancelled")
        super()._event(kind, task, only)

    def _cancel(self, scope: trio.CancelScope, name: str) -> None:
        self._note("CANCELS", detail=name)
        super()._cancel(scope, name)
