"""The pytest plugin, in test sessions of its own: beside pytest-trio in its trio mode and not, and without it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

HEAD = "import pytest, trio, warnings\n"

LOSES = (
    HEAD
    + """
@pytest.mark.explore(budget=5)
async def test_loses(exploration):
    items, done = ["a"], []
    with exploration.victim(name="consumer"):
        item = items.pop()
        await trio.sleep(1)
        done.append(item)
    assert items or done, "an item was lost"
"""
)
KEEPS = LOSES.replace("item = items.pop()", "item = items[-1]").replace("done.append(item)", "done.append(items.pop())")

WITH_PYTEST_TRIO = {
    "in trio mode": ("-o", "trio_mode=true"),
    "not in trio mode": ("-o", "trio_mode=false"),
    "not there": ("-p", "no:trio"),
}


@pytest.fixture(params=WITH_PYTEST_TRIO)
def anyhow(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return WITH_PYTEST_TRIO[request.param]


def run(pytester: pytest.Pytester, source: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=source)
    # The warnings of the session around it, which are errors, are not those of the session in it.
    return pytester.runpytest_inprocess("-W", "default", *args)


# --- a marked test is explored ------------------------------------------------------------------------------


def test_a_bug_that_only_a_cancellation_shows_fails_the_test(
    pytester: pytest.Pytester, anyhow: tuple[str, ...]
) -> None:
    result = run(pytester, LOSES, *anyhow)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "exception: an exception left the scenario",
            "  AssertionError: an item was lost*",
            "the run: cancel consumer *; oldest task first",
            "*CANCELS  consumer",
            "  test_it.py:10: in test_loses",
            "replay it: pytest test_it.py::test_loses --explore-replay='oldest;cancel=*@consumer#*'",
            "FAILED test_it.py::test_loses - exception: AssertionError: an item was lost*",
        ]
    )


def test_the_example_of_the_docs_fails_as_the_docs_say(pytester: pytest.Pytester) -> None:
    page = (Path(__file__).parents[2] / "docs" / "checker-pytest.md").read_text()
    example, shown = re.findall(r"^```(?:python|text)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)[:2]
    pytester.makepyfile(test_items=example)
    printed = pytester.runpytest_inprocess("-W", "default").stdout.str()
    for part in shown.split("  …\n"):
        assert _without_numbers(part) in _without_numbers(printed)


def _without_numbers(text: str) -> str:
    return re.sub(r"#[0-9a-f]{6}", "#", re.sub(r"found after \d+", "found after", text))


def test_the_traceback_of_the_explorer_is_not_shown(pytester: pytest.Pytester) -> None:
    shown = run(pytester, LOSES).stdout.str()
    assert "an item was lost" in shown
    assert "_explored_test.py" not in shown
    assert "CancellationBug" not in shown


def test_a_correct_test_passes(pytester: pytest.Pytester, anyhow: tuple[str, ...]) -> None:
    run(pytester, KEEPS, *anyhow).assert_outcomes(passed=1)


def test_the_fixture_alone_makes_a_test_an_explored_one(pytester: pytest.Pytester, anyhow: tuple[str, ...]) -> None:
    run(pytester, LOSES.replace("@pytest.mark.explore(budget=5)\n", ""), *anyhow).assert_outcomes(failed=1)


def test_a_module_marked_for_pytest_trio_may_hold_explored_tests(pytester: pytest.Pytester) -> None:
    usual = "\nasync def test_usual():\n    await trio.sleep(0)\n"
    result = run(
        pytester, LOSES.replace("\n\n", "\npytestmark = pytest.mark.trio\n", 1) + usual, "-o", "trio_mode=false"
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["replay it: *"])


def test_parameters_and_sync_fixtures_reach_the_test(pytester: pytest.Pytester, anyhow: tuple[str, ...]) -> None:
    source = (
        HEAD
        + """
@pytest.fixture
def ten():
    return 10

class TestAll:
    @pytest.mark.parametrize("n", [1, 2])
    async def test_sum(self, n, exploration, ten, tmp_path):
        await trio.sleep(1)
        assert n + ten == 11 and tmp_path.exists() and isinstance(self, TestAll)
"""
    )
    result = run(pytester, source, *anyhow)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["replay it: pytest 'test_it.py::TestAll::test_sum[[]2]' *"])


def test_the_keywords_of_the_marker_reach_explore_and_the_closest_wins(pytester: pytest.Pytester) -> None:
    source = (
        HEAD
        + """
pytestmark = pytest.mark.explore(max_steps=3, runs=10)

@pytest.mark.explore(max_steps=1_000)
async def test_wide(exploration):
    for _ in range(4):
        await trio.lowlevel.checkpoint()

async def test_narrow(exploration):
    for _ in range(4):
        await trio.lowlevel.checkpoint()
