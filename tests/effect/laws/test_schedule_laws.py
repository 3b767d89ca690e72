"""What holds for every schedule, asked step by step, without any waiting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from programs import NEW_YEAR

from durable_effect import Schedule
from durable_effect.schedule import Again, Tick

ZERO = timedelta()
AnySchedule = Schedule[Any, Any]
spans = st.integers(1, 10_000).map(lambda ms: timedelta(milliseconds=ms))
counts = st.integers(0, 8)
schedules: st.SearchStrategy[AnySchedule] = st.one_of(
    counts.map(Schedule.recurs),
    spans.map(Schedule.spaced),
    spans.map(Schedule.fixed),
    spans.map(Schedule.exponential),
    spans.map(Schedule.fibonacci),
    spans.map(Schedule.duration),
    st.builds(lambda span, times: Schedule.spaced(span).up_to(times=times), spans, counts),
)


def high(_: float, most: float) -> float:
    return most


def delays(
    schedule: AnySchedule, steps: int = 12, dice: Callable[[float, float], float] = high
) -> list[timedelta]:
    """The waits that a schedule asks for, until it is done, when every run takes no time."""
    waits: list[timedelta] = []
    state, now, previous = schedule.initial, NEW_YEAR, None
    for attempt in range(1, steps + 1):
        decided = schedule.next(state, Tick("input", attempt, NEW_YEAR, now, dice, previous))
        if not isinstance(decided, Again):
            break
        waits.append(decided.delay)
        state, previous, now = decided.state, now, now + decided.delay
    return waits


@given(schedules)
def test_a_schedule_is_a_value(schedule: AnySchedule) -> None:
    """It answers the same every time: what has happened is in the state, not in the schedule."""
    assert delays(schedule) == delays(schedule)
    assert all(delay >= ZERO for delay in delays(schedule))


@given(counts, spans)
def test_how_often_and_how_long(times: int, span: timedelta) -> None:
    """`recurs` goes on so often, `spaced` and `fixed` so far apart, `duration` once."""
    assert delays(Schedule.recurs(times)) == [ZERO] * times
    assert delays(Schedule.spaced(span)) == delays(Schedule.fixed(span)) == [span] * 12
    assert delays(Schedule.duration(span)) == [span]


@given(spans, st.sampled_from([1.0, 1.5, 2.0, 3.0]))
def test_growth(span: timedelta, factor: float) -> None:
    """Exponential delays grow by their factor, each fibonacci delay is the sum of the two before."""
    for attempt, delay in enumerate(delays(Schedule.exponential(span, factor))):
        assert abs(delay - span * factor**attempt) <= timedelta(microseconds=1)
    waits = delays(Schedule.fibonacci(span))
    assert waits[:2] == [span, span]
    assert [a + b for a, b in pairwise(waits)][:-1] == waits[2:]


@given(schedules, schedules)
def test_intersection_and_union(one: AnySchedule, two: AnySchedule) -> None:
    """`max` waits for the slower and ends with the first, `min` for the faster and ends with the last.

    The clock stands still here, as the two have different ideas of when the next step is.
    """
    a, b = _in_place(one), _in_place(two)
    shorter, longer = min(len(a), len(b)), max(len(a), len(b))
    assert _in_place(one.max(two)) == [max(x, y) for x, y in zip(a, b, strict=False)]
    assert len(_in_place(one.max(two))) == shorter
    assert len(_in_place(one.min(two))) == longer
    for x, y, both in zip(a, b, _in_place(one.min(two)), strict=False):
        assert both == min(x, y)
    assert _in_place(one.max(two)) == _in_place(two.max(one))
    assert _in_place(one.min(two)) == _in_place(two.min(one))
    assert _in_place(one.max(Schedule.forever())) == a


def _in_place(schedule: AnySchedule) -> list[timedelta]:
    waits, state = [], schedule.initial
    for attempt in range(1, 13):
        decided = schedule.next(state, Tick("input", attempt, NEW_YEAR, NEW_YEAR, high))
        if not isinstance(decided, Again):
            break
        waits.append(decided.delay)
        state = decided.state
    return waits


@given(schedules, counts, spans)
def test_limits(schedule: AnySchedule, times: int, span: timedelta) -> None:
    """`up_to` is a beginning of the schedule; the last step of a limited time starts within it."""
    assert delays(schedule.up_to(times=times)) == delays(schedule)[:times]
    limited = delays(schedule.up_to(span=span))
    assert limited == delays(schedule)[: len(limited)]
    assert sum(limited[:-1], ZERO) <= span
    assert delays(schedule.up_to(times=12)) == delays(schedule)


@given(schedules, st.floats(0, 1))
def test_jitter_stays_within_its_bounds(schedule: AnySchedule, roll: float) -> None:
    """A jittered delay is within a fifth of the delay, and is the delay itself when the bounds are 1."""
    jittered = delays(schedule.jittered(), 1, lambda low, most: low + (most - low) * roll)
    for delay, spread in zip(delays(schedule, 1), jittered, strict=True):
        slack = timedelta(microseconds=1)
        assert delay * 0.8 - slack <= spread <= delay * 1.2 + slack
    assert delays(schedule.jittered(1, 1)) == delays(schedule)


@given(schedules)
def test_maps_change_no_delay(schedule: AnySchedule) -> None:
    """`map` and `passthrough` change outputs only; adding nothing to a delay changes nothing."""
    expected = delays(schedule)
    for other in (
        schedule.map(repr),
        schedule.passthrough(),
        schedule.add_delay(lambda _: ZERO),
        schedule.modify_delay(lambda _, delay: delay),
        schedule.while_(lambda _: True),
        schedule.until(lambda _: False),
    ):
        assert delays(other) == expected
    assert delays(schedule.while_(lambda _: False)) == []


@given(counts, counts, spans, spans)
def test_one_after_the_other(first: int, second: int, a: timedelta, b: timedelta) -> None:
    """`concat` is the one schedule to its end and then the other."""
    one, two = Schedule.spaced(a).up_to(times=first), Schedule.spaced(b).up_to(times=second)
    assert delays(one.concat(two), 20) == [a] * first + [b] * second
