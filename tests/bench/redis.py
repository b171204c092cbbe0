"""Reading from Redis and acknowledging, by batches: ours verifies, admits and answers; against the bare client."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import cbor2
import trio

import meerkat_trio
from meerkat_trio.comms import Identity, RedisLimits, RedisNetwork
from meerkat_trio.comms._bundle import pack, seal
from meerkat_trio.comms._envelope import encode_envelope

from ..redis.rig import running, until
from ._measure import Contestant, Goal, Row, Scale, Setting, start_clock
from ._ours import run_ours

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LEFT_OUT", "SETTINGS"]

_BODY: Final = {"text": "the quick brown fox jumps over the lazy dog " * 6, "numbers": [1, 22, 333]}
"""Some 300 bytes."""
_BATCHES: Final = (1, 16, 128)
_SENDER: Final = Identity(b"s" * 32)
_RECEIVER: Final = Identity(b"r" * 32)


def _name(batch: int) -> str:
    return f"redis-{batch}"


def _count(scale: Scale, batch: int) -> int:
    """Say how many messages: one by one they take long."""
    return max(batch, scale.messages // 8 if batch == 1 else scale.messages)


def _turn(measure: Callable[[str, int, int], Awaitable[float]], scale: Scale) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as server:
        return {
            _name(batch): run_ours(measure, scale, server.url, _count(scale, batch), batch) / _count(scale, batch) * 1e6
            for batch in _BATCHES
        }


async def _plain(url: str, count: int, batch: int, *, signed: bool = False) -> float:
    """Read and acknowledge what an application would have put there by hand; signed, one by one, and verified too."""
    import coredis  # noqa: PLC0415 - where it is not installed this row is left out
    from coredis.retry import NoRetryPolicy  # noqa: PLC0415

    stream = f"plain-{batch}"
    client: Any = coredis.Redis.from_url(url, retry_policy=NoRetryPolicy())
    async with client:
        await client.xgroup_create(stream, "group", identifier="0", mkstream=True)
        data = encode_envelope(_envelope(0), 0)
        signature = _SENDER.sign(data)
        for _ in range(count):
            await client.xadd(stream, {"data": data, "signature": signature})
        left = count
        start = start_clock()
        while left:
            found = await client.xreadgroup("group", "one", streams={stream: ">"}, count=batch, block=250)
            read = [entry for entries in found.values() for entry in entries]
            for entry in read if signed else ():
                item, by = entry.field_values[b"data"], entry.field_values[b"signature"]
                assert _SENDER.verify(item, by)
                cbor2.loads(cbor2.loads(item)[-1])
            ids = [entry.identifier for entry in read]
            await client.xack(stream, "group", ids)
            left -= len(ids)
        return perf_counter() - start


def _envelope(number: int) -> meerkat_trio.Envelope:
    return meerkat_trio.Envelope(id=f"m-{number}", sender=_SENDER.peer_id, recipient=_RECEIVER.peer_id, body=_BODY)


async def _ours(url: str, count: int, batch: int) -> float:
    """Read, verify, admit, answer and acknowledge what a sender would have sent in such batches."""
    limits = RedisLimits(read_entries=max(1, batch // 64))
    async with RedisNetwork(url, namespace=f"ours-{batch}", limits=limits) as network:
        await until(lambda: network.statistics().connected)
        await _fill(network, count, batch)
        comms = await network.open(_RECEIVER, runtime_id="receiver", trusted=[_SENDER.endpoint("s", "inproc://s")])
        mailbox: Any = network.mailbox_of(_RECEIVER.peer_id)
        left = count
        start = start_clock()
        while left:
            with await comms.claim() as claim:
                claim.commit()
                left -= 1
            while (ready := comms.claim_ready()) is not None:
                with ready:
                    ready.commit()
                    left -= 1
        while not mailbox.is_flushed:
            await trio.lowlevel.checkpoint()
        return perf_counter() - start


async def _fill(network: RedisNetwork, count: int, batch: int) -> None:
    import coredis  # noqa: PLC0415 - as above

    client: Any = coredis.Redis.from_url(f"unix://{network._server.location.path}")  # type: ignore[union-attr]
    stream, answers = (
        network.keys.stream(_RECEIVER.peer_id, meerkat_trio.Lane.WORK),
        f"{network.keys.namespace}-answers",
    )
    async with client:
        await client.xgroup_create(answers, "group", identifier="0", mkstream=True)
        for first in range(0, count, batch):
            parts = [encode_envelope(_envelope(first + number), network.now()) for number in range(batch)]
            for several in pack(parts):
                frame = seal(_SENDER, _RECEIVER.public_key, several)
                await client.xadd(stream, {"bundle": frame, "answers": answers})


LEFT_OUT: Final[str | None] = (
    "redis: redis-server is not installed: apt-get install redis-server"
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None
    else "redis: coredis is not installed: pip install 'meerkat-trio[redis]'"
    if importlib.util.find_spec("coredis") is None
    else None
)
"""Why this cannot be measured here."""

SETTINGS: Final[tuple[Setting, ...]] = (
    ()
    if LEFT_OUT is not None
    else (
        Setting(
            rows=tuple(
                Row(
                    name=_name(batch),
                    what=f"read from Redis and acknowledged, batches of {batch}",
                    unit="us",
                    goal=Goal(limit=1.25),
                )
                for batch in _BATCHES
            ),
            floor=Contestant(label="coredis XREADGROUP and XACK, unsigned", turn=partial(_turn, _plain)),
            ours=Contestant(label="RedisComms", turn=partial(_turn, _ours)),
            peers=(
                Contestant(
                    label="the same, each verified and decoded", turn=partial(_turn, partial(_plain, signed=True))
                ),
            ),
        ),
    )
)
