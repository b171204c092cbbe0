"""Makes one run of a scenario and judges it as `explore` would. Decides nothing: its caller chooses the run.

A run can be chosen by looking at the same run without its cancellations: `OneRun.look` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary

import trio

from ._controlled_run import RunSettings, Scenario
from ._coverage import measure
from ._engine import LocalEngine, Survey, actual_plan, survey_of
from ._listening import listening
from ._plan import Plan
from ._report import CancellationBug, Failure, Report
from ._traced_run import TracedRun
from ._trio_internals import require_internals
from ._usual import BASES, name_of, require_untouched, settle

if TYPE_CHECKING:
    from ._findings import Finding

__all__ = ["OneRun", "one_run"]

# What is usual in a scenario, by the scenario and the settings asked for: learned once as long as the scenario lives.
_usual: WeakKeyDictionary[Scenario, dict[RunSettings, tuple[RunSettings, Survey]]] = WeakKeyDictionary()


@contextmanager
def one_run(scenario: Scenario, settings: RunSettings) -> Iterator[OneRun]:
    """Learn what is usual in a scenario; make and judge runs of it within the block.

    Raises:
        ScenarioError: the scenario is not repeatable, or uses threads or real I/O.
        RuntimeError: inside a Trio run.
        CancellationBug: the scenario fails by itself.
    """
    require_internals()
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("a schedule makes its own Trio runs: call it from a synchronous function")
    with listening():
        yield OneRun(scenario, LocalEngine(scenario, settings))


@final
class OneRun:
    """A scenario whose usual run is known."""

    def __init__(self, scenario: Scenario, engine: LocalEngine) -> None:
        self._scenario = scenario
        self._engine = engine
        self._runs = 0
        known: dict[RunSettings, tuple[RunSettings, Survey]] = {}
        with suppress(TypeError):  # neither is every callable hashable, nor can every one be referred to weakly
            known = _usual.setdefault(scenario, known)
        asked = engine.settings
        if asked not in known:
            survey = self._settle()
            known[asked] = engine.settings, survey
        engine.settings, self.usual = known[asked]
        """What there is to decide in the run without any deviation and cancellation."""

    def _settle(self) -> Survey:
        base = settle(self._engine, self._scenario)[0]
        self._runs += len(BASES)
        if base.finding is not None:
            self._raise(base, base.finding)
        return survey_of(base)

    def _trace(self, plan: Plan) -> TracedRun:
        self._runs += 1
        run = self._engine.trace(plan)
        require_untouched(run.world.touched, self._scenario)
        return run

    def look(self, plan: Plan) -> TracedRun:
        """Make a run to find out where it can be cancelled and otherwise changed.

        Raises:
            CancellationBug: it fails.
        """
        run = self._trace(plan)
        if run.finding is not None:
            self._raise(run, run.finding)
        return run

    def judge(self, plan: Plan) -> None:
        """Make a run.

        Raises:
            CancellationBug: it fails.
        """
        self._runs += 1
        run = self._engine.make(plan)
        if run.finding is not None or run.world.touched is not None:
            self.look(plan)

    def _raise(self, run: TracedRun, finding: Finding) -> None:
        plan = actual_plan(run)
        failure = Failure(
            kind=finding.kind,
            message=finding.message,
            plan=plan,
            found_after=1,
            plain=None,
            trace=tuple(run.trace),
            note="it fails by itself, without any cancellation and in the usual order" if plan == Plan() else None,
            exception=finding.exception,
        )
        report = Report(
            scenario=name_of(self._scenario),
            failures=(failure,),
            runs=self._runs,
            schedules=1,
            points=len(plan.strikes),
            cancelled=bool(plan.strikes),
            traces=1,
            exhausted=False,
            strikes=frozenset(run.watch.strikes),
            coverage=measure((), (), ()),
        )
        raise CancellationBug(f"{name_of(self._scenario)}: {failure}", report) from finding.exception
