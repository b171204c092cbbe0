"""A sleeping claimer that lets envelopes be taken in the call that sends them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from meerkat_trio import DropReason, EnvelopeKind, MemoryComms, MemoryNetwork, ReceiptStatus
from meerkat_trio._messages import Envelope, Receipt
from meerkat_trio.abc import Claim


class Taking:
    """A recipient that takes bodies which are numbers, and claims the rest."""

    def __init__(self, kind: type[MemoryComms] = MemoryComms) -> None:
        self.network = MemoryNetwork()
        self.comms = kind(self.network, "recipient")
        self.sender = MemoryComms(self.network, "sender")
        self.taken: list[Any] = []
        self.claimed: list[Any] = []
        self.scope = trio.CancelScope()

    def take(self, envelope: Envelope) -> bool:
        if not isinstance(envelope.body, int):
            return False
        self.taken.append(envelope.body)
        return True

    async def claim(self) -> None:
        with self.scope, await self.comms.claim_untaken(self.take) as claim:
            self.claimed.append(claim.envelope.body)
            claim.commit()

    def send(self, body: object, **fields: Any) -> Receipt:
        return self.sender.send_nowait(self.sender.envelope(self.comms.peer_id, body, **fields))


async def test_what_is_taken_is_admitted_in_the_call_that_sends_it() -> None:
    rig = Taking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.claim)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.send(1, id="one").status is ReceiptStatus.ADMITTED
        assert rig.send(1, id="one").reason is DropReason.DUPLICATE
        receipt = await rig.sender.send(rig.sender.envelope(rig.comms.peer_id, 2))
        assert receipt.status is ReceiptStatus.ADMITTED
        assert (rig.taken, rig.comms.statistics().work_waiting) == ([1, 2], 0)
        nursery.cancel_scope.cancel()
    assert rig.claimed == []


async def test_what_is_left_is_claimed_and_nothing_behind_it_is_taken() -> None:
    rig = Taking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.claim)
        await trio.testing.wait_all_tasks_blocked()
        receipts = [rig.send("left"), rig.send(1)]
        assert [receipt.status for receipt in receipts] == [ReceiptStatus.QUEUED] * 2
    assert (rig.claimed, rig.taken) == (["left"], [])
    assert rig.comms.statistics().work_waiting == 1


async def test_nothing_is_taken_behind_a_control_envelope() -> None:
    rig = Taking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.claim)
        await trio.testing.wait_all_tasks_blocked()
        rig.send("notice", kind=EnvelopeKind.PEER_ADDED)
        rig.send(1)
    assert (rig.taken, rig.claimed, rig.comms.statistics().work_waiting) == ([], ["notice"], 1)


async def test_nothing_is_taken_for_a_claimer_that_was_cancelled() -> None:
    rig = Taking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.claim)
        await trio.testing.wait_all_tasks_blocked()
        rig.scope.cancel()
        assert rig.send(1).status is ReceiptStatus.QUEUED
    assert (rig.taken, rig.comms.statistics().work_waiting) == ([], 1)


async def test_nothing_is_taken_for_an_instance_that_was_taken_over() -> None:
    rig = Taking()
    successor = MemoryComms(rig.network, "recipient")
    async with trio.open_nursery() as nursery:
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with trio.open_nursery() as claiming:
                claiming.start_soon(rig.claim)
                await trio.testing.wait_all_tasks_blocked()
                successor.take_over(rig.comms)
                assert rig.send(1).status is ReceiptStatus.QUEUED
        nursery.cancel_scope.cancel()
    assert (rig.taken, successor.statistics().work_waiting) == ([], 1)


async def test_nothing_is_taken_while_a_claim_that_was_taken_over_is_open() -> None:
    rig = Taking()
    rig.send("first")
    with rig.comms.claim_nowait() as claim:
        old, rig.comms = rig.comms, MemoryComms(rig.network, "recipient")
        rig.comms.take_over(old)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.claim)
            await trio.testing.wait_all_tasks_blocked()
            rig.send(1)
            assert rig.taken == []
            claim.commit()
            claim.__exit__(None, None, None)
    assert rig.claimed == [1]


async def test_a_runtime_that_claims_in_its_own_way_is_not_passed_over() -> None:
    class Own(MemoryComms):
        async def claim(self, **options: Any) -> Claim:
            return await super().claim(**options)

    rig = Taking(Own)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.claim)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.send(1).status is ReceiptStatus.QUEUED
    assert (rig.taken, rig.claimed) == ([], [1])
