"""A session on its way from one host to another: what is not to happen in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from meerkat_trio import SessionRun, open_machine
from meerkat_trio.journals import RedisJournal

from ..redis.rig import Server, running
from .test_homes import LEASE, LIMITS, World, all_admitted, host, send_all, sender

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from meerkat_trio.abc import Change


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path) as server:
        yield server


class Life:
    """A host that can be told to go, or cancelled."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._scope = trio.CancelScope()
        self._told = trio.Event()
        self.name = ""

    async def run(self) -> None:
        with self._scope:
            async with host(self._world, grace=20.0) as one:
                self.name = one.journal.host
                await self._told.wait()

    def end(self, *, cancelled: bool) -> None:
        if cancelled:
            self._scope.cancel()
        else:
            self._told.set()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_handler_that_outlasts_the_lease_of_a_host_that_leaves_is_followed_when_it_has_ended(
    server: Server, cancelled: bool
) -> None:
    world = World(server, 1)
    world.gate = trio.Event()
    one = Life(world)
    async with sender(world) as comms, trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        await all_admitted(await send_all(world, comms, 2))
        await world.until(lambda: world.running["s0"] == 1)
        async with host(world) as two:
            one.end(cancelled=cancelled)
            # Time is what it is about: the lease would have ended by now.
            await trio.sleep(2 * LEASE)
            assert two.here == set()
            world.gate.set()
            with trio.fail_after(1.5 * LEASE):
                await world.until(lambda: len(world.handled["s0"]) == 2)
            names = [one.name, two.journal.host]
    assert world.handled == {"s0": [0, 1]}
    assert world.by == {"s0": names}
    assert world.overlaps == 0


async def test_a_host_that_leaves_is_not_counted_on_while_its_last_handler_runs(server: Server) -> None:
    world = World(server, 2)
    one = Life(world)
    async with host(world) as two, trio.open_nursery() as nursery, sender(world) as comms:
        await world.until(lambda: len(two.here) == 2)
        nursery.start_soon(one.run)
        await world.until(lambda: sorted(two.where.values(), key=str) == sorted([one.name, two.journal.host]))
        (busy,) = [name for name, where in two.where.items() if where == one.name]
        world.gate = trio.Event()
        await comms.send(comms.envelope(world.identity(busy).peer_id, 1))
        await world.until(lambda: world.running[busy] == 1)
        one.end(cancelled=False)
        journal = two.journal
        with trio.fail_after(LEASE):
            while (await journal.renew()).hosts != 1:
                await trio.sleep(0.01)
        assert (await journal.homes([busy])) == {busy: one.name}
        world.gate.set()
        await world.until(lambda: len(two.here) == 2)


async def test_a_session_that_cannot_be_served_is_tried_again_after_a_while_alone(server: Server) -> None:
    world = World(server, 1)
    world.refusals = 2
    async with host(world) as one:
        began = trio.current_time()
        await world.until(lambda: world.served == 3)
        # One lease, then two; the looks are a third of a lease apart.
        assert 2.9 * LEASE <= trio.current_time() - began < 6 * LEASE
        assert one.here == {"s0"}


async def test_a_process_that_stood_still_past_its_lease_begins_nothing_that_it_had_admitted(server: Server) -> None:
    handled: list[object] = []
    written, gate = trio.Event(), trio.Event()
    one = RedisJournal(server.url, lease=0.3, limits=LIMITS)
    append = one.append

    async def slow(changes: Mapping[str, Sequence[Change]]) -> frozenset[str]:
        moved = await append(changes)
        if any(changes.values()) and handled:
            # As if the process were stopped after the server has answered.
            written.set()
            await gate.wait()
        return moved

    one.append = slow  # type: ignore[method-assign]

    async def handler(run: SessionRun) -> None:
        await trio.lowlevel.checkpoint()
        handled.append(run.message.body)

    async with RedisJournal(server.url, lease=5.0, limits=LIMITS) as two, open_machine(journal=one) as machine:
        assert await one.take("a") is not None
        session = await machine.register("a")
        for number in range(3):
            await session.deliver(number)
        await session.attach_executor(handler)
        await written.wait()
        assert handled == [0]
        while await two.take("a") is None:
            await trio.sleep(0.01)
        gate.set()
        with trio.fail_after(20):
            await session.wait_ended()
    assert handled == [0]
