"""One run of a scenario under control: virtual time, a chosen schedule, chosen answers, chosen cancellations.

Knows one run only: which runs to make is the search's business, and what their failures are called the oracles'.

An *event* is a moment in which a cancellation may arrive:
    publish   a victim is declared (counts for this victim alone)
    step      before a task's step, which within a batch is also: after the step of the task before
    idle      nobody can run and the clock is about to move
    tick      the clock has moved; deadlines have not expired yet
"""

from __future__ import annotations

import gc
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio
from attrs import field, frozen

from ._exploration import Exploration
from ._findings import Finding
from ._leaks import Resources, tracking
from ._oracles import CancellationWatch
from ._parked import Labels, caller, caller_frame, is_own, living_tasks, short, stack, waiting, where
from ._plan import Plan
from ._schedule import Scheduler
from ._trace import Kind, Moment, What
from ._trio_internals import (
    OutsideWorld,
    controlled_schedule,
    is_being_cancelled,
    is_over,
    is_reached,
    keep_alive_for_ever,
    patched,
    pending_callbacks,
    run_isolated,
    scopes_of,
    scopes_with_deadlines,
    waits_for_idle,
)

if TYPE_CHECKING:
    from types import CodeType

    from trio.lowlevel import Task

__all__ = ["ControlledRun", "Point", "RunSettings", "Scenario", "TracedRun", "listening"]

Scenario: TypeAlias = Callable[[Exploration], Awaitable[object]]

# What a run that has to be stopped may still do before the next, harder attempt.
_LAST_STEPS: Final = 10_000
_ROOT: Final = "root"


class _Killed(Exception):
    """Thrown into Trio's run loop, between two steps, when a run can be ended in no other way."""


@frozen(kw_only=True)
class RunSettings:
    """What all runs of an exploration have in common."""

    max_steps: int = 100_000
    """How many steps a run may take."""
    dies_within: float | None = None
    """Virtual seconds from a victim's cancellation to its end."""
    jitter: float = 0.0
    """Timers that are at most so many seconds apart may swap."""
    learning: bool = False
    """Whether to note what is left behind instead of holding it against the run."""
    automatic: bool = False
    """Whether victims are found instead of declared."""
    all_scopes: bool = False
    """Whether every scope is one."""
    sites: frozenset[str] = frozenset()
    """Automatic victims that show only later that they are some: by name."""
    escapes: frozenset[tuple[str, str]] = frozenset()
    """Errors that leave a victim's scope when nobody is cancelled: (victim, type)."""
    exempt: frozenset[str] = frozenset()
    """What is left behind when nobody is cancelled."""
    source: tuple[str, ...] = ()
    """Folders and files whose await lines count."""


@frozen
class Point:
    """An event, as the search needs it."""

    event: int
    """Its number."""
    victims: tuple[str, ...]
    """For whom cancelling here makes a run of its own."""
    state: int
    """A hash of where everybody is: the same in events that may well be equivalent."""


