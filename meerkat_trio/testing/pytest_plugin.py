"""The pytest plugin: a test that takes `exploration` is not run once but explored. See docs/checker-pytest.md.

pytest loads this module wherever the package is installed, so it loads nothing but pytest: what runs an explored test
is in `_explored_test`, and is loaded with the first of them.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, final

import pytest

if TYPE_CHECKING:
    from ._coverage import CancellationCoverage

__all__ = ["ExplorationWarning"]

MARKER: Final = "explore"
_FIXTURE: Final = "exploration"
_HELP: Final = "see docs/checker-pytest.md"
_OF_PYTEST_TRIO: Final = ("nursery", "autojump_clock", "mock_clock")

FUNCTION: Final = pytest.StashKey[Callable[..., Any]]()
"""The test function of an explored test while its call lasts."""
SHOWN: Final = pytest.StashKey[tuple[BaseException, str, str]]()
"""What an explored test raised, a line, and the text that stands for it and its traceback."""
NOTED: Final = pytest.StashKey[dict[str, list[str]]]()
"""What an explored test has to tell the session: plain lists, for they travel between processes."""
_SESSION: Final = pytest.StashKey["_Session"]()


class ExplorationWarning(pytest.PytestWarning):
    """An exploration means less than it seems to."""


# --- options, marker, fixture ----------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """A hook of pytest."""
    group = parser.getgroup("explore", "exploring schedules and cancellations")
    group.addoption(
        "--explore-replay",
        metavar="STRING",
        help="of the selected explored tests, run only this run, which a failure has printed",
    )
    group.addoption("--explore-deep", action="store_true", help="give explored tests ten times their budget")
    group.addoption(
        "--explore-source",
        metavar="NAME",
        action="append",
        default=[],
        help="package, module, folder or file whose await lines count for cancellation coverage; may be repeated",
    )
    group.addoption(
        "--explore-fail-under",
        metavar="PERCENT",
        type=_percent,
        help="fail if explored tests together cancelled less than this share of the await lines they reached",
    )


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0.0 <= percent <= 100.0:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"a number from 0 to 100 is needed, not {text!r}")
    return percent


def pytest_configure(config: pytest.Config) -> None:
    """A hook of pytest."""
    config.addinivalue_line(
        "markers",
        "explore(budget=10.0, runs=None, mode='adversarial', victims='declared', …): run this async test, which takes "
        "the `exploration` fixture, under many schedules and cancellations; arguments as of "
        "meerkat_trio.testing.explore",
    )
    if (text := config.getoption("explore_replay")) is not None:
        from ._plan import ReplayError, parse_replay  # noqa: PLC0415 - loaded when needed

        try:
            parse_replay(text)
        except ReplayError as error:
            raise pytest.UsageError(f"--explore-replay: {error}") from None
    if sources := config.getoption("explore_source"):
        from ._coverage import source_files  # noqa: PLC0415 - loaded when needed

        try:
            source_files(sources)
        except ValueError as error:
            raise pytest.UsageError(f"--explore-source: {error}") from None
    config.stash[_SESSION] = session = _Session(config)
    config.pluginmanager.register(session, "meerkat-trio-explore-session")


@pytest.fixture
def exploration() -> object:
    """Lets an explored test say who may be cancelled and what must hold: an `Exploration`, anew for each run."""
    return None  # the test is given the Exploration of the run that is under way


# --- before a test: is it one that can be explored? ---------------------------------------------------------


def _is_explored(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and (
        item.get_closest_marker(MARKER) is not None or _FIXTURE in item.fixturenames
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A hook of pytest: an explored test that cannot be explored is an error, and says why."""
    _session_of(item).current = None
    if not (isinstance(item, pytest.Function) and _is_explored(item)):
        return
    problem = _problem_with(item)
    if problem is not None:
        pytest.fail(f"{item.name} cannot be explored: {problem} ({_HELP})", pytrace=False)
    _session_of(item).current = item


def _problem_with(item: pytest.Function) -> str | None:
    function = item.obj
    to_write = f"write `async def {item.originalname}(exploration)`"
    if hasattr(function, "hypothesis"):
        return "it is a Hypothesis test; for those, meerkat_trio.testing.strategies has schedules()"
    if inspect.isasyncgenfunction(function):
        return "it is an async generator; it must not yield"
    if not inspect.iscoroutinefunction(function):
        return f"it is not async; {to_write}"
    if _FIXTURE not in inspect.signature(function).parameters:
        if item.get_closest_marker(MARKER) is None:
            return "one of its fixtures asks for `exploration`, which there is during runs only"
        return f"it does not take `exploration`; {to_write}"
    return next(filter(None, map(_problem_with_marker, item.iter_markers(MARKER))), None)


def _problem_with_marker(marker: pytest.Mark) -> str | None:
    if marker.args:
        return f"its marker takes keywords only: @pytest.mark.explore(budget={marker.args[0]!r})"
    settings = _settings()
    if unknown := sorted(marker.kwargs.keys() - settings):
        return f"its marker has no {unknown[0]!r}; there are {', '.join(sorted(settings))}"
    return None


