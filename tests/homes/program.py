"""`meerkat-trio`, but that it may kill itself at a stage: see `handlers.Death`."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from meerkat_trio._machine import MeerkatMachine
from meerkat_trio._session_record import SessionRecord
from meerkat_trio.cli import main
from meerkat_trio.journals import RedisJournal

from .handlers import DEATH

if TYPE_CHECKING:
    from collections.abc import Callable


def watch(owner: type, name: str, *, before: str = "", after: str = "") -> None:
    """Let a call be a stage, before it or after it."""
    call: Callable[..., Any] = getattr(owner, name)

    @wraps(call)
    async def watched(*args: Any) -> Any:
        DEATH.passes(before)
        result = await call(*args)
        DEATH.passes(after)
        return result

    setattr(owner, name, watched)


def watch_done() -> None:
    """Let the moment be a stage in which a handler has returned, and nothing of that is recorded."""
    call = SessionRecord.note_done

    @wraps(call)
    def watched(*args: Any) -> None:
        DEATH.passes("replied")
        call(*args)

    setattr(SessionRecord, call.__name__, watched)


if __name__ == "__main__":
    watch(SessionRecord, "record", before="queued", after="journaled")
    watch(RedisJournal, "release", before="giving back")
    watch(MeerkatMachine, "restore", after="taking up")
    watch_done()
    main()
