"""How a demo is run: in real or virtual time, and given up once nothing happens any more. Knows no machine."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing

from ..testing._trio_internals import controlled_schedule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

__all__ = ["QUIET_LIMIT", "cancel_in_the_middle", "host_all", "run_stage", "wait_until_stuck"]

_LOOK_EVERY: Final = 1.0
_STUCK_AFTER: Final = 30
"""Looks in a row that see nothing new. They are counted, not timed: a process that was halted is not stuck."""
QUIET_LIMIT: Final = _STUCK_AFTER * _LOOK_EVERY
"""Seconds in which nothing happens, after which a run is given up."""


def run_stage(main: Callable[[], Awaitable[None]], *, virtual: bool, seed: int) -> None:
    """Run the demo's main task, in a Trio run of its own.

    Args:
        main: the task; an interruption reaches it alone, and it then takes everything down in order.
        virtual: whether time is virtual and the schedule controlled.
        seed: decides that schedule.
    """
    if not virtual:
        trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
        return
    clock = trio.testing.MockClock(autojump_threshold=0)
    with controlled_schedule() as order_by:
        order_by(random.Random(seed))  # noqa: S311 - faults, no secrets
        trio.run(main, clock=clock, restrict_keyboard_interrupt_to_checkpoints=True)


async def host_all(
    hosts: Iterable[Callable[[], Awaitable[None]]], *, watch: Callable[[], Awaitable[None]], scope: trio.CancelScope
) -> None:
    """Run all of ``hosts`` at once in ``scope``, and ``watch`` for as long as one of them runs."""
    with scope:
        async with trio.open_nursery() as watched:
            watched.start_soon(watch)
            async with trio.open_nursery() as hosting:
                for host in hosts:
                    hosting.start_soon(host)
            watched.cancel_scope.cancel()


async def wait_until_stuck(progress: Callable[[], int]) -> None:
    """Return when ``progress`` has not changed for too long: a run that hangs has to be reported, not hang too."""
    before, quiet = -1, 0
    while quiet < _STUCK_AFTER:
        await trio.sleep(_LOOK_EVERY)
        now = progress()
        before, quiet = now, quiet + 1 if now == before else 0


async def cancel_in_the_middle(call: Callable[[], Awaitable[Any]], patience: int) -> bool:
    """Make a call and cancel its caller after ``patience`` steps; say whether it was cut."""
    scope = trio.CancelScope()

    async def strike() -> None:
        for _ in range(patience - 1):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        if patience == 0:
            scope.cancel()
        else:
            nursery.start_soon(strike)
        with scope:
            await call()
        nursery.cancel_scope.cancel()
    return scope.cancelled_caught
