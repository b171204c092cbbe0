"""One accepted input, invariants on: the authority against a hand-written class.

The floor is what somebody writes who has only these two inputs: one slotted record, replaced by each step,
guards as ``if``, effects as a tuple. No regions, no invariants, no table. The inputs stand ready on both
sides, and a pure function may be applied to the same state again and again. The peers change one machine in
place, so they go round in a circle through both inputs, and their value is the mean.
"""

from __future__ import annotations

import importlib
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from meerkat_trio import authority

from ._measure import Contestant, Goal, Row, Scale, Setting

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SETTINGS"]

_STARTED: Final = "apply-started"
_REBIND: Final = "apply-rebind"


def _both(count: int, started: Callable[[], object], rebind: Callable[[], object]) -> dict[str, float]:
    values = {}
    for name, call in ((_STARTED, started), (_REBIND, rebind)):
        start = perf_counter()
        for _ in range(count):
            call()
        values[name] = (perf_counter() - start) / count * 1e6
    return values


# --- floor -----------------------------------------------------------------------------------------


class _Drain:
    __slots__ = ("generation", "idle_timeout", "last_exit", "mode", "phase", "stopping")

    def __init__(  # noqa: PLR0917 - what the plain way looks like
        self,
        phase: str,
        mode: str,
        idle_timeout: float,
        generation: int,
        stopping: str | None,
        last_exit: object,
    ) -> None:
        self.phase = phase
        self.mode = mode
        self.idle_timeout = idle_timeout
        self.generation = generation
        self.stopping = stopping
        self.last_exit = last_exit


class _Swap:
    __slots__ = ("generation",)

    def __init__(self, generation: int) -> None:
        self.generation = generation


class _Started:
    __slots__ = ("generation",)

    def __init__(self, generation: int) -> None:
        self.generation = generation


def _by_hand_started(s: _Drain, i: _Started) -> tuple[_Drain, tuple[_Swap, ...]]:
    if s.phase != "starting" or i.generation != s.generation:
        raise RuntimeError("stale")
    return _Drain("running", s.mode, s.idle_timeout, s.generation, s.stopping, s.last_exit), ()


def _by_hand_rebind(s: _Drain) -> tuple[_Drain, tuple[_Swap, ...]]:
    if s.phase not in ("starting", "running"):
        raise RuntimeError("drain_is_live")
    if s.stopping is not None:
        raise RuntimeError("drain_not_stopping")
    generation = s.generation + 1
    return _Drain("starting", s.mode, s.idle_timeout, generation, None, s.last_exit), (_Swap(generation),)


def _floor(scale: Scale) -> dict[str, float]:
    starting = _Drain("starting", "persistent_host", 0.0, 1, None, None)
    running = _Drain("running", "persistent_host", 0.0, 1, None, None)
    started = _Started(1)
    return _both(scale.applies, lambda: _by_hand_started(starting, started), lambda: _by_hand_rebind(running))


# --- ours ------------------------------------------------------------------------------------------


def _ours(scale: Scale) -> dict[str, float]:
    mode = authority.CommsDrainMode.PERSISTENT_HOST
    state = authority.SessionState.initial("a")
    for setup in (
        authority.Register("a"),
        authority.AttachExecutor(),
        authority.AttachSessionIngress("runtime", mode, 0.0),
        authority.SpawnDrain(mode, 0.0),
    ):
        state = authority.apply(state, setup).after
    started = authority.DrainStarted(state.drain.generation)
    running = authority.apply(state, started).after
    rebind = authority.RebindDrain()
    apply = authority.apply
    return _both(scale.applies, lambda: apply(state, started), lambda: apply(running, rebind))


# --- peers -----------------------------------------------------------------------------------------


def _circle(scale: Scale, started: Callable[[], object], rebind: Callable[[], object]) -> dict[str, float]:
    pairs = max(1, scale.applies // 2)
    start = perf_counter()
    for _ in range(pairs):
        started()
        rebind()
    mean = (perf_counter() - start) / (2 * pairs) * 1e6
    return {_STARTED: mean, _REBIND: mean}


@attrs.frozen(kw_only=True)
class _Evolved:
    phase: str
    """As in the floor."""
    mode: str
    """As in the floor."""
    idle_timeout: float
    """As in the floor."""
    generation: int
    """As in the floor."""
    stopping: str | None
    """As in the floor."""
    last_exit: object
    """As in the floor."""


def _evolve(scale: Scale) -> dict[str, float]:
    state = _Evolved(
        phase="starting",
        mode="persistent_host",
        idle_timeout=0.0,
        generation=1,
        stopping=None,
        last_exit=None,
    )
    return _both(
        scale.applies,
        lambda: attrs.evolve(state, phase="running"),
        lambda: attrs.evolve(state, phase="starting", generation=2, stopping=None),
    )


class _Lifecycle(Protocol):
    def started(self) -> None:
        """It serves."""

    def rebind(self) -> None:
        """It moves."""


def _automat(scale: Scale) -> dict[str, float]:
    builder: Any = importlib.import_module("automat").TypeMachineBuilder(_Lifecycle, list)
    starting, running = builder.state("starting"), builder.state("running")

    def note(_lifecycle: _Lifecycle, _core: list[object]) -> None:
        """Do nothing: the transition alone is measured."""

    starting.upon(_Lifecycle.started).to(running)(note)
    running.upon(_Lifecycle.rebind).to(starting)(note)
    machine = builder.build()([])
    return _circle(scale, machine.started, machine.rebind)


def _transitions(scale: Scale) -> dict[str, float]:
    machine: Any = importlib.import_module("transitions").Machine(
        states=["starting", "running"],
        initial="starting",
        auto_transitions=False,
        transitions=[["started", "starting", "running"], ["rebind", "running", "starting"]],
    )
    return _circle(scale, machine.started, machine.rebind)


def _statemachine(scale: Scale) -> dict[str, float]:
    module: Any = importlib.import_module("statemachine")
    starting, running = module.State(initial=True), module.State()
    members = {
        "starting": starting,
        "running": running,
        "started": starting.to(running),
        "rebind": running.to(starting),
    }
    machine: Any = type(module.StateMachine)("Drain", (module.StateMachine,), members)()
    few = attrs.evolve(scale, applies=max(2, scale.applies // 20))
    return _circle(few, machine.started, machine.rebind)


_GOAL: Final = Goal(limit=2.5, aim=1.6)

SETTINGS: Final = (
    Setting(
        rows=(
            Row(name=_STARTED, what="apply DrainStarted: guard, update", unit="us", goal=_GOAL),
            Row(name=_REBIND, what="apply RebindDrain: guards, update, effect", unit="us", goal=_GOAL),
        ),
        floor=Contestant(label="hand-written slots class", turn=_floor),
        ours=Contestant(label="authority.apply", turn=_ours),
        peers=(
            Contestant(label="attrs.evolve alone", turn=_evolve),
            Contestant(label="automat", turn=_automat, needs="automat"),
            Contestant(label="transitions", turn=_transitions, needs="transitions"),
            Contestant(label="python-statemachine", turn=_statemachine, needs="statemachine"),
        ),
    ),
)
