"""What the hosts of the tests run in processes of their own: a handler that writes down what it does, at once.

A line of the ledger: what, process, nanoseconds of a clock that all processes share, and what it is about.
"""

from __future__ import annotations

import os
import signal
import time
from functools import cache
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from meerkat_trio import SessionRun

LEDGER: Final = "MEERKAT_TEST_LEDGER"
"""The environment's name for where."""
STAGE: Final = "MEERKAT_TEST_STAGE"
"""The environment's name for when the process kills itself: a stage, and the how manieth time it comes."""
PAUSE: Final = "MEERKAT_TEST_PAUSE"
"""The environment's name for the seconds that a message takes."""


@cache
def _ledger() -> int:
    return os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(*words: object) -> None:
    """Write a line."""
    what, *rest = words
    line = " ".join(map(str, (what, os.getpid(), time.monotonic_ns(), *rest)))
    os.write(_ledger(), f"{line}\n".encode())


class Death:
    """When this process is to kill itself."""

    def __init__(self, told: str) -> None:
        stage, _, left = told.partition(":")
        self._stage = stage
        self._left = int(left or 1)

    def passes(self, stage: str) -> None:
        """End here if this is when."""
        if stage and stage == self._stage:
            self._left -= 1
            if not self._left:
                note("died", stage)
                os.kill(os.getpid(), signal.SIGKILL)


DEATH: Final = Death(os.environ.get(STAGE, ""))


async def write_down(run: SessionRun) -> None:
    """Write down that a message is begun, and that it is done with."""
    note("begin", run.session.id, run.message.body)
    DEATH.passes("running")
    await trio.sleep(float(os.environ.get(PAUSE, "0.001")))
    note("end", run.session.id, run.message.body)
