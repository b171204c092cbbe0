"""The commands of a supervisor where a journal is kept: over the end of a process, and at its very end."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio
import trio.testing

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    Bound,
    BridgeCommand,
    DeliverMemberInput,
    EnvelopeKind,
    MeerkatError,
    MemoryComms,
    PeerEndpoint,
    Receipt,
    ReceiptStatus,
    ResponseStatus,
    Session,
    SessionRun,
    TrustSource,
    WireMember,
)
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.testing import MemoryJournal

from ..authority.cast import ALICE
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


async def test_an_input_that_is_taken_up_again_while_the_session_stops_is_not_accepted(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(), []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with world(journal) as before:
        session = await supervised(before)
        await session.stop_drain()
        envelope = before.envelope(
            DeliverMemberInput(epoch=1, input_id="x", content="hello").params(),
            kind=EnvelopeKind.REQUEST,
            id="input",
            intent=BRIDGE_INTENT,
            correlation="about it",
        )
        # As it is on record if the process dies right after the write, before it was admitted.
        assert await session._tasks.secure(envelope) is None
        found = journal.rise()
    async with world(found, handler) as after:
        session = after.machine["a"]
        comms = await after.comms()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attach_quietly, session, comms)
            while session._tasks.state.drain.generation == 1:
                await trio.lowlevel.checkpoint()
            session._tasks.begin_leave()
        await trio.sleep(10)
        heard = answers(after)
    async with world(found, handler) as last:
        await last.session()
        await settle()
        heard += answers(last)
    # The peer of the one before has not said that it has the answer, so it is said again.
    assert {body["result"] for _, _, body in heard} == {"accepted"}
    assert handled == ["hello"]


async def attach_quietly(session: Session, comms: MemoryComms) -> None:
    with suppress(MeerkatError):
        await session.attach_ingress(comms)


async def test_a_command_that_was_never_taken_up_leaves_nothing_when_its_session_stops(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await supervised(before)
        await session.stop_drain()
        envelope = before.envelope(
            WireMember(epoch=1, peer=ALICE).params(),
            kind=EnvelopeKind.REQUEST,
            id="wire",
            intent=BRIDGE_INTENT,
            correlation="about it",
        )
        assert await session._tasks.secure(envelope) is None
        found = journal.rise()
    async with world(found) as after:
        await after.machine["a"].stop()
    assert {e.kind for e in (await found.restore())["a"]} == {"session", "supervisor", "peers", "done"}


async def test_a_hand_over_that_was_carried_out_is_not_answered_as_one_that_was_refused(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await supervised(before)
        # As if it died between the two writes: the edge stands, and that it was answered is not on record.
        session._tasks.made_supervision()._is_answering = True
        await tell(before, AuthorizeNextSupervisor(epoch=2, next=ALICE), "authorize")
        await settle()
        assert session._tasks.state.supervisor.previous is None
        found = journal.rise()
        assert answers(before) == []
    async with world(found) as after:
        await after.session()
        await settle()
        assert [(status, body) for _, status, body in answers(after)] == [
            (ResponseStatus.COMPLETED, {"already": False})
        ]


async def test_a_peer_that_was_wired_and_removed_is_not_wired_again_by_the_next_process(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.machine.register("a")
        deaf = Deaf(before.network, "a")
        await deaf.add_trusted_peer(before.peer.endpoint(), TrustSource.MANUAL)
        await session.attach_ingress(deaf)
        session.bind_supervisor(before.peer.endpoint(), epoch=1)
        await tell(before, WireMember(epoch=1, peer=ALICE), "wire")
        await settle()
        assert ALICE in session.peers
        await session.detach_ingress()
        await session.remove_direct_peer(ALICE.peer_id)
        found = journal.rise()
    async with world(found) as after:
        session = await after.session()
        await settle()
        assert ALICE not in session.peers
