"""Conformance rules of the sending side and of the trust store.

Each function tries the one promise its rule states, on a fresh bench.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import trio
from attrs import evolve

from .._messages import Receipt, ReceiptStatus, TrustSource
from ..authority import DropReason, PeerEndpoint, PeerId
from ._conformance_rig import Rule

if TYPE_CHECKING:
    from ..abc import CommsRuntime
    from ._conformance_rig import Rig

__all__ = ["SEND_RULES"]

# How many checkpoints after the decisive moment a cancellation is still tried.
_DELAYS: Final = range(4)
# After how many steps of its task a call that need not wait is cancelled.
_STEPS: Final = range(1, 5)


async def _full_lane(rig: Rig) -> None:
    sent = await rig.fill()
    late = rig.note()
    await rig.raises(trio.WouldBlock, lambda: rig.sender.send_nowait(late), "send_nowait to a full lane")
    attempt = await rig.start(lambda: rig.sender.send(late))
    rig.expect(attempt.waiting, f"send to a full lane has to wait, but {attempt}")
    rig.same(sent[0], await rig.take(rig.receiver), "the first envelope")
    await rig.settle()
    rig.expect(attempt.error is None and not attempt.waiting, f"send has to end when there is room, but {attempt}")
    rig.same([*sent[1:], late.body], await rig.take_all(rig.receiver), "what was sent")


async def _lanes_apart(rig: Rig) -> None:
    work = await rig.fill()
    attempt = await rig.start(lambda: rig.sender.send(rig.note(control=True)))
    rig.expect(not attempt.waiting, "a control envelope waits because the work lane is full")
    control = await rig.send_some(rig.bench.control_lane - 1, control=True)
    attempt = await rig.start(lambda: rig.sender.send(rig.note(control=True)))
    rig.expect(attempt.waiting, f"send to a full control lane has to wait, but {attempt}")
    attempt.cancel()
    await rig.settle()
    found = await rig.take_all(rig.receiver)
    rig.same(control, found[1 : rig.bench.control_lane], "what the control lane held")
    rig.same(work, found[rig.bench.control_lane :], "what the work lane held")


async def _parked_order(rig: Rig) -> None:
    sent = await rig.fill()
    parked, attempts = await rig.park(rig.sender, rig.other, rig.sender, rig.other)
    found = await rig.take_all(rig.receiver)
    rig.same(sent, found[: len(sent)], "what was accepted before")
    late = found[len(sent) :]
    rig.same(parked[::2], [body for body in late if body in parked[::2]], "waiting envelopes of one sender")
    rig.same(parked[1::2], [body for body in late if body in parked[1::2]], "waiting envelopes of the other")
    rig.same(sorted(parked), sorted(late), "all the waiting envelopes")
    rig.expect(not any(a.waiting for a in attempts), "a sender still waits though its envelope was claimed")


async def _no_overtaking(rig: Rig) -> None:
    sent = await rig.fill()
    parked, _ = await rig.park(rig.sender)
    rig.same(sent[0], await rig.take(rig.receiver), "the first envelope")
    # No checkpoint since the commit: room, if there is any, belongs to the one that waits.
    await rig.raises(trio.WouldBlock, lambda: rig.sender.send_nowait(rig.note()), "send_nowait past a waiting sender")
    await rig.settle()
    parked += (await rig.park(rig.sender))[0]
    late = rig.note()

    async def make_room_and_send() -> None:
        # No checkpoint in between here either.
        await rig.take(rig.receiver)
        await rig.sender.send(late)

    attempt = await rig.start(make_room_and_send)
    rig.same([*sent[2:], *parked, late.body], await rig.take_all(rig.receiver), "what was sent")
    rig.expect(not attempt.waiting, "a sender still waits though its envelope was claimed")


async def _cancelled_send(rig: Rig) -> None:
    sent = await rig.fill()
    note = rig.note()
    attempt = await rig.start(lambda: rig.sender.send(note))
    attempt.cancel()
    await rig.settle()
    rig.expect(attempt.cancelled, f"a waiting send was cancelled, but {attempt}")
    rig.same(sent, await rig.take_all(rig.receiver), "what is there after a waiting send was cancelled")
    receipt = await rig.sender.send(note)
    rig.same(ReceiptStatus.QUEUED, receipt.status, "the same envelope again after its send was cancelled")
    rig.same([note.body], await rig.take_all(rig.receiver), "what was sent again")


async def _all_or_nothing(rig: Rig) -> None:
    for delay in _DELAYS:
        sent = await rig.fill()
        (body,), (attempt,) = await rig.park(rig.sender)
        rig.same(sent[0], await rig.take(rig.receiver), "the first envelope")
        for _ in range(delay):
            await trio.lowlevel.checkpoint()
        attempt.cancel()
        await rig.settle()
        found = await rig.take_all(rig.receiver)
        expected = sent[1:] if attempt.cancelled else [*sent[1:], body]
        rig.same(expected, found, f"what is there after a send was cancelled as room appeared and {attempt}")
    for steps in _STEPS:
        note = rig.note()
        attempt = await rig.start_cancelled(lambda note=note: rig.sender.send(note), steps)  # type: ignore[misc]
        found = await rig.take_all(rig.receiver)
        expected = [] if attempt.cancelled else [note.body]
        rig.same(expected, found, f"what is there after a send that found room was cancelled and {attempt}")


async def _duplicates(rig: Rig) -> None:
    note, twin = rig.note(id="twin"), rig.note(rig.other, id="twin")
    for again in range(2):
        receipt = await rig.sender.send(note)
        await rig.settle()
        if again:
            rig.same(DropReason.DUPLICATE, receipt.reason, "the receipt of a second envelope with one id")
    rig.expect((await rig.other.send(twin)).reason is None, "another sender's envelope with that id was dropped")
    rig.same([note.body, twin.body], await rig.take_all(rig.receiver), "what is there after a duplicate")
    receipt = await rig.sender.send(note)
    await rig.settle()
    rig.same(DropReason.DUPLICATE, receipt.reason, "the receipt of a duplicate of what was admitted")
    sent, parked = await rig.fill(), rig.note()
    first, second = [await rig.start(lambda: rig.sender.send(parked)) for _ in range(2)]
    rig.same([*sent, parked.body], await rig.take_all(rig.receiver), "what is there after a duplicate of what waits")
    rig.same(ReceiptStatus.ADMITTED, getattr(first.result, "status", first), "the receipt of what waited for room")
    rig.same(DropReason.DUPLICATE, getattr(second.result, "reason", second), "the receipt of a duplicate of what waits")


async def _own_sender(rig: Rig) -> None:
    forged = rig.note(rig.other)
    await rig.raises(ValueError, lambda: rig.sender.send(forged), "send in another's name")
    await rig.raises(ValueError, lambda: rig.sender.send_nowait(forged), "send_nowait in another's name")
    rig.same([], await rig.take_all(rig.receiver), "what is there after sends that were refused")


def _stranger(comms: CommsRuntime) -> PeerEndpoint:
    """Make up a peer: the bench's own may have edges already."""
    key = sha256(comms.public_key).digest()
    return PeerEndpoint(name="peer", peer_id=PeerId.of_key(key), address=comms.advertised_address, signing_key=key)


