"""What happens for every message: three rows of the table, spelled out.

Each function does what `apply` would do in the case that nearly every message is, and leaves all other cases to
`apply`. No input and no step is made, so they are for a session that nobody watches. The table remains the rule:
`tests/authority/test_hot.py` holds every function against it in each state of long walks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._state import ACTIVE, SessionRegion, SessionState
from ._values import AdmissionTrust, SessionPhase

if TYPE_CHECKING:
    from ._values import PeerId, RunId

__all__ = ["admits_message", "begin_run"]

_NONE: Final = AdmissionTrust.NONE
_ATTACHED: Final = SessionPhase.ATTACHED
_RUNNING: Final = SessionPhase.RUNNING


def admits_message(state: SessionState, sender: PeerId, trust: AdmissionTrust) -> bool:
    """Whether row ``admit-message`` decides on a message, and admits it; it changes nothing."""
    session = state.session
    return session.phase in ACTIVE and session.ending is None and (trust is not _NONE or state.trusts(sender))


def begin_run(state: SessionState, run_id: RunId) -> SessionState | None:
    """Make what row ``begin-run`` makes of a session that is ATTACHED; None where the row has to be asked."""
    s = state.session
    if s.phase is not _ATTACHED or s.ending is not None or not s.executor_attached or s.run_id is not None:
        return None
    return SessionState(
        SessionRegion(_RUNNING, s.session_id, True, run_id, None, s.ended, s.silent_intents),  # noqa: FBT003 - as the row
        state.drain,
        state.ingress,
        state.supervisor,
        state.peers,
        state.requests,
    )
