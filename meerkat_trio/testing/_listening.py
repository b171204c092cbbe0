"""Listens to scopes, tasks and resources while explorations are made, and passes what it hears to the present run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, final

from ._leaks import Resources, tracking
from ._trio_internals import Batcher, controlled_schedule, patched, without_threads

if TYPE_CHECKING:
    import trio
    from trio.lowlevel import Task

__all__ = ["Listening", "listening"]


class Listener(Protocol):
    """What a run is told."""

    active: bool
    resources: Resources

    def scope_entered(self, scope: trio.CancelScope) -> None: ...
    def scope_cancelled(self, scope: trio.CancelScope) -> None: ...
    def scope_closed(
        self, scope: trio.CancelScope, arrived: BaseException | None, left: BaseException | None
    ) -> None: ...
    def task_exited(self, task: Task, error: BaseException | None) -> None: ...


@final
class Listening:
    """Whom the listeners speak to, and what orders Trio's batches."""

    current: Listener | None = None
    order_by: Callable[[Batcher], None]


@contextmanager
def listening() -> Iterator[None]:
    """Listen for the length of the block; runs are made inside it only."""

    def entered(scope: trio.CancelScope) -> None:
        if Listening.current is not None:
            Listening.current.scope_entered(scope)

    def cancelled(scope: trio.CancelScope) -> None:
        if Listening.current is not None:
            Listening.current.scope_cancelled(scope)

    def closed(scope: trio.CancelScope, arrived: BaseException | None, left: BaseException | None) -> None:
        if Listening.current is not None:
            Listening.current.scope_closed(scope, arrived, left)

    def exited(task: Task, error: BaseException | None) -> None:
        if Listening.current is not None:
            Listening.current.task_exited(task, error)

    def resources() -> Resources | None:
        run = Listening.current
        return run.resources if run is not None and run.active else None

    with (
        patched(entered=entered, cancelled=cancelled, closed=closed, exited=exited),
        tracking(resources),
        without_threads(),
        controlled_schedule() as Listening.order_by,
    ):
        yield
