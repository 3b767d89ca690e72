"""Cron: recorded answers, a calendar searched by brute force, and the days when clocks change."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from durable_effect.cron import Cron

RECORDED = Path(__file__).parent / "data" / "cron_next.json"
ZONES = [
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/New_York",
    "America/Santiago",
    "America/Scoresbysund",
    "America/St_Johns",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def ticks(cron: Cron, after: datetime, count: int) -> list[str]:
    """The next ticks, as the zone's own clock shows them."""
    shown = []
    for _ in range(count):
        after = cron.next_after(after)
        shown.append(after.astimezone(ZoneInfo(cron.tz)).strftime("%m-%d %H:%M:%S%z"))
    return shown


def test_all_recorded_answers_hold() -> None:
    """Every recorded (expression, zone, after) has the recorded next tick."""
    rows = json.loads(RECORDED.read_text())
    wrong = [
        (row, found.isoformat())
        for row in rows
        if (found := Cron.parse(row["expression"], row["zone"]).next_after(at(row["after"])))
        != at(row["next"])
    ]
    assert len(rows) == 3281
    assert wrong == []


class Field(NamedTuple):
    """A field as text, and what it means."""

    text: str
    values: frozenset[int]

    @property
    def starred(self) -> bool:
        return self.text.startswith("*")


