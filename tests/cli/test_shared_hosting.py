"""`meerkat-trio host` with Redis: what is refused, and what it says while there is no server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from meerkat_trio.cli._commands import commands
from meerkat_trio.comms import Identity

from ..redis.rig import Server, running

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-c", "from meerkat_trio.cli import main; main()"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the key of bob."""
    (tmp_path / "bob").mkdir()
    Identity.generate().save(tmp_path / "bob" / "secret.key")
    return tmp_path


def configure(place: Path, host: str, session: str = "") -> None:
    (place / "host.toml").write_text(f'[host]\n{host}\n[[session]]\nname = "bob"\nkey = "bob"\n{session}\n')


def invoke_host(place: Path) -> Result:
    return CliRunner().invoke(commands, ["host", "--config", str(place / "host.toml")])


REDIS = 'redis = "unix:///nowhere"'


@pytest.mark.parametrize(
    ("host", "session", "why"),
    [
        (f'{REDIS}\njournal = "file"', "", "[host]: journal: with redis, sessions are remembered there"),
        (REDIS, 'listen = "tcp://127.0.0.1:0"', "[[session]] 1: listen: with redis, sessions are reached through it"),
        (REDIS, 'advertise = "tcp://h:1"', "[[session]] 1: advertise: with redis, sessions are reached through it"),
        (f"{REDIS}\nlease = 0", "", "[host]: lease: seconds from 0.1"),
        (f"{REDIS}\nlease = -1.5", "", "[host]: lease: seconds from 0.1"),
        (f"{REDIS}\nlease = inf", "", "[host]: lease: seconds from 0.1"),
        (f"{REDIS}\nlease = nan", "", "[host]: lease: seconds from 0.1"),
        (f"{REDIS}\nlease = 0.0001", "", "[host]: lease: seconds from 0.1"),
        (f"{REDIS}\nlease = 1e9", "", "[host]: lease: seconds from 0.1"),
        (f'{REDIS}\nlease = "long"', "", "[host]: lease: a number"),
        (f'{REDIS}\nnamespace = ""', "", "[host]: namespace: a printable text"),
        (f'{REDIS}\nname = "two words"', "", "[host]: name: a printable text without spaces"),
        ("redis = 6379", "", "[host]: redis: a text is needed"),
        ('redis = ""', "", "[host]: redis: redis://"),
        ('redis = "http://localhost"', "", "[host]: redis: redis://"),
        ('redis = "redis://"', "", "[host]: redis: it names no server"),
        ('redis = "redis://localhost:port"', "", "[host]: "),
        (f'{REDIS}\nstatus = "uds:///nowhere/at/all"', "", "[host]: status: "),
    ],
)
def test_a_configuration_of_no_use_is_one_line(place: Path, host: str, session: str, why: str) -> None:
    configure(place, host, session)
    result = invoke_host(place)
    assert result.exit_code == 2, result.output
    assert why in result.output
    assert len(result.output.splitlines()) == 1


def test_a_host_without_a_server_waits_for_it_and_says_so(place: Path) -> None:
    (place / "redis").mkdir()
    with running(place / "redis") as server:
        server.kill()
        configure(place, f'redis = "{server.url}"\nlease = 0.6')
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, "host", "--config", str(place / "host.toml")], stdout=subprocess.PIPE, stderr=log
            )
        try:
            wait_for(lambda: "what is to be sent waits, and it is tried again" in (place / "log").read_text())
            check_home(process, server)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.communicate()
    assert "Traceback" not in (place / "log").read_text()


def check_home(process: subprocess.Popen[bytes], server: Server) -> None:
    """See that it becomes the home of bob once there is a server."""
    assert process.poll() is None
    server.start()
    assert process.stdout is not None
    assert process.stdout.readline().endswith(b"shares 1 sessions\n")
    assert process.stdout.readline().startswith(b"bob  ")


def test_a_host_without_a_server_goes_when_it_is_told_to(place: Path) -> None:
    configure(place, f'redis = "unix://{place}/nobody"\nlease = 0.5\ngrace = 0.5')
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "host", "--config", str(place / "host.toml")], stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"shares 1 sessions\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
    assert "Traceback" not in (place / "log").read_text(), os.fspath(place)


def wait_for(holds: object) -> None:
    """Wait for another process's file."""
    assert callable(holds)
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
