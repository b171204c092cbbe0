"""A mob of five members under a supervisor, which hands it over to a second one while messages flow.

Meanwhile one member's transport is rebuilt, and one member is destroyed. At the end a ledger has to balance: each input
was handled once, in order per sender, or is named as unfinished by the end of the destroyed member. Exit status 1 if
it does not.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict

import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    Bound,
    DeliverMemberInput,
    DestroyMember,
    MeerkatMachine,
    MemoryComms,
    MemoryNetwork,
    PeerId,
    Session,
    SessionRun,
    WireMember,
    open_machine,
)

MEMBERS = ("ada", "ben", "cleo", "dan", "eve")
REBUILT, DESTROYED = "ben", "eve"
INPUTS = 6  # from each supervisor to each member
MESSAGES = 10  # from each member to the next one

Stream = tuple[str, str]
"""A member and one of its senders; order is promised within a stream."""


class Ledger:
    """What was accepted and what was handled, by stream."""

    def __init__(self) -> None:
        self.accepted: dict[Stream, list[int]] = defaultdict(list)
        self.handled: dict[Stream, list[int]] = defaultdict(list)
        self.unfinished: dict[Stream, list[int]] = defaultdict(list)
        self.not_taken: Counter[str] = Counter()

    def balances(self) -> bool:
        """Say whether each input was handled once, in order, or handed back at the end of its member."""
        streams = {*self.accepted, *self.handled, *self.unfinished}
        return all(self.handled[each] + self.unfinished[each] == self.accepted[each] for each in streams)


class Mob:
    """The members, their transports, and two supervisors."""

    def __init__(self, machine: MeerkatMachine) -> None:
        self.machine = machine
        self.network = MemoryNetwork()
        self.comms: dict[str, MemoryComms] = {}
        self.sessions: dict[str, Session] = {}
        self.ledger = Ledger()

    async def host(self, name: str) -> None:
        """Register a session and give it a transport."""
        self.comms[name] = MemoryComms(self.network, name)
        self.sessions[name] = await self.machine.register(name, self.handle)
        await self.sessions[name].attach_ingress(self.comms[name])

    def name_of(self, peer_id: PeerId) -> str:
        """Return who a peer is."""
        return next(name for name, comms in self.comms.items() if comms.peer_id == peer_id)

    async def handle(self, run: SessionRun) -> None:
        """Handle one message, whoever it is from."""
        await trio.sleep(0.005)
        self.ledger.handled[run.session.id, self.name_of(run.message.sender)].append(run.message.body)

    # --- what a supervisor does ---------------------------------------------------------------------

    async def bind(self, supervisor: str, name: str) -> None:
        """Become a member's supervisor, by a token that the member has issued."""
        boss, member = self.sessions[supervisor], self.comms[name]
        await boss.add_direct_peer(member.endpoint())  # whom we command, we also have to hear
        await boss.command(
            member.peer_id,
            BindMember(
                epoch=1,
                supervisor=self.comms[supervisor].endpoint(),
                expected_peer_id=member.peer_id,
                expected_address=member.advertised_address,
                bootstrap_token=self.sessions[name].issue_bootstrap_token(),
            ),
        )

    async def wire(self, supervisor: str, name: str, other: str) -> None:
        """Let two members trust each other."""
        for member, peer in ((name, other), (other, name)):
            command = WireMember(epoch=1, peer=self.comms[peer].endpoint())
            await self.sessions[supervisor].command(self.comms[member].peer_id, command)

    async def hand_over(self, name: str) -> None:
        """Let the second supervisor take the first one's place."""
        member = self.comms[name]
        await self.sessions["second"].add_direct_peer(member.endpoint())
        command = AuthorizeNextSupervisor(epoch=2, next=self.comms["second"].endpoint())
        await self.sessions["first"].command(member.peer_id, command)

    async def deliver(self, supervisor: str, name: str, numbers: range, epoch: int) -> None:
        """Give a member inputs, one by one; each one twice, as if the first answer had not been heard."""
        boss, member = self.sessions[supervisor], self.comms[name].peer_id
        for number in numbers:
            command = DeliverMemberInput(epoch=epoch, input_id=f"input-{number}", content=number)
            for _ in range(2):
                answer = await boss.command(member, command)
                if answer["result"] == "accepted":
                    self.ledger.accepted[name, supervisor].append(number)
                else:
                    self.ledger.not_taken[answer["result"]] += 1

    async def destroy(self, name: str) -> None:
        """Give a member more than it can handle at once, end it, and write down what it had not handled."""
        await self.deliver("second", name, range(INPUTS, 3 * INPUTS), epoch=2)
        await self.sessions["second"].command(self.comms[name].peer_id, DestroyMember(epoch=2))
        # The handler that is running gets the grace time.
        end = await self.sessions[name].wait_ended()
        for message in end.unfinished:
            self.ledger.unfinished[name, self.name_of(message.sender)].append(message.body)

    # --- what members do ----------------------------------------------------------------------------

    async def talk(self, name: str, other: str) -> None:
        """Send messages from one member to another."""
        for number in range(MESSAGES):
            await trio.sleep(0.002)
            receipt = await self.sessions[name].send(self.comms[other].peer_id, number)
            await receipt.wait()
            self.ledger.accepted[other, name].append(number)

    async def rebuild(self, name: str) -> None:
        """Give a member another transport of the same id; what the old one holds moves along, and so does its trust."""
        old, self.comms[name] = self.comms[name], MemoryComms(self.network, name)
        update = await self.sessions[name].attach_ingress(self.comms[name])
        await old.aclose()
        print(f"{name}: {update.result.value}")


