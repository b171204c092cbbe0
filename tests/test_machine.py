"""The machine: registering, ending, closing, faults, watching."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from meerkat_trio import (
    AbandonCause,
    Backoff,
    CommsDrainPhase,
    DrainExitReason,
    DropReason,
    Ending,
    EnvelopeKind,
    InvariantViolated,
    ReceiptStatus,
    RespawnPolicy,
    SessionEnded,
    SessionExists,
    SessionNotRegistered,
    SessionPhase,
    SessionRun,
    open_machine,
)
from meerkat_trio import authority as rules
from meerkat_trio.authority import _mutator

from .rig import Rig, rigged, settle


async def test_sessions_are_found_by_id_in_the_order_of_their_registration() -> None:
    async with open_machine() as machine:
        first, second = await machine.register("first"), await machine.register("second")
        assert machine["first"] is first
        assert machine.sessions() == (first, second)
        assert list(machine) == [first, second]
        assert len(machine) == 2
        assert "first" in machine
        assert "third" not in machine
        with pytest.raises(SessionNotRegistered, match="no session 'third' is registered here"):
            machine["third"]
        with pytest.raises(SessionExists, match="'first' is registered already"):
            await machine.register("first")
        assert repr(machine) == "<MeerkatMachine open, 2 sessions>"
        assert repr(first) == "<Session 'first' idle>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"session_id": ""}, "session_id: must be a text that is not blank"),
        ({"session_id": 7}, "session_id: must be a text that is not blank"),
        ({"work_queue": 0}, "work_queue: 1 or more is needed, not 0"),
        ({"max_attempts": 0}, "max_attempts: 1 or more is needed, not 0"),
        ({"abandoned_limit": "many"}, "abandoned_limit: 1 or more is needed, not 'many'"),
    ],
)
async def test_bad_arguments_of_register_are_named(arguments: dict[str, Any], message: str) -> None:
    async with open_machine() as machine:
        with pytest.raises(ValueError, match=message):
            await machine.register(**{"session_id": "a", **arguments})
        assert len(machine) == 0


async def test_more_bad_arguments_of_register_are_named() -> None:
    async with open_machine() as machine:
        with pytest.raises(ValueError, match="work_queue: 1 or more is needed, not True"):
            await machine.register("a", work_queue=True)
        with pytest.raises(TypeError, match="retry_backoff: a Backoff is needed, not 5"):
            await machine.register("a", retry_backoff=5)  # type: ignore[arg-type]
        assert len(machine) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grace": -1}, "grace: seconds, 0 or more"),
        ({"grace": 10**400}, "grace: seconds, 0 or more"),
        ({"grace": "x"}, "grace: seconds, 0 or more, are needed, not 'x'"),
        ({"respawn": RespawnPolicy.manual}, "respawn: a RespawnPolicy is needed"),
        ({"limiter": 5}, "limiter: a trio.CapacityLimiter is needed, not 5"),
        ({"new_id": 5}, "new_id: a function is needed, not 5"),
        ({"random": 3}, "random: a function is needed, not 3"),
    ],
)
async def test_bad_arguments_of_the_machine_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        async with open_machine(**arguments):
            pass


@pytest.mark.parametrize("checkpoints", [0, 1, 2])
async def test_a_caller_that_is_cancelled_already_opens_a_machine_and_leaves_it(checkpoints: int) -> None:
    ended: list[str] = []
    async with trio.open_nursery() as nursery:

        async def host() -> None:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after, checkpoints, scope)
                if checkpoints == 0:
                    scope.cancel()
                async with open_machine():
                    await trio.sleep_forever()
            ended.append("host")

        async def cancel_after(count: int, scope: trio.CancelScope) -> None:
            for _ in range(count):
                await trio.lowlevel.checkpoint()
            scope.cancel()

        nursery.start_soon(host)
        await settle()
        assert ended == ["host"]


class Stopped(BaseException):
    """What a signal handler might raise."""


class Boom(Exception):
    pass


def no_number() -> float:
    raise Boom


async def test_what_the_tree_cancels_in_the_body_does_not_leave_with_the_bodys_own_errors() -> None:
    async def fails_over_its_cancellation() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("clean-up")

    async def fails(_: SessionRun) -> None:
        raise ValueError

    caught = []
    try:
        async with open_machine(strict=True, random=no_number) as machine:
            session = await machine.register("a", fails)
            await session.deliver("x")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fails_over_its_cancellation)
                nursery.start_soon(trio.sleep_forever)
    except* (KeyError, Boom) as group:
        caught.append(group)
    assert len(caught) == 1  # and no Cancelled is left over


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped])
async def test_a_session_that_takes_the_tree_down_leaves_the_others_their_grace(
    error: type[BaseException], autojump_clock: object
) -> None:
    done = []

    async def breaks(_: SessionRun) -> None:
        await trio.sleep(1)
        raise error

    async def slow(_: SessionRun) -> None:
        await trio.sleep(3)
        done.append("slow")

    with pytest.raises(error):
        async with open_machine(grace=5.0) as machine:
            broken = await machine.register("broken", breaks)
            other = await machine.register("other", slow)
            await other.deliver(1)
            await broken.deliver(1)
            await trio.sleep_forever()
    assert done == ["slow"]
    assert other.end is not None
    assert other.end.unfinished == ()
    assert broken.end is not None
    assert isinstance(broken.end.error, error)


async def test_a_handler_told_to_end_before_keeps_its_grace_when_the_machine_closes(autojump_clock: object) -> None:
    done = []

    async def stops_its_session(run: SessionRun) -> None:
        await run.session.stop()
        await trio.sleep(2)
        done.append("after the stop")

    async with open_machine(grace=5.0) as machine:
        session = await machine.register("a", stops_its_session)
        await session.deliver("x")
        await settle()
    assert done == ["after the stop"]
    assert session.end is not None
    assert session.end.unfinished == ()


async def test_a_fault_is_in_the_sessions_end(autojump_clock: object) -> None:
    async def fails(_: SessionRun) -> None:
        raise ValueError

    async with open_machine(random=no_number) as machine:
        session = await machine.register("a", fails)
        await session.deliver("x")
        await trio.sleep(1)
        assert session.end is not None
        assert isinstance(session.end.error, Boom)
        assert [message.body for message in session.end.unfinished] == ["x"]


async def test_an_ending_raised_while_it_is_joined_hands_back_what_was_found(autojump_clock: object) -> None:
    ends = []
    async with rigged("gated", grace=1.0) as (_, _machine, session), trio.open_nursery() as nursery:

        async def end(call: Any) -> None:
            ends.append(await call())

        await session.deliver("running")
        await session.deliver("queued")
        await settle()
        nursery.start_soon(end, session.stop)
        await settle()
        nursery.start_soon(end, session.unregister)
    assert [end.cause for end in ends] == [Ending.UNREGISTER] * 2
    assert [[message.body for message in end.unfinished] for end in ends] == [["running", "queued"]] * 2


async def test_a_revived_session_counts_what_its_new_bound_forgets(autojump_clock: object) -> None:
    async with rigged(None) as (_, machine, session):
        for number in range(5):
            await session.deliver(number)
        await session.stop()
        assert len(session.abandoned) == 5
        await machine.register("a", abandoned_limit=2)
        assert [abandoned.message.body for abandoned in session.abandoned] == [3, 4]
        assert session.statistics().abandoned_forgotten == 3


@pytest.mark.parametrize("intents", ["ping", ["ping", 1], [None]])
async def test_silent_intents_are_several_texts(intents: Any) -> None:
    async with rigged() as (_, _machine, session):
        with pytest.raises(TypeError, match="intents: several texts are needed"):
            await session.set_silent_intents(intents)


@pytest.mark.parametrize("field", ["first", "factor", "limit", "jitter"])
def test_a_back_off_takes_no_number_beyond_a_float(field: str) -> None:
    with pytest.raises(ValueError, match="a float can hold"):
        Backoff(**{field: 10**400})
    with pytest.raises(TypeError):
        Backoff(**{field: "1"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a float can hold"):
        RespawnPolicy(within=10**400)


def test_a_back_off_never_overflows() -> None:
    steep = Backoff(first=1.0, factor=1e6, limit=30.0, jitter=0.0)
    assert [steep.delay(attempt, lambda: 0.0) for attempt in (1, 2, 60, 10**6)] == [1.0, 30.0, 30.0, 30.0]


async def test_a_stopped_session_is_revived_with_its_counters() -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        end = await session.stop("for a while")
        assert end is not None
        assert end.cause is Ending.STOP
        assert session.phase is SessionPhase.STOPPED
        assert len(machine) == 1
        again = await machine.register("a", rig.record, work_queue=3, abandoned_limit=7)
        assert again is session
        assert session.phase is SessionPhase.ATTACHED
        assert session.end is None
        assert (await session.attach_ingress(comms)).generation == 2
        await rig.send(comms, "again")
        await settle()
        assert rig.handled == ["again"]


@pytest.mark.parametrize(("call", "phase"), [("unregister", SessionPhase.STOPPED), ("destroy", SessionPhase.DESTROYED)])
@pytest.mark.parametrize("stopped_first", [True, False])
async def test_an_ended_session_is_forgotten_and_its_id_may_come_back(
    call: str, phase: SessionPhase, stopped_first: bool
) -> None:
    async with rigged() as (rig, machine, session):
        await session.attach_ingress(await rig.comms())
        if stopped_first:
            await session.stop()
        end = await getattr(session, call)()
        assert end.cause is Ending[call.upper()]
        assert session.phase is phase
        assert session.end == end
        assert len(machine) == 0
        with pytest.raises(SessionEnded):
            await session.destroy()
        fresh = await machine.register("a")
        assert fresh is not session
        assert fresh.drain.generation == 1


async def test_ending_twice_at_once_ends_as_far_as_the_farther_one() -> None:
    async with rigged("gated", grace=0.0) as (rig, machine, session):
        await session.attach_ingress(await rig.comms())
        await session.deliver("x")
        await settle()
        ends: list[Any] = []

        async def end(call: Any) -> None:
            ends.append((await call()).cause)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, session.stop)
            nursery.start_soon(end, session.destroy)
            nursery.start_soon(end, session.unregister)
        assert ends == [Ending.DESTROY] * 3
        assert len(machine) == 0


async def test_what_is_handed_back_after_an_attempt_names_its_error() -> None:
    async def fails(_: SessionRun) -> None:
        raise LookupError("why")

    async with rigged(None) as (_, _, session):
        await session.attach_executor(fails)
        await session.deliver("tried")
        await session.deliver("behind")
        await settle()
        await session.stop()
        tried, behind = session.abandoned
        assert (tried.cause, tried.attempts, repr(tried.error)) == (
            AbandonCause.SESSION_ENDED,
            1,
            "LookupError('why')",
        )
        assert (behind.attempts, behind.error) == (0, None)


async def test_what_was_not_handled_is_handed_back() -> None:
    async with rigged(None, grace=0.0, retry_backoff=Backoff(first=1000.0, limit=1000.0)) as (_, _, session):

        async def handler(_: SessionRun) -> None:
            raise ValueError("first attempt")

        await session.attach_executor(handler)
        for number in range(3):
            await session.deliver(number)
        await settle()
        end = await session.stop()
        assert end is not None
        assert [message.body for message in end.unfinished] == [0, 1, 2]
        assert [(a.message.body, a.cause, a.attempts) for a in session.abandoned] == [
            (0, AbandonCause.SESSION_ENDED, 1),
            (1, AbandonCause.SESSION_ENDED, 0),
            (2, AbandonCause.SESSION_ENDED, 0),
        ]


@pytest.mark.parametrize(
    "call", ["stop", "unregister", "destroy", "stop_drain", "detach_ingress", "retire", "detach_executor"]
)
async def test_a_handler_that_stops_its_own_session_does_not_wait_for_itself(call: str, autojump_clock: object) -> None:
    returned: list[Any] = []
    async with rigged(None) as (rig, _, session):

        async def handler(run: SessionRun) -> None:
            async def nested() -> None:
                returned.append(await getattr(run.session, call)())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(nested)

        await session.attach_executor(handler)
        await session.attach_ingress(await rig.comms())
        await session.deliver("x")
        await settle()
        assert returned == [None]
        assert session.statistics().handled == 1


async def test_a_handler_cannot_wait_for_room_that_only_it_can_make() -> None:
    refused: list[BaseException] = []
    async with rigged(None, work_queue=1) as (_, _, session):

        async def handler(run: SessionRun) -> None:
            try:
                await run.session.deliver("more")
            except trio.WouldBlock as error:
                refused.append(error)

        await session.attach_executor(handler)
        await session.deliver("x")
        await settle()
        assert len(refused) == 1


async def test_delivering_waits_for_room(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=1) as (rig, _, session):
        await session.deliver(0)
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.deliver, 1)
            await settle()
            assert session.statistics().queued == 1
            rig.gate.set()
        await settle()
        assert rig.handled == [0, 1]


async def test_delivering_to_a_session_that_ends_meanwhile_raises(autojump_clock: object) -> None:
    async with rigged("gated", work_queue=1) as (_, _, session):
        await session.deliver(0)
        async with trio.open_nursery() as nursery:

            async def deliver() -> None:
                with pytest.raises(SessionEnded):
                    await session.deliver(1)

            nursery.start_soon(deliver)
            await settle()
            await session.stop()


# --- closing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("needs", "finished"), [(3.0, True), (30.0, False)])
async def test_leaving_gives_running_handlers_the_grace_time(
    needs: float, finished: bool, autojump_clock: object
) -> None:
    done: list[str] = []

    async def handler(_: SessionRun) -> None:
        await trio.sleep(needs)
        done.append("done")

    async with open_machine(grace=5.0) as machine:
        session = await machine.register("a", handler)
        await session.deliver("x")
        await session.deliver("behind")
        await settle()
        start = trio.current_time()
    assert trio.current_time() - start == min(needs, 5.0)
    assert done == (["done"] if finished else [])
    assert session.end is not None
    assert [message.body for message in session.end.unfinished] == (["behind"] if finished else ["x", "behind"])
    assert repr(machine) == "<MeerkatMachine closed, 1 sessions>"


async def test_a_cancellation_around_the_machine_keeps_the_grace_time(autojump_clock: object) -> None:
    done: list[str] = []

    async def handler(_: SessionRun) -> None:
        await trio.sleep(3)
        done.append("done")

    start = trio.current_time()
    with trio.move_on_after(10) as scope:
        async with open_machine(grace=5.0) as machine:
            session = await machine.register("a", handler)
            await trio.sleep(9)
            await session.deliver("x")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert done == ["done"]
    assert trio.current_time() - start == 12


async def test_a_single_exception_of_the_body_leaves_bare() -> None:
    with pytest.raises(LookupError, match="the body's own"):
        async with open_machine() as machine:
            await machine.register("a")
            raise LookupError("the body's own")


async def test_a_base_exception_of_the_body_leaves_bare_and_joins_everything() -> None:
    rig = Rig()
    with pytest.raises(Stopped):
        async with open_machine() as machine:
            session = await machine.register("a", rig.record)
            await session.attach_ingress(await rig.comms())
            raise Stopped
    assert session.drain.last_exit is not None
    assert session.drain.last_exit.reason is DrainExitReason.SESSION_SHUTDOWN
    assert session.phase is SessionPhase.STOPPED


async def test_who_still_waits_when_the_machine_closes_gets_an_answer(autojump_clock: object) -> None:
    rig = Rig()
    answers: dict[str, Any] = {}

    async def ask(name: str, call: Any) -> None:
        try:
            answers[name] = await call()
        except trio.ClosedResourceError:
            answers[name] = "closed"

    async with trio.open_nursery() as nursery:
        async with open_machine(grace=1.0) as machine:
            session = await machine.register("a", rig.gated, work_queue=1)
            await session.attach_ingress(await rig.comms())
            await session.deliver("blocks")
            nursery.start_soon(ask, "wait", session.wait_drain_exited)
            nursery.start_soon(ask, "deliver", lambda: session.deliver("no room"))
            leaving = await machine.register("leaving", rig.gated)
            await leaving.deliver("blocks")
            nursery.start_soon(ask, "retire", leaving.retire)
            await settle()
        with pytest.raises(trio.ClosedResourceError, match="the machine is closed"):
            await machine.register("b")
    assert answers["wait"].reason is DrainExitReason.SESSION_SHUTDOWN
    assert answers["deliver"] == "closed"
    assert answers["retire"] == "closed"


@pytest.mark.parametrize("checkpoints", list(range(5)) * 3)
async def test_a_call_that_waits_for_a_stopping_drain_is_answered_when_the_machine_closes(checkpoints: int) -> None:
    rig = Rig()
    answers: list[str] = []

    async def call(what: Any, *arguments: Any) -> None:
        try:
            await what(*arguments)
        except (trio.ClosedResourceError, SessionEnded) as error:
            answers.append(type(error).__name__)

    async with trio.open_nursery() as nursery, open_machine() as machine:
        session = await machine.register("a")
        comms = await rig.comms()
        await session.attach_ingress(comms)
        nursery.start_soon(call, session.stop_drain)
        nursery.start_soon(call, session.attach_ingress, comms)
        nursery.start_soon(call, session.attach_ingress, comms)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
    assert set(answers) <= {"ClosedResourceError", "SessionEnded"}


async def test_a_parked_sender_is_told_when_the_transport_closes_after_the_machine() -> None:
    rig = Rig()
    comms = await rig.comms(work_lane=1)
    async with open_machine() as machine:
        session = await machine.register("a", rig.gated, work_queue=1)
        await session.attach_ingress(comms)
        await rig.send(comms, 0, 1)
        await settle()
        async with trio.open_nursery() as nursery:

            async def park() -> None:
                receipt = (await rig.send(comms, 2))[0]
                assert receipt.reason is DropReason.CLOSED

            nursery.start_soon(park)
            await settle()
            await comms.aclose()
        rig.gate.set()


async def test_all_drains_are_stopped_together() -> None:
    rig = Rig()
    async with open_machine() as machine:
        for name in ("a", "b", "c"):
            session = await machine.register(name)
            if name != "c":
                await session.attach_ingress(await rig.comms(name))
        await machine["c"].stop()
        await machine.register("d")
        exits = await machine.stop_drains()
        assert {name: drain_exit and drain_exit.reason for name, drain_exit in exits.items()} == {
            "a": DrainExitReason.ABORTED,
            "b": DrainExitReason.ABORTED,
            "d": None,
        }


# --- faults -----------------------------------------------------------------------------------------


@pytest.fixture
def broken_rule(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Make every step break an invariant while the list holds True."""
    armed = [False]
    original = rules.broken_invariant

    def broken(old: rules.SessionState, new: rules.SessionState) -> str | None:
        if armed[0] and new.session.session_id == "a" and new.session.run_id is not None:
            return "armed"
        return original(old, new)

    monkeypatch.setattr(_mutator, "broken_invariant", broken)
    return armed


