"""Hosts in processes of their own that come, go, die and stand still: what is promised is counted in their ledger."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
import trio

from ..redis.rig import Server, running
from .hosts import Host, Judgement, Place, Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

KEEPING: Final = ("--appendonly", "yes", "--appendfsync", "always")
STAGES: Final = ("queued", "journaled", "running", "replied", "giving back", "taking up")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "redis"
    directory.mkdir()
    with running(directory, *KEEPING) as server:
        yield server


def show(place: Place, traffic: Traffic, judged: Judgement, began: float, **counted: object) -> None:
    """Print the figures."""
    moves = sum(host.log.count("is its home now") for host in place.hosts)
    what = ", ".join(f"{key} {value}" for key, value in counted.items())
    print(
        f"{len(traffic.receipts)} messages {dict(traffic.statuses())}, {what}; {moves} moves,"
        f" {judged.losses.total()} leases lost by the living, {judged.doubles} doubles,"
        f" {time.monotonic() - began:.0f} s"
    )


# --- hosts that come and go -------------------------------------------------------------------------


async def upheaval(place: Place, messages: int, chance: random.Random, actions: int) -> Counter[str]:
    """Start, stop and kill hosts while messages flow: as much is handled between two of these as between others."""
    counted: Counter[str] = Counter()
    for part in range(actions):
        living = place.living
        what = chance.choice(["start", "send home", "kill"])
        if len(living) < 2 or (what == "start" and len(living) < 3):
            what = "start"
            place.start()
        elif what == "send home":
            chance.choice(living).signal(signal.SIGTERM)
        else:
            what = "kill"
            place.kill(chance.choice(living))
        counted[what] += 1
        wanted = messages * (part + 1) // (actions + 1)
        await place.until(lambda wanted=wanted: place.done() >= wanted or not place.living)  # type: ignore[misc]
    place.start()
    return counted


@pytest.mark.parametrize(
    ("messages", "sessions", "actions"), [(2_000, 6, 10), pytest.param(50_000, 12, 60, marks=pytest.mark.deep)]
)
async def test_hosts_that_come_go_and_die_lose_nothing_and_repeat_what_a_dead_one_had_begun(
    tmp_path: Path, server: Server, messages: int, sessions: int, actions: int
) -> None:
    began = time.monotonic()
    place = Place(tmp_path, server, sessions)
    traffic = Traffic(place, messages)
    with place.cleared():
        async with trio.open_nursery() as nursery:
            place.start()
            nursery.start_soon(traffic.run)
            counted = await upheaval(place, messages, random.Random(sessions), actions)
        judged = await traffic.judge()
        show(place, traffic, judged, began, actions=dict(counted))
    assert traffic.statuses().keys() == {"admitted"}
    assert judged.lost == set()
    assert judged.wrongs == []


# --- hosts that are killed at a stage ----------------------------------------------------------------


@pytest.mark.parametrize("rounds", [12, pytest.param(204, marks=pytest.mark.deep)])
async def test_a_host_that_is_killed_at_any_stage_loses_nothing_and_repeats_one_message_at_most(
    tmp_path: Path, server: Server, rounds: int
) -> None:
    began, chance = time.monotonic(), random.Random(rounds)
    place = Place(tmp_path, server, 4, lease=0.6)
    traffic = Traffic(place)
    with place.cleared():
        async with trio.open_nursery() as nursery:
            place.start()
            nursery.start_soon(traffic.run)
            for number in range(rounds):
                stage = STAGES[number % len(STAGES)]
                host = place.start(f"{stage}:{1 if stage == 'giving back' else chance.randrange(1, 3)}")
                if stage == "giving back":
                    await place.until(lambda host=host: "is its home now" in host.log)  # type: ignore[misc]
                    host.signal(signal.SIGTERM)
                assert await host.ended() == -signal.SIGKILL, host.log[-2000:]
            traffic.end()
        judged = await traffic.judge()
        show(place, traffic, judged, began, deaths=dict(place.deaths()))
    assert place.deaths() == dict.fromkeys(STAGES, rounds // len(STAGES))
    assert traffic.statuses().keys() == {"admitted"}
    assert judged.lost == set()
    assert judged.wrongs == []
    assert judged.doubles <= rounds * len(place.sessions)


# --- hosts that stand still --------------------------------------------------------------------------


def remembered(place: Place) -> dict[str, list[str]]:
    """Return what the server has of the messages of all sessions, and what is pending."""
    found: dict[str, list[str]] = {}
    for name in place.sessions:
        entries = f"meerkat:entries:{name}"
        # Who is home next writes down that it is.
        fields = place.server.cli("HKEYS", entries).splitlines()
        fields = sorted(field for field in fields if not field.startswith("session"))
        found[name] = [*fields, place.server.cli("HMGET", entries, *fields)]
    for stream in place.server.cli("KEYS", "meerkat:*:work").splitlines():
        found[stream] = [place.server.cli(*words) for words in (("XLEN", stream), ("XPENDING", stream, "meerkat"))]
    return found


def is_in_a_handler(place: Place, host: Host) -> bool:
    return all(
        any(run.pid == host.pid and run.session == name and run.ended is None for run in place.handled())
        for name in place.sessions
    )


async def test_a_host_that_stood_still_past_its_lease_does_nothing_more_and_can_become_home_again(
    tmp_path: Path, server: Server
) -> None:
    place = Place(tmp_path, server, 2, lease=0.6, pause=0.3)
    traffic = Traffic(place, 20)
    with place.cleared():
        asleep = place.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            await place.until(lambda: is_in_a_handler(place, asleep))
            place.stop(asleep)
            other = place.start()
        await traffic.all_done()
        before = remembered(place)
        woken = time.monotonic_ns()
        asleep.signal(signal.SIGCONT)
        await place.until(lambda: all(f"session {name}: the lease is lost" in asleep.log for name in place.sessions))
        await place.until(lambda: len(place.homes()) == 2)
        assert remembered(place) == before
        # Nothing was left to be handled when it woke: of each session it ends what it was in, and begins nothing.
        late = [run for run in place.handled() if run.pid == asleep.pid and (run.ended or woken) >= woken]
        assert all(run.begun < woken for run in late)
        assert all(count == 1 for count in Counter(run.session for run in late).values())
        again = Traffic(place, 60)
        await again.run(start=10)
        traffic.receipts += again.receipts
        judged = await traffic.judge()
        assert {run.pid for run in place.handled() if run.begun > woken} == {asleep.pid, other.pid}
    assert traffic.statuses().keys() == {"admitted"}
    assert judged.lost == set()
    assert judged.wrongs == []
    assert judged.doubles <= len(place.sessions)


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.deep)])
async def test_hosts_that_stand_still_while_messages_flow_change_no_order_and_lose_nothing(
    tmp_path: Path, server: Server, rounds: int
) -> None:
    began, chance = time.monotonic(), random.Random(rounds)
    place = Place(tmp_path, server, 4, lease=0.6)
    traffic = Traffic(place)
    with place.cleared():
        place.start()
        place.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            for _ in range(rounds):
                await place.until(lambda: len(place.homes()) == 2)
                host = chance.choice(place.hosts)
                place.stop(host)
                await place.until(lambda: len(place.homes()) == 1 and sum(place.homes().values()) == 4)
                done = place.done()
                await place.until(lambda done=done: place.done() > done + 50)  # type: ignore[misc]
                host.signal(signal.SIGCONT)
            traffic.end()
        judged = await traffic.judge()
        show(place, traffic, judged, began, stops=rounds)
    assert traffic.statuses().keys() == {"admitted"}
    assert judged.lost == set()
    assert judged.wrongs == []


# --- a server in trouble ------------------------------------------------------------------------------


async def stand_still(server: Server, seconds: float) -> None:
    server.signal(signal.SIGSTOP)
    await trio.sleep(seconds)
    server.signal(signal.SIGCONT)


async def cut(server: Server, seconds: float) -> None:
    for _ in range(int(5 * seconds)):
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        await trio.sleep(0.2)


async def have_no_memory(server: Server, seconds: float) -> None:
    server.cli("CONFIG", "SET", "maxmemory", "1")
    await trio.sleep(seconds)
    server.cli("CONFIG", "SET", "maxmemory", "0")


async def die(server: Server, seconds: float) -> None:
    server.kill()
    await trio.sleep(seconds)
    server.start()


WORDS: Final[dict[object, tuple[str, str]]] = {
    stand_still: ("the lease is lost", "is its home now"),
    cut: ("what is to be sent waits", "all is well again"),
    have_no_memory: ("the server has no memory", "can be written again"),
    die: ("what is to be sent waits", "all is well again"),
}
"""What hosts say when it begins, and when it is over."""


@pytest.mark.parametrize("seconds", [2.0, pytest.param(10.0, marks=pytest.mark.deep)])
@pytest.mark.parametrize("trouble", [stand_still, cut, have_no_memory, die])
async def test_a_server_in_trouble_costs_time_and_loses_nothing_that_was_admitted(
    tmp_path: Path, server: Server, trouble: Callable[[Server, float], Awaitable[None]], seconds: float
) -> None:
    began = time.monotonic()
    place = Place(tmp_path, server, 4, lease=0.6)
    traffic = Traffic(place)
    with place.cleared():
        place.start()
        place.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run)
            await place.until(lambda: len(place.homes()) == 2 and place.done() > 50)
            await trouble(server, seconds)
            await place.until(lambda: sum(place.homes().values()) == len(place.sessions))
            done = place.done()
            await place.until(lambda: place.done() > done + 100)
            await place.until(lambda: len(place.homes()) == 2)
            traffic.end()
        judged = await traffic.judge()
        show(place, traffic, judged, began, trouble=trouble.__name__)
        for host in place.hosts:
            assert WORDS[trouble][0] in host.log
            assert WORDS[trouble][1] in host.log
    assert traffic.statuses().keys() <= {"admitted", "not_recorded"}
    assert judged.lost == set()
    assert judged.wrongs == []
