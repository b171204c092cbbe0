"""Tasks that wait for a session to reach a state.

Level-triggered: every waiter's question is asked after each step, at the step itself, so no state can come and go
unseen between a wake-up and the moment in which the woken task runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

import trio

__all__ = ["Waiters", "Watch"]

T = TypeVar("T")


@final
class _Waiter:
    __slots__ = ("answer", "error", "question", "task")

    def __init__(self, question: Callable[[], object], task: trio.lowlevel.Task) -> None:
        self.question = question
        self.task = task
        self.answer: Any = None
        self.error: Exception | None = None

    def wake(self) -> None:
        trio.lowlevel.reschedule(self.task)


@final
class Watch:
    """A question that is asked in nobody's name; see `Waiters.watch`."""

    __slots__ = ("_take", "answer", "question")

    def __init__(self, question: Callable[[], object], take: Callable[[Any], None]) -> None:
        self.question: Callable[[], object] = question
        self.answer: Any = None
        self._take = take

    def wake(self) -> None:
        """Hand the answer over."""
        self._take(self.answer)


@final
class Waiters:
    """The tasks that wait for one session."""

    __slots__ = ("_make_error", "waiting")

    def __init__(self) -> None:
        self._make_error: Callable[[], Exception] | None = None
        self.waiting: list[_Waiter | Watch] | None = None
        """Empty or None while nobody waits: most steps look here and go on."""

    async def wait(self, question: Callable[[], T | None]) -> T:
        """Wait until ``question`` returns something, and return that; raise once an answer can never come.

        **Cancellation:** nothing is lost; any number of tasks may wait.
        """
        answer = question()
        if answer is not None:
            await trio.lowlevel.checkpoint()
            return answer
        if self._make_error is not None:
            raise self._make_error()
        waiter = _Waiter(question, trio.lowlevel.current_task())
        if self.waiting is None:
            self.waiting = []
        waiting = self.waiting
        waiting.append(waiter)

        def forget(_: object) -> trio.lowlevel.Abort:
            waiting.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)
        if waiter.error is not None:
            raise waiter.error
        result: T = waiter.answer
        return result

    def watch(self, question: Callable[[], object], take: Callable[[Any], None]) -> Watch:
        """Call ``take`` with the first answer, in the step that makes it; it may start tasks and apply nothing."""
        watch = Watch(question, take)
        if self.waiting is None:
            self.waiting = []
        self.waiting.append(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        """Ask this question no more."""
        if self.waiting is not None and watch in self.waiting:
            self.waiting.remove(watch)

    def ask(self) -> None:
        """Ask every waiter's question, in the order in which they came, and wake those that have their answer."""
        for waiter in tuple(self.waiting or ()):
            waiter.answer = waiter.question()
            if waiter.answer is not None:
                self._wake(waiter)

    def open(self) -> None:
        """Let questions wait for their answers, again after `close`."""
        self._make_error = None

    def close(self, make_error: Callable[[], Exception]) -> None:
        """Ask for the last time: who has no answer now will never have one, and gets an error, as all later ones do."""
        self.ask()
        self._make_error = make_error
        for waiter in tuple(self.waiting or ()):
            if isinstance(waiter, _Waiter):
                waiter.error = make_error()
                self._wake(waiter)

    def _wake(self, waiter: _Waiter | Watch) -> None:
        if self.waiting is not None:
            self.waiting.remove(waiter)
        waiter.wake()
