"""The checks of each command, purely: the first that fails decides, whatever else is wrong."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    DeliverMemberInput,
    DestroyMember,
    HardCancelMember,
    InterruptMember,
    ObserveMember,
    PeerEndpoint,
    RejectionCause,
    RetireMember,
    RevokeOwnSupervision,
    UnwireMember,
    WireMember,
)
from meerkat_trio._bridge import (
    Acceptance,
    BridgeCommand,
    Rejection,
    Situation,
    UnfitPeer,
    bound_by,
    decide,
    parse_command,
    token_hash,
)
from meerkat_trio.authority import (
    AddDirectPeerEndpoint,
    AuthorizeSupervisor,
    BindSupervisor,
    BootstrapTokenUsed,
    IssueBootstrapToken,
    PeerAddress,
    PeerId,
    RemoveDirectPeerEndpoint,
    Retire,
    RevokeSupervisor,
    SessionState,
    SupervisorTrustEdgePublished,
)

from ..authority.cast import ATTACHED, IDLE, RETIRED, RUNNING, after, endpoint

Cause = RejectionCause
ANN, BEN, CAL, US, EVE = (
    endpoint(number, name) for number, name in ((11, "ann"), (12, "ben"), (13, "cal"), (40, "us"), (3, "eve"))
)
HOME, ELSEWHERE = PeerAddress("tcp://home:1"), PeerAddress("tcp://elsewhere:1")
TOKEN = "the token"  # noqa: S105 - not a secret

FREE = after(IssueBootstrapToken(token_hash(TOKEN)), state=IDLE)
"""Nobody is bound, a token was issued."""
FREE_AT_4 = after(
    BindSupervisor(bound_by(CAL, 4)),
    RevokeSupervisor(CAL.peer_id, 4),
    IssueBootstrapToken(token_hash(TOKEN)),
    state=IDLE,
)
"""As `FREE`, with 4 as the floor."""


def of_ann(state: SessionState = IDLE) -> SessionState:
    """The state in which ann is the supervisor since epoch 5, confirmed."""
    return after(
        BindSupervisor(bound_by(ANN, 5)), SupervisorTrustEdgePublished(ANN.peer_id, 5), state=after(state=state)
    )


OF_ANN = of_ann()
OF_BEN_SOON = after(AuthorizeSupervisor(bound_by(BEN, 6)), state=OF_ANN)
"""Ben follows ann at epoch 6; his edge does not stand yet."""
OF_BEN = after(SupervisorTrustEdgePublished(BEN.peer_id, 6), state=OF_BEN_SOON)


def situation(
    state: SessionState, sender: PeerEndpoint, address: PeerAddress | None = HOME, us: PeerEndpoint = US
) -> Situation:
    return Situation(state=state, sender=sender.peer_id, peer_id=us.peer_id, address=address)


def bind(**fields: Any) -> BindMember:
    said: dict[str, Any] = {
        "supervisor": ANN,
        "epoch": 5,
        "expected_peer_id": US.peer_id,
        "expected_address": HOME,
        "bootstrap_token": TOKEN,
    }
    return BindMember(**{**said, **fields})


def cause_of(command: BridgeCommand | UnfitPeer, where: Situation) -> RejectionCause | None:
    decision = decide(command, where)
    return decision.cause if isinstance(decision, Rejection) else None


# --- bind_member ------------------------------------------------------------------------------------


# In the order of SPEC 7. The first two share the cause, and so do the second and the fourth.
BIND_CHECKS = (
    ("address known", Cause.ADDRESS_MISMATCH),
    ("address", Cause.ADDRESS_MISMATCH),
    ("sender", Cause.SENDER_MISMATCH),
    ("peer id", Cause.ADDRESS_MISMATCH),
    ("token", Cause.INVALID_BOOTSTRAP_TOKEN),
    ("epoch", Cause.STALE_SUPERVISOR),
)


@pytest.mark.parametrize("fails", list(product([False, True], repeat=len(BIND_CHECKS))))
def test_of_the_checks_of_a_bind_the_first_that_fails_decides(fails: tuple[bool, ...]) -> None:
    wrong = {name for (name, _), failing in zip(BIND_CHECKS, fails, strict=True) if failing}
    command = bind(
        expected_address=ELSEWHERE if "address" in wrong else HOME,
        expected_peer_id=EVE.peer_id if "peer id" in wrong else US.peer_id,
        bootstrap_token="another" if "token" in wrong else TOKEN,
        epoch=4 if "epoch" in wrong else 5,
    )
    where = situation(
        FREE_AT_4,
        BEN if "sender" in wrong else ANN,
        address=None if "address known" in wrong else HOME,
    )
    expected = next((cause for name, cause in BIND_CHECKS if name in wrong), None)
    assert cause_of(command, where) is expected


@pytest.mark.parametrize(
    ("changed", "sender", "cause"),
    [
        ({}, ANN, None),
        ({"bootstrap_token": "another"}, ANN, None),
        ({"expected_address": ELSEWHERE}, ANN, None),
        ({"expected_peer_id": EVE.peer_id}, ANN, None),
        ({"epoch": 6}, ANN, Cause.ALREADY_BOUND),
        ({"epoch": 4}, ANN, Cause.ALREADY_BOUND),
        ({}, BEN, Cause.ALREADY_BOUND),
        ({"supervisor": BEN}, BEN, Cause.ALREADY_BOUND),
        ({"supervisor": BEN}, ANN, Cause.ALREADY_BOUND),
        ({"supervisor": BEN, "epoch": 6, "bootstrap_token": "another", "expected_address": ELSEWHERE}, BEN,
         Cause.ALREADY_BOUND),
    ],
)  # fmt: skip
def test_whoever_is_bound_is_acknowledged_and_everybody_else_comes_too_late(
    changed: dict[str, Any], sender: PeerEndpoint, cause: RejectionCause | None
) -> None:
    decision = decide(bind(**changed), situation(OF_ANN, sender))
    if cause is None:
        assert isinstance(decision, Acceptance)
        assert (decision.inputs, decision.already) == ((), True)
    else:
        assert decision == Rejection(cause=cause)


def test_the_previous_supervisor_does_not_bind_again_during_a_rotation() -> None:
    assert cause_of(bind(), situation(OF_BEN_SOON, ANN)) is Cause.ALREADY_BOUND


def test_a_bind_becomes_two_inputs_in_one_step() -> None:
    assert decide(bind(), situation(FREE, ANN)) == Acceptance(
        command=bind(), inputs=(BindSupervisor(bound_by(ANN, 5)), BootstrapTokenUsed())
    )


def test_without_a_token_that_was_issued_no_token_is_the_right_one() -> None:
    assert cause_of(bind(), situation(IDLE, ANN)) is Cause.INVALID_BOOTSTRAP_TOKEN


@pytest.mark.parametrize("token", ["\ud800", "the token ", "THE TOKEN", "t", "the token\x00", "ť" * 20])
def test_a_token_is_good_only_as_it_was_issued(token: str) -> None:
    assert cause_of(bind(bootstrap_token=token), situation(FREE, ANN)) is Cause.INVALID_BOOTSTRAP_TOKEN


# --- authorize_supervisor ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "sender", "supervisor", "epoch", "cause"),
    [
        (FREE, ANN, BEN, 6, Cause.NOT_BOUND),
        (FREE, EVE, BEN, 1, Cause.NOT_BOUND),
        (FREE_AT_4, CAL, CAL, 4, Cause.NOT_BOUND),
        (OF_ANN, EVE, BEN, 6, Cause.SENDER_MISMATCH),
        (OF_ANN, EVE, BEN, 5, Cause.SENDER_MISMATCH),
        (OF_ANN, BEN, BEN, 6, Cause.SENDER_MISMATCH),
        (OF_ANN, EVE, ANN, 5, Cause.SENDER_MISMATCH),
        (OF_ANN, ANN, BEN, 5, Cause.STALE_SUPERVISOR),
        (OF_ANN, ANN, BEN, 4, Cause.STALE_SUPERVISOR),
        (OF_ANN, ANN, ANN, 4, Cause.STALE_SUPERVISOR),
        (OF_BEN_SOON, ANN, BEN, 5, Cause.SENDER_MISMATCH),
        (OF_BEN_SOON, ANN, CAL, 7, Cause.SENDER_MISMATCH),
        (OF_BEN_SOON, BEN, CAL, 6, Cause.STALE_SUPERVISOR),
        (OF_BEN_SOON, EVE, BEN, 6, Cause.SENDER_MISMATCH),
        (OF_BEN, ANN, BEN, 6, Cause.SENDER_MISMATCH),
        (OF_BEN, ANN, CAL, 1, Cause.SENDER_MISMATCH),
    ],
)
def test_of_the_checks_of_a_rotation_the_first_that_fails_decides(
    state: SessionState, sender: PeerEndpoint, supervisor: PeerEndpoint, epoch: int, cause: RejectionCause
) -> None:
    assert cause_of(AuthorizeNextSupervisor(next=supervisor, epoch=epoch), situation(state, sender)) is cause


@pytest.mark.parametrize(
    ("state", "sender", "supervisor", "epoch"),
    [(OF_ANN, ANN, ANN, 5), (OF_BEN_SOON, ANN, BEN, 6), (OF_BEN_SOON, BEN, BEN, 6), (OF_BEN, BEN, BEN, 6)],
)
def test_a_rotation_that_was_made_is_acknowledged_to_either_side(
    state: SessionState, sender: PeerEndpoint, supervisor: PeerEndpoint, epoch: int
) -> None:
    command = AuthorizeNextSupervisor(next=supervisor, epoch=epoch)
    assert decide(command, situation(state, sender)) == Acceptance(command=command, already=True)


@pytest.mark.parametrize("supervisor", [ANN, BEN])
def test_a_rotation_becomes_one_input(supervisor: PeerEndpoint) -> None:
    command = AuthorizeNextSupervisor(next=supervisor, epoch=9)
    expected = Acceptance(command=command, inputs=(AuthorizeSupervisor(bound_by(supervisor, 9)),))
    assert decide(command, situation(OF_ANN, ANN)) == expected


# --- the gate ---------------------------------------------------------------------------------------


def gated(epoch: int) -> list[BridgeCommand | UnfitPeer]:
    return [
        RevokeOwnSupervision(epoch=epoch),
        DeliverMemberInput(epoch=epoch, input_id="1"),
        ObserveMember(epoch=epoch),
        InterruptMember(epoch=epoch),
        HardCancelMember(epoch=epoch),
        RetireMember(epoch=epoch),
        DestroyMember(epoch=epoch),
        WireMember(epoch=epoch, peer=EVE),
        UnwireMember(epoch=epoch, peer=EVE),
        UnfitPeer(epoch),
    ]


GATE = [
    (FREE, ANN, 5, Cause.NOT_BOUND),
    (FREE, EVE, 1, Cause.NOT_BOUND),
    (OF_ANN, ANN, 4, Cause.STALE_SUPERVISOR),
    (OF_ANN, ANN, 6, Cause.STALE_SUPERVISOR),
    (OF_ANN, EVE, 4, Cause.STALE_SUPERVISOR),
    (OF_ANN, EVE, 5, Cause.SENDER_MISMATCH),
    (OF_BEN_SOON, ANN, 5, Cause.STALE_SUPERVISOR),
    (OF_BEN_SOON, ANN, 6, Cause.SENDER_MISMATCH),
    (of_ann(RETIRED), EVE, 5, Cause.SENDER_MISMATCH),
    (of_ann(RETIRED), ANN, 4, Cause.STALE_SUPERVISOR),
]


@pytest.mark.parametrize("which", range(10))
@pytest.mark.parametrize(("state", "sender", "epoch", "cause"), GATE)
def test_the_gate_asks_for_a_binding_then_for_its_epoch_then_for_its_peer(
    state: SessionState, sender: PeerEndpoint, epoch: int, cause: RejectionCause, which: int
) -> None:
    assert cause_of(gated(epoch)[which], situation(state, sender)) is cause


@pytest.mark.parametrize("state", [OF_ANN, of_ann(ATTACHED), of_ann(RUNNING), of_ann(RETIRED)])
@pytest.mark.parametrize("which", range(7))
def test_through_the_gate_every_living_phase_is_commanded(which: int, state: SessionState) -> None:
    assert cause_of(gated(5)[which], situation(state, ANN)) is None


@pytest.mark.parametrize("command", [WireMember(epoch=5, peer=EVE), UnwireMember(epoch=5, peer=EVE)])
def test_a_retired_session_is_not_wired(command: BridgeCommand) -> None:
    assert cause_of(command, situation(of_ann(RETIRED), ANN)) is Cause.NOT_IN_PHASE


def test_an_unfit_peer_is_told_to_the_supervisor_alone() -> None:
    assert cause_of(UnfitPeer(5), situation(OF_ANN, ANN)) is Cause.INVALID_PEER_SPEC
    assert cause_of(UnfitPeer(5), situation(of_ann(RETIRED), ANN)) is Cause.INVALID_PEER_SPEC
    assert cause_of(UnfitPeer(5), situation(OF_ANN, BEN)) is Cause.SENDER_MISMATCH


# --- what the rest becomes --------------------------------------------------------------------------


def test_a_revocation_is_acknowledged_again_to_whoever_made_it_while_nobody_is_bound() -> None:
    revoke = RevokeOwnSupervision(epoch=5)
    assert decide(revoke, situation(OF_ANN, ANN)) == Acceptance(
        command=revoke, inputs=(RevokeSupervisor(ANN.peer_id, 5),)
    )
    revoked = after(RevokeSupervisor(ANN.peer_id, 5), state=OF_ANN)
    assert decide(revoke, situation(revoked, ANN)) == Acceptance(command=revoke, already=True)
    assert cause_of(revoke, situation(revoked, BEN)) is Cause.NOT_BOUND
    assert cause_of(RevokeOwnSupervision(epoch=4), situation(revoked, ANN)) is Cause.NOT_BOUND
    bound_again = after(BindSupervisor(bound_by(BEN, 6)), state=revoked)
    assert cause_of(revoke, situation(bound_again, ANN)) is Cause.STALE_SUPERVISOR


def test_wiring_what_is_wired_and_unwiring_what_is_not_changes_nothing() -> None:
    wire, unwire = WireMember(epoch=5, peer=EVE), UnwireMember(epoch=5, peer=EVE)
    wired = after(AddDirectPeerEndpoint(EVE), state=OF_ANN)
    moved = endpoint(3, "eve", 4001)
    assert decide(wire, situation(OF_ANN, ANN)) == Acceptance(command=wire, inputs=(AddDirectPeerEndpoint(EVE),))
    assert decide(wire, situation(wired, ANN)) == Acceptance(command=wire, already=True)
    assert decide(unwire, situation(OF_ANN, ANN)) == Acceptance(command=unwire, already=True)
    for state, said in ((wired, unwire), (wired, UnwireMember(epoch=5, peer=moved))):
        assert decide(said, situation(state, ANN)) == Acceptance(
            command=said, inputs=(RemoveDirectPeerEndpoint(EVE.peer_id),)
        )
    rewire = WireMember(epoch=5, peer=moved)
    assert decide(rewire, situation(wired, ANN)) == Acceptance(command=rewire, inputs=(AddDirectPeerEndpoint(moved),))


def test_retiring_is_an_input_and_may_be_said_twice() -> None:
    retire = RetireMember(epoch=5)
    for state in (OF_ANN, of_ann(RETIRED)):
        assert decide(retire, situation(state, ANN)) == Acceptance(command=retire, inputs=(Retire(),))


# --- what is understood -----------------------------------------------------------------------------


def test_every_command_is_understood_as_it_is_said() -> None:
    commands: list[BridgeCommand] = [
        bind(),
        AuthorizeNextSupervisor(next=BEN, epoch=6),
        *(command for command in gated(5) if isinstance(command, BridgeCommand)),
        DeliverMemberInput(epoch=5, input_id="1", content={"a": [1, None]}),
        InterruptMember(epoch=5, reason="why"),
        HardCancelMember(epoch=10**5000, reason="why"),
    ]
    for command in commands:
        assert parse_command(command.params()) == command


def test_ids_are_parsed_however_they_are_spelled() -> None:
    said = bind().params()
    said["expected_peer_id"] = said["expected_peer_id"].upper()
    said["supervisor"] = {**said["supervisor"], "peer_id": said["supervisor"]["peer_id"].upper()}
    assert parse_command(said) == bind()
    assert PeerId(said["expected_peer_id"]) == US.peer_id


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(bind())
