"""An audit log with a writer task of its own, so that recording a line never waits.

The shape is that of https://github.com/aio-libs/janus/pull/75: whether everything that was put has been worked off
cannot be told from how long ago that was.
Wrong here: `settle` yields a few times and takes it that the writer has caught up.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "order assumption (it is surely written by now)"
ORACLE: str | None = None
MODE: str = "adversarial"


class AuditLog:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._put, self._get = trio.open_memory_channel[str | trio.Event](100)

    async def write(self) -> None:
        async with self._get:
            async for entry in self._get:
                if isinstance(entry, trio.Event):
                    entry.set()
                else:
                    self.lines.append(entry)

    def record(self, line: str) -> None:
        self._put.send_nowait(line)

    async def settle(self) -> None:
        for _ in range(6):
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._put.close()


async def scenario(x: Any) -> None:
    log = AuditLog()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.write)
        try:
            log.record("login")
            log.record("logout")
            await log.settle()
            x.check(log.lines == ["login", "logout"], f"settled, but the log holds {log.lines}")
        finally:
            log.close()
