"""The rows that are spelled out for every message do what the table does, in every state."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio.authority import (
    AdmissionClass,
    AdmissionTrust,
    Admit,
    Admitted,
    Authority,
    BeginRun,
    EnvelopeKind,
    PeerId,
    RunFinished,
    RunOutcome,
    SessionState,
    TransitionRejected,
    apply,
)

from .cast import ALICE, ANN, ATTACHED, BOB, EVE, MOB_PEER, supervisor_id
from .walks import explored, inputs_for

STATES = list(explored().states.values())
SENDERS = (ALICE.peer_id, BOB.peer_id, EVE.peer_id, MOB_PEER, supervisor_id(ANN))
ENDED_RUNS = (RunOutcome.CONSUMED, RunOutcome.RETRY, RunOutcome.RETURNED)


def after(state: SessionState, *inputs: BeginRun | RunFinished) -> SessionState | None:
    """What the table makes of the state; None if it refuses."""
    try:
        for input_ in inputs:
            state = apply(state, input_).after
    except TransitionRejected:
        return None
    return state


@pytest.mark.parametrize(("sender", "trust"), list(product(SENDERS, AdmissionTrust)))
def test_a_message_is_admitted_exactly_where_the_table_admits_it(sender: PeerId, trust: AdmissionTrust) -> None:
    for state in STATES:
        try:
            step = apply(state, Admit(EnvelopeKind.MESSAGE, sender, trust))
        except TransitionRejected:
            admitted = False
        else:
            assert step.after is state
            admitted = step.effects == (Admitted(AdmissionClass.ACTIONABLE_MESSAGE),)
        authority = Authority(state)
        assert authority.admits_message(sender, trust) is admitted
        assert authority.state is state


def test_a_run_begins_as_the_table_has_it_or_not_at_all() -> None:
    for state in STATES:
        authority = Authority(state)
        if authority.begin_run("next"):
            assert authority.state == after(state, BeginRun("next", "message"))
        else:
            assert authority.state is state
    assert Authority(ATTACHED).begin_run("next")


@pytest.mark.parametrize("outcome", ENDED_RUNS)
def test_a_run_ends_as_the_table_has_it_or_not_at_all(outcome: RunOutcome) -> None:
    for state in STATES:
        authority = Authority(state)
        if authority.begin_run("next"):
            assert not Authority(authority.state).finish_run("next")
            assert authority.finish_run("next")
            assert authority.state == after(state, BeginRun("next", "message"), RunFinished("next", outcome))
            assert not authority.finish_run("next")
            assert authority.state == state


def test_another_run_is_not_ended() -> None:
    authority = Authority(ATTACHED)
    assert authority.begin_run("one")
    running = authority.state
    assert not authority.finish_run("another")
    assert authority.state is running


@given(data=st.data())
def test_what_happens_during_a_run_is_never_undone(data: st.DataObject) -> None:
    state = data.draw(st.sampled_from([state for state in STATES if Authority(state).begin_run("next")]))
    authority = Authority(state)
    assert authority.begin_run("next")
    for _ in range(data.draw(st.integers(1, 4))):
        try:
            authority.apply(data.draw(st.sampled_from(inputs_for(authority.state))))
        except TransitionRejected:
            continue
    met = authority.state
    wanted = after(met, RunFinished("next", RunOutcome.CONSUMED))
    if authority.finish_run("next"):
        assert authority.state == wanted
    else:
        assert authority.state is met
