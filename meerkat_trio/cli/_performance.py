"""The demo's run: sessions, senders, handlers, faults; writes the ledger and audits it afterwards."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio
from attrs import asdict, field, frozen

from .._machine import open_machine
from .._policy import Backoff, RespawnPolicy
from ._demo_plan import KINDS, HandlerFault, Plan, draw_plan
from ._demo_run import QUIET_LIMIT, host_all, run_stage, wait_until_stuck
from ._demo_transport import TRANSPORTS
from ._faults import Chaos, Flow
from ._ledger import Account, audit, stalls
from ._scribe import Scribe

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._machine import MeerkatMachine
    from .._messages import Envelope, Receipt
    from .._session import Session, SessionRun
    from ..authority import PeerId
    from ._demo_input import InputLine
    from ._demo_transport import Lines, SenderComms
    from ._ledger import Ledger

__all__ = ["Outcome", "SessionOutcome", "Show", "Traffic", "perform"]

_WORK_QUEUE: Final = 8  # small, so that the work lane is shut often
_NO_FAULT: Final = HandlerFault()


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
    transport: str = "memory"
    """What the messages go over: a key of `TRANSPORTS`."""
    ledger: Ledger
    """Where handled messages are written down; closed when it was audited."""
    on_progress: Callable[[int], None] = field(default=lambda _: None)
    """Told how many messages were handled so far."""


@frozen(kw_only=True)
class SessionOutcome:
    """What became of one session."""

    account: Account
    """What the ledger says."""
    rebinds: int
    """Times its drain was seen to have moved to another transport."""
    restarts: int
    """Times its drain was seen to be started again, by policy or by an attach."""
    longest_stall: float
    """Longest time in which it handled nothing, up to its last message, in seconds."""


@frozen(kw_only=True)
class Outcome:
    """What became of the run."""

    sessions: dict[str, SessionOutcome]
    """By session."""
    planned: int
    """Messages that were to be sent."""
    faults: dict[str, int]
    """How often each kind of fault happened."""
    demanded: tuple[str, ...]
    """The kinds that had to happen."""
    stuck: bool
    """Whether the run was given up because nothing happened any more."""

    @property
    def account(self) -> Account:
        """The sum of all accounts."""
        return sum((session.account for session in self.sessions.values()), Account())

    @property
    def missing(self) -> tuple[str, ...]:
        """Kinds of fault that had to happen and did not."""
        return tuple(kind for kind in self.demanded if not self.faults[kind])

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the run did not do what the demo promises, each reason in words; empty if it did."""
        account = self.account
        wrong = {"lost": account.lost, "doubled": account.duplicated, "reordered": account.reordered}
        unsent = self.planned - account.sent
        reasons = {
            "the ledger does not balance: " + ", ".join(f"{n} {what}" for what, n in wrong.items() if n): any(
                wrong.values()
            ),
            f"{account.abandoned} abandoned": account.abandoned,
            f"faults that did not happen: {', '.join(self.missing)}": self.missing,
            f"given up, for nothing happened for {QUIET_LIMIT:.0f} s": self.stuck,
            f"{unsent} planned but never sent": unsent,
        }
        return tuple(reason for reason, applies in reasons.items() if applies)

    @property
    def succeeded(self) -> bool:
        """Whether everything was sent and handled exactly once and in order, and every demanded fault happened."""
        return not self.failures

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
    """Run the demo, in a Trio run of its own.

    Raises:
        KeyboardInterrupt: alone or in a group; the ledger holds what was handled until then.
        LedgerError: the ledger could not be written or read back.
    """
    try:
        stage = _Stage(show)
        run_stage(stage.run, virtual=show.virtual, seed=show.seed)
        return stage.outcome()
    finally:
        show.ledger.close()


