"""TestClock: time that moves only when it is told to, and then in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durable_effect import Clock, Do, Effect, TestClock, provide_service
from durable_effect.testing import TestRuntime

START = datetime(2026, 1, 1, tzinfo=UTC)


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


def run(program: Effect[object], clock: TestClock) -> None:
    """Run a program on a clock, without any other driver."""
    Effect.run_sync(program | provide_service(Clock, clock))


def test_time_stands_still() -> None:
    """Without `adjust` the time is what it was at the start."""
    clock = TestClock(START)
    run(Effect.yield_now(), clock)
    assert clock.current() == START


def test_adjust_wakes_sleepers_in_order_of_time_and_registration() -> None:
    """Earlier times first; at one time, who slept first."""
    clock, log = TestClock(START), list[str]()

    @Effect.gen
    def program() -> Do[None]:
        for name, span in [("c", "3 s"), ("a", "1 s"), ("b1", "2 s"), ("b2", "2 s")]:
            yield from Effect.sleep(span).and_then(note(log, name)).fork()
        yield from clock.adjust("3 s")

    run(program(), clock)
    assert log == ["a", "b1", "b2", "c"]


def test_each_sleeper_wakes_at_its_own_time() -> None:
    """While a sleeper runs the clock shows its time."""
    clock, seen = TestClock(START), list[datetime]()

    @Effect.gen
    def program() -> Do[None]:
        for span in ("1 s", "2 s"):
            look = Clock.now().map(seen.append)
            yield from Effect.sleep(span).and_then(look).fork()
        yield from clock.adjust("1 minute")

    run(program(), clock)
    assert seen == [START + timedelta(seconds=1), START + timedelta(seconds=2)]
    assert clock.current() == START + timedelta(minutes=1)


def test_sleeps_registered_meanwhile_are_honoured() -> None:
    """A loop of sleeps goes round as often as time allows in one adjustment."""
    clock, log = TestClock(START), list[str]()

    @Effect.gen
    def program() -> Do[None]:
        yield from Effect.sleep("1 s").and_then(note(log, "tick")).forever().fork()
        yield from clock.adjust("5 s")

    run(program(), clock)
    assert log == ["tick"] * 5


def test_who_sleeps_longer_stays_asleep() -> None:
    """A sleeper after the target is not woken."""
    clock, log = TestClock(START), list[str]()

    @Effect.gen
    def program() -> Do[None]:
        yield from Effect.sleep("2 s").and_then(note(log, "woke")).fork()
        yield from clock.adjust("1999 ms")
        yield from note(log, "adjusted")
        yield from clock.adjust("1 ms")

    run(program(), clock)
    assert log == ["adjusted", "woke"]


def test_set_time_moves_to_an_instant() -> None:
    """And wakes who is due by then."""
    clock, log = TestClock(START), list[str]()

    @Effect.gen
    def program() -> Do[None]:
        yield from Effect.sleep("1 hour").and_then(note(log, "woke")).fork()
        yield from clock.set_time(START + timedelta(hours=1))

    run(program(), clock)
    assert log == ["woke"]


def test_sleeps_of_nothing_return_at_once() -> None:
    """Nobody has to adjust the clock for them."""
    clock = TestClock(START)
    run(Effect.sleep(timedelta()), clock)
    run(clock.sleep(timedelta(seconds=-1)), clock)


def test_an_interrupted_sleeper_is_forgotten() -> None:
    """The next sleeper is not the one that was called off."""
    clock = TestClock(START)

    @Effect.gen
    def program() -> Do[datetime | None]:
        fiber = yield from Effect.sleep("1 s").fork()
        yield from clock.adjust(timedelta())
        assert clock.next_sleeper() == START + timedelta(seconds=1)
        yield from fiber.interrupt()
        return clock.next_sleeper()

    assert Effect.run_sync(program() | provide_service(Clock, clock)) is None


def test_ready_fibers_settle_before_time_moves() -> None:
    """A fiber that only has to be let go on registers its sleep before the adjustment."""
    clock, log = TestClock(START), list[str]()

    @Effect.gen
    def late() -> Do[None]:
        for _ in range(10):
            yield from Effect.yield_now()
        yield from Effect.sleep("1 s")
        yield from note(log, "woke")

    run(late().fork().and_then(clock.adjust("1 s")), clock)
    assert log == ["woke"]


def test_with_live_asks_the_computers_clock() -> None:
    """In the middle of a test, the real time can be read."""
    clock = TestClock(datetime(1999, 1, 1, tzinfo=UTC))
    both = TestClock.with_live(Clock.now()).zip(Clock.now())
    live, virtual = Effect.run_sync(both | provide_service(Clock, clock))
    assert virtual.year == 1999
    assert live.year > 2000


def test_a_naive_start_is_refused() -> None:
    """Instants are aware."""
    with pytest.raises(ValueError, match="aware"):
        TestClock(datetime(2026, 1, 1))


def test_a_runtime_jumps_from_sleeper_to_sleeper(world: TestRuntime) -> None:
    """`run` finishes a program of a year at once."""
    world.run(Effect.sleep("365 days"))
    assert world.now == START + timedelta(days=365)


def test_a_finalizer_sleeps_as_long_as_it_says(world: TestRuntime) -> None:
    """The first sleep in a finalizer is not cut short."""
    world.run(Effect.void.ensuring(Effect.sleep("3 s")))
    assert world.now == START + timedelta(seconds=3)
