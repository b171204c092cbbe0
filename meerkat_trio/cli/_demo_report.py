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
    from collections.abc import Callable
    from contextlib import ExitStack

    from ._performance import Outcome

__all__ = ["as_json", "print_tables", "progress"]

_SESSIONS_SHOWN: Final = 20
_PROGRESS_EVERY: Final = 50
_WIDTH_OF_A_FILE: Final = 120


def progress(stack: ExitStack, total: int) -> Callable[[int], None]:
    """Show a bar on standard error while ``stack`` is open, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return lambda _: None
    columns = ("handled", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = bar.add_task("handled", total=total)

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
        "stuck": outcome.stuck,
        "succeeded": outcome.succeeded,
        "seed": seed,
        "settings": settings,
        "sessions": _sessions(outcome),
    }
    return json.dumps(data)


def print_tables(outcome: Outcome) -> None:
    """Print a table of the sessions and the total, the faults, and the verdict."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    total = outcome.total()
    table = Table(title="what the ledger says", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("session")
    for column in total:
        table.add_column(column.replace("_", " "), justify="right")
    data = _sessions(outcome)
    for session in list(data)[:_SESSIONS_SHOWN]:
        # A text, for a name of the input may look like markup.
        table.add_row(Text(session), *(str(data[session][column]) for column in total))
    if len(data) > _SESSIONS_SHOWN:
        table.add_row(f"… {len(data) - _SESSIONS_SHOWN} more", *("" for _ in total))
    table.add_section()
    table.add_row("total", *(str(value) for value in total.values()), style="bold")
    console.print(table)
    if outcome.demanded:
        happened = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in outcome.faults.items())
        console.print(f"faults that happened: {happened}")
    if outcome.missing:
        console.print(f"faults that did not happen: {', '.join(outcome.missing)}")
    if outcome.stuck:
        console.print("GIVEN UP: nothing happened any more")
    balanced = "nothing was lost, doubled or reordered"
    console.print(balanced if outcome.account.balances else "THE LEDGER DOES NOT BALANCE")