def _settings() -> frozenset[str]:
    from ._explore import explore  # noqa: PLC0415 - loaded with the first explored test

    parameters = inspect.signature(explore).parameters
    return frozenset(parameters) - {"scenario", "replay", "on_progress"}


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """A hook of pytest: an explored test takes no fixtures that live in a Trio run or another event loop."""
    item = request.config.stash[_SESSION].current
    if item is None:
        return
    name, function = fixturedef.argname, fixturedef.func
    reason = None
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        reason = "it is async, and fixtures are made once, before the runs, each of which is a Trio run of its own"
    elif getattr(function, "__module__", "") == "pytest_trio.plugin" and name in _OF_PYTEST_TRIO:
        if name == "nursery":
            reason = "its nursery would have to outlive the runs; open one in the test"
        elif name in inspect.signature(item.obj).parameters:
            reason = "explored tests always run in virtual time; leave it out"
    elif getattr(function, "_force_trio_fixture", False):
        reason = "it is a Trio fixture, and fixtures are made once, before the runs"
    if reason is not None:
        pytest.fail(f"{item.name} cannot be explored with the fixture {name!r}: {reason} ({_HELP})", pytrace=False)


# --- the call ----------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A hook of pytest: hide an explored test from plugins that would run it because it is async."""
    if not (isinstance(item, pytest.Function) and _is_explored(item)):
        return (yield)
    item.stash[FUNCTION] = function = item.obj

    def hidden() -> None:
        """Stand in for the test."""

    # pytest-trio wraps what carries its marker, unless it has done so before.
    hidden._trio_test_runner_wrapped = True  # type: ignore[attr-defined]  # noqa: SLF001
    item.obj = hidden
    try:
        return (yield)
    finally:
        item.obj = function
        del item.stash[FUNCTION]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """A hook of pytest: explore."""
    function = pyfuncitem.stash.get(FUNCTION, None)
    if function is None:
        return None
    from ._explored_test import run_explored  # noqa: PLC0415 - loaded with the first explored test

    run_explored(pyfuncitem, function)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A hook of pytest: show what an exploration found instead of the traceback of the explorer."""
    report = yield
    if call.when == "call":
        error, line, text = item.stash.get(SHOWN, (None, "", ""))
        if call.excinfo is not None and call.excinfo.value is error:
            path, number, _ = item.location
            report.longrepr = cast("Any", _Text(text, _Place(line, path, (number or 0) + 1)))
        if noted := item.stash.get(NOTED, None):
            vars(report)["explored"] = noted
    return report


@final
class _Text:
    """Stands in a report where pytest has a traceback."""

    def __init__(self, text: str, place: _Place) -> None:
        self._text = text
        self.reprcrash = place

    def __str__(self) -> str:
        return self._text

    def toterminal(self, tw: Any) -> None:
        first, *rest = self._text.splitlines()
        tw.line(first, red=True, bold=True)
        for line in rest:
            tw.line(line)


@final
class _Place:
    """The line that pytest shows in its short summary."""

    def __init__(self, message: str, path: str, line: int) -> None:
        self.message = message
        self.path = path
        self.lineno = line

    def __str__(self) -> str:
        return f"{self.path}:{self.lineno}: {self.message}"


# --- the session -------------------------------------------------------------------------------------------


def _session_of(item: pytest.Item) -> _Session:
    return item.config.stash[_SESSION]


@final
class _Session:
    """What the explored tests of a session have done together."""

    def __init__(self, config: pytest.Config) -> None:
        self.current: pytest.Function | None = None
        """The explored test that is under way."""
        self._notes: list[str] = []
        self._lines: dict[str, set[str]] = {"lines": set(), "reached": set(), "struck": set()}
        self._explored = 0
        self._least: float | None = config.getoption("explore_fail_under")
        self._shows_coverage = self._least is not None or bool(config.getoption("explore_source"))
        self._is_worker = hasattr(config, "workerinput")  # of pytest-xdist: the controller gets the reports
        self._replays = config.getoption("explore_replay") is not None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A hook of pytest."""
        noted: Mapping[str, Iterable[str]] | None = getattr(report, "explored", None)
        if noted is not None:
            self._explored += 1
            self._notes += noted["notes"]
            for name, lines in self._lines.items():
                lines.update(noted[name])

    def _coverage(self) -> CancellationCoverage:
        from ._coverage import CancellationCoverage  # noqa: PLC0415 - loaded when needed

        return CancellationCoverage(**{name: frozenset(lines) for name, lines in self._lines.items()})

    def _verdict(self) -> str | None:
        """Say why the session fails for its cancellation coverage; None if it does not."""
        if self._least is None or self._replays:
            return None
        if not self._explored:
            return "no explored test ran, so nothing was cancelled"
        coverage = self._coverage()
        if not coverage.reached:
            return f"none of the {len(coverage.lines)} await lines of the source was reached"
        if coverage.percent < self._least:
            return f"{coverage.percent:.1f} % is less than the {self._least:g} % required"
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A hook of pytest."""
        if not self._is_worker and session.exitstatus == pytest.ExitCode.OK and self._verdict() is not None:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """A hook of pytest."""
        if self._notes:
            terminalreporter.section("explored tests")
            for note in self._notes:
                terminalreporter.line(note)
        if self._shows_coverage:
            terminalreporter.section("cancellation coverage")
            self._show_coverage(terminalreporter)

    def _show_coverage(self, terminalreporter: pytest.TerminalReporter) -> None:
        coverage = self._coverage()
        missed: dict[str, list[str]] = {}
        for place in coverage.never_struck:
            file, _, line = place.rpartition(":")
            missed.setdefault(file, []).append(line)
        for file, lines in missed.items():
            terminalreporter.line(f"{file}: never struck: {', '.join(lines)}")
        percent = f"{coverage.percent:.1f} %, " if coverage.reached else ""
        terminalreporter.line(
            f"{percent}cancelled at {len(coverage.struck)} of {len(coverage.reached)} await lines reached,"
            f" {len(coverage.never_reached)} never reached, in {self._explored} explored tests"
        )
        if (verdict := self._verdict()) is not None:
            terminalreporter.line(f"--explore-fail-under: {verdict}", red=True, bold=True)
