"""Settings that are loaded when somebody first asks for them; a broken file is reported at once ever after.

The shape is that of https://github.com/aio-libs/async-lru/pull/697: what a cached call ended with is kept, and a
cancellation is no result to keep.
Right here: only a broken file counts as a broken file.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "memoised failure"
ORACLE: str | None = "exception"
MODE: str = "fair"


class LazySettings:
    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = trio.Lock()
        self._values: dict[str, str] | None = None
        self._broken = False

    async def get(self, key: str) -> str:
        async with self._lock:
            if self._broken:
                raise RuntimeError(f"{self._path} could not be loaded")
            if self._values is None:
                try:
                    self._values = await self._load()
                except (OSError, ValueError):
                    self._broken = True
                    raise
            return self._values[key]

    async def _load(self) -> dict[str, str]:
        await trio.sleep(0.1)
        return {"colour": "green"}


async def scenario(x: Any) -> None:
    settings = LazySettings("app.toml")
    seen: list[str] = []

    async def later_reader() -> None:
        seen.append(await settings.get("colour"))

    async with trio.open_nursery() as nursery:
        with x.victim():
            await settings.get("colour")
        nursery.start_soon(later_reader)
        nursery.start_soon(later_reader)
    x.check(seen == ["green", "green"], f"seen: {seen}")
