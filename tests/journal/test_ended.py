"""What is left in the journal of a session that has ended, and of one whose end was cut short."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest
import trio
import trio.testing

from meerkat_trio import (
    Backoff,
    Bound,
    DeliveryRefused,
    JournalFailed,
    Session,
    SessionEnded,
    SessionExists,
    SessionPhase,
    SessionRun,
    TransitionRejected,
    Unbound,
)
from meerkat_trio.abc import Change
from meerkat_trio.testing import MemoryJournal

from ..authority.cast import ALICE, EVE
from .rig import never, nothing, world

settle = trio.testing.wait_all_tasks_blocked
Clock = trio.testing.MockClock


async def kinds(journal: MemoryJournal) -> list[str]:
    return [entry.kind for entry in (await journal.restore()).get("a", ())]


@pytest.mark.parametrize("end", [Session.unregister, Session.destroy], ids=["unregister", "destroy"])
async def test_a_session_whose_end_was_cut_short_leaves_nothing_to_the_next_of_its_id(
    autojump_clock: Clock, end: Callable[[Session], Awaitable[object]]
) -> None:
    journal, handled = MemoryJournal(), []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with world(journal) as before:
        session = await before.session(never)
        await session.add_direct_peer(ALICE)
        for body in ("running", "queued"):
            await (await before.send(session, body)).wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, session)
            await settle()
            found = journal.rise()
            nursery.cancel_scope.cancel()
    async with world(found, handler) as after:
        assert "a" not in after.machine
        await after.machine.register("a", handler)
    async with world(found, handler) as last:
        await settle()
        assert handled == []
        assert last.machine["a"].peers == ()


async def test_who_was_trusted_before_a_stop_that_was_cut_short_is_not_trusted_after_the_revival(
    autojump_clock: Clock,
) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(never)
        await session.add_direct_peer(ALICE)
        session.bind_supervisor(EVE, epoch=3)
        await session.wait_supervisor_settled()
        await (await before.send(session, "running")).wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.stop)
            await settle()
            found = journal.rise()
            nursery.cancel_scope.cancel()
    async with world(found) as after:
        assert after.machine["a"].phase is SessionPhase.STOPPED
        session = await after.machine.register("a")
        assert (session.peers, session.supervisor) == ((), Unbound())
    async with world(found) as last:
        assert last.machine["a"].phase is SessionPhase.IDLE
        assert (last.machine["a"].peers, last.machine["a"].supervisor) == ((), Unbound())
        with pytest.raises(TransitionRejected):
            last.machine["a"].bind_supervisor(EVE, epoch=3)


async def test_what_is_delivered_while_a_drain_stops_is_durable_when_the_call_returns(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(seconds=1.0), []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    found: list[MemoryJournal] = []

    async def deliver(session: Session) -> None:
        await session.deliver("mail")
        found.append(journal.rise())

    async with world(journal) as before:
        session = await before.session()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver, session)
            await trio.sleep(0.01)
            await session.stop_drain()
    async with world(found[0], handler):
        await trio.sleep(5)
        assert handled == ["mail"]


@pytest.mark.parametrize("meanwhile", [Session.stop, Session.retire], ids=["stop", "retire"])
async def test_a_handler_that_delivers_to_a_session_that_takes_nothing_any_more_is_told(
    autojump_clock: Clock, meanwhile: Callable[[Session], Awaitable[object]]
) -> None:
    journal = MemoryJournal(seconds=1.0)
    said: list[str] = []

    async def handler(run: SessionRun) -> None:
        try:
            await run.session.deliver("more")
            said.append("delivered")
        except (SessionEnded, TransitionRejected) as error:
            said.append(type(error).__name__)

    async with world(journal) as before:
        session = await before.machine.register("a")
        await session.deliver("first")
        await session.attach_executor(handler)
        async with trio.open_nursery() as nursery:
            await trio.sleep(0.5)
            nursery.start_soon(meanwhile, session)
    assert said
    assert said != ["delivered"]


async def test_an_error_that_cannot_even_be_shown_does_not_keep_its_message_from_being_given_up(
    autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log would show it too.
    monkeypatch.setattr(logging.getLogger("meerkat_trio.executor"), "disabled", True)

    class Mute(Exception):
        def __repr__(self) -> str:
            raise OSError("nothing to see")

    async def failing(run: SessionRun) -> None:
        raise Mute

    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(failing, max_attempts=1)
        await (await before.send(session, "one")).wait()
        await settle()
        assert session.phase is SessionPhase.ATTACHED
    async with world(journal) as after:
        (abandoned,) = after.machine["a"].abandoned
        assert abandoned.message.body == "one"


async def test_a_session_that_is_being_released_is_not_revived(autojump_clock: Clock) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(never)
        await (await before.send(session, "running")).wait()
        await settle()
        with trio.move_on_after(0.1):
            await before.machine.release("a")
        await trio.sleep(10)
        with pytest.raises(SessionExists):
            await before.machine.register("a", nothing)
        await before.machine.release("a")


async def test_what_a_closing_machine_has_not_let_in_is_not_let_in_by_the_next(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(seconds=1.0), []
    said: list[str] = []

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with trio.open_nursery() as nursery:

        async def deliver() -> None:
            try:
                await session.deliver("mail")
                said.append("delivered")
            except (trio.ClosedResourceError, DeliveryRefused) as error:
                said.append(type(error).__name__)

        async with world(journal) as before:
            session = await before.machine.register("a")
            nursery.start_soon(deliver)
            await trio.sleep(0.5)
    assert said == ["ClosedResourceError"]
    async with world(journal, handler):
        await trio.sleep(5)
        assert handled == []


async def test_intents_that_are_no_unicode_and_large_numbers_are_kept_as_well_as_they_can_be(
    autojump_clock: Clock,
) -> None:
    journal = MemoryJournal()
    backoff = Backoff(limit=math.inf)
    async with world(journal) as before:
        session = await before.machine.register("a", work_queue=1 << 70, retry_backoff=backoff)
        await session.set_silent_intents({"hush", "\ud800"})
        session.bind_supervisor(EVE, epoch=1 << 70)
        session.authorize_supervisor(ALICE, epoch=1 << 71)
        await session.apply_mob_overlay(1 << 72, [ALICE])
    async with world(journal) as after:
        session = after.machine["a"]
        assert session._tasks.settings.work_queue == 1 << 70
        assert session._tasks.settings.retry_backoff == backoff
        assert "hush" in session._tasks.state.session.silent_intents
        assert isinstance(session.supervisor, Bound)
        assert session.supervisor.epoch == 1 << 71
        with pytest.raises(TransitionRejected):
            await session.apply_mob_overlay(1 << 72, [])


async def test_a_session_id_that_no_journal_can_keep_is_refused(autojump_clock: Clock) -> None:
    async with world(MemoryJournal()) as before:
        with pytest.raises(ValueError, match="session_id"):
            await before.machine.register("\ud800")
        assert len(before.machine) == 0


class Broken(MemoryJournal):
    """Raises what no journal may raise."""

    async def append(self, changes: Mapping[str, Sequence[Change]]) -> frozenset[str]:
        await trio.lowlevel.checkpoint()
        if self.writes:
            raise KeyboardInterrupt
        return await super().append(changes)


async def test_nobody_is_told_that_it_is_written_by_a_journal_that_breaks(autojump_clock: Clock) -> None:
    said: list[str] = []

    async def change(session: Session) -> None:
        # Out of the machine's reach: what it says when it goes down is heard here.
        with trio.CancelScope(shield=True):
            try:
                await session.set_silent_intents({"hush"})
                said.append("done")
            except JournalFailed:
                said.append("failed")

    with pytest.raises(BaseException) as broken:
        async with trio.open_nursery() as nursery, world(Broken()) as before:
            session = await before.machine.register("a")
            nursery.start_soon(change, session)
            await trio.sleep_forever()
    assert broken.group_contains(KeyboardInterrupt)
    assert said == ["failed"]


@pytest.mark.parametrize("end", [Session.unregister, Session.destroy], ids=["unregister", "destroy"])
async def test_of_a_session_that_was_served_and_has_ended_the_counters_are_left(
    autojump_clock: Clock, end: Callable[[Session], Awaitable[object]]
) -> None:
    journal = MemoryJournal()
    async with world(journal) as before:
        session = await before.session(nothing)
        await (await before.send(session, "one")).wait()
        session.bind_supervisor(EVE, epoch=3)
        await session.wait_supervisor_settled()
        await end(session)
    assert await kinds(journal) == ["session", "supervisor", "peers"]
    async with world(journal) as after:
        assert "a" not in after.machine
        session = await after.machine.register("a")
        with pytest.raises(TransitionRejected):
            session.bind_supervisor(EVE, epoch=3)


async def test_a_delivery_that_is_refused_after_all_is_not_handled_by_the_next_process(autojump_clock: Clock) -> None:
    journal, handled = MemoryJournal(seconds=1.0), []
    said: list[MemoryJournal] = []
    gate = trio.Event()

    async def handler(run: SessionRun) -> None:
        handled.append(run.message.body)

    async def delivering(run: SessionRun) -> None:
        await gate.wait()
        try:
            await run.session.deliver("more")
        except trio.WouldBlock:
            said.append(journal.rise())
        await trio.sleep_forever()

    async with world(journal) as before:
        session = await before.session(delivering, work_queue=2)
        await (await before.send(session, "one")).wait()
        await before.send(session, "two")
        await trio.sleep(0.5)
        # The place that is free when the handler looks is taken while its message is being recorded.
        gate.set()
        await trio.sleep(10)
    async with world(said[0], handler):
        await trio.sleep(5)
        assert handled == ["one", "two"]


@pytest.mark.parametrize("end", [Session.unregister, Session.destroy], ids=lambda end: end.__name__)
async def test_a_session_is_not_ended_while_its_machine_closes_and_that_is_said(
    autojump_clock: Clock, end: Callable[[Session], Awaitable[object]]
) -> None:
    journal = MemoryJournal()

    async def slow(run: SessionRun) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    async def end_later(session: Session) -> None:
        await trio.sleep(1)
        with pytest.raises(trio.ClosedResourceError, match="not recorded"):
            await end(session)

    async with trio.open_nursery() as nursery, world(journal) as before:
        session = await before.machine.register("a", slow)
        await session.deliver("one")
        nursery.start_soon(end_later, session)
    async with world(journal) as after:
        assert after.machine["a"].phase is SessionPhase.IDLE
