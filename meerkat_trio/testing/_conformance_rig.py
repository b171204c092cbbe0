"""What a conformance rule has in hand: the bench an implementer provides, and calls to try things on it.

Knows nothing of a clock: "nothing moves any more" is asked of Trio itself, so that a rule says the same
under a real and a virtual clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio
from attrs import field, frozen

from .._messages import Envelope
from ..authority import EnvelopeKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from attrs import Attribute

    from ..abc import CommsRuntime
    from ..authority import PeerId

__all__ = ["ConformanceBench", "ConformanceError", "Rig", "Rule"]

_CONTROL_KIND: Final = EnvelopeKind.PEER_ADDED
_SMALLEST_LANE: Final = 3


class ConformanceError(AssertionError):
    """A comms runtime breaks a rule of `meerkat_trio.abc.CommsRuntime`.

    Attributes:
        rule: the name of the rule, a key of ``COMMS_RULES``.
        found: what was seen instead.
    """

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(rule, found)
        self.rule = rule
        self.found = found

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}"


def _require_room(_: object, attribute: Attribute[int], value: object) -> None:
    if not isinstance(value, int) or value < _SMALLEST_LANE:
        raise ValueError(f"{attribute.name}: the rules need a lane of {_SMALLEST_LANE} or more, not {value!r}")


@frozen(kw_only=True)
class ConformanceBench:
    """Three connected peers, made anew for each rule.

    Raises:
        ValueError: a lane is too small for the rules, which send up to three envelopes before any has to wait.
    """

    receiver: CommsRuntime
    """The peer whose inbox is tried."""
    senders: tuple[CommsRuntime, CommsRuntime]
    """Two peers that can send to the receiver and to each other, of the receiver's class."""
    rebuild: Callable[[], Awaitable[CommsRuntime]]
    """Make another instance of the receiver's logical id; it has taken nothing over yet."""
    work_lane: int = field(validator=_require_room)
    """How many envelopes one sender gets into the receiver's work lane before it has to wait, from 3 up."""
    control_lane: int = field(validator=_require_room)
    """The same for the control lane."""


@final
class Attempt:
    """A call that runs as a task of its own, so that a rule can look whether it waits."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call
        self._scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self.waiting = True
        self.result: Any = None
        self.error: Exception | None = None

    async def run(self) -> None:
        """Make the call and keep how it ended.

        **Cancellation:** passes through, unless it came from `cancel`.
        """
        self.task = trio.lowlevel.current_task()
        with self._scope:
            try:
                self.result = await self._call()
            except Exception as exc:  # noqa: BLE001 - which one it may be is the rule's business
                self.error = exc
        self.waiting = False

    def cancel(self) -> None:
        """Cancel the call."""
        self._scope.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the call ended by `cancel`."""
        return self._scope.cancelled_caught

    def __str__(self) -> str:
        if self.waiting:
            return "it waits"
        if self.cancelled:
            return "it was cancelled"
        return f"it returned {self.result!r}" if self.error is None else f"it raised {self.error!r}"


