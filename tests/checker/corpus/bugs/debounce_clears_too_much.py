"""A watcher that collects changed files and rebuilds once it has been quiet for a second.

The shape is that of https://github.com/svecosystem/runed/issues/139: a call that comes while the debounced callback
runs is swept away with what the callback leaves behind.
Wrong here: what changes during a rebuild is cleared at the end of it, unbuilt.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "debouncer"
ORACLE: str | None = None
MODE: str = "fair"


class Watcher:
    QUIET = 1.0

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._changed: list[str] = []
        self._generation = 0
        self.built: list[str] = []

    def changed(self, file: str) -> None:
        self._changed.append(file)
        self._generation += 1
        self._nursery.start_soon(self._when_quiet, self._generation)

    async def _when_quiet(self, generation: int) -> None:
        await trio.sleep(self.QUIET)
        if generation == self._generation:
            await self._build(self._changed.copy())
            self._changed.clear()

    async def _build(self, files: list[str]) -> None:
        await trio.sleep(0.2)
        self.built += files


async def scenario(x: Any) -> None:
    async with trio.open_nursery() as nursery:
        watcher = Watcher(nursery)
        watcher.changed("a.c")
        await trio.sleep(watcher.QUIET)
        watcher.changed("b.c")
    x.check(sorted(watcher.built) == ["a.c", "b.c"], f"built: {watcher.built}")
