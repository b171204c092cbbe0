"""The supervisor: binding, rotation, revocation, and what is still owed to the trust store."""

from __future__ import annotations

import pytest

from meerkat_trio.authority import (
    AuthorizeSupervisor,
    BindSupervisor,
    BootstrapTokenUsed,
    Bound,
    Input,
    IssueBootstrapToken,
    ObligationKind,
    PeerId,
    Retire,
    RevokeSupervisor,
    SessionState,
    Stop,
    SupervisorTrustEdgePublished,
    SupervisorTrustEdgePublishFailed,
    SupervisorTrustEdgeRevoked,
    SupervisorTrustEdgeRevokeFailed,
    TransitionRejected,
    TrustEdgesChanged,
    Unbound,
    apply,
)

from .cast import (
    ANN,
    ATTACHED,
    BEN,
    CAL,
    DESTROYED,
    IDLE,
    INITIAL,
    RETIRED,
    RUNNING,
    STOPPED,
    after,
    bound,
    supervisor_id,
)

PUBLISH, REVOKE = ObligationKind.PUBLISH, ObligationKind.REVOKE


def bind(who: int, epoch: int) -> BindSupervisor:
    return BindSupervisor(bound(who, epoch))


def authorize(who: int, epoch: int) -> AuthorizeSupervisor:
    return AuthorizeSupervisor(bound(who, epoch))


def revoke(who: int, epoch: int) -> RevokeSupervisor:
    return RevokeSupervisor(supervisor_id(who), epoch)


def published(who: int, epoch: int) -> SupervisorTrustEdgePublished:
    return SupervisorTrustEdgePublished(supervisor_id(who), epoch)


def publish_failed(who: int, epoch: int, *, final: bool = False) -> SupervisorTrustEdgePublishFailed:
    return SupervisorTrustEdgePublishFailed(peer_id=supervisor_id(who), epoch=epoch, reason="no", final=final)


def revoked(who: int, epoch: int) -> SupervisorTrustEdgeRevoked:
    return SupervisorTrustEdgeRevoked(supervisor_id(who), epoch)


def revoke_failed(who: int, epoch: int) -> SupervisorTrustEdgeRevokeFailed:
    return SupervisorTrustEdgeRevokeFailed(peer_id=supervisor_id(who), epoch=epoch, reason="no")


def owed(state: SessionState) -> dict[tuple[ObligationKind, int, int], int]:
    who = {supervisor_id(number): number for number in (ANN, BEN, CAL)}
    return {
        (kind, who[peer_id], epoch): attempts
        for (kind, peer_id, epoch), attempts in state.supervisor.obligations.items()
    }


def in_force(state: SessionState) -> tuple[Bound | None, Bound | None, int]:
    """Current, previous, floor."""
    supervisor = state.supervisor
    return (
        supervisor.binding if isinstance(supervisor.binding, Bound) else None,
        supervisor.previous,
        supervisor.epoch_floor,
    )


def guard_of(state: SessionState, input_: Input) -> str:
    with pytest.raises(TransitionRejected) as rejected:
        apply(state, input_)
    return rejected.value.guard


BOUND = after(bind(ANN, 3), published(ANN, 3), state=IDLE)
ROTATING = after(authorize(BEN, 5), state=BOUND)


@pytest.mark.parametrize("state", [IDLE, ATTACHED, RUNNING, RETIRED])
def test_a_bind_is_in_force_at_once_and_owes_its_edge(state: SessionState) -> None:
    step = apply(state, bind(ANN, 3))
    assert step.effects == (TrustEdgesChanged(),)
    assert in_force(step.after) == (bound(ANN, 3), None, 3)
    assert owed(step.after) == {(PUBLISH, ANN, 3): 0}
    assert step.after.trusts(supervisor_id(ANN))
    assert step.after.effective_peers[supervisor_id(ANN)].name == "supervisor"


@pytest.mark.parametrize(
    ("state", "input_", "guard"),
    [
        (INITIAL, bind(ANN, 1), "phase"),
        (STOPPED, bind(ANN, 1), "not_ending"),
        (STOPPED, authorize(ANN, 1), "not_ending"),
        (DESTROYED, bind(ANN, 1), "phase"),
        (BOUND, bind(ANN, 4), "supervisor_unbound"),
        (BOUND, bind(BEN, 4), "supervisor_unbound"),
        (IDLE, authorize(ANN, 1), "supervisor_bound"),
        (BOUND, authorize(BEN, 3), "epoch_above_floor"),
        (BOUND, authorize(ANN, 3), "epoch_above_floor"),
        (BOUND, authorize(ANN, 2), "epoch_above_floor"),
        (IDLE, revoke(ANN, 3), "supervisor_bound"),
        (BOUND, revoke(BEN, 3), "peer_id_matches_current"),
        (BOUND, revoke(ANN, 2), "epoch_matches_current"),
        (BOUND, revoke(ANN, 4), "epoch_matches_current"),
        (ROTATING, revoke(ANN, 3), "peer_id_matches_current"),
        (IDLE, BootstrapTokenUsed(), "token_present"),
    ],
)
def test_what_is_refused(state: SessionState, input_: Input, guard: str) -> None:
    assert guard_of(state, input_) == guard


