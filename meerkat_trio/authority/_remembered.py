"""What is left of a session when its process has died: the part of a state that is worth keeping.

Drains, executors, runs and the owner of the ingress are not: they are tasks, and what tasks hold.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ._values import (
    Bound,
    CorrelationId,
    Counters,
    Ending,
    ObligationKind,
    PeerEndpoint,
    PeerId,
    SessionId,
    SupervisorBinding,
    Unbound,
)

__all__ = ["Remembered"]

_UNBOUND = Unbound()
_NO_COUNTERS = Counters()


@frozen(kw_only=True)
class Remembered:
    """What a session remembers over the end of its process."""

    session_id: SessionId
    """The session's id."""
    ending: Ending | None = None
    """How far it had been told to end; nothing of it runs any more, so it has ended as far."""
    retired: bool = False
    """Whether it takes no new work."""
    silent_intents: frozenset[str] = frozenset()
    """Intents whose requests are silent."""
    counters: Counters = _NO_COUNTERS
    """The numbers that never fall."""
    supervisor: SupervisorBinding = _UNBOUND
    """The supervisor in force."""
    previous: Bound | None = None
    """The last confirmed one while a rotation is unconfirmed."""
    last_revoked: tuple[PeerId, int] | None = None
    """The binding that was revoked last, by peer and epoch."""
    obligations: Mapping[tuple[ObligationKind, PeerId, int], int] = {}
    """What the trust store still has to be told, with the attempts so far."""
    token_hash: bytes | None = None
    """Hash of the bootstrap token."""
    local_endpoint: PeerEndpoint | None = None
    """Where the session is reached."""
    direct: tuple[PeerEndpoint, ...] = ()
    """Peers trusted directly."""
    overlay: tuple[PeerEndpoint, ...] = ()
    """Peers the mob contributes."""
    inbound: frozenset[tuple[PeerId, CorrelationId]] = frozenset()
    """Requests of others that are not answered yet. Own requests are not kept: nobody waits for them any more."""

    @property
    def is_bare(self) -> bool:
        """Whether nothing is remembered but how the session ended, and its counters."""
        return self == Remembered(session_id=self.session_id, ending=self.ending, counters=self.counters)
