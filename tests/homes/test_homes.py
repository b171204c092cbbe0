"""Hosts that share sessions: each session has one home, whoever comes, goes, dies or stands still."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from meerkat_trio import Receipt, ReceiptStatus, SessionRun, open_machine
from meerkat_trio._homes import Homes, share_sessions
from meerkat_trio.comms import Identity, RedisComms, RedisLimits, RedisNetwork
from meerkat_trio.journals import RedisJournal

from ..redis.rig import Server, identity, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from meerkat_trio import MeerkatMachine
    from meerkat_trio.comms import Fence

LEASE = 1.0
LIMITS = RedisLimits(first_backoff=0.01, max_backoff=0.05, full_pause=0.01, gone_after=LEASE, command_timeout=2.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path) as server:
        yield server


class World:
    """What all hosts have in common: the server, the sessions, a sender, and the ledger of what was handled."""

    def __init__(self, server: Server, sessions: int) -> None:
        self.server = server
        self.sessions = [f"s{number}" for number in range(sessions)]
        self.handled: dict[str, list[Any]] = {name: [] for name in self.sessions}
        self.by: dict[str, list[str]] = {name: [] for name in self.sessions}
        self.running: Counter[str] = Counter()
        self.overlaps = 0
        self.sender = identity("sender")
        # What handlers wait for, and how often a session is to fail to be served.
        self.gate: trio.Event | None = None
        self.refusals = 0
        self.served = 0

    def identity(self, name: str) -> Identity:
        return identity(f"key {name}")

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(60):
            while not holds():
                await trio.sleep(0.01)


@attrs.define(eq=False)
class Host:
    world: World
    machine: MeerkatMachine
    network: RedisNetwork
    journal: RedisJournal
    homes: Homes | None = None

    async def handler(self, run: SessionRun) -> None:
        name, world = run.session.id, self.world
        world.running[name] += 1
        world.overlaps += world.running[name] > 1
        try:
            await trio.lowlevel.checkpoint()
            if world.gate is not None:
                await world.gate.wait()
            world.handled[name].append(run.message.body)
            world.by[name].append(self.journal.host)
        finally:
            world.running[name] -= 1

    async def serve(self, session_id: str, fence: Fence) -> RedisComms:
        world = self.world
        world.served += 1
        if world.refusals:
            world.refusals -= 1
            raise OSError("no room")
        session = await self.machine.restore(session_id) or await self.machine.register(session_id, self.handler)
        comms = await self.network.open(
            world.identity(session_id),
            runtime_id=session_id,
            trusted=[endpoint("sender", world.sender)],
            fence=fence,
        )
        await session.attach_ingress(comms)
        return comms

    @property
    def where(self) -> Mapping[str, str | None]:
        assert self.homes is not None
        return self.homes.where

    @property
    def here(self) -> set[str]:
        assert self.homes is not None
        return set(self.homes.here)


def endpoint(name: str, who: Identity) -> Any:
    return who.endpoint(name, f"inproc://{name}")


@asynccontextmanager
async def host(world: World, *, grace: float = 1.0) -> AsyncIterator[Host]:
    journal = RedisJournal(world.server.url, lease=LEASE, limits=LIMITS)
    made: list[Host] = []
    async with (
        RedisNetwork(world.server.url, limits=LIMITS) as network,
        open_machine(journal=journal, executors=lambda _: made[0].handler, grace=grace) as machine,
    ):
        made.append(Host(world, machine, network, journal))
        async with share_sessions(machine, journal, world.sessions, made[0].serve) as homes:
            made[0].homes = homes
            yield made[0]


@asynccontextmanager
async def sender(world: World) -> AsyncIterator[RedisComms]:
    async with RedisNetwork(world.server.url, limits=LIMITS) as network:
        yield await network.open(
            world.sender,
            runtime_id="sender",
            trusted=[endpoint(name, world.identity(name)) for name in world.sessions],
        )


async def send_all(world: World, comms: RedisComms, count: int) -> list[Receipt]:
    return [
        await comms.send(comms.envelope(world.identity(name).peer_id, number))
        for number in range(count)
        for name in world.sessions
    ]


async def all_admitted(receipts: list[Receipt]) -> None:
    with trio.fail_after(60):
        for receipt in receipts:
            assert await receipt.wait() is ReceiptStatus.ADMITTED, receipt


async def test_sessions_are_shared_and_move_when_hosts_come_and_go(server: Server) -> None:
    world = World(server, 6)
    async with sender(world) as comms, host(world) as one:
        await world.until(lambda: len(one.here) == 6)
        receipts = await send_all(world, comms, 20)
        async with host(world) as two:
            await world.until(lambda: (len(one.here), len(two.here)) == (3, 3))
            assert one.here | two.here == set(world.sessions)
            receipts += await send_all(world, comms, 20)
            await all_admitted(receipts)
            shown = {one.journal.host: 3, two.journal.host: 3}
            await world.until(lambda: Counter(one.where.values()) == shown)
        await world.until(lambda: len(one.here) == 6)
        receipts += await send_all(world, comms, 5)
        await all_admitted(receipts)
        await world.until(lambda: all(len(handled) >= 45 for handled in world.handled.values()))
    expected = [*range(20), *range(20), *range(5)]
    assert world.handled == {name: expected for name in world.sessions}
    assert world.overlaps == 0


async def test_a_host_that_dies_is_followed_after_the_lease(server: Server) -> None:
    world = World(server, 2)
    async with sender(world) as comms:
        async with host(world) as two:
            pass
        async with trio.open_nursery() as nursery:
            life = trio.CancelScope()
            held: list[Host] = []

            async def live() -> None:
                with life:
                    async with host(world) as one:
                        held.append(one)
                        await trio.sleep_forever()

            nursery.start_soon(live)
            await world.until(lambda: bool(held) and len(held[0].here) == 2)
            await all_admitted(await send_all(world, comms, 3))
            # Its connections are cut for good: as good as dead, and it does not know.
            dead = held[0]
            dead.journal._link._server = dead.network._server = dead.network._reading._server = Nowhere()  # type: ignore[assignment]
            dead.network._writing._server = Nowhere()  # type: ignore[assignment]
            server.cli("CLIENT", "KILL", "TYPE", "normal")
            async with host(world) as two:
                await world.until(lambda: len(two.here) == 2)
                await all_admitted(await send_all(world, comms, 3))
                await world.until(lambda: all(len(each) >= 6 for each in world.handled.values()))
                life.cancel()
    for handled in world.handled.values():
        # What was handled last before the connections were cut may not have been recorded as done.
        again = handled[2:4] == [2, 2]
        assert handled[:2] + handled[2 + again :] == [0, 1, 2, 0, 1, 2]


class Nowhere:
    """A server that cannot be reached."""

    async def connect(self) -> Any:
        await trio.lowlevel.checkpoint()
        raise OSError("there is no way")
