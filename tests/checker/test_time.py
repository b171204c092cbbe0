"""Time is virtual and exact; timers that are due together or nearly so fire in every order."""

from __future__ import annotations

import trio
import trio.testing

from meerkat_trio.testing import Exploration, explore

from .rig import RUNS, failure_of, green


def test_hours_pass_without_waiting_and_idle_waiters_are_woken_before_time_moves() -> None:
    moments = set()

    async def scenario(x: Exploration) -> None:
        with x.victim() as scope:
            await trio.testing.wait_all_tasks_blocked()
            assert trio.current_time() == 0
            await trio.sleep(7200)
        if not scope.cancelled_caught:
            moments.add(trio.current_time())

    green(scenario)
    assert moments == {7200.0}


def test_a_cancellation_meets_a_deadline_before_at_and_after_its_instant() -> None:
    seen = set()

    async def scenario(x: Exploration) -> None:
        with x.victim(trio.CancelScope(deadline=trio.current_time() + 1)):
            try:
                await trio.sleep(5)
            except trio.Cancelled as exc:
                seen.add((trio.current_time(), exc.source))
                raise

    green(scenario)
    assert seen == {
        (0.0, "explicit"),  # before time moves
        (1.0, "explicit"),  # time has moved, nobody has looked at the deadline yet
        (1.0, "deadline"),
    }


async def _two_timers(x: Exploration, second: float, seen: set[str]) -> None:
    order = ""

    async def late(letter: str, due: float) -> None:
        nonlocal order
        await trio.sleep(due)
        order += letter

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late, "a", 1)
        nursery.start_soon(late, "b", second)
    seen.add(order)


def _orders(second: float, **options: float) -> set[str]:
    seen: set[str] = set()

    async def scenario(x: Exploration) -> None:
        x.victim(trio.CancelScope())  # nobody else is cancelled
        await _two_timers(x, second, seen)

    explore(scenario, runs=RUNS, **options)  # type: ignore[arg-type]
    return seen


def test_simultaneous_timers_fire_in_every_order_and_others_in_theirs() -> None:
    assert _orders(1) == {"ab", "ba"}
    assert _orders(1.1) == {"ab"}


def test_with_jitter_timers_that_close_swap_and_others_do_not() -> None:
    assert _orders(1.1, jitter=0.2) == {"ab", "ba"}
    assert _orders(1.3, jitter=0.2) == {"ab"}


async def _reply_at_the_time_out(x: Exploration, *, keep: bool) -> None:
    send, receive = trio.open_memory_channel[str](1)
    got = []

    async def reply() -> None:
        await trio.sleep(1)
        await send.send("reply")

    async def ask() -> None:
        with trio.move_on_after(1):
            item = await receive.receive()
            if keep:
                got.append(item)
            await trio.lowlevel.checkpoint()
            if not keep:
                got.append(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reply)
        nursery.start_soon(ask)
    assert got or receive.statistics().current_buffer_used


def test_a_timer_that_waits_for_the_one_beside_it_strikes_what_that_one_has_begun() -> None:
    async def loses(x: Exploration) -> None:
        await _reply_at_the_time_out(x, keep=False)

    async def keeps(x: Exploration) -> None:
        await _reply_at_the_time_out(x, keep=True)

    failure = failure_of(loses, runs=600)
    assert failure.plan.ties
    assert "of the timers due together" in failure.sentence
    green(keeps, runs=600)


def test_a_timer_that_was_made_to_wait_shows_the_time_it_was_due() -> None:
    times: set[tuple[float, ...]] = set()

    async def scenario(x: Exploration) -> None:
        woken: list[float] = []

        async def sleeper() -> None:
            await trio.sleep(1)
            woken.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            nursery.start_soon(sleeper)
        times.add(tuple(woken))

    green(scenario)
    assert times == {(1.0, 1.0)}
