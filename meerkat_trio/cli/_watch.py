"""`meerkat-trio watch`: shows the sessions of a host, live."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click
import trio
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from ..authority import PeerAddress
from ..comms._addresses import connect
from ..testing._lanes import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._status import Snapshot

__all__ = ["watch"]

_LONGEST: Final = 64 * 1024 * 1024
_PIECE: Final = 64 * 1024


@click.command()
@click.argument("address")
@click.option("--once", is_flag=True, help="Show how it stands and end.")
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object a line.")
def watch(*, address: str, once: bool, json_: bool) -> None:
    """Show the sessions of the host whose status address is ADDRESS: phases, owners, generations, queues, rates."""
    try:
        parsed = PeerAddress(address)
    except ValueError as error:
        raise click.UsageError(f"ADDRESS: {error}") from None
    try:
        trio.run(_watch, parsed, once, json_)
    except (OSError, trio.BrokenResourceError) as error:
        why = getattr(error, "strerror", None) or "the host is gone"
        raise click.ClickException(f"{address}: {why}") from None
    except ValueError as error:
        raise click.ClickException(f"{address}: this is no host's status: {error}") from None


async def _watch(address: PeerAddress, once: bool, json_: bool) -> None:  # noqa: FBT001 - of the command alone
    before: Snapshot | None = None
    stream = await connect(address)
    async with stream:
        if json_ or once:
            async for line, snapshot in _snapshots(stream):
                click.echo(line.decode()) if json_ else Console().print(_tree(address, snapshot, None))
                sys.stdout.flush()
                if once:
                    return
        else:
            with Live(console=Console(), auto_refresh=False) as live:
                async for _, snapshot in _snapshots(stream):
                    live.update(_tree(address, snapshot, before), refresh=True)
                    before = snapshot
    raise trio.BrokenResourceError


async def _snapshots(stream: trio.SocketStream) -> AsyncIterator[tuple[bytes, Snapshot]]:
    buffer = b""
    while data := await stream.receive_some(_PIECE):
        *lines, buffer = (buffer + data).split(b"\n")
        if len(buffer) > _LONGEST:
            raise ValueError("a line without end")
        for line in lines:
            snapshot = json.loads(line)
            if not isinstance(snapshot, dict) or not {"sessions", "total", "time"} <= set(snapshot):
                raise ValueError("no snapshot")
            yield line, snapshot


def _tree(address: str, snapshot: Snapshot, before: Snapshot | None) -> Tree:
    total = snapshot["total"]
    tree = Tree(
        f"{shown(address)}  {total['sessions']} sessions, {total['live_drains']} drains, "
        f"{total['queued']} queued, {total['handled']} handled"
    )
    earlier = {} if before is None else {each["name"]: each for each in before["sessions"]}
    seconds = 0.0 if before is None else snapshot["time"] - before["time"]
    for each in snapshot["sessions"]:
        branch = tree.add(Text(f"{shown(each['name'])}  {each['phase']}, owned by {shown(each['owner'])}"))
        drain, waiting = each["drain"], each["waiting"]
        branch.add(Text(f"drain {drain['generation']} {drain['phase']}, {drain['rebinds']} rebinds"))
        branch.add(Text(f"waiting {waiting['control']} control, {waiting['work']} work; queued {each['queued']}"))
        branch.add(Text(f"handled {each['handled']}{_rate(each, earlier.get(each['name']), seconds)}"))
        if each["supervisor"] is not None:
            branch.add(Text(f"supervisor {each['supervisor']}"))
    return tree


def _rate(session: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> str:
    if before is None or seconds <= 0:
        return ""
    return f", {(session['handled'] - before['handled']) / seconds:.0f} per second"
