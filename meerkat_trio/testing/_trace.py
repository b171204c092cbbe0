"""What a traced run writes down, how two traces are compared, and how one is shown. Data only: knows no run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["Kind", "Moment", "What", "difference", "first_difference", "hash_of", "timeline"]

Kind: TypeAlias = Literal["publish", "step", "idle", "tick"]
"""Between which two things an event lies: where a victim is declared, before a step, or around a move of the clock."""

What: TypeAlias = Literal["publish", "step", "idle", "tick", "parks", "ends", "raises", "CANCELS", "log", "finding"]

_AROUND_CANCEL: Final = 8
_AT_END: Final = 24
_HASH_LENGTH: Final = 6


class Moment(NamedTuple):
    """One line of a trace."""

    time: float
    """Virtual, in seconds."""
    event: int | None
    """Its number, if a cancellation may arrive here."""
    what: What
    """The kind of event, or what the task did."""
    task: str = ""
    """A label that is the same in every run of a plan; empty between two steps."""
    where: str = ""
    """`file:line` at which the task is parked; empty if that is inside Trio."""
    detail: str = ""
    """What woke the task, what is cancelled, what was logged."""

    def __str__(self) -> str:
        number = "" if self.event is None else f" [{self.event}]"
        return f"{self.time:.3f}s{number} {self.what} {self._rest()}".rstrip()

    def aligned(self) -> str:
        """As `str`, in columns."""
        number = "" if self.event is None else f"[{self.event}]"
        return f"{self.time:9.3f} {number:>7} {self.what:<8} {self._rest()}".rstrip()

    def _rest(self) -> str:
        place = f"{self.task} @ {self.where}" if self.where else self.task
        return f"{place}  ({self.detail})" if self.detail and place else f"{place}{self.detail}"


def first_difference(first: Sequence[Moment], second: Sequence[Moment]) -> int | None:
    """Return the index at which two traces begin to differ; None if they do not."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return None if len(first) == len(second) else min(len(first), len(second))


def difference(first: Sequence[Moment], second: Sequence[Moment]) -> str | None:
    """Say where two traces of the same plan first differ; None if they do not."""
    index = first_difference(first, second)
    if index is None:
        return None
    if index < len(first) and index < len(second):
        return f"\n    first:  {first[index]}\n    second: {second[index]}"
    longer, which = (first, "first") if len(first) > len(second) else (second, "second")
    return f" only the {which} goes on, with {longer[index]}"


def hash_of(trace: Sequence[Moment]) -> str:
    """Return a short hash of what happened in a run, virtual time included."""
    digest = hashlib.sha256()
    for moment in trace:
        digest.update(
            f"{moment.time:.9f} {moment.what} {moment.task} {PurePath(moment.where).name}\n".encode(
                errors="backslashreplace"
            )
        )
    return digest.hexdigest()[:_HASH_LENGTH]


def timeline(trace: Sequence[Moment]) -> tuple[str, ...]:
    """Show the end of a run and the surroundings of its cancellations, without Trio's own tasks."""
    mute = ("step", "parks", "raises", "idle", "tick")
    shown = [moment for moment in trace if moment.where or moment.what not in mute]
    chosen = set(range(max(0, len(shown) - _AT_END), len(shown)))
    for struck in (index for index, moment in enumerate(shown) if moment.what == "CANCELS"):
        chosen |= set(range(max(0, struck - _AROUND_CANCEL), min(len(shown), struck + _AROUND_CANCEL)))
    lines: list[str] = []
    for index in sorted(chosen):
        if lines and index - 1 not in chosen:
            lines.append("      ...")
        lines.append(shown[index].aligned())
    return tuple(lines)
