"""A circuit breaker: open after a failure; from time to time one call is let through to see whether it would work
again.

The shape is that of https://github.com/encode/httpcore/pull/1099, a state that only the one who set it can leave,
and who was cancelled in it.
Wrong here: a cancelled probe is under way for ever, and no other is let through.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "stuck flag (probe under way)"
ORACLE: str | None = None
MODE: str = "fair"


class CircuitOpenError(Exception):
    pass


class Breaker:
    def __init__(self) -> None:
        self.is_open = True
        self._probing = False

    async def call(self) -> str:
        if self.is_open:
            if self._probing:
                raise CircuitOpenError
            await self._probe()
        await trio.sleep(0.1)
        return "done"

    async def _probe(self) -> None:
        self._probing = True
        await trio.sleep(0.5)
        self.is_open = False
        self._probing = False


async def scenario(x: Any) -> None:
    breaker = Breaker()
    with x.victim():
        await breaker.call()
    x.eventually(lambda: not breaker.is_open, within=5)
    for _ in range(3):
        await trio.sleep(1)
        try:
            await breaker.call()
        except CircuitOpenError:
            continue
