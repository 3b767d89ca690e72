"""Values that JSON has no type for, written as text: instants, spans, UUIDs, decimals, paths, bytes."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from durable_effect.schema.problem import Mismatch, found
from durable_effect.schema.shapes import TEXT, Shape


class Written(Shape):
    """A value of the type `kind`, as text that matches `pattern` entirely.

    `json_format` is JSON Schema's name for the text. No two patterns marked as `apart` match the same text,
    so that a union of them has one reading.
    """

    __slots__ = ("_check", "_expected", "_pattern", "_read", "_write", "apart", "json_format", "kind")

    def __init__(
        self,
        kind: type,
        pattern: str,
        *,
        expected: str,
        read: Callable[[str], Any],
        write: Callable[[Any], str],
        check: Callable[[Any], str | None] = lambda _: None,
        json_format: str | None = None,
        apart: bool = True,
    ) -> None:
        super().__init__(kind.__name__, str, types=(kind,))
        self.kind = kind
        self.json_format = json_format
        self.apart = apart
        self._expected = expected
        self._pattern = re.compile(pattern, re.ASCII | re.DOTALL)
        self._read = read
        self._write = write
        self._check = check

    def decode(self, data: Any, _: object = None, /) -> Any:
        text = TEXT.decode(data)
        if self._pattern.fullmatch(text) is None:
            raise Mismatch(f"expected {self._expected}")
        try:
            value = self._read(text)
        except (ValueError, OverflowError, ArithmeticError):
            raise Mismatch(f"expected {self._expected}") from None
        return self._checked(value)

    def encode(self, value: Any, /) -> str:
        return TEXT.decode(self._write(self._checked(value)))

    def _checked(self, value: Any) -> Any:
        if not isinstance(value, self.kind):
            raise found(self.name, value)
        wrong = self._check(value)
        if wrong is not None:
            raise Mismatch(wrong)
        return value


def _naive(value: dt.datetime) -> str | None:
    if value.utcoffset() is not None:
        return None
    return "expected a datetime with a time zone, found a naive one"


def _not_a_date(value: dt.date) -> str | None:
    return "expected date, found datetime" if isinstance(value, dt.datetime) else None


def _zone_without_offset(value: dt.time) -> str | None:
    if value.tzinfo is not None and value.utcoffset() is None:
        return "expected a time with a fixed offset or none, found a zone whose offset depends on the date"
    return None


def _not_finite(value: Decimal) -> str | None:
    return None if value.is_finite() else "expected a finite Decimal"


_DATE: Final = r"\d{4}-\d\d-\d\d"
_TIME: Final = r"\d\d:\d\d(:\d\d([.]\d{1,6})?)?"
_OFFSET: Final = r"(Z|[+-]\d\d:\d\d(:\d\d([.]\d{6})?)?)"
_SPAN: Final = (
    r"(?P<sign>-?)P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?"
    r"(?:(?P<seconds>\d+)(?:[.](?P<fraction>\d{1,6}))?S)?)?"
)


def _read_span(text: str) -> dt.timedelta:
    match = re.fullmatch(_SPAN, text, re.ASCII)
    if match is None or text[-1] in "PT":
        raise ValueError
    parts = match.groupdict(default="0")
    span = dt.timedelta(
        **{unit: int(parts[unit]) for unit in ("weeks", "days", "hours", "minutes", "seconds")},
        microseconds=int(parts["fraction"].ljust(6, "0")),
    )
    return -span if match["sign"] else span


def _write_span(span: dt.timedelta) -> str:
    seconds, microseconds = divmod(abs(span) // dt.timedelta(microseconds=1), 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{microseconds:06}" if microseconds else ""
    clock = "".join(f"{amount}{unit}" for amount, unit in ((hours, "H"), (minutes, "M")) if amount)
    clock += f"{seconds}{fraction}S" if seconds or fraction else ""
    date = f"{days}D" if days else ""
    sign = "-" if span < dt.timedelta() else ""
    return f"{sign}P{date}T{clock}" if clock else f"{sign}P{date or 'T0S'}"


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


DATETIME: Final = Written(
    dt.datetime,
    rf"{_DATE}[T ]{_TIME}({_OFFSET})?",
    expected="a datetime such as 2026-01-31T12:00:00+00:00",
    read=dt.datetime.fromisoformat,
    write=dt.datetime.isoformat,
    check=_naive,
    json_format="date-time",
)
DATE: Final = Written(
    dt.date,
    _DATE,
    expected="a date such as 2026-01-31",
    read=dt.date.fromisoformat,
    write=dt.date.isoformat,
    check=_not_a_date,
    json_format="date",
)
TIME: Final = Written(
    dt.time,
    rf"{_TIME}({_OFFSET})?",
    expected="a time such as 12:30:00",
    read=dt.time.fromisoformat,
    write=dt.time.isoformat,
    check=_zone_without_offset,
    json_format="time",
)
SPAN: Final = Written(
    dt.timedelta,
    _SPAN,
    expected="an ISO 8601 duration such as PT1H30M",
    read=_read_span,
    write=_write_span,
    json_format="duration",
)
ID: Final = Written(
    UUID,
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    expected="a UUID such as 123e4567-e89b-12d3-a456-426614174000",
    read=UUID,
    write=str,
    json_format="uuid",
)
DECIMAL: Final = Written(
    Decimal,
    r"-?\d+([.]\d+)?([eE][+-]?\d+)?",
    expected="a decimal number as text, such as '12.50'",
    read=Decimal,
    write=str,
    check=_not_finite,
)
PATH: Final = Written(Path, r".*", expected="a path", read=Path, write=str, apart=False)
BYTES: Final = Written(
    bytes,
    r"[A-Za-z0-9+/]*={0,2}",
    expected="bytes in base64",
    read=_read_bytes,
    write=_write_bytes,
    json_format="byte",
    apart=False,
)

WRITTEN: Final = {shape.kind: shape for shape in (DATETIME, DATE, TIME, SPAN, ID, DECIMAL, PATH, BYTES)}
