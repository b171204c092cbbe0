"""Soaks: many sessions with every kind of fault at once, and ledgers read by other code than the demo's own.

The demo is soaked as it is, and beside it what it never does: ingress given up, sessions stopped and revived or
unregistered and registered anew, and messages that no attempt can handle, all under load. The short ones run always,
the long ones with ``-m deep``.
"""

from __future__ import annotations

import gc
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from meerkat_trio import (
    AbandonCause,
    Backoff,
    Ending,
    MeerkatMachine,
    MemoryComms,
    MemoryNetwork,
    Receipt,
    ReceiptStatus,
    Session,
    SessionRun,
    TrustSource,
    open_machine,
)
from meerkat_trio.cli._commands import commands
from meerkat_trio.cli._demo_plan import KINDS


def sessions_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is Session for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("sessions", "messages"),
    [
        pytest.param(200, 20, id="short"),
        pytest.param(200, 1000, id="long", marks=pytest.mark.deep),
    ],
)
def test_the_ledger_is_balanced_whatever_goes_wrong(sessions: int, messages: int, tmp_path: Path) -> None:
    before = sessions_in_memory()
    ledger = tmp_path / "ledger.jsonl"
    ran = CliRunner().invoke(
        commands,
        ["demo", "--json", "--sessions", str(sessions), "--messages", str(messages), "--ledger", str(ledger)],
    )
    assert ran.exit_code == 0, ran.output

    numbers = defaultdict(list)
    with ledger.open() as lines:
        for line in map(json.loads, lines):
            numbers[line["session"], line["sender"]].append(line["n"])
    assert len({session for session, _ in numbers}) == sessions
    assert sum(map(len, numbers.values())) == sessions * messages
    for sent in numbers.values():
        assert sent == list(range(len(sent)))

    report = json.loads(ran.output)
    assert {kind: count > 0 for kind, count in report["faults"].items()} == dict.fromkeys(KINDS, True)

    assert sessions_in_memory() <= before


# --- what the demo does not do ---------------------------------------------------------------------

Message = tuple[int, int]
"""A sender's number, and the number of the message among that sender's."""
MOVES = ("rebind", "detach", "stop", "unregister", "abort", "executor")


def is_hopeless(message: Message) -> bool:
    """No attempt can handle it."""
    return message[1] % 7 == 3


