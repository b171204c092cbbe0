"""The rows of peers, admission and requests (SPEC 3, "Peers", "Messages and requests").

Admission reads as one list: the first row that matches decides. Strangers are told nothing of the phase.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs

from ._effects import (
    Admitted,
    CommsTrustReconcileRequested,
    Dropped,
    Effect,
    LocalEndpointChanged,
    PeerProjectionChanged,
)
from ._inputs import (
    AddDirectPeerEndpoint,
    Admit,
    ApplyMobPeerOverlay,
    ClearLocalEndpoint,
    CloseRequest,
    OpenRequest,
    PublishLocalEndpoint,
    RemoveDirectPeerEndpoint,
    ReplySent,
    ResponseArrived,
)
from ._row import ALL_PHASES, NOT_ENDING, row
from ._state import ACTIVE, LIVE, PeersRegion, RequestsRegion, SessionState
from ._values import (
    AdmissionClass,
    AdmissionTrust,
    DropReason,
    EnvelopeKind,
    MobOwned,
    RequestStatus,
    ResponseStatus,
)

__all__ = ["BRIDGE_INTENT", "MESSAGE_ROWS"]

BRIDGE_INTENT: Final = "supervisor.bridge"
"""The intent of a request that is a supervisor's command."""

_LIFECYCLE: Final = frozenset({EnvelopeKind.PEER_ADDED, EnvelopeKind.PEER_RETIRED, EnvelopeKind.PEER_UNWIRED})


# --- peers -----------------------------------------------------------------------------------------


def _with_peers(state: SessionState, peers: PeersRegion) -> SessionState:
    return SessionState(
        state.session,
        state.drain,
        state.ingress,
        state.supervisor,
        peers,
        state.requests,
    )


def _add_direct(state: SessionState, i: AddDirectPeerEndpoint) -> SessionState:
    peers = state.peers
    direct = {**peers.direct, i.endpoint.peer_id: i.endpoint}
    return _with_peers(
        state,
        attrs.evolve(peers, direct=direct, projection_epoch=peers.projection_epoch + 1),
    )


def _remove_direct(state: SessionState, i: RemoveDirectPeerEndpoint) -> SessionState:
    peers = state.peers
    direct = {peer_id: endpoint for peer_id, endpoint in peers.direct.items() if peer_id != i.peer_id}
    return _with_peers(
        state,
        attrs.evolve(peers, direct=direct, projection_epoch=peers.projection_epoch + 1),
    )


def _apply_overlay(state: SessionState, i: ApplyMobPeerOverlay) -> SessionState:
    peers = attrs.evolve(
        state.peers,
        overlay={endpoint.peer_id: endpoint for endpoint in i.endpoints},
        overlay_epoch=i.epoch,
        projection_epoch=state.peers.projection_epoch + 1,
    )
    return _with_peers(state, peers)


def _projection_changed(_: SessionState, after: SessionState, __: object) -> tuple[Effect, ...]:
    epoch = after.peers.projection_epoch
    return PeerProjectionChanged(epoch), CommsTrustReconcileRequested(epoch)


_peers_row = partial(row, region="peers", phases=ACTIVE)
_projection_row = partial(
    _peers_row,
    emit=_projection_changed,
    emits=(PeerProjectionChanged, CommsTrustReconcileRequested),
)
_endpoint_row = partial(_peers_row, effects=(LocalEndpointChanged(),))

_PEER_ROWS: Final = (
    _endpoint_row(
        "publish-local-endpoint",
        "says where the session is reached",
        on=PublishLocalEndpoint,
        guards=NOT_ENDING,
        update=lambda s, i: _with_peers(s, attrs.evolve(s.peers, local_endpoint=i.endpoint)),
    ),
    _endpoint_row(
        "clear-local-endpoint",
        "takes that back",
        on=ClearLocalEndpoint,
        guards={
            **NOT_ENDING,
            "local_endpoint_present": lambda s, _: s.peers.local_endpoint is not None,
        },
        update=lambda s, _: _with_peers(s, attrs.evolve(s.peers, local_endpoint=None)),
    ),
    _projection_row(
        "add-direct-peer",
        "trusts a peer, or replaces its endpoint",
        on=AddDirectPeerEndpoint,
        guards={
            **NOT_ENDING,
            "endpoint_not_already_direct": lambda s, i: s.peers.direct.get(i.endpoint.peer_id) != i.endpoint,
        },
        update=_add_direct,
    ),
    _projection_row(
        "remove-direct-peer",
        "trusts it directly no more",
        on=RemoveDirectPeerEndpoint,
        guards={
            **NOT_ENDING,
            "endpoint_present_in_direct": lambda s, i: i.peer_id in s.peers.direct,
        },
        update=_remove_direct,
    ),
    _projection_row(
        "apply-mob-overlay",
        "replaces the mob's peers",
        on=ApplyMobPeerOverlay,
        guards={
            **NOT_ENDING,
            "stale_overlay_epoch": lambda s, i: i.epoch > s.peers.overlay_epoch,
        },
        update=_apply_overlay,
    ),
)


