"""A trace as lanes: which task ran when, and what happened meanwhile. Data only: draws nothing, knows no run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen

from ._trace import Moment, What

__all__ = ["Column", "Mark", "columns_of", "cut", "describe", "say", "shown", "tasks_of", "wakings"]

ColumnKind: TypeAlias = Literal["step", "clock", "idle", "note", "gap"]

_MARKS: Final = ("publish", "CANCELS", "raises", "log", "finding")
_CLOCK: Final = ("idle", "tick")
_RUNS: Final = ("step", "parks", "ends")
_WOKEN_BY: Final = "woken by "
_KEPT_AT_START: Final = 400
_KEPT_AT_END: Final = 800
_KEPT_AROUND: Final = 300


@frozen(kw_only=True)
class Mark:
    """Something that happened in a column beside its step."""

    what: What
    """``publish``, ``CANCELS``, ``raises``, ``log`` or ``finding``."""
    detail: str
    """Who is cancelled, what was logged, what was found."""
    late: bool
    """In a column of the clock: whether the clock had moved by then."""
    after: bool
    """Whether something had been found before: the explorer may be ending the run."""


@frozen(kw_only=True)
class Column:
    """What happens between two moments in which the scheduler decides: a task's step, or a move of the clock."""

    kind: ColumnKind
    """``idle`` if nobody can run and the clock does not move, ``note`` if nobody is known to run, ``gap`` if it stands
    for columns that are left out."""
    first: int
    """Index of its first moment."""
    last: int
    """Index after its last moment."""
    time: float
    """Virtual, in seconds; of a column of the clock, after the move."""
    event: int | None
    """The number of its first event; a step's own, except for a task's that was there before the first event."""
    task: str = ""
    """Who runs."""
    where: str = ""
    """`file:line` at which the task was parked before; empty if it starts, or was parked inside Trio."""
    parked: str | None = None
    """`file:line` at which it parks afterwards; None if it does not."""
    ends: bool = False
    """Whether the task ends."""
    woken_by: str = ""
    """The task, or what else, that let it run."""
    woken_in: int | None = None
    """The last event before it was woken, which lies in the step that woke it; None if that is not known."""
    marks: tuple[Mark, ...] = ()
    """What else happened, in order."""
    after: bool = False
    """Whether something had been found before."""

    @property
    def raises(self) -> bool:
        """Whether a Cancelled is raised in the step."""
        return any(mark.what == "raises" for mark in self.marks)


def columns_of(trace: Sequence[Moment]) -> tuple[Column, ...]:
    """Group the moments of a trace into columns, in order."""
    found = next((index for index, moment in enumerate(trace) if moment.what == "finding"), len(trace))
    return tuple(_column(trace, first, last, found) for first, last in _spans(trace))


def _spans(trace: Sequence[Moment]) -> Iterator[tuple[int, int]]:
    first = 0
    for index in range(1, len(trace)):
        if _opens(trace, first, index):
            yield first, index
            first = index
    if trace:
        yield first, len(trace)


def _opens(trace: Sequence[Moment], first: int, index: int) -> bool:
    """Whether a column that began at ``first`` ends before the moment ``index``."""
    moment, opening, before = trace[index], trace[first], trace[index - 1]
    if moment.what in ("step", "idle") or before.what in ("parks", "ends"):
        return True
    if opening.what in _CLOCK:
        if moment.what == "tick":
            return opening.what == "tick" or any(trace[i].what == "tick" for i in range(first, index))
        return moment.what not in ("CANCELS", "finding")
    return moment.what == "tick"


def _column(trace: Sequence[Moment], first: int, last: int, found: int) -> Column:
    moments = trace[first:last]
    opening, closing = moments[0], moments[-1]
    runs = next((moment for moment in moments if moment.what in _RUNS), None)
    ticked = next((index for index, moment in enumerate(moments) if moment.what == "tick"), last)
    step = opening if opening.what == "step" else None
    woken_by, woken_in = ("", None) if step is None else _waker(step.detail)
    return Column(
        kind=_kind(moments),
        first=first,
        last=last,
        time=closing.time if opening.what in _CLOCK else opening.time,
        event=next((moment.event for moment in moments if moment.event is not None), None),
        task="" if runs is None else runs.task,
        where="" if step is None else step.where,
        parked=closing.where if closing.what == "parks" else None,
        ends=closing.what == "ends",
        woken_by=woken_by,
        woken_in=woken_in,
        marks=tuple(
            Mark(what=moment.what, detail=moment.detail, late=index > ticked, after=first + index > found)
            for index, moment in enumerate(moments)
            if moment.what in _MARKS
        ),
        after=first > found,
    )


