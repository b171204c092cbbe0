"""The page of a report: what it says, that it stands alone, and what a browser makes of it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from meerkat_trio.testing import Failure, Report, explore
from meerkat_trio.testing._lanes import columns_of, shown, wakings
from meerkat_trio.testing._trace import Moment
from tests.checker.drawn import failure_of, fine, found, long_trace, report_of

CANCEL_RED = (0xD1, 0x24, 0x2F)
VOID = {"meta", "br", "img", "link", "input", "base", "embed"}


class Page(HTMLParser):
    """A page as its elements: (tag, attributes), and its text without the style."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def close(self) -> None:
        super().close()
        assert not self._open

    def of_class(self, name: str, tag: str | None = None) -> list[dict[str, str]]:
        return [
            attrs for found, attrs in self.elements if name in attrs.get("class", "").split() and tag in {None, found}
        ]


def source_of(report: Report, folder: Path) -> str:
    path = folder / "page.html"
    report.to_html(path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report() -> Report:
    return found()


def first(report: Report) -> Failure:
    assert report.failures
    return report.failures[0]


def test_the_page_says_what_the_failure_says(report: Report, tmp_path: Path) -> None:
    page, failure = Page(source_of(report, tmp_path)), first(report)
    assert failure.kind == "deadlock"
    assert failure.passing
    for said in (failure.kind, failure.message, failure.sentence, failure.mode, failure.replay, failure.passing):
        assert said in page.text
    assert page.of_class("copy") == [{"class": "copy"}]
    assert report.summary in page.text


def test_each_task_has_a_lane_and_each_step_a_box(report: Report, tmp_path: Path) -> None:
    page, trace = Page(source_of(report, tmp_path)), first(report).trace
    assert [lane["data-task"] for lane in page.of_class("lane")] == ["main", "other"]
    # The first task is there before the first event: its first step is known by where it parks.
    steps = sum(moment.what == "step" for moment in trace) + 1
    assert len(page.of_class("box")) == steps
    assert len(page.of_class("raised")) == sum(moment.what == "raises" for moment in trace) > 0
    assert len(page.of_class("cancels", "line")) == 1
    assert len(page.of_class("stops", "line")) == 1
    assert len(page.of_class("finds", "line")) == 1
    assert len(page.of_class("wakes")) == len(wakings(columns_of(trace))) > 0
    assert "other wants it" in page.text


def test_coverage_and_warnings_are_on_the_page(tmp_path: Path) -> None:
    page = Page(source_of(report_of(warnings=["beware of <this>"]), tmp_path))
    assert "50 % of the await lines reached were struck" in page.text
    assert "reached and never struck: 1a.py:2" in page.text
    assert "never reached: 1a.py:3" in page.text
    assert "beware of <this>" in page.text
    assert page.text.count("beware") == 1


def test_a_page_without_failures_says_what_was_tried(tmp_path: Path) -> None:
    report = explore(fine, runs=60)
    page = Page(source_of(report, tmp_path))
    assert "nothing found" in page.text
    assert report.summary in page.text
    assert not page.of_class("swim")


def test_a_hypothetical_failure_is_drawn_and_called_so(tmp_path: Path) -> None:
    report = report_of(hypothetical=[failure_of(long_trace(4), hypothetical=True)])
    page = Page(source_of(report, tmp_path))
    assert "nothing found" in page.text
    assert len(page.of_class("tag")) == 1
    assert len(page.of_class("box")) == 4


HOSTILE = "</pre></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;\x00\x1b[31m\u202e"
UNENCODABLE = HOSTILE + "\ud800"


def test_nothing_a_scenario_says_becomes_a_part_of_the_page(tmp_path: Path) -> None:
    trace = [
        Moment(0.0, 0, "publish", detail=UNENCODABLE),
        Moment(0.0, None, "parks", HOSTILE, HOSTILE),
        Moment(0.0, 1, "step", HOSTILE, HOSTILE, f"woken by {HOSTILE}"),
        Moment(0.0, None, "CANCELS", detail=HOSTILE),
        Moment(0.0, None, "log", HOSTILE, detail=UNENCODABLE),
        Moment(0.0, None, "finding", detail=UNENCODABLE),
        Moment(0.0, None, "ends", HOSTILE),
    ]
    source = source_of(report_of(failure_of(trace, message=UNENCODABLE), warnings=[UNENCODABLE]), tmp_path)
    page, harmless = Page(source), Page(source_of(report_of(failure_of(long_trace(3))), tmp_path))
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "embed", "link", "base", "form", "foreignobject"})
    assert {name for _, attrs in page.elements for name in attrs} <= {
        name for _, attrs in harmless.elements for name in attrs
    } | {"open"}
    assert [lane["data-task"] for lane in page.of_class("lane")] == [shown(HOSTILE)]
    assert page.text.count("<script>alert(1)</script>") > 5
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", source)
    assert "\\x1b[31m\\u202e\\ud800" in source


