"""Canonical JSON: one text for one value, read strictly and within limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_effect.canonical_json import from_json_bytes, to_json_bytes
from durable_effect.schema import Schema, SchemaError


def read(data: bytes, *, max_bytes: int = 1_000_000, max_depth: int = 64) -> Any:
    """What a text stands for, within generous limits."""
    return from_json_bytes(data, max_bytes=max_bytes, max_depth=max_depth)


def refusal(data: bytes, *, max_bytes: int = 1_000_000, max_depth: int = 64) -> str:
    """Why a text is refused."""
    with pytest.raises(SchemaError) as raised:
        read(data, max_bytes=max_bytes, max_depth=max_depth)
    assert raised.value.schema_name == "JSON"
    (problem,) = raised.value.problems
    assert problem.path == "$"
    return problem.message


def test_one_text_for_one_value() -> None:
    """ASCII, sorted keys, no spaces: the order in which a dict was filled does not show."""
    assert to_json_bytes({"b": [1, 2.5, None, True], "a": "é😀"}) == (
        b'{"a":"\\u00e9\\ud83d\\ude00","b":[1,2.5,null,true]}'
    )
    assert to_json_bytes({"a": 1, "b": 2}) == to_json_bytes({"b": 2, "a": 1})


@settings(deadline=None)
@given(Schema.unknown.strategy())
def test_what_is_written_is_read(value: Any) -> None:
    """Every JSON value comes back, and is written as the same text again."""
    data = to_json_bytes(value)

    assert read(data) == value
    assert to_json_bytes(read(data)) == data
    assert data.isascii()


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | st.text('[]{}",:0-9e.\\ud8u', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever the bytes are: a value that Python's own reader finds too, or a SchemaError."""
    try:
        outcome = read(data)
    except SchemaError as error:
        outcome = error

    assert isinstance(outcome, SchemaError) or json.loads(data) == outcome


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=name)
        for name, value in {
            "nan": float("nan"),
            "infinity": float("inf"),
            "object": {"a": object()},
            "tuple as key": {(): 1},
            "5001 digits": 10**5000,
            "surrogate": "\ud800",
            "split surrogates": ["\ud83d\ude00"],
        }.items()
    ],
)
def test_what_json_cannot_say_is_not_written(value: Any) -> None:
    """A value without a text that could be read again is refused, and not quoted."""
    with pytest.raises(SchemaError) as raised:
        to_json_bytes(value)

    assert raised.value.problems[0].path == "$"


def test_nesting_beyond_recursion_is_not_written() -> None:
    """Absurd depth is a SchemaError, not a RecursionError."""
    value: list[Any] = []
    for _ in range(200_000):
        value = [value]

    with pytest.raises(SchemaError, match="nested too deeply"):
        to_json_bytes(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e400", "a number beyond the range of a float"),
        (b'{"a":1,"a":1}', "a repeated key in an object"),
        (b'[{"a":{"b":1,"b":2}}]', "a repeated key in an object"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b'"\\ud800"', "a lone surrogate in a text"),
        (b'{"\\udfff":1}', "a lone surrogate in a text"),
        (b'["\\ud83d","\\ude00"]', "a lone surrogate in a text"),
        (b"", "not JSON: Expecting value at character 0"),
        (b"1 2", "not JSON: Extra data at character 2"),
        (b"[1,]", "not JSON: "),
        (b"{'a':1}", "not JSON: "),
        ('\ufeff"a"'.encode(), "not JSON: "),
        ('"a"'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b'"\x01"', "not JSON: "),
        (b"01", "not JSON: "),
    ],
)
def test_what_is_not_strict_json_is_refused(data: bytes, message: str) -> None:
    """Each leniency of common readers is refused, with the reason."""
    assert refusal(data).startswith(message)


def test_ints_have_a_limit_of_digits() -> None:
    """4,300 digits are read, with or without a sign; one more is refused."""
    assert read(b"9" * 4300) == 10**4300 - 1
    assert read(b"-" + b"9" * 4300) == 1 - 10**4300
    assert refusal(b"9" * 4301) == "an int of more than 4,300 digits"


def test_size_has_a_limit() -> None:
    """A text of exactly the limit is read; a longer one is not looked at."""
    assert read(b'"abc"', max_bytes=5) == "abc"
    assert refusal(b"\xff" * 2000, max_bytes=1999) == "2,000 bytes, more than the limit of 1,999"


def test_depth_has_a_limit() -> None:
    """Arrays and objects may enclose a value as often as the limit says, and no more."""
    assert read(b"[" * 64 + b"]" * 64) is not None
    assert refusal(b"[" * 65 + b"]" * 65) == "nested deeper than 64"
    assert refusal(b'{"a":[{}]}', max_depth=2) == "nested deeper than 2"
    assert refusal(b"[" * 500_000) == "nested deeper than 64"


def test_brackets_in_texts_and_neighbours_are_not_depth() -> None:
    """Only enclosing brackets count: not those in a text, nor many next to each other."""
    data = json.dumps(["[" * 100 + '\\"{', [[]] * 100]).encode()

    assert read(data, max_depth=3) == json.loads(data)
    assert refusal(data, max_depth=2) == "nested deeper than 2"


def test_depth_beyond_recursion_is_refused() -> None:
    """Without a useful limit, Python's own recursion limit ends the reading with a SchemaError."""
    assert refusal(b"[" * 200_000 + b"]" * 200_000, max_depth=1_000_000) == "nested too deeply"
