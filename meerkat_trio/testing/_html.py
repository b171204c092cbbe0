"""Writes a report as one page that stands alone: no script, nothing from elsewhere, readable from `file://`."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._findings import KINDS
from ._html_style import LEGEND, STYLE
from ._swim import LANE, Drawing, draw, text

if TYPE_CHECKING:
    from ._report import Failure, Report
    from ._trace import Moment

__all__ = ["write_html"]

_LONGEST_TRACEBACK: Final = 20_000


def write_html(report: Report, path: str | Path) -> None:
    """Write a page that shows what was tried and, for each failure, its run: a lane for each task.

    Args:
        report: what an exploration found.
        path: the file; it is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    Path(path).write_text(_page(report), encoding="utf-8", newline="\n")


def _page(report: Report) -> str:
    count = len(report.failures)
    verdict = f"{count} failure{'s' * (count != 1)} found" if count else "nothing found"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        # The page promises to need nothing; this makes the browser hold it to that, whatever the scenario's texts say.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{text(report.scenario)}: {verdict}</title><style>{STYLE}</style></head><body>",
        f"<header><h1>{text(report.scenario)}</h1>",
        f'<p class="verdict {"bad" if count else "good"}">{verdict}</p></header>',
        *(f'<p class="warning"><b>warning</b> {text(warning)}</p>' for warning in report.warnings),
    ]
    for number, failure in enumerate((*report.failures, *report.hypothetical), 1):
        parts.extend(_failure(failure, f"f{number}"))
    if report.failures or report.hypothetical:
        parts.append(LEGEND)
    parts.extend(_tried(report))
    parts.append("</body></html>\n")
    return "\n".join(parts)


# --- a failure -------------------------------------------------------------------------------------------


def _failure(failure: Failure, ident: str) -> Iterable[str]:
    drawing = draw(failure.trace, ident)
    tag = ' <span class="tag">hypothetical</span>' if failure.hypothetical else ""
    yield f'<section class="failure" id="{ident}">'
    plain = "" if failure.plain is None else f"; {failure.plain} of {failure.plain_runs} plain runs show it"
    yield f"<h2><b>{text(failure.kind)}</b> {text(KINDS.get(failure.kind, ''))}{tag}</h2>"
    yield f'<pre class="message">{text(failure.message)}</pre>'
    yield "<dl>"
    yield _fact("the run", text(failure.sentence))
    yield _fact(
        "how rare",
        f"{failure.mode} mode, found after {failure.found_after} runs{plain}",
    )
    if failure.hypothetical:
        yield _fact("hypothetical", "the code may rely on nobody else to cancel this scope")
    if failure.note:
        yield _fact("note", f"<pre>{text(failure.note)}</pre>")
    if failure.passing:
        yield _fact("nearest run that passes", f"<pre>{text(failure.passing)}</pre>")
    yield _fact("replay it", f'<code class="copy">{text(failure.replay)}</code>')
    yield "</dl>"
    yield from _lanes(drawing)
    if failure.exception is not None:
        yield f"<details><summary>what was raised</summary><pre>{text(_traceback(failure.exception))}</pre></details>"
    yield from _moments(failure.trace, drawing)
    yield "</section>"


def _fact(name: str, value: str) -> str:
    return f"<dt>{name}</dt><dd>{value}</dd>"


def _lanes(drawing: Drawing) -> Iterable[str]:
    jumps = " ".join(f'<a href="#{anchor}">{text(what)}</a>' for anchor, what in drawing.anchors)
    if jumps:
        yield f'<p class="jumps">go to {jumps}</p>'
    if drawing.left_out:
        yield (
            f'<p class="cut">{drawing.left_out} of the run\'s moments are left out: drawn are its beginning, its end,'
            " and what is around the cancellations and the finding</p>"
        )
    yield f'<div class="swimming"><div class="names" style="padding-top:{drawing.top}px">'
    for task in drawing.tasks:
        yield f'<div class="name" style="height:{LANE}px" title="{text(task)}"><span>{text(task)}</span></div>'
    yield '</div><div class="scroll" tabindex="0" role="region" aria-label="the run, from left to right">'
    yield f"{drawing.svg}</div></div>"


def _moments(trace: Sequence[Moment], drawing: Drawing) -> Iterable[str]:
    yield (
        '<details><summary>every moment, as text</summary><div class="scroll"><table class="moments"><thead><tr>'
        "<th>time</th><th>event</th><th>what</th><th>task</th><th>where</th><th></th></tr></thead><tbody>"
    )
    for column in drawing.columns:
        if column.kind == "gap":
            yield f'<tr class="cut"><td colspan="6">{column.last - column.first} moments are left out</td></tr>'
            continue
        for moment in trace[column.first : column.last]:
            event = "" if moment.event is None else f"[{moment.event}]"
            cells = (f"{moment.time:.3f}", event, moment.what, moment.task, moment.where, moment.detail)
            yield f'<tr class="{moment.what}">{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
    yield "</tbody></table></div></details>"


def _traceback(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error))
    return lines if len(lines) <= _LONGEST_TRACEBACK else f"…{lines[-_LONGEST_TRACEBACK:]}"


# --- what was tried --------------------------------------------------------------------------------------


def _tried(report: Report) -> Iterable[str]:
    coverage = report.coverage
    summary = report.summary.partition("\nwarning: ")[0]
    yield f'<section><h2>What was tried</h2><pre class="summary">{text(summary)}</pre>'
    yield (
        f'<p class="percent"><b>{coverage.percent:.0f} %</b> of the await lines reached were struck by a cancellation'
        f'<span class="bar"><span style="width:{coverage.percent:.1f}%"></span></span></p>'
    )
    struck_for: dict[str, list[str]] = {}
    for place, victim in sorted(report.strikes):
        struck_for.setdefault(victim, []).append(place)
    yield _list("reached and never struck", coverage.never_struck, shown=True)
    yield _list("struck", sorted(coverage.struck))
    yield _list("never reached", coverage.never_reached)
    for victim, places in sorted(struck_for.items()):
        yield _list(f"where cancelling {victim} raised", places)
    yield "</section>"


def _list(name: str, places: Sequence[str], *, shown: bool = False) -> str:
    if not places:
        return ""
    items = "".join(f"<li>{text(place)}</li>" for place in places)
    return (
        f"<details{' open' * shown}><summary>{text(name)}: {len(places)}</summary>"
        f'<ul class="places">{items}</ul></details>'
    )
