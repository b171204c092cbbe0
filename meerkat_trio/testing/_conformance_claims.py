"""Conformance rules of the claiming side: identity, order, lanes, claims and their ends.

Each function tries the one promise its rule states, on a fresh bench.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from .._messages import ReceiptStatus
from ..abc import ALL_LANES, CONTROL_LANE, NO_LANES
from ..authority import DropReason, Lane, PeerId
from ._conformance_rig import Rule

if TYPE_CHECKING:
    from .._messages import Envelope
    from ..abc import Claim, CommsRuntime
    from ._conformance_rig import Rig

__all__ = ["CLAIM_RULES"]

# How many checkpoints after the decisive moment a cancellation is still tried.
_DELAYS: Final = range(4)


async def _identity(rig: Rig) -> None:
    comms, rebuilt = rig.receiver, await rig.bench.rebuild()
    rig.same(PeerId.of_key(comms.public_key), comms.peer_id, "the peer id that belongs to public_key")
    rig.expect(rebuilt is not comms, "rebuild() gave the same instance")
    rig.same(comms.runtime_id, rebuilt.runtime_id, "runtime_id of a rebuilt instance")
    rig.same(comms.peer_id, rebuilt.peer_id, "peer_id of a rebuilt instance")


async def _order(rig: Rig) -> None:
    sent = await rig.send_some(3)
    rig.same(sent, await rig.take_all(rig.receiver), "the order of claims")
    sent = await rig.send_some(3, control=True)
    rig.same(sent, await rig.take_all(rig.receiver), "the order of claims of the control lane")


async def _wakes(rig: Rig) -> None:
    attempt = await rig.start(lambda: rig.take(rig.receiver))
    rig.expect(attempt.waiting, f"claim of an empty inbox has to wait, but {attempt}")
    sent = await rig.send_some(1)
    rig.expect(not attempt.waiting, "claim still waits after an envelope has come")
    rig.same(sent, [attempt.result], "what the waiting claim got")


async def _control_first(rig: Rig) -> None:
    work = await rig.send_some(2)
    control = await rig.send_some(2, control=True)
    rig.same(control + work, await rig.take_all(rig.receiver), "the order of claims")


async def _wanted_lanes(rig: Rig) -> None:
    async def take_control() -> int:
        with await rig.receiver.claim(lanes=CONTROL_LANE) as claim:
            claim.commit()
            body: int = claim.envelope.body
            return body

    attempt = await rig.start(take_control)
    work = await rig.send_some(1)
    rig.expect(attempt.waiting, f"a claim of the control lane has to wait while only work comes, but {attempt}")
    control = await rig.send_some(1, control=True)
    rig.same(control, [attempt.result], "what a claim of the control lane got")
    await rig.raises(
        trio.WouldBlock,
        lambda: rig.receiver.claim_nowait(lanes=CONTROL_LANE),
        "claim_nowait of the control lane",
    )
    with rig.receiver.claim_nowait(lanes=frozenset({Lane.WORK})) as claim:
        rig.same(work, [claim.envelope.body], "what a claim of the work lane got")


async def _nowait(rig: Rig) -> None:
    await rig.raises(trio.WouldBlock, rig.receiver.claim_nowait, "claim_nowait of an empty inbox")
    sent = await rig.send_some(1)
    with rig.receiver.claim_nowait(lanes=ALL_LANES) as claim:
        rig.same(sent, [claim.envelope.body], "what claim_nowait got")


class _Interrupted(Exception):
    pass


async def _ready(rig: Rig) -> None:
    rig.same(None, rig.receiver.claim_ready(), "claim_ready of an empty inbox")
    sent = await rig.send_some(1)
    rig.same(None, rig.receiver.claim_ready(lanes=CONTROL_LANE), "claim_ready of a lane that is empty")
    claim = rig.receiver.claim_ready()
    if claim is None:
        rig.expect(claim, "claim_ready did not claim what is there")
        return
    with claim:
        rig.same(sent, [claim.envelope.body], "what claim_ready got")
        await rig.raises(trio.BusyResourceError, rig.receiver.claim_ready, "claim_ready while a claim is open")
    await _ready_for_nothing(rig, sent)


async def _ready_for_nothing(rig: Rig, sent: list[int]) -> None:
    """Ask for no lane at all: what a session does to learn whether it could claim."""

    def ask() -> Claim | None:
        return rig.receiver.claim_ready(lanes=NO_LANES)

    rig.same(None, ask(), "claim_ready of no lane while envelopes wait")
    rig.same(False, rig.receiver.statistics().claim_open, "claim_open after claim_ready of no lane")  # noqa: FBT003
    with await rig.receiver.claim():
        await rig.raises(trio.BusyResourceError, ask, "claim_ready of no lane while a claim is open")
    rig.same(sent, await rig.take_all(rig.receiver), "what is there after claim_ready of no lane")
    rig.same(None, ask(), "claim_ready of no lane of an empty inbox")
    await rig.receiver.aclose()
    await rig.raises(trio.ClosedResourceError, ask, "claim_ready of no lane on a closed runtime")


class _Taker:
    """Claims what it does not take."""

    def __init__(self, rig: Rig) -> None:
        self._comms = rig.receiver
        self.refused: set[object] = set()
        self.got: list[object] = []

    def take(self, envelope: Envelope) -> bool:
        takes = envelope.body not in self.refused
        if takes:
            self.got.append(envelope.body)
        return takes

    async def claim(self) -> None:
        with await self._comms.claim_untaken(self.take) as claim:
            self.got.append(claim.envelope.body)
            claim.commit()


async def _untaken(rig: Rig) -> None:
    taker = _Taker(rig)
    attempt = await rig.start(taker.claim)
    rig.expect(attempt.waiting, f"claim_untaken of an empty inbox has to wait, but {attempt}")
    notes = [rig.note() for _ in range(3)]
    # The second one has to be claimed; what is behind it waits.
    taker.refused = {notes[1].body}
    for note in notes:
        rig.sender.send_nowait(note)
    await rig.settle()
    rig.expect(not attempt.waiting, "claim_untaken still waits after an envelope was not taken")
    sent = [note.body for note in notes]
    rig.same(sent, taker.got + await rig.take_all(rig.receiver), "what was taken, then claimed, then left")
    attempt = await rig.start(taker.claim)
    got = list(taker.got)
    attempt.cancel()
    note = rig.note()
    rig.sender.send_nowait(note)
    rig.same(got, taker.got, "what was taken, after the claim was cancelled")
    rig.same([note.body], await rig.take_all(rig.receiver), "what is left after the claim was cancelled")


async def _left_claim(rig: Rig) -> None:
    sent = await rig.send_some(3)
    with await rig.receiver.claim() as claim:
        rig.same(sent[0], claim.envelope.body, "what was claimed")
    with suppress(_Interrupted), await rig.receiver.claim() as claim:
        rig.same(sent[0], claim.envelope.body, "what is claimed after a claim was left without commit")
        raise _Interrupted
    rig.same(sent, await rig.take_all(rig.receiver), "what is there after claims were left without commit")


async def _commit_once(rig: Rig) -> None:
    sent = await rig.send_some(2)
    with await rig.receiver.claim() as claim:
        claim.commit()
        await rig.raises(trio.ClosedResourceError, claim.commit, "the second commit")
    with await rig.receiver.claim() as left:
        pass
    await rig.raises(trio.ClosedResourceError, left.commit, "commit of a claim that was left")
    rig.same(sent[1:], await rig.take_all(rig.receiver), "what is there after commits that were refused")


async def _receipts(rig: Rig) -> None:
    admitted, dropped = await rig.sender.send(rig.note()), await rig.sender.send(rig.note())
    await rig.settle()
    with await rig.receiver.claim() as claim:
        await rig.settle()
        rig.same(ReceiptStatus.QUEUED, admitted.status, "a receipt before the commit")
        claim.commit()
    with await rig.receiver.claim() as claim:
        claim.commit(DropReason.UNTRUSTED_SENDER)
    rig.same(ReceiptStatus.ADMITTED, await admitted.wait(), "the receipt of what was committed")
    rig.same(ReceiptStatus.DROPPED, await dropped.wait(), "the receipt of what was committed as dropped")
    rig.same(DropReason.UNTRUSTED_SENDER, dropped.reason, "the reason on the receipt")


async def _one_claimer(rig: Rig) -> None:
    attempt = await rig.start(lambda: rig.take(rig.receiver))
    await rig.raises(trio.BusyResourceError, rig.receiver.claim, "claim while another task waits in it")
    await rig.raises(trio.BusyResourceError, rig.receiver.claim_nowait, "claim_nowait while a task waits in claim")
    attempt.cancel()
    await rig.send_some(2)
    with await rig.receiver.claim():
        await rig.raises(trio.BusyResourceError, rig.receiver.claim, "claim while a claim is open")
        await rig.raises(trio.BusyResourceError, rig.receiver.claim_nowait, "claim_nowait while a claim is open")


async def _leave_one(comms: CommsRuntime) -> None:
    with await comms.claim():
        pass


async def _cancelled_claim(rig: Rig) -> None:
    for delay in _DELAYS:
        attempt = await rig.start(lambda: _leave_one(rig.receiver))
        note = rig.note()
        rig.sender.send_nowait(note)
        for _ in range(delay):
            await trio.lowlevel.checkpoint()
        attempt.cancel()
        await rig.settle()
        rig.same([note.body], await rig.take_all(rig.receiver), "what is there after the claimer was cancelled")


async def _checkpoints(rig: Rig) -> None:
    sent = await rig.send_some(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await _leave_one(rig.receiver)
    rig.expect(scope.cancelled_caught, "claim did not notice that its caller was cancelled")
    with trio.CancelScope() as scope:
        scope.cancel()
        await rig.sender.send(rig.note())
    rig.expect(scope.cancelled_caught, "send did not notice that its caller was cancelled")
    rig.same(sent, await rig.take_all(rig.receiver), "what is there after calls that were cancelled")


async def _statistics(rig: Rig) -> None:
    await rig.send_some(1, control=True)
    await rig.fill()
    attempt = await rig.start(lambda: rig.sender.send(rig.note()))
    found = rig.receiver.statistics()
    rig.same(1, found.control_waiting, "control_waiting")
    rig.same(rig.bench.work_lane, found.work_waiting, "work_waiting")
    rig.same(1, rig.parked_senders(rig.receiver), "parked_senders")
    rig.same(False, found.claim_open, "claim_open")  # noqa: FBT003 - the expected value
    with await rig.receiver.claim():
        found = rig.receiver.statistics()
        rig.same((0, True), (found.control_waiting, found.claim_open), "control_waiting, claim_open when claimed")
    attempt.cancel()


CLAIM_RULES: Final = (
    Rule("identity", "The peer id belongs to the key; a rebuilt instance has the same ids.", _identity),
    Rule("claim-nowait", "`claim_nowait` claims what is there, and raises WouldBlock if nothing is.", _nowait),
    Rule("order", "Envelopes of a lane are claimed in the order in which their sender sent them.", _order),
    Rule("arrival-wakes", "A waiting claim wakes when an envelope comes.", _wakes),
    Rule("control-first", "Control is claimed before work that came earlier.", _control_first),
    Rule("wanted-lanes", "A claim gets envelopes of the lanes it asked for alone.", _wanted_lanes),
    Rule(
        "claim-ready",
        "`claim_ready` claims what is there, and returns None if nothing is, or if it is asked for no lane.",
        _ready,
    ),
    Rule(
        "claim-untaken",
        "`claim_untaken` claims in order what is not taken, and lets nothing be taken once it is cancelled.",
        _untaken,
    ),
    Rule(
        "left-claim",
        "A claim left without commit puts its envelope back at the head of its lane.",
        _left_claim,
    ),
    Rule("commit-once", "A claim that was committed or left refuses another commit.", _commit_once),
    Rule(
        "receipts",
        "A receipt is settled by the commit, not before, as ADMITTED or with its reason.",
        _receipts,
    ),
    Rule(
        "one-claimer",
        "Claiming while another task claims, or a claim is open, is refused as busy.",
        _one_claimer,
    ),
    Rule(
        "cancelled-claim",
        "A claimer cancelled at any moment loses nothing and blocks nobody.",
        _cancelled_claim,
    ),
    Rule(
        "checkpoints",
        "`claim` and `send` notice a cancelled caller also when they need not wait.",
        _checkpoints,
    ),
    Rule("statistics", "`statistics` counts both lanes, parked senders and the open claim.", _statistics),
)
