"""How often somebody may do something: token buckets, one for each source and one for all of them.

It knows no clock: whoever asks says what time it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["RateLimit"]


@final
class _Bucket:
    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = float(burst)
        self._then = now

    def fill(self, now: float) -> float:
        """Return how many tokens there are now."""
        if now > self._then:
            self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
            self._then = now
        return self._tokens

    def is_full(self, now: float) -> bool:
        return self.fill(now) >= self._burst

    def take(self) -> None:
        self._tokens -= 1.0


@final
class RateLimit:
    """Admits so many at once, and so many per second after that, from each source and from all together."""

    __slots__ = ("_all", "_burst", "_rate", "_sources")

    def __init__(self, *, burst: int, rate: float, burst_of_all: int, rate_of_all: float, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._all = _Bucket(burst_of_all, rate_of_all, now)
        self._sources: dict[Hashable, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def admits(self, source: Hashable, now: float) -> bool:
        """Say whether one more may come from ``source``, and count it if so."""
        bucket = self._sources.get(source)
        if (bucket is not None and bucket.fill(now) < 1.0) or self._all.fill(now) < 1.0:
            return False
        if bucket is None:
            # A source with a full bucket is a new one; the bucket of all bounds how many others there are.
            self._sources = {known: each for known, each in self._sources.items() if not each.is_full(now)}
            bucket = self._sources[source] = _Bucket(self._burst, self._rate, now)
        bucket.take()
        self._all.take()
        return True