class ControlledRun(trio.abc.Clock, trio.abc.Instrument):
    """One run: its clock, its instrument, and what came of it."""

    def __init__(self, plan: Plan, settings: RunSettings, scenario: Scenario) -> None:
        self.plan = plan
        self.settings = settings
        self.findings: list[Finding] = []
        self.events: int = 0
        self.steps: int = 0
        self.now: float = 0.0
        self.struck: list[tuple[int, str]] = []
        """The cancellations that were made: event and victim."""
        self.missed: int = 0
        """Cancellations of the plan whose victim was not there."""
        self.choices: list[int] = []
        """How many options each choice of the environment had."""
        self.chosen: list[int] = []
        """Which one was taken in each."""
        self.ties: list[int] = []
        """How many options each set of simultaneous timers had."""
        self.untied: list[int] = []
        """Which one was taken in each."""
        self.sites: set[str] = set()
        """Automatic victims that showed only later that they are some."""
        self.left: frozenset[str] = frozenset()
        """What a run that only learns has left behind, as keys."""
        self.atomics: dict[int, tuple[object, object]] = {}
        """States before and after each uncancelled `Exploration.atomic`, by its number."""
        self.atomic_cuts: list[tuple[int, object, object, str]] = []
        """The same for each that was cancelled, with the place."""
        self.victims: dict[str, trio.CancelScope] = {}
        self.labels = Labels()
        self.world = OutsideWorld()
        self.scheduler = Scheduler(plan, self.labels.of, is_own)
        self.watch = CancellationWatch(self.found, self.labels.of, settings.escapes, settings.dies_within)
        code = _code_of(scenario)
        self.resources = Resources(code, settings.exempt)
        self.active = False
        self._scenario = scenario
        self._code = code
        self._hypothetical: set[str] = set()
        self._names: dict[trio.CancelScope, str] = {}
        self._name_counts: dict[str, int] = {}
        self._order_of_scopes: dict[trio.CancelScope, int] = {}
        self._planned_choices = dict(plan.choices)
        self._planned_ties = dict(plan.ties)
        self._strikes = list(plan.strikes)
        self._next_strike = self._strikes[0].event if self._strikes else -1
        self._predicates: list[tuple[Callable[[], object], float | None, str]] = []
        self._limit = settings.max_steps
        self._root = trio.CancelScope()
        self._root_task: Task | None = None
        self._stop_attempts = 0
        self._killed: BaseException | None = None
        self._shown_now: float | None = None
        self._deferred: dict[float, float] = {}

    # --- the run as a whole -------------------------------------------------------------------------

    @property
    def finding(self) -> Finding | None:
        """What is wrong with the run: what was found first, for what follows may come of it."""
        return self.findings[0] if self.findings else None

    def found(self, finding: Finding) -> None:
        """Note what is wrong."""
        self.findings.append(finding)

    async def main(self) -> None:  # noqa: ASYNC910
        """Be the main task."""
        self._root_task = trio.lowlevel.current_root_task()
        earlier = set(living_tasks())
        self.active = True
        if self.settings.automatic:
            self.victims[_ROOT] = self._root
            self._names[self._root] = _ROOT
        cut = True
        try:
            with self._root:
                await self._scenario(Exploration(self))
                cut = False
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._judge(exc)
        self.active = False
        if not self.findings:
            self._judge_end(earlier, cut=cut)

    def _judge(self, exc: BaseException) -> None:
        if isinstance(exc, KeyboardInterrupt) or (
            isinstance(exc, BaseExceptionGroup) and exc.subgroup(KeyboardInterrupt) is not None
        ):
            self._kill(KeyboardInterrupt())
            return
        error: BaseException | None = exc
        if isinstance(exc, BaseExceptionGroup) and self._is_reached():
            error = exc.split(trio.Cancelled)[1]
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is None or (isinstance(error, trio.Cancelled) and self._is_reached()):
            return
        if isinstance(error, trio.TooSlowError) and self.settings.automatic and self.struck:
            return  # a deadline that we let come early
        if isinstance(error, RuntimeError) and "Cancel scope stack corrupted" in str(error):
            self.found(Finding(kind="misnested scope", message=str(error).splitlines()[0], exception=error))
        elif isinstance(error, trio.Cancelled):
            self.found(
                Finding(
                    kind="foreign",
                    message="a Cancelled left the scenario, and nobody has cancelled the scenario",
                    exception=error,
                )
            )
        else:
            self.found(Finding(kind="exception", message=f"{type(error).__name__}: {error}", exception=error))

    def _is_reached(self) -> bool:
        task = trio.lowlevel.current_task()
        return any(is_reached(task, self.victims[name]) for _, name in self.struck)

    def _judge_end(self, earlier: set[Task], *, cut: bool) -> None:
        for predicate, until, text in self._predicates:
            if until is not None and not cut and not self._holds(predicate):
                self.found(Finding(kind="check", message=f"did not come true before the scenario ended: {text}"))
        left = sorted(
            self.labels.of(task)
            for task in living_tasks()
            if task not in earlier and "_finalize_one" not in task.name
        )
        if left:
            self.found(Finding(kind="leaked task", message=f"still running: {', '.join(left)}"))
        left_behind = self.resources.left(cut=cut)
        if self.settings.learning:
            self.left = frozenset((*(key for key, _ in left_behind), *self.resources.signals))
            return
        for _, finding in left_behind:
            self.found(finding)

    # --- what a scenario calls through its Exploration ----------------------------------------------

    def publish(self, name: str, scope: trio.CancelScope) -> None:
        """Declare a victim; a name that is declared again stands for the new scope from then on."""
        self.victims[name] = scope
        self._names[scope] = name
        self._event("publish", None, only=name)

    def numbered(self, site: str) -> str:
        """Return a name for the next thing that comes from this place."""
        count = self._name_counts[site] = self._name_counts.get(site, 0) + 1
        return site if count == 1 else f"{site}~{count}"

    def choose(self, options: int) -> int:
        """Let the plan choose a number below ``options``."""
        number = len(self.choices)
        self.choices.append(options)
        planned = self._planned_choices.get(number)
        if planned is None:
            planned = self.scheduler.drawn(options)
        self.chosen.append(min(planned, options - 1))
        return self.chosen[-1]

    def expect(self, predicate: Callable[[], object], within: float | None, text: str) -> None:
        """Let a predicate hold after every step, or once within some seconds."""
        self._predicates.append((predicate, None if within is None else self.now + within, text))

    def log(self, text: str) -> None:
        """Note what the scenario has to say; only a traced run keeps it."""

    # --- events -------------------------------------------------------------------------------------

    def _event(self, kind: Kind, task: Task | None, only: str | None = None) -> None:  # noqa: ARG002
        number, self.events = self.events, self.events + 1
        while number == self._next_strike:
            self._strike(only)
            self._strikes.pop(0)
            self._next_strike = self._strikes[0].event if self._strikes else -1

    def _strike(self, only: str | None) -> None:
        victim = self._strikes[0].victim
        if isinstance(victim, int):
            alive = self.living_victims(only)
            name = alive[victim % len(alive)] if alive else None
        else:
            name = victim if only is None or only == victim else None
        scope = None if name is None else self.victims.get(name)
        if name is None or scope is None or is_over(scope):
            self.missed += 1
            return
        self.struck.append((self.events - 1, name))
        self.watch.struck(scope, name, self.now)
        self._cancel(scope, name)

    def _cancel(self, scope: trio.CancelScope, name: str) -> None:
        was_active, self.active = self.active, False  # not the code's own doing
        scope.cancel(reason=f"the explorer cancels {name}")
        self.active = was_active

    def living_victims(self, only: str | None = None) -> list[str]:
        """Return the names of the victims whose cancellation now would mean something."""
        return [
            name
            for name, scope in self.victims.items()
            if (only is None or name == only) and not scope.cancel_called and not is_over(scope)
        ]

    # --- what Trio calls as its instrument. A hook that raises would be removed in silence. ------------

    def task_spawned(self, task: Task) -> None:
        """Trio's hook: labels are given in the order of spawning."""
        if self.active:
            self.labels.of(task)

    def before_task_step(self, task: Task) -> None:
        """Trio's hook."""
        try:
            if self.struck and is_being_cancelled(task):
                self.watch.is_about_to_raise(task)
            self.steps += 1
            if self.active:
                self._event("step", task)
                if self._predicates:
                    self._check_predicates()
            if self.steps > self._limit:
                self._stop(
                    Finding(kind="livelock", message=f"no end after {self.steps - 1} steps:{waiting(self.labels)}")
                )
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)

    def _check_predicates(self) -> None:
        for entry in tuple(self._predicates):
            predicate, until, text = entry
            holds = self._holds(predicate)
            if until is None and not holds:
                self._predicates.remove(entry)
                self._stop(Finding(kind="check", message=f"no longer true: {text}"))
            elif until is not None and (holds or self.now > until):
                self._predicates.remove(entry)
                if not holds:
                    self._stop(Finding(kind="check", message=f"did not come true in time: {text}"))

    def _holds(self, predicate: Callable[[], object]) -> bool:
        try:
            return bool(predicate())
        except Exception as exc:  # noqa: BLE001 - the scenario's own
            self._stop(Finding(kind="exception", message=f"a predicate raised {exc!r}", exception=exc))
            return True

    # --- what Trio calls as its clock ----------------------------------------------------------------

    def start_clock(self) -> None:
        """Trio's hook."""

    def current_time(self) -> float:
        """Trio's hook. Its run loop asks between two steps; a task that asks must not meet our exception."""
        if self._killed is not None and not _in_a_task():
            raise self._killed
        if self._shown_now is not None and _in_a_task():
            return self._shown_now
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio's hook, called only when nobody can run."""
        try:
            if waits_for_idle():
                self._event("idle", None)
                return math.inf
            if deadline > self.now and not pending_callbacks():
                self._idle(deadline)
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)
        return 0.0

    def _idle(self, deadline: float) -> None:
        before = len(self.struck) + self.missed
        if self.active:
            self._event("idle", None)
        if len(self.struck) + self.missed > before:
            return
        if deadline == math.inf:
            self._stop(Finding(kind="deadlock", message=self._deadlock()))
            return
        deadline = self._untied(deadline)
        self.now = deadline
        self._shown_now = self._deferred.get(deadline)
        if self.active:
            self._event("tick", None)

    def _deadlock(self) -> str:
        outside = f"; it used {self.world.touched}, which cannot wake anybody here" if self.world.touched else ""
        return f"nobody can run and no deadline is set{outside}:{waiting(self.labels)}"

    def _untied(self, deadline: float) -> float:
        """Let one of several timers that are due together go first, if the plan says so; return when it is due."""
        due = scopes_with_deadlines(deadline + self.settings.jitter)
        if len(due) < 2:  # noqa: PLR2004
            return deadline
        due.sort(key=lambda entry: (entry[0], self._order_of_scopes.get(entry[1], 0)))
        number = len(self.ties)
        self.ties.append(len(due) + 1)
        option = self._planned_ties.get(number)
        if option is None:
            option = self.scheduler.drawn(len(due) + 1)
        option = min(option, len(due))
        self.untied.append(option)
        if option == 0:
            return deadline
        first_due, first = due[option - 1]
        later = math.nextafter(first_due, math.inf)
        self._deferred[later] = self._deferred.get(first_due, first_due)
        for other_due, other in due:
            if other is not first and other_due <= first_due:
                other.deadline = later
        return first_due

    # --- what the listeners call ----------------------------------------------------------------------

    def scope_entered(self, scope: trio.CancelScope) -> None:
        """Note a scope, and whether it is a victim without being declared one."""
        self._order_of_scopes[scope] = len(self._order_of_scopes)
        if self.settings.automatic and self.active and scope is not self._root:
            self._consider(scope)

    def _consider(self, scope: trio.CancelScope) -> None:
        site = caller(4)
        if not site:
            return
        name = self.numbered(site)
        self._names[scope] = name
        if scope.deadline < math.inf or name in self.settings.sites:
            self.victims[name] = scope
        elif self.settings.all_scopes:
            self.victims[name] = scope
            self._hypothetical.add(name)

    def scope_cancelled(self, scope: trio.CancelScope) -> None:
        """Note that code cancels a scope: what the scenario itself cancels, it may cancel at any moment."""
        if not (self.settings.automatic and self.active):
            return
        frame, code = caller_frame(3), self._code
        if frame is None or code is None or scope not in self._names:
            return
        if frame.f_code is code or frame.f_code.co_qualname.startswith(code.co_qualname + ".<locals>"):
            self.sites.add(self._names[scope])

    def scope_closed(self, scope: trio.CancelScope, arrived: BaseException | None, left: BaseException | None) -> None:
        """Judge how a scope ended."""
        name = self._names.get(scope)
        if name is None or self._stop_attempts:
            return
        if self.settings.automatic and scope.deadline < math.inf and name not in self.victims:
            self.sites.add(name)
        self.watch.closed(scope, name, arrived, left, self.now)

    def task_exited_with(self, task: Task, error: BaseException | None) -> None:
        """Judge how a task ended."""
        if self.active and not self._stop_attempts:
            self.watch.exited(task, error)

    # --- stopping a run that does not end --------------------------------------------------------------

    def _stop(self, finding: Finding) -> None:
        """Stop the run; called again whenever the attempt before was not enough."""
        if self._stop_attempts == 0:
            self.found(finding)
        self._stop_attempts += 1
        self._limit = self.steps + _LAST_STEPS
        if self._stop_attempts == 1:
            self._cancel(self._root, "a run that does not end")
        elif self._stop_attempts == 2:  # noqa: PLR2004
            for task in living_tasks():
                for scope in scopes_of(task):
                    scope.shield = False
        else:
            self._kill(_Killed())

    def _kill(self, exc: BaseException) -> None:
        self._killed = self._killed or exc

    def execute(self) -> None:
        """Make the run; afterwards the attributes say what happened. Errors of the tool itself are raised."""
        # A collection in the middle of a run may finalize async generators: steps that come and go between two runs.
        collecting = gc.isenabled()
        gc.disable()
        _Listening.current = self
        try:
            with controlled_schedule(self.scheduler):
                run_isolated(self.main, clock=self, instrument=self, world=self.world)
        except trio.TrioInternalError as exc:
            self._crashed(exc)
        finally:
            _Listening.current = None
            if collecting:
                gc.enable()
        if self._killed is not None and not isinstance(self._killed, _Killed):
            if not isinstance(self._killed, KeyboardInterrupt):
                self._killed.add_note(f"while the explorer ran {self.plan}")
            raise self._killed
        if self.findings and self._hypothetical.intersection(name for _, name in self.struck):
            self.findings = [_hypothetical(finding) for finding in self.findings]

    def _crashed(self, exc: trio.TrioInternalError) -> None:
        if self._root_task is not None:
            keep_alive_for_ever(living_tasks(self._root_task))
        cause: BaseException | None = exc
        while cause is not None and not isinstance(cause, KeyboardInterrupt | _Killed):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        if exc.__cause__ is not None and exc.__cause__ is self._killed:
            return
        if not self.findings:
            exc.add_note(f"while the explorer ran {self.plan}")
            raise exc


