"""Deliberately broken transports for each conformance rule: the proof that the suite can say no.

Each breaks as little as it can, so that it is refused with the name of its own rule.
"""

from __future__ import annotations

from typing import Final

from meerkat_trio.comms import MemoryComms

from . import broken_endings as endings
from . import broken_sides as sides

__all__ = ["BROKEN"]

BROKEN: Final[dict[str, tuple[type[MemoryComms], ...]]] = {
    "identity": (sides.IdIsAnAddress,),
    "claim-nowait": (sides.RaisesItsOwn,),
    "order": (sides.LastInFirstOut,),
    "arrival-wakes": (sides.ClaimNeverWakes,),
    "control-first": (sides.WorkFirst,),
    "wanted-lanes": (sides.IgnoresLanes,),
    "claim-ready": (sides.ReadyOrBlocked, sides.NoLanesAreAll),
    "claim-untaken": (sides.TakesAndQueues, sides.TakesWhatIsBehind, sides.TakesForTheCancelled),
    "left-claim": (sides.BackToTheTail,),
    "commit-once": (sides.CommitsTwice,),
    "receipts": (sides.AlwaysAdmitted,),
    "one-claimer": (sides.NeverBusy,),
    "cancelled-claim": (sides.CheckpointAfterClaim,),
    "checkpoints": (sides.SkipsCheckpoints,),
    "statistics": (sides.ForgetsParked,),
    "full-lane": (sides.DropsWhenFull,),
    "lanes-apart": (sides.OneBoundForBoth,),
    "parked-order": (sides.LastParkedFirst,),
    "no-overtaking": (sides.LateHandOver, sides.SendOvertakes),
    "cancelled-send": (sides.CancelledIsSentAnyway,),
    "all-or-nothing": (sides.CheckpointAfterWaiting, sides.CheckpointAfterAccepting),
    "duplicates": (sides.NoWindow, sides.TakesTwinsOfParked),
    "own-sender": (sides.BelievesAnySender,),
    "receipt-waiters": (sides.UnsettledReceipts,),
    "trust-by-source": (sides.OneEdgePerPeer,),
    "manual-trust": (sides.AnyEdgeIsManual,),
    "closing": (endings.KeepsReceiptsOpen, endings.KeepsControlReceiptsOpen),
    "closing-wakes": (endings.ParkedSleepOn, endings.ParkedControlSleepsOn),
    "closing-cancelled": (endings.CancelledStaysOpen,),
    "closing-claim": (endings.ClosingOverrulesClaims,),
    "closed-recipient": (endings.RaisesForClosedRecipient,),
    "closed-refuses": (endings.ClosedLooksEmpty,),
    "take-over-foreign": (endings.IgnoresStrangers,),
    "take-over-closed": (endings.ClosedTakesOver,),
    "take-over-queue": (endings.LosesTheTail, endings.LosesControl),
    "take-over-front": (endings.GoesBehind,),
    "take-over-close": (endings.ClosesItsSuccessor, endings.DropsTheMovedClaim),
    "take-over-parked": (
        endings.ParkedAreDropped,
        endings.LeavesControlSenders,
        endings.MovedCannotLeave,
        endings.DropsMovedSenders,
    ),
    "take-over-window": (endings.FreshWindow, endings.ForgetsItsOwnWindow),
    "take-over-claim": (endings.TwoOpenClaims,),
    "take-over-wakes": (endings.ClaimerSleepsOn,),
    "take-over-arrives": (endings.ArrivesUnnoticed,),
    "take-over-refuses": (endings.LooksEmptyAfterwards, endings.SendsOn, endings.SendsOnNowait),
}
"""By the name of the rule that they break."""
