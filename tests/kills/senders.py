"""Senders that go on over the deaths of their hosts: every message with one id, in order, until it is admitted."""

from __future__ import annotations

import math
from collections import Counter, deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import trio

from meerkat_trio import EnvelopeKind, Receipt, ReceiptStatus, ResponseStatus
from meerkat_trio.authority import DropReason
from meerkat_trio.comms import SocketComms, SocketNetwork

from .cast import LIMITS, SENDERS, SESSIONS, endpoint, identity, socket_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from meerkat_trio import Envelope

__all__ = ["Line", "Senders"]

_ASKED_EVERY: Final = 3
_WINDOW: Final = 16
"""Messages without a receipt of the patient sender."""
_PATIENCE: Final = {"one": math.inf, "two": 0.1}
"""The first waits for a host as long as it takes; the second is told CLOSED, and sends again."""


@final
class Line:
    """What one sender sends to one session."""

    def __init__(self, sender: str, session: str) -> None:
        self.sender = sender
        self.session = session
        self.sent = 0
        self.again = 0
        self.admitted: list[str] = []

    def id_of(self, number: int) -> str:
        """Return the id of a message; it says what is sent."""
        return f"{self.sender}-{self.session}-{number}"

    def envelope(self, comms: SocketComms, number: int) -> Envelope:
        """Return a message; every third one asks for something."""
        message_id, to = self.id_of(number), identity(self.session).peer_id
        if number % _ASKED_EVERY:
            return comms.envelope(to, number, id=message_id)
        kind = EnvelopeKind.REQUEST
        return comms.envelope(to, number, id=message_id, kind=kind, intent="answer", correlation=message_id)

    @property
    def asked(self) -> set[str]:
        """Ids of admitted messages that ask for something."""
        return {each for each in self.admitted if int(each.rpartition("-")[2]) % _ASKED_EVERY == 0}


@final
class Senders:
    """All senders, each with a line to each session."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stopped = False
        self._running = 0
        self._done = trio.Event()
        self._answered = trio.Event()
        self.lines = [Line(sender, session) for sender in SENDERS for session in SESSIONS]
        self.answers: dict[str, list[tuple[str, ResponseStatus | None, object]]] = {}
        """By request: the answers that came, each with its id, its status and its body."""

    @property
    def admitted(self) -> int:
        return sum(len(line.admitted) for line in self.lines)

    @property
    def asked(self) -> set[str]:
        return set().union(*(line.asked for line in self.lines))

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send for as long as the block lasts, or until `finish`."""
        async with SocketNetwork(LIMITS) as network, trio.open_nursery() as nursery:
            for name in SENDERS:
                comms = await self._open(network, name, _PATIENCE[name])
                nursery.start_soon(self._listen, comms)
                for line in self.lines:
                    if line.sender == name:
                        self._running += 1
                        nursery.start_soon(self._send if math.isfinite(_PATIENCE[name]) else self._stream, line, comms)
            yield
            nursery.cancel_scope.cancel()

    async def finish(self) -> None:
        """Send nothing more, and wait until what was sent is admitted, and what was asked is answered."""
        self._stopped = True
        await self._done.wait()
        while self.asked - self.answers.keys():
            self._answered = trio.Event()
            await self._answered.wait()

    async def _open(self, network: SocketNetwork, name: str, patience: float) -> SocketComms:
        trusted = [endpoint(self._directory, session) for session in SESSIONS]
        return await network.open(
            identity(name),
            runtime_id=name,
            listen=socket_of(self._directory, name),
            trusted=trusted,
            patience=patience,
        )

    async def _listen(self, comms: SocketComms) -> None:
        while True:
            with await comms.claim() as claim:
                answer = claim.envelope
                found = self.answers.setdefault(answer.correlation or "", [])
                found.append((answer.id, answer.status, answer.body))
                claim.commit()
            self._answered.set()

    async def _stream(self, line: Line, comms: SocketComms) -> None:
        """Send many at once; they come in their order, for nothing is given up."""
        waiting: deque[tuple[str, Receipt]] = deque()
        while not self._stopped or waiting:
            if not self._stopped:
                envelope = line.envelope(comms, line.sent)
                line.sent += 1
                waiting.append((envelope.id, await comms.send(envelope)))
            if len(waiting) == _WINDOW or self._stopped:
                message_id, receipt = waiting.popleft()
                assert await receipt.wait() is ReceiptStatus.ADMITTED, (message_id, receipt)
                line.admitted.append(message_id)
        self._one_less()

    async def _send(self, line: Line, comms: SocketComms) -> None:
        """Send one after the other; each again, with its id, until it is admitted."""
        while not self._stopped:
            envelope = line.envelope(comms, line.sent)
            line.sent += 1
            receipt = await comms.send(envelope)
            while await receipt.wait() is not ReceiptStatus.ADMITTED:
                assert receipt.reason in {DropReason.CLOSED, DropReason.EXPIRED}, (envelope.id, receipt)
                line.again += 1
                receipt = await comms.send(envelope)
            line.admitted.append(envelope.id)
        self._one_less()

    def _one_less(self) -> None:
        self._running -= 1
        if not self._running:
            self._done.set()

    async def send_twins(self, last: int) -> Counter[object]:
        """Be senders of another process, which send again the last of what was admitted; count what they are told."""
        told: Counter[object] = Counter()
        async with SocketNetwork(LIMITS) as network:
            comms = {name: await self._open(network, name, math.inf) for name in SENDERS}
            for line in self.lines:
                count = len(line.admitted)
                peer = comms[line.sender]
                receipts = [
                    await peer.send(line.envelope(peer, number)) for number in range(max(0, count - last), count)
                ]
                for receipt in receipts:
                    await receipt.wait()
                    told[receipt.reason or receipt.status] += 1
                # Behind them comes one that is new, so that whoever waits for it knows that they were looked at.
                receipt = await peer.send(line.envelope(peer, line.sent))
                line.sent += 1
                assert await receipt.wait() is ReceiptStatus.ADMITTED
                line.admitted.append(line.id_of(line.sent - 1))
        return told
