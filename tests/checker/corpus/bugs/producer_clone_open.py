"""Several sensors write into one channel; the recorder ends when the last of them has closed its end.

Related to https://github.com/python-trio/trio/issues/719, where the closing of channels and of their clones is
discussed: one clone that is forgotten keeps the receiver waiting.
Wrong here: a sensor that is cancelled while it warms up never gets to closing its end.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "deadlock (channel clone not closed)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


class Sensor:
    def __init__(self, name: str, out: trio.MemorySendChannel[str]) -> None:
        self._name = name
        self._out = out

    async def run(self) -> None:
        await trio.sleep(0.5)  # warm up
        async with self._out:
            for reading in range(2):
                await self._out.send(f"{self._name}={reading}")


class Recorder:
    def __init__(self, source: trio.MemoryReceiveChannel[str]) -> None:
        self._source = source
        self.readings: list[str] = []

    async def run(self) -> None:
        async with self._source:
            async for reading in self._source:
                self.readings.append(reading)


async def scenario(x: Any) -> None:
    send, receive = trio.open_memory_channel[str](0)
    recorder = Recorder(receive)
    async with trio.open_nursery() as nursery, send:
        nursery.start_soon(recorder.run)
        nursery.start_soon(Sensor("indoor", send.clone()).run)
        with x.victim():
            await Sensor("outdoor", send.clone()).run()
    x.check({"indoor=0", "indoor=1"} <= set(recorder.readings), f"recorded: {recorder.readings}")
