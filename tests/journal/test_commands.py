"""The commands of a supervisor where a journal is kept: over the end of a process, and at its very end."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from meerkat_trio import (
    BindMember,
    Bound,
    BridgeCommand,
    DeliverMemberInput,
    EnvelopeKind,
    MemoryComms,
    PeerEndpoint,
    Receipt,
    ReceiptStatus,
    ResponseStatus,
    Session,
    TrustSource,
)
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.testing import MemoryJournal

from .rig import World, world

settle = trio.testing.wait_all_tasks_blocked


Clock = trio.testing.MockClock


class Deaf(MemoryComms):
    """A transport whose trust store stores nothing but what is stored by hand."""

    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        if source is not TrustSource.MANUAL:
            raise OSError("not today")
        await super().add_trusted_peer(endpoint, source)


async def tell(rig: World, command: BridgeCommand, name: str) -> Receipt:
    return await rig.peer.send(
        rig.envelope(
            command.params(), id=name, kind=EnvelopeKind.REQUEST, intent=BRIDGE_INTENT, correlation=f"about {name}"
        )
    )


def answers(rig: World) -> list[tuple[str | None, ResponseStatus | None, Any]]:
    heard = []
    while (claim := rig.peer.claim_ready()) is not None:
        with claim:
            heard.append((claim.envelope.correlation, claim.envelope.status, claim.envelope.body))
            claim.commit()
    return heard


def binding(rig: World, token: str) -> BindMember:
    return BindMember(
        supervisor=rig.peer.endpoint(),
        epoch=1,
        expected_peer_id=rig.envelope("").recipient,
        expected_address="inproc://a",
        bootstrap_token=token,
    )


async def test_a_binding_that_outlives_its_process_is_not_answered_as_one_that_failed(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.machine.register("a")
        deaf = Deaf(before.network, "a")
        await deaf.add_trusted_peer(before.peer.endpoint(), TrustSource.MANUAL)
        await session.attach_ingress(deaf)
        receipt = await tell(before, binding(before, session.issue_bootstrap_token()), "bind")
        assert await receipt.wait() is ReceiptStatus.ADMITTED
        assert isinstance(session.supervisor, Bound)
    assert answers(before) == []
    async with world(journal) as after:
        session = await after.session()
        await settle()
        assert isinstance(session.supervisor, Bound)
        ((_, status, body),) = answers(after)
        assert status is ResponseStatus.COMPLETED, body


async def supervised(rig: World) -> Session:
    session = await rig.session()
    session.bind_supervisor(rig.peer.endpoint(), epoch=1)
    await session.wait_supervisor_settled()
    return session


async def test_an_input_whose_id_no_journal_can_keep_is_rejected(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await supervised(before)
        receipt = await tell(before, DeliverMemberInput(epoch=1, input_id="x" * 300, content="hello"), "long")
        assert await receipt.wait() is ReceiptStatus.ADMITTED
        await settle()
        assert session.drain.generation == 1
        ((_, status, body),) = answers(before)
        assert (status, body["result"]) == (ResponseStatus.COMPLETED, "rejected")
    async with world(journal) as after:
        session = await after.session()
        await settle()
        assert session.end is None
