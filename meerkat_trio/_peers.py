"""The calls of a session about trust: its peers, its own endpoint, its supervisor.

What they change is committed at once; the session's reconciler stores it, and these calls only wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from . import authority
from ._bridge import bound_by, is_token, require_epoch, token_hash
from ._calls import SessionCalls
from ._exceptions import BootstrapTokenRefused
from ._messages import TrustSource
from ._reports import ReconcileReport, SupervisorReport
from .authority import PeerEndpoint, PeerId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._reconcile import Edge, Pass
    from .authority import Input, Step

__all__ = ["TrustCalls"]

T = TypeVar("T")


class TrustCalls(SessionCalls):
    """The part of `Session` that is about trust."""

    __slots__ = ()

    # --- peers --------------------------------------------------------------------------------------

    async def add_direct_peer(self, endpoint: PeerEndpoint) -> ReconcileReport:
        """Trust a peer directly, or replace what was known of it, and wait until the trust store shows it (SPEC 8).

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: the very same endpoint is there already, or the session takes no new work.
            AddTrustFailed, TrustSnapshotUnavailable: the store does not show it. The change stands and is tried again.
            trio.ClosedResourceError: the machine closed while this waited.
            TypeError: ``endpoint`` is no `PeerEndpoint`.

        **Cancellation:** before the change nothing has happened; while this waits for the store, the change stands.
        Any number of tasks may change the peers at once: the newest set is what the store comes to show.
        """
        require_endpoint("endpoint", endpoint)
        edge = (endpoint.peer_id, TrustSource.DIRECT)
        return await self._change_peers(authority.AddDirectPeerEndpoint(endpoint), lambda failed: failed == edge)

    async def remove_direct_peer(self, peer_id: PeerId) -> ReconcileReport:
        """Trust a peer directly no more, and wait until the trust store shows it; other sources keep their edges.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: it is not among the direct peers, or the session takes no new work.
            RemoveTrustFailed, TrustSnapshotUnavailable: the store does not show it. The change stands and is tried
                again.
            trio.ClosedResourceError: the machine closed while this waited.
            ValueError: ``peer_id`` is not the id of a peer.

        **Cancellation:** as `add_direct_peer`.
        """
        edge = (PeerId(peer_id), TrustSource.DIRECT)
        return await self._change_peers(authority.RemoveDirectPeerEndpoint(edge[0]), lambda failed: failed == edge)

    async def apply_mob_overlay(self, epoch: int, endpoints: Iterable[PeerEndpoint]) -> ReconcileReport:
        """Replace the peers that the mob contributes, and wait until the trust store shows them (SPEC 3, "Peers").

        Args:
            epoch: above that of the overlay there is, else it is refused.
            endpoints: the whole new set, each peer id once.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: the epoch is not above the overlay's, or the session takes no new work.
            AddTrustFailed, RemoveTrustFailed, TrustSnapshotUnavailable: the store does not show them all. The change
                stands and is tried again.
            trio.ClosedResourceError: the machine closed while this waited.
            TypeError, ValueError: an argument is of no use.

        **Cancellation:** as `add_direct_peer`.
        """
        require_epoch(epoch)
        wanted = tuple(endpoints)
        for endpoint in wanted:
            require_endpoint("endpoints", endpoint)
        overlay = authority.ApplyMobPeerOverlay(epoch, wanted)
        return await self._change_peers(overlay, lambda failed: failed[1] is TrustSource.OVERLAY)

    async def publish_local_endpoint(self, endpoint: PeerEndpoint) -> ReconcileReport:
        """Say where this session is reached, and wait until the trust store shows the peers as they are now.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: the session takes no new work.
            TrustSnapshotUnavailable: the store cannot be read. The change stands.
            trio.ClosedResourceError: the machine closed while this waited.
            TypeError: ``endpoint`` is no `PeerEndpoint`.

        **Cancellation:** as `add_direct_peer`.
        """
        require_endpoint("endpoint", endpoint)
        return await self._change_peers(authority.PublishLocalEndpoint(endpoint), lambda _: False)

    async def clear_local_endpoint(self) -> ReconcileReport:
        """Take back what `publish_local_endpoint` said.

        Raises:
            SessionEnded, TrustSnapshotUnavailable, trio.ClosedResourceError: as `publish_local_endpoint`.
            TransitionRejected: nothing was published, or the session takes no new work.

        **Cancellation:** as `add_direct_peer`.
        """
        return await self._change_peers(authority.ClearLocalEndpoint(), lambda _: False)

    async def _change_peers(self, change: Input, concerns: Callable[[Edge], bool]) -> ReconcileReport:
        """Make a change and wait for a pass that knew of it; what failed and concerns the caller is raised."""
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_living()
        tasks.apply(change)
        epoch = tasks.state.peers.projection_epoch

        def ended() -> Pass | None:
            last = None if tasks.trust_task is None else tasks.trust_task.last
            known = last is not None and last.store is tasks.bound_comms and last.epoch >= epoch
            return last if known else None

        last = await self._wait_for_store(ended)
        if last is None:
            await self._until_durable()
            return ReconcileReport(epoch=epoch, deferred=True)
        for edge, failure in last.failures.items():
            if edge is None or concerns(edge):
                raise failure.error()
        return ReconcileReport(epoch=last.epoch, failed=tuple(failure.error() for failure in last.failures.values()))

    # --- supervisor ---------------------------------------------------------------------------------

    def bind_supervisor(self, supervisor: PeerEndpoint, *, epoch: int, bootstrap_token: str | None = None) -> Step:
        """Bind a supervisor to a session that has none; its trust edge is stored by the session itself (SPEC 3).

        Should its edge prove impossible to store, the session is unbound again; `wait_supervisor_settled` says so.

        Args:
            supervisor: who it is and where replies go.
            epoch: above every epoch that was ever bound here, from 1 up.
            bootstrap_token: what `issue_bootstrap_token` returned; it is used up in the same step. None for a call that
                needs no proof.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: there is a supervisor, or the epoch was bound before.
            BootstrapTokenRefused: the token is not the one that was issued last, or it was used.
            TypeError, ValueError: an argument is of no use.
        """
        require_endpoint("supervisor", supervisor)
        require_epoch(epoch)
        inputs: tuple[Input, ...] = (authority.BindSupervisor(bound_by(supervisor, epoch)),)
        self._require_living()
        if bootstrap_token is not None:
            if not isinstance(bootstrap_token, str):
                raise TypeError(f"bootstrap_token: a text is needed, not a {type(bootstrap_token).__name__}")
            if not is_token(self._tasks.state.supervisor.token_hash, bootstrap_token):
                raise BootstrapTokenRefused(self._tasks.state.session.session_id)
            inputs += (authority.BootstrapTokenUsed(),)
        steps = self._tasks.rehearse(*inputs)
        self._tasks.commit(steps)
        return steps[0]

    def authorize_supervisor(self, supervisor: PeerEndpoint, *, epoch: int) -> Step:
        """Hand the session over to the next supervisor, or to the same one with a higher epoch (SPEC 3).

        The one before stays in force until the edge of the new one stands, and comes back if that proves impossible.

        Args:
            supervisor: who it is and where replies go.
            epoch: above every epoch that was ever bound here.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: there is no supervisor, or the epoch was bound before.
            TypeError, ValueError: an argument is of no use.
        """
        require_endpoint("supervisor", supervisor)
        require_epoch(epoch)
        self._require_living()
        return self._tasks.apply(authority.AuthorizeSupervisor(bound_by(supervisor, epoch)))

    def revoke_supervisor(self, peer_id: PeerId, *, epoch: int) -> Step:
        """End the supervisor's authority, at once; its trust edge is removed by the session itself (SPEC 3).

        Args:
            peer_id: the supervisor in force.
            epoch: the epoch in force.

        Raises:
            SessionEnded: the session has ended.
            trio.ClosedResourceError: the machine closes, and what is changed now would not be recorded.
            TransitionRejected: there is no supervisor, or another one, or with another epoch.
            ValueError: an argument is of no use.
        """
        require_epoch(epoch)
        revoke = authority.RevokeSupervisor(PeerId(peer_id), epoch)
        self._require_not_ended()
        self._require_record()
        return self._tasks.apply(revoke)

    async def wait_supervisor_settled(self) -> SupervisorReport:
        """Wait until the trust store shows what the supervisor calls have asked for, and say who is in force.

        That may be somebody else than was asked for: a supervisor whose edge cannot be stored is given up. An edge that
        cannot be removed is tried for ever; `trio.fail_after` bounds the waiting. With no comms runtime attached this
        returns at once.

        Raises:
            SessionEnded: the session is ending or has ended.
            trio.ClosedResourceError: the machine closed while this waited.

        **Cancellation:** nothing is lost; any number of tasks may wait.
        """
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_living()
        settled = await self._wait_for_store(lambda: None if tasks.state.supervisor.obligations else True)
        await self._until_durable()
        return SupervisorReport(
            supervisor=tasks.state.supervisor.binding,
            deferred=settled is None and bool(tasks.state.supervisor.obligations),
        )

    def issue_bootstrap_token(self) -> str:
        """Make a token with which a supervisor may bind once; the one before, if it was not used, is good no more.

        The session keeps only its hash, so it cannot be shown again.

        Raises:
            SessionEnded: the session has ended.
            trio.ClosedResourceError: the machine closes, and what is changed now would not be recorded.
        """
        self._require_not_ended()
        self._require_record()
        token = self._tasks.settings.new_token()
        self._tasks.apply(authority.IssueBootstrapToken(token_hash(token)))
        return token

    # --- what the calls share -----------------------------------------------------------------------

    async def _wait_for_store(self, answer: Callable[[], T | None]) -> T | None:
        """Wait for an answer; None when no comms runtime is attached, and there is none."""
        tasks = self._tasks

        def outcome() -> tuple[T | None] | None:
            found = answer()
            if found is not None:
                return (found,)
            ending = tasks.is_over or tasks.state.session.ending is not None
            return (None,) if ending or tasks.bound_comms is None else None

        found = (await tasks.waiters.wait(outcome))[0]
        if found is None:
            self._require_living(waiting=True)
        return found


def require_endpoint(name: str, endpoint: object) -> None:
    if not isinstance(endpoint, PeerEndpoint):
        raise TypeError(f"{name}: a PeerEndpoint is needed, not {endpoint!r}")
