"""A process that dies, or a journal that fails, at any write, under every schedule: what was said to be so is so.

Each scenario lives in two processes. In the first one the explorer chooses what happens to each write; what is seen
of it after its death, nobody could have seen. The second one finds what was written, and the peer sends again what it
has no answer for.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from meerkat_trio import (
    Bound,
    DeliveryRefused,
    DropReason,
    Envelope,
    EnvelopeKind,
    MeerkatError,
    MemoryComms,
    MemoryNetwork,
    Receipt,
    ReceiptStatus,
    ResponseStatus,
    Session,
    SessionRun,
    TrustSource,
    open_machine,
)
from meerkat_trio.testing import Exploration, MemoryJournal, WriteFault, explore

from ..authority.cast import ALICE, BOB, EVE

BODIES = ("one", "two", "three")
SOURCE = ["meerkat_trio._session_record", "meerkat_trio._journal_writer", "meerkat_trio._drain"]


class Process:
    """What one process is seen to do: until it dies."""

    def __init__(self, x: Exploration, journal: MemoryJournal, name: str = "first") -> None:
        self.name = name
        self.x = x
        self.journal = journal
        self.network = MemoryNetwork()
        self.peer = MemoryComms(self.network, "peer")
        self.handled: list[object] = []
        self.admitted: list[object] = []
        self.dropped: list[object] = []
        self.answers: list[object] = []
        self.ids = itertools.count()

    async def handler(self, run: SessionRun) -> None:
        if not self.journal.is_dead:
            self.handled.append(run.message.body)
        if run.message.kind is EnvelopeKind.REQUEST:
            await run.reply(ResponseStatus.COMPLETED, run.message.body)
        await trio.lowlevel.checkpoint()

    async def comms(self) -> MemoryComms:
        comms = MemoryComms(self.network, "a")
        await comms.add_trusted_peer(self.peer.endpoint(), TrustSource.MANUAL)
        return comms

    async def serve(self, act: Callable[[Process, Session], Awaitable[object]]) -> None:
        """Open a machine with session "a", act, and leave when the process dies or all is quiet."""
        with trio.CancelScope() as life:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._die, life)
                nursery.start_soon(self._take_answers)
                async with open_machine(
                    journal=self.journal,
                    executors=lambda _: self.handler,
                    random=lambda: 0.0,
                    grace=1.0,
                    new_id=lambda: f"{self.name} {next(self.ids)}",
                ) as machine:
                    session = machine["a"] if "a" in machine else await machine.register("a", self.handler)
                    await session.attach_ingress(await self.comms())
                    await act(self, session)
                    await trio.sleep(100)
                nursery.cancel_scope.cancel()

    async def _die(self, life: trio.CancelScope) -> None:
        await self.journal.died.wait()
        life.cancel()

    async def _take_answers(self) -> None:
        while True:
            with await self.peer.claim() as claim:
                if not self.journal.is_dead:
                    self.answers.append((claim.envelope.correlation, claim.envelope.id))
                claim.commit()

    def envelope(self, body: object, kind: EnvelopeKind = EnvelopeKind.MESSAGE) -> Envelope:
        asks = kind is EnvelopeKind.REQUEST
        to = MemoryComms(MemoryNetwork(), "a").peer_id
        return Envelope(
            id=f"id of {body}",
            sender=self.peer.peer_id,
            recipient=to,
            body=body,
            kind=kind,
            intent="ask" if asks else None,
            correlation=f"about {body}" if asks else None,
        )

    async def send(self, bodies: tuple[object, ...], kind: EnvelopeKind = EnvelopeKind.MESSAGE) -> None:
        """Send, and note what is heard of it."""
        receipts: list[tuple[object, Receipt]] = [
            (body, await self.peer.send(self.envelope(body, kind))) for body in bodies
        ]
        for body, receipt in receipts:
            status = await receipt.wait()
            if self.journal.is_dead:
                return
            if status is ReceiptStatus.ADMITTED:
                self.admitted.append(body)
            elif receipt.reason is DropReason.NOT_RECORDED:
                self.dropped.append(body)


def faulty(x: Exploration, most: int = 2) -> Callable[[], WriteFault]:
    left = [most]

    def fault() -> WriteFault:
        if not left[0]:
            return WriteFault.NONE
        chosen = x.choose(list(WriteFault))
        left[0] -= chosen is not WriteFault.NONE
        return chosen

    return fault


async def nothing(_: Process, __: Session) -> None:
    await trio.lowlevel.checkpoint()


async def rebind(process: Process, session: Session) -> None:
    with process.x.victim():
        await session.attach_ingress(await process.comms())


async def restart_drain(process: Process, session: Session) -> None:
    comms = session._tasks.bound_comms
    assert comms is not None
    await session.stop_drain()
    await session.attach_ingress(comms)


async def swap_executor(process: Process, session: Session) -> None:
    await session.detach_executor()
    await session.attach_executor(process.handler)


@pytest.mark.parametrize("meanwhile", [nothing, rebind, restart_drain, swap_executor], ids=lambda each: each.__name__)
def test_nothing_admitted_is_lost_or_handled_twice_but_the_last(
    meanwhile: Callable[[Process, Session], Awaitable[object]],
) -> None:
    async def act(process: Process, session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.send, BODIES)
            with suppress(MeerkatError):
                await meanwhile(process, session)

    async def scenario(x: Exploration) -> None:
        first = Process(x, MemoryJournal(faulty(x), seconds=x.choose([0.0, 0.01])))
        await first.serve(act)
        second = Process(x, first.journal.rise(), "second")
        again = tuple(body for body in BODIES if body not in first.admitted and body not in first.dropped)

        async def send_again(process: Process, _: Session) -> None:
            await process.send(again)

        await second.serve(send_again)
        x.log(f"{first.admitted=} {first.dropped=} {first.handled=} {second.admitted=} {second.handled=}")
        times = Counter([*first.handled, *second.handled])
        expected = [body for body in BODIES if body not in first.dropped]
        x.check(set(times) == set(expected), f"handled {times}, of {expected}")
        twice = [body for body in times if times[body] > 1]
        x.check(all(times[body] == 2 for body in twice), f"handled {times}")
        x.check(not twice or (first.journal.is_dead and twice == first.handled[-1:]), f"handled twice: {twice}")
        order = list(dict.fromkeys([*first.handled, *second.handled]))
        x.check(order == expected, f"handled in the order {order}")

    explore(scenario, runs=700, source=SOURCE).raise_if_failed()


def test_a_request_is_answered_and_every_answer_is_the_same_or_of_a_run_that_died() -> None:
    async def ask(process: Process, _: Session) -> None:
        await process.send(("why",), EnvelopeKind.REQUEST)

    async def scenario(x: Exploration) -> None:
        first = Process(x, MemoryJournal(faulty(x, 1), seconds=x.choose([0.0, 0.01])))
        await first.serve(ask)
        second = Process(x, first.journal.rise(), "second")
        known = first.admitted or first.dropped
        await second.serve(nothing if known else ask)
        x.log(f"{first.admitted=} {first.handled=} {first.answers=} {second.handled=} {second.answers=}")
        if first.dropped:
            x.check(not second.answers, "what was refused is answered")
            return
        x.check(bool(first.answers or second.answers), "nobody has answered")
        x.check(len(first.answers) <= 1 and len(second.answers) <= 1, "answered twice by one process")
        if first.answers and second.answers:
            x.check(first.answers == second.answers, "two answers that differ")

    explore(scenario, runs=700, source=SOURCE).raise_if_failed()


def test_what_a_call_has_returned_is_so_in_the_next_process() -> None:
    async def scenario(x: Exploration) -> None:
        said: list[str] = []
        gone = [False]
        first = Process(x, MemoryJournal(faulty(x), seconds=x.choose([0.0, 0.01])))

        async def act(process: Process, session: Session) -> None:
            def note(what: str) -> None:
                if not process.journal.is_dead:
                    said.append(what)

            await session.add_direct_peer(ALICE)
            note("alice")
            session.bind_supervisor(EVE, epoch=3)
            with process.x.victim():
                await session.wait_supervisor_settled()
                note("eve")
            gone[0] = True
            await session.remove_direct_peer(ALICE.peer_id)
            note("no alice")
            with suppress(DeliveryRefused):
                await session.deliver("mail")
                note("mail")
            await session.set_silent_intents({"hush"})
            note("hush")
            await session.add_direct_peer(BOB)
            note("bob")

        await first.serve(act)
        second = Process(x, first.journal.rise(), "second")
        async with open_machine(journal=second.journal, executors=lambda _: second.handler) as machine:
            if "a" not in machine:
                x.check(not said, f"said {said}, and there is no session")
                return
            session = machine["a"]
            peers = {peer.peer_id for peer in session.peers}
            x.check("bob" not in said or BOB.peer_id in peers, "bob is forgotten")
            x.check("no alice" not in said or ALICE.peer_id not in peers, "alice is back")
            x.check(
                "alice" not in said or "no alice" in said or ALICE.peer_id in peers or gone[0], "alice is forgotten"
            )
            supervisor = session.supervisor
            x.check("eve" not in said or (isinstance(supervisor, Bound) and supervisor.epoch == 3), "eve is forgotten")
            x.check("hush" not in said or session._tasks.state.session.silent_intents == {"hush"}, "hush is forgotten")
            await trio.sleep(10)
        x.check("mail" not in said or "mail" in [*first.handled, *second.handled], "the mail is lost")
        stored = {entry.kind for entry in (await second.journal.restore()).get("a", ())}
        x.check("message" not in stored, "a message is left")

    explore(scenario, runs=700, source=SOURCE).raise_if_failed()
