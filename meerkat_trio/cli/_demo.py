"""`meerkat-trio demo`: hosts sessions, sends messages, breaks things, and shows from a ledger that nothing was lost.

Options and exit statuses only; what happens is in `_performance`, what is printed in `_demo_report`.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._demo_input import InputError, read_input
from ._demo_report import as_json, print_tables, progress
from ._demo_transport import TRANSPORTS
from ._ledger import Ledger, LedgerError
from ._mob_outcome import MobOutcome
from ._mob_performance import MobShow, perform_mobs
from ._mob_report import mob_as_json, print_mob_tables
from ._performance import Outcome, Show, Traffic, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["demo"]

_MOST_MESSAGES: Final = 5_000_000
"""Of all sessions together: a plan, a receipt and a place in the audit is kept of each, some 300 bytes."""
_MADE_UP_ONLY: Final = {name: f"--{name}" for name in ("sessions", "messages", "senders")}
_UNSUPERVISED_ONLY: Final = {"input_": "--input", "senders": "--senders"}


@click.command()
@click.option("--sessions", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Sessions to host.")
@click.option(
    "--messages", type=click.IntRange(1, _MOST_MESSAGES), default=200, show_default=True, help="For each session."
)
@click.option("--senders", type=click.IntRange(1, 10_000), default=4, show_default=True, help="For each session.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the faults.")
@click.option("--no-faults", is_flag=True, help="Let nothing go wrong.")
@click.option(
    "--input", "input_", metavar="FILE", help="Drain this JSON Lines file instead, without faults; - is stdin."
)
@click.option("--ledger", type=click.Path(dir_okay=False, path_type=Path), help="Append what was handled to this file.")
@click.option("--supervised", is_flag=True, help="Let supervisors command the sessions, in mobs of up to five.")
@click.option(
    "--transport",
    type=click.Choice(list(TRANSPORTS)),
    default="memory",
    show_default=True,
    help="What messages go over.",
)
@click.option("--virtual", is_flag=True, help="Virtual time and a controlled schedule: the same seed, the same run.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object.")
@click.pass_context
def demo(
    context: click.Context,
    *,
    sessions: int,
    messages: int,
    senders: int,
    seed: int,
    no_faults: bool,
    input_: str | None,
    ledger: Path | None,
    supervised: bool,
    transport: str,
    virtual: bool,
    json_: bool,
) -> None:
    """Host sessions, send them messages, break things meanwhile, and audit the ledger.

    Exit status 0 only if nothing was lost, doubled or reordered and, with faults, every kind of fault happened; with
    --supervised every kind of rejection and repair, too.
    """
    if sessions * messages > _MOST_MESSAGES:
        asked = f"{sessions} x {messages}"
        raise click.UsageError(f"--sessions x --messages: {asked} is more than {_MOST_MESSAGES} messages")
    if transport != "memory":
        _require_sockets(transport, supervised=supervised, virtual=virtual)
    settings: dict[str, Any] = {"sessions": sessions, "messages": messages, "senders": senders}
    play: Callable[..., Outcome | MobOutcome]
    if supervised:
        _refuse_unsupervised(context, sessions)
        del settings["senders"]
        play = partial(_play_supervised, sessions, messages)
        expected = sessions * messages
    else:
        if input_ is None:
            traffic = Traffic.made_up(sessions, messages, senders)
        else:
            _refuse_made_up(context)
            traffic, settings = _traffic_of(input_), dict.fromkeys(settings)
        play = partial(_play, traffic, transport)
        expected = len(traffic)
    faults = not no_faults and input_ is None
    settings |= {
        "input": input_ is not None,
        "supervised": supervised,
        "transport": transport,
        "faults": faults,
        "virtual": virtual,
    }
    with ExitStack() as stack:
        opened, on_progress = _opened(stack, ledger, input_), progress(stack, expected)
        try:
            with _in_silence():
                outcome = play(seed=seed, faults=faults, virtual=virtual, ledger=opened, on_progress=on_progress)
        except LedgerError as error:
            which = "the temporary ledger" if ledger is None else f"--ledger {ledger}"
            raise click.ClickException(f"{which}: {error}") from None
    match outcome, json_:
        case MobOutcome(), True:
            click.echo(mob_as_json(outcome, seed, settings))
        case MobOutcome(), _:
            print_mob_tables(outcome)
        case Outcome(), True:
            click.echo(as_json(outcome, seed, settings))
        case Outcome(), _:
            print_tables(outcome)
    sys.exit(0 if outcome.succeeded else 1)


def _play(traffic: Traffic, transport: str, **how: Any) -> Outcome:
    return perform(Show(traffic=traffic, transport=transport, **how))


def _play_supervised(sessions: int, messages: int, **how: Any) -> MobOutcome:
    return perform_mobs(MobShow(sessions=sessions, messages=messages, **how))


def _refuse_unsupervised(context: click.Context, sessions: int) -> None:
    given = _given(context, _UNSUPERVISED_ONLY)
    if given:
        raise click.UsageError(f"{given}: with --supervised the senders are supervisors and other sessions")
    if sessions < 2:  # noqa: PLR2004
        raise click.UsageError(f"--sessions: with --supervised 2 or more are needed, not {sessions}")


def _require_sockets(transport: str, *, supervised: bool, virtual: bool) -> None:
    if supervised or virtual:
        option = "--supervised" if supervised else "--virtual"
        raise click.UsageError(f"--transport {transport}: sockets do not go together with {option}")
    if find_spec("nacl") is None or find_spec("cbor2") is None:
        raise click.UsageError(f"--transport {transport}: install meerkat-trio[socket]")


def _refuse_made_up(context: click.Context) -> None:
    given = _given(context, _MADE_UP_ONLY)
    if given:
        raise click.UsageError(f"{given}: with --input the file says what is sent")


def _given(context: click.Context, names: Mapping[str, str]) -> str:
    """Name the options that were given, of those that make no sense."""
    default = click.core.ParameterSource.DEFAULT
    return ", ".join(option for name, option in names.items() if context.get_parameter_source(name) is not default)


def _traffic_of(name: str) -> Traffic:
    if not name:
        raise click.UsageError("--input: the name of a file is needed, or - for standard input")
    try:
        if name == "-":
            if sys.stdin is None:
                raise click.UsageError("--input -: standard input is closed")
            return Traffic.of_lines(read_input("<stdin>", sys.stdin.buffer))
        with Path(name).open("rb") as file:
            return Traffic.of_lines(read_input(name, file))
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from None
    except InputError as error:
        raise click.UsageError(str(error)) from None


def _opened(stack: ExitStack, path: Path | None, input_: str | None) -> Ledger:
    try:
        if path is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.jsonl"
        elif input_ is not None and path.exists() and _is_input(path, input_):
            raise click.UsageError(f"--ledger {path}: this is the input")
        ledger = Ledger(path)
    except OSError as error:
        which = "the temporary ledger" if path is None else f"--ledger {path}"
        raise click.UsageError(f"{which}: {error.strerror or error}") from None
    stack.callback(ledger.close)
    return ledger


def _is_input(path: Path, input_: str) -> bool:
    if input_ != "-":
        return path.samefile(input_)
    with suppress(OSError):  # no file at all
        return os.path.samestat(path.stat(), os.fstat(sys.stdin.fileno()))
    return False


@contextmanager
def _in_silence() -> Iterator[None]:
    """Perform in the block: the faults are meant, and a log of each would hide the result."""
    logger = logging.getLogger("meerkat_trio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
