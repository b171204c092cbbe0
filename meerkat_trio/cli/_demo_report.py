"""What the demo prints: a progress bar, tables, or one JSON object. Decides nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from attrs import asdict
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from ._performance import Outcome

__all__ = ["as_json", "open_console", "print_counts", "print_sessions", "print_tables", "progress"]

_SESSIONS_SHOWN: Final = 20
_PROGRESS_EVERY: Final = 50
_WIDTH_OF_A_FILE: Final = 1_000_000
"""Nothing is folded in a pipe or a file."""
_NARROWEST_NAME: Final = 10
_NARROW_HEADINGS: Final = {
    "duplicated": "dupli-\ncated",
    "reordered": "re-\nordered",
    "abandoned": "aban-\ndoned",
    "rebinds": "re-\nbinds",
    "restarts": "re-\nstarts",
    "longest_stall": "longest\nstall",
    "handed_back": "handed\nback",
}


def progress(stack: ExitStack, total: int | None, what: str = "handled") -> Callable[[int], None]:
    """Show a bar on standard error while ``stack`` is open, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return lambda _: None
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = bar.add_task(what, total=total)

    def show(handled: int) -> None:
        if handled % _PROGRESS_EVERY == 0 or handled == total:
            bar.update(task, completed=handled)

    return show


def _sessions(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {
        session: {
            **asdict(each.account),
            "rebinds": each.rebinds,
            "restarts": each.restarts,
            "longest_stall": each.longest_stall,
        }
        for session, each in outcome.sessions.items()
    }


def as_json(outcome: Outcome, seed: int, settings: dict[str, Any]) -> str:
    """Return everything as one JSON object."""
    data = {
        "total": {**outcome.total(), "faults": outcome.faults},
        "faults": outcome.faults,
        "missing_faults": list(outcome.missing),
        "never_sent": outcome.planned - outcome.account.sent,
        "stuck": outcome.stuck,
        "failures": list(outcome.failures),
        "succeeded": outcome.succeeded,
        "seed": seed,
        "settings": settings,
        "sessions": _sessions(outcome),
    }
    return json.dumps(data)


def open_console() -> Console:
    """Return the console that tables are printed on: standard output."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    return console


def print_tables(outcome: Outcome) -> None:
    """Print a table of the sessions and the total, the faults, and the verdict."""
    console = open_console()
    wrong = [name for name, each in outcome.sessions.items() if not each.account.balances or each.account.abandoned]
    print_sessions(console, _sessions(outcome), outcome.total(), wrong)
    if outcome.demanded:
        happened = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in outcome.faults.items())
        console.print(f"faults that happened: {happened}")
    if outcome.succeeded:
        console.print("nothing was lost, doubled or reordered")
    else:
        console.print(f"FAILED: {'; '.join(outcome.failures)}")


def print_sessions(
    console: Console, rows: dict[str, dict[str, Any]], total: dict[str, Any], wrong: Sequence[str]
) -> None:
    """Print a table of the sessions and the total, as narrow as it has to be.

    Args:
        console: where.
        rows: by session, then by column.
        total: the last row.
        wrong: sessions with which something is wrong: they come first and are all shown.
    """
    shown = _shown(rows, wrong)
    forms = [_table(rows, shown, total, *form) for form in (({}, 1), (_NARROW_HEADINGS, 1), (_NARROW_HEADINGS, 0))]
    unbounded = console.options.update(width=_WIDTH_OF_A_FILE)
    needed = [console.measure(table, options=unbounded) for table in forms]
    # Rather narrow headings than a folded name; no number and no heading is ever cut.
    fitting = [table for table, need in zip(forms, needed, strict=True) if need.maximum <= console.width]
    fitting += [table for table, need in zip(forms[1:], needed[1:], strict=True) if need.minimum <= console.width]
    if fitting:
        console.print(fitting[0])
        return
    # Not even the numbers fit beside each other.
    for name, row in [*((name, rows[name]) for name in shown), ("total", total)]:
        told = ", ".join(f"{column.replace('_', ' ')} {_number(value)}" for column, value in row.items())
        console.print(f"{name}: {told}", overflow="fold")
    if len(rows) > len(shown):
        console.print(_more(rows, shown))


def print_counts(console: Console, title: str, counts: dict[str, int]) -> None:
    """Print a table of how often what happened; what never did is shown too."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column(title, overflow="fold")
    table.add_column("times", justify="right", no_wrap=True)
    for kind, count in counts.items():
        table.add_row(kind.replace("_", " "), str(count))
    console.print()
    console.print(table)


def _shown(rows: dict[str, Any], wrong: Sequence[str]) -> list[str]:
    known = set(wrong)
    fine = [name for name in rows if name not in known]
    return [*wrong, *fine[: max(0, _SESSIONS_SHOWN - len(wrong))]]


def _more(rows: dict[str, Any], shown: list[str]) -> str:
    return f"and {len(rows) - len(shown)} more"


def _table(
    rows: dict[str, dict[str, Any]], shown: list[str], total: dict[str, Any], headings: dict[str, str], padding: int
) -> Table:
    table = Table(
        title="what the ledger says",
        title_justify="left",
        box=SIMPLE,
        show_edge=False,
        pad_edge=False,
        padding=(0, padding, 0, padding if not headings else 0),
    )
    table.add_column("session", overflow="fold", min_width=_NARROWEST_NAME)
    for column in total:
        table.add_column(headings.get(column, column.replace("_", " ")), justify="right", no_wrap=True)
    for name in shown:
        # A text, for a name of the input may look like markup.
        table.add_row(Text(name), *(_number(rows[name][column]) for column in total))
    if len(rows) > len(shown):
        table.add_row(_more(rows, shown), *("" for _ in total))
    table.add_section()
    table.add_row("total", *(_number(value) for value in total.values()), style="bold")
    return table


def _number(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
