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
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
import trio
from attrs import frozen

from ._exploration import Exploration
from ._findings import Finding, without_addresses
from ._leaks import Resources
from ._listening import Listening
from ._oracles import CancellationWatch
from ._parked import Labels, is_own, living_tasks, waiting
from ._schedule import Scheduler
from ._trio_internals import (
    Hooks,
    OutsideWorld,
    cancellation_of,
    count_of_tasks,
    is_over,
    is_parked,
    is_reached,
    keep_alive_for_ever,
    pending_callbacks,
    run_isolated,
    scopes_of,
    waits_for_idle,
)
from ._victims import LATE, ROOT, Victims, code_of
from ._virtual_time import VirtualTime

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ._plan import Plan
    from ._trace import Kind

__all__ = ["ControlledRun", "RunSettings", "Scenario"]

Scenario: TypeAlias = Callable[[Exploration], Awaitable[object]]

# What a run that has to be stopped may still do before the next, harder attempt.
_LAST_STEPS: Final = 2_000
_OWN_AFFAIRS: Final = ("exception", "check")


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
    every_scope: bool = False
    """Whether every scope is one."""
    sites: frozenset[str] = frozenset()
    """Scopes that turn out to be victims only when the scenario cancels them, by name."""
    escapes: frozenset[tuple[str, str]] = frozenset()
    """Errors that leave a victim's scope when nobody is cancelled: (victim, type)."""
    exempt: frozenset[str] = frozenset()
    """What is left behind when nobody is cancelled."""


