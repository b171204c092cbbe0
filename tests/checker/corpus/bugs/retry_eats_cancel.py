"""A client that tries again when the line is bad, and falls back to a stale copy.

The shape is that of https://github.com/jd/tenacity/issues/529 and https://github.com/jd/tenacity/issues/186: a retry
that takes a cancellation for one more failure.
Wrong here: every exception counts as a bad line, Cancelled too.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "swallowed cancellation (retry loop)"
ORACLE: str | None = "swallowed"
MODE: str = "fair"


class Line:
    """A line that may be bad at any call."""

    def __init__(self, x: Any) -> None:
        self._x = x

    async def fetch(self, path: str) -> str:
        await trio.sleep(0.1)
        if self._x.choose(["good", "bad"]) == "bad":
            raise ConnectionError(path)
        return f"fresh {path}"


class Client:
    def __init__(self, line: Line, attempts: int) -> None:
        self._line = line
        self._attempts = attempts
        self.problems: list[str] = []

    async def get(self, path: str) -> str:
        for _ in range(self._attempts):
            try:
                return await self._line.fetch(path)
            except BaseException as exc:
                self.problems.append(repr(exc))
        return f"stale {path}"


async def scenario(x: Any) -> None:
    client = Client(Line(x), attempts=3)
    with x.victim():
        page = await client.get("/news")
        x.check(page.endswith("/news"), f"got {page!r}")
