"""A soak: many sessions with every kind of fault at once, and the ledger read by other code than the demo's own.

The short one runs always. The long one, of 200 sessions and 200,000 messages, runs with ``-m deep``.
"""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from meerkat_trio import Session
from meerkat_trio.cli._commands import commands
from meerkat_trio.cli._demo_plan import KINDS


def sessions_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is Session for thing in gc.get_objects())


@pytest.mark.parametrize(
    ("sessions", "messages"),
    [
        pytest.param(200, 20, id="short"),
        pytest.param(200, 1000, id="long", marks=pytest.mark.deep),
    ],
)
def test_the_ledger_is_balanced_whatever_goes_wrong(sessions: int, messages: int, tmp_path: Path) -> None:
    before = sessions_in_memory()
    ledger = tmp_path / "ledger.jsonl"
    ran = CliRunner().invoke(
        commands,
        ["demo", "--json", "--sessions", str(sessions), "--messages", str(messages), "--ledger", str(ledger)],
    )
    assert ran.exit_code == 0, ran.output

    numbers = defaultdict(list)
    with ledger.open() as lines:
        for line in map(json.loads, lines):
            numbers[line["session"], line["sender"]].append(line["n"])
    assert len({session for session, _ in numbers}) == sessions
    assert sum(map(len, numbers.values())) == sessions * messages
    for sent in numbers.values():
        assert sent == list(range(len(sent)))

    report = json.loads(ran.output)
    assert {kind: count > 0 for kind, count in report["faults"].items()} == dict.fromkeys(KINDS, True)

    assert sessions_in_memory() <= before
