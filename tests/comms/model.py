"""A naive inbox: plain lists, no task, no speed. What `Inbox` does step by step is held against it."""

from __future__ import annotations

from attrs import Factory, define

CONTROL, WORK = "control", "work"


@define
class ModelLane:
    """One lane as two lists of ids."""

    limit: int
    queue: list[str] = Factory(list)
    parked: list[str] = Factory(list)

    def hand_over(self) -> None:
        """Fill what room there is, first come, first served."""
        while self.parked and len(self.queue) < self.limit:
            self.queue.append(self.parked.pop(0))


@define
class ModelInbox:
    """What an inbox ought to look like once nothing moves."""

    work_limit: int
    control_limit: int
    lanes: dict[str, ModelLane] = Factory(dict)
    lane_of: dict[str, str] = Factory(dict)
    claimed: str | None = None
    inherited: bool = False
    wanted: tuple[str, ...] | None = None
    """The lanes a waiting claimer asked for; None while nobody waits."""
    admitted: list[str] = Factory(list)

    def __attrs_post_init__(self) -> None:
        self.lanes = {CONTROL: ModelLane(self.control_limit), WORK: ModelLane(self.work_limit)}

    def send(self, name: str, lane: str) -> None:
        """Queue it or let it wait."""
        self.lane_of[name] = lane
        self.lanes[lane].parked.append(name)
        self.lanes[lane].hand_over()
        self._grant()

    def cancel_send(self, name: str) -> bool:
        """Forget a waiting envelope; say whether it waited."""
        parked = self.lanes[self.lane_of[name]].parked
        if name not in parked:
            return False
        parked.remove(name)
        return True

    def claim(self, wanted: tuple[str, ...]) -> bool:
        """Ask for the head; False is a refusal as busy."""
        if self.wanted is not None or (self.claimed is not None and not self.inherited):
            return False
        self.wanted = wanted
        self._grant()
        return True

    def end_claim(self, *, commit: bool) -> None:
        """Commit or leave the open claim."""
        if self.claimed is None:
            return
        if commit:
            lane = self.lanes[self.lane_of[self.claimed]]
            lane.queue.remove(self.claimed)
            self.admitted.append(self.claimed)
            lane.hand_over()
        self.claimed, self.inherited = None, False
        self._grant()

    def rebind(self, work_limit: int) -> None:
        """Be taken over by an empty inbox with another bound."""
        self.lanes[WORK].limit = work_limit
        self.lanes[WORK].hand_over()
        self.wanted = None
        self.inherited = self.claimed is not None

    def _grant(self) -> None:
        if self.claimed is not None or self.wanted is None:
            return
        for name in (CONTROL, WORK):
            if name in self.wanted and self.lanes[name].queue:
                self.claimed, self.wanted = self.lanes[name].queue[0], None
                return
