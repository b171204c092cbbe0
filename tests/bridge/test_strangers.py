"""Commands of strangers: how large, of what, and how often."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from meerkat_trio import DropReason, ObserveMember, Receipt, ReceiptStatus, RevokeOwnSupervision, TrustSource
from meerkat_trio._supervision import STRANGERS_LIMIT
from meerkat_trio.authority import Stop

from ..rig import settle
from .rig import Commands, Silent, commanding, raw

OBSERVE = ObserveMember(epoch=1)
MALFORMED, OVERSIZE, RATE_LIMITED = DropReason.MALFORMED, DropReason.OVERSIZE, DropReason.RATE_LIMITED


def fates(receipts: list[Receipt]) -> list[DropReason | None]:
    return [receipt.reason for receipt in receipts]


async def trusted(rig: Commands, friend: Silent) -> Silent:
    await rig.comms.add_trusted_peer(friend.comms.endpoint(), TrustSource.MANUAL)
    return friend


# --- how large, of what -----------------------------------------------------------------------------


def of_size(size: int) -> dict[str, Any]:
    """A command that takes up ``size`` bytes with its correlation "c"."""
    empty = len(json.dumps(["c", raw(OBSERVE, padding="")]))
    return raw(OBSERVE, padding="x" * (size - empty))


async def test_a_stranger_says_no_more_than_four_kibibytes(autojump_clock: object) -> None:
    async with commanding() as rig:
        stranger = Silent(rig, "stranger")
        fits, too_large = stranger.send(of_size(STRANGERS_LIMIT), "c"), stranger.send(of_size(STRANGERS_LIMIT + 1), "d")
        await settle()
        assert fates([fits, too_large]) == [None, OVERSIZE]
        assert stranger.heard() == [("c", {"cause": "unsupported", "detail": "fields: one is not known"})]
        assert rig.member.statistics().dropped == {OVERSIZE: 1}


async def test_the_correlation_counts_as_well(autojump_clock: object) -> None:
    async with commanding() as rig:
        receipt = Silent(rig, "stranger").send(OBSERVE, "c" * STRANGERS_LIMIT)
        await settle()
        assert receipt.reason is OVERSIZE
        assert rig.member._tasks.state.requests.inbound == frozenset()


async def test_bytes_are_counted_and_not_characters(autojump_clock: object) -> None:
    async with commanding() as rig:
        receipt = Silent(rig, "stranger").send(raw(OBSERVE, padding="é" * (STRANGERS_LIMIT // 2)))
        await settle()
        assert receipt.reason is OVERSIZE


class Raising(dict[str, Any]):
    """A body that only a sender in the same process can make."""

    def items(self) -> Any:
        raise RuntimeError("do not touch")


class Endless(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        while True:
            yield 1


def nested(depth: int) -> list[Any]:
    inside: list[Any] = []
    for _ in range(depth):
        inside = [inside]
    return inside


def circular() -> dict[str, Any]:
    body: dict[str, Any] = {}
    body["body"] = body
    return body


BODIES: dict[str, tuple[Callable[[], object], DropReason]] = {
    "an object": (object, MALFORMED),
    "bytes": (lambda: b"observe", MALFORMED),
    "a set": (lambda: {1, 2}, MALFORMED),
    "a key that is no text": (lambda: {(1, 2): 1}, MALFORMED),
    "an object deep inside": (lambda: raw(OBSERVE, padding=[[object()]]), MALFORMED),
    "one that holds itself": (circular, MALFORMED),
    "one that raises": (lambda: Raising(a=1), MALFORMED),
    "a number of many digits": (lambda: 10**5000, MALFORMED),
    "one that never ends": (lambda: Endless([1]), OVERSIZE),
    "one that is deep": (lambda: nested(100_000), OVERSIZE),
    "a long text": (lambda: "x" * 10_000_000, OVERSIZE),
    "many texts": (lambda: ["x"] * 100_000, OVERSIZE),
    "escapes": (lambda: "\x00" * 1000, OVERSIZE),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_what_a_stranger_could_not_have_sent_over_a_wire_is_dropped(kind: str, autojump_clock: object) -> None:
    make, reason = BODIES[kind]
    async with commanding() as rig:
        stranger = Silent(rig, "stranger")
        receipt = stranger.send(make())
        await settle()
        # A body that is deep enough is both.
        assert receipt.reason is reason or (kind == "one that is deep" and receipt.reason is MALFORMED)
        assert stranger.heard() == []
        assert rig.member._tasks.state.requests.inbound == frozenset()
        stranger.send(OBSERVE)
        await settle()
        assert len(stranger.heard()) == 1
        assert rig.member.drain.generation == 1


async def test_a_friend_says_what_it_likes(autojump_clock: object) -> None:
    async with commanding() as rig:
        friend = await trusted(rig, Silent(rig, "friend"))
        friend.send(raw(OBSERVE, padding="x" * 100_000))
        friend.send(raw(OBSERVE, padding=object()))
        await settle()
        assert [body["cause"] for _, body in friend.heard()] == ["unsupported", "unsupported"]


async def test_a_supervisor_is_no_stranger_until_it_gives_that_up(autojump_clock: object) -> None:
    async with commanding() as rig:
        ann = Silent(rig, "ann-by-hand")
        ann.send(rig.bind(rig.member.issue_bootstrap_token(), by=ann.comms))
        await settle()
        receipts = [ann.send(OBSERVE) for _ in range(50)]
        await settle()
        assert fates(receipts) == [None] * 50
        assert len(ann.heard()) == 51
        ann.send(RevokeOwnSupervision(epoch=1))
        receipts = [ann.send(RevokeOwnSupervision(epoch=1)) for _ in range(8)]
        await settle()
        assert fates(receipts) == [None] * 7 + [RATE_LIMITED], "one was spent on the bind"


# --- how often --------------------------------------------------------------------------------------


async def test_a_stranger_commands_eight_times_at_once_and_then_once_a_second(autojump_clock: object) -> None:
    async with commanding() as rig:
        stranger = Silent(rig, "stranger")
        receipts = [stranger.send(OBSERVE) for _ in range(12)]
        await settle()
        assert fates(receipts) == [None] * 8 + [RATE_LIMITED] * 4
        await trio.sleep(3)
        receipts = [stranger.send(OBSERVE) for _ in range(5)]
        await settle()
        assert fates(receipts) == [None] * 3 + [RATE_LIMITED] * 2
        assert len(stranger.heard()) == 11
        assert rig.member.statistics().dropped == {RATE_LIMITED: 6}


async def test_what_is_dropped_for_its_size_counts_too(autojump_clock: object) -> None:
    async with commanding() as rig:
        stranger = Silent(rig, "stranger")
        receipts = [stranger.send("x" * 5000) for _ in range(10)]
        await settle()
        assert fates(receipts) == [OVERSIZE] * 8 + [RATE_LIMITED] * 2


async def test_all_strangers_together_command_sixty_four_times_at_once_and_then_eight_times_a_second(
    autojump_clock: object,
) -> None:
    async with commanding() as rig:
        strangers = [Silent(rig, f"stranger {number}") for number in range(60)]

        async def all_of_them() -> Counter[DropReason | None]:
            receipts = []
            for stranger in strangers:
                receipts += [stranger.send(OBSERVE), stranger.send(OBSERVE)]
                await settle()
            return Counter(fates(receipts))

        assert await all_of_them() == {None: 64, RATE_LIMITED: 56}
        await trio.sleep(2)
        assert await all_of_them() == {None: 16, RATE_LIMITED: 104}


async def test_strangers_are_in_no_supervisors_way(autojump_clock: object) -> None:
    async with commanding() as rig:
        await rig.bound()
        friend = await trusted(rig, Silent(rig, "friend"))
        strangers = [Silent(rig, f"stranger {number}") for number in range(60)]
        for stranger in strangers:
            stranger.send(OBSERVE)
            stranger.send(OBSERVE)
            await settle()
        start = trio.current_time()
        for _ in range(20):
            await rig.ann.command(rig.id, OBSERVE)
            friend.send(OBSERVE)
        await settle()
        assert len(friend.heard()) == 20
        assert trio.current_time() == start


async def test_strangers_of_any_number_leave_little_behind(autojump_clock: object) -> None:
    async with commanding() as rig:
        for number in range(1000):
            stranger = Silent(rig, f"stranger {number}")
            stranger.send(OBSERVE)
            await trio.sleep(1)
            await stranger.comms.aclose()
        tasks = rig.member._tasks
        assert tasks.supervision is not None
        assert tasks.supervision._strangers is not None
        assert len(tasks.supervision._strangers) < 10
        assert tasks.requests is not None
        assert (len(tasks.requests._held), len(tasks.requests.outbox)) == (0, 0)
        assert tasks.state.requests.inbound == frozenset()


async def test_a_session_that_ends_drops_no_command_for_what_it_is(autojump_clock: object) -> None:
    async with commanding() as rig:
        receipt = Silent(rig, "stranger").send(of_size(STRANGERS_LIMIT + 1))
        rig.member._tasks.apply(Stop(""))
        await settle()
        # It stays in the transport, for whoever serves that next.
        assert receipt.status is ReceiptStatus.QUEUED
        assert rig.comms.statistics().control_waiting == 1
