"""Every public async call, alone, against a closing machine and against every other call, cancelled anywhere.

Afterwards authority and tasks agree, nothing is lost, doubled or reordered, and no task is left. `python -m tests.deep`
does the same with many more runs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meerkat_trio.testing import CancellationCoverage, explore

from .calls import ALONE, CLOSING, MEETING, PAIRS, RECORDED, SOURCE
from .stage import Scenario

STRUCK_AT_LEAST = 110
"""Pairs of (await line, cancelled scope). May be raised, never lowered: striking fewer is a loss of reach."""
COVERED_AT_LEAST = 94.0
"""Percent of all await lines of the shell, reached or not; `python -m tests.deep` demands more."""


class Reach:
    """What all explorations of this file have struck."""

    def __init__(self) -> None:
        self.strikes: set[tuple[str, str]] = set()
        self.coverage: CancellationCoverage | None = None
        self.explored: set[str] = set()

    def explore(self, name: str, scenario: Scenario, runs: int) -> None:
        report = explore(scenario, runs=runs, source=SOURCE)
        report.raise_if_failed()
        self.explored.add(name)
        self.strikes |= report.strikes
        self.coverage = report.coverage if self.coverage is None else self.coverage | report.coverage


@pytest.fixture(scope="module")
def reach() -> Reach:
    return Reach()


@pytest.mark.parametrize("name", ALONE)
def test_a_call_cancelled_anywhere_leaves_everything_whole(name: str, reach: Reach) -> None:
    reach.explore(name, ALONE[name], runs=250)


@pytest.mark.parametrize("name", CLOSING)
def test_a_call_while_the_machine_closes_leaves_everything_whole(name: str, reach: Reach) -> None:
    reach.explore(name, CLOSING[name], runs=50)


@pytest.mark.parametrize("name", RECORDED)
def test_a_call_of_a_session_that_is_recorded_leaves_everything_whole(name: str, reach: Reach) -> None:
    runs = 160 if name.startswith("command ") else 70
    reach.explore(name, RECORDED[name], runs=runs if "with a journal" in name else 300)


@pytest.mark.parametrize("pair", MEETING, ids=" x ".join)
def test_two_calls_on_one_thing_cancelled_anywhere_leave_everything_whole(pair: tuple[str, str], reach: Reach) -> None:
    one, other = pair
    name = f"{one} x {other}" if f"{one} x {other}" in PAIRS else f"{other} x {one}"
    reach.explore(name, PAIRS[name], runs=120)


@pytest.mark.parametrize("first", sorted({name.partition(" x ")[0] for name in PAIRS}))
def test_every_pair_of_calls_leaves_everything_whole(first: str, reach: Reach) -> None:
    for name, scenario in PAIRS.items():
        if name.startswith(f"{first} x "):
            reach.explore(name, scenario, runs=11)


def test_the_explorations_keep_their_reach(reach: Reach, record_property: Callable[[str, object], None]) -> None:
    if not reach.explored.issuperset((*ALONE, *CLOSING, *RECORDED, *PAIRS)):
        pytest.skip("says something only after all explorations of this file")
    coverage = reach.coverage
    assert coverage is not None
    record_property(
        "reach",
        f"{len(reach.strikes)} places struck, {coverage.percent_of_all:.0f} % of the shell's"
        f" {len(coverage.lines)} await lines",
    )
    assert len(reach.strikes) >= STRUCK_AT_LEAST
    assert coverage.percent_of_all >= COVERED_AT_LEAST, sorted(coverage.lines - coverage.struck)
