"""The transition table: every row, in the order in which rows for one input are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._drain_rows import DRAIN_ROWS
from ._inputs import COMMANDS, OBSERVATIONS
from ._message_rows import MESSAGE_ROWS
from ._session_rows import SESSION_ROWS
from ._supervisor_rows import SUPERVISOR_ROWS
from ._values import SessionPhase

if TYPE_CHECKING:
    from ._row import Plan, Row

__all__ = ["PLANS_BY_INPUT", "TRANSITIONS"]

TRANSITIONS: Final[tuple[Row, ...]] = (
    *SESSION_ROWS,
    *DRAIN_ROWS,
    *SUPERVISOR_ROWS,
    *MESSAGE_ROWS,
)

PLANS_BY_INPUT: Final[dict[type, dict[SessionPhase, tuple[Plan, ...]]]] = {
    on: {
        phase: tuple(row.plan for row in TRANSITIONS if row.on is on and phase in row.phases) for phase in SessionPhase
    }
    for on in (*COMMANDS, *OBSERVATIONS)
}
"""What the rows to try do, by the input's class and the session's phase."""