@final
class _Stage:
    def __init__(self, show: Show) -> None:
        self._show = show
        # All of them before anything runs: drawing takes seconds for millions of messages, and awaits nothing.
        self._plans = {session_id: self._plan(session_id, of) for session_id, of in show.traffic.bodies.items()}
        self._scope = trio.CancelScope()
        self._faults: Counter[str] = Counter()
        self._sent: Counter[tuple[str, str]] = Counter()
        self._scribe = Scribe(show.ledger, self._faults, self._scope, show.on_progress)
        self._stuck = False
        self._actors: dict[str, _Actors] = {}

    async def run(self) -> None:
        """Be the main task of the demo's Trio run."""
        self._scribe.begin()
        ids = itertools.count()
        jitter = random.Random(self._show.seed)  # noqa: S311 - faults, no secrets
        respawn = RespawnPolicy(max_restarts=1000, backoff=Backoff(first=0.001, limit=0.01))
        async with open_machine(respawn=respawn, random=jitter.random, new_id=lambda: str(next(ids))) as machine:
            hosts = [partial(self._host, machine, *of) for of in self._show.traffic.bodies.items()]
            await host_all(hosts, watch=self._give_up_if_stuck, scope=self._scope)

    async def _give_up_if_stuck(self) -> None:
        await wait_until_stuck(lambda: self._scribe.handled + self._sent.total() + self._faults.total())
        self._stuck = True
        self._scope.cancel()

    async def _host(self, machine: MeerkatMachine, session_id: str, streams: dict[str, list[object]]) -> None:
        # Lines for each session: no name of the input can be taken for another's.
        async with TRANSPORTS[self._show.transport]() as lines:
            await self._host_on(lines, machine, session_id, streams)

    async def _host_on(
        self, lines: Lines, machine: MeerkatMachine, session_id: str, streams: dict[str, list[object]]
    ) -> None:
        plan = self._plans[session_id]
        senders = {name: await lines.sender(n) for n, name in enumerate(streams)}
        names = {comms.peer_id: name for name, comms in senders.items()}

        async def handler(run: SessionRun) -> None:
            await self._handle(run, names[run.message.sender], plan)

        session = await machine.register(
            session_id,
            handler,
            work_queue=_WORK_QUEUE,
            # So many that none is forgotten: the audit asks which they are.
            abandoned_limit=sum(len(bodies) for bodies in streams.values()),
            retry_backoff=Backoff(first=0.001, limit=0.01),
        )
        chaos = Chaos(session, lines, senders.values(), self._faults)
        self._actors[session_id] = _Actors(session, chaos, names)
        await chaos.attach_fresh()
        flow = Flow(plan.moves)
        receipts: list[Receipt] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chaos.run, plan.moves, flow)
            for name, bodies in streams.items():
                send = _Sending(self._sent, session_id, name, senders[name], chaos, flow, receipts, plan)
                nursery.start_soon(send.run, bodies)
        for receipt in receipts:
            await receipt.wait()
        await session.retire()

    def _plan(self, session_id: str, streams: dict[str, list[object]]) -> Plan:
        if not self._show.faults:
            return Plan.of_nothing()
        # Dice of its own, thrown before anything runs: the plan depends on the seed alone.
        dice = random.Random(f"{self._show.seed} {session_id}")  # noqa: S311 - faults, no secrets
        return draw_plan(dice, {name: len(bodies) for name, bodies in streams.items()})

    async def _handle(self, run: SessionRun, sender: str, plan: Plan) -> None:
        number, body = run.message.body
        fault = plan.handler.get((sender, number), _NO_FAULT)
        await self._scribe.handle(run, sender, number, body, fault)

    def outcome(self) -> Outcome:
        """Audit the ledger.

        Raises:
            LedgerError: it could not be written, or cannot be read back.
        """
        self._scribe.require_written()
        ledger = self._show.ledger
        accounts = audit(ledger.entries(), self._sent, self._abandoned())
        longest = stalls(ledger.entries())
        # In the order of the traffic, for the tasks that registered them ran in any; then what only the file knows.
        names = [name for name in self._show.traffic.bodies if name in self._actors]
        names += sorted(accounts.keys() - self._actors.keys())
        return Outcome(
            sessions={
                name: SessionOutcome(
                    account=accounts.get(name, Account()),
                    rebinds=self._actors[name].chaos.rebinds if name in self._actors else 0,
                    restarts=self._actors[name].chaos.restarts if name in self._actors else 0,
                    longest_stall=round(longest.get(name, 0.0), 6),
                )
                for name in names
            },
            planned=len(self._show.traffic),
            faults={kind: self._faults[kind] for kind in KINDS},
            demanded=KINDS if self._show.faults else (),
            stuck=self._stuck,
        )

    def _abandoned(self) -> dict[tuple[str, str], set[int]]:
        numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
        for session_id, actors in self._actors.items():
            for each in actors.session.abandoned:
                number, _ = each.message.body
                numbers[session_id, actors.names[each.message.sender]].add(number)
        return numbers


@final
@frozen
class _Actors:
    """Who plays one session."""

    session: Session
    chaos: Chaos
    names: dict[PeerId, str]
    """The senders' names, by peer."""


@final
@frozen
class _Sending:
    """One sender of one session."""

    sent: Counter[tuple[str, str]]
    session_id: str
    name: str
    comms: SenderComms
    chaos: Chaos
    flow: Flow
    receipts: list[Receipt]
    plan: Plan

    async def run(self, bodies: list[object]) -> None:
        """Send everything in order."""
        recipient = self.chaos.peer_id
        for number, body in enumerate(bodies):
            await self.flow.wait_allowed()
            envelope = self.comms.envelope(recipient, (number, body))
            receipt = None
            patience = self.plan.sends.get((self.name, number))
            if patience is not None:
                receipt = await self._send_cut(envelope, patience)
                if receipt is None and number % 2:
                    # It was not sent. Its own id has to be good again; under a new one a double could not hide.
                    envelope = self.comms.envelope(recipient, (number, body))
            if receipt is None:
                receipt = await self.comms.send(envelope)
            self.receipts.append(receipt)
            self.sent[self.session_id, self.name] += 1
            self.flow.count_one()

    async def _send_cut(self, envelope: Envelope, patience: int) -> Receipt | None:
        """Send and be cancelled meanwhile; None if it was not sent."""
        receipts: list[Receipt] = []

        async def send() -> None:
            receipts.append(await self.comms.send(envelope))

        await self.chaos.cancel_in_the_middle("cancelled_sends", send, patience)
        return receipts[0] if receipts else None
