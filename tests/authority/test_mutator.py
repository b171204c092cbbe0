"""Steps, refusals, and several inputs decided together."""

from __future__ import annotations

import pytest

from meerkat_trio.authority import (
    AttachExecutor,
    Authority,
    BeginRun,
    TransitionRejected,
    apply,
)

from .cast import (
    ATTACHED,
    IDLE,
    OWN,
    SPAWN,
)


def test_a_step_tells_the_whole_story() -> None:
    step = apply(IDLE, OWN)
    assert (step.input, step.before, step.session_id, step.ignored) == (OWN, IDLE, "s", None)
    assert step.row.name == "attach-session-ingress"


def test_a_rehearsal_commits_nothing_and_a_refusal_in_it_rejects_the_whole() -> None:
    authority = Authority(IDLE)
    authority.rehearse(OWN, SPAWN)
    assert authority.state is IDLE
    with pytest.raises(TransitionRejected, match="SpawnDrain refused in phase idle: drain_can_spawn does not hold"):
        authority.rehearse(OWN, SPAWN, SPAWN)
    assert authority.state is IDLE


def test_steps_are_committed_only_on_the_state_they_were_rehearsed_on() -> None:
    authority = Authority(IDLE)
    steps = authority.rehearse(OWN, SPAWN)
    authority.commit(())
    authority.apply(AttachExecutor())
    with pytest.raises(ValueError, match="rehearsed on another state"):
        authority.commit(steps)
    assert authority.state == ATTACHED
    assert repr(authority) == "<Authority 's' attached>"


def test_a_refusal_says_what_was_asked_and_in_which_phase() -> None:
    with pytest.raises(TransitionRejected, match=r"^BeginRun is not possible in phase idle$"):
        apply(IDLE, BeginRun("1", "m"))
