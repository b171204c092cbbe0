"""`meerkat-trio host`, `send` and `watch`: one host in a process of its own, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meerkat_trio.cli._commands import commands
from meerkat_trio.comms import Identity, TrustFile

COMMAND = [sys.executable, "-c", "from meerkat_trio.cli import main; main()"]


def invoke(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(commands, [*args], input=stdin)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return furnished(tmp_path)


def furnished(tmp_path: Path) -> Path:
    """Return a directory with the keys of alice and bob, who trust each other, and a configuration for bob."""
    keys = {name: Identity.generate() for name in ("alice", "bob")}
    for name, identity in keys.items():
        (tmp_path / name).mkdir()
        identity.save(tmp_path / name / "secret.key")
    for name, other in (("alice", "bob"), ("bob", "alice")):
        endpoint = keys[other].endpoint(other, f"uds://{tmp_path}/{other}.sock")
        TrustFile(tmp_path / name / "trust.jsonl").add(endpoint)
    configure(tmp_path)
    return tmp_path


def configure(place: Path, host: str = "", session: str = "") -> None:
    (place / "host.toml").write_text(
        f'[host]\nstatus = "uds://{place}/status.sock"\n{host}\n'
        f'[[session]]\nname = "bob"\nkey = "bob"\nlisten = "uds://{place}/bob.sock"\n{session}\n'
    )


@contextmanager
def hosted(place: Path) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, "host", "--config", str(place / "host.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("bob  ")
            yield process
        finally:
            process.kill()


def send(place: Path, *lines: object, options: tuple[str, ...] = ()) -> Result:
    file = place / "lines.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    address = f"uds://{place}/bob.sock"
    return invoke("send", address, "--key", str(place / "alice"), "--file", str(file), *options)


def test_a_host_handles_what_is_sent_and_says_how_it_stands(place: Path) -> None:
    with hosted(place) as process:
        result = send(place, {"body": "hello"}, {"body": {"n": 1}, "id": "mine"})
        assert (result.exit_code, result.output) == (0, "2 of 2 admitted\n")
        again = send(place, {"body": "hello"}, options=("--json",))
        assert json.loads(again.output)["admitted"] == 1
        anew = send(place, {"body": "hello"}, options=("--again",))
        assert anew.exit_code == 0
        shown = invoke("watch", f"uds://{place}/status.sock", "--once", "--json")
        snapshot = json.loads(shown.output)
        (session,) = snapshot["sessions"]
        assert (session["name"], session["phase"], session["admitted"]) == ("bob", "attached", 3)
        tree = invoke("watch", f"uds://{place}/status.sock", "--once")
        assert "owned by session" in tree.output
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        assert json.loads(process.stderr.readline())["total"]["sessions"] == 1
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
        assert process.returncode == 0
    assert [line.split("  ")[-1] for line in out.splitlines()] == ['"hello"', '{"n": 1}', '"hello"']
    assert not (place / "bob.sock").exists()


def test_standard_input_is_sent_up_to_the_line_that_is_malformed(place: Path) -> None:
    with hosted(place):
        command = [*COMMAND, "send", f"uds://{place}/bob.sock", "--key", str(place / "alice")]
        ran = subprocess.run(command, input='{"body": 1}\nrubbish\n', capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout == "1 of 1 admitted\n"
    assert "<stdin>:2: not JSON" in ran.stderr


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meerkat_trio.cli._send.LONGEST_LINE", 1000)
    monkeypatch.setattr("meerkat_trio.cli._send_input.LONGEST_LINE", 1000)
    result = send(place, {"body": 1}, {"body": "x" * 1000})
    assert result.exit_code == 2
    assert "lines.jsonl:2: a line of more than 1000 bytes" in result.output
    result = invoke("send", f"uds://{place}/bob.sock", "--key", str(place / "alice"), "--file", "/dev/zero")
    assert result.exit_code == 2
    assert "/dev/zero:1: a line of more than 1000 bytes" in result.output


def test_a_peer_that_is_not_there_is_looked_for_and_given_up(place: Path) -> None:
    result = send(place, {"body": 1}, options=("--timeout", "0"))
    assert result.exit_code == 1
    assert result.output == "0 of 1 admitted, 1 closed\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ([1], "an object with body"),
        ({"text": 1}, "an object with body"),
        ({"body": 1, "id": ""}, "id must be a text"),
        ({"body": 1, "id": "x" * 300}, "id must be a text"),
    ],
)
def test_a_file_is_checked_before_anything_is_sent(place: Path, line: Any, why: str) -> None:
    result = send(place, {"body": "never sent"}, line)
    assert result.exit_code == 2
    assert f"lines.jsonl:2: {why}" in result.output


def test_the_peer_has_to_be_known(place: Path) -> None:
    result = invoke("send", "tcp://nobody:1", "--key", str(place / "alice"))
    assert result.exit_code == 2
    assert "has nobody at tcp://nobody:1" in result.output
    missing = invoke("send", f"uds://{place}/bob.sock", "--key", str(place / "alice"), "--file", str(place / "none"))
    assert missing.exit_code == 2
    assert "No such file" in missing.output


@pytest.mark.parametrize(
    ("host", "session", "why"),
    [
        ("", "color = 1", "[[session]] 1: color: there is no such key"),
        ("grace = -1", "", "[host]: grace: seconds from 0 up"),
        ('grace = "long"', "", "[host]: grace: a number is needed"),
        ("", "work_queue = 0", "[[session]] 1: work_queue: 1 or more"),
        ("", 'work_queue = "x"', "[[session]] 1: work_queue: a whole number"),
        ("", 'handler = "os:nothing"', "[[session]] 1: handler: os has no 'nothing'"),
        ("", 'handler = "os:getcwd"', "[[session]] 1: handler: os:getcwd is no async function"),
        ("", '[[session]]\nname = "eve"\nkey = "eve"\nlisten = "tcp://127.0.0.1:0"', "[[session]] 2: key: "),
        ("", '[[session]]\nname = "bob"\nkey = "bob"\nlisten = "tcp://127.0.0.1:0"', "two are called 'bob'"),
        ("", '[[session]]\nname = "eve"', "[[session]] 2: key: is needed"),
        ("rubbish", "", "no TOML"),
    ],
)
def test_a_configuration_of_no_use_is_one_line(place: Path, host: str, session: str, why: str) -> None:
    configure(place, host, session)
    result = invoke("host", "--config", str(place / "host.toml"))
    assert result.exit_code == 2
    assert why in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "at least one [[session]]"),
        ("host = 1", "host: a table is needed"),
        (
            '[host]\nstatus = "tcp://0.0.0.0:1"\n[[session]]\nname = "bob"\nkey = "bob"\nlisten = "x"',
            "status: uds:///path",
        ),
        ('[[session]]\nname = "bob"\nkey = "bob"\nlisten = "x"', "session 'bob': x: address"),
        ('[[session]]\nname = " "\nkey = "bob"\nlisten = "x"', "name: a printable text"),
    ],
)
def test_a_configuration_without_sense_is_refused(place: Path, content: str, why: str) -> None:
    (place / "host.toml").write_text(content)
    result = invoke("host", "--config", str(place / "host.toml"))
    assert result.exit_code == 2
    assert why in result.output


def test_an_address_in_use_is_named(place: Path) -> None:
    (place / "bob.sock").write_text("not a socket")
    result = invoke("host", "--config", str(place / "host.toml"))
    assert result.exit_code == 2
    assert "bob.sock: Address already in use" in result.output
    assert (place / "bob.sock").read_text() == "not a socket"


def test_nobody_to_watch_is_one_line(place: Path) -> None:
    result = invoke("watch", f"uds://{place}/status.sock", "--once")
    assert result.exit_code == 1
    assert "No such file" in result.output
    assert invoke("watch", "nowhere").exit_code == 2


def test_what_is_no_status_is_told(place: Path) -> None:
    with hosted(place):
        # Where messages go is not where the status is.
        result = invoke("watch", f"uds://{place}/bob.sock", "--once")
    assert result.exit_code == 1
    assert os.fspath(place) in result.output
