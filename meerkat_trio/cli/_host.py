"""`meerkat-trio host`: sessions of a configuration, until it is told to go; here those over sockets."""

from __future__ import annotations

import logging
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from .._exceptions import JournalFailed, JournalRefused, MeerkatError
from .._machine import open_machine
from ..authority import SessionPhase
from ..comms import SocketNetwork
from ..journals import SqliteJournal
from ._host_config import HostConfig, SessionConfig, read_config
from ._hosting import SIGNALS, executor_of, listen_for_watchers, print_message, wait_for_goodbye, why
from ._status import serve_status, snapshot_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._machine import MeerkatMachine
    from .._session import Session
    from ..comms import SocketComms

__all__ = ["host"]

_logger = logging.getLogger("meerkat_trio.host")


@click.command()
@click.option(
    "--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A TOML file."
)
@click.option("--verbose", is_flag=True, help="Log more than warnings.")
def host(*, config: Path, verbose: bool) -> None:
    """Host the sessions of a configuration.

    Prints a line for each session once it listens, or has its home here. SIGTERM and SIGINT shut down: nothing more is
    admitted, what is admitted is handled within the grace time or stays in the journal, and what is not admitted stays
    with its senders. SIGUSR1 prints the statistics.
    """
    read = read_config(config)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if read.redis is None:
        trio.run(_Host(read, config).run)
    else:
        _run_shared(read, config)


def _run_shared(read: HostConfig, config: Path) -> None:
    try:
        from ._shared_host import SharedHost  # noqa: PLC0415 - Redis is an extra
    except ImportError as error:
        raise click.UsageError(f"{config}: [host]: redis: {error}") from None
    trio.run(SharedHost(read, config).run)


class _Host:
    def __init__(self, config: HostConfig, path: Path) -> None:
        self._config = config
        self._path = path
        self._transports: dict[str, SocketComms] = {}

    async def run(self) -> None:
        """Be the main task.

        **Cancellation:** everything is cut at once.
        """
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with SocketNetwork() as network, self._open_machine() as machine:
                await self._open_all(network, machine)
                status = await listen_for_watchers(self._config.status, self._path)
                for name, comms in self._transports.items():
                    click.echo(f"{name}  {comms.peer_id}  {comms.advertised_address}")
                sys.stdout.flush()
                async with trio.open_nursery() as nursery:
                    if status is not None:
                        nursery.start_soon(serve_status, status, lambda: snapshot_of(machine, self._transports))
                    await wait_for_goodbye(signals, lambda: snapshot_of(machine, self._transports))
                    await self._shut_down(machine)
                    nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def _open_machine(self) -> AsyncGenerator[MeerkatMachine, None]:
        config = self._config
        journal = None
        if config.journal is not None:
            journal = SqliteJournal(config.journal, durability=config.durability)
        executors = executor_of(config.sessions, self._path)
        opened = False
        try:
            async with open_machine(grace=config.grace, journal=journal, executors=executors) as machine:
                opened = True
                yield machine
        except (JournalRefused, JournalFailed) as error:
            if opened:
                raise
            raise click.UsageError(f"{self._path}: [host]: journal: {error.journal}: {error.why}") from None

    async def _open_all(self, network: SocketNetwork, machine: MeerkatMachine) -> None:
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
                raise click.UsageError(f"{self._path}: session {each.name!r}: {each.listen}: {why(error)}") from None
            self._transports[each.name] = comms
            session = await self._session_of(machine, each)
            await session.attach_ingress(comms)

    async def _session_of(self, machine: MeerkatMachine, config: SessionConfig) -> Session:
        """Return a session: the one that the journal remembers, unless it was stopped; else a new one."""
        if config.name in machine and machine[config.name].end is None:
            return machine[config.name]
        return await machine.register(config.name, config.handler or print_message, **config.options)  # type: ignore[arg-type]

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
