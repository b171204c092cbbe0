"""What travels between peers: envelopes, receipts, trust sources.

Values and small handles only; no queue, no transport, no policy.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, final

import trio
from attrs import field, frozen

from .authority import (
    BRIDGE_INTENT,
    CorrelationId,
    DropReason,
    EnvelopeKind,
    Lane,
    MessageId,
    PeerId,
    ResponseStatus,
)

__all__ = ["LOCAL_PEER_ID", "Envelope", "Receipt", "ReceiptStatus", "TrustSource"]

LOCAL_PEER_ID: Final = PeerId("6d656572-6b61-7450-6565-724964300000")
"""The sender and recipient of messages that never saw a transport; no key belongs to it."""


class TrustSource(Enum):
    """On whose word a peer is trusted; each source owns its own edges (SPEC 8)."""

    MANUAL = "manual"
    DIRECT = "direct"
    OVERLAY = "overlay"
    SUPERVISOR = "supervisor"

    __hash__: Callable[[object], int] = object.__hash__  # type: ignore[assignment]


class ReceiptStatus(Enum):
    """How far an accepted envelope has come."""

    QUEUED = "queued"
    ADMITTED = "admitted"
    DROPPED = "dropped"

    __hash__: Callable[[object], int] = object.__hash__  # type: ignore[assignment]


# Looking a member up in its enumeration costs a third of a whole receipt.
_QUEUED: Final = ReceiptStatus.QUEUED
_ADMITTED: Final = ReceiptStatus.ADMITTED
_DROPPED: Final = ReceiptStatus.DROPPED


@frozen(kw_only=True)
class Envelope:
    """One message between two peers.

    Raises:
        ValueError: a field is malformed, or the fields do not fit the kind.
    """

    id: MessageId
    """Unique per sender; a second envelope with the same id is a DUPLICATE."""
    sender: PeerId = field(converter=PeerId)
    """Who sends it; the transport vouches for it."""
    recipient: PeerId = field(converter=PeerId)
    """Who it is for."""
    kind: EnvelopeKind = EnvelopeKind.MESSAGE
    """What it is."""
    body: Any = field(default=None, hash=False)
    """What it says; what a transport cannot carry it refuses with MALFORMED."""
    intent: str | None = None
    """What a request asks for."""
    correlation: CorrelationId | None = None
    """Ties a response to its request."""
    status: ResponseStatus | None = None
    """What a response says of its request."""
    lane: Lane = field(init=False, eq=False)
    """Control or work; follows from kind and intent, so no sender can choose it."""

    key: str = field(init=False, eq=False, repr=False)
    """Sender and id in one text: what tells it from every other envelope. Peer ids are all of one length."""

    @key.default
    def _key_of_sender_and_id(self) -> str:
        return f"{self.sender}{self.id}"

    @lane.default
    def _lane_of_kind(self) -> Lane:
        if self.kind is EnvelopeKind.MESSAGE:
            return Lane.WORK
        if self.kind is EnvelopeKind.REQUEST and self.intent != BRIDGE_INTENT:
            return Lane.WORK
        return Lane.CONTROL

    def __attrs_post_init__(self) -> None:
        if not self.id or not isinstance(self.id, str):
            raise ValueError(f"id: a text that is not empty is needed, not {self.id!r}")
        _require("kind", self.kind, EnvelopeKind)
        for name, text in (("intent", self.intent), ("correlation", self.correlation)):
            if text is not None:
                _require(name, text, str)
        if self.status is not None:
            _require("status", self.status, ResponseStatus)
        is_request = self.kind is EnvelopeKind.REQUEST
        is_response = self.kind is EnvelopeKind.RESPONSE
        if is_request != (self.intent is not None):
            raise ValueError(f"intent: a {self.kind.value} has {'an' if is_request else 'no'} intent")
        if (is_request or is_response) != (self.correlation is not None):
            raise ValueError(f"correlation: does not fit a {self.kind.value}")
        if is_response != (self.status is not None):
            raise ValueError(f"status: does not fit a {self.kind.value}")


def _require(name: str, value: object, wanted: type) -> None:
    if not isinstance(value, wanted):
        raise ValueError(f"{name}: {wanted.__name__} is needed, not {value!r}")  # noqa: TRY004 - one kind of error for all


@final
class Receipt:
    """What became of an envelope that a comms runtime has accepted.

    It starts as QUEUED, survives rebinds, and is settled once, as ADMITTED or DROPPED.
    """

    __slots__ = ("_settled", "_told", "reason", "status")

    status: ReceiptStatus
    reason: DropReason | None
    """Why it was dropped; None otherwise."""

    def __init__(self) -> None:
        self.status = _QUEUED
        self.reason = None
        self._settled: trio.Event | None = None
        self._told: Callable[[Receipt], None] | None = None

    @classmethod
    def admitted(cls) -> Receipt:
        """Make a receipt for an envelope that was admitted at once."""
        receipt = cls()
        receipt.settle(None)
        return receipt

    @classmethod
    def dropped(cls, reason: DropReason) -> Receipt:
        """Make a receipt for an envelope that was refused at once."""
        receipt = cls()
        receipt.settle(reason)
        return receipt

    def settle(self, reason: DropReason | None) -> None:
        """Settle the receipt: ADMITTED for None, else DROPPED. For comms runtimes; the first word stands."""
        if self.status is not _QUEUED:
            return
        self.status = _ADMITTED if reason is None else _DROPPED
        self.reason = reason
        if self._settled is not None:
            self._settled.set()
        if self._told is not None:
            self._told(self)

    def tell(self, told: Callable[[Receipt], None]) -> None:
        """Call ``told`` once the receipt is settled, at once if it is. For comms runtimes; the last call counts."""
        if self.status is _QUEUED:
            self._told = told
        else:
            told(self)

    async def wait(self) -> ReceiptStatus:
        """Wait until the envelope was admitted or dropped, and say which.

        **Cancellation:** nothing is lost; any number of tasks may wait, any number of times.
        """
        if self.status is not _QUEUED:
            await trio.lowlevel.checkpoint()
            return self.status
        if self._settled is None:
            self._settled = trio.Event()
        await self._settled.wait()
        return self.status

    def __repr__(self) -> str:
        reason = f" ({self.reason.value})" if self.reason is not None else ""
        return f"<Receipt {self.status.value}{reason}>"
