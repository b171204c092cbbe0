"""What a run can be found guilty of. Data only."""

from __future__ import annotations

import re
from typing import Final

from attrs import Factory, field, frozen

__all__ = ["KINDS", "CheckFailed", "Finding", "without_addresses"]

KINDS: Final = {
    "exception": "an exception left the scenario",
    "check": "a check of the scenario failed",
    "deadlock": "nobody can run, and no deadline will ever wake anybody",
    "livelock": "the run does not come to its end",
    "swallowed": "a Cancelled was caught and not raised again",
    "masked": "an error was lost because a Cancelled took its place",
    "foreign": "a Cancelled was raised in a task that nobody cancelled",
    "slow to die": "a cancelled scope took longer to end than allowed",
    "leaked task": "the scenario has ended and left tasks running",
    "leaked lock": "a lock is still held",
    "leaked semaphore": "a semaphore has another value than at first",
    "leaked limiter": "tokens of a limiter are still with tasks that have ended",
    "leaked generator": "an async generator was left suspended",
    "open channel": "an end of a memory channel is still open",
    "unclosed resource": "a resource was never closed",
    "misnested scope": "a cancel scope was left in another order than it was entered",
}
"""Every kind of finding, and what it means."""


# Texts of errors and of what is logged may name objects, which lie elsewhere in every run.
_ADDRESS: Final = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def without_addresses(text: str) -> str:
    """Return a text that is the same in every run although it names objects by where they lie in memory."""
    return _ADDRESS.sub("0x…", text) if "0x" in text else text


class CheckFailed(AssertionError):
    """A check that a scenario made through its `Exploration` failed."""


@frozen(kw_only=True, eq=False)
class Finding:
    """What is wrong with a run."""

    kind: str
    """One of `KINDS`."""
    message: str
    """What happened, and where."""
    exception: BaseException | None = field(default=None, repr=False)
    """The exception, if there is one."""
    exception_name: str = field(
        default=Factory(lambda self: "" if self.exception is None else type(self.exception).__name__, takes_self=True)
    )
    """The name of its class."""
    hypothetical: bool = False
    """Whether a scope was cancelled that the code may rely on nobody else to cancel."""

    @property
    def signature(self) -> tuple[str, str]:
        """What two runs that show the same bug have in common."""
        return self.kind, self.exception_name
