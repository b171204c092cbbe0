"""What hosts have in common: when they go, what they do without a handler, how they say where their status is."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click
import trio

from ..comms._addresses import listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from .._session import Handler, SessionRun
    from ..authority import SessionId
    from ..comms._addresses import Listening
    from ._host_config import SessionConfig
    from ._status import Snapshot

__all__ = ["SIGNALS", "executor_of", "listen_for_watchers", "print_message", "wait_for_goodbye", "why"]

_logger = logging.getLogger("meerkat_trio.host")

_GOODBYES: Final = (signal.SIGTERM, signal.SIGINT)
SIGNALS: Final = (*_GOODBYES, signal.SIGUSR1)
"""What a host listens to."""


async def wait_for_goodbye(signals: AsyncIterator[int], snapshot: Callable[[], Snapshot]) -> None:
    """Return when the host is told to go; print the statistics whenever they are asked for."""
    async for number in signals:
        if number in _GOODBYES:
            _logger.info("shutting down: %s", signal.Signals(number).name)
            return
        click.echo(json.dumps(snapshot()), err=True)


async def listen_for_watchers(address: str | None, path: Path) -> Listening | None:
    """Listen at the status address, if there is one."""
    if address is None:
        return None
    try:
        return await listen(address)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: [host]: status: {why(error)}") from None


def executor_of(sessions: Iterable[SessionConfig], path: Path) -> Callable[[SessionId], Handler | None]:
    """Return what finds the handler of a session that the journal remembers; None if it is not one of ours any more."""
    by_name = {each.name: each.handler or print_message for each in sessions}

    def find(session_id: SessionId) -> Handler | None:
        if session_id not in by_name:
            _logger.warning("session %s is in the journal and not in %s; it waits", session_id, path)
        return by_name.get(session_id)

    return find


async def print_message(run: SessionRun) -> None:
    """Handle a message by printing it."""
    message = run.message
    body = json.dumps(message.body, default=repr, ensure_ascii=False)
    click.echo(f"{run.session.id}  {message.sender}  {body}")
    await trio.lowlevel.checkpoint()


def why(error: Exception) -> str:
    """Say in a few words what is wrong."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
