"""What happens in a scenario when nobody is cancelled: whether it repeats, its victims, what it leaves behind."""

from __future__ import annotations

from typing import Any, Final

import attrs

from ._controlled_run import Scenario
from ._engine import LocalEngine
from ._plan import Order, Plan
from ._trace import difference
from ._traced_run import TracedRun

__all__ = ["BASES", "ScenarioError", "name_of", "require_untouched", "settle"]

BASES: Final[tuple[Order, ...]] = ("oldest", "newest")
"""The two plain orders."""


_SPINNING_STEPS: Final = 5_000


class ScenarioError(Exception):
    """A scenario cannot be explored; says why and what to do."""


def name_of(scenario: Any) -> str:
    """Return what reports call a scenario."""
    while hasattr(scenario, "func"):
        scenario = scenario.func
    return getattr(scenario, "__qualname__", type(scenario).__qualname__).replace("<locals>.", "")


def settle(engine: LocalEngine, scenario: Scenario) -> list[TracedRun]:
    """Make a scenario's usual runs in both plain orders, each twice, and set the engine to judge others by them.

    Raises:
        ScenarioError: two runs with the same choices differ, or the scenario uses threads or real I/O.
    """
    asked = engine.settings
    engine.settings = attrs.evolve(asked, learning=True)
    base = _repeatable(engine, scenario, Plan())
    if base.finding is None and not base.victims.scopes and not asked.automatic:
        engine.settings = attrs.evolve(engine.settings, automatic=True)
        base = _repeatable(engine, scenario, Plan())
    if base.finding is None and base.victims.late_sites:
        engine.settings = attrs.evolve(engine.settings, sites=frozenset(base.victims.late_sites))
        base = _repeatable(engine, scenario, Plan())
    runs = [base]
    if base.finding is None or base.finding.kind != "livelock":
        runs += [_repeatable(engine, scenario, Plan(order=order)) for order in BASES[1:]]
    passing = [run for run in runs if run.finding is None]
    engine.settings = attrs.evolve(
        engine.settings,
        learning=False,
        exempt=frozenset().union(*(run.left for run in passing)),
        escapes=frozenset().union(*(run.watch.escapes for run in passing)),
    )
    return runs


def _repeatable(engine: LocalEngine, scenario: Scenario, plan: Plan) -> TracedRun:
    first = engine.trace(plan)
    if first.finding is not None and first.finding.kind == "livelock" and first.steps > _SPINNING_STEPS:
        # Having made sure that it spins, see it do so for a shorter while.
        engine.settings = attrs.evolve(engine.settings, max_steps=_SPINNING_STEPS)
        first = engine.trace(plan)
    second = engine.trace(plan)
    require_untouched(first.world.touched, scenario)
    differs = difference(first.trace, second.trace)
    if differs is not None:
        raise ScenarioError(
            f"{name_of(scenario)} is not deterministic: two runs with the same choices differ.{differs}\n"
            "  Make everything it uses anew in each run; take ids from counters, not from uuid4 or id();"
            " use no random, no wall clock, and no order of sets."
        )
    return first


def require_untouched(touched: str | None, scenario: Scenario) -> None:
    """Refuse a scenario of which a run has used something of the outside world.

    Raises:
        ScenarioError: naming what it used.
    """
    if touched is not None:
        raise ScenarioError(
            f"{name_of(scenario)} uses {touched}: that can be neither ordered nor repeated; replace it by a fake"
        )
