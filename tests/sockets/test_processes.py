"""Real processes that are killed and started again: what is promised is counted in the files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from meerkat_trio.comms import Identity, TrustFile

from .handlers import LEDGER
from .proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FEW = 2_000
MANY = 50_000
COMMAND = [sys.executable, "-c", "from meerkat_trio.cli import main; main()"]
WORK_QUEUE = 64
UNANSWERED = 256


class Place:
    """A directory with a host's configuration, two senders, and their files."""

    def __init__(self, directory: Path, messages: int) -> None:
        self.directory = directory
        self.ledger = directory / "ledger"
        self.messages = messages
        self.keys = {name: Identity.generate() for name in ("host", "one", "two")}
        for name, identity in self.keys.items():
            (directory / name).mkdir()
            identity.save(directory / name / "secret.key")
        hosts = TrustFile(directory / "host" / "trust.jsonl")
        for name in ("one", "two"):
            hosts.add(self.keys[name].endpoint(name, "tcp://localhost:1"))
            lines = "".join(f'{{"body": "{name} {number}"}}\n' for number in range(messages))
            (directory / f"{name}.jsonl").write_text(lines)

    def configure(self, address: str) -> None:
        """Say where the host listens: the same address for every process."""
        (self.directory / "host.toml").write_text(
            f'[[session]]\nname = "host"\nkey = "host"\nlisten = "{address}"\n'
            f'handler = "tests.sockets.handlers:write_down"\nwork_queue = {WORK_QUEUE}\n'
        )

    def trust_host_at(self, address: str) -> None:
        for name in ("one", "two"):
            TrustFile(self.directory / name / "trust.jsonl").add(self.keys["host"].endpoint("host", address))

    @contextmanager
    def host(self) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Run the host; give the process, and where it listens."""
        command = [*COMMAND, "host", "--config", str(self.directory / "host.toml")]
        environment = {**os.environ, LEDGER: str(self.ledger)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert process.stdout is not None
                yield process, process.stdout.readline().split()[-1]
            finally:
                process.kill()

    @contextmanager
    def sender(self, name: str, address: str) -> Iterator[subprocess.Popen[str]]:
        command = [*COMMAND, "send", address, "--key", str(self.directory / name), "--json"]
        command += ["--file", str(self.directory / f"{name}.jsonl")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def handled(self) -> list[str]:
        if not self.ledger.exists():
            return []
        return [line.removeprefix("host ") for line in self.ledger.read_text().splitlines()]

    async def wait_handled(self, count: int) -> None:
        """Wait until so many were handled: the file is another process's, so it is looked at again and again."""
        with trio.fail_after(120):
            while len(self.handled()) < count:
                await trio.sleep(0.01)

    def expected(self, name: str) -> list[str]:
        return [f"{name} {number}" for number in range(self.messages)]

    def of(self, name: str) -> list[str]:
        return [body for body in self.handled() if body.startswith(f"{name} ")]


async def admitted(sender: subprocess.Popen[str]) -> int:
    """Wait for a sender's end; return what it says was admitted."""
    out, _ = await trio.to_thread.run_sync(sender.communicate)
    assert sender.returncode == 0, out
    number = json.loads(out)["admitted"]
    assert isinstance(number, int)
    return number


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.deep)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(tmp_path, request.param)


def listening_place(place: Place) -> str:
    """Choose a Unix socket: the same address for one process after the other."""
    address = f"uds://{place.directory}/socket"
    place.configure(address)
    place.trust_host_at(address)
    return address


async def test_a_sender_that_is_killed_and_starts_again_repeats_and_reorders_nothing(place: Place) -> None:
    address = listening_place(place)
    with place.host():
        for part in (1, 2, 3):
            with place.sender("one", address) as sender:
                await place.wait_handled(place.messages * part // 5)
                sender.kill()
        with place.sender("one", address) as sender:
            assert await admitted(sender) == place.messages
    assert place.of("one") == place.expected("one")


async def test_a_host_that_is_stopped_and_starts_again_loses_and_repeats_nothing(place: Place) -> None:
    address = listening_place(place)
    with place.sender("one", address) as one, place.sender("two", address) as two:
        for part in (1, 2, 3):
            with place.host() as (host, _):
                await place.wait_handled(2 * place.messages * part // 4)
                host.send_signal(signal.SIGTERM)
                assert await trio.to_thread.run_sync(host.wait) == 0
        with place.host():
            assert await admitted(one) == await admitted(two) == place.messages
    assert place.of("one") == place.expected("one")
    assert place.of("two") == place.expected("two")


async def test_connections_that_are_cut_lose_and_repeat_nothing(place: Place) -> None:
    place.configure("tcp://127.0.0.1:0")
    with place.host() as (_, address):
        async with trio.open_nursery() as nursery:
            proxy = Proxy(address, 0, faults=15)
            await nursery.start(proxy.run)
            place.trust_host_at(proxy.address)
            with place.sender("one", proxy.address) as one, place.sender("two", proxy.address) as two:
                assert await admitted(one) == await admitted(two) == place.messages
            nursery.cancel_scope.cancel()
    assert proxy.cuts > 0
    assert place.of("one") == place.expected("one")
    assert place.of("two") == place.expected("two")


async def test_a_host_that_is_killed_loses_its_queue_and_repeats_what_it_had_not_answered(place: Place) -> None:
    address = listening_place(place)
    kills = 3
    with place.sender("one", address) as sender:
        for part in range(1, kills + 1):
            with place.host() as (host, _):
                await place.wait_handled(place.messages * part // 5)
                host.kill()
        with place.host():
            assert await admitted(sender) == place.messages
    counted = Counter(place.of("one"))
    lost = set(place.expected("one")) - counted.keys()
    repeated = sum(count - 1 for count in counted.values())
    print(f"{place.messages} messages, {kills} kills: {len(lost)} lost, {repeated} handled again")
    # Lost: admitted and answered, what the work queue holds. Repeated: not answered, what the sender may have open.
    assert len(lost) <= kills * WORK_QUEUE
    assert repeated <= kills * UNANSWERED
