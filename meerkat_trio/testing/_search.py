"""Which runs to make: tiers of plans, cheapest first, each wave decided by what the waves before have shown.

1. the sweep: one cancellation at every event of the two plain orders, oldest first and newest first
2. every schedule with one deviation, then with two: another order, another answer, another timer, a task held back;
   first without a cancellation, then with one at every event
3. at random: orders within ticks, one task at a time with changing priorities, and two cancellations

Events in which every task is where it was in an event tried before are tried after all others. The second and the
third tier take turns, so that a large second one does not starve the third.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, final

import attrs
from attrs import define, field

from ._engine import Job, Outcome
from ._plan import Deviation, Hold, Order, Plan, Priorities, Strike

if TYPE_CHECKING:
    from ._engine import Survey

__all__ = ["Search", "Tally"]

_WAVE: Final = 192
_MAX_DEVIATIONS: Final = 2
_SHORT_HOLD: Final = 2
_QUOTA: Final = {"orders": 400, "priorities": 400, "pairs": 200}
_MAX_WAITING: Final = 200_000


@define
class Tally:
    """What a search has done so far."""

    runs: int = 0
    """Runs made."""
    schedules: int = 0
    """Different schedules that were enumerated."""
    points: int = 0
    """Places for a cancellation, over these schedules, that were enumerated."""
    cancelled: int = 0
    """Runs with a cancellation."""
    fingerprints: set[int] = field(factory=set)
    """The ways that runs went."""
    exhausted: bool = False
    """Whether everything up to the bounds was tried."""


@final
class Search:
    """Yields waves of jobs and is told what came of each."""

    def __init__(
        self,
        surveys: list[tuple[Plan, Survey]],
        *,
        seed: int,
        adversarial: bool,
        effort: float,
        tally: Tally,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311
        self._adversarial = adversarial
        self._effort = effort
        self._tally = tally
        self._seen: set[tuple[str, int]] = set()
        self._fresh: deque[Job] = deque()
        self._schedules: deque[Job] = deque()
        self._again: deque[Job] = deque()
        self._overflow = False
        self._events = max(survey.points[-1].event + 1 if survey.points else 1 for _, survey in surveys)
        self._has_victims = any(point.victims for _, survey in surveys for point in survey.points)
        self._has_choices = any(survey.choices or survey.ties for _, survey in surveys)
        self._has_orders = any(survey.decisions for _, survey in surveys)
        for plan, survey in surveys:
            self._add_points(plan, survey)
        for plan, survey in surveys[:1]:
            self._add_deviations(plan, survey)

    @property
    def _is_open(self) -> bool:
        return self._has_orders or self._has_choices

    def waves(self) -> Iterator[list[Job]]:
        """Yield waves until everything up to the bounds was tried. `learn` has to be called in between."""
        yield from self._wave_of(self._fresh, len(self._fresh))
        at_random = self._at_random()
        more_at_random = True
        while True:
            wave: list[Job] = []
            for queue, share in ((self._schedules, 48), (self._fresh, 64), (self._again, 32)):
                wave += [queue.popleft() for _ in range(min(share, len(queue)))]
            systematic = bool(wave)
            for _ in range(48 if systematic else _WAVE):
                job = next(at_random, None)
                if job is None:
                    more_at_random = False
                    break
                wave.append(job)
            if wave:
                yield wave
            if not (self._schedules or self._fresh or self._again or more_at_random):
                break
        self._tally.exhausted = not self._overflow

    def _wave_of(self, queue: deque[Job], count: int) -> Iterator[list[Job]]:
        while count > 0:
            wave = [queue.popleft() for _ in range(min(_WAVE, count, len(queue)))]
            if not wave:
                return
            count -= len(wave)
            yield wave

    def learn(self, outcome: Outcome) -> None:
        """Go on from what a run has shown."""
        self._tally.runs += 1
        self._tally.cancelled += bool(outcome.plan.strikes)
        self._tally.fingerprints.add(outcome.fingerprint)
        survey = outcome.survey
        if survey is not None and outcome.finding is None:
            self._add_points(outcome.plan, survey)
            if _deviations(outcome.plan) < _MAX_DEVIATIONS:
                self._add_deviations(outcome.plan, survey)

    # --- the systematic tiers -------------------------------------------------------------------------

    def _add_points(self, plan: Plan, survey: Survey) -> None:
        self._tally.schedules += 1
        for point in survey.points:
            for victim in point.victims:
                self._tally.points += 1
                job = Job(attrs.evolve(plan, strikes=(Strike(point.event, victim),)))
                key = victim, point.state
                if key not in self._seen:
                    self._seen.add(key)
                    self._fresh.append(job)
                elif len(self._again) < _MAX_WAITING:
                    self._again.append(job)
                else:
                    self._overflow = True

    def _add_deviations(self, plan: Plan, survey: Survey) -> None:
        found = [Job(deviating, survey=True) for deviating in self._deviating(plan, survey)]
        # Two deviations are many: a sample of them is spread over the whole, whenever the time ends.
        if _deviations(plan):
            self._rng.shuffle(found)
        if len(self._schedules) + len(found) > _MAX_WAITING:
            self._overflow = True
            return
        self._schedules.extend(found)

    def _deviating(self, plan: Plan, survey: Survey) -> Iterator[Plan]:
        """Yield the plans with one more deviation, in such an order that no two plans yield the same one."""
        if not (plan.choices or plan.ties or plan.holds):
            for pick in _further(plan.picks, survey.decisions):
                yield attrs.evolve(plan, picks=(*plan.picks, pick))
        if not (plan.ties or plan.holds):
            for choice in _further(plan.choices, survey.choices):
                yield attrs.evolve(plan, choices=(*plan.choices, choice))
        if not plan.holds:
            for tie in _further(plan.ties, survey.ties):
                yield attrs.evolve(plan, ties=(*plan.ties, tie))
        if self._adversarial:
            start = plan.holds[-1].tick + 1 if plan.holds else 0
            for tick in range(start, len(survey.ticks)):
                for task in survey.ticks[tick]:
                    yield attrs.evolve(plan, holds=(*plan.holds, Hold(tick, task)))
                    yield attrs.evolve(plan, holds=(*plan.holds, Hold(tick, task, _SHORT_HOLD)))

    # --- the random tiers -----------------------------------------------------------------------------

    def _at_random(self) -> Iterator[Job]:
        kinds: list[tuple[int, Callable[[], Plan]]] = []
        if self._is_open:
            kinds.append((self._quota("orders"), self._random_order))
            if self._adversarial and self._has_orders:
                kinds.append((self._quota("priorities"), self._random_priorities))
        if self._has_victims:
            kinds.append((self._quota("pairs"), self._random_pair))
        number = 0
        while any(number < quota for quota, _ in kinds):
            for quota, make in kinds:
                if number < quota:
                    yield Job(make())
            number += 1

    def _quota(self, kind: str) -> int:
        return round(_QUOTA[kind] * self._effort)

    def _random_order(self) -> Plan:
        return Plan(order=self._rng.randrange(1 << 30), strikes=self._random_strikes(1))

    def _random_priorities(self) -> Plan:
        changes = self._rng.randrange(4)
        spec = Priorities(self._rng.randrange(1 << 30), changes, self._events)
        return Plan(priorities=spec, strikes=self._random_strikes(1))

    def _random_pair(self) -> Plan:
        order: Order = self._rng.randrange(1 << 30) if self._is_open else "oldest"
        return Plan(order=order, strikes=self._random_strikes(2))

    def _random_strikes(self, count: int) -> tuple[Strike, ...]:
        if not self._has_victims or (count == 1 and self._rng.random() < 0.1):  # noqa: PLR2004 - a tenth go without
            return ()
        events = sorted({self._rng.randrange(self._events) for _ in range(count)})
        return tuple(Strike(event, self._rng.randrange(1 << 10)) for event in events)


def _further(taken: tuple[Deviation, ...], options: tuple[int, ...]) -> Iterator[Deviation]:
    """Yield what can be added to the deviations taken, behind the last of them."""
    start = taken[-1][0] + 1 if taken else 0
    for number in range(start, len(options)):
        for option in range(1, options[number]):
            yield number, option


def _deviations(plan: Plan) -> int:
    return len(plan.picks) + len(plan.choices) + len(plan.ties) + len(plan.holds)
