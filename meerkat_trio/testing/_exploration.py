"""`Exploration`: what a scenario is given, to say who may be cancelled, what must hold, and what may go wrong."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, final, overload

import trio

from ._findings import CheckFailed, Finding
from ._parked import caller
from ._plan import require_name
from ._victims import Victims

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Exploration"]

T = TypeVar("T")


class Run(Protocol):
    """What an `Exploration` needs of its run."""

    victims: Victims
    struck: list[tuple[int, str]]
    atomics: dict[int, tuple[object, object]]
    atomic_cuts: list[tuple[int, object, object, str]]

    def publish(self, name: str, scope: trio.CancelScope) -> None: ...
    def choose(self, options: int) -> int: ...
    def expect(self, predicate: Callable[[], object], within: float | None, text: str) -> None: ...
    def log(self, text: str) -> None: ...
    def found(self, finding: Finding) -> None: ...


@final
class Exploration:
    """What a scenario is given. Made by `explore`, one for each run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._atomics = 0

    def __repr__(self) -> str:
        return f"<Exploration, cancelled so far: {', '.join(self.cancelled) or 'nobody'}>"

    @property
    def cancelled(self) -> tuple[str, ...]:
        """The victims that the explorer has cancelled in this run so far, by name."""
        return tuple(name for _, name in self._run.struck)

    def victim(self, scope: trio.CancelScope | None = None, *, name: str | None = None) -> trio.CancelScope:
        """Declare a scope that may be cancelled at any moment from now on.

        Args:
            scope: an existing scope, entered or not; without it a new one, to be entered by the caller.
            name: what reports call it; else the `file:line` of this call. A name that is declared again stands for the
                new scope from then on.

        Returns:
            The scope; it may already be cancelled.

        Raises:
            ValueError: the name has spaces, ``;`` or ``@``.
        """
        scope = trio.CancelScope() if scope is None else scope
        self._run.publish(self._run.victims.numbered(caller()) if name is None else require_name(name), scope)
        return scope

    @overload
    def choose(self, options: int) -> int: ...
    @overload
    def choose(self, options: Sequence[T]) -> T: ...
    def choose(self, options: int | Sequence[T]) -> int | T:
        """Let the explorer choose what the environment does: a number from 0 up, or one of some options.

        The first option should be what usually happens: it is what runs have that explore something else.

        Raises:
            ValueError: there is nothing to choose from.
        """
        count = options if isinstance(options, int) else len(options)
        if count < 1:
            raise ValueError(f"options: one or more are needed, not {options!r}")
        chosen = self._run.choose(count)
        return chosen if isinstance(options, int) else options[chosen]

    def check(self, condition: object, message: str = "a check failed") -> None:
        """Fail the run unless ``condition`` is true; unlike `assert` also where the exception would be caught.

        Raises:
            CheckFailed: the condition is false.
        """
        if not condition:
            error = CheckFailed(message)
            self._run.found(Finding(kind="check", message=f"{message} ({caller()})", exception=error))
            raise error

    def always(self, predicate: Callable[[], object], message: str | None = None) -> None:
        """Fail the run as soon as ``predicate()`` is false; it is asked after every step of every task from now on."""
        self._run.expect(predicate, None, message or caller())

    def eventually(self, predicate: Callable[[], object], *, within: float, message: str | None = None) -> None:
        """Fail the run unless ``predicate()`` is true once within ``within`` virtual seconds from now.

        If the scenario returns before, it must be true then; if the scenario is cancelled, nothing is expected.
        """
        self._run.expect(predicate, within, message or caller())

    def log(self, *values: object) -> None:
        """Show values on the timeline of a failure."""
        self._run.log(" ".join(str(value) for value in values))

    async def atomic(self, op: Callable[[], Awaitable[object]], state: Callable[[], object]) -> bool:
        """Check that ``op`` is made whole or not at all when it is cancelled.

        Runs ``await op()`` as a victim. If it is cancelled, ``state()`` has to equal what it was before, or what it is
        after ``op`` in the run that differs only by not being cancelled. Nobody else may change the state meanwhile.

        Returns:
            Whether ``op`` came to its end.

        **Cancellation:** of the caller: passed on to ``op``, nothing is checked.
        """
        number = self._atomics = self._atomics + 1
        site = caller()
        before = copy.deepcopy(state())
        with self.victim(name=self._run.victims.numbered(site)) as scope:
            await op()
        after = copy.deepcopy(state())
        if scope.cancelled_caught:
            if after != before:
                self._run.atomic_cuts.append((number, before, after, site))
            return False
        self._run.atomics[number] = before, after
        return True

    async def reusable(self, op: Callable[[], Awaitable[Any]], *, within: float) -> None:
        """Check that ``op`` still works after it was cancelled.

        Runs ``await op()`` as a victim; if it is cancelled, runs it once more, which has to end in ``within`` seconds.

        Raises:
            CheckFailed: it did not.

        **Cancellation:** of the caller: passed on to ``op``, nothing is checked.
        """
        site = caller()
        with self.victim(name=self._run.victims.numbered(site)) as scope:
            await op()
        if scope.cancelled_caught:
            with trio.move_on_after(within) as second:
                await op()
            self.check(not second.cancelled_caught, f"cancelled once, it does not end within {within:g} s any more")
