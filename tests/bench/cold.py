"""Messages to 10,000 cold sessions in random order: each one wakes a drain that was asleep.

A message goes two hops, from its sender to the drain and on to the executor, so the floor is two bare channels and two
tasks per session; one of each, which is less than a drain does, stands among the peers. One sender, two messages per
session, the same shuffled order for everybody.
"""

from __future__ import annotations

import random
from time import perf_counter
from typing import Final

import trio
import trio.testing

import meerkat_trio

from ._channels import BUFFER, forward, receive
from ._measure import Contestant, Goal, Row, Scale, Setting, start_clock
from ._ours import count_down, made_comms, register_all, run_ours, trusted_sender

__all__ = ["SETTINGS"]

_NAME: Final = "cold"


def _order(sessions: int) -> list[int]:
    order = [*range(sessions)] * 2
    random.Random(sessions).shuffle(order)
    return order


async def _channels(sessions: int, hops: int) -> float:
    order = _order(sessions)
    done = trio.Event()
    handle = count_down(len(order), done)
    ways: list[trio.MemorySendChannel[int]] = []
    async with trio.open_nursery() as nursery:
        for _ in range(sessions):
            out, into = trio.open_memory_channel[int](BUFFER)
            ways.append(out)
            for _ in range(hops - 1):
                further, end = trio.open_memory_channel[int](BUFFER)
                nursery.start_soon(forward, into, further)
                into = end
            nursery.start_soon(receive, into, handle)
        await trio.testing.wait_all_tasks_blocked()
        start = start_clock()
        for number in order:
            await ways[number].send(number)
        await done.wait()
        taken = perf_counter() - start
        nursery.cancel_scope.cancel()
    return taken / len(order) * 1e6


async def _ours(sessions: int) -> float:
    order = _order(sessions)
    done = trio.Event()
    network = meerkat_trio.MemoryNetwork()
    comms = made_comms(network, sessions)
    sender = await trusted_sender(network, "sender", comms)
    envelopes = [sender.envelope(comms[number].peer_id, number) for number in order]
    async with meerkat_trio.open_machine() as machine:
        await register_all(machine, comms, count_down(len(order), done))
        await trio.testing.wait_all_tasks_blocked()
        start = start_clock()
        for envelope in envelopes:
            await sender.send(envelope)
        await done.wait()
        taken = perf_counter() - start
    return taken / len(order) * 1e6


def _floor_turn(scale: Scale) -> dict[str, float]:
    return {_NAME: trio.run(_channels, scale.sessions, 2)}


def _one_hop_turn(scale: Scale) -> dict[str, float]:
    return {_NAME: trio.run(_channels, scale.sessions, 1)}


def _ours_turn(scale: Scale) -> dict[str, float]:
    return {_NAME: run_ours(_ours, scale, scale.sessions)}


SETTINGS: Final = (
    Setting(
        rows=(Row(name=_NAME, what="message to one of 10,000 cold sessions", unit="us", goal=Goal(limit=0.7)),),
        floor=Contestant(label="two channels and tasks per session", turn=_floor_turn),
        ours=Contestant(label="sessions", turn=_ours_turn),
        peers=(Contestant(label="one channel and task per session", turn=_one_hop_turn),),
    ),
)
