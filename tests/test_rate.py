"""How often somebody may do something."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio._rate import RateLimit

BURST, RATE, BURST_OF_ALL, RATE_OF_ALL = 3, 1.0, 8, 2.0


def limit(now: float = 0.0) -> RateLimit:
    return RateLimit(burst=BURST, rate=RATE, burst_of_all=BURST_OF_ALL, rate_of_all=RATE_OF_ALL, now=now)


def test_a_source_has_its_burst_at_once_and_then_its_rate() -> None:
    rate = limit()
    assert [rate.admits("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [rate.admits("a", 1.0) for _ in range(2)] == [True, False]
    assert [rate.admits("a", 2.5) for _ in range(2)] == [True, False]
    assert [rate.admits("a", 3.0) for _ in range(2)] == [True, False], "half a token was kept"


def test_what_is_refused_costs_nothing() -> None:
    rate = limit()
    for _ in range(100):
        rate.admits("a", 0.0)
    assert rate.admits("b", 0.0)
    assert rate.admits("a", 1.0)


def test_nobody_saves_more_than_a_burst() -> None:
    rate = limit()
    assert sum(rate.admits("a", 1e6) for _ in range(100)) == BURST


def test_all_together_have_a_burst_and_a_rate_as_well() -> None:
    rate = limit()
    assert sum(rate.admits(source, 0.0) for source in range(100)) == BURST_OF_ALL
    assert sum(rate.admits(source, 3.0) for source in range(100, 200)) == 3 * RATE_OF_ALL


def test_a_source_that_all_others_crowd_out_is_not_remembered() -> None:
    rate = limit()
    for source in range(1000):
        rate.admits(source, 0.0)
    assert len(rate) == BURST_OF_ALL


def test_a_source_that_has_rested_is_forgotten() -> None:
    rate = limit()
    for source in range(5):
        rate.admits(source, 0.0)
    assert rate.admits("new", 100.0)
    assert len(rate) == 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rate = limit(now=10.0)
    assert sum(rate.admits("a", 10.0) for _ in range(4)) == BURST
    assert not rate.admits("a", 5.0)
    assert not rate.admits("a", 10.0)


EVENTS = st.lists(
    st.tuples(st.integers(0, 12), st.floats(0, 4, allow_nan=False) | st.just(0.0) | st.floats(0, 0.01)), max_size=200
)


@given(EVENTS)
def test_never_more_than_the_burst_and_the_rate_over_any_stretch_of_time(events: list[tuple[int, float]]) -> None:
    rate, now = limit(), 0.0
    admitted: list[tuple[int, float]] = []
    for source, pause in events:
        now += pause
        if rate.admits(source, now):
            admitted.append((source, now))
    for first, (_, begin) in enumerate(admitted):
        for last in range(first, len(admitted)):
            end = admitted[last][1]
            stretch = [source for source, _ in admitted[first : last + 1]]
            assert len(stretch) <= BURST_OF_ALL + RATE_OF_ALL * (end - begin) + 1e-6
            for source in set(stretch):
                assert stretch.count(source) <= BURST + RATE * (end - begin) + 1e-6


@given(EVENTS)
def test_how_many_sources_are_remembered_is_bounded(events: list[tuple[int, float]]) -> None:
    rate, now = limit(), 0.0
    # As many as all together may be while the first of them fills its bucket again.
    most = BURST_OF_ALL + math.ceil(RATE_OF_ALL * BURST / RATE) + 1
    for number, (_, pause) in enumerate(events):
        now += pause
        rate.admits(number, now)
        assert len(rate) <= most


@given(EVENTS)
def test_a_source_that_keeps_to_its_rate_is_served_while_it_is_alone(events: list[tuple[int, float]]) -> None:
    rate, now = limit(), 0.0
    for _, pause in events:
        now += pause + 1.0 / RATE
        assert rate.admits("a", now)
