"""What a user may implement: the contracts of a session with its transport, and of a machine with its journal.

`meerkat_trio.testing.check_comms_runtime` checks a transport against every rule stated here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

import trio
from attrs import frozen

from .authority import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from ._messages import Envelope, Receipt, TrustSource
    from .authority import CommsRuntimeId, DropReason, PeerAddress, PeerEndpoint, PeerId, SessionId

__all__ = [
    "ALL_LANES",
    "CONTROL_LANE",
    "NO_LANES",
    "Change",
    "Claim",
    "CommsRuntime",
    "CommsStatistics",
    "Delete",
    "Entry",
    "Forget",
    "Journal",
]

ALL_LANES: Final = frozenset({Lane.CONTROL, Lane.WORK})
CONTROL_LANE: Final = frozenset({Lane.CONTROL})
NO_LANES: Final[frozenset[Lane]] = frozenset()


@frozen(kw_only=True)
class CommsStatistics:
    """What a comms runtime holds at one moment."""

    control_waiting: int
    """Envelopes accepted on the control lane and not yet claimed."""
    work_waiting: int
    """Envelopes accepted on the work lane and not yet claimed."""
    parked_senders: int
    """Senders that wait for room in either lane."""
    claim_open: bool
    """Whether an envelope is claimed and neither committed nor put back."""


class Claim(Protocol):
    """The head of an inbox, taken but not yet removed (SPEC 1, 9).

    Use it with ``with``: leaving without `commit` puts the envelope back at the head of its lane.
    A runtime has at most one open claim.
    """

    @property
    def envelope(self) -> Envelope:
        """The claimed envelope."""

    def commit(self, dropped: DropReason | None = None) -> None:
        """Remove the envelope for good and settle its receipt: ADMITTED, or DROPPED with a reason.

        Raises:
            trio.ClosedResourceError: the claim was committed or left before.
        """

    def __enter__(self) -> Claim: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class CommsRuntime(ABC):
    """A session's transport: an inbox with two bounded lanes, an outgoing side and a trust store.

    Whoever makes a comms runtime closes it; a machine never does.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def runtime_id(self) -> CommsRuntimeId:
        """The logical id: whom this transport serves; the same for every rebuilt instance (SPEC 3)."""

    @property
    @abstractmethod
    def peer_id(self) -> PeerId:
        """Who this side is to its peers; always the id of `public_key`."""

    @property
    @abstractmethod
    def public_key(self) -> bytes:
        """This side's public key, 32 bytes."""

    @property
    @abstractmethod
    def advertised_address(self) -> PeerAddress:
        """Where peers reach this side."""

    @abstractmethod
    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        """Wait for an envelope of one of ``lanes`` and claim it: control first, then in order of arrival.

        Raises:
            trio.BusyResourceError: another task is claiming, or another claim of this instance is open.
            trio.ClosedResourceError: the runtime is closed, or was taken over by another instance.

        **Cancellation:** nothing is lost: an envelope leaves the inbox at `Claim.commit` alone. A claim
        granted to a task that is cancelled before it wakes is put back at the head.
        """

    async def claim_untaken(self, take: Callable[[Envelope], bool]) -> Claim:  # noqa: ARG002 - for those who override it
        """Wait for an envelope of any lane as `claim` does, but for those that ``take`` admits meanwhile.

        A runtime may override it where a message can reach its recipient in the call that sends it, which spares the
        drain a wake-up. While this waits, and nothing is before an envelope, ``take`` may be called with it, from
        any task and without a checkpoint: True means that it is admitted, and its receipt ADMITTED; False that it has
        to be claimed.

        Raises:
            trio.BusyResourceError, trio.ClosedResourceError: as for `claim`.

        **Cancellation:** as for `claim`; from the moment of the cancellation on ``take`` is not called.
        """
        return await self.claim()

    @abstractmethod
    def claim_nowait(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        """Claim an envelope that is there already.

        Raises:
            trio.WouldBlock: `claim` would have to wait.
            trio.BusyResourceError: another task is claiming, or another claim of this instance is open.
            trio.ClosedResourceError: as for `claim`.
        """

    def claim_ready(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim | None:
        """Claim an envelope that is there already, or return None: `claim_nowait` without the exception.

        A runtime may override it where that is faster: a drain calls it after every envelope. Asked for `NO_LANES` it
        claims nothing, and says by raising that nothing could be claimed; a session asks so before it attaches.

        Raises:
            trio.BusyResourceError, trio.ClosedResourceError: as for `claim_nowait`.
        """
        try:
            return self.claim_nowait(lanes=lanes)
        except trio.WouldBlock:
            return None

    @abstractmethod
    async def send(self, envelope: Envelope) -> Receipt:
        """Send an envelope to its recipient, waiting while there is no room.

        Envelopes of one sender in one lane stay in the order in which they were sent. A recipient that is
        closed, or becomes so while this waits, gives a receipt that is DROPPED(CLOSED).

        Raises:
            ValueError: the envelope's sender is not this side.
            trio.ClosedResourceError: this runtime is closed.

        **Cancellation:** cancelled, the envelope was not sent; returned, it was accepted and survives
        rebinds of the recipient. Any number of tasks may send at once.
        """

    @abstractmethod
    def send_nowait(self, envelope: Envelope) -> Receipt:
        """Send an envelope for which there is room.

        Raises:
            trio.WouldBlock: there is no room, or others wait for room in this lane.
            ValueError, trio.ClosedResourceError: as for `send`.
        """

    @abstractmethod
    def take_over(self, previous: CommsRuntime) -> None:
        """Move everything ``previous`` has accepted into this runtime, in front of its own, at once.

        The queue itself moves: open claim, dedupe window, parked senders in their order, receipts owed.
        Claims made on this side wait until an open claim of the previous one is closed. Afterwards
        ``previous`` refuses with CLOSED and may be closed at any time.

        Raises:
            TypeError: ``previous`` is of a class this one cannot take over; nothing has changed.
            trio.ClosedResourceError: this runtime is closed; nothing has changed.
        """

    @abstractmethod
    def is_manually_trusted(self, peer_id: PeerId) -> bool:
        """Say whether ``peer_id`` has an edge of source MANUAL in the trust store right now."""

    @abstractmethod
    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        """Add or replace the edge (``endpoint.peer_id``, ``source``) in the trust store.

        Raises:
            ValueError: this endpoint can never be stored here; a session then gives a supervisor up at once. Whatever
                else is raised counts as passing.

        **Cancellation:** the edge is there or it is not; calling again is harmless.
        """

    @abstractmethod
    async def remove_trusted_peer(self, peer_id: PeerId, source: TrustSource) -> bool:
        """Remove the edge (``peer_id``, ``source``); say whether it was there.

        **Cancellation:** the edge is gone or it is not; calling again is harmless.
        """

    @abstractmethod
    async def trusted_peers(self) -> Mapping[tuple[PeerId, TrustSource], PeerEndpoint]:
        """Return a snapshot of the trust store.

        **Cancellation:** nothing is lost.
        """

    @abstractmethod
    def statistics(self) -> CommsStatistics:
        """Return a frozen snapshot of queue lengths and counters."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close: what was accepted and not admitted is DROPPED(CLOSED), parked senders and claimers wake.

        Idempotent. What another instance has taken over stays where it is.

        **Cancellation:** the runtime is closed in any case.
        """


@frozen
class Entry:
    """One thing that a session has to remember. As a change: set it, in the place of one with this kind and key."""

    kind: str
    """What it is: a short word of the machine's."""
    key: str
    """Which one of its kind; unique within session and kind, may be empty."""
    position: int
    """Its place among the session's entries, from 0 up."""
    value: bytes
    """What there is to know; nothing that a journal would understand."""


@frozen
class Delete:
    """Remove the entry of this kind and key, if it is there."""

    kind: str
    """What it is."""
    key: str
    """Which one of its kind."""


@frozen
class Forget:
    """Remove every entry of the session."""


Change: TypeAlias = Entry | Delete | Forget
"""One change of what is remembered of a session."""


class Journal(ABC):
    """What sessions have to remember, kept where it outlives the process: entries by session, kind and key.

    A machine opened with a journal enters it, restores what it holds, appends to it, and leaves it. A journal knows
    nothing of what an entry means.
    """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Take the journal for this machine alone, and make it if it is not there.

        Raises:
            JournalRefused: it is damaged, of another program or version, or in use; it is left as it is.
            JournalFailed: it cannot be made or read.

        **Cancellation:** it is as it was, and free.
        """

    @abstractmethod
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Let go of it, in a bounded time. What was appended stays.

        **Cancellation:** it is free in any case. Until this is called, what is appended is written, however the tasks
        around are being cancelled: a machine that is cancelled still has something to write.
        """

    @abstractmethod
    async def restore(self, session_id: SessionId | None = None) -> Mapping[SessionId, Sequence[Entry]]:
        """Return what is remembered of one session, or of every session that this machine has to take up at once.

        The entries of a session are in the order of their positions. A session without entries is left out.

        Raises:
            JournalRefused: it is damaged.
            JournalFailed: it cannot be read.

        **Cancellation:** nothing has changed.
        """

    @abstractmethod
    async def append(self, changes: Mapping[SessionId, Sequence[Change]]) -> frozenset[SessionId]:
        """Make changes, in their order; once this returns they outlive the process.

        Those of one session are made together or not at all; so are those of all sessions, but for the ones returned:
        sessions that have another home now, of which nothing was written (a journal of one machine has none).

        Raises:
            JournalFailed: nothing was written; it may be tried again.

        **Cancellation:** all was written or nothing. Any number of tasks may append at once, each for other sessions.
        """

    def is_doubtful(self, session_id: SessionId) -> bool:  # noqa: ARG002 - for those who have doubts
        """Say whether a session may have another home by now, as far as can be told without asking.

        Before anything is begun of such a session, an append without changes finds out. A journal of one machine has no
        doubts.
        """
        return False