def test_a_published_edge_is_no_longer_owed() -> None:
    assert owed(BOUND) == {}
    assert in_force(BOUND) == (bound(ANN, 3), None, 3)


def test_during_a_rotation_both_are_in_force_and_then_the_former_one_is_revoked() -> None:
    assert in_force(ROTATING) == (bound(BEN, 5), bound(ANN, 3), 5)
    assert owed(ROTATING) == {(PUBLISH, BEN, 5): 0}
    assert ROTATING.trusts(supervisor_id(ANN))
    state = after(published(BEN, 5), state=ROTATING)
    assert in_force(state) == (bound(BEN, 5), None, 5)
    assert owed(state) == {(REVOKE, ANN, 3): 0}
    assert not state.trusts(supervisor_id(ANN))
    assert owed(after(revoked(ANN, 3), state=state)) == {}


def test_a_rotation_to_the_same_peer_never_owes_its_removal() -> None:
    state = after(authorize(ANN, 4), state=BOUND)
    assert in_force(state) == (bound(ANN, 4), bound(ANN, 3), 4)
    state = after(published(ANN, 4), state=state)
    assert (in_force(state), owed(state)) == ((bound(ANN, 4), None, 4), {})


def test_a_superseded_unconfirmed_supervisor_is_revoked_and_the_confirmed_one_stays_previous() -> None:
    state = after(authorize(CAL, 6), state=ROTATING)
    assert in_force(state) == (bound(CAL, 6), bound(ANN, 3), 6)
    assert owed(state) == {(PUBLISH, CAL, 6): 0, (REVOKE, BEN, 5): 0}
    assert owed(after(published(CAL, 6), state=state)) == {(REVOKE, BEN, 5): 0, (REVOKE, ANN, 3): 0}


def test_a_rotation_back_to_the_confirmed_supervisor_revokes_only_the_one_between() -> None:
    state = after(authorize(ANN, 6), state=ROTATING)
    assert in_force(state) == (bound(ANN, 6), bound(ANN, 3), 6)
    assert owed(state) == {(PUBLISH, ANN, 6): 0, (REVOKE, BEN, 5): 0}


def test_an_unconfirmed_first_binding_is_never_the_previous_one() -> None:
    state = after(bind(ANN, 1), authorize(BEN, 2), state=IDLE)
    assert in_force(state) == (bound(BEN, 2), None, 2)
    assert owed(state) == {(PUBLISH, BEN, 2): 0, (REVOKE, ANN, 1): 0}


def test_a_supervisor_that_comes_back_is_no_longer_to_be_revoked() -> None:
    gone = after(revoke(ANN, 3), state=BOUND)
    assert owed(gone) == {(REVOKE, ANN, 3): 0}
    assert owed(after(bind(ANN, 4), state=gone)) == {(PUBLISH, ANN, 4): 0}
    handed_over = after(published(BEN, 5), state=ROTATING)
    assert owed(after(authorize(ANN, 6), state=handed_over)) == {(PUBLISH, ANN, 6): 0}


def test_an_upper_case_spelling_of_the_id_is_the_same_peer() -> None:
    shouting = supervisor_id(ANN).upper()
    same = bound(ANN, 6)
    louder = Bound(
        name=same.name,
        peer_id=PeerId(shouting),
        address=same.address,
        signing_key=same.signing_key,
        epoch=4,
    )
    state = after(AuthorizeSupervisor(louder), published(ANN, 4), state=BOUND)
    assert (owed(state), state.trusts(supervisor_id(ANN))) == ({}, True)
    assert in_force(after(RevokeSupervisor(PeerId(shouting), 4), state=state))[0] is None


def test_a_revocation_owes_each_removal_with_its_own_epoch() -> None:
    state = after(revoke(BEN, 5), state=ROTATING)
    assert in_force(state) == (None, None, 5)
    assert owed(state) == {(REVOKE, BEN, 5): 0, (REVOKE, ANN, 3): 0}
    assert state.supervisor.last_revoked == (supervisor_id(BEN), 5)


