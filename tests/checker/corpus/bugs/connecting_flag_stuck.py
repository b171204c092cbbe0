"""A client that dials once, however many ask it to be connected.

The shape is that of https://github.com/encode/httpcore/issues/785 and https://github.com/encode/httpcore/pull/1099:
a connection whose dialler was cancelled is "connecting" for ever.
Wrong here: the flag is taken back only when dialling comes to its end.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "stuck flag (connecting)"
ORACLE: str | None = None
MODE: str = "fair"


class Client:
    def __init__(self) -> None:
        self.connected = False
        self._connecting = False

    async def connect(self) -> None:
        while self._connecting:  # somebody else is at it
            await trio.sleep(0.1)
        if self.connected:
            return
        self._connecting = True
        await self._dial()
        self.connected = True
        self._connecting = False

    async def _dial(self) -> None:
        await trio.sleep(0.3)
        await trio.lowlevel.checkpoint()


async def scenario(x: Any) -> None:
    client = Client()
    await x.reusable(client.connect, within=5)
