"""The whole way over TCP: sent, signed, verified, admitted, handled, answered."""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

import cbor2
import trio

import meerkat_trio
from meerkat_trio.comms import Identity, SocketNetwork

from ._measure import Contestant, Goal, Row, Scale, Setting, start_clock
from ._ours import count_down, run_ours

__all__ = ["SETTINGS"]

_PIECE: Final = 65_536
_BODY: Final = {"text": "the quick brown fox jumps over the lazy dog " * 6, "numbers": [1, 22, 333]}
"""Some 300 bytes."""
_WINDOW: Final = 256
_ROW: Final = "way-over-tcp"


def _plain(scale: Scale) -> dict[str, float]:
    """Measure what an application would write by hand: a length and CBOR each way, a handler awaited, one byte back."""
    return {_ROW: trio.run(_plain_way, scale.messages)}


async def _plain_way(count: int) -> float:
    done = trio.Event()
    handle = count_down(count, done)
    window = trio.Semaphore(_WINDOW)

    async def serve(stream: trio.SocketStream) -> None:
        buffer = bytearray()
        while data := await stream.receive_some(_PIECE):
            buffer += data
            at = answers = 0
            while len(buffer) - at >= 4 and len(buffer) - at - 4 >= (length := int.from_bytes(buffer[at : at + 4])):
                await handle(cbor2.loads(buffer[at + 4 : at + 4 + length]))
                at += 4 + length
                answers += 1
            del buffer[:at]
            await stream.send_all(bytes(answers))

    async def read_answers(stream: trio.SocketStream) -> None:
        while data := await stream.receive_some(_PIECE):
            for _ in data:
                window.release()

    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        server = await listener.accept()
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(serve, server)
        nursery.start_soon(read_answers, client)
        start = start_clock()
        for number in range(count):
            await window.acquire()
            item = cbor2.dumps([f"m-{number}", _BODY])
            await client.send_all(len(item).to_bytes(4) + item)
        await done.wait()
        taken = perf_counter() - start
        nursery.cancel_scope.cancel()
    return taken / count * 1e6


def _ours(scale: Scale) -> dict[str, float]:
    return {_ROW: run_ours(_our_way, scale, scale.messages)}


async def _our_way(count: int) -> float:
    done = trio.Event()
    handle: Any = count_down(count, done)
    # Two networks, so that nothing is shared but the loop.
    async with SocketNetwork() as here, SocketNetwork() as there, meerkat_trio.open_machine() as machine:
        receiver = await there.open(Identity(b"r" * 32), runtime_id="receiver", listen="tcp://127.0.0.1:0")
        sender = await here.open(Identity(b"s" * 32), runtime_id="sender", trusted=[receiver.endpoint()])
        receiver.trust(sender.endpoint())
        session = await machine.register("s", handle)
        await session.attach_ingress(receiver)
        start = start_clock()
        for _ in range(count):
            receipt = await sender.send(sender.envelope(receiver.peer_id, _BODY))
        await done.wait()
        await receipt.wait()
        taken = perf_counter() - start
        await session.retire()
    return taken / count * 1e6


SETTINGS: Final = (
    Setting(
        rows=(Row(name=_ROW, what="message over TCP, sent to answered", unit="us", goal=Goal(limit=1.0)),),
        floor=Contestant(label="lengths and cbor2 by hand, unsigned", turn=_plain),
        ours=Contestant(label="SocketComms", turn=_ours),
    ),
)
