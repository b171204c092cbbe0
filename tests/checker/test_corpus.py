"""Every bug of the corpus is found, as what it is; no repair is ever flagged."""

from __future__ import annotations

import difflib

import pytest

from meerkat_trio.testing import explore

from .cases import CORPUS, NAMES, load


@pytest.mark.parametrize("name", NAMES)
def test_the_bug_is_found_within_the_default_budget(name: str) -> None:
    case = load("bugs", name)
    report = explore(case.scenario)
    assert report.failures, f"{name} was not found:\n{report}"
    failure = report.failures[0]
    assert failure.kind == (case.ORACLE or "check")
    assert failure.mode == case.MODE
    assert explore(case.scenario, replay=failure.replay).failures[0].kind == failure.kind


@pytest.mark.parametrize("name", NAMES)
def test_the_repair_is_not_flagged(name: str) -> None:
    report = explore(load("fixes", name).scenario, budget=60, runs=200)
    assert not report.failures, str(report)


@pytest.mark.deep
@pytest.mark.parametrize("name", NAMES)
def test_the_repair_is_not_flagged_under_ten_times_the_budget(name: str) -> None:
    report = explore(load("fixes", name).scenario, budget=100)
    assert not report.failures, str(report)


@pytest.mark.parametrize("name", NAMES)
def test_bug_and_repair_differ_by_a_few_lines(name: str) -> None:
    bug, repair = ((CORPUS / kind / f"{name}.py").read_text().splitlines() for kind in ("bugs", "fixes"))
    changes = [line for line in difflib.ndiff(bug, repair) if line[:2] in ("- ", "+ ")]
    removed = sum(line.startswith("- ") for line in changes)
    assert 0 < max(removed, len(changes) - removed) <= 10


def test_most_bugs_need_no_assertion_of_the_scenario() -> None:
    by_oracle = [name for name in NAMES if load("bugs", name).ORACLE is not None]
    assert len(NAMES) >= 30
    assert len(by_oracle) > len(NAMES) / 2
