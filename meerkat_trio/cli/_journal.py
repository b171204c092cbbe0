"""`meerkat-trio journal`: looks at the file in which a machine's sessions remember."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from .. import journals
from .._entries import decode_memory
from .._exceptions import JournalFailed, JournalRefused
from ..authority import Bound, Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .._entries import Memory
    from ..abc import Entry
    from ..authority import SessionId

__all__ = ["journal"]

_file: Final[Callable[..., Callable[..., None]]] = click.argument(
    "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.group(no_args_is_help=False)
def journal() -> None:
    """Look at the file in which the sessions of a machine remember."""


@journal.command()
@_file
@click.option("--json", "json_", is_flag=True, help="Print a JSON object for each session.")
@click.option("--messages", is_flag=True, help="Print every message that is not handled, too.")
def show(file: Path, *, json_: bool, messages: bool) -> None:
    """Print what each session remembers; also while a machine has the file.

    Exit status 1 if something in it cannot be read.
    """
    try:
        found = journals.read_entries(file)
    except (JournalRefused, JournalFailed) as error:
        _refuse(error)
    unreadable = 0
    for session_id, entries in found.items():
        try:
            memory = decode_memory(session_id, entries)
        except ValueError as error:
            unreadable += 1
            click.echo(f"{session_id}: {error}", err=True)
            continue
        shown = _as_dict(session_id, memory, with_messages=messages)
        click.echo(json.dumps(shown) if json_ else _as_text(shown))
    if unreadable:
        raise SystemExit(1)


@journal.command()
@_file
def check(file: Path) -> None:
    """Look the file through, to the last entry; nothing in it is changed.

    Exit status 1 if anything is wrong with it.
    """
    try:
        problems = journals.check(file) or _unreadable(journals.read_entries(file))
    except JournalRefused as error:
        problems = [error.why]
    except JournalFailed as error:
        _refuse(error)
    for problem in problems:
        click.echo(f"{file}: {problem}")
    if problems:
        raise SystemExit(1)
    click.echo(f"{file}: sound")


@journal.command()
@_file
def compact(file: Path) -> None:
    """Give back what room the file no longer needs; while a machine has it, that is refused."""
    before = file.stat().st_size
    try:
        journals.compact(file)
    except (JournalRefused, JournalFailed) as error:
        _refuse(error)
    click.echo(f"{file}: {before} bytes before, {file.stat().st_size} now")


def _unreadable(found: Mapping[SessionId, Sequence[Entry]]) -> list[str]:
    problems = []
    for session_id, entries in found.items():
        try:
            decode_memory(session_id, entries)
        except ValueError as error:
            problems.append(f"session {session_id!r}: {error}")
    return problems


def _as_dict(session_id: SessionId, memory: Memory, *, with_messages: bool) -> dict[str, Any]:
    was = memory.remembered
    binding = was.supervisor
    shown: dict[str, Any] = {
        "session": session_id,
        "state": "retired" if was.retired and was.ending is None else _STATES[was.ending],
        "unfinished": len(memory.messages),
        "abandoned": len(memory.abandoned),
        "replies": len(memory.replies),
        "known": len(memory.done) + len(memory.messages),
        "peers": len(was.direct) + len(was.overlay),
        "supervisor": str(binding.peer_id) if isinstance(binding, Bound) else None,
        "epoch_floor": was.counters.epoch_floor,
        "owed": len(was.obligations),
    }
    if with_messages:
        shown["messages"] = [
            {
                "id": each.envelope.id,
                "sender": str(each.envelope.sender),
                "kind": each.envelope.kind.value,
                "attempts": each.attempts,
                "body": _plain(each.envelope.body),
            }
            for each in memory.messages
        ]
    return shown


def _plain(body: Any) -> Any:
    try:
        json.dumps(body)
    except (TypeError, ValueError):
        return repr(body)
    return body


def _as_text(shown: dict[str, Any]) -> str:
    supervisor = f"supervised by {shown['supervisor']}" if shown["supervisor"] else "no supervisor"
    head = f"{shown['session']}  {shown['state']}  {shown['unfinished']} unfinished  {shown['abandoned']} abandoned"
    lines = [f"{head}  {shown['replies']} replies  {shown['peers']} peers  {supervisor}  floor {shown['epoch_floor']}"]
    for message in shown.get("messages", ()):
        body = json.dumps(message["body"], ensure_ascii=False)
        failed = f"  failed {message['attempts']} times" if message["attempts"] else ""
        lines.append(f"  {message['sender']}  {message['id']}  {message['kind']}{failed}  {body}")
    return "\n".join(lines)


def _refuse(error: JournalRefused | JournalFailed) -> NoReturn:
    raise click.UsageError(f"{error.journal}: {error.why}") from None


_STATES: Final = {
    None: "live",
    Ending.STOP: "stopped",
    Ending.UNREGISTER: "unregistered",
    Ending.DESTROY: "destroyed",
}
