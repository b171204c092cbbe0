"""What the calls of a session share: its tasks, the questions whether it lives, and joining."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from ._exceptions import SessionEnded, SessionMoved

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._tasks import SessionTasks

__all__ = ["SessionCalls"]

T = TypeVar("T")


class SessionCalls:
    """Calls of a session; each part of `Session` is a class of its own."""

    __slots__ = ("_tasks",)

    def __init__(self, tasks: SessionTasks) -> None:
        self._tasks = tasks

    def _require_living(self, *, waiting: bool = False) -> None:
        tasks = self._tasks
        if tasks.is_over or tasks.state.session.ending is not None:
            if waiting and tasks.shutting_down:
                raise trio.ClosedResourceError("the machine closed meanwhile")
            raise SessionEnded(tasks.state.session.session_id)

    def _require_not_ended(self) -> None:
        tasks = self._tasks
        if tasks.has_ended:
            raise SessionEnded(tasks.state.session.session_id)

    def _require_record(self) -> None:
        """Refuse a change that would be made and not be recorded, because only the process of the session ends."""
        record = self._tasks.record
        if record is not None and record.is_sealed:
            if record.is_moved:
                raise SessionMoved(self._tasks.state.session.session_id)
            raise trio.ClosedResourceError("the machine closes, and what is changed now is not recorded any more")

    async def _until_durable(self) -> None:
        """Wait until the journal, if there is one, has what was changed: what a call has returned outlives the process.

        **Cancellation:** the change stands.
        """
        if self._tasks.record is not None:
            await self._tasks.record.until_durable()

    async def _join(self, outcome: Callable[[], T | None]) -> T | None:
        tasks = self._tasks
        if tasks.is_called_from_inside():
            await trio.lowlevel.cancel_shielded_checkpoint()
            return None
        return await tasks.waiters.wait(outcome)
