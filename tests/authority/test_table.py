"""Laws of the table as a whole."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from meerkat_trio.authority import (
    COMMANDS,
    OBSERVATIONS,
    TRANSITIONS,
    Effect,
    Ending,
    Row,
    SessionFinished,
    SessionPhase,
    _effects,
    _inputs,
)

from .walks import explored

EFFECTS = {effect.__name__ for effect in Effect.__args__}
GROWS_OR_STARTS = {
    "AttachExecutor",
    "BeginRun",
    "Admit",
    "SpawnDrain",
    "RebindDrain",
    "AttachSessionIngress",
    "AttachMobIngress",
    "BindSupervisor",
    "AuthorizeSupervisor",
    "PublishLocalEndpoint",
    "ClearLocalEndpoint",
    "AddDirectPeerEndpoint",
    "RemoveDirectPeerEndpoint",
    "ApplyMobPeerOverlay",
    "OpenRequest",
}
NO_OP_REASONS = {
    "stale_generation",
    "stale_epoch",
    "stale_run",
    "peer_mismatch",
    "no_obligation",
    "no_such_request",
    "no_executor",
    "already_running",
    "unattached",
    "ending",
}


def test_names_of_rows_are_unique() -> None:
    assert [name for name, times in Counter(row.name for row in TRANSITIONS).items() if times > 1] == []


@pytest.mark.parametrize("phase", SessionPhase)
def test_no_row_stands_behind_one_that_takes_everything(phase: SessionPhase) -> None:
    for on in (*COMMANDS, *OBSERVATIONS):
        rows = [row for row in TRANSITIONS if row.on is on and phase in row.phases]
        assert [later.name for earlier, later in pairwise(rows) if earlier.when is None] == []


def test_every_row_is_taken_by_some_walk() -> None:
    assert {row.name for row in TRANSITIONS} - set(explored().effects) == set()


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: row.name)
def test_a_row_lists_the_effects_that_it_is_seen_to_emit(row: Row) -> None:
    assert set(row.emits) == explored().effects[row.name]
    assert len(set(row.emits)) == len(row.emits)


def test_every_effect_is_one_of_the_union_and_is_emitted_by_somebody() -> None:
    assert {type(effect).__name__ for step in explored().steps for effect in step.effects} == EFFECTS
    assert {name for row in TRANSITIONS for name in row.emits} == EFFECTS - {"SessionFinished"}
    assert set(_effects.__all__) - {"Effect"} == EFFECTS


def test_every_input_has_rows_and_is_a_command_or_an_observation() -> None:
    assert {row.on for row in TRANSITIONS} == {*COMMANDS, *OBSERVATIONS}
    assert set(COMMANDS) & set(OBSERVATIONS) == set()
    listed = {getattr(_inputs, name) for name in _inputs.__all__}
    assert {it for it in listed if isinstance(it, type)} == {*COMMANDS, *OBSERVATIONS}


def test_inputs_and_effects_never_share_a_name() -> None:
    assert {on.__name__ for on in (*COMMANDS, *OBSERVATIONS)} & EFFECTS == set()


def test_observations_have_no_guards_and_rows_for_every_phase() -> None:
    for on in OBSERVATIONS:
        rows = [row for row in TRANSITIONS if row.on is on]
        assert all(row.guards == () for row in rows), on
        assert rows[-1].when is None, on
        assert all(row.phases == frozenset(SessionPhase) for row in rows), on


def test_whatever_starts_or_grows_something_is_refused_while_the_session_ends() -> None:
    guarded = {row.on.__name__ for row in TRANSITIONS if "not_ending" in {name for name, _ in row.guards}}
    assert guarded == GROWS_OR_STARTS
    for row in TRANSITIONS:
        if row.on.__name__ in GROWS_OR_STARTS:
            assert row.guards[0][0] == "not_ending", row.name


def test_a_no_op_row_says_why_and_can_change_and_emit_nothing() -> None:
    for row in TRANSITIONS:
        if row.ignored is not None:
            assert (row.update, row.emit, row.emits, row.guards) == (None, None, (), ()), row.name
    assert {row.ignored for row in TRANSITIONS if row.on in OBSERVATIONS} - {None} == NO_OP_REASONS


def test_a_session_finishes_in_exactly_the_steps_in_which_ended_rises() -> None:
    finished: Counter[Ending] = Counter()
    for step in explored().steps:
        causes = [effect.cause for effect in step.effects if isinstance(effect, SessionFinished)]
        before, now = step.before.session.ended, step.after.session.ended
        assert causes == ([now] if now is not None and now is not before else [])
        finished.update(causes)
    assert set(finished) == set(Ending)


def test_a_step_repeats_no_effect() -> None:
    assert [step.row.name for step in explored().steps if len(set(step.effects)) < len(step.effects)] == []


def test_regions_that_a_step_does_not_change_are_handed_on_as_they_are() -> None:
    for step in explored().steps:
        if SessionFinished in map(type, step.effects) or step.input.__class__.__name__ in {"Register", "Restore"}:
            continue
        for region in ("drain", "ingress", "supervisor", "peers", "requests"):
            if region not in _MAY_REPLACE.get(step.row.region, {step.row.region}):
                assert getattr(step.after, region) is getattr(step.before, region), (step.row.name, region)


_MAY_REPLACE = {
    "session": {"drain", "supervisor"},
    "drain": {"drain"},
    "admission": {"requests"},
}
