"""Sending, asking and answering, between sessions of one machine and of two."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from typing import Any

import pytest
import trio

from meerkat_trio import (
    AbandonCause,
    Backoff,
    CommsNotAttached,
    DropReason,
    EnvelopeKind,
    MemoryComms,
    MemoryNetwork,
    NotARequest,
    PeerNotTrusted,
    ReceiptStatus,
    RequestAnswered,
    RequestDropped,
    RequestFailed,
    ResponseStatus,
    SessionEnded,
    SessionPhase,
    SessionRun,
    TransitionRejected,
    TrustSource,
    open_machine,
)
from meerkat_trio.authority import AdmissionClass, BeginRun, CloseRequest, OpenRequest, ReplySent, ResponseArrived

from .pair import Flaky, Pair, Unheard, paired, responses
from .rig import rigged, settle

ACCEPTED, COMPLETED, FAILED = ResponseStatus.ACCEPTED, ResponseStatus.COMPLETED, ResponseStatus.FAILED


async def echo(run: SessionRun) -> None:
    await run.reply(COMPLETED, run.message.body)


async def nothing(run: SessionRun) -> None:
    """Return, and say nothing."""


async def hour(run: SessionRun) -> None:
    await trio.sleep(3600)


# --- sending ---------------------------------------------------------------------------------------


async def test_a_message_reaches_a_trusted_peer(autojump_clock: object) -> None:
    heard = []

    async def hear(run: SessionRun) -> None:
        heard.append((run.message.sender, run.message.body))

    async with paired(None, hear, machines=2) as pair:
        receipts = [await pair.a.send(pair.b_comms.peer_id, body) for body in range(3)]
        assert [await receipt.wait() for receipt in receipts] == [ReceiptStatus.ADMITTED] * 3
        await settle()
        assert heard == [(pair.a_comms.peer_id, body) for body in range(3)]


async def test_a_handler_writes_back(autojump_clock: object) -> None:
    heard = []

    async def hear(run: SessionRun) -> None:
        heard.append(run.message.body)

    async def write_back(run: SessionRun) -> None:
        await run.send(run.message.sender, f"{run.message.body} to you")

    async with paired(hear, write_back) as pair:
        await pair.a.send(pair.b_comms.peer_id, "hello")
        await settle()
        assert heard == ["hello to you"]


async def test_speaking_needs_a_comms_runtime_a_peer_and_a_life(autojump_clock: object) -> None:
    async with paired(None, echo) as pair:
        stranger = MemoryComms(pair.network, "stranger").peer_id
        for speak in (pair.a.send, pair.a.request):
            with pytest.raises(PeerNotTrusted, match=f"session 'a' does not trust peer {stranger}") as refused:
                await speak(stranger, "x")
            assert (refused.value.session_id, refused.value.peer_id) == ("a", stranger)
            with pytest.raises(ValueError, match="not a UUID"):
                await speak("b", "x")  # type: ignore[arg-type]
        await pair.a.detach_ingress()
        for speak in (pair.a.send, pair.a.request):
            with pytest.raises(CommsNotAttached, match="session 'a' has no comms runtime attached"):
                await speak(pair.b_comms.peer_id, "x")
        await pair.a.attach_ingress(await pair.comms("a"))
        await pair.a.stop()
        for speak in (pair.a.send, pair.a.request):
            with pytest.raises(SessionEnded):
                await speak(pair.b_comms.peer_id, "x")
        await pair.b_comms.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await pair.b.send(pair.a_comms.peer_id, "x")


async def test_a_request_needs_an_intent_and_a_function_for_its_progress(autojump_clock: object) -> None:
    async with paired(None, echo) as pair:
        for intent in ("", " ", 3, None):
            with pytest.raises(ValueError, match="intent: must be a text that is not blank"):
                await pair.a.request(pair.b_comms.peer_id, intent)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="on_progress: a function is needed"):
            await pair.a.request(pair.b_comms.peer_id, "x", on_progress="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(("end", "error"), [("stop", SessionEnded), ("close", trio.ClosedResourceError)])
async def test_a_sender_waits_for_room_no_longer_than_its_session_lives(
    end: str, error: type[Exception], autojump_clock: object
) -> None:
    async with paired(None, echo) as pair:
        full = MemoryComms(pair.network, "full", work_lane=1)
        await pair.a_comms.add_trusted_peer(full.endpoint(), TrustSource.MANUAL)
        receipt = await pair.a.send(full.peer_id, 1)
        with trio.move_on_after(1):
            await pair.a.send(full.peer_id, "waits in vain")
        refused = []

        async def send() -> None:
            with pytest.raises(error):
                await pair.a.send(full.peer_id, 2)
            refused.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await settle()
            if end == "stop":
                await pair.a.stop()
            else:
                pair.machines[0].begin_close()
        assert refused == [True]
        assert receipt.status is ReceiptStatus.QUEUED
        assert full.statistics().work_waiting == 1


# --- asking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("machines", [1, 2])
async def test_a_request_is_answered(machines: int, autojump_clock: object) -> None:
    async with paired(None, echo, machines=machines) as pair:
        assert await pair.a.request(pair.b_comms.peer_id, "echo", {"n": 1}) == {"n": 1}
        requests = pair.a._tasks.state.requests, pair.b._tasks.state.requests
        assert [(dict(each.outbound), each.inbound) for each in requests] == [({}, frozenset())] * 2


async def test_many_ask_at_once_and_each_gets_its_own_answer(autojump_clock: object) -> None:
    answers = {}

    async def ask(pair: Pair, number: int) -> None:
        answers[number] = await pair.a.request(pair.b_comms.peer_id, "echo", number)

    async with paired(None, echo) as pair, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, pair, number)
    assert answers == {number: number for number in range(200)}


async def test_what_a_handler_says_of_its_progress_arrives_in_order(autojump_clock: object) -> None:
    heard: list[Any] = []

    async def work(run: SessionRun) -> None:
        for part in range(3):
            await run.reply(ACCEPTED, part)
            await trio.sleep(60)
        await run.reply(COMPLETED, "done")

    async with paired(None, work) as pair:
        assert await pair.a.request(pair.b_comms.peer_id, "work", on_progress=heard.append) == "done"
        assert heard == [0, 1, 2]
        # Who does not care for progress gets the answer alone.
        assert await pair.a.request(pair.b_comms.peer_id, "work") == "done"


async def test_progress_that_comes_with_the_answer_is_told_first(autojump_clock: object) -> None:
    heard: list[Any] = []

    async def work(run: SessionRun) -> None:
        for part in range(70):
            run.session._tasks.made_requests().answer(run.message, ACCEPTED, part)
        await run.reply(COMPLETED, "done")

    async with paired(None, work, bounds={"control_lane": 100}) as pair:
        assert await pair.a.request(pair.b_comms.peer_id, "work", on_progress=heard.append) == "done"
    # No more of it is kept than docs/limits.md says.
    assert heard == sorted(heard)
    assert heard[-1] == 69
    assert len(heard) >= 64


async def test_progress_that_the_caller_cannot_take_ends_its_request(autojump_clock: object) -> None:
    def refuse(_: object) -> None:
        raise OSError("no more of this")

    async def work(run: SessionRun) -> None:
        await run.reply(ACCEPTED)
        await trio.sleep(60)

    async with paired(None, work) as pair:
        with pytest.raises(OSError, match="no more of this"):
            await pair.a.request(pair.b_comms.peer_id, "work", on_progress=refuse)
        assert pair.a._tasks.state.requests.outbound == {}
        await trio.sleep(100)
        assert pair.a.statistics().dropped == {DropReason.NO_SUCH_REQUEST: 1}


async def test_a_request_that_failed_raises_with_what_the_peer_said(autojump_clock: object) -> None:
    async def fail(run: SessionRun) -> None:
        await run.reply(FAILED, {"why": "I will not"})

    async with paired(None, fail) as pair:
        peer_id = pair.b_comms.peer_id
        with pytest.raises(RequestFailed, match=f"request 'work' to peer {peer_id} failed there: {{'why'") as failed:
            await pair.a.request(peer_id, "work")
        assert (failed.value.peer_id, failed.value.intent, failed.value.body) == (
            peer_id,
            "work",
            {"why": "I will not"},
        )


async def test_a_request_that_the_peer_does_not_admit_raises_with_the_reason(autojump_clock: object) -> None:
    async with paired(None, echo) as pair:
        peer_id = pair.b_comms.peer_id
        await pair.b_comms.remove_trusted_peer(pair.a_comms.peer_id, TrustSource.MANUAL)
        with pytest.raises(RequestDropped, match=r"was not admitted there \(untrusted_sender\)") as dropped:
            await pair.a.request(peer_id, "work")
        assert dropped.value.reason is DropReason.UNTRUSTED_SENDER
        await pair.b_comms.add_trusted_peer(pair.a_comms.endpoint(), TrustSource.MANUAL)
        await pair.b.retire()
        with pytest.raises(RequestDropped, match="not_admitted_in_phase"):
            await pair.a.request(peer_id, "work")
        await pair.b_comms.aclose()
        with pytest.raises(RequestDropped, match="closed"):
            await pair.a.request(peer_id, "work")
        assert pair.a._tasks.state.requests.outbound == {}


async def test_a_caller_that_gives_up_closes_its_request_and_the_late_answer_is_dropped(autojump_clock: object) -> None:
    async def slow(run: SessionRun) -> None:
        await trio.sleep(10)
        await run.reply(COMPLETED, "late")

    async with paired(None, slow) as pair:
        with pytest.raises(trio.TooSlowError), trio.fail_after(5):
            await pair.a.request(pair.b_comms.peer_id, "work")
        assert pair.a._tasks.state.requests.outbound == {}
        await trio.sleep(10)
        assert pair.a.statistics().dropped == {DropReason.NO_SUCH_REQUEST: 1}
        assert pair.b.statistics().replies_given_up == 0


async def test_a_request_that_waits_for_room_is_not_sent_when_its_caller_gives_up(autojump_clock: object) -> None:
    async with paired(None, echo) as pair:
        full = MemoryComms(pair.network, "full", work_lane=1)
        await pair.a_comms.add_trusted_peer(full.endpoint(), TrustSource.MANUAL)
        await pair.a.send(full.peer_id, 1)
        with trio.move_on_after(5):
            await pair.a.request(full.peer_id, "work")
        assert full.statistics().parked_senders == 0
        assert pair.a._tasks.state.requests.outbound == {}


@pytest.mark.parametrize("where", ["answer", "admission", "room"])
@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("stop", SessionEnded),
        ("destroy", SessionEnded),
        ("unregister", SessionEnded),
        ("close", trio.ClosedResourceError),
    ],
)
async def test_whoever_waits_for_an_answer_hears_of_the_end(
    where: str, end: str, error: type[Exception], autojump_clock: object
) -> None:
    heard = []
    async with paired(None, hour) as pair:
        mute = MemoryComms(pair.network, "mute", work_lane=1)
        await pair.a_comms.add_trusted_peer(mute.endpoint(), TrustSource.MANUAL)
        if where == "room":
            await pair.a.send(mute.peer_id, "in the way")
        peer_id = pair.b_comms.peer_id if where == "answer" else mute.peer_id

        async def ask() -> None:
            with pytest.raises(error):
                await pair.a.request(peer_id, "work")
            heard.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await settle()
            start = trio.current_time()
            if end == "close":
                pair.machines[0].begin_close()
            else:
                await getattr(pair.a, end)()
        assert heard == [start] * 3
        assert pair.a._tasks.state.requests.outbound == {}


async def test_a_handler_that_waits_for_an_answer_hears_of_the_end_at_once(autojump_clock: object) -> None:
    heard: list[Any] = []

    async def ask(run: SessionRun) -> None:
        try:
            await run.session.request(pair.b_comms.peer_id, "work")
        except SessionEnded:
            heard.append("ended")

    async with paired(ask, hour) as pair:
        await pair.a.deliver("go")
        await settle()
        start = trio.current_time()
        end = await pair.a.stop()
        assert heard == ["ended"]
        assert trio.current_time() == start
        assert end is not None
        assert end.unfinished == ()


async def test_a_retired_session_hears_its_answers_and_asks_no_more(autojump_clock: object) -> None:
    answers = []

    async def slow(run: SessionRun) -> None:
        await trio.sleep(10)
        await run.reply(COMPLETED, "late")

    async with paired(nothing, slow) as pair:

        async def ask() -> None:
            answers.append(await pair.a.request(pair.b_comms.peer_id, "work"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            await pair.a.retire()
            with pytest.raises(TransitionRejected) as refused:
                await pair.a.request(pair.b_comms.peer_id, "work")
            assert (refused.value.guard, pair.a.phase) == ("phase", SessionPhase.RETIRED)
        assert answers == ["late"]


@pytest.mark.parametrize("side", ["asking", "answering"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_request_outlives_rebinds(side: str, times: int, autojump_clock: object) -> None:
    answers = []

    async def slow(run: SessionRun) -> None:
        await trio.sleep(10)
        await run.reply(COMPLETED, "done")

    async with paired(None, slow, machines=2) as pair:

        async def ask() -> None:
            answers.append(await pair.a.request(pair.b_comms.peer_id, "work"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            for _ in range(times):
                await trio.sleep(1)
                session, name = (pair.a, "a") if side == "asking" else (pair.b, "b")
                await session.attach_ingress(await pair.comms(name))
        assert answers == ["done"]


async def test_an_answer_waits_for_a_drain_that_comes_back(autojump_clock: object) -> None:
    answers = []

    async with paired(None, echo) as pair:

        async def ask() -> None:
            answers.append(await pair.a.request(pair.b_comms.peer_id, "work", "x"))

        await pair.a.stop_drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(5)
            assert answers == []
            await pair.a.attach_ingress(pair.a_comms)
        assert answers == ["x"]


async def test_ids_and_correlations_are_minted_as_the_machine_was_told(autojump_clock: object) -> None:
    numbers = itertools.count()
    network = MemoryNetwork()
    comms, peer = MemoryComms(network, "a"), MemoryComms(network, "peer")
    await comms.add_trusted_peer(peer.endpoint(), TrustSource.MANUAL)
    async with open_machine(new_id=lambda: f"id {next(numbers)}") as machine:
        session = await machine.register("a")
        await session.attach_ingress(comms)
        with trio.move_on_after(1):
            await session.request(peer.peer_id, "work")
        with peer.claim_nowait() as claim:
            assert (claim.envelope.id, claim.envelope.correlation) == ("id 0", "id 1")


async def test_requests_of_handlers_to_peers_and_in_a_circle_end_by_their_deadlines(autojump_clock: object) -> None:
    late: list[Any] = []

    async def pass_on(run: SessionRun) -> None:
        hops = run.message.body
        if hops == 3:
            return
        other = pair.b_comms if run.session.id == "a" else pair.a_comms
        try:
            with trio.fail_after(5 - hops):
                await run.reply(COMPLETED, await run.session.request(other.peer_id, "round", hops + 1))
        except (trio.TooSlowError, RequestFailed) as error:
            late.append((run.session.id, hops, type(error)))
            await run.reply(FAILED, "too slow")

    async with paired(pass_on, pass_on) as pair:
        friend = await pair.stranger("friend", pair.a_comms)
        await friend.send(
            friend.envelope(pair.a_comms.peer_id, 1, kind=EnvelopeKind.REQUEST, intent="round", correlation="1")
        )
        await trio.sleep(100)
        # a asks b, which asks a, which is busy with the first of these.
        assert late == [("b", 2, trio.TooSlowError), ("a", 1, RequestFailed)]
        assert [(each.status, each.correlation) for each in responses(friend)] == [(FAILED, "1")]
        assert pair.b.statistics().dropped == {DropReason.NO_SUCH_REQUEST: 1}
        assert all(session.statistics().queued == 0 for session in (pair.a, pair.b))
        assert all(session._tasks.state.requests.outbound == {} for session in (pair.a, pair.b))


async def test_a_handler_asks_another_session_while_it_handles_a_request(autojump_clock: object) -> None:
    async def ask_back(run: SessionRun) -> None:
        if run.message.body == "outer":
            inner = await run.session.request(pair.b_comms.peer_id, "echo", "inner")
            await run.reply(COMPLETED, f"outer {inner}")

    async with paired(ask_back, echo) as pair:
        friend = await pair.stranger("friend", pair.a_comms)
        await friend.send(
            friend.envelope(pair.a_comms.peer_id, "outer", kind=EnvelopeKind.REQUEST, intent="any", correlation="1")
        )
        await settle()
        assert [each.body for each in responses(friend)] == ["outer inner"]


async def test_a_handler_that_takes_an_hour_is_in_the_way_of_its_own_queue_alone(autojump_clock: object) -> None:
    answers = []

    async with paired(hour, echo) as pair:
        for body in range(3):
            await pair.b.send(pair.a_comms.peer_id, body)
        start = trio.current_time()
        # a's handler is at it for an hour, and a asks, is answered, hears of others and is rebound meanwhile.
        for number in range(3):
            answers.append(await pair.a.request(pair.b_comms.peer_id, "echo", number))
            await pair.a.attach_ingress(await pair.comms("a"))
        receipt = await pair.b_comms.send(pair.b_comms.envelope(pair.a_comms.peer_id, kind=EnvelopeKind.PEER_ADDED))
        assert await receipt.wait() is ReceiptStatus.ADMITTED
        assert answers == [0, 1, 2]
        assert trio.current_time() == start


# --- answering -------------------------------------------------------------------------------------


async def test_a_request_that_its_handler_leaves_unanswered_is_completed(autojump_clock: object) -> None:
    async with paired(None, nothing) as pair:
        assert await pair.a.request(pair.b_comms.peer_id, "work", "x") is None


async def test_a_request_that_is_given_up_is_answered_failed(autojump_clock: object) -> None:
    attempts = []

    async def fail(run: SessionRun) -> None:
        attempts.append(run.attempt)
        raise OSError("secret")

    async with paired(None, fail, max_attempts=2) as pair:
        with pytest.raises(RequestFailed) as failed:
            await pair.a.request(pair.b_comms.peer_id, "work")
        assert failed.value.body == {"cause": "attempts_exhausted"}
        assert attempts == [1, 2]
        assert [each.cause for each in pair.b.abandoned] == [AbandonCause.ATTEMPTS_EXHAUSTED]


@pytest.mark.parametrize("end", ["stop", "destroy", "close"])
async def test_requests_that_the_end_leaves_unhandled_are_answered_failed(end: str, autojump_clock: object) -> None:
    heard = []

    async with paired(None, hour, machines=2, grace=1.0) as pair:

        async def ask() -> None:
            with pytest.raises(RequestFailed) as failed:
                await pair.a.request(pair.b_comms.peer_id, "work")
            heard.append(failed.value.body)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await settle()
            if end == "close":
                pair.machines[1].begin_close()
            else:
                await getattr(pair.b, end)()
        assert heard == [{"cause": "session_ended"}] * 3
        assert len(pair.b.abandoned) == 3


async def test_an_attempt_that_failed_after_the_answer_does_not_answer_again(autojump_clock: object) -> None:
    refused = []

    async def twice(run: SessionRun) -> None:
        if run.attempt == 1:
            await run.reply(COMPLETED, "first")
            raise OSError("after the answer")
        with pytest.raises(RequestAnswered, match="is answered already") as answered:
            await run.reply(COMPLETED, "second")
        refused.append((answered.value.message_id, answered.value.peer_id) == (run.message.id, run.message.sender))

    async with paired(None, twice) as pair:
        assert await pair.a.request(pair.b_comms.peer_id, "work") == "first"
        await trio.sleep(10)
        assert refused == [True]
        assert pair.a.statistics().dropped == {}


@pytest.mark.parametrize("last", [COMPLETED, FAILED])
async def test_nothing_is_said_after_the_answer(last: ResponseStatus, autojump_clock: object) -> None:
    runs = []

    async def handle(run: SessionRun) -> None:
        runs.append(run)
        await run.reply(ACCEPTED)
        await run.reply(last)
        for status in ResponseStatus:
            with pytest.raises(RequestAnswered):
                await run.reply(status)

    async with paired(None, handle) as pair:
        if last is COMPLETED:
            await pair.a.request(pair.b_comms.peer_id, "work")
        else:
            with pytest.raises(RequestFailed):
                await pair.a.request(pair.b_comms.peer_id, "work")
        await settle()
        with pytest.raises(RequestAnswered):
            await runs[0].reply(COMPLETED)


async def test_a_message_cannot_be_answered_and_a_status_has_to_be_one(autojump_clock: object) -> None:
    refused: list[Exception] = []

    async def handle(run: SessionRun) -> None:
        with pytest.raises(NotARequest, match="is a message, not a request; use send to write back") as caught:
            await run.reply(COMPLETED)
        refused.append(caught.value)
        with pytest.raises(TypeError, match="status: a ResponseStatus is needed"):
            await run.reply("completed")  # type: ignore[arg-type]

    async with paired(None, handle) as pair:
        await pair.a.send(pair.b_comms.peer_id, "x")
        await settle()
        assert len(refused) == 1
        assert pair.b.statistics().handled == 1


async def test_a_silent_request_is_marked_and_answered_like_any_other(autojump_clock: object) -> None:
    classes = []

    async def handle(run: SessionRun) -> None:
        classes.append(run.admission)
        await run.reply(COMPLETED, "heard")

    async with paired(None, handle) as pair:
        await pair.b.set_silent_intents(["hush"])
        assert await pair.a.request(pair.b_comms.peer_id, "hush") == "heard"
        assert await pair.a.request(pair.b_comms.peer_id, "shout") == "heard"
        assert classes == [AdmissionClass.SILENT_REQUEST, AdmissionClass.ACTIONABLE_REQUEST]


async def test_the_steps_tell_the_whole_story(autojump_clock: object) -> None:
    async def work(run: SessionRun) -> None:
        await run.reply(ACCEPTED)
        await run.reply(COMPLETED)

    async with paired(None, work) as pair, pair.machines[0].subscribe() as steps:
        await pair.a.request(pair.b_comms.peer_id, "work")
        await settle()
        kinds = (OpenRequest, ResponseArrived, CloseRequest, ReplySent, BeginRun)
        told = []
        with trio.move_on_after(1):
            async for step in steps:
                if isinstance(step.input, kinds):
                    assert step.ignored is None
                    told.append((step.session_id, type(step.input)))
        assert [kind for session, kind in told if session == "a"] == [OpenRequest, ResponseArrived, ResponseArrived]
        assert [kind for session, kind in told if session == "b"] == [BeginRun, ReplySent]


async def test_a_correlation_is_open_until_its_answer_is_out(autojump_clock: object) -> None:
    async with rigged("gated") as (rig, _, session):
        comms = await rig.comms()
        await session.attach_ingress(comms)

        def ask(number: int) -> Any:
            return rig.peer.send_nowait(
                rig.envelope(comms, number, kind=EnvelopeKind.REQUEST, intent="work", correlation="1")
            )

        first, twin = ask(1), ask(2)
        await settle()
        assert (first.status, twin.reason) == (ReceiptStatus.ADMITTED, DropReason.DUPLICATE)
        rig.gate.set()
        await settle()
        again = ask(3)
        await settle()
        assert (again.status, rig.handled) == (ReceiptStatus.ADMITTED, [1, 3])
        assert [each.status for each in responses(rig.peer)] == [COMPLETED] * 2


# --- replies that cannot go out at once ------------------------------------------------------------


async def ask_by_hand(pair: Pair, friend: MemoryComms, *correlations: str) -> None:
    for correlation in correlations:
        await friend.send(
            friend.envelope(
                pair.b_comms.peer_id, correlation, kind=EnvelopeKind.REQUEST, intent="work", correlation=correlation
            )
        )
    await settle()


async def test_a_reply_is_tried_again_while_the_line_is_down(autojump_clock: object) -> None:
    async with paired(None, echo, kind=Flaky) as pair:
        pair.b_comms.failures = 5  # type: ignore[attr-defined]
        assert await pair.a.request(pair.b_comms.peer_id, "echo", "x") == "x"
        assert pair.b.statistics().replies_given_up == 0


async def test_a_reply_that_went_out_unconfirmed_arrives_once(autojump_clock: object) -> None:
    async with paired(None, echo, kind=Unheard) as pair:
        friend = await pair.stranger("friend", pair.b_comms)
        pair.b_comms.lost_answers = 3  # type: ignore[attr-defined]
        await ask_by_hand(pair, friend, "1", "2")
        await trio.sleep(60)
        assert [each.body for each in responses(friend)] == ["1", "2"]
        assert pair.b.statistics().replies_given_up == 0


async def test_a_reply_that_nobody_takes_is_given_up_and_said_so(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with paired(None, echo) as pair, pair.machines[0].subscribe() as steps:
        friend = await pair.stranger("friend", pair.b_comms)
        await friend.send(
            friend.envelope(pair.b_comms.peer_id, "x", kind=EnvelopeKind.REQUEST, intent="work", correlation="c1")
        )
        await friend.aclose()
        await settle()
        assert pair.b.statistics().replies_waiting == 1
        assert pair.b._tasks.state.requests.inbound == {(friend.peer_id, "c1")}
        with caplog.at_level(logging.WARNING, "meerkat_trio.outbox"):
            await trio.sleep(1000)
        assert f"session b: gave up the completed reply to {friend.peer_id} for its request c1" in caplog.text
        statistics = pair.b.statistics()
        assert (statistics.replies_waiting, statistics.replies_given_up) == (0, 1)
        assert pair.b._tasks.state.requests.inbound == frozenset()
        told = []
        with trio.move_on_after(1):
            async for step in steps:
                told += [step.input] if isinstance(step.input, ReplySent) else []
        assert told == [ReplySent(friend.peer_id, "c1")]


@pytest.mark.parametrize("outbox", [1, 4])
async def test_the_outbox_is_bounded_for_each_peer_and_answers_go_before_progress(
    outbox: int, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def chatty(run: SessionRun) -> None:
        for part in range(10):
            await run.reply(ACCEPTED, part)
        await run.reply(COMPLETED, "done")

    async with paired(None, chatty, outbox=outbox) as pair:
        deaf = MemoryComms(pair.network, "deaf", control_lane=1)
        await pair.b_comms.add_trusted_peer(deaf.endpoint(), TrustSource.MANUAL)
        await ask_by_hand(pair, deaf, "1")
        assert pair.b.statistics().handled == 1
        assert pair.b.statistics().replies_waiting == outbox
        # Others are not held up.
        assert await pair.a.request(pair.b_comms.peer_id, "work") == "done"
        heard = []
        with trio.move_on_after(20):
            while True:
                with await deaf.claim() as claim:
                    heard.append(claim.envelope.body)
                    claim.commit()
        assert heard == ([0, 1] if outbox == 1 else [0, 1, 3, 4, "done"])


async def test_the_bound_of_the_outbox_has_to_be_a_number(autojump_clock: object) -> None:
    async with rigged() as (_, machine, _):
        for outbox in (0, True, "many"):
            with pytest.raises(ValueError, match="outbox: 1 or more is needed"):
                await machine.register("b", outbox=outbox)  # type: ignore[arg-type]


async def test_what_is_left_at_the_end_of_a_session_has_the_grace_time(autojump_clock: object) -> None:
    async with paired(None, echo, grace=3.0) as pair:
        slow = MemoryComms(pair.network, "slow", control_lane=1)
        deaf = MemoryComms(pair.network, "deaf", control_lane=1)
        for comms in (slow, deaf):
            await pair.b_comms.add_trusted_peer(comms.endpoint(), TrustSource.MANUAL)
            await ask_by_hand(pair, comms, "1", "2", "3")
        heard: list[Any] = []

        async def hear() -> None:
            for _ in range(3):
                await trio.sleep(0.5)
                heard.extend(each.body for each in responses(slow))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            start = trio.current_time()
            await pair.b.stop()
            assert trio.current_time() - start == pytest.approx(3.0)
        assert heard == ["1", "2", "3"]
        assert pair.b.statistics().replies_given_up == 2
        # Revived, it has all its time again.
        await pair.machines[0].register("b", echo)
        await pair.b.attach_ingress(pair.b_comms)
        assert await pair.a.request(pair.b_comms.peer_id, "echo", "again") == "again"
        assert pair.b.statistics().replies_given_up == 2


async def test_a_machine_that_closes_sends_what_was_promised_within_the_grace_time(autojump_clock: object) -> None:
    network = MemoryNetwork()
    comms, slow = MemoryComms(network, "a"), MemoryComms(network, "slow", control_lane=1)
    await comms.add_trusted_peer(slow.endpoint(), TrustSource.MANUAL)
    heard: list[Any] = []

    async def hear() -> None:
        await trio.sleep(1)
        for _ in range(3):
            heard.extend(each.body for each in responses(slow))
            await trio.lowlevel.checkpoint()
            await settle()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_machine(grace=2.0) as machine:
                session = await machine.register("a", echo)
                await session.attach_ingress(comms)
                for correlation in ("1", "2"):
                    await slow.send(
                        slow.envelope(
                            comms.peer_id, correlation, kind=EnvelopeKind.REQUEST, intent="x", correlation=correlation
                        )
                    )
                await settle()
                nursery.start_soon(hear)
                scope.cancel()
        assert trio.current_time() < 100
    assert heard == ["1", "2"]


async def test_nobody_answers_in_the_name_of_a_peer_that_the_session_is_no_longer(autojump_clock: object) -> None:
    gate = trio.Event()

    async def gated(run: SessionRun) -> None:
        await gate.wait()
        await run.reply(COMPLETED)

    async with paired(None, gated) as pair:
        friend = await pair.stranger("friend", pair.b_comms)
        await ask_by_hand(pair, friend, "1")
        # A mob takes the ingress over with an identity of its own; the old one has no transport any more.
        await pair.b.attach_mob_ingress(await pair.comms("mob's b"), "mob")
        gate.set()
        await trio.sleep(60)
        assert responses(friend) == []
        assert pair.b.statistics().replies_given_up == 1


@pytest.mark.parametrize("seed", range(3))
async def test_every_request_ends_once_whatever_becomes_of_either_side(seed: int, autojump_clock: object) -> None:
    dice = random.Random(seed)
    ends: Counter[str] = Counter()
    handled: Counter[object] = Counter()

    async def work(run: SessionRun) -> None:
        await trio.sleep(dice.choice((0.0, 0.01, 0.2)))
        if dice.random() < 0.2:
            raise OSError("this attempt fails")
        handled[run.message.body] += 1
        await run.reply(COMPLETED, run.message.body)

    async def ask(pair: Pair, name: str) -> None:
        for number in range(60):
            body = f"{name} {number}"
            try:
                with trio.fail_after(dice.choice((0.1, 1.0, 30.0))):
                    assert await pair.a.request(pair.b_comms.peer_id, "work", body) == body
                ends["completed"] += 1
                assert handled[body] == 1
            except (trio.TooSlowError, RequestFailed, RequestDropped, CommsNotAttached) as error:
                ends[type(error).__name__] += 1

    async def disturb(pair: Pair) -> None:
        a, b = pair.a, pair.b
        while True:
            await trio.sleep(dice.uniform(0.0, 0.5))
            match dice.choice(["rebind a", "rebind b", "detach a", "detach b", "stop b", "abort b"]):
                case "rebind a":
                    await a.attach_ingress(await pair.comms("a"))
                case "rebind b":
                    await b.attach_ingress(await pair.comms("b"))
                case "detach a":
                    transport = a._tasks.bound_comms
                    await a.detach_ingress()
                    assert transport is not None
                    await a.attach_ingress(transport)
                case "detach b":
                    transport = b._tasks.bound_comms
                    await b.detach_ingress()
                    assert transport is not None
                    await b.attach_ingress(transport)
                case "stop b":
                    transport = b._tasks.bound_comms
                    await b.stop()
                    await pair.machines[-1].register("b", work, max_attempts=2)
                    assert transport is not None
                    await b.attach_ingress(transport)
                case "abort b":
                    transport = b._tasks.bound_comms
                    await b.stop_drain()
                    assert transport is not None
                    await b.attach_ingress(transport)

    async with paired(None, work, machines=2, max_attempts=2) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(disturb, pair)
        async with trio.open_nursery() as callers:
            for name in ("x", "y", "z"):
                callers.start_soon(ask, pair, name)
        nursery.cancel_scope.cancel()
    assert sum(ends.values()) == 180
    assert ends["completed"] > 50
    assert ends["RequestFailed"] > 0
    # No attempt is made again after its answer, so each was handled once at the most.
    assert set(handled.values()) == {1}
    assert pair.a._tasks.state.requests.outbound == {}
    assert pair.b.statistics().replies_given_up == 0


async def test_an_idle_session_has_no_outbox(autojump_clock: object) -> None:
    async with paired(None, echo) as pair:
        assert pair.a._tasks.requests is None
        await pair.a.request(pair.b_comms.peer_id, "echo")
        await settle()
        tasks = pair.b._tasks
        assert tasks.requests is not None
        assert (len(tasks.requests.outbox), tasks.requests.outbox.tasks) == (0, 0)
        assert tasks.nursery is not None
        assert len(tasks.nursery.child_tasks) == 1  # the drain
        assert tasks.requests._held == {}


def test_a_backoff_is_not_used_up_before_a_short_break_is_over() -> None:
    # docs/limits.md speaks of 8 attempts within some 6 seconds.
    assert sum(Backoff().delay(attempt, lambda: 0.0) for attempt in range(1, 8)) == pytest.approx(6.35)
