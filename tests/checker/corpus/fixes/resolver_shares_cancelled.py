"""A resolver that looks up a name once for everybody who asks at the same time.

The shape is that of https://github.com/aio-libs/aiohttp/issues/3431: the one who does the lookup is timed out, and
all who wait for it are cancelled.
Right here: only a failed lookup is everybody's; when the leader is cancelled, the next one leads.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

KIND: str = "foreign Cancelled (single flight, leader cancelled)"
ORACLE: str | None = "foreign"
MODE: str = "fair"


@attrs.define(eq=False)
class Flight:
    landed: trio.Event = attrs.field(factory=trio.Event)
    address: str | None = None
    error: BaseException | None = None


class Resolver:
    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    async def resolve(self, host: str) -> str:
        while (flight := self._flights.get(host)) is not None:
            await flight.landed.wait()
            if flight.error is not None:
                raise flight.error
            if flight.address is not None:
                return flight.address
        flight = self._flights[host] = Flight()
        try:
            flight.address = await self._ask(host)
            return flight.address
        except OSError as exc:
            flight.error = exc
            raise
        finally:
            del self._flights[host]
            flight.landed.set()

    async def _ask(self, host: str) -> str:
        await trio.sleep(0.2)
        return f"{host} is at 192.0.2.1"


async def scenario(x: Any) -> None:
    resolver = Resolver()
    answers: list[str] = []

    async def follow() -> None:
        await trio.sleep(0.1)
        answers.append(await resolver.resolve("example.org"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        nursery.start_soon(follow)
        with x.victim():
            await resolver.resolve("example.org")
    x.log(f"answers: {answers}")
