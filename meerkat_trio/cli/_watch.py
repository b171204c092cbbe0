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
    async with await connect(address) as stream:
        lines = _Lines(stream)
        if once or json_:
            while True:
                line, snapshot = await lines.read()
                click.echo(line.decode()) if json_ else Console().print(_tree(address, snapshot, None))
                sys.stdout.flush()
                if once:
                    return
        before: Snapshot | None = None
        with Live(console=Console(), auto_refresh=False) as live:
            while True:
                _, snapshot = await lines.read()
                live.update(_tree(address, snapshot, before), refresh=True)
                before = snapshot


class _Lines:
    """The host's snapshots, a line each."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def read(self) -> tuple[bytes, Snapshot]:
        """Wait for the next one.

        Raises:
            trio.BrokenResourceError: the host is gone.
            ValueError: it is no host.
        """
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some(_PIECE)
            if not data:
                raise trio.BrokenResourceError
            self._buffer += data
            if len(self._buffer) > _LONGEST:
                raise ValueError("a line without end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        snapshot = json.loads(line)
        if not isinstance(snapshot, dict) or not {"sessions", "total", "time"} <= set(snapshot):
            raise ValueError("no snapshot")
        return line, snapshot


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
    _add_homes(tree, snapshot)
    return tree


def _add_homes(tree: Tree, snapshot: Snapshot) -> None:
    """Show who is home to what, if the host shares its sessions."""
    homes = snapshot.get("homes")
    if not isinstance(homes, dict):
        return
    by_host: dict[str, list[str]] = {}
    for session, home in sorted(homes.items()):
        by_host.setdefault("nobody" if home is None else str(home), []).append(str(session))
    branch = tree.add(Text("homes"))
    for home, sessions in sorted(by_host.items()):
        here = ", this host" if home == snapshot.get("host") else ""
        branch.add(Text(f"{shown(home)}{here}: {', '.join(map(shown, sessions))}"))


def _rate(session: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> str:
    if before is None or seconds <= 0:
        return ""
    return f", {(session['handled'] - before['handled']) / seconds:.0f} per second"
