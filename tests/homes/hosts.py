"""Hosts in processes of their own, and a ledger from which is judged whether they have kept the promise.

The promise: what was ADMITTED is handled; a message is handled again only if the host that had it before was killed or
stopped, and had begun none after it; the order of each sender is kept; two hosts that live never run handlers of one
session at once.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from meerkat_trio import Receipt, ReceiptStatus
from meerkat_trio.comms import RedisComms, RedisLimits, RedisNetwork, TrustFile

from ..redis.rig import identity
from .handlers import LEDGER, PAUSE, STAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ..redis.rig import Server

__all__ = ["Handled", "Host", "Judgement", "Place", "Traffic"]

SENDERS = ("one", "two")
LIMITS = RedisLimits(unanswered=32, first_backoff=0.01, max_backoff=0.1, full_pause=0.02)
_PATIENCE = 40.0
_REFUSED = re.compile(r"^.*JournalRefused: .* has another home$", re.MULTILINE)
_LOST = re.compile(r"session (\S+): the lease is lost")


@attrs.frozen(kw_only=True)
class Handled:
    """One run of a handler, as the ledger has it."""

    pid: int
    session: str
    message: str
    begun: int
    ended: int | None


class Host:
    """A host's process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return self._log.read_text()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; return the exit status."""
        with trio.fail_after(_PATIENCE):
            while (status := self.process.poll()) is None:
                await trio.sleep(0.01)
        return status


class Place:
    """A directory with the keys of sessions, the configuration that all hosts have, and their files."""

    def __init__(
        self, directory: Path, server: Server, sessions: int, *, lease: float = 0.6, pause: float = 0.001
    ) -> None:
        self.directory = directory
        self.server = server
        self.lease = lease
        self.pause = pause
        self.sessions = [f"s{number}" for number in range(sessions)]
        self.ledger = directory / "ledger"
        self.hosts: list[Host] = []
        self.excused: set[int] = set()
        for name in self.sessions:
            (directory / name).mkdir()
            identity(f"key {name}").save(directory / name / "secret.key")
            trusted = TrustFile(directory / name / "trust.jsonl")
            for sender in SENDERS:
                trusted.add(identity(sender).endpoint(sender, f"inproc://{sender}"))
        tables = "".join(
            f'[[session]]\nname = "{name}"\nkey = "{name}"\nhandler = "tests.homes.handlers:write_down"\n'
            for name in self.sessions
        )
        self.config = directory / "host.toml"
        self.config.write_text(f'[host]\nredis = "{server.url}"\nlease = {lease}\ngrace = 3.0\n{tables}')

    # --- hosts --------------------------------------------------------------------------------------

    def start(self, stage: str = "") -> Host:
        """Start a host; with a stage it kills itself there."""
        log = self.directory / f"log{len(self.hosts)}"
        command = [sys.executable, "-m", "tests.homes.program", "host", "--config", str(self.config), "--verbose"]
        environment = {**os.environ, LEDGER: str(self.ledger), STAGE: stage, PAUSE: str(self.pause)}
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment)
        host = Host(process, log)
        self.hosts.append(host)
        if stage:
            self.excused.add(host.pid)
        return host

    def kill(self, host: Host) -> None:
        """Kill a host: what it had begun may be begun again."""
        self.excused.add(host.pid)
        host.process.kill()
        host.process.wait()

    def stop(self, host: Host) -> None:
        """Let a host stand still: what it had begun may be begun again."""
        self.excused.add(host.pid)
        host.signal(signal.SIGSTOP)

    @property
    def living(self) -> list[Host]:
        return [host for host in self.hosts if host.lives]

    async def send_home(self) -> None:
        """Tell all hosts to go, and see them go."""
        living = self.living
        for host in living:
            host.signal(signal.SIGTERM)
        for host in living:
            # One that has only just begun is not told to go, it goes.
            assert await host.ended() == (0 if host.log else -signal.SIGTERM), host.log[-2000:]
            # A lease may have ended while its session was being taken up; nothing else may be in the way.
            refused = len(_REFUSED.findall(host.log))
            assert host.log.count("could not be taken up") == refused, host.log[-4000:]

    @contextmanager
    def cleared(self) -> Iterator[Place]:
        """Leave no process behind."""
        try:
            yield self
        finally:
            for host in self.hosts:
                host.process.kill()
                host.process.wait()

    def homes(self) -> dict[str, int]:
        """Say how many sessions each host is the home of, as the server has it."""
        keys = [f"meerkat:home:{name}" for name in self.sessions]
        return dict(Counter(line.split()[0] for line in self.server.cli("MGET", *keys).splitlines() if line))

    async def until(self, holds: Callable[[], object], seconds: float = _PATIENCE) -> None:
        """Wait until something holds of files, or of a server, which are looked at again and again."""
        with trio.fail_after(seconds):
            while not holds():
                await trio.sleep(0.02)

    def losses(self) -> Counter[tuple[int, str]]:
        """Count by process and session the leases that a living host has lost: it stood still, or the server did."""
        return Counter((host.pid, session) for host in self.hosts for session in _LOST.findall(host.log))

    # --- the ledger ---------------------------------------------------------------------------------

    def lines(self) -> list[list[str]]:
        if not self.ledger.exists():
            return []
        return [line.split(" ", 4) for line in self.ledger.read_text().splitlines()]

    def handled(self) -> list[Handled]:
        """Return every run of a handler, in the order in which they began."""
        runs: list[Handled] = []
        open_runs: dict[tuple[str, str], int] = {}
        for what, pid, when, *about in self.lines():
            if what == "begin":
                open_runs[pid, about[0]] = len(runs)
                runs.append(Handled(pid=int(pid), session=about[0], message=about[1], begun=int(when), ended=None))
            elif what == "end":
                place = open_runs.pop((pid, about[0]))
                assert runs[place].message == about[1]
                runs[place] = attrs.evolve(runs[place], ended=int(when))
        return sorted(runs, key=lambda run: run.begun)

    def deaths(self) -> Counter[str]:
        """Count the stages at which hosts have killed themselves."""
        return Counter(" ".join(about) for what, _, _, *about in self.lines() if what == "died")

    def done(self) -> int:
        """Count the runs that have ended."""
        return 0 if not self.ledger.exists() else self.ledger.read_bytes().count(b"\nend ")


