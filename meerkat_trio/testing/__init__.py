"""A kit for testing code under cancellation and transports against their contract, without pytest or the shell."""

from __future__ import annotations

from ._conformance import COMMS_RULES, ConformanceBench, ConformanceError, check_comms_runtime
from ._coverage import CancellationCoverage
from ._exploration import Exploration
from ._explore import ScenarioError, explore
from ._findings import CheckFailed
from ._plan import ReplayError
from ._report import CancellationBug, Failure, Report

__all__ = [
    "COMMS_RULES",
    "CancellationBug",
    "CancellationCoverage",
    "CheckFailed",
    "ConformanceBench",
    "ConformanceError",
    "Exploration",
    "Failure",
    "ReplayError",
    "Report",
    "ScenarioError",
    "check_comms_runtime",
    "explore",
]
