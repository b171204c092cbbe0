"""The authority's errors. Raising one means that nothing happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._values import SessionPhase

__all__ = ["InvariantViolated", "MeerkatError", "TransitionRejected"]


class MeerkatError(Exception):
    """Base of every error this library raises of its own."""


class TransitionRejected(MeerkatError):
    """A command was refused; the state is what it was.

    Attributes:
        phase: the session's phase when it was asked.
        input: the command that was refused.
        guard: the first guard that failed; ``"phase"`` when it was the phase itself.
    """

    def __init__(self, phase: SessionPhase, input: object, guard: str) -> None:  # noqa: A002 - the field's public name
        super().__init__(phase, input, guard)
        self.phase = phase
        self.input = input
        self.guard = guard

    def __str__(self) -> str:
        name = type(self.input).__name__
        if self.guard == "phase":
            return f"{name} is not possible in phase {self.phase.value}"
        return f"{name} refused in phase {self.phase.value}: {self.guard} does not hold"


class InvariantViolated(MeerkatError):
    """A transition would have broken an invariant: a bug in the table, never a caller's mistake.

    Attributes:
        invariant: the name of the invariant.
        row: the name of the row that would have broken it.
    """

    def __init__(self, invariant: str, row: str) -> None:
        super().__init__(invariant, row)
        self.invariant = invariant
        self.row = row

    def __str__(self) -> str:
        return f"row {self.row!r} would break the invariant {self.invariant!r}"
