"""The shell's errors.

::

    MeerkatError
     ├─ TransitionRejected      a command was refused by a guard; nothing has changed
     ├─ InvariantViolated       a bug in the transition table; nothing has changed
     ├─ SessionExists           that id is registered already
     ├─ SessionNotRegistered    no such session here
     ├─ SessionEnded            the session is ending or has ended
     ├─ DrainNotStarted         the drain ended before it served
     ├─ BootstrapTokenRefused   the token is not the one that was issued, or it was used
     └─ ReconcileError          the trust store does not show a change yet; it stands and is tried again
         ├─ AddTrustFailed          an edge could not be stored
         ├─ RemoveTrustFailed       an edge could not be removed
         └─ TrustSnapshotUnavailable  the store could not be read
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .authority import InvariantViolated, MeerkatError, TransitionRejected

if TYPE_CHECKING:
    from .authority import DrainExit, PeerId, SessionId

__all__ = [
    "AddTrustFailed",
    "BootstrapTokenRefused",
    "DrainNotStarted",
    "InvariantViolated",
    "MeerkatError",
    "ReconcileError",
    "RemoveTrustFailed",
    "SessionEnded",
    "SessionExists",
    "SessionNotRegistered",
    "TransitionRejected",
    "TrustSnapshotUnavailable",
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


class BootstrapTokenRefused(_SessionError):
    """The bootstrap token is not the one that was issued last, or it was used.

    Attributes:
        session_id: the session.
    """

    def __str__(self) -> str:
        return f"session {self.session_id!r} does not take this bootstrap token; issue a new one"


class ReconcileError(MeerkatError):
    """A trust store does not show a change. The change stands, and the session tries again by itself.

    Attributes:
        runtime_id: the logical id of the comms runtime whose store it is.
        cause: what the store raised; a `trio.TooSlowError` if it did not answer in time.
        peer_id: whose edge; None if the store could not even be read.
        source: on whose word the edge stands, as in `TrustSource`; None with ``peer_id``.
    """

    _what = "does not show what it should"

    def __init__(
        self, runtime_id: str, cause: BaseException, peer_id: PeerId | None = None, source: str | None = None
    ) -> None:
        super().__init__(runtime_id, cause, peer_id, source)
        self.runtime_id = runtime_id
        self.cause = cause
        self.peer_id = peer_id
        self.source = source
        self.__cause__ = cause

    def __str__(self) -> str:
        edge = "" if self.peer_id is None else f" the {self.source} edge of {self.peer_id}"
        return f"the trust store of {self.runtime_id!r} {self._what}{edge}, and is tried again: {self.cause!r}"


class AddTrustFailed(ReconcileError):
    """An edge could not be stored."""

    _what = "did not store"


class RemoveTrustFailed(ReconcileError):
    """An edge could not be removed."""

    _what = "did not remove"


class TrustSnapshotUnavailable(ReconcileError):
    """The store could not be read, so nothing was changed."""

    _what = "cannot be read"
