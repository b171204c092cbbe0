"""Handlers for hosts of their own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from meerkat_trio import SessionRun


async def stay(run: SessionRun) -> None:
    """Do not come to an end."""
    await trio.sleep_forever()
