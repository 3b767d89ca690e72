"""Spans of time.

A span is a `datetime.timedelta`. Wherever one is expected, text will do as well:

    Duration.minutes(5)  ==  Duration.parse("5 minutes")  ==  to_timedelta("5m")

The text is one number and one unit, with at most one space between them: "250ms", "1.5 hours", "30 seconds".
Units are lower case only, because "5M" may mean minutes to one reader and months to another. There are no
signs, no exponents and no sums ("1h 30m"): a span that can be misread is refused.

A span is never negative and never infinite. Amounts are computed as exact decimals and rounded to the
microsecond, which is the resolution of `timedelta`; an amount that is not zero but below one microsecond is
refused instead of becoming zero in silence.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from fractions import Fraction
from typing import Final, TypeAlias, final

__all__ = ["Duration", "NotASpan", "Span", "to_timedelta"]

Span: TypeAlias = timedelta | str
"""What every option that takes a span accepts: a `timedelta`, or text such as "5 minutes"."""

_MICROSECOND: Final = timedelta(microseconds=1)
_MILLI: Final = 1_000
_SECOND: Final = 1_000 * _MILLI
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY

_SPELLINGS: Final = {
    _MILLI: ("ms", "milli", "millis", "millisecond", "milliseconds"),
    _SECOND: ("s", "sec", "secs", "second", "seconds"),
    _MINUTE: ("m", "min", "mins", "minute", "minutes"),
    _HOUR: ("h", "hr", "hrs", "hour", "hours"),
    _DAY: ("d", "day", "days"),
    _WEEK: ("w", "week", "weeks"),
}
_MICROSECONDS: Final = {spelling: size for size, spellings in _SPELLINGS.items() for spelling in spellings}
_GRAMMAR: Final = (
    "a span is <number><optional space><unit>, such as '5 minutes', '1.5h' or '250ms'; the units are "
    + ", ".join(_MICROSECONDS)
)
_TEXT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+)")
_LONGEST_TEXT: Final = 64  # far more digits than timedelta can hold, and few enough to print back


class NotASpan(TypeError, ValueError):
    """A value of a type that cannot be a span, such as a bare number whose unit nobody can know.

    It is a `TypeError`, and a `ValueError` too, so that whoever checks a definition has one error to expect.
    """


@final
class Duration:
    """Makes spans, reads them from text and writes them as text. Every result is a `timedelta`.

    The constructors take any finite number that is not negative: `Duration.hours(1.5)`. Anything else is a
    `ValueError`.
    """

    __slots__ = ()

    @staticmethod
    def millis(amount: float) -> timedelta:
        """So many milliseconds: `Duration.millis(250)`."""
        return _of(amount, _MILLI)

    @staticmethod
    def seconds(amount: float) -> timedelta:
        """So many seconds: `Duration.seconds(30)`."""
        return _of(amount, _SECOND)

    @staticmethod
    def minutes(amount: float) -> timedelta:
        """So many minutes: `Duration.minutes(5)`."""
        return _of(amount, _MINUTE)

    @staticmethod
    def hours(amount: float) -> timedelta:
        """So many hours: `Duration.hours(1.5)`."""
        return _of(amount, _HOUR)

    @staticmethod
    def days(amount: float) -> timedelta:
        """So many days of exactly 24 hours: `Duration.days(2)`."""
        return _of(amount, _DAY)

    @staticmethod
    def weeks(amount: float) -> timedelta:
        """So many weeks of exactly seven days: `Duration.weeks(1)`."""
        return _of(amount, _WEEK)

    @staticmethod
    def parse(text: str) -> timedelta:
        """Read a span from text: `Duration.parse("5 minutes")`.

        Anything outside the grammar is a `ValueError` that shows the grammar.
        """
        return _parse(text, "span")

    @staticmethod
    def format(span: timedelta) -> str:
        """Write a span as short text that `Duration.parse` reads back unchanged: "90m", "1.5s", "0s".

        The unit is the largest one that needs no decimals. What is no whole number of seconds is written with
        decimals of a second, or of a millisecond when it is shorter than a second.
        """
        amount = to_timedelta(span) // _MICROSECOND
        if amount == 0:
            return "0s"
        for size in (_WEEK, _DAY, _HOUR, _MINUTE, _SECOND):
            if amount % size == 0:
                return f"{amount // size}{_SPELLINGS[size][0]}"
        return _decimal(amount, _SECOND) if amount > _SECOND else _decimal(amount, _MILLI)


def to_timedelta(span: Span, *, positive: bool = False, name: str = "span") -> timedelta:
    """The `timedelta` that a span stands for: `to_timedelta("5 minutes", name="flush_after")`.

    `positive` refuses a span of zero too; `name` is what the error calls the option. A negative, unreadable
    or oversized span is a `ValueError`; a value that is neither a `timedelta` nor text is `NotASpan`.
    """
    found = _parse(span, name) if isinstance(span, str) else _checked(span, name)
    if positive and not found:
        raise ValueError(f"{name} must be longer than zero")
    return found


def _checked(span: object, name: str) -> timedelta:
    if not isinstance(span, timedelta):
        raise NotASpan(f"{name} must be a timedelta or text, not {span!r}{_suggestion(span)}")
    if span < timedelta(0):
        raise ValueError(f"{name} must not be negative: {span!r}")
    return span


def _suggestion(span: object) -> str:
    """A bare number nearly always means seconds, yet only its author can say so."""
    if isinstance(span, int | float) and not isinstance(span, bool):
        return f"; write the unit: '{span} seconds'"
    return ""


def _parse(text: str, name: str) -> timedelta:
    _require_text(text, name)
    match = _TEXT.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None or match[2] not in _MICROSECONDS:
        raise ValueError(f"{name}: cannot read {text[:_LONGEST_TEXT]!r}; {_GRAMMAR}")
    return _exact(Fraction(match[1]) * _MICROSECONDS[match[2]], name, text)


def _require_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise NotASpan(f"{name} must be text, not {text!r}{_suggestion(text)}")


def _of(amount: float, size: int) -> timedelta:
    _require_number(amount)
    if amount < 0 or (isinstance(amount, float) and not math.isfinite(amount)):
        raise ValueError(f"a span must be finite and not negative: {amount!r}")
    # A float is taken as the decimal it is written as: 0.1 is a tenth, not 0.1000000000000000055.
    exact = Fraction(amount) if isinstance(amount, int) else Fraction(str(float(amount)))
    return _exact(exact * size, "span", amount)


def _require_number(amount: object) -> None:
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise NotASpan(f"the amount of a span must be a number, not {amount!r}")


def _exact(microseconds: Fraction, name: str, given: object) -> timedelta:
    if 0 < microseconds < 1:
        raise ValueError(f"{name}: {given!r} is below one microsecond, the shortest span there is")
    try:
        return timedelta(microseconds=round(microseconds))
    except OverflowError:
        raise ValueError(f"{name}: {given!r} is too long; the longest span is {timedelta.max}") from None


def _decimal(amount: int, size: int) -> str:
    whole, rest = divmod(amount, size)
    digits = str(rest).zfill(len(str(size)) - 1).rstrip("0")
    return f"{whole}{'.' if digits else ''}{digits}{_SPELLINGS[size][0]}"
