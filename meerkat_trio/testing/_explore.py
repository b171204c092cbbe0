"""`explore`: runs a scenario many times under control of what may differ, and hands back the smallest failing run."""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, final

import attrs
import trio
from attrs import frozen

from ._controlled_run import RunSettings, Scenario
from ._coverage import measure, source_files
from ._engine import Engine, LocalEngine, Outcome, interruptible, open_workers, survey_of
from ._findings import Finding
from ._listening import listening
from ._plan import Plan, Strike, parse_replay
from ._report import Failure, Report
from ._search import Search, Tally
from ._shrink import Shrinker
from ._trace import difference, first_difference, hash_of
from ._traced_run import TracedRun
from ._trio_internals import require_internals
from ._usual import BASES, ScenarioError, name_of, require_untouched, settle

__all__ = ["DEFAULT_BUDGET", "Progress", "explore"]

DEFAULT_BUDGET: Final = 10.0
"""Seconds."""
_PLAIN_RUNS: Final = 200
_PLAIN_STEPS: Final = 200_000
_MAX_STEPS: Final = 100_000
_TIMES_STEPS: Final = 20
_MORE_STEPS: Final = 2_000

Progress: TypeAlias = Callable[[int, float], object]
"""Is told the runs made so far and the share of the budget that is used up, 0 to 1."""


@frozen(kw_only=True)
class _Bounds:
    budget: float
    runs: float
    max_failures: int
    adversarial: bool
    seed: int
    effort: float
    max_steps_given: bool


