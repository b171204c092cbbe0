"""Hypothesis strategies: let Hypothesis draw, and make smaller, what decides one run of a scenario.

The one module of the kit that loads Hypothesis. What is drawn are plain numbers, all of them before the run: inside
Trio's loop nothing may raise, and Hypothesis raises when it has seen enough. What a number means is found out when the
run is made: the numbers count through what there is to decide in the scenario, around if need be.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, TypeVar, final

import attrs
from attrs import field, frozen
from hypothesis import strategies as st

from ._controlled_run import RunSettings, Scenario
from ._one_run import OneRun, one_run
from ._plan import Deviation, Hold, Order, Plan, Strike
from ._traced_run import TracedRun

__all__ = ["Schedule", "schedules"]

T = TypeVar("T")
Pair: TypeAlias = tuple[int, int]
Kind: TypeAlias = Literal["order", "timer", "hold", "hold long"]

# In this order, for Hypothesis makes a failing example smaller towards the first.
_KINDS: Final[tuple[Kind, ...]] = ("order", "timer", "hold", "hold long")
_FAIR_KINDS: Final = _KINDS[:2]

_LONG: Final = 64
_SHORT: Final = 2
_FEW: Final = 6
_MANY_ANSWERS: Final = 12
# Most scenarios have no more places than this; those beyond are reached too.
_PLACES: Final = st.integers(0, 63) | st.integers(0, (1 << 16) - 1)
_OPTIONS: Final = st.integers(0, 7)


@final
@frozen(kw_only=True, repr=False)
class Schedule:
    """What decides one run, drawn by `schedules`. Without any deviation it is the usual run."""

    newest_first: bool = False
    """Whether within a tick the task spawned last goes first instead of the oldest."""
    deviations: tuple[tuple[Kind, int, int], ...] = ()
    """Deviations: of which kind, at which of the places where there are such, and which other option is taken."""
    answers: tuple[int, ...] = ()
    """What `Exploration.choose` returns, call by call; then 0."""
    cancellations: tuple[Pair, ...] = ()
    """Cancellations: at which of the events at which somebody can be cancelled, and whom of those who can."""
    settings: RunSettings = field(factory=RunSettings, eq=False)
    """What is the same for all schedules of a strategy."""

    def __repr__(self) -> str:
        parts = ["newest task first"] if self.newest_first else []
        parts += [_text(kind, place, option) for kind, place, option in self.deviations]
        if any(self.answers):
            parts.append(f"answers {', '.join(map(str, self.answers))}")
        parts += [_text("cancel at", place, who) for place, who in self.cancellations]
        return f"<Schedule: {'; '.join(parts) or 'the usual run'}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001
        """Hypothesis would show the fields one by one."""
        printer.text(repr(self))

    def run(self, scenario: Scenario) -> None:
        """Make this run of a scenario, and judge it as `explore` does.

        Makes other runs of it to learn what there is to decide: one for each cancellation, and some six when it meets
        this scenario for the first time. Must be called outside any Trio run.

        Args:
            scenario: an async function that takes an `Exploration` and makes everything it uses anew.

        Raises:
            CancellationBug: the run fails; tells its replay string for `explore(scenario, replay=…)`.
            ScenarioError: the scenario is not repeatable, or uses threads or real I/O.
            RuntimeError: inside a Trio run.
        """
        with one_run(scenario, self.settings) as run:
            plan = self._plan(run)
            for place, who in self.cancellations:
                struck = self._struck(run.look(plan), place, who)
                if struck is None:
                    break
                plan = struck
            run.judge(plan)

    def _plan(self, run: OneRun) -> Plan:
        """Find out what the numbers mean, all but those of the cancellations."""
        order: Order = "newest" if self.newest_first else "oldest"
        usual = run.usual
        tasks = [(tick, task) for tick, tasks in enumerate(usual.ticks) for task in tasks]
        holds = {
            tasks[place % len(tasks)]: _LONG if kind == "hold long" else _SHORT
            for kind, place, _ in self.deviations
            if kind.startswith("hold") and tasks
        }
        answers = [
            (number, answer % usual.choices[number] if number < len(usual.choices) else answer)
            for number, answer in enumerate(self.answers)
        ]
        return Plan(
            order=order,
            picks=self._deviations("order", usual.decisions),
            holds=tuple(Hold(tick, task, ticks) for (tick, task), ticks in sorted(holds.items())),
            ties=self._deviations("timer", usual.ties),
            choices=tuple((number, answer) for number, answer in answers if answer),
        )

    def _deviations(self, kind: Kind, options: tuple[int, ...]) -> tuple[Deviation, ...]:
        found = {}
        for one, place, option in self.deviations:
            if one == kind and options:
                number = place % len(options)
                found[number] = 1 + option % (options[number] - 1)
        return tuple(sorted(found.items()))

    def _struck(self, seen: TracedRun, place: int, who: int) -> Plan | None:
        """Return the run's plan with one more cancellation after all others; None if there is nobody to cancel."""
        plan = seen.plan
        after = plan.strikes[-1].event if plan.strikes else -1
        points = [point for point in seen.points if point.victims and point.event > after]
        if not points:
            return None
        point = points[place % len(points)]
        strike = Strike(point.event, point.victims[who % len(point.victims)])
        return attrs.evolve(plan, strikes=(*plan.strikes, strike))


def _text(what: str, place: int, option: int) -> str:
    return f"{what} {place} ({option})" if option else f"{what} {place}"


def schedules(
    *,
    cancellations: int = 1,
    adversarial: bool = True,
    max_steps: int = 100_000,
    dies_within: float | None = None,
    jitter: float = 0.0,
) -> st.SearchStrategy[Schedule]:
    """Draw schedules, each of which makes one run of a scenario: ``@given(schedules())``.

    They become smaller to the usual run: fewer deviations, nobody held back, answers that are the first option, no
    cancellation or an early one.

    Args:
        cancellations: how many in a run, at the most.
        adversarial: whether tasks are also held back over ticks, as Trio may do and hardly ever does.
        max_steps: task steps a run may take.
        dies_within: virtual seconds a victim may take from its cancellation to its end; None allows any time.
        jitter: timers at most so many virtual seconds apart may swap.
    """
    settings = RunSettings(max_steps=max_steps, dies_within=dies_within, jitter=jitter)
    return _schedules(cancellations, _KINDS if adversarial else _FAIR_KINDS, settings)


@st.composite
def _schedules(draw: st.DrawFn, most: int, kinds: tuple[Kind, ...], settings: RunSettings) -> Schedule:
    return Schedule(
        cancellations=draw(_some(st.tuples(_PLACES, _OPTIONS), most)),
        deviations=draw(_some(st.tuples(st.sampled_from(kinds), _PLACES, _OPTIONS), _FEW)),
        answers=draw(_some(_OPTIONS, _MANY_ANSWERS)),
        newest_first=draw(st.booleans()),
        settings=settings,
    )


def _some(elements: st.SearchStrategy[T], most: int) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(elements, max_size=most).map(tuple)
