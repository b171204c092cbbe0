"""Sessions on two hosts ask and answer each other over Redis, also while one of them is rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

import meerkat_trio
from meerkat_trio import ResponseStatus
from meerkat_trio.comms import RedisNetwork

from .rig import SOON, introduce, opened, peers

if TYPE_CHECKING:
    from .rig import Server


async def test_a_session_asks_another_one_on_another_host(shared_server: Server) -> None:
    async def answer(run: meerkat_trio.SessionRun) -> None:
        await run.reply(ResponseStatus.COMPLETED, {"twice": 2 * run.message.body["number"]})

    async def refuse(run: meerkat_trio.SessionRun) -> None:
        raise AssertionError(run.message)

    url = shared_server.url
    async with (
        RedisNetwork(url, namespace="sessions", limits=SOON) as here,
        RedisNetwork(url, namespace="sessions", limits=SOON) as there,
        meerkat_trio.open_machine() as machine,
    ):
        alice, bob = await peers((here, "alice"), (there, "bob"))
        asking, asked = await machine.register("asking", refuse), await machine.register("asked", answer)
        await asking.attach_ingress(alice)
        await asked.attach_ingress(bob)
        with trio.fail_after(20):
            for number in range(5):
                response = await asking.request(bob.peer_id, "double", {"number": number})
                assert response == {"twice": 2 * number}
                rebuilt = await opened(there, "bob")
                introduce(rebuilt, alice)
                await asked.attach_ingress(rebuilt)
                await bob.aclose()
                bob = rebuilt
