"""Who may be cancelled in a run, and what they are called: declared by the scenario, or found without its help.

Found are the scopes that may legally be cancelled without anybody's consent: the scenario's root, scopes with a
deadline, and scopes that the scenario's own code cancels. A component's own scopes are not among them: its cancelling
them may go with a flag that it sets.
"""

from __future__ import annotations

import math
import sys
from types import CodeType
from typing import Any, Final, final

import trio

from ._parked import caller, caller_frame
from ._trio_internals import is_cancelled, is_over

__all__ = ["LATE", "ROOT", "Victims", "code_of", "is_code_of"]

ROOT: Final = "root"
# A sleep is no time-out: it ends when it ends.
_SLEEP: Final = trio.sleep_until.__code__
LATE: Final = "late-timer-"
"""Begins the name of a timer that is due and was made to wait for another one."""


@final
class Victims:
    """The victims of one run, by name."""

    def __init__(self, own_code: CodeType | None, sites: frozenset[str], *, automatic: bool, every_scope: bool) -> None:
        self.scopes: dict[str, trio.CancelScope] = {}
        """The victims; a name that is declared again stands for the new scope from then on."""
        self.late_sites: set[str] = set()
        """Names of scopes that turned out to be victims only when the scenario cancelled them."""
        self._own_code = own_code
        self._sites = sites
        self._automatic = automatic
        self._every_scope = every_scope
        self._names: dict[trio.CancelScope, str] = {}
        self._counts: dict[str, int] = {}
        self._expected: set[str] = set()
        self._private: set[str] = set()

    def declare(self, name: str, scope: trio.CancelScope) -> None:
        """Add a victim."""
        self.scopes[name] = scope
        self._names[scope] = name

    def numbered(self, site: str) -> str:
        """Return a name for the next thing that comes from this place."""
        count = self._counts[site] = self._counts.get(site, 0) + 1
        return site if count == 1 else f"{site}~{count}"

    def name_of(self, scope: trio.CancelScope) -> str | None:
        """Return a scope's name; None if it has none."""
        return self._names.get(scope)

    def living(self, only: str | None = None) -> list[str]:
        """Return the names of those whose cancellation now would mean something."""
        return [
            name
            for name, scope in self.scopes.items()
            if (only is None or name == only) and not is_cancelled(scope) and not is_over(scope)
        ]

    def entered(self, scope: trio.CancelScope) -> None:
        """Consider a scope that code of the scenario, or under it, has entered."""
        if not self._automatic or scope in self._names or sys._getframe(4).f_code is _SLEEP:  # noqa: SLF001
            return
        site = caller(5)
        if not site:
            return
        name = self._names[scope] = self.numbered(site)
        if scope.deadline < math.inf or name in self._sites:
            self._expected.add(name)
        elif self._every_scope:
            self._private.add(name)
        else:
            return
        self.scopes[name] = scope

    def cancelled_by_code(self, scope: trio.CancelScope) -> None:
        """Consider a scope that code cancels: what the scenario itself cancels, it may cancel at any moment."""
        name, frame = self._names.get(scope), caller_frame(4)
        if self._automatic and name is not None and frame is not None and is_code_of(self._own_code, frame.f_code):
            self.late_sites.add(name)

    def is_private(self, name: str) -> bool:
        """Whether the code may rely on nobody else to cancel this scope."""
        return name in self._private

    def comes_early(self, name: str) -> bool:
        """Whether the code expects this scope's cancellation, but at a time or after a step of its own choosing."""
        return name in self._expected


def code_of(scenario: Any) -> CodeType | None:
    """Return the code of a scenario's function, if it has one."""
    while hasattr(scenario, "func"):
        scenario = scenario.func
    for function in (scenario, getattr(scenario, "__func__", None), getattr(type(scenario), "__call__", None)):  # noqa: B004
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None


def is_code_of(own: CodeType | None, code: CodeType) -> bool:
    """Whether code is a scenario's own, functions defined inside it included."""
    return own is not None and (code is own or code.co_qualname.startswith(f"{own.co_qualname}.<locals>"))