@final
class TracedRun(ControlledRun):
    """A run that also writes down what happened; some three times slower."""

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
        self.trace.append(Moment(self.now, event, what, task, place, detail))

    def found(self, finding: Finding) -> None:
        """Note what is wrong, on the timeline too."""
        super().found(finding)
        self._note("finding", detail=f"{finding.kind}: {finding.message.splitlines()[0]}")

    def log(self, text: str) -> None:
        """Note what the scenario has to say."""
        try:
            label = self.labels.of(trio.lowlevel.current_task())
        except RuntimeError:
            label = ""
        self._note("log", label, detail=text)

    def task_scheduled(self, task: Task) -> None:
        """Trio's hook."""
        if not is_own(task):
            return
        label = self.labels.of(task)
        self._runnable.add(label)
        try:
            waker = self.labels.of(trio.lowlevel.current_task())
        except RuntimeError:
            waker = "a deadline" if not self.struck else "a deadline or the cancellation"
        self._woken_by[label] = waker

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
            if not is_running(task):
                self._note("ends", label)
                self._places.pop(label, None)
                return
            place = where(task)
            self._places[label] = place
            self._note("parks", label, place)
            self.reached_lines.update(stack(task))
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
        self._note(
            kind,
            label,
            place,
            f"woken by {woken_by}" if woken_by and woken_by != label else only or "",
            event=self.events,
        )
        state = hash((kind, label, only, tuple(sorted(self._places.items())), tuple(sorted(self._runnable))))
        self.points.append(Point(self.events, tuple(self.living_victims(only)), state))
        if task is not None and is_being_cancelled(task):
            self._note("raises", label, place, "Cancelled")
        super()._event(kind, task, only)

    def _cancel(self, scope: trio.CancelScope, name: str) -> None:
        self._note("CANCELS", detail=name)
        super()._cancel(scope, name)


