"""The original's defects of requests and replies: each test is red on an implementation that has that defect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from meerkat_trio import (
    DropReason,
    EnvelopeKind,
    MemoryComms,
    ReceiptStatus,
    ResponseStatus,
    Session,
    SessionRun,
    TrustSource,
)
from meerkat_trio.authority import ApplyMobPeerOverlay

from .pair import Pair, paired, responses
from .rig import settle

COMPLETED = ResponseStatus.COMPLETED


# --- D21: replies are sent after their route is gone -------------------------------------------------


async def rebind(session: Session, pair: Pair) -> None:
    await session.attach_ingress(await pair.comms("b"))


async def rebind_and_detach(session: Session, pair: Pair) -> None:
    await rebind(session, pair)
    await session.detach_ingress()


async def rebind_twice_and_close_the_old(session: Session, pair: Pair) -> None:
    await rebind(session, pair)
    await rebind(session, pair)
    await pair.b_comms.aclose()


async def take_trust_away(session: Session, pair: Pair) -> None:
    for comms in (pair.b_comms, session._tasks.bound_comms):
        assert comms is not None
        for peer_id, source in await comms.trusted_peers():
            await comms.remove_trusted_peer(peer_id, source)
    session._tasks.apply(ApplyMobPeerOverlay(1, ()))


async def detach_close_and_rebuild(session: Session, pair: Pair) -> None:
    await session.detach_ingress()
    await pair.b_comms.aclose()
    await trio.sleep(2)
    await session.attach_ingress(await pair.comms("b"))


Loss = Callable[[Session, Pair], Awaitable[Any]]
LOSSES: dict[str, Loss] = {
    "rebind": rebind,
    "rebind and detach": rebind_and_detach,
    "rebind twice, close the old": rebind_twice_and_close_the_old,
    "detach": lambda session, _: session.detach_ingress(),
    "detach, close, rebuild": detach_close_and_rebuild,
    "stop the drain": lambda session, _: session.stop_drain(),
    "retire": lambda session, _: session.retire(),
    "trust taken away": take_trust_away,
}


def asked(pair: Pair, friend: MemoryComms, correlation: str) -> None:
    friend.send_nowait(
        friend.envelope(
            pair.b_comms.peer_id, correlation, kind=EnvelopeKind.REQUEST, intent="work", correlation=correlation
        )
    )


@pytest.mark.parametrize("loss", LOSSES)
async def test_d21_a_request_that_was_admitted_is_answered_whatever_becomes_of_its_route(
    loss: str, autojump_clock: object
) -> None:
    gate = trio.Event()

    async def gated(run: SessionRun) -> None:
        await gate.wait()
        await run.reply(COMPLETED, run.message.body)

    async with paired(None, gated) as pair:
        friend = await pair.stranger("friend", pair.b_comms)
        asked(pair, friend, "1")
        asked(pair, friend, "2")
        await settle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LOSSES[loss], pair.b, pair)
            await trio.sleep(5)
            gate.set()
        await settle()
        assert [(each.body, each.status) for each in responses(friend)] == [("1", COMPLETED), ("2", COMPLETED)]
        assert pair.b.statistics().replies_given_up == 0


@pytest.mark.parametrize("loss", [*LOSSES, "stop", "destroy"])
async def test_d21_a_reply_that_waits_keeps_its_route(loss: str, autojump_clock: object) -> None:
    async def answer(run: SessionRun) -> None:
        await run.reply(COMPLETED, run.message.body)

    async def end(session: Session, _: Pair) -> None:
        await getattr(session, loss)()

    async with paired(None, answer) as pair:
        friend = MemoryComms(pair.network, "friend", control_lane=1)
        await pair.b_comms.add_trusted_peer(friend.endpoint(), TrustSource.MANUAL)
        for correlation in ("1", "2", "3"):
            asked(pair, friend, correlation)
        await settle()
        assert pair.b.statistics().replies_waiting == 2
        heard = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LOSSES.get(loss, end), pair.b, pair)
            for _ in range(3):
                await trio.sleep(1)
                heard += [each.body for each in responses(friend)]
        assert heard == ["1", "2", "3"]
        assert pair.b.statistics().replies_given_up == 0


async def test_d21_a_handler_that_ends_its_own_session_has_its_last_word(autojump_clock: object) -> None:
    async def farewell(run: SessionRun) -> None:
        await run.session.destroy()
        await run.reply(COMPLETED, "goodbye")

    async with paired(None, farewell) as pair:
        assert await pair.a.request(pair.b_comms.peer_id, "leave") == "goodbye"


# --- D24: anyone may answer another peer's request; unknown responses become inputs -------------------


def respond(comms: MemoryComms, to: MemoryComms, correlation: str, body: object) -> Any:
    return comms.send_nowait(
        comms.envelope(
            to.peer_id, body, kind=EnvelopeKind.RESPONSE, correlation=correlation, status=ResponseStatus.COMPLETED
        )
    )


async def test_d24_nobody_answers_in_another_peers_place(autojump_clock: object) -> None:
    async with paired(None, None) as pair:
        friend = await pair.stranger("friend", pair.a_comms)
        other = await pair.stranger("other", pair.a_comms)
        answers = []

        async def ask() -> None:
            answers.append(await pair.a.request(friend.peer_id, "work"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            (correlation,) = pair.a._tasks.state.requests.outbound
            forged = respond(other, pair.a_comms, correlation, "forged")
            await settle()
            assert (forged.reason, answers) == (DropReason.WRONG_RESPONDER, [])
            respond(friend, pair.a_comms, correlation, "genuine")
        assert answers == ["genuine"]
        assert pair.a.statistics().dropped == {DropReason.WRONG_RESPONDER: 1}


async def test_d24_a_response_that_nobody_waits_for_is_no_input(autojump_clock: object) -> None:
    handled = []

    async def record(run: SessionRun) -> None:
        handled.append(run.message.body)

    async with paired(record, None) as pair:
        friend = await pair.stranger("friend", pair.a_comms)
        receipt = respond(friend, pair.a_comms, "nobody asked", "x")
        await settle()
        assert receipt.status is ReceiptStatus.DROPPED
        assert (receipt.reason, handled) == (DropReason.NO_SUCH_REQUEST, [])
        assert pair.a.statistics().admitted == 0


async def test_d24_a_request_is_answered_once(autojump_clock: object) -> None:
    async with paired(None, None) as pair:
        friend = await pair.stranger("friend", pair.a_comms)
        answers = []

        async def ask() -> None:
            answers.append(await pair.a.request(friend.peer_id, "work"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await settle()
            (correlation,) = pair.a._tasks.state.requests.outbound
            first = respond(friend, pair.a_comms, correlation, "first")
            second = respond(friend, pair.a_comms, correlation, "second")
        await settle()
        assert answers == ["first"]
        assert (first.status, second.reason) == (ReceiptStatus.ADMITTED, DropReason.NO_SUCH_REQUEST)


# --- D26: one dead reply address stops all ingress ----------------------------------------------------


@pytest.mark.parametrize("kind", ["dead", "slow"])
async def test_d26_a_reply_that_cannot_be_sent_is_in_nobodys_way(kind: str, autojump_clock: object) -> None:
    handled = []

    async def answer(run: SessionRun) -> None:
        handled.append(run.message.body)
        await run.reply(COMPLETED, run.message.body)

    async with paired(None, answer) as pair:
        blocked = MemoryComms(pair.network, "blocked", control_lane=1)
        await pair.b_comms.add_trusted_peer(blocked.endpoint(), TrustSource.MANUAL)
        friend = await pair.stranger("friend", pair.b_comms)
        for correlation in ("1", "2", "3"):
            asked(pair, blocked, correlation)
        if kind == "dead":
            await blocked.aclose()
        start = trio.current_time()
        asked(pair, friend, "4")
        notice = friend.send_nowait(friend.envelope(pair.b_comms.peer_id, kind=EnvelopeKind.PEER_ADDED))
        await settle()
        assert trio.current_time() == start
        assert notice.status is ReceiptStatus.ADMITTED
        assert handled == ["1", "2", "3", "4"]
        assert [each.body for each in responses(friend)] == ["4"]
        assert pair.b.statistics().replies_waiting == (3 if kind == "dead" else 2)
