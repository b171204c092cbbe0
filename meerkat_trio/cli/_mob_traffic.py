"""What a member of the supervised demo is given: inputs by its supervisors, and messages by another member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from .._bridge import DeliverMemberInput
from .._exceptions import RejectionCause, SessionEnded
from .._messages import ReceiptStatus
from ..authority import DropReason
from ._mob_plan import DESTROYED_LAST

if TYPE_CHECKING:
    from .._messages import Receipt
    from ._faults import Flow
    from ._mob_cast import Cast, Member
    from ._mob_supervising import Supervising

__all__ = ["Delivering", "Talking"]

_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05
_OUT_OF_FORCE: Final = {
    RejectionCause.NOT_BOUND,
    RejectionCause.STALE_SUPERVISOR,
    RejectionCause.SENDER_MISMATCH,
    DropReason.RATE_LIMITED,
}
"""What a supervisor is told that is none at the moment."""


@final
class Delivering:
    """The inputs of one member, in order; whoever supervises it delivers the next one."""

    def __init__(self, cast: Cast, member: Member, supervising: Supervising) -> None:
        self._member = member
        self._supervising = supervising
        self._tally = cast.tally

    async def run(self, flow: Flow, faults_are_over: trio.Event) -> None:
        """Deliver everything; the last inputs of a member that is to be destroyed come when its faults are over."""
        member = self._member
        count = member.streams["supervisors"]
        for index in range(count):
            if member.destroyed and index == count - DESTROYED_LAST:
                await faults_are_over.wait()
            await flow.wait_allowed()
            patience = member.plan.sends.get(("supervisors", index))
            if patience is None:
                while not await self._try(index):
                    pass
            else:
                await self._deliver_twice(index, patience)
            flow.count_one()

    async def _deliver_twice(self, index: int, patience: int) -> None:
        """Deliver an input with a caller that is cancelled, then again, and then once more."""
        member = self._member
        # Whoever is cancelled does not know whether it was taken: the same supervisor has to ask again.
        async with member.lock:
            boss, command = member.require_bond().boss, self._command(index)
            cut = await self._supervising.cut(boss, command, patience)
            self._tally.faults["cancelled_deliveries"] += cut
            await self._try(index)
            answer = await self._supervising.do(boss, command)
            if answer.get("result") == "deduplicated":
                self._tally.repaired["deliver_deduplicated"] += 1
            else:
                self._supervising.surprise(f"input {index} was delivered before", answer)

    def _command(self, index: int) -> DeliverMemberInput:
        bond = self._member.require_bond()
        number = self._member.delivered[bond.boss.name]
        # A pair, as every body: the number in its stream, and in the plan.
        return DeliverMemberInput(epoch=bond.epoch, input_id=f"input-{index}", content=[number, index])

    async def _try(self, index: int) -> bool:
        """Deliver an input, waiting for room; say whether that is over, which it is not if the supervisor changes."""
        member = self._member
        pause = _PAUSE
        while True:
            boss, version, command = member.require_bond().boss, member.version, self._command(index)
            answer = await boss.command(member.peer_id, command)
            if not isinstance(answer, dict):
                break
            if answer["result"] != "rejected":
                member.delivered[boss.name] += 1
                return True
            self._tally.dropped[answer["reason"]] += 1
            await trio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)
        if answer in _OUT_OF_FORCE and member.lock.statistics().owner is not trio.lowlevel.current_task():
            async with member.lock:
                pass
            if member.version != version:
                return False
        self._supervising.surprise(f"input {index} was delivered by its supervisor", answer)
        return True


@final
class Talking:
    """The messages of one member to another."""

    def __init__(self, cast: Cast, sender: Member, receiver: Member) -> None:
        self._tally = cast.tally
        self._sender = sender
        self._receiver = receiver
        self._receipts: list[Receipt] = []
        receiver.receipts[sender.name] = self._receipts

    async def run(self, flow: Flow) -> None:
        """Send everything; what a member can no more send that has ended is passed over."""
        for number in range(self._receiver.streams["peer"]):
            await flow.wait_allowed()
            try:
                self._receipts.append(await self._sender.session.send(self._receiver.peer_id, [number, number]))
            except SessionEnded:
                self._receiver.spared += 1
            flow.count_one()

    async def check(self) -> None:
        """Wait until it is said of each message what became of it; a member that lives lets all in."""
        for receipt in self._receipts:
            if await receipt.wait() is not ReceiptStatus.ADMITTED and not self._receiver.destroyed:
                self._tally.surprises.append(f"{self._receiver.name}: a message was dropped: {receipt.reason}")
