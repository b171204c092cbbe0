"""Writes the run of a failure as Chrome trace events, for https://ui.perfetto.dev and `chrome://tracing`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._lanes import Column, columns_of, tasks_of, wakings

if TYPE_CHECKING:
    from ._report import Failure, Report

__all__ = ["write_perfetto"]

_PROCESS: Final = 1
_EXPLORER: Final = 1
_FIRST_TASK: Final = 2
# Microseconds. A viewer counts in nanoseconds; longer than a millisecond a step need not look.
_SHORTEST_STEP: Final = 0.01
_LONGEST_STEP: Final = 1_000.0
_PER_SECOND: Final = 1_000_000.0


def write_perfetto(report: Report, path: str | Path) -> None:
    """Write the first failure's run: one thread for each task, and one for what the explorer does.

    In a run no virtual time passes during a step. Here each gets the same small duration, so that steps of one instant
    stand side by side; ``otherData`` of the file says which. The exact virtual time is in each event's ``args``.

    Args:
        report: what an exploration found; a hypothetical failure is taken if there is no other.
        path: the file; it is replaced.

    Raises:
        OSError: the file cannot be written.
        ValueError: nothing was found.
    """
    failure = next(iter((*report.failures, *report.hypothetical)), None)
    if failure is None:
        raise ValueError(f"{report.scenario}: nothing was found, so there is no run to write")
    Path(path).write_text(json.dumps(_trace(report, failure), separators=(",", ":")), encoding="utf-8")


def _trace(report: Report, failure: Failure) -> dict[str, Any]:
    columns = columns_of(failure.trace)
    step = _duration(columns)
    return {
        "displayTimeUnit": "ms",
        "otherData": {
            "scenario": report.scenario,
            "kind": failure.kind,
            "message": failure.message,
            "run": failure.sentence,
            "mode": failure.mode,
            "replay": failure.replay,
            "time": "virtual; no time passes during a step, here each is given"
            f" {step:g} microseconds so that steps of one instant do not overlap",
            "microseconds_per_step": step,
        },
        "traceEvents": list(_events(report, columns, step)),
    }


def _duration(columns: Sequence[Column]) -> float:
    """Return the duration with which the steps of each instant fit well before the next instant, if one does."""
    durations = [_LONGEST_STEP]
    begin, count = 0.0, 0
    for column in columns:
        if column.time > begin:
            if count:
                durations.append((column.time - begin) * _PER_SECOND / (2 * count))
            begin, count = column.time, 0
        count += 1
    return max(_SHORTEST_STEP, round(min(durations), 2))


def _events(report: Report, columns: Sequence[Column], step: float) -> Iterator[dict[str, Any]]:
    threads = {task: number for number, task in enumerate(tasks_of(columns), _FIRST_TASK)}
    yield _metadata("process_name", _EXPLORER, name=report.scenario)
    for task, thread in (("the explorer", _EXPLORER), *threads.items()):
        yield _metadata("thread_name", thread, name=task)
        yield _metadata("thread_sort_index", thread, sort_index=thread)
    begins: list[float] = []
    free = 0.0
    for column in columns:
        # Where more steps are due at one instant than fit before the next one, that one is late.
        begin = max(free, column.time * _PER_SECOND)
        # The clock needs none, unless something happened while it moved.
        free = begin + step if column.kind == "step" or column.marks else begin
        begins.append(begin)
        thread = threads.get(column.task, _EXPLORER)
        if column.kind == "step":
            yield _event("X", thread, begin, name=column.where or "starts", cat="step", dur=step, args=_facts(column))
        for number, mark in enumerate(column.marks, 1):
            everywhere = mark.what in ("CANCELS", "finding")
            yield _event(
                "i",
                _EXPLORER if mark.what == "CANCELS" else thread,
                begin + step * number / (len(column.marks) + 1),
                name=f"{mark.what} {mark.detail}".strip(),
                cat=mark.what,
                s="g" if everywhere else "t",
                args={"virtual_seconds": column.time},
            )
    for number, (waker, woken) in enumerate(wakings(columns)):
        arrow = {"name": "wakes", "cat": "wakes", "id": number}
        yield _event("s", threads[columns[waker].task], begins[waker] + step / 2, **arrow)
        yield _event("f", threads[columns[woken].task], begins[woken], bp="e", **arrow)


def _facts(column: Column) -> dict[str, Any]:
    facts = {
        "virtual_seconds": column.time,
        "event": column.event,
        "parked before at": column.where,
        "parks at": "" if column.parked is None else column.parked or "inside Trio",
        "woken by": column.woken_by,
        "ends": column.ends or None,
    }
    return {name: value for name, value in facts.items() if value not in ("", None)}


def _event(phase: str, thread: int, at: float, **fields: Any) -> dict[str, Any]:
    return {"ph": phase, "pid": _PROCESS, "tid": thread, "ts": round(at, 3), **fields}


def _metadata(what: str, thread: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": _PROCESS, "tid": thread, "name": what, "args": args}
