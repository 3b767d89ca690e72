"""Laws that hold for every schema: there and back, either form, JSON Schema, strategies."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from durable_effect.canonical_json import from_json_bytes, to_json_bytes
from durable_effect.schema import JsonValue, Schema, SchemaError

LAW = settings(deadline=None, max_examples=60)


class Color(enum.Enum):
    RED = "red"
    NUMBER = 7


class Bits(enum.Flag):
    A = enum.auto()
    B = enum.auto()


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Note:
    text: str
    at: dt.datetime
    tags: frozenset[str] = frozenset()


class Pair(NamedTuple):
    left: Decimal
    right: bytes | None = None


class Row(TypedDict):
    id: UUID
    span: NotRequired[dt.timedelta]


@attrs.frozen
class Tree:
    value: Point | Note | Pair
    children: list[Tree] = attrs.field(factory=list)


@attrs.frozen
class Positive:
    value: int = attrs.field(validator=attrs.validators.gt(0))


Json = TypeAliasType("Json", "int | str | list[Json] | dict[str, Json] | None")

SINGLE: list[Schema[Any]] = [
    Schema.string,
    Schema.number,
    Schema.integer,
    Schema.boolean,
    Schema.null,
    Schema.unknown,
    Schema.datetime,
    Schema.of(float),
    Schema.of(dt.date),
    Schema.of(dt.time),
    Schema.of(dt.timedelta),
    Schema.of(UUID),
    Schema.of(Decimal),
    Schema.of(Path),
    Schema.of(bytes),
    Schema.of(Color),
    Schema.of(Bits),
    Schema.of(Literal["a", 1, None]),
    Schema.of(int | float | str | None),
    Schema.of(dict[int, str]),
    Schema.of(dict[dt.date, bool]),
    Schema.of(Point),
    Schema.of(Note),
    Schema.of(Pair),
    Schema.of(Row),
    Schema.of(Tree),
    Schema.of(Tree, strict=True),
    Schema.of(Point | Note | str | None),
    Schema.of(Json),
    Schema.of(tuple[Point, ...]),
    Schema.of(set[int | str]),
    Schema.integer.filter(lambda n: n % 2 == 0, "expected an even number"),
    Schema.integer.transform(hex, lambda text: int(text, 16)),
]


def containers(schemas: st.SearchStrategy[Schema[Any]]) -> st.SearchStrategy[Schema[Any]]:
    """Schemas made of other schemas."""
    names = st.sampled_from(["a", "b", "c d"])
    fields = st.dictionaries(names, schemas | schemas.map(Schema.optional), max_size=3)
    return st.one_of(
        schemas.map(Schema.array),
        schemas.map(Schema.record),
        schemas.map(Schema.nullable),
        st.lists(schemas, max_size=3).map(lambda items: Schema.tuple(*items)),
        st.builds(Schema.struct, fields, strict=st.booleans()),
    )


SCHEMAS = st.recursive(st.sampled_from(SINGLE), containers, max_leaves=4)


# ---- there and back ---------------------------------------------------------------------------------------


@LAW
@given(SCHEMAS, st.data())
def test_decoding_what_was_encoded_gives_the_value(schema: Schema[Any], data: st.DataObject) -> None:
    """For every schema and every value of it: decode(encode(x)) == x, through stored bytes too."""
    value = data.draw(schema.strategy())

    encoded = schema.encode_sync(value)

    assert schema.decode_sync(encoded) == value
    assert schema.decode_sync(stored(encoded)) == value
    assert schema.encode_sync(schema.decode_sync(encoded)) == encoded


@pytest.mark.parametrize("schema", SINGLE, ids=repr)
def test_each_schema_there_and_back(schema: Schema[Any]) -> None:
    """Each kind of schema on its own, so that none is missed by chance."""

    @settings(deadline=None, max_examples=25)
    @given(schema.strategy())
    def law(value: Any) -> None:
        assert schema.decode_sync(stored(schema.encode_sync(value))) == value
        assert schema.is_type(value)

    law()


def stored(encoded: JsonValue) -> JsonValue:
    """What comes back from storage."""
    return from_json_bytes(to_json_bytes(encoded), max_bytes=10_000_000)


@LAW
@given(SCHEMAS, st.data())
def test_either_form_is_accepted(schema: Schema[Any], data: st.DataObject) -> None:
    """A value is accepted as it is, and its encoded form as what it stands for."""
    value = data.draw(schema.strategy())

    assert schema.accept(value) is value
    accepted = schema.accept(schema.encode_sync(value))
    assert accepted == value


@LAW
@given(SCHEMAS, st.data())
def test_any_json_is_decoded_or_explained(schema: Schema[Any], data: st.DataObject) -> None:
    """Whatever JSON it is given, a schema gives a valid value or a SchemaError with its problems."""
    given = data.draw(Schema.unknown.strategy())

    try:
        outcome = schema.decode_sync(given)
    except SchemaError as error:
        outcome = error

    if isinstance(outcome, SchemaError):
        assert outcome.problems
        assert all(problem.path.startswith("$") for problem in outcome.problems)
    else:
        assert schema.is_type(outcome)


@LAW
@given(SCHEMAS, st.sampled_from([object(), Color.RED, {1, 2}, Point("x"), b"", math.nan, [object()]]))  # type: ignore[arg-type]
def test_any_value_is_encoded_or_explained(schema: Schema[Any], value: object) -> None:
    """Whatever it is asked to write, a schema gives JSON that reads back or a SchemaError."""
    try:
        outcome = schema.encode_sync(value)
    except SchemaError as error:
        outcome = error

    if isinstance(outcome, SchemaError):
        assert outcome.problems
    else:
        assert schema.decode_sync(outcome) == value


# ---- JSON Schema ------------------------------------------------------------------------------------------


def fits(data: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether `data` fits a JSON Schema, as far as the keywords go that schemas are written with."""
    checks = {
        "$ref": lambda ref: fits(data, root["$defs"][ref.removeprefix("#/$defs/")], root),
        "type": lambda kind: is_kind(data, kind),
        "enum": lambda values: any(data == value and type(data) is type(value) for value in values),
        "const": lambda value: data == value,
        "anyOf": lambda members: any(fits(data, member, root) for member in members),
        "oneOf": lambda members: sum(fits(data, member, root) for member in members) == 1,
        "allOf": lambda members: all(fits(data, member, root) for member in members),
        "items": lambda item: all(fits(x, item, root) for x in data[len(schema.get("prefixItems", ())) :]),
        "prefixItems": lambda items: all(fits(x, item, root) for x, item in zip(data, items, strict=False)),
        "minItems": lambda size: len(data) >= size,
        "maxItems": lambda size: len(data) <= size,
        "uniqueItems": lambda _: len({json.dumps(item, sort_keys=True) for item in data}) == len(data),
        "required": lambda keys: set(keys) <= set(data),
        "properties": lambda fields: all(fits(data[k], fields[k], root) for k in fields.keys() & data.keys()),
        "propertyNames": lambda name: all(fits(key, name, root) for key in data),
        "additionalProperties": lambda rest: all(
            rest is not False and fits(data[key], rest, root)
            for key in data.keys() - schema.get("properties", {}).keys()
        ),
        "format": lambda _: isinstance(data, str),
        "description": lambda _: True,
        "$schema": lambda _: schema is root,
        "$defs": lambda _: schema is root,
    }
    return all(checks[keyword](argument) for keyword, argument in schema.items())


