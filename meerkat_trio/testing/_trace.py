"""What a traced run writes down, how two traces are compared, and how one is shown. Data only: knows no run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["CANCELS", "ENDED", "Kind", "Moment", "Point", "difference", "timeline"]

Kind: TypeAlias = Literal["publish", "step", "tick", "idle"]

CANCELS: Final = "CANCELS"
ENDED: Final = "(ended)"
_AROUND_CANCEL: Final = 8
_AT_END: Final = 24


class Moment(NamedTuple):
    """One line of a trace."""

    time: float
    """Virtual, in seconds."""
    event: int | None
    """Its number, if a cancellation may arrive here."""
    what: str
    """The kind of event, or what the task did."""
    task: str
    """A name that is the same in every run of a plan; empty between two steps."""
    where: str
    """`file:line` at which the task is parked; empty if that is inside Trio."""

    def __str__(self) -> str:
        number = "" if self.event is None else f" [{self.event}]"
        return f"{self.time:.3f}s{number} {self.what} {self.task} @ {self.where}".rstrip(" @")

    def aligned(self) -> str:
        """As `str`, in columns."""
        number = "" if self.event is None else f"[{self.event}]"
        return f"{self.time:9.3f} {number:>7} {self.what:<8} {self.task} @ {self.where}".rstrip(" @")


class Point(NamedTuple):
    """An event, as a plan for later runs needs it."""

    moment: Moment
    """How it looked."""
    kind: Kind
    """Between which two steps it lies."""
    task_name: str
    """In full, as Trio has it; empty between two steps."""
    live: tuple[str, ...]
    """The victims for which cancelling here makes a run of its own."""


def difference(first: Sequence[Moment], second: Sequence[Moment]) -> str | None:
    """Say where two traces of the same plan first differ; None if they do not."""
    for one, other in zip(first, second, strict=False):
        if one != other:
            return f"\n    first:  {one}\n    second: {other}"
    if len(first) == len(second):
        return None
    longer, which = (first, "first") if len(first) > len(second) else (second, "second")
    return f"only the {which} goes on, with {longer[min(len(first), len(second))]}"


def timeline(trace: Sequence[Moment]) -> tuple[str, ...]:
    """Show the end of a run and the surroundings of its cancellation, without Trio's own tasks."""
    mute = ("step", "parks", "raises", "tick")
    shown = [moment for moment in trace if moment.where or moment.what not in mute]
    chosen = set(range(max(0, len(shown) - _AT_END), len(shown)))
    for struck in (index for index, moment in enumerate(shown) if moment.what == CANCELS):
        chosen |= set(range(max(0, struck - _AROUND_CANCEL), min(len(shown), struck + _AROUND_CANCEL)))
    lines: list[str] = []
    for index in sorted(chosen):
        if lines and index - 1 not in chosen:
            lines.append("      ...")
        lines.append(shown[index].aligned())
    return tuple(lines)
