"""What a Redis network is told and tells: its bounds, each with a name and a default, fences, statistics.

Needs no library of the extra.
"""

from __future__ import annotations

from attrs import field, frozen, validators

__all__ = ["Fence", "RedisLimits", "RedisStatistics"]

_COUNT = [validators.instance_of(int), validators.ge(1)]
_SECONDS = [validators.instance_of((int, float)), validators.gt(0.0)]


@frozen(kw_only=True)
class RedisLimits:
    """What a `RedisNetwork` allows; times are in seconds (SPEC 9).

    Raises:
        ValueError, TypeError: a bound is out of range.
    """

    connect_timeout: float = field(default=5.0, validator=_SECONDS)
    """For a connection to the server, its greeting included."""
    command_timeout: float = field(default=5.0, validator=_SECONDS)
    """For the server's answer to what was sent at once: after it the connection is taken to be dead."""
    first_backoff: float = field(default=0.05, validator=_SECONDS)
    """Before the second attempt to connect; then twice as long each time, with a random part."""
    max_backoff: float = field(default=5.0, validator=_SECONDS)
    """The longest time between two attempts."""
    block: float = field(default=0.25, validator=[*_SECONDS, validators.ge(0.02), validators.le(0.25)])
    """How long one reading waits for something to come."""
    read_entries: int = field(default=16, validator=_COUNT)
    """Entries of one stream that are read at once."""
    stream_limit: int = field(default=10_000, validator=_COUNT)
    """Entries in one lane's stream, of up to 64 envelopes each, before senders wait."""
    full_pause: float = field(default=0.1, validator=_SECONDS)
    """Between two looks whether a stream that was full, or a server without memory, has room."""
    unanswered: int = field(default=1024, validator=_COUNT)
    """Envelopes that one side sends to one peer in one lane before it waits for answers."""
    acceptance_window: float = field(default=3600.0, validator=_SECONDS)
    """For how long after its issue an envelope is admitted, and its answer waited for."""
    remembered: int = field(default=1_000_000, validator=_COUNT)
    """Answers kept for twins, for each identity, for the acceptance window."""
    known_peers: int = field(default=1024, validator=_COUNT)
    """Keys of peers who have sent something, for answers to those who are not trusted; the oldest is forgotten."""
    answers_limit: int = field(default=100_000, validator=_COUNT)
    """Entries in the stream in which a process gets its answers; the oldest is lost."""
    dead_letters: int = field(default=1000, validator=_COUNT)
    """Entries kept of those that were refused, for each identity; the oldest is lost."""
    gone_after: float = field(default=30.0, validator=_SECONDS)
    """After so long without a sign of life another process takes over what a process had read and not answered."""
    linger: float = field(default=5.0, validator=_SECONDS)
    """At the end, for what is to be written."""


@frozen
class Fence:
    """A lease that somebody else keeps in Redis: what this side may do ends when the key says another token.

    Raises:
        ValueError: the token is empty.
    """

    key: str
    """Where the lease is, as Redis has it."""
    token: str = field(validator=validators.min_len(1))
    """What it says as long as it is ours; not empty."""


@frozen(kw_only=True)
class RedisStatistics:
    """What a Redis network has to tell at one moment."""

    connected: bool
    """Whether both connections to the server stand, as far as is known."""
    parked_senders: int
    """Tasks that wait for room, or for the server to take what they send."""
    unanswered: int
    """Envelopes that were sent and have no answer."""
    dead_letters: int
    """Entries that were refused so far and put aside."""
    reconnects: int
    """Connections that were made after the first ones."""
