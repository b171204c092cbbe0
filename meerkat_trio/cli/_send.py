"""`meerkat-trio send`: sends the lines of a file to a peer, in order, and says what became of them."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import click
import trio

from .._messages import Receipt, ReceiptStatus
from ..authority import DropReason
from ..comms import Identity, KeyFileRefused, SocketNetwork, TrustFileRefused
from ..testing._lanes import shown
from ._demo_input import InputError
from ._demo_report import progress
from ._keygen import SECRET_KEY
from ._send_input import LONGEST_LINE, Line, read_line
from ._trust import trusted_by

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from ..authority import PeerEndpoint
    from ..comms import RedisNetwork
    from ..comms._inbox_comms import InboxComms

__all__ = ["send"]

_PIECE: Final = 64 * 1024
_ON_THEIR_WAY: Final = 256
"""Messages that wait for their receipts to be read here, beside those that wait for answers."""


@click.command()
@click.argument("address")
@click.option(
    "--key",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Whose messages they are: a directory of keygen.",
)
@click.option("--file", "file", default="-", metavar="FILE", help="JSON Lines; by default standard input.")
@click.option(
    "--timeout",
    "patience",
    type=click.FloatRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="Seconds to look for the peer.",
)
@click.option("--redis", metavar="URL", help="The server through which the peer is reached, instead of sockets.")
@click.option("--namespace", default="meerkat", show_default=True, help="What the server's keys begin with.")
@click.option("--again", is_flag=True, help="Send under new ids what may have been sent before.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object.")
def send(
    *,
    address: str,
    directory: Path,
    file: str,
    patience: float,
    redis: str | None,
    namespace: str,
    again: bool,
    json_: bool,
) -> None:
    """Send each line of a file to the peer at ADDRESS, which DIR/trust.jsonl has.

    A line is {"body": …}, with an "id" if you like; without one it follows from the line's number and text. So a file
    that was sent in part can be sent again: what was admitted within six minutes is not admitted twice.

    Exit status 0 only if everything was admitted.
    """
    identity, endpoint = _peers(directory, address)
    salt = f"-{secrets.token_hex(4)}" if again else ""
    way = _Sockets(patience) if redis is None else _by_redis(redis, namespace, patience)
    source = _Source(file, salt)
    with ExitStack() as stack:
        stack.callback(source.close)
        total = source.check()
        outcome = _Outcome(progress(stack, total, "admitted"))
        try:
            trio.run(_send_all, source, way, identity, endpoint, outcome)
        finally:
            stack.close()
            outcome.tell(endpoint, as_json=json_)
    if source.error is not None:
        raise click.UsageError(str(source.error))
    sys.exit(0 if outcome.is_good else 1)


def _peers(directory: Path, address: str) -> tuple[Identity, PeerEndpoint]:
    try:
        identity, trusted = Identity.load(directory / SECRET_KEY), trusted_by(directory)
    except (KeyFileRefused, TrustFileRefused) as refused:
        raise click.UsageError(shown(str(refused))) from None
    known = [each for each in trusted if each.address == address]
    if len(known) != 1:
        found = "nobody" if not known else f"{len(known)} peers"
        raise click.UsageError(
            f"ADDRESS: the trust file in {directory} has {found} at {shown(address)}; one is needed: see `trust add`"
        )
    return identity, known[0]


class _Outcome:
    """What became of the messages."""

    def __init__(self, on_progress: Callable[[int], None]) -> None:
        self._on_progress = on_progress
        self.admitted = 0
        self.dropped: Counter[DropReason] = Counter()
        self.sent = 0

    def count(self, receipt: Receipt) -> None:
        if receipt.status is ReceiptStatus.ADMITTED:
            self.admitted += 1
            self._on_progress(self.admitted)
        elif receipt.reason is not None:
            self.dropped[receipt.reason] += 1

    @property
    def is_good(self) -> bool:
        return self.admitted == self.sent

    def tell(self, endpoint: PeerEndpoint, *, as_json: bool) -> None:
        dropped = {
            reason.value: count for reason, count in sorted(self.dropped.items(), key=lambda each: each[0].value)
        }
        if as_json:
            told = {"address": endpoint.address, "peer_id": endpoint.peer_id, "sent": self.sent}
            click.echo(json.dumps({**told, "admitted": self.admitted, "dropped": dropped}))
            return
        parts = [
            f"{self.admitted} of {self.sent} admitted",
            *(f"{count} {reason}" for reason, count in dropped.items()),
        ]
        click.echo(", ".join(parts))


class _Source:
    """The lines; a regular file is checked to its end before anything is sent."""

    def __init__(self, file: str, salt: str) -> None:
        self._salt = salt
        self._number = 0
        self._rest = b""
        self._is_at_end = False
        self.error: InputError | None = None
        self._name = "<stdin>" if file == "-" else file
        try:
            if file == "-" and sys.stdin is None:
                raise click.UsageError("--file -: standard input is closed")
            self._handle = os.dup(sys.stdin.fileno()) if file == "-" else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise click.UsageError(f"--file {file}: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._handle)

    def check(self) -> int | None:
        """Check a regular file, and count its messages; None for anything else."""
        try:
            path = Path(f"/proc/self/fd/{self._handle}") if self._name == "<stdin>" else Path(self._name)
            if not path.is_file():
                return None
            with path.open("rb") as file:
                lines = enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1)
                return sum(read_line(self._name, number, line, "") is not None for number, line in lines)
        except OSError as error:
            raise click.UsageError(f"--file {self._name}: {error.strerror}") from None
        except InputError as error:
            raise click.UsageError(str(error)) from None

    async def read(self) -> list[Line]:
        """Read what there is, without holding the others up; nothing at the end, or at a line that is malformed.

        **Cancellation:** what is being read is left.
        """
        lines: list[Line] = []
        while not lines and self.error is None and not self._is_at_end:
            piece = await trio.to_thread.run_sync(os.read, self._handle, _PIECE, abandon_on_cancel=True)
            self._is_at_end = not piece
            *whole, self._rest = (self._rest + piece).split(b"\n") if piece else (self._rest, b"")
            if len(self._rest) > LONGEST_LINE:
                whole.append(self._rest)  # which is refused
            try:
                for line in whole:
                    self._number += 1
                    if (found := read_line(self._name, self._number, line, self._salt)) is not None:
                        lines.append(found)
            except InputError as error:
                self.error = error
        return lines


class _Way(Protocol):
    """How peers are reached."""

    def open(self, identity: Identity, endpoint: PeerEndpoint) -> AbstractAsyncContextManager[InboxComms]: ...


class _Sockets:
    def __init__(self, patience: float) -> None:
        self._patience = patience

    @asynccontextmanager
    async def open(self, identity: Identity, endpoint: PeerEndpoint) -> AsyncGenerator[InboxComms, None]:
        async with SocketNetwork() as network:
            yield await network.open(identity, runtime_id="send", trusted=[endpoint], patience=self._patience)


class _Redis:
    def __init__(self, network: RedisNetwork) -> None:
        self._network = network

    @asynccontextmanager
    async def open(self, identity: Identity, endpoint: PeerEndpoint) -> AsyncGenerator[InboxComms, None]:
        async with self._network as network:
            yield await network.open(identity, runtime_id="send", trusted=[endpoint])


def _by_redis(url: str, namespace: str, patience: float) -> _Way:
    try:
        from ..comms import RedisLimits, RedisNetwork  # noqa: PLC0415 - Redis is an extra

        limits = RedisLimits(acceptance_window=max(patience, 1.0))
        return _Redis(RedisNetwork(url, namespace=namespace, limits=limits))
    except (ImportError, ValueError) as error:
        raise click.UsageError(f"--redis: {error}") from None


async def _send_all(
    source: _Source,
    way: _Way,
    identity: Identity,
    endpoint: PeerEndpoint,
    outcome: _Outcome,
) -> None:
    """Send everything, and wait for what becomes of it."""
    async with way.open(identity, endpoint) as comms:
        receipts, waiting = trio.open_memory_channel[Receipt](_ON_THEIR_WAY)
        sending = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_count, waiting, outcome, sending)
            async with receipts:
                with sending:
                    while lines := await source.read():
                        for line in lines:
                            outcome.sent += 1
                            await receipts.send(await _sent(comms, endpoint, line))


async def _sent(comms: InboxComms, endpoint: PeerEndpoint, line: Line) -> Receipt:
    return await comms.send(comms.envelope(endpoint.peer_id, line.body, id=line.id))


async def _count(receipts: trio.MemoryReceiveChannel[Receipt], outcome: _Outcome, sending: trio.CancelScope) -> None:
    async for receipt in receipts:
        await receipt.wait()
        outcome.count(receipt)
        if receipt.reason is DropReason.CLOSED:
            # The peer is not to be found: what would come next waited as long for nothing.
            sending.cancel()
