"""Virtual time for this directory: a call that nobody will ever wake fails at once instead of hanging."""

from __future__ import annotations

from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 3600
"""Virtual seconds; nothing here sleeps, so that they pass only when nothing can move any more."""


def run_in_virtual_time(
    call: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None = None,
    **options: Any,
) -> None:
    """Run a test like `trio.run`, on a clock that jumps."""

    async def bounded() -> None:
        with trio.fail_after(PATIENCE):
            await call()

    trio.run(bounded, clock=clock or trio.testing.MockClock(autojump_threshold=0), **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the asynchronous tests beside this file run in virtual time."""
    here = Path(__file__).parent
    for item in items:
        if isinstance(item, pytest.Function) and here in item.path.parents and iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=run_in_virtual_time), append=False)
