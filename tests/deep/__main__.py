"""`python -m tests.deep`: the shell's calls, and all pairs of them, explored for as long as it takes.

By default 1,000,000 runs or more over all scenarios, and at least 2,000 different traces for each pair of calls unless
there are fewer. The exit status is 0 only if nothing was found and both held. ``--part K/N`` does every N-th scenario
only; the parts together do them all.
"""

from __future__ import annotations

import argparse
import logging
import sys
from time import monotonic

from meerkat_trio.testing import CancellationCoverage, Report, explore

from ..exploration.calls import ALONE, CLOSING, PAIRS, RECORDED, SOURCE
from ..exploration.stage import Scenario

_RUNS = 1_000_000
_TRACES = 2_000
_PAIR_RUNS = 3_000
"""With so many nearly every pair has its traces; the others get twice as many, again and again."""
_MOST_PAIR_RUNS = 12_000
_COVERED = 95.0


def main() -> int:
    """Explore everything; print a line for each scenario."""
    parser = argparse.ArgumentParser(prog="python -m tests.deep", description="Explore the shell.")
    parser.add_argument("--runs", type=int, default=_RUNS, help="over all scenarios (default 1,000,000)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", metavar="K/N", type=_part, default=(1, 1), help="every N-th, from the K-th on")
    parser.add_argument("--only", metavar="NAME", help="only scenarios whose name begins so")
    options = parser.parse_args()
    # Handlers and transports fail by the thousand here; who reads the log still has to hear of it.
    logging.basicConfig(handlers=[logging.NullHandler()])
    scenarios: dict[str, Scenario] = {**ALONE, **CLOSING, **RECORDED, **PAIRS}
    if options.only:
        scenarios = {name: scenario for name, scenario in scenarios.items() if name.startswith(options.only)}
    each = -(-options.runs // len(scenarios))
    part, parts = options.part
    scenarios = dict(list(scenarios.items())[part - 1 :: parts])
    begun = monotonic()
    runs, failed, shallow = 0, [], []
    coverage: CancellationCoverage | None = None
    for name, scenario in scenarios.items():
        wanted = max(each, _PAIR_RUNS) if name in PAIRS and options.runs >= _RUNS else each
        report = explore(scenario, runs=wanted, workers=options.workers, seed=options.seed, source=SOURCE)
        while wanted > each and _is_shallow(report) and wanted < _MOST_PAIR_RUNS:
            wanted *= 2
            report = explore(scenario, runs=wanted, workers=options.workers, seed=options.seed, source=SOURCE)
        runs += report.runs
        coverage = report.coverage if coverage is None else coverage | report.coverage
        _tell(name, report)
        if report.failures:
            failed.append(name)
        if name in PAIRS and _is_shallow(report):
            shallow.append(name)
    if coverage is None:
        parser.error(f"--only: no scenario's name begins with {options.only!r}")
    print(
        f"\n{runs} runs over {len(scenarios)} scenarios in {monotonic() - begun:.0f} s;"
        f" cancelled at {len(coverage.struck)} of {len(coverage.lines)} await lines ({coverage.percent_of_all:.1f} %),"
        f" not at {', '.join(sorted(coverage.lines - coverage.struck)) or 'none'}"
    )
    print(f"failed: {', '.join(failed) or 'none'}; fewer than {_TRACES} traces: {', '.join(shallow) or 'none'}")
    whole = options.only is None and parts == 1 and options.runs >= _RUNS
    too_little = whole and (bool(shallow) or coverage.percent_of_all < _COVERED)
    return 1 if failed or too_little else 0


def _is_shallow(report: Report) -> bool:
    return report.traces < _TRACES and not report.exhausted and not report.failures


def _part(text: str) -> tuple[int, int]:
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError
    return part, parts


def _tell(name: str, report: Report) -> None:
    exhausted = ", exhausted" if report.exhausted else ""
    print(f"{name:40} {report.runs:6} runs {report.traces:6} traces{exhausted}", flush=True)
    for failure in report.failures:
        print(failure, flush=True)


if __name__ == "__main__":
    sys.exit(main())
