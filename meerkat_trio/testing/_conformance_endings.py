"""Conformance rules of closing and of take-over.

Each function tries the one promise its rule states, on a fresh bench.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from .._messages import Receipt, ReceiptStatus
from ..abc import CommsRuntime
from ..authority import DropReason
from ._conformance_rig import Rule

if TYPE_CHECKING:
    from ._conformance_rig import Rig

__all__ = ["ENDING_RULES"]


_DROPPED: Final = (ReceiptStatus.DROPPED, DropReason.CLOSED)
_ADMITTED: Final = (ReceiptStatus.ADMITTED, None)


def _same_status(rig: Rig, expected: tuple[ReceiptStatus, DropReason | None], receipt: object, what: str) -> None:
    found = (receipt.status, receipt.reason) if isinstance(receipt, Receipt) else receipt
    rig.same(expected, found, what)


async def _closing(rig: Rig) -> None:
    receipt = await rig.sender.send(rig.note())
    await rig.settle()
    await rig.receiver.aclose()
    await rig.receiver.aclose()
    await rig.settle()
    _same_status(rig, _DROPPED, receipt, "the receipt of what was accepted and not admitted")


async def _closing_wakes(rig: Rig) -> None:
    claimer = await rig.start(rig.other.claim)
    await rig.other.aclose()
    await rig.settle()
    rig.expect(isinstance(claimer.error, trio.ClosedResourceError), f"a claim waited when it closed, but {claimer}")
    await rig.fill_work()
    sender = await rig.start(lambda: rig.sender.send(rig.note()))
    await rig.receiver.aclose()
    await rig.settle()
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
    first, second = rig.note(), rig.note()
    receipts = [await rig.sender.send(note) for note in (first, second)]
    await rig.settle()
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    later = rig.note()
    await rig.sender.send(later)
    found = await rig.take_all(successor)
    rig.same([first.body, second.body, later.body], found, "what was claimed after a take-over")
    for receipt in receipts:
        _same_status(rig, _ADMITTED, receipt, "the receipt of what was accepted before a take-over")


async def _take_over_front(rig: Rig) -> None:
    own = rig.note(rig.other, to=rig.sender.peer_id)
    await rig.other.send(own)
    moved = await rig.send_some(2)
    rig.sender.take_over(rig.receiver)
    rig.same([*moved, own.body], await rig.take_all(rig.sender), "what was claimed after a take-over")


async def _take_over_parked(rig: Rig) -> None:
    sent = await rig.fill_work()
    attempts = []
    for _ in range(2):
        note = rig.note()
        sent.append(note.body)
        attempts.append(await rig.start(lambda note=note: rig.sender.send(note)))  # type: ignore[misc]
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    rig.same(sent, await rig.take_all(successor), "what was claimed after a take-over with waiting senders")
    for attempt in attempts:
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
    successor.take_over(rig.receiver)
    rig.same(sent, await rig.take_all(successor), "what is there after a second take-over of the same")


async def _take_over_close(rig: Rig) -> None:
    sent = await rig.send_some(2)
    successor = await rig.bench.rebuild()
    successor.take_over(rig.receiver)
    await rig.receiver.aclose()
    sent += await rig.send_some(1)
    rig.same(sent, await rig.take_all(successor), "what is there after the previous runtime was closed")


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
    Rule("take-over-parked", "Waiting senders move in their order and wait on.", _take_over_parked),
    Rule("take-over-window", "Duplicates of what the previous one saw are still known.", _take_over_window),
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
    Rule("take-over-close", "The previous one may be closed at once; nothing is lost.", _take_over_close),
)
