"""Who plays in the supervised demo: supervisors, strangers and members, and the tally of what they were answered."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio
from attrs import Factory, define, frozen

from .._bridge import AuthorizeNextSupervisor, BindMember, BridgeCommand
from .._exceptions import CommandRejected, RejectionCause, RequestDropped, RequestFailed
from ..authority import BRIDGE_INTENT, DropReason
from ..comms import MemoryComms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .._machine import MeerkatMachine
    from .._messages import Receipt
    from .._reports import IngressResult
    from .._session import Session
    from ..authority import PeerId
    from ..comms import MemoryNetwork
    from ._demo_plan import Plan
    from ._mob_plan import Streams
    from ._mob_transport import FaultyComms

__all__ = ["Actor", "Answer", "Bond", "Cast", "Member", "Tally"]

_SUPERVISORS_LANE: Final = 2  # small, so that replies wait often

Answer: TypeAlias = "dict[str, Any] | RejectionCause | DropReason | None"
"""What a command was answered, why it was rejected, or why it was never let in (None if nobody said)."""


@final
@define
class Tally:
    """What was seen to happen."""

    accepted: Counter[str] = Factory(Counter)
    """Commands that were carried out, by name."""
    rejected: Counter[str] = Factory(Counter)
    """Commands that were rejected, by cause."""
    dropped: Counter[str] = Factory(Counter)
    """Commands that were never let in, by reason."""
    repaired: Counter[str] = Factory(Counter)
    """Repairs, by kind."""
    faults: Counter[str] = Factory(Counter)
    """Faults, by kind."""
    surprises: list[str] = Factory(list)
    """Answers that were other than they have to be, in words."""

    def progress(self) -> int:
        """Return a number that changes whenever something goes on; to be refused again and again does not count."""
        return sum(counter.total() for counter in (self.accepted, self.repaired, self.faults))

    def note(self, answer: Answer, name: str) -> None:
        """Count an answer to the command of that name."""
        match answer:
            case RejectionCause():
                self.rejected[answer.value] += 1
            case DropReason():
                self.dropped[answer.value] += 1
            case None:
                self.dropped["unknown"] += 1
            case _:
                self.accepted[name] += 1


@final
class Actor:
    """Somebody who sends commands: a supervisor, or one who would like to be."""

    def __init__(self, name: str, comms: MemoryComms, session: Session, tally: Tally) -> None:
        self.name = name
        self.comms = comms
        self.session = session
        self.stalling = trio.Lock()
        """Held by whoever stops this one's drain for a while."""
        self._tally = tally

    async def command(self, member: PeerId, command: BridgeCommand) -> Answer:
        """Send a command and count what comes of it."""
        answer: Answer
        try:
            answer = await self.session.command(member, command)
        except CommandRejected as rejected:
            answer = rejected.cause
        except RequestDropped as dropped:
            answer = dropped.reason
        self._tally.note(answer, command.name)
        return answer

    async def say(self, member: PeerId, params: object) -> Answer:
        """Send what need not be a command and count what comes of it."""
        answer: Answer
        try:
            answer = await self.session.request(member, BRIDGE_INTENT, params)
        except RequestFailed as failed:
            answer = RejectionCause(failed.body["cause"])
        except RequestDropped as dropped:
            answer = dropped.reason
        self._tally.note(answer, "malformed")
        return answer


@frozen
class Bond:
    """Who supervises a member."""

    boss: Actor
    epoch: int
    command: BindMember | AuthorizeNextSupervisor
    """What made it so; sent again, it repairs the supervisor's edge."""


@final
class Member:
    """A supervised session, as those know it who supervise it."""

    def __init__(self, name: str, session: Session, plan: Plan, streams: Streams, *, destroyed: bool) -> None:
        self.name = name
        self.session = session
        self.plan = plan
        self.streams = streams
        self.destroyed = destroyed
        """Whether it is to be destroyed in the end."""
        self.bond: Bond | None = None
        self.first_bind: BindMember | None = None
        self.floor = 0
        """The highest epoch that was ever tried here."""
        self.wired: set[PeerId] = set()
        """Whom it was told to trust directly."""
        self.rebinds = 0
        self.senders: dict[PeerId, str] = {}
        """The names of those whose messages count."""
        self.delivered: Counter[str] = Counter()
        """Inputs that it has accepted, by supervisor."""
        self.receipts: dict[str, list[Receipt]] = {}
        """Of the messages that it was sent, by sender."""
        self.spared = 0
        """Messages that it was not sent, because their sender was destroyed first."""
        self.version = 0
        """Changes before and after each change of the bond."""
        self.lock = trio.Lock()
        """Held while the bond changes, and by whoever needs it to stay."""
        self._comms: FaultyComms | None = None

    @property
    def comms(self) -> FaultyComms:
        """The transport that it has now.

        Raises:
            RuntimeError: it never had one.
        """
        if self._comms is None:
            raise RuntimeError("attach first")
        return self._comms

    async def attach(self, comms: FaultyComms) -> IngressResult:
        """Give it a transport, another or the same, and close the one before; return what the attach did."""
        update = await self.session.attach_ingress(comms)
        previous, self._comms = self._comms, comms
        if previous is not None and previous is not comms:
            # What it held has moved on with the take-over, so it may be closed at once.
            await previous.aclose()
        return update.result

    @property
    def peer_id(self) -> PeerId:
        """Who it is to its peers."""
        return self.comms.peer_id

    def require_bond(self) -> Bond:
        """Return who supervises it.

        Raises:
            RuntimeError: nobody does.
        """
        if self.bond is None:
            raise RuntimeError("bind first")
        return self.bond

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Change the bond in the block."""
        async with self.lock:
            self.version += 1
            try:
                yield
            finally:
                self.version += 1

    def next_epoch(self) -> int:
        """Return an epoch that was never tried here."""
        self.floor += 1
        return self.floor


@final
class Cast:
    """All who play in one mob."""

    def __init__(self, network: MemoryNetwork, tally: Tally, *, faulty: bool) -> None:
        self.network = network
        self.tally = tally
        self.faulty = faulty
        self.members: list[Member] = []
        self._actors: dict[str, Actor] = {}

    async def hire(self, machine: MeerkatMachine, mob: int) -> None:
        """Register the supervisors and, with faults, those who would like to be."""
        names = ["supervisor-a", "supervisor-b"]
        names += ["stranger", "flooder", "refused"] if self.faulty else []
        for name in names:
            comms = MemoryComms(self.network, name, control_lane=_SUPERVISORS_LANE)
            session = await machine.register(f"mob-{mob} {name}")
            await session.attach_ingress(comms)
            self._actors[name] = Actor(name, comms, session, self.tally)

    def __getitem__(self, name: str) -> Actor:
        return self._actors[name]

    def other(self, supervisor: Actor) -> Actor:
        """Return the supervisor that is not this one."""
        return self["supervisor-b" if supervisor.name == "supervisor-a" else "supervisor-a"]

    def refused(self) -> frozenset[PeerId]:
        """Return the peers whose edge no trust store takes."""
        return frozenset({self["refused"].comms.peer_id}) if self.faulty else frozenset()

    async def meet(self, member: Member) -> None:
        """Let everybody hear a member: whom one commands, one has to trust."""
        endpoint = member.comms.endpoint()
        for actor in self._actors.values():
            await actor.session.add_direct_peer(endpoint)
        self.members.append(member)
        for name in ("supervisor-a", "supervisor-b"):
            member.senders[self[name].comms.peer_id] = name
