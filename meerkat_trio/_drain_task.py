"""A session's drain as a task: what it serves, how it ended, when it is started again.

One task per spawn serves one binding after the other: a rebind replaces the binding and its scope and keeps the task.
It knows no session; what happened is told to the host it works for, which decides.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio

from . import authority
from ._cancelled import is_being_cancelled, split_cancelled
from ._drain import Intake, drain
from ._parts import Binding
from .authority import CommsDrainMode, DrainEnding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ._parts import SessionSettings
    from ._waiters import Waiters
    from .abc import CommsRuntime
    from .authority import Input, SessionState, Step

__all__ = ["DrainHost", "DrainTask"]

_logger: Final = logging.getLogger("meerkat_trio.drain")


class DrainHost(Intake, Protocol):
    """Whom a drain works for."""

    settings: SessionSettings
    waiters: Waiters
    on_fatal: Callable[[], None]

    @property
    def state(self) -> SessionState:
        """The session's current state."""

    def apply(self, input_: Input) -> Step:
        """Apply what was observed."""

    def start_child(self, child: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task that lives no longer than the session."""

    def show_trust(self) -> Awaitable[None]:
        """Make one pass over the trust store of what is about to be served."""

    def contain(self, error: Exception) -> None:
        """Stop the session because of a fault of ours."""


@final
class DrainTask:
    """The drain of one session, whether it is live or not."""

    __slots__ = ("_host", "_respawn_scope", "_restarts", "_serving", "binding")

    binding: Binding | None
    """What is to be served now; None if no drain is live."""

    def __init__(self, host: DrainHost, serving: dict[int, DrainTask]) -> None:
        self._host = host
        # Which drain of the machine serves a comms runtime, by the identity of that instance.
        self._serving = serving
        self.binding = None
        self._respawn_scope: trio.CancelScope | None = None
        self._restarts: tuple[float, ...] = ()

    # --- what is served -----------------------------------------------------------------------------

    def start(self, generation: int, comms: CommsRuntime, *, is_respawn: bool) -> None:
        """Start the task that serves ``comms``."""
        if is_respawn:
            self._restarts += (trio.current_time(),)
        self._bind(generation, comms)
        self._host.start_child(self._run)

    def swap(self, generation: int, comms: CommsRuntime) -> int:
        """Serve ``comms`` from now on, in the task that there is; return the generation that is replaced."""
        old = self.binding
        if old is None:
            raise RuntimeError("a drain was rebound that is not there")
        self._release(old)
        self._bind(generation, comms)
        old.scope.cancel()
        return old.generation

    def cancel(self) -> None:
        """End the task, if there is one."""
        if self.binding is not None:
            self.binding.scope.cancel()

    def end(self) -> None:
        """Serve nothing any more: the task has said how it ended."""
        self.binding = None

    def require_unserved(self, comms: CommsRuntime | None) -> None:
        """Raise BusyResourceError if another session serves ``comms``: one claims at a time."""
        if self._serving.get(id(comms), self) is not self:
            raise trio.BusyResourceError("another session serves this comms runtime; stop its drain first")

    def _bind(self, generation: int, comms: CommsRuntime) -> None:
        self.binding = Binding(generation, comms)
        self._serving.setdefault(id(comms), self)

    def _release(self, binding: Binding) -> None:
        if self._serving.get(id(binding.comms)) is self:
            del self._serving[id(binding.comms)]

    # --- the task -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        host = self._host
        ending = DrainEnding.CANCELLED
        error: BaseException | None = None
        fatal = False
        try:
            while (binding := self.binding) is not None:
                ending, error = DrainEnding.CANCELLED, None
                try:
                    with binding.scope:
                        await self._prepare()
                        ending = await self._serve(binding)
                except authority.InvariantViolated:
                    raise
                except BaseException as failure:  # noqa: ASYNC103 - a Cancelled of another task is a failure
                    cancelled, rest = split_cancelled(failure)
                    fatal = not isinstance(rest, Exception | None)
                    if cancelled is not None and not fatal and is_being_cancelled():
                        # Cancelled from above; what the transport's own tasks failed with over that is kept.
                        error = rest
                        raise cancelled from None  # noqa: ASYNC104 - what of it is Cancelled
                    # Taken over, and told so before the scope's cancellation could arrive: a rebind, not a failure.
                    if not isinstance(failure, trio.ClosedResourceError) or self.binding is binding:
                        ending, error = DrainEnding.EXCEPTION, self._failed(binding, failure)
                    if fatal:
                        raise
                if self.binding is binding:
                    break
                if error is not None:
                    # It failed in the moment in which it was replaced; whoever watches gets to know.
                    host.apply(authority.DrainExited(binding.generation, authority.DrainExitReason.FAILED, error))
        except Exception as fault:  # noqa: BLE001 - a fault of ours, which is this session's alone
            host.contain(fault)
        finally:
            if self.binding is not None:
                self._release(self.binding)
            region = host.state.drain
            reason = authority.exit_reason(ending, region.stopping)
            host.apply(authority.DrainExited(region.generation, reason, error))
            if fatal:
                # The machine goes down with it; told first, the handlers that run keep their grace.
                host.on_fatal()

    async def _prepare(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._host.state.may_have_edges:
            await self._host.show_trust()

    def _failed(self, binding: Binding, failure: BaseException) -> BaseException:
        session_id = self._host.state.session.session_id
        _logger.error("session %s: drain %d failed", session_id, binding.generation, exc_info=failure)
        return failure

    def _serve(self, binding: Binding) -> Coroutine[Any, Any, DrainEnding]:
        host = self._host
        # A respawn may find that another session was given its transport meanwhile.
        self.require_unserved(binding.comms)
        host.apply(authority.DrainStarted(binding.generation))
        region = host.state.drain
        persistent = region.mode is CommsDrainMode.PERSISTENT_HOST
        return drain(binding.comms, host, binding, idle_timeout=math.inf if persistent else region.idle_timeout)

    # --- starting it again --------------------------------------------------------------------------

    @property
    def is_respawning(self) -> bool:
        """Whether a task waits to respawn the drain, or is about to end."""
        return self._respawn_scope is not None

    def schedule_respawn(self, generation: int) -> None:
        """Start the task that waits to respawn the drain, as the policy has it."""
        self._respawn_scope = trio.CancelScope()
        self._host.start_child(self._respawn, generation, self._respawn_scope)

    def cancel_respawn(self) -> None:
        """End that task, if there is one."""
        if self._respawn_scope is not None:
            self._respawn_scope.cancel()

    def give_up(self, generation: int) -> None:
        """Tell whoever reads the log that nothing restarts the drain any more."""
        _logger.warning("session %s: drain %d failed too often", self._host.state.session.session_id, generation)

    def forget_restarts(self) -> None:
        """Begin anew with all the restarts that the policy allows."""
        self._restarts = ()

    async def _respawn(self, generation: int, scope: trio.CancelScope) -> None:
        host = self._host
        policy, now = host.settings.respawn, trio.current_time()
        self._restarts = tuple(then for then in self._restarts if then > now - policy.within)
        try:
            if len(self._restarts) >= policy.max_restarts:
                host.apply(authority.RespawnGivenUp(generation))
                return
            with scope:
                await trio.sleep(policy.backoff.delay(len(self._restarts) + 1, host.settings.random))
                host.apply(authority.RespawnDue(generation))
        except Exception as fault:  # noqa: BLE001 - a fault of ours, which is this session's alone
            host.contain(fault)
        finally:
            if self._respawn_scope is scope:
                self._respawn_scope = None
            host.waiters.ask()
