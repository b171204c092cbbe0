"""`meerkat-trio demo`: hosts sessions, sends messages, breaks things, and shows from a ledger that nothing was lost."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import asdict
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from ._ledger import InputError, read_input
from ._performance import Show, Traffic, perform

if TYPE_CHECKING:
    from ._performance import Outcome

__all__ = ["demo"]

_SESSIONS_SHOWN: Final = 20
_PROGRESS_EVERY: Final = 50
_WIDTH_OF_A_FILE: Final = 120


@click.command()
@click.option("--sessions", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Sessions to host.")
@click.option(
    "--messages", type=click.IntRange(1, 10_000_000), default=200, show_default=True, help="For each session."
)
@click.option("--senders", type=click.IntRange(1, 10_000), default=4, show_default=True, help="For each session.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the faults.")
@click.option("--no-faults", is_flag=True, help="Let nothing go wrong.")
@click.option(
    "--input", "input_", metavar="FILE", help="Drain this JSON Lines file instead, without faults; - is stdin."
)
@click.option("--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Where to write what was handled.")
@click.option("--virtual", is_flag=True, help="Virtual time and a controlled schedule: the same seed, the same run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def demo(
    *,
    sessions: int,
    messages: int,
    senders: int,
    seed: int,
    no_faults: bool,
    input_: str | None,
    ledger: Path | None,
    virtual: bool,
    as_json: bool,
) -> None:
    """Host sessions, send them messages, break things meanwhile, and audit the ledger.

    Exit status 0 only if nothing was lost, doubled or reordered and, with faults, every kind of fault happened.
    """
    traffic = Traffic.made_up(sessions, messages, senders) if input_ is None else _traffic_of(input_)
    faults = not no_faults and input_ is None
    settings = {"sessions": len(traffic.bodies), "messages": len(traffic), "seed": seed, "faults": faults}
    # The faults are meant; a log of each would hide the result.
    logging.getLogger("meerkat_trio").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if ledger is None:
            ledger = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.jsonl"
        try:
            on_progress = _progress(stack, len(traffic), quiet=as_json)
            show = Show(
                traffic=traffic, seed=seed, faults=faults, virtual=virtual, ledger=ledger, on_progress=on_progress
            )
            outcome = perform(show)
        except OSError as error:
            raise click.UsageError(f"--ledger {error.filename}: {error.strerror}") from None
        except KeyboardInterrupt:
            stack.close()
            click.echo("interrupted", err=True)
            sys.exit(130)
    if as_json:
        click.echo(json.dumps(_as_data(outcome, settings)))
    else:
        _print(outcome)
    sys.exit(0 if outcome.succeeded else 1)


def _traffic_of(name: str) -> Traffic:
    try:
        if name == "-":
            return Traffic.of_lines(read_input("<stdin>", sys.stdin))
        with Path(name).open(encoding="utf-8") as file:
            return Traffic.of_lines(read_input(name, file))
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name}: not UTF-8: {error.reason}") from None
    except InputError as error:
        raise click.UsageError(str(error)) from None


def _progress(stack: ExitStack, total: int, *, quiet: bool) -> Any:
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        return _show_nothing
    bar = stack.enter_context(
        Progress("handled", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True)
    )
    task = bar.add_task("handled", total=total)

    def show(handled: int) -> None:
        if handled % _PROGRESS_EVERY == 0 or handled == total:
            bar.update(task, completed=handled)

    return show


def _show_nothing(_: int) -> None:
    pass


def _as_data(outcome: Outcome, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "total": outcome.total(),
        "faults": outcome.faults,
        "missing_faults": list(outcome.missing),
        "succeeded": outcome.succeeded,
        "settings": settings,
        "sessions": {
            session: {
                **asdict(each.account),
                "rebinds": each.rebinds,
                "restarts": each.restarts,
                "longest_stall": round(each.longest_stall, 6),
            }
            for session, each in outcome.sessions.items()
        },
    }


def _print(outcome: Outcome) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    total = outcome.total()
    table = Table(title="what the ledger says", title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("session")
    for column in total:
        table.add_column(column.replace("_", " "), justify="right")
    data = _as_data(outcome, {})["sessions"]
    for session in list(data)[:_SESSIONS_SHOWN]:
        table.add_row(session, *(str(data[session][column]) for column in total))
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
    balanced = "nothing was lost, doubled or reordered"
    console.print(balanced if outcome.account.balances else "THE LEDGER DOES NOT BALANCE")