async def test_a_fault_stops_its_session_and_no_other(broken_rule: list[bool]) -> None:
    async with rigged() as (rig, machine, session):
        other = await machine.register("b", rig.record)
        broken_rule[0] = True
        await session.deliver("x")
        await settle()
        assert session.phase is SessionPhase.STOPPED
        assert session.end is not None
        assert isinstance(session.end.error, InvariantViolated)
        assert str(session.end.error) == "row 'begin-run' would break the invariant 'armed'"
        assert [message.body for message in session.end.unfinished] == ["x"]
        await other.deliver("y")
        await settle()
        assert rig.handled == ["y"]
        broken_rule[0] = False
        revived = await machine.register("a", rig.record)
        await revived.deliver("z")
        await settle()
        assert rig.handled == ["y", "z"]


async def test_a_strict_machine_raises_a_fault(broken_rule: list[bool]) -> None:
    broken_rule[0] = True
    with pytest.raises(InvariantViolated):
        async with open_machine(strict=True) as machine:
            session = await machine.register("a", Rig().record)
            await session.deliver("x")
            await trio.sleep_forever()


async def test_a_fault_met_by_a_caller_is_raised_there_and_stops_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    original = rules.broken_invariant
    broken = {SessionPhase.RETIRED}

    def breaks(old: rules.SessionState, new: rules.SessionState) -> str | None:
        return "no retiring" if new.session.phase in broken else original(old, new)

    monkeypatch.setattr(_mutator, "broken_invariant", breaks)
    async with rigged() as (_, _, session):
        with pytest.raises(InvariantViolated):
            await session.retire()
        await settle()
        assert session.phase is SessionPhase.STOPPED
        assert session.end is not None
        assert isinstance(session.end.error, InvariantViolated)


