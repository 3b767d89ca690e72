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
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
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


@attrs.frozen
class Cron:
    """A schedule by the wall clock: `Cron.parse("0 9 * * MON-FRI", tz="Europe/Berlin")`.

    `expression` is kept as it was written, `tz` is the name of an IANA zone. Two schedules are equal when
    both are. `Cron.parse` is how to make one.
    """

    expression: str
    tz: str
    _zone: ZoneInfo = attrs.field(eq=False, repr=False)
    _walk: _Walk = attrs.field(eq=False, repr=False)

    @staticmethod
    def parse(expression: str, tz: str | ZoneInfo = "UTC") -> Cron:
        """Read an expression, to be followed in the zone `tz`.

        A field that cannot be read, a date that never comes such as February 30, an expression of more than
        256 characters and a zone that is not known are a `ValueError` that says which field and why.
        """
        zone = _zone_named(tz.key if isinstance(tz, ZoneInfo) else tz)
        return Cron(expression, zone.key, zone, _walk_of(expression))

    def next_after(self, after: datetime) -> datetime:
        """The first tick later than `after`, as an aware UTC datetime on a whole second.

        `after` may be in any zone, but a naive datetime is a `ValueError`. Where no tick is left before the
        end of the year 9999 it is an `OverflowError`.
        """
        _require_aware(after, "after")
        try:
            return self._first_tick(after.astimezone(UTC))
        except (OverflowError, ValueError):  # the walk says either when it leaves the calendar
            raise OverflowError(f"{self!r} has no tick after {after} that a datetime can hold") from None

    def missed_between(self, after: datetime, until: datetime, limit: int) -> int:
        """How many ticks are later than `after` and not later than `until`; counting stops at `limit`."""
        _require_aware(until, "until")
        count, tick = 0, after
        while count < limit and (tick := self.next_after(tick)) <= until:
            count += 1
        return count

    def _first_tick(self, after: datetime) -> datetime:
        walk = copy.copy(self._walk)  # it remembers where it is, and threads may share this schedule
        wall = after.astimezone(self._zone).replace(tzinfo=None, fold=0, microsecond=0)
        while True:
            wall = walk.get_next(datetime, wall)
            # The first of two readings; in a gap this is the offset before it, hence a time as far after it.
            tick = wall.replace(tzinfo=self._zone).astimezone(UTC)
            if tick > after:
                return tick
            # `after` is in the second pass of a repeated hour, whose ticks were due in the first pass.
            wall = _end_of_repetition(wall, self._zone) - _SECOND


class _Walk(Protocol):
    """The part of croniter that is used: from one wall clock time to the next that fits."""

    def get_next(self, ret_type: type[datetime], start_time: datetime) -> datetime: ...


def _require_aware(instant: datetime, name: str) -> None:
    if instant.utcoffset() is None:
        raise ValueError(f"{name} must be an aware datetime, such as datetime.now(UTC), not {instant!r}")


def _zone_named(tz: str) -> ZoneInfo:
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, OSError):  # by what is wrong with the name
        raise ValueError(
            f"tz {tz!r} is not a known time zone; write a name such as 'Europe/Berlin'"
        ) from None


def _end_of_repetition(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first wall clock time, to the second, that is no longer shown twice; `wall` is."""
    shown_twice, shown_once = 0, round(_set_back(wall, zone).total_seconds())
    while shown_once - shown_twice > 1:
        middle = (shown_twice + shown_once) // 2
        if _set_back(wall + middle * _SECOND, zone) > timedelta(0):
            shown_twice = middle
        else:
            shown_once = middle
    return wall + shown_once * _SECOND


def _set_back(wall: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clock is set back between the two times it shows `wall`; zero when it shows it once."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return second - first


@attrs.frozen
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int] = attrs.Factory(dict[str, int])

    def plain(self, text: str) -> str:
        """The same field in a form with one reading only: stars as they are, all else as listed values."""
        return ",".join(self._plain_item(item) for item in text.lower().split(","))

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


def _walk_of(expression: object) -> _Walk:
    if not isinstance(expression, str):
        raise ValueError(f"a cron expression must be text, not {expression!r}")
    try:
        return _walk_over(_plain_fields(expression))
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
