"""`meerkat-trio check`: explores a scenario and says what was found.

Options, progress and exit statuses only: what is tried is the explorer's business, what is said the report's.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..testing import ReplayError, ScenarioError, explore
from ..testing._lanes import shown
from ._scenario import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..testing import Report

__all__ = ["check"]

_INTERRUPTED: Final = 130
_LINES_SHOWN: Final = 20
_NOT_WITH_REPLAY: Final = ("budget", "runs", "workers", "seed", "mode", "fail_under")
_DECIDES_A_RUN: Final = ("victims", "max_steps", "dies_within", "jitter")


class _Number(click.FloatRange):
    """A range without what is no number to compute with."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


_OUTPUT: Final = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("target", metavar="MODULE:SCENARIO")
@click.option("--budget", type=_Number(min=0), metavar="SECONDS", help="At the most; 10 unless given.")
@click.option("--runs", type=click.IntRange(min=1), metavar="N", help="At the most; makes the result repeatable.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, metavar="N", help="Processes.")
@click.option(
    "--mode",
    type=click.Choice(["fair", "adversarial"]),
    default="adversarial",
    show_default=True,
    help="Whether tasks may be held back, as Trio is free to do and hardly ever does.",
)
@click.option(
    "--victims",
    type=click.Choice(["declared", "all"]),
    default="declared",
    show_default=True,
    help="Who may be cancelled.",
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of what is tried at random.")
@click.option("--max-steps", type=click.IntRange(min=1), default=100_000, show_default=True, metavar="N")
@click.option("--dies-within", type=_Number(min=0), metavar="S", help="Virtual seconds a cancelled scope may take.")
@click.option("--jitter", type=_Number(min=0), default=0.0, metavar="S", help="Timers that close may swap.")
@click.option("--source", multiple=True, metavar="NAME", help="Package, module or path to cover; may be repeated.")
@click.option("--fail-under", type=_Number(0, 100), metavar="PERCENT", help="Of the await lines reached, to be struck.")
@click.option("--replay", metavar="S", help="Make just the run of a failure's replay string.")
@click.option("--html", type=_OUTPUT, metavar="FILE", help="Write a page with the runs of the failures drawn.")
@click.option("--perfetto", type=_OUTPUT, metavar="FILE", help="Write the first failure's run as trace events.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(
    context: click.Context,
    /,
    *,
    target: str,
    fail_under: float | None,
    html: Path | None,
    perfetto: Path | None,
    json_: bool,
    **settings: Any,
) -> None:
    """Run an async function under every schedule and every cancellation, and show the smallest run that fails.

    MODULE is a dotted name or a path to a file. Exit status 0: nothing found; 1: a failure, or too little covered.
    """
    try:
        _refuse_beside_replay(context)
        _require_writable(html, perfetto)
        scenario = load(target)
        report = _explored(scenario, settings)
        _write(report, html, perfetto)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
    if json_:
        click.echo(json.dumps({**report.as_dict(), "fail_under": fail_under}, indent=2))
    else:
        _print(report, _again(context, target))
    percent = report.coverage.percent
    too_little = fail_under is not None and percent < fail_under
    if too_little:
        click.echo(
            f"{percent:.1f} % of the await lines reached were struck: --fail-under asks for {fail_under:g} %", err=True
        )
    sys.exit(1 if report.failures or too_little else 0)


# --- before ----------------------------------------------------------------------------------------------


def _given(context: click.Context, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT]


def _refuse_beside_replay(context: click.Context) -> None:
    if context.params["replay"] is None:
        return
    if given := _given(context, _NOT_WITH_REPLAY):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{options}: with --replay only the run of the string is made")


def _require_writable(html: Path | None, perfetto: Path | None) -> None:
    """Find out now, not after a long exploration."""
    for option, path in (("--html", html), ("--perfetto", perfetto)):
        if path is None or (path.exists() and not path.is_file()):
            continue  # opening a pipe would wait for its reader
        new = not path.exists()
        try:
            path.open("ab").close()
            if new:
                path.unlink()
        except OSError as error:
            raise click.UsageError(f"{option} {path}: {error.strerror}") from None
    if html is not None and perfetto is not None and html.resolve() == perfetto.resolve():
        raise click.UsageError(f"--perfetto {perfetto}: this is where --html goes")


# --- exploring -------------------------------------------------------------------------------------------


def _explored(scenario: Any, settings: dict[str, Any]) -> Report:
    # What the scenario prints, thousands of times, must not get into the output.
    with ExitStack() as stack, contextlib.redirect_stdout(sys.stderr):
        heed = stack.enter_context(_interrupts())
        show = stack.enter_context(_progress())

        def on_progress(runs: int, share: float) -> None:
            heed()
            show(runs, share)

        try:
            report = explore(scenario, **settings, on_progress=on_progress)
        except (ScenarioError, ReplayError, ValueError) as error:
            heed()
            raise click.UsageError(shown(str(error))) from None
        except Exception as error:  # noqa: BLE001 - exit status 1 is for what is wrong with the scenario
            heed()
            traceback.print_exc()
            raise click.UsageError(f"the explorer itself failed: {type(error).__name__}: {error}") from None
        heed()
        return report


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Yield what raises KeyboardInterrupt if there was one.

    One alone may get lost: raised in a finalizer it is ignored, and a scenario may make another error of it.
    """
    seen = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        signal.default_int_handler(number, frame)

    def heed() -> None:
        if seen:
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    try:
        yield heed
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, float], None]]:
    """Show a bar on standard error, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _runs, _share: None
        return
    columns = (TextColumn("exploring"), BarColumn(), TextColumn("{task.fields[runs]} runs"), TimeElapsedColumn())
    # No thread that draws: worker processes are forked meanwhile.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("exploring", total=1.0, runs=0)
        yield lambda runs, share: bar.update(task, completed=share, runs=runs, refresh=True)


# --- afterwards ------------------------------------------------------------------------------------------


def _write(report: Report, html: Path | None, perfetto: Path | None) -> None:
    try:
        if html is not None:
            report.to_html(html)
        if perfetto is not None:
            if report.failures or report.hypothetical:
                report.to_perfetto(perfetto)
            else:
                click.echo(f"--perfetto {perfetto}: not written, for there is no failure to show", err=True)
    except OSError as error:
        raise click.UsageError(f"{error.filename or 'the file'} cannot be written: {error.strerror}") from None


def _print(report: Report, again: str) -> None:
    lines = [str(report)]
    lines += [f"on the command line: {again} --replay {shlex.quote(failure.replay)}" for failure in report.failures]
    if unstruck := report.coverage.never_struck:
        more = f" and {len(unstruck) - _LINES_SHOWN} more" if len(unstruck) > _LINES_SHOWN else ""
        lines.append(f"reached and never struck: {', '.join(unstruck[:_LINES_SHOWN])}{more}")
    text = shown("\n".join(lines))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def _again(context: click.Context, target: str) -> str:
    """Return the command that a replay string is to be appended to: with what decides a run besides it."""
    options = [
        word
        for name in _given(context, _DECIDES_A_RUN)
        for word in (f"--{name.replace('_', '-')}", str(context.params[name]))
    ]
    return shlex.join(["meerkat-trio", "check", target, *options])