def test_the_page_needs_nothing_from_elsewhere(report: Report, tmp_path: Path) -> None:
    source = source_of(report, tmp_path)
    page = Page(source)
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    loading = [(tag, attrs) for tag, attrs in page.elements if {"src", "srcset", "data", "xlink:href"} & attrs.keys()]
    assert loading == []
    assert "@import" not in source
    assert set(re.findall(r"url\((.)", source)) <= {"#"}
    assert set(re.findall(r"https?://[^\"]*", source)) == {"http://www.w3.org/2000/svg"}


def test_every_link_leads_to_one_place_of_the_page(report: Report, tmp_path: Path) -> None:
    page = Page(source_of(report, tmp_path))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    assert len(links) == 2
    assert len(set(ids)) == len(ids)
    assert {link.removeprefix("#") for link in links} <= set(ids)


@pytest.mark.parametrize(("steps", "moments"), [(2, 6), (150, 400), (1_880, 5_014)])
def test_runs_of_any_usual_length_are_drawn_whole(tmp_path: Path, steps: int, moments: int) -> None:
    trace = long_trace(steps, cancel_at=1)
    assert len(trace) == moments
    page = Page(source_of(report_of(failure_of(trace)), tmp_path))
    assert len(page.of_class("box")) == steps
    assert not page.of_class("cut")


def test_an_empty_trace_makes_a_page_too(tmp_path: Path) -> None:
    assert not Page(source_of(report_of(failure_of([])), tmp_path)).of_class("box")


def test_a_huge_run_is_cut_and_keeps_both_ends_and_the_cancellation(tmp_path: Path) -> None:
    trace = long_trace(20_000, cancel_at=9_000)
    source = source_of(report_of(failure_of(trace)), tmp_path)
    page = Page(source)
    drawn = len(page.of_class("box"))
    assert 500 < drawn < 3_000
    assert "are left out" in page.text
    assert len(page.of_class("cancels", "line")) == len(page.of_class("finds", "line")) == 1
    assert ">[0]</text>" in source
    assert ">[9000]</text>" in source
    assert ">[19999]</text>" in source
    assert ">[5000]</text>" not in source
    left_out = sum(int(number) for number in re.findall(r"(\d+) moments cut", source))
    rows = source.count("<tr class=") - source.count('<tr class="cut">')
    assert left_out + rows == len(trace)


def test_what_follows_the_finding_is_pale(tmp_path: Path) -> None:
    trace = [*long_trace(3), Moment(1.0, 3, "step", "main", "a.py:1"), Moment(1.0, None, "ends", "main")]
    page = Page(source_of(report_of(failure_of(trace)), tmp_path))
    assert len(page.of_class("after", "g")) == 1


def test_a_page_that_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        report_of().to_html(tmp_path / "missing" / "page.html")