def is_running(task: Task) -> bool:
    """Whether a task has not ended."""
    return inspect.getcoroutinestate(task.coro) != inspect.CORO_CLOSED


def _hypothetical(finding: Finding) -> Finding:
    return Finding(kind=finding.kind, message=finding.message, exception=finding.exception, hypothetical=True)


def _code_of(scenario: Any) -> CodeType | None:
    while hasattr(scenario, "func"):
        scenario = scenario.func
    function = getattr(scenario, "__func__", scenario)
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None:
        code = getattr(getattr(type(scenario), "__call__", None), "__code__", None)
    return code


def _in_a_task() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


@final
class _Listening:
    """The run that the listeners speak to."""

    current: ControlledRun | None = None


@contextmanager
def listening() -> Iterator[Callable[[], None]]:
    """Listen to scopes, tasks and resources for the length of the block; runs are made inside it only.

    Yields a function that has to be called before each run.
    """

    def entered(scope: trio.CancelScope) -> None:
        if _Listening.current is not None:
            _Listening.current.scope_entered(scope)

    def cancelled(scope: trio.CancelScope) -> None:
        if _Listening.current is not None:
            _Listening.current.scope_cancelled(scope)

    def closed(scope: trio.CancelScope, arrived: BaseException | None, left: BaseException | None) -> None:
        if _Listening.current is not None:
            _Listening.current.scope_closed(scope, arrived, left)

    def exited(task: Task, error: BaseException | None) -> None:
        if _Listening.current is not None:
            _Listening.current.task_exited_with(task, error)

    def resources() -> Resources | None:
        run = _Listening.current
        return run.resources if run is not None and run.active else None

    with patched(entered=entered, cancelled=cancelled, closed=closed, exited=exited), tracking(resources) as prepare:
        yield prepare
