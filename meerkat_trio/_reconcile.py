"""The reconciler: brings the edges of a trust store to the desired ones (SPEC 8).

It knows no session: whom it works for says which store is meant, what is desired, and takes what was observed.

1. Level-triggered. Before each single change it looks whether anything was requested since it made its plan, and if so
   plans anew from the newest desired set. So an older set never has the last word, and a burst costs one pass.
2. It touches the edges of its own sources alone, by peer id and source: an edge whose fields differ is replaced.
3. It adds before it removes.
4. One edge that fails does not stop the others. Each is tried once in a pass and then waits out a back-off of its own;
   so does the reading of the store.
5. What a failed change has left behind is not known: such an edge is neither taken for shown nor for gone.
6. One task works at a time: the one that calls `Reconciler.run` or `Reconciler.run_pass`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import trio
from attrs import field, frozen

from ._cancelled import is_being_cancelled, split_cancelled
from ._exceptions import AddTrustFailed, ReconcileError, RemoveTrustFailed, TrustSnapshotUnavailable
from ._messages import TrustSource
from ._policy import Backoff
from .authority import PeerEndpoint, PeerId

if TYPE_CHECKING:
    from ._policy import Random
    from .abc import CommsRuntime

__all__ = [
    "CALL_LIMIT",
    "OWN_SOURCES",
    "UNSURE",
    "Desired",
    "Edge",
    "Failure",
    "Pass",
    "Reconciler",
    "Shown",
    "TrustHost",
]

_logger: Final = logging.getLogger("meerkat_trio.reconcile")

OWN_SOURCES: Final = frozenset({TrustSource.DIRECT, TrustSource.OVERLAY, TrustSource.SUPERVISOR})
"""The sources whose edges are the session's; MANUAL ones are somebody else's."""
CALL_LIMIT: Final = 5.0
"""Seconds after which a call of the trust store counts as failed."""
_BACKOFF: Final = Backoff()


class _Unsure(Enum):
    UNSURE = "unsure"


UNSURE: Final = _Unsure.UNSURE
"""Stands for what an edge says, and whether it is there at all, after a change of it has failed."""

Edge: TypeAlias = tuple[PeerId, TrustSource]
Shown: TypeAlias = PeerEndpoint | _Unsure
_Change: TypeAlias = tuple[Edge, PeerEndpoint | None]
"""What an edge is to say; None for one that is to go."""


@frozen
class Desired:
    """What the store ought to show of the own sources."""

    epoch: int
    """The epoch of the session's peers that this is."""
    edges: Mapping[Edge, PeerEndpoint]
    """The edges."""


@frozen(kw_only=True)
class Failure:
    """An edge, or a whole store, that could not be brought to what is desired; it is tried again."""

    edge: Edge | None
    """The edge; None if the store could not even be read."""
    endpoint: PeerEndpoint | None
    """What was to be stored; None if the edge was to be removed."""
    cause: BaseException
    """What the store raised."""
    attempts: int
    """How often in a row."""
    due: float
    """When it is tried again."""
    runtime_id: str
    """Whose store."""

    def error(self) -> ReconcileError:
        """Make the error for one of those who wait."""
        if self.edge is None:
            return TrustSnapshotUnavailable(self.runtime_id, self.cause)
        kind = RemoveTrustFailed if self.endpoint is None else AddTrustFailed
        peer_id, source = self.edge
        return kind(self.runtime_id, self.cause, peer_id, source.value)


@frozen(kw_only=True)
class Pass:
    """A pass that has ended, whatever came of it."""

    store: CommsRuntime = field(eq=False)
    """Over which store."""
    epoch: int
    """The epoch that the store shows, but for what failed."""
    failures: Mapping[Edge | None, Failure]
    """What failed and is tried again; under None, that the store could not be read, so that nothing is known."""


