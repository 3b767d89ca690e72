"""Schedules: delays, outputs and ends, by the pure step form and by driving them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_effect import Clock, Do, Effect, Random, Schedule, Success, provide_service
from durable_effect.schedule import Again, Done, Tick
from durable_effect.testing import TestRuntime

START = datetime(2026, 1, 1, tzinfo=UTC)


def seconds(n: float) -> timedelta:
    """Make a span."""
    return timedelta(seconds=n)


def steps(schedule: Schedule[Any, Any], inputs: list[Any], took: float = 0) -> list[tuple[Any, Any]]:
    """Drive a schedule by hand: (output, delay in seconds) for each input, then (output, "done").

    Each run takes so many seconds.
    """
    state, now, out = schedule.initial, START, list[tuple[Any, Any]]()
    for attempt, value in enumerate(inputs, 1):
        now += seconds(took)
        decided = schedule.next(state, Tick(value, attempt, START, now, lambda low, high: high))
        if isinstance(decided, Done):
            return [*out, (decided.output, "done")]
        out.append((decided.output, decided.delay.total_seconds()))
        state, now = decided.state, now + decided.delay
    return out


def delays(schedule: Schedule[Any, Any], n: int, took: float = 0) -> list[float]:
    """Answer the first delays in seconds."""
    return [delay for _, delay in steps(schedule, [None] * n, took)]


def test_recurs_has_n_outputs_and_a_final_one() -> None:
    """n extra runs, outputs 0 to n-1, finally n."""
    assert steps(Schedule.recurs(2), [None] * 5) == [(0, 0), (1, 0), (2, "done")]


def test_spaced_waits_the_same_each_time() -> None:
    """However long the runs take."""
    assert delays(Schedule.spaced("5 s"), 3, took=2) == [5, 5, 5]


def test_exponential_grows_by_the_factor() -> None:
    """base * factor ** (attempt - 1)."""
    assert delays(Schedule.exponential("1 s"), 4) == [1, 2, 4, 8]
    assert delays(Schedule.exponential("1 s", factor=3), 3) == [1, 3, 9]


def test_fibonacci_begins_with_two_ones() -> None:
    """1, 1, 2, 3, 5 times the span."""
    assert delays(Schedule.fibonacci("2 s"), 6) == [2, 2, 4, 6, 10, 16]


def test_fixed_aligns_to_the_start() -> None:
    """A run of two seconds leaves three of five."""
    assert delays(Schedule.fixed("5 s"), 3, took=2) == [3, 3, 3]


def test_fixed_fires_at_once_after_an_overrun() -> None:
    """A run longer than the interval is followed without delay."""
    assert delays(Schedule.fixed("5 s"), 2, took=7) == [0, 0]


def test_windowed_waits_to_the_next_boundary() -> None:
    """Also after a run that took longer than a window."""
    assert delays(Schedule.windowed("5 s"), 3, took=2) == [3, 3, 3]
    assert delays(Schedule.windowed("5 s"), 2, took=7) == [3, 3]
    assert delays(Schedule.windowed("5 s"), 1) == [5]


def test_duration_runs_once_more() -> None:
    """After the span, then it is done."""
    assert steps(Schedule.duration("3 s"), [None] * 3) == [(seconds(3), 3), (seconds(3), "done")]


def test_cron_fires_at_its_times() -> None:
    """The outputs are the times, by the time zone."""
    (step,) = steps(Schedule.cron("0 9 * * *", tz="Europe/Berlin"), [None])
    assert step == (datetime(2026, 1, 1, 8, tzinfo=UTC), 8 * 3600)


def test_cron_day_of_month_or_day_of_week() -> None:
    """With both given, either is enough: the 3rd or a Friday (the 2nd)."""
    found = [output.day for output, _ in steps(Schedule.cron("0 0 3 * 5"), [None] * 3)]
    assert found == [2, 3, 9]


def test_forever_counts() -> None:
    """At once, outputs from 0."""
    assert steps(Schedule.forever(), [None] * 3) == [(0, 0), (1, 0), (2, 0)]


def test_jittered_stays_between_80_and_120_percent(world: TestRuntime) -> None:
    """The dice decide within the bounds, and the same seed decides the same."""
    assert delays(Schedule.spaced("10 s").jittered(), 1) == [12]

    def seen(seed: int) -> list[float]:
        found: list[float] = []
        dice = Random.seeded(seed).source.uniform
        for attempt in range(1, 51):
            decided = Schedule.spaced("10 s").jittered().next(None, Tick(None, attempt, START, START, dice))
            assert isinstance(decided, Again)
            found.append(decided.delay.total_seconds())
        return found

    assert all(8 <= delay <= 12 for delay in seen(1))
    assert seen(1) == seen(1)
    assert seen(1) != seen(2)


def test_up_to_limits_by_times_and_by_time() -> None:
    """`times` counts repetitions; the span since the start is inclusive."""
    assert delays(Schedule.spaced("1 s").up_to(times=2), 5) == [1, 1, "done"]
    assert delays(Schedule.spaced("1 s").up_to(span="2 s"), 9) == [1, 1, 1, "done"]


def test_while_and_until_look_at_the_input() -> None:
    """`while_` goes on as long as it holds, `until` as long as it does not."""
    forever = Schedule.forever()
    assert steps(forever.while_(lambda n: n < 3), [1, 2, 3, 4]) == [(0, 0), (1, 0), (2, "done")]
    assert steps(forever.until(lambda n: n == 2), [1, 2, 3]) == [(0, 0), (1, "done")]


def test_max_is_the_slower_and_ends_with_the_first() -> None:
    """Both outputs; the intersection of both."""
    both = Schedule.spaced("3 s").max(Schedule.exponential("1 s").up_to(times=3))
    assert delays(both, 9) == [3, 3, 4, "done"]
    assert delays(Schedule.recurs(2).intersect(Schedule.recurs(5)), 9) == [0, 0, "done"]


def test_min_is_the_faster_and_ends_with_the_last() -> None:
    """Both outputs; the union of both. The one that ended keeps its last output."""
    either = Schedule.exponential("1 s").min(Schedule.spaced("3 s")).map(lambda both: both[1])
    assert delays(either, 4) == [1, 2, 3, 3]
    union = Schedule.recurs(1).union(Schedule.recurs(3))
    assert steps(union, [None] * 9) == [((0, 0), 0), ((1, 1), 0), ((1, 2), 0), ((1, 3), "done")]


def test_concat_follows_one_and_then_the_other() -> None:
    """The second begins from its own start."""
    both = Schedule.recurs(2).concat(Schedule.exponential("1 s").up_to(times=2))
    assert delays(both, 9) == [0, 0, 1, 2, "done"]


def test_outputs_and_delays_are_changed() -> None:
    """`map`, `add_delay`, `modify_delay` and `passthrough` change what they name."""
    assert steps(Schedule.recurs(1).map(str), [None] * 2) == [("0", 0), ("1", "done")]
    assert delays(Schedule.spaced("1 s").add_delay(lambda _: "2 s"), 2) == [3, 3]
    assert delays(Schedule.spaced("1 s").modify_delay(lambda _, delay: delay * 4), 1) == [4]
    assert steps(Schedule.recurs(1).passthrough(), ["a", "b"]) == [("a", 0), ("b", "done")]


def test_tap_runs_an_effect_at_every_step(world: TestRuntime) -> None:
    """Also through other combinators, and at the last step."""
    log: list[int] = []
    tapped = Schedule.recurs(2).tap(lambda n: Effect.sync(lambda: log.append(n)))
    assert world.run(Effect.succeed("x").repeat(tapped.map(str).max(Schedule.forever()))) == ("2", 2)
    assert log == [0, 1, 2]


def test_a_tick_knows_the_time_between_steps() -> None:
    """Elapsed since the start, and since the step before."""
    first = Tick(None, 1, START, START + seconds(2), max)
    assert (first.elapsed, first.elapsed_since_previous) == (seconds(2), seconds(0))
    second = Tick(None, 2, START, START + seconds(5), max, START + seconds(2))
    assert (second.elapsed, second.elapsed_since_previous) == (seconds(5), seconds(3))


def test_the_driver_tells_the_time_between_steps(world: TestRuntime) -> None:
    """A schedule of one's own sees attempt, input and times."""
    seen: list[tuple[int, Any, timedelta, timedelta]] = []

    def step(state: Any, tick: Tick) -> Again[None]:
        seen.append((tick.attempt, tick.input, tick.elapsed, tick.elapsed_since_previous))
        return Again(None, seconds(2), state)

    world.run(Effect.succeed("v").repeat(Schedule(step).up_to(times=1)))
    assert seen == [(1, "v", seconds(0), seconds(0)), (2, "v", seconds(2), seconds(2))]


