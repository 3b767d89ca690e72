"""Clocks: the live one, and the one that tests move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect import Clock, Do, Effect, TestClock, provide_service
from durable_effect.clock import LiveClock
from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_live_clock_knows_utc() -> None:
    """The time is aware, in UTC, and does not run backwards between two looks."""

    @Effect.gen
    def looks() -> Do[tuple[datetime, datetime]]:
        first = yield from Clock.now()
        return first, (yield from Clock.now())

    first, second = Effect.run_sync(looks())
    assert first.tzinfo is UTC
    assert first <= second
    assert LiveClock().current() >= second


def test_another_clock_can_be_provided() -> None:
    """The clock is a service that always exists, so providing one replaces it for the program inside."""
    clock = TestClock(NEW_YEAR)
    assert Effect.run_sync(Clock.now() | provide_service(Clock, clock)) == NEW_YEAR


def test_a_clock_starts_at_an_aware_time() -> None:
    """A naive start is refused; any zone is brought to UTC."""
    with pytest.raises(ValueError, match="aware"):
        TestClock(datetime(2026, 1, 1))
    start = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert TestClock(start).current() == NEW_YEAR
    assert TestClock(start).current().tzinfo is UTC


def test_sleeps_of_nothing_return_at_once() -> None:
    """Zero takes no time on either clock, not even a turn of a loop."""
    Effect.run_sync(Effect.sleep("0 s"))
    Effect.run_sync(Effect.sleep(timedelta()) | provide_service(Clock, TestClock(NEW_YEAR)))


def test_a_span_is_looked_at_when_the_effect_is_made() -> None:
    """A wrong span is refused right away."""
    with pytest.raises(ValueError, match="second"):
        Effect.sleep("soon")
    with pytest.raises(ValueError, match="negative"):
        Effect.sleep(timedelta(seconds=-1))


@given(st.lists(st.integers(1, 50), max_size=8), st.integers(0, 60))
def test_adjusting_wakes_those_that_are_due_in_order(spans: list[int], moved: int) -> None:
    """Sleepers wake at their own times, in their order; those that sleep longer go on sleeping."""
    woken: list[tuple[int, int]] = []

    @Effect.gen
    def sleeper(number: int, seconds: int) -> Do[None]:
        yield from Effect.sleep(timedelta(seconds=seconds))
        now = yield from Clock.now()
        assert (now - NEW_YEAR).total_seconds() == seconds
        woken.append((seconds, number))

    clock = TestClock(NEW_YEAR)

    @Effect.gen
    def program() -> Do[None]:
        for number, seconds in enumerate(spans):
            yield from sleeper(number, seconds).fork()
        yield from clock.adjust(timedelta(seconds=moved))

    Effect.run_sync(program() | provide_service(Clock, clock))
    assert woken == sorted((s, n) for n, s in enumerate(spans) if s <= moved)
    assert clock.current() == NEW_YEAR + timedelta(seconds=moved)


def test_sleeps_that_begin_on_the_way_count() -> None:
    """A loop of sleeps runs as often as fits into one adjustment."""
    clock = TestClock(NEW_YEAR)
    ticks: list[int] = []

    @Effect.gen
    def program() -> Do[None]:
        yield from Effect.sleep("10 s").map(lambda _: ticks.append(1)).forever().fork()
        yield from clock.adjust("35 s")
        yield from clock.set_time(NEW_YEAR + timedelta(seconds=60))

    Effect.run_sync(program() | provide_service(Clock, clock))
    assert len(ticks) == 6


def test_an_interrupted_sleeper_is_forgotten(world: TestRuntime) -> None:
    """It does not count as somebody who sleeps."""
    fiber = world.fork(Effect.sleep("1 hour"))
    world.settle()
    assert world.next_sleeper() == NEW_YEAR + timedelta(hours=1)
    world.run(fiber.interrupt())
    assert world.next_sleeper() is None


def test_a_test_clock_works_on_a_real_loop() -> None:
    """Adjusting waits until asyncio work is done too, and then wakes the sleepers."""
    clock = TestClock(NEW_YEAR)

    @Effect.gen
    def program() -> Do[datetime]:
        fiber = yield from Effect.sleep("1 day").and_then(Clock.now()).fork()
        yield from clock.adjust("2 days")
        return (yield from fiber.join())

    assert Effect.run(program() | provide_service(Clock, clock)) == NEW_YEAR + timedelta(days=1)
