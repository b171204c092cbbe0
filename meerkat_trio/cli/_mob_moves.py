"""What the supervised demo does to one member while inputs and messages flow, through the public API alone.

Counts what was seen to happen, never what was planned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

from .._bridge import DeliverMemberInput, InterruptMember, ObserveMember, WireMember
from .._exceptions import RejectionCause as Cause
from .._messages import TrustSource
from .._reports import IngressResult
from ..authority import DrainExitReason, DropReason, PeerEndpoint, PeerId
from ._mob_transport import FaultyComms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._demo_plan import Move
    from ._faults import Flow
    from ._mob_cast import Cast, Member
    from ._mob_supervising import Supervising

__all__ = ["MobChaos", "make_bystander"]

_TOO_MUCH: Final = "x" * 5000
_FLOOD: Final = 12
_STALL: Final = 0.01
_GLANCE: Final = 0.005
_UNTIL_SHOWN: Final = 10.0
_TRIES: Final = 20


def make_bystander(name: str) -> PeerEndpoint:
    """Make a peer that nobody ever hears of."""
    key = hashlib.sha256(name.encode()).digest()
    return PeerEndpoint(name=name, peer_id=PeerId.of_key(key), address=f"inproc://{name}", signing_key=key)


class _Unreadable(Mapping[str, Any]):
    """What a request may say in one process: a mapping that raises."""

    def __getitem__(self, key: str) -> NoReturn:
        raise RuntimeError("this cannot be read")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@final
class MobChaos:
    """The faults of one member."""

    def __init__(self, cast: Cast, member: Member, supervising: Supervising) -> None:
        self._cast = cast
        self._member = member
        self._supervising = supervising
        self._tally = cast.tally
        self._bystander = make_bystander("bystander")

    async def run(self, flow: Flow) -> None:
        """Make each move of the plan when its moment has come."""
        deeds: dict[str, Callable[[Move], Awaitable[None]]] = {
            "rebinds": self._rebind,
            "restarts": self._restart,
            "rotations": self._rotate,
            "replacements": self._replace,
            "refused_successors": self._offer_refused,
            "replays": self._replay,
            "malformed_commands": self._babble,
            "strangers": self._let_strangers_try,
            "lost_edges": self._lose_edges,
            "rewirings": self._rewire,
            "cancelled_commands": self._cancel_command,
            "slow_replies": self._slow_down_replies,
            "stalled_supervisors": self._stall_supervisor,
            "interrupts": self._interrupt,
        }
        for move in self._member.plan.moves:
            await flow.wait_sent(move.after)
            flow.open_next_gate()
            await deeds[move.kind](move)

    # --- transports ---------------------------------------------------------------------------------

    def build(self) -> FaultyComms:
        """Build a transport of the member's logical id."""
        cast = self._cast
        return FaultyComms(cast.network, self._member.name, cast.tally, faulty=cast.faulty, refused=cast.refused())

    async def _rebind(self, move: Move) -> None:
        """Attach another transport while a reply is held up in the one before; trust has to follow by itself."""
        member = self._member
        async with trio.open_nursery() as nursery:
            member.comms.fail_responses(2)
            nursery.start_soon(self._observe)
            for __ in range(move.patience):
                await trio.lowlevel.checkpoint()
            result = await member.attach(self.build())
            member.rebinds += result is IngressResult.REBOUND
            self._tally.faults["rebinds"] += result is IngressResult.REBOUND
        boss = member.require_bond().boss
        edges = [(boss.comms.peer_id, TrustSource.SUPERVISOR)]
        edges += [(each, TrustSource.DIRECT) for each in sorted(member.wired)]
        with trio.move_on_after(_UNTIL_SHOWN):
            for edge in edges:
                while not await member.comms.shows(*edge):  # noqa: ASYNC110 - the reconciler tells nobody
                    await trio.sleep(_GLANCE)
            return
        self._supervising.surprise("the rebuilt transport was to show all edges", "with fewer")

    async def _restart(self, move: Move) -> None:
        """Stop the drain while a command is asked, and start it again."""
        member = self._member
        async with trio.open_nursery() as nursery:
            drain_exit = await member.session.stop_drain()
            nursery.start_soon(self._observe)
            await trio.lowlevel.checkpoint()
            await member.attach(self.build() if move.fresh else member.comms)
        if drain_exit is not None:
            self._tally.faults["restarts"] += drain_exit.reason is DrainExitReason.ABORTED

    async def _observe(self) -> None:
        bond = self._member.require_bond()
        await self._supervising.do(bond.boss, ObserveMember(epoch=bond.epoch))

    # --- supervisors --------------------------------------------------------------------------------

    async def _rotate(self, move: Move) -> None:
        await self._supervising.rotate(move.patience if move.fresh else None)

    async def _replace(self, _: Move) -> None:
        await self._supervising.replace()

    async def _offer_refused(self, _: Move) -> None:
        await self._supervising.offer_refused()

    async def _stall_supervisor(self, _: Move) -> None:
        """Stop the supervisor's drain while more answers come than its lane holds."""
        boss = self._member.require_bond().boss
        async with boss.stalling:
            drain_exit = await boss.session.stop_drain()
            async with trio.open_nursery() as nursery:
                for __ in range(4):
                    nursery.start_soon(self._observe)
                await trio.sleep(_STALL)
                await boss.session.attach_ingress(boss.comms)
        if drain_exit is not None:
            self._tally.faults["stalled_supervisors"] += drain_exit.reason is DrainExitReason.ABORTED

    async def _interrupt(self, _: Move) -> None:
        bond = self._member.require_bond()
        for __ in range(_TRIES):
            answer = await self._supervising.do(bond.boss, InterruptMember(epoch=bond.epoch, reason="planned"))
            if answer.get("run") is not None:
                self._tally.faults["interrupts"] += 1
                break

    # --- commands -----------------------------------------------------------------------------------

    async def _replay(self, _: Move) -> None:
        """Send the very first bind again, as it was recorded; and let a stranger do it."""
        member, supervising = self._member, self._supervising
        recorded, bond = member.first_bind, member.require_bond()
        if recorded is None:
            return
        boss = self._cast["supervisor-a"]
        if bond.command == recorded:
            await supervising.do_again(boss, recorded, "bind_already")
        else:
            await supervising.expect(Cause.ALREADY_BOUND, boss, recorded)
        await supervising.expect(Cause.ALREADY_BOUND, self._cast["stranger"], recorded)
        self._tally.faults["replays"] += 1

    async def _babble(self, _: Move) -> None:
        """Send all that is no proper command."""
        supervising, bond = self._supervising, self._member.require_bond()
        fit = ObserveMember(epoch=bond.epoch).params()
        wire = WireMember(epoch=bond.epoch, peer=self._bystander).params()
        bind = supervising.make_bind(bond.boss, bond.epoch).params()
        unkeyed = {**wire["peer"], "signing_key": "00" * 32}
        for wanted, params in (
            (Cause.UNSUPPORTED_PROTOCOL_VERSION, {**fit, "protocol_version": 2}),
            (Cause.UNSUPPORTED, {**fit, "command": "promote_member"}),
            (Cause.UNSUPPORTED, {**fit, "urgent": True}),
            (Cause.INVALID_PEER_SPEC, {**wire, "peer": unkeyed}),
            (Cause.INVALID_SUPERVISOR_SPEC, {**bind, "supervisor": unkeyed}),
            (Cause.INTERNAL, _Unreadable()),
        ):
            await supervising.expect_of(wanted, bond.boss, params)
        self._tally.faults["malformed_commands"] += 1

    async def _let_strangers_try(self, _: Move) -> None:
        supervising, bond, stranger = self._supervising, self._member.require_bond(), self._cast["stranger"]
        await supervising.expect(Cause.SENDER_MISMATCH, stranger, ObserveMember(epoch=bond.epoch))
        large = DeliverMemberInput(epoch=bond.epoch, input_id="large", content=_TOO_MUCH)
        await supervising.expect(DropReason.OVERSIZE, stranger, large)
        async with trio.open_nursery() as nursery:
            for __ in range(_FLOOD):
                nursery.start_soon(self._flood, ObserveMember(epoch=bond.epoch))
        self._tally.faults["strangers"] += 1

    async def _flood(self, command: ObserveMember) -> None:
        await self._supervising.expect(Cause.SENDER_MISMATCH, self._cast["flooder"], command)

    async def _cancel_command(self, move: Move) -> None:
        """Cancel the caller of a command; if it was faster, cancel earlier the next time. Then ask again."""
        supervising, bond = self._supervising, self._member.require_bond()
        peer = make_bystander("passer-by")
        command = WireMember(epoch=bond.epoch, peer=peer)
        patience = move.patience
        while not await supervising.cut(bond.boss, command, patience):
            patience = max(0, patience - 1)
        self._tally.faults["cancelled_commands"] += 1
        await supervising.wire(peer)

    async def _slow_down_replies(self, _: Move) -> None:
        self._member.comms.fail_responses(2)
        await self._observe()

    # --- edges --------------------------------------------------------------------------------------

    async def _rewire(self, _: Move) -> None:
        await self._supervising.rewire(self._bystander)
        self._tally.faults["rewirings"] += 1

    async def _lose_edges(self, _: Move) -> None:
        """Remove edges behind the session's back; a command that is sent again sets them right."""
        member, bond = self._member, self._member.require_bond()
        neighbour = next(each for each in self._cast.members if each.peer_id in member.wired)
        wire = WireMember(epoch=bond.epoch, peer=neighbour.comms.endpoint())
        for repair, command, edge in (
            ("supervisor_edge_restored", bond.command, (bond.boss.comms.peer_id, TrustSource.SUPERVISOR)),
            ("peer_edge_restored", wire, (neighbour.peer_id, TrustSource.DIRECT)),
        ):
            for __ in range(_TRIES):
                await member.comms.lose(*edge)
                # Something else may have called the reconciler in between, which then was faster.
                was_missing = not await member.comms.shows(*edge)
                await self._supervising.do_again(bond.boss, command, f"{command.name.partition('_')[0]}_already")
                if not await member.comms.shows(*edge):
                    self._supervising.surprise(f"{command.name} was answered", "before its edge was back")
                if was_missing:
                    self._tally.repaired[repair] += 1
                    break
        self._tally.faults["lost_edges"] += 1