async def main() -> bool:
    """Play it, and say whether the ledger balances."""
    async with open_machine() as machine:
        mob = Mob(machine)
        for name in ("first", "second", *MEMBERS):
            await mob.host(name)
        for name in MEMBERS:
            await mob.bind("first", name)
        ring = list(zip(MEMBERS, (*MEMBERS[1:], MEMBERS[0]), strict=True))
        for name, other in ring:
            await mob.wire("first", name, other)

        async def serve(name: str) -> None:
            await mob.deliver("first", name, range(INPUTS), epoch=1)
            await mob.hand_over(name)
            await mob.deliver("second", name, range(INPUTS), epoch=2)

        async with trio.open_nursery() as nursery:
            for name in MEMBERS:
                nursery.start_soon(serve, name)
            for name, other in ring:
                nursery.start_soon(mob.talk, name, other)
            await trio.sleep(0.005)
            await mob.rebuild(REBUILT)
        await mob.destroy(DESTROYED)
        for name in MEMBERS:
            if name != DESTROYED:
                await mob.sessions[name].retire()  # lets the handler finish what is queued
        for name in MEMBERS:
            supervisor = mob.sessions[name].supervisor
            bound = f"supervisor {supervisor.name}" if isinstance(supervisor, Bound) else "no supervisor"
            trusted = len(await mob.comms[name].trusted_peers())
            print(f"{name}: {mob.sessions[name].phase.value}, {bound}, trusts {trusted}")
    return report(mob.ledger)


def report(ledger: Ledger) -> bool:
    """Print the totals, and say whether the ledger balances."""
    accepted, handled, unfinished = (
        sum(map(len, column.values())) for column in (ledger.accepted, ledger.handled, ledger.unfinished)
    )
    repeated = ledger.not_taken["deduplicated"]
    print(f"{accepted} accepted, {repeated} repeated, {handled} handled, {unfinished} handed back")
    balances = ledger.balances()
    print("each was handled once and in order" if balances else "THE LEDGER DOES NOT BALANCE")
    return balances


if __name__ == "__main__":
    sys.exit(0 if trio.run(main) else 1)
