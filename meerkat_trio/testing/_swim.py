"""Draws one run as swim lanes: SVG as text. Knows traces and pixels; the page and its colours are in `_html`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import PurePath
from typing import Final, final

from attrs import frozen

from ._lanes import Column, columns_of, cut, describe, say, shown, tasks_of, wakings
from ._trace import Moment

__all__ = ["LANE", "Drawing", "draw", "text"]

LANE: Final = 66
"""Pixels from one lane to the next."""

_MOST_COLUMNS: Final = 3_000
_CHAR: Final = 6.7  # of the 11 px monospaced font, generously
_SMALL_CHAR: Final = 6.1
_BOX: Final = 28
_MIDDLE: Final = 31
_CLOCK: Final = 34
_GAP: Final = 150
_MARGIN: Final = 14
_PILL: Final = 22
_AXIS: Final = 40
_REPEAT_PARKED: Final = 900
_LONGEST_PLACE: Final = 22
_LONGEST_PILL: Final = 90
_ROOM_FOR_MARK: Final = 16
_AROUND: Final = 180


@frozen(kw_only=True)
class Drawing:
    """A run, drawn."""

    svg: str
    """The lanes."""
    tasks: tuple[str, ...]
    """Whose lanes they are, from top to bottom."""
    top: int
    """Where the first lane begins, in pixels."""
    height: int
    """Of the picture, in pixels."""
    anchors: tuple[tuple[str, str], ...]
    """Fragments of the page that lead to what matters, and what that is."""
    columns: tuple[Column, ...]
    """What is drawn."""
    left_out: int
    """How many moments are not."""


def text(value: str) -> str:
    """Make any text fit for HTML, attributes included."""
    return escape(shown(value), quote=True)


def draw(trace: Sequence[Moment], ident: str) -> Drawing:
    """Draw a trace; ``ident`` begins the ids of what is drawn."""
    columns = cut(columns_of(trace), _MOST_COLUMNS)
    return _Picture(columns, ident).drawing()


def _shortened(value: str, length: int) -> str:
    return value if len(value) <= length else value[: length - 1] + "…"


def _place(where: str) -> str:
    """Shorten `path/file.py:line` from the front: its end tells more."""
    name = PurePath(where).name
    return name if len(name) <= _LONGEST_PLACE else "…" + name[1 - _LONGEST_PLACE :]


def _title(lines: Iterable[str]) -> str:
    return f"<title>{text(chr(10).join(line for line in lines if line))}</title>"


@final
class _Pills:
    """Labels above or below the lanes, in as many rows as it takes that they do not cover each other."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self.placed: list[tuple[float, int, str, str]] = []
        self.right = 0.0

    @property
    def height(self) -> int:
        return _PILL * len(self._ends)

    def add(self, x: float, label: str, style: str) -> None:
        label = _shortened(shown(label), _LONGEST_PILL)
        width = len(label) * _CHAR + 16
        row = next((row for row, end in enumerate(self._ends) if end + 6 < x), len(self._ends))
        if row == len(self._ends):
            self._ends.append(0.0)
        self._ends[row] = x + width
        self.right = max(self.right, x + width)
        self.placed.append((x, row, label, style))

    def svg(self, top: float) -> Iterable[str]:
        for x, row, label, style in self.placed:
            y = top + row * _PILL
            yield (
                f'<g class="pill {style}"><rect x="{x:.0f}" y="{y:.0f}" width="{len(label) * _CHAR + 16:.0f}"'
                f' height="{_PILL - 4}" rx="3"/><text x="{x + 8:.0f}" y="{y + 13:.0f}">{text(label)}</text></g>'
            )


