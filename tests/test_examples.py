"""The examples of the docs do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)


def test_the_supervised_mob_balances_its_ledger() -> None:
    process = ran("-W", "error", str(EXAMPLES / "supervised_mob.py"))
    assert (process.returncode, process.stderr) == (0, "")
    *lines, totals, verdict = process.stdout.splitlines()
    assert lines == [
        "ben: rebound",
        *(f"{name}: retired, supervisor second, trusts 3" for name in ("ada", "ben", "cleo", "dan")),
        "eve: destroyed, no supervisor, trusts 0",
    ]
    counted = re.fullmatch(r"122 accepted, 72 repeated, (\d+) handled, (\d+) handed back", totals)
    assert counted is not None, totals
    handled, handed_back = map(int, counted.groups())
    assert handed_back > 0
    assert handled + handed_back == 122
    assert verdict == "each was handled once and in order"


def test_the_supervised_mob_notices_an_input_that_is_missing() -> None:
    script = f"""
import runpy, sys, trio
play = runpy.run_path({str(EXAMPLES / "supervised_mob.py")!r})
handle = play["Mob"].handle

async def forgetful(self, run):
    if run.session.id != "ada" or run.message.body != 3:
        await handle(self, run)

play["Mob"].handle = forgetful
sys.exit(0 if trio.run(play["main"]) else 1)
"""
    process = ran("-c", script)
    assert (process.returncode, process.stderr) == (1, "")
    assert process.stdout.splitlines()[-1] == "THE LEDGER DOES NOT BALANCE"
