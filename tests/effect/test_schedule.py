"""Schedules: when to do something again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect import (
    Cause,
    Clock,
    Do,
    Effect,
    Failure,
    Random,
    Schedule,
    Success,
    TypedError,
    provide_service,
)
from durable_effect.schedule import Again, Done, Tick
from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Oops(TypedError):
    """Went wrong."""


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


def runs_at(
    world: TestRuntime, schedule: Schedule[Any, Any], took: str = "0 s", limit: int = 6
) -> list[float]:
    """Say at which seconds an effect runs that is repeated so, until it has run `limit` times."""
    at: list[float] = []

    @Effect.gen
    def work() -> Do[None, str]:
        now = yield from Clock.now()
        at.append((now - NEW_YEAR).total_seconds())
        if len(at) == limit:
            yield from Effect.fail("enough")
        yield from Effect.sleep(took)

    world.run_exit(work().repeat(schedule))
    return at


def outputs(schedule: Schedule[Any, Any], inputs: list[Any]) -> list[Any]:
    """Step a schedule by hand, once a second, and collect what it answers."""
    state, out = schedule.initial, []
    for attempt, value in enumerate(inputs, 1):
        decided = schedule.next(
            state, Tick(value, attempt, NEW_YEAR, NEW_YEAR + seconds(attempt - 1), lambda a, b: a)
        )
        out.append(decided.output)
        if isinstance(decided, Done):
            return [*out, "done"]
        state = decided.state
    return out


def test_recurs(world: TestRuntime) -> None:
    """So many more runs; the repetition answers their number."""
    log: list[int] = []
    assert world.run(Effect.sync(lambda: log.append(1)).repeat(Schedule.recurs(3))) == 3
    assert len(log) == 4
    assert outputs(Schedule.recurs(2), [None] * 5) == [0, 1, 2, "done"]


def test_spaced(world: TestRuntime) -> None:
    """The pause comes after the end of each run."""
    assert runs_at(world, Schedule.spaced("10 s"), took="5 s", limit=3) == [0, 15, 30]


def test_fixed_stays_on_the_grid(world: TestRuntime) -> None:
    """Runs begin at multiples of the interval."""
    assert runs_at(world, Schedule.fixed("10 s"), took="3 s", limit=4) == [0, 10, 20, 30]


def test_fixed_does_not_pile_up(world: TestRuntime) -> None:
    """After a run that was too long the next comes at once, and then the grid again."""
    assert runs_at(world, Schedule.fixed("10 s"), took="25 s", limit=4) == [0, 25, 50, 75]


def test_exponential_grows_without_end() -> None:
    """base, base * 2, base * 4 ...; far out it stays at the longest span there is."""
    assert outputs(Schedule.exponential("1 s"), [None] * 4) == [seconds(n) for n in (1, 2, 4, 8)]
    assert outputs(Schedule.exponential("1 s", factor=1.5), [None] * 2)[1] == seconds(1.5)
    late = Schedule.exponential("1 s").next(None, Tick(None, 10_000, NEW_YEAR, NEW_YEAR, lambda a, b: a))
    assert late.output == timedelta.max


def test_duration_is_once() -> None:
    """One repetition after the span."""
    assert outputs(Schedule.duration("5 s"), [None] * 3) == [seconds(5), seconds(5), "done"]


def test_cron(world: TestRuntime) -> None:
    """Runs begin at the times of the expression."""
    assert runs_at(world, Schedule.cron("*/5 * * * *"), limit=3) == [0, 300, 600]


def test_unfold_and_forever() -> None:
    """Both go on; the outputs are the states, or the count."""
    assert outputs(Schedule.unfold(1, lambda n: n * 3), [None] * 3) == [1, 3, 9]
    assert outputs(Schedule.forever(), [None] * 3) == [0, 1, 2]


def test_delays_can_be_changed() -> None:
    """`add_delay`, `modify_delay` and `jittered` change the pause and nothing else."""
    tick = Tick(None, 1, NEW_YEAR, NEW_YEAR, lambda low, high: high)
    spaced = Schedule.spaced("10 s")
    assert spaced.add_delay(lambda n: "5 s").next(None, tick) == Again(0, seconds(15))
    assert spaced.modify_delay(lambda n, delay: delay * 3).next(None, tick) == Again(0, seconds(30))
    assert spaced.jittered().next(None, tick) == Again(0, seconds(12))


def test_jitter_comes_from_random(world: TestRuntime) -> None:
    """The same seed gives the same pauses."""

    def when(seed: int) -> list[float]:
        with TestRuntime(NEW_YEAR) as world:
            at: list[float] = []
            look = Clock.now().map(lambda now: at.append((now - NEW_YEAR).total_seconds()))
            jittered = Schedule.spaced("10 s").jittered().up_to(times=3)
            world.run(look.repeat(jittered) | provide_service(Random, Random.seeded(seed)))
            return at

    assert when(1) == when(1) != when(2)
    assert all(8 <= b - a <= 12 for a, b in zip(when(1), when(1)[1:], strict=False))


def test_limits() -> None:
    """`up_to` limits the number or the time, `while_` and `until` look at the inputs."""
    assert outputs(Schedule.forever().up_to(times=2), [None] * 5) == [0, 1, 2, "done"]
    assert outputs(Schedule.forever().up_to(span="2 s"), [None] * 5) == [0, 1, 2, 3, "done"]
    assert outputs(Schedule.forever().while_(lambda n: n < 3), [1, 2, 3, 4]) == [0, 1, 2, "done"]
    assert outputs(Schedule.forever().until(lambda n: n == 2), [1, 2, 3]) == [0, 1, "done"]


def test_outputs_can_be_changed() -> None:
    """`map` changes them, `passthrough` answers the inputs."""
    assert outputs(Schedule.recurs(1).map(str), "ab") == ["0", "1", "done"]
    assert outputs(Schedule.recurs(1).passthrough(), "ab") == ["a", "b", "done"]


@given(st.integers(0, 4), st.integers(0, 4))
def test_concat_follows_one_with_the_other(first: int, second: int) -> None:
    """Both run to their ends, the second from its own beginning."""
    both = Schedule.recurs(first).concat(Schedule.recurs(second))
    assert outputs(both, [None] * 20) == [*range(first), *range(second), second, "done"]


def test_retry_stops_at_the_first_success(world: TestRuntime) -> None:
    """Typed errors are tried again, with the schedule's pauses; the error goes in."""
    left = iter(["a", "b", None])
    seen: list[str] = []

    def work() -> Effect[str, str]:
        error = next(left)
        return Effect.succeed("ok") if error is None else Effect.fail(error)

    schedule = Schedule.spaced("10 s").while_(lambda error: seen.append(error) or True)
    assert world.run(Effect.suspend(work).retry(schedule)) == "ok"
    assert seen == ["a", "b"]
    assert world.now == NEW_YEAR + seconds(20)


def test_retry_ends_with_the_last_error(world: TestRuntime) -> None:
    """When the schedule is done, so is the retrying."""
    numbers = iter(range(10))
    failing = Effect.suspend(lambda: Effect.fail(next(numbers)))
    assert world.run_exit(failing.retry(Schedule.recurs(2))) == Failure(Cause.fail(2))


def test_defects_are_not_retried(world: TestRuntime) -> None:
    """A bug stays a bug."""
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        world.run(Effect.sync(work).retry(Schedule.recurs(5)))
    assert len(runs) == 1


def test_repeat_stops_at_the_first_failure(world: TestRuntime) -> None:
    """The values go into the schedule, and a failure ends it."""
    numbers = iter(range(10))

    def work() -> Effect[int, Oops]:
        n = next(numbers)
        return Effect.succeed(n) if n < 3 else Effect.fail(Oops())

    effect = Effect.suspend(work)
    assert world.run_exit(effect.repeat(Schedule.forever())) == Failure(Cause.fail(Oops()))
    assert world.run_exit(
        Effect.succeed(5).repeat(Schedule.forever().until(lambda n: n == 5).passthrough())
    ) == Success(5)