@final
class Rig:
    """A bench and what a rule does with it; every failing expectation names the rule."""

    def __init__(self, rule: str, bench: ConformanceBench, tasks: trio.Nursery, quiet: float) -> None:
        self._rule = rule
        self._tasks = tasks
        self._quiet = quiet
        self._number = 0
        self.bench = bench
        self.receiver = bench.receiver
        self.sender, self.other = bench.senders
        self.settling = False
        self.settled = 0

    def expect(self, held: object, otherwise: str) -> None:
        """Go on if ``held`` is true, else the rule is violated."""
        if not held:
            raise ConformanceError(self._rule, otherwise)

    def same(self, expected: object, found: object, what: str) -> None:
        """Go on if both are equal."""
        self.expect(expected == found, f"{what}: {expected!r} was expected, {found!r} was found")

    def parked_senders(self, receiver: CommsRuntime) -> int:
        """Count the senders that wait for room: some transports know of them at the receiver, some where they are."""
        return sum(each.statistics().parked_senders for each in (receiver, *self.bench.senders))

    async def settle(self) -> None:
        """Wait until nothing moves any more.

        **Cancellation:** nothing is lost.
        """
        from trio.testing import wait_all_tasks_blocked  # noqa: PLC0415 - loads pytest, where that is installed

        self.settling = True
        try:
            await wait_all_tasks_blocked(self._quiet)
        finally:
            self.settling = False
            self.settled += 1

    async def start(self, call: Callable[[], Awaitable[Any]]) -> Attempt:
        """Start a call as a task and wait until nothing moves any more.

        **Cancellation:** the call goes on.
        """
        attempt = Attempt(call)
        self._tasks.start_soon(attempt.run)
        await self.settle()
        return attempt

    async def start_cancelled(self, call: Callable[[], Awaitable[Any]], steps: int) -> Attempt:
        """Start a call as a task that is cancelled after so many of its steps; wait until nothing moves any more.

        **Cancellation:** the call goes on.
        """
        attempt = Attempt(call)
        striking = _Striking(attempt, steps)
        trio.lowlevel.add_instrument(striking)
        try:
            self._tasks.start_soon(attempt.run)
            await self.settle()
        finally:
            trio.lowlevel.remove_instrument(striking)
        return attempt

    async def raises(self, kind: type[Exception], call: Callable[[], object], what: str) -> None:
        """Expect that a call, synchronous or not, raises ``kind``.

        **Cancellation:** passes through.
        """
        try:
            result = call()
            if hasattr(result, "__await__"):
                result = await result
        except kind:
            return
        except Exception as exc:
            raise ConformanceError(self._rule, f"{what}: {kind.__name__} was expected, not {exc!r}") from exc
        raise ConformanceError(self._rule, f"{what}: {kind.__name__} was expected, it returned {result!r}")

    def note(
        self,
        sender: CommsRuntime | None = None,
        *,
        to: PeerId | None = None,
        id: str | None = None,  # noqa: A002 - the field's name
        control: bool = False,
    ) -> Envelope:
        """Make the next envelope; its body is its number."""
        self._number += 1
        return Envelope(
            id=f"note-{self._number}" if id is None else id,
            sender=(sender or self.sender).peer_id,
            recipient=self.receiver.peer_id if to is None else to,
            kind=_CONTROL_KIND if control else EnvelopeKind.MESSAGE,
            body=self._number,
        )

    async def send_some(self, count: int, *, control: bool = False) -> list[int]:
        """Send envelopes from the first sender to the receiver; return their bodies.

        **Cancellation:** those sent so far are sent.
        """
        bodies = []
        for _ in range(count):
            note = self.note(control=control)
            await self.sender.send(note)
            bodies.append(note.body)
        await self.settle()
        return bodies

    async def fill(self, *, control: bool = False) -> list[int]:
        """Fill the receiver's work lane, or its control lane; return the bodies.

        **Cancellation:** those sent so far are sent.
        """
        bound = self.bench.control_lane if control else self.bench.work_lane
        return await self.send_some(bound, control=control)

    async def park(self, *senders: CommsRuntime, control: bool = False) -> tuple[list[int], list[Attempt]]:
        """Send from each of ``senders`` in turn to a lane that is full; return the bodies and the calls.

        **Cancellation:** the calls go on.
        """
        bodies, attempts = [], []
        for sender in senders:
            note = self.note(sender, control=control)
            attempts.append(await self.start(lambda sender=sender, note=note: sender.send(note)))  # type: ignore[misc]
            bodies.append(note.body)
        return bodies, attempts

    async def take(self, comms: CommsRuntime) -> int:
        """Claim and commit one envelope; return its body.

        **Cancellation:** an envelope that was not committed is still there.
        """
        with await comms.claim() as claim:
            body: int = claim.envelope.body
            claim.commit()
        return body

    async def take_all(self, comms: CommsRuntime) -> list[int]:
        """Claim and commit until nothing is left; return the bodies.

        **Cancellation:** an envelope that was not committed is still there.
        """
        bodies: list[int] = []
        while True:
            await self.settle()
            try:
                claim = comms.claim_nowait()
            except trio.WouldBlock:
                return bodies
            with claim:
                bodies.append(claim.envelope.body)
                claim.commit()


@final
class _Striking(trio.abc.Instrument):
    """Cancels a call when its task has made so many steps: in the very checkpoint that it has just reached."""

    def __init__(self, attempt: Attempt, steps: int) -> None:
        self._attempt = attempt
        self._steps_left = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._attempt.task:
            self._steps_left -= 1
            if self._steps_left == 0:
                self._attempt.cancel()


Check: TypeAlias = "Callable[[Rig], Awaitable[None]]"


@frozen
class Rule:
    """One promise of the contract and how it is tried."""

    name: str
    """What a violation is reported as."""
    sentence: str
    """What is promised."""
    check: Check = field(repr=False)
    """Tries it on a fresh bench."""
