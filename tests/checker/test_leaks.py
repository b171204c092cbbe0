"""What is left behind is found, and what only looks so is not: permits, channels, resources, generators, tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import trio

from meerkat_trio.testing import Exploration

from .rig import failure_of, green, kind_of

# Permits


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (trio.Lock, "leaked lock"),
        (trio.StrictFIFOLock, "leaked lock"),
        (lambda: trio.CapacityLimiter(1), "leaked limiter"),
        (lambda: trio.Semaphore(1), "leaked semaphore"),
    ],
)
def test_what_is_acquired_and_not_released_when_cancelled_is_a_leak(make: Any, kind: str) -> None:
    async def careless(x: Exploration) -> None:
        thing = make()
        with x.victim():
            await thing.acquire()
            await trio.sleep(1)
            thing.release()

    async def careful(x: Exploration) -> None:
        thing = make()
        with x.victim():
            async with thing:
                await trio.sleep(1)

    failure = failure_of(careless)
    assert failure.kind == kind
    assert "made at tests/checker/test_leaks.py:" in failure.message
    green(careful)


def test_a_permit_released_twice_is_one_too_many() -> None:
    async def scenario(x: Exploration) -> None:
        permits = trio.Semaphore(1)
        with x.victim():
            await permits.acquire()
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                permits.release()
                raise
            finally:
                permits.release()

    assert "too many permits: a Semaphore of 1 ends with 2" in failure_of(scenario).message


def test_a_semaphore_used_as_a_signal_may_end_with_any_value() -> None:
    async def scenario(x: Exploration) -> None:
        signals = trio.Semaphore(0)

        async def signal() -> None:
            for _ in range(3):
                await trio.sleep(1)
                signals.release()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(signal)
            with x.victim():
                for _ in range(3):
                    await signals.acquire()

    green(scenario)


# Channels and resources


def test_a_clone_that_is_left_open_when_cancelled_is_a_leak() -> None:
    async def scenario(x: Exploration, *, careful: bool) -> None:
        send, receive = trio.open_memory_channel[int](1)

        async def produce(mine: trio.MemorySendChannel[int]) -> None:
            if careful:
                async with mine:
                    await mine.send(1)
            else:
                await mine.send(1)
                await mine.aclose()

        async with send, receive:
            with x.victim():
                await produce(send.clone())

    async def careless(x: Exploration) -> None:
        await scenario(x, careful=False)

    async def careful(x: Exploration) -> None:
        await scenario(x, careful=True)

    assert kind_of(careless) == "open channel"
    green(careful)


def test_a_channel_that_is_left_open_anyway_is_no_leak() -> None:
    async def scenario(x: Exploration) -> None:
        send, _ = trio.open_memory_channel[int](3)
        with x.victim():
            await send.send(1)
            await trio.sleep(1)

    green(scenario)


async def _produce(send: trio.MemorySendChannel[int]) -> None:
    async with send:
        await send.send(1)


async def _consume(receive: trio.MemoryReceiveChannel[int]) -> None:
    async with receive:
        async for _ in receive:
            await trio.sleep(1)


def test_a_channel_whose_task_was_not_even_started_is_no_leak() -> None:
    async def scenario(_: Exploration) -> None:
        send, receive = trio.open_memory_channel[int](0)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_produce, send)
            nursery.start_soon(_consume, receive)

    assert green(scenario).strikes


def test_a_resource_that_is_not_closed_when_cancelled_is_a_leak() -> None:
    class Door(trio.abc.AsyncResource):
        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async def careless(x: Exploration) -> None:
        with x.victim():
            door = Door()
            await trio.sleep(1)
            await door.aclose()

    async def careful(x: Exploration) -> None:
        with x.victim():
            async with Door():
                await trio.sleep(1)

    failure = failure_of(careless)
    assert failure.kind == "unclosed resource"
    assert "Door was never closed" in failure.message
    green(careful)


# Async generators


async def _guarded() -> AsyncIterator[int]:
    try:
        yield 1
        yield 2
    finally:
        await trio.lowlevel.checkpoint()


async def _bare() -> AsyncIterator[int]:
    for number in range(2):
        await trio.sleep(1)
        yield number


def test_a_generator_that_is_left_before_its_clean_up_is_a_leak() -> None:
    async def careless(x: Exploration) -> None:
        with x.victim():
            async for _ in _guarded():
                await trio.sleep(1)

    async def careful(x: Exploration) -> None:
        with x.victim():
            async with aclosing(_guarded()) as numbers:  # type: ignore[type-var]
                async for _ in numbers:
                    await trio.sleep(1)

    failure = failure_of(careless)
    assert failure.kind == "leaked generator"
    assert "_guarded was left suspended" in failure.message
    green(careful)


def test_a_generator_without_any_clean_up_may_be_left() -> None:
    async def scenario(x: Exploration) -> None:
        with x.victim():
            async for _ in _bare():
                await trio.sleep(1)

    green(scenario)


def test_a_generator_that_is_left_anyway_is_no_leak_whoever_still_holds_it() -> None:
    async def scenario(x: Exploration) -> None:
        numbers = _guarded()
        with x.victim():
            async for _ in numbers:
                break
            await trio.sleep(1)
            del numbers

    green(scenario)


# Tasks


def test_system_tasks_left_behind_are_named_and_finished_ones_are_not() -> None:
    async def scenario(x: Exploration, *, straggle: bool) -> None:
        async def straggler() -> None:
            await trio.sleep(1 if not straggle else 100)

        with x.victim() as scope:
            await trio.lowlevel.checkpoint()
        if scope.cancelled_caught:
            trio.lowlevel.spawn_system_task(straggler)
        await trio.sleep(2)

    async def left(x: Exploration) -> None:
        await scenario(x, straggle=True)

    async def done(x: Exploration) -> None:
        await scenario(x, straggle=False)

    failure = failure_of(left)
    assert failure.kind == "leaked task"
    assert "still running: straggler" in failure.message
    green(done)
