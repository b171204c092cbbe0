"""What is to go wrong in the demo, and when: drawn from the seed before anything runs. Does nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

__all__ = ["KINDS", "HandlerFault", "Move", "Plan", "draw_handler_faults", "draw_moves", "draw_plan"]

_ONCE: Final = "promotions"
_REPEATED: Final = (
    "rebinds",
    "aborts",
    "crashes",
    "cancelled_attaches",
    "cancelled_stops",
    "cancelled_waits",
)
KINDS: Final = (*_REPEATED, _ONCE, "respawns", "handler_failures", "handler_delays", "cancelled_sends")
"""Every kind of fault; each has to happen for a run with faults to succeed. A respawn is what follows a crash."""

_MESSAGES_PER_MOVE: Final = 20
_HANDLER_FAULT_SHARE: Final = 0.04
_CANCELLED_SEND_SHARE: Final = 0.1
_MOST_FAILURES: Final = 3  # fewer than the attempts a session makes, so that nothing has to be abandoned
_LONGEST_DELAY: Final = 0.01
_MOST_PATIENCE: Final = 4

Message = tuple[str, int]
"""A sender of the session, and the number of the message among that sender's."""


@frozen(kw_only=True)
class Move:
    """One fault of a session's drain, ingress or callers."""

    kind: str
    """One of `KINDS`."""
    after: int
    """It begins when so many messages were sent to the session; no more are sent before it has begun."""
    fresh: bool
    """Whether what is attached in the course of it is a new transport."""
    patience: int
    """Steps of the scheduler after which a caller is cancelled; 0 before the first."""


@frozen
class HandlerFault:
    """What goes wrong in the handler of one message."""

    failures: int = 0
    """Attempts that raise, from the first one on."""
    delay: float = 0.0
    """Seconds of the first attempt."""


@frozen(kw_only=True)
class Plan:
    """All that goes wrong in one session."""

    moves: tuple[Move, ...] = ()
    """One after the other, in the order of ``after``."""
    handler: Mapping[Message, HandlerFault]
    """By message."""
    sends: Mapping[Message, int]
    """Messages whose sender is cancelled, with its patience; each is then sent again."""

    @classmethod
    def of_nothing(cls) -> Plan:
        """Make a plan without a fault."""
        return cls(handler={}, sends={})


def draw_moves(
    dice: random.Random,
    messages: int,
    *,
    repeated: Sequence[str],
    once: Sequence[str],
    messages_per_move: int,
    most_patience: int,
) -> tuple[Move, ...]:
    """Draw moves of each kind, more of the ``repeated`` ones the more messages there are."""
    kinds = [*repeated, *once]
    kinds += dice.choices(repeated, k=max(0, messages // messages_per_move - len(kinds)))
    dice.shuffle(kinds)
    # The last message comes after the last move has begun, so every move meets traffic if there is any.
    moments = sorted(dice.randrange(messages) for _ in kinds)
    return tuple(
        Move(kind=kind, after=after, fresh=dice.random() < 0.5, patience=dice.randrange(most_patience))  # noqa: PLR2004
        for kind, after in zip(kinds, moments, strict=True)
    )


def draw_plan(dice: random.Random, streams: Mapping[str, int]) -> Plan:
    """Draw a plan that has each kind of fault at least once, however little is sent.

    Args:
        dice: decides; the same state gives the same plan.
        streams: the session's senders, with how much each sends; 1 message in all or more.
    """
    messages = [(sender, number) for sender, count in streams.items() for number in range(count)]
    moves = draw_moves(
        dice,
        len(messages),
        repeated=_REPEATED,
        once=(_ONCE,),
        messages_per_move=_MESSAGES_PER_MOVE,
        most_patience=_MOST_PATIENCE,
    )
    sends = {message: dice.randrange(_MOST_PATIENCE) for message in messages if dice.random() < _CANCELLED_SEND_SHARE}
    # Without patience the cancellation cannot come too late.
    sends[dice.choice(messages)] = 0
    return Plan(moves=moves, handler=draw_handler_faults(dice, messages), sends=sends)


def draw_handler_faults(dice: random.Random, messages: list[Message]) -> dict[Message, HandlerFault]:
    """Draw what goes wrong in handlers: at least one failure and one delay."""

    def some() -> dict[Message, None]:
        return dict.fromkeys([dice.choice(messages), *(m for m in messages if dice.random() < _HANDLER_FAULT_SHARE)])

    failing = {message: dice.randint(1, _MOST_FAILURES) for message in some()}
    delayed = {message: dice.uniform(0.0001, _LONGEST_DELAY) for message in some()}
    return {
        message: HandlerFault(failing.get(message, 0), delayed.get(message, 0.0)) for message in {**failing, **delayed}
    }
