"""What cannot be explored is refused by a message that says why and what to do; nothing is left behind."""

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
import threading
import uuid
from typing import Any

import pytest
import trio

from meerkat_trio.testing import Exploration, ReplayError, ScenarioError, explore
from meerkat_trio.testing._trio_internals import UnsupportedTrioError, require_internals

from .rig import RUNS, failure_of, green, kind_of


async def _nap(x: Exploration) -> None:
    with x.victim():
        await trio.sleep(1)


# What is no scenario


def _sync(_: Exploration) -> None:
    pass


async def _generator(_: Exploration) -> Any:
    yield


async def _no_parameter() -> None:
    pass


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (_sync, "_sync is not async"),
        (_generator, "_generator is an async generator"),
        (_no_parameter, "_no_parameter cannot be called with an Exploration alone"),
        (3, "a scenario is an async function that takes an Exploration, not 3"),
    ],
)
def test_what_is_no_async_function_of_an_exploration_is_refused(scenario: Any, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        explore(scenario)


def test_a_partial_a_bound_method_and_an_object_whose_call_is_async_are_scenarios() -> None:
    class Scenarios:
        async def method(self, x: Exploration) -> None:
            await _nap(x)

        async def __call__(self, x: Exploration) -> None:
            await _nap(x)

    async def with_more(number: int, x: Exploration) -> None:
        assert number == 7
        await _nap(x)

    for scenario in (functools.partial(with_more, 7), Scenarios().method, Scenarios()):
        assert green(scenario).strikes


async def test_exploring_inside_a_trio_run_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call it from a synchronous function"):
        explore(_nap)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1}, "budget: 0.0 or more"),
        ({"budget": float("nan")}, "budget"),
        ({"runs": 0}, "runs: 1 or more"),
        ({"workers": 0}, "workers: 1 or more"),
        ({"max_steps": 0}, "max_steps: 1 or more"),
        ({"max_failures": 0}, "max_failures: 1 or more"),
        ({"dies_within": -0.1}, "dies_within: 0.0 or more"),
        ({"jitter": -1.0}, "jitter: 0.0 or more"),
        ({"mode": "unfair"}, "mode: fair or adversarial"),
        ({"victims": "some"}, "victims: declared or all"),
        ({"source": ["no.such.package"]}, "source: neither a package nor a file: 'no.such.package'"),
    ],
)
def test_an_argument_of_no_use_is_refused_by_its_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explore(_nap, **options)


@pytest.mark.parametrize(
    "text", ["", "fastest", "oldest;cancel=3", "oldest;pick=a.b", "oldest;what=1", "oldest;hold=1"]
)
def test_a_text_that_is_no_replay_string_is_refused(text: str) -> None:
    with pytest.raises(ReplayError):
        explore(_nap, replay=text)


def test_a_trio_with_another_inside_is_refused_by_naming_what_it_lacks() -> None:
    with pytest.raises(UnsupportedTrioError, match=r"Task lacks _gone"):
        require_internals([(trio.lowlevel.Task, ["_next_send", "_gone"])])


# Threads and real I/O


async def _in_a_thread(_: Exploration) -> None:
    await trio.to_thread.run_sync(int)


async def _file(_: Exploration) -> None:
    await trio.Path(__file__).read_text()


async def _name(_: Exploration) -> None:
    await trio.open_tcp_stream("localhost", 9)


async def _socket(_: Exploration) -> None:
    with trio.socket.socket() as listening:
        await listening.bind(("127.0.0.1", 0))
        listening.listen()
        await listening.accept()


@pytest.mark.parametrize(
    ("scenario", "what"), [(_in_a_thread, "threads"), (_file, "threads"), (_name, "threads"), (_socket, "real I/O")]
)
def test_threads_and_sockets_are_refused(scenario: Any, what: str) -> None:
    for _ in range(3):
        with pytest.raises(ScenarioError, match=f"uses {what}.*replace it by a fake"):
            explore(scenario, runs=RUNS)


