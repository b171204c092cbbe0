"""What a host does with its sessions, and in which order; the server and the machine are stand-ins that take notes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import trio
import trio.testing

from meerkat_trio import JournalRefused
from meerkat_trio._homes import Homes, share_sessions
from meerkat_trio.comms import Fence
from meerkat_trio.journals import Renewal

if TYPE_CHECKING:
    import pytest

LEASE = 3.0


class Notes:
    """Machine, journal and transport at once: who holds what, and what was done, in order."""

    grace = 1.0
    lease = LEASE
    host = "here"

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.hosts = 1
        self.given_back = 0
        self.tokens: dict[str, None] = {}
        self.elsewhere: dict[str, str] = {}
        self.lost: set[str] = set()
        self.refuses: set[str] = set()

    # The journal.

    @property
    def held(self) -> tuple[str, ...]:
        return tuple(self.tokens)

    async def vacated(self) -> int:
        await trio.lowlevel.checkpoint()
        return self.given_back

    async def renew(self, *, is_leaving: bool = False) -> Renewal:
        await trio.lowlevel.checkpoint()
        lost, self.lost = self.lost, set()
        for each in lost:
            self.tokens.pop(each, None)
        return Renewal(hosts=self.hosts, vacated=self.given_back, lost=frozenset(lost))

    async def homes(self, names: Iterable[str]) -> Mapping[str, str | None]:
        await trio.lowlevel.checkpoint()
        return {name: self.host if name in self.tokens else self.elsewhere.get(name) for name in names}

    async def take(self, name: str) -> Fence | None:
        await trio.lowlevel.checkpoint()
        if name in self.elsewhere:
            return None
        self.tokens[name] = None
        return Fence(name, "token")

    # Both: the machine lets go of a session, the journal of its lease.

    def disown(self, name: str) -> None:
        self.done.append(("disown", name))

    async def serve(self, name: str, fence: Fence) -> Any:
        await trio.lowlevel.checkpoint()
        assert fence.key == name
        if name in self.refuses:
            raise JournalRefused("here", "damaged")
        self.done.append(("serve", name))
        return Transport(self, name)

    def of(self, name: str) -> list[str]:
        return [what for what, of in self.done if of == name]


class Transport:
    def __init__(self, notes: Notes, name: str) -> None:
        self.notes, self.name = notes, name

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.notes.done.append(("close", self.name))


class Machine:
    def __init__(self, notes: Notes) -> None:
        self.grace, self.disown = notes.grace, notes.disown
        self.notes = notes

    async def release(self, name: str) -> None:
        await trio.sleep(0.5)  # its handler is running
        self.notes.done.append(("end", name))


class Leases:
    """The journal as `Homes` knows it: the notes, but for what the machine calls the same."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.notes, name)

    async def release(self, name: str) -> bool:
        await trio.lowlevel.checkpoint()
        self.notes.done.append(("give back", name))
        return self.notes.tokens.pop(name, "none") is None


@asynccontextmanager
async def host(notes: Notes, *sessions: str) -> AsyncIterator[Homes]:
    with trio.fail_after(1000):
        machine, leases = cast("Any", Machine(notes)), cast("Any", Leases(notes))
        async with share_sessions(machine, leases, sessions, notes.serve) as homes:
            await trio.sleep(0.05)
            yield homes


ENDED = ["serve", "end", "close", "give back"]


async def test_a_session_ends_here_before_its_lease_is_given_back(autojump_clock: trio.testing.MockClock) -> None:
    notes = Notes()
    async with host(notes, "a", "b") as homes:
        assert set(homes.here) == {"a", "b"}
    assert notes.of("a") == notes.of("b") == ENDED
    assert not notes.tokens


async def test_a_host_takes_its_share_and_gives_back_what_is_beyond_it(autojump_clock: trio.testing.MockClock) -> None:
    notes = Notes()
    async with host(notes, "a", "b", "c", "d") as homes:
        assert len(homes.here) == 4
        notes.hosts = 2
        await trio.sleep(LEASE)
        kept = homes.here
        assert len(kept) == 2
        assert all(notes.of(name) == ENDED for name in {*"abcd"} - {*kept})
        # What another host should take it leaves alone, for a while.
        await trio.sleep(LEASE / 2)
        assert homes.here == kept


async def test_what_nobody_takes_for_two_leases_is_taken_beyond_the_share(
    autojump_clock: trio.testing.MockClock,
) -> None:
    notes = Notes()
    notes.hosts = 2
    async with host(notes, "a", "b") as homes:
        assert homes.here == ("a",)
        await trio.sleep(1.5 * LEASE)
        assert homes.here == ("a",)
        await trio.sleep(2 * LEASE)
        assert homes.here == ("a", "b")


async def test_a_session_whose_lease_is_lost_is_stopped_at_once(autojump_clock: trio.testing.MockClock) -> None:
    notes = Notes()
    async with host(notes, "a", "b") as homes:
        notes.elsewhere, notes.lost = {"a": "there"}, {"a"}
        await trio.sleep(LEASE)
        assert homes.here == ("b",)
        assert notes.of("a")[:2] == ["serve", "disown"]
        assert "close" in notes.of("a")


async def test_what_is_given_back_elsewhere_is_taken_at_once(autojump_clock: trio.testing.MockClock) -> None:
    notes = Notes()
    notes.elsewhere = {"a": "there"}
    async with host(notes, "a") as homes:
        assert homes.here == ()
        notes.elsewhere = {}
        notes.given_back += 1
        await trio.sleep(0.2)
        assert homes.here == ("a",)


async def test_a_session_that_cannot_be_served_is_given_back(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    notes.refuses = {"a"}
    async with host(notes, "a", "b") as homes:
        await trio.sleep(0.6)
        assert homes.here == ("b",)
        assert "could not be taken up" in caplog.text