def test_a_step_reaches_from_step_to_park_and_a_move_of_the_clock_is_one_column() -> None:
    columns = columns_of(
        [
            Moment(0.0, 0, "publish", detail="v"),
            Moment(0.0, None, "parks", "main", "a.py:1"),
            Moment(0.0, 1, "idle"),
            Moment(1.0, 2, "tick"),
            Moment(1.0, None, "CANCELS", detail="v"),
            Moment(1.0, 3, "step", "main", "a.py:1", "woken by a deadline"),
            Moment(1.0, None, "raises", "main", "a.py:1", "Cancelled"),
            Moment(1.0, None, "parks", "main", "a.py:2"),
            Moment(1.0, 4, "idle"),
            Moment(1.0, None, "finding", detail="deadlock"),
        ]
    )
    assert [(c.kind, c.event, c.where, c.parked) for c in columns] == [
        ("step", 0, "", "a.py:1"),
        ("clock", 1, "", None),
        ("step", 3, "a.py:1", "a.py:2"),
        ("idle", 4, "", None),
    ]
    assert [(mark.what, mark.late) for mark in columns[1].marks] == [("CANCELS", True)]
    assert [column.raises for column in columns] == [False, False, True, False]


# --- in a browser ----------------------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    name = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if name is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    quiet = ("gpu", "quic", "background-networking", "component-update", "sync")
    options = [f"--disable-{what}" for what in quiet]
    return [name, "--headless", "--no-sandbox", "--no-first-run", *options, f"--user-data-dir={tmp_path / 'profile'}"]


def pixels(png: bytes) -> tuple[int, int, list[bytes]]:
    """Return width, height and, for each row, its RGB bytes, of an 8-bit PNG without interlacing."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", png[16:29])
    assert (depth, interlaced) == (8, 0)
    size = {2: 3, 6: 4}[colour]
    packed, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            packed += png[at + 8 : at + 8 + length]
        at += length + 12
    data, rows = zlib.decompress(packed), []
    stride = width * size
    before = bytearray(stride)
    for y in range(height):
        kind, row = data[y * (stride + 1)], bytearray(data[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for i in range(stride):
            left, above, corner = (row[i - size], before[i], before[i - size]) if i >= size else (0, before[i], 0)
            guess = left + above - corner
            paeth = min((left, above, corner), key=lambda value, guess=guess: abs(guess - value))  # type: ignore[misc]
            row[i] = (row[i] + (0, left, above, (left + above) // 2, paeth)[kind]) & 255
        rows.append(bytes(row) if size == 3 else bytes(b for i, b in enumerate(row) if i % 4 != 3))
        before = row
    return width, height, rows


def test_a_browser_draws_the_lanes_the_steps_and_the_cancellation(
    report: Report, tmp_path: Path, browser: list[str]
) -> None:
    path = tmp_path / "page.html"
    report.to_html(path)
    ran = subprocess.run(
        [*browser, "--dump-dom", path.as_uri()], capture_output=True, text=True, check=True, timeout=100
    )
    page, written = Page(ran.stdout), Page(path.read_text(encoding="utf-8"))
    assert [lane["data-task"] for lane in page.of_class("lane")] == ["main", "other"]
    for name in ("box", "raised", "wakes", "parked", "cancels", "finds"):
        assert len(page.of_class(name)) == len(written.of_class(name)) > 0


PAINTED = ("--run-all-compositor-stages-before-draw", "--virtual-time-budget=5000")
"""So that a busy machine takes no picture of a page that is half drawn."""


def test_a_browser_shows_the_cancellation_in_red_through_all_lanes(
    report: Report, tmp_path: Path, browser: list[str]
) -> None:
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    report.to_html(path)
    subprocess.run(
        [*browser, *PAINTED, "--window-size=900,620", f"--screenshot={picture}", path.as_uri()],
        capture_output=True,
        check=True,
        timeout=100,
    )
    width, height, rows = pixels(picture.read_bytes())
    assert (width, height) == (900, 620)
    assert len({row[i : i + 3] for row in rows for i in range(0, len(row), 3)}) > 50
    # A line of two lanes' height and more, somewhere in the picture.
    reds = [[row[i : i + 3] == bytes(CANCEL_RED) for i in range(0, len(row), 3)] for row in rows]
    longest = 0
    for x in range(width):
        run = 0
        for y in range(height):
            run = run + 1 if reds[y][x] else 0
            longest = max(longest, run)
    assert longest > 2 * 66
