"""Who runs next: carries out the scheduling part of a plan, and notes which decisions there were.

A *tick* is one batch of Trio's loop: what was runnable when it began. Within a tick every order is possible in a
real run. That a task is held back over ticks is possible too, for Trio promises no fairness, but its present loop
never does it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from ._trio_internals import put_back

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ._plan import Plan

__all__ = ["Scheduler"]

_STARVED: Final = 100
_BELOW_ALL: Final = -1.0


@final
class Scheduler:
    """Orders the batches of one run. Stands in for Trio's random generator while the run lasts."""

    def __init__(self, plan: Plan, label: Callable[[Task], str], is_own: Callable[[Task], bool]) -> None:
        self.decisions: list[int] = []
        """How many options each decision of an order within a tick had."""
        self.taken: list[int] = []
        """Which one was taken in each, counted from the oldest."""
        self.ticks: list[tuple[str, ...]] = []
        """The labels of the tasks that could run, for each tick; kept only if `keep_ticks` is set."""
        self.keep_ticks = False
        self._label = label
        self._is_own = is_own
        self._oldest_first = plan.order != "newest"
        seed = plan.order if plan.priorities is None else plan.priorities.seed
        self._rng = random.Random(seed) if isinstance(seed, int) else None  # noqa: S311
        self._picks = dict(plan.picks)
        self._holds = plan.holds
        self._held: dict[Task, int] = {}
        self._tick = -1
        self._one_at_a_time = _OneAtATime(plan) if plan.priorities is not None else None

    def drawn(self, options: int) -> int:
        """Choose for whoever has no deviation planned: the first option, or as the order's seed decides."""
        return 0 if self._rng is None else self._rng.randrange(options)

    def random(self) -> float:
        """Trio asks for this where it has no batch to order."""
        return 0.0

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        """Trio asks for this where it has no batch to order."""
        return a

    def shuffle(self, batch: list[Task]) -> None:
        """Order a batch, which comes by age; Trio takes tasks from its end."""
        if len(batch) == 1 and not self._held and not self._holds:
            # Only the scenario's own ticks count, here as below.
            if self._is_own(batch[0]):
                self._tick += 1
                if self.keep_ticks:
                    self.ticks.append(())
            return
        own = [task for task in batch if self._is_own(task)]
        others = [task for task in batch if not self._is_own(task)] if len(own) < len(batch) else []
        if own:
            self._tick += 1
            if self.keep_ticks:
                self.ticks.append(tuple(self._label(task) for task in own) if len(own) > 1 else ())
            if self._one_at_a_time is not None:
                own = self._one_at_a_time.first_of(own)
            elif self._holds:
                own = self._without_held(own)
            if len(own) > 1:
                own = self._ordered(own)
        # Trio's own tasks go first: nothing depends on them.
        batch[:] = [*reversed(own), *others]

    def _ordered(self, by_age: list[Task]) -> list[Task]:
        rest = by_age if self._oldest_first else by_age[::-1]
        chosen = []
        while len(rest) > 1:
            number = len(self.decisions)
            self.decisions.append(len(rest))
            option = self._picks.get(number, -1)
            if option < 0:
                option = self.drawn(len(rest))
            option = min(option, len(rest) - 1)
            self.taken.append(option if self._oldest_first else len(rest) - 1 - option)
            chosen.append(rest.pop(option))
        return chosen + rest

    def _without_held(self, own: list[Task]) -> list[Task]:
        for hold in self._holds:
            if hold.tick == self._tick:
                for task in own:
                    if self._label(task) == hold.task:
                        self._held[task] = hold.ticks
        if not self._held:
            return own
        free = [task for task in own if self._held.get(task, 0) <= 0]
        if not free:
            self._held.clear()
            return own
        held = [task for task in own if self._held.get(task, 0) > 0]
        for task in held:
            self._held[task] -= 1
        put_back(held)
        return free


@final
class _OneAtATime:
    """Probabilistic concurrency testing: the highest priority runs until it has to wait, and falls a few times."""

    def __init__(self, plan: Plan) -> None:
        spec = plan.priorities
        if spec is None:
            raise ValueError("a plan without priorities")
        rng = self._rng = random.Random(spec.seed)  # noqa: S311
        self._changes = {rng.randrange(max(1, spec.steps)) for _ in range(spec.changes)}
        self._priorities: dict[Task, float] = {}
        self._waited: dict[Task, int] = {}
        self._step = -1
        self._lowest = _BELOW_ALL

    def first_of(self, own: list[Task]) -> list[Task]:
        if len(own) == 1:
            self._step += 1
            return own
        for task in own:
            if task not in self._priorities:
                self._priorities[task] = self._rng.random()
        self._step += 1
        first = max(own, key=self._priorities.__getitem__)
        if self._step in self._changes:
            self._fall(first)
            first = max(own, key=self._priorities.__getitem__)
        self._waited[first] = 0
        for task in own:
            if task is not first:
                waited = self._waited[task] = self._waited.get(task, 0) + 1
                if waited > _STARVED:
                    # Somebody spins: let whoever it may be waiting for go on.
                    self._fall(first)
        put_back([task for task in own if task is not first])
        return [first]

    def _fall(self, task: Task) -> None:
        self._lowest -= 1.0
        self._priorities[task] = self._lowest