class Life:
    """One id's life: its sessions one after another, its senders, and where each message went."""

    def __init__(self, machine: MeerkatMachine, name: str, seed: int) -> None:
        self.machine, self.name = machine, name
        self.dice = random.Random(f"{seed} {name}")
        self.network = MemoryNetwork()
        self.senders = [MemoryComms(self.network, f"sender {number}") for number in range(3)]
        self.receipts: list[tuple[Message, Receipt]] = []
        self.handled: list[Message] = []
        self.handed_back: list[Message] = []
        self.sessions: list[Session] = []
        self.happened: Counter[str] = Counter()

    async def handle(self, run: SessionRun) -> None:
        await trio.sleep(self.dice.choice((0.0, 0.001, 0.01)))
        if is_hopeless(run.message.body):
            raise ValueError("hopeless")
        self.handled.append(run.message.body)

    async def register(self) -> Session:
        session = await self.machine.register(
            self.name,
            self.handle,
            work_queue=4,
            max_attempts=2,
            abandoned_limit=100_000,
            retry_backoff=Backoff(first=0.01),
        )
        if session not in self.sessions:
            self.sessions.append(session)
        return session

    async def transport(self) -> MemoryComms:
        comms = MemoryComms(self.network, self.name, work_lane=4)
        for sender in self.senders:
            await comms.add_trusted_peer(sender.endpoint(), TrustSource.MANUAL)
        return comms

    async def send(self, number: int, messages: int, to: MemoryComms) -> None:
        sender = self.senders[number]
        for n in range(messages):
            receipt = await sender.send(sender.envelope(to.peer_id, (number, n)))
            self.receipts.append(((number, n), receipt))

    async def live(self, messages: int, rounds: int) -> None:
        session, comms = await self.register(), await self.transport()
        await session.attach_ingress(comms)
        moves = [*MOVES] * rounds
        self.dice.shuffle(moves)
        async with trio.open_nursery() as nursery:
            for number in range(len(self.senders)):
                nursery.start_soon(self.send, number, messages, comms)
            for move in moves:
                await trio.sleep(self.dice.uniform(0.0, 0.05))
                session, comms = await self.make(move, session, comms)
        for _, receipt in self.receipts:
            await receipt.wait()
        assert await session.retire() == 0

    async def make(self, move: str, session: Session, comms: MemoryComms) -> tuple[Session, MemoryComms]:
        match move:
            case "rebind":
                comms = await self.transport()
            case "detach":
                self.happened[move] += await session.detach_ingress() is not None
            case "abort":
                self.happened[move] += await session.stop_drain() is not None
            case "executor":
                await session.detach_executor()
                await session.attach_executor(self.handle)
                self.happened[move] += 1
            case _:
                end = await (session.stop() if move == "stop" else session.unregister())
                assert end is not None
                assert end.cause is (Ending.STOP if move == "stop" else Ending.UNREGISTER)
                self.handed_back += [message.body for message in end.unfinished]
                self.happened[move] += bool(end.unfinished)
                session = await self.register()
        update = await session.attach_ingress(comms)
        self.happened[update.result.name] += 1
        return session, comms

    def audit(self, messages: int) -> list[Message]:
        """Each message is in one place; returns those that were given up."""
        sent = sorted(message for message, _ in self.receipts)
        assert sent == [(number, n) for number in range(len(self.senders)) for n in range(messages)]
        assert {receipt.status for _, receipt in self.receipts} == {ReceiptStatus.ADMITTED}
        kept: dict[AbandonCause, list[Message]] = {cause: [] for cause in AbandonCause}
        for session in self.sessions:
            for each in session.abandoned:
                kept[each.cause].append(each.message.body)
                assert each.attempts == 2 if each.cause is AbandonCause.ATTEMPTS_EXHAUSTED else each.attempts < 2
        given_up = kept[AbandonCause.ATTEMPTS_EXHAUSTED]
        assert sorted(kept[AbandonCause.SESSION_ENDED]) == sorted(self.handed_back)
        assert sorted(self.handled + self.handed_back + given_up) == sent
        assert not any(map(is_hopeless, self.handled))
        assert all(map(is_hopeless, given_up))
        for place in (self.handled, self.handed_back, given_up):
            for number in range(len(self.senders)):
                of_one = [message for message in place if message[0] == number]
                assert of_one == sorted(of_one)
        return given_up


@pytest.mark.parametrize(
    ("sessions", "messages", "rounds"),
    [
        pytest.param(10, 40, 2, id="short"),
        pytest.param(50, 200, 10, id="long", marks=pytest.mark.deep),
    ],
)
@pytest.mark.parametrize("seed", range(3))
async def test_each_message_is_handled_given_up_or_handed_back_whatever_becomes_of_its_session(
    sessions: int, messages: int, rounds: int, seed: int, autojump_clock: Any
) -> None:
    happened: Counter[str] = Counter()
    given_up: list[Message] = []
    with trio.fail_after(100_000):
        async with open_machine(random=random.Random(seed).random) as machine:
            lives = [Life(machine, f"session {number}", seed) for number in range(sessions)]
            async with trio.open_nursery() as nursery:
                for life in lives:
                    nursery.start_soon(life.live, messages, rounds)
    for life in lives:
        given_up += life.audit(messages)
        happened += life.happened
    assert given_up
    assert set(happened) == {"detach", "abort", "executor", "stop", "unregister", "SPAWNED", "REBOUND", "UNCHANGED"}