@attrs.define
class Judgement:
    """What the ledger says about the promise."""

    excused: set[int]
    """The processes that were killed or stopped."""
    losses: Counter[tuple[int, str]]
    """How often which process has lost the lease of which session."""
    lost: set[tuple[str, str]] = attrs.Factory(set)
    """Admitted and never done."""
    doubles: int = 0
    """Messages that were begun again by right."""
    wrongs: list[str] = attrs.Factory(list)
    """What must not be."""

    def judge(self, runs: Iterable[Handled], admitted: Iterable[tuple[str, str]]) -> Judgement:
        by_session: defaultdict[str, list[Handled]] = defaultdict(list)
        for run in runs:
            by_session[run.session].append(run)
        done = {(run.session, run.message) for of in by_session.values() for run in of if run.ended is not None}
        self.lost = set(admitted) - done
        for of_session in by_session.values():
            self._judge_repetitions(of_session)
            self._judge_order(of_session)
            self._judge_overlaps(of_session)
        return self

    def _judge_repetitions(self, runs: list[Handled]) -> None:
        """See that only what a host had begun last that died is begun again, once for each death or loss."""
        previous: dict[str, Handled] = {}
        last_of: dict[int, Handled] = {}
        doubles = 0
        for run in runs:
            before = previous.get(run.message)
            if before is not None:
                doubles += 1
                if not (self._is_excused(before) or self._is_excused(run)):
                    self.wrongs.append(f"begun again though its host lived: {before} {run}")
                elif not self._has_lost(before) and not self._has_lost(run) and last_of[before.pid] is not before:
                    self.wrongs.append(f"begun again though its host had begun another: {before} {run}")
            previous[run.message] = last_of[run.pid] = run
        chances = len(self.excused) + sum(self.losses[pid, runs[0].session] for pid in {run.pid for run in runs})
        if doubles > chances:
            self.wrongs.append(f"{doubles} begun again, after {chances} deaths and losses")
        self.doubles += doubles

    def _has_lost(self, run: Handled) -> bool:
        return (run.pid, run.session) in self.losses

    def _is_excused(self, run: Handled) -> bool:
        return run.pid in self.excused or self._has_lost(run)

    def _judge_order(self, runs: list[Handled]) -> None:
        last: dict[str, int] = {}
        for run in runs:
            sender, number = run.message.split()
            if int(number) < last.get(sender, -1):
                self.wrongs.append(f"out of order, after {last.get(sender)}: {run}")
            last[sender] = max(int(number), last.get(sender, -1))

    def _judge_overlaps(self, runs: list[Handled]) -> None:
        before: Handled | None = None
        for run in runs:
            if self._is_excused(run):
                continue
            if before is not None and (before.ended is None or before.ended > run.begun):
                self.wrongs.append(f"two at once: {before} {run}")
            before = run


