"""`meerkat-trio machine`: prints the transition table from the code."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Final, get_args

import click
from rich.console import Console
from rich.table import Table

from .. import authority
from ..authority import (
    ACTIVE,
    COMMANDS,
    INVARIANTS,
    LIVE,
    TRANSITIONS,
    CommsDrainMode,
    Detacher,
    DrainExitReason,
    DrainStopping,
    RunOutcome,
    SessionPhase,
    SessionState,
    TransitionRejected,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..authority import Input, Row

__all__ = ["machine"]


@click.command()
@click.option("--format", "form", type=click.Choice(["table", "mermaid", "json", "markdown"]), default="table")
def machine(form: str) -> None:
    """Print the transition table of the authority, from the code."""
    if form == "table":
        _print_table()
    else:
        click.echo({"mermaid": _mermaid, "json": _json, "markdown": _markdown}[form](), nl=False)


# --- one row --------------------------------------------------------------------------------------


def _phases(row: Row) -> str:
    named = {frozenset(SessionPhase): "any", LIVE: "LIVE", ACTIVE: "ACTIVE"}
    if row.phases in named:
        return named[row.phases]
    return ", ".join(phase.name for phase in SessionPhase if phase in row.phases)


def _kind(row: Row) -> str:
    return "command" if row.on in COMMANDS else "observation"


def _guards(row: Row) -> str:
    return ", ".join(name for name, _ in row.guards)


def _outcome(row: Row) -> str:
    return f"no-op: {row.ignored}" if row.ignored else ", ".join(row.emits)


_WIDTH_OF_A_FILE: Final = 1_000_000
"""Nothing is folded in a pipe or a file."""
_NARROWEST_SENTENCE: Final = 30
_FINISH: Final = "whichever step leaves an ending session without drain and executor"


def _effects() -> Iterable[tuple[str, str, list[str]]]:
    """Name each effect, say what it asks for, and name the rows that emit it."""
    for effect in get_args(authority.Effect):
        doc = (effect.__doc__ or "").strip().removesuffix(".")
        yield effect.__name__, doc, [row.name for row in TRANSITIONS if effect.__name__ in row.emits]


def _rows_by_region() -> Iterable[tuple[str, list[Row]]]:
    return ((region, list(rows)) for region, rows in groupby(TRANSITIONS, key=lambda row: row.region))


def _print_table() -> None:
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    unbounded = console.options.update(width=_WIDTH_OF_A_FILE)
    tables = {region: _table(region, rows) for region, rows in _rows_by_region()}
    if all(console.measure(table, options=unbounded).minimum <= console.width for table in tables.values()):
        for table in tables.values():
            console.print(table)
        return
    for region, rows in _rows_by_region():
        console.print(f"{region}\n", style="bold")
        for row in rows:
            _print_block(console, row)


def _table(region: str, rows: list[Row]) -> Table:
    """Make a table in which only the sentences can be wrapped: names stand below each other."""
    table = Table(title=region, title_justify="left", show_lines=True)
    for column in ("row", "input", "phases", "guards"):
        table.add_column(column, no_wrap=True)
    table.add_column("effects", min_width=_NARROWEST_SENTENCE)
    table.add_column("what it does", min_width=_NARROWEST_SENTENCE)
    for row in rows:
        effects = _outcome(row) if row.ignored else "\n".join(row.emits)
        table.add_row(
            row.name,
            row.on.__name__,
            _phases(row).replace(", ", "\n"),
            _guards(row).replace(", ", "\n"),
            effects,
            row.doc,
        )
    return table


def _print_block(console: Console, row: Row) -> None:
    block = Table.grid(padding=(0, 2, 0, 0))
    block.add_column(no_wrap=True)
    block.add_column(overflow="fold")
    told = {
        "input": row.on.__name__,
        "phases": _phases(row),
        "guards": _guards(row),
        "effects": _outcome(row),
        "what it does": row.doc,
    }
    for what, text in told.items():
        if text:
            block.add_row(f"  {what}", text)
    console.print(row.name, style="bold")
    console.print(block)
    console.print()


def _json() -> str:
    rows = [
        {
            "name": row.name,
            "region": row.region,
            "input": row.on.__name__,
            "kind": _kind(row),
            "phases": [phase.value for phase in SessionPhase if phase in row.phases],
            "conditional": row.when is not None,
            "guards": [name for name, _ in row.guards],
            "effects": list(row.emits),
            "ignored": row.ignored,
            "doc": row.doc,
        }
        for row in TRANSITIONS
    ]
    effects = {name: doc for name, doc, _ in _effects()}
    return json.dumps({"rows": rows, "invariants": dict(INVARIANTS), "effects": effects}, indent=2) + "\n"


# --- diagrams: found by running the authority, not by reading the table ------------------------------

_RUN: Final = "run"
_MODE: Final = CommsDrainMode.PERSISTENT_HOST
_WALKS: Final[tuple[Callable[[SessionState], Input], ...]] = (
    lambda s: authority.Register(s.session.session_id),
    lambda _: authority.AttachExecutor(),
    lambda _: authority.BeginRun(_RUN, "message"),
    lambda _: authority.RunFinished(_RUN, RunOutcome.CONSUMED),
    lambda _: authority.DetachExecutor(),
    lambda _: authority.ExecutorStopped(),
    lambda _: authority.Retire(),
    lambda _: authority.Stop(),
    lambda _: authority.Unregister(),
    lambda _: authority.Destroy(),
    lambda _: authority.AttachSessionIngress("comms", _MODE, 1.0),
    lambda _: authority.DetachIngress(Detacher()),
    lambda _: authority.SpawnDrain(_MODE, 1.0),
    lambda _: authority.SpawnDrain(CommsDrainMode.TIMED, 1.0),
    lambda _: authority.RebindDrain(),
    lambda _: authority.StopDrain(DrainStopping.ABORT),
    lambda s: authority.DrainStarted(s.drain.generation),
    lambda s: authority.DrainExited(s.drain.generation, DrainExitReason.FAILED),
    lambda s: authority.DrainExited(s.drain.generation, DrainExitReason.ABORTED),
    lambda s: authority.DrainExited(s.drain.generation, DrainExitReason.IDLE_TIMEOUT),
    lambda s: authority.DrainExited(s.drain.generation, DrainExitReason.DISMISSED),
    lambda s: authority.RespawnDue(s.drain.generation),
)

Edge = tuple[str, str, str]


def _shape(state: SessionState) -> object:
    session, drain = state.session, state.drain
    return (
        session.phase, session.executor_attached, session.run_id, session.ending, session.ended,
        drain.phase, drain.mode, drain.stopping, state.ingress,
    )  # fmt: skip


def _edges() -> tuple[list[Edge], list[Edge]]:
    """Walk through every reachable state and collect the changes of the session's and of the drain's phase."""
    start = SessionState.initial("session")
    seen, open_states = {_shape(start)}, [start]
    sessions: dict[Edge, None] = {}
    drains: dict[Edge, None] = {}
    while open_states:
        state = open_states.pop()
        for make in _WALKS:
            try:
                step = authority.apply(state, make(state))
            except TransitionRejected:
                continue
            name = type(step.input).__name__
            before, after = state.session.phase, step.after.session.phase
            if before is not after:
                sessions[before.name, after.name, name] = None
            if state.drain.phase is not step.after.drain.phase:
                drains[state.drain.phase.name, step.after.drain.phase.name, name] = None
            if _shape(step.after) not in seen:
                seen.add(_shape(step.after))
                open_states.append(step.after)
    return sorted(sessions), sorted(drains)


def _diagram(title: str, start: str, edges: list[Edge]) -> str:
    lines = [f"%% {title}", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {before} --> {after}: {label}" for before, after, label in _labelled(edges)]
    return "\n".join(lines) + "\n"


def _mermaid() -> str:
    """Draw both in one document; its states share one name space, so each gets the name of its machine in front."""
    sessions, drains = _edges()
    return "stateDiagram-v2\n" + _part("session", "INITIALIZING", sessions) + _part("drain", "INACTIVE", drains)


def _part(name: str, start: str, edges: list[Edge]) -> str:
    phases = sorted({phase for before, after, _ in edges for phase in (before, after)})
    lines = [f'    state "phases of a {name}" as {name} {{']
    lines += [f'        state "{phase}" as {name}_{phase}' for phase in phases]
    lines.append(f"        [*] --> {name}_{start}")
    lines += [f"        {name}_{before} --> {name}_{after}: {label}" for before, after, label in _labelled(edges)]
    return "\n".join([*lines, "    }"]) + "\n"


def _labelled(edges: list[Edge]) -> Iterable[Edge]:
    for (before, after), group in groupby(edges, key=lambda edge: edge[:2]):
        yield before, after, ", ".join(name for _, _, name in group)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _section(title: str, diagram: str) -> list[str]:
    return [f"## {title}", "", "```mermaid", diagram.rstrip(), "```", ""]


def _markdown() -> str:
    sessions, drains = _edges()
    parts = [
        "# The transition table",
        "",
        "Generated by `meerkat-trio machine --format markdown`; a test compares it with the code.",
        "Rows for one input are tried from top to bottom. A row without guards accepts; the first guard that fails",
        "rejects the input, which then has changed nothing. ACTIVE is IDLE, ATTACHED, RUNNING; LIVE is ACTIVE,",
        "RETIRED, STOPPED.",
        "",
    ]
    for region, rows in _rows_by_region():
        parts += [f"## {region}", "", "| row | input | kind | phases | guards | effects | what it does |"]
        parts.append("|---|---|---|---|---|---|---|")
        parts += [
            _line(row.name, row.on.__name__, _kind(row), _phases(row), _guards(row), _outcome(row), row.doc)
            for row in rows
        ]
        parts.append("")
    parts += _section("Phases of a session", _diagram("sessions", "INITIALIZING", sessions))
    parts += _section("Phases of a drain", _diagram("drains", "INACTIVE", drains))
    parts += ["## Invariants", "", "| name | what holds after every step |", "|---|---|"]
    parts += [f"| {name} | {sentence} |" for name, sentence in INVARIANTS.items()]
    parts += ["", "## Effects", "", "| effect | what the shell has to do | rows |", "|---|---|---|"]
    parts += [_line(name, doc, ", ".join(rows) or _FINISH) for name, doc, rows in _effects()]
    return "\n".join(parts) + "\n"
