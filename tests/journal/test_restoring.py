"""What a session remembers over the end of its process, and what it goes on with."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from meerkat_trio import (
    AbandonCause,
    Backoff,
    Bound,
    DropReason,
    EnvelopeKind,
    JournalRefused,
    MemoryComms,
    ReceiptStatus,
    RememberedError,
    ResponseStatus,
    Session,
    SessionEnded,
    SessionExists,
    SessionMoved,
    SessionNotRegistered,
    SessionPhase,
    SessionRun,
    TransitionRejected,
    Unbound,
    open_machine,
)
from meerkat_trio.abc import Entry
from meerkat_trio.testing import MemoryJournal, WriteFault

from ..authority.cast import ALICE, BOB, EVE
from .rig import Faults, Shared, World, never, nothing, world

settle = trio.testing.wait_all_tasks_blocked
Clock = trio.testing.MockClock


async def kill(journal: MemoryJournal) -> MemoryJournal:
    """What a process finds that starts when this one is killed right now."""
    await settle()
    return journal.rise()


async def test_a_session_is_there_again_with_what_it_was_registered_with(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    backoff = Backoff(first=1.0, factor=3.0, limit=9.0, jitter=0.25)
    async with world(journal) as before:
        session = await before.machine.register(
            "a", work_queue=7, max_attempts=3, abandoned_limit=2, outbox=5, retry_backoff=backoff
        )
        await session.set_silent_intents({"hush"})
    async with world(journal) as after:
        settings = after.machine["a"]._tasks.settings
        assert (settings.work_queue, settings.max_attempts, settings.abandoned_limit, settings.outbox) == (7, 3, 2, 5)
        assert settings.retry_backoff == backoff
        assert after.machine["a"].phase is SessionPhase.IDLE
        assert after.machine["a"]._tasks.state.session.silent_intents == {"hush"}
        with pytest.raises(SessionExists):
            await after.machine.register("a")


async def test_what_was_admitted_is_handled_after_the_process_has_died(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(), []

    async def handler(run: SessionRun) -> None:
        handled.append((run.message.body, run.attempt))

    async with world(journal) as before:
        session = await before.session()
        receipts = [await before.send(session, body) for body in ("one", "two")]
        assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 2
        found = await kill(journal)
    async with world(found, handler):
        await settle()
        assert handled == [("one", 1), ("two", 1)]
    async with world(found, handler):
        await settle()
        assert handled == [("one", 1), ("two", 1)]


async def test_leaving_the_machine_ends_the_process_and_not_its_sessions(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(), []
    async with world(journal) as before:
        session = await before.session(never)
        await (await before.send(session, "running")).wait()
        await (await before.send(session, "queued")).wait()
    assert [each.body for each in session.end.unfinished] == ["running", "queued"]  # type: ignore[union-attr]

    async def handler(run: SessionRun) -> None:
        handled.append((run.message.body, run.attempt))

    async with world(journal, handler) as after:
        await settle()
        assert handled == [("running", 1), ("queued", 1)]
        assert after.machine["a"].phase is SessionPhase.ATTACHED
        assert after.machine["a"].abandoned == ()


async def test_a_message_keeps_the_number_of_its_attempt(autojump_clock: Clock) -> None:
    journal, attempts = MemoryJournal(), []

    async def failing(run: SessionRun) -> None:
        attempts.append(run.attempt)
        if len(attempts) in {1, 2}:
            raise OSError("no luck")
        await trio.sleep_forever()

    async with world(journal) as before:
        session = await before.session(failing, retry_backoff=Backoff(first=0.0))
        await before.send(session, "hard")
        await trio.sleep(0)
        await settle()
        assert attempts == [1, 2, 3]
        found = await kill(journal)
    async with world(found, failing):
        await settle()
        assert attempts == [1, 2, 3, 3]


async def test_what_was_given_up_is_still_there_with_its_cause(autojump_clock: Clock) -> None:
    journal = MemoryJournal()

    async def failing(run: SessionRun) -> None:
        raise OSError("no luck")

    async with world(journal) as before:
        session = await before.session(failing, max_attempts=1, abandoned_limit=2)
        for body in ("one", "two", "three"):
            await before.send(session, body)
        await settle()
        found = await kill(journal)
    async with world(found) as after:
        one, two = after.machine["a"].abandoned
        assert [one.message.body, two.message.body] == ["two", "three"]
        assert (one.cause, one.attempts) == (AbandonCause.ATTEMPTS_EXHAUSTED, 1)
        assert isinstance(one.error, RememberedError)
        assert str(one.error) == "OSError('no luck')"
        assert after.machine["a"].statistics().queued == 0


async def test_a_twin_of_what_was_admitted_is_admitted_and_not_handled_again(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(), []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with world(journal) as before:
        session = await before.session(handler)
        await (await before.send(session, "done")).wait()
        await settle()
        await session.detach_executor()
        await (await before.send(session, "queued")).wait()
        found = await kill(journal)
    async with world(found, handler) as after:
        session = await after.session()
        receipts = [await after.send(session, body) for body in ("done", "queued", "new")]
        assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 3
        await settle()
        assert handled == ["done", "queued", "new"]


async def test_an_epoch_that_was_bound_is_never_bound_again(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.machine.register("a")
        session.bind_supervisor(EVE, epoch=7)
        session.authorize_supervisor(ALICE, epoch=8)
        report = await session.wait_supervisor_settled()
        assert report.deferred
        found = await kill(journal)
    async with world(found) as after:
        session = after.machine["a"]
        assert isinstance(session.supervisor, Bound)
        assert (session.supervisor.peer_id, session.supervisor.epoch) == (ALICE.peer_id, 8)
        with pytest.raises(TransitionRejected):
            session.authorize_supervisor(EVE, epoch=8)
        await session.unregister()
    async with world(found) as last:
        assert "a" not in last.machine
        session = await last.machine.register("a")
        assert session.supervisor == Unbound()
        with pytest.raises(TransitionRejected):
            session.bind_supervisor(EVE, epoch=8)


async def test_edges_that_are_owed_are_stored_by_the_next_process(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.machine.register("a")
        session.bind_supervisor(EVE, epoch=1)
        await session.add_direct_peer(ALICE)
        await session.apply_mob_overlay(4, [BOB])
        found = await kill(journal)
    async with world(found) as after:
        session = await after.session()
        report = await session.wait_supervisor_settled()
        assert not report.deferred
        comms = session._tasks.bound_comms
        assert comms is not None
        stored = {peer_id for peer_id, source in await comms.trusted_peers()}
        assert {EVE.peer_id, ALICE.peer_id, BOB.peer_id} <= stored
        with pytest.raises(TransitionRejected):
            await session.apply_mob_overlay(4, [])


async def test_a_session_that_was_stopped_is_stopped(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(never)
        await (await before.send(session, "running")).wait()
        await session.stop()
    async with world(journal) as after:
        assert after.machine["a"].phase is SessionPhase.STOPPED
        (abandoned,) = after.machine["a"].abandoned
        assert (abandoned.message.body, abandoned.cause) == ("running", AbandonCause.SESSION_ENDED)
        session = await after.machine.register("a", nothing)
        assert session.phase is SessionPhase.ATTACHED
    async with world(journal) as last:
        assert last.machine["a"].phase is SessionPhase.IDLE


async def test_a_session_that_was_told_to_stop_is_stopped_by_the_next_process(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(never)
        await (await before.send(session, "running")).wait()
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.stop)
            await settle()
            assert session.phase is SessionPhase.RUNNING
            found = await kill(journal)
            nursery.cancel_scope.cancel()
    async with world(found, nothing) as after:
        assert after.machine["a"].phase is SessionPhase.STOPPED
        assert [each.message.body for each in after.machine["a"].abandoned] == ["running"]


async def test_a_retired_session_finishes_what_it_has(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(), []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with world(journal) as before:
        session = await before.session()
        await (await before.send(session, "last")).wait()
        assert await session.retire() == 1
        found = await kill(journal)
    async with world(found, handler) as after:
        await settle()
        assert handled == ["last"]
        assert after.machine["a"].phase is SessionPhase.RETIRED
        with pytest.raises(TransitionRejected):
            await after.machine["a"].deliver("more")


async def test_a_request_is_answered_by_the_next_process_once_its_transport_is_there(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(never)
        await (await before.send(session, "question", kind=EnvelopeKind.REQUEST, intent="ask", correlation="c")).wait()
        found = await kill(journal)

    async def answering(run: SessionRun) -> None:
        await run.reply(ResponseStatus.COMPLETED, {"answer": run.message.body})

    async with world(found, answering) as after:
        await settle()
        assert after.machine["a"].statistics().replies_waiting == 1
        assert after.machine["a"].statistics().queued == 0
        again = await kill(found)
        await after.session()
        with await after.peer.claim() as claim:
            assert (claim.envelope.correlation, claim.envelope.body) == ("c", {"answer": "question"})
            first = claim.envelope.id
            claim.commit()
        await settle()
        assert after.machine["a"].statistics().replies_waiting == 0
        assert not after.machine["a"]._tasks.state.requests.inbound
        done = await kill(found)
    async with world(again, never) as after:
        # Had it died before the answer went out, another would have sent the very same.
        await after.session()
        with await after.peer.claim() as claim:
            assert claim.envelope.id == first
            claim.commit()
    async with world(done, never) as after:
        session = await after.session()
        assert session.statistics().replies_waiting == 0
        assert not session._tasks.state.requests.inbound


async def ask(process: World, session: Session) -> None:
    receipt = await process.send(session, "question", kind=EnvelopeKind.REQUEST, intent="ask", correlation="c")
    assert await receipt.wait() is ReceiptStatus.ADMITTED


async def answer(run: SessionRun) -> None:
    await run.reply(ResponseStatus.COMPLETED)


async def test_an_answer_stays_on_record_until_its_peer_has_it(autojump_clock: Clock) -> None:
    async with world(MemoryJournal()) as before:
        session = await before.session(answer)
        await ask(before, session)
        # It is in the transport now, and would die with that.
        found = await kill(before.journal)
        with await before.peer.claim() as claim:
            answered = claim.envelope.id
            claim.commit()
        done = await kill(before.journal)
    async with world(found, never) as after:
        await after.session()
        with await after.peer.claim() as claim:
            assert (claim.envelope.correlation, claim.envelope.id) == ("c", answered)
            claim.commit()
    async with world(done, never) as after:
        await after.session()
        await settle()
        with pytest.raises(trio.WouldBlock):
            after.peer.claim_nowait()


@pytest.mark.parametrize("rebound", [False, True])
async def test_an_answer_that_its_transport_has_given_up_is_sent_again(autojump_clock: Clock, rebound: bool) -> None:
    async with world(MemoryJournal()) as process:
        session = await process.session(answer)
        await ask(process, session)
        await settle()
        if rebound:
            await session.attach_ingress(await process.comms())
        await process.peer.aclose()
        again = MemoryComms(process.network, "peer")
        with await again.claim() as claim:
            assert claim.envelope.correlation == "c"
            claim.commit()
        await settle()
        assert "reply" not in {entry.kind for entry in (await process.journal.restore())["a"]}


async def test_an_answer_that_nobody_has_is_kept_at_the_end_of_the_process_and_not_of_the_session(
    autojump_clock: Clock,
) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        await ask(before, await before.session(answer))
        await settle()
    assert "reply" in {entry.kind for entry in (await journal.restore())["a"]}
    async with world(journal) as after:
        session = await after.session()
        await settle()
        await session.stop()
    assert "reply" not in {entry.kind for entry in (await journal.restore())["a"]}


async def test_a_request_that_was_answered_is_not_answered_again_when_its_handler_runs_anew(
    autojump_clock: Clock,
) -> None:
    journal = MemoryJournal()
    answers: list[Any] = []

    async def answering(run: SessionRun) -> None:
        try:
            await run.reply(ResponseStatus.COMPLETED, run.attempt)
        except Exception as error:
            answers.append(type(error).__name__)
        await trio.sleep_forever()

    async with world(journal) as before:
        session = await before.session(answering)
        await before.send(session, "question", kind=EnvelopeKind.REQUEST, intent="ask", correlation="c")
        with await before.peer.claim() as claim:
            claim.commit()
        await settle()
        found = await kill(journal)
    async with world(found, answering) as after:
        await after.session()
        await settle()
        assert answers == ["RequestAnswered"]
        with pytest.raises(trio.WouldBlock):
            after.peer.claim_nowait()


async def test_own_requests_are_closed_for_nobody_waits_for_them(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.request, before.peer.peer_id, "ask", "?")
            await settle()
            assert len(session._tasks.state.requests.outbound) == 1
            found = await kill(journal)
            nursery.cancel_scope.cancel()
    assert [entry.kind for entry in (await found.restore())["a"]] == ["session", "request"]
    async with world(found) as after:
        assert not after.machine["a"]._tasks.state.requests.outbound
    assert [entry.kind for entry in (await found.restore())["a"]] == ["session"]


async def test_what_is_delivered_is_durable_when_the_call_returns(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(), []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with world(journal) as before:
        session = await before.machine.register("a")
        await session.deliver({"n": 1})
        found = await kill(journal)
    async with world(found, handler):
        await settle()
        assert handled == [{"n": 1}]


async def test_a_damaged_entry_is_named_and_nothing_is_restored(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        await before.machine.register("a")
    entries = journal._entries["a"]
    entries["message", "k"] = Entry("message", "k", 5, b"rubbish")
    with pytest.raises(JournalRefused, match="session 'a': entry 'message' 'k'"):
        async with open_machine(journal=journal):
            pytest.fail("it opened")
    del entries["message", "k"]
    entries["riddle", ""] = Entry("riddle", "", 5, b"")
    with pytest.raises(JournalRefused, match="of no known kind"):
        async with open_machine(journal=journal):
            pytest.fail("it opened")
    del entries["riddle", ""]
    async with open_machine(journal=journal) as machine:
        assert "a" in machine


async def test_two_machines_on_one_journal_are_refused(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with open_machine(journal=journal):
        with pytest.raises(JournalRefused, match="in use"):
            async with open_machine(journal=journal):
                pytest.fail("it opened")


# --- the journal fails -----------------------------------------------------------------------------


async def test_what_cannot_be_recorded_is_dropped_and_may_be_sent_again(autojump_clock: Clock) -> None:
    faults = Faults()
    journal = MemoryJournal(faults)
    async with world(journal) as before:
        session = await before.session(nothing)
        await settle()
        faults.next = [WriteFault.FAILS]
        receipt = await before.send(session, "lost")
        assert await receipt.wait() is ReceiptStatus.DROPPED
        assert receipt.reason is DropReason.NOT_RECORDED
        assert session.statistics().dropped == {DropReason.NOT_RECORDED: 1}
        again = await before.send(session, "lost", id="another id")
        assert await again.wait() is ReceiptStatus.ADMITTED


async def test_a_body_that_cannot_be_recorded_is_malformed(autojump_clock: Clock) -> None:
    async with world(MemoryJournal()) as before:
        session = await before.session(nothing)
        receipt = await before.send(session, {1, 2})
        await receipt.wait()
        assert receipt.reason is DropReason.MALFORMED


async def test_a_change_that_cannot_be_recorded_is_tried_again_and_its_caller_waits(autojump_clock: Clock) -> None:
    faults = Faults()
    journal = MemoryJournal(faults)
    async with world(journal) as before:
        session = await before.machine.register("a")
        faults.next = [WriteFault.FAILS] * 5
        with trio.move_on_after(0.01) as scope:
            await session.add_direct_peer(ALICE)
        assert scope.cancelled_caught
        await session.add_direct_peer(BOB)
        found = await kill(journal)
    async with world(found) as after:
        assert {peer.peer_id for peer in after.machine["a"].peers} == {ALICE.peer_id, BOB.peer_id}


async def test_no_handler_is_called_while_what_came_before_is_not_durable(autojump_clock: Clock) -> None:
    faults = Faults()
    handled: list[tuple[Any, int]] = []

    async def handler(run: SessionRun) -> None:
        if not handled:
            # The record that this one is done with will fail for a while.
            faults.next = [WriteFault.FAILS] * 3
        handled.append((run.message.body, journal.writes))

    journal = MemoryJournal(faults)
    async with world(journal) as before:
        session = await before.session()
        for body in ("one", "two"):
            await (await before.send(session, body)).wait()
        writes = journal.writes
        await session.attach_executor(handler)
        await trio.sleep(10)
        assert [body for body, _ in handled] == ["one", "two"]
        assert handled[1][1] - writes >= 4


async def test_a_machine_whose_journal_cannot_be_written_at_its_end_leaves_after_the_grace_time(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    faults = Faults()
    journal = MemoryJournal(faults)
    start = trio.current_time()
    async with world(journal, grace=3.0) as before:
        session = await before.machine.register("a")
        faults.next = [WriteFault.FAILS] * 1000
        session.bind_supervisor(EVE, epoch=1)
    assert trio.current_time() - start == pytest.approx(3.0)
    assert "were not written" in caplog.text


async def test_what_is_changed_after_the_machine_has_closed_is_not_recorded_and_that_is_said(
    autojump_clock: Clock,
) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.machine.register("a")
        await session.stop()
    with pytest.raises(trio.ClosedResourceError, match="not recorded"):
        await session.destroy()
    async with world(journal) as after:
        assert after.machine["a"].phase is SessionPhase.STOPPED


async def test_a_message_that_was_recorded_and_never_admitted_is_forgotten(autojump_clock: Clock) -> None:
    faults = Faults()
    journal = MemoryJournal(faults)
    async with world(journal) as before:
        session = await before.session()
        await settle()
        async with trio.open_nursery() as nursery:
            # Recorded, while the drain that waits for that is stopped.
            receipt = await before.send(session, "late")
            nursery.start_soon(session.detach_ingress)
        await settle()
        assert receipt.status is not ReceiptStatus.ADMITTED
        found = await kill(journal)
    assert [entry.kind for entry in (await found.restore())["a"]] == ["session"]


async def test_a_rebind_while_a_message_is_recorded_admits_it_once(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session()
        receipt = await before.send(session, "one")
        newer = await before.comms()
        await session.attach_ingress(newer)
        assert await receipt.wait() is ReceiptStatus.ADMITTED
        await settle()
        assert session.statistics().queued == 1
        found = await kill(journal)
    assert [entry.kind for entry in (await found.restore())["a"]] == ["session", "message"]


# --- machines that share a journal -----------------------------------------------------------------


async def test_a_session_that_is_released_goes_on_elsewhere(autojump_clock: Clock) -> None:
    journal = Shared()
    handled: list[Any] = []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with world(journal) as one, world(journal, handler) as two:
        session = await one.session(never)
        await (await one.send(session, "running")).wait()
        await (await one.send(session, "queued")).wait()
        await one.machine.release("a")
        assert "a" not in one.machine
        with pytest.raises(SessionNotRegistered):
            await one.machine.release("a")
        assert await two.machine.restore("b") is None
        restored = await two.machine.restore("a")
        assert restored is two.machine["a"]
        await trio.sleep(5)
        assert handled == ["running", "queued"]
        with pytest.raises(SessionExists):
            await two.machine.restore("a")


async def test_a_session_that_has_another_home_admits_nothing_and_says_so(autojump_clock: Clock) -> None:
    journal = Shared()
    async with world(journal) as one:
        session = await one.session(nothing)
        await settle()
        before = dict(journal._entries["a"])
        journal.moved = {"a"}
        receipt = await one.send(session, "late")
        end = await session.wait_ended()
        assert isinstance(end.error, SessionMoved)
        assert receipt.status is ReceiptStatus.QUEUED
        assert journal._entries["a"] == before
        with pytest.raises(SessionEnded):
            await session.deliver("more")
        await one.machine.release("a")
        assert "a" not in one.machine


async def test_a_handler_that_ends_after_its_session_has_moved_is_the_last_one(autojump_clock: Clock) -> None:
    journal = Shared()
    gate, begun = trio.Event(), []

    async def handler(run: SessionRun) -> None:
        begun.append(run.message.body)
        await gate.wait()
        await run.reply(ResponseStatus.COMPLETED, "late")

    async with world(journal) as one:
        session = await one.session(handler)
        ask = {"kind": EnvelopeKind.REQUEST, "intent": "ask"}
        for body in ("one", "two"):
            await (await one.send(session, body, correlation=body, **ask)).wait()
        await settle()
        before = dict(journal._entries["a"])
        journal.moved = {"a"}
        gate.set()
        await session.wait_ended()
        await trio.sleep(10)
        assert begun == ["one"]
        assert journal._entries["a"] == before
        with pytest.raises(trio.WouldBlock):
            one.peer.claim_nowait()
