"""What is durable before it is seen from outside, and what is left on record: one small world for each promise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from meerkat_trio import (
    BindMember,
    BridgeCommand,
    DeliverMemberInput,
    DropReason,
    EnvelopeKind,
    ReceiptStatus,
    ResponseStatus,
    Session,
    SessionRun,
    TransitionRejected,
    TrustSource,
    Unbound,
    _session_record,
)
from meerkat_trio.abc import Change, Entry
from meerkat_trio.authority import BRIDGE_INTENT
from meerkat_trio.testing import MemoryJournal, WriteFault

from ..authority.cast import ALICE, EVE
from ..trust_rig import Store
from .rig import Faults, World, never, nothing, world

settle = trio.testing.wait_all_tasks_blocked
Clock = trio.testing.MockClock
ASKS = {"kind": EnvelopeKind.REQUEST, "intent": "ask", "correlation": "c"}


def slow() -> MemoryJournal:
    """A journal so slow that whatever does not wait for it comes first."""
    return MemoryJournal(seconds=1.0)


def kinds(journal: MemoryJournal) -> list[str]:
    """Of what kinds the entries of session "a" are, in their order."""
    entries = sorted(journal._entries.get("a", {}).values(), key=lambda entry: entry.position)
    return [entry.kind for entry in entries]


# --- first durable, then seen ----------------------------------------------------------------------


async def test_no_answer_goes_out_before_it_is_durable(autojump_clock: Clock) -> None:
    journal = slow()

    async def answering(run: SessionRun) -> None:
        await run.reply(ResponseStatus.COMPLETED, "yes")
        await trio.sleep_forever()

    async with world(journal) as before:
        session = await before.session(answering)
        await before.send(session, "question", **ASKS)
        with await before.peer.claim() as claim:
            assert ("reply", claim.envelope.id) in journal._entries["a"]
            claim.commit()


async def test_no_edge_is_stored_before_it_is_durable(autojump_clock: Clock) -> None:
    journal = slow()
    async with world(journal) as before:
        session = await before.machine.register("a")
        comms = await before.comms()
        await session.attach_ingress(comms)
        session.bind_supervisor(EVE, epoch=1)
        while (EVE.peer_id, TrustSource.SUPERVISOR) not in await comms.trusted_peers():
            await trio.sleep(0.1)
        assert ("supervisor", "") in journal._entries["a"]


async def deliver(session: Session) -> None:
    await session.deliver("mail")


async def hush(session: Session) -> None:
    await session.set_silent_intents({"hush"})


async def retire(session: Session) -> None:
    await session.retire()


async def stop(session: Session) -> None:
    await session.stop()


async def unregister(session: Session) -> None:
    await session.unregister()


async def befriend(session: Session) -> None:
    await session.add_direct_peer(ALICE)


async def supervise(session: Session) -> None:
    session.bind_supervisor(EVE, epoch=1)
    await session.wait_supervisor_settled()


async def as_it_is(session: Session) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "call", [as_it_is, deliver, hush, retire, stop, unregister, befriend, supervise], ids=lambda call: call.__name__
)
async def test_when_a_call_returns_there_is_nothing_left_to_be_written(
    autojump_clock: Clock, call: Callable[[Session], Awaitable[None]]
) -> None:
    journal = slow()
    async with world(journal) as before:
        await call(await before.machine.register("a"))
        written = dict(journal._entries["a"])
        await trio.sleep(10)
        assert written == journal._entries["a"]


async def test_a_request_is_on_record_before_it_is_sent(autojump_clock: Clock) -> None:
    journal = slow()
    async with world(journal) as before, trio.open_nursery() as nursery:
        session = await before.session()
        nursery.start_soon(session.request, before.peer.peer_id, "ask", "?")
        with await before.peer.claim() as claim:
            assert ("request", claim.envelope.correlation) in journal._entries["a"]
            claim.commit()
        nursery.cancel_scope.cancel()


# --- what is left on record ------------------------------------------------------------------------


async def test_what_was_refused_for_want_of_a_record_is_never_written(autojump_clock: Clock) -> None:
    faults = Faults()
    journal = MemoryJournal(faults)
    async with world(journal) as before:
        session = await before.session()
        await settle()
        faults.next = [WriteFault.FAILS]
        receipt = await before.send(session, "lost")
        assert await receipt.wait() is ReceiptStatus.DROPPED
        await session.set_silent_intents({"hush"})
        assert kinds(journal) == ["session"]


async def test_what_is_refused_after_it_was_recorded_is_forgotten_before_that_is_said(autojump_clock: Clock) -> None:
    journal = slow()
    async with world(journal) as before:
        session = await before.session()
        comms = session._tasks.bound_comms
        assert comms is not None
        receipt = await before.send(session, "from a friend")
        await trio.sleep(0.5)
        await comms.remove_trusted_peer(before.peer.peer_id, TrustSource.MANUAL)
        assert await receipt.wait() is ReceiptStatus.DROPPED
        assert receipt.reason is DropReason.UNTRUSTED_SENDER
        assert kinds(journal) == ["session"]


async def test_no_more_abandoned_messages_are_on_record_than_are_kept(autojump_clock: Clock) -> None:
    journal = MemoryJournal()

    async def failing(run: SessionRun) -> None:
        raise OSError("no luck")

    async with world(journal) as before:
        session = await before.session(failing, max_attempts=1, abandoned_limit=2)
        for body in ("one", "two", "three"):
            await before.send(session, body)
        await settle()
        assert kinds(journal).count("abandoned") == 2


async def test_so_many_messages_that_are_done_with_are_known(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session_record, "REMEMBERED_IDS", 2)
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(nothing)
        for body in ("one", "two", "three"):
            await before.send(session, body)
        await settle()
        assert [key.endswith("id of one") for kind, key in journal._entries["a"] if kind == "done"] == [False, False]


async def test_of_a_session_that_is_unregistered_the_counters_are_left(autojump_clock: Clock) -> None:
    journal = MemoryJournal()

    async def once(run: SessionRun) -> None:
        if run.message.body == "bad":
            raise OSError("no luck")

    async with world(journal) as before:
        session = await before.session(once, max_attempts=1)
        await session.add_direct_peer(ALICE)
        for body in ("good", "bad"):
            await before.send(session, body)
        await settle()
        assert {"abandoned", "done", "peers"} <= set(kinds(journal))
        counters = session._tasks.state.counters
        await session.unregister()
        assert sorted(kinds(journal)) == ["peers", "session", "supervisor"]
    async with world(journal) as after:
        assert "a" not in after.machine
        session = await after.machine.register("a")
        assert session._tasks.state.counters.generation >= counters.generation > 0


async def test_a_session_that_was_told_to_unregister_leaves_nothing_to_its_successor(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(never)
        session.bind_supervisor(EVE, epoch=3)
        for body in ("running", "queued"):
            await (await before.send(session, body)).wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.unregister)
            await settle()
            found = journal.rise()
            nursery.cancel_scope.cancel()
    assert kinds(found).count("message") == 2
    async with world(found) as after:
        assert "a" not in after.machine
        await after.machine.register("a")
        assert sorted(kinds(found)) == ["peers", "session", "supervisor"]
    async with world(found) as last:
        session = last.machine["a"]
        assert session.statistics().queued == 0
        assert session.supervisor == Unbound()
        with pytest.raises(TransitionRejected):
            session.bind_supervisor(EVE, epoch=3)


async def test_what_a_handler_finishes_while_the_machine_closes_is_done(autojump_clock: Clock) -> None:
    journal, begun = MemoryJournal(), []

    async def lingering(run: SessionRun) -> None:
        begun.append(run.message.body)
        await trio.sleep(1)

    async with world(journal, grace=5.0) as before:
        session = await before.session(lingering)
        await (await before.send(session, "one")).wait()
        await settle()
    async with world(journal, lingering):
        await settle()
    assert begun == ["one"]


async def test_a_late_handler_of_a_session_that_has_moved_writes_nothing(autojump_clock: Clock) -> None:
    class Moving(MemoryJournal):
        moved = False

        async def append(self, changes: Mapping[str, Sequence[Change]]) -> frozenset[str]:
            if not self.moved:
                return await super().append(changes)
            await trio.lowlevel.checkpoint()
            return frozenset(changes)

    journal, gate = Moving(), trio.Event()

    async def handler(run: SessionRun) -> None:
        with trio.CancelScope(shield=True):
            await gate.wait()

    async with world(journal) as before:
        session = await before.session(handler)
        await (await before.send(session, "one")).wait()
        await settle()
        entries: dict[tuple[str, str], Entry] = dict(journal._entries["a"])
        journal.moved = True
        session.bind_supervisor(EVE, epoch=1)
        await settle()
        # This host is its home again, and goes on with it; what is left here of its former life is not its life.
        journal.moved = False
        gate.set()
        await session.wait_ended()
        await settle()
        assert entries == journal._entries["a"]


# --- supervisors -----------------------------------------------------------------------------------


async def say(world: World, command: BridgeCommand, correlation: str) -> None:
    fields = {"kind": EnvelopeKind.REQUEST, "intent": BRIDGE_INTENT, "correlation": correlation}
    await world.peer.send(world.envelope(command.params(), id=correlation, **fields))


async def heard(world: World) -> tuple[str | None, Any]:
    with await world.peer.claim() as claim:
        claim.commit()
        return claim.envelope.correlation, claim.envelope.body


def bind(world: World, session: Session, comms: Any) -> BindMember:
    return BindMember(
        supervisor=world.peer.endpoint(),
        epoch=1,
        expected_peer_id=comms.peer_id,
        expected_address=comms.advertised_address,
        bootstrap_token=session.issue_bootstrap_token(),
    )


async def test_a_command_that_was_admitted_is_answered_by_the_next_process(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.machine.register("a")
        comms = Store(before.network, "a")
        await session.attach_ingress(comms)
        command = bind(before, session, comms)
        comms.delay = 1000.0
        await say(before, command, "bind")
        await settle()
        found = journal.rise()
    async with world(found) as after:
        await after.session()
        correlation, body = await heard(after)
        assert (correlation, body["already"]) == ("bind", False)
        await settle()
        assert "message" not in kinds(found)


async def test_an_input_of_a_supervisor_is_known_to_the_next_process(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    said = DeliverMemberInput(epoch=1, input_id="1", content="once")
    async with world(journal) as before:
        session = await before.session(never)
        comms = session._tasks.bound_comms
        assert comms is not None
        await say(before, bind(before, session, comms), "bind")
        assert (await heard(before))[0] == "bind"
        await say(before, said, "first")
        assert await heard(before) == ("first", {"result": "accepted"})
        await settle()
        found = journal.rise()
    async with world(found, never) as after:
        await after.session()
        await say(after, said, "second")
        assert await heard(after) == ("second", {"result": "deduplicated"})
