"""The calls of a session about its ingress: attaching a comms runtime, giving it up, stopping and joining the drain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from . import authority
from ._calls import SessionCalls
from ._exceptions import DrainNotStarted
from ._reports import IngressResult, IngressUpdate
from .abc import NO_LANES, CommsRuntime
from .authority import (
    AttachMobIngress,
    AttachSessionIngress,
    CommsDrainMode,
    Detacher,
    DrainStopping,
    PeerId,
    Unattached,
)

if TYPE_CHECKING:
    from ._tasks import SessionTasks
    from .authority import DrainExit, Input, MobId

__all__ = ["IngressCalls", "require_text"]


class IngressCalls(SessionCalls):
    """The part of `Session` that is about what it is served through."""

    __slots__ = ()

    async def attach_ingress(
        self,
        comms: CommsRuntime,
        *,
        mode: CommsDrainMode = CommsDrainMode.PERSISTENT_HOST,
        idle_timeout: float = 300.0,
    ) -> IngressUpdate:
        """Serve ``comms`` in the session's own name: start a drain, or move the live one over (SPEC 4).

        Another instance of the same logical id replaces the one that is bound: everything that one had accepted is
        handled first, and at no moment do two drains or no drain serve. A drain that is being stopped is waited for.

        Args:
            comms: the transport; the caller keeps it and closes it.
            mode: how long the drain lives without messages.
            idle_timeout: seconds, above 0; for the modes that have a time-out.

        Raises:
            SessionEnded: the session is ending or has ended.
            TransitionRejected: somebody else owns the ingress, or the live drain has another mode or time-out.
            DrainNotStarted: the drain ended before it served.
            trio.ClosedResourceError: ``comms`` is closed, or the machine closed meanwhile.
            trio.BusyResourceError: somebody else is claiming from ``comms``; or another session of this machine serves
                it, or the instance that it would take over.
            TypeError, ValueError: an argument is of no use; or ``comms`` cannot take over from the instance that is
                bound, which then stays bound.

        **Cancellation:** before the change nothing has happened; while this waits for the drain to serve, the change
        stands. Any number of tasks may attach and stop at once: each change is made whole, one after the other.
        """
        _require_ingress(comms, mode, idle_timeout)
        return await self._attach(comms, AttachSessionIngress(comms.runtime_id, mode, idle_timeout))

    async def attach_mob_ingress(
        self,
        comms: CommsRuntime,
        mob_id: MobId,
        *,
        mob_peer_id: PeerId | None = None,
        mode: CommsDrainMode = CommsDrainMode.PERSISTENT_HOST,
        idle_timeout: float = 300.0,
    ) -> IngressUpdate:
        """Serve ``comms`` in the name of a mob, which may take the ingress over from the session's side (SPEC 4).

        The mob keeps it until `detach_mob_ingress`; the session's side cannot take it back. ``mob_peer_id`` is the
        peer that may dismiss the session in the mob's name. Otherwise as `attach_ingress`.

        Raises:
            SessionEnded, DrainNotStarted, trio.ClosedResourceError, trio.BusyResourceError, TypeError, ValueError: as
                `attach_ingress`.
            TransitionRejected: another mob owns the ingress, or this one with another logical id; or the live drain has
                another mode or time-out.

        **Cancellation:** as `attach_ingress`.
        """
        _require_ingress(comms, mode, idle_timeout)
        require_text("mob_id", mob_id)
        request = AttachMobIngress(
            comms_runtime_id=comms.runtime_id,
            mob_id=mob_id,
            mob_peer_id=None if mob_peer_id is None else PeerId(mob_peer_id),
            mode=mode,
            idle_timeout=idle_timeout,
        )
        return await self._attach(comms, request)

    async def _attach(self, comms: CommsRuntime, request: AttachSessionIngress | AttachMobIngress) -> IngressUpdate:
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            self._require_living(waiting=waited)
            drain = tasks.state.drain
            if not drain.live or drain.stopping is None:
                break
            # What would be refused is refused at once, not after the wait.
            tasks.rehearse(request)
            waited = True
            leaving = drain.generation
            await self._wait_left(leaving)
        result, steps = self._plan_attach(comms, request)
        previous = tasks.bound_comms
        tasks.drain.require_unserved(comms)
        tasks.drain.require_unserved(previous)
        if result is not IngressResult.UNCHANGED:
            # Both may refuse, and then nothing has changed: neither there nor here.
            comms.claim_ready(lanes=NO_LANES)
            if previous is not None and previous is not comms:
                comms.take_over(previous)
        tasks.bound_comms = comms
        owner_changed = steps[-1].after.ingress != steps[0].before.ingress
        tasks.commit(steps)
        generation = tasks.state.drain.generation
        await self._wait_started(generation)
        return IngressUpdate(result=result, owner_changed=owner_changed, generation=generation)

    async def _wait_left(self, generation: int) -> None:
        tasks = self._tasks

        def outcome() -> bool | None:
            region = tasks.state.drain
            return True if region.generation > generation or not region.live else None

        await tasks.waiters.wait(outcome)

    def _plan_attach(
        self, comms: CommsRuntime, request: AttachSessionIngress | AttachMobIngress
    ) -> tuple[IngressResult, tuple[authority.Step, ...]]:
        tasks = self._tasks
        inputs: tuple[Input, ...]
        if not tasks.state.drain.live:
            result = IngressResult.SPAWNED
            inputs = (request, authority.SpawnDrain(request.mode, request.idle_timeout))
        elif comms is tasks.bound_comms:
            result, inputs = IngressResult.UNCHANGED, (request,)
        else:
            result, inputs = IngressResult.REBOUND, (request, authority.RebindDrain())
        return result, tasks.rehearse(*inputs)

    async def _wait_started(self, generation: int) -> None:
        tasks = self._tasks

        def outcome() -> tuple[DrainExit | None] | None:
            region = tasks.state.drain
            if region.phase is authority.CommsDrainPhase.RUNNING and region.generation >= generation:
                return (None,)
            return None if region.live else (region.last_exit,)

        (ended,) = await tasks.waiters.wait(outcome)
        if ended is not None:
            if tasks.shutting_down:
                raise trio.ClosedResourceError("the machine closed before the drain served")
            raise DrainNotStarted(ended)

    async def detach_ingress(self) -> DrainExit | None:
        """Give up the ingress that the session's side owns: stop the drain, join it, own nothing (SPEC 4).

        Returns how the drain ended, None if there was none.

        Raises:
            SessionEnded: the session has ended.
            TransitionRejected: a mob owns it.

        **Cancellation:** drain and owner are told in one step, and both stand; only the waiting ends.
        """
        return await self._detach(Detacher())

    async def detach_mob_ingress(self, mob_id: MobId) -> DrainExit | None:
        """Give up the ingress that the mob owns; otherwise as `detach_ingress`.

        Raises:
            SessionEnded: the session has ended.
            TransitionRejected: the session's side or another mob owns it.

        **Cancellation:** as `detach_ingress`.
        """
        require_text("mob_id", mob_id)
        return await self._detach(Detacher(mob_id))

    async def _detach(self, by: Detacher) -> DrainExit | None:
        tasks = self._tasks
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_not_ended()
        steps = tasks.rehearse(authority.StopDrain(DrainStopping.DETACH), authority.DetachIngress(by))
        stopped = _stopped_generation(tasks)
        tasks.commit(steps)
        if isinstance(tasks.state.ingress, Unattached):
            # The next owner starts afresh: what this transport still holds is its own, edges too.
            tasks.bound_comms = None
            tasks.reconcile_trust()
            tasks.waiters.ask()
        return await self.join_drain(stopped)

    async def stop_drain(self) -> DrainExit | None:
        """Stop the drain, or the wait for its respawn, and join it; the owner stays (SPEC 4).

        Returns how it ended, None if there was nothing to stop. What the transport holds stays there, in order.

        Raises:
            SessionEnded: the session has ended.

        **Cancellation:** the drain is told to stop in any case; only the waiting ends. Any number of tasks may call.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_not_ended()
        return await self.join_drain(self.begin_stop_drain())

    def begin_stop_drain(self) -> int | None:
        """Tell the drain to stop and return which one that was. For `MeerkatMachine.stop_drains`."""
        stopped = _stopped_generation(self._tasks)
        self._tasks.apply(authority.StopDrain(DrainStopping.ABORT))
        return stopped

    async def join_drain(self, generation: int | None) -> DrainExit | None:
        """Wait for the exit of a drain that was told to stop. For `MeerkatMachine.stop_drains`.

        **Cancellation:** nothing is lost; only the waiting ends.
        """
        tasks = self._tasks
        if generation is None:
            await trio.lowlevel.checkpoint()
            return None

        def outcome() -> DrainExit | None:
            last_exit = tasks.state.drain.last_exit
            if last_exit is None or last_exit.generation < generation:
                return None
            return None if tasks.drain.is_respawning and not tasks.state.drain.live else last_exit

        return await self._join(outcome)

    async def wait_drain_exited(self) -> DrainExit | None:
        """Wait until no drain is live; a rebind is no exit. Returns how the last one ended, None if there was none.

        **Cancellation:** nothing is lost; any number of tasks may wait.
        """
        tasks = self._tasks

        def outcome() -> tuple[DrainExit | None] | None:
            region = tasks.state.drain
            return None if region.live else (region.last_exit,)

        return (await tasks.waiters.wait(outcome))[0]


def _stopped_generation(tasks: SessionTasks) -> int | None:
    """Return the drain that a stop would stop: the live one, or the one that waits for its respawn."""
    region = tasks.state.drain
    if region.live or region.phase is authority.CommsDrainPhase.EXITED_RESPAWNABLE:
        return region.generation
    return None


def _require_ingress(comms: object, mode: object, idle_timeout: object) -> None:
    if not isinstance(comms, CommsRuntime):
        raise TypeError(f"comms: a CommsRuntime is needed, not {comms!r}")
    if not isinstance(mode, CommsDrainMode):
        raise TypeError(f"mode: a CommsDrainMode is needed, not {mode!r}")
    require_text("comms.runtime_id", comms.runtime_id)
    if not isinstance(idle_timeout, int | float) or not _is_some_time(idle_timeout):
        raise ValueError(f"idle_timeout: seconds above 0 are needed, not {idle_timeout!r}")


def _is_some_time(seconds: float) -> bool:
    try:
        return float(seconds) > 0
    except OverflowError:
        return False


def require_text(field: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field}: must be a text that is not blank, not {value!r}")
