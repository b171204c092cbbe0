"""Who appears in the tests of the authority, and the states they start from.

Nothing here reads the table: states are made by applying inputs.
"""

from __future__ import annotations

from typing import Final

from meerkat_trio.authority import (
    AttachExecutor,
    AttachMobIngress,
    AttachSessionIngress,
    BeginRun,
    Bound,
    CommsDrainMode,
    Destroy,
    Input,
    PeerEndpoint,
    PeerId,
    Register,
    Retire,
    SessionPhase,
    SessionState,
    SpawnDrain,
    Stop,
    apply,
)

PERSISTENT: Final = CommsDrainMode.PERSISTENT_HOST
TIMED: Final = CommsDrainMode.TIMED
MODE: Final = PERSISTENT
IDLE_TIMEOUT: Final = 300.0


def endpoint(number: int, name: str = "peer", port: int = 4000) -> PeerEndpoint:
    key = bytes([number]) * 32
    return PeerEndpoint(name=name, peer_id=PeerId.of_key(key), address=f"tcp://host:{port}", signing_key=key)


def bound(number: int, epoch: int) -> Bound:
    key = bytes([number]) * 32
    return Bound(name="supervisor", peer_id=PeerId.of_key(key), address="inproc://boss", signing_key=key, epoch=epoch)


ALICE: Final = endpoint(1, "alice")
ALICE_MOVED: Final = endpoint(1, "alice", 4001)
BOB: Final = endpoint(2, "bob")
EVE: Final = endpoint(3, "eve")
ANN, BEN, CAL = 11, 12, 13
"""Numbers of three supervisors, for `bound` and `supervisor_id`."""
MOB_PEER: Final = endpoint(21, "mob").peer_id


def supervisor_id(number: int) -> PeerId:
    return PeerId.of_key(bytes([number]) * 32)


def after(*inputs: Input, state: SessionState | None = None) -> SessionState:
    """The state that the inputs lead to, from that of a session not yet registered."""
    state = SessionState.initial("s") if state is None else state
    for input_ in inputs:
        state = apply(state, input_).after
    return state


REGISTER: Final = Register("s")
OWN: Final = AttachSessionIngress("comms", MODE, IDLE_TIMEOUT)
OWN_BY_MOB: Final = AttachMobIngress(
    comms_runtime_id="comms", mob_id="mob", mob_peer_id=MOB_PEER, mode=MODE, idle_timeout=IDLE_TIMEOUT
)
SPAWN: Final = SpawnDrain(MODE, IDLE_TIMEOUT)
SPAWN_TIMED: Final = SpawnDrain(TIMED, IDLE_TIMEOUT)

INITIAL: Final = SessionState.initial("s")
IDLE: Final = after(REGISTER)
ATTACHED: Final = after(REGISTER, AttachExecutor())
RUNNING: Final = after(REGISTER, AttachExecutor(), BeginRun("run", "message"))
RETIRED: Final = after(REGISTER, Retire())
STOPPED: Final = after(REGISTER, Stop())
DESTROYED: Final = after(REGISTER, Destroy())

IN_PHASE: Final = {
    SessionPhase.INITIALIZING: INITIAL,
    SessionPhase.IDLE: IDLE,
    SessionPhase.ATTACHED: ATTACHED,
    SessionPhase.RUNNING: RUNNING,
    SessionPhase.RETIRED: RETIRED,
    SessionPhase.STOPPED: STOPPED,
    SessionPhase.DESTROYED: DESTROYED,
}
