"""Every state the walks met, against every input: it steps, or it is refused by name and nothing happens."""

from __future__ import annotations

import pytest

from meerkat_trio.authority import (
    COMMANDS,
    OBSERVATIONS,
    TRANSITIONS,
    Authority,
    CommsDrainPhase,
    DrainStopping,
    Ending,
    Input,
    MobOwned,
    Row,
    SessionOwned,
    SessionPhase,
    SessionState,
    Step,
    TransitionRejected,
    Unattached,
    apply,
)

from .cast import IDLE, IN_PHASE
from .laws import broken_laws
from .walks import explored, inputs_for


def met() -> list[SessionState]:
    return list(explored().states.values())


def refused(state: SessionState, input_: Input) -> bool:
    """Apply the input and hold whichever answer comes to what it promises."""
    authority = Authority(state)
    rows = [row for row in TRANSITIONS if row.on is type(input_) and state.session.phase in row.phases]
    try:
        step = authority.apply(input_)
    except TransitionRejected as error:
        rejected = error
    else:
        accepted(step, authority, rows)
        return False
    assert authority.state is state
    assert (rejected.phase, rejected.input) == (state.session.phase, input_)
    if rejected.guard == "phase":
        assert all(row.when is not None and not row.when(state, input_) for row in rows)
    else:
        assert rejected.guard in {name for row in rows for name, _ in row.guards}
    return True


def accepted(step: Step, authority: Authority, rows: list[Row]) -> None:
    assert authority.state is step.after
    assert step.row in rows
    assert broken_laws(step.before, step.after) == set()
    if step.ignored is not None:
        assert (step.after is step.before, step.effects) == (True, ())


def test_the_walks_met_every_phase_owner_intent_and_ending() -> None:
    states = met()
    assert {state.session.phase for state in states} == set(SessionPhase)
    assert {state.drain.phase for state in states} == set(CommsDrainPhase)
    assert {state.drain.stopping for state in states} == {None, *DrainStopping}
    assert {state.session.ending for state in states} == {None, *Ending}
    assert {state.session.ended for state in states} == {None, *Ending}
    assert {type(state.ingress) for state in states} == {Unattached, SessionOwned, MobOwned}


def test_there_are_inputs_of_every_class_for_every_state() -> None:
    for state in met()[::50]:
        assert {type(input_) for input_ in inputs_for(state)} == {*COMMANDS, *OBSERVATIONS}


@pytest.mark.parametrize("phase", SessionPhase)
def test_every_input_steps_or_is_refused_by_name_in_this_phase(phase: SessionPhase) -> None:
    for state in (IN_PHASE[phase], *(state for state in met() if state.session.phase is phase)):
        for input_ in inputs_for(state):
            if refused(state, input_):
                assert isinstance(input_, COMMANDS)


@pytest.mark.parametrize("phase", SessionPhase)
def test_every_observation_is_accepted_in_this_phase(phase: SessionPhase) -> None:
    state = IN_PHASE[phase]
    observations = [input_ for input_ in inputs_for(state) if isinstance(input_, OBSERVATIONS)]
    assert {type(input_) for input_ in observations} == set(OBSERVATIONS)
    for observation in observations:
        assert apply(state, observation).before is state


def test_what_is_not_an_input_is_a_type_error() -> None:
    authority = Authority(IDLE)
    with pytest.raises(TypeError, match="not an input of the authority: 'spawn'"):
        authority.apply("spawn")  # type: ignore[arg-type]
    assert authority.state is IDLE
