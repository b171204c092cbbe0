"""What the demo does to its sessions while messages flow, through the public API alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, final

import trio

from .._exceptions import DrainNotStarted
from .._messages import TrustSource
from ..authority import DrainExitReason, MobOwned
from ..comms import MemoryComms, MemoryNetwork

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable

    from .._session import Session
    from ..abc import Claim
    from ..authority import Lane

__all__ = ["KINDS", "Chaos", "FragileComms"]

KINDS: Final = (
    "rebinds",
    "aborts",
    "crashes",
    "respawns",
    "promotions",
    "handler_failures",
    "handler_delays",
    "cancelled_callers",
)
"""Every kind of fault; each has to happen for a run with faults to succeed."""


class FragileComms(MemoryComms):
    """A transport that breaks when it is told to: the drain's next look into the inbox raises."""

    __slots__ = ("about_to_break", "breakages")

    def __init__(self, network: MemoryNetwork, runtime_id: str, breakages: Counter[str]) -> None:
        super().__init__(network, runtime_id)
        self.about_to_break = False
        self.breakages = breakages

    def claim_ready(self, *, lanes: frozenset[Lane] | None = None) -> Claim | None:
        """Break if told to, else claim."""
        if self.about_to_break:
            self.about_to_break = False
            self.breakages["crashes"] += 1
            raise OSError("the transport broke")
        return super().claim_ready() if lanes is None else super().claim_ready(lanes=lanes)


@final
class Chaos:
    """The faults of one session."""

    def __init__(
        self,
        session: Session,
        network: MemoryNetwork,
        senders: Iterable[MemoryComms],
        faults: Counter[str],
        dice: random.Random,
    ) -> None:
        self._session = session
        self._network = network
        self._senders = tuple(senders)
        self._faults = faults
        self._dice = dice
        self._comms: FragileComms | None = None
        self.over = trio.Event()

    async def attach_fresh(self) -> None:
        """Build a new transport of the session's logical id and attach it, in the name of whoever owns the ingress."""
        comms = FragileComms(self._network, self._session.id, self._faults)
        for sender in self._senders:
            await comms.add_trusted_peer(sender.endpoint(), TrustSource.MANUAL)
        await self._attach(comms)

    async def _attach(self, comms: FragileComms) -> None:
        session = self._session
        self._comms = comms
        owner = session.ingress_owner
        try:
            if isinstance(owner, MobOwned):
                await session.attach_mob_ingress(comms, owner.mob_id)
            else:
                await session.attach_ingress(comms)
        except DrainNotStarted:
            # Another fault struck while it started; the next attach, or the policy, starts it.
            pass

    async def run(self, traffic_is_over: trio.Event) -> None:
        """Do each fault once in a random order, then more of them while messages flow."""
        moves = [self._rebind, self._abort, self._crash, self._promote, self._cancel_caller]
        try:
            self._dice.shuffle(moves)
            for move in moves:
                await trio.sleep(self._dice.uniform(0.0, 0.01))
                await move()
        finally:
            self.over.set()
        while not traffic_is_over.is_set():
            await trio.sleep(self._dice.uniform(0.005, 0.05))
            await self._dice.choice([self._rebind, self._abort, self._cancel_caller])()

    async def _rebind(self) -> None:
        await self.attach_fresh()

    async def _abort(self) -> None:
        drain_exit = await self._session.stop_drain()
        if drain_exit is not None and drain_exit.reason is DrainExitReason.ABORTED:
            self._faults["aborts"] += 1
        if self._comms is not None:
            await self._attach(self._comms)

    async def _crash(self) -> None:
        if self._comms is not None:
            self._comms.about_to_break = True

    async def _promote(self) -> None:
        if self._comms is None:
            return
        try:
            update = await self._session.attach_mob_ingress(self._comms, "demo-mob")
        except DrainNotStarted:
            return
        self._faults["promotions"] += update.owner_changed

    async def _cancel_caller(self) -> None:
        session = self._session
        calls: list[Callable[[], Awaitable[Any]]] = [self.attach_fresh, session.stop_drain, session.wait_drain_exited]
        await self.cancel_in_the_middle(self._dice.choice(calls))
        # Whatever the cancelled call has left, the drain is to run again.
        if self._comms is not None:
            await self.attach_fresh()

    async def cancel_in_the_middle(self, call: Callable[[], Awaitable[Any]]) -> bool:
        """Make a call and cancel its caller after a few steps; say whether it was cut."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def strike() -> None:
                    for _ in range(self._dice.randrange(4)):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(strike)
                await call()
                nursery.cancel_scope.cancel()
        self._faults["cancelled_callers"] += scope.cancelled_caught
        return scope.cancelled_caught
