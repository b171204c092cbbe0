"""What the tests of the explorer share: short explorations that have to find something, or nothing."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from meerkat_trio.testing import Exploration, Failure, Report, explore

Scenario = Callable[[Exploration], Awaitable[object]]

RUNS = 150


def failure_of(scenario: Scenario, **options: Any) -> Failure:
    """Explore a scenario that is wrong; return what is wrong with it."""
    report = explore(scenario, **{"runs": RUNS, **options})
    assert report.failures, report
    return report.failures[0]


def kind_of(scenario: Scenario, **options: Any) -> str:
    return failure_of(scenario, **options).kind


def green(scenario: Scenario, **options: Any) -> Report:
    """Explore a scenario that is right; return the report."""
    report = explore(scenario, **{"runs": RUNS, **options})
    report.raise_if_failed()
    return report


def line_of(function: Callable[..., object], text: str) -> int:
    """Return the number of the line of a function that contains a text."""
    lines, start = inspect.getsourcelines(function)
    return start + next(number for number, line in enumerate(lines) if text in line)


def lines_struck(report: Report) -> set[int]:
    return {int(place.rpartition(":")[2]) for place, _ in report.strikes}