def _kind(moments: Sequence[Moment]) -> ColumnKind:
    if moments[0].what in _CLOCK:
        return "clock" if any(moment.what == "tick" for moment in moments) else "idle"
    return "step" if any(moment.what in _RUNS for moment in moments) else "note"


def tasks_of(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the tasks that run, in the order in which they begin to."""
    return tuple(dict.fromkeys(column.task for column in columns if column.kind == "step"))


def wakings(columns: Sequence[Column]) -> tuple[tuple[int, int], ...]:
    """Return (waker's column, woken task's column) for each step that another task's step made possible."""
    steps: dict[str, list[int]] = {}
    found = []
    for index, column in enumerate(columns):
        if column.kind == "gap":
            steps.clear()
        if column.kind == "step":
            for waker in reversed(steps.get(column.woken_by, ())):
                event = columns[waker].event
                if column.woken_in is None or event is None or event <= column.woken_in:
                    found.append((waker, index))
                    break
            steps.setdefault(column.task, []).append(index)
    return tuple(found)


def _waker(detail: str) -> tuple[str, int | None]:
    name, _, event = detail.removeprefix(_WOKEN_BY).rpartition(" in [")
    return (name, int(event[:-1])) if name and event[:-1].isdigit() else (detail.removeprefix(_WOKEN_BY), None)


def cut(columns: Sequence[Column], limit: int) -> tuple[Column, ...]:
    """Leave columns out if there are more than ``limit``: far from both ends, from cancellations and the first finding.

    Each ``gap`` stands for what is left out in its place.
    """
    if len(columns) <= limit:
        return tuple(columns)
    kept = set(range(_KEPT_AT_START)) | set(range(len(columns) - _KEPT_AT_END, len(columns)))
    for index, column in enumerate(columns):
        decisive = any(mark.what in ("CANCELS", "finding") and not mark.after for mark in column.marks)
        if decisive and len(kept) < limit:
            kept |= set(range(max(0, index - _KEPT_AROUND), min(len(columns), index + _KEPT_AROUND)))
    remaining: list[Column] = []
    left_out: list[Column] = []
    for index, column in enumerate(columns):
        if index not in kept:
            left_out.append(column)
            continue
        if left_out:
            remaining.append(_gap(left_out))
            left_out = []
        remaining.append(column)
    return tuple(remaining)


def _gap(columns: Sequence[Column]) -> Column:
    begin, end = columns[0], columns[-1]
    return Column(kind="gap", first=begin.first, last=end.last, time=end.time, event=begin.event, after=begin.after)


def shown(text: str) -> str:
    """Return a text of the scenario's with what does not print, or changes the direction of the rest, written out.

    Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def describe(column: Column) -> list[str]:
    """Say what happens in a column, a line each."""
    time = f"{column.time:g} s" + ("" if column.event is None else f", event {column.event}")
    match column.kind:
        case "gap":
            return [f"{column.last - column.first} moments are left out"]
        case "clock":
            return [f"the clock moves to {time}"]
        case "idle":
            return [f"nobody can run, {time}"]
        case "note":
            return [time]
        case "step":
            return [
                f"{column.task}, {time}",
                f"goes on at {column.where}" if column.where else "",
                f"woken by {column.woken_by}" if column.woken_by else "",
                *(say(mark) for mark in column.marks),
                "ends" if column.ends else f"parks at {column.parked}" if column.parked else "",
            ]


def say(mark: Mark) -> str:
    """Put a mark into words."""
    match mark.what:
        case "publish":
            return f"declares the victim {mark.detail}"
        case "CANCELS":
            return f"the explorer stops the run: {mark.detail}" if mark.after else f"the explorer cancels {mark.detail}"
        case "raises":
            return "Cancelled is raised here"
        case "finding":
            return f"found: {mark.detail}"
        case _:
            return f"logs: {mark.detail}"
