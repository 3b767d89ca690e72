"""When a cron expression is due.

    Cron.parse("30 9 * * MON-FRI", tz="Europe/Berlin").next_after(now)

Five fields: minute, hour, day of month, month, day of week; six when the first one is a second. A field is
`*`, a value, a range `a-b`, any of these with a step (`*/15`, `8-18/2`, `8/2`), or a list of them with
commas. Months and weekdays have names of three letters; Sunday is 0, 7 or SUN. `@hourly`, `@daily`,
`@weekly`, `@monthly` and `@yearly` stand for what they say.

With both days restricted, a day that fits either one is due. The exception is old and widespread: when either
of the two begins with `*`, as `*/2` does, a day must fit both (https://crontab.guru/cron-bug.html).

The expression is read off a wall clock in the zone. A time that the clock skips in spring is due once, as far
after the gap as it would have been into it; a time that the clock shows twice in autumn is due once, the
first time.

Zones come from the system, or from the package `tzdata` where the system has none. UTC needs neither.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_left, bisect_right
from calendar import monthrange
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final, NoReturn, Protocol, cast
from zoneinfo import ZoneInfo

import attrs

__all__ = ["Cron"]

_LONGEST_EXPRESSION: Final = 256
_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_ITEM: Final = re.compile(r"(\*|[0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?(?:/([0-9]{1,3}))?")
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)


@attrs.frozen
class Cron:
    """A schedule by the wall clock: `Cron.parse("0 9 * * MON-FRI", tz="Europe/Berlin")`.

    `expression` is kept as it was written, `tz` is the name of an IANA zone. Two schedules are equal when
    both are. `Cron.parse` is how to make one.
    """

    expression: str
    tz: str
    _zone: tzinfo = attrs.field(eq=False, repr=False)
    _walk: _Walk = attrs.field(eq=False, repr=False)
    _calendar: _Calendar = attrs.field(eq=False, repr=False)

    @staticmethod
    def parse(expression: str, tz: str | ZoneInfo = "UTC") -> Cron:
        """Read an expression, to be followed in the zone `tz`.

        A field that cannot be read, a date that never comes such as February 30, an expression of more than
        256 characters and a zone that is not known are a `ValueError` that says which field and why.
        """
        name = tz.key if isinstance(tz, ZoneInfo) else tz
        zone = _zone_named(name)
        walk, calendar = _read(expression)
        return Cron(expression, name, zone, walk, calendar)

    def next_after(self, after: datetime) -> datetime:
        """The first tick later than `after`, as an aware UTC datetime on a whole second.

        `after` may be in any zone, but a naive datetime is a `ValueError`. Where no tick is left before the
        end of the year 9999 it is an `OverflowError`.
        """
        _require_aware(after, "after")
        try:
            return self._first_tick(_to_the_second(after))
        except (OverflowError, ValueError):  # the walk says either when it leaves the calendar
            self._refuse_after(after)

    def catch_up(self, after: datetime, until: datetime) -> tuple[int, datetime]:
        """How many ticks are later than `after` and not later than `until`, and the tick that follows them.

        That is what asking `next_after`, from `after` on and then from tick to tick, would come to; but it
        counts whole months at a time, and takes milliseconds for ten years of any schedule. An `until` before
        `after` has passed no tick. Naive datetimes and the end of the calendar are refused as they are there.
        """
        _require_aware(after, "after")
        _require_aware(until, "until")
        try:
            return self._count_up(_to_the_second(after), _to_the_second(until))
        except (OverflowError, ValueError):
            self._refuse_after(max(after, until))

    def _count_up(self, after: datetime, until: datetime) -> tuple[int, datetime]:
        count = 0
        for leap in _leaps(self._zone, after, until):
            if leap <= after:
                continue  # the tick after an earlier leap was not before this one
            # The walk crosses a leap in one step: to the first skipped time that fits, which is due as far
            # after the leap, if there is one. It goes on from what the clock shows then, past the other ones.
            count += self._count(after, leap - _SECOND)
            after = self._first_tick(leap - _SECOND)
            if after > until:
                return count, after
            count += 1
        if after < until:
            count += self._count(after, until)
        return count, self._first_tick(max(after, until))

    def _count(self, after: datetime, until: datetime) -> int:
        """The ticks later than `after` and not later than `until`, between which no clock leaps."""
        return self._calendar.count(_latest_shown(after, self._zone), _latest_shown(until, self._zone))

    def _first_tick(self, after: datetime) -> datetime:
        walk = copy.copy(self._walk)  # it remembers where it is, and threads may share this schedule
        wall = walk.get_next(datetime, _latest_shown(after, self._zone))
        # The first of two readings; in a gap this is the offset before it, hence a time as far after it.
        return wall.replace(tzinfo=self._zone).astimezone(UTC)

    def _refuse_after(self, instant: datetime) -> NoReturn:
        raise OverflowError(f"{self!r} has no tick after {instant} that a datetime can hold") from None


def _require_aware(instant: datetime, name: str) -> None:
    if instant.utcoffset() is None:
        raise ValueError(f"{name} must be an aware datetime, such as datetime.now(UTC), not {instant!r}")


def _to_the_second(instant: datetime) -> datetime:
    # No tick and no clock change lies within a second. A fold means nothing in UTC, but would be kept.
    return instant.astimezone(UTC).replace(microsecond=0, fold=0)


def _zone_named(tz: str) -> tzinfo:
    if tz == "UTC":
        return UTC
    zone = _looked_up(tz)
    if zone is None:
        raise ValueError(f"tz {tz!r} {_why_unknown()}")
    return zone


def _looked_up(tz: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, OSError):  # by what is wrong with the name
        return None


def _why_unknown() -> str:
    if _looked_up("Etc/UTC") is None:  # every database has this one
        return "cannot be looked up: this system has no time zone database; install the package tzdata"
    return "is not a known time zone; write a name such as 'Europe/Berlin'"


# -- clocks that change --------------------------------------------------------------------------------------


def _leaps(zone: tzinfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """When the zone's clock is set forward: the first instants with the new time, in `after < leap <= until`.

    A look at each day finds them all, for no clock is changed twice within a day; in the whole database no
    two changes of a zone are less than three days apart.
    """
    offset = _offset(after, zone)
    while after < until:
        later = after + min(_DAY, until - after)
        new_offset = _offset(later, zone)
        if new_offset > offset:
            yield _change(zone, after, later)
        after, offset = later, new_offset


def _change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """The first instant, to the second, with the offset of `after`; `before` has another one."""
    offset = _offset(after, zone)
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _offset(middle, zone) == offset:
            after = middle
        else:
            before = middle
    return after


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return cast("timedelta", instant.astimezone(zone).utcoffset())


def _latest_shown(instant: datetime, zone: tzinfo) -> datetime:
    """The latest time that the zone's clock has shown up to `instant`, a whole second.

    That is what it shows, unless it repeats itself: then it has shown the whole repetition before.
    """
    wall = instant.astimezone(zone)
    shown = wall.replace(tzinfo=None, fold=0)
    return _end_of_repetition(shown, zone) - _SECOND if wall.fold else shown


def _end_of_repetition(wall: datetime, zone: tzinfo) -> datetime:
    """The first wall clock time, to the second, that is no longer shown twice; `wall` is."""
    shown_twice, shown_once = 0, round(_set_back(wall, zone).total_seconds())
    while shown_once - shown_twice > 1:
        middle = (shown_twice + shown_once) // 2
        if _set_back(wall + middle * _SECOND, zone) > timedelta(0):
            shown_twice = middle
        else:
            shown_once = middle
    return wall + shown_once * _SECOND


def _set_back(wall: datetime, zone: tzinfo) -> timedelta:
    """By how much the clock is set back between the two times it shows `wall`; zero when it shows it once."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return second - first


