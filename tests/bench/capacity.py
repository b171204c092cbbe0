"""What hosts that share sessions can bear: `python -m tests.bench.capacity [--sessions N] [--messages N]`.

The numbers of docs/scaling.md. One process is server's client, host and sender at once, so a host alone does better.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from meerkat_trio import MemoryComms, MemoryNetwork, Receipt, ReceiptStatus, SessionRun, TrustSource, open_machine
from meerkat_trio._homes import share_sessions
from meerkat_trio.comms import Identity, RedisLimits, RedisNetwork
from meerkat_trio.journals import RedisJournal, SqliteJournal

from ..redis.rig import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meerkat_trio import CommsRuntime, PeerEndpoint
    from meerkat_trio.abc import Journal
    from meerkat_trio.comms import Fence

LIMITS = RedisLimits(unanswered=4096)
_SENDERS = 64


async def nothing(run: SessionRun) -> None:
    """A handler that does nothing."""


def _key(name: str) -> Identity:
    return Identity(name.encode().ljust(32, b"."))


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


async def homes(url: str, sessions: int) -> None:
    """Take up sessions, keep them, give them back."""
    names = [f"s{number}" for number in range(sessions)]
    journal = RedisJournal(url, lease=60.0, limits=LIMITS)
    before = _resident()
    async with RedisNetwork(url, limits=LIMITS) as network, open_machine(journal=journal) as machine:

        async def serve(session_id: str, fence: Fence) -> CommsRuntime:
            session = await machine.restore(session_id) or await machine.register(session_id, nothing)
            comms = await network.open(_key(session_id), runtime_id=session_id, fence=fence)
            await session.attach_ingress(comms)
            return comms

        start = time.perf_counter()
        async with share_sessions(machine, journal, names, serve) as shared:
            while len(shared.here) < sessions or machine.statistics().live_drains < sessions:
                await trio.sleep(0.01)
            taken = time.perf_counter() - start
            print(f"{sessions} sessions: taken up in {1e3 * taken / sessions:.2f} ms each")
            print(f"  memory {(_resident() - before) / sessions:.1f} KiB each, transport and lease included")
            start = time.perf_counter()
            await journal.renew()
            print(f"  all leases renewed in {1e3 * (time.perf_counter() - start):.1f} ms")
            start = time.perf_counter()
        print(f"  given back in {1e3 * (time.perf_counter() - start) / sessions:.2f} ms each")


@asynccontextmanager
async def _served(journal: Journal | None, sessions: int) -> AsyncIterator[tuple[MemoryComms, list[MemoryComms]]]:
    network = MemoryNetwork()
    peer = MemoryComms(network, "peer")
    async with open_machine(journal=journal) as machine:
        made = [MemoryComms(network, f"s{number}") for number in range(sessions)]
        for comms in made:
            await comms.add_trusted_peer(peer.endpoint(), TrustSource.MANUAL)
            session = await machine.register(comms.runtime_id, nothing)
            await session.attach_ingress(comms)
        yield peer, made


async def in_one_process(journal: Journal | None, what: str, sessions: int, messages: int) -> None:
    """Send over memory to sessions that keep a journal."""
    async with _served(journal, sessions) as (peer, made):
        start = time.perf_counter()
        receipts = [
            await peer.send(peer.envelope(made[number % sessions].peer_id, {"n": number})) for number in range(messages)
        ]
        await _all_admitted(receipts)
        each = 1e6 * (time.perf_counter() - start) / messages
        print(f"{messages} messages to {sessions} sessions, {what}: {each:.0f} us each")


async def over_redis(url: str, sessions: int, messages: int) -> None:
    """Send over Redis to sessions whose journal is there too."""
    names = [f"m{number}" for number in range(sessions)]
    sender = _key("sender")
    journal = RedisJournal(url, lease=60.0, limits=LIMITS)
    async with RedisNetwork(url, limits=LIMITS) as network, open_machine(journal=journal) as machine:

        async def serve(session_id: str, fence: Fence) -> CommsRuntime:
            session = await machine.register(session_id, nothing)
            trusted = [sender.endpoint("sender", "inproc://sender")]
            comms = await network.open(_key(session_id), runtime_id=session_id, fence=fence, trusted=trusted)
            await session.attach_ingress(comms)
            return comms

        async with share_sessions(machine, journal, names, serve), RedisNetwork(url, limits=LIMITS) as elsewhere:
            while machine.statistics().live_drains < sessions:
                await trio.sleep(0.01)
            trusted = [_key(name).endpoint(name, f"inproc://{name}") for name in names]
            comms = await elsewhere.open(sender, runtime_id="sender", trusted=trusted)
            start = time.perf_counter()
            receipts: list[Receipt] = []

            async def send(to: PeerEndpoint, count: int) -> None:
                receipts.extend([await comms.send(comms.envelope(to.peer_id, {"n": n})) for n in range(count)])

            async with trio.open_nursery() as nursery:
                for number in range(_SENDERS):
                    nursery.start_soon(send, trusted[number % sessions], messages // _SENDERS)
            await _all_admitted(receipts)
            each = 1e6 * (time.perf_counter() - start) / messages
            print(f"{messages} messages to {sessions} sessions, over Redis, journal in Redis: {each:.0f} us each")


async def _all_admitted(receipts: list[Receipt]) -> None:
    for receipt in receipts:
        if await receipt.wait() is not ReceiptStatus.ADMITTED:
            raise AssertionError(receipt)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=5000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        for sessions in (1, 64):
            trio.run(in_one_process, None, "no journal", sessions, options.messages)
            for durability in ("normal", "full"):
                journal = SqliteJournal(path / f"{durability}-{sessions}", durability=durability)
                trio.run(in_one_process, journal, f"SQLite, {durability}", sessions, options.messages)
        with running(path, "--appendonly", "yes", "--appendfsync", "everysec") as server:
            for sessions in (1, 64):
                trio.run(over_redis, server.url, sessions, options.messages)
            trio.run(homes, server.url, options.sessions)


if __name__ == "__main__":
    main()
