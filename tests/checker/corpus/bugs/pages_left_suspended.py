"""An export that goes through a cursor, page by page.

The shape is that of https://github.com/python-trio/trio/issues/265 and https://github.com/goodboy/tractor/pull/14: a
loop over an async generator that is left early leaves the generator suspended, with its `finally` still to run.
Wrong here: an export that is cancelled between two pages leaves the generator to the garbage collector.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import trio

KIND: str = "async generator left suspended"
ORACLE: str | None = "leaked generator"
MODE: str = "fair"


class Cursor:
    def __init__(self, *pages: str) -> None:
        self._pages = pages
        self.is_open = False

    async def pages(self) -> AsyncGenerator[str, None]:
        self.is_open = True
        try:
            for page in self._pages:
                await trio.lowlevel.checkpoint()
                yield page
        finally:
            self.is_open = False


async def export(cursor: Cursor, target: list[str]) -> None:
    async for page in cursor.pages():
        await trio.sleep(0.1)
        target.append(page)


async def scenario(x: Any) -> None:
    cursor = Cursor("page 1", "page 2", "page 3")
    target: list[str] = []
    with x.victim():
        await export(cursor, target)