def test_a_revocation_is_settled_while_nobody_is_bound() -> None:
    state = after(revoke(ANN, 3), revoke_failed(ANN, 3), revoke_failed(ANN, 3), state=BOUND)
    assert isinstance(state.supervisor.binding, Unbound)
    assert owed(state) == {(REVOKE, ANN, 3): 2}
    assert owed(after(revoked(ANN, 3), state=state)) == {}


def test_a_replayed_bind_meets_the_floor_after_a_revocation() -> None:
    state = after(revoke(ANN, 3), revoked(ANN, 3), state=BOUND)
    assert guard_of(state, bind(ANN, 3)) == "epoch_above_floor"
    assert guard_of(state, bind(BEN, 2)) == "epoch_above_floor"
    assert in_force(after(bind(BEN, 4), state=state)) == (bound(BEN, 4), None, 4)


def test_a_publication_that_fails_is_counted_and_tried_again() -> None:
    state = after(publish_failed(BEN, 5), publish_failed(BEN, 5), state=ROTATING)
    assert owed(state) == {(PUBLISH, BEN, 5): 2}
    assert in_force(state) == in_force(ROTATING)


def test_a_final_failure_goes_back_to_the_previous_supervisor_and_keeps_the_floor() -> None:
    state = after(publish_failed(BEN, 5, final=True), state=ROTATING)
    assert in_force(state) == (bound(ANN, 3), None, 5)
    assert owed(state) == {(REVOKE, BEN, 5): 0}
    assert guard_of(state, authorize(BEN, 5)) == "epoch_above_floor"
    assert in_force(after(revoke(ANN, 3), state=state))[0] is None


def test_a_final_failure_of_the_first_binding_leaves_nobody_in_force() -> None:
    state = after(bind(ANN, 1), publish_failed(ANN, 1, final=True), state=IDLE)
    assert in_force(state) == (None, None, 1)
    assert owed(state) == {(REVOKE, ANN, 1): 0}


def test_a_final_failure_of_a_rotation_to_the_same_peer_revokes_nobody() -> None:
    state = after(authorize(ANN, 4), publish_failed(ANN, 4, final=True), state=BOUND)
    assert (in_force(state), owed(state)) == ((bound(ANN, 3), None, 4), {})


@pytest.mark.parametrize(
    ("state", "observation", "reason"),
    [
        (ROTATING, published(BEN, 4), "stale_epoch"),
        (ROTATING, published(ANN, 3), "peer_mismatch"),
        (BOUND, published(ANN, 3), "no_obligation"),
        (IDLE, published(ANN, 3), "no_obligation"),
        (ROTATING, publish_failed(BEN, 4), "stale_epoch"),
        (ROTATING, publish_failed(BEN, 4, final=True), "stale_epoch"),
        (ROTATING, publish_failed(ANN, 3, final=True), "peer_mismatch"),
        (BOUND, publish_failed(ANN, 3, final=True), "no_obligation"),
        (ROTATING, revoked(BEN, 5), "no_obligation"),
        (after(revoke(ANN, 3), state=BOUND), revoked(ANN, 2), "stale_epoch"),
        (after(revoke(ANN, 3), state=BOUND), revoked(BEN, 3), "peer_mismatch"),
        (after(revoke(ANN, 3), state=BOUND), revoke_failed(ANN, 4), "stale_epoch"),
        (after(revoke(ANN, 3), state=BOUND), revoke_failed(BEN, 3), "peer_mismatch"),
        (BOUND, revoke_failed(ANN, 3), "no_obligation"),
    ],
)
def test_a_stale_observation_says_why_it_changed_nothing(state: SessionState, observation: Input, reason: str) -> None:
    step = apply(state, observation)
    assert (step.ignored, step.effects) == (reason, ())
    assert step.after is state


def test_a_token_is_good_for_one_use() -> None:
    state = after(IssueBootstrapToken(b"first"), IssueBootstrapToken(b"second"), state=IDLE)
    assert state.supervisor.token_hash == b"second"
    used = after(BootstrapTokenUsed(), state=state)
    assert used.supervisor.token_hash is None
    assert guard_of(used, BootstrapTokenUsed()) == "token_present"


def test_a_token_s_hash_is_never_shown() -> None:
    assert "first" not in repr(IssueBootstrapToken(b"first"))


def test_a_retired_or_stopping_session_can_still_lose_its_supervisor() -> None:
    for end in (Retire(), Stop()):
        state = after(end, state=after(bind(ANN, 1), state=ATTACHED))
        assert in_force(after(revoke(ANN, 1), state=state))[0] is None
