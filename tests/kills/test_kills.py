"""Hosts that are killed at every stage of a message, while senders go on: what is promised is counted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final, final

import pytest
import trio

from meerkat_trio import ReceiptStatus, ResponseStatus
from meerkat_trio._entries import DONE, PEERS, SESSION, SUPERVISOR

from .cast import SESSIONS, identity
from .ledger import Told, Written
from .senders import Senders
from .stages import Stage
from .stores import STORES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
FEW: Final = 10
MANY: Final = 50
PARTS: Final = 4
SOON: Final = 60.0
"""Seconds in which a host of another process does what it has to do, however slow the machine is."""
TWINS: Final = 100


@final
class Story:
    """Hosts of one directory, one after the other, and who sends to them."""

    def __init__(self, directory: Path, store: str, seed: int) -> None:
        self.directory = directory
        self.store_name = store
        self.store = STORES[store](directory)
        self.random = random.Random(seed)
        self.senders = Senders(directory)
        self.kills: Counter[str] = Counter()

    def read(self) -> Written:
        return Written.read(self.directory / "ledger")

    @contextmanager
    def host(self, *options: object) -> Iterator[subprocess.Popen[bytes]]:
        """Run a host; at the end of the block it is dead."""
        command = [sys.executable, "-m", "tests.kills.host", str(self.directory), "--store", self.store_name]
        with subprocess.Popen([*command, *map(str, options)], cwd=ROOT, stdin=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    async def wait_open(self, process: subprocess.Popen[bytes], hosts: int) -> None:
        """Wait until the host serves; its ledger is another process's file, so it is looked at again and again."""
        with trio.fail_after(SOON):
            while not ((found := self.read()).hosts == hosts and found.open):
                assert process.poll() is None
                await trio.sleep(0.005)

    async def round(self, stage: Stage) -> None:
        """Have one host live until it is killed, and look at what it leaves."""
        before = self.read()
        at = self.random.randint(1, 5 if stage is Stage.BOUND else 40)
        with self.host("--stage", stage.value, "--at", at) as process:
            if stage is Stage.RANDOM:
                await self._kill_at_random(process, before)
            with trio.fail_after(SOON):
                while process.poll() is None:
                    await trio.sleep(0.005)
        assert process.returncode == -signal.SIGKILL
        found = self.read()
        if stage is not Stage.RANDOM:
            assert found.killed[len(before.killed) :] == (stage.value,)
        self.kills[stage.value] += 1
        self.check_what_is_left(found)

    async def _kill_at_random(self, process: subprocess.Popen[bytes], before: Written) -> None:
        if self.random.random() < 0.5:
            lines = before.lines + self.random.randint(0, 200)
            with trio.fail_after(SOON):
                while self.read().lines < lines:
                    assert process.poll() is None
                    await trio.sleep(0.001)
        else:
            await self.wait_open(process, before.hosts + 1)
            # Not to wait for anything: the moment is what is drawn.
            await trio.sleep(self.random.random() * 0.2)
        os.kill(process.pid, signal.SIGKILL)

    # --- what has to hold -----------------------------------------------------------------------------

    def check_what_is_left(self, found: Written) -> None:
        """Look at the journal and the ledger of a host that is dead, while no other has begun."""
        assert self.store.problems() == []
        memories = self.store.memories()
        for session, epoch in found.epochs.items():
            assert memories[session].remembered.counters.epoch_floor >= epoch
        ended = {(each.session, each.message) for each in found.ended}
        for line in self.senders.lines:
            for message in line.admitted[-200:]:
                key = f"{identity(line.sender).peer_id}{message}"
                memory = memories[line.session]
                unfinished = {each.key for each in memory.messages}
                assert key in unfinished or key in memory.done, f"{message} was admitted, and is not in the journal"
                assert key in unfinished or (line.session, message) in ended, f"{message} was never handled"
        self.check_order(found)

    def check_order(self, found: Written) -> int:
        """Look at what was handled, and in which order; return how many were handled again."""
        again = 0
        for session in SESSIONS:
            begun = [each for each in found.begun if each.session == session]
            ended = [each for each in found.ended if each.session == session]
            seen: set[str] = set()
            last: dict[str, int] = {}
            for before, each in zip([None, *begun], begun, strict=False):
                if each.message in seen:
                    # The last that was begun before the kill, and the first after it.
                    assert before is not None
                    assert (before.message, before.host < each.host) == (each.message, True), (before, each)
                    again += 1
                    continue
                seen.add(each.message)
                sender, _, number = each.message.rpartition("-")
                assert int(number) == last.get(sender, -1) + 1, f"{each} comes after {last}"
                last[sender] = int(number)
            assert _first_of_each(begun)[: len(_first_of_each(ended))] == _first_of_each(ended)
        return again

    async def wait_handled(self) -> None:
        """Wait until all that was admitted is handled."""
        wanted = {(line.session, message) for line in self.senders.lines for message in line.admitted}
        with trio.fail_after(SOON):
            while wanted - {(each.session, each.message) for each in self.read().ended}:
                await trio.sleep(0.02)

    async def wait_quiet(self) -> None:
        """Wait until nothing is left to be done, and that is written."""
        with trio.fail_after(SOON):
            while {each.kind for entries in self.store.entries().values() for each in entries} - _LASTING:
                await trio.sleep(0.02)

    def check_answers(self) -> None:
        answers = self.senders.answers
        assert answers.keys() == self.senders.asked
        wrong = {
            request: found
            for request, found in answers.items()
            if [(status, body) for _, status, body in found] != [(ResponseStatus.COMPLETED, request)]
        }
        assert wrong == {}


_LASTING: Final = {SESSION, SUPERVISOR, PEERS, DONE}
"""Kinds of entries of a session that has nothing to do."""


def _first_of_each(told: list[Told]) -> list[str]:
    return list(dict.fromkeys(each.message for each in told))


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "rounds",
    [FEW, *(pytest.param(MANY, marks=pytest.mark.deep, id=f"{MANY}, part {part}") for part in range(PARTS))],
)
async def test_nothing_admitted_is_lost_and_one_at_most_is_handled_again_for_each_kill(
    tmp_path: Path, store: str, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(2**32))
    print(f"{SEED}={seed}")
    begun = monotonic()
    story = Story(tmp_path, store, seed)
    stages = [*Stage, *story.random.choices([*Stage], k=rounds)][:rounds]
    story.random.shuffle(stages)
    async with story.senders.sending():
        for stage in stages:
            await story.round(stage)
        with story.host():
            with trio.fail_after(SOON):
                await story.senders.finish()
            await story.wait_handled()
            await story.wait_quiet()
    story.check_what_is_left(story.read())
    story.check_answers()
    with story.host(), trio.fail_after(SOON):
        told = await story.senders.send_twins(TWINS)
        await story.wait_handled()
    assert told.keys() == {ReceiptStatus.ADMITTED}
    found = story.read()
    again = story.check_order(found)
    assert again <= len(SESSIONS) * rounds
    assert story.kills.keys() == {stage.value for stage in Stage}
    record_property(
        f"kills ({store})",
        f"{rounds} kills in {monotonic() - begun:.0f} s, {dict(sorted(story.kills.items()))}; "
        f"{story.senders.admitted} messages, {again} handled again, {len(story.senders.asked)} requests, "
        f"{sum(line.again for line in story.senders.lines)} sent again, {told.total()} twins, "
        f"epochs {found.epochs}; seed {seed}",
    )


SEED: Final = "MEERKAT_KILLS_SEED"
"""The environment's name for a seed that is to be tried again."""
