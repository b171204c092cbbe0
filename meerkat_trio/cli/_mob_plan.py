"""What is to go wrong in the supervised demo, and when: drawn from the seed before anything runs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from .._exceptions import RejectionCause
from ._demo_plan import Plan, draw_handler_faults, draw_moves

if TYPE_CHECKING:
    import random

__all__ = ["CAUSES", "DESTROYED_LAST", "FAULTS", "REPAIRS", "SOMETIMES", "Streams", "draw_mob_plan", "mobs_of"]

CAUSES: Final = tuple(cause.value for cause in RejectionCause)
"""Why commands are rejected; each cause has to happen."""
REPAIRS: Final = (
    "bind_already",
    "authorize_already",
    "revoke_already",
    "wire_already",
    "unwire_already",
    "deliver_deduplicated",
    "destroy_repeated",
    "supervisor_edge_restored",
    "peer_edge_restored",
    "edge_stored_late",
)
"""What a command that is sent again finds done, or sets right; each kind has to happen."""

_ONCE: Final = ("replacements", "strangers")
_REPEATED: Final = (
    "rebinds",
    "restarts",
    "rotations",
    "refused_successors",
    "replays",
    "malformed_commands",
    "lost_edges",
    "rewirings",
    "cancelled_commands",
    "slow_replies",
    "stalled_supervisors",
    "interrupts",
)
SOMETIMES: Final = ("interrupts",)
"""Kinds of fault that may come too late to meet anything."""
FAULTS: Final = (*_REPEATED, *_ONCE, "store_failures", "cancelled_deliveries", "handler_failures", "handler_delays")
"""Every kind of fault; each but those of `SOMETIMES` has to happen."""

Streams = dict[str, int]
"""How much a member is given, by ``"supervisors"`` and ``"peer"``."""

DESTROYED_LAST: Final = 4
"""Inputs that a member which is to be destroyed is given at last, all at once."""
_MESSAGES_PER_MOVE: Final = 8
_CANCELLED_DELIVERY_SHARE: Final = 0.1
_MOST_PATIENCE: Final = 6
_MEMBERS_OF_A_MOB: Final = 5


def mobs_of(sessions: int) -> list[range]:
    """Divide the sessions into mobs of five or a few less; 2 sessions or more."""
    count = -(-sessions // _MEMBERS_OF_A_MOB)
    bounds = [sessions * number // count for number in range(count + 1)]
    return [range(first, end) for first, end in itertools.pairwise(bounds)]


def draw_mob_plan(dice: random.Random, streams: Streams) -> Plan:
    """Draw one member's plan, which has each kind of fault at least once, however little is sent.

    Args:
        dice: decides; the same state gives the same plan.
        streams: what the member is given; the plan's messages are named by stream and number, and its ``sends`` are
            deliveries whose caller is cancelled and which are then made again.
    """
    messages = [(stream, number) for stream, count in streams.items() for number in range(count)]
    moves = draw_moves(
        dice,
        len(messages),
        repeated=_REPEATED,
        once=_ONCE,
        messages_per_move=_MESSAGES_PER_MOVE,
        most_patience=_MOST_PATIENCE,
    )
    deliveries = [("supervisors", number) for number in range(streams["supervisors"])]
    sends = {each: dice.randrange(_MOST_PATIENCE) for each in deliveries if dice.random() < _CANCELLED_DELIVERY_SHARE}
    # Without patience the cancellation cannot come too late.
    sends[dice.choice(deliveries)] = 0
    return Plan(moves=moves, handler=draw_handler_faults(dice, messages), sends=sends)