# -- expressions ---------------------------------------------------------------------------------------------


class _Walk(Protocol):
    """The part of croniter that is used: from one wall clock time to the next that fits."""

    def get_next(self, ret_type: type[datetime], start_time: datetime) -> datetime: ...


@attrs.frozen
class _Calendar:
    """The values of each field, to count what the walk would find one by one."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool
    """Whether a day need fit one of `days` and `weekdays` only."""

    def count(self, after: datetime, until: datetime) -> int:
        """How many wall clock times that fit are later than `after` and not later than `until`."""
        whole_days = self._days_before(until.date()) - self._days_before(after.date())
        for year, month in _months(after.date(), until.date()):
            whole_days += len(self._days_of(year, month))
        per_day = len(self.hours) * len(self.minutes) * len(self.seconds)
        return whole_days * per_day + self._on_the_day(until) - self._on_the_day(after)

    def _days_of(self, year: int, month: int) -> list[int]:
        if month not in self.months:
            return []
        first, length = monthrange(year, month)  # weekdays here count from Monday, ours from Sunday
        return [day for day in range(1, length + 1) if self._fits(day, (first + day) % 7)]

    def _fits(self, day: int, weekday: int) -> bool:
        if self.either_day:
            return day in self.days or weekday in self.weekdays
        return day in self.days and weekday in self.weekdays

    def _days_before(self, day: date) -> int:
        """The days that fit from the first of the month on, without `day` itself."""
        return bisect_left(self._days_of(day.year, day.month), day.day)

    def _on_the_day(self, until: datetime) -> int:
        """The times that fit from midnight up to and including `until`."""
        return self._times(until.time()) if until.day in self._days_of(until.year, until.month) else 0

    def _times(self, until: time) -> int:
        minutes = bisect_left(self.hours, until.hour) * len(self.minutes)
        seconds = 0
        if until.hour in self.hours:
            minutes += bisect_left(self.minutes, until.minute)
            if until.minute in self.minutes:
                seconds = bisect_right(self.seconds, until.second)
        return minutes * len(self.seconds) + seconds


def _months(first: date, last: date) -> Iterator[tuple[int, int]]:
    """The year and month of each month from that of `first` on, without that of `last`."""
    for number in range(first.year * 12 + first.month - 1, last.year * 12 + last.month - 1):
        yield number // 12, number % 12 + 1


@attrs.frozen
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int] = attrs.Factory(dict[str, int])

    def plain(self, text: str) -> str:
        """The same field in a form with one reading only: stars as they are, all else as listed values."""
        return ",".join(self._plain_item(item) for item in text.lower().split(","))

    def listed(self, plain: str) -> list[int]:
        """The values that a plain form stands for, in order."""
        values: set[int] = set()
        for item in plain.split(","):
            first, _, step = item.partition("/")
            values.update(range(self.low, self.high + 1, int(step or 1)) if first == "*" else (int(first),))
        return sorted(values)

    def _plain_item(self, item: str) -> str:
        match = _ITEM.fullmatch(item)
        if match is None or (match[1] == "*" and match[2]):
            self._refuse(
                f"cannot read {item!r}; write *, a value, a range a-b, or one of these with a step /n"
            )
        step = self._step(match[3])
        if match[1] == "*":
            return item
        return ",".join(str(value) for value in self._values(match[1], match[2], step))

    def _values(self, first: str, last: str | None, step: int | None) -> list[int]:
        low = self._value(first)
        high = self._end(low, last, step)
        if low > high:
            self._refuse(
                f"the range {first}-{last} runs backwards; write two ranges with a comma between them"
            )
        values = range(low, high + 1, step or 1)
        return [value % 7 for value in values] if self is _WEEKDAY else list(values)

    def _end(self, low: int, last: str | None, step: int | None) -> int:
        if last is None:
            return low if step is None else max(low, self.high)
        high = self._value(last)
        # A week that begins with Monday ends with Sunday.
        return 7 if last == "sun" and low > high else high

    def _value(self, text: str) -> int:
        value = int(text) if text.isdigit() else self.names.get(text)
        high = 7 if self is _WEEKDAY else self.high  # 7 is another name of Sunday, not one more day
        if value is None or not self.low <= value <= high:
            names = " or a name of three letters" if self.names else ""
            self._refuse(f"{text!r} is not within {self.low} and {high}{names}")
        return value

    def _step(self, text: str | None) -> int | None:
        if text is None:
            return None
        if not 1 <= int(text) <= self.high:
            self._refuse(f"the step {text} is not within 1 and {self.high}")
        return int(text)

    def _refuse(self, problem: str) -> NoReturn:
        raise ValueError(f"{self.name}: {problem}")


def _numbered(names: str, start: int) -> dict[str, int]:
    return {name: number for number, name in enumerate(names.split(), start)}


_WEEKDAY: Final = _Field("day of week", 0, 6, _numbered("sun mon tue wed thu fri sat", 0))
_FIELDS: Final = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _numbered("jan feb mar apr may jun jul aug sep oct nov dec", 1)),
    _WEEKDAY,
)


def _read(expression: object) -> tuple[_Walk, _Calendar]:
    if not isinstance(expression, str):
        raise ValueError(f"a cron expression must be text, not {expression!r}")
    try:
        fields = _plain_fields(expression)
        return _walk_over(fields), _calendar_of(fields)
    except ValueError as problem:
        raise ValueError(f"cron expression {expression[:_LONGEST_EXPRESSION]!r}: {problem}") from None


def _plain_fields(expression: str) -> list[str]:
    if len(expression) > _LONGEST_EXPRESSION:
        raise ValueError(f"longer than {_LONGEST_EXPRESSION} characters")
    texts = _ALIASES.get(expression, expression).split()
    if len(texts) not in (5, 6):
        raise ValueError(
            f"{len(texts)} fields; write 5 (minute, hour, day of month, month, day of week)"
            " or 6 (second first)"
        )
    return [field.plain(text) for field, text in zip(_FIELDS[-len(texts) :], texts, strict=True)]


def _walk_over(fields: list[str]) -> _Walk:
    # Costs more to import than all the rest of this package, and only cron schedules need it.
    from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]  # it has no types

    # Without second_at_beginning a sixth field is last; implement_cron_bug is the rule of the leading `*`.
    walk = cast("_Walk", croniter(" ".join(fields), second_at_beginning=True, implement_cron_bug=True))
    try:
        copy.copy(walk).get_next(datetime, datetime(2000, 1, 1))
    except CroniterBadDateError:
        raise ValueError(f"day of month: {fields[-3]} never comes in month {fields[-2]}") from None
    return walk


def _calendar_of(fields: list[str]) -> _Calendar:
    texts = ["0", *fields][-len(_FIELDS) :]
    seconds, minutes, hours, days, months, weekdays = (
        field.listed(text) for field, text in zip(_FIELDS, texts, strict=True)
    )
    return _Calendar(
        tuple(seconds),
        tuple(minutes),
        tuple(hours),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
        either_day=not (_starred(texts[3]) or _starred(texts[5])),
    )


def _starred(text: str) -> bool:
    """Whether a field of days narrows the other one: it begins with a star, or restricts nothing."""
    return text.startswith("*") or "*" in text.split(",")
