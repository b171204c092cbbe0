"""The laws of the reconciler: whatever happens on the way, the store comes to show what is desired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from meerkat_trio import MemoryNetwork, PeerEndpoint, TrustSource
from meerkat_trio._reconcile import CALL_LIMIT, OWN_SOURCES, UNSURE, Desired, Failure, Pass, Reconciler, Shown

from .authority.cast import endpoint
from .trust_rig import DIRECT, MANUAL, OVERLAY, SUPERVISOR, Edge, Store

FOREIGN = {(endpoint(1).peer_id, MANUAL): endpoint(1, "by hand"), (endpoint(9).peer_id, MANUAL): endpoint(9, "by hand")}


class Watched(Store):
    """A store that knows whom it is for, and tells when an older set gets into it."""

    def __init__(self, network: MemoryNetwork, host: Host) -> None:
        super().__init__(network, "a")
        self.host = host
        self.reported = 0
        self.failing = 0
        self.failing_late = 0
        for (_, source), foreign in FOREIGN.items():
            self._trust.add(foreign, source)

    async def _come_to(self, peer_id: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.failing:
            self.failing -= 1
            raise OSError("the store failed")
        if peer_id in self.refused:
            raise self.refused[peer_id]

    async def _answer(self) -> None:
        if self.failing_late:
            # It is done, and nobody is told.
            await trio.lowlevel.checkpoint()
            self.failing_late -= 1
            raise OSError("the answer was lost")

    async def add_trusted_peer(self, endpoint: PeerEndpoint, source: TrustSource) -> None:
        await super().add_trusted_peer(endpoint, source)
        versions = self.host.versions[self.reported :]
        assert any(version.get((endpoint.peer_id, source)) == endpoint for version in versions), "an older set"
        await self._answer()

    async def remove_trusted_peer(self, peer_id: Any, source: TrustSource) -> bool:
        assert (peer_id, source) not in self.host.versions[-1], "a desired peer was removed"
        was_there = await super().remove_trusted_peer(peer_id, source)
        assert any((peer_id, source) not in version for version in self.host.versions[self.reported :]), "an older set"
        await self._answer()
        return was_there


class Host:
    """Whom the reconciler works for in these tests."""

    is_recorded = False

    async def until_durable(self) -> None:
        pass

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.versions: list[dict[Edge, PeerEndpoint]] = [{}]
        """Every desired set there was; the place is its epoch."""
        self.comms = Watched(self.network, self)
        self.ended: list[Pass] = []
        self.failures: list[Failure] = []

    def store(self) -> Watched:
        return self.comms

    def desired(self) -> Desired:
        return Desired(len(self.versions) - 1, self.versions[-1])

    def shown(self, edges: Mapping[Edge, Shown]) -> None:
        stored = {edge: e for edge, e in self.comms._trust.snapshot().items() if edge[1] in OWN_SOURCES}
        sure = {edge: e for edge, e in edges.items() if e is not UNSURE}
        assert sure == {edge: e for edge, e in stored.items() if edges.get(edge) is not UNSURE}

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)

    def pass_ended(self, ended: Pass) -> None:
        assert ended.store is self.comms
        self.ended.append(ended)
        if not ended.failures:
            assert ended.epoch == len(self.versions) - 1
            self.comms.reported = ended.epoch
            assert self.comms._trust.snapshot() == {**FOREIGN, **self.versions[ended.epoch]}


_EDGES = st.dictionaries(
    st.sampled_from(
        [(endpoint(number).peer_id, source) for number in (1, 2, 3) for source in (DIRECT, OVERLAY, SUPERVISOR)]
    ),
    st.sampled_from(["ann", "ben"]),
    max_size=5,
)
_BY_ID = {endpoint(number).peer_id: number for number in (1, 2, 3)}
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), _EDGES),
        st.tuples(st.just("want"), _EDGES),
        st.tuples(st.just("fail"), st.integers(1, 4)),
        st.tuples(st.just("fail late"), st.integers(1, 2)),
        st.tuples(st.just("rebind"), _EDGES),
        st.tuples(st.just("cancel"), st.none()),
        st.tuples(st.just("seconds"), st.sampled_from([0.01, 0.1, 3.0])),
    ),
    max_size=12,
)
_STEPS = st.lists(st.integers(0, 6), min_size=12, max_size=12)
"""How far the reconciler gets after each event."""


def endpoints(names: dict[Edge, str]) -> dict[Edge, PeerEndpoint]:
    return {edge: endpoint(_BY_ID[edge[0]], name) for edge, name in names.items()}


async def play(events: list[tuple[str, Any]], pauses: list[int]) -> None:
    host = Host()
    reconciler = Reconciler(host, lambda: 0.5)
    scope = trio.CancelScope()
    running = False

    async def work() -> None:
        nonlocal running, scope
        with trio.CancelScope() as scope:
            await reconciler.run()
        running = False

    async with trio.open_nursery() as nursery:

        def request() -> None:
            nonlocal running
            reconciler.request()
            if not running:
                running = True
                nursery.start_soon(work)

        for (event, what), pause in zip(events, pauses, strict=False):
            match event:
                case "want":
                    host.versions.append(endpoints(what))
                    request()
                case "fail":
                    host.comms.failing += what
                case "fail late":
                    host.comms.failing_late += what
                case "rebind":
                    host.comms = Watched(host.network, host)
                    # What an earlier life of the session has left there.
                    for (_, source), left in endpoints(what).items():
                        host.comms._trust.add(left, source)
                    request()
                case "cancel":
                    scope.cancel()
                case "seconds":
                    await trio.sleep(what)
            for _ in range(pause):
                await trio.lowlevel.checkpoint()
        while running:
            # Also a run that is being cancelled: the next one does what it has left.
            await trio.sleep(1)
        request()
    assert host.comms._trust.snapshot() == {**FOREIGN, **host.versions[-1]}
    assert not reconciler.has_work
    if host.ended:
        assert not host.ended[-1].failures


@settings(max_examples=400)
@given(events=_EVENTS, pauses=_STEPS, seed=st.integers(0, 2**16))
def test_the_store_ends_as_desired_whatever_happens_on_the_way(
    events: list[tuple[str, Any]], pauses: list[int], seed: int
) -> None:
    # Under Hypothesis every example has the same schedule; here it is drawn too.
    trio._core._run._r.seed(seed)
    trio.run(play, events, pauses, clock=trio.testing.MockClock(autojump_threshold=0))


def reconcile(host: Host, *versions: dict[Edge, PeerEndpoint]) -> Reconciler:
    host.versions.extend(versions)
    reconciler = Reconciler(host, lambda: 0.0)
    reconciler.request()
    return reconciler


async def test_additions_come_before_removals(autojump_clock: object) -> None:
    host = Host()
    await reconcile(host, endpoints({(endpoint(1).peer_id, DIRECT): "ann"})).run()
    await reconcile(host, endpoints({(endpoint(2).peer_id, DIRECT): "ben"})).run()
    assert [verb for verb, *_ in host.comms.changes] == ["add", "add", "remove"]


async def test_a_burst_of_requests_is_one_pass(autojump_clock: object) -> None:
    host = Host()
    reconciler = reconcile(host, endpoints({(endpoint(1).peer_id, DIRECT): "ann"}))
    for _ in range(10):
        reconciler.request()
    await reconciler.run()
    assert (len(host.ended), len(host.comms.changes)) == (1, 1)


async def test_what_is_there_already_is_not_stored_again(autojump_clock: object) -> None:
    host = Host()
    for _ in range(2):
        await reconcile(host, endpoints({(endpoint(1).peer_id, DIRECT): "ann"})).run()
    assert len(host.comms.changes) == 1


async def test_a_failing_edge_waits_longer_each_time_and_is_not_hurried_by_requests(autojump_clock: object) -> None:
    host = Host()
    host.comms.refused[endpoint(1).peer_id] = OSError("the store failed")
    start = trio.current_time()
    reconciler = reconcile(host, endpoints({(endpoint(1).peer_id, DIRECT): "ann"}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reconciler.run)
        await trio.sleep(0.06)
        for _ in range(20):
            reconciler.request()
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.14)
        host.comms.refused.clear()
    assert [failure.attempts for failure in host.failures] == [1, 2, 3]
    assert round(trio.current_time() - start, 3) == 0.35


class Eventful(Watched):
    """A store during whose calls something happens."""

    events: list[Any]

    async def _come_to(self, peer_id: Any) -> None:
        await super()._come_to(peer_id)
        if peer_id is not None and self.events:
            self.events.pop(0)()


def eventful(host: Host) -> Eventful:
    host.comms = Eventful(host.network, host)
    return host.comms


async def test_an_edge_that_is_wanted_again_within_one_pass_is_stored_again(autojump_clock: object) -> None:
    host = Host()
    store, ann = eventful(host), endpoints({(endpoint(1).peer_id, DIRECT): "ann"})
    reconciler = reconcile(host, ann)

    def want(version: dict[Edge, PeerEndpoint]) -> None:
        host.versions.append(version)
        reconciler.request()

    store.events = [lambda: want({}), lambda: want(ann)]
    await reconciler.run()
    assert [verb for verb, *_ in store.changes] == ["add", "remove", "add"]
    assert store._trust.snapshot() == {**FOREIGN, **ann}


async def test_an_edge_that_was_stored_after_all_is_removed_when_nobody_wants_it(autojump_clock: object) -> None:
    host = Host()
    store = eventful(host)
    reconciler = reconcile(host, endpoints({(endpoint(1).peer_id, DIRECT): "ann"}))

    def lose_interest() -> None:
        host.versions.append({})
        reconciler.request()

    store.events, store.failing_late = [lose_interest], 1
    await reconciler.run()
    assert [failure.attempts for failure in host.failures] == [1]
    assert store._trust.snapshot() == FOREIGN


async def test_a_call_that_never_returns_counts_as_failed(autojump_clock: object) -> None:
    host = Host()

    async def hang(*_: object) -> None:
        await trio.sleep_forever()

    hanging: Any = host.comms
    hanging.add_trusted_peer = hang
    reconciler = reconcile(host, endpoints({(endpoint(1).peer_id, DIRECT): "ann"}))
    start = trio.current_time()
    await reconciler.run_pass()
    assert trio.current_time() - start == CALL_LIMIT
    assert isinstance(host.failures[0].cause, trio.TooSlowError)
    assert len(host.ended) == 1