def items(low: int, high: int) -> st.SearchStrategy[Field]:
    value, step = st.integers(low, high), st.integers(1, max(high // 2, 1))
    pair = st.tuples(value, value).map(sorted)
    return st.one_of(
        value.map(lambda v: Field(str(v), frozenset({v}))),
        pair.map(lambda p: Field(f"{p[0]}-{p[1]}", frozenset(range(p[0], p[1] + 1)))),
        st.builds(lambda p, n: Field(f"{p[0]}-{p[1]}/{n}", frozenset(range(p[0], p[1] + 1, n))), pair, step),
        st.builds(lambda v, n: Field(f"{v}/{n}", frozenset(range(v, high + 1, n))), value, step),
    )


def fields(low: int, high: int) -> st.SearchStrategy[Field]:
    everything = frozenset(range(low, high + 1))
    return st.one_of(
        st.just(Field("*", everything)),
        st.integers(1, high).map(lambda n: Field(f"*/{n}", frozenset(range(low, high + 1, n)))),
        st.lists(items(low, high), min_size=1, max_size=3).map(
            lambda found: Field(
                ",".join(f.text for f in found), frozenset().union(*(f.values for f in found))
            )
        ),
    )


class Schedule(NamedTuple):
    """An expression, field by field."""

    second: Field
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @property
    def text(self) -> str:
        return " ".join(field.text for field in self)

    def falls_on(self, day: date) -> bool:
        monthday, weekday = day.day in self.day.values, day.isoweekday() % 7 in self.weekday.values
        both = self.day.starred or self.weekday.starred
        return day.month in self.month.values and (monthday and weekday if both else monthday or weekday)

    def walls_from(self, wall: datetime) -> Iterator[datetime]:
        """All wall clock times that fit, in order, for the next four hundred days."""
        for day in (wall.date() + timedelta(days=n) for n in range(400)):
            if self.falls_on(day):
                for h, m, s in product(*(sorted(f.values) for f in (self.hour, self.minute, self.second))):
                    fit = datetime(day.year, day.month, day.day, h, m, s)
                    if fit > wall:
                        yield fit


SCHEDULES = st.builds(
    Schedule,
    st.just(Field("0", frozenset({0}))) | fields(0, 59),
    fields(0, 59),
    fields(0, 23),
    fields(1, 31),
    fields(1, 12),
    fields(0, 6),
)


@cache
def clock_changes(zone: ZoneInfo) -> list[datetime]:
    """The hours of 2025 and 2026 in which the zone changes its offset, or January 1 where it never does."""
    hours = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(2 * 365 * 24)]
    offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
    return [hours[n] for n in range(1, len(hours)) if offsets[n] != offsets[n - 1]] or hours[:1]


@st.composite
def instants(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """Instants that crowd around the zone's clock changes."""
    near = draw(st.sampled_from(clock_changes(zone)))
    span = draw(st.sampled_from([timedelta(hours=2), timedelta(days=2), timedelta(days=200)]))
    return near + draw(st.timedeltas(-span, span))


def first_instant_shown(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the zone's clock first shows `wall`; when it never does, as far after the gap."""
    naive = wall.replace(tzinfo=UTC)
    offsets = {(naive + timedelta(days=n)).astimezone(zone).utcoffset() or timedelta(0) for n in (-1, 0, 1)}
    shown = [naive - offset for offset in offsets]
    shown = [instant for instant in shown if instant.astimezone(zone).replace(tzinfo=None) == wall]
    before_the_gap = (naive - timedelta(days=1)).astimezone(zone).utcoffset() or timedelta(0)
    return min(shown, default=naive - before_the_gap)


@settings(deadline=None)
@given(st.data(), SCHEDULES, st.sampled_from(ZONES))
def test_a_brute_force_search_finds_the_same_tick(data: st.DataObject, schedule: Schedule, tz: str) -> None:
    """The next tick is the first wall clock time from here on that fits and whose instant is yet to come."""
    zone = ZoneInfo(tz)
    after = data.draw(instants(zone))
    walls = schedule.walls_from(after.astimezone(zone).replace(tzinfo=None, fold=0))
    wanted = next((tick for wall in walls if (tick := first_instant_shown(wall, zone)) > after), None)
    try:
        found = Cron.parse(schedule.text, tz).next_after(after)
    except ValueError:
        assert wanted is None
    else:
        assert found == wanted if wanted else found > after + timedelta(days=398)


@settings(deadline=None)
@given(
    st.data(), SCHEDULES.filter(lambda s: s.month.text == "*" and s.day.text == "*"), st.sampled_from(ZONES)
)
def test_a_tick_is_a_whole_second_in_utc_and_strictly_later(
    data: st.DataObject, s: Schedule, tz: str
) -> None:
    """Ticks lie strictly after the instant asked about, on whole seconds, in UTC."""
    after = data.draw(instants(ZoneInfo(tz)))
    tick = Cron.parse(s.text, tz).next_after(after)
    assert tick > after
    assert tick.tzinfo is UTC
    assert tick.microsecond == 0


def test_a_time_skipped_in_spring_is_due_once_as_far_after_the_gap() -> None:
    """At 02:30 on a day without one, the tick comes at 03:30, and the next day at 02:30 again."""
    cron = Cron.parse("30 2 * * *", "Europe/Berlin")
    assert ticks(cron, at("2026-03-28T12:00:00Z"), 3) == [
        "03-29 03:30:00+0200",
        "03-30 02:30:00+0200",
        "03-31 02:30:00+0200",
    ]


def test_a_time_repeated_in_autumn_is_due_the_first_time_only() -> None:
    """At 02:30 on a day with two of them, the tick comes with the first one."""
    cron = Cron.parse("30 2 * * *", "Europe/Berlin")
    assert ticks(cron, at("2026-10-24T12:00:00Z"), 2) == ["10-25 02:30:00+0200", "10-26 02:30:00+0100"]
    assert ticks(cron, at("2026-10-25T01:15:00Z"), 1) == ["10-26 02:30:00+0100"]


@pytest.mark.parametrize(
    ("tz", "second_pass", "end"),
    [
        ("Europe/Berlin", "2026-10-25T01:00:00.5Z", "2026-10-25T02:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"),
        ("America/Santiago", "2026-04-05T03:00:00Z", "2026-04-05T04:00:00Z"),
    ],
)
def test_nothing_is_due_while_the_clock_repeats_itself(tz: str, second_pass: str, end: str) -> None:
    """Even a tick for every second pauses for the second pass, and goes on when that is over."""
    assert Cron.parse("* * * * * *", tz).next_after(at(second_pass)) == at(end)


def test_either_day_will_do_when_both_are_restricted() -> None:
    """The 13th and every Friday: a day that is either one is due."""
    cron = Cron.parse("0 0 13 * FRI")
    assert ticks(cron, at("2026-01-01T00:00:00Z"), 4) == [
        "01-02 00:00:00+0000",
        "01-09 00:00:00+0000",
        "01-13 00:00:00+0000",
        "01-16 00:00:00+0000",
    ]


@pytest.mark.parametrize("expression", ["0 0 */5 * FRI", "0 0 1,6,11,16,21,26,31 * */5"])
def test_both_days_must_fit_when_one_begins_with_a_star(expression: str) -> None:
    """A leading star, even with a step, makes the two days narrow each other."""
    days = ticks(Cron.parse(expression), at("2026-01-01T12:00:00Z"), 40)
    assert "01-16 00:00:00+0000" in days
    assert "01-06 00:00:00+0000" not in days
    assert "01-09 00:00:00+0000" not in days


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 JAN *"),
        ("0 9 * * mon-FRI", "0 9 * * 1-5"),
        ("0 9 * jan,Jul-SEP *", "0 9 * 1,7,8,9 *"),
        ("0 9 * * 7", "0 9 * * 0"),
        ("0 9 * * 5-7", "0 9 * * FRI,SAT,SUN"),
        ("0 9 * * SAT-SUN", "0 9 * * 0,6"),
        ("0 9 * * 1/2", "0 9 * * 1,3,5"),
        ("5-5 * * * *", "5 * * * *"),
        ("59/15 * * * *", "59 * * * *"),
        ("  05   9\t* * * ", "5 9 * * *"),
        ("0 5 9 * * *", "5 9 * * *"),
    ],
)
def test_two_ways_to_write_the_same_schedule(expression: str, same: str) -> None:
    """Names, ranges, steps, aliases and a leading second of 0 mean what their longer forms mean."""
    after = at("2026-01-01T00:00:00Z")
    assert ticks(Cron.parse(expression), after, 8) == ticks(Cron.parse(same), after, 8)


def test_six_fields_begin_with_the_second() -> None:
    """With six fields the first one is the second, the last one still the weekday."""
    cron = Cron.parse("15,45 0 4 * * 1")
    assert ticks(cron, at("2026-01-01T00:00:00Z"), 3) == [
        "01-05 04:00:15+0000",
        "01-05 04:00:45+0000",
        "01-12 04:00:15+0000",
    ]


def test_leap_days_are_waited_for() -> None:
    """February 29 comes when it comes, even when it must also be a weekend."""
    assert Cron.parse("0 0 29 2 *").next_after(at("2026-01-01T00:00:00Z")) == at("2028-02-29T00:00:00Z")
    assert Cron.parse("0 0 29 2 *").next_after(at("2096-03-01T00:00:00Z")) == at("2104-02-29T00:00:00Z")
    assert Cron.parse("0 0 29 2 */6").next_after(at("2026-01-01T00:00:00Z")) == at("2032-02-29T00:00:00Z")


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("60 * * * *", "minute: '60'"),
        ("* 24 * * *", "hour: '24'"),
        ("60 * * * * *", "second: '60'"),
        ("* * 0 * *", "day of month: '0'"),
        ("* * 32 * *", "day of month: '32'"),
        ("* * * 13 *", "month: '13'"),
        ("* * * 0 *", "month: '0'"),
        ("* * * * 8", "day of week: '8'"),
        ("* * * mon *", "month: 'mon'"),
        ("jan * * * *", "minute: 'jan'"),
        ("* * * january *", "month: cannot read 'january'"),
        ("*/0 * * * *", "minute: the step 0"),
        ("*/60 * * * *", "minute: the step 60"),
        ("0-10/99 * * * *", "minute: the step 99"),
        ("* */24 * * *", "hour: the step 24"),
        ("* * */32 * *", "day of month: the step 32"),
        ("* * * */13 *", "month: the step 13"),
        ("* * * * */7", "day of week: the step 7"),
        ("30-10 * * * *", "minute: the range 30-10 runs backwards"),
        ("* * * * FRI-MON", "day of week: the range fri-mon runs backwards"),
        ("1,,2 * * * *", "minute: cannot read ''"),
        ("-5 * * * *", "minute: cannot read '-5'"),
        ("*-5 * * * *", "minute: cannot read"),
        ("5- * * * *", "minute: cannot read '5-'"),
        ("1.5 * * * *", "minute: cannot read '1.5'"),
        ("\u0663 * * * *", "minute: cannot read"),
        ("R * * * *", "minute: cannot read 'r'"),
        ("H * * * *", "minute: cannot read 'h'"),
        ("* * ? * *", "day of month: cannot read"),
        ("* * L * *", "day of month: cannot read 'l'"),
        ("* * 15W * *", "day of month: cannot read '15w'"),
        ("* * * * 1#2", "day of week: cannot read '1#2'"),
        ("* * 30 2 *", "day of month: 30 never comes in month 2"),
        ("* * 31 2,APR *", "day of month: 31 never comes in month 2,4"),
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("@reboot", "1 fields"),
        ("0," * 128 + "0 * * * *", "longer than 256"),
    ],
)
def test_a_bad_expression_is_refused_with_the_field_at_fault(expression: str, problem: str) -> None:
    """What cannot be read, or never comes, is a ValueError at once that names the field."""
    with pytest.raises(ValueError, match="cron expression") as refusal:
        Cron.parse(expression)
    assert problem in str(refusal.value)


