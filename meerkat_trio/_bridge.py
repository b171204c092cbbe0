"""The commands of a supervisor: what they say, how they are checked, which inputs they become (SPEC 7).

Pure: a command and the situation in which it arrived make a decision. Nothing here applies, waits or replies. The
checks of a command stand in the order in which they are made; the first that fails decides. What a rejection says is
written here: nothing of it is what the caller sent.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import attrs
from attrs import field, frozen

from . import authority
from ._exceptions import RejectionCause as _Cause
from .authority import ACTIVE, Bound, PeerAddress, PeerEndpoint, PeerId, SessionState

if TYPE_CHECKING:
    from .authority import Input

__all__ = [
    "COMMANDS",
    "PROTOCOL_VERSION",
    "Acceptance",
    "AuthorizeNextSupervisor",
    "BindMember",
    "BridgeCommand",
    "DeliverMemberInput",
    "DestroyMember",
    "HardCancelMember",
    "InterruptMember",
    "ObserveMember",
    "Rejection",
    "RetireMember",
    "RevokeOwnSupervision",
    "Situation",
    "UnfitPeer",
    "UnwireMember",
    "WireMember",
    "bound_by",
    "decide",
    "is_token",
    "parse_command",
    "require_epoch",
    "token_hash",
]

PROTOCOL_VERSION: Final = 1
"""The version of the commands that is spoken here."""


# --- what is said ----------------------------------------------------------------------------------


def require_epoch(epoch: object) -> None:
    """Raise ValueError unless ``epoch`` is a whole number from 1 up."""
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
        raise ValueError(f"epoch: a whole number from 1 up is needed, not {epoch!r}")


def _check_epoch(_: object, __: object, epoch: int) -> None:
    require_epoch(epoch)


def _check_text(_: object, attribute: attrs.Attribute[str], text: object) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{attribute.name}: must be a text that is not blank")


def _check_reason(_: object, attribute: attrs.Attribute[str], text: object) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{attribute.name}: must be a text")  # noqa: TRY004 - one kind of error for all fields


def _check_endpoint(_: object, attribute: attrs.Attribute[PeerEndpoint], endpoint: object) -> None:
    if not isinstance(endpoint, PeerEndpoint):
        raise ValueError(f"{attribute.name}: a PeerEndpoint is needed")  # noqa: TRY004 - one kind of error for all fields


@frozen(kw_only=True)
class BridgeCommand:
    """What a supervisor asks of a member; `Session.command` sends it.

    Raises:
        ValueError: a field is malformed.
    """

    name: ClassVar[str]
    """What it is called on the way."""

    epoch: int = field(validator=_check_epoch)
    """The epoch of the supervisor's binding, from 1 up; of the new one where the command makes one."""

    def params(self) -> dict[str, Any]:
        """Return what the request says: plain values, which every transport can carry."""
        said = {attribute.name: _said(getattr(self, attribute.name)) for attribute in attrs.fields(type(self))}
        return {"command": self.name, "protocol_version": PROTOCOL_VERSION, **said}


def _said(value: object) -> object:
    if isinstance(value, PeerEndpoint):
        return {
            "name": value.name,
            "peer_id": str(value.peer_id),
            "address": str(value.address),
            "signing_key": value.signing_key.hex(),
        }
    return str(value) if isinstance(value, PeerId | PeerAddress) else value


@frozen(kw_only=True)
class BindMember(BridgeCommand):
    """Become the supervisor of a session that has none."""

    name = "bind_member"
    supervisor: PeerEndpoint = field(validator=_check_endpoint)
    """Who it is to be: the sender itself."""
    expected_peer_id: PeerId = field(converter=PeerId)
    """Who the member is."""
    expected_address: PeerAddress = field(converter=PeerAddress)
    """Where the member says that it is reached."""
    bootstrap_token: str = field(validator=_check_text, repr=False)
    """What `Session.issue_bootstrap_token` returned there."""


