"""Every block of the README and the docs is run, or, where running it takes minutes, every name in it exists.

The two commands of the README are run by `.ci/run`, as its steps `tests` and `readme_demo`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from meerkat_trio.cli._commands import commands

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"`((?:python -m|meerkat-trio|\.ci/run)(?: [^`]*)?)`")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def place(page: Path, match: re.Match[str]) -> str:
    return f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}"


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(block.group(2), id=place(page, block))
        for page in PAGES
        for block in FENCED.finditer(page.read_text())
        if block.group(1) == language
    ]


COMMANDS = [
    pytest.param(command.group(1), id=place(page, command))
    for page in PAGES
    for command in COMMAND.finditer(page.read_text())
]


def test_every_block_has_a_test_for_its_language() -> None:
    tested = {"python", "json", "sh", "bash"}
    # A picture is nothing to run, and the diagrams of machine.md are compared with what the code prints.
    # What a block prints is compared below.
    not_run = {"", "mermaid", "text"}
    assert {block.group(1) for page in PAGES for block in FENCED.finditer(page.read_text())} <= tested | not_run


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_of_the_docs_runs(block: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("block", blocks("json"))
def test_a_json_block_of_the_docs_is_drained(block: str) -> None:
    result = CliRunner().invoke(commands, ["demo", "--json", "--input", "-"], input=block)
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["total"]["handled"] == len(block.splitlines())


@pytest.mark.parametrize("block", blocks("sh"))
def test_a_shell_block_of_the_docs_names_what_exists(block: str) -> None:
    for line in block.strip().splitlines():
        for command in line.split(" && "):
            require_known(shlex.split(command))


@pytest.mark.parametrize("block", blocks("bash"))
def test_a_script_of_the_docs_runs(block: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = ["bash", "-m", "-c", block]
    ran = subprocess.run(
        script, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_docs_names_what_exists(command: str) -> None:
    # Without what stands for a choice: brackets, names in capitals, dots.
    words = shlex.split(command.partition(" > ")[0].replace("[", "").replace("]", ""))
    require_known([word for word in words if word != "…" and not word.isupper()])


def require_known(words: list[str]) -> None:
    program, *args = words
    match Path(program).name:
        case "python3" | "python":
            assert args[0] == "-m", words
            require_module(*args[1:])
        case "pip":
            wanted = args[-1]
            assert args[:-1] in (["install", "-q"], ["install", "-e"], ["install", "-q", "-e"])
            assert wanted.removeprefix(".[").removesuffix("]") in PROJECT["project"]["optional-dependencies"]
        case "meerkat-trio":
            require_options(args)
        case "run":
            steps = set(re.findall(r"^(\w+)\(\)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE))
            assert {*args} <= steps
        case _:
            raise AssertionError(f"{program}: unknown here")


def require_module(name: str, *args: str) -> None:
    assert importlib.util.find_spec(name) is not None, name
    options = [arg for arg in args if arg.startswith("-")]
    if name == "pytest" and "-m" in args:
        markers = {marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
        assert {*args} - {"-m"} <= markers
    elif options:
        ran = subprocess.run(
            [sys.executable, "-m", name, "--help"], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert all(option in ran.stdout for option in options)


def require_options(args: list[str]) -> None:
    if not args:
        return
    command = commands.commands[args[0]]
    try:
        command.make_context(args[0], args[1:])
    except click.exceptions.ClickException as error:
        raise AssertionError(error.format_message()) from None


def test_every_link_of_the_docs_leads_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", FENCED.sub("", page.read_text()))
        if not (page.parent / target).exists()
    ]
    assert dead == []


PRINTED = re.compile(
    r"^```python\n(# (\w+\.py)\n.*?)^```$(?:(?!^```).)*?^```text\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL
)
"""A block that says what its file is called, and what the page shows of its output."""


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(block.groups(), id=f"{page.name}:{block.group(2)}")
        for page in PAGES
        for block in PRINTED.finditer(page.read_text())
    ],
)
def test_a_block_prints_what_the_page_shows(shown: tuple[str, str, str], tmp_path: Path) -> None:
    block, name, expected = shown
    (tmp_path / name).write_text(block)
    ran = subprocess.run(
        [sys.executable, "-W", "error", name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    wanted = expected.splitlines()
    if wanted[-1] == "…":
        assert ran.stdout.splitlines()[: len(wanted) - 1] == wanted[:-1]
    else:
        assert ran.stdout.splitlines() == wanted
