"""A recorder that can be restarted: the old run ends, a new one begins, and there is only one camera.

The shape is that of the review in https://github.com/flyte/mqtt-io/pull/207: tasks of the old connection have to be
cancelled *and awaited* before those of the new one begin.
Wrong here: the new run begins when the old one has been told to end.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "overlap of old and new (restart)"
ORACLE: str | None = "exception"
MODE: str = "fair"


class Camera:
    def __init__(self) -> None:
        self._in_use = False

    def open(self) -> None:
        if self._in_use:
            raise trio.BusyResourceError("the camera is in use")
        self._in_use = True

    def close(self) -> None:
        self._in_use = False


class Recorder:
    def __init__(self, camera: Camera, nursery: trio.Nursery) -> None:
        self._camera = camera
        self._nursery = nursery
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def start(self) -> None:
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._record, self._scope, self._ended)

    async def _record(self, scope: trio.CancelScope, ended: trio.Event) -> None:
        with scope:
            self._camera.open()
            try:
                await trio.sleep_forever()
            finally:
                self._camera.close()
                ended.set()

    async def restart(self) -> None:
        self._scope.cancel()
        self.start()

    def stop(self) -> None:
        self._scope.cancel()


async def scenario(x: Any) -> None:
    async with trio.open_nursery() as nursery:
        recorder = Recorder(Camera(), nursery)
        recorder.start()
        await trio.sleep(1)
        await recorder.restart()
        await trio.sleep(1)
        recorder.stop()
