"""Whether register + attach costs more per session in a crowd: 100,000 sessions against 1,000.

The floor is ours too, with a hundredth of the sessions: what grows faster than the crowd shows as a ratio
above one.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final

import meerkat_trio

from ._measure import Contestant, Goal, Row, Setting
from ._ours import made_comms, register_all, run_ours

__all__ = ["SETTINGS"]

_NAME: Final = "register-crowd"


async def _register(count: int) -> float:
    comms = made_comms(meerkat_trio.MemoryNetwork(), count)
    async with meerkat_trio.open_machine() as machine:
        start = perf_counter()
        await register_all(machine, comms)
        return (perf_counter() - start) / count * 1e6


SETTINGS: Final = (
    Setting(
        rows=(Row(name=_NAME, what="register + attach one of 100,000 sessions", unit="us", goal=Goal(limit=1.6)),),
        floor=Contestant(
            label="sessions, a hundredth as many",
            turn=lambda scale: {_NAME: run_ours(_register, scale, max(1, scale.crowd // 100))},
        ),
        ours=Contestant(label="sessions", turn=lambda scale: {_NAME: run_ours(_register, scale, scale.crowd)}),
        deep=True,
    ),
)
