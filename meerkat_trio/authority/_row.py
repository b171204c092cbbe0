"""What a row of the transition table is, and the words to write one with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from attrs import field, frozen

from ._values import SessionPhase

if TYPE_CHECKING:
    from ._effects import Effect
    from ._state import SessionState

__all__ = ["ALL_PHASES", "NOT_ENDING", "Plan", "Predicate", "Row", "row"]

ALL_PHASES: Final = frozenset(SessionPhase)

I = TypeVar("I")  # noqa: E741 - an input type

Predicate = Callable[["SessionState", Any], bool]
_Update: TypeAlias = Callable[["SessionState", Any], "SessionState"]
_Emit: TypeAlias = Callable[["SessionState", "SessionState", Any], "tuple[Effect, ...]"]
_Checks: TypeAlias = tuple[tuple[str, Predicate], ...]
Plan: TypeAlias = "tuple[Predicate | None, bool, _Checks, _Update | None, _Emit | None, tuple[Effect, ...], Row]"


@frozen(kw_only=True)
class Row:
    """One row: in these phases, for this input, when this holds, if these guards allow it, do that."""

    name: str
    """Unique in the table."""
    region: str
    """The part of the state it belongs to; groups the printed table."""
    on: type
    """The input's class."""
    phases: frozenset[SessionPhase]
    """Session phases in which the row applies."""
    when: Predicate | None
    """Chooses between rows for the same input: False passes on to the next row."""
    guards: _Checks
    """Named conditions: the first that fails rejects the input."""
    refuses_ending: bool = field(init=False)
    """Whether the first guard is ``not_ending``, which `apply` tests in place: most rows of the hot path have it."""
    checks: _Checks = field(init=False)
    """The other guards."""
    update: _Update | None
    """Makes the next state; None changes nothing."""
    emit: _Emit | None
    """Names what the shell has to do, given the state before and after and the input; None is `effects`."""
    effects: tuple[Effect, ...]
    """What the shell has to do where that is always the same."""
    emits: tuple[str, ...]
    """Names of the effects the row may have."""
    ignored: str | None
    """Why the input changes nothing, for rows that are no-ops."""
    doc: str
    """What it does, in a few words, for the printed table."""
    plan: Plan = field(init=False, repr=False, eq=False)
    """What `apply` needs of the above, together, and the row itself."""

    @refuses_ending.default
    def _first_guard_is_not_ending(self) -> bool:
        return bool(self.guards) and self.guards[0][0] == "not_ending"

    @plan.default
    def _all_that_apply_needs(self) -> Plan:
        return self.when, self.refuses_ending, self.checks, self.update, self.emit, self.effects, self

    @checks.default
    def _guards_after_not_ending(self) -> _Checks:
        return self.guards[1:] if self.refuses_ending else self.guards


def row(
    name: str,
    doc: str,
    *,
    region: str,
    on: type[I],
    phases: frozenset[SessionPhase] = ALL_PHASES,
    when: Callable[[SessionState, I], bool] | None = None,
    guards: Mapping[str, Callable[[SessionState, I], bool]] | None = None,
    update: Callable[[SessionState, I], SessionState] | None = None,
    emit: Callable[[SessionState, SessionState, I], tuple[Effect, ...]] | None = None,
    emits: tuple[type[Effect], ...] = (),
    effects: tuple[Effect, ...] = (),
    ignored: str | None = None,
) -> Row:
    """Write a row, typed by its input."""
    return Row(
        name=name,
        region=region,
        on=on,
        phases=phases,
        when=when,
        guards=tuple((guards or {}).items()),
        update=update,
        emit=emit,
        effects=effects,
        emits=tuple(effect.__name__ for effect in (*emits, *map(type, effects))),
        ignored=ignored,
        doc=doc,
    )


NOT_ENDING: Final[Mapping[str, Predicate]] = {"not_ending": lambda s, _: s.session.ending is None}
"""The guard of every input that starts or grows something."""
