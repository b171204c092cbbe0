"""`python -m tests.kills.host DIRECTORY …`: a host of two sessions that kills itself at a stage, or is killed.

It begins or goes on: its journal, its ledger and its sockets are in the directory, the same for every host of a test.
"""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, final

import trio

from meerkat_trio import Bound, EnvelopeKind, RequestAnswered, ResponseStatus, open_machine
from meerkat_trio.comms import SocketNetwork

from .cast import BOSSES, LIMITS, SENDERS, SESSIONS, endpoint, identity, socket_of
from .ledger import Ledger
from .stages import Doom, Stage, StagedJournal
from .stores import STORES

if TYPE_CHECKING:
    from meerkat_trio import MeerkatMachine, Session, SessionRun

_ROTATION = 7
"""After so many messages a session gets another supervisor."""


@final
class Host:
    """One host; it lives until it is killed, or until its standard input ends."""

    def __init__(self, directory: Path, store: str, stage: Stage, at: int) -> None:
        self._directory = directory
        self._ledger = Ledger(directory / "ledger")
        self._ledger.write("start")
        self._doom = Doom(self._ledger, stage, at)
        self._journal = StagedJournal(STORES[store](directory).journal(), self._doom)
        self._handled = dict.fromkeys(SESSIONS, 0)
        self._due = {name: trio.Event() for name in SESSIONS}

    async def run(self) -> None:
        async with (
            SocketNetwork(LIMITS) as network,
            open_machine(journal=self._journal, executors=lambda _: self.handle) as machine,
            trio.open_nursery() as nursery,
        ):
            for name in SESSIONS:
                await self._serve(network, machine, name)
                nursery.start_soon(self._rotate, machine[name])
            self._ledger.write("open")
            await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
            # Whoever has begun it is gone.
            nursery.cancel_scope.cancel()

    async def _serve(self, network: SocketNetwork, machine: MeerkatMachine, name: str) -> None:
        comms = await network.open(
            identity(name),
            runtime_id=name,
            listen=socket_of(self._directory, name),
            trusted=[endpoint(self._directory, sender) for sender in SENDERS],
            patience=math.inf,
        )
        if name not in machine:
            await machine.register(name, self.handle)
        await machine[name].attach_ingress(comms)

    async def handle(self, run: SessionRun) -> None:
        name, message = run.session.id, run.message
        self._ledger.write("begin", name, message.id)
        await trio.lowlevel.checkpoint()
        self._doom.reached(Stage.RUNNING)
        if message.kind is EnvelopeKind.REQUEST:
            # One that was answered by a host before this one is not answered again.
            with suppress(RequestAnswered):
                await run.reply(ResponseStatus.COMPLETED, message.id)
                self._doom.reached(Stage.REPLIED)
        await trio.lowlevel.checkpoint()
        self._ledger.write("end", name, message.id)
        self._handled[name] += 1
        if self._handled[name] % _ROTATION == 0:
            self._due[name].set()

    async def _rotate(self, session: Session) -> None:
        """Bind a supervisor, then the next, each with a higher epoch; write an epoch down once it is settled."""
        while True:
            await self._due[session.id].wait()
            self._due[session.id] = trio.Event()
            epoch = session._tasks.state.counters.epoch_floor + 1
            boss = endpoint(self._directory, BOSSES[epoch % len(BOSSES)])
            bound = session.supervisor
            if isinstance(bound, Bound) and epoch % 3 == 0:
                session.revoke_supervisor(bound.peer_id, epoch=bound.epoch)
            if isinstance(session.supervisor, Bound):
                session.authorize_supervisor(boss, epoch=epoch)
            else:
                session.bind_supervisor(boss, epoch=epoch)
            await session.wait_supervisor_settled()
            self._ledger.write("epoch", session.id, epoch)
            self._doom.reached(Stage.BOUND)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.host")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--store", choices=STORES, required=True)
    parser.add_argument("--stage", type=Stage, default=Stage.RANDOM)
    parser.add_argument("--at", type=int, default=1, help="at the n-th time that the stage is reached")
    options = parser.parse_args()
    trio.run(Host(options.directory, options.store, options.stage, options.at).run)


if __name__ == "__main__":
    main()