@frozen(kw_only=True)
class AuthorizeNextSupervisor(BridgeCommand):
    """Hand the member over to the next supervisor, or to the same one with a higher epoch."""

    name = "authorize_supervisor"
    next: PeerEndpoint = field(validator=_check_endpoint)
    """Who it is to be."""


@frozen(kw_only=True)
class RevokeOwnSupervision(BridgeCommand):
    """Give up the authority over the member."""

    name = "revoke_supervisor"


@frozen(kw_only=True)
class DeliverMemberInput(BridgeCommand):
    """Give the member's handler a message, once for each ``input_id``."""

    name = "deliver_member_input"
    input_id: str = field(validator=_check_text)
    """Under the same id nothing is delivered twice, however often it is sent; the message has it as its id."""
    content: Any = None
    """What the handler finds in ``run.message.body``."""


@frozen(kw_only=True)
class ObserveMember(BridgeCommand):
    """Ask how the member is."""

    name = "observe_member"


@frozen(kw_only=True)
class InterruptMember(BridgeCommand):
    """Cancel the run that goes on; it counts as an attempt, and the message is tried again after the back-off."""

    name = "interrupt_member"
    reason: str = field(default="", validator=_check_reason)
    """For the log."""


@frozen(kw_only=True)
class HardCancelMember(BridgeCommand):
    """Cancel the run that goes on and give its message up."""

    name = "hard_cancel_member"
    reason: str = field(default="", validator=_check_reason)
    """For the log."""


@frozen(kw_only=True)
class RetireMember(BridgeCommand):
    """Let the member finish what it has and take no new work."""

    name = "retire_member"


@frozen(kw_only=True)
class DestroyMember(BridgeCommand):
    """End the member for good."""

    name = "destroy_member"


@frozen(kw_only=True)
class WireMember(BridgeCommand):
    """Let the member trust a peer directly."""

    name = "wire_member"
    peer: PeerEndpoint = field(validator=_check_endpoint)
    """Whom."""


@frozen(kw_only=True)
class UnwireMember(BridgeCommand):
    """Let the member trust a peer directly no more."""

    name = "unwire_member"
    peer: PeerEndpoint = field(validator=_check_endpoint)
    """Whom, by its peer id."""


COMMANDS: Final[Mapping[str, type[BridgeCommand]]] = {
    command.name: command
    for command in (
        BindMember,
        AuthorizeNextSupervisor,
        RevokeOwnSupervision,
        DeliverMemberInput,
        ObserveMember,
        InterruptMember,
        HardCancelMember,
        RetireMember,
        DestroyMember,
        WireMember,
        UnwireMember,
    )
}
"""Every command, by its name on the way."""


# --- what is understood ----------------------------------------------------------------------------


@frozen(kw_only=True)
class Rejection:
    """The answer to a command that changes nothing."""

    cause: _Cause
    """Why."""
    detail: str = ""
    """What exactly; never what the caller sent."""
    epoch_floor: int | None = None
    """The highest epoch that was bound; told to those whose binding came to nothing."""

    def body(self) -> dict[str, Any]:
        """Return what the response says."""
        said: dict[str, Any] = {"cause": self.cause.value}
        if self.detail:
            said["detail"] = self.detail
        if self.epoch_floor is not None:
            said["epoch_floor"] = self.epoch_floor
        return said


@frozen
class UnfitPeer:
    """A command that is understood but for the peer it names; who sends it is checked first."""

    epoch: int
    """The command's epoch."""


_MALFORMED: Final = Rejection(cause=_Cause.UNSUPPORTED, detail="fields: one is malformed")
_ENDPOINTS: Final = {"supervisor", "next", "peer"}
_PEER_FIELDS: Final = frozenset({"name", "peer_id", "address", "signing_key"})