"""
    )
    result = run(pytester, source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_narrow - livelock: no end after 3 steps*"])


def test_an_expected_failure_may_name_its_exception(pytester: pytest.Pytester) -> None:
    mark = "@pytest.mark.xfail(raises=AssertionError, strict=True)\n@pytest.mark.explore"
    run(pytester, LOSES.replace("@pytest.mark.explore", mark)).assert_outcomes(xfailed=1)


def test_a_test_that_skips_itself_is_skipped(pytester: pytest.Pytester) -> None:
    source = HEAD + "async def test_skips(exploration):\n    pytest.skip('not here')\n"
    run(pytester, source).assert_outcomes(skipped=1)


def test_a_test_that_skips_itself_in_some_runs_only_fails(pytester: pytest.Pytester) -> None:
    source = (
        HEAD + "async def test_skips(exploration):\n    if exploration.choose(2):\n        pytest.skip('not here')\n"
    )
    run(pytester, source).assert_outcomes(failed=1)


def test_what_thousands_of_runs_print_and_log_is_not_shown(pytester: pytest.Pytester) -> None:
    noise = "    print('printed' * 2)\n    import logging; logging.error('logged' * 2)\n    items, done"
    shown = run(pytester, LOSES.replace("    items, done", noise)).stdout.str()
    assert "an item was lost" in shown
    assert "printedprinted" not in shown
    assert "loggedlogged" not in shown


def test_what_makes_an_exploration_mean_little_is_a_warning(pytester: pytest.Pytester) -> None:
    source = HEAD + "async def test_vain(exploration):\n    exploration.victim()\n    await trio.sleep(1)\n"
    result = run(pytester, source)
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*ExplorationWarning: *no cancellation was ever delivered*"])
    strict = run(pytester, source, "-W", "error")
    strict.assert_outcomes(failed=1)
    assert "_explored_test.py" not in strict.stdout.str()


# --- what cannot be explored says so ------------------------------------------------------------------------

MISUSES = {
    "def test_it(exploration): pass": "*it is not async*",
    "@pytest.mark.explore\nasync def test_it(): pass": "*does not take `exploration`*",
    "async def test_it(exploration): yield": "*must not yield*",
    "@pytest.mark.explore(bugdet=1)\nasync def test_it(exploration): pass": "*no 'bugdet'; there are budget, *",
    "@pytest.mark.explore(1)\nasync def test_it(exploration): pass": "*keywords only*",
    "@pytest.fixture\ndef f(exploration): pass\ndef test_it(f): pass": "*not async*",
    "@pytest.fixture\ndef f(exploration): pass\nasync def test_it(f): pass": "*one of its fixtures asks for*",
    "@pytest.fixture\nasync def f(): pass\nasync def test_it(f, exploration): pass": "*fixture 'f': it is async*",
    "@pytest.fixture\nasync def f(): pass\n@pytest.fixture\ndef g(f): pass\nasync def test_it(g, exploration): pass": (
        "*fixture 'f': it is async*"
    ),
    "async def test_it(nursery, exploration): pass": "*fixture 'nursery': *open one in the test*",
    "async def test_it(autojump_clock, exploration): pass": "*fixture 'autojump_clock': *virtual time*",
}


@pytest.mark.parametrize("source", MISUSES)
def test_a_test_that_cannot_be_explored_is_one_clear_error(pytester: pytest.Pytester, source: str) -> None:
    result = run(pytester, HEAD + source, "-o", "trio_mode=true")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([MISUSES[source]])
    assert "pytest_plugin.py" not in result.stdout.str()


def test_a_clock_that_every_test_gets_does_no_harm(pytester: pytest.Pytester) -> None:
    source = "\n@pytest.fixture(autouse=True)\ndef clock(autojump_clock):\n    return autojump_clock\n"
    run(pytester, KEEPS + source, "-o", "trio_mode=true").assert_outcomes(passed=1)


def test_a_scenario_that_is_not_repeatable_is_a_clear_failure(pytester: pytest.Pytester) -> None:
    source = HEAD + "import random\nasync def test_it(exploration):\n    await trio.sleep(random.random())\n"
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["ScenarioError: test_it is not deterministic*"])
    assert "_explore.py" not in result.stdout.str()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--explore-replay=nonsense", "*--explore-replay: a replay string begins with*"),
        ("--explore-source=no_such_package", "*--explore-source: *neither a package nor a file*"),
        ("--explore-fail-under=101", "*a number from 0 to 100 is needed*"),
    ],
)
def test_an_option_of_no_use_is_a_usage_error(pytester: pytest.Pytester, option: str, message: str) -> None:
    result = run(pytester, KEEPS, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


# --- options ------------------------------------------------------------------------------------------------


def test_a_replay_string_makes_just_that_run(pytester: pytest.Pytester) -> None:
    found = re.search(r"--explore-replay='([^']*)'", run(pytester, LOSES).stdout.str())
    assert found is not None
    again = pytester.runpytest_inprocess(f"--explore-replay={found[1]}")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*an item was lost*", f"replay it: *{found[1]}*"])
    other = pytester.runpytest_inprocess("--explore-replay=oldest")
    other.assert_outcomes(passed=1)
    other.stdout.fnmatch_lines(["test_it.py::test_loses: the run of --explore-replay passes"])


def test_deep_means_ten_times_the_bounds(pytester: pytest.Pytester) -> None:
    source = (
        HEAD
        + """