@final
class _Picture:
    """One drawing as it is made."""

    def __init__(self, columns: tuple[Column, ...], ident: str) -> None:
        self._columns = columns
        self._ident = ident
        self._tasks = tasks_of(columns)
        self._lane_of = {task: number for number, task in enumerate(self._tasks)}
        places = [_place(column.where) for column in columns] + ["starts"]
        self._step_width = max(84.0, max(len(place) for place in places) * _CHAR + 34)
        self._lefts: list[float] = []
        x = float(_MARGIN)
        for column in columns:
            self._lefts.append(x)
            x += self._width(column)
        self._right = x
        self._cancels, self._findings = _Pills(), _Pills()
        self._anchors: list[tuple[str, str]] = []
        self._struck = next(
            (i for i, c in enumerate(columns) if any(m.what == "CANCELS" for m in c.marks)), len(columns)
        )

    def _width(self, column: Column) -> float:
        match column.kind:
            case "clock" | "idle":
                return _CLOCK
            case "gap":
                return _GAP
            case _:
                return max(self._step_width, 30.0 + _ROOM_FOR_MARK * len(column.marks))

    def _mark_x(self, index: int, number: int) -> float:
        """Say where a mark of a column stands: a cancellation before the step is at the left edge of its box."""
        column, left = self._columns[index], self._lefts[index]
        if column.kind in ("clock", "idle"):
            return left + (_CLOCK - 6 if column.marks[number].late else 6)
        if column.marks[number].what == "finding":
            return left + self._width(column) - 12 - 8 * (len(column.marks) - 1 - number)
        within = number - sum(mark.what == "raises" for mark in column.marks[:number])
        return left + (1 if within == 0 else 8 + _ROOM_FOR_MARK * (within + 1))

    def drawing(self) -> Drawing:
        lines = list(self._vertical_marks())
        top = self._cancels.height + _AXIS
        bottom = top + LANE * max(1, len(self._tasks))
        height = bottom + self._findings.height + 10
        width = max(self._right, self._cancels.right, self._findings.right) + _MARGIN
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="swim" role="img" width="{width:.0f}" height="{height}"'
            f' viewBox="0 0 {width:.0f} {height}" aria-label="the run as lanes, one for each task">'
            f'<defs><marker id="{self._ident}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
        )
        parts = [
            head,
            *self._instants(top, bottom),
            *(
                f'<g class="lane" data-task="{text(task)}"><line x1="0" x2="{width:.0f}" y1="{y}" y2="{y}"/></g>'
                for y, task in ((top + LANE * (lane + 1), task) for lane, task in enumerate(self._tasks))
            ),
            *self._parkings(top),
            *self._wakings(top),
            *self._boxes(top),
            *(
                # What a link leads to is wider than the line, so that what is written on it comes into view too.
                f'<g id="{anchor}"><rect class="spot" x="{max(0, x - _AROUND):.0f}" y="0" width="{2 * _AROUND}"'
                f' height="{height}"/><line class="{style}" x1="{x:.0f}" x2="{x:.0f}" y1="{begin:.0f}" y2="{end:.0f}">'
                f"{_title([title])}</line></g>"
                for anchor, style, x, title in lines
                for begin, end in [
                    (top - _AXIS - 4, bottom) if "finds" not in style else (top - 4, bottom + self._findings.height)
                ]
            ),
            *self._cancels.svg(2),
            *self._findings.svg(bottom + 6),
            "</svg>",
        ]
        return Drawing(
            svg="\n".join(parts),
            tasks=self._tasks,
            top=top,
            height=height,
            anchors=tuple(self._anchors),
            columns=self._columns,
            left_out=sum(column.last - column.first for column in self._columns if column.kind == "gap"),
        )

    # --- what goes through all lanes ------------------------------------------------------------------

    def _vertical_marks(self) -> Iterable[tuple[str, str, float, str]]:
        for index, column in enumerate(self._columns):
            for number, mark in enumerate(column.marks):
                if mark.what not in ("CANCELS", "finding"):
                    continue
                x = self._mark_x(index, number)
                anchor = f"{self._ident}-{index}-{number}"
                stops = mark.what == "CANCELS" and mark.after
                if mark.what == "finding":
                    style = "finds later" if mark.after else "finds"
                    self._findings.add(x, mark.detail.rstrip(":"), style)
                else:
                    style = "stops" if stops else "cancels"
                    self._cancels.add(x, "the explorer ends the run" if stops else f"✕ cancel {mark.detail}", style)
                if not mark.after:
                    self._anchors.append(
                        (anchor, "what was found" if mark.what == "finding" else f"cancel {mark.detail}")
                    )
                yield anchor, style, x, say(mark)

    def _instants(self, top: int, bottom: int) -> Iterable[str]:
        begin, shaded = 0.0, False
        time_y, event_y = top - 24, top - 8
        start = self._columns[0].time if self._columns else 0.0
        yield f'<text class="time" x="{_MARGIN}" y="{time_y}">{start:g} s</text>'
        for index, column in enumerate(self._columns):
            left, width = self._lefts[index], self._width(column)
            if column.kind == "clock":
                middle = left + width / 2
                if shaded:
                    yield _band(begin, middle, top, bottom)
                begin, shaded = middle, not shaded
                yield (
                    f'<g class="clock">{_title(describe(column))}<line x1="{middle:.0f}" x2="{middle:.0f}"'
                    f' y1="{top - 20}" y2="{bottom}"/>{_clock_face(middle, event_y - 4)}'
                    f'<text class="time" x="{middle - 6:.0f}" y="{time_y}">{column.time:g} s</text></g>'
                )
            elif column.kind == "gap":
                yield (
                    f'<g class="gap"><rect x="{left + 8:.0f}" y="{top}" width="{width - 16:.0f}"'
                    f' height="{bottom - top}"/><text x="{left + width / 2:.0f}" y="{(top + bottom) / 2:.0f}">'
                    f"{column.last - column.first} moments cut</text></g>"
                )
            elif column.event is not None:
                yield f'<text class="event" x="{left + width / 2:.0f}" y="{event_y}">[{column.event}]</text>'
        if shaded:
            yield _band(begin, self._right, top, bottom)

    # --- what is in a lane ------------------------------------------------------------------------------

    def _middle(self, top: int, task: str) -> float:
        return top + LANE * self._lane_of[task] + _MIDDLE

    def _boxes(self, top: int) -> Iterable[str]:
        for index, column in enumerate(self._columns):
            if column.kind != "step":
                continue
            left, width, middle = self._lefts[index] + 4, self._width(column) - 8, self._middle(top, column.task)
            label = _place(column.where) or "starts"
            raises, deadline = column.raises, self._is_deadline(column, index)
            style = "box" + " raised" * raises + " after" * column.after + " ended" * column.ends
            center = left + width / 2 + (5 if raises else 0)  # right of the mark of what is raised
            frame = (
                f'<g class="{style}">{_title(describe(column))}<rect x="{left:.0f}" y="{middle - _BOX / 2:.0f}"'
                f' width="{width:.0f}" height="{_BOX}" rx="4"/>'
            )
            parts = [
                frame,
                f'<text class="where" x="{center:.0f}" y="{middle + 4:.0f}">{text(label)}</text>',
            ]
            if column.ends:
                parts.append(f'<path class="end" d="M{left + width:.0f} {middle - _BOX / 2:.0f}v{_BOX}"/>')
            if raises:
                parts.append(_cross(left, middle, "quiet" if deadline else "raises"))
            elif column.woken_by and column.woken_by not in self._lane_of:
                parts.append(_clock_face(left, middle - _BOX / 2))
            parts.extend(self._notes(column, left, self._room(index), middle))
            parts.append("</g>")
            yield "".join(parts)

    def _is_deadline(self, column: Column, index: int) -> bool:
        """Whether a Cancelled cannot come from the explorer, which has cancelled nobody yet."""
        return column.raises and index < self._struck

    def _room(self, index: int) -> float:
        """Return how far a note may reach: up to the task's next step, or to the end."""
        task, left = self._columns[index].task, self._lefts[index]
        # Farther than a note is long nobody need look.
        for following in range(index + 1, min(index + 8, len(self._columns))):
            if self._columns[following].task == task or self._columns[following].kind == "gap":
                return self._lefts[following] - left - 4
        return max(self._width(self._columns[index]), min(600.0, self._right - left))

    def _notes(self, column: Column, left: float, room: float, middle: float) -> Iterable[str]:
        declared = [mark.detail for mark in column.marks if mark.what == "publish"]
        logged = [mark.detail for mark in column.marks if mark.what == "log"]
        for style, entries, y in (
            ("declares", declared, middle - _BOX / 2 - 5),
            ("log", logged, middle + _BOX / 2 + 13),
        ):
            if entries:
                sign = "⚑ " if style == "declares" else "“"
                end = "" if style == "declares" else "”"
                entry = _shortened(shown(" · ".join(entries)).replace("\n", " "), int(room / _SMALL_CHAR) - 3)
                yield f'<text class="{style}" x="{left + 2:.0f}" y="{y:.0f}">{sign}{text(entry)}{end}</text>'

    def _parkings(self, top: int) -> Iterable[str]:
        """Draw where each task waits between two of its steps."""
        latest: dict[str, tuple[float, str]] = {}
        gap_end: float | None = None
        for index, column in enumerate(self._columns):
            if column.kind == "gap":
                left = self._lefts[index]
                for task, (begin, place) in latest.items():
                    yield from self._parking(top, task, begin, left + 8, place)
                latest.clear()
                gap_end = left + self._width(column) - 8
            if column.kind != "step":
                continue
            left = self._lefts[index] + 4
            if column.task in latest:
                begin, place = latest.pop(column.task)
                yield from self._parking(top, column.task, begin, left, place)
            elif gap_end is not None and column.where:
                yield from self._parking(top, column.task, gap_end, left, column.where)
            if column.parked is not None:
                latest[column.task] = left + self._width(column) - 8, column.parked
        for task, (begin, place) in latest.items():
            yield from self._parking(top, task, begin, self._right, place)

    def _parking(self, top: int, task: str, begin: float, end: float, where: str) -> Iterable[str]:
        middle = self._middle(top, task)
        place = f"parked at {where}" if where else "parked inside Trio"
        yield (
            f'<g class="parked">{_title([f"{task}: {place}"])}<line x1="{begin:.0f}" x2="{end:.0f}"'
            f' y1="{middle:.0f}" y2="{middle:.0f}"/>'
        )
        label = f"waits at {_place(where)}" if where else "waits"
        room = end - begin
        if len(label) * _SMALL_CHAR + 16 < room:
            for repeat in range(1 + int(room // _REPEAT_PARKED)):
                x = begin + 8 + repeat * _REPEAT_PARKED
                if x + len(label) * _SMALL_CHAR < end:
                    yield f'<text x="{x:.0f}" y="{middle - 5:.0f}">{text(label)}</text>'
        yield "</g>"

    def _wakings(self, top: int) -> Iterable[str]:
        for waker, woken in wakings(self._columns):
            first, second = self._columns[waker], self._columns[woken]
            down = 1 if self._lane_of[second.task] > self._lane_of[first.task] else -1
            x1 = self._lefts[waker] + self._width(first) - 16
            y1 = self._middle(top, first.task) + down * _BOX / 2
            x2 = self._lefts[woken] + 18
            y2 = self._middle(top, second.task) - down * (_BOX / 2 + 1)
            bend = max(18.0, abs(y2 - y1) * 0.55)
            yield (
                f'<path class="wakes{" after" * second.after}" marker-end="url(#{self._ident}-tip)"'
                f' d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + down * bend:.0f} {x2:.0f} {y2 - down * bend:.0f}'
                f' {x2:.0f} {y2:.0f}">{_title([f"{first.task} wakes {second.task}"])}</path>'
            )


def _band(begin: float, end: float, top: float, bottom: float) -> str:
    return f'<rect class="instant" x="{begin:.0f}" y="{top}" width="{end - begin:.0f}" height="{bottom - top}"/>'


def _cross(x: float, y: float, style: str) -> str:
    return (
        f'<g class="cross {style}"><circle cx="{x:.0f}" cy="{y:.0f}" r="8"/>'
        f'<path d="M{x - 3:.0f} {y - 3:.0f}l6 6m0 -6l-6 6"/></g>'
    )


def _clock_face(x: float, y: float) -> str:
    return f'<g class="face"><circle cx="{x:.0f}" cy="{y:.0f}" r="5.5"/><path d="M{x:.0f} {y - 3.5:.1f}v3.5h2.5"/></g>'
