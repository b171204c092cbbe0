"""What decides one run, and the short string by which a run can be asked for again. Data only: knows no run.

A run is a function of its plan: who goes first (an order, and deviations from it), who is held back, in which order
simultaneous timers fire, what the environment answers, and where cancellations strike.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeAlias

import attrs
from attrs import frozen

__all__ = ["Deviation", "Hold", "Order", "Plan", "Priorities", "ReplayError", "Strike", "format_replay", "parse_replay"]

Order: TypeAlias = Literal["oldest", "newest"] | int
"""Which of the runnable tasks goes first: the one spawned first, the one spawned last, or as a seed decides."""

Deviation: TypeAlias = tuple[int, int]
"""The number of a decision, and which option to take in it instead of the first, which is option 0."""

MAX_HOLD: Final = 64
"""Ticks after which a task that is held back runs in any case: Trio is not fair, but it does not starve anybody."""


class ReplayError(ValueError):
    """A string is no replay string."""


@frozen
class Strike:
    """One cancellation."""

    event: int
    """At which event of the run, counted from 0."""
    victim: str | int
    """Whose scope; a number stands for one of those that live at that moment, counted around."""


@frozen
class Hold:
    """A task is held back although it could run."""

    tick: int
    """From which tick on, counted from 0."""
    task: str
    """The task's label."""
    ticks: int = MAX_HOLD
    """For how many ticks at the most; it also runs as soon as nobody else can."""


@frozen
class Priorities:
    """One task at a time, the one with the highest priority; priorities are random and change a few times."""

    seed: int
    """Where they come from."""
    changes: int
    """How often the running task falls behind all others."""
    steps: int
    """Within how many steps."""


@frozen(kw_only=True)
class Plan:
    """All that decides one run."""

    order: Order = "oldest"
    """Who goes first within a tick."""
    picks: tuple[Deviation, ...] = ()
    """Deviations from that order: as in `Deviation`, counted over all decisions with two tasks or more."""
    holds: tuple[Hold, ...] = ()
    """Tasks that are held back."""
    priorities: Priorities | None = None
    """Replaces the order: one task at a time."""
    ties: tuple[Deviation, ...] = ()
    """Deviations at timers that are due together: option n lets the n-th go first."""
    choices: tuple[Deviation, ...] = ()
    """Deviations at what the environment answers."""
    strikes: tuple[Strike, ...] = ()
    """The cancellations, by event."""

    @property
    def adversarial(self) -> bool:
        """Whether it holds tasks back over ticks, as Trio may do and hardly ever does."""
        return bool(self.holds) or self.priorities is not None

    @property
    def unstruck(self) -> Plan:
        """The same schedule without its cancellations."""
        return attrs.evolve(self, strikes=())

    @property
    def weight(self) -> tuple[int, ...]:
        """How complicated the plan is: what is smaller is easier to understand."""
        return (
            len(self.strikes),
            self.adversarial,
            0 if self.priorities is None else 1 + self.priorities.changes,
            len(self.holds) + len(self.picks) + len(self.ties) + len(self.choices),
            0 if self.order == "oldest" else 1 if self.order == "newest" else 2,
            sum(strike.event for strike in self.strikes),
        )


# --- replay strings --------------------------------------------------------------------------------

_RESERVED: Final = re.compile(r"[;@\s]")


def format_replay(plan: Plan, trace_hash: str) -> str:
    """Write a plan, and the hash of the run it made, as a string.

    The fields are separated by ``;``: the order, then whatever deviates from it, then ``#`` and the hash.
    """
    fields = [str(plan.order)]
    if plan.priorities is not None:
        fields.append(f"one={plan.priorities.seed}.{plan.priorities.changes}.{plan.priorities.steps}")
    fields += [f"cancel={strike.event}@{strike.victim}" for strike in plan.strikes]
    for name, deviations in (("pick", plan.picks), ("tie", plan.ties), ("choose", plan.choices)):
        if deviations:
            fields.append(f"{name}=" + ",".join(f"{number}.{option}" for number, option in deviations))
    fields += [f"hold={hold.tick}.{hold.ticks}@{hold.task}" for hold in plan.holds]
    return f"{';'.join(fields)}#{trace_hash}"


def parse_replay(text: str) -> tuple[Plan, str]:
    """Return the plan and the hash that `format_replay` wrote; an empty hash if the string has none.

    Raises:
        ReplayError: naming the field that cannot be read.
    """
    body, _, trace_hash = (
        text.strip().rpartition("#") if re.search(r"#[0-9a-f]{6}$", text.strip()) else (text.strip(), "", "")
    )
    order_text, *fields = body.split(";")
    if not re.fullmatch(r"oldest|newest|-?\d+", order_text):
        raise ReplayError(f"a replay string begins with oldest, newest or a number, not with {order_text!r}: {text!r}")
    order: Order = "oldest" if order_text == "oldest" else "newest" if order_text == "newest" else int(order_text)
    plan = Plan(order=order)
    for field in fields:
        try:
            plan = _with_field(plan, field)
        except (ValueError, KeyError):
            raise ReplayError(f"this part of the replay string cannot be read: {field!r}") from None
    return plan, trace_hash


def _with_field(plan: Plan, field: str) -> Plan:
    name, _, value = field.partition("=")
    if name == "cancel":
        event, _, victim = value.partition("@")
        if not victim:
            raise ValueError(field)
        return attrs.evolve(plan, strikes=(*plan.strikes, Strike(int(event), victim)))
    if name == "hold":
        place, _, task = value.partition("@")
        tick, ticks = place.split(".")
        return attrs.evolve(plan, holds=(*plan.holds, Hold(int(tick), task, int(ticks))))
    if name == "one":
        seed, changes, steps = value.split(".")
        return attrs.evolve(plan, priorities=Priorities(int(seed), int(changes), int(steps)))
    deviations = tuple(_deviation(part) for part in value.split(","))
    attribute = {"pick": "picks", "tie": "ties", "choose": "choices"}[name]
    replaced: dict[str, Any] = {attribute: deviations}
    return attrs.evolve(plan, **replaced)


def _deviation(text: str) -> Deviation:
    number, option = text.split(".")
    return int(number), int(option)


def require_name(name: str) -> str:
    """Return ``name`` if it may name a victim.

    Raises:
        ValueError: it is empty, or has characters that separate the parts of a replay string.
    """
    if not isinstance(name, str) or not name or _RESERVED.search(name):
        raise ValueError(f"name: a victim's name has no spaces, ';' or '@', not {name!r}")
    return name