# --- admission -------------------------------------------------------------------------------------

_admit_row = partial(row, region="admission", on=Admit, guards=NOT_ENDING)


def _trusted(state: SessionState, i: Admit) -> bool:
    return i.trust is not AdmissionTrust.NONE or state.trusts(i.sender)


def _is_bridge_command(_: SessionState, i: Admit) -> bool:
    return i.kind is EnvelopeKind.REQUEST and i.intent == BRIDGE_INTENT


def _may_dismiss(state: SessionState, i: Admit) -> bool:
    owner = state.ingress
    by_mob = isinstance(owner, MobOwned) and owner.mob_peer_id is not None and owner.mob_peer_id == i.sender
    return i.kind is EnvelopeKind.DISMISS and (by_mob or state.supervisor.in_force(i.sender))


def _awaited_response(state: SessionState, i: Admit) -> bool:
    return i.kind is EnvelopeKind.RESPONSE and i.correlation in state.requests.outbound


def _from_addressee(state: SessionState, i: Admit) -> bool:
    if i.kind is not EnvelopeKind.RESPONSE or i.correlation is None:
        return False
    open_request = state.requests.outbound.get(i.correlation)
    return open_request is not None and open_request[0] == i.sender


def _is_open_inbound(state: SessionState, i: Admit) -> bool:
    return i.kind is EnvelopeKind.REQUEST and (i.sender, i.correlation) in state.requests.inbound


def _with_requests(state: SessionState, requests: RequestsRegion) -> SessionState:
    return SessionState(
        state.session,
        state.drain,
        state.ingress,
        state.supervisor,
        state.peers,
        requests,
    )


def _record_inbound(state: SessionState, i: Admit) -> SessionState:
    if i.sender is None or i.correlation is None:
        return state
    requests = state.requests
    return _with_requests(
        state,
        RequestsRegion(requests.outbound, requests.inbound | {(i.sender, i.correlation)}),
    )


# Every message meets the first row: looking a member up in its enumeration would cost more than the test.
_KIND_MESSAGE: Final = EnvelopeKind.MESSAGE
_NONE: Final = AdmissionTrust.NONE

_ADMISSION_ROWS: Final = (
    _admit_row(
        "admit-message",
        "a message of a trusted sender",
        phases=ACTIVE,
        when=lambda s, i: i.kind is _KIND_MESSAGE and (i.trust is not _NONE or s.trusts(i.sender)),
        effects=(Admitted(AdmissionClass.ACTIONABLE_MESSAGE),),
    ),
    _admit_row(
        "drop-duplicate-command",
        "that command is open already",
        phases=LIVE,
        when=lambda s, i: _is_bridge_command(s, i) and _is_open_inbound(s, i),
        effects=(Dropped(DropReason.DUPLICATE),),
    ),
    _admit_row(
        "admit-bridge-command",
        "a supervisor's command; the bridge checks who sends it",
        phases=LIVE,
        when=_is_bridge_command,
        update=_record_inbound,
        effects=(Admitted(AdmissionClass.BRIDGE_COMMAND),),
    ),
    _admit_row(
        "admit-dismissal",
        "the supervisor or the owning mob dismisses the session",
        phases=LIVE,
        when=_may_dismiss,
        effects=(Admitted(AdmissionClass.DISMISSAL),),
    ),
    _admit_row(
        "drop-untrusted",
        "nobody we know",
        when=lambda s, i: not _trusted(s, i) or i.kind is EnvelopeKind.DISMISS,
        effects=(Dropped(DropReason.UNTRUSTED_SENDER),),
    ),
    _admit_row(
        "admit-lifecycle",
        "consumed silently; never changes trust",
        phases=LIVE,
        when=lambda _, i: i.kind in _LIFECYCLE,
        effects=(Admitted(AdmissionClass.LIFECYCLE),),
    ),
    _admit_row(
        "drop-malformed-response",
        "a response that says nothing of its request",
        phases=LIVE,
        when=lambda _, i: i.kind is EnvelopeKind.RESPONSE and i.status is None,
        effects=(Dropped(DropReason.MALFORMED),),
    ),
    _admit_row(
        "admit-terminal-response",
        "the answer somebody waits for",
        phases=LIVE,
        when=lambda s, i: _from_addressee(s, i) and i.status is not ResponseStatus.ACCEPTED,
        effects=(Admitted(AdmissionClass.RESPONSE_TERMINAL),),
    ),
    _admit_row(
        "admit-progress-response",
        "the addressee is at it",
        phases=LIVE,
        when=_from_addressee,
        effects=(Admitted(AdmissionClass.RESPONSE_PROGRESS),),
    ),
    _admit_row(
        "drop-wrong-responder",
        "somebody answers another peer's request",
        phases=LIVE,
        when=_awaited_response,
        effects=(Dropped(DropReason.WRONG_RESPONDER),),
    ),
    _admit_row(
        "drop-no-such-request",
        "nobody waits for this response",
        phases=LIVE,
        when=lambda _, i: i.kind is EnvelopeKind.RESPONSE,
        effects=(Dropped(DropReason.NO_SUCH_REQUEST),),
    ),
    _admit_row(
        "drop-duplicate-request",
        "that request is open already",
        phases=ACTIVE,
        when=_is_open_inbound,
        effects=(Dropped(DropReason.DUPLICATE),),
    ),
    _admit_row(
        "admit-silent-request",
        "a request whose intent is silent",
        phases=ACTIVE,
        when=lambda s, i: i.kind is EnvelopeKind.REQUEST and i.intent in s.session.silent_intents,
        update=_record_inbound,
        effects=(Admitted(AdmissionClass.SILENT_REQUEST),),
    ),
    _admit_row(
        "admit-request",
        "a request of a trusted sender",
        phases=ACTIVE,
        when=lambda _, i: i.kind is EnvelopeKind.REQUEST,
        update=_record_inbound,
        effects=(Admitted(AdmissionClass.ACTIONABLE_REQUEST),),
    ),
    _admit_row(
        "drop-in-phase",
        "nothing of this kind enters in this phase",
        phases=ALL_PHASES - ACTIVE,
        effects=(Dropped(DropReason.NOT_ADMITTED_IN_PHASE),),
    ),
)