class Traffic:
    """What is sent to all sessions, in order, and the receipts."""

    def __init__(self, place: Place, messages: int | None = None) -> None:
        self._place = place
        ways = len(SENDERS) * len(place.sessions)
        self._each = None if messages is None else -(-messages // ways)
        self.receipts: list[tuple[str, str, Receipt]] = []
        self.is_over = False

    def end(self) -> None:
        """Send no more of what has no end."""
        self._each = 0

    async def run(self, start: int = 0) -> None:
        """Send everything, the numbers from ``start`` on, and wait for every receipt."""
        async with RedisNetwork(self._place.server.url, limits=LIMITS) as network:
            async with trio.open_nursery() as nursery:
                for sender in SENDERS:
                    comms = await network.open(
                        identity(sender),
                        runtime_id=sender,
                        trusted=[
                            identity(f"key {name}").endpoint(name, f"inproc://{name}") for name in self._place.sessions
                        ],
                    )
                    for name in self._place.sessions:
                        nursery.start_soon(self._send, comms, sender, name, start)
            for _, _, receipt in self.receipts:
                await receipt.wait()

    async def _send(self, comms: RedisComms, sender: str, name: str, number: int) -> None:
        recipient = identity(f"key {name}").peer_id
        while self._each is None or number < self._each:
            body = f"{sender} {number}"
            self.receipts.append((name, body, await comms.send(comms.envelope(recipient, body))))
            number += 1

    def admitted(self) -> set[tuple[str, str]]:
        return {(name, body) for name, body, receipt in self.receipts if receipt.status is ReceiptStatus.ADMITTED}

    def statuses(self) -> Counter[str]:
        """Count what became of what was sent."""
        return Counter(
            receipt.status.value if receipt.reason is None else receipt.reason.value for _, _, receipt in self.receipts
        )

    async def all_done(self) -> None:
        """Wait until everything that was admitted is done."""
        await self._place.until(lambda: not self._left())

    def _left(self) -> set[tuple[str, str]]:
        runs = self._place.handled()
        return self.admitted() - {(run.session, run.message) for run in runs if run.ended is not None}

    async def judge(self) -> Judgement:
        """Wait until everything that was admitted is done, as far as it will be, and judge."""
        place = self._place
        with trio.move_on_after(20):
            while self._left():
                await trio.sleep(0.1)
        await place.send_home()
        judged = Judgement(place.excused, place.losses()).judge(place.handled(), self.admitted())
        refused = {(name, body) for name, body, receipt in self.receipts if receipt.status is ReceiptStatus.DROPPED}
        judged.wrongs += [
            f"refused, and handled: {run}" for run in place.handled() if (run.session, run.message) in refused
        ]
        return judged
