"""Makes runs and boils each down to what the search has to know of it, here or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Final, Protocol, final

import attrs
from attrs import frozen

from ._controlled_run import ControlledRun, RunSettings, Scenario
from ._findings import Finding
from ._plan import Plan, Strike
from ._traced_run import Point, TracedRun

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Engine", "Job", "LocalEngine", "Outcome", "Survey", "open_workers"]

_CHUNK: Final = 24


@frozen
class Job:
    """A run to be made."""

    plan: Plan
    """What decides it."""
    survey: bool = False
    """Whether to note where it can be cancelled and where it can deviate."""


@frozen(kw_only=True)
class Survey:
    """What a traced run shows of the ways on from it."""

    points: tuple[Point, ...]
    """Where it can be cancelled."""
    decisions: tuple[int, ...]
    """Options of each decision within a tick."""
    choices: tuple[int, ...]
    """Options of each choice of the environment."""
    ties: tuple[int, ...]
    """Options of each set of simultaneous timers."""
    ticks: tuple[tuple[str, ...], ...]
    """Who could run, for each tick; empty where it was one task only."""


@frozen(kw_only=True)
class Outcome:
    """What came of a run."""

    plan: Plan
    """Its plan, with the victims that were really cancelled."""
    finding: Finding | None = None
    """What is wrong with it, without the exception itself, which may hold anything."""
    events: int
    """How many events it had."""
    fingerprint: int
    """A hash of the way it went."""
    missed: int
    """Cancellations whose victim was not there."""
    touched: str | None = None
    """What of the outside world it used."""
    strikes: frozenset[tuple[str, str]] = frozenset()
    """Where a Cancelled was raised for whom, if this engine has not said so before."""
    struck_lines: frozenset[tuple[str, int]] = frozenset()
    """The await lines through which one came, likewise."""
    reached_lines: frozenset[tuple[str, int]] = frozenset()
    """The await lines that were reached, likewise; traced runs only."""
    survey: Survey | None = None
    """For the search."""


def survey_of(run: TracedRun) -> Survey:
    """Return what a traced run shows of the ways on from it."""
    return Survey(
        points=tuple(run.points),
        decisions=tuple(run.scheduler.decisions),
        choices=tuple(run.choices),
        ties=tuple(run.time.ties),
        ticks=tuple(run.scheduler.ticks),
    )


def actual_plan(run: ControlledRun) -> Plan:
    """Return a run's plan with the names of the victims that were really cancelled."""
    return attrs.evolve(run.plan, strikes=tuple(Strike(event, victim) for event, victim in run.struck))


class Engine(Protocol):
    """Makes many runs."""

    def run(self, jobs: Sequence[Job], deadline: float) -> list[Outcome]:
        """Make runs, in order; fewer if `time.monotonic` reaches ``deadline`` before the end."""


@final
class LocalEngine:
    """Makes runs in this process. Must be used inside `listening`."""

    def __init__(self, scenario: Scenario, settings: RunSettings) -> None:
        self.settings = settings
        self._scenario = scenario
        self._strikes: set[tuple[str, str]] = set()
        self._struck_lines: set[tuple[str, int]] = set()
        self._reached_lines: set[tuple[str, int]] = set()

    def make(self, plan: Plan, *, traced: bool = False) -> ControlledRun:
        """Make one run."""
        run = (TracedRun if traced else ControlledRun)(plan, self.settings, self._scenario)
        run.execute()
        if run.atomic_cuts and not run.findings:
            self._judge_atomics(run)
        return run

    def trace(self, plan: Plan) -> TracedRun:
        """Make one run and write down what happens."""
        run = self.make(plan, traced=True)
        if not isinstance(run, TracedRun):
            raise TypeError("a traced run was asked for")
        return run

    def _judge_atomics(self, run: ControlledRun) -> None:
        whole = ControlledRun(run.plan.unstruck, self.settings, self._scenario)
        whole.execute()
        for number, before, after, site in run.atomic_cuts:
            begun, done = whole.atomics.get(number, (None, None))
            if begun == before and after != done:
                run.found(
                    Finding(
                        kind="check",
                        message=f"cancelled, the operation at {site} is neither made nor left out: it began with"
                        f" {before!r}, uncancelled it ends with {done!r}, and here with {after!r}",
                    )
                )

    def run(self, jobs: Sequence[Job], deadline: float) -> list[Outcome]:
        """Make runs, in order, until the deadline."""
        outcomes = []
        for job in jobs:
            if time.monotonic() > deadline:
                break
            _Interrupt.raise_if_pending()
            outcomes.append(self.outcome(self.make(job.plan, traced=job.survey)))
        return outcomes

    def outcome(self, run: ControlledRun) -> Outcome:
        """Boil a run down."""
        finding = run.finding
        if (
            finding is None
            and not isinstance(run, TracedRun)
            and not run.watch.struck_lines
            and run.world.touched is None
        ):
            return Outcome(plan=run.plan, events=run.events, fingerprint=run.fingerprint, missed=run.missed)
        survey, reached = None, frozenset[tuple[str, int]]()
        if isinstance(run, TracedRun):
            reached = frozenset(run.reached_lines - self._reached_lines)
            self._reached_lines |= reached
            survey = survey_of(run)
        strikes = frozenset(run.watch.strikes - self._strikes)
        lines = frozenset(run.watch.struck_lines - self._struck_lines)
        self._strikes |= strikes
        self._struck_lines |= lines
        return Outcome(
            plan=actual_plan(run) if finding is not None else run.plan,
            finding=None if finding is None else attrs.evolve(finding, exception=None),
            events=run.events,
            fingerprint=run.fingerprint,
            missed=run.missed,
            touched=run.world.touched,
            strikes=strikes,
            struck_lines=lines,
            reached_lines=reached,
            survey=survey,
        )