class TrustHost(Protocol):
    """Whom the reconciler works for."""

    def store(self) -> CommsRuntime | None:
        """Return whose trust store is meant now."""

    def desired(self) -> Desired:
        """Return the newest desired set."""

    def shown(self, edges: Mapping[Edge, Shown]) -> None:
        """Take note of what the store shows, or may show, of the own sources."""

    def failed(self, failure: Failure) -> None:
        """Take note of a failure."""

    def pass_ended(self, ended: Pass) -> None:
        """Take note that a pass has ended."""

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept."""

    async def until_durable(self) -> None:
        """Wait until what is desired is on record: a store is not to show what another process will not know of."""


@final
class Reconciler:
    """The reconciler of one session. After each change of the desired set or the store, say `request`."""

    __slots__ = ("_failures", "_host", "_planned", "_random", "_scope", "_sleeping", "_store", "edges", "requests")

    requests: int
    """How often something was requested."""
    edges: dict[Edge, Shown] | None
    """The own edges that the store shows or may show; None while that is unknown."""

    def __init__(self, host: TrustHost, random: Random) -> None:
        self._host = host
        self._random = random
        self._failures: dict[Edge | None, Failure] = {}
        self._store: CommsRuntime | None = None
        self._planned = 0
        self._scope: trio.CancelScope | None = None
        self._sleeping = False
        self.requests = 0
        self.edges = None

    @property
    def has_work(self) -> bool:
        """Whether something was requested that no pass has seen to, or is to be tried again."""
        return self.requests != self._planned or bool(self._failures)

    def has_seen_to(self, request: int) -> bool:
        """Say whether a pass has ended that knew of this request."""
        return self._planned >= request

    def request(self) -> int:
        """Ask for a pass; return the number of this request."""
        self.requests += 1
        if self._scope is not None and (self._sleeping or self._host.store() is not self._store):
            self._scope.cancel()
        return self.requests

    async def run(self) -> None:
        """Make passes until there is nothing to do, or no store.

        **Cancellation:** each edge is stored or not, removed or not; what is still to be done another run does.
        """
        while self.has_work and self._host.store() is not None:
            with trio.CancelScope() as self._scope:
                if self.requests == self._planned:
                    self._sleeping = True
                    await trio.sleep_until(min(failure.due for failure in self._failures.values()))
                self._sleeping = False
                await self.run_pass()
            self._scope = None
            self._sleeping = False

    async def run_pass(self) -> None:
        """Make one pass over the present store, if there is one.

        **Cancellation:** as `run`.
        """
        host = self._host
        store = host.store()
        if store is None:
            return
        if store is not self._store:
            # What another instance had refused says nothing of this one.
            self._store = store
            self._failures = {}
        self.edges = None
        requests, epoch = self.requests, host.desired().epoch
        snapshot, error = await _attempt(store.trusted_peers)
        if host.store() is not store:
            return
        if snapshot is None:
            known = self.requests == requests
            self._fail(store, None, None, error or TypeError("trusted_peers returned nothing"))
            # What the failure itself has changed needs no look at once.
            self._planned = self.requests if known else requests
            host.pass_ended(Pass(store=store, epoch=epoch, failures=dict(self._failures)))
            return
        self._failures.pop(None, None)
        self.edges = {edge: endpoint for edge, endpoint in snapshot.items() if edge[1] in OWN_SOURCES}
        tried: set[_Change] = set()
        while host.store() is store:
            if host.is_recorded:
                await host.until_durable()
            shown = await self._converge(store, tried)
            if shown is not None:
                self._planned = self.requests
                host.pass_ended(Pass(store=store, epoch=shown, failures=dict(self._failures)))
                return

    async def _converge(self, store: CommsRuntime, tried: set[_Change]) -> int | None:
        """Carry out a plan; return its epoch, None if something was requested meanwhile."""
        host = self._host
        # Also what nothing is to be done for: an edge that is owed to be gone may never have been there.
        host.shown(self.edges or {})
        requests, desired = self.requests, host.desired()
        for edge, endpoint in self._plan(desired, tried):
            if self.requests != requests:
                return None
            error = await self._carry_out(store, edge, endpoint)
            if host.store() is not store or self.edges is None:
                return None
            if error is not None:
                tried.add((edge, endpoint))
                # It may have been done all the same: wanted no more, or again, it is not to be overlooked.
                self.edges[edge] = UNSURE
                self._fail(store, edge, endpoint, error)
                continue
            self._failures.pop(edge, None)
            if endpoint is None:
                self.edges.pop(edge, None)
            else:
                self.edges[edge] = endpoint
            host.shown(self.edges)
        return desired.epoch if self.requests == requests else None

    async def _carry_out(self, store: CommsRuntime, edge: Edge, endpoint: PeerEndpoint | None) -> BaseException | None:
        peer_id, source = edge
        if endpoint is None:
            return (await _attempt(lambda: store.remove_trusted_peer(peer_id, source)))[1]
        return (await _attempt(lambda: store.add_trusted_peer(endpoint, source)))[1]

    def _plan(self, desired: Desired, tried: set[_Change]) -> list[_Change]:
        """List what differs: additions, then removals; each time what has not failed yet before what has."""
        shown, wanted = self.edges or {}, desired.edges
        differing: list[_Change] = [
            *((edge, endpoint) for edge, endpoint in wanted.items() if shown.get(edge) != endpoint),
            *((edge, None) for edge in shown if edge not in wanted),
        ]
        changes = set(differing)
        # What is no longer to be done, or in another way, has not failed.
        self._failures = {
            edge: f for edge, f in self._failures.items() if edge is None or (edge, f.endpoint) in changes
        }
        now = trio.current_time()
        plan = [
            change
            for change in differing
            if (failure := self._failures.get(change[0])) is None or (failure.due <= now and change not in tried)
        ]
        plan.sort(key=lambda change: (change[1] is None, change[0] in self._failures))
        return plan

    def _fail(
        self, store: CommsRuntime, edge: Edge | None, endpoint: PeerEndpoint | None, error: BaseException
    ) -> None:
        earlier, now = self._failures.get(edge), trio.current_time()
        if earlier is not None and earlier.due > now:
            # Asked for before its time: no attempt of its own, so that a burst of requests does not use them up.
            return
        attempts = 1 if earlier is None else earlier.attempts + 1
        failure = self._failures[edge] = Failure(
            edge=edge,
            endpoint=endpoint,
            cause=error,
            attempts=attempts,
            due=now + _BACKOFF.delay(attempts, self._random),
            runtime_id=store.runtime_id,
        )
        _logger.warning("%s", failure.error())
        self._host.failed(failure)


async def _attempt(call: Callable[[], Awaitable[Any]]) -> tuple[Any, BaseException | None]:
    """Call the store; return what it returned and what it raised, its own time-out included."""
    try:
        # `fail_after` costs twice as much, and every rebind comes by here.
        with trio.CancelScope(deadline=trio.current_time() + CALL_LIMIT):
            return await call(), None
    except BaseException as error:  # noqa: ASYNC103 - a Cancelled of another task is a failure
        cancelled, rest = split_cancelled(error)
        if not isinstance(rest, Exception | None):
            raise
        if cancelled is not None and is_being_cancelled():
            raise cancelled from None  # noqa: ASYNC104 - what of it is Cancelled
        return None, error  # noqa: ASYNC104 - a Cancelled of another task is a failure
    return None, trio.TooSlowError(f"no answer within {CALL_LIMIT:g} s")
