"""`meerkat-trio check`."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meerkat_trio.cli._commands import commands

SCENARIOS = """
import random, trio

print("printed while it is imported")

async def fine(x):
    print("printed while it runs")
    with x.victim(name="sleeper"):
        await trio.sleep(1)

async def half(x):
    await trio.sleep(1)
    with x.victim(name="sleeper"):
        await trio.sleep(1)

async def broken(x):
    x.log("\\x1b[31mred \\u202e")
    done = False
    with x.victim(name="sleeper"):
        await trio.sleep(1)
        done = True
    x.check(done, "not done")

async def slow(x):
    with x.victim(name="sleeper"):
        try:
            await trio.sleep(1)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

async def held(x):
    order = []
    async def task(name, steps):
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        order.append(name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(task, "first", 1)
        nursery.start_soon(task, "second", 9)
    x.check(order == ["first", "second"], "overtaken")

async def long(x):
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(trio.sleep, number)
        with x.victim():
            for _ in range(40):
                await trio.sleep(0.1)

async def unsteady(x):
    await trio.sleep(random.random())

async def threaded(x):
    await trio.to_thread.run_sync(int)

async def online(x):
    await trio.lowlevel.wait_readable(0)

def plain(x):
    pass

class Kept:
    @staticmethod
    async def fine(x):
        await trio.sleep(1)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with scenarios in it; nothing that is imported from it stays."""
    (tmp_path / "scenarios_here.py").write_text(SCENARIOS)
    package = tmp_path / "pack" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "others.py").write_text("from ..more import fine as fine\n")
    (tmp_path / "pack" / "more.py").write_text("import trio\nasync def fine(x):\n    await trio.sleep(1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def check(*args: str) -> Result:
    return CliRunner().invoke(commands, ["check", *args])


def as_json(*args: str, status: int = 0) -> Any:
    result = check(*args, "--json")
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


pytestmark = pytest.mark.usefixtures("folder")
FEW = ("--runs", "40")


def test_nothing_found_is_exit_status_0_and_says_what_was_tried() -> None:
    result = check("scenarios_here:fine", *FEW)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("fine: nothing found\n")
    assert "1 of 1 await lines reached" in result.stdout


def test_a_failure_is_exit_status_1_and_the_command_it_names_shows_it_again() -> None:
    result = check("scenarios_here:broken", *FEW)
    assert result.exit_code == 1
    assert "not done" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("on the command line: "))
    words = line.removeprefix("on the command line: meerkat-trio check ").split()
    again = check(*(word.strip("'") for word in words))
    assert again.exit_code == 1
    assert "went another way" not in again.stdout
    assert "not done" in again.stdout


def test_the_command_of_a_replay_keeps_what_else_decides_the_run() -> None:
    result = check("scenarios_here:slow", *FEW, "--dies-within", "2")
    assert result.exit_code == 1
    assert "slow to die" in result.stdout
    assert "check scenarios_here:slow --dies-within 2.0 --replay " in result.stdout
    assert check("scenarios_here:slow", *FEW).exit_code == 0


def test_what_a_scenario_says_cannot_steer_the_terminal() -> None:
    result = check("scenarios_here:broken", *FEW)
    assert "\\x1b[31mred \\u202e" in result.stdout
    assert not {"\x1b", "\u202e"} & set(result.stdout)


def test_json_is_the_report_and_nothing_else() -> None:
    data = as_json("scenarios_here:fine", *FEW)
    assert (data["scenario"], data["failures"], data["coverage"]["percent"]) == ("fine", [], 100.0)
    failed = as_json("scenarios_here:broken", *FEW, status=1)
    assert [failure["kind"] for failure in failed["failures"]] == ["check"]


@pytest.mark.parametrize(
    "target",
    ["pack.inner.others:fine", "pack/inner/others.py:fine", "./scenarios_here.py:fine", "scenarios_here:Kept.fine"],
)
def test_modules_files_and_what_is_inside_a_class_can_be_named(target: str) -> None:
    assert as_json(target, "--runs", "12")["failures"] == []


def test_a_file_with_the_name_of_an_installed_module_is_the_one_that_is_meant(folder: Path) -> None:
    (folder / "json.py").write_text("async def mine(x):\n    import trio\n    await trio.sleep(1)\n")
    assert as_json("json.py:mine", "--runs", "12")["scenario"] == "mine"


def test_a_file_elsewhere_can_import_its_neighbours(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "neighbour_of_it.py").write_text(SCENARIOS)
    (elsewhere / "uses_it.py").write_text("from neighbour_of_it import fine\n")
    assert as_json("elsewhere/uses_it.py:fine", "--runs", "12")["scenario"] == "fine"


def test_too_little_coverage_is_exit_status_1_and_says_so() -> None:
    result = check("scenarios_here:half", *FEW, "--fail-under", "60")
    assert result.exit_code == 1
    assert result.stderr.endswith("50.0 % of the await lines reached were struck: --fail-under asks for 60 %\n")
    assert "reached and never struck: scenarios_here.py:" in result.stdout
    assert check("scenarios_here:half", *FEW, "--fail-under", "50").exit_code == 0


def test_source_says_whose_lines_count() -> None:
    lines = as_json("scenarios_here:fine", *FEW, "--source", "pack")["coverage"]
    assert lines["struck"] == []
    assert lines["never_reached"] == ["pack/more.py:3"]


def test_the_mode_is_passed_on() -> None:
    assert as_json("scenarios_here:held", "--runs", "400", status=1)["failures"][0]["mode"] == "adversarial"
    assert as_json("scenarios_here:held", "--runs", "400", "--mode", "fair")["failures"] == []


def test_the_step_bound_is_passed_on() -> None:
    failure = as_json("scenarios_here:long", *FEW, "--max-steps", "9", status=1)["failures"][0]
    assert failure["kind"] == "livelock"


def test_workers_and_a_seed_give_the_report_that_one_process_gives() -> None:
    one = as_json("scenarios_here:half", "--runs", "120", "--seed", "5")
    assert as_json("scenarios_here:half", "--runs", "120", "--seed", "5", "--workers", "2") == one


def test_the_page_and_the_trace_are_written(folder: Path) -> None:
    result = check("scenarios_here:broken", *FEW, "--html", "page.html", "--perfetto", "trace.json")
    assert result.exit_code == 1
    assert "not done" in (folder / "page.html").read_text()
    assert json.loads((folder / "trace.json").read_text())["otherData"]["kind"] == "check"


def test_without_a_failure_there_is_a_page_and_no_trace(folder: Path) -> None:
    result = check("scenarios_here:fine", *FEW, "--html", "page.html", "--perfetto", "trace.json")
    assert result.exit_code == 0
    assert "nothing found" in (folder / "page.html").read_text()
    assert not (folder / "trace.json").exists()
    assert "--perfetto trace.json: not written, for there is no failure to show\n" in result.stderr


NEVER = "import no_such_module_anywhere\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("no_such_module:x",), "no_such_module cannot be imported: ModuleNotFoundError: No module named"),
        (("scenarios_here",), "scenarios_here: package.module:scenario or path/to/file.py:scenario is needed"),
        (("scenarios_here:",), "scenarios_here:: package.module:scenario or"),
        ((":x",), ":x: package.module:scenario or"),
        (("missing.py:x",), "missing.py: no such file"),
        (("pack/:x",), "pack/: a directory"),
        (("scenarios_here:nothing",), "scenarios_here has no 'nothing'; its async functions are fine, half, broken"),
        (("pack:nothing",), "pack has no 'nothing'; it has no async function"),
        (("scenarios_here:plain",), "plain is not async: a scenario is written `async def name(x): …`"),
        (("scenarios_here:unsteady",), "unsteady is not deterministic: two runs with the same choices differ. first: "),
        (("scenarios_here:threaded",), "threaded uses threads: "),
        (("scenarios_here:online",), "online uses real I/O"),
        (("scenarios_here:fine", "--replay", "nonsense"), "a replay string begins with oldest, newest or a number"),
        (("scenarios_here:fine", "--replay", "oldest;x=1"), "this part of the replay string cannot be read: 'x=1'"),
        (("scenarios_here:fine", "--replay", "oldest", "--runs", "3"), "--runs: with --replay only the run of the"),
        (("scenarios_here:fine", "--budget", "-1"), "Invalid value for '--budget': -1.0 is not in the range"),
        (("scenarios_here:fine", "--budget", "nan"), "Invalid value for '--budget': nan is not a finite number."),
        (("scenarios_here:fine", "--jitter", "inf"), "Invalid value for '--jitter': inf is not a finite number."),
        (("scenarios_here:fine", "--runs", "0"), "Invalid value for '--runs': 0 is not in the range"),
        (("scenarios_here:fine", "--workers", "x"), "Invalid value for '--workers': 'x' is not a valid integer"),
        (("scenarios_here:fine", "--fail-under", "101"), "Invalid value for '--fail-under': 101.0 is not in the range"),
        (("scenarios_here:fine", "--mode", "wild"), "Invalid value for '--mode': 'wild' is not one of"),
        (("scenarios_here:fine", "--source", "nowhere"), "source: neither a package nor a file: 'nowhere'"),
        (("scenarios_here:fine", "--html", "missing/page"), "--html missing/page: No such file or directory"),
        (("scenarios_here:fine", "--html", "pack"), "Invalid value for '--html': File 'pack' is a directory."),
        (("scenarios_here:fine", "--html", "a", "--perfetto", "./a"), "--perfetto a: this is where --html goes"),
        ((), "Missing argument 'MODULE:SCENARIO'."),
    ],
)
def test_bad_usage_is_one_line_and_status_2(args: tuple[str, ...], message: str) -> None:
    result = check(*args)
    said = [line for line in result.stderr.splitlines() if not line.startswith("printed")]
    assert (result.exit_code, result.stdout) == (2, "")
    assert said[0].startswith(f"Error: {message}")
    assert len(said) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (NEVER, "ModuleNotFoundError: No module named 'no_such_module_anywhere' ("),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines ("),
        ("raise SystemExit(0)\n", "it exits with 0"),
    ],
)
@pytest.mark.parametrize("target", ["unfit_module:x", "unfit_module.py:x"])
def test_the_reason_why_a_module_cannot_be_imported_is_given(
    folder: Path, target: str, source: str, reason: str
) -> None:
    (folder / "unfit_module.py").write_text(source)
    result = check(target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {target[:-2]} cannot be imported: {reason}")
    assert result.stderr.count("\n") == 1


def test_an_output_is_tried_before_the_exploration_and_left_as_it_was(folder: Path) -> None:
    (folder / "page.html").write_text("precious")
    result = check("scenarios_here:unsteady", "--html", "page.html", "--perfetto", "new.json")
    assert result.exit_code == 2
    assert (folder / "page.html").read_text() == "precious"
    assert not (folder / "new.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_fails_in_the_end_is_one_line_and_status_2() -> None:
    result = check("scenarios_here:broken", "--runs", "12", "--html", "/dev/full")
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: the file cannot be written: No space left on device\n")


def test_a_crash_of_the_explorer_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr("meerkat_trio.cli._check.explore", crash)
    result = check("scenarios_here:fine")
    assert result.exit_code == 2
    assert result.stderr.endswith("Error: the explorer itself failed: RuntimeError: out of order\n")


@pytest.fixture
def listening_to_ctrl_c() -> Iterator[None]:
    """Whoever ignores it, as under nohup, has children that ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening_to_ctrl_c")
def test_an_interruption_that_got_lost_is_heeded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, on_progress: Any, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            on_progress(1, 0.5)
        raise AssertionError("on_progress should not have come back")

    monkeypatch.setattr("meerkat_trio.cli._check.explore", interrupted)
    result = check("scenarios_here:fine")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- as a process of its own -----------------------------------------------------------------------------

COMMAND = (sys.executable, "-m", "meerkat_trio.cli", "check")


TOLD = """
first = True


async def told(x):
    global first
    if first:
        first = False
        open({path!r}, "w").close()
    await long(x)
"""


@pytest.mark.usefixtures("listening_to_ctrl_c")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_one_line_and_status_130(folder: Path, workers: str) -> None:
    begun = folder / "begun"
    os.mkfifo(begun)
    (folder / "told.py").write_text(SCENARIOS + TOLD.format(path=str(begun)))
    command = [*COMMAND, "told.py:told", "--budget", "60", "--workers", workers]
    # Interrupted anywhere, the scenario may leave a coroutine unawaited, of which Python itself would warn.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=quiet
    ) as running:
        begun.read_text()
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("printed")]
    assert (running.returncode, out) == (130, ""), err
    # What is raised in a finalizer, Python itself reports.
    assert "interrupted" in said
    assert len(said) == 1 or any(line.startswith("Exception ignored in") for line in said)


def test_a_terminal_that_knows_few_letters_gets_a_report_too() -> None:
    ran = subprocess.run(
        [*COMMAND, "scenarios_here:broken", *FEW],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 1
    assert b"not done" in ran.stdout


def test_a_terminal_sees_the_progress_and_a_file_does_not() -> None:
    command = [*COMMAND, "scenarios_here:long", "--budget", "1"]
    quiet = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in quiet.stderr.splitlines() if not line.startswith("printed")] == []
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as running:
        os.close(theirs)
        seen = b""
        # The end of a terminal's output is an error or nothing, depending on the system.
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:
            pass
    os.close(ours)
    assert running.returncode == 0
    assert b"exploring" in seen
    assert b" runs" in seen
