"""What a host says of itself: a JSON snapshot a line, once a second, to whoever connects to its status address."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import trio

from ..authority import MobOwned, SessionOwned
from ..comms import SocketComms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._machine import MeerkatMachine
    from .._session import Session
    from ..comms import RedisComms
    from ..comms._addresses import Listening

__all__ = ["Snapshot", "serve_status", "snapshot_of"]

Snapshot = dict[str, Any]

_EVERY: Final = 1.0
_WRITE_TIMEOUT: Final = 5.0
_WATCHERS: Final = 16


def snapshot_of(machine: MeerkatMachine, transports: Mapping[str, SocketComms | RedisComms]) -> Snapshot:
    """Say how everything stands; ``transports`` are by session."""
    total = machine.statistics()
    return {
        "time": trio.current_time(),
        "sessions": [_session(session, transports[session.id]) for session in machine if session.id in transports],
        "total": {
            "sessions": total.sessions,
            "live_drains": total.live_drains,
            "queued": total.queued,
            "handled": total.handled,
            "abandoned": total.abandoned,
            "dropped": _by_value(total.dropped),
        },
    }


def _session(session: Session, comms: SocketComms | RedisComms) -> Snapshot:
    counts, waiting, drain = session.statistics(), comms.statistics(), session.drain
    return {
        "name": session.id,
        "peer_id": comms.peer_id,
        "addresses": sorted(comms.listens_at) if isinstance(comms, SocketComms) else [],
        "phase": session.phase.value,
        "owner": _owner(session),
        "supervisor": _text(getattr(session.supervisor, "peer_id", None)),
        "drain": {"phase": drain.phase.value, "generation": drain.generation, "rebinds": counts.rebinds},
        "queued": counts.queued,
        "waiting": {"control": waiting.control_waiting, "work": waiting.work_waiting},
        "admitted": counts.admitted,
        "handled": counts.handled,
        "retried": counts.retried,
        "abandoned": counts.abandoned,
        "dropped": _by_value(counts.dropped),
    }


def _owner(session: Session) -> str:
    owner = session.ingress_owner
    if isinstance(owner, MobOwned):
        return f"mob {owner.mob_id}"
    return "session" if isinstance(owner, SessionOwned) else "nobody"


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _by_value(counts: Any) -> dict[str, int]:
    return {reason.value if isinstance(reason, Enum) else str(reason): count for reason, count in counts.items()}


async def serve_status(listening: Listening, snapshot: Callable[[], Snapshot]) -> None:
    """Write a snapshot a second to everybody who connects, up to 16 of them; who does not read is dropped.

    **Cancellation:** this is how it ends.
    """
    watchers = 0

    async def watch(stream: trio.SocketStream) -> None:
        nonlocal watchers
        if watchers >= _WATCHERS:
            return
        watchers += 1
        try:
            while True:
                with trio.fail_after(_WRITE_TIMEOUT):
                    await stream.send_all(json.dumps(snapshot()).encode() + b"\n")
                await trio.sleep(_EVERY)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        finally:
            watchers -= 1

    try:
        await trio.serve_listeners(watch, [listening.listener])
    finally:
        listening.close()
