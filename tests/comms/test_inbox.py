"""`Inbox` alone: bounds, wake-ups, take-over, closing. The conformance suite tests the contract itself."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from meerkat_trio._messages import Envelope, Receipt, ReceiptStatus
from meerkat_trio.abc import CONTROL_LANE
from meerkat_trio.authority import DropReason, EnvelopeKind, Lane, PeerId
from meerkat_trio.comms._inbox import Inbox, InboxClaim

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ALICE, BOB = (PeerId.of_key(bytes([n]) * 32) for n in (1, 2))


def note(name: object, *, control: bool = False, sender: PeerId = ALICE) -> Envelope:
    kind = EnvelopeKind.PEER_ADDED if control else EnvelopeKind.MESSAGE
    return Envelope(id=str(name), sender=sender, recipient=BOB, kind=kind)


def take_all(inbox: Inbox) -> list[str]:
    found: list[str] = []
    while True:
        try:
            claim = inbox.claim_nowait()
        except trio.WouldBlock:
            return found
        found.append(claim.envelope.id)
        claim.commit()


class Started:
    """A call in a task, and what it came to."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[Any]]) -> None:
        self.scope = trio.CancelScope()
        self.result: Any = None
        nursery.start_soon(self._run, call)

    async def _run(self, call: Callable[[], Awaitable[Any]]) -> None:
        with self.scope:
            try:
                self.result = await call()
            except trio.ClosedResourceError as exc:
                self.result = exc


@pytest.mark.parametrize("bound", ["work_lane", "control_lane", "dedupe_window"])
def test_a_bound_below_one_is_refused_by_its_name(bound: str) -> None:
    with pytest.raises(ValueError, match=f"{bound}: at least 1"):
        Inbox(**{bound: 0})


def test_an_idle_inbox_is_small() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        inboxes = [Inbox() for _ in range(200)]
        per_inbox = (tracemalloc.get_traced_memory()[0] - before) / len(inboxes)
    finally:
        tracemalloc.stop()
    assert per_inbox < 600


def test_an_open_claim_occupies_its_slot_in_the_bound() -> None:
    inbox = Inbox(work_lane=1)
    inbox.put_nowait(note(1))
    with inbox.claim_nowait() as claim:
        with pytest.raises(trio.WouldBlock):
            inbox.put_nowait(note(2))
        claim.commit()
        inbox.put_nowait(note(2))
    assert take_all(inbox) == ["2"]


def test_a_stale_claim_does_not_touch_the_claim_that_followed_it() -> None:
    inbox = Inbox()
    inbox.put_nowait(note(1))
    with inbox.claim_nowait() as stale:
        pass
    current = inbox.claim_nowait()
    with pytest.raises(trio.ClosedResourceError):
        stale.commit()
    with stale:
        pass
    assert inbox.statistics().claim_open
    current.commit()


def test_the_oldest_of_the_dedupe_window_is_forgotten_first() -> None:
    inbox = Inbox(dedupe_window=2)
    for name in (1, 2, 3):
        inbox.put_nowait(note(name))
    reasons = [inbox.put_nowait(note(name)).reason for name in (3, 2, 1)]
    assert reasons == [DropReason.DUPLICATE, DropReason.DUPLICATE, None]


@pytest.mark.parametrize("rebound", [False, True])
async def test_of_twins_that_wait_the_first_that_is_not_cancelled_is_accepted(rebound: bool) -> None:
    inbox = Inbox(work_lane=1)
    inbox.put_nowait(note(1))
    async with trio.open_nursery() as nursery:
        twins = []
        for _ in range(3):
            twins.append(Started(nursery, lambda: inbox.put(note(2))))
            await trio.testing.wait_all_tasks_blocked()
        last = Started(nursery, lambda: inbox.put(note(3)))
        await trio.testing.wait_all_tasks_blocked()
        twins[0].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        if rebound:
            previous, inbox = inbox, Inbox(work_lane=3)
            inbox.take_over(previous)
            assert (await inbox.put(note(2))).reason is DropReason.DUPLICATE
        assert take_all(inbox) == ["1", "2", "3"]
    assert [twin.result and twin.result.reason for twin in twins] == [None, None, DropReason.DUPLICATE]
    assert [twin.result and twin.result.status for twin in twins[:2]] == [None, ReceiptStatus.ADMITTED]
    assert last.result.status is ReceiptStatus.ADMITTED


