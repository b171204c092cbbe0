"""What a session's tasks are made of: settings, counters, a drain's binding, the line of those who deliver."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ._policy import Backoff, Random, RespawnPolicy
    from .abc import CommsRuntime
    from .authority import DropReason

__all__ = ["Binding", "Counts", "Line", "SessionSettings"]


@frozen(kw_only=True)
class SessionSettings:
    """What a session is run with."""

    work_queue: int
    """Messages admitted and not handled, at the most."""
    max_attempts: int
    """Attempts per message."""
    abandoned_limit: int
    """Abandoned messages kept, at the most."""
    retry_backoff: Backoff
    """The wait between the attempts for one message."""
    respawn: RespawnPolicy
    """When a failed drain is started again."""
    grace: float
    """Seconds a running handler gets when the session ends."""
    limiter: trio.CapacityLimiter | None
    """Bounds the handlers that run at once, machine-wide."""
    outbox: int
    """Replies that wait for one peer, at the most."""
    random: Random
    """Where jitter comes from."""
    new_id: Callable[[], str]
    """Where ids come from."""
    new_token: Callable[[], str]
    """Makes bootstrap tokens."""
    strict: bool
    """Whether a fault is raised instead of stopping the session."""


@final
class Binding:
    """What one generation of the drain serves, and the scope that ends it."""

    __slots__ = ("comms", "generation", "scope")

    generation: int
    """Which drain."""
    comms: CommsRuntime
    """What it serves."""
    scope: trio.CancelScope
    """Cancelling it ends this generation."""

    def __init__(self, generation: int, comms: CommsRuntime) -> None:
        self.generation = generation
        self.comms = comms
        self.scope = trio.CancelScope()


@final
class Counts:
    """Counters of a session, for its statistics."""

    __slots__ = (
        "abandoned",
        "abandoned_forgotten",
        "admitted",
        "dropped",
        "handled",
        "rebinds",
        "respawns",
        "retried",
        "returned",
        "runs",
    )

    def __init__(self) -> None:
        self.abandoned: int = 0
        self.abandoned_forgotten: int = 0
        self.admitted: int = 0
        self.handled: int = 0
        self.rebinds: int = 0
        self.respawns: int = 0
        self.retried: int = 0
        self.returned: int = 0
        self.runs: int = 0
        self.dropped: dict[DropReason, int] | None = None


@final
class Line:
    """Tasks that wait one behind the other."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: deque[trio.Event] | None = None

    def __bool__(self) -> bool:
        return bool(self._turns)

    @asynccontextmanager
    async def in_turn(self) -> AsyncGenerator[None, None]:
        """Wait behind those who came before, and be the first for the length of the block.

        **Cancellation:** the line closes up.
        """
        if self._turns is None:
            self._turns = deque()
        turns, turn = self._turns, trio.Event()
        turns.append(turn)
        try:
            if turns[0] is turn:
                await trio.lowlevel.checkpoint()
            else:
                await turn.wait()
            yield
        finally:
            turns.remove(turn)
            if turns:
                turns[0].set()
