"""A server of one's own for each test, and peers over it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from meerkat_trio.comms import Identity, RedisComms, RedisLimits, RedisNetwork
from meerkat_trio.testing import ConformanceBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from meerkat_trio.comms import Fence

__all__ = [
    "LANE",
    "PATIENCE",
    "SOON",
    "Server",
    "bench",
    "identity",
    "introduce",
    "opened",
    "peers",
    "running",
    "take",
    "until",
]

LANE = 4
"""Envelopes that one sender gets rid of before it waits."""
SOON = RedisLimits(
    unanswered=LANE, first_backoff=0.01, max_backoff=0.05, full_pause=0.01, gone_after=0.6, command_timeout=1.0
)
"""Bounds for tests: small queues, and nobody is waited for long."""

PATIENCE = float(os.environ.get("TEST_PATIENCE", "20"))
"""Seconds that are waited for what has to happen."""
_MISSING = "redis-server is not installed: apt-get install redis-server"


class Server:
    """One redis-server, on a Unix socket."""

    def __init__(self, directory: Path, *options: str) -> None:
        self._directory = directory
        self._options = options
        self.socket = directory / "s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start; it answers when this returns."""
        self.socket.unlink(missing_ok=True)
        command = [
            "redis-server",
            *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._directory), "--save", ""),
            *self._options,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if self._ping():
                return
            if self._process.poll() is not None:
                break
        raise AssertionError("redis-server does not answer")

    def _ping(self) -> bool:
        # Waits for the socket inside the server's own client, up to the time-out.
        ran = subprocess.run(
            ["redis-cli", "-s", str(self.socket), "PING"], capture_output=True, text=True, timeout=10, check=False
        )
        return ran.stdout.strip() == "PONG"

    def cli(self, *words: str) -> str:
        """Ask the server something."""
        command = ["redis-cli", "--raw", "-s", str(self.socket), *words]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True)
        return ran.stdout.strip()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it; what it has not written is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Server]:
    """Run a server; skips where there is none."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip(_MISSING)
    server = Server(directory, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def identity(name: str) -> Identity:
    """Return the key that follows from a name."""
    return Identity(name.encode().ljust(32, b"."))


def introduce(*comms: RedisComms) -> None:
    """Let each trust every other by hand."""
    for one in comms:
        for other in comms:
            if other.peer_id != one.peer_id:
                one.trust(other.endpoint())


async def opened(network: RedisNetwork, name: str, *, fence: Fence | None = None, lane: int = LANE) -> RedisComms:
    """Open a peer with a key that follows from its name."""
    return await network.open(identity(name), runtime_id=name, work_lane=lane, control_lane=lane, fence=fence)


async def peers(*places: tuple[RedisNetwork, str]) -> list[RedisComms]:
    """Open peers that trust each other."""
    found = [await opened(network, name) for network, name in places]
    introduce(*found)
    return found


async def take(comms: RedisComms, count: int) -> list[Any]:
    """Admit so many; return the bodies."""
    bodies = []
    with trio.fail_after(PATIENCE):
        for _ in range(count):
            with await comms.claim() as claim:
                bodies.append(claim.envelope.body)
                claim.commit()
    return bodies


async def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds."""
    with trio.fail_after(seconds):
        while not holds():
            await trio.sleep(0.005)


def bench(server: Server) -> Any:
    """Return what makes conformance benches on a server."""
    number = 0

    @asynccontextmanager
    async def make() -> AsyncIterator[ConformanceBench]:
        nonlocal number
        number += 1
        async with RedisNetwork(server.url, namespace=f"bench{number}", limits=SOON) as network:
            receiver, sender, other = await peers(*((network, name) for name in ("receiver", "sender", "other")))

            async def rebuild() -> RedisComms:
                rebuilt = await opened(network, "receiver")
                introduce(rebuilt, sender, other)
                return rebuilt

            yield ConformanceBench(
                receiver=receiver, senders=(sender, other), rebuild=rebuild, work_lane=LANE, control_lane=LANE
            )

    return make