async def test_a_sender_woken_and_then_cancelled_was_sent() -> None:
    inbox = Inbox(work_lane=1)
    inbox.put_nowait(note(1))
    async with trio.open_nursery() as nursery:
        waiting = Started(nursery, lambda: inbox.put(note(2)))
        await trio.testing.wait_all_tasks_blocked()
        inbox.claim_nowait().commit()
        waiting.scope.cancel()
    assert isinstance(waiting.result, Receipt)
    assert take_all(inbox) == ["2"]
    assert waiting.result.status is ReceiptStatus.ADMITTED


async def test_a_claimer_woken_and_then_cancelled_puts_the_envelope_back() -> None:
    inbox = Inbox()

    async def claim_and_handle() -> None:
        with await inbox.claim() as claim:
            await trio.lowlevel.checkpoint()
            claim.commit()

    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, claim_and_handle)
        await trio.testing.wait_all_tasks_blocked()
        inbox.put_nowait(note(1))
        claimer.scope.cancel()
    assert claimer.scope.cancelled_caught
    assert take_all(inbox) == ["1"]


async def test_a_claimer_cancelled_while_it_waits_frees_the_place_for_another() -> None:
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, inbox.claim)
        await trio.testing.wait_all_tasks_blocked()
        claimer.scope.cancel()
    inbox.put_nowait(note(1))
    assert take_all(inbox) == ["1"]


async def test_a_claimer_is_rescheduled_once_by_any_number_of_envelopes() -> None:
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, inbox.claim)
        await trio.testing.wait_all_tasks_blocked()
        # Rescheduling a task that is runnable already would end the whole run with an internal error.
        for name in range(3):
            inbox.put_nowait(note(name))
    assert isinstance(claimer.result, InboxClaim)
    claimer.result.commit()
    assert take_all(inbox) == ["1", "2"]


async def test_another_claimer_is_busy_also_while_the_first_makes_its_checkpoint() -> None:
    inbox = Inbox()
    inbox.put_nowait(note(1))
    first = inbox.claim()
    first.send(None)  # up to its checkpoint, by hand: no schedule gets between
    with pytest.raises(trio.BusyResourceError):
        inbox.claim_nowait()
    first.close()
    assert take_all(inbox) == ["1"]


async def test_a_claim_of_control_alone_is_not_woken_by_work() -> None:
    inbox = Inbox()
    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, lambda: inbox.claim(CONTROL_LANE))
        await trio.testing.wait_all_tasks_blocked()
        inbox.put_nowait(note("work"))
        await trio.testing.wait_all_tasks_blocked()
        assert not claimer.result
        inbox.put_nowait(note("control", control=True))
    assert claimer.result.envelope.lane is Lane.CONTROL


async def test_put_and_claim_are_checkpoints_whether_or_not_they_wait() -> None:
    inbox = Inbox()
    with trio.testing.assert_checkpoints():
        await inbox.put(note(1))
    with trio.testing.assert_checkpoints():
        claim = await inbox.claim()
    claim.commit()


async def test_taking_itself_over_changes_nothing() -> None:
    inbox = Inbox()
    inbox.put_nowait(note(1))
    inbox.take_over(inbox)
    assert take_all(inbox) == ["1"]


async def test_taking_over_a_closed_inbox_moves_nothing() -> None:
    previous, inbox = Inbox(), Inbox()
    receipt = previous.put_nowait(note(1))
    previous.close()
    inbox.take_over(previous)
    assert take_all(inbox) == []
    assert receipt.reason is DropReason.CLOSED


async def test_a_closed_inbox_takes_nothing_over() -> None:
    previous, inbox = Inbox(), Inbox()
    previous.put_nowait(note(1))
    inbox.close()
    with pytest.raises(trio.ClosedResourceError):
        inbox.take_over(previous)
    assert take_all(previous) == ["1"]


