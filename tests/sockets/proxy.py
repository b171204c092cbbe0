"""A proxy that does to connections what networks do: it delays, cuts, half-closes, and splits."""

from __future__ import annotations

import random

import trio

from meerkat_trio.authority import PeerAddress
from meerkat_trio.comms._addresses import connect

__all__ = ["Proxy"]

_PIECE = 16 * 1024


class Proxy:
    """Listens at ``address`` and passes everything on to ``target``, with faults that a seed decides."""

    def __init__(self, target: str, seed: int, *, faults: int) -> None:
        self._target = PeerAddress(target)
        self._dice = random.Random(seed)
        self._faults_left = faults
        self.cuts = 0
        self.address = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, near: trio.SocketStream) -> None:
        # Connections are taken up late, each by another while: so they change their order.
        await self._wait()
        try:
            far = await connect(self._target)
        except OSError:
            return
        async with far, trio.open_nursery() as nursery:
            life = self._draw_life()
            nursery.start_soon(self._pass_on, near, far, life, nursery.cancel_scope)
            nursery.start_soon(self._pass_on, far, near, life, nursery.cancel_scope)

    def _draw_life(self) -> list[float]:
        """After how many bytes of both ways together a connection is cut."""
        if not self._faults_left:
            return [float("inf")]
        self._faults_left -= 1
        return [self._dice.choice((0, 50, 500, 5_000, 20_000)) * self._dice.random()]

    async def _wait(self) -> None:
        for _ in range(self._dice.randrange(20)):
            await trio.lowlevel.checkpoint()

    async def _pass_on(
        self, source: trio.SocketStream, sink: trio.SocketStream, life: list[float], scope: trio.CancelScope
    ) -> None:
        try:
            while data := await source.receive_some(_PIECE):
                life[0] -= len(data)
                if life[0] < 0:
                    # What has come is passed on in part: the cut is inside a frame.
                    await sink.send_all(data[: self._dice.randrange(len(data))])
                    self.cuts += 1
                    if self._dice.random() < 0.5:
                        await sink.send_eof()
                    scope.cancel()
                    return
                if self._faults_left:
                    await self._wait()
                at = self._dice.randrange(len(data)) if self._faults_left else 0
                for piece in filter(None, (data[:at], data[at:])):
                    await sink.send_all(piece)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()
