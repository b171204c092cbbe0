"""`meerkat-trio trust`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meerkat_trio.authority import PeerId
from meerkat_trio.cli._commands import commands
from meerkat_trio.comms import Identity, TrustFile

from ..directories import names_in

BOB = Identity(b"b" * 32)
KEY = BOB.public_key.hex()


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(commands, ["trust", *map(str, args)])


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr


def test_a_peer_is_added_listed_and_removed(tmp_path: Path) -> None:
    assert run("add", tmp_path, "bob", "tcp://localhost:1", KEY).stdout == f"trusted  {BOB.peer_id}\n"
    assert TrustFile(tmp_path / "trust.jsonl").endpoints() == (BOB.endpoint("bob", "tcp://localhost:1"),)
    assert run("list", tmp_path).stdout == f"{BOB.peer_id}  tcp://localhost:1  bob\n"
    assert run("remove", tmp_path, BOB.peer_id.upper()).stdout == f"removed  {BOB.peer_id}\n"
    result = run("list", tmp_path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nobody is trusted\n")


def test_adding_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    run("add", tmp_path, "bob", "tcp://localhost:1", KEY)
    assert run("add", tmp_path, "bob", "tcp://localhost:1", KEY).stdout == f"trusted already  {BOB.peer_id}\n"


def test_the_key_may_come_in_the_file_of_keygen(tmp_path: Path) -> None:
    BOB.save_public_key(tmp_path / "bob.key")
    assert run("add", tmp_path, "bob", "uds:///run/bob", tmp_path / "bob.key").exit_code == 0
    assert TrustFile(tmp_path / "trust.jsonl").endpoints()[0].signing_key == BOB.public_key


def test_json_is_what_the_file_holds(tmp_path: Path) -> None:
    run("add", tmp_path, "bob", "tcp://localhost:1", KEY)
    assert json.loads(run("list", tmp_path, "--json").stdout) == json.loads((tmp_path / "trust.jsonl").read_text())


def test_a_name_does_not_turn_the_line_round(tmp_path: Path) -> None:
    run("add", tmp_path, "bob\u202etxt", "tcp://localhost:1", KEY)
    assert "\\u202etxt" in run("list", tmp_path).stdout


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("bob", "tcp://localhost:1", "00" * 32), "zero"),
        (("bob", "tcp://localhost:1", "xyz"), "KEY: 64 hexadecimal digits"),
        (("bob", "tcp://localhost:1", "."), "not a regular file"),
        (("bob", "localhost", KEY), "address"),
        (("", "tcp://localhost:1", KEY), "name"),
        (("a\nb", "tcp://localhost:1", KEY), "name"),
        (("bob",), "ADDRESS"),
    ],
)
def test_a_peer_that_is_malformed_is_not_added(tmp_path: Path, args: tuple[str, ...], why: str) -> None:
    assert why in refused(run("add", tmp_path, *args))
    assert names_in(tmp_path) == []


def test_a_broken_file_is_named_with_its_line_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "trust.jsonl").write_text("nonsense\n")
    for args in (("list",), ("add", "bob", "tcp://localhost:1", KEY), ("remove", BOB.peer_id)):
        assert f"{tmp_path / 'trust.jsonl'}, line 1: " in refused(run(args[0], tmp_path, *args[1:]))
    assert (tmp_path / "trust.jsonl").read_text() == "nonsense\n"


def test_who_is_not_trusted_cannot_be_removed(tmp_path: Path) -> None:
    assert "is not trusted" in refused(run("remove", tmp_path, PeerId.of_key(b"x" * 32)))
    assert "not a UUID" in refused(run("remove", tmp_path, "bob"))
    assert names_in(tmp_path) == []


def test_what_is_no_directory_or_no_command_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(run("list", tmp_path / "missing"))
    refused(run())
    refused(run("nonsense"))
    refused(run("list", "--nonsense", tmp_path))