async def test_what_moves_may_exceed_the_bound_and_nothing_is_dropped() -> None:
    previous, inbox = Inbox(work_lane=4), Inbox(work_lane=2)
    for name in range(4):
        previous.put_nowait(note(name))
    inbox.put_nowait(note("own"))
    inbox.take_over(previous)
    with pytest.raises(trio.WouldBlock):
        inbox.put_nowait(note("late"))
    assert take_all(inbox) == ["0", "1", "2", "3", "own"]


async def test_waiting_senders_of_the_previous_go_before_those_of_the_successor() -> None:
    previous, inbox = Inbox(work_lane=1), Inbox(work_lane=1)
    previous.put_nowait(note("p1"))
    inbox.put_nowait(note("n1"))
    async with trio.open_nursery() as nursery:
        Started(nursery, lambda: inbox.put(note("n2")))
        await trio.testing.wait_all_tasks_blocked()
        Started(nursery, lambda: previous.put(note("p2")))
        await trio.testing.wait_all_tasks_blocked()
        inbox.take_over(previous)
        assert take_all(inbox) == ["p1", "n1", "p2", "n2"]


async def test_waiting_senders_get_in_at_once_when_the_successor_has_room() -> None:
    previous, inbox = Inbox(work_lane=1), Inbox(work_lane=8)
    previous.put_nowait(note(1))
    async with trio.open_nursery() as nursery:
        waiting = Started(nursery, lambda: previous.put(note(2)))
        await trio.testing.wait_all_tasks_blocked()
        inbox.take_over(previous)
    assert isinstance(waiting.result, Receipt)
    assert take_all(inbox) == ["1", "2"]


async def test_a_sender_that_moved_can_still_be_cancelled() -> None:
    previous, inbox = Inbox(work_lane=1), Inbox(work_lane=1)
    previous.put_nowait(note(1))
    async with trio.open_nursery() as nursery:
        waiting = Started(nursery, lambda: previous.put(note(2)))
        await trio.testing.wait_all_tasks_blocked()
        inbox.take_over(previous)
        waiting.scope.cancel()
    assert waiting.scope.cancelled_caught
    assert take_all(inbox) == ["1"]
    assert inbox.put_nowait(note(2)).status is ReceiptStatus.QUEUED


@pytest.mark.parametrize("commit", [True, False])
async def test_a_claim_stays_valid_along_a_chain_of_take_overs(commit: bool) -> None:
    first, second, third = Inbox(), Inbox(), Inbox()
    for name in (1, 2):
        first.put_nowait(note(name))
    with first.claim_nowait() as claim:
        second.take_over(first)
        third.take_over(second)
        first.close()
        second.close()
        with pytest.raises(trio.WouldBlock):
            third.claim_nowait()
        assert third.statistics().work_waiting == 1
        if commit:
            claim.commit()
    assert take_all(third) == (["2"] if commit else ["1", "2"])


@pytest.mark.parametrize("commit", [True, False])
async def test_two_open_claims_meet_in_one_inbox_and_keep_their_places(commit: bool) -> None:
    previous, inbox = Inbox(), Inbox()
    previous.put_nowait(note("p"))
    for name in ("n1", "n2"):
        inbox.put_nowait(note(name))
    own, moved = inbox.claim_nowait(), previous.claim_nowait()
    inbox.take_over(previous)
    with own:
        if commit:
            own.commit()
    with pytest.raises(trio.WouldBlock):
        inbox.claim_nowait()
    with moved:
        pass
    assert take_all(inbox) == (["p", "n2"] if commit else ["p", "n1", "n2"])


async def test_a_claimer_woken_before_a_take_over_waits_for_the_claim_it_brought() -> None:
    previous, inbox = Inbox(), Inbox()
    previous.put_nowait(note("p"))
    moved = previous.claim_nowait()
    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, inbox.claim)
        await trio.testing.wait_all_tasks_blocked()
        inbox.put_nowait(note("n"))
        inbox.take_over(previous)
        await trio.testing.wait_all_tasks_blocked()
        assert not claimer.result
        moved.commit()
    assert claimer.result.envelope.id == "n"