def test_one_schedule_serves_many_runs(world: TestRuntime) -> None:
    """State is made per run, so nothing is left over."""
    schedule = Schedule.fibonacci("1 s").up_to(times=3)
    effect = Effect.succeed(1).repeat(schedule).timed().map(lambda pair: pair[0])
    assert world.run(effect) == world.run(effect) == seconds(4)


def test_the_state_between_two_steps_is_plain_data() -> None:
    """A step made from a stored state answers what the unbroken run would have."""
    schedule = Schedule.fibonacci("1 s")
    one = schedule.next(schedule.initial, Tick(None, 1, START, START, max))
    assert isinstance(one, Again)
    two = schedule.next(tuple(one.state), Tick(None, 2, START, START, max))
    assert isinstance(two, Again)
    assert schedule.next(two.state, Tick(None, 3, START, START, max)) == Again(
        seconds(2), seconds(2), (seconds(3), seconds(5))
    )


def test_retry_waits_by_the_clock(world: TestRuntime) -> None:
    """Three retries with delays 1, 2 and 4 take seven seconds."""
    world.run_exit(Effect.fail("e").retry(Schedule.exponential("1 s").up_to(times=3)))
    assert world.now == START + seconds(7)


def test_a_schedule_that_says_nothing_is_refused() -> None:
    """`repeat()` and `retry()` need a limit or a schedule."""
    with pytest.raises(TypeError, match="how often"):
        Effect.void.repeat()
    with pytest.raises(TypeError, match="how often"):
        Effect.void.retry()


# ---- the clock of tests ------------------------------------------------------------------------------------


def test_a_program_can_ask_for_the_time(world: TestRuntime) -> None:
    """`Clock.now` answers the virtual time."""

    @Effect.gen
    def program() -> Do[timedelta]:
        before = yield from Clock.now()
        yield from Effect.sleep("3 s")
        return (yield from Clock.now()) - before

    assert world.run(program()) == seconds(3)
    assert world.run_exit(program() | provide_service(Clock, world.clock)) == Success(seconds(3))
