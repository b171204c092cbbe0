"""What a session says to its peers: the calls `send` and `request`, and the reply of a run.

The tasks and the authority are `_tasks`' business; here are the calls alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ._bridge import BridgeCommand
from ._calls import SessionCalls
from ._exceptions import (
    CommandRejected,
    CommsNotAttached,
    PeerNotTrusted,
    RejectionCause,
    RequestFailed,
    SessionEnded,
)
from ._messages import Envelope, ReceiptStatus
from .authority import BRIDGE_INTENT, EnvelopeKind, PeerId, ResponseStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._messages import Receipt
    from ._tasks import SessionTasks
    from .abc import CommsRuntime

__all__ = ["Correspondence"]


class Correspondence(SessionCalls):
    """The part of a session that speaks to peers."""

    __slots__ = ()

    async def send(self, peer_id: PeerId, body: Any) -> Receipt:
        """Send a message to a peer through the comms runtime that is attached, waiting while there is no room.

        Messages to one peer stay in the order in which they were sent.

        Args:
            peer_id: one of `Session.peers`, or a peer that the trust store has by hand.
            body: what the peer finds in its ``message.body``.

        Returns: a receipt; `Receipt.wait` says what became of the message.

        Raises:
            CommsNotAttached: no comms runtime is attached.
            PeerNotTrusted: the session does not know the peer.
            SessionEnded: the session has ended, or ended while this waited for room.
            trio.ClosedResourceError: the comms runtime is closed, or the machine closed while this waited for room.
            ValueError: ``peer_id`` is no peer id.

        **Cancellation:** cancelled, the message was not sent; returned, it was accepted and survives rebinds on either
        side. Any number of tasks may send.
        """
        peer_id = PeerId(peer_id)
        await trio.lowlevel.checkpoint_if_cancelled()
        tasks = self._tasks
        if tasks.has_ended:
            raise SessionEnded(tasks.state.session.session_id)
        comms = _route_to(tasks, peer_id)
        envelope = Envelope(id=tasks.settings.new_id(), sender=comms.peer_id, recipient=peer_id, body=body)
        try:
            receipt = comms.send_nowait(envelope)
        except trio.WouldBlock:
            pass
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return receipt
        with tasks.made_requests().until_end():
            return await comms.send(envelope)
        raise tasks.make_end_error()

    async def request(
        self,
        peer_id: PeerId,
        intent: str,
        params: Any = None,
        *,
        on_progress: Callable[[Any], object] | None = None,
    ) -> Any:
        """Ask a peer for something and wait for its answer (SPEC 6).

        There is no time-out in here: put `trio.fail_after` around it. The wait outlives rebinds and a detach; what is
        answered while no drain serves comes in with the next one.

        Args:
            peer_id: as for `send`; the only peer whose answer counts.
            intent: what is asked for, in a word that both sides know; not blank.
            params: what the peer finds in its ``message.body``.
            on_progress: called with the body of every ACCEPTED response, in order, in the calling task; what it raises
                ends the call.

        Returns: the body of the COMPLETED response.

        Raises:
            RequestFailed: the peer answered FAILED; the error has the response's body.
            RequestDropped: the peer never let the request in; the error has the reason.
            CommsNotAttached, PeerNotTrusted: as for `send`.
            TransitionRejected: the session asks for nothing in its phase.
            SessionEnded: the session is ending or has ended, also while this waited.
            trio.ClosedResourceError: the comms runtime is closed, or the machine closed while this waited.
            TypeError, ValueError: an argument is of no use.

        **Cancellation:** the request is closed: its late response is dropped. The peer may have begun with it, or do so
        later. Any number of tasks may ask at once.
        """
        peer_id = PeerId(peer_id)
        if not isinstance(intent, str) or not intent.strip():
            raise ValueError(f"intent: must be a text that is not blank, not {intent!r}")
        if on_progress is not None and not callable(on_progress):
            raise TypeError(f"on_progress: a function is needed, not {on_progress!r}")
        await trio.lowlevel.checkpoint_if_cancelled()
        tasks = self._tasks
        if tasks.is_over or tasks.state.session.ending is not None:
            raise SessionEnded(tasks.state.session.session_id)
        comms = _route_to(tasks, peer_id)
        new_id = tasks.settings.new_id
        request = Envelope(
            id=new_id(),
            sender=comms.peer_id,
            recipient=peer_id,
            kind=EnvelopeKind.REQUEST,
            body=params,
            intent=intent,
            correlation=new_id(),
        )
        with tasks.made_requests().opened(request) as pending:
            with pending.sending:
                await self._until_durable()
                receipt = await comms.send(request)
                if await receipt.wait() is ReceiptStatus.DROPPED:
                    pending.drop(receipt.reason)
            return await pending.wait(on_progress)

    async def command(self, member: PeerId, command: BridgeCommand) -> dict[str, Any]:
        """Ask a member for something as its supervisor, and wait for its answer (SPEC 7).

        A command that is sent again, because its answer was not heard, finds itself done; the answer says ``already``.
        A hand-over is the exception: what the former supervisor says once the next one's edge stands, that included, is
        rejected with SENDER_MISMATCH; the next one may ask in its place.

        As for `request`, there is no time-out in here.

        Args:
            member: the session that is supervised, or is to be.
            command: one of the commands of `meerkat_trio`, as `BindMember`.

        Returns: what the member answers; docs/supervision.md has it for each command.

        Raises:
            CommandRejected: the member rejected it; the error has the cause.
            RequestFailed, RequestDropped, CommsNotAttached, PeerNotTrusted, TransitionRejected, SessionEnded,
                trio.ClosedResourceError: as for `request`.
            TypeError, ValueError: an argument is of no use.

        **Cancellation:** as for `request`: the member may have carried it out, or do so later; it may be sent again.
        """
        if not isinstance(command, BridgeCommand):
            raise TypeError(f"command: a BridgeCommand is needed, not {command!r}")
        try:
            answer: dict[str, Any] = await self.request(member, BRIDGE_INTENT, command.params())
        except RequestFailed as failed:
            raise _rejection(failed) or failed from None
        return answer

    async def reply_to(self, message: Envelope, status: ResponseStatus, result: Any = None) -> None:
        """Answer a request in the name of the handler that has it. For `SessionRun`, whose ``reply`` says the rest.

        **Cancellation:** cancelled, nothing was said; returned, the reply is on its way.
        """
        if not isinstance(status, ResponseStatus):
            raise TypeError(f"status: a ResponseStatus is needed, not {status!r}")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._tasks.made_requests().answer(message, status, result)
        await trio.lowlevel.cancel_shielded_checkpoint()


def _rejection(failed: RequestFailed) -> CommandRejected | None:
    body = failed.body
    try:
        cause = RejectionCause(body.get("cause"))
    except (AttributeError, TypeError, ValueError):
        return None
    return CommandRejected(failed.peer_id, failed.intent, body, cause)


def _route_to(tasks: SessionTasks, peer_id: PeerId) -> CommsRuntime:
    comms, state = tasks.bound_comms, tasks.state
    if comms is None:
        raise CommsNotAttached(state.session.session_id)
    if not state.trusts(peer_id) and not comms.is_manually_trusted(peer_id):
        raise PeerNotTrusted(state.session.session_id, peer_id)
    return comms
