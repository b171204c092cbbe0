"""A kit for testing code under cancellation and transports against their contract, without pytest or the shell."""

from __future__ import annotations

from ._conformance import COMMS_RULES, ConformanceBench, ConformanceError, check_comms_runtime
from ._sweep import Sweep, SweepFailed, SweepFailure, SweepReport, cancel_at_every_event

__all__ = [
    "COMMS_RULES",
    "ConformanceBench",
    "ConformanceError",
    "Sweep",
    "SweepFailed",
    "SweepFailure",
    "SweepReport",
    "cancel_at_every_event",
    "check_comms_runtime",
]
