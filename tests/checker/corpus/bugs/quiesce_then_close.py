"""A worker that uses a database, and a shutdown that lets it finish before the database is closed.

The shape is that of https://github.com/python-trio/trio/issues/411: one would like to wait for a task's end from
inside the nursery, there is no call for it, and so one waits "long enough".
Wrong here: ten checkpoints stand for "the worker has finished".
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

KIND: str = "order assumption (the worker is surely idle by now)"
ORACLE: str | None = "exception"
MODE: str = "adversarial"


@attrs.define(eq=False)
class Database:
    is_open: bool = True
    rows: list[int] = attrs.field(factory=list)

    async def insert(self, row: int) -> None:
        if not self.is_open:
            raise trio.ClosedResourceError("the database is closed")
        await trio.lowlevel.checkpoint()
        self.rows.append(row)


class Service:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs, self._source = trio.open_memory_channel[int](10)
        self._finished = trio.Event()

    def submit(self, row: int) -> None:
        self._jobs.send_nowait(row)

    async def work(self) -> None:
        try:
            with self._source:
                async for row in self._source:
                    await self._database.insert(row)
        finally:
            self._finished.set()

    async def shut_down(self) -> None:
        self._jobs.close()
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        self._database.is_open = False


async def scenario(x: Any) -> None:
    database = Database()
    service = Service(database)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.work)
        service.submit(1)
        service.submit(2)
        await service.shut_down()
    x.check(database.rows == [1, 2], f"the database holds {database.rows}")
