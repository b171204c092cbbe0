"""`check_comms_runtime` tries every promise of `meerkat_trio.abc.CommsRuntime` on a transport.

Needs no test framework. Runs each rule on a fresh bench and watches over it, so that an implementation that
hangs or spins is named like any other violation. The rules themselves are in the files beside this one.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from ._conformance_claims import CLAIM_RULES
from ._conformance_endings import ENDING_RULES
from ._conformance_rig import ConformanceBench, ConformanceError, Rig, Rule
from ._conformance_sends import SEND_RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager

__all__ = ["COMMS_RULES", "ConformanceBench", "ConformanceError", "check_comms_runtime"]

# From the plain to the subtle: what breaks several rules is reported as the plainest of them.
_RULES: Final[tuple[Rule, ...]] = (*CLAIM_RULES, *SEND_RULES, *ENDING_RULES)

COMMS_RULES: Final[Mapping[str, str]] = MappingProxyType({rule.name: rule.sentence for rule in _RULES})
"""Every rule's name, with the promise it stands for, in the order in which they are tried."""


async def check_comms_runtime(
    make: Callable[[], AbstractAsyncContextManager[ConformanceBench]],
    *,
    rules: Collection[str] | None = None,
    quiet: float = 0.0,
    max_steps: int = 100_000,
) -> None:
    """Try every rule on a transport; the first that is violated is raised.

    Args:
        make: opens a fresh bench for a rule, and closes what it opened; a rule may have closed parts of it.
        rules: names of `COMMS_RULES` to try; all of them by default.
        quiet: for how many seconds every task has to be blocked until nothing is taken to move any more.
            0 is right for a transport inside the process; one with sockets needs longer than a round trip.
        max_steps: how many task steps a rule may take before it is taken to spin.

    Raises:
        ConformanceError: a rule is violated; it names the rule, and its cause is what the transport raised.
        ValueError: ``rules`` has a name that is none.

    **Cancellation:** the bench in use is closed.
    """
    unknown = set(rules or ()) - set(COMMS_RULES)
    if unknown:
        raise ValueError(f"rules: there is no rule {', '.join(sorted(unknown))}")
    await trio.lowlevel.checkpoint()
    for rule in _RULES:
        if rules is None or rule.name in rules:
            await _try_rule(rule, make, quiet, max_steps)


async def _try_rule(
    rule: Rule,
    make: Callable[[], AbstractAsyncContextManager[ConformanceBench]],
    quiet: float,
    max_steps: int,
) -> None:
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        watch = _Watch(nursery.cancel_scope, max_steps)
        nursery.start_soon(watch.run, quiet)
        trio.lowlevel.add_instrument(watch)
        try:
            async with make() as bench, trio.open_nursery() as tasks:
                try:
                    watch.rig = Rig(rule.name, bench, tasks, quiet)
                    await rule.check(watch.rig)
                except Exception as exc:  # noqa: BLE001 - raised below, with the rule's name
                    failure = exc
                tasks.cancel_scope.cancel()
        except Exception as exc:  # noqa: BLE001 - the bench's own; raised below
            failure = failure or exc
        finally:
            trio.lowlevel.remove_instrument(watch)
        nursery.cancel_scope.cancel()
    if isinstance(failure, ConformanceError):
        raise failure
    if failure is not None:
        raise ConformanceError(rule.name, f"unexpectedly raised {failure!r}") from failure
    if watch.verdict is not None:
        raise ConformanceError(rule.name, watch.verdict)


@final
class _Watch(trio.abc.Instrument):
    """Ends a rule that hangs or spins."""

    def __init__(self, scope: trio.CancelScope, max_steps: int) -> None:
        self._scope = scope
        self._steps_left = max_steps
        self.rig: Rig | None = None
        self.verdict: str | None = None

    def _end(self, verdict: str) -> None:
        if self.verdict is None:
            self.verdict = verdict
            self._scope.cancel()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - the instrument's signature
        self._steps_left -= 1
        if self._steps_left < 0:
            self._end("it spins: the rule came to no end within the steps it has")

    async def run(self, quiet: float) -> NoReturn:
        """Wait for a standstill that the rule itself did not ask for.

        **Cancellation:** this is how it ends.
        """
        from trio.testing import wait_all_tasks_blocked  # noqa: PLC0415 - loads pytest, where that is installed

        while True:
            before = 0 if self.rig is None else self.rig.settled
            await wait_all_tasks_blocked(quiet)
            # The rule's own `settle` ends together with ours: then it is the rule's turn.
            if self.rig is None or not (self.rig.settling or self.rig.settled != before):
                self._end("it hangs: a call waits for something that nobody will do")
