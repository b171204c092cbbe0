"""`meerkat-trio host`: sessions of a configuration, over sockets, until it is told to go."""

from __future__ import annotations

import json
import logging
import signal
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio

from .._exceptions import JournalFailed, JournalRefused, MeerkatError
from .._machine import open_machine
from ..authority import SessionPhase
from ..comms import SocketComms, SocketNetwork
from ..comms._addresses import listen
from ..journals import SqliteJournal
from ._host_config import HostConfig, SessionConfig, read_config
from ._status import serve_status, snapshot_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from .._machine import MeerkatMachine
    from .._session import Handler, Session, SessionRun
    from ..authority import SessionId
    from ..comms._addresses import Listening

__all__ = ["host"]

_logger = logging.getLogger("meerkat_trio.host")

_GOODBYES: Final = (signal.SIGTERM, signal.SIGINT)


@click.command()
@click.option(
    "--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file."
)
@click.option("--verbose", is_flag=True, help="Log more than warnings.")
def host(*, config: Path, verbose: bool) -> None:
    """Host the sessions of a configuration.

    Prints a line for each session once it listens. SIGTERM and SIGINT shut down: nothing more is admitted, what is
    admitted is handled within the grace time or stays in the journal, and what is not stays with its senders. SIGUSR1
    prints the statistics.
    """
    read = read_config(config)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    trio.run(_Host(read, config).run)


class _Host:
    def __init__(self, config: HostConfig, path: Path) -> None:
        self._config = config
        self._path = path
        self._transports: dict[str, SocketComms] = {}

    async def run(self) -> None:
        """Be the main task.

        **Cancellation:** everything is cut at once.
        """
        with trio.open_signal_receiver(*_GOODBYES, signal.SIGUSR1) as signals:
            async with SocketNetwork() as network, self._open_machine() as machine:
                status = await self._open_all(network, machine)
                async with trio.open_nursery() as nursery:
                    if status is not None:
                        nursery.start_soon(serve_status, status, lambda: snapshot_of(machine, self._transports))
                    await self._wait_for_goodbye(signals, machine)
                    await self._shut_down(machine)
                    nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _open_machine(self) -> AsyncGenerator[MeerkatMachine, None]:
        config = self._config
        journal = None
        if config.journal is not None:
            journal = SqliteJournal(config.journal, durability=config.durability)
        opened = False
        try:
            async with open_machine(grace=config.grace, journal=journal, executors=self._executor_of) as machine:
                opened = True
                yield machine
        except (JournalRefused, JournalFailed) as error:
            if opened:
                raise
            raise click.UsageError(f"{self._path}: [host]: journal: {error.journal}: {error.why}") from None

    def _executor_of(self, session_id: SessionId) -> Handler | None:
        """Return the handler of a session that the journal remembers; None if it is not one of ours any more."""
        for each in self._config.sessions:
            if each.name == session_id:
                return each.handler or _print
        _logger.warning("session %s is in the journal and not in %s; it waits", session_id, self._path)
        return None

    async def _open_all(self, network: SocketNetwork, machine: MeerkatMachine) -> Listening | None:
        """Open everything, and say so; return where the status is asked for."""
        for each in self._config.sessions:
            try:
                comms = await network.open(
                    each.identity,
                    runtime_id=each.name,
                    listen=each.listen,
                    trusted=each.trusted,
                    advertise=each.advertise,
                    **each.lanes,  # type: ignore[arg-type] # each key has its type
                )
            except (OSError, ValueError) as error:
                raise click.UsageError(f"{self._path}: session {each.name!r}: {each.listen}: {_why(error)}") from None
            self._transports[each.name] = comms
            session = await self._session_of(machine, each)
            await session.attach_ingress(comms)
        status = None
        if self._config.status is not None:
            try:
                status = await listen(self._config.status)
            except (OSError, ValueError) as error:
                raise click.UsageError(f"{self._path}: [host]: status: {_why(error)}") from None
        for name, comms in self._transports.items():
            click.echo(f"{name}  {comms.peer_id}  {comms.advertised_address}")
        sys.stdout.flush()
        return status

    async def _session_of(self, machine: MeerkatMachine, config: SessionConfig) -> Session:
        """Return a session: the one that the journal remembers, unless it was stopped; else a new one."""
        if config.name in machine and machine[config.name].end is None:
            return machine[config.name]
        return await machine.register(config.name, config.handler or _print, **config.options)  # type: ignore[arg-type]

    async def _wait_for_goodbye(self, signals: AsyncIterator[int], machine: MeerkatMachine) -> None:
        async for number in signals:
            if number != signal.SIGUSR1:
                _logger.info("shutting down: %s", signal.Signals(number).name)
                return
            click.echo(json.dumps(snapshot_of(machine, self._transports)), err=True)

    async def _shut_down(self, machine: MeerkatMachine) -> None:
        """Admit nothing more, let what is admitted be handled and answered, then close."""
        await machine.stop_drains()
        with trio.move_on_after(self._config.grace) as grace:
            if self._config.journal is not None:
                # Retired they would be for the next process too.
                await _until_handled(machine)
                return
            async with trio.open_nursery() as nursery:
                for session in machine:
                    nursery.start_soon(_finish, session)
        if grace.cancelled_caught:
            _logger.warning("%d messages were not handled within the grace time", machine.statistics().queued)


async def _until_handled(machine: MeerkatMachine) -> None:
    async with machine.subscribe() as steps:
        # One without a handler waits for the next process.
        while any(session.statistics().queued for session in machine if session.phase is not SessionPhase.IDLE):
            await anext(steps, None)


async def _finish(session: Session) -> None:
    # A supervisor may have ended it meanwhile.
    with suppress(MeerkatError, trio.ClosedResourceError):
        await session.retire()


async def _print(run: SessionRun) -> None:
    message = run.message
    body = json.dumps(message.body, default=repr, ensure_ascii=False)
    click.echo(f"{run.session.id}  {message.sender}  {body}")
    await trio.lowlevel.checkpoint()


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
