"""Coverage says at which await lines a cancellation was really delivered, in the files that were named."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from meerkat_trio.testing import CancellationCoverage, Exploration

from . import coverage_sample
from .rig import green

_FILE = "tests/checker/coverage_sample.py"
_LINES = Path(coverage_sample.__file__).read_text().splitlines()


def _at(mark: str) -> str:
    return f"{_FILE}:{1 + next(number for number, line in enumerate(_LINES) if line.endswith(f'# {mark}'))}"


async def _calls_the_sample(x: Exploration) -> None:
    with x.victim():
        await coverage_sample.struck()


@pytest.mark.parametrize("source", ["tests.checker.coverage_sample", _FILE])
def test_the_lines_of_a_module_are_told_apart_by_what_happened_at_them(source: str) -> None:
    coverage = green(_calls_the_sample, source=[source]).coverage
    assert coverage.lines == {_at("struck"), _at("block"), _at("shielded"), _at("never")}
    assert coverage.reached == {_at("struck"), _at("block"), _at("shielded")}
    assert _at("struck") in coverage.struck
    assert _at("shielded") in coverage.never_struck
    assert coverage.never_reached == (_at("never"),)


def test_a_folder_or_package_is_all_its_files() -> None:
    for source in ("tests.checker", "tests/checker"):
        lines = green(_calls_the_sample, source=[source], runs=10).coverage.lines
        assert _at("never") in lines
        assert any(line.startswith("tests/checker/test_coverage.py:") for line in lines)


def test_without_a_source_the_files_that_were_reached_count() -> None:
    files = {line.rpartition(":")[0] for line in green(_calls_the_sample).coverage.lines}
    assert files == {_FILE, "tests/checker/test_coverage.py"}


def test_the_summary_and_the_plain_values_say_the_same() -> None:
    report = green(_calls_the_sample, source=[_FILE])
    coverage = report.coverage
    assert f"cancelled at {len(coverage.struck)} of 3 await lines reached, 1 never reached" in report.summary
    plain = report.as_dict()["coverage"]
    assert plain["never_reached"] == [_at("never")]
    assert plain["percent"] == coverage.percent


def test_an_await_over_several_lines_counts_once() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            await trio.sleep(1)

    coverage = green(scenario, source=[__file__]).coverage
    assert len(coverage.struck) == 1


def test_percentages_are_of_what_was_reached_or_of_all() -> None:
    coverage = CancellationCoverage(
        lines=frozenset({"a.py:1", "a.py:2", "a.py:10", "a.py:9"}),
        reached=frozenset({"a.py:1", "a.py:2"}),
        struck=frozenset({"a.py:1"}),
    )
    assert (coverage.percent, coverage.percent_of_all) == (50.0, 25.0)
    assert coverage.never_struck == ("a.py:2",)
    assert coverage.never_reached == ("a.py:9", "a.py:10")
    nothing = CancellationCoverage(lines=frozenset(), reached=frozenset(), struck=frozenset())
    assert (nothing.percent, nothing.percent_of_all) == (100.0, 100.0)
    both = coverage | CancellationCoverage(
        lines=frozenset({"b.py:1"}), reached=frozenset({"b.py:1"}), struck=frozenset({"b.py:1"})
    )
    assert both.percent_of_all == 40.0
