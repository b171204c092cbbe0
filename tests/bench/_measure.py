"""How figures are taken: interleaved rounds, medians, ratios inside a run.

Knows no topic. A *setting* is one thing to do, done in turn by the floor, by us and by the peers, once per
round; each returns a value for every *row* of the setting it can fill. The ratio of a row is the median
over the rounds of ours divided by the floor of the same round, so that a machine that slows down half-way
slows both. One round before the first is not counted.
"""

from __future__ import annotations

import gc
import importlib.util
import statistics
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Contestant", "Figures", "Goal", "Row", "Scale", "Setting", "take_turns"]


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
    built: bool = True
    """Whether what it measures exists yet."""

    @property
    def present(self) -> bool:
        """Whether it can take part here."""
        return self.built and (self.needs is None or importlib.util.find_spec(self.needs) is not None)


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


def take_turns(contestants: tuple[Contestant, ...], rounds: int, scale: Scale) -> Figures:
    """Let the contestants take turns for so many counted rounds.

    Those that are not present are passed over. A contestant that fails is out of the run, and named with its error; the others go on.
    """
    present = [contestant for contestant in contestants if contestant.present]
    values: dict[str, list[Mapping[str, float]]] = {contestant.label: [] for contestant in present}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for contestant in present:
            if contestant.label in failed:
                continue
            gc.collect()  # nobody pays for the garbage of the one before
            try:
                taken = contestant.turn(scale)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                failed[contestant.label] = _tell(error)
                values[contestant.label].clear()
                continue
            if number:
                values[contestant.label].append(taken)
    return Figures(values={label: tuple(turns) for label, turns in values.items()}, failed=failed)


def _tell(error: BaseException) -> str:
    # The leaves say what went wrong; "unhandled errors in a TaskGroup" does not.
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
