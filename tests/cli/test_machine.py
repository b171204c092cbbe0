"""`meerkat-trio machine`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from meerkat_trio.authority import TRANSITIONS, Effect
from meerkat_trio.cli._commands import commands

DOCS = Path(__file__).parent.parent.parent / "docs"


def printed(*args: str) -> str:
    result = CliRunner().invoke(commands, ["machine", *args])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_documented_table_is_what_the_code_says() -> None:
    assert (DOCS / "machine.md").read_text() == printed("--format", "markdown")


def test_json_has_every_row() -> None:
    rows = json.loads(printed("--format", "json"))["rows"]
    assert [row["name"] for row in rows] == [row.name for row in TRANSITIONS]


def test_the_table_is_the_default_and_names_every_row() -> None:
    result = CliRunner(env={"COLUMNS": "400"}).invoke(commands, ["machine"])
    assert all(row.name in result.output for row in TRANSITIONS)


@pytest.mark.parametrize(
    "edge",
    [
        "INITIALIZING --> IDLE: Register",
        "STOPPED --> IDLE: Register",
        "ATTACHED --> RUNNING: BeginRun",
        "EXITED_RESPAWNABLE --> STARTING: RespawnDue, SpawnDrain",
        "STARTING --> RUNNING: DrainStarted",
        "RUNNING --> STARTING: RebindDrain",
    ],
)
def test_the_diagrams_show_what_the_authority_does(edge: str) -> None:
    assert edge in printed("--format", "mermaid")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["machine", "--format", "pdf"], "Invalid value for '--format': 'pdf' is not one of "),
        (["machine", "--bogus"], "No such option '--bogus'."),
        (["machine", "extra"], "Got unexpected extra argument (extra)"),
        (["--bogus"], "No such option '--bogus'."),
        (["nonsense"], "No such command 'nonsense'."),
    ],
)
def test_bad_input_is_one_line_and_status_2(args: list[str], line: str) -> None:
    result = CliRunner().invoke(commands, args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {line}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["table", "mermaid", "json", "markdown"])
def test_a_reader_that_leaves_early_gets_no_traceback(form: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "meerkat_trio.cli", "machine", "--format", form],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert ran.stderr == ""


def test_every_effect_is_documented() -> None:
    effects = json.loads(printed("--format", "json"))["effects"]
    assert list(effects) == [effect.__name__ for effect in get_args(Effect)]
    assert all(effects.values())
    assert "| SessionFinished | Nothing of the session runs any more | whichever step " in printed(
        "--format", "markdown"
    )


def test_without_click_the_command_says_what_is_missing() -> None:
    code = "import sys; sys.modules['click'] = None; from meerkat_trio.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "meerkat-trio needs click: pip install 'meerkat-trio[cli]'\n"
