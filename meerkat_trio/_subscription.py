"""Watching a machine: a bounded stream of its steps that a slow reader can never hold up."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from .authority import Step

__all__ = ["StepStream"]


@final
class StepStream:
    """The steps of every session of a machine, in the order in which they were taken.

    Made by `MeerkatMachine.subscribe`. Iterate over it; it ends when the machine has closed, after its
    last step. A reader that falls behind by more than the buffer misses the steps that came then; `missed` counts them.
    """

    __slots__ = ("_buffer", "_closed", "_limit", "_readers", "missed")

    missed: int
    """Steps that found the buffer full."""

    def __init__(self, limit: int) -> None:
        self._buffer: deque[Step] = deque()
        self._limit = limit
        self._closed = False
        self._readers = trio.lowlevel.ParkingLot()
        self.missed = 0

    def offer(self, step: Step) -> None:
        """Hand a step to the reader, or count it as missed."""
        if len(self._buffer) >= self._limit:
            self.missed += 1
            return
        self._buffer.append(step)
        if self._readers:
            self._readers.unpark()

    def close(self) -> None:
        """End the stream; what is buffered can still be read."""
        self._closed = True
        self._readers.unpark_all()

    def __aiter__(self) -> StepStream:
        return self

    async def __anext__(self) -> Step:
        """Return the next step.

        **Cancellation:** nothing is lost. Several tasks may read; each step goes to one of them.
        """
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._closed:
                raise StopAsyncIteration
            await self._readers.park()
        return self._buffer.popleft()
