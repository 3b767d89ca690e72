"""``durable-effect next``: when a cron expression is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from terminal import Said

Typed: TypeAlias = Callable[..., Said]


def test_times_are_printed_in_the_zone_and_in_utc(typed: Typed) -> None:
    """Weekdays at half past nine in New York, from a Friday on."""
    said = typed(
        "next", "30 9 * * MON-FRI", "--tz", "America/New_York", "--count", "3", "--after", "2026-01-02T12:00"
    )

    assert said.returncode == 0
    assert said.stdout.splitlines() == [
        "Mon 2026-01-05 09:30:00-05:00 EST  2026-01-05T14:30:00Z",
        "Tue 2026-01-06 09:30:00-05:00 EST  2026-01-06T14:30:00Z",
        "Wed 2026-01-07 09:30:00-05:00 EST  2026-01-07T14:30:00Z",
    ]


def test_a_time_that_the_clock_skips_is_due_as_far_after_the_gap(typed: Typed) -> None:
    """Half past two does not exist in Berlin on the last Sunday of March."""
    said = typed("next", "30 2 * * *", "--tz", "Europe/Berlin", "--after", "2026-03-28T03:00", "--count", "2")

    assert said.stdout.splitlines() == [
        "Sun 2026-03-29 03:30:00+02:00 CEST  2026-03-29T01:30:00Z",
        "Mon 2026-03-30 02:30:00+02:00 CEST  2026-03-30T00:30:00Z",
    ]


def test_five_times_are_printed_unless_told_otherwise(typed: Typed) -> None:
    """UTC and five times are the defaults, and six fields have seconds."""
    said = typed("next", "*/20 * * * * *", "--after", "2026-01-01T00:00:00Z")

    assert [line.split()[-1] for line in said.stdout.splitlines()] == [
        "2026-01-01T00:00:20Z",
        "2026-01-01T00:00:40Z",
        "2026-01-01T00:01:00Z",
        "2026-01-01T00:01:20Z",
        "2026-01-01T00:01:40Z",
    ]


def test_an_offset_in_after_counts_and_the_zone_does_not(typed: Typed) -> None:
    """The same instant, written with an offset and read off the clock in the zone."""
    with_offset = typed("next", "0 * * * *", "--tz", "Asia/Tokyo", "--after", "2026-06-01T00:30:00Z")
    on_the_clock = typed("next", "0 * * * *", "--tz", "Asia/Tokyo", "--after", "2026-06-01T09:30")

    assert with_offset.stdout == on_the_clock.stdout
    assert with_offset.stdout.startswith("Mon 2026-06-01 10:00:00+09:00 JST  2026-06-01T01:00:00Z\n")


def test_the_end_of_the_calendar_is_a_failure(typed: Typed) -> None:
    """What was due before it is printed all the same."""
    said = typed("next", "0 0 31 12 *", "--after", "9998-01-01T00:00", "--count", "5")

    assert said.returncode == 1
    assert [line.split()[-1] for line in said.stdout.splitlines()] == [
        "9998-12-31T00:00:00Z",
        "9999-12-31T00:00:00Z",
    ]
    assert "no tick after" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["61 * * * *"], "minute: '61' is not within 0 and 59"),
        (["0 0 30 2 *"], "0 0 30 2 *"),
        (["every day"], "every day"),
        (["0 9 * * *", "--tz", "Mars/Olympus"], "Mars/Olympus"),
        (["0 9 * * *", "--after", "tomorrow"], "'tomorrow' is no ISO date and time"),
        (["0 9 * * *", "--count", "0"], "--count"),
        ([], "CRON"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused(typed: Typed, arguments: list[str], problem: str) -> None:
    """One message that names what is wrong, and exit code 2."""
    said = typed("next", *arguments)

    assert said.returncode == 2
    assert problem in said.stderr
    assert "Traceback" not in said.stderr
    assert said.stdout == ""
