"""The bounds of a socket network: each has a name, a default and a place in the docs."""

from __future__ import annotations

from attrs import field, frozen, validators

__all__ = ["SocketLimits"]

_COUNT = [validators.instance_of(int), validators.ge(1)]
_SECONDS = [validators.instance_of((int, float)), validators.gt(0.0)]


@frozen(kw_only=True)
class SocketLimits:
    """What a `SocketNetwork` allows; times are in seconds, sizes in bytes (SPEC 9).

    Raises:
        ValueError, TypeError: a bound is out of range.
    """

    connect_timeout: float = field(default=10.0, validator=_SECONDS)
    """For establishing a connection, before anything is said."""
    first_frame_timeout: float = field(default=5.0, validator=_SECONDS)
    """For the other side's first frame."""
    handshake_timeout: float = field(default=10.0, validator=_SECONDS)
    """For the whole handshake."""
    write_timeout: float = field(default=30.0, validator=_SECONDS)
    """For what is written at once: after it the other side is taken not to read."""
    receipt_timeout: float = field(default=30.0, validator=_SECONDS)
    """For a sign of life from a side that owes answers: after it the connection is taken to be dead."""
    idle_timeout: float = field(default=300.0, validator=_SECONDS)
    """After so long without a word, and nothing owed, a connection is closed."""
    linger: float = field(default=5.0, validator=_SECONDS)
    """For the other side's goodbye, once ours is said."""
    first_backoff: float = field(default=0.05, validator=_SECONDS)
    """Before the second attempt to connect; then twice as long each time, with a random part."""
    max_backoff: float = field(default=5.0, validator=_SECONDS)
    """The longest time between two attempts."""
    max_connections: int = field(default=1024, validator=_COUNT)
    """Connections whose other side is trusted; one more is turned away."""
    max_per_peer: int = field(default=4, validator=_COUNT)
    """Connections of one peer; one more replaces the oldest."""
    max_strangers: int = field(default=64, validator=_COUNT)
    """Connections whose other side is not trusted; one more replaces the oldest of the host that has most."""
    max_unproven: int = field(default=128, validator=_COUNT)
    """Connections whose handshake has not ended; one more replaces the oldest of the host that has most."""
    unanswered: int = field(default=256, validator=_COUNT)
    """Envelopes that one side sends to one peer in one lane before it waits for answers."""
    held_envelopes: int = field(default=1024, validator=_COUNT)
    """Envelopes of one peer that wait for room in the inbox before no more are read."""
    held_bytes: int = field(default=4 * 1024 * 1024, validator=_COUNT)
    """The same in bytes, as they came."""
    remembered: int = field(default=1_000_000, validator=_COUNT)
    """Answers kept for twins, for the acceptance window; above it the oldest of the peer that has most goes."""
    stranger_frame: int = field(default=8 * 1024, validator=[validators.instance_of(int), validators.ge(512)])
    """The longest frame of a peer that is not trusted."""
    crowd_pause: float = field(default=0.004, validator=_SECONDS)
    """Between two connections that are taken in while four have not ended their handshake."""
    stranger_pause: float = field(default=0.02, validator=_SECONDS)
    """Between two readings of a connection whose other side is not trusted."""
