"""Makes one run of a scenario and judges it as `explore` would. Decides nothing: its caller chooses the run.

A run can be chosen by looking at the same run without its cancellations: `OneRun.look` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, final
from weakref import WeakKeyDictionary

import attrs
import trio

from ._controlled_run import RunSettings, Scenario, TracedRun, listening
from ._coverage import measure
from ._engine import LocalEngine, Survey, actual_plan
from ._explore import ScenarioError
from ._plan import Plan
from ._report import CancellationBug, Failure, Report
from ._trace import difference
from ._trio_internals import require_internals

if TYPE_CHECKING:
    from ._findings import Finding

__all__ = ["OneRun", "one_run"]

_PLAIN_RUNS: Final = 200

# How many plain runs show a failure is counted once: whoever makes a failing run smaller meets it a hundred times.
_plain: dict[object, int] = {}

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
    with listening() as prepare:
        yield OneRun(scenario, LocalEngine(scenario, settings, prepare))


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

    @property
    def _name(self) -> str:
        function: Any = self._scenario
        while hasattr(function, "func"):
            function = function.func
        return getattr(function, "__qualname__", type(function).__qualname__).replace("<locals>.", "")

    def _settle(self) -> Survey:
        engine = self._engine
        engine.settings = attrs.evolve(engine.settings, learning=True)
        base = self._repeatable(Plan())
        if base.finding is None and not base.victims:
            engine.settings = attrs.evolve(engine.settings, automatic=True)
            base = self._trace(Plan())
            engine.settings = attrs.evolve(engine.settings, sites=frozenset(base.sites))
            base = self._trace(Plan())
        passing = [run for run in (base, self._trace(Plan(order="newest"))) if run.finding is None]
        engine.settings = attrs.evolve(
            engine.settings,
            learning=False,
            exempt=frozenset().union(*(run.left for run in passing)),
            escapes=frozenset().union(*(run.watch.escapes for run in passing)),
        )
        if base.finding is not None:
            self._raise(base, base.finding)
        return Survey(
            points=tuple(base.points),
            decisions=tuple(base.scheduler.decisions),
            choices=tuple(base.choices),
            ties=tuple(base.ties),
            ticks=tuple(base.scheduler.ticks),
        )

    def _repeatable(self, plan: Plan) -> TracedRun:
        first, second = self._trace(plan), self._trace(plan)
        if (differs := difference(first.trace, second.trace)) is not None:
            raise ScenarioError(f"{self._name} is not deterministic: two runs with the same choices differ.{differs}")
        return first

    def _trace(self, plan: Plan) -> TracedRun:
        self._runs += 1
        run = self._engine.trace(plan)
        if run.world.touched is not None:
            raise ScenarioError(
                f"{self._name} uses {run.world.touched}: that can be neither ordered nor repeated; replace it by a fake"
            )
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
            plain=self._plain_runs_that_show(finding),
            trace=tuple(run.trace),
            note="it fails by itself, without any cancellation and in the usual order" if plan == Plan() else None,
            exception=finding.exception,
        )
        report = Report(
            scenario=self._name,
            failures=(failure,),
            runs=self._runs,
            schedules=1,
            points=len(plan.strikes),
            cancelled=bool(plan.strikes),
            exhausted=False,
            strikes=frozenset(run.watch.strikes),
            coverage=measure((), (), ()),
        )
        raise CancellationBug(f"{self._name}: {failure}", report) from finding.exception

    def _plain_runs_that_show(self, finding: Finding) -> int:
        key = self._key(), finding.signature
        if key not in _plain:
            runs = (self._engine.make(Plan(order=seed)).finding for seed in range(_PLAIN_RUNS))
            _plain[key] = sum(found is not None and found.signature == finding.signature for found in runs)
        return _plain[key]

    def _key(self) -> object:
        function: Any = self._scenario
        while hasattr(function, "func"):
            function = function.func
        return getattr(function, "__code__", function)
