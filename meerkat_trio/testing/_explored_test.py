"""Explores one test for the pytest plugin: settings, what was kept of the last failure, the text of a failure.

Loaded with the first explored test, not with the plugin.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import shlex
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final, cast, final

import pytest
import trio

from ._coverage import CancellationCoverage
from ._exploration import Exploration
from ._explore import DEFAULT_BUDGET, explore
from ._parked import is_machinery
from ._plan import Plan, ReplayError
from ._report import CancellationBug, Failure, Report
from ._usual import ScenarioError
from .pytest_plugin import MARKER, NOTED, SHOWN, ExplorationWarning

__all__ = ["run_explored"]

_DEEP: Final = 10
_MOST_SHOWN: Final = 3


@final
class _Scenario:
    """A test function with the values of its fixtures, called with an `Exploration` as `explore` does."""

    def __init__(self, function: Callable[..., Awaitable[object]], values: dict[str, object]) -> None:
        self.func = function  # as in a partial: by this, `explore` finds the code of the test
        self._values = values

    def __call__(self, x: Exploration) -> Awaitable[object]:
        return self.func(**self._values, exploration=x)


def run_explored(item: pytest.Function, function: Callable[..., Awaitable[object]]) -> None:
    """Explore a test.

    Raises:
        CancellationBug: a run fails. Of this and the following, pytest shows the text that is kept under `SHOWN`.
        ScenarioError: the test cannot be explored.
        ValueError: an argument of its marker is of no use.
        ExplorationWarning: the exploration means less than it seems to, and warnings are errors.
    """
    names = item.funcargs.keys() & _parameters(function)
    scenario = _Scenario(function, {name: item.funcargs[name] for name in names if name != "exploration"})
    noted: dict[str, list[str]] = {"notes": [], "lines": [], "reached": [], "struck": []}
    item.stash[NOTED] = noted
    settings = _settings(item)
    try:
        with _quiet(item):
            report, kept = _explore(item, scenario, settings, noted["notes"])
    except (ScenarioError, ValueError) as error:
        # Nothing of the scenario's own comes this way: what it raises is a finding.
        problem = f"ScenarioError: {error}" if isinstance(error, ScenarioError) else f"explore: {error}"
        item.stash[SHOWN] = error, problem.splitlines()[0], problem
        raise
    _note_coverage(noted, report.coverage)
    for failure in report.hypothetical:
        item.add_report_section("call", "hypothetical failure", _text(item, failure, kept=False))
        noted["notes"].append(f"{item.nodeid}: hypothetical failure: {failure.kind}: {failure.message}")
    if report.failures:
        _fail(item, report, kept=kept)
    item.add_report_section("call", "exploration", report.summary)
    for warning in report.warnings:
        _warn(item, warning)


def _parameters(function: Callable[..., object]) -> set[str]:
    parameters = inspect.signature(function).parameters
    return {name for name, one in parameters.items() if one.default is inspect.Parameter.empty}


def _settings(item: pytest.Function) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        settings |= marker.kwargs
    if item.config.getoption("explore_deep"):
        if settings.get("runs") is not None:
            settings["runs"] *= _DEEP
        if settings.get("budget") is not None or settings.get("runs") is None:
            settings["budget"] = _DEEP * (settings.get("budget") or DEFAULT_BUDGET)
    if sources := item.config.getoption("explore_source"):
        settings["source"] = sources
    return settings


# --- which runs --------------------------------------------------------------------------------------------


def _explore(
    item: pytest.Function, scenario: _Scenario, settings: dict[str, Any], notes: list[str]
) -> tuple[Report, bool]:
    """Explore, or replay; return what came of it, and whether it is a run kept from the last failure."""
    asked = item.config.getoption("explore_replay")
    if asked is not None:
        report = explore(scenario, replay=asked, **settings)
        if not report.failures:
            notes.append(f"{item.nodeid}: the run of --explore-replay passes")
        return report, False
    kept = _Kept(item)
    passed = 0
    seen: CancellationCoverage | None = None
    for replay in kept.strings:
        try:
            report = explore(scenario, replay=replay, **settings)
        except ReplayError:  # kept by another version
            continue
        if report.failures:
            kept.keep([report.failures[0].replay, *(other for other in kept.strings if other != replay)])
            return report, True
        passed += 1
        seen = report.coverage if seen is None else seen | report.coverage
    report = explore(scenario, **settings)
    if passed:
        what = (
            "the run kept from its last failure passes" if passed == 1 else f"{passed} runs kept from its failures pass"
        )
        notes.append(f"{item.nodeid}: {what} now; tried first")
    kept.keep([failure.replay for failure in report.failures])
    return report, False


@final
class _Kept:
    """The replay strings of a test's last failures, in pytest's cache: a file for each test, as workers share it."""

    def __init__(self, item: pytest.Function) -> None:
        self._cache: pytest.Cache | None = getattr(item.config, "cache", None)  # with -p no:cacheprovider there is none
        name = hashlib.sha256(item.nodeid.encode()).hexdigest()[:20]
        self._key = f"meerkat-trio/explore/{name}"
        found = None if self._cache is None else self._cache.get(self._key, None)
        self.strings = tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()

    def keep(self, strings: list[str]) -> None:
        """Keep these and no others."""
        if self._cache is not None and tuple(strings) != self.strings:
            self._cache.set(self._key, strings)


@contextmanager
def _quiet(item: pytest.Function) -> Iterator[None]:
    """Keep nothing of what thousands of runs print and log; without capturing, and for those who look at it, all."""
    root = logging.getLogger()
    handlers = [handler for handler in root.handlers if type(handler).__module__ == "_pytest.logging"]
    if "caplog" in item.fixturenames:
        handlers = []
    looked_at = any(name.startswith(("capsys", "capfd")) for name in item.fixturenames)
    captures = item.config.getoption("capture") != "no" and not looked_at
    for handler in handlers:
        root.removeHandler(handler)
    try:
        if captures:
            with (
                Path(os.devnull).open("w", encoding="utf-8") as nowhere,
                redirect_stdout(nowhere),
                redirect_stderr(nowhere),
            ):
                yield
        else:
            yield
    finally:
        for handler in handlers:
            root.addHandler(handler)


# --- what is told ------------------------------------------------------------------------------------------


def _note_coverage(noted: dict[str, list[str]], coverage: CancellationCoverage) -> None:
    noted["lines"] = sorted(coverage.lines)
    noted["reached"] = sorted(coverage.reached)
    noted["struck"] = sorted(coverage.struck)


def _warn(item: pytest.Function, warning: str) -> None:
    try:
        item.warn(ExplorationWarning(f"{item.nodeid}: {warning}"))
    except ExplorationWarning as error:  # warnings are errors here
        text = f"ExplorationWarning: {warning}"
        item.stash[SHOWN] = error, text, text
        raise


def _fail(item: pytest.Function, report: Report, *, kept: bool) -> None:
    failure = report.failures[0]
    error = failure.exception
    by_itself = failure.plan == Plan()
    if by_itself and isinstance(error, pytest.skip.Exception | pytest.xfail.Exception | pytest.exit.Exception):
        raise error
    text = "\n\n".join(_text(item, one, kept=kept) for one in report.failures)
    text = f"{text}\n{report.summary}"
    bug = CancellationBug(text, report)
    item.stash[SHOWN] = bug, f"{failure.kind}: {failure.message.splitlines()[0]}", text
    raise bug from error


def _text(item: pytest.Function, failure: Failure, *, kept: bool) -> str:
    lines = failure.text.splitlines()
    if kept:
        lines.insert(1, "  (a run kept from the last failure, tried first)")
    if failure.exception is not None:
        lines += _raised(failure.exception)
    node = "::".join((os.path.relpath(item.path), *item.nodeid.split("::")[1:]))
    lines.append(f"replay it: pytest {shlex.quote(node)} --explore-replay={shlex.quote(failure.replay)}")
    return "\n".join(lines)


def _raised(error: BaseException) -> list[str]:
    """Return where an exception comes from, in the frames of the user's own code."""
    lines = []
    for leaf in _leaves(error)[:_MOST_SHOWN]:
        info = pytest.ExceptionInfo.from_exception(leaf)
        shown = info.getrepr(
            style="short",
            chain=False,
            tbfilter=lambda info: info.traceback.filter(lambda entry: not is_machinery(str(entry.path))),
        )
        lines += [f"raised, {type(leaf).__name__}:", *(f"  {line}" for line in str(shown).splitlines())]
    return lines


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found: list[BaseException] = []
    for one in cast("BaseExceptionGroup[BaseException]", error).exceptions:
        found += _leaves(one)
    return [leaf for leaf in found if not isinstance(leaf, trio.Cancelled)]
