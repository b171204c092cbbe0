"""Database sessions from a pool; a session is rolled back before the next user gets it.

The shape is that of https://github.com/encode/httpx/issues/1461 and
https://github.com/MagicStack/asyncpg/issues/467: a connection goes back to its pool only after an await, which a
cancelled user does not survive.
Right here: the rollback is shielded (it is short), and the session goes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

KIND: str = "clean-up that awaits (returned to the pool only after an await)"
ORACLE: str | None = "deadlock"
MODE: str = "fair"


@attrs.define(eq=False)
class Session:
    name: str
    pending: list[str] = attrs.field(factory=list)

    async def execute(self, statement: str) -> None:
        self.pending.append(statement)
        await trio.sleep(0.1)

    async def rollback(self) -> None:
        await trio.lowlevel.checkpoint()
        self.pending.clear()


class Pool:
    def __init__(self, *names: str) -> None:
        self._put, self._get = trio.open_memory_channel[Session](len(names))
        for name in names:
            self._put.send_nowait(Session(name))

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        session = await self._get.receive()
        try:
            yield session
        finally:
            with trio.CancelScope(shield=True):
                await session.rollback()
            self._put.send_nowait(session)


async def scenario(x: Any) -> None:
    pool = Pool("only")
    with x.victim():
        async with pool.session() as session:
            await session.execute("UPDATE stock SET count = 0")
    async with pool.session() as session:
        x.check(not session.pending, "somebody else's statement is still pending")
        await session.execute("SELECT 1")
