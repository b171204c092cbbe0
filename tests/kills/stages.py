"""The stages of a message at which a host kills itself, and the journal that knows most of them.

To add a stage: a member of `Stage`, and a call of `Doom.reached` where it is reached.
"""

from __future__ import annotations

import os
import signal
from enum import Enum
from typing import TYPE_CHECKING, Final, Self, final

import trio

from meerkat_trio._entries import ANSWERED, DONE, MESSAGE, REPLY
from meerkat_trio.abc import Delete, Entry, Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from meerkat_trio.abc import Change
    from meerkat_trio.authority import SessionId

    from .ledger import Ledger

__all__ = ["Doom", "Stage", "StagedJournal"]


_AT_LENGTH: Final = 0.1


class Stage(Enum):
    """Where a host is killed."""

    QUEUED = "queued"
    """A message is in the inbox, and nothing of it is written."""
    JOURNALED = "journaled"
    """A message is written, and not admitted."""
    RUNNING = "running"
    """The handler has begun, and not ended."""
    REPLIED = "replied"
    """The handler has answered a request, and not ended; the answer is not out."""
    ANSWERING = "answering"
    """The handler has answered a request, and that is not written, however much time has passed."""
    ANSWERED = "answered"
    """An answer is out, and that is not written."""
    BOUND = "bound"
    """A supervisor is in force, and has been told so."""
    DONE = "done"
    """The handler has ended, and that is not written."""
    RANDOM = "random"
    """Any: the host is killed from outside."""


@final
class Doom:
    """Kills this process when a stage is reached for the n-th time."""

    def __init__(self, ledger: Ledger, stage: Stage, at: int) -> None:
        self._ledger = ledger
        self._stage = stage
        self._left = at

    async def reached_at_length(self, stage: Stage) -> None:
        """As `reached`; before the end everything else has time to do what it may not do yet."""
        if stage is self._stage and self._left == 1:
            await trio.sleep(_AT_LENGTH)
        self.reached(stage)

    def reached(self, stage: Stage) -> None:
        """Say that a stage is reached; this may be the last thing that the process does."""
        if stage is not self._stage:
            return
        self._left -= 1
        if self._left <= 0:
            self._ledger.write("killed", stage.value)
            os.kill(os.getpid(), signal.SIGKILL)


@final
class StagedJournal(Journal):
    """Another journal, around which stages are reached."""

    def __init__(self, journal: Journal, doom: Doom) -> None:
        self._journal = journal
        self._doom = doom

    def __repr__(self) -> str:
        return repr(self._journal)

    async def __aenter__(self) -> Self:
        await self._journal.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._journal.__aexit__(exc_type, exc, traceback)

    async def restore(self, session_id: SessionId | None = None) -> Mapping[SessionId, Sequence[Entry]]:
        return await self._journal.restore(session_id)

    async def append(self, changes: Mapping[SessionId, Sequence[Change]]) -> frozenset[SessionId]:
        every = [change for of_session in changes.values() for change in of_session]
        sets = {change.kind for change in every if isinstance(change, Entry)}
        if MESSAGE in sets:
            self._doom.reached(Stage.QUEUED)
        if DONE in sets:
            self._doom.reached(Stage.DONE)
        if any(isinstance(change, Delete) and change.kind == REPLY for change in every):
            self._doom.reached(Stage.ANSWERED)
        if ANSWERED in sets:
            await self._doom.reached_at_length(Stage.ANSWERING)
        moved = await self._journal.append(changes)
        if MESSAGE in sets:
            self._doom.reached(Stage.JOURNALED)
        return moved
