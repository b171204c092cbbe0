"""What an exploration found and what it has tried, for people and for programs. Data and text; knows no run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, final

from attrs import field, frozen

from ._findings import KINDS
from ._plan import Plan, format_replay
from ._trace import Moment, hash_of, timeline

if TYPE_CHECKING:
    from pathlib import Path

    from ._coverage import CancellationCoverage

__all__ = ["CancellationBug", "Failure", "Report"]


@final
class CancellationBug(AssertionError):
    """An exploration has found something; says what and how to run it again."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


@final
@frozen(kw_only=True, eq=False)
class Failure:
    """The smallest run found that fails."""

    kind: str
    """What is wrong: one of the kinds of findings."""
    message: str
    """What happened, and where."""
    plan: Plan = field(repr=False)
    """What decides the run."""
    found_after: int
    """Runs until it was found."""
    plain: int | None
    """How many of `plain_runs` runs in random order, with nobody cancelled, show the same; None: not counted."""
    plain_runs: int = 200
    """How many of them were made: fewer if a run takes very many steps."""
    trace: tuple[Moment, ...] = field(repr=False)
    """What happened in the run."""
    passing: str | None = None
    """The nearest run that passes, and where both begin to differ."""
    note: str | None = None
    """What else there is to know: that it fails by itself, or that a replay went another way."""
    hypothetical: bool = False
    """Whether a scope was cancelled that the code may rely on nobody else to cancel."""
    exception: BaseException | None = field(default=None, repr=False)
    """What was raised, if something was."""

    @property
    def mode(self) -> str:
        """``fair``, or ``adversarial`` if a task has to be held back over ticks."""
        return "adversarial" if self.plan.adversarial else "fair"

    @property
    def replay(self) -> str:
        """What `explore(scenario, replay=…)` needs to make just this run again."""
        return format_replay(self.plan, hash_of(self.trace))

    @property
    def sentence(self) -> str:
        """The run in words."""
        return describe(self.plan, self.trace)

    @property
    def timeline(self) -> tuple[str, ...]:
        """The end of the run and the surroundings of its cancellations, a line each."""
        return timeline(self.trace)

    @property
    def text(self) -> str:
        """What it is, for people: without the way to run it again."""
        plain = "" if self.plain is None else f"; {self.plain} of {self.plain_runs} plain runs show it"
        lines = [
            f"{self.kind}: {KINDS.get(self.kind, '')}",
            f"  {self.message}".replace("\n", "\n  "),
            f"  {self.mode} mode, found after {self.found_after} runs{plain}",
        ]
        if self.hypothetical:
            lines.append("  hypothetical: the code may rely on nobody else to cancel this scope")
        if self.note:
            lines.append(f"  {self.note}")
        lines += [f"the run: {self.sentence}", *(f"  {line}" for line in self.timeline)]
        if self.passing:
            lines.append(f"the nearest run that passes: {self.passing}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.text}\nreplay it: explore(scenario, replay={self.replay!r})"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "kind": self.kind,
            "message": self.message,
            "mode": self.mode,
            "hypothetical": self.hypothetical,
            "found_after": self.found_after,
            "plain_runs_of_200": self.plain,
            "plain_runs": self.plain_runs,
            "sentence": self.sentence,
            "note": self.note,
            "passing": self.passing,
            "replay": self.replay,
            "timeline": [moment._asdict() for moment in self.trace],
        }


