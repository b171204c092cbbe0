"""`meerkat-trio machine`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from meerkat_trio.authority import TRANSITIONS
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


def test_an_unknown_format_is_refused_with_status_2() -> None:
    result = CliRunner().invoke(commands, ["machine", "--format", "pdf"])
    assert result.exit_code == 2
    assert "'pdf' is not one of" in result.output


def test_without_click_the_command_says_what_is_missing() -> None:
    code = "import sys; sys.modules['click'] = None; from meerkat_trio.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "meerkat-trio needs click: pip install 'meerkat-trio[cli]'\n"
