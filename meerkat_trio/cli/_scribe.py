"""The handler of a demo: fails and dawdles as planned, and writes down what it has handled."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from ._ledger import LedgerError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from .._session import SessionRun
    from ._demo_plan import HandlerFault
    from ._ledger import Ledger

__all__ = ["Scribe"]


class _PlannedFailure(Exception):
    """What a handler raises because the plan says so."""


@final
class Scribe:
    """What all handlers of a run share."""

    def __init__(
        self, ledger: Ledger, faults: Counter[str], scope: trio.CancelScope, on_progress: Callable[[int], None]
    ) -> None:
        """Begin with an empty page.

        Args:
            ledger: where handled messages are written down.
            faults: where handlers count what went wrong.
            scope: the run; cancelled when the ledger cannot be written any more.
            on_progress: told how many messages were handled so far.
        """
        self._ledger = ledger
        self._faults = faults
        self._scope = scope
        self._on_progress = on_progress
        self._error: LedgerError | None = None
        self._started = 0.0
        self.handled = 0
        """Messages written down so far."""

    def begin(self) -> None:
        """Let the time of the run begin."""
        self._started = trio.current_time()

    async def handle(self, run: SessionRun, sender: str, number: int, body: object, fault: HandlerFault) -> None:
        """Handle a message: its sender's ``number``-th, with what is planned to go wrong."""
        if fault.delay and run.attempt == 1:
            await trio.sleep(fault.delay)
            self._faults["handler_delays"] += 1
        if run.attempt <= fault.failures:
            self._faults["handler_failures"] += 1
            raise _PlannedFailure(f"{sender}'s message {number}, attempt {run.attempt}")
        # Nothing is awaited from here to the return: what is written down counts as handled.
        at = trio.current_time() - self._started
        try:
            self._ledger.append(run.session.id, sender, number, body=body, at=at)
        except LedgerError as error:
            # Nothing that is handled from here on could be proved.
            self._error = error
            self._scope.cancel()
            raise
        self.handled += 1
        self._on_progress(self.handled)

    def require_written(self) -> None:
        """Raise LedgerError if something was handled that could not be written down."""
        if self._error is not None:
            raise self._error
