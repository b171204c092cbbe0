"""`meerkat-trio keygen`."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meerkat_trio.cli._commands import commands
from meerkat_trio.comms import Identity, KeyFileRefused
from meerkat_trio.comms._identity import load_public_key

from ..directories import names_in


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(commands, ["keygen", *map(str, args)])


def refused(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr


def test_it_makes_a_directory_with_a_key_pair(tmp_path: Path) -> None:
    result = run(tmp_path / "alice")
    assert result.exit_code == 0, result.output
    identity = Identity.load(tmp_path / "alice" / "secret.key")
    assert load_public_key(tmp_path / "alice" / "public.key") == identity.public_key
    assert str(identity.peer_id) in result.stdout
    assert identity.public_key.hex() in result.stdout
    assert (tmp_path / "alice" / "secret.key").read_text().strip() not in result.stdout
    assert stat.S_IMODE((tmp_path / "alice").stat().st_mode) == 0o700
    assert names_in(tmp_path / "alice") == ["public.key", "secret.key"]


@pytest.mark.parametrize("name", ["secret.key", "public.key"])
def test_a_key_that_is_there_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    assert str(tmp_path / name) in refused(run(tmp_path))
    assert names_in(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_a_link_to_nothing_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "public.key").symlink_to(tmp_path / "elsewhere")
    assert "exists already" in refused(run(tmp_path))
    assert names_in(tmp_path) == ["public.key"]


def test_what_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "missing" / "x"):
        assert str(where) in refused(run(where))
    refused(run())
    refused(run(tmp_path / "a", tmp_path / "b"))
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("there", [True, False])
def test_half_a_pair_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    def fail(self: Identity, path: Path) -> None:
        raise KeyFileRefused(path, "No space left on device")

    monkeypatch.setattr(Identity, "save_public_key", fail)
    directory = tmp_path / "alice"
    if there:
        directory.mkdir()
    assert "No space left" in refused(run(directory))
    assert directory.exists() is there
    assert not there or names_in(directory) == []


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['nacl'] = None; from meerkat_trio.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "keygen", tmp_path / "a"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "pip install" in ran.stderr
