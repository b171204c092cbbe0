"""How figures are taken: interleaved rounds, medians, ratios inside a run.

Knows no topic. A *setting* is one thing to do, done in turn by the floor, by us and by the peers, once per
round; each returns a value for every *row* of the setting it can fill. The ratio of a row is the median
over the rounds of ours divided by the floor of the same round, so that a machine that slows down half-way
slows both. Everybody warms up with a tiny turn that is not counted.
"""

from __future__ import annotations

import gc
import importlib.util
import statistics
from time import perf_counter
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["TINY", "Contestant", "Figures", "Goal", "Row", "Scale", "Setting", "start_clock", "take_turns"]


def start_clock() -> float:
    """Read the clock, once what the setting up has made is no longer due for collection."""
    gc.collect()
    return perf_counter()


@frozen(kw_only=True)
class Scale:
    """How much of everything is done in one turn."""

    applies: int = 20_000
    """Transitions."""
    messages: int = 6_400
    """Messages through one drain, a multiple of 64."""
    sessions: int = 10_000
    """Idle or cold sessions."""
    rebinds: int = 1_000
    """Rebinds of one drain."""
    crowd: int = 100_000
    """Sessions of the deep rows."""
    patience: float = 200.0
    """Seconds after which a turn of ours that hangs is given up."""


TINY: Final = Scale(applies=200, messages=128, sessions=20, rebinds=5, crowd=100, patience=20.0)
"""Enough to see that everything runs."""


@frozen(kw_only=True)
class Goal:
    """What a row should reach."""

    limit: float
    """Ours is at most this."""
    aim: float | None = None
    """What to aim at beyond the goal."""
    times_floor: bool = True
    """Whether the limit is a multiple of the floor, or a value in the row's unit."""


@frozen(kw_only=True)
class Row:
    """One line of the report."""

    name: str
    """What ``--only`` matches."""
    what: str
    """What is measured."""
    unit: str
    """The unit of its values."""
    goal: Goal
    """What it should reach."""


@frozen(kw_only=True)
class Contestant:
    """One way to do what a setting asks for."""

    label: str
    """What it is called in the report."""
    turn: Callable[[Scale], Mapping[str, float]]
    """Does it once; returns values by row name."""
    needs: str | None = None
    """The module it is made of; where that is not installed the contestant is left out."""

    @property
    def present(self) -> bool:
        """Whether it can take part here."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


@frozen(kw_only=True)
class Setting:
    """One thing to do, and who does it."""

    rows: tuple[Row, ...]
    """What comes out."""
    floor: Contestant
    """The plain way, which the goals are multiples of."""
    ours: Contestant
    """The library's way."""
    peers: tuple[Contestant, ...] = ()
    """Others, for comparison."""
    steady: bool = False
    """Whether every round gives the same, so that one is enough."""
    deep: bool = False
    """Whether it runs with ``--deep`` alone."""


@frozen(kw_only=True)
class Figures:
    """What came out of a setting."""

    values: Mapping[str, tuple[Mapping[str, float], ...]] = field(factory=dict)
    """By contestant, what it returned in each round."""
    failed: Mapping[str, str] = field(factory=dict)
    """By contestant, the error that took it out of the run."""

    def median(self, label: str, row: str) -> float | None:
        """Return the contestant's median for a row, None if it has no value for it."""
        values = [turn[row] for turn in self.values.get(label, ()) if row in turn]
        return statistics.median(values) if values else None

    def ratio(self, label: str, floor: str, row: str) -> float | None:
        """Return the median over the rounds of the contestant's value divided by the floor's."""
        turns = zip(self.values.get(label, ()), self.values.get(floor, ()), strict=False)
        ratios = [ours[row] / plain[row] for ours, plain in turns if row in ours and row in plain]
        return statistics.median(ratios) if ratios else None


def take_turns(setting: Setting, rounds: int, scale: Scale) -> Figures:
    """Let the contestants of a setting take turns for so many rounds.

    Those that are not present are passed over. One that fails is out of the run, and named with its error.
    """
    running = [contestant for contestant in (setting.floor, setting.ours, *setting.peers) if contestant.present]
    values: dict[str, list[Mapping[str, float]]] = {contestant.label: [] for contestant in running}
    failed: dict[str, str] = {}

    def play(turn_scale: Scale) -> Iterator[tuple[str, Mapping[str, float]]]:
        for contestant in running:
            if contestant.label in failed:
                continue
            gc.collect()  # nobody pays for the garbage of the one before
            try:
                yield contestant.label, contestant.turn(turn_scale)
            except Exception as error:
                failed[contestant.label] = _tell(error)

    for _ in play(TINY):
        pass
    for _ in range(1 if setting.steady else rounds):
        for label, taken in play(scale):
            values[label].append(taken)
    # Half a run is no figure.
    return Figures(
        values={label: tuple(turns) for label, turns in values.items() if label not in failed}, failed=failed
    )


def _tell(error: BaseException) -> str:
    # The leaves say what went wrong; "unhandled errors in a TaskGroup" does not.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
