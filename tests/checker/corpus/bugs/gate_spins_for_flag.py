"""A gate in front of a service: requests wait until the migration is through, or has failed.

The shape is that of https://github.com/aio-libs/janus/issues/715, a join that goes round and round with all the CPU
because nothing will ever change what it looks at.
Wrong here: a cancelled migration settles nothing, and the requests look again and again.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "livelock (spins on a flag that a cancelled task would have set)"
ORACLE: str | None = "livelock"
MODE: str = "fair"


class Gate:
    def __init__(self) -> None:
        self._settled = trio.Event()
        self.migrated = False

    async def migrate(self) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        self.migrated = True
        self._settled.set()

    async def enter(self) -> bool:
        while not self._settled.is_set():
            await trio.lowlevel.checkpoint()
        return self.migrated


async def scenario(x: Any) -> None:
    gate = Gate()
    served: list[bool] = []

    async def request() -> None:
        served.append(await gate.enter())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request)
        nursery.start_soon(request)
        with x.victim():
            await gate.migrate()
    x.check(served == [gate.migrated] * 2, f"migrated: {gate.migrated}, told: {served}")