def explore(
    scenario: Scenario,
    *,
    budget: float | None = None,
    runs: int | None = None,
    mode: Literal["fair", "adversarial"] = "adversarial",
    victims: Literal["declared", "all"] = "declared",
    seed: int = 0,
    workers: int = 1,
    max_steps: int | None = None,
    max_failures: int = 1,
    dies_within: float | None = None,
    jitter: float = 0.0,
    source: Sequence[str] = (),
    replay: str | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Run a scenario again and again, each time with another schedule, cancellation, timing or answer.

    A cancellation can arrive at every event of the scheduler: before any step of any task, whenever the clock moves,
    and when a victim is declared. Time is virtual. What counts as a failure without any assertion is in
    docs/checker.md; asserts and checks of the scenario count too. Must be called outside any Trio run, by one thread at
    a time, on a scenario without threads and real I/O, which must make everything it uses anew.

    Args:
        scenario: an async function; it is given an `Exploration`.
        budget: seconds at the most; 10 unless this or ``runs`` is given. The random tiers grow with it.
        runs: runs at the most; the result then does not depend on the machine's speed.
        mode: ``fair`` explores orders within a tick only; ``adversarial`` also holds tasks back over ticks.
        victims: ``declared``: those the scenario declares; if it declares none, its root, scopes with a deadline, and
            scopes that the scenario's own code cancels. ``all``: every scope; what only this finds is hypothetical.
        seed: of the random tiers.
        workers: processes; with ``runs``, or when everything was tried, the report is the same for any number of them.
        max_steps: task steps a run may take; unless given, 20 times what an uncancelled run takes, and 2,000 more.
        max_failures: different failures after which to stop.
        dies_within: virtual seconds a victim may take from its cancellation to its end; None allows any time.
        jitter: timers at most so many virtual seconds apart may swap.
        source: packages, modules, folders or files whose await lines count for coverage; else those of the scenario.
        replay: a failure's `replay`: make only this run, and if it went another way, those near it.
        on_progress: is called after each wave of runs.

    Returns:
        The report; `raise_if_failed()` is the usual end of a test.

    Raises:
        ScenarioError: the scenario is not async, is not repeatable, or uses threads or real I/O.
        ValueError: an argument is of no use, or the replay string cannot be read.
        RuntimeError: inside a Trio run, or if the Trio version is not one this can control.
    """
    require_internals()
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("explore makes its own Trio runs: call it from a synchronous function")
    _require_async(scenario)
    for name, value, least in (
        ("budget", budget, 0.0),
        ("runs", runs, 1),
        ("workers", workers, 1),
        ("max_steps", max_steps, 1),
        ("max_failures", max_failures, 1),
        ("dies_within", dies_within, 0.0),
        ("jitter", jitter, 0.0),
    ):
        if value is not None and not value >= least:
            raise ValueError(f"{name}: {least} or more is needed, not {value!r}")
    if mode not in ("fair", "adversarial"):
        raise ValueError(f"mode: fair or adversarial is needed, not {mode!r}")
    if victims not in ("declared", "all"):
        raise ValueError(f"victims: declared or all is needed, not {victims!r}")
    planned = None if replay is None else parse_replay(replay)
    settings = RunSettings(
        max_steps=_MAX_STEPS if max_steps is None else max_steps,
        dies_within=dies_within,
        jitter=jitter,
        automatic=victims == "all",
        every_scope=victims == "all",
    )
    bounds = _Bounds(
        budget=budget if budget is not None else DEFAULT_BUDGET if runs is None else math.inf,
        runs=math.inf if runs is None else runs,
        max_failures=max_failures,
        adversarial=mode == "adversarial",
        seed=seed,
        max_steps_given=max_steps is not None,
        effort=1.0 if budget is None else max(1.0, budget / DEFAULT_BUDGET),
    )
    with listening(), interruptible():
        work = _Work(scenario, LocalEngine(scenario, settings), bounds, source, on_progress)
        if planned is not None:
            work.replay(*planned)
        else:
            work.explore(workers)
        return work.report()


def _require_async(scenario: Any) -> None:
    function = scenario
    while hasattr(function, "func"):
        function = function.func
    if not callable(function):
        raise ScenarioError(f"a scenario is an async function that takes an Exploration, not {scenario!r}")
    if inspect.isasyncgenfunction(function):
        raise ScenarioError(f"{name_of(scenario)} is an async generator: a scenario must not yield")
    if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose call is async will do
    ):
        raise ScenarioError(f"{name_of(scenario)} is not async: a scenario is written `async def name(x): …`")
    try:
        inspect.signature(scenario).bind(None)
    except TypeError as error:
        raise ScenarioError(
            f"{name_of(scenario)} cannot be called with an Exploration alone ({error}):"
            " a scenario is written `async def name(x): …`"
        ) from None


@final
class _Work:
    """One call of `explore` as it goes on."""

    def __init__(
        self,
        scenario: Scenario,
        engine: LocalEngine,
        bounds: _Bounds,
        source: Sequence[str],
        on_progress: Progress | None,
    ) -> None:
        self._scenario = scenario
        self._engine = engine
        self._bounds = bounds
        self._source = source_files(source)
        self._on_progress = on_progress
        self._begun = time.monotonic()
        self._tally = Tally()
        self._extra_runs = 0
        self._failures: list[Failure] = []
        self._hypothetical: list[Failure] = []
        self._signatures: set[tuple[bool, tuple[str, str]]] = set()
        self._strikes: set[tuple[str, str]] = set()
        self._struck_lines: set[tuple[str, int]] = set()
        self._reached_lines: set[tuple[str, int]] = set()
        self._victims: set[str] = set()

    def _settle(self) -> list[TracedRun]:
        """Find out what happens when nobody is cancelled; return the runs in both plain orders that pass."""
        runs = settle(self._engine, self._scenario)
        if not self._bounds.max_steps_given:
            limit = _MORE_STEPS + _TIMES_STEPS * max(run.steps for run in runs)
            self._engine.settings = attrs.evolve(
                self._engine.settings, max_steps=min(self._engine.settings.max_steps, limit)
            )
        for run in runs:
            self._victims |= run.victims.scopes.keys()
            self._notice(self._engine.outcome(run))
            if run.finding is not None:
                self._judge(run.plan, run.finding)
        return [run for run in runs if run.finding is None]

    # --- exploring --------------------------------------------------------------------------------------

    def explore(self, workers: int) -> None:
        """Make runs until everything was tried, enough was found, or the bounds are reached."""
        settled = self._settle()
        if len(settled) < len(BASES) and self._failures:
            return
        search = Search(
            [(run.plan, survey_of(run)) for run in settled],
            seed=self._bounds.seed,
            adversarial=self._bounds.adversarial,
            effort=self._bounds.effort,
            tally=self._tally,
        )
        deadline = self._begun + self._bounds.budget
        with open_workers(self._engine, workers) as engine:
            self._explore(search, engine, deadline)

    def _explore(self, search: Search, engine: Engine, deadline: float) -> None:
        for wave in search.waves():
            jobs = wave[: self._runs_left()]
            outcomes = engine.run(jobs, deadline)
            for outcome in outcomes:
                search.learn(outcome)
                self._notice(outcome)
                if outcome.finding is not None:
                    self._judge(outcome.plan, outcome.finding)
                    if len(self._failures) >= self._bounds.max_failures:
                        return
            if len(outcomes) < len(wave):
                return
            self._progress()

    def _runs_left(self) -> int:
        left = self._bounds.runs - self._tally.runs
        return int(min(left, 1 << 30))

    def _progress(self) -> None:
        if self._on_progress is not None:
            used = max(
                (time.monotonic() - self._begun) / self._bounds.budget if self._bounds.budget else 1.0,
                self._tally.runs / self._bounds.runs,
            )
            self._on_progress(self._tally.runs, min(1.0, used))

    def _notice(self, outcome: Outcome) -> None:
        self._strikes |= outcome.strikes
        self._struck_lines |= outcome.struck_lines
        self._reached_lines |= outcome.reached_lines
        require_untouched(outcome.touched, self._scenario)

    # --- failures -----------------------------------------------------------------------------------------

    def _judge(self, plan: Plan, finding: Finding) -> None:
        key = finding.hypothetical, finding.signature
        if key in self._signatures:
            return
        self._signatures.add(key)
        found_after = self._tally.runs + self._extra_runs
        if not finding.hypothetical:
            shrinker = Shrinker(self._engine, finding.signature)
            plan = shrinker.shrink(plan)
            self._extra_runs += shrinker.runs
        failure = self._failure(
            plan,
            finding,
            found_after,
            plain=self._plain_runs_that_show(finding),
        )
        (self._hypothetical if finding.hypothetical else self._failures).append(failure)

    def _failure(
        self, plan: Plan, finding: Finding, found_after: int, *, plain: tuple[int | None, int] = (None, _PLAIN_RUNS)
    ) -> Failure:
        run, again = self._engine.trace(plan), self._engine.trace(plan)
        self._extra_runs += 2
        note = None
        shown = run.finding or finding
        if run.finding is None or run.finding.signature != finding.signature:
            note = f"not repeatable: the same plan once more gave {run.finding}"
        elif difference(run.trace, again.trace) is not None:
            note = f"not repeatable: two runs of this plan differ:{difference(run.trace, again.trace)}"
        elif plan == Plan():
            note = (
                "it fails by itself, without any cancellation and in the usual order:"
                " make the scenario pass first, then explore it"
            )
        return Failure(
            kind=shown.kind,
            message=shown.message,
            plan=plan,
            found_after=found_after,
            plain=plain[0],
            plain_runs=plain[1],
            trace=tuple(run.trace),
            passing=self._nearest_passing(plan, run),
            note=note,
            hypothetical=finding.hypothetical,
            exception=shown.exception,
        )

    def _plain_runs_that_show(self, finding: Finding) -> tuple[int, int]:
        """Return how many plain runs show it, of how many; fewer are made of a scenario that takes very many steps."""
        rng = random.Random(self._bounds.seed)  # noqa: S311
        shown = made = steps = 0
        while made < _PLAIN_RUNS and steps < _PLAIN_STEPS:
            run = self._engine.make(Plan(order=rng.randrange(1 << 30)))
            made += 1
            steps += run.steps
            shown += run.finding is not None and run.finding.signature == finding.signature
        self._extra_runs += made
        return shown, made

    def _nearest_passing(self, plan: Plan, failing: TracedRun) -> str | None:
        for what, near in _neighbours(plan):
            run = self._engine.trace(near)
            self._extra_runs += 1
            if run.finding is not None or run.missed:
                continue
            index = first_difference(failing.trace, run.trace)
            if index is None:
                continue
            here, there = (trace[index] if index < len(trace) else "its end" for trace in (failing.trace, run.trace))
            return f"{what}; the runs part at\n  failing: {here}\n  passing: {there}"
        return None

    # --- replaying ----------------------------------------------------------------------------------------

    def replay(self, plan: Plan, expected_hash: str) -> None:
        """Make one run; if it is not the one it was, look nearby."""
        self._settle()
        self._failures.clear()
        self._hypothetical.clear()
        self._signatures.clear()
        run = self._engine.trace(plan)
        self._tally.cancelled += bool(run.struck)
        self._extra_runs += 1
        self._notice(self._engine.outcome(run))
        actual = hash_of(run.trace)
        note = None
        if run.missed or (expected_hash and actual != expected_hash):
            missed = "; a victim of it was not there" if run.missed else ""
            note = f"the replay went another way than when the string was made (trace {actual}){missed}"
            if run.finding is None:
                run, plan = self._nearby(plan) or (run, plan)
        if run.finding is not None:
            finding = run.finding
            failure = self._failure(plan, finding, 1)
            found = self._hypothetical if finding.hypothetical else self._failures
            found.append(failure if note is None else attrs.evolve(failure, note=note))

    def _nearby(self, plan: Plan) -> tuple[TracedRun, Plan] | None:
        for index, strike in enumerate(plan.strikes):
            survey = self._engine.trace(plan.unstruck)
            known = {victim for point in survey.points for victim in point.victims}
            wanted = [strike.victim] if strike.victim in known else sorted(known)
            for point in sorted(survey.points, key=lambda point: abs(point.event - strike.event)):
                for victim in wanted:
                    if victim not in point.victims:
                        continue
                    moved = (*plan.strikes[:index], Strike(point.event, victim), *plan.strikes[index + 1 :])
                    near = attrs.evolve(plan, strikes=moved)
                    self._extra_runs += 1
                    if self._engine.make(near).finding is not None:
                        return self._engine.trace(near), near
        return None

    # --- reporting ----------------------------------------------------------------------------------------

    def report(self) -> Report:
        """Say what was done and found."""
        files = self._source or tuple({file for file, _ in (*self._reached_lines, *self._struck_lines)})
        warnings = []
        all_tried = self._tally.exhausted or self._tally.cancelled >= self._tally.points > 0
        if self._victims and all_tried and not self._strikes and not self._failures:
            warnings.append(
                f"no cancellation was ever delivered: nothing awaits inside {', '.join(sorted(self._victims)[:3])};"
                " enter the scope that x.victim() returns around what is to be cancelled"
            )
        return Report(
            scenario=name_of(self._scenario),
            failures=tuple(self._failures),
            hypothetical=tuple(self._hypothetical),
            runs=self._tally.runs + self._extra_runs,
            schedules=self._tally.schedules,
            points=self._tally.points,
            cancelled=self._tally.cancelled,
            traces=len(self._tally.fingerprints),
            exhausted=self._tally.exhausted,
            strikes=frozenset(self._strikes),
            coverage=measure(files, self._reached_lines, self._struck_lines),
            warnings=tuple(warnings),
        )


def _neighbours(plan: Plan) -> list[tuple[str, Plan]]:
    near: list[tuple[str, Plan]] = []
    if plan.strikes:
        last = plan.strikes[-1]
        for event in (last.event + 1, last.event - 1):
            if event >= 0:
                moved = attrs.evolve(plan, strikes=(*plan.strikes[:-1], Strike(event, last.victim)))
                near.append((f"cancelled at event {event} instead", moved))
        near.append(("nobody cancelled", plan.unstruck))
    for name, one in (("picks", "order"), ("holds", "hold"), ("choices", "choice"), ("ties", "tie")):
        if deviations := getattr(plan, name):
            near.append((f"without the last deviation ({one})", attrs.evolve(plan, **{name: deviations[:-1]})))
    near.append(("the usual order, nobody cancelled", Plan()))
    return near
