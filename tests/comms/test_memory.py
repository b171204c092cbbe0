"""`MemoryComms` and its network: identity, routes, stand-by, refusals. Queueing is tested with the inbox."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from meerkat_trio._messages import ReceiptStatus, TrustSource
from meerkat_trio.authority import DropReason, EnvelopeKind, PeerId, ResponseStatus
from meerkat_trio.comms import MemoryComms, MemoryNetwork


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


def bodies(comms: MemoryComms) -> list[object]:
    found: list[object] = []
    while True:
        try:
            claim = comms.claim_nowait()
        except trio.WouldBlock:
            return found
        found.append(claim.envelope.body)
        claim.commit()


def test_d9_a_rebuilt_instance_is_the_same_peer_and_a_stranger_is_not(network: MemoryNetwork) -> None:
    first, rebuilt, stranger = (MemoryComms(network, name) for name in ("bob", "bob", "eve"))
    assert (first.runtime_id, first.peer_id) == (rebuilt.runtime_id, rebuilt.peer_id)
    assert first.peer_id != stranger.peer_id
    assert first.peer_id == PeerId.of_key(first.public_key)


def test_an_endpoint_is_what_others_trust(network: MemoryNetwork) -> None:
    bob = MemoryComms(network, "bob", public_key=b"k" * 32)
    endpoint = bob.endpoint()
    assert (endpoint.name, endpoint.peer_id, endpoint.signing_key) == ("bob", bob.peer_id, b"k" * 32)
    assert endpoint.address == bob.advertised_address == "inproc://bob"
    assert bob.endpoint("Bob").name == "Bob"


@pytest.mark.parametrize("runtime_id", [None, 5, "", " ", "x" * 300, "a\nb"])
def test_what_cannot_name_a_peer_is_no_runtime_id(network: MemoryNetwork, runtime_id: Any) -> None:
    with pytest.raises(ValueError, match=r"runtime_id: .* cannot name a peer"):
        MemoryComms(network, runtime_id)
    assert network.routes == {}


def test_a_network_is_needed() -> None:
    with pytest.raises(TypeError, match="network: a MemoryNetwork is needed, not None"):
        MemoryComms(None, "bob")  # type: ignore[arg-type]


def test_of_a_closed_instance_elsewhere_there_is_nothing_to_take_over(network: MemoryNetwork) -> None:
    elsewhere = MemoryComms(MemoryNetwork(), "bob")
    elsewhere.inbox.close()
    MemoryComms(network, "bob").take_over(elsewhere)


def test_a_key_of_zero_bytes_is_refused_and_joins_nothing(network: MemoryNetwork) -> None:
    with pytest.raises(ValueError, match="signing_key"):
        MemoryComms(network, "bob", public_key=bytes(32))
    assert network.routes == {}


def test_an_envelope_carries_what_was_asked_for(network: MemoryNetwork) -> None:
    alice, bob = MemoryComms(network, "alice"), MemoryComms(network, "bob")
    envelope = alice.envelope(
        bob.peer_id, {"x": 1}, id="mine", kind=EnvelopeKind.REQUEST, intent="ask", correlation="c"
    )
    assert (envelope.sender, envelope.recipient, envelope.id) == (alice.peer_id, bob.peer_id, "mine")
    assert (envelope.kind, envelope.intent, envelope.body) == (EnvelopeKind.REQUEST, "ask", {"x": 1})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"id": ""}, "id: a text that is not empty is needed, not ''"),
        ({"id": b"m"}, "id: a text that is not empty is needed, not b'm'"),
        ({"id": ("a", 1)}, "id: a text"),
        ({"recipient": "bob"}, "peer_id: not a UUID: 'bob'"),
        ({"intent": "ask"}, "intent: a message has no intent"),
        ({"kind": EnvelopeKind.REQUEST, "correlation": "c"}, "intent: a request has an intent"),
        ({"kind": EnvelopeKind.REQUEST, "intent": "ask"}, "correlation: does not fit a request"),
        ({"correlation": "c"}, "correlation: does not fit a message"),
        ({"kind": EnvelopeKind.RESPONSE, "correlation": "c"}, "status: does not fit a response"),
        ({"status": ResponseStatus.COMPLETED}, "status: does not fit a message"),
        ({"kind": "message"}, "kind: EnvelopeKind is needed, not 'message'"),
        ({"intent": ["a"]}, "intent: str is needed, not ['a']"),
        ({"correlation": ["c"]}, "correlation: str is needed"),
        ({"status": "completed"}, "status: ResponseStatus is needed"),
    ],
)
def test_fields_that_do_not_fit_make_no_envelope(network: MemoryNetwork, fields: dict[str, Any], error: str) -> None:
    alice, bob = MemoryComms(network, "alice"), MemoryComms(network, "bob")
    with pytest.raises(ValueError, match=re.escape(error)):
        alice.envelope(**{"recipient": bob.peer_id, **fields})


async def test_the_ids_of_a_rebuilt_sender_are_no_duplicates(network: MemoryNetwork) -> None:
    bob = MemoryComms(network, "bob")
    for number in range(3):
        alice = MemoryComms(network, "alice")
        receipt = await alice.send(alice.envelope(bob.peer_id, number))
        assert receipt.status is ReceiptStatus.QUEUED
    assert bodies(bob) == [0, 1, 2]


async def test_a_stand_by_gets_nothing_until_it_takes_over(network: MemoryNetwork) -> None:
    alice, old, new = (MemoryComms(network, name) for name in ("alice", "bob", "bob"))
    await alice.send(alice.envelope(old.peer_id, 1))
    assert new.statistics().work_waiting == 0
    new.take_over(old)
    await alice.send(alice.envelope(old.peer_id, 2))
    assert bodies(new) == [1, 2]


async def test_the_oldest_stand_by_becomes_the_route_when_the_route_closes(network: MemoryNetwork) -> None:
    alice, first, second, third = (MemoryComms(network, name) for name in ("alice", "bob", "bob", "bob"))
    await first.aclose()
    await alice.send(alice.envelope(first.peer_id, 1))
    assert bodies(second) == [1]
    assert bodies(third) == []


async def test_closing_a_stand_by_leaves_the_route_alone(network: MemoryNetwork) -> None:
    alice, old, new = (MemoryComms(network, name) for name in ("alice", "bob", "bob"))
    await new.aclose()
    await new.aclose()
    await alice.send(alice.envelope(old.peer_id, 1))
    assert bodies(old) == [1]


async def test_the_route_stays_with_who_takes_a_stand_by_over(network: MemoryNetwork) -> None:
    alice, route, spare, standby = (MemoryComms(network, name) for name in ("alice", "bob", "bob", "bob"))
    route.take_over(standby)
    await alice.send(alice.envelope(route.peer_id, 1))
    assert (bodies(route), bodies(spare)) == ([1], [])


async def test_after_a_take_over_by_another_peer_the_old_peer_id_is_closed(network: MemoryNetwork) -> None:
    alice, old, new = (MemoryComms(network, name) for name in ("alice", "bob", "mob"))
    receipt = await alice.send(alice.envelope(old.peer_id, 1))
    new.take_over(old)
    late = await alice.send(alice.envelope(old.peer_id, 2))
    assert late.reason is DropReason.CLOSED
    assert old.peer_id not in network.routes
    assert bodies(new) == [1]
    assert receipt.status is ReceiptStatus.ADMITTED


async def test_after_a_take_over_by_another_peer_a_stand_by_of_the_old_one_is_its_route(
    network: MemoryNetwork,
) -> None:
    alice, old, spare, new = (MemoryComms(network, name) for name in ("alice", "bob", "bob", "mob"))
    new.take_over(old)
    await alice.send(alice.envelope(old.peer_id, 1))
    assert (bodies(spare), bodies(new)) == ([1], [])


async def test_an_unknown_recipient_is_closed(network: MemoryNetwork) -> None:
    alice = MemoryComms(network, "alice")
    nobody = PeerId.of_key(b"n" * 32)
    assert (await alice.send(alice.envelope(nobody))).reason is DropReason.CLOSED
    assert alice.send_nowait(alice.envelope(nobody)).reason is DropReason.CLOSED


async def test_taking_over_from_another_network_is_refused_and_changes_nothing(
    network: MemoryNetwork,
) -> None:
    elsewhere = MemoryNetwork()
    alice, old = MemoryComms(elsewhere, "alice"), MemoryComms(elsewhere, "bob")
    new = MemoryComms(network, "bob")
    await alice.send(alice.envelope(old.peer_id, 1))
    with pytest.raises(ValueError, match="another MemoryNetwork"):
        new.take_over(old)
    assert (bodies(old), bodies(new)) == ([1], [])


async def test_taking_itself_or_a_closed_one_over_changes_nothing(network: MemoryNetwork) -> None:
    alice, bob, gone = (MemoryComms(network, name) for name in ("alice", "bob", "gone"))
    await gone.aclose()
    bob.take_over(bob)
    bob.take_over(gone)
    await alice.send(alice.envelope(bob.peer_id, 1))
    assert bodies(bob) == [1]


async def test_a_runtime_that_was_taken_over_does_not_speak_for_its_peer_any_more(
    network: MemoryNetwork,
) -> None:
    alice, old, new = (MemoryComms(network, name) for name in ("alice", "bob", "bob"))
    new.take_over(old)
    with pytest.raises(trio.ClosedResourceError):
        await old.send(old.envelope(alice.peer_id, 1))
    with pytest.raises(trio.ClosedResourceError):
        old.send_nowait(old.envelope(alice.peer_id, 1))
    await new.send(new.envelope(alice.peer_id, 2))
    assert bodies(alice) == [2]


async def test_trust_stays_with_its_store_whatever_moves(network: MemoryNetwork) -> None:
    alice, old, new = (MemoryComms(network, name) for name in ("alice", "bob", "bob"))
    await old.add_trusted_peer(alice.endpoint(), TrustSource.MANUAL)
    new.take_over(old)
    assert await new.trusted_peers() == {}
    assert not new.is_manually_trusted(alice.peer_id)


async def test_a_cancelled_change_of_trust_changes_nothing(network: MemoryNetwork) -> None:
    alice, bob = MemoryComms(network, "alice"), MemoryComms(network, "bob")
    await bob.add_trusted_peer(alice.endpoint(), TrustSource.MANUAL)
    with trio.CancelScope() as scope:
        scope.cancel()
        await bob.add_trusted_peer(alice.endpoint("renamed"), TrustSource.MANUAL)
    with trio.CancelScope() as scope:
        scope.cancel()
        await bob.remove_trusted_peer(alice.peer_id, TrustSource.MANUAL)
    assert await bob.trusted_peers() == {(alice.peer_id, TrustSource.MANUAL): alice.endpoint()}


async def test_texts_say_who_and_whether_it_is_closed(network: MemoryNetwork) -> None:
    bob = MemoryComms(network, "bob")
    assert (repr(network), repr(bob)) == ("<MemoryNetwork of 1 peers>", "<MemoryComms 'bob'>")
    await bob.aclose()
    assert repr(bob) == "<MemoryComms 'bob' closed>"
