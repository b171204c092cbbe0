"""Hosts in processes of their own that come, go, die and stand still: what is promised is counted in their ledger."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
import trio

from ..redis.rig import Server, running
from .hosts import Place, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEEPING = ("--appendonly", "yes", "--appendfsync", "always")
STAGES = ("queued", "journaled", "running", "replied", "giving back", "taking up")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "redis"
    directory.mkdir()
    with running(directory, *KEEPING) as server:
        yield server


async def upheaval(place: Place, traffic: Traffic, chance: random.Random, actions: int) -> dict[str, int]:
    """Start, stop and kill hosts while messages flow: as much is handled between two of these as between others."""
    counted = {"started": 0, "sent home": 0, "killed": 0}
    for part in range(actions):
        living = place.living
        what = chance.choice(["start", "send home", "kill"])
        if len(living) < 2 or (what == "start" and len(living) < 3):
            place.start()
            counted["started"] += 1
        elif what == "send home":
            host = chance.choice(living)
            host.signal(signal.SIGTERM)
            counted["sent home"] += 1
        else:
            place.kill(chance.choice(living))
            counted["killed"] += 1
        wanted = traffic.messages * (part + 1) // (actions + 1)
        await place.until(lambda wanted=wanted: place.done() >= wanted or not place.living)  # type: ignore[misc]
    if not place.living:
        place.start()
    return counted


@pytest.mark.parametrize(
    ("messages", "sessions", "actions"), [(2_000, 6, 10), pytest.param(50_000, 12, 60, marks=pytest.mark.deep)]
)
@pytest.mark.parametrize("seed", [1])
async def test_hosts_that_come_go_and_die_lose_nothing_and_repeat_what_a_dead_one_had_begun(
    tmp_path: Path, server: Server, messages: int, sessions: int, actions: int, seed: int
) -> None:
    began = time.monotonic()
    place = Place(tmp_path, server, sessions, lease=1.0)
    traffic = Traffic(place, messages)
    with place.cleared():
        async with trio.open_nursery() as nursery:
            place.start()
            nursery.start_soon(traffic.run)
            counted = await upheaval(place, traffic, random.Random(seed), actions)
        judged = await traffic.judge()
    moves = sum(host.log.count("is its home now") for host in place.hosts)
    seconds = time.monotonic() - began
    counts = f"{moves} moves, {judged.losses.total()} leases lost, {judged.doubles} doubles"
    print(f"{traffic.messages} messages, {counted}, {counts}, {seconds:.0f} s")
    assert traffic.statuses() == {"admitted": traffic.messages}
    assert judged.lost == set()
    assert judged.wrongs == []
