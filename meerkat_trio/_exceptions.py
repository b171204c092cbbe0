"""The shell's errors.

::

    MeerkatError
     ├─ TransitionRejected      a command was refused by a guard; nothing has changed
     ├─ InvariantViolated       a bug in the transition table; nothing has changed
     ├─ SessionExists           that id is registered already
     ├─ SessionNotRegistered    no such session here
     ├─ SessionEnded            the session is ending or has ended
     └─ DrainNotStarted         the drain ended before it served
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .authority import InvariantViolated, MeerkatError, TransitionRejected

if TYPE_CHECKING:
    from .authority import DrainExit, SessionId

__all__ = [
    "DrainNotStarted",
    "InvariantViolated",
    "MeerkatError",
    "SessionEnded",
    "SessionExists",
    "SessionNotRegistered",
    "TransitionRejected",
]


class _SessionError(MeerkatError):
    def __init__(self, session_id: SessionId) -> None:
        super().__init__(session_id)
        self.session_id = session_id


class SessionExists(_SessionError):
    """A session of this id is registered already; a stopped one can be revived, this one is not stopped.

    Attributes:
        session_id: the id that was asked for.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} is registered already; unregister or stop it first"


class SessionNotRegistered(_SessionError, KeyError):
    """No session of this id is registered.

    Attributes:
        session_id: the id that was asked for.
    """

    def __str__(self) -> str:
        return f"no session {self.session_id!r} is registered here"


class SessionEnded(_SessionError):
    """The session is ending or has ended, and what was asked for needs one that lives.

    Attributes:
        session_id: the session.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} has ended or is ending"


class DrainNotStarted(MeerkatError):
    """The drain that a call had asked for ended before it served.

    Attributes:
        exit: how it ended.
    """

    def __init__(self, exit: DrainExit) -> None:  # noqa: A002 - the field's public name
        super().__init__(exit)
        self.exit = exit

    def __str__(self) -> str:
        error = f": {self.exit.error!r}" if self.exit.error is not None else ""
        return f"drain {self.exit.generation} ended before it served ({self.exit.reason.value}){error}"
