"""Stories of peers and of requests."""

from __future__ import annotations

from meerkat_trio.authority import (
    AddDirectPeerEndpoint,
    AdmissionClass,
    AdmissionTrust,
    Admit,
    Admitted,
    ApplyMobPeerOverlay,
    ClearLocalEndpoint,
    CloseRequest,
    CommsTrustReconcileRequested,
    Dropped,
    DropReason,
    Effect,
    EnvelopeKind,
    LocalEndpointChanged,
    OpenRequest,
    PeerProjectionChanged,
    PublishLocalEndpoint,
    RemoveDirectPeerEndpoint,
    ReplySent,
    ResponseArrived,
    ResponseStatus,
)

from .cast import (
    ALICE,
    ALICE_MOVED,
    ATTACHED,
    BOB,
    EVE,
    IDLE,
)
from .test_stories import Ignored, tell


def changed(epoch: int) -> tuple[Effect, ...]:
    return PeerProjectionChanged(epoch), CommsTrustReconcileRequested(epoch)


def test_peers_are_kept_by_id_and_every_change_counts() -> None:
    end = tell([
        (AddDirectPeerEndpoint(ALICE), changed(1)),
        (AddDirectPeerEndpoint(ALICE), "endpoint_not_already_direct"),
        (AddDirectPeerEndpoint(ALICE_MOVED), changed(2)),
        (RemoveDirectPeerEndpoint(BOB.peer_id), "endpoint_present_in_direct"),
        (ApplyMobPeerOverlay(5, (ALICE, BOB)), changed(3)),
        (ApplyMobPeerOverlay(5, ()), "stale_overlay_epoch"),
        (ApplyMobPeerOverlay(4, ()), "stale_overlay_epoch"),
        (PublishLocalEndpoint(EVE), (LocalEndpointChanged(),)),
        (ClearLocalEndpoint(), (LocalEndpointChanged(),)),
        (ClearLocalEndpoint(), "local_endpoint_present"),
    ], IDLE)  # fmt: skip
    assert dict(end.effective_peers) == {ALICE.peer_id: ALICE_MOVED, BOB.peer_id: BOB}
    assert (end.peers.projection_epoch, end.peers.overlay_epoch) == (3, 5)
    end = tell([(RemoveDirectPeerEndpoint(ALICE.peer_id), changed(4))], end)
    assert dict(end.effective_peers) == {ALICE.peer_id: ALICE, BOB.peer_id: BOB}
    end = tell([(ApplyMobPeerOverlay(6, ()), changed(5))], end)
    assert dict(end.effective_peers) == {}


def test_a_request_is_open_until_its_addressee_has_answered() -> None:
    accepted, completed = ResponseStatus.ACCEPTED, ResponseStatus.COMPLETED
    answer = Admit(EnvelopeKind.RESPONSE, ALICE.peer_id, AdmissionTrust.MANUAL, None, "c", completed)
    unknown = (Dropped(DropReason.NO_SUCH_REQUEST),)
    end = tell([
        (answer, unknown),
        (OpenRequest("c", ALICE.peer_id), ()),
        (OpenRequest("c", BOB.peer_id), "correlation_unused"),
        (ResponseArrived("c", BOB.peer_id, completed), Ignored("no_such_request")),
        (ResponseArrived("c", ALICE.peer_id, accepted), ()),
        (answer, (Admitted(AdmissionClass.RESPONSE_TERMINAL),)),
        (ResponseArrived("c", ALICE.peer_id, completed), ()),
        (answer, unknown),
        (ResponseArrived("c", ALICE.peer_id, completed), Ignored("no_such_request")),
        (OpenRequest("c", BOB.peer_id), ()),
        (CloseRequest("c"), ()),
        (CloseRequest("c"), Ignored("no_such_request")),
    ], ATTACHED)  # fmt: skip
    assert end.requests == ATTACHED.requests


def test_an_inbound_request_is_open_until_the_reply_is_out() -> None:
    ask = Admit(EnvelopeKind.REQUEST, ALICE.peer_id, AdmissionTrust.MANUAL, "ask", "c")
    actionable = (Admitted(AdmissionClass.ACTIONABLE_REQUEST),)
    tell([
        (ask, actionable),
        (ask, (Dropped(DropReason.DUPLICATE),)),
        (ReplySent(BOB.peer_id, "c"), Ignored("no_such_request")),
        (ask, (Dropped(DropReason.DUPLICATE),)),
        (ReplySent(ALICE.peer_id, "c"), ()),
        (ReplySent(ALICE.peer_id, "c"), Ignored("no_such_request")),
        (ask, actionable),
    ], IDLE)  # fmt: skip
