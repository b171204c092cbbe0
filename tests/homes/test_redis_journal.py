"""A journal that several hosts share: who has the lease restores and writes, nobody else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from meerkat_trio import JournalFailed, JournalRefused
from meerkat_trio.abc import Change, Delete, Entry, Forget
from meerkat_trio.comms import RedisLimits
from meerkat_trio.journals import RedisJournal

from ..redis.rig import Server, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SOON = RedisLimits(first_backoff=0.01, max_backoff=0.05, command_timeout=1.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path) as server:
        yield server


@asynccontextmanager
async def journal(server: Server, lease: float = 5.0) -> AsyncIterator[RedisJournal]:
    with trio.fail_after(60):
        async with RedisJournal(server.url, lease=lease, limits=SOON) as opened:
            yield opened


def entry(key: str, position: int, value: bytes = b"v") -> Entry:
    return Entry("message", key, position, value)


async def test_what_was_appended_is_restored_in_the_order_of_positions(server: Server) -> None:
    async with journal(server) as one:
        assert await one.take("a") is not None
        changes: list[Change] = [
            entry("late", 9),
            entry("k with spaces", 2, b"\x00\xff"),
            entry("gone", 1),
            Delete("message", "gone"),
        ]
        assert await one.append({"a": changes}) == frozenset()
        assert await one.restore("a") == {"a": [entry("k with spaces", 2, b"\x00\xff"), entry("late", 9)]}
        assert await one.append({"a": [Forget(), entry("new", 1)]}) == frozenset()
        assert await one.restore("a") == {"a": [entry("new", 1)]}
        assert await one.restore() == {}


async def test_only_the_home_of_a_session_writes_and_reads(server: Server) -> None:
    async with journal(server) as one, journal(server) as two:
        assert await one.take("a") is not None
        assert await two.take("a") is None
        assert await two.append({"a": [entry("theirs", 1)], "b": [entry("nobody's", 1)]}) == {"a", "b"}
        with pytest.raises(JournalRefused, match="has another home"):
            await two.restore("a")
        assert await two.take("b") is not None
        assert await two.append({"a": [entry("theirs", 1)], "b": [entry("ours", 1)]}) == {"a"}
        assert await one.restore("a") == {}
        assert await two.restore("b") == {"b": [entry("ours", 1)]}


async def test_a_lease_that_is_given_back_is_taken_at_once_with_another_token(server: Server) -> None:
    async with journal(server) as one, journal(server) as two:
        fence = await one.take("a")
        assert fence is not None
        before = await two.vacated()
        assert await one.release("a")
        assert await two.vacated() == before + 1
        assert await two.homes(["a"]) == {"a": None}
        assert not await one.release("a")
        other = await two.take("a")
        assert other is not None
        assert (other.key, other.token) != (fence.key, fence.token)
        assert await one.append({"a": [entry("late", 1)]}) == {"a"}
        assert await one.homes(["a", "b"]) == {"a": two.host, "b": None}


async def test_a_lease_ends_unless_it_is_renewed(server: Server) -> None:
    async with journal(server, lease=0.3) as one, journal(server, lease=0.3) as two:
        assert await one.take("a") is not None
        while await two.take("a") is None:
            await trio.sleep(0.01)
        renewal = await one.renew()
        assert renewal.lost == {"a"}
        assert one.held == ()
        assert (await two.renew()).lost == frozenset()
        assert (await two.renew()).hosts == 2


async def test_a_lease_that_is_renewed_lasts_as_long_as_a_new_one(server: Server) -> None:
    async with journal(server, lease=100.0) as one:
        assert await one.take("a") is not None
        assert 0 < int(server.cli("PTTL", one.keys.home("a"))) <= 100_000
        server.cli("PEXPIRE", one.keys.home("a"), "50000")
        assert (await one.renew()).lost == frozenset()
        assert int(server.cli("PTTL", one.keys.home("a"))) > 50_000


async def test_a_lease_that_was_lost_is_not_given_back_for_its_holder(server: Server) -> None:
    async with journal(server, lease=0.1) as one, journal(server) as two:
        assert await one.take("a") is not None
        while await two.take("a") is None:
            await trio.sleep(0.01)
        assert one.held == ("a",)
        assert not await one.release("a")
        assert await two.homes(["a"]) == {"a": two.host}
        assert await two.append({"a": [entry("k", 1)]}) == frozenset()


async def test_a_host_that_takes_a_session_again_has_another_token(server: Server) -> None:
    async with journal(server) as one:
        first = await one.take("a")
        assert await one.take("a") == first
        await one.release("a")
        second = await one.take("a")
        assert first is not None
        assert second is not None
        assert first.token != second.token


async def test_hosts_that_are_not_heard_of_are_not_counted(server: Server) -> None:
    async with journal(server) as one:
        late, early = 1, 10**15
        server.cli("ZADD", one.keys.hosts, str(late), "gone", str(early), "there")
        assert (await one.renew()).hosts == 2


async def test_leaving_gives_everything_back(server: Server) -> None:
    async with journal(server) as two:
        async with journal(server) as one:
            await one.renew()
            assert await one.take("a") is not None
            assert (await two.renew()).hosts == 2
        assert await two.take("a") is not None
        assert (await two.renew()).hosts == 1


async def test_what_is_asked_while_the_server_is_away_waits(server: Server) -> None:
    async with journal(server) as one:
        assert await one.take("a") is not None
        server.kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.take, "b")
            await trio.sleep(0.05)
            server.start()
        assert one.held == ("a", "b")


async def test_without_memory_nothing_is_written_and_that_is_said(server: Server) -> None:
    async with journal(server) as one:
        assert await one.take("a") is not None
        await one.append({"a": [entry("first", 1)]})
        server.cli("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(JournalFailed, match="memory"):
            await one.append({"a": [entry("second", 2), Delete("message", "first")]})
        assert await one.append({"a": [Delete("message", "none")]}) == frozenset()
        server.cli("CONFIG", "SET", "maxmemory", "0")
        assert await one.restore("a") == {"a": [entry("first", 1)]}
        assert await one.append({"a": [entry("second", 2)]}) == frozenset()


async def test_a_writing_that_comes_again_after_a_later_one_changes_nothing(server: Server) -> None:
    async with journal(server) as one:
        assert await one.take("a") is not None
        await one.append({"a": [entry("k", 1)]})
        await one.append({"a": [Delete("message", "k")]})
        one._writings = 0
        assert await one.append({"a": [entry("k", 1)]}) == frozenset()
        assert await one.restore("a") == {}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lease": 0.0}, "lease"),
        ({"lease": float("inf")}, "lease"),
        ({"host": "a b"}, "host"),
        ({"namespace": ""}, "namespace"),
        ({"url": "http://x"}, "url"),
    ],
)
def test_arguments_of_no_use_are_named(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RedisJournal(**{"url": "redis://localhost", **options})  # type: ignore[arg-type]