@final
@frozen(kw_only=True, eq=False)
class Report:
    """What an exploration did and found."""

    scenario: str
    """The scenario's name."""
    failures: tuple[Failure, ...]
    """What is wrong, in the order in which it was found."""
    hypothetical: tuple[Failure, ...] = ()
    """What breaks when scopes are cancelled that nobody was allowed to cancel."""
    runs: int
    """Runs made, those for shrinking included."""
    schedules: int
    """Schedules that were enumerated."""
    points: int
    """Places for a cancellation in them, one for each victim."""
    cancelled: int
    """Runs with a cancellation."""
    traces: int
    """Different ways that runs went: who ran when, and who was cancelled."""
    exhausted: bool
    """Whether every schedule with at most two deviations was tried, with one cancellation at each place."""
    strikes: frozenset[tuple[str, str]] = field(repr=False)
    """Every (`file:line` of an await, victim) where cancelling this victim raised a Cancelled."""
    coverage: CancellationCoverage = field(repr=False)
    """At which await lines a cancellation was delivered."""
    warnings: tuple[str, ...] = ()
    """Why the result may mean less than it seems to."""

    def raise_if_failed(self) -> None:
        """Raise what was found first.

        Raises:
            CancellationBug: naming the first failure, its timeline and its replay string; from the exception itself.
        """
        if self.failures:
            first = self.failures[0]
            raise CancellationBug(f"{self.scenario}: {first}\n{self.summary}", self) from first.exception

    @property
    def summary(self) -> str:
        """What was tried, in one or a few lines; claims no more than was done."""
        coverage = self.coverage
        tried = (
            "it ended when something was found"
            if self.failures
            else "all schedules with <= 2 deviations, 1 cancellation at every event, a sample beyond"
            if self.exhausted
            else "not everything up to 2 deviations and 1 cancellation was tried"
        )
        lines = [
            (
                f"{self.runs} runs, {self.cancelled} with a cancellation, {self.schedules} schedules,"
                f" {self.points} places; {tried}"
            ),
            (
                f"cancelled at {len(coverage.struck)} of {len(coverage.reached)} await lines reached,"
                f" {len(coverage.never_reached)} never reached"
            ),
        ]
        return "\n".join((*lines, *(f"warning: {warning}" for warning in self.warnings)))

    def __str__(self) -> str:
        found = "\n\n".join(str(failure) for failure in (*self.failures, *self.hypothetical))
        return f"{self.scenario}: {found or 'nothing found'}\n{self.summary}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "scenario": self.scenario,
            "failures": [failure.as_dict() for failure in self.failures],
            "hypothetical": [failure.as_dict() for failure in self.hypothetical],
            "runs": self.runs,
            "cancelled": self.cancelled,
            "traces": self.traces,
            "schedules": self.schedules,
            "points": self.points,
            "exhausted": self.exhausted,
            "coverage": {
                "percent": self.coverage.percent,
                "struck": sorted(self.coverage.struck),
                "never_struck": list(self.coverage.never_struck),
                "never_reached": list(self.coverage.never_reached),
            },
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)

    def to_html(self, path: str | Path) -> None:
        """Write a page that stands alone: each failure as lanes, one a task, over the steps of its run.

        Raises:
            OSError: the file cannot be written.
        """
        from ._html import write_html  # noqa: PLC0415 - few need it

        write_html(self, path)

    def to_perfetto(self, path: str | Path) -> None:
        """Write the first failure's run as Chrome trace events, for https://ui.perfetto.dev or `chrome://tracing`.

        Raises:
            OSError: the file cannot be written.
            ValueError: nothing was found.
        """
        from ._perfetto import write_perfetto  # noqa: PLC0415 - few need it

        write_perfetto(self, path)


def describe(plan: Plan, trace: tuple[Moment, ...]) -> str:
    """Say in a sentence what makes this run another one than the usual run."""
    by_event = {moment.event: moment for moment in trace if moment.event is not None}
    parts = [f"cancel {strike.victim} {_when(by_event.get(strike.event), strike.event)}" for strike in plan.strikes]
    if plan.priorities is not None:
        parts.append(f"one task at a time, by priority (seed {plan.priorities.seed})")
    else:
        parts.append(f"{plan.order} task first" if isinstance(plan.order, str) else f"order of seed {plan.order}")
    for hold in plan.holds:
        how_long = "while others can run" if hold.ticks > 2 else f"for {hold.ticks} ticks"  # noqa: PLR2004
        parts.append(f"hold {hold.task} back {how_long} from tick {hold.tick} on")
    parts += [f"at decision {number} the task that is number {option} runs first" for number, option in plan.picks]
    parts += [
        f"of the timers due together in tie {number} let number {option} go first" for number, option in plan.ties
    ]
    parts += [f"choice {number} of the environment is {option}" for number, option in plan.choices]
    return "; ".join(parts)


def _when(moment: Moment | None, event: int) -> str:
    if moment is None:
        return f"at event {event}"
    match moment.what:
        case "publish":
            return f"as soon as it is declared (event {event})"
        case "idle":
            return f"while everybody waits (event {event}, {moment.time:g} s)"
        case "tick":
            return f"when the clock has moved to {moment.time:g} s, before the deadlines expire (event {event})"
        case _:
            place = f", parked at {moment.where}" if moment.where else ""
            return f"before {moment.task} runs{place} (event {event}, {moment.time:g} s)"
