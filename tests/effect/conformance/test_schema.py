"""Schemas: two sides, every problem with its path, and nothing of the input in the messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import pytest

from durable_effect import Effect, Schema, SchemaError
from durable_effect.testing import TestRuntime


@attrs.frozen
class Inner:
    """A part."""

    n: int


@attrs.frozen
class Outer:
    """A whole."""

    name: str
    parts: list[Inner]
    kind: Literal["a", "b"] = "a"


def problems(schema: Schema[Any], data: object) -> str:
    """Decode and answer what is wrong, as text."""
    return str(Effect.run_sync(schema.decode(data).flip()))


def test_encode_is_the_way_back(world: TestRuntime) -> None:
    """Decoding what was encoded answers the same value."""
    value = Outer("x", [Inner(1), Inner(2)], "b")
    schema = Schema.of(Outer)
    assert world.run(schema.encode(value).flat_map(schema.decode)) == value


def test_every_problem_is_told_with_its_path() -> None:
    """Not only the first one."""
    told = problems(Schema.of(Outer), {"name": 1, "parts": [{"n": 1}, {"n": "x"}], "kind": "c"})
    assert all(path in told for path in ("$.name", "$.parts[1].n", "$.kind"))


def test_a_missing_key_is_told() -> None:
    """With the path of what is missing."""
    assert "$.parts" in problems(Schema.of(Outer), {"name": "x"})


def test_messages_do_not_show_the_input() -> None:
    """What was wrong may be a secret."""
    assert "hunter2" not in problems(Schema.of(Inner), {"n": "hunter2"})


def test_primitives_are_strict() -> None:
    """No coercion: a bool is no number, a numeral no number, NaN none either."""
    for schema, data in (
        (Schema.integer, True),
        (Schema.integer, "1"),
        (Schema.number, float("nan")),
        (Schema.string, 1),
        (Schema.boolean, 1),
    ):
        assert isinstance(Effect.run_sync(schema.decode(data).flip()), SchemaError)


def test_unknown_keys_are_dropped_unless_strict(world: TestRuntime) -> None:
    """`strict=True` makes each of them a problem."""
    assert world.run(Schema.of(Inner).decode({"n": 1, "more": 2})) == Inner(1)
    assert "$.more" in problems(Schema.struct({"n": Schema.integer}, strict=True), {"n": 1, "more": 2})


def test_transform_goes_both_ways(world: TestRuntime) -> None:
    """Decoding applies one function, encoding the other."""
    schema = Schema.string.transform(str.upper, str.lower)
    assert world.run(schema.decode("abc")) == "ABC"
    assert world.run(schema.encode("ABC")) == "abc"


def test_filters_refuse_with_their_message() -> None:
    """The message names what is wanted."""
    schema = Schema.integer.filter(lambda n: n > 0, "must be positive")
    assert "must be positive" in problems(schema, -1)


def test_unions_are_told_apart_by_their_tag(world: TestRuntime) -> None:
    """One candidate's own problems are told; of none the tags that would do."""
    schema = Schema.union(Inner, Outer)
    value = Inner(1)
    encoded = world.run(schema.encode(value))
    assert encoded == {"_tag": "Inner", "n": 1}
    assert world.run(schema.decode(encoded)) == value
    assert "$.n" in problems(schema, {"_tag": "Inner", "n": "x"})
    told = problems(schema, {"_tag": "Nobody"})
    assert "Inner" in told
    assert "Outer" in told


def test_instants_travel_as_text(world: TestRuntime) -> None:
    """Aware in, aware out."""
    instant = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    encoded = world.run(Schema.datetime.encode(instant))
    assert isinstance(encoded, str)
    assert world.run(Schema.datetime.decode(encoded)) == instant


def test_optional_takes_none(world: TestRuntime) -> None:
    """None decodes to None, and a value by its schema."""
    schema = Schema.optional(Schema.integer)
    assert world.run(schema.decode(None)) is None
    assert world.run(schema.decode(1)) == 1
    assert isinstance(world.run(schema.decode("x").flip()), SchemaError)


def test_the_json_schema_describes_the_encoded_side() -> None:
    """An instant is a string there, and unknown keys are allowed."""

    @attrs.frozen
    class Meeting:
        at: datetime

    described = Schema.of(Meeting).to_json_schema()
    text = str(described)
    assert "date-time" in text
    assert described.get("additionalProperties", True) is not False


def test_schema_errors_are_typed(world: TestRuntime) -> None:
    """A problem is a Fail, which `catch_all` handles; nothing is raised."""
    decoded = Schema.integer.decode("x").catch_all(lambda error: Effect.succeed(len(error.problems)))
    assert world.run(decoded) == 1
    with pytest.raises(SchemaError):
        Effect.run_sync(Schema.integer.decode("x"))
