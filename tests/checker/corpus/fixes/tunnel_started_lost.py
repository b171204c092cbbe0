"""A tunnel as a background task: it must not be torn down by a cancellation, only by its owner, who has been told it
is up.

The shape is that of https://github.com/python-trio/trio/issues/2895: `started()` does nothing when the one who
starts the task is already cancelled, and the task stays where it was.
Right here: the tunnel notices that it still is where it is being cancelled.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "start-up race (task_status.started lost)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class Tunnel:
    def __init__(self) -> None:
        self.peer_is_there = trio.Event()
        self._tear_down = trio.Event()
        self.is_up = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.peer_is_there.wait()
        task_status.started()
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            self.is_up = True
            await self._tear_down.wait()
            await trio.sleep(0.1)
            self.is_up = False

    def tear_down(self) -> None:
        self._tear_down.set()


async def peer(tunnel: Tunnel) -> None:
    await trio.sleep(1)
    tunnel.peer_is_there.set()


async def scenario(x: Any) -> None:
    tunnel = Tunnel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer, tunnel)
        with x.victim():
            await nursery.start(tunnel.run)
            try:
                await trio.sleep(5)
            finally:
                tunnel.tear_down()
    x.check(not tunnel.is_up, "the tunnel is still up")
