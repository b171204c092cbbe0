"""A session with a heartbeat in a system task: who is cancelled while it comes up must not leave it beating."""

from __future__ import annotations

from typing import Any

import trio

ORACLE: str | None = "leaked task"
MODE = "fair"


class Heartbeat:
    """Beats once a second in the background, for users who have no nursery at hand."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.beats = 0
        self._scope = trio.CancelScope()
        self._first = trio.Event()
        self._stopped = trio.Event()

    async def _beat(self) -> None:
        with self._scope:
            while True:
                await trio.sleep(self.interval)
                self.beats += 1
                self._first.set()
        self._stopped.set()

    async def _stop(self) -> None:
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._stopped.wait()

    async def __aenter__(self) -> Heartbeat:
        trio.lowlevel.spawn_system_task(self._beat, name="heartbeat")
        try:
            await self._first.wait()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stop()


async def scenario(x: Any) -> None:
    heartbeat = Heartbeat(1)
    async with heartbeat:
        await trio.sleep(2.5)
    x.check(heartbeat.beats >= 1, "it never beat")
