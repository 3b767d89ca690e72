"""Spans: from numbers, from text, and back to text."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect.duration import Duration, NotASpan, to_timedelta

UNITS = {
    timedelta(milliseconds=1): ["ms", "milli", "millis", "millisecond", "milliseconds"],
    timedelta(seconds=1): ["s", "sec", "secs", "second", "seconds"],
    timedelta(minutes=1): ["m", "min", "mins", "minute", "minutes"],
    timedelta(hours=1): ["h", "hr", "hrs", "hour", "hours"],
    timedelta(days=1): ["d", "day", "days"],
    timedelta(weeks=1): ["w", "week", "weeks"],
}
SPELLINGS = [(unit, spelling) for unit, spellings in UNITS.items() for spelling in spellings]


@pytest.mark.parametrize(("unit", "spelling"), SPELLINGS)
def test_every_spelling_of_every_unit_is_read(unit: timedelta, spelling: str) -> None:
    """A number and any spelling of a unit, with or without a space, is that many units."""
    assert Duration.parse(f"3 {spelling}") == Duration.parse(f"3{spelling}") == 3 * unit


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1.5 hours", timedelta(minutes=90)),
        ("0.1s", timedelta(milliseconds=100)),
        ("0.001 ms", timedelta(microseconds=1)),
        ("0 seconds", timedelta(0)),
        ("0.0000w", timedelta(0)),
        ("007m", timedelta(minutes=7)),
        ("1.0000015s", timedelta(seconds=1, microseconds=2)),
        ("999999999 days", timedelta(days=999_999_999)),
    ],
)
def test_decimals_are_exact_to_the_microsecond(text: str, span: timedelta) -> None:
    """Amounts are decimals, not floats, and are rounded to the microsecond."""
    assert Duration.parse(text) == span


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "minutes",
        " 5 minutes",
        "5 minutes ",
        "5  minutes",
        "5\tminutes",
        "5 minutes\n",
        "5 Minutes",
        "5M",
        "5 months",
        "5 min.",
        "1h 30m",
        "1h30m",
        "-5 seconds",
        "+5 seconds",
        "1e3 s",
        ".5 s",
        "5. s",
        "1,5 s",
        "1_000 s",
        "nan s",
        "inf s",
        "infinity",
        "0x10 s",
        "\u0663 s",
        "5 \u017f",
        "1" * 64 + "s",
    ],
)
def test_anything_outside_the_grammar_is_refused_by_showing_the_grammar(text: str) -> None:
    """Text that is not one number and one unit is a ValueError that says how a span is written."""
    with pytest.raises(ValueError, match="<number><optional space><unit>") as refusal:
        Duration.parse(text)
    assert not isinstance(refusal.value, NotASpan)


@given(st.text(max_size=12))
def test_no_text_is_anything_but_a_span_or_a_value_error(text: str) -> None:
    """Whatever the text, the answer is a span or a ValueError, never another error."""
    try:
        span = Duration.parse(text)
    except ValueError:
        return
    assert span >= timedelta(0)


@pytest.mark.parametrize("text", ["1000000000 days", "99999999999999999999 w"])
def test_a_span_longer_than_any_timedelta_is_refused(text: str) -> None:
    """What timedelta cannot hold is a ValueError, not an OverflowError."""
    with pytest.raises(ValueError, match="too long"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["0.0001 ms", "0.0000001s", "0.00049ms"])
def test_a_span_too_short_to_be_told_from_zero_is_refused(text: str) -> None:
    """Less than a microsecond, yet not zero, is refused instead of becoming zero."""
    with pytest.raises(ValueError, match="below one microsecond"):
        Duration.parse(text)


def test_constructors_count_in_their_unit() -> None:
    """Each constructor makes so many of its unit, whole or not."""
    assert Duration.millis(250) == timedelta(milliseconds=250)
    assert Duration.seconds(0.1) == timedelta(milliseconds=100)
    assert Duration.minutes(5) == timedelta(minutes=5)
    assert Duration.hours(1.5) == timedelta(minutes=90)
    assert Duration.days(2) == timedelta(days=2)
    assert Duration.weeks(0) == timedelta(0)


@pytest.mark.parametrize(
    "amount", [-1, -0.5, float("nan"), float("inf"), float("-inf"), 1e308, 10**400, 1e-9]
)
def test_constructors_refuse_what_is_no_span(amount: float) -> None:
    """Negative, NaN, infinite, oversized and vanishing amounts are ValueErrors."""
    with pytest.raises(ValueError, match="span"):
        Duration.seconds(amount)


@pytest.mark.parametrize("amount", ["5", None, True, Decimal(5), timedelta(1)])
def test_constructors_refuse_what_is_no_number(amount: object) -> None:
    """An amount that is not an int or a float is NotASpan."""
    with pytest.raises(NotASpan, match="must be a number"):
        Duration.seconds(amount)  # type: ignore[arg-type]  # the point of the test


@given(st.timedeltas(min_value=timedelta(0)))
def test_format_and_parse_are_inverse(span: timedelta) -> None:
    """What format writes, parse reads back unchanged, down to the microsecond."""
    assert Duration.parse(Duration.format(span)) == span


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(microseconds=1), "0.001ms"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(milliseconds=1500), "1.5s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=90), "90m"),
        (timedelta(hours=36), "36h"),
        (timedelta(days=3), "3d"),
        (timedelta(days=14), "2w"),
        (timedelta.max, "86399999999999.999999s"),
    ],
)
def test_format_chooses_the_largest_unit_without_decimals(span: timedelta, text: str) -> None:
    """Text stays short: the largest unit of which the span is a whole number."""
    assert Duration.format(span) == text


def test_options_accept_timedeltas_and_text_alike() -> None:
    """A timedelta is taken as it is, text is read."""
    assert to_timedelta("5 minutes") == to_timedelta(timedelta(minutes=5)) == timedelta(minutes=5)


def test_a_refusal_names_the_option() -> None:
    """The error says which option was wrong."""
    with pytest.raises(ValueError, match=r"^flush_after: cannot read 'soon'"):
        to_timedelta("soon", name="flush_after")
    with pytest.raises(ValueError, match=r"^flush_after must not be negative"):
        to_timedelta(timedelta(seconds=-1), name="flush_after")


@pytest.mark.parametrize("zero", ["0s", timedelta(0)])
def test_zero_is_a_span_unless_it_must_be_positive(zero: str | timedelta) -> None:
    """Zero passes by default and is refused where a span must be positive."""
    assert to_timedelta(zero) == timedelta(0)
    with pytest.raises(ValueError, match="every must be longer than zero"):
        to_timedelta(zero, positive=True, name="every")


def test_a_bare_number_is_told_to_name_its_unit() -> None:
    """A number without a unit is a TypeError, and a ValueError, that shows how to write it."""
    with pytest.raises(NotASpan, match="write the unit: '5 seconds'") as refusal:
        to_timedelta(5, name="every")  # type: ignore[arg-type]  # the point of the test
    assert isinstance(refusal.value, TypeError)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize("value", [None, True, b"5s", ["5s"]])
def test_other_types_are_no_spans(value: object) -> None:
    """Neither None nor a bool nor bytes is a span."""
    with pytest.raises(NotASpan, match="must be a timedelta or text"):
        to_timedelta(value)  # type: ignore[arg-type]  # the point of the test
