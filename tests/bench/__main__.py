"""`python -m tests.bench`: every row that can be measured, with its goal.

Exits with status 0 whether goals are met or not: a benchmark is no test.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from . import apply, cold, crowd, drain, explorer, frame, idle, journal, rebind, redis, sockets, tree
from ._measure import TINY, Contestant, Figures, Row, Scale, Setting, take_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SETTINGS: Final[tuple[Setting, ...]] = (
    *apply.SETTINGS,
    *drain.SETTINGS,
    *cold.SETTINGS,
    *rebind.SETTINGS,
    *idle.SETTINGS,
    *tree.SETTINGS,
    *crowd.SETTINGS,
    *explorer.SETTINGS,
    *frame.SETTINGS,
    *sockets.SETTINGS,
    *journal.SETTINGS,
    *redis.SETTINGS,
)
_LEFT_OUT: Final = [why for why in (redis.LEFT_OUT,) if why is not None]
_ROUNDS: Final = 7


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print."""
    options = _parser().parse_args(arguments)
    rounds = options.rounds or (1 if options.quick else _ROUNDS)
    scale = TINY if options.quick else Scale()
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "trio": trio.__version__,
        "rounds": rounds,
        "quick": options.quick,
        "rows": [],
    }
    if not options.json:
        _say(f"Python {report['python']}, trio {report['trio']}, median of {rounds} rounds")
        if rounds < _ROUNDS:
            _say(f"fewer than {_ROUNDS} rounds: this says that it runs, not how fast it is")
    for setting in _chosen(options):
        for told in _measure(setting, rounds, scale):
            report["rows"].append(told)
            if not options.json:
                _say(_row_text(told))
    report["missed"] = [told["name"] for told in report["rows"] if told["met"] is False]
    report["left_out"] = _LEFT_OUT
    report["without_ours"] = [told["name"] for told in report["rows"] if told["ours"]["value"] is None]
    if options.json:
        _say(json.dumps(report, indent=2))
    else:
        _say(f"\ngoals missed: {', '.join(report['missed']) or 'none'}")
        _say(f"without a figure of ours: {', '.join(report['without_ours']) or 'none'}")
        for why in _LEFT_OUT:
            _say(f"left out: {why}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Compare us with floors and peers.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", metavar="NAME", help="only the rows whose name begins with NAME")
    parser.add_argument("--rounds", type=_positive, metavar="N", help=f"counted rounds (default {_ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="one tiny round, to see that everything runs")
    parser.add_argument("--deep", action="store_true", help="also the rows that need much time and memory")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1 is needed, not {number}")
    return number


def _chosen(options: argparse.Namespace) -> Iterator[Setting]:
    found = False
    for setting in SETTINGS:
        rows = tuple(row for row in setting.rows if options.only is None or row.name.startswith(options.only))
        if not rows:
            continue
        found = True
        if options.deep or not setting.deep:
            yield attrs.evolve(setting, rows=rows)
    if not found:
        names = ", ".join(row.name for setting in SETTINGS for row in setting.rows)
        _parser().error(f"--only: no row begins with {options.only!r}; there are {names}")


def _measure(setting: Setting, rounds: int, scale: Scale) -> Iterator[dict[str, Any]]:
    figures = take_turns(setting, rounds, scale)
    for row in setting.rows:
        yield _tell(row, setting, figures)


def _tell(row: Row, setting: Setting, figures: Figures) -> dict[str, Any]:
    value = figures.median(setting.ours.label, row.name)
    ratio = figures.ratio(setting.ours.label, setting.floor.label, row.name)
    reached = ratio if row.goal.times_floor else value
    return {
        "name": row.name,
        "what": row.what,
        "unit": row.unit,
        "floor": _contestant(setting.floor, row, figures),
        "ours": _contestant(setting.ours, row, figures),
        "peers": [_contestant(peer, row, figures) for peer in setting.peers if peer.present],
        "left_out": [peer.label for peer in setting.peers if not peer.present],
        "ratio": ratio,
        "goal": attrs.asdict(row.goal),
        "met": None if reached is None else reached <= row.goal.limit,
        "times_goal": None if reached is None else reached / row.goal.limit,
    }


def _contestant(contestant: Contestant, row: Row, figures: Figures) -> dict[str, Any]:
    told: dict[str, Any] = {"label": contestant.label, "value": figures.median(contestant.label, row.name)}
    if contestant.label in figures.failed:
        told["failed"] = figures.failed[contestant.label]
    return told


def _row_text(told: dict[str, Any]) -> str:
    unit, goal = told["unit"], told["goal"]
    of = "x floor" if goal["times_floor"] else unit
    aim = "" if goal["aim"] is None else f", aim {goal['aim']:g}"
    missed = f"MISSED by {told['times_goal']:.2f} x" if told["met"] is False else ""
    verdict = missed or ("met" if told["met"] else "no figure")
    lines = [f"\n{told['name']}: {told['what']}"]
    for role, contestant in (
        ("floor", told["floor"]),
        ("ours", told["ours"]),
        *(("peer", p) for p in told["peers"]),
    ):
        value = contestant["value"]
        figure = "-" if value is None else f"{value:.3g} {unit}"
        failed = f"   failed: {contestant['failed']}" if "failed" in contestant else ""
        lines.append(f"  {role:6}{contestant['label']:44}{figure:>14}{failed}")
    if told["left_out"]:
        lines.append(f"  not installed: {', '.join(told['left_out'])}")
    ratio = "" if told["ratio"] is None else f"ratio {told['ratio']:.2f}; "
    lines.append(f"  {ratio}goal <= {goal['limit']:g} {of}{aim}: {verdict}")
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
