"""The supervised demo's run: mobs, supervisors, traffic, faults; writes the ledger and audits it afterwards."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio
from attrs import field, frozen

from .._machine import open_machine
from .._messages import ReceiptStatus, TrustSource
from .._policy import Backoff
from ..authority import Bound
from ..comms import MemoryNetwork
from ._demo_plan import HandlerFault, Plan
from ._demo_run import host_all, run_stage, wait_until_stuck
from ._faults import Flow
from ._ledger import Account, audit, stalls
from ._mob_cast import Cast, Member, Tally
from ._mob_moves import MobChaos, make_bystander
from ._mob_outcome import MemberOutcome, MobOutcome, doubly_accounted
from ._mob_plan import CAUSES, DESTROYED_LAST, FAULTS, REPAIRS, draw_mob_plan, mobs_of
from ._mob_supervising import Supervising
from ._mob_traffic import Delivering, Talking
from ._scribe import Scribe

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._machine import MeerkatMachine
    from .._session import SessionRun
    from ._ledger import Ledger
    from ._mob_plan import Streams

__all__ = ["MobShow", "perform_mobs"]

_WORK_QUEUE: Final = 8  # small, so that the work lane is shut often
_MOST_ATTEMPTS: Final = 100  # an interruption counts as one
_NO_FAULT: Final = HandlerFault()
_LINGERING: Final = HandlerFault(delay=0.1)
"""The last inputs of a member that is to be destroyed: it does not get through them."""
_GLANCE: Final = 0.005
_UNTIL_AGREED: Final = 10.0
"""Seconds in which authority and trust store have to come to agree, once nothing fails any more."""
_OWN_SOURCES: Final = {TrustSource.DIRECT, TrustSource.SUPERVISOR, TrustSource.OVERLAY}


@frozen(kw_only=True)
class MobShow:
    """How the supervised demo is run."""

    sessions: int
    """Members, of all mobs together; 2 or more."""
    messages: int
    """For each member."""
    seed: int
    """Decides the faults, and with ``virtual`` the schedule."""
    faults: bool
    """Whether anything goes wrong."""
    virtual: bool
    """Whether time is virtual and the schedule controlled."""
    ledger: Ledger
    """Where handled messages are written down; closed when it was audited."""
    on_progress: Callable[[int], None] = field(default=lambda _: None)
    """Told how many messages were handled so far."""


def perform_mobs(show: MobShow) -> MobOutcome:
    """Run the supervised demo, in a Trio run of its own.

    Raises:
        KeyboardInterrupt: alone or in a group; the ledger holds what was handled until then.
        LedgerError: the ledger could not be written or read back.
    """
    try:
        stage = _MobStage(show)
        run_stage(stage.run, virtual=show.virtual, seed=show.seed)
        return stage.outcome()
    finally:
        show.ledger.close()


@final
class _MobStage:
    def __init__(self, show: MobShow) -> None:
        self._show = show
        self._mobs = mobs_of(show.sessions)
        self._streams: Streams = {"supervisors": show.messages - show.messages // 2, "peer": show.messages // 2}
        # All of them before anything runs, each by dice of its own: a plan depends on the seed alone.
        self._plans = [self._plan(number) for number in range(show.sessions)]
        self._scope = trio.CancelScope()
        self._tally = Tally()
        self._scribe = Scribe(show.ledger, self._tally.faults, self._scope, show.on_progress)
        self._members: dict[str, Member] = {}
        self._disagreeing: set[str] = set()
        self._stuck = False

    def _plan(self, number: int) -> Plan:
        if not self._show.faults:
            return Plan.of_nothing()
        dice = random.Random(f"{self._show.seed} member-{number}")  # noqa: S311 - faults, no secrets
        return draw_mob_plan(dice, self._streams)

    async def run(self) -> None:
        """Be the main task of the demo's Trio run."""
        self._scribe.begin()
        ids, tokens = itertools.count(), itertools.count()
        jitter = random.Random(self._show.seed)  # noqa: S311 - faults, no secrets
        async with open_machine(
            random=jitter.random, new_id=lambda: str(next(ids)), new_token=lambda: f"token-{next(tokens)}"
        ) as machine:
            hosts = [partial(self._host, machine, *of) for of in enumerate(self._mobs)]
            await host_all(hosts, watch=self._give_up_if_stuck, scope=self._scope)

    async def _give_up_if_stuck(self) -> None:
        await wait_until_stuck(lambda: self._scribe.handled + self._tally.progress())
        self._stuck = True
        self._scope.cancel()

    # --- one mob ------------------------------------------------------------------------------------

    async def _host(self, machine: MeerkatMachine, number: int, numbers: range) -> None:
        cast = Cast(MemoryNetwork(), self._tally, faulty=self._show.faults)
        await cast.hire(machine, number)
        for each in numbers:
            await self._register(machine, cast, each, destroyed=each == numbers[-1])
        roles = {member.name: Supervising(cast, member) for member in cast.members}
        ring = list(zip(cast.members, [*cast.members[1:], cast.members[0]], strict=True))
        async with trio.open_nursery() as nursery:
            for member in cast.members:
                nursery.start_soon(roles[member.name].bind, cast["supervisor-a"])
        for sender, receiver in ring:
            receiver.senders[sender.peer_id] = sender.name
            for member, peer in ((sender, receiver), (receiver, sender)):
                if peer.peer_id not in member.wired:
                    await roles[member.name].wire(peer.comms.endpoint(), check=False)
        talks = []
        async with trio.open_nursery() as nursery:
            for sender, receiver in ring:
                flow = Flow(receiver.plan.moves)
                talk = Talking(cast, sender, receiver)
                talks.append(talk)
                nursery.start_soon(talk.run, flow)
                nursery.start_soon(self._supervise, cast, receiver, roles[receiver.name], flow)
        for talk in talks:
            await talk.check()
        async with trio.open_nursery() as nursery:
            for member in cast.members:
                if not member.destroyed:
                    nursery.start_soon(roles[member.name].retire, make_bystander("latecomer"))
        async with trio.open_nursery() as nursery:
            for member in cast.members:
                nursery.start_soon(self._check_trust, member)

    async def _register(self, machine: MeerkatMachine, cast: Cast, number: int, *, destroyed: bool) -> None:
        name = f"member-{number}"
        streams = dict(self._streams)
        if destroyed:
            streams["supervisors"] += DESTROYED_LAST

        async def handler(run: SessionRun) -> None:
            sender = member.senders[run.message.sender]
            count, index = run.message.body
            stream = "supervisors" if sender.startswith("supervisor") else "peer"
            lingers = self._show.faults and member.destroyed and index >= self._streams[stream]
            fault = _LINGERING if lingers else member.plan.handler.get((stream, index), _NO_FAULT)
            await self._scribe.handle(run, sender, count, f"{stream} {index}", fault)

        session = await machine.register(
            name,
            handler,
            work_queue=_WORK_QUEUE,
            max_attempts=_MOST_ATTEMPTS,
            abandoned_limit=sum(streams.values()),
            retry_backoff=Backoff(first=0.001, limit=0.01),
        )
        member = self._members[name] = Member(name, session, self._plans[number], streams, destroyed=destroyed)
        await member.attach(MobChaos(cast, member, Supervising(cast, member)).build())
        await cast.meet(member)

    async def _supervise(self, cast: Cast, member: Member, role: Supervising, flow: Flow) -> None:
        faults_are_over = trio.Event()

        async def go_wrong() -> None:
            await MobChaos(cast, member, role).run(flow)
            faults_are_over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_wrong)
            nursery.start_soon(Delivering(cast, member, role).run, flow, faults_are_over)
        if member.destroyed:
            await role.destroy()

    async def _check_trust(self, member: Member) -> None:
        """See whether authority, trust store and the supervisors' own books come to agree."""
        member.comms.heal()
        with trio.move_on_after(_UNTIL_AGREED):
            # An edge that was refused a moment ago is still to be tried again.
            while not await _agree(member):  # noqa: ASYNC110 - the reconciler tells nobody
                await trio.sleep(_GLANCE)
            return
        self._disagreeing.add(member.name)

    # --- afterwards ---------------------------------------------------------------------------------

    def outcome(self) -> MobOutcome:
        """Audit the ledger.

        Raises:
            LedgerError: it could not be written, or cannot be read back.
        """
        self._scribe.require_written()
        ledger, tally = self._show.ledger, self._tally
        given_up = self._given_up()
        accounts = audit(ledger.entries(), self._sent(), given_up)
        longest = stalls(ledger.entries())
        names = [name for mob in self._mobs for name in (f"member-{number}" for number in mob) if name in self._members]
        names += sorted(accounts.keys() - self._members.keys())
        return MobOutcome(
            members={name: self._member_outcome(name, accounts, longest) for name in names},
            doubly_accounted=doubly_accounted(ledger.entries(), given_up),
            accepted=dict(sorted(tally.accepted.items())),
            rejected={cause: tally.rejected[cause] for cause in CAUSES},
            dropped=dict(sorted(tally.dropped.items())),
            repaired={kind: tally.repaired[kind] for kind in REPAIRS},
            faults={kind: tally.faults[kind] for kind in FAULTS},
            demanded=self._show.faults,
            disagreeing=tuple(name for name in names if name in self._disagreeing),
            surprises=tuple(tally.surprises),
            stuck=self._stuck,
        )

    def _member_outcome(self, name: str, accounts: dict[str, Account], longest: dict[str, float]) -> MemberOutcome:
        member = self._members.get(name)
        return MemberOutcome(
            account=accounts.get(name, Account()),
            planned=0 if member is None else sum(member.streams.values()) - member.spared,
            destroyed=member is not None and member.destroyed,
            rebinds=0 if member is None else member.rebinds,
            longest_stall=round(longest.get(name, 0.0), 6),
        )

    def _sent(self) -> dict[tuple[str, str], int]:
        """Return how much was accepted: inputs by the answers, messages by their receipts."""
        sent: dict[tuple[str, str], int] = {}
        for name, member in self._members.items():
            sent |= {(name, supervisor): count for supervisor, count in member.delivered.items()}
            for sender, receipts in member.receipts.items():
                sent[name, sender] = sum(receipt.status is not ReceiptStatus.DROPPED for receipt in receipts)
        return sent

    def _given_up(self) -> dict[tuple[str, str], set[int]]:
        """Return the numbers of what was not handled: named by the end of a session, or abandoned by a living one."""
        numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
        for name, member in self._members.items():
            end = member.session.end
            unhandled = [each.message for each in member.session.abandoned] if end is None else end.unfinished
            for message in unhandled:
                numbers[name, member.senders[message.sender]].add(message.body[0])
        return numbers


async def _agree(member: Member) -> bool:
    session, stored = member.session, await member.comms.trusted_peers()
    edges = {edge for edge in stored if edge[1] in _OWN_SOURCES}
    if member.destroyed:
        return session.end is not None and not session.end.edges_left and not edges
    bond, bound = member.require_bond(), session.supervisor
    boss = bond.boss.comms.peer_id
    return (
        isinstance(bound, Bound)
        and (bound.peer_id, bound.epoch) == (boss, bond.epoch)
        and {each.peer_id for each in session.peers} == {boss, *member.wired}
        and edges == {(boss, TrustSource.SUPERVISOR), *((peer_id, TrustSource.DIRECT) for peer_id in member.wired)}
        and all(
            stored[peer.peer_id, source] == peer
            for peer in session.peers
            for source in _OWN_SOURCES
            if (peer.peer_id, source) in edges
        )
    )
