"""Makes a failing run smaller: fewer cancellations, no task held back, fewer deviations, an earlier event."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final, TypeVar, final

import attrs

from ._engine import LocalEngine, actual_plan
from ._plan import Deviation, Hold, Order, Plan, Strike

__all__ = ["Shrinker"]

T = TypeVar("T")

_MAX_RUNS: Final = 600
_MAX_EARLIER: Final = 80
_NEARBY: Final = 3


@final
class Shrinker:
    """Shrinks one failing plan."""

    def __init__(self, engine: LocalEngine, signature: tuple[str, str]) -> None:
        self.runs = 0
        self._engine = engine
        self._signature = signature

    def shrink(self, plan: Plan) -> Plan:
        """Return the smallest plan found that shows the same."""
        best = self._explicit(plan)
        improved = True
        while improved and self.runs < _MAX_RUNS:
            improved = False
            for candidate in self._candidates(best):
                if self.runs >= _MAX_RUNS:
                    break
                if candidate.weight < best.weight and (shown := self._shows(candidate)) is not None:
                    best, improved = shown, True
                    break
        return best

    def _shows(self, plan: Plan) -> Plan | None:
        self.runs += 1
        run = self._engine.make(plan)
        finding = run.finding
        if finding is None or finding.signature != self._signature or run.missed or finding.hypothetical:
            return None
        return actual_plan(run)

    def _explicit(self, plan: Plan) -> Plan:
        """Replace what a seed decides by the deviations it led to."""
        if plan.priorities is not None or not isinstance(plan.order, int):
            return plan
        self.runs += 1
        run = self._engine.make(plan)
        explicit = Plan(
            picks=_taken(run.scheduler.taken),
            choices=_taken(run.chosen),
            ties=_taken(run.time.taken),
            strikes=actual_plan(run).strikes,
        )
        return self._shows(explicit) or plan

    def _candidates(self, plan: Plan) -> Iterator[Plan]:
        for strike in plan.strikes:
            yield attrs.evolve(plan, strikes=tuple(other for other in plan.strikes if other is not strike))
        if plan.adversarial:
            yield from self._fair(plan)
        if plan.priorities is not None:
            yield from self._deviating_once(plan)
            for changes in range(plan.priorities.changes):
                yield attrs.evolve(plan, priorities=attrs.evolve(plan.priorities, changes=changes))
        for name in ("picks", "choices", "ties", "holds"):
            deviations = getattr(plan, name)
            for fewer in _fewer(deviations):
                replaced: dict[str, Any] = {name: fewer}
                yield attrs.evolve(plan, **replaced)
        yield attrs.evolve(plan, order="oldest")
        if plan.picks:
            yield attrs.evolve(plan, order="newest", picks=())
        yield from self._earlier(plan)

    def _fair(self, plan: Plan) -> Iterator[Plan]:
        """The same cancellation without holding anybody back."""
        orders: tuple[Order, ...] = ("oldest", "newest")
        for order in orders:
            base = Plan(order=order, choices=plan.choices, ties=plan.ties)
            if not plan.strikes:
                yield base
            elif len(plan.strikes) == 1:
                yield from self._everywhere(base, plan.strikes[0])

    def _everywhere(self, base: Plan, strike: Strike) -> Iterator[Plan]:
        self.runs += 1
        survey = self._engine.trace(base)
        seen: set[int] = set()
        for point in survey.points:
            if strike.victim in point.victims and point.state not in seen:
                seen.add(point.state)
                yield attrs.evolve(base, strikes=(Strike(point.event, strike.victim),))

    def _deviating_once(self, plan: Plan) -> Iterator[Plan]:
        """One deviation from the usual order, or one task held back once, instead of priorities."""
        self.runs += 1
        base = Plan(choices=plan.choices, ties=plan.ties)
        survey = self._engine.trace(base)
        if len(plan.strikes) > 1:
            return
        deviating = [
            attrs.evolve(base, picks=((number, option),))
            for number, options in enumerate(survey.scheduler.decisions)
            for option in range(1, options)
        ]
        deviating += [
            attrs.evolve(base, holds=(Hold(tick, task),))
            for tick, tasks in enumerate(survey.scheduler.ticks)
            for task in tasks
        ]
        for once in deviating:
            if not plan.strikes:
                yield once
                continue
            event, victim = plan.strikes[0].event, plan.strikes[0].victim
            for near in range(max(0, event - _NEARBY), event + _NEARBY + 1):
                yield attrs.evolve(once, strikes=(Strike(near, victim),))

    def _earlier(self, plan: Plan) -> Iterator[Plan]:
        for index, strike in enumerate(plan.strikes):
            for event in range(max(0, strike.event - _MAX_EARLIER), strike.event):
                moved = (*plan.strikes[:index], Strike(event, strike.victim), *plan.strikes[index + 1 :])
                if all(one.event < other.event for one, other in itertools.pairwise(moved)):
                    yield attrs.evolve(plan, strikes=moved)


def _taken(options: list[int]) -> tuple[Deviation, ...]:
    return tuple((number, option) for number, option in enumerate(options) if option)


def _fewer(deviations: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """Yield what is left without each half, each quarter, …, each single one."""
    size = len(deviations)
    while size > 0:
        for start in range(0, len(deviations), size):
            rest = deviations[:start] + deviations[start + size :]
            if len(rest) < len(deviations):
                yield rest
        size //= 2