def parse_command(params: object) -> BridgeCommand | UnfitPeer | Rejection:
    """Understand what a request says: version, then command, then fields."""
    if not isinstance(params, Mapping):
        return Rejection(cause=_Cause.UNSUPPORTED, detail="params: a mapping is needed")
    version = params.get("protocol_version")
    if type(version) is not int or version != PROTOCOL_VERSION:
        return Rejection(
            cause=_Cause.UNSUPPORTED_PROTOCOL_VERSION, detail=f"protocol_version: {PROTOCOL_VERSION} is spoken"
        )
    name = params.get("command")
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        return Rejection(cause=_Cause.UNSUPPORTED, detail="command: not one of those that are known")
    return _parse_fields(command, params)


def _parse_fields(command: type[BridgeCommand], params: Mapping[Any, Any]) -> BridgeCommand | UnfitPeer | Rejection:
    known = attrs.fields_dict(command)
    if set(params) - {"command", "protocol_version", *known}:
        return Rejection(cause=_Cause.UNSUPPORTED, detail="fields: one is not known")
    values: dict[str, Any] = {}
    for name, attribute in known.items():
        if name in params:
            values[name] = params[name]
        elif attribute.default is attrs.NOTHING:
            return Rejection(cause=_Cause.UNSUPPORTED, detail=f"{name}: missing")
    for name in _ENDPOINTS & set(values):
        endpoint = _parse_endpoint(values[name])
        if endpoint is None:
            return _unfit(command, values["epoch"])
        values[name] = endpoint
    try:
        return command(**values)
    except (ValueError, TypeError):
        return _MALFORMED


def _unfit(command: type[BridgeCommand], epoch: Any) -> UnfitPeer | Rejection:
    if not issubclass(command, WireMember | UnwireMember):
        return Rejection(cause=_Cause.INVALID_SUPERVISOR_SPEC)
    try:
        require_epoch(epoch)
    except ValueError:
        return _MALFORMED
    return UnfitPeer(epoch)


def _parse_endpoint(said: object) -> PeerEndpoint | None:
    if not isinstance(said, Mapping) or set(said) != _PEER_FIELDS:
        return None
    try:
        return PeerEndpoint(
            name=said["name"],
            peer_id=said["peer_id"],
            address=said["address"],
            signing_key=bytes.fromhex(said["signing_key"]),
        )
    except (ValueError, TypeError, AttributeError):
        return None


# --- what is decided -------------------------------------------------------------------------------


@frozen(kw_only=True)
class Situation:
    """In what a command arrived."""

    state: SessionState
    """The session."""
    sender: PeerId
    """Who sent it, as the transport vouches for."""
    peer_id: PeerId
    """Who the session is to its peers."""
    address: PeerAddress | None
    """Where it is reached, as far as it knows."""


@frozen(kw_only=True)
class Acceptance:
    """A command passed its checks."""

    command: BridgeCommand
    """The command."""
    inputs: tuple[Input, ...] = ()
    """What it changes, in one step."""
    already: bool = False
    """Whether it was so before: a retry, which repairs what has come apart since."""


Decision: TypeAlias = Acceptance | Rejection


def decide(command: BridgeCommand | UnfitPeer, situation: Situation) -> Decision:
    """Make the command's checks, in their order (SPEC 7)."""
    match command:
        case BindMember():
            return _bind(command, situation)
        case AuthorizeNextSupervisor():
            return _authorize(command, situation)
        case RevokeOwnSupervision() if _was_revoked(command, situation):
            return Acceptance(command=command, already=True)
    refused = _gate(command.epoch, situation)
    return _behind_the_gate(command, situation) if refused is None else Rejection(cause=refused)


def _behind_the_gate(command: BridgeCommand | UnfitPeer, situation: Situation) -> Decision:
    match command:
        case UnfitPeer():
            return Rejection(cause=_Cause.INVALID_PEER_SPEC)
        case RevokeOwnSupervision():
            return Acceptance(command=command, inputs=(authority.RevokeSupervisor(situation.sender, command.epoch),))
        case WireMember() | UnwireMember():
            return _wire(command, situation)
        case RetireMember():
            return Acceptance(command=command, inputs=(authority.Retire(),))
        case _:
            return Acceptance(command=command)


