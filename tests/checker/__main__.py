"""`python -m tests.checker`: how fast each bug of the corpus is found, and whether chance would find it.

Chance is 200 runs, each in a random order, with one victim cancelled at a random event, judged by the same oracles.
"""

from __future__ import annotations

import random
import statistics
import sys
from time import perf_counter
from typing import Any

import attrs

from meerkat_trio.testing import explore
from meerkat_trio.testing._controlled_run import RunSettings
from meerkat_trio.testing._engine import LocalEngine
from meerkat_trio.testing._listening import listening
from meerkat_trio.testing._plan import Plan, Strike

from .cases import NAMES, load

_CHANCES = 200


def by_chance(scenario: Any) -> int:
    """Return how many of 200 runs with chance deciding show a bug."""
    rng = random.Random(0)
    with listening():
        usual = LocalEngine(scenario, RunSettings(learning=True)).trace(Plan())
        automatic = not usual.victims.scopes
        settings = RunSettings(learning=True, automatic=automatic)
        usual = LocalEngine(scenario, settings).trace(Plan())
        judging = attrs.evolve(
            settings, learning=False, exempt=usual.left, escapes=frozenset(usual.watch.escapes), max_steps=5_000
        )
        engine = LocalEngine(scenario, judging)
        found = 0
        for _ in range(_CHANCES):
            strike = Strike(rng.randrange(usual.events), rng.randrange(1 << 10))
            finding = engine.make(Plan(order=rng.randrange(1 << 30), strikes=(strike,))).finding
            found += finding is not None and not finding.hypothetical
        return found


def main() -> int:
    """Print the table; the status is 0 if every bug was found."""
    missed, rare, all_seconds = 0, 0, []
    print("| bug | found as | mode | runs | seconds | of 200 runs by chance |")
    print("|---|---|---|---|---|---|")
    for name in NAMES:
        scenario = load("bugs", name).scenario
        begun = perf_counter()
        report = explore(scenario)
        seconds = perf_counter() - begun
        all_seconds.append(seconds)
        chance = by_chance(scenario)
        rare += chance == 0
        if report.failures:
            failure = report.failures[0]
            found = f"{failure.kind} | {failure.mode} | {failure.found_after}"
        else:
            missed += 1
            found = "not found | | "
        print(f"| {name} | {found} | {seconds:.2f} | {chance} |", flush=True)
    print(
        f"\n{len(NAMES) - missed} of {len(NAMES)} found, median {statistics.median(all_seconds):.2f} s"
        f" with shrinking; chance finds {len(NAMES) - rare}"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
