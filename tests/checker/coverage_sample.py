"""Read by the tests of coverage: one await of each sort."""

from __future__ import annotations

import trio


async def struck() -> None:
    await trio.sleep(1)  # struck
    async with trio.open_nursery() as nursery:  # block
        nursery.start_soon(trio.sleep, 1)
    with trio.CancelScope(shield=True):
        await trio.sleep(1)  # shielded


async def never_called() -> None:
    await trio.sleep(1)  # never
