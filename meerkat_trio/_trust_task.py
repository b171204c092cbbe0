"""A session's reconciler as a task, which exists only while there is work.

It knows no session: it reads the state of the host it works for, and tells it what it observed, which decides.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from . import authority
from ._messages import TrustSource
from ._reconcile import Desired, Reconciler
from .authority import ObligationKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ._parts import SessionSettings
    from ._reconcile import Edge, Failure, Pass, Shown
    from ._waiters import Waiters
    from .abc import CommsRuntime
    from .authority import Input, PeerEndpoint, SessionState, Step

__all__ = ["PUBLISH_ATTEMPTS", "TrustHost", "TrustTask", "desired_edges", "is_final"]

_logger: Final = logging.getLogger("meerkat_trio.trust")

PUBLISH_ATTEMPTS: Final = 8
"""Attempts to store a supervisor's edge, after which the supervisor is given up (SPEC 3)."""

_PUBLISH: Final = ObligationKind.PUBLISH


class TrustHost(Protocol):
    """Whom the task works for."""

    settings: SessionSettings
    waiters: Waiters
    bound_comms: CommsRuntime | None
    trust_task: TrustTask | None

    @property
    def state(self) -> SessionState:
        """The session's current state."""

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept."""

    async def until_durable(self) -> None:
        """Wait until what was recorded is durable."""

    def apply(self, input_: Input) -> Step:
        """Apply what was observed."""

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives no longer than the session."""

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours."""


def desired_edges(state: SessionState) -> dict[Edge, PeerEndpoint]:
    """Return what a trust store ought to show, each edge on its own word (SPEC 8)."""
    return {
        (peer_id, source): endpoint
        for source, endpoints in (
            (TrustSource.SUPERVISOR, state.supervisor.endpoints),
            (TrustSource.DIRECT, state.peers.direct),
            (TrustSource.OVERLAY, state.peers.overlay),
        )
        for peer_id, endpoint in endpoints.items()
    }


def is_final(failure: Failure, attempts: int) -> bool:
    """Say whether nobody is to wait any longer for what has failed so often."""
    unfit = failure.edge is not None and isinstance(failure.cause, ValueError)
    return unfit or attempts >= PUBLISH_ATTEMPTS


@final
class TrustTask:
    """The reconciler of one session while it has work; without work, the host has none."""

    __slots__ = ("_host", "_is_busy", "_reconciler", "_revoked", "_scope", "last", "left")

    last: Pass | None
    """The pass that ended last."""
    left: tuple[Edge, ...]
    """The own edges that could not be removed when the session ended."""

    def __init__(self, host: TrustHost) -> None:
        self._host = host
        self._reconciler = Reconciler(self, host.settings.random)
        self._scope = trio.CancelScope()
        self._is_busy = False
        self._revoked: CommsRuntime | None = None
        self.last = None
        self.left = ()

    # --- work ---------------------------------------------------------------------------------------

    def request(self) -> None:
        """Bring the store to the newest desired set, or another store, soon."""
        self._reconciler.request()
        self._go_on()

    @property
    def request_number(self) -> int:
        """How many passes have been asked for."""
        return self._reconciler.requests

    def has_seen_to(self, request: int) -> bool:
        """Say whether a pass has ended that knew of this request."""
        return self._reconciler.has_seen_to(request)

    async def show(self) -> None:
        """Make one pass, or wait for the one that another task is about to make.

        A drain calls it before it serves: thus a binding costs no task.

        **Cancellation:** what is left to do, another task does.
        """
        reconciler = self._reconciler
        request = reconciler.request()
        if self._is_busy:
            await self._host.waiters.wait(lambda: True if reconciler.has_seen_to(request) else None)
        else:
            self._is_busy = True
            try:
                await reconciler.run_pass()
            finally:
                self._is_busy = False
                self._go_on()
                self._host.waiters.ask()
        # The drain that waited here may have been replaced in the moment in which it was woken.
        await trio.lowlevel.checkpoint_if_cancelled()

    def stop(self) -> None:
        """End the task, unless it is there to remove what is left."""
        self._scope.cancel()

    def revoke(self, state: SessionState) -> None:
        """Remove all own edges from the store, at most for the grace time, after which `left` names the others.

        Args:
            state: what the session wanted until now; named where the store cannot even be read.
        """
        self._revoked = self._host.bound_comms
        self.left = tuple(desired_edges(state))
        self._scope.cancel()
        self._host.start_child(self._revoke, trio.current_time() + self._host.settings.grace)

    def _go_on(self) -> None:
        """Have a task that works if there is work, and be gone if there is none."""
        host = self._host
        if self._revoked is None and not self._is_busy:
            if self._reconciler.has_work and host.bound_comms is not None:
                self._is_busy = True
                host.start_child(self._run)
            elif host.trust_task is self:
                host.trust_task = None

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._reconciler.run()
        except Exception as fault:  # noqa: BLE001 - a fault of ours, which is this session's alone
            self._host.contain(fault)
            return
        finally:
            self._is_busy = False
            self._host.waiters.ask()
        self._go_on()

    async def _revoke(self, deadline: float) -> None:
        reconciler = self._reconciler
        with trio.CancelScope(deadline=deadline, shield=True):
            # The pass that was under way is being cancelled, and may have stored one more edge.
            await self._host.waiters.wait(lambda: None if self._is_busy else True)
            reconciler.request()
            await reconciler.run()
        if reconciler.edges is not None:
            self.left = tuple(reconciler.edges)
        if self.left:
            _logger.warning("session %s: ended with %d edges left", self._host.state.session.session_id, len(self.left))

    # --- what the reconciler works for --------------------------------------------------------------

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept."""
        return self._host.is_recorded

    async def until_durable(self) -> None:
        """Wait until what was recorded is durable.

        **Cancellation:** nothing is lost.
        """
        await self._host.until_durable()

    def store(self) -> CommsRuntime | None:
        """Return whose trust store is meant now."""
        return self._host.bound_comms if self._revoked is None else self._revoked

    def desired(self) -> Desired:
        """Return the newest desired set: nothing, once the session lets go of its edges."""
        state = self._host.state
        return Desired(state.peers.projection_epoch, desired_edges(state) if self._revoked is None else {})

    def shown(self, edges: Mapping[Edge, Shown]) -> None:
        """Acknowledge what is owed and done: a supervisor's edge that stands as it should, or that is gone."""
        owed = self._host.state.supervisor.obligations
        if not owed:
            return
        wanted = self._host.state.supervisor.endpoints
        for kind, peer_id, epoch in tuple(owed):
            endpoint = edges.get((peer_id, TrustSource.SUPERVISOR))
            if kind is _PUBLISH:
                if endpoint is not None and endpoint == wanted.get(peer_id):
                    self._host.apply(authority.SupervisorTrustEdgePublished(peer_id, epoch))
            elif endpoint is None:
                self._host.apply(authority.SupervisorTrustEdgeRevoked(peer_id, epoch))

    def failed(self, failure: Failure) -> None:
        """Count an attempt for what is owed and failed."""
        reason = repr(failure.cause)
        for (kind, peer_id, epoch), attempts in tuple(self._host.state.supervisor.obligations.items()):
            if failure.edge not in {None, (peer_id, TrustSource.SUPERVISOR)}:
                continue
            if kind is _PUBLISH:
                final = is_final(failure, attempts + 1)
                if final:
                    session_id = self._host.state.session.session_id
                    _logger.warning("session %s: supervisor %s is given up: %s", session_id, peer_id, reason)
                self._host.apply(
                    authority.SupervisorTrustEdgePublishFailed(peer_id=peer_id, epoch=epoch, reason=reason, final=final)
                )
            else:
                self._host.apply(authority.SupervisorTrustEdgeRevokeFailed(peer_id=peer_id, epoch=epoch, reason=reason))

    def pass_ended(self, ended: Pass) -> None:
        """Answer those who wait for it."""
        self.last = ended
        self._host.waiters.ask()
