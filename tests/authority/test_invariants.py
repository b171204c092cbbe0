"""The invariants: checked by the code where it may matter, by the tests always."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meerkat_trio.authority import (
    INVARIANTS,
    OBSERVATIONS,
    AddDirectPeerEndpoint,
    ApplyMobPeerOverlay,
    AttachExecutor,
    Authority,
    BeginRun,
    BindSupervisor,
    CommsDrainPhase,
    Counters,
    Detacher,
    DetachIngress,
    DrainExited,
    DrainExitReason,
    DrainStopping,
    Input,
    InvariantViolated,
    IssueBootstrapToken,
    ObligationKind,
    PeerIngressOwner,
    RebindDrain,
    Register,
    RemoveDirectPeerEndpoint,
    Row,
    SessionOwned,
    SessionPhase,
    SessionState,
    SetSilentIntents,
    StopDrain,
    TransitionRejected,
    Unattached,
    Unbound,
    _mutator,
    _transitions,
    broken_invariant,
)

from .cast import (
    ALICE,
    ANN,
    ATTACHED,
    IDLE,
    MODE,
    OWN,
    REGISTER,
    SPAWN,
    STOPPED,
    after,
    bound,
    supervisor_id,
)
from .laws import LAWS, broken_laws
from .walks import explored, inputs_for, pick

LIVE_DRAIN = after(REGISTER, OWN, SPAWN)
BOUND = after(REGISTER, BindSupervisor(bound(ANN, 3)))


def counters(state: SessionState) -> tuple[int, ...]:
    return attrs.astuple(state.counters)


def test_the_laws_of_the_tests_have_the_names_of_the_invariants() -> None:
    assert set(LAWS) == set(INVARIANTS)


def test_every_step_of_every_walk_keeps_every_law() -> None:
    for step in explored().steps:
        assert broken_laws(step.before, step.after) == set(), step


def test_every_publish_obligation_is_owed_for_the_supervisor_in_force() -> None:
    for state in explored().states.values():
        owed = {key[1:] for key in state.supervisor.obligations if key[0] is ObligationKind.PUBLISH}
        binding = state.supervisor.binding
        assert owed <= {(getattr(binding, "peer_id", None), getattr(binding, "epoch", None))}
        assert state.supervisor.previous is None or owed


# --- the code sees what the laws see ---------------------------------------------------------------


def patchwork(chance: random.Random, states: list[SessionState], old: SessionState) -> SessionState:
    """A state that keeps some regions of ``old`` and takes others from anywhere: most of them are nonsense."""
    regions: dict[str, Any] = {}
    for name in ("session", "drain", "ingress", "supervisor", "peers"):
        if chance.random() < 0.4:
            regions[name] = getattr(chance.choice(states), name)
    new = attrs.evolve(old, **regions)
    match chance.randrange(9):
        case 0:
            new = attrs.evolve(new, drain=attrs.evolve(new.drain, stopping=DrainStopping.ABORT))
        case 1:
            new = attrs.evolve(new, drain=attrs.evolve(new.drain, mode=None))
        case 2:
            new = attrs.evolve(new, session=attrs.evolve(new.session, run_id=None))
        case 3:
            lowered = attrs.evolve(new.supervisor, epoch_floor=max(0, new.supervisor.epoch_floor - 1))
            new = attrs.evolve(new, supervisor=lowered)
        case 4:
            owed = {(ObligationKind.REVOKE, supervisor_id(ANN), 1): 0}
            new = attrs.evolve(new, supervisor=attrs.evolve(new.supervisor, obligations=owed))
        case 5:
            new = attrs.evolve(new, session=attrs.evolve(new.session, run_id="a run"))
        case _:
            pass
    return new


def test_the_code_names_a_broken_invariant_exactly_when_a_law_is_broken() -> None:
    chance = random.Random(11)
    states = list(explored().states.values())
    named: set[str | None] = set()
    for _ in range(20_000):
        old = chance.choice(states)
        new = patchwork(chance, states, old)
        found, broken = broken_invariant(old, new), broken_laws(old, new)
        assert (found in broken) if broken else (found is None)
        named.add(found)
    assert named == {None, *LAWS}


# --- a wrong table is caught -----------------------------------------------------------------------


def _session(**changes: Any) -> Any:
    return lambda s, _: attrs.evolve(s, session=attrs.evolve(s.session, **changes))


def _drain(**changes: Any) -> Any:
    return lambda s, _: attrs.evolve(s, drain=attrs.evolve(s.drain, **changes))


def _supervisor(**changes: Any) -> Any:
    return lambda s, _: attrs.evolve(s, supervisor=attrs.evolve(s.supervisor, **changes))


def _peers(**changes: Any) -> Any:
    return lambda s, _: attrs.evolve(s, peers=attrs.evolve(s.peers, **changes))


def _owner(owner: PeerIngressOwner) -> Any:
    return lambda s, _: attrs.evolve(s, ingress=owner)


REVOKE_ANN = {(ObligationKind.REVOKE, supervisor_id(ANN), 2): 0}
BIND = BindSupervisor(bound(ANN, 1))
SILENCE = SetSilentIntents(frozenset())
TOKEN = IssueBootstrapToken(b"hash")


@attrs.frozen
class Mutant:
    """A row that does something wrong."""

    law: str
    row: str
    state: SessionState
    input: Input
    update: Any


MUTANTS = [
    Mutant("running_has_run_id", "begin-run", ATTACHED, BeginRun("r", "m"), _session(phase=SessionPhase.RUNNING)),
    Mutant("run_id_has_phase", "attach-executor", IDLE, AttachExecutor(), _session(run_id="r")),
    Mutant("live_drain_has_mode", "spawn-drain", after(OWN, state=IDLE), SPAWN, _drain(phase=CommsDrainPhase.STARTING)),
    Mutant("live_drain_is_owned", "stop-drain", LIVE_DRAIN, StopDrain(DrainStopping.ABORT), _owner(Unattached())),
    Mutant("live_drain_is_owned", "detach-ingress", LIVE_DRAIN, DetachIngress(Detacher()), _owner(Unattached())),
    Mutant(
        "stopping_means_live",
        "drain-exited",
        LIVE_DRAIN,
        DrainExited(1, DrainExitReason.ABORTED),
        _drain(phase=CommsDrainPhase.STOPPED, stopping=DrainStopping.ABORT),
    ),
    Mutant("bound_epoch_within_floor", "bind-supervisor", IDLE, BIND, _supervisor(binding=bound(ANN, 1))),
    Mutant("obligation_epochs_within_floor", "issue-bootstrap-token", IDLE, TOKEN, _supervisor(obligations=REVOKE_ANN)),
    Mutant(
        "no_revoke_of_supervisor_in_force", "issue-bootstrap-token", BOUND, TOKEN, _supervisor(obligations=REVOKE_ANN)
    ),
    Mutant("ended_has_nothing_left", "set-silent-intents", STOPPED, SILENCE, _session(executor_attached=True)),
    Mutant("ended_has_nothing_left", "set-silent-intents", STOPPED, SILENCE, _owner(SessionOwned("comms"))),
    Mutant(
        "ended_has_nothing_left",
        "issue-bootstrap-token",
        STOPPED,
        TOKEN,
        _supervisor(binding=bound(ANN, 1), epoch_floor=1),
    ),
    Mutant(
        "ended_has_nothing_left",
        "stop-no-drain",
        STOPPED,
        StopDrain(DrainStopping.ABORT),
        _drain(phase=CommsDrainPhase.RUNNING, mode=MODE, stopping=DrainStopping.ABORT),
    ),
    Mutant("generation_never_falls", "rebind-drain", LIVE_DRAIN, RebindDrain(), _drain(generation=0)),
    Mutant(
        "projection_epoch_never_falls",
        "remove-direct-peer",
        after(AddDirectPeerEndpoint(ALICE), state=IDLE),
        RemoveDirectPeerEndpoint(ALICE.peer_id),
        _peers(projection_epoch=0),
    ),
    Mutant(
        "overlay_epoch_never_falls",
        "apply-mob-overlay",
        after(ApplyMobPeerOverlay(4, ()), state=IDLE),
        ApplyMobPeerOverlay(5, ()),
        _peers(overlay_epoch=0),
    ),
    Mutant(
        "epoch_floor_never_falls",
        "issue-bootstrap-token",
        BOUND,
        TOKEN,
        _supervisor(binding=Unbound(), obligations={}, epoch_floor=2),
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.law}-{mutant.row}")
def test_a_row_that_breaks_an_invariant_is_caught_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    def mutated(row: Row) -> Row:
        if row.name != mutant.row:
            return row
        return attrs.evolve(row, update=mutant.update, emit=None, guards=())

    table = {
        on: {phase: tuple(mutated(plan[-1]).plan for plan in plans) for phase, plans in by_phase.items()}
        for on, by_phase in _transitions.PLANS_BY_INPUT.items()
    }
    monkeypatch.setattr(_mutator, "PLANS_BY_INPUT", table)
    authority = Authority(mutant.state)
    with pytest.raises(InvariantViolated) as caught:
        authority.apply(mutant.input)
    assert (caught.value.invariant, caught.value.row) == (mutant.law, mutant.row)
    assert str(caught.value) == f"row '{mutant.row}' would break the invariant '{mutant.law}'"
    assert authority.state is mutant.state


def test_every_invariant_has_a_wrong_table_that_breaks_it() -> None:
    assert {mutant.law for mutant in MUTANTS} == set(INVARIANTS)


# --- counters --------------------------------------------------------------------------------------


def test_a_new_registration_of_an_id_begins_at_its_old_counters() -> None:
    for old in list(explored().states.values())[::20]:
        anew = after(Register("s", old.counters))
        assert counters(anew) == counters(old)


def test_reviving_lowers_no_counter_and_takes_over_higher_ones() -> None:
    old = after(
        OWN, SPAWN, RebindDrain(), BindSupervisor(bound(ANN, 7)), ApplyMobPeerOverlay(5, (ALICE,)),
        AddDirectPeerEndpoint(ALICE), state=IDLE,
    )  # fmt: skip
    stopped = attrs.evolve(STOPPED, drain=old.drain, supervisor=old.supervisor, peers=old.peers)
    stopped = attrs.evolve(
        stopped,
        drain=attrs.evolve(STOPPED.drain, generation=2),
        supervisor=attrs.evolve(STOPPED.supervisor, epoch_floor=7),
    )
    assert counters(after(REGISTER, state=stopped)) == (2, 2, 5, 7)
    higher = Counters(generation=1, projection_epoch=9, overlay_epoch=4, epoch_floor=8)
    assert counters(after(Register("s", higher), state=stopped)) == (2, 9, 5, 8)


# --- Hypothesis ------------------------------------------------------------------------------------


class AnyWalk(RuleBasedStateMachine):
    """Any inputs in any order, some of them sensible; ended sessions are revived or registered anew."""

    def __init__(self) -> None:
        super().__init__()
        self.authority = Authority(SessionState.initial("s"))
        self.authority.apply(REGISTER)

    def meet(self, input_: Input) -> None:
        before = self.authority.state
        try:
            step = self.authority.apply(input_)
        except TransitionRejected:
            assert not isinstance(input_, OBSERVATIONS)
            assert self.authority.state is before
            return
        assert self.authority.state is step.after
        assert broken_laws(before, step.after) == set()

    @rule(index=st.integers(0, 10_000))
    def any_input(self, index: int) -> None:
        inputs = inputs_for(self.authority.state)
        self.meet(inputs[index % len(inputs)])

    @rule(seed=st.integers(0, 2**32))
    def a_likely_input(self, seed: int) -> None:
        self.meet(pick(self.authority.state, random.Random(seed)))

    @rule()
    def register_anew(self) -> None:
        old = self.authority.state
        if old.session.ended is not None:
            self.authority = Authority(SessionState.initial("s"))
            self.authority.apply(Register("s", old.counters))
            assert counters(self.authority.state) == counters(old)

    @invariant()
    def the_state_can_be_derived_from(self) -> None:
        state = self.authority.state
        assert all(state.trusts(peer_id) for peer_id in state.effective_peers)


TestAnyWalk = AnyWalk.TestCase
TestAnyWalk.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