# --- requests --------------------------------------------------------------------------------------


def _open_request(state: SessionState, i: OpenRequest) -> SessionState:
    requests = state.requests
    outbound = {**requests.outbound, i.correlation: (i.addressee, RequestStatus.SENT)}
    return _with_requests(state, RequestsRegion(outbound, requests.inbound))


def _close_outbound(state: SessionState, i: CloseRequest | ResponseArrived) -> SessionState:
    requests = state.requests
    outbound = {key: value for key, value in requests.outbound.items() if key != i.correlation}
    return _with_requests(state, RequestsRegion(outbound, requests.inbound))


def _mark_accepted(state: SessionState, i: ResponseArrived) -> SessionState:
    requests = state.requests
    outbound = {**requests.outbound, i.correlation: (i.sender, RequestStatus.ACCEPTED)}
    return _with_requests(state, RequestsRegion(outbound, requests.inbound))


def _close_inbound(state: SessionState, i: ReplySent) -> SessionState:
    requests = state.requests
    return _with_requests(
        state,
        RequestsRegion(requests.outbound, requests.inbound - {(i.sender, i.correlation)}),
    )


def _response_of_open_request(state: SessionState, i: ResponseArrived) -> bool:
    open_request = state.requests.outbound.get(i.correlation)
    return open_request is not None and open_request[0] == i.sender


_request_row = partial(row, region="requests")

_REQUEST_ROWS: Final = (
    _request_row(
        "open-request",
        "its response will be known",
        on=OpenRequest,
        phases=ACTIVE,
        guards={
            **NOT_ENDING,
            "correlation_unused": lambda s, i: i.correlation not in s.requests.outbound,
        },
        update=_open_request,
    ),
    _request_row(
        "response-accepted",
        "the addressee is at it",
        on=ResponseArrived,
        when=lambda s, i: i.status is ResponseStatus.ACCEPTED and _response_of_open_request(s, i),
        update=_mark_accepted,
    ),
    _request_row(
        "response-terminal",
        "the request is over",
        on=ResponseArrived,
        when=_response_of_open_request,
        update=_close_outbound,
    ),
    _request_row(
        "response-stale",
        "nobody waits for it",
        on=ResponseArrived,
        ignored="no_such_request",
    ),
    _request_row(
        "close-request",
        "nobody waits any more",
        on=CloseRequest,
        when=lambda s, i: i.correlation in s.requests.outbound,
        update=_close_outbound,
    ),
    _request_row("close-request-stale", "it was over", on=CloseRequest, ignored="no_such_request"),
    _request_row(
        "reply-sent",
        "the inbound request is over",
        on=ReplySent,
        when=lambda s, i: (i.sender, i.correlation) in s.requests.inbound,
        update=_close_inbound,
    ),
    _request_row("reply-sent-stale", "it was over", on=ReplySent, ignored="no_such_request"),
)

MESSAGE_ROWS: Final = (*_PEER_ROWS, *_ADMISSION_ROWS, *_REQUEST_ROWS)
