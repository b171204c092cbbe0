"""How long to wait before trying again, and when to stop trying. Pure: randomness is handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import field, frozen, validators

__all__ = ["Backoff", "Random", "RespawnPolicy", "as_float"]

Random: TypeAlias = Callable[[], float]
"""A source of numbers in [0, 1), such as `random.random`."""


def as_float(value: float) -> float:
    """Return ``value`` as a float; an integer that no float can hold would otherwise fail in the middle of a wait.

    Raises:
        ValueError: it is too large.
        TypeError: it is no number.
    """
    try:
        return value + 0.0
    except OverflowError:
        raise ValueError("a number that a float can hold is needed") from None


@frozen(kw_only=True)
class Backoff:
    """Jittered exponential back-off.

    Raises:
        ValueError: a field is out of its range.
        TypeError: a field is no number.
    """

    first: float = field(default=0.05, converter=as_float, validator=validators.ge(0.0))
    """Seconds before the first retry, 0 or more."""
    factor: float = field(default=2.0, converter=as_float, validator=validators.ge(1.0))
    """What each further delay is multiplied with, 1 or more."""
    limit: float = field(default=30.0, converter=as_float, validator=validators.ge(0.0))
    """Seconds that no delay exceeds."""
    jitter: float = field(default=0.5, converter=as_float, validator=[validators.ge(0.0), validators.le(1.0)])
    """The share of a delay that is left to chance, 0 to 1."""

    def delay(self, attempt: int, random: Random) -> float:
        """Return the seconds to wait after failure number ``attempt`` (from 1 up)."""
        try:
            full = min(self.limit, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            full = self.limit
        return full * (1.0 - self.jitter * random())


@frozen(kw_only=True)
class RespawnPolicy:
    """When a failed PERSISTENT_HOST drain is started again (SPEC 5).

    Above ``max_restarts`` failures ``within`` seconds it is given up, and the next attach starts it.
    """

    max_restarts: int = field(default=3, validator=[validators.instance_of(int), validators.ge(0)])
    """Restarts allowed in any period of ``within`` seconds; 0 restarts nothing."""
    within: float = field(default=5.0, converter=as_float, validator=validators.gt(0.0))
    """That period in seconds."""
    backoff: Backoff = field(default=Backoff(), validator=validators.instance_of(Backoff))
    """The wait before each restart."""

    @classmethod
    def manual(cls) -> RespawnPolicy:
        """Never respawn by policy: a failed drain waits for the next attach."""
        return cls(max_restarts=0)
