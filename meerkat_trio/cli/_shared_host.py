"""`meerkat-trio host` with Redis: the sessions of a configuration are shared with the other hosts that have it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import attrs
import click
import trio

from .._homes import Homes, share_sessions
from .._machine import open_machine
from ..comms import RedisLimits, RedisNetwork
from ..journals import RedisJournal
from ._hosting import SIGNALS, executor_of, listen_for_watchers, print_message, wait_for_goodbye
from ._status import serve_status, snapshot_of

if TYPE_CHECKING:
    from pathlib import Path

    from .._machine import MeerkatMachine
    from ..comms import Fence, RedisComms
    from ._host_config import HostConfig
    from ._status import Snapshot

__all__ = ["SharedHost"]

_KEYS: Final = {"url": "redis", "host": "name"}
"""What arguments are called in the file."""


class SharedHost:
    """One of several hosts."""

    def __init__(self, config: HostConfig, path: Path) -> None:
        self._config = config
        self._path = path
        self._by_name = {each.name: each for each in config.sessions}
        self._transports: dict[str, RedisComms] = {}
        limits = RedisLimits()
        # What a host that is gone had read is taken over as soon as its sessions are.
        self._limits = attrs.evolve(limits, gone_after=min(limits.gone_after, config.lease))
        self._machine: MeerkatMachine
        self._network: RedisNetwork

    async def run(self) -> None:
        """Be the main task.

        **Cancellation:** everything is cut at once; the leases end by themselves.
        """
        config = self._config
        try:
            journal = RedisJournal(
                config.redis or "",
                namespace=config.namespace,
                lease=config.lease,
                host=config.name,
                limits=self._limits,
            )
            network = RedisNetwork(config.redis or "", namespace=config.namespace, limits=self._limits)
        except ValueError as error:
            name, _, why = str(error).partition(": ")
            raise click.UsageError(f"{self._path}: [host]: {_KEYS.get(name, name)}: {why}") from None
        executors = executor_of(config.sessions, self._path)
        # What is wrong with the address is said before anything is said of the server.
        status = await listen_for_watchers(config.status, self._path)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with network, open_machine(grace=config.grace, journal=journal, executors=executors) as machine:
                self._machine, self._network = machine, network
                async with (
                    share_sessions(machine, journal, self._by_name, self._serve) as homes,
                    trio.open_nursery() as nursery,
                ):
                    click.echo(f"{homes.host}  shares {len(self._by_name)} sessions")
                    sys.stdout.flush()
                    if status is not None:
                        nursery.start_soon(serve_status, status, lambda: self._snapshot(homes))
                    await wait_for_goodbye(signals, lambda: self._snapshot(homes))
                    nursery.cancel_scope.cancel()

    async def _serve(self, session_id: str, fence: Fence) -> RedisComms:
        config = self._by_name[session_id]
        machine = self._machine
        session = await machine.restore(session_id)
        if session is None or session.end is not None:
            session = await machine.register(session_id, config.handler or print_message, **config.options)  # type: ignore[arg-type]
        comms = await self._network.open(
            config.identity,
            runtime_id=session_id,
            trusted=config.trusted,
            fence=fence,
            **config.lanes,  # type: ignore[arg-type] # each key has its type
        )
        try:
            await session.attach_ingress(comms)
        except BaseException:
            comms.shut()
            raise
        self._transports[session_id] = comms
        click.echo(f"{session_id}  {comms.peer_id}  {comms.advertised_address}")
        sys.stdout.flush()
        return comms

    def _snapshot(self, homes: Homes) -> Snapshot:
        found = snapshot_of(self._machine, self._transports)
        return {**found, "host": homes.host, "homes": dict(homes.where)}
