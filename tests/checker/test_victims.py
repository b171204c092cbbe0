"""Who is cancelled: those that are declared, or those that may be cancelled without anybody's consent."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from meerkat_trio.testing import Exploration, explore

from .rig import RUNS, failure_of, green, line_of

# Declared


def test_every_declared_victim_is_swept_and_the_scenario_is_told_which() -> None:
    told = set()

    async def scenario(x: Exploration) -> None:
        with x.victim(name="first") as first:
            await trio.lowlevel.checkpoint()
        with x.victim(name="second") as second:
            await trio.lowlevel.checkpoint()
        told.add((x.cancelled, first.cancelled_caught, second.cancelled_caught))

    green(scenario)
    assert {((), False, False), (("first",), True, False), (("second",), False, True)} <= told
    assert (("first", "second"), True, True) in told


def test_victims_inside_each_other_are_cancelled_each_for_itself_and_not_after_their_end() -> None:
    told = set()

    async def scenario(x: Exploration) -> None:
        with x.victim(name="outer") as outer:
            with x.victim(name="inner") as inner:
                await trio.sleep(1)
            await trio.sleep(1)
        at_outer_end = x.cancelled
        await trio.sleep(1)
        assert at_outer_end == x.cancelled
        told.add((x.cancelled, outer.cancelled_caught, inner.cancelled_caught))

    green(scenario)
    assert {((), False, False), (("outer",), True, False), (("inner",), False, True)} <= told


def test_a_name_declared_again_stands_for_its_new_scope() -> None:
    told = set()

    async def scenario(x: Exploration) -> None:
        caught = []
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                assert x.victim(nursery.cancel_scope, name="session") is nursery.cancel_scope
                nursery.start_soon(trio.sleep, 1)
            caught.append(nursery.cancel_scope.cancelled_caught)
        told.add(tuple(caught))

    green(scenario)
    assert {(False,) * 3, (True, False, False), (False, True, False), (False, False, True)} <= told


def test_a_victim_without_a_name_is_called_by_the_place_of_its_declaration() -> None:
    async def scenario(x: Exploration) -> None:
        for _ in range(2):
            with x.victim():  # here
                await trio.sleep(1)

    site = f"tests/checker/test_victims.py:{line_of(scenario, '# here')}"
    assert {name for _, name in green(scenario).strikes} == {site, f"{site}~2"}


@pytest.mark.parametrize("name", ["", "two words", "a;b", "a@b"])
def test_a_name_that_would_break_a_replay_string_is_refused(name: str) -> None:
    async def scenario(x: Exploration) -> None:
        with pytest.raises(ValueError, match="a victim's name"):
            x.victim(name=name)

    green(scenario)


def test_nobody_else_is_cancelled_where_a_victim_is_declared() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="declared"):
            await trio.sleep(1)
        with trio.move_on_after(5) as other:
            await trio.sleep(1)
        assert not other.cancelled_caught

    assert {name for _, name in green(scenario).strikes} == {"declared"}


# Found


def test_the_root_is_cancelled_where_no_victim_is_declared() -> None:
    async def scenario(_: Exploration) -> None:
        await trio.sleep(1)

    assert {name for _, name in green(scenario).strikes} == {"root"}


async def _asks_with_a_deadline(*, keep_lock: bool) -> None:
    lock = trio.Lock()
    with trio.move_on_after(5):  # deadline
        if keep_lock:
            await lock.acquire()
            await trio.sleep(1)
            lock.release()
        else:
            async with lock:
                await trio.sleep(1)
    async with lock:
        pass


def test_a_scope_with_a_deadline_may_be_cancelled_at_any_moment() -> None:
    async def careless(_: Exploration) -> None:
        await _asks_with_a_deadline(keep_lock=True)

    async def careful(_: Exploration) -> None:
        await _asks_with_a_deadline(keep_lock=False)

    assert failure_of(careless).kind in {"deadlock", "leaked lock", "exception"}
    site = f"tests/checker/test_victims.py:{line_of(_asks_with_a_deadline, '# deadline')}"
    assert site in {name for _, name in green(careful).strikes}


def test_what_the_code_makes_of_an_early_time_out_is_hypothetical() -> None:
    async def scenario(_: Exploration) -> None:
        with trio.fail_after(5):
            await trio.sleep(1)

    report = green(scenario)
    assert [type(failure.exception) for failure in report.hypothetical] == [trio.TooSlowError]
    assert report.hypothetical[0].hypothetical
    assert "hypothetical" in str(report.hypothetical[0])


def test_a_sleep_is_no_time_out() -> None:
    async def scenario(_: Exploration) -> None:
        await trio.sleep(1)
        assert trio.current_time() == 1

    report = green(scenario)
    assert not report.hypothetical


def test_a_scope_that_the_scenario_itself_cancels_may_be_cancelled_at_any_moment() -> None:
    async def scenario(_: Exploration) -> None:
        done = trio.Event()

        async def worker(scope: trio.CancelScope) -> None:
            with scope:  # own
                await trio.sleep(1)
                done.set()

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            nursery.start_soon(worker, scope)
            await done.wait()
            scope.cancel()

    failure = failure_of(scenario)
    assert failure.kind == "deadlock"
    assert f"test_victims.py:{line_of(scenario, '# own')}" in failure.sentence


class _Component:
    """Relies on being the only one that cancels its own scope."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._stopped = False

    async def run(self) -> None:
        with self._scope:
            await trio.sleep(3)
        assert self._stopped == self._scope.cancelled_caught

    def stop(self) -> None:
        self._stopped = True
        self._scope.cancel()


async def _stops_a_component(_: Exploration) -> None:
    component = _Component()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(component.run)
        await trio.sleep(1)
        component.stop()


def test_a_scope_that_a_component_keeps_to_itself_is_left_alone() -> None:
    report = green(_stops_a_component)
    assert {name for _, name in report.strikes} == {"root"}
    assert not report.hypothetical


def test_when_all_scopes_are_victims_what_only_that_finds_is_hypothetical() -> None:
    report = explore(_stops_a_component, runs=RUNS, victims="all")
    report.raise_if_failed()
    assert [failure.kind for failure in report.hypothetical] == ["exception"]
    assert any(name != "root" for _, name in report.strikes)


def test_when_all_scopes_are_victims_a_declared_one_is_no_hypothesis() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim(name="declared") as scope:
            await trio.sleep(1)
        with suppress(LookupError):
            await trio.sleep(1)
        assert not scope.cancelled_caught

    report = explore(scenario, runs=RUNS, victims="all")
    assert report.failures
    assert not report.failures[0].hypothetical
