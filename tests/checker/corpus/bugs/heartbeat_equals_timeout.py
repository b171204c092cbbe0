"""A watchdog for a peer that gives a sign of life at regular intervals.

The shape is that of https://github.com/websocket-client/websocket-client/issues/327 and
https://github.com/aio-libs/aiohttp/pull/10544: a healthy connection is given up because the pong and the check of it
meet at the same instant.
Wrong here: the watchdog looks exactly as often as the peer gives a sign.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "timer tie (heartbeat equal to timeout)"
ORACLE: str | None = "exception"
MODE: str = "fair"

HEARTBEAT = 2.0
PATIENCE = HEARTBEAT


class PeerLost(Exception):
    pass


class Watchdog:
    def __init__(self) -> None:
        self._alive = False
        self._hung_up = trio.Event()

    def sign_of_life(self) -> None:
        self._alive = True

    def hang_up(self) -> None:
        self._hung_up.set()

    async def watch(self) -> None:
        while True:
            await trio.sleep(PATIENCE)
            if self._hung_up.is_set():
                return
            if not self._alive:
                raise PeerLost(f"no sign of life for {PATIENCE} seconds")
            self._alive = False


async def peer(watchdog: Watchdog) -> None:
    for _ in range(3):
        await trio.sleep(HEARTBEAT)
        watchdog.sign_of_life()
    watchdog.hang_up()


async def scenario(x: Any) -> None:
    watchdog = Watchdog()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer, watchdog)
        nursery.start_soon(watchdog.watch)
