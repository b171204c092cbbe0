"""Bare channels, of which floors are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

__all__ = ["BUFFER", "forward", "receive"]

BUFFER: Final = 64


async def receive(channel: trio.MemoryReceiveChannel[int], handle: Callable[[object], Awaitable[None]]) -> None:
    """Handle each message."""
    async for message in channel:
        await handle(message)


async def forward(into: trio.MemoryReceiveChannel[int], out: trio.MemorySendChannel[int]) -> None:
    """Be the hop between two channels."""
    async with out:
        async for message in into:
            await out.send(message)
