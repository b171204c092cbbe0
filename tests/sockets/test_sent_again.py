"""What was refused for a reason that passes may be sent again as the same message."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio

from meerkat_trio import DropReason, MemoryComms, MemoryNetwork, ReceiptStatus
from meerkat_trio.comms import SocketNetwork

from .rig import SOON, introduce, opened

if TYPE_CHECKING:
    from pathlib import Path

    from meerkat_trio.comms._inbox_comms import InboxComms


async def _refuse_and_admit(receiver: InboxComms, sender: InboxComms, others: int) -> None:
    envelope = sender.envelope(receiver.peer_id, "again")
    with trio.fail_after(20):
        refused = await sender.send(envelope)
        with await receiver.claim() as claim:
            claim.commit(DropReason.NOT_RECORDED)
        await refused.wait()
        assert refused.reason is DropReason.NOT_RECORDED
        for number in range(others):
            await sender.send(sender.envelope(receiver.peer_id, number))
            with await receiver.claim() as claim:
                claim.commit()
        admitted = await sender.send(envelope)
        with await receiver.claim() as claim:
            assert claim.envelope.id == envelope.id
            claim.commit()
        assert await admitted.wait() is ReceiptStatus.ADMITTED


@pytest.mark.parametrize("others", [0, 3])
async def test_what_could_not_be_recorded_is_sent_again_over_sockets(tmp_path: Path, others: int) -> None:
    async with SocketNetwork(SOON) as here, SocketNetwork(SOON) as there:
        receiver = await opened(here, "receiver", f"uds://{tmp_path}/receiver")
        sender = await opened(there, "sender", f"uds://{tmp_path}/sender", patience=math.inf)
        introduce(receiver, sender)
        await _refuse_and_admit(receiver, sender, others)


@pytest.mark.parametrize("others", [0, 3])
async def test_what_could_not_be_recorded_is_sent_again_in_memory(others: int) -> None:
    network = MemoryNetwork()
    await _refuse_and_admit(MemoryComms(network, "receiver"), MemoryComms(network, "sender"), others)
