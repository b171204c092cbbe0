"""Files that are locked while they are read or written; a copy locks two of them.

The shape is that of https://github.com/TooTallNate/Java-WebSocket/issues/798 and
https://github.com/ably/ably-java/pull/500: two locks, taken in one order here and in the other there.
Wrong here: a copy locks its source first, whichever file that is.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "deadlock (lock order)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class File:
    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.lock = trio.Lock()


async def copy(source: File, target: File) -> None:
    first, second = source, target
    async with first.lock, second.lock:
        text = source.text
        await trio.lowlevel.checkpoint()
        target.text = text


async def copy_back(source: File, target: File) -> None:
    await trio.lowlevel.checkpoint()  # reading the arguments
    await copy(source, target)


async def scenario(x: Any) -> None:
    draft, final = File("draft", "new"), File("final", "old")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, draft, final)
        nursery.start_soon(copy_back, final, draft)
    x.check(draft.text == final.text, f"{draft.text} != {final.text}")
