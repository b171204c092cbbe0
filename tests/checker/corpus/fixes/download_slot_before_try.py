"""Downloads of which only so many may run at once.

The shape is that of https://github.com/sgl-project/sglang/pull/31907: a token is taken, and what gives it back is
set up only after the next await.
Right here: the `try` begins right after the slot was taken.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "leaked permit (Semaphore)"
ORACLE: str | None = "leaked semaphore"
MODE: str = "fair"


class Downloader:
    def __init__(self, slots: int) -> None:
        self._slots = trio.Semaphore(slots)
        self.bodies: dict[str, str] = {}

    async def fetch(self, host: str) -> None:
        await self._slots.acquire()
        try:
            address = await self._resolve(host)
            self.bodies[host] = await self._transfer(address)
        finally:
            self._slots.release()

    async def _resolve(self, host: str) -> str:
        await trio.sleep(0.1)
        return f"{host}."

    async def _transfer(self, address: str) -> str:
        await trio.sleep(0.2)
        return f"<{address}>"


async def scenario(x: Any) -> None:
    downloader = Downloader(slots=2)
    async with trio.open_nursery() as nursery:
        for host in ("a.example", "b.example", "c.example"):
            nursery.start_soon(downloader.fetch, host)
    x.check(len(downloader.bodies) == 3, f"only {sorted(downloader.bodies)}")
