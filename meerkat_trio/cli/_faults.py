"""What the demo does to its sessions while messages flow, through the public API alone.

Counts what was seen to happen, never what was planned.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, final

import trio

from .._messages import TrustSource
from .._reports import IngressResult
from ..authority import CommsDrainPhase, DrainExitReason, MobOwned
from ._demo_run import cancel_in_the_middle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from .._reports import IngressUpdate
    from .._session import Session
    from ..authority import DrainExit, PeerId
    from ._demo_plan import Move
    from ._demo_transport import FragileComms, Lines, SenderComms

__all__ = ["Chaos", "Flow"]

_MOB: Final = "demo-mob"
_FIRST_GLANCE: Final = 0.001


@final
class Flow:
    """How many messages were sent to a session, and how many may be before the next fault has begun."""

    def __init__(self, moves: Sequence[Move]) -> None:
        self._gates = [*(move.after for move in moves), math.inf]
        self._sent = 0
        self._changed = trio.Event()

    def open_next_gate(self) -> None:
        """Let messages flow up to the next fault."""
        del self._gates[0]
        self._tell()

    def count_one(self) -> None:
        """Count a message as sent."""
        self._sent += 1
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_allowed(self) -> None:
        """Wait until one more message may be sent."""
        while self._sent >= self._gates[0]:
            await self._changed.wait()

    async def wait_sent(self, count: int) -> None:
        """Wait until ``count`` messages were sent."""
        while self._sent < count:
            await self._changed.wait()


@final
class Chaos:
    """The faults of one session."""

    def __init__(self, session: Session, lines: Lines, senders: Iterable[SenderComms], faults: Counter[str]) -> None:
        self._session = session
        self._lines = lines
        self._senders = tuple(senders)
        self._faults = faults
        self._comms: FragileComms | None = None
        self.rebinds = 0
        """Times a call said that the live drain serves a transport that it did not serve before."""
        self.restarts = 0
        """Times a drain was started after the first: an attach said so, or one that had failed was seen to be back."""

    @property
    def peer_id(self) -> PeerId:
        """Whom to send to: all transports of the session are the same peer.

        Raises:
            RuntimeError: none was attached yet.
        """
        if self._comms is None:
            raise RuntimeError("attach first")
        return self._comms.peer_id

    # --- attaching ----------------------------------------------------------------------------------

    async def attach_fresh(self) -> None:
        """Build a new transport of the session's logical id and attach it, in the name of whoever owns the ingress."""
        await self._move_to(await self._built())

    async def _built(self) -> FragileComms:
        comms = await self._lines.session()
        for sender in self._senders:
            await comms.add_trusted_peer(sender.endpoint(), TrustSource.MANUAL)
        return comms

    async def _chosen(self, move: Move) -> FragileComms:
        return await self._built() if move.fresh or self._comms is None else self._comms

    async def _attach(self, comms: FragileComms) -> IngressUpdate:
        owner = self._session.ingress_owner
        if isinstance(owner, MobOwned):
            return await self._session.attach_mob_ingress(comms, owner.mob_id)
        return await self._session.attach_ingress(comms)

    async def _move_to(self, comms: FragileComms) -> None:
        await self._settle(comms, await self._attach(comms))

    async def _settle(self, comms: FragileComms, update: IngressUpdate) -> None:
        previous, self._comms = self._comms, comms
        if update.result is IngressResult.SPAWNED:
            self.restarts += previous is not None
        elif previous is not comms:
            # REBOUND; or UNCHANGED, and then it was an attach whose caller was cancelled that has moved the drain.
            self.rebinds += 1
            self._faults["rebinds"] += 1
        if previous is not None and previous is not comms:
            # What it held has moved on with the take-over, so it may be closed at once.
            await previous.aclose()

    # --- faults -------------------------------------------------------------------------------------

    async def run(self, moves: Sequence[Move], flow: Flow) -> None:
        """Make each move when its moment has come; whatever it has left, the drain runs again afterwards."""
        deeds: dict[str, Callable[[Move], Awaitable[None]]] = {
            "rebinds": self._rebind,
            "aborts": self._abort,
            "crashes": self._crash,
            "promotions": self._promote,
            "cancelled_attaches": self._cancel_attach,
            "cancelled_stops": self._cancel_stop,
            "cancelled_waits": self._cancel_wait,
        }
        for move in moves:
            await flow.wait_sent(move.after)
            flow.open_next_gate()
            await deeds[move.kind](move)

    async def _rebind(self, _: Move) -> None:
        await self.attach_fresh()

    async def _abort(self, move: Move) -> None:
        before = self._session.drain.generation
        self._note_abort(await self._session.stop_drain(), before)
        await self._move_to(await self._chosen(move))

    def _note_abort(self, drain_exit: DrainExit | None, since: int) -> None:
        if drain_exit is not None and drain_exit.generation >= since:
            self._faults["aborts"] += drain_exit.reason is DrainExitReason.ABORTED

    async def _crash(self, _: Move) -> None:
        session, comms = self._session, self._comms
        if comms is None:
            return
        comms.break_down()
        drain_exit = await session.wait_drain_exited()
        if drain_exit is not None and isinstance(drain_exit.error, ConnectionError):
            self._faults["crashes"] += 1
        pause = _FIRST_GLANCE
        # An attach would start the drain itself; here it is the policy that has to, and no call waits for it.
        while session.drain.phase is CommsDrainPhase.EXITED_RESPAWNABLE:  # noqa: ASYNC110
            await trio.sleep(pause)
            pause *= 1.5
        if drain_exit is not None and session.drain.generation > drain_exit.generation:
            self._faults["respawns"] += 1
            self.restarts += 1

    async def _promote(self, move: Move) -> None:
        comms = await self._chosen(move)
        update = await self._session.attach_mob_ingress(comms, _MOB)
        self._faults["promotions"] += update.owner_changed
        await self._settle(comms, update)

    async def _cancel_attach(self, move: Move) -> None:
        comms = await self._built()
        await self._cut("cancelled_attaches", lambda: self._attach(comms), move.patience)
        await self._move_to(comms)

    async def _cancel_stop(self, move: Move) -> None:
        session = self._session
        before = session.drain.generation
        await self._cut("cancelled_stops", session.stop_drain, move.patience)
        comms = await self._chosen(move)
        # Waits for the exit of a drain that was told to stop.
        update = await self._attach(comms)
        self._note_abort(session.drain.last_exit, before)
        await self._settle(comms, update)

    async def _cancel_wait(self, move: Move) -> None:
        await self._cut("cancelled_waits", self._session.wait_drain_exited, move.patience)

    async def _cut(self, kind: str, call: Callable[[], Awaitable[Any]], patience: int) -> None:
        """Cancel a caller in the middle; if the call was faster, make it again and cancel earlier."""
        while not await self.cancel_in_the_middle(kind, call, patience):
            patience = max(0, patience - 1)

    async def cancel_in_the_middle(self, kind: str, call: Callable[[], Awaitable[Any]], patience: int) -> bool:
        """Make a call and cancel its caller after ``patience`` steps; say whether it was cut, and count it."""
        cut = await cancel_in_the_middle(call, patience)
        self._faults[kind] += cut
        return cut