async def _trust_by_source(rig: Rig) -> None:
    comms, peer = rig.receiver, _stranger(rig.sender)
    before = dict(await comms.trusted_peers())
    await comms.add_trusted_peer(peer, TrustSource.DIRECT)
    await comms.add_trusted_peer(peer, TrustSource.OVERLAY)
    renamed = evolve(peer, name="renamed")
    await comms.add_trusted_peer(renamed, TrustSource.DIRECT)
    edges: dict[Any, PeerEndpoint] = {
        **before,
        (peer.peer_id, TrustSource.DIRECT): renamed,
        (peer.peer_id, TrustSource.OVERLAY): peer,
    }
    rig.same(edges, dict(await comms.trusted_peers()), "the trust store")
    rig.same(True, await comms.remove_trusted_peer(peer.peer_id, TrustSource.DIRECT), "removing an edge")  # noqa: FBT003
    rig.same(False, await comms.remove_trusted_peer(peer.peer_id, TrustSource.DIRECT), "removing it again")  # noqa: FBT003
    del edges[peer.peer_id, TrustSource.DIRECT]
    rig.same(edges, dict(await comms.trusted_peers()), "the trust store after one source's edge was removed")


async def _manual_trust(rig: Rig) -> None:
    comms, peer = rig.receiver, _stranger(rig.sender)
    for source in TrustSource:
        await comms.add_trusted_peer(peer, source)
        found = comms.is_manually_trusted(peer.peer_id)
        rig.same(source is TrustSource.MANUAL, found, f"is_manually_trusted with an edge of {source.name}")
        await comms.remove_trusted_peer(peer.peer_id, source)
    rig.expect(not comms.is_manually_trusted(peer.peer_id), "manually trusted although the edge was removed")


async def _unread_receipts(rig: Rig) -> None:
    receipt: Receipt = rig.sender.send_nowait(rig.note())
    waiters = [await rig.start(receipt.wait) for _ in range(2)]
    waiters[0].cancel()
    await rig.take_all(rig.receiver)
    rig.same(ReceiptStatus.ADMITTED, waiters[1].result, "what a task that waits on a receipt got")


SEND_RULES: Final = (
    Rule("full-lane", "A send to a full lane waits for room; nothing is dropped for lack of it.", _full_lane),
    Rule("lanes-apart", "Each lane has a bound of its own: full work does not stop control.", _lanes_apart),
    Rule("parked-order", "Senders that wait get in, each sender's envelopes in their order.", _parked_order),
    Rule("no-overtaking", "Neither `send` nor `send_nowait` gets past a sender that waits.", _no_overtaking),
    Rule(
        "cancelled-send",
        "A waiting send that is cancelled was not sent, and may be sent again.",
        _cancelled_send,
    ),
    Rule("all-or-nothing", "A send cancelled at any moment returned and was sent, or was not.", _all_or_nothing),
    Rule("duplicates", "A second envelope with the same sender and id is dropped as DUPLICATE.", _duplicates),
    Rule("own-sender", "An envelope in another's name is refused with ValueError.", _own_sender),
    Rule("receipt-waiters", "Any number of tasks may wait on the receipt of `send_nowait`.", _unread_receipts),
    Rule("trust-by-source", "Each source adds, replaces and removes its own edges alone.", _trust_by_source),
    Rule("manual-trust", "`is_manually_trusted` looks at edges of source MANUAL alone.", _manual_trust),
)
