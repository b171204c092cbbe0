"""The mutator: applies one input to a state, all or nothing (SPEC 1).

`apply` is a pure function; an `Authority` is the only holder of a session's current state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from attrs import define

from ._ending import finish_ending
from ._exceptions import InvariantViolated, TransitionRejected
from ._hot import admits_message, begin_run
from ._row import Row
from ._state import SessionState, broken_invariant
from ._transitions import PLANS_BY_INPUT

if TYPE_CHECKING:
    from ._effects import Effect
    from ._inputs import Input
    from ._values import AdmissionTrust, PeerId, RunId, SessionId

__all__ = ["Authority", "Step", "apply"]


@define(eq=True)
class Step:
    """One accepted input: what it was, what it changed, what the shell has to do."""

    input: Input
    """The input."""
    before: SessionState
    """The state it met."""
    after: SessionState
    """The state it made; the very same object where nothing changed."""
    effects: tuple[Effect, ...]
    """What the shell has to do now, in this order."""
    row: Row
    """The row of the table that decided."""

    @property
    def session_id(self) -> SessionId:
        """The session it happened to."""
        return self.after.session.session_id

    @property
    def ignored(self) -> str | None:
        """Why nothing changed, for a command that asked for what is so already or a stale observation."""
        return self.row.ignored


@final
class Authority:
    """The holder of one session's current state; nothing else may replace it."""

    __slots__ = ("_free", "_running", "state")

    state: SessionState
    _running: SessionState | None
    """What `begin_run` made last, and ``_free`` what it was made of; None when that run is over."""
    _free: SessionState | None

    def __init__(self, state: SessionState) -> None:
        self.state = state
        self._running = self._free = None

    def apply(self, input: Input) -> Step:  # noqa: A002 - the field's public name
        """Apply an input and commit what it makes.

        Raises:
            TransitionRejected: a command met the wrong phase or a guard that does not hold. Observations never do.
            InvariantViolated: the table is wrong: the step would have broken an invariant.
            TypeError: not an input.
        """
        step = apply(self.state, input)
        self.state = step.after
        return step

    def admits_message(self, sender: PeerId, trust: AdmissionTrust) -> bool:
        """Say whether Admit of a plain message would admit it, which changes nothing; if not, apply it to hear why."""
        return admits_message(self.state, sender, trust)

    def begin_run(self, run_id: RunId) -> bool:
        """Commit what BeginRun makes and return True, or return False: then apply it."""
        state = self.state
        running = begin_run(state, run_id)
        if running is None or broken_invariant(state, running) is not None:
            return False
        self._free = state
        self._running = self.state = running
        return True

    def finish_run(self, run_id: RunId) -> bool:
        """Commit what RunFinished makes of a run that is not abandoned and return True, or return False: then apply it.

        Only the run that `begin_run` began, with nothing in between: what it was made of had no run, and held every
        invariant, so that is what RunFinished makes.
        """
        running, free = self._running, self._free
        self._running = self._free = None
        if free is None or running is not self.state or running.session.run_id != run_id:
            return False
        self.state = free
        return True

    def rehearse(self, *inputs: Input) -> tuple[Step, ...]:
        """Apply inputs one upon the other without committing: the dry run of a call that needs several.

        Raises:
            TransitionRejected: one of them would be refused.
        """
        steps = []
        state = self.state
        for input_ in inputs:
            step = apply(state, input_)
            steps.append(step)
            state = step.after
        return tuple(steps)

    def commit(self, steps: tuple[Step, ...]) -> None:
        """Commit what `rehearse` returned.

        Raises:
            ValueError: the state is no longer the one they were rehearsed on.
        """
        if not steps:
            return
        if steps[0].before is not self.state:
            raise ValueError("these steps were rehearsed on another state")
        self.state = steps[-1].after

    def __repr__(self) -> str:
        session = self.state.session
        return f"<Authority {session.session_id!r} {session.phase.value}>"


def apply(state: SessionState, input: Input) -> Step:  # noqa: A002 - the field's public name
    """Apply one input to a state: the pure function behind `Authority.apply`, with the same errors."""
    session = state.session
    try:
        plans = PLANS_BY_INPUT[type(input)][session.phase]
    except KeyError:
        raise TypeError(f"not an input of the authority: {input!r}") from None
    for when, refuses_ending, checks, update, emit, effects, row in plans:  # noqa: B007 - of the row that fits
        if when is None or when(state, input):
            break
    else:
        raise TransitionRejected(session.phase, input, "phase")
    if refuses_ending and session.ending is not None:
        raise TransitionRejected(session.phase, input, "not_ending")
    for name, holds in checks:
        if not holds(state, input):
            raise TransitionRejected(session.phase, input, name)
    if update is None:
        return Step(input, state, state, effects if emit is None else emit(state, state, input), row)
    after = update(state, input)
    if emit is not None:
        effects = emit(state, after, input)
    session = after.session
    if session.ending is not session.ended:
        finished = finish_ending(after)
        if finished is not None:
            after = finished[0]
            effects += finished[1]
    broken = broken_invariant(state, after)
    if broken is not None:
        raise InvariantViolated(broken, row.name)
    return Step(input, state, after, effects, row)