def is_kind(data: object, kind: str) -> bool:
    """Whether `data` is of a JSON Schema type."""
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    types |= {"array": list, "object": dict}
    if kind == "null" or data is None:
        return kind == "null" and data is None
    return isinstance(data, types[kind]) and (kind == "boolean" or not isinstance(data, bool))


@LAW
@given(SCHEMAS, st.data())
def test_encoded_values_fit_the_json_schema(schema: Schema[Any], data: st.DataObject) -> None:
    """The JSON Schema describes what encode writes; it is JSON itself."""
    document = schema.to_json_schema()

    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(document)) == document
    assert fits(schema.encode_sync(data.draw(schema.strategy())), document, document)


def test_json_schema_of_a_class() -> None:
    """Classes are definitions, with the fields that have no default required."""
    assert Schema.of(list[Point]).to_json_schema() == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "array",
        "items": {"$ref": "#/$defs/Point"},
        "$defs": {
            "Point": {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "number"}},
                "required": ["x"],
            }
        },
    }


def test_json_schema_of_a_recursive_class_refers_to_it() -> None:
    """Recursion becomes a reference."""
    document = Schema.of(Tree).to_json_schema()

    assert document["$ref"] == "#/$defs/Tree"
    assert document["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert set(document["$defs"]) == {"Tree", "Point", "Note", "Pair"}


def test_json_schema_of_a_strict_class_is_closed() -> None:
    """With strict=True other keys do not fit; in a union the tag does."""
    alone = Schema.of(Point, strict=True).to_json_schema()
    union = Schema.of(Point | Pair, strict=True).to_json_schema()

    assert not fits({"x": 1, "more": 1}, alone, alone)
    assert fits({"_tag": "Point", "x": 1}, union, union)
    assert not fits({"_tag": "Point", "x": 1, "more": 1}, union, union)
    assert not fits({"x": 1}, union, union)


def test_json_schema_keeps_classes_of_one_name_apart() -> None:
    """Two classes that are called the same are two definitions."""
    other = attrs.make_class("Point", {"z": attrs.field(type=str)})

    document = Schema.tuple(Point, other).to_json_schema()

    assert [item["$ref"] for item in document["prefixItems"]] == ["#/$defs/Point", "#/$defs/Point_2"]


def test_json_schema_names_filters() -> None:
    """A filter cannot be said in JSON Schema, so its message is the description."""
    schema = Schema.integer.filter(lambda n: n > 0, "expected a positive number")

    assert schema.to_json_schema()["description"] == "expected a positive number"


# ---- strategies -------------------------------------------------------------------------------------------


@LAW
@given(Schema.of(Positive).strategy())
def test_strategies_obey_validators(value: Positive) -> None:
    """Values that the class would refuse are not drawn."""
    assert value.value > 0


@LAW
@given(Schema.array(Schema.integer.filter(lambda n: n % 3 == 0, "expected a multiple of 3")).strategy())
def test_strategies_obey_filters(values: list[int]) -> None:
    """Filters hold for what is drawn."""
    assert all(value % 3 == 0 for value in values)


def test_a_strategy_without_hypothesis_names_the_extra() -> None:
    """Schemas work without hypothesis; only strategy() needs it and says what to install."""
    program = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from durable_effect.schema import Schema\n"
        "assert Schema.integer.decode_sync(1) == 1\n"
        "try: Schema.integer.strategy()\n"
        "except ImportError as error: print(error)\n"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "durable-effect[test]" in result.stdout