class ControlledRun(trio.abc.Clock):
    """One run: its clock, its hooks, and what came of it."""

    def __init__(self, plan: Plan, settings: RunSettings, scenario: Scenario) -> None:
        self.plan = plan
        self.settings = settings
        self.findings: list[Finding] = []
        self.events: int = 0
        self.steps: int = 0
        self.fingerprint: int = 0
        """A hash of who ran when and who was cancelled: two runs with the same one went the same way."""
        self.struck: list[tuple[int, str]] = []
        """The cancellations that were made: event and victim."""
        self.missed: int = 0
        """Cancellations of the plan whose victim was not there."""
        self.choices: list[int] = []
        """How many options each choice of the environment had."""
        self.chosen: list[int] = []
        """Which one was taken in each."""
        self.left: frozenset[str] = frozenset()
        """What a run that only learns has left behind, as keys."""
        self.atomics: dict[int, tuple[object, object]] = {}
        """States before and after each uncancelled `Exploration.atomic`, by its number."""
        self.atomic_cuts: list[tuple[int, object, object, str]] = []
        """The same for each that was cancelled, with the place."""
        self.labels = Labels()
        self.world = OutsideWorld()
        self.scheduler = Scheduler(plan, self.labels.of, is_own)
        self.time = VirtualTime(plan.ties, self.scheduler.drawn, settings.jitter)
        self.watch = CancellationWatch(self.found, self.labels.of, settings.escapes, settings.dies_within)
        code = code_of(scenario)
        self.victims = Victims(code, settings.sites, automatic=settings.automatic, every_scope=settings.every_scope)
        self.resources = Resources(code, settings.exempt, self.labels)
        self.active = False
        """Whether the scenario's own code is running, or code it has called."""
        self._scenario = scenario
        self._planned_choices = dict(plan.choices)
        self._strikes = list(plan.strikes)
        self._next_strike = self._strikes[0].event if self._strikes else -1
        self._predicates: list[tuple[Callable[[], object], float | None, str]] = []
        self._limit = settings.max_steps
        self._root = trio.CancelScope()
        self._root_task: Task | None = None
        self._stop_attempts = 0
        self._killed: BaseException | None = None

    # --- the run as a whole -------------------------------------------------------------------------

    @property
    def finding(self) -> Finding | None:
        """What is wrong with the run: what was found first, for what follows may come of it."""
        return self.findings[0] if self.findings else None

    def found(self, finding: Finding) -> None:
        """Note what is wrong."""
        self.findings.append(attrs.evolve(finding, message=without_addresses(finding.message)))

    def execute(self) -> None:
        """Make the run; afterwards the attributes say what happened. Errors of the tool itself are raised."""
        # A collection in the middle of a run may finalize async generators: steps that come and go between two runs.
        collecting = gc.isenabled()
        gc.disable()
        Listening.current = self
        try:
            Listening.order_by(self.scheduler)
            run_isolated(self.main, clock=self, hooks=self._hooks(), world=self.world)
        except trio.TrioInternalError as exc:
            self._crashed(exc)
        finally:
            Listening.current = None
            if collecting:
                gc.enable()
        if self._killed is not None and not isinstance(self._killed, _Killed):
            if not isinstance(self._killed, KeyboardInterrupt):
                self._killed.add_note(f"while the explorer ran {self.plan}")
            raise self._killed
        if self.findings and self.struck:
            self._mark_hypothetical()

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

    def _mark_hypothetical(self) -> None:
        """Mark what comes of cancelling scopes that the code may rely on nobody else to cancel.

        A cancellation that comes early, of a time-out or of a scope that the scenario cancels when it has a winner,
        must not lose anything or block anybody. But what the code makes of it, be it an error, is its own affair: it
        may be right to call a peer lost that was silent for three seconds.
        """
        for _, name in self.struck:
            private = self.victims.is_private(name)
            if private or self.victims.comes_early(name):
                self.findings = [
                    attrs.evolve(finding, hypothetical=True) if private or finding.kind in _OWN_AFFAIRS else finding
                    for finding in self.findings
                ]

    async def main(self) -> None:  # noqa: ASYNC910
        """Be the main task."""
        self._root_task = trio.lowlevel.current_root_task()
        earlier = set(living_tasks())
        tasks = count_of_tasks()
        if self.settings.automatic:
            self.victims.declare(ROOT, self._root)
        self.active = True
        cut = True
        try:
            with self._root:
                await self._scenario(Exploration(self))
                cut = False
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._judge(exc)
        self.active = False
        if not self.findings:
            if count_of_tasks() != tasks:
                self._judge_tasks(earlier)
            self._judge_end(cut=cut)

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
        if any(finding.exception is error for finding in self.findings):
            return
        if isinstance(error, RuntimeError) and "Cancel scope stack corrupted" in str(error):
            self.found(Finding(kind="misnested scope", message=str(error).splitlines()[0], exception=error))
        elif isinstance(error, trio.Cancelled):
            message = "a Cancelled left the scenario, and nobody has cancelled the scenario"
            self.found(Finding(kind="foreign", message=message, exception=error))
        else:
            self.found(Finding(kind="exception", message=f"{type(error).__name__}: {error}", exception=error))

    def _is_reached(self) -> bool:
        task = trio.lowlevel.current_task()
        return any(is_reached(task, self.victims.scopes[name]) for _, name in self.struck)

    def _judge_tasks(self, earlier: set[Task]) -> None:
        left = sorted(
            self.labels.of(task) for task in living_tasks() if task not in earlier and "_finalize_one" not in task.name
        )
        if left:
            self.found(Finding(kind="leaked task", message=f"still running: {', '.join(left)}"))

    def _judge_end(self, *, cut: bool) -> None:
        for predicate, until, text in self._predicates:
            if until is None:
                # No step comes after the last one, before which it would be asked.
                if not self._holds(predicate):
                    self.found(Finding(kind="check", message=f"no longer true: {text}"))
            elif not cut and not self._holds(predicate):
                self.found(Finding(kind="check", message=f"did not come true before the scenario ended: {text}"))
        left_behind = self.resources.left(cut=cut)
        if self.settings.learning:
            self.left = frozenset((*(key for key, _ in left_behind), *self.resources.exceptions))
            return
        for _, finding in left_behind:
            self.found(finding)

    # --- what a scenario calls through its Exploration ----------------------------------------------

    def publish(self, name: str, scope: trio.CancelScope) -> None:
        """Declare a victim."""
        self.victims.declare(name, scope)
        self._event("publish", None, only=name)

    def choose(self, options: int) -> int:
        """Let the plan choose a number below ``options``."""
        planned = self._planned_choices.get(len(self.choices))
        self.choices.append(options)
        self.chosen.append(self.scheduler.drawn(options) if planned is None else min(planned, options - 1))
        return self.chosen[-1]

    def expect(self, predicate: Callable[[], object], within: float | None, text: str) -> None:
        """Let a predicate hold after every step, or once within some seconds."""
        self._predicates.append((predicate, None if within is None else self.time.now + within, text))

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
            alive = self.victims.living(only)
            name = alive[victim % len(alive)] if alive else None
        else:
            name = victim if only is None or only == victim else None
        scope = None if name is None else self.victims.scopes.get(name)
        if name is None or scope is None or is_over(scope):
            self.missed += 1
            return
        self.struck.append((self.events - 1, name))
        self.fingerprint = hash((self.fingerprint, name))
        self.watch.struck(scope, name, self.time.now)
        self._cancel(scope, name)
        for task in living_tasks():
            if task.child_nurseries and is_reached(task, scope) and is_parked(task):
                self.watch.is_passed_on_by(task)

    def _cancel(self, scope: trio.CancelScope, name: str) -> None:
        was_active, self.active = self.active, False  # not the code's own doing
        scope.cancel(reason=f"the explorer cancels {name}")
        self.active = was_active

    # --- what Trio calls as its instrument. A hook must not raise. --------------------------------------

    def _hooks(self) -> Hooks:
        return Hooks(task_spawned=self.task_spawned, before_task_step=self.before_task_step)

    def task_spawned(self, task: Task) -> None:
        """Trio's hook: labels are given in the order of spawning."""
        if self.active:
            self.labels.of(task)

    def before_task_step(self, task: Task) -> None:
        """Trio's hook."""
        try:
            if self.struck and (cancelled := cancellation_of(task)) is not None:
                self.watch.is_about_to_raise(task, cancelled)
            self.steps += 1
            if self.active:
                self.fingerprint = hash((self.fingerprint, self.labels.of(task), self.time.now))
                self._event("step", task)
                if self._predicates:
                    self._check_predicates()
            if self.steps > self._limit:
                self._stop(Finding(kind="livelock", message=self._livelock()))
        except BaseException as exc:  # noqa: ASYNC103, BLE001
            self._kill(exc)

    def _livelock(self) -> str:
        return f"no end after {self.steps - 1} steps:{waiting(self.labels)}"

    def _check_predicates(self) -> None:
        for entry in tuple(self._predicates):
            predicate, until, text = entry
            holds = self._holds(predicate)
            if until is None and not holds:
                self._predicates.remove(entry)
                self._stop(Finding(kind="check", message=f"no longer true: {text}"))
            elif until is not None and (holds or self.time.now > until):
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
        time = self.time
        return time.shown if time.is_late and _in_a_task() else time.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio's hook, called only when nobody can run."""
        try:
            if waits_for_idle():
                self._event("idle", None)
                return math.inf
            # What comes from a foreign thread wakes nobody here.
            if deadline > self.time.now and (self.world.touched or not pending_callbacks()):
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
        tie = len(self.time.ties)
        for index, scope in self.time.move_to(deadline):
            # It fires when all else is quiet; or, as any victim, at an event before that.
            self.victims.declare(f"{LATE}{tie}.{index}", scope)
        if self.active:
            self._event("tick", None)

    def _deadlock(self) -> str:
        outside = f"; it used {self.world.touched}, which cannot wake anybody here" if self.world.touched else ""
        return f"nobody can run and no deadline is set{outside}:{waiting(self.labels)}"

    # --- what the listeners call ----------------------------------------------------------------------

    def scope_entered(self, scope: trio.CancelScope) -> None:
        """Note a scope."""
        self.time.entered(scope)
        if self.active:
            self.victims.entered(scope)

    def scope_cancelled(self, scope: trio.CancelScope) -> None:
        """Note that code cancels a scope."""
        if self.active:
            self.victims.cancelled_by_code(scope)

    def scope_closed(self, scope: trio.CancelScope, arrived: BaseException | None, left: BaseException | None) -> None:
        """Judge how a scope ended."""
        if not self.active or self._stop_attempts:
            return
        name = self.victims.name_of(scope)
        if name is not None:
            self.watch.closed(scope, name, arrived, left, self.time.now)
        self.watch.passed(trio.lowlevel.current_task(), arrived, left)

    def task_exited(self, task: Task, error: BaseException | None) -> None:
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


def _in_a_task() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
