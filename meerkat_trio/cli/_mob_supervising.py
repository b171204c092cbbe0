"""What supervisors do with one member in the supervised demo: bind it, hand it over, let go of it, end it.

Each command is answered as SPEC 7 has it, or that is noted as a surprise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import trio
from attrs import evolve

from .._bridge import (
    AuthorizeNextSupervisor,
    BindMember,
    BridgeCommand,
    DestroyMember,
    ObserveMember,
    RetireMember,
    RevokeOwnSupervision,
    UnwireMember,
    WireMember,
)
from .._exceptions import RejectionCause as Cause
from .._messages import TrustSource
from ..authority import DropReason
from ._demo_run import cancel_in_the_middle
from ._mob_cast import Actor, Answer, Bond

if TYPE_CHECKING:
    from ..authority import PeerEndpoint
    from ._mob_cast import Cast, Member

__all__ = ["Supervising"]

_UNTIL_LET_IN: Final = 0.25
_GLANCE: Final = 0.001
_MADE_UP: Final = "made up"


@final
class Supervising:
    """The supervision of one member."""

    def __init__(self, cast: Cast, member: Member) -> None:
        self._cast = cast
        self._member = member
        self._tally = cast.tally

    # --- answers ------------------------------------------------------------------------------------

    async def do(self, actor: Actor, command: BridgeCommand) -> dict[str, Any]:
        """Send a command that has to be carried out, and return its answer."""
        answer = await self._let_in(actor, command)
        if isinstance(answer, dict):
            return answer
        self.surprise(f"{command.name} was to be carried out", answer)
        return {}

    async def _let_in(self, actor: Actor, command: BridgeCommand) -> Answer:
        """Send a command until it is let in: that of a stranger is not who has said too much in too little time."""
        while True:
            answer = await actor.command(self._member.peer_id, command)
            if answer is not DropReason.RATE_LIMITED:
                return answer
            await trio.sleep(_UNTIL_LET_IN)

    async def do_again(self, actor: Actor, command: BridgeCommand, repair: str) -> None:
        """Send a command whose work is done, and see that it says so."""
        answer = await self.do(actor, command)
        if answer.get("already"):
            self._tally.repaired[repair] += 1
        else:
            self.surprise(f"{command.name} was done already", answer)

    async def expect(self, wanted: Cause | DropReason, actor: Actor, command: BridgeCommand) -> bool:
        """Send a command that has to be rejected; say whether the answer is the one that is wanted."""
        return self._check(wanted, await actor.command(self._member.peer_id, command), command.name)

    async def insist(self, wanted: Cause, actor: Actor, command: BridgeCommand) -> None:
        """Send a command that has to be rejected until it is let in; as `expect`."""
        self._check(wanted, await self._let_in(actor, command), command.name)

    async def expect_of(self, wanted: Cause, actor: Actor, params: object) -> bool:
        """Send what is no proper command and has to be rejected; as `expect`."""
        return self._check(wanted, await actor.say(self._member.peer_id, params), "what is malformed")

    def _check(self, wanted: Cause | DropReason, answer: Answer, what: str) -> bool:
        # Strangers may have said too much in too little time.
        if answer is not wanted and answer is not DropReason.RATE_LIMITED:
            self.surprise(f"{what}: {wanted.value} was to come", answer)
        return answer is wanted

    def surprise(self, what: str, answer: object) -> None:
        """Note an answer that had to be another one."""
        said = answer.value if isinstance(answer, Cause | DropReason) else repr(answer)
        self._tally.surprises.append(f"{self._member.name}: {what}, and it was answered {said}")

    # --- the bond -----------------------------------------------------------------------------------

    def make_bind(self, boss: Actor, epoch: int) -> BindMember:
        """Make the command by which ``boss`` becomes the supervisor."""
        comms = self._member.comms
        return BindMember(
            epoch=epoch,
            supervisor=boss.comms.endpoint(),
            expected_peer_id=comms.peer_id,
            expected_address=comms.advertised_address,
            bootstrap_token=self._member.session.issue_bootstrap_token(),
        )

    async def bind(self, boss: Actor) -> None:
        """Become the supervisor of a member that has none."""
        member = self._member
        command = self.make_bind(boss, member.next_epoch())
        await self.do(boss, command)
        member.bond = Bond(boss, command.epoch, command)
        member.first_bind = member.first_bind or command

    async def rotate(self, patience: int | None) -> None:
        """Hand the member over to the other supervisor, and let the one before try once more.

        Args:
            patience: steps after which the caller is cancelled, who then asks again; None for a caller that is not.
        """
        member, cast = self._member, self._cast
        async with member.changing():
            before = member.require_bond()
            boss = cast.other(before.boss)
            command = AuthorizeNextSupervisor(epoch=member.next_epoch(), next=boss.comms.endpoint())
            if patience is None:
                await self.do(before.boss, command)
            else:
                await self._authorize_twice(before.boss, command, patience)
            member.bond = Bond(boss, command.epoch, command)
            await self.do_again(boss, command, "authorize_already")
        self._tally.faults["rotations"] += 1
        await self.expect(Cause.STALE_SUPERVISOR, before.boss, ObserveMember(epoch=before.epoch))
        await self.expect(Cause.SENDER_MISMATCH, before.boss, ObserveMember(epoch=command.epoch))

    async def _authorize_twice(self, boss: Actor, command: AuthorizeNextSupervisor, patience: int) -> None:
        await self.cut(boss, command, patience)
        answer = await boss.command(self._member.peer_id, command)
        # Once the edge of the next one stands, the one before has no say any more, not even in this.
        if not isinstance(answer, dict) and answer not in {Cause.SENDER_MISMATCH, DropReason.RATE_LIMITED}:
            self.surprise(f"{command.name} was to be carried out", answer)

    async def cut(self, actor: Actor, command: BridgeCommand, patience: int) -> bool:
        """Send a command and be cancelled meanwhile; say whether that came in time."""

        async def send() -> None:
            await actor.command(self._member.peer_id, command)

        return await cancel_in_the_middle(send, patience)

    async def replace(self) -> None:
        """Let go of the member, and bind it anew after others have tried in vain."""
        member, tally = self._member, self._tally
        async with member.changing():
            before = member.require_bond()
            boss = before.boss
            revoke = RevokeOwnSupervision(epoch=before.epoch)
            await self.do(boss, revoke)
            await self.do_again(boss, revoke, "revoke_already")
            await self.insist(Cause.NOT_BOUND, boss, ObserveMember(epoch=before.epoch))
            await self._try_to_bind()
            await self.bind(boss)
            await self.do_again(boss, member.require_bond().command, "bind_already")
        tally.faults["replacements"] += 1

    async def _try_to_bind(self) -> None:
        member, stranger = self._member, self._cast["stranger"]
        fit = self.make_bind(stranger, member.next_epoch())
        boss, refused = self._cast["supervisor-a"], self._cast["refused"]
        await self.insist(Cause.INVALID_BOOTSTRAP_TOKEN, stranger, evolve(fit, bootstrap_token=_MADE_UP))
        await self.insist(Cause.ADDRESS_MISMATCH, stranger, evolve(fit, expected_address="inproc://elsewhere"))
        await self.insist(Cause.SENDER_MISMATCH, stranger, evolve(fit, supervisor=boss.comms.endpoint()))
        await self.insist(Cause.STALE_SUPERVISOR, stranger, evolve(fit, epoch=1))
        await self.insist(Cause.PUBLISH_FAILED, refused, self.make_bind(refused, member.next_epoch()))

    async def offer_refused(self) -> None:
        """Name a next supervisor whose edge cannot be stored; the one before stays."""
        member, refused = self._member, self._cast["refused"]
        async with member.changing():
            boss = member.require_bond().boss
            command = AuthorizeNextSupervisor(epoch=member.next_epoch(), next=refused.comms.endpoint())
            came = await self.expect(Cause.PUBLISH_FAILED, boss, command)
            await self.expect(Cause.STALE_SUPERVISOR, boss, command)
        self._tally.faults["refused_successors"] += came

    # --- peers --------------------------------------------------------------------------------------

    async def wire(self, peer: PeerEndpoint, *, check: bool = True) -> None:
        """Let the member trust a peer; when that is answered, the store shows it."""
        bond = self._member.require_bond()
        await self.do(bond.boss, WireMember(epoch=bond.epoch, peer=peer))
        self._member.wired.add(peer.peer_id)
        if check and not await self._member.comms.shows(peer.peer_id, TrustSource.DIRECT):
            self.surprise(f"{peer.name} was wired", "without its edge")

    async def rewire(self, peer: PeerEndpoint) -> None:
        """Wire a peer and unwire it, each twice."""
        member = self._member
        bond = member.require_bond()
        await self.wire(peer)
        await self.do_again(bond.boss, WireMember(epoch=bond.epoch, peer=peer), "wire_already")
        unwire = UnwireMember(epoch=bond.epoch, peer=peer)
        await self.do(bond.boss, unwire)
        member.wired.discard(peer.peer_id)
        if await member.comms.shows(peer.peer_id, TrustSource.DIRECT):
            self.surprise(f"{peer.name} was unwired", "with its edge")
        await self.do_again(bond.boss, unwire, "unwire_already")

    # --- ends ---------------------------------------------------------------------------------------

    async def retire(self, peer: PeerEndpoint) -> None:
        """Let the member finish what it has, and wait for that."""
        bond, session = self._member.require_bond(), self._member.session
        await self.do(bond.boss, RetireMember(epoch=bond.epoch))
        if self._cast.faulty:
            await self.expect(Cause.NOT_IN_PHASE, bond.boss, WireMember(epoch=bond.epoch, peer=peer))
        while session.statistics().queued:  # noqa: ASYNC110 - whoever did not call `Session.retire` is not told
            await trio.sleep(_GLANCE)

    async def destroy(self) -> None:
        """End the member; with faults, its answers are slow and the command is sent twice."""
        member, tally = self._member, self._tally
        bond = member.require_bond()
        command = DestroyMember(epoch=bond.epoch)
        answers: list[dict[str, Any]] = []

        async def ask() -> None:
            answers.append(await self.do(bond.boss, command))

        if self._cast.faulty:
            member.comms.fail_responses(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            if self._cast.faulty:
                nursery.start_soon(ask)
        tally.repaired["destroy_repeated"] += sum("queued" in answer for answer in answers[1:])
        await member.session.wait_ended()
        # What it has never let in is refused by the closing.
        await member.comms.aclose()