@given(st.text("0123456789*/,-@#?LWRH jan\n", max_size=30))
def test_no_text_is_anything_but_a_schedule_or_a_value_error(text: str) -> None:
    """Whatever the text, the answer is a schedule or a ValueError."""
    try:
        cron = Cron.parse(text)
    except ValueError:
        return
    assert cron.next_after(at("2026-01-01T00:00:00Z")) > at("2026-01-01T00:00:00Z")


@pytest.mark.parametrize("tz", ["Mars/Olympus", "", "../etc/passwd", "Europe", "\udc80", None, 5])
def test_an_unknown_zone_is_refused(tz: object) -> None:
    """A zone that is not in the database is a ValueError at once."""
    with pytest.raises(ValueError, match="not a known time zone"):
        Cron.parse("* * * * *", tz)  # type: ignore[arg-type]  # the point of the test


def test_an_expression_is_text() -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match="must be text"):
        Cron.parse(5)  # type: ignore[arg-type]  # the point of the test


def test_the_instant_asked_about_may_be_in_any_zone() -> None:
    """The same instant has the same next tick, whatever zone it is written in."""
    cron = Cron.parse("0 9 * * *", "America/New_York")
    instant = at("2026-07-01T12:59:59.999999Z")
    there = instant.astimezone(timezone(timedelta(hours=9)))
    assert cron.next_after(instant) == cron.next_after(there) == at("2026-07-01T13:00:00Z")


