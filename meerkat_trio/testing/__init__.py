"""A kit for testing code under cancellation and transports against their contract, without pytest or the shell.

The names below are loaded on first use: pytest loads `pytest_plugin` wherever the package is installed, which must cost
nothing there, and the conformance kit needs `trio.testing`, which loads pytest if it is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._conformance import COMMS_RULES, ConformanceBench, ConformanceError, check_comms_runtime
    from ._coverage import CancellationCoverage
    from ._exploration import Exploration
    from ._explore import explore
    from ._findings import CheckFailed
    from ._memory_journal import MemoryJournal, WriteFault
    from ._plan import ReplayError
    from ._report import CancellationBug, Failure, Report
    from ._usual import ScenarioError

__all__ = [
    "COMMS_RULES",
    "CancellationBug",
    "CancellationCoverage",
    "CheckFailed",
    "ConformanceBench",
    "ConformanceError",
    "Exploration",
    "Failure",
    "MemoryJournal",
    "ReplayError",
    "Report",
    "ScenarioError",
    "WriteFault",
    "check_comms_runtime",
    "explore",
]

_MODULES = (
    "_explore",
    "_usual",
    "_exploration",
    "_report",
    "_findings",
    "_coverage",
    "_plan",
    "_conformance",
    "_memory_journal",
)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module_name in _MODULES:
        module = import_module(f".{module_name}", __name__)
        if name in module.__all__:
            value: object = getattr(module, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
