"""The demo's run: sessions, senders, handlers, faults; writes the ledger and audits it afterwards."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, final

import trio
import trio.testing
from attrs import asdict, field, frozen

from .._machine import open_machine
from .._messages import ReceiptStatus
from .._policy import Backoff, RespawnPolicy
from ..comms import MemoryComms, MemoryNetwork
from ..testing._trio_internals import controlled_schedule
from ._faults import KINDS, Chaos
from ._ledger import Account, Ledger, audit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .._machine import MeerkatMachine
    from .._session import Session, SessionRun
    from ._ledger import InputLine

__all__ = ["Outcome", "SessionOutcome", "Show", "Traffic", "perform"]

_HANDLER_FAULT_SHARE: Final = 0.03


@frozen(kw_only=True)
class Traffic:
    """What is sent: for each session and sender, the bodies in their order."""

    bodies: dict[str, dict[str, list[object]]]
    """By session, then by sender."""

    @classmethod
    def made_up(cls, sessions: int, messages: int, senders: int) -> Traffic:
        """Make up ``messages`` for each session, spread over its senders."""
        bodies: dict[str, dict[str, list[object]]] = {}
        for session in range(sessions):
            streams: dict[str, list[object]] = {f"sender-{number}": [] for number in range(min(senders, messages))}
            for number, sender in zip(range(messages), itertools.cycle(streams), strict=False):
                streams[sender].append(f"message {number}")
            bodies[f"session-{session}"] = streams
        return cls(bodies=bodies)

    @classmethod
    def of_lines(cls, lines: list[InputLine]) -> Traffic:
        """Take the messages of an input."""
        bodies: dict[str, dict[str, list[object]]] = defaultdict(lambda: defaultdict(list))
        for line in lines:
            bodies[line.session][line.sender].append(line.body)
        return cls(bodies={session: dict(streams) for session, streams in bodies.items()})

    def __len__(self) -> int:
        return sum(len(bodies) for streams in self.bodies.values() for bodies in streams.values())


@frozen(kw_only=True)
class Show:
    """How the demo is run."""

    traffic: Traffic
    """What is sent."""
    seed: int
    """Decides the faults, and with ``virtual`` the schedule."""
    faults: bool
    """Whether anything goes wrong."""
    virtual: bool
    """Whether time is virtual and the schedule controlled."""
    ledger: Path
    """Where handled messages are written down."""
    on_progress: Callable[[int], None] = field(default=lambda _: None)
    """Told how many messages were handled so far."""


@frozen(kw_only=True)
class SessionOutcome:
    """What became of one session."""

    account: Account
    """What the ledger says."""
    rebinds: int
    """Times its drain moved to another transport."""
    restarts: int
    """Times its failed drain was started again by policy."""
    longest_stall: float
    """Longest time between two handled messages, in seconds."""


@frozen(kw_only=True)
class Outcome:
    """What became of the run."""

    sessions: dict[str, SessionOutcome]
    """By session."""
    faults: dict[str, int]
    """How often each kind of fault happened."""
    demanded: tuple[str, ...]
    """The kinds that had to happen."""

    @property
    def account(self) -> Account:
        """The sum of all accounts."""
        return sum((session.account for session in self.sessions.values()), Account())

    @property
    def missing(self) -> tuple[str, ...]:
        """Kinds of fault that had to happen and did not."""
        return tuple(kind for kind in self.demanded if not self.faults[kind])

    @property
    def succeeded(self) -> bool:
        """Whether the ledger balances and every demanded fault happened."""
        return self.account.balances and not self.missing

    def total(self) -> dict[str, Any]:
        """Return the totals as plain data."""
        sessions = self.sessions.values()
        return {
            **asdict(self.account),
            "rebinds": sum(session.rebinds for session in sessions),
            "restarts": sum(session.restarts for session in sessions),
            "longest_stall": round(max((session.longest_stall for session in sessions), default=0.0), 6),
        }


def perform(show: Show) -> Outcome:
    """Run the demo, in a Trio run of its own."""
    stage = _Stage(show)
    if not show.virtual:
        trio.run(stage.run)
    else:
        with controlled_schedule(random.Random(show.seed)):  # noqa: S311 - faults, no secrets
            trio.run(stage.run, clock=trio.testing.MockClock(autojump_threshold=0))
    return stage.outcome()


@final
class _Stage:
    def __init__(self, show: Show) -> None:
        self._show = show
        self._ledger = Ledger(show.ledger)
        self._dice = random.Random(show.seed)  # noqa: S311 - faults, no secrets
        self._faults: Counter[str] = Counter()
        self._failed_once: set[tuple[str, str, int]] = set()
        self._handled = 0
        self._last: dict[str, float] = {}
        self._stall: dict[str, float] = defaultdict(float)
        self._sessions: list[Session] = []

    async def run(self) -> None:
        """Be the main task of the demo's Trio run."""
        ids = (str(number) for number in itertools.count())
        respawn = RespawnPolicy(max_restarts=1000, backoff=Backoff(first=0.001, limit=0.01))
        try:
            async with (
                open_machine(respawn=respawn, random=self._dice.random, new_id=lambda: next(ids)) as machine,
                trio.open_nursery() as nursery,
            ):
                for session_id, streams in self._show.traffic.bodies.items():
                    nursery.start_soon(self._host, machine, session_id, streams, random.Random(self._dice.random()))  # noqa: S311
        finally:
            self._ledger.close()

    async def _host(
        self, machine: MeerkatMachine, session_id: str, streams: dict[str, list[object]], dice: random.Random
    ) -> None:
        network = MemoryNetwork()
        senders = {name: MemoryComms(network, f"from-{name}") for name in streams}
        names = {comms.peer_id: name for name, comms in senders.items()}

        async def handler(run: SessionRun) -> None:
            number, body = run.message.body
            await self._handle(session_id, names[run.message.sender], number, body, dice)

        session = await machine.register(session_id, handler, retry_backoff=Backoff(first=0.001, limit=0.01))
        self._sessions.append(session)
        chaos = Chaos(session, network, senders.values(), self._faults, dice)
        await chaos.attach_fresh()
        traffic_is_over = trio.Event()
        async with trio.open_nursery() as nursery:
            if self._show.faults:
                nursery.start_soon(chaos.run, traffic_is_over)
            else:
                chaos.over.set()
            async with trio.open_nursery() as sending:
                for name, bodies in streams.items():
                    sending.start_soon(self._send_all, senders[name], session_id, bodies, chaos, dice)
            traffic_is_over.set()
        await session.retire()

    async def _send_all(
        self, sender: MemoryComms, session_id: str, bodies: list[object], chaos: Chaos, dice: random.Random
    ) -> None:
        recipient = MemoryComms(MemoryNetwork(), session_id).peer_id
        for number, body in enumerate(bodies):
            if number == len(bodies) - 1:
                # The last message comes after the faults, so that a transport about to break has something to break on.
                await chaos.over.wait()
            envelope = sender.envelope(recipient, (number, body), id=str(number))
            while True:
                if self._show.faults and dice.random() < _HANDLER_FAULT_SHARE:
                    accepted: list[Any] = []

                    async def send(envelope: Any = envelope, accepted: list[Any] = accepted) -> None:
                        accepted.append(await sender.send(envelope))

                    await chaos.cancel_in_the_middle(send)
                    if not accepted:
                        continue
                    receipt = accepted[0]
                else:
                    receipt = await sender.send(envelope)
                if number < len(bodies) - 1 and receipt.status is not ReceiptStatus.DROPPED:
                    break
                if await receipt.wait() is ReceiptStatus.ADMITTED:
                    break

    async def _handle(self, session: str, sender: str, number: int, body: object, dice: random.Random) -> None:
        if self._show.faults:
            await self._go_wrong(session, sender, number, dice)
        now = trio.current_time()
        self._stall[session] = max(self._stall[session], now - self._last.get(session, now))
        self._last[session] = now
        self._handled += 1
        self._show.on_progress(self._handled)
        # Nothing is awaited from here to the return: what is written down counts as handled.
        self._ledger.append(session, sender, number, body)

    async def _go_wrong(self, session: str, sender: str, number: int, dice: random.Random) -> None:
        message = (session, sender, number)
        if message not in self._failed_once and (number == 0 or dice.random() < _HANDLER_FAULT_SHARE):
            self._failed_once.add(message)
            self._faults["handler_failures"] += 1
            raise ValueError(f"{sender}'s message {number} fails once")
        if number == 0 or dice.random() < _HANDLER_FAULT_SHARE:
            self._faults["handler_delays"] += 1
            await trio.sleep(dice.uniform(0.0, 0.02))

    def outcome(self) -> Outcome:
        """Audit the ledger."""
        sent = {
            (session, sender): len(bodies)
            for session, streams in self._show.traffic.bodies.items()
            for sender, bodies in streams.items()
        }
        abandoned = {session.id: len(session.abandoned) for session in self._sessions}
        accounts = audit(self._show.ledger, sent, abandoned)
        statistics = {session.id: session.statistics() for session in self._sessions}
        self._faults["rebinds"] = sum(each.rebinds for each in statistics.values())
        self._faults["respawns"] = sum(each.respawns for each in statistics.values())
        return Outcome(
            sessions={
                session: SessionOutcome(
                    account=accounts.get(session, Account()),
                    rebinds=statistics[session].rebinds,
                    restarts=statistics[session].respawns,
                    longest_stall=self._stall[session],
                )
                for session in self._show.traffic.bodies
            },
            faults={kind: self._faults[kind] for kind in KINDS},
            demanded=KINDS if self._show.faults else (),
        )