def test_a_naive_datetime_is_refused() -> None:
    """Nobody knows which instant a naive datetime is."""
    cron, aware = Cron.parse("* * * * *"), at("2026-01-01T00:00:00Z")
    with pytest.raises(ValueError, match="after must be an aware datetime"):
        cron.next_after(datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="until must be an aware datetime"):
        cron.catch_up(aware, datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="after must be an aware datetime"):
        cron.catch_up(datetime(2026, 1, 1), aware)


@pytest.mark.parametrize(
    ("expression", "after"),
    [
        ("* * * * *", "9999-12-31T23:59:59.999999+00:00"),
        ("0 0 29 2 *", "9997-01-01T00:00:00+00:00"),
        ("0 0 1 1 *", "9999-06-01T00:00:00+00:00"),
        ("* * * * *", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_the_end_of_the_calendar_is_an_overflow(expression: str, after: str) -> None:
    """Where datetime ends, next_after says so with an OverflowError."""
    with pytest.raises(OverflowError, match="no tick after"):
        Cron.parse(expression, "America/New_York").next_after(at(after))
    with pytest.raises(OverflowError, match="no tick after"):
        Cron.parse(expression, "America/New_York").catch_up(at(after), at(after))


def test_asking_leaves_no_trace() -> None:
    """next_after changes nothing in the schedule, which threads may therefore share."""
    cron = Cron.parse("*/10 * * * *")
    untouched = pickle.dumps(cron)
    assert cron.next_after(at("2030-01-01T00:00:00Z")) == at("2030-01-01T00:10:00Z")
    assert pickle.dumps(cron) == untouched


def test_a_microsecond_before_a_tick_is_before_it() -> None:
    """Instants are compared to the microsecond, even where a float of seconds could not tell them apart."""
    cron = Cron.parse("* * * * * *")
    assert cron.next_after(at("9999-12-31T23:59:57.999999Z")) == at("9999-12-31T23:59:58Z")


def test_ticks_passed_are_later_than_the_start_and_not_later_than_the_end() -> None:
    """A tick at the start has not passed, one at the end has, and the tick after the end is told too."""
    cron = Cron.parse("*/10 * * * *")
    start, end = at("2026-01-01T00:00:00Z"), at("2026-01-01T01:00:00Z")
    assert cron.catch_up(start, end) == (6, at("2026-01-01T01:10:00Z"))
    assert cron.catch_up(start, end - timedelta(microseconds=1)) == (5, end)
    assert cron.catch_up(start - timedelta(microseconds=1), end) == (7, at("2026-01-01T01:10:00Z"))
    assert cron.catch_up(start, start) == (0, at("2026-01-01T00:10:00Z"))


def test_nothing_has_passed_when_the_end_is_before_the_start() -> None:
    """An early look has passed no tick, and the next one is still later than the start."""
    cron = Cron.parse("*/10 * * * *", "Europe/Berlin")
    start, next_tick = at("2026-01-15T00:05:00Z"), at("2026-01-15T00:10:00Z")
    assert cron.catch_up(start, start - timedelta(hours=4)) == (0, next_tick)
    assert cron.catch_up(start, start - timedelta(days=400)) == (0, next_tick)


@pytest.mark.parametrize(
    ("expression", "tz", "after", "until", "count"),
    [
        ("* * * * * *", "UTC", "2025-01-01", "2026-01-01", 365 * 86_400),
        ("* * * * * *", "UTC", "2024-01-01", "2025-01-01", 366 * 86_400),
        ("* * * * *", "UTC", "2016-01-01", "2026-01-01", 3653 * 1440),
        ("* * * * * *", "Asia/Kolkata", "2025-01-01", "2026-01-01", 365 * 86_400),
        # An hour of silence each autumn, in which the clock repeats itself; no silence in spring.
        ("* * * * * *", "Europe/Berlin", "2025-01-01", "2026-01-01", 365 * 86_400 - 3600),
        ("* * * * *", "America/New_York", "2016-01-01", "2026-01-01", 3653 * 1440 - 10 * 60),
        ("* * * * *", "Australia/Lord_Howe", "2025-01-01", "2026-01-01", 365 * 1440 - 30),
        ("30 2 * * *", "Europe/Berlin", "2016-01-01", "2026-01-01", 3653),
        # Of four ticks within the hour that is skipped each spring, one is due.
        ("*/15 2 * * *", "Europe/Berlin", "2016-01-01", "2026-01-01", 4 * 3653 - 10 * 3),
        # In 2020 and 2026 that is within the skipped hour; in the other years there are three ticks.
        ("0,10,20 2 29 3 *", "Europe/Berlin", "2018-01-01", "2027-01-01", 7 * 3 + 2),
        # December 30 was skipped, and its noon fell on that of December 31.
        ("0 12 * * *", "Pacific/Apia", "2011-12-29", "2012-01-02", 3),
        ("0 0 29 2 *", "UTC", "2000-01-01", "2400-01-01", 97),
        ("0 0 13 * FRI", "UTC", "2000-01-01", "2400-01-01", 4800 + 20_871 - 688),
        ("0 0 13,*/31 * FRI", "UTC", "2000-01-01", "2400-01-01", 2 * 4800 + 20_871 - 687 - 688),
        ("0 0 5,* * FRI", "UTC", "2000-01-01", "2400-01-01", 20_871),
        ("0 0 */12 * 5", "UTC", "2000-01-01", "2400-01-01", 687 + 688 + 687),
    ],
)
def test_known_counts(expression: str, tz: str, after: str, until: str, count: int) -> None:
    """Years of ticks come to the number that the calendar says."""
    zone = ZoneInfo(tz)
    start, end = (at(day).replace(tzinfo=zone) - timedelta(seconds=1) for day in (after, until))
    assert Cron.parse(expression, tz).catch_up(start, end)[0] == count


def parsed(schedule: Schedule, tz: str) -> Cron:
    try:
        return Cron.parse(schedule.text, tz)
    except ValueError:
        assume(False)
        raise


@settings(deadline=None)
@given(st.data(), SCHEDULES, st.sampled_from(ZONES), st.integers(0, 120))
def test_catching_up_finds_what_a_walk_finds(
    data: st.DataObject, schedule: Schedule, tz: str, passed: int
) -> None:
    """From any instant to any other, count and next tick are those of asking tick by tick."""
    cron = parsed(schedule, tz)
    until = after = data.draw(instants(ZoneInfo(tz)))
    for _ in range(passed):
        until = cron.next_after(until)
    coming = cron.next_after(until)
    until = data.draw(st.sampled_from([until, coming - timedelta(microseconds=1)]))
    assert cron.catch_up(after, until) == (passed, coming)


@settings(deadline=None)
@given(st.data(), SCHEDULES, st.sampled_from(ZONES))
def test_catching_up_twice_is_catching_up_once(data: st.DataObject, schedule: Schedule, tz: str) -> None:
    """Wherever years of ticks are split, at the first tick after some instant, the parts are the whole."""
    cron = parsed(schedule, tz)
    after = data.draw(instants(ZoneInfo(tz)))
    between = after + data.draw(st.timedeltas(timedelta(0), timedelta(days=800)))
    first, tick = cron.catch_up(after, between)
    until = tick + data.draw(st.timedeltas(timedelta(0), timedelta(days=800)))
    second, coming = cron.catch_up(tick, until)
    assert cron.catch_up(after, until) == (first + 1 + second, coming)


@pytest.mark.parametrize(
    ("tz", "day"),
    [
        ("Africa/Casablanca", "2026-03-22"),
        ("America/Santiago", "2026-09-06"),
        ("Australia/Lord_Howe", "2026-04-05"),
        ("Australia/Lord_Howe", "2026-10-04"),
        ("Europe/Berlin", "2026-03-29"),
        ("Europe/Berlin", "2026-10-25"),
        ("Pacific/Apia", "2011-12-30"),
        ("America/New_York", "2026-07-01"),
    ],
)
@pytest.mark.parametrize(
    "expression", ["*/20 * * * *", "10,45 1-3 * * *", "5 0,3 5,* * *", "40 2 */2 * SUN", "15 23 6,*/29 * */6"]
)
def test_every_hour_of_a_day_whose_clock_changes(expression: str, tz: str, day: str) -> None:
    """Between any two quarters of an hour around a change, catching up is what a walk finds."""
    cron = Cron.parse(expression, tz)
    first = at(f"{day}T00:00:00Z") - timedelta(hours=15)
    quarters = [first + n * timedelta(minutes=15) for n in range(32 * 4)]
    for after in quarters[::9]:
        passed, coming = 0, cron.next_after(after)
        for until in (quarter for quarter in quarters if quarter >= after):
            while coming <= until:
                passed, coming = passed + 1, cron.next_after(coming)
            assert cron.catch_up(after, until) == (passed, coming)


def test_a_fold_means_nothing_in_utc() -> None:
    """The second pass of an hour that was not repeated is that hour."""
    cron, noon = Cron.parse("* * * * * *"), at("2026-01-01T12:00:00Z")
    assert cron.next_after(noon.replace(fold=1)) == noon + timedelta(seconds=1)
    assert cron.catch_up(noon.replace(fold=1), noon.replace(fold=1)) == (0, noon + timedelta(seconds=1))


def test_the_last_ticks_of_the_calendar_are_counted() -> None:
    """The end of the year 9999 is no obstacle while a tick is left."""
    cron = Cron.parse("* * * * * *")
    after, until = at("9999-12-30T12:00:00Z"), at("9999-12-31T23:59:58Z")
    assert cron.catch_up(after, until) == (36 * 3600 - 2, until + timedelta(seconds=1))


WITHOUT_A_DATABASE = """
import sys, zoneinfo
sys.modules["tzdata"] = None
zoneinfo.reset_tzpath(to=())
from datetime import UTC, datetime, timedelta
from durable_effect.cron import Cron
cron = Cron.parse("30 9 * * *")
noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
print(repr(cron), cron.next_after(noon), cron.catch_up(noon, noon + timedelta(days=365))[0])
try:
    Cron.parse("30 9 * * *", "Europe/Berlin")
except ValueError as refusal:
    print(refusal)
"""


def test_utc_needs_no_time_zone_database() -> None:
    """Where there is neither a system database nor tzdata, UTC works and other zones say what to install."""
    script = [sys.executable, "-c", WITHOUT_A_DATABASE]
    ran = subprocess.run(script, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "Cron(expression='30 9 * * *', tz='UTC') 2026-01-02 09:30:00+00:00 365",
        "tz 'Europe/Berlin' cannot be looked up: this system has no time zone database;"
        " install the package tzdata",
    ]


def test_a_schedule_is_a_value() -> None:
    """Equal expressions in equal zones are equal schedules, survive pickling and cannot be changed."""
    cron = Cron.parse("@daily", "Europe/Berlin")
    assert cron == Cron.parse("@daily", ZoneInfo("Europe/Berlin")) == pickle.loads(pickle.dumps(cron))
    assert len({cron, Cron.parse("@daily", "Europe/Berlin"), Cron.parse("@daily")}) == 2
    assert repr(cron) == "Cron(expression='@daily', tz='Europe/Berlin')"
    with pytest.raises(AttributeError):
        cron.tz = "UTC"  # type: ignore[misc]  # the point of the test
