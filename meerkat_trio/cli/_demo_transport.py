"""What the demo's messages go over: a memory network, or sockets; and transports that break when they are told to."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import trio

from ..abc import ALL_LANES, CommsRuntime
from ..comms import MemoryComms, MemoryNetwork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from .._messages import Envelope, Receipt
    from ..abc import Claim
    from ..authority import Lane, PeerEndpoint, PeerId

__all__ = ["TRANSPORTS", "FragileComms", "Lines", "SenderComms"]

_RUNTIME_ID: Final = "session"
"""The same for every transport of a session: each session has a network of its own."""
_LANE: Final = 8  # small, so that senders wait often


class SenderComms(Protocol):
    """What a sender of the demo sends by."""

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""

    def endpoint(self) -> PeerEndpoint:
        """Return it as others trust it."""

    def envelope(self, recipient: PeerId, body: Any = None) -> Envelope:
        """Make an envelope."""

    async def send(self, envelope: Envelope) -> Receipt:
        """Send one."""


class _Breaking:
    """Breaks when it is told to: the drain's look into the inbox raises, once."""

    _is_breaking = False
    _looking: trio.CancelScope | None = None

    def break_down(self) -> None:
        """Break, also if the drain is waiting for a message right now."""
        self._is_breaking = True
        if self._looking is not None:
            self._looking.cancel()

    async def claim(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim:
        """Break if told to, before or meanwhile, else claim.

        **Cancellation:** nothing is lost.
        """
        self._break_if_told()
        with trio.CancelScope() as scope:
            self._looking = scope
            try:
                claim: Claim = await super().claim(lanes=lanes)  # type: ignore[misc]
                return claim
            finally:
                self._looking = None
        self._break_if_told()
        raise RuntimeError("only `break_down` cancels a look")

    def claim_ready(self, *, lanes: frozenset[Lane] = ALL_LANES) -> Claim | None:
        """Break if told to, else claim."""
        self._break_if_told()
        claim: Claim | None = super().claim_ready(lanes=lanes)  # type: ignore[misc]
        return claim

    def _break_if_told(self) -> None:
        if self._is_breaking:
            self._is_breaking = False
            raise ConnectionError("the transport broke")


class FragileComms(CommsRuntime, ABC):
    """A session's transport, as who breaks it knows it."""

    __slots__ = ()

    @abstractmethod
    def break_down(self) -> None:
        """Break, also if the drain is waiting for a message right now."""


class Lines(Protocol):
    """What connects one session with its senders."""

    async def sender(self, number: int) -> SenderComms:
        """Make a sender's transport."""

    async def session(self) -> FragileComms:
        """Make a new transport of the session's logical id; senders that are there find it."""


class _FragileMemoryComms(_Breaking, MemoryComms, FragileComms):
    """In memory."""


class _MemoryLines:
    def __init__(self) -> None:
        self._network = MemoryNetwork()

    async def sender(self, number: int) -> MemoryComms:
        return MemoryComms(self._network, f"sender-{number}")

    async def session(self) -> _FragileMemoryComms:
        return _FragileMemoryComms(self._network, _RUNTIME_ID, work_lane=_LANE)


@asynccontextmanager
async def _in_memory() -> AsyncIterator[_MemoryLines]:
    yield _MemoryLines()


@asynccontextmanager
async def _over_sockets(address: str) -> AsyncIterator[Lines]:
    # An extra: who runs the demo in memory need not have it.
    from ..comms import Identity, SocketComms, SocketLimits, SocketNetwork  # noqa: PLC0415

    class FragileSocketComms(_Breaking, SocketComms, FragileComms):
        """Over sockets."""

    class SocketLines:
        def __init__(self, network: SocketNetwork) -> None:
            self._network = network
            self._identity = Identity.generate()
            self._senders: list[SocketComms] = []
            self._listens = False

        async def sender(self, number: int) -> SocketComms:
            sender = await self._network.open(Identity.generate(), runtime_id=f"sender-{number}")
            self._senders.append(sender)
            return sender

        async def session(self) -> FragileSocketComms:
            comms = await self._network.open(
                self._identity,
                runtime_id=_RUNTIME_ID,
                # What is rebuilt takes the listener over.
                listen=None if self._listens else address,
                work_lane=_LANE,
                kind=FragileSocketComms,
            )
            self._listens = True
            for sender in self._senders:
                sender.trust(comms.endpoint())
            return cast("FragileSocketComms", comms)

    async with SocketNetwork(SocketLimits(unanswered=_LANE)) as network:
        yield SocketLines(network)


@asynccontextmanager
async def _over_unix_sockets() -> AsyncIterator[Lines]:
    with tempfile.TemporaryDirectory() as directory:
        async with _over_sockets(f"uds://{Path(directory) / 'session'}") as lines:
            yield lines


def _over_tcp() -> AbstractAsyncContextManager[Lines]:
    return _over_sockets("tcp://127.0.0.1:0")


TRANSPORTS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Lines]]]] = {
    "memory": _in_memory,
    "tcp": _over_tcp,
    "uds": _over_unix_sockets,
}
"""By name, what makes the lines of one session."""
