"""What the supervised demo prints: tables, or one JSON object. Decides nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ._demo_report import open_console, print_counts, print_sessions

if TYPE_CHECKING:
    from ._mob_outcome import MobOutcome

__all__ = ["mob_as_json", "print_mob_tables"]


def mob_as_json(outcome: MobOutcome, seed: int, settings: dict[str, Any]) -> str:
    """Return everything as one JSON object."""
    counts = {
        "accepted": outcome.accepted,
        "rejected": outcome.rejected,
        "dropped": outcome.dropped,
        "repaired": outcome.repaired,
        "faults": outcome.faults,
    }
    data = {
        "total": {**outcome.total(), **counts},
        "missing": outcome.missing,
        "disagreeing": outcome.disagreeing,
        "surprises": outcome.surprises,
        "stuck": outcome.stuck,
        "failures": outcome.failures,
        "succeeded": outcome.succeeded,
        "seed": seed,
        "settings": settings,
        "sessions": {name: {**each.row(), "destroyed": each.destroyed} for name, each in outcome.members.items()},
    }
    return json.dumps(data)


def print_mob_tables(outcome: MobOutcome) -> None:
    """Print a table of the members and the total, one for each kind of answer, and the verdict."""
    console = open_console()
    wrong = [name for name, each in outcome.members.items() if not each.is_fine]
    print_sessions(console, {name: each.row() for name, each in outcome.members.items()}, outcome.total(), wrong)
    print_counts(console, "commands that were carried out", outcome.accepted)
    print_counts(console, "commands that were rejected", outcome.rejected)
    print_counts(console, "not let in", outcome.dropped)
    if outcome.demanded:
        print_counts(console, "repairs", outcome.repaired)
        print_counts(console, "faults that happened", outcome.faults)
    if outcome.succeeded:
        console.print("nothing was lost, doubled or reordered; authority and trust stores agree")
    else:
        console.print(f"FAILED: {'; '.join(outcome.failures)}")