def test_a_thread_that_is_started_only_after_a_cancellation_is_refused_too() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        if scope.cancelled_caught:
            await trio.to_thread.run_sync(int)

    with pytest.raises(ScenarioError, match="uses threads"):
        explore(scenario, runs=RUNS)


def test_a_call_from_a_thread_that_is_not_trios_ends_in_a_refusal() -> None:
    async def scenario(_: Exploration) -> None:
        called = trio.Event()
        token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=token.run_sync_soon, args=[called.set])
        thread.start()
        thread.join()
        await called.wait()

    with pytest.raises(ScenarioError, match="uses threads"):
        explore(scenario, runs=RUNS)


def test_threads_work_again_afterwards() -> None:
    with pytest.raises(ScenarioError):
        explore(_in_a_thread)

    async def in_a_thread() -> int:
        return await trio.to_thread.run_sync(int)

    assert trio.run(in_a_thread) == 0


# What is not the same twice


async def _unique_ids(x: Exploration) -> None:
    for _ in range(uuid.uuid4().int % 1000):
        await trio.lowlevel.checkpoint()


async def _dice(_: Exploration) -> None:
    await trio.sleep(random.random())


_left_behind: list[int] = []


async def _module_state(x: Exploration) -> None:
    _left_behind.append(1)
    for _ in _left_behind:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("scenario", [_unique_ids, _dice, _module_state])
def test_a_scenario_that_differs_from_run_to_run_is_told_where_and_what_to_avoid(scenario: Any) -> None:
    with pytest.raises(ScenarioError) as caught:
        explore(scenario, runs=RUNS)
    text = str(caught.value)
    assert f"{scenario.__name__} is not deterministic" in text
    assert "first: " in text
    assert "take ids from counters, not from uuid4" in text


def test_a_failure_that_does_not_come_back_carries_a_note() -> None:
    struck = itertools.count()

    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.sleep(1)
        assert not (scope.cancelled_caught and next(struck) == 0), "only once"

    assert "not repeatable" in str(failure_of(scenario).note)


def test_an_address_in_an_error_or_a_log_makes_no_two_runs_differ() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            x.log(object())
            await trio.sleep(1)
        if scope.cancelled_caught:
            raise LookupError(object())

    failure = failure_of(scenario)
    assert failure.kind == "exception"
    assert failure.note is None


# What never passes


def test_a_scenario_that_fails_by_itself_is_told_to_pass_first() -> None:
    async def raises(_: Exploration) -> None:
        raise LookupError

    async def never_ends(_: Exploration) -> None:
        await trio.sleep_forever()

    for scenario, kind in ((raises, "exception"), (never_ends, "deadlock")):
        failure = failure_of(scenario)
        assert failure.kind == kind
        assert "it fails by itself" in str(failure.note)
        assert failure.plain == 200


def test_a_scenario_that_spins_by_itself_is_told_soon() -> None:
    async def spins(_: Exploration) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    assert kind_of(spins) == "livelock"


def test_a_victim_that_nobody_enters_is_warned_of() -> None:
    async def scenario(x: Exploration) -> None:
        x.victim(name="ghost")
        await trio.lowlevel.checkpoint()

    report = green(scenario, runs=400)
    assert not report.strikes
    assert "no cancellation was ever delivered: nothing awaits inside ghost" in report.warnings[0]
    assert report.warnings[0] in str(report)
    assert not green(_nap).warnings


def test_an_interrupt_from_the_keyboard_is_passed_on() -> None:
    async def scenario(_: Exploration) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(scenario)


# What importing the kit loads


def test_importing_the_kit_loads_neither_the_shell_nor_a_test_framework() -> None:
    code = "import sys, meerkat_trio.testing as t; t.explore; t.check_comms_runtime; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "meerkat_trio.testing._explore" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in {"pytest", "hypothesis", "click", "rich"}}
    assert not loaded & {f"meerkat_trio.{name}" for name in ("_machine", "_session", "_tasks", "_executor", "_drain")}
