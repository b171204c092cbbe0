"""Virtual time: it stands still while anybody can run, then moves to the next deadline; ties are choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from ._trio_internals import scopes_with_deadlines

if TYPE_CHECKING:
    import trio

    from ._plan import Deviation

__all__ = ["VirtualTime"]


@final
class VirtualTime:
    """The clock of one run."""

    def __init__(self, planned: tuple[Deviation, ...], drawn: Callable[[int], int], jitter: float) -> None:
        self.now: float = 0.0
        """In seconds."""
        self.ties: list[int] = []
        """How many options each set of timers that are due together had."""
        self.taken: list[int] = []
        """Which one was taken in each."""
        self._planned = dict(planned)
        self._drawn = drawn
        self._jitter = jitter
        self._order_of_scopes: dict[trio.CancelScope, int] = {}
        self._due: dict[float, float] = {}

    @property
    def is_late(self) -> bool:
        """Whether it is a little later than tasks may know, because a timer was made to wait."""
        return bool(self._due) and self.now in self._due

    @property
    def shown(self) -> float:
        """What tasks take for the time."""
        return self._due.get(self.now, self.now)

    def entered(self, scope: trio.CancelScope) -> None:
        """Remember in which order scopes came; their deadlines lie in a heap ordered by address."""
        self._order_of_scopes[scope] = len(self._order_of_scopes)

    def move_to(self, deadline: float) -> list[tuple[int, trio.CancelScope]]:
        """Move on to the next deadline.

        Of several timers that are due together all fire, or as the plan says one of them does and the others wait
        until all is quiet again. Returns those that wait, each with its number.
        """
        due = scopes_with_deadlines(deadline + self._jitter)
        self.now = deadline
        if len(due) < 2:  # noqa: PLR2004
            return []
        due.sort(key=lambda entry: (entry[0], self._order_of_scopes.get(entry[1], 0)))
        number = len(self.ties)
        options = len(due) + 1
        self.ties.append(options)
        option = min(self._planned.get(number, -1), options - 1)
        if option < 0:
            option = self._drawn(options)
        self.taken.append(option)
        if option == 0:
            return []
        self.now, first = due[option - 1]
        later = math.nextafter(self.now, math.inf)
        self._due[later] = self._due.get(self.now, self.now)
        waiting = []
        for index, (other_due, other) in enumerate(due):
            if other is not first and other_due <= self.now:
                other.deadline = later
                waiting.append((index, other))
        return waiting
