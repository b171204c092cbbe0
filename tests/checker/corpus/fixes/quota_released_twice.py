"""Uploads under a quota: a place in the quota is taken for each and given back at its end.

The shape is that of https://github.com/agronholm/anyio/issues/1170, where a limiter ends up with more holders than
it has tokens; here by a second release, as in https://github.com/aio-libs/aiorwlock/issues/400, where a cancelled
acquire counts down what was never counted up.
Right here: only the caller, which took the place, gives it back.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "over-released permit (release in two finally clauses)"
ORACLE: str | None = "leaked semaphore"
MODE: str = "fair"


class Uploader:
    def __init__(self, quota: int) -> None:
        self._quota = trio.Semaphore(quota)
        self.stored: list[str] = []
        self.torn: list[str] = []

    async def upload(self, name: str) -> None:
        await self._quota.acquire()
        try:
            await self._send(name)
        finally:
            self._quota.release()

    async def _send(self, name: str) -> None:
        complete = False
        try:
            for _ in range(2):
                await trio.sleep(0.1)
            self.stored.append(name)
            complete = True
        finally:
            if not complete:
                self.torn.append(name)


async def scenario(x: Any) -> None:
    uploader = Uploader(quota=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(uploader.upload, "cat.jpg")
        with x.victim():
            await uploader.upload("dog.jpg")
    x.check("cat.jpg" in uploader.stored, "an upload that nobody cancelled did not happen")
