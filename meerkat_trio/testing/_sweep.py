"""`cancel_at_every_event`: run a scenario again and again, and cancel each of its victims at each event once.

Decides which runs to make and says what came of them; a single run is `_controlled_run`'s. Knows nothing of what it
tests, and needs no test framework.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, final

import attrs
import trio

from ._controlled_run import ControlledRun, NotRepeatable, Plan, Sweep, TracedRun
from ._trace import Point, difference, timeline
from ._trio_internals import Order, require_internals

__all__ = ["Sweep", "SweepFailed", "SweepFailure", "SweepReport", "cancel_at_every_event"]

Scenario: TypeAlias = Callable[[Sweep], Awaitable[object]]
Replay: TypeAlias = tuple[str | None, int, Order]


@final
class SweepFailed(AssertionError):
    """A sweep has found something; says what and how to run it again."""

    def __init__(self, message: str, report: SweepReport) -> None:
        super().__init__(message)
        self.report = report


@final
@attrs.frozen(kw_only=True, eq=False)
class SweepFailure:
    """One run that failed."""

    victim: str | None
    """Who was cancelled; None: nobody, the scenario fails by itself."""
    event: int
    """At which event of the run; -1 without a victim."""
    order: Order
    """Who went first: "oldest", "newest", or a seed."""
    exception: BaseException
    """What left the scenario, taken out of groups of one, or what the sweep itself holds against the run."""
    timeline: tuple[str, ...]
    """The last lines of the run: virtual time, [event], what happened, task @ file:line."""

    @property
    def replay(self) -> Replay:
        """What `cancel_at_every_event(scenario, replay=…)` needs to run just this again."""
        return (self.victim, self.event, self.order)

    def __str__(self) -> str:
        if self.victim is None:
            what = f"the scenario fails without any cancellation (order {self.order!r})"
        else:
            what = f"cancelling {self.victim!r} at event {self.event} (order {self.order!r}) breaks the scenario"
        notes = "".join(f"\n  {note}" for note in getattr(self.exception, "__notes__", ()))
        lines = "".join(f"\n  {line}" for line in self.timeline)
        return (
            f"{what}:\n  {type(self.exception).__name__}: {self.exception}{notes}\nthe end of the run:{lines}\n"
            f"replay it: cancel_at_every_event(scenario, replay={self.replay!r})"
        )


@final
@attrs.frozen(kw_only=True, eq=False)
class SweepReport:
    """What a sweep did and found."""

    runs: int
    """How many times the scenario was run, runs for timelines included."""
    events: int
    """How many places for a cancellation the runs without one had, over all orders and victims."""
    failures: tuple[SweepFailure, ...]
    """The runs that failed, in the order in which they were found."""
    strikes: frozenset[tuple[str, str]]
    """Every (`file:line` of an await, victim) where cancelling this victim really raised a Cancelled."""
    exhausted: bool
    """Whether every victim was cancelled at every event: not after too many failures, or with a small `max_runs`."""

    def raise_if_failed(self) -> None:
        """Raise what was found first.

        Raises:
            SweepFailed: naming the first failure, its timeline and its replay, from the exception itself.
        """
        if self.failures:
            more = "" if self.exhausted else "; not everything was tried"
            text = f"{self.failures[0]}\n{len(self.failures)} failing of {self.runs} runs{more}"
            raise SweepFailed(text, self) from self.failures[0].exception


def cancel_at_every_event(
    scenario: Scenario,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    max_runs: int = 20_000,
    max_steps: int = 100_000,
    max_failures: int = 5,
    replay: Replay | None = None,
) -> SweepReport:
    """Run a scenario again and again, each time cancelling one of its victims at one event.

    Events are all the moments between two steps of *any* task at which a cancellation can make a difference. Time is
    virtual. The tasks run oldest first, newest first, and as each seed decides. A run fails if an exception leaves the
    scenario (its own asserts are the judge of what a cancellation may do), if it deadlocks or takes too many steps, if
    it leaves system tasks behind, or if the same plan gives another run.

    Must be called outside any Trio run, by one thread at a time, on a scenario without real I/O and threads: what comes
    from outside Trio can be neither ordered nor waited for, and passes for a deadlock. A step that never ends cannot be
    stopped.

    Args:
        scenario: an async function; it is given the `Sweep` on which it declares its victims, must make everything it
            uses anew, and must end by itself when nobody is cancelled.
        seeds: the random orders to try besides oldest first and newest first.
        max_runs: with more places than this, a uniform sample of them is taken.
        max_steps: how many task steps a run may take.
        max_failures: after how many failing runs to stop.
        replay: a failure's `replay`: make only this run.

    Returns:
        The report; `raise_if_failed()` is the usual end of a test.

    Raises:
        ValueError: if the scenario declares no victim.
        RuntimeError: inside a Trio run, or if the Trio version is not one this can control.
    """
    require_internals()
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("cancel_at_every_event makes its own Trio runs: call it from a synchronous test")
    work = _Work(scenario, max_steps, max_failures)
    if replay is not None:
        victim, event, order = replay
        work.replay(Plan(order, victim, event))
        return work.report()
    orders: tuple[Order, ...] = ("oldest", "newest", *seeds)
    for order in orders:
        work.survey(order)
    if not work.places and not work.failures:
        raise ValueError("the scenario declared no victim: call sweep.victim(name) for each scope to be cancelled")
    work.sweep(max_runs)
    return work.report()


@final
class _Work:
    """One call of `cancel_at_every_event` as it goes on."""

    def __init__(self, scenario: Scenario, max_steps: int, max_failures: int) -> None:
        self.places: list[tuple[Plan, Point]] = []
        self.failures: list[SweepFailure] = []
        self._scenario = scenario
        self._max_steps = max_steps
        self._max_failures = max_failures
        self._runs = 0
        self._strikes: set[tuple[str, str]] = set()
        self._exhausted = True

    def report(self) -> SweepReport:
        return SweepReport(
            runs=self._runs,
            events=len(self.places),
            failures=tuple(self.failures),
            strikes=frozenset(self._strikes),
            exhausted=self._exhausted,
        )

    def _trace(self, plan: Plan) -> TracedRun:
        run = TracedRun(plan, self._max_steps)
        run.execute(self._scenario)
        self._runs += 1
        self._strikes |= run.strikes
        return run

    def survey(self, order: Order) -> None:
        """Run without a cancellation, twice, and note the places for one."""
        plan = Plan(order)
        first = self._trace(plan)
        if first.exception is None:
            again = self._trace(plan)
            differs = difference(first.trace, again.trace)
            if differs is None:
                self.places += [
                    (Plan(order, victim, number), point)
                    for number, point in enumerate(first.points)
                    for victim in point.live
                ]
                return
            first.finding = NotRepeatable(f"two runs of the same plan differ: {differs}")
        self._exhausted = False
        self._judge(first, first)

    def sweep(self, max_runs: int) -> None:
        places = self.places
        budget = max(0, max_runs - self._runs)
        if len(places) > budget:
            self._exhausted = False
            chosen = sorted(random.Random(0).sample(range(len(places)), budget))  # noqa: S311
            places = [places[index] for index in chosen]
        for plan, point in places:
            run = ControlledRun(plan, self._max_steps, point)
            run.execute(self._scenario)
            self._runs += 1
            self._strikes |= run.strikes
            if run.finding is None and run.raised is None and run.struck is None:
                run.finding = NotRepeatable(f"the run ended before '{point.moment}'")
            if run.exception is not None:
                self._judge(run, self._trace(plan))
                if len(self.failures) >= self._max_failures:
                    self._exhausted = False
                    return

    def replay(self, plan: Plan) -> None:
        self._exhausted = False
        run = self._trace(plan)
        if run.exception is None and plan.victim is not None and run.struck is None:
            run.finding = NotRepeatable(f"the run ended after {run.events} events")
        self._judge(run, run)

    def _judge(self, run: ControlledRun, traced: TracedRun) -> None:
        """Note a run that failed; `traced` is the same plan's run with a trace."""
        plan, exception = run.plan, run.exception
        if exception is None:
            return
        if type(traced.exception) is not type(exception):
            exception.add_note(f"not repeatable: the same plan once more gave {traced.exception!r}")
        self.failures.append(
            SweepFailure(
                victim=plan.victim,
                event=plan.event,
                order=plan.order,
                exception=exception,
                timeline=timeline(traced.trace),
            )
        )
