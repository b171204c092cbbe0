"""`meerkat-trio machine`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from meerkat_trio.authority import TRANSITIONS, Effect
from meerkat_trio.cli._commands import commands

from .terminal import on_a_terminal

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


def words_of_the_table() -> set[str]:
    words = {word for row in TRANSITIONS for word in (row.name, row.on.__name__, *row.emits, row.ignored or "")}
    words |= {name for row in TRANSITIONS for name, _ in row.guards}
    words |= {word for row in TRANSITIONS for word in row.doc.split()}
    return words - {""}


def missing_from(text: str) -> set[str]:
    shown = set(re.findall(r"[^\s│|,]+", text))
    return {word for word in words_of_the_table() if not set(re.findall(r"[^\s│|,]+", word)) <= shown}


def test_the_table_is_the_default_and_a_pipe_gets_every_word_whole() -> None:
    environment = {**os.environ, "COLUMNS": "80"}
    command = [sys.executable, "-m", "meerkat_trio.cli", "machine"]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)
    assert missing_from(ran.stdout) == set()


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_a_terminal_shows_every_word_whole(columns: int) -> None:
    lines = on_a_terminal(columns, "machine")
    assert missing_from("\n".join(lines)) == set()
    assert max(len(line) for line in lines) <= columns


@pytest.mark.parametrize(
    "edge",
    [
        "session_INITIALIZING --> session_IDLE: Register",
        "session_STOPPED --> session_IDLE: Register",
        "session_ATTACHED --> session_RUNNING: BeginRun",
        "drain_EXITED_RESPAWNABLE --> drain_STARTING: RespawnDue, SpawnDrain",
        "drain_STARTING --> drain_RUNNING: DrainStarted",
        "drain_RUNNING --> drain_STARTING: RebindDrain",
    ],
)
def test_the_diagrams_show_what_the_authority_does(edge: str) -> None:
    assert edge in printed("--format", "mermaid")


def test_the_diagrams_are_one_document_whose_states_are_all_declared() -> None:
    first, *lines = printed("--format", "mermaid").splitlines()
    assert first == "stateDiagram-v2"
    assert "stateDiagram-v2" not in lines
    parts = [line.split()[-2] for line in lines if line.endswith("{")]
    assert parts == ["session", "drain"]
    assert lines.count("    }") == 2
    declared = [line.split()[-1] for line in lines if " as " in line and not line.endswith("{")]
    assert len(declared) == len(set(declared))
    edges = [line.split(":")[0].split(" --> ") for line in lines if "-->" in line]
    assert {state.strip() for edge in edges for state in edge} == {*declared, "[*]"}


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
    assert ran.stderr == "meerkat-trio: the command line needs click: pip install 'meerkat-trio[cli]'\n"


def test_an_interruption_while_it_loads_is_one_line() -> None:
    code = """
import builtins, sys
real = builtins.__import__
def interrupted(name, *args):
    if name == "click":
        raise KeyboardInterrupt
    return real(name, *args)
builtins.__import__ = interrupted
from meerkat_trio.cli import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")


def test_a_closed_output_is_one_line_and_status_1() -> None:
    for args in (["machine"], ["demo", "--json", "--messages", "1", "--sessions", "1"]):
        command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "meerkat_trio.cli", *args]
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (1, "meerkat-trio: standard output is closed\n")
