"""The drain loop: takes envelopes out of a comms runtime and offers them for admission.

It knows no session: it is handed a comms runtime and an intake. Every envelope is claimed, offered and committed
without a checkpoint in between, so a cancellation finds it either at the head of the inbox or inside. Where a journal
is kept, only the wait for it comes between the claim and the offer.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

import trio

from .abc import ALL_LANES, CONTROL_LANE
from .authority import DrainEnding, DropReason, Lane

if TYPE_CHECKING:
    from ._messages import Envelope
    from .abc import Claim, CommsRuntime

__all__ = ["BATCH", "Intake", "Verdict", "drain"]

BATCH: Final = 64
"""Envelopes taken per wake-up at the most; then other tasks get their turn."""


class Verdict(Enum):
    """What became of an offered envelope, beyond being dropped for a `DropReason`."""

    ADMITTED = "admitted"
    DISMISSED = "dismissed"
    """Admitted, and the drain ends."""
    REFUSED = "refused"
    """The session takes nothing any more: the envelope stays in the inbox."""


# Looking a member up in its enumeration costs more than the branch it is for.
_WORK: Final = Lane.WORK
_ADMITTED: Final = Verdict.ADMITTED
_REFUSED: Final = Verdict.REFUSED
_DISMISSED: Final = Verdict.DISMISSED


class Intake(Protocol):
    """Where the drain offers what it takes."""

    room_scope: trio.CancelScope | None
    """Set while the drain waits with the work lane shut: to be cancelled when there is room again."""

    @property
    def binding(self) -> object:
        """What is to be served now; replaced by a rebind."""

    def has_room(self) -> bool:
        """Say whether an envelope of the work lane may be offered."""

    def take(self, envelope: Envelope) -> bool:
        """Take an envelope in, in whatever task sends it, if there is room and little to decide; say whether it was."""

    def offer(self, envelope: Envelope) -> Verdict | DropReason:
        """Decide on an envelope, and take it in if it is admitted."""

    @property
    def is_recorded(self) -> bool:
        """Whether a journal is kept, so that `secure` has to come before `offer_secured`."""

    async def secure(self, envelope: Envelope) -> Verdict | DropReason | None:
        """Record an envelope that would be admitted; None: it may be offered now."""

    def offer_secured(self, envelope: Envelope) -> Verdict | DropReason:
        """As `offer`, for an envelope that `secure` has let pass."""

    async def withdraw(self, envelope: Envelope) -> None:
        """Forget an envelope that was recorded and is refused after all."""


async def drain(comms: CommsRuntime, intake: Intake, binding: object, *, idle_timeout: float) -> DrainEnding:
    """Serve until idle for ``idle_timeout`` seconds or dismissed, and say which.

    Ends with CANCELLED when another binding has taken the place of ``binding``.

    **Cancellation:** nothing is lost: what was not admitted stays at the head of the inbox.
    """
    never_idle = idle_timeout == math.inf
    claim: Claim | None
    while True:
        claim = await _claim_after_others(comms, intake) if not intake.has_room() else None
        if claim is None and never_idle and intake.has_room():
            claim = await (comms.claim() if intake.is_recorded else comms.claim_untaken(intake.take))
        elif claim is None:
            claim = await _claim_timely(comms, intake, idle_timeout)
            if claim is None:
                return DrainEnding.IDLE
        if intake.binding is not binding:
            with claim:
                # Woken, but the binding was replaced before this task ran: the successor takes the envelope.
                return DrainEnding.CANCELLED
        if claim.envelope.lane is _WORK and not intake.has_room():
            with claim:
                # Somebody else filled the queue since this task began to wait: put it back, shut the lane.
                continue
        take = _take_recorded(intake, binding, claim) if intake.is_recorded else _take(comms, intake, claim)
        if await take is _DISMISSED:
            return DrainEnding.DISMISSED
        if intake.binding is not binding:
            return DrainEnding.CANCELLED


async def _take_recorded(intake: Intake, binding: object, claim: Claim) -> Verdict:
    """Take what is claimed: recorded first, then admitted and committed in one step; DISMISSED if that ends the drain.

    The claim stays open meanwhile. Put back, because the drain is cancelled or replaced or another has filled the
    queue, it stays recorded, and whoever claims it next need not wait for that.
    """
    with claim:
        envelope = claim.envelope
        verdict = await intake.secure(envelope)
        if intake.binding is not binding or (envelope.lane is _WORK and not intake.has_room()):
            return _REFUSED
        if verdict is None:
            verdict = intake.offer_secured(envelope)
            if isinstance(verdict, DropReason):
                # Until it is forgotten, a process after this one would handle it, whatever its sender was told.
                await intake.withdraw(envelope)
        if verdict is not _REFUSED:
            claim.commit(verdict if isinstance(verdict, DropReason) else None)
    if verdict is _REFUSED:
        # Only an ending session refuses, and its drain is being cancelled.
        await trio.sleep_forever()
    return _DISMISSED if verdict is _DISMISSED else _ADMITTED


async def _take(comms: CommsRuntime, intake: Intake, first: Claim) -> Verdict:
    """Take what is claimed and what is there behind it, a batch at the most; DISMISSED if that ends the drain."""
    offer, has_room, claim_ready = intake.offer, intake.has_room, comms.claim_ready
    claim: Claim | None = first
    taken = 0
    while claim is not None:
        # What `with claim` would do costs more than the claim itself, so it is left to what is rare.
        try:
            verdict = offer(claim.envelope)
            if verdict is _ADMITTED:
                claim.commit()
        except BaseException:
            with claim:
                raise
        if verdict is not _ADMITTED:
            with claim:
                if verdict is not _REFUSED:
                    claim.commit(verdict if isinstance(verdict, DropReason) else None)
            if verdict is _REFUSED:
                # Only an ending session refuses, and its drain is being cancelled.
                await trio.sleep_forever()
            if verdict is _DISMISSED:
                return _DISMISSED
        taken += 1
        await trio.lowlevel.checkpoint_if_cancelled()
        # After a whole batch the next one is waited for, which lets the others run.
        claim = claim_ready(lanes=ALL_LANES if has_room() else CONTROL_LANE) if taken < BATCH else None
    return _ADMITTED


async def _claim_after_others(comms: CommsRuntime, intake: Intake) -> Claim | None:
    """Let the others run, and claim what is there if that has made room."""
    # A quick handler makes room meanwhile, which spares a cancel scope and its cancellation. Twice, because it may be
    # its turn after ours the first time.
    for _ in range(2):
        await trio.lowlevel.checkpoint()
        if intake.has_room():
            return comms.claim_ready()
    return None


async def _claim_timely(comms: CommsRuntime, intake: Intake, idle_timeout: float) -> Claim | None:
    """Wait for an envelope; None when ``idle_timeout`` has passed and the inbox is empty."""
    while not intake.has_room():
        # A session with a full queue is not idle, so there is no time-out here.
        with trio.CancelScope() as scope:
            intake.room_scope = scope
            try:
                return await comms.claim(lanes=CONTROL_LANE)
            finally:
                intake.room_scope = None
    with trio.move_on_after(idle_timeout):
        return await comms.claim()
    # One may have come in the very moment in which the time ran out.
    return comms.claim_ready()
