"""Conformance rules of closing and of take-over.

Each function tries the one promise its rule states, on a fresh bench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from .._messages import Receipt, ReceiptStatus
from ..abc import CommsRuntime
from ..authority import DropReason, Lane
from ._conformance_rig import Rule

if TYPE_CHECKING:
    from ._conformance_rig import Attempt, Rig

__all__ = ["ENDING_RULES"]


_DROPPED: Final = (ReceiptStatus.DROPPED, DropReason.CLOSED)
_ADMITTED: Final = (ReceiptStatus.ADMITTED, None)


def _same_status(rig: Rig, expected: tuple[ReceiptStatus, DropReason | None], receipt: object, what: str) -> None:
    found = (receipt.status, receipt.reason) if isinstance(receipt, Receipt) else receipt
    rig.same(expected, found, what)


async def _closing(rig: Rig) -> None:
    receipts = {lane: await rig.sender.send(rig.note(control=lane is Lane.CONTROL)) for lane in Lane}
    await rig.settle()
    await rig.receiver.aclose()
    await rig.receiver.aclose()
    await rig.settle()
    for lane, receipt in receipts.items():
        _same_status(rig, _DROPPED, receipt, f"the receipt of what was accepted on the {lane.value} lane")


async def _closing_wakes(rig: Rig) -> None:
    claimer = await rig.start(rig.other.claim)
    await rig.other.aclose()
    await rig.settle()
    rig.expect(isinstance(claimer.error, trio.ClosedResourceError), f"a claim waited when it closed, but {claimer}")
    waiting: list[Attempt] = []
    for control in (False, True):
        await rig.fill(control=control)
        waiting += (await rig.park(rig.sender, control=control))[1]
    await rig.receiver.aclose()
    await rig.settle()
    for sender in waiting:
        rig.expect(not sender.waiting, "a sender still waits for room although the runtime has closed")
        _same_status(rig, _DROPPED, sender.result, "the receipt of an envelope that waited for room")


async def _closing_cancelled(rig: Rig) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await rig.receiver.aclose()
    await rig.raises(trio.ClosedResourceError, rig.receiver.claim_nowait, "claim_nowait after a cancelled aclose")


async def _closing_claim(rig: Rig) -> None:
    for commit in (True, False):
        comms = rig.receiver if commit else rig.other
        receipt = await rig.sender.send(rig.note(to=comms.peer_id))
        await rig.settle()
        with await comms.claim() as claim:
            await comms.aclose()
            if commit:
                claim.commit()
        await rig.settle()
        expected = _ADMITTED if commit else _DROPPED
        _same_status(rig, expected, receipt, f"a claim open at aclose, {'committed' if commit else 'left'} later")


async def _closed_recipient(rig: Rig) -> None:
    await rig.receiver.aclose()
    receipt = await rig.sender.send(rig.note())
    await rig.settle()
    _same_status(rig, _DROPPED, receipt, "the receipt of a send to a closed runtime")
    receipt = rig.sender.send_nowait(rig.note())
    await rig.settle()
    _same_status(rig, _DROPPED, receipt, "the receipt of a send_nowait to a closed runtime")


async def _closed_refuses(rig: Rig) -> None:
    note = rig.note(rig.receiver, to=rig.sender.peer_id)
    await rig.receiver.aclose()
    closed = trio.ClosedResourceError
    await rig.raises(closed, rig.receiver.claim, "claim on a closed runtime")
    await rig.raises(closed, rig.receiver.claim_nowait, "claim_nowait on a closed runtime")
    await rig.raises(closed, lambda: rig.receiver.send(note), "send from a closed runtime")
    await rig.raises(closed, lambda: rig.receiver.send_nowait(note), "send_nowait from a closed runtime")


async def _take_over_foreign(rig: Rig) -> None:
    sent = await rig.send_some(2)
    await rig.raises(TypeError, lambda: rig.receiver.take_over(_Stranger()), "take_over of a foreign class")
    rig.same(sent, await rig.take_all(rig.receiver), "what is there after a take-over that was refused")


async def _take_over_closed(rig: Rig) -> None:
    successor = await rig.bench.rebuild()
    await successor.aclose()
    sent = await rig.send_some(2)
    await rig.raises(trio.ClosedResourceError, lambda: successor.take_over(rig.receiver), "take_over by a closed one")
    rig.same(sent, await rig.take_all(rig.receiver), "what is there after a take-over that was refused")


async def _take_over_queue(rig: Rig) -> None:
    control, work = [rig.note(control=True) for _ in range(2)], [rig.note() for _ in range(2)]
    receipts = [await rig.sender.send(note) for note in (*work, *control)]
    await rig.settle()
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    for notes, is_control in ((control, True), (work, False)):
        notes.append(rig.note(control=is_control))
        await rig.sender.send(notes[-1])
    found = await rig.take_all(successor)
    rig.same([note.body for note in (*control, *work)], found, "what was claimed after a take-over")
    for receipt in receipts:
        _same_status(rig, _ADMITTED, receipt, "the receipt of what was accepted before a take-over")


async def _take_over_front(rig: Rig) -> None:
    own = rig.note(rig.other, to=rig.sender.peer_id)
    await rig.other.send(own)
    moved = await rig.send_some(2)
    rig.sender.take_over(rig.receiver)
    rig.same([*moved, own.body], await rig.take_all(rig.sender), "what was claimed after a take-over")


async def _take_over_parked(rig: Rig) -> None:
    expected: list[int] = []
    moved: list[Attempt] = []
    cancelled: list[Attempt] = []
    for control in (True, False):
        sent = await rig.fill(control=control)
        bodies, attempts = await rig.park(*3 * [rig.sender], control=control)
        expected += [*sent, bodies[0], bodies[2]]
        moved += [attempts[0], attempts[2]]
        cancelled.append(attempts[1])
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    for attempt in cancelled:
        attempt.cancel()
    await rig.receiver.aclose()
    await rig.settle()
    for attempt in cancelled:
        rig.expect(attempt.cancelled, f"a waiting send that had moved was cancelled, but {attempt}")
    rig.same(len(moved), rig.parked_senders(successor), "parked_senders after a moved one was cancelled")
    rig.same(expected, await rig.take_all(successor), "what was claimed after a take-over with waiting senders")
    for attempt in moved:
        _same_status(rig, _ADMITTED, attempt.result, "the receipt of an envelope that waited during a take-over")


async def _take_over_window(rig: Rig) -> None:
    note = rig.note()
    await rig.sender.send(note)
    await rig.take(rig.receiver)
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    receipt = await rig.sender.send(note)
    await rig.settle()
    rig.same(DropReason.DUPLICATE, receipt.reason, "the receipt of a duplicate of what was admitted before")
    own = rig.note(rig.other, to=rig.sender.peer_id)
    await rig.other.send(own)
    await rig.take(rig.sender)
    await rig.other.send(rig.note(rig.other))
    await rig.settle()
    rig.sender.take_over(successor)
    receipt = await rig.other.send(own)
    await rig.settle()
    rig.same(DropReason.DUPLICATE, receipt.reason, "the receipt of a duplicate of what the successor itself admitted")


async def _take_over_claim(rig: Rig) -> None:
    sent = await rig.send_some(3)
    receiver = rig.receiver
    for commit in (False, True):
        successor = await rig.bench.rebuild()
        with await receiver.claim() as claim:
            successor.take_over(receiver)
            await rig.raises(trio.WouldBlock, successor.claim_nowait, "claim_nowait while the moved claim is open")
            attempt = await rig.start(lambda successor=successor: rig.take(successor))  # type: ignore[misc]
            rig.expect(attempt.waiting, f"claim has to wait while the moved claim is open, but {attempt}")
            if commit:
                claim.commit()
        await rig.settle()
        rig.same(sent[1] if commit else sent[0], attempt.result, "the first claim after the moved one")
        sent, receiver = sent[2 if commit else 1 :], successor
        if not commit:
            sent = [*sent, *await rig.send_some(1)]
    rig.same(sent, await rig.take_all(receiver), "what is left after claims that moved")


async def _take_over_wakes(rig: Rig) -> None:
    claimer = await rig.start(rig.receiver.claim)
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    await rig.settle()
    rig.expect(isinstance(claimer.error, trio.ClosedResourceError), f"a claim of the previous waited, but {claimer}")


async def _take_over_arrives(rig: Rig) -> None:
    sent = await rig.send_some(1)
    successor = await rig.bench.rebuild()
    claimer = await rig.start(lambda: rig.take(successor))
    successor.take_over(rig.receiver)
    await rig.settle()
    rig.same(sent, [claimer.result], "what a claim got that waited on the successor")


async def _take_over_refuses(rig: Rig) -> None:
    sent = await rig.send_some(1)
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    closed = trio.ClosedResourceError
    await rig.raises(closed, rig.receiver.claim, "claim on a runtime that was taken over")
    await rig.raises(closed, rig.receiver.claim_nowait, "claim_nowait on a runtime that was taken over")
    note = rig.note(rig.receiver, to=rig.sender.peer_id)
    await rig.raises(closed, lambda: rig.receiver.send(note), "send from a runtime that was taken over")
    await rig.raises(closed, lambda: rig.receiver.send_nowait(note), "send_nowait from a runtime that was taken over")
    successor.take_over(rig.receiver)
    rig.same(sent, await rig.take_all(successor), "what is there after a second take-over of the same")


async def _take_over_close(rig: Rig) -> None:
    receiver, sent = rig.receiver, await rig.send_some(1)
    for how in ("no claim open", "a claim open and left later", "a claim open and committed later"):
        successor = await rig.bench.rebuild()
        if how == "no claim open":
            successor.take_over(receiver)
            await receiver.aclose()
        else:
            with await receiver.claim() as claim:
                successor.take_over(receiver)
                await receiver.aclose()
                if how.endswith("committed later"):
                    rig.same(sent.pop(0), claim.envelope.body, "what was claimed before the take-over")
                    claim.commit()
        receiver = successor
        sent += await rig.send_some(1)
        found = receiver.statistics().work_waiting
        rig.same(len(sent), found, f"work_waiting after the previous runtime was closed with {how}")
    rig.same(sent, await rig.take_all(receiver), "what is there after the previous runtimes were closed")


@final
class _Stranger(CommsRuntime):
    """A runtime of a class that no implementation can know."""

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise NotImplementedError

    runtime_id = peer_id = public_key = advertised_address = property(_refuse)
    claim = claim_nowait = send = send_nowait = take_over = is_manually_trusted = _refuse
    add_trusted_peer = remove_trusted_peer = trusted_peers = statistics = aclose = _refuse


ENDING_RULES: Final = (
    Rule(
        "closing",
        "What was accepted and not admitted is DROPPED(CLOSED); closing twice is harmless.",
        _closing,
    ),
    Rule(
        "closing-wakes",
        "Closing wakes waiting senders, with CLOSED, and the waiting claimer.",
        _closing_wakes,
    ),
    Rule("closing-cancelled", "A cancelled `aclose` has closed all the same.", _closing_cancelled),
    Rule("closing-claim", "A claim open at `aclose` still decides about its envelope.", _closing_claim),
    Rule(
        "closed-recipient",
        "A send to a closed runtime gives a receipt that is DROPPED(CLOSED).",
        _closed_recipient,
    ),
    Rule(
        "closed-refuses",
        "A closed runtime refuses claims and sends with ClosedResourceError.",
        _closed_refuses,
    ),
    Rule(
        "take-over-foreign",
        "Taking over another class is a TypeError and changes nothing.",
        _take_over_foreign,
    ),
    Rule("take-over-closed", "A closed runtime takes nothing over, and nothing changes.", _take_over_closed),
    Rule("take-over-queue", "What was accepted moves in its order, and its receipts with it.", _take_over_queue),
    Rule("take-over-front", "What moves goes in front of the successor's own.", _take_over_front),
    Rule("take-over-close", "The previous one may be closed at once; nothing is lost.", _take_over_close),
    Rule("take-over-parked", "Waiting senders move in their order, and wait on or are cancelled.", _take_over_parked),
    Rule("take-over-window", "Duplicates of what either of the two saw are still known.", _take_over_window),
    Rule(
        "take-over-claim",
        "An open claim stays valid; the successor's claims wait for its end.",
        _take_over_claim,
    ),
    Rule(
        "take-over-wakes",
        "A claim that waits on the previous one gets ClosedResourceError.",
        _take_over_wakes,
    ),
    Rule("take-over-arrives", "A claim that waits on the successor gets what moves.", _take_over_arrives),
    Rule(
        "take-over-refuses",
        "The previous one refuses afterwards, and has nothing more to give.",
        _take_over_refuses,
    ),
)
