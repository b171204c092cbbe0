"""A message's way through one drain: sender, inbox, admission, handler awaited, consumed.

The floor is one bare memory channel with a buffer of 64: the receiver awaits the handler, senders `await
send`. Burst is what an application does that has much to say: `send_nowait`, and `send` when there is no
room. Its goal is a multiple of the same floor, because the goal was set from it; the channel's own burst
stands among the peers. Messages stand ready on both sides, so that making an envelope is not counted. Each
sender is a task with a peer id of its own.
"""

from __future__ import annotations

import asyncio
import importlib
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing

import meerkat_trio

from ._channels import BUFFER, forward, receive
from ._measure import Contestant, Goal, Row, Scale, Setting, start_clock
from ._ours import count_down, made_comms, register_all, run_ours, trusted_sender

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


__all__ = ["SETTINGS"]


# --- floor and plain Trio ----------------------------------------------------------------------------


async def _send_all(channel: trio.MemorySendChannel[int], count: int) -> None:
    async with channel:
        for number in range(count):
            await channel.send(number)


async def _send_burst(channel: trio.MemorySendChannel[int], count: int) -> None:
    async with channel:
        for number in range(count):
            try:
                channel.send_nowait(number)
            except trio.WouldBlock:
                await channel.send(number)


async def _channel(
    senders: int, count: int, send: Callable[[trio.MemorySendChannel[int], int], Awaitable[None]]
) -> float:
    done = trio.Event()
    out, into = trio.open_memory_channel[int](BUFFER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, into, count_down(count, done))
        await trio.testing.wait_all_tasks_blocked()
        start = start_clock()
        async with out:
            for _ in range(senders):
                nursery.start_soon(send, out.clone(), count // senders)
        await done.wait()
        taken = perf_counter() - start
    return taken / count * 1e6


async def _two_channels(senders: int, count: int) -> float:
    done = trio.Event()
    out, middle_in = trio.open_memory_channel[int](BUFFER)
    middle_out, into = trio.open_memory_channel[int](BUFFER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, into, count_down(count, done))
        nursery.start_soon(forward, middle_in, middle_out)
        await trio.testing.wait_all_tasks_blocked()
        start = start_clock()
        async with out:
            for _ in range(senders):
                nursery.start_soon(_send_all, out.clone(), count // senders)
        await done.wait()
        taken = perf_counter() - start
    return taken / count * 1e6


# --- peers -----------------------------------------------------------------------------------------


async def _asyncio(senders: int, count: int) -> float:
    queue: asyncio.Queue[int] = asyncio.Queue(BUFFER)
    done = asyncio.Event()
    left = count

    async def handle(_message: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async def receive() -> None:
        while True:
            await handle(await queue.get())

    async def send(number: int) -> None:
        for message in range(number):
            await queue.put(message)

    async with asyncio.TaskGroup() as group:
        receiver = group.create_task(receive())
        await asyncio.sleep(0)
        start = start_clock()
        for _ in range(senders):
            group.create_task(send(count // senders))
        await done.wait()
        taken = perf_counter() - start
        receiver.cancel()
    return taken / count * 1e6


async def _aiojobs(count: int) -> float:
    scheduler: Any = importlib.import_module("aiojobs").Scheduler(limit=None)
    done = asyncio.Event()
    left = count

    async def handle(_message: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with scheduler:
        start = start_clock()
        for message in range(count):
            await scheduler.spawn(handle(message))
        await done.wait()
        return (perf_counter() - start) / count * 1e6


def _pykka(count: int) -> float:
    pykka: Any = importlib.import_module("pykka")
    members = {"on_receive": lambda _self, _message: None}
    actor: Any = type("Drain", (pykka.ThreadingActor,), members)
    reference = actor.start()
    start = start_clock()
    for message in range(count):
        reference.tell(message)
    reference.ask(None)
    taken = perf_counter() - start
    reference.stop()
    return taken / count * 1e6


# --- ours ------------------------------------------------------------------------------------------


async def _send_ours(comms: meerkat_trio.MemoryComms, envelopes: list[meerkat_trio.Envelope]) -> None:
    for envelope in envelopes:
        await comms.send(envelope)


async def _burst_ours(comms: meerkat_trio.MemoryComms, envelopes: list[meerkat_trio.Envelope]) -> None:
    for envelope in envelopes:
        try:
            comms.send_nowait(envelope)
        except trio.WouldBlock:
            await comms.send(envelope)


async def _ours(
    senders: int,
    count: int,
    send: Callable[[meerkat_trio.MemoryComms, list[meerkat_trio.Envelope]], Awaitable[None]],
) -> float:
    done = trio.Event()
    network = meerkat_trio.MemoryNetwork()
    inbox = made_comms(network, 1)
    async with meerkat_trio.open_machine() as machine:
        await register_all(machine, inbox, count_down(count, done))
        peers = [await trusted_sender(network, f"sender-{number}", inbox) for number in range(senders)]
        recipient = inbox[0].peer_id
        ready = [[peer.envelope(recipient, number) for number in range(count // senders)] for peer in peers]
        await trio.testing.wait_all_tasks_blocked()
        start = start_clock()
        async with trio.open_nursery() as nursery:
            for peer, envelopes in zip(peers, ready, strict=True):
                nursery.start_soon(send, peer, envelopes)
            await done.wait()
            taken = perf_counter() - start
    return taken / count * 1e6


# --- rows ------------------------------------------------------------------------------------------


def _setting(senders: int, *, limit: float, aim: float) -> Setting:
    send, burst = f"drain-{senders}-send", f"drain-{senders}-burst"
    crowd = f"{senders} sender" if senders == 1 else f"{senders} senders"

    def floor(scale: Scale) -> dict[str, float]:
        taken = trio.run(_channel, senders, scale.messages, _send_all)
        return {send: taken, burst: taken}

    def ours(scale: Scale) -> dict[str, float]:
        return {
            send: run_ours(_ours, scale, senders, scale.messages, _send_ours),
            burst: run_ours(_ours, scale, senders, scale.messages, _burst_ours),
        }

    def both(measure: Callable[[int], float]) -> Callable[[Scale], dict[str, float]]:
        def turn(scale: Scale) -> dict[str, float]:
            taken = measure(scale.messages)
            return {send: taken, burst: taken}

        return turn

    peers = (
        Contestant(
            label="trio channel, send_nowait",
            turn=lambda scale: {burst: trio.run(_channel, senders, scale.messages, _send_burst)},
        ),
        Contestant(
            label="two trio channels in a row",
            turn=lambda scale: {send: trio.run(_two_channels, senders, scale.messages)},
        ),
        Contestant(label="asyncio.Queue", turn=both(lambda count: asyncio.run(_asyncio(senders, count)))),
        Contestant(label="aiojobs", turn=both(lambda count: asyncio.run(_aiojobs(count))), needs="aiojobs"),
        Contestant(label="pykka", turn=both(_pykka), needs="pykka"),
    )
    return Setting(
        rows=(
            Row(
                name=send,
                what=f"message through a drain, {crowd}, send",
                unit="us",
                goal=Goal(limit=limit, aim=aim),
            ),
            Row(
                name=burst,
                what=f"message through a drain, {crowd}, send_nowait",
                unit="us",
                goal=Goal(limit=0.6, aim=0.25),
            ),
        ),
        floor=Contestant(label="trio channel, send", turn=floor),
        ours=Contestant(label="session", turn=ours),
        peers=peers,
    )


SETTINGS: Final = (_setting(1, limit=1.6, aim=1.0), _setting(64, limit=0.9, aim=0.4))