RUNS = []

@pytest.mark.explore(runs=20)
async def test_counted(exploration):
    RUNS.append(1)
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            nursery.start_soon(trio.sleep, 1)

def test_runs():
    print(f"runs: {len(RUNS)}.")
"""
    )
    usual = run(pytester, source, "-s").stdout.str()
    deep = run(pytester, source, "-s", "--explore-deep").stdout.str()
    counts = [int(re.search(r"runs: (\d+)\.", text)[1]) for text in (usual, deep)]  # type: ignore[index]
    assert counts[1] - counts[0] == 180


def test_the_last_failure_is_tried_first_and_forgotten_when_the_test_passes(pytester: pytest.Pytester) -> None:
    run(pytester, LOSES).assert_outcomes(failed=1)
    again = run(pytester, LOSES)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["  (a run kept from the last failure, tried first)"])
    mended = run(pytester, KEEPS)
    mended.assert_outcomes(passed=1)
    mended.stdout.fnmatch_lines(["test_it.py::test_loses: the run kept from its last failure passes now; tried first"])
    assert "tried first" not in run(pytester, KEEPS).stdout.str()


def test_without_a_cache_nothing_is_kept(pytester: pytest.Pytester) -> None:
    for _ in range(2):
        result = run(pytester, LOSES, "-p", "no:cacheprovider")
        result.assert_outcomes(failed=1)
        assert "tried first" not in result.stdout.str()


COVERED = {
    "code": """
import trio
async def awaits():
    await trio.sleep(1)
async def shielded():
    with trio.CancelScope(shield=True):
        await trio.sleep(1)
async def unused():
    await trio.sleep(1)
""",
    "test_first": """
import code_of_ours as code
async def test_first(exploration):
    with exploration.victim():
        await code.awaits()
""",
    "test_second": """
import code_of_ours as code
async def test_second(exploration):
    with exploration.victim():
        await code.shielded()
""",
}


@pytest.mark.parametrize(("least", "code"), [(50, pytest.ExitCode.OK), (51, pytest.ExitCode.TESTS_FAILED)])
def test_cancellation_coverage_of_all_tests_together_can_be_required(
    pytester: pytest.Pytester, least: int, code: pytest.ExitCode
) -> None:
    pytester.makepyfile(
        code_of_ours=COVERED["code"], test_first=COVERED["test_first"], test_second=COVERED["test_second"]
    )
    options = ("--explore-source=code_of_ours.py", f"--explore-fail-under={least}", "-W", "ignore")
    result = pytester.runpytest_inprocess(*options)
    result.assert_outcomes(passed=2)
    assert result.ret == code
    result.stdout.fnmatch_lines(
        [
            "code_of_ours.py: never struck: 6",
            "50.0 %, cancelled at 1 of 2 await lines reached, 1 never reached, in 2 explored tests",
        ]
    )
    assert ("50.0 % is less than the 51 % required" in result.stdout.str()) == (code != 0)


def test_required_coverage_fails_when_no_explored_test_ran(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it(): pass", "--explore-fail-under=1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--explore-fail-under: no explored test ran*"])


# --- what it costs where it is not used ---------------------------------------------------------------------


def _loaded(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_plugin_alone_loads_neither_trio_nor_the_explorer() -> None:
    loaded = _loaded("import meerkat_trio.testing.pytest_plugin")
    ours = {name for name in loaded if name.startswith("meerkat_trio")}
    assert ours == {"meerkat_trio", "meerkat_trio.testing", "meerkat_trio.testing.pytest_plugin"}
    assert "trio" not in loaded


def test_the_explorer_loads_neither_pytest_nor_hypothesis_nor_the_shell() -> None:
    names = "CancellationBug, CheckFailed, Exploration, Failure, ReplayError, Report, ScenarioError, explore"
    loaded = _loaded(f"from meerkat_trio.testing import {names}") - _loaded("")
    allowed = {"trio", "attr", "attrs", "outcome", "sniffio", "sortedcontainers", "idna", "meerkat_trio", "__mp_main__"}
    assert {name.partition(".")[0] for name in loaded} - allowed - sys.stdlib_module_names == set()
    ours = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("meerkat_trio")}
    assert ours <= {
        "meerkat_trio",
        "meerkat_trio.testing",
        "meerkat_trio.abc",
        "meerkat_trio.authority",
        "meerkat_trio.comms",
        "meerkat_trio._messages",
    }