async def test_a_claimer_of_the_previous_is_told_and_takes_nothing_along() -> None:
    previous, inbox = Inbox(), Inbox()
    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, previous.claim)
        await trio.testing.wait_all_tasks_blocked()
        previous.put_nowait(note(1))
        inbox.take_over(previous)
    assert isinstance(claimer.result, trio.ClosedResourceError)
    assert take_all(inbox) == ["1"]


async def test_a_claimer_that_waits_gets_what_a_take_over_brings() -> None:
    previous, inbox = Inbox(), Inbox()
    previous.put_nowait(note(1))
    async with trio.open_nursery() as nursery:
        claimer = Started(nursery, inbox.claim)
        await trio.testing.wait_all_tasks_blocked()
        inbox.take_over(previous)
    assert claimer.result.envelope.id == "1"


async def test_an_inbox_that_was_taken_over_refuses_and_says_why() -> None:
    previous, inbox = Inbox(), Inbox()
    inbox.take_over(previous)
    assert previous.put_nowait(note(1)).reason is DropReason.CLOSED
    assert (await previous.put(note(2))).reason is DropReason.CLOSED
    with pytest.raises(trio.ClosedResourceError, match="was taken over"):
        previous.claim_nowait()
    with pytest.raises(trio.ClosedResourceError, match="was taken over"):
        await previous.claim()
    with pytest.raises(trio.ClosedResourceError, match="was taken over"):
        previous.take_over(inbox)


async def test_a_merged_window_keeps_what_the_successor_saw_when_it_has_to_forget() -> None:
    previous, inbox = Inbox(dedupe_window=2), Inbox(dedupe_window=2)
    for name in ("p1", "p2"):
        previous.put_nowait(note(name))
    inbox.put_nowait(note("n1"))
    inbox.take_over(previous)
    take_all(inbox)
    reasons = [inbox.put_nowait(note(name)).reason for name in ("n1", "p2", "p1")]
    assert reasons == [DropReason.DUPLICATE, DropReason.DUPLICATE, None]


async def test_d25_a_full_inbox_drops_nothing_and_closing_wakes_every_waiting_sender() -> None:
    inbox = Inbox(work_lane=1, control_lane=1)
    accepted = [inbox.put_nowait(note("w")), inbox.put_nowait(note("c", control=True))]
    async with trio.open_nursery() as nursery:
        waiting = [
            Started(nursery, lambda name=name, lane=lane: inbox.put(note(name, control=lane)))  # type: ignore[misc]
            for name, lane in (("w1", False), ("w2", False), ("c1", True))
        ]
        await trio.testing.wait_all_tasks_blocked()
        assert [receipt.status for receipt in accepted] == [ReceiptStatus.QUEUED] * 2
        assert inbox.statistics().parked_senders == len(waiting)
        inbox.close()
    receipts = accepted + [task.result for task in waiting]
    assert [receipt.reason for receipt in receipts] == [DropReason.CLOSED] * 5


@pytest.mark.parametrize("commit", [True, False])
async def test_a_claim_that_moved_still_decides_after_its_inbox_has_closed(commit: bool) -> None:
    previous, inbox = Inbox(), Inbox()
    receipts = [previous.put_nowait(note(name)) for name in (1, 2)]
    with previous.claim_nowait() as claim:
        inbox.take_over(previous)
        inbox.close()
        inbox.close()
        assert receipts[1].reason is DropReason.CLOSED
        assert receipts[0].status is ReceiptStatus.QUEUED
        assert inbox.statistics().claim_open
        assert inbox.statistics().work_waiting == 0
        if commit:
            claim.commit()
    assert receipts[0].status is (ReceiptStatus.ADMITTED if commit else ReceiptStatus.DROPPED)
    assert not inbox.statistics().claim_open


def test_a_claim_says_what_it_is_of_and_whether_it_is_open() -> None:
    inbox = Inbox()
    inbox.put_nowait(note("x"))
    claim = inbox.claim_nowait()
    assert repr(claim) == "<InboxClaim of 'x', open>"
    claim.commit()
    assert repr(claim) == "<InboxClaim of 'x', closed>"