def _gate(epoch: int, situation: Situation) -> _Cause | None:
    binding = situation.state.supervisor.binding
    if not isinstance(binding, Bound):
        return _Cause.NOT_BOUND
    if epoch != binding.epoch:
        return _Cause.STALE_SUPERVISOR
    return None if situation.sender == binding.peer_id else _Cause.SENDER_MISMATCH


def _first_failing(*checks: tuple[bool, _Cause]) -> _Cause | None:
    return next((cause for holds, cause in checks if not holds), None)


def _bind(command: BindMember, situation: Situation) -> Decision:
    supervisor = situation.state.supervisor
    binding, sender = supervisor.binding, situation.sender
    if isinstance(binding, Bound):
        same = binding.peer_id == command.supervisor.peer_id == sender and binding.epoch == command.epoch
        return Acceptance(command=command, already=True) if same else Rejection(cause=_Cause.ALREADY_BOUND)
    refused = _first_failing(
        (situation.address is not None and command.expected_address == situation.address, _Cause.ADDRESS_MISMATCH),
        (command.supervisor.peer_id == sender, _Cause.SENDER_MISMATCH),
        (command.expected_peer_id == situation.peer_id, _Cause.ADDRESS_MISMATCH),
        (is_token(supervisor.token_hash, command.bootstrap_token), _Cause.INVALID_BOOTSTRAP_TOKEN),
        (command.epoch > supervisor.epoch_floor, _Cause.STALE_SUPERVISOR),
    )
    if refused is not None:
        return Rejection(cause=refused)
    bind = authority.BindSupervisor(bound_by(command.supervisor, command.epoch))
    return Acceptance(command=command, inputs=(bind, authority.BootstrapTokenUsed()))


def _authorize(command: AuthorizeNextSupervisor, situation: Situation) -> Decision:
    supervisor = situation.state.supervisor
    binding = supervisor.binding
    if not isinstance(binding, Bound):
        return Rejection(cause=_Cause.NOT_BOUND)
    is_current = binding.peer_id == command.next.peer_id and binding.epoch == command.epoch
    if is_current and supervisor.in_force(situation.sender):
        return Acceptance(command=command, already=True)
    if situation.sender != binding.peer_id:
        return Rejection(cause=_Cause.SENDER_MISMATCH)
    if command.epoch <= supervisor.epoch_floor:
        return Rejection(cause=_Cause.STALE_SUPERVISOR)
    return Acceptance(command=command, inputs=(authority.AuthorizeSupervisor(bound_by(command.next, command.epoch)),))


def _was_revoked(command: RevokeOwnSupervision, situation: Situation) -> bool:
    supervisor = situation.state.supervisor
    return not isinstance(supervisor.binding, Bound) and supervisor.last_revoked == (situation.sender, command.epoch)


def _wire(command: WireMember | UnwireMember, situation: Situation) -> Decision:
    if situation.state.session.phase not in ACTIVE:
        return Rejection(cause=_Cause.NOT_IN_PHASE)
    peer = command.peer
    known = situation.state.peers.direct.get(peer.peer_id)
    change: Input
    if isinstance(command, WireMember):
        already, change = known == peer, authority.AddDirectPeerEndpoint(peer)
    else:
        already, change = known is None, authority.RemoveDirectPeerEndpoint(peer.peer_id)
    return Acceptance(command=command, inputs=() if already else (change,), already=already)


# --- what local calls share with commands ----------------------------------------------------------


def bound_by(supervisor: PeerEndpoint, epoch: int) -> Bound:
    """Make the binding of a supervisor."""
    return Bound(
        name=supervisor.name,
        peer_id=supervisor.peer_id,
        address=supervisor.address,
        signing_key=supervisor.signing_key,
        epoch=epoch,
    )


def token_hash(token: str) -> bytes:
    """Return what a session keeps of a bootstrap token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_token(expected: bytes | None, token: str) -> bool:
    """Say, in constant time, whether a token is the one that was issued."""
    return expected is not None and hmac.compare_digest(expected, token_hash(token))