async def test_a_session_that_cannot_even_be_stopped_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rigged() as (rig, machine, session):
        await session.attach_ingress(await rig.comms())
        monkeypatch.setattr(_mutator, "broken_invariant", lambda *_: "everything")
        with pytest.raises(InvariantViolated):
            await session.set_silent_intents(["x"])
        await settle()
        monkeypatch.undo()
        assert session.end is not None
        assert isinstance(session.end.error, InvariantViolated)
        other = await machine.register("b", rig.record)
        await other.deliver("y")
        await settle()
        assert rig.handled == ["y"]


async def test_calls_on_a_session_that_could_not_even_be_stopped_are_answered(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    async with rigged() as (rig, machine, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        monkeypatch.setattr(_mutator, "broken_invariant", lambda *_: "everything")
        with pytest.raises(InvariantViolated):
            await session.set_silent_intents(["x"])
        await settle()
        monkeypatch.undo()
        with trio.fail_after(1):
            for call in (
                session.stop,
                session.destroy,
                session.retire,
                session.stop_drain,
                session.detach_executor,
                session.detach_ingress,
                lambda: session.attach_ingress(comms),
                lambda: session.attach_executor(rig.record),
                lambda: session.deliver("x"),
            ):
                with pytest.raises(SessionEnded):
                    await call()
            with pytest.raises(trio.ClosedResourceError, match="ended meanwhile"):
                await session.wait_drain_exited()
        # Its id and its transport are free again.
        again = await machine.register("a", rig.record)
        await again.attach_ingress(comms)
        await rig.send(comms, "y")
        await settle()
        assert rig.handled == ["y"]


async def test_a_fault_met_in_a_dry_run_stops_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    original = rules.broken_invariant

    def breaks(old: rules.SessionState, new: rules.SessionState) -> str | None:
        return "no owner" if isinstance(new.ingress, rules.SessionOwned) else original(old, new)

    async with rigged() as (rig, _, session):
        comms = await rig.comms()
        monkeypatch.setattr(_mutator, "broken_invariant", breaks)
        with pytest.raises(InvariantViolated):
            await session.attach_ingress(comms)
        await settle()
        assert session.phase is SessionPhase.STOPPED
        assert session.end is not None
        assert isinstance(session.end.error, InvariantViolated)


async def test_drains_get_no_grace_when_a_strict_fault_takes_the_machine_down(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    original = rules.broken_invariant

    def breaks(old: rules.SessionState, new: rules.SessionState) -> str | None:
        return "no requests" if new.requests.inbound else original(old, new)

    monkeypatch.setattr(_mutator, "broken_invariant", breaks)

    async def takes_its_time(_: SessionRun) -> None:
        await trio.sleep(3)
        done.append("slow")

    done: list[str] = []
    with pytest.raises(InvariantViolated):
        async with rigged(None, strict=True) as (rig, machine, session):
            comms = await rig.comms()
            await session.attach_executor(takes_its_time)
            await session.attach_ingress(comms)
            other = await machine.register("b")
            await other.attach_ingress(await rig.comms("b"))
            await session.deliver("x")
            await settle()
            await rig.peer.send(rig.envelope(comms, kind=EnvelopeKind.REQUEST, intent="any", correlation="c"))
            await other.wait_drain_exited()
            done.append("drain")
            await trio.sleep_forever()
    assert done == ["drain", "slow"]


async def test_an_error_while_closing_leaves_no_tree_behind(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    def breaks(_: object) -> None:
        raise LookupError("while closing")

    with trio.fail_after(60), pytest.raises(LookupError, match="while closing"):
        async with rigged("gated", grace=1.0) as (_, _, session):
            await session.deliver("x")
            monkeypatch.setattr("meerkat_trio._tasks.SessionTasks.shut_down", breaks)


async def test_the_body_and_a_strict_fault_come_out_together(broken_rule: list[bool]) -> None:
    broken_rule[0] = True
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_machine(strict=True) as machine:
            session = await machine.register("a", Rig().record)
            await session.deliver("x")
            try:
                await trio.sleep_forever()
            finally:
                raise LookupError("the body's own")
    assert caught.group_contains(LookupError)
    assert caught.group_contains(InvariantViolated)


# --- watching ---------------------------------------------------------------------------------------


async def test_every_step_of_every_session_is_seen_in_order() -> None:
    seen: list[tuple[str, str]] = []
    rig = Rig()
    async with trio.open_nursery() as nursery, open_machine() as machine:

        async def watch(*, task_status: trio.TaskStatus[None]) -> None:
            async with machine.subscribe() as steps:
                task_status.started()
                async for step in steps:
                    seen.append((step.session_id, type(step.input).__name__))  # noqa: PERF401 - as it comes
                assert steps.missed == 0

        await nursery.start(watch)
        session = await machine.register("a", rig.record)
        await session.deliver("x")
        await settle()
        await session.destroy()
        await machine.register("b")
    assert seen == [
        ("a", "Register"),
        ("a", "AttachExecutor"),
        ("a", "Admit"),
        ("a", "BeginRun"),
        ("a", "RunFinished"),
        ("a", "Destroy"),
        ("a", "ExecutorStopped"),
        ("b", "Register"),
        ("b", "Stop"),
    ]


async def test_who_begins_to_watch_while_the_machine_closes_sees_what_is_left(autojump_clock: object) -> None:
    seen = []
    async with trio.open_nursery() as nursery, open_machine() as machine:

        async def watch_late() -> None:
            await trio.sleep(1)
            async with machine.subscribe() as steps:
                seen.extend([type(step.input).__name__ async for step in steps])
            async with machine.subscribe() as steps:
                assert [step async for step in steps] == []

        async def takes_its_time(_: SessionRun) -> None:
            await trio.sleep(2)

        session = await machine.register("a", takes_its_time)
        await session.deliver("x")
        await settle()
        nursery.start_soon(watch_late)
    assert seen == ["RunFinished", "ExecutorStopped"]


async def test_a_slow_reader_misses_steps_and_holds_nobody_up() -> None:
    async with open_machine() as machine:
        async with machine.subscribe(buffer=2) as steps:
            for name in ("a", "b", "c", "d"):
                await machine.register(name)
            assert steps.missed == 2
            assert [(await steps.__anext__()).session_id for _ in range(2)] == ["a", "b"]
        with pytest.raises(StopAsyncIteration):
            await steps.__anext__()
        with pytest.raises(ValueError, match="buffer: 1 or more is needed"):
            machine.subscribe(buffer=0)
    async with machine.subscribe() as late:
        with pytest.raises(StopAsyncIteration):
            await late.__anext__()


async def test_statistics_are_sums_over_the_sessions() -> None:
    async with rigged("gated") as (rig, machine, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)
        await rig.send(comms, 1, 2)
        other = await machine.register("b", rig.record)
        await other.deliver("x")
        stranger = rig.peer.__class__(rig.network, "stranger")
        refused = await stranger.send(stranger.envelope(comms.peer_id))
        assert await refused.wait() is ReceiptStatus.DROPPED
        await settle()
        statistics = machine.statistics()
        assert (statistics.sessions, statistics.live_drains, statistics.queued, statistics.handled) == (2, 1, 2, 1)
        assert statistics.dropped == {DropReason.UNTRUSTED_SENDER: 1}
        rig.gate.set()


async def test_reads_of_a_session(autojump_clock: object) -> None:
    async with rigged(respawn=RespawnPolicy.manual()) as (rig, _, session):
        assert session.id == "a"
        assert session.peers == ()
        assert session.supervisor == rules.Unbound()
        assert await session.wait_drain_exited() is None
        await session.attach_ingress(await rig.comms())
        assert session.drain.phase is CommsDrainPhase.RUNNING
        assert session.drain.last_exit is None


async def test_whoever_did_not_end_a_session_can_wait_for_its_end(autojump_clock: object) -> None:
    async with rigged() as (_, machine, session):
        ends = []

        async def wait() -> None:
            ends.append(await session.wait_ended())

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(wait)
                await settle()
                assert ends == []
                await session.stop()
            assert ends == [session.end, session.end]
            assert await session.wait_ended() is session.end
            ends.clear()
            await machine.register("a")
        await settle()
        nursery_of_session = session._tasks.nursery
        assert nursery_of_session is not None
        nursery_of_session.cancel_scope.cancel()
        with trio.fail_after(1):
            assert (await session.wait_ended()).cause is Ending.STOP


async def test_a_closing_machine_ends_the_wait_for_an_end() -> None:
    async with trio.open_nursery() as nursery, rigged() as (_, _, session):

        async def wait() -> None:
            assert (await session.wait_ended()).cause is Ending.STOP

        nursery.start_soon(wait)
        await settle()
