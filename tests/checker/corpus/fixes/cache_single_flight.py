"""A cache in which callers of one key share a load: if the loading caller is cancelled, the others must not be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

ORACLE: str | None = "foreign"
MODE = "fair"


@attrs.define(eq=False)
class Flight:
    done: trio.Event = attrs.field(factory=trio.Event)
    value: str = ""
    error: BaseException | None = None


@attrs.define(eq=False)
class Cache:
    load: Callable[[str], Awaitable[str]]
    values: dict[str, str] = attrs.field(factory=dict)
    flights: dict[str, Flight] = attrs.field(factory=dict)

    async def get(self, key: str) -> str:
        if key in self.values:
            return self.values[key]
        flight = self.flights.get(key)
        if flight is None:
            return await self._fly(key)
        await flight.done.wait()
        if flight.error is not None:
            if not isinstance(flight.error, Exception):
                return await self.get(key)  # that was meant for the other caller alone
            raise flight.error
        return flight.value

    async def _fly(self, key: str) -> str:
        flight = self.flights[key] = Flight()
        try:
            flight.value = self.values[key] = await self.load(key)
        except BaseException as error:
            flight.error = error
            raise
        finally:
            del self.flights[key]
            flight.done.set()
        return flight.value


async def scenario(x: Any) -> None:
    async def load(key: str) -> str:
        await trio.sleep(1)
        return key.upper()

    cache = Cache(load)
    got: list[str] = []

    async def reader() -> None:
        got.append(await cache.get("page"))

    async def impatient_reader() -> None:
        with x.victim():
            await cache.get("page")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient_reader)
        nursery.start_soon(reader)
        nursery.start_soon(reader)
    x.check(all(page == "PAGE" for page in got), f"the readers got {got}")
