"""What became of the supervised demo, and whether it is what the demo promises. Knows no machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from ._demo_run import QUIET_LIMIT
from ._ledger import Account
from ._mob_plan import CAUSES, FAULTS, REPAIRS, SOMETIMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from ._ledger import Entry

__all__ = ["MemberOutcome", "MobOutcome", "doubly_accounted"]


@frozen(kw_only=True)
class MemberOutcome:
    """What became of one member."""

    account: Account
    """What the ledger says."""
    planned: int
    """Messages that it was to be given; one that was destroyed need not have let them all in."""
    destroyed: bool
    """Whether it was destroyed by command: then what it gave up, its end has named."""
    rebinds: int
    """Times an attach said that the live drain has moved."""
    longest_stall: float
    """Longest time in which it handled nothing, up to its last message, in seconds."""

    @property
    def is_fine(self) -> bool:
        """Whether nothing of its was lost, doubled, reordered, or given up while it lived."""
        return self.account.balances and (self.destroyed or not self.account.abandoned)

    def row(self) -> dict[str, Any]:
        """Return its numbers as plain data."""
        account = asdict(self.account)
        account["handed_back"] = account.pop("abandoned")
        return {**account, "rebinds": self.rebinds, "longest_stall": self.longest_stall}


@frozen(kw_only=True)
class MobOutcome:
    """What became of the run."""

    members: dict[str, MemberOutcome]
    """By name."""
    doubly_accounted: int
    """Messages that were handled and handed back, or handled behind one that was handed back."""
    accepted: dict[str, int]
    """Commands that were carried out, by name."""
    rejected: dict[str, int]
    """Commands that were rejected, by cause."""
    dropped: dict[str, int]
    """Commands and inputs that were not let in, by reason."""
    repaired: dict[str, int]
    """Repairs, by kind."""
    faults: dict[str, int]
    """Faults, by kind."""
    demanded: bool
    """Whether each cause, repair and fault had to happen."""
    disagreeing: tuple[str, ...]
    """Members whose authority and trust store say different things in the end."""
    surprises: tuple[str, ...]
    """Answers that had to be others, in words."""
    stuck: bool
    """Whether the run was given up because nothing happened any more."""

    @property
    def account(self) -> Account:
        """The sum of all accounts."""
        return sum((member.account for member in self.members.values()), Account())

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """What had to happen and did not, by what it is."""
        if not self.demanded:
            return {}
        demanded = {
            "rejections": (CAUSES, self.rejected),
            "repairs": (REPAIRS, self.repaired),
            "faults": ([kind for kind in FAULTS if kind not in SOMETIMES], self.faults),
        }
        missing = {
            what: tuple(kind for kind in kinds if not counted[kind]) for what, (kinds, counted) in demanded.items()
        }
        return {what: kinds for what, kinds in missing.items() if kinds}

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the run did not do what the demo promises, each reason in words; empty if it did."""
        account = self.account
        wrong = {"lost": account.lost, "doubled": account.duplicated, "reordered": account.reordered}
        unsent = sum(each.planned - each.account.sent for each in self.members.values() if not each.destroyed)
        abandoned = sum(each.account.abandoned for each in self.members.values() if not each.destroyed)
        reasons = {
            "the ledger does not balance: " + ", ".join(f"{n} {what}" for what, n in wrong.items() if n): any(
                wrong.values()
            ),
            f"{self.doubly_accounted} handled and handed back": self.doubly_accounted,
            f"{abandoned} abandoned": abandoned,
            **{f"{what} that did not happen: {', '.join(kinds)}": True for what, kinds in self.missing.items()},
            f"trust store and authority disagree: {', '.join(self.disagreeing)}": self.disagreeing,
            f"{len(self.surprises)} answers that had to be others, the first: {''.join(self.surprises[:1])}": (
                self.surprises
            ),
            f"{unsent} planned but never sent": unsent,
            f"given up, for nothing happened for {QUIET_LIMIT:.0f} s": self.stuck,
        }
        return tuple(reason for reason, applies in reasons.items() if applies)

    @property
    def succeeded(self) -> bool:
        """Whether the demo did what it promises."""
        return not self.failures

    def total(self) -> dict[str, Any]:
        """Return the totals as plain data."""
        members = self.members.values()
        whole = MemberOutcome(
            account=self.account,
            planned=sum(each.planned for each in members),
            destroyed=True,
            rebinds=sum(each.rebinds for each in members),
            longest_stall=max((each.longest_stall for each in members), default=0.0),
        )
        return whole.row()


def doubly_accounted(entries: Iterable[Entry], given_up: Mapping[tuple[str, str], AbstractSet[int]]) -> int:
    """Count entries of messages that were also given up, or come behind one of the same sender that was."""
    first = {stream: min(numbers) for stream, numbers in given_up.items() if numbers}
    return sum(
        entry.number >= first[entry.session, entry.sender]
        for entry in entries
        if (entry.session, entry.sender) in first
    )
