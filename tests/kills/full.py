"""`python -m tests.kills.full JOURNAL`: a machine whose files may not grow for a while; it says what came of it.

It is killed at its end, with messages that were admitted and not handled.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

import trio

from meerkat_trio import (
    DeliveryRefused,
    MemoryComms,
    MemoryNetwork,
    ReceiptStatus,
    SessionRun,
    TrustSource,
    open_machine,
)
from meerkat_trio.journals import SqliteJournal

_SIZE: Final = 400_000
_LONG: Final = "x" * 9_000
_MANY: Final = 1000


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def main(path: Path) -> None:
    gate, begun = trio.Event(), trio.Event()
    handled: list[str] = []
    told: dict[str, list[str]] = {"admitted": [], "refused": [], "reasons": [], "admitted again": []}
    stay = trio.Event()

    async def handle(run: SessionRun) -> None:
        begun.set()
        await gate.wait()
        handled.append(run.message.body[0])
        if len(handled) == len(told["admitted"]):
            # The rest is left to the next process.
            stay.set()
            await trio.sleep_forever()

    network = MemoryNetwork()
    peer, comms = MemoryComms(network, "peer"), MemoryComms(network, "a")
    await comms.add_trusted_peer(peer.endpoint(), TrustSource.MANUAL)

    async def send(name: str) -> Any:
        receipt = await peer.send(peer.envelope(comms.peer_id, [name, _LONG], id=name))
        await receipt.wait()
        return receipt

    async with open_machine(journal=SqliteJournal(path)) as machine:
        session = await machine.register("a", handle, work_queue=_MANY)
        await session.attach_ingress(comms)
        _limit(_SIZE)
        for number in range(_MANY):
            receipt = await send(f"first {number}")
            if receipt.status is not ReceiptStatus.ADMITTED:
                break
            told["admitted"].append(f"first {number}")
        for number in range(3):
            receipt = await send(f"full {number}")
            told["refused"].append(f"full {number}")
            told["reasons"].append(receipt.reason.value)
        try:
            await session.deliver(["never", _LONG])
        except DeliveryRefused as refused:
            told["delivery"] = [refused.reason.value]
        await begun.wait()
        # Now nothing at all can be written, so nothing that is handled can be noted.
        _limit(0)
        gate.set()
        await send("nothing")
        await send("nothing more")
        told["handled when full"] = list(handled)
        _limit(resource.RLIM_INFINITY)
        # The same ids, for what was refused was never there.
        for name in told["refused"]:
            while (await send(name)).status is not ReceiptStatus.ADMITTED:
                pass
            told["admitted again"].append(name)
        await session.deliver(["delivered", ""])
        await stay.wait()
        told["handled"] = handled
        print(json.dumps(told), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    trio.run(main, Path(sys.argv[1]))
