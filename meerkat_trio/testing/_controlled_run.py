"""One `trio.run` of a scenario under control: virtual time, a chosen order, at most one cancellation.

Knows one run only: which runs to make, and what to say of them, is the sweep's business (`_sweep`). Uses only what Trio
makes public; the rest is `_trio_internals`.

An *event* is a state of the run in which a cancellation may arrive, and which differs from the event before:
    publish   a victim is declared (counts for this victim alone)
    step      before a task's step, which within a batch is also: after the step of the task before
    tick      after the last step of a batch, or after the clock has moved; deadlines have not expired yet
    idle      nobody can run and the clock is about to move
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from ._trace import CANCELS, ENDED, Kind, Moment, Point
from ._trio_internals import (
    Order,
    controlled_schedule,
    generator_for,
    is_being_cancelled,
    is_over,
    is_reached,
    keep_alive_for_ever,
    scopes_of,
    waits_for_idle,
)

if TYPE_CHECKING:
    from trio.lowlevel import Task

# What a run that has to be stopped may still do before the next, harder attempt.
_LAST_STEPS: Final = 10_000
_MACHINERY: Final = (os.path.dirname(trio.__file__) + os.sep, contextlib.__file__, __file__)  # noqa: PTH120


class Finding(AssertionError):
    """What the sweep itself holds against a run; the scenario's own assertions come as they are."""


class Deadlocked(Finding):
    """Nobody can run, and no deadline will ever wake anybody."""


class TooManySteps(Finding):
    """The run took more steps than it was allowed."""


class TasksLeft(Finding):
    """The scenario has ended and left system tasks running."""


class NotRepeatable(Finding):
    """The same plan gave a different run."""


class _Killed(Exception):
    """Thrown into Trio's run loop, between two steps, when a run can be ended in no other way."""


@final
@attrs.frozen
class Plan:
    """What one run is to do."""

    order: Order
    """Who goes first."""
    victim: str | None = None
    """Whose scope is cancelled; None: nobody's."""
    event: int = -1
    """At which event of the run, counted from 0."""


@functools.cache
def _short(filename: str) -> str:
    with contextlib.suppress(ValueError):  # another drive
        relative = os.path.relpath(filename)
        return filename if relative.startswith(os.pardir) else relative
    return filename


def where(task: Task) -> str:
    """The `file:line` at which a task is parked: its innermost frame that is not Trio's own."""
    place = ""
    for frame, line in task.iter_await_frames():
        if not frame.f_code.co_filename.startswith(_MACHINERY):
            place = f"{_short(frame.f_code.co_filename)}:{line}"
    return place


def living_tasks(root: Task | None = None) -> Iterator[Task]:
    """Every task below the root, or of the current run, in no order one could rely on."""
    root = root or trio.lowlevel.current_root_task()
    todo = [root] if root is not None else []
    while todo:
        task = todo.pop()
        yield task
        todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


@final
class Sweep:
    """What a scenario is given. There is no public constructor."""

    def __init__(self, run: ControlledRun) -> None:
        self._run = run

    def __repr__(self) -> str:
        return f"<Sweep of {', '.join(self._run.victims) or 'nobody yet'}>"

    def victim(self, name: str, scope: trio.CancelScope | None = None) -> trio.CancelScope:
        """Declare a scope that may be cancelled at any moment from now on.

        Args:
            name: what reports call it. A name that is declared again stands for the new scope from then on.
            scope: an existing scope, entered or not; without it a new one, to be entered by the caller.

        Returns:
            The scope; it may already be cancelled.
        """
        scope = trio.CancelScope() if scope is None else scope
        self._run.publish(name, scope)
        return scope

    @property
    def cancelled(self) -> str | None:
        """The victim that the sweep has cancelled in this run; None as long as it has cancelled nobody."""
        return self._run.plan.victim if self._run.struck is not None else None


