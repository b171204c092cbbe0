"""A barrier: it opens when the last of the parties has arrived.

The shape is that of https://github.com/python/cpython/issues/155233 and
https://github.com/encero-systems/incan/issues/418: who arrived and left again is still counted.
Wrong here: a party that is cancelled while it waits is counted as arrived, and the barrier opens without it.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "barrier with a leaving party"
ORACLE: str | None = None
MODE: str = "fair"


class Barrier:
    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._open = trio.Event()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    async def arrive(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._open.set()
            return
        await self._open.wait()


async def scenario(x: Any) -> None:
    barrier = Barrier(3)
    there: set[str] = set()

    async def runner(name: str, seconds: float) -> None:
        await trio.sleep(seconds)
        there.add(name)
        try:
            await barrier.arrive()
        finally:
            if not barrier.is_open:
                there.remove(name)
        x.check(len(there) == 3, f"the barrier opened with only {sorted(there)}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner, "early", 0)
        nursery.start_soon(runner, "late", 1)
        with x.victim():
            await runner("main", 0.5)
        if not barrier.is_open:
            await runner("main, again", 2)
