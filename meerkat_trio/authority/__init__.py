"""The authority: one pure state machine per session that decides everything the shell does.

No Trio, clock, randomness, logging or I/O in here; standard library and attrs only.

General layout, bottom up: `_values` (ids, owners, enumerations), `_remembered` (what outlives a process), `_inputs` and
`_effects` (the two alphabets), `_state` (regions and invariants), `_row` and the ``_*_rows`` files (the table),
`_transitions` (the table as a whole), `_mutator` (`apply` and `Authority`).
"""

from ._effects import *
from ._effects import __all__ as _effects_all
from ._exceptions import InvariantViolated, MeerkatError, TransitionRejected
from ._inputs import *
from ._inputs import __all__ as _inputs_all
from ._message_rows import BRIDGE_INTENT
from ._mutator import Authority, Step, apply
from ._remembered import Remembered
from ._row import Row
from ._state import (
    ACTIVE,
    INVARIANTS,
    LIVE,
    DrainRegion,
    PeersRegion,
    RequestsRegion,
    SessionRegion,
    SessionState,
    SupervisorRegion,
    broken_invariant,
    exit_reason,
)
from ._transitions import TRANSITIONS
from ._values import *
from ._values import __all__ as _values_all

__all__ = [  # noqa: PLE0604 - the names come from the lists of the modules
    "ACTIVE",
    "BRIDGE_INTENT",
    "INVARIANTS",
    "LIVE",
    "TRANSITIONS",
    "Authority",
    "DrainRegion",
    "InvariantViolated",
    "MeerkatError",
    "PeersRegion",
    "Remembered",
    "RequestsRegion",
    "Row",
    "SessionRegion",
    "SessionState",
    "Step",
    "SupervisorRegion",
    "TransitionRejected",
    "apply",
    "broken_invariant",
    "exit_reason",
    *_effects_all,
    *_inputs_all,
    *_values_all,
]