class ControlledRun(trio.abc.Clock, trio.abc.Instrument):
    """One run: its clock, its instrument, and what came of it."""

    def __init__(self, plan: Plan, max_steps: int, expected: Point | None = None) -> None:
        self.plan = plan
        self.victims: dict[str, trio.CancelScope] = {}
        self.struck: trio.CancelScope | None = None
        self.strikes: set[tuple[str, str]] = set()
        self.finding: Finding | None = None
        self.raised: BaseException | None = None
        self.events: int = 0
        self.now: float = 0.0
        self._target = -1 if plan.victim is None else plan.event
        self._expected = expected
        self._steps = 0
        self._limit = max_steps
        self._root = trio.CancelScope()
        self._root_task: Task | None = None
        self._stop_attempts = 0
        self._killed: BaseException | None = None

    # The run as a whole

    @property
    def exception(self) -> BaseException | None:
        """Why the run counts as failed, or None. What made us stop a run stands above what stopping it led to."""
        return self.finding or self.raised

    async def scenario(self, scenario: Callable[[Sweep], Awaitable[object]]) -> None:  # noqa: ASYNC910
        self._root_task = trio.lowlevel.current_root_task()
        earlier = set(living_tasks())
        try:
            with self._root:
                await scenario(Sweep(self))
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self.raised = self._judged(exc)
        left = [task.name for task in living_tasks() if task not in earlier and "_finalize_one" not in task.name]
        if left and self.exception is None:
            self.finding = TasksLeft(f"the scenario has ended; still running: {', '.join(left)}")

    def _judged(self, exc: BaseException) -> BaseException | None:
        if isinstance(exc, BaseExceptionGroup):
            if exc.subgroup(KeyboardInterrupt) is not None:
                raise KeyboardInterrupt from exc
            if self._may_leave():
                _, rest = exc.split(trio.Cancelled)
                exc = exc if rest is None else rest
                if rest is None:
                    return None
            while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
                exc = exc.exceptions[0]
        if isinstance(exc, KeyboardInterrupt):
            raise exc
        return None if isinstance(exc, trio.Cancelled) and self._may_leave() else exc

    def _may_leave(self) -> bool:
        return self.struck is not None and is_reached(trio.lowlevel.current_task(), self.struck)

    def publish(self, name: str, scope: trio.CancelScope) -> None:
        self.victims[name] = scope
        self._event("publish", None, only=name)

    # Events

    def _event(self, kind: Kind, task: Task | None, only: str | None = None) -> None:
        number, self.events = self.events, self.events + 1
        if number == self._target:
            self._strike(kind, task, only)

    def _strike(self, kind: Kind, task: Task | None, only: str | None) -> None:
        name = self.plan.victim
        scope = None if name is None or (only is not None and only != name) else self.victims.get(name)
        met = (kind, "" if task is None else task.name)
        planned = self._expected
        if planned is not None and met != (planned.kind, planned.task_name):
            self._stop(NotRepeatable(f"'{planned.moment}' of the first run is now: {' '.join(met)}"))
        elif scope is None:
            self._stop(NotRepeatable(f"there is no victim {name!r} at event {self.plan.event}"))
        else:
            self.struck = scope
            scope.cancel(reason=f"the sweep cancels {name!r} at event {self.plan.event}")

    # What Trio calls as its instrument. A hook that raises would be removed in silence.

    def before_task_step(self, task: Task) -> None:
        try:
            if self.struck is not None and is_being_cancelled(task) and is_reached(task, self.struck):
                self.strikes.add((where(task), self.plan.victim or ""))
            self._steps += 1
            self._event("step", task)
            if self._steps > self._limit:
                self._stop(TooManySteps(f"no end after {self._steps - 1} steps; {parked()}"))
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        try:
            self._event("tick", None)
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)

    # What Trio calls as its clock

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        # Trio's run loop asks between two steps; a task that asks must not meet this, it might swallow it.
        if self._killed is not None and not _in_a_task():
            raise self._killed
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Called only when nobody can run."""
        try:
            if waits_for_idle():
                return math.inf
            # Something called in from outside Trio's tasks (an async generator's end does) and will be heard next.
            if deadline > self.now and not trio.lowlevel.current_statistics().run_sync_soon_queue_size:
                self._idle(deadline)
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)
        return 0.0

    def _idle(self, deadline: float) -> None:
        number = self.events
        self._event("idle", None)
        if number == self._target:
            return
        if deadline < math.inf:
            self.now = deadline
        else:
            self._stop(Deadlocked(f"nobody can run and no deadline is set; {parked()}"))

    # Stopping a run that does not end

    def _stop(self, finding: Finding) -> None:
        """Stop the run; called again whenever the attempt before was not enough."""
        self.finding = self.finding or finding
        self._stop_attempts += 1
        self._limit = self._steps + _LAST_STEPS
        if self._stop_attempts == 1:
            self._root.cancel(reason="the sweep stops a run that does not end")
        elif self._stop_attempts == 2:  # noqa: PLR2004
            for task in living_tasks():
                for scope in scopes_of(task):
                    scope.shield = False
        else:
            self._kill(_Killed())

    def _kill(self, exc: BaseException) -> None:
        self._killed = self._killed or exc

    def execute(self, scenario: Callable[[Sweep], Awaitable[object]]) -> None:
        """Run the scenario; afterwards the attributes say what happened. Errors of the tool itself are raised."""
        # A collection in the middle of a run may finalize async generators: steps that come and go between two runs.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with controlled_schedule(generator_for(self.plan.order)):
                trio.run(self.scenario, scenario, clock=self, instruments=[self])
        except trio.TrioInternalError as exc:
            if self._root_task is not None:
                keep_alive_for_ever(living_tasks(self._root_task))
            if exc.__cause__ is None or exc.__cause__ is not self._killed:
                exc.add_note(f"while the sweep ran {self.plan}")
                raise
        finally:
            if collecting:
                gc.enable()
        if self._killed is not None and not isinstance(self._killed, _Killed):
            self._killed.add_note(f"while the sweep ran {self.plan}")
            raise self._killed


@final
class TracedRun(ControlledRun):
    """A run that also writes down what happened; some three times slower."""

    def __init__(self, plan: Plan, max_steps: int, expected: Point | None = None) -> None:
        super().__init__(plan, max_steps, expected)
        self.trace: list[Moment] = []
        self.points: list[Point] = []
        self._in_sight = False  # whether the task that steps is at a line of the scenario
        self._labels: dict[Task, str] = {}
        self._namesakes: collections.Counter[str] = collections.Counter()

    def _label(self, task: Task) -> str:
        if task not in self._labels:
            name = _plain(task.name)
            self._namesakes[name] += 1
            self._labels[task] = name if self._namesakes[name] == 1 else f"{name}#{self._namesakes[name]}"
        return self._labels[task]

    def after_task_step(self, task: Task) -> None:
        try:
            ended = ENDED if self._in_sight else ""
            self._note("parks", self._label(task), where(task) or ended)
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)

    def _note(self, what: str, task: str = "", place: str = "", event: int | None = None) -> Moment:
        self.trace.append(Moment(self.now, event, what, task, place))
        return self.trace[-1]

    def _event(self, kind: Kind, task: Task | None, only: str | None = None) -> None:
        label, place = ("", "") if task is None else (self._label(task), where(task))
        at = self._note(kind, label, place, event=self.events)
        if task is not None:
            self._in_sight = bool(place)
        live: tuple[str, ...] = ()
        if kind != "tick" or self._tick_matters():
            names = self.victims if only is None else (only,)
            live = tuple(name for name in names if not is_over(self.victims[name]))
        self.points.append(Point(at, kind, "" if task is None else task.name, live))
        if task is not None and is_being_cancelled(task):
            self._note("raises", label, "Cancelled" if place else "")
        unstruck = self.struck is None
        super()._event(kind, task, only)
        if unstruck and self.struck is not None:
            self._note(CANCELS, repr(self.plan.victim))

    def _tick_matters(self) -> bool:
        """Whether Trio is about to wake somebody; else the tick is the same as the step or the idle moment after it."""
        return waits_for_idle() or trio.lowlevel.current_statistics().seconds_to_next_deadline <= 0


def parked() -> str:
    """Where every task of the scenario is parked, one line each."""
    lines = sorted((_plain(task.name), where(task)) for task in living_tasks())
    return "the tasks:" + "".join(f"\n    {name} @ {place}" for name, place in lines if place)


def _plain(name: str) -> str:
    """A task's name without where its function was defined: `file:line` says that better."""
    return name if name.startswith("<") else name.rpartition("<locals>.")[2].rpartition(".")[2]


def _in_a_task() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
