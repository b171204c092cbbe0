"""What the tests of the bridge share: a member, two supervisors with sessions of their own, a stranger by hand."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import pytest
import trio

from meerkat_trio import (
    AuthorizeNextSupervisor,
    BindMember,
    Bound,
    BridgeCommand,
    CommandRejected,
    EnvelopeKind,
    MeerkatMachine,
    MemoryComms,
    MemoryNetwork,
    PeerEndpoint,
    PeerId,
    Receipt,
    RejectionCause,
    Session,
    SessionRun,
    TrustSource,
    open_machine,
)
from meerkat_trio.authority import BRIDGE_INTENT

from ..authority.cast import endpoint
from ..pair import responses
from ..trust_rig import Store

__all__ = [
    "EVE",
    "Commands",
    "Handler",
    "Silent",
    "commanding",
    "raw",
    "rejection",
    "reply_of",
]

Handler = Callable[[SessionRun], Awaitable[None]]
Cause = RejectionCause
EVE: Final = endpoint(3, "eve")
"""A peer that nobody serves, to be wired."""


@attrs.define(eq=False)
class Commands:
    """Session "member", and sessions "ann" and "ben" of another machine, which know it by hand; it knows nobody."""

    network: MemoryNetwork
    machine: MeerkatMachine
    member: Session
    ann: Session
    ben: Session
    comms: Store
    ann_comms: MemoryComms
    ben_comms: MemoryComms

    @property
    def id(self) -> PeerId:
        """Who the member is."""
        return self.comms.peer_id

    def bind(self, token: str, epoch: int = 1, by: MemoryComms | None = None, **fields: Any) -> BindMember:
        said: dict[str, Any] = {
            "supervisor": (by or self.ann_comms).endpoint(),
            "epoch": epoch,
            "expected_peer_id": self.id,
            "expected_address": self.comms.advertised_address,
            "bootstrap_token": token,
        }
        return BindMember(**{**said, **fields})

    async def bound(self, epoch: int = 1) -> BindMember:
        """Let ann become the member's supervisor; return how."""
        bind = self.bind(self.member.issue_bootstrap_token(), epoch)
        await self.ann.command(self.id, bind)
        return bind

    def rotate(self, epoch: int = 2, to: MemoryComms | None = None) -> AuthorizeNextSupervisor:
        return AuthorizeNextSupervisor(next=(to or self.ben_comms).endpoint(), epoch=epoch)

    async def know(self) -> None:
        """Let the member trust both by hand, so that they are no strangers."""
        for transport in (self.ann_comms, self.ben_comms):
            await self.comms.add_trusted_peer(transport.endpoint(), TrustSource.MANUAL)

    @property
    def supervisor(self) -> tuple[PeerId, int] | None:
        """Who is in force, and since which epoch."""
        binding = self.member.supervisor
        return (binding.peer_id, binding.epoch) if isinstance(binding, Bound) else None

    @property
    def supervisor_edges(self) -> set[PeerId]:
        """Whom the trust store shows as supervisors."""
        comms = self.member._tasks.bound_comms or self.comms
        assert isinstance(comms, MemoryComms)
        return {peer_id for peer_id, source in comms._trust.snapshot() if source is TrustSource.SUPERVISOR}

    async def rebuilt(self, kind: type[Store] = Store) -> Store:
        """Build the member's transport anew."""
        return kind(self.network, "member")


@asynccontextmanager
async def commanding(handler: Handler | None = None, **options: Any) -> AsyncIterator[Commands]:
    """Open the member and its supervisors. What waits for ever fails."""
    network = MemoryNetwork()
    comms = Store(network, "member")
    session_options = {
        name: options.pop(name) for name in ("work_queue", "max_attempts", "retry_backoff", "outbox") if name in options
    }
    with trio.fail_after(100_000):
        async with open_machine(random=lambda: 0.0) as theirs, open_machine(random=lambda: 0.0, **options) as machine:
            member = await machine.register("member", handler, **session_options)
            await member.attach_ingress(comms)
            ann_comms, ben_comms = MemoryComms(network, "ann"), MemoryComms(network, "ben")
            ann, ben = await theirs.register("ann"), await theirs.register("ben")
            for session, transport in ((ann, ann_comms), (ben, ben_comms)):
                await transport.add_trusted_peer(comms.endpoint(), TrustSource.MANUAL)
                await session.attach_ingress(transport)
            yield Commands(network, machine, member, ann, ben, comms, ann_comms, ben_comms)


@asynccontextmanager
async def rejection(cause: RejectionCause) -> AsyncIterator[pytest.ExceptionInfo[CommandRejected]]:
    """Expect a command to be rejected, for that cause."""
    with pytest.raises(CommandRejected) as rejected:
        yield rejected
    assert rejected.value.cause is cause


def raw(of: BridgeCommand, /, *without: str, **changed: Any) -> dict[str, Any]:
    """What a command says, with fields left out and others put in."""
    said = {**of.params(), **changed}
    return {name: value for name, value in said.items() if name not in without}


class Silent:
    """A supervisor or a stranger without a session: it sends, and reads what came back when it is asked."""

    def __init__(self, rig: Commands, name: str, **bounds: Any) -> None:
        self.comms = MemoryComms(rig.network, name, **bounds)
        self.member = rig.id
        self._numbers = itertools.count(1)

    def send(self, said: object, correlation: str | None = None) -> Receipt:
        """Send a command, or whatever else under its intent."""
        body = said.params() if isinstance(said, BridgeCommand) else said
        return self.comms.send_nowait(
            self.comms.envelope(
                self.member,
                body,
                kind=EnvelopeKind.REQUEST,
                intent=BRIDGE_INTENT,
                correlation=correlation or f"c{next(self._numbers)}",
            )
        )

    def heard(self) -> list[tuple[str, Any]]:
        """What was answered since, by correlation."""
        return [(str(each.correlation), each.body) for each in responses(self.comms)]


async def reply_of(session: Session, member: PeerId, said: object) -> Any:
    """Send whatever under the bridge's intent, and return what the rejection says."""
    with pytest.raises(Exception) as failed:
        await session.request(member, BRIDGE_INTENT, said)
    return getattr(failed.value, "body", failed.value)


def peer(said: PeerEndpoint) -> dict[str, Any]:
    """An endpoint as it is said on the way."""
    return {
        "name": said.name,
        "peer_id": str(said.peer_id),
        "address": str(said.address),
        "signing_key": said.signing_key.hex(),
    }
