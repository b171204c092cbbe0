"""What all tests share: Hypothesis examples that do not depend on the machine's speed, findings that are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have found out, also those that ran in another process."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            # The report of the clean-up has them as well.
            for name, value in report.user_properties if getattr(report, "when", "") == "call" else ():
                terminalreporter.write_line(f"{name}: {value}")