@final
class _Interrupt:
    """Whether the user has asked to stop."""

    pending = False

    @classmethod
    def raise_if_pending(cls) -> None:
        if cls.pending:
            cls.pending = False
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end an exploration between two runs: within a run, code that swallows everything may swallow it.

    The second Ctrl-C raises at once, for a run may be stuck in a single step.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        if _Interrupt.pending:
            signal.default_int_handler(signum, frame)
        _Interrupt.pending = True

    signal.signal(signal.SIGINT, handler)
    try:
        yield
        _Interrupt.raise_if_pending()
    except Exception:
        # Of a run into which the interruption fell nothing can be said.
        _Interrupt.raise_if_pending()
        raise
    finally:
        _Interrupt.pending = False
        signal.signal(signal.SIGINT, signal.default_int_handler)


# --- worker processes ------------------------------------------------------------------------------


@final
class _Workers:
    """Deals chunks of jobs to worker processes, and puts what comes back in order again."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def run(self, jobs: Sequence[Job], deadline: float) -> list[Outcome]:
        chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
        done: dict[int, list[Outcome]] = {}
        waiting = iter(enumerate(chunks))
        busy: dict[Connection, int] = {}
        for pipe in self._pipes:
            self._deal(pipe, waiting, busy, deadline)
        while busy:
            for ready in multiprocessing.connection.wait(list(busy)):
                pipe = next(pipe for pipe in busy if pipe is ready)
                answer = self._answer(pipe)
                done[busy.pop(pipe)] = answer
                self._deal(pipe, waiting, busy, deadline)
        # What the clock cut is the end: a report never has holes.
        prefix: list[Outcome] = []
        for number, chunk in enumerate(chunks):
            prefix += done.get(number, [])
            if len(done.get(number, ())) < len(chunk):
                break
        return prefix

    def _deal(
        self,
        pipe: Connection,
        waiting: Iterator[tuple[int, Sequence[Job]]],
        busy: dict[Connection, int],
        deadline: float,
    ) -> None:
        if time.monotonic() > deadline:
            return
        following = next(waiting, None)
        if following is not None:
            busy[pipe] = following[0]
            pipe.send((following[1], deadline))

    def _answer(self, pipe: Connection) -> list[Outcome]:
        try:
            answer: list[Outcome] | BaseException = pipe.recv()
        except EOFError:
            raise RuntimeError("a worker process of the explorer died: explore with workers=1 to see why") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextmanager
def open_workers(engine: LocalEngine, count: int) -> Iterator[Engine]:
    """Fork worker processes that make runs as ``engine`` does; with a count of 1 it makes them itself."""
    if count <= 1:
        yield engine
        return
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes = []
    try:
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(engine, there, [here, *pipes]), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        yield _Workers(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=1)
            if process.is_alive():
                process.kill()
                process.join()


def _work(engine: LocalEngine, pipe: Connection, others: Sequence[Connection]) -> None:
    for other in others:
        other.close()
    try:
        with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
            while True:
                jobs, deadline = pipe.recv()
                try:
                    answer: list[Outcome] | BaseException = engine.run(jobs, deadline)
                except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
                    answer = RuntimeError(f"in a worker process: {error!r}")
                pipe.send(answer)
    finally:
        # Not the way of `sys.exit`: coroutines that refuse to stop would refuse once more.
        os._exit(0)
