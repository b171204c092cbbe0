"""One connection over which many tasks ask the server: what is not answered is asked again over the next one.

So everything that is asked here has to be harmless when it is done twice. Whoever asks waits while the server is away.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..comms._redis_link import Link

__all__ = ["Desk"]

_AT_ONCE = 64
"""Questions that go to the server together."""


@final
class _Question:
    __slots__ = ("answer", "answered", "command")

    def __init__(self, command: Sequence[Any]) -> None:
        self.command = command
        self.answer: Any = None
        self.answered = trio.Event()


@final
class Desk:
    """Where the server is asked."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._questions: deque[_Question] = deque()
        self._wake = trio.Event()

    async def serve(self) -> None:
        """Ask what there is to be asked, over a connection that stands.

        **Cancellation:** what was asked may have been done.
        """
        while True:
            while not self._questions:
                self._wake = trio.Event()
                await self._wake.wait()
            asked = [self._questions[i] for i in range(min(_AT_ONCE, len(self._questions)))]
            answers = await self._link.ask(*(question.command for question in asked))
            for question, answer in zip(asked, answers, strict=True):
                self._questions.popleft()
                question.answer = answer
                question.answered.set()

    async def ask(self, *command: Any) -> Any:
        """Return what the server says to a command, or to a script and what follows it in EVALSHA.

        **Cancellation:** it may be done all the same, also later.
        """
        question = _Question(command)
        self._questions.append(question)
        self._wake.set()
        await question.answered.wait()
        return question.answer
