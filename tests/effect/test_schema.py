"""What schemas accept and refuse, what they say about it, and where."""

from __future__ import annotations

import datetime as dt
import math
from collections import OrderedDict, defaultdict
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import attrs
import pytest

from durable_effect import Effect
from durable_effect.errors import TypedError
from durable_effect.schema import Problem, Schema, SchemaError


@attrs.frozen
class Line:
    sku: str
    quantity: int


@attrs.frozen
class Order:
    id: str
    lines: list[Line]
    note: str | None = None


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


def problems(schema: Schema[Any], data: object) -> list[str]:
    """The problems of decoding `data`, as text."""
    with pytest.raises(SchemaError) as raised:
        schema.decode_sync(data)
    return [str(problem) for problem in raised.value.problems]


def misfits(schema: Schema[Any], value: object) -> list[str]:
    """The problems of encoding `value`, as text."""
    with pytest.raises(SchemaError) as raised:
        schema.encode_sync(value)
    return [str(problem) for problem in raised.value.problems]


# ---- effects ----------------------------------------------------------------------------------------------


def test_decode_and_encode_are_effects() -> None:
    """Decoding and encoding yield the value when they are run."""
    schema = Schema.of(Line)

    line = Effect.run_sync(schema.decode({"sku": "a", "quantity": 2}))

    assert line == Line("a", 2)
    assert Effect.run_sync(schema.encode(line)) == {"sku": "a", "quantity": 2}


def test_a_misfit_is_a_typed_failure() -> None:
    """Data that does not fit fails the effect with a SchemaError, which a program can catch."""
    failing = Schema.integer.decode("1").map_error(lambda error: error.problems)

    outcome = Effect.run_sync_exit(failing)

    assert outcome.cause.failures == ((Problem("$", "expected int, found str"),),)


def test_decoding_happens_when_the_effect_runs() -> None:
    """Making the effect looks at nothing yet; each run looks at the data anew."""
    data: list[int] = []
    effect = Schema.array(Schema.integer).decode(data)
    data.append(1)

    assert Effect.run_sync(effect) == [1]


def test_schema_error_lists_every_problem() -> None:
    """The error is typed, names its schema and shows each problem on a line."""
    with pytest.raises(SchemaError) as raised:
        Schema.of(Order).decode_sync({"id": 1, "lines": [{"sku": "a"}]})

    error = raised.value
    assert isinstance(error, TypedError)
    assert error.schema_name == "Order"
    assert error.problems == (
        Problem("$.id", "expected str, found int"),
        Problem("$.lines[0].quantity", "missing"),
    )
    assert str(error) == (
        "does not fit Order:\n  $.id: expected str, found int\n  $.lines[0].quantity: missing"
    )


# ---- paths and messages -----------------------------------------------------------------------------------


def test_every_problem_has_its_path() -> None:
    """Problems in nested objects and lists are all found, in the order of the data."""
    data = {"id": None, "lines": [{"sku": 1, "quantity": "2"}, 3, {"sku": "b", "quantity": 1}, {}], "note": 5}

    assert problems(Schema.of(Order), data) == [
        "$.id: expected str, found None",
        "$.lines[0].sku: expected str, found int",
        "$.lines[0].quantity: expected int, found str",
        "$.lines[1]: expected dict (Line), found int",
        "$.lines[3].sku: missing",
        "$.lines[3].quantity: missing",
        "$.note: expected str | None, found int",
    ]


def test_encoding_reports_paths_too() -> None:
    """A value with wrong parts is refused with the place of each."""
    order: Any = Order(1, [Line("a", "2"), "b"], note=b"")  # type: ignore[arg-type]

    assert misfits(Schema.of(Order), order) == [
        "$.id: expected str, found int",
        "$.lines[0].quantity: expected int, found str",
        "$.lines[1]: expected Line, found str",
        "$.note: expected str | None, found bytes",
    ]


def test_paths_of_keys_that_are_no_names() -> None:
    """A key that is not a plain name is quoted in the path."""
    schema = Schema.record(Schema.integer)

    assert problems(schema, {"plain": "x", "two words": "x", 'q"': "x"}) == [
        "$.plain: expected int, found str",
        '$["two words"]: expected int, found str',
        '$["q\\""]: expected int, found str',
    ]


def test_a_problem_is_listed_once() -> None:
    """Equal problems at one place are one problem."""
    schema = Schema.record(Schema.integer)

    assert problems(schema, {1: 1, 2: 2}) == ["$: as a key: expected str, found int"]


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (Schema.of(Order), {"id": 5551234, "lines": ["hunter2"], "note": ["hunter2"]}),
        (Schema.union(Line, Order), {"_tag": "hunter2"}),
        (Schema.of(Literal["a"]), "hunter2"),
        (Schema.of(Color), "hunter2"),
        (Schema.datetime, "hunter2"),
        (Schema.of(UUID), "hunter2"),
        (Schema.of(Decimal), "hunter2"),
        (Schema.of(bytes), "hunter2"),
        (Schema.string.filter(lambda _: False, "not allowed"), "hunter2"),
        (Schema.string.transform(int, str), "hunter2"),
        (Schema.tuple(Schema.integer, Schema.integer), ["hunter2"]),
    ],
)
def test_messages_never_quote_the_data(schema: Schema[Any], data: object) -> None:
    """What was given may be a secret: no message repeats it."""
    text = "\n".join(problems(schema, data))

    assert "hunter2" not in text
    assert "5551234" not in text


def test_the_exception_of_a_class_is_not_quoted() -> None:
    """A validator's own message may hold the value, so only its type is told, at the path of the object."""

    @attrs.frozen
    class Account:
        pin: int = attrs.field(validator=attrs.validators.lt(100))

    schema = Schema.array(Account)

    assert problems(schema, [{"pin": 5}, {"pin": 5551234}]) == ["$[1]: refused by Account (ValueError)"]


def test_the_cause_of_an_error_is_not_kept() -> None:
    """Tracebacks of a SchemaError do not lead to exceptions that hold the data."""
    with pytest.raises(SchemaError) as raised:
        Schema.of(Order).decode_sync({"id": 1})

    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_data_nested_beyond_recursion_is_a_problem() -> None:
    """Absurdly deep data is refused like any other misfit, not with a RecursionError."""
    data: list[Any] = []
    for _ in range(20_000):
        data = [data]

    found = problems(Schema.unknown, data)

    assert len(found) == 1
    assert found[0].endswith("nested too deeply")


# ---- primitives -------------------------------------------------------------------------------------------

PRIMITIVES: dict[str, tuple[Schema[Any], list[object]]] = {
    "string": (Schema.string, ["", "text"]),
    "integer": (Schema.integer, [0, -7, 10**30]),
    "float": (Schema.of(float), [0.5, -1e300]),
    "boolean": (Schema.boolean, [True, False]),
    "null": (Schema.null, [None]),
}
SAMPLES: list[object] = ["", "1", 0, 1, 0.5, True, False, None, [], (), {}, b"", object()]


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_primitives_are_their_own_encoded_form(kind: str) -> None:
    """A primitive is read and written as it is, with its type."""
    schema, values = PRIMITIVES[kind]

    for value in values:
        for result in (schema.decode_sync(value), schema.encode_sync(value)):
            assert result == value
            assert type(result) is type(value)


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_primitives_are_not_coerced(kind: str) -> None:
    """No primitive passes for another one, in either direction, except an int for a float."""
    schema, values = PRIMITIVES[kind]
    types = {type(value) for value in values} | ({int} if kind == "float" else set())

    for sample in SAMPLES:
        if type(sample) not in types:
            assert problems(schema, sample)
            assert misfits(schema, sample)


def test_an_int_becomes_the_float_that_is_declared() -> None:
    """JSON has one kind of number, so 3 is a float, and comes out as one."""
    decoded = Schema.of(float).decode_sync(3)

    assert decoded == 3.0
    assert type(decoded) is float
    assert Schema.of(float).encode_sync(3) == 3.0


@pytest.mark.parametrize("number", [2**53 + 1, 10**400])
def test_an_int_that_a_float_would_round_is_refused(number: int) -> None:
    """Reading a float never changes the number that was given."""
    assert problems(Schema.of(float), number) == ["$: expected a number that a float holds exactly"]


def test_number_keeps_what_it_is_given() -> None:
    """Schema.number leaves ints ints and floats floats."""
    assert type(Schema.number.decode_sync(2**53 + 1)) is int
    assert type(Schema.number.decode_sync(1.0)) is float
    assert problems(Schema.number, True) == ["$: expected number, found bool"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("schema", [Schema.of(float), Schema.number, Schema.unknown], ids=repr)
def test_numbers_are_finite(schema: Schema[Any], number: float) -> None:
    """NaN and the infinities are refused in both directions."""
    assert "finite" in problems(schema, number)[0]
    assert "finite" in misfits(schema, number)[0]


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ud83d\ude00"])
def test_text_has_no_lone_surrogates(text: str) -> None:
    """Half a character has no UTF-8 and would not survive every storage."""
    assert problems(Schema.string, text) == ["$: expected text without lone surrogates"]
    assert misfits(Schema.unknown, [text]) == ["$[0]: expected text without lone surrogates"]


def test_subclasses_of_primitives_become_plain() -> None:
    """Members of str and int enums are text and numbers; what is written is the plain value."""
    assert type(Schema.string.encode_sync(Color.RED)) is str
    assert type(Schema.integer.encode_sync(Size.SMALL)) is int


def test_unknown_takes_any_json_and_nothing_else() -> None:
    """JSON values pass, copied; what JSON cannot say is refused at its place."""
    data = {"a": [1, 2.5, None, True, "x", {"b": []}]}

    decoded = Schema.unknown.decode_sync(data)

    assert decoded == data
    assert decoded["a"] is not data["a"]
    assert problems(Schema.unknown, {"a": [(), {1}]}) == [
        "$.a[0]: expected a JSON value, found tuple",
        "$.a[1]: expected a JSON value, found set",
    ]
    assert problems(Schema.unknown, {1: 1}) == ["$: as a key: expected str, found int"]


# ---- containers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [(), "", "ab", {}, set(), frozenset(), {"0": 1}, iter([])])
@pytest.mark.parametrize(
    "schema", [Schema.of(x) for x in (list[str], set[str], tuple[str, ...], tuple[str, str], list)], ids=repr
)
def test_only_a_list_is_a_list(schema: Schema[Any], data: object) -> None:
    """Encoded lists are lists: no other iterable is taken for one."""
    assert problems(schema, data) == [f"$: expected list, found {type(data).__name__}"]


def test_values_of_other_containers_are_refused() -> None:
    """A value must be of the declared container when it is encoded."""
    assert misfits(Schema.of(list[int]), (1,)) == ["$: expected list[int], found tuple"]
    assert misfits(Schema.of(set[int]), [1]) == ["$: expected set[int], found list"]
    assert misfits(Schema.of(tuple[int, ...]), [1]) == ["$: expected tuple[int, ...], found list"]
    assert misfits(Schema.of(dict[str, int]), [("a", 1)]) == ["$: expected dict[str, int], found list"]


def test_sets_are_written_in_one_order_and_read_without_repeats() -> None:
    """Equal sets are equal JSON; a list that repeats an item is no set."""
    schema = Schema.of(set[int])

    assert schema.encode_sync({3, 1, 2}) == [1, 2, 3]
    assert schema.decode_sync([2, 1]) == {1, 2}
    assert problems(schema, [1, 1]) == ["$: expected items that differ from each other"]


def test_items_that_cannot_be_hashed_are_no_set() -> None:
    """A set of lists is a misfit, not a TypeError."""
    assert problems(Schema.of(set[Any]), [[1]]) == ["$: expected items that can be hashed"]


def test_fixed_tuples_have_their_length() -> None:
    """Each position has its own type and none is missing or too many."""
    schema = Schema.of(tuple[int, str])

    assert schema.decode_sync([1, "a"]) == (1, "a")
    assert problems(schema, [1]) == ["$: expected 2 items, found 1"]
    assert problems(schema, ["a", 1]) == ["$[0]: expected int, found str", "$[1]: expected str, found int"]
    assert misfits(schema, (1, "a", 2)) == ["$: expected 2 items, found 3"]
    assert Schema.of(tuple[()]).decode_sync([]) == ()


def test_dict_subclasses_count_as_dicts() -> None:
    """OrderedDict and defaultdict data are dicts, and asking never adds a key to them."""
    data: defaultdict[str, Any] = defaultdict(list, id="a")

    assert problems(Schema.of(Order), data) == ["$.lines: missing"]
    assert dict(data) == {"id": "a"}
    assert Schema.record(Schema.integer).decode_sync(OrderedDict(a=1)) == {"a": 1}


def test_keys_that_are_not_text() -> None:
    """Keys are written as the text of their type and read back; the text must be the one that is written."""
    schema = Schema.of(dict[int, str])

    assert schema.encode_sync({-1: "a", 20: "b"}) == {"-1": "a", "20": "b"}
    assert schema.decode_sync({"-1": "a", "20": "b"}) == {-1: "a", 20: "b"}
    for key in ("x", "01", " 1", "1_0", "+1", "1.0", ""):
        assert problems(schema, {key: "a"})
    assert misfits(schema, {True: "a"}) == ["$: as a key: expected int, found bool"]


def test_keys_that_become_equal_are_refused() -> None:
    """No entry is lost because two keys have one meaning."""
    schema = Schema.of(dict[Decimal, int])

    assert problems(schema, {"1.0": 1, "1.00": 2}) == ["$: expected keys that differ from each other"]


# ---- written as text --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "encoded"),
    [
        (dt.datetime, dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC), "2026-01-31T12:00:00+00:00"),
        (dt.date, dt.date(2026, 1, 31), "2026-01-31"),
        (dt.time, dt.time(12, 30), "12:30:00"),
        (dt.timedelta, dt.timedelta(0), "PT0S"),
        (dt.timedelta, dt.timedelta(days=2), "P2D"),
        (dt.timedelta, dt.timedelta(hours=1, minutes=30), "PT1H30M"),
        (dt.timedelta, dt.timedelta(days=-1, microseconds=1), "-PT23H59M59.999999S"),
        (dt.timedelta, dt.timedelta.min, "-P999999999D"),
        (UUID, UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal, Decimal("12.50"), "12.50"),
        (Decimal, Decimal("1E+3"), "1E+3"),
        (Path, Path("a/b"), "a/b"),
        (bytes, b"\x00\xff", "AP8="),
    ],
)
def test_values_that_are_written_as_text(kind: type[Any], value: object, encoded: str) -> None:
    """Values that JSON has no type for have one text, and it reads back as the value."""
    schema = Schema.of(kind)

    assert schema.encode_sync(value) == encoded
    assert schema.decode_sync(encoded) == value
    assert str(schema.decode_sync(encoded)) == str(value)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (dt.datetime, ["", "2026-01-31", "2026-01-31T12:00:00", "20260131T120000Z", "2026-02-30T00:00:00Z"]),
        (dt.date, ["", "2026-1-31", "20260131", "2026-02-30", "2026-01-31T00:00:00Z", "2026-W01-1"]),
        (dt.time, ["", "12", "25:00:00", "12:00:00 "]),
        (dt.timedelta, ["", "P", "PT", "P1DT", "1 day", "P1Y", "P1M", "PT1.5H", "P99999999999D", "--P1D"]),
        (UUID, ["", "1" * 32, "{00000000-0000-0000-0000-000000000001}"]),
        (Decimal, ["", "NaN", "Infinity", "1_0", " 1", ".5", "\u0661"]),
        (bytes, ["A", "AP8", "AP8=\n", "A P8=", "AP-_"]),
    ],
)
def test_other_texts_are_refused(kind: type[Any], texts: list[str]) -> None:
    """One notation is read; the lenient ones that the constructors take are not."""
    for text in texts:
        (problem,) = problems(Schema.of(kind), text)
        assert problem.startswith("$: expected ")


def test_further_texts_that_are_read() -> None:
    """The common spellings of an instant and of a span are all understood."""
    noon = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)

    assert Schema.datetime.decode_sync("2026-01-31T12:00:00Z") == noon
    assert Schema.datetime.decode_sync("2026-01-31 13:00+01:00") == noon
    assert Schema.of(dt.timedelta).decode_sync("P1W") == dt.timedelta(weeks=1)
    assert Schema.of(dt.timedelta).decode_sync("PT90M0.5S") == dt.timedelta(minutes=90, milliseconds=500)


def test_naive_datetimes_are_refused() -> None:
    """A datetime without a zone is no instant, in either direction."""
    naive = "$: expected a datetime with a time zone, found a naive one"

    assert problems(Schema.datetime, "2026-01-31T12:00:00") == [naive]
    assert misfits(Schema.datetime, dt.datetime(2026, 1, 31)) == [naive]


def test_the_offset_of_a_datetime_is_kept() -> None:
    """A local time stays what its writer saw."""
    zone = dt.timezone(dt.timedelta(hours=2))

    encoded = Schema.datetime.encode_sync(dt.datetime(2026, 7, 1, 9, tzinfo=zone))

    assert encoded == "2026-07-01T09:00:00+02:00"
    assert Schema.datetime.decode_sync(encoded).utcoffset() == dt.timedelta(hours=2)


def test_a_datetime_is_not_a_date() -> None:
    """A date field refuses a datetime, although Python's class derives from date."""
    assert misfits(Schema.of(dt.date), dt.datetime(2026, 1, 1)) == ["$: expected date, found datetime"]


# ---- enums and literals -----------------------------------------------------------------------------------


class Mixed(Enum):
    ONE = 1
    TRUE = "true"


class Plain(Enum):
    POINT = (1, 2)
    LINE = "LINE"


def test_enums_are_written_by_value() -> None:
    """The type of the value counts: 1 is not True and not 1.0."""
    schema = Schema.of(Mixed)

    assert [schema.encode_sync(member) for member in Mixed] == [1, "true"]
    assert schema.decode_sync(1) is Mixed.ONE
    for data in (True, 1.0, "1", "ONE", None, [1], Mixed.ONE):
        assert problems(schema, data)[0].startswith("$: expected Mixed, found ")


def test_enums_without_json_values_are_written_by_name() -> None:
    """When one value is not a single JSON value, all members go by name."""
    schema = Schema.of(Plain)

    assert schema.encode_sync(Plain.POINT) == "POINT"
    assert schema.decode_sync("LINE") is Plain.LINE


def test_literals() -> None:
    """Exactly the listed values, by type and value."""
    schema: Schema[Any] = Schema.of(Literal["a", 1, None])

    assert [schema.decode_sync(data) for data in ("a", 1, None)] == ["a", 1, None]
    for data in ("b", True, 1.0, [], {}):
        assert problems(schema, data) == [f"$: expected 'a' | 1 | None, found {type(data).__name__}"]


def test_enum_members_as_literals() -> None:
    """A literal of an enum member is written like the member."""
    schema: Schema[Any] = Schema.of(Literal[Mixed.TRUE])

    assert schema.decode_sync("true") is Mixed.TRUE
    assert schema.encode_sync(Mixed.TRUE) == "true"
    assert problems(schema, 1)
    assert misfits(schema, Mixed.ONE)


# ---- objects ----------------------------------------------------------------------------------------------


def test_defaults_fill_absent_keys() -> None:
    """A key that is absent takes the default of its field."""
    assert Schema.of(Order).decode_sync({"id": "a", "lines": []}) == Order("a", [])


def test_unknown_keys_are_left_out() -> None:
    """Data of a newer version can be read by an older one."""
    assert Schema.of(Line).decode_sync({"sku": "a", "quantity": 1, "color": "red"}) == Line("a", 1)


def test_strict_refuses_each_unknown_key_everywhere() -> None:
    """With strict=True unknown keys are problems, in nested classes too."""
    schema = Schema.of(Order, strict=True)
    data = {"id": "a", "lines": [{"sku": "a", "quantity": 1, "x": 1, "a b": 1}], "_tag": "Order"}

    assert problems(schema, data) == [
        '$.lines[0]["a b"]: unexpected key',
        "$.lines[0].x: unexpected key",
        "$._tag: unexpected key",
    ]


def test_a_value_of_another_class_is_refused() -> None:
    """Encoding takes the class itself: a subclass would lose what it adds."""

    @attrs.frozen
    class Gift(Line):
        card: str = ""

    assert misfits(Schema.of(Line), Gift("a", 1)) == ["$: expected Line, found Gift"]
    assert misfits(Schema.of(Line), {"sku": "a", "quantity": 1}) == ["$: expected Line, found dict"]


# ---- combinators ------------------------------------------------------------------------------------------


def test_struct_decodes_to_a_dict() -> None:
    """A struct reads the listed keys and leaves out others."""
    schema = Schema.struct({"id": Schema.string, "lines": Schema.array(Line)})

    decoded = schema.decode_sync({"id": "a", "lines": [{"sku": "s", "quantity": 1}], "more": 1})

    assert decoded == {"id": "a", "lines": [Line("s", 1)]}
    assert problems(schema, {"lines": [{}]}) == [
        "$.id: missing",
        "$.lines[0].sku: missing",
        "$.lines[0].quantity: missing",
    ]


def test_strict_struct_refuses_unknown_keys() -> None:
    """With strict=True an unknown key is a problem."""
    schema = Schema.struct({"id": Schema.string}, strict=True)

    assert problems(schema, {"id": "a", "x": 1, "y": 2}) == ["$.x: unexpected key", "$.y: unexpected key"]


def test_encoding_a_struct_never_drops_a_key() -> None:
    """A key that the struct does not know would be lost silently, so it is a problem."""
    schema = Schema.struct({"id": Schema.string})

    assert misfits(schema, {"id": "a", "lastEror": 1}) == ["$.lastEror: unexpected key"]


def test_optional_fields_may_be_absent_or_none() -> None:
    """Absent stays absent, None stays None, and anything else must fit."""
    schema = Schema.struct({"error": Schema.optional(Schema.string)})

    for value in ({}, {"error": None}, {"error": "x"}):
        assert schema.decode_sync(value) == value
        assert schema.encode_sync(value) == value
    assert problems(schema, {"error": 1}) == ["$.error: expected str | None, found int"]


def test_nullable_fields_must_be_there() -> None:
    """None is a value: a nullable field is not an optional one."""
    schema = Schema.struct({"error": Schema.nullable(Schema.string)})

    assert schema.decode_sync({"error": None}) == {"error": None}
    assert problems(schema, {}) == ["$.error: missing"]


def test_filter_refuses_with_its_message() -> None:
    """A predicate narrows a schema in both directions; raising counts as refusing."""
    even = Schema.integer.filter(lambda n: n % 2 == 0, "expected an even number")
    picky = Schema.integer.filter(lambda n: 1 / n > 0, "expected a positive number")

    assert even.decode_sync(2) == 2
    assert problems(Schema.array(even), [1, 2, 3]) == [
        "$[0]: expected an even number",
        "$[2]: expected an even number",
    ]
    assert misfits(even, 1) == ["$: expected an even number"]
    assert problems(picky, 0) == ["$: expected a positive number"]


def test_transform_reads_and_writes_another_type() -> None:
    """A transformation runs after decoding and before encoding; its exceptions are problems."""
    celsius = Schema.number.transform(lambda c: c + 273, lambda k: k - 273, name="kelvin")
    hexadecimal = Schema.string.transform(lambda s: int(s, 16), hex)

    assert celsius.decode_sync(27) == 300
    assert celsius.encode_sync(300) == 27
    assert celsius.name == "kelvin"
    assert hexadecimal.decode_sync("0xff") == 255
    assert problems(hexadecimal, "xyz") == ["$: refused by the decoding of transformed str (ValueError)"]
    assert misfits(hexadecimal, "xyz") == ["$: refused by the encoding of transformed str (TypeError)"]


def test_transform_refuses_what_it_would_not_read_back() -> None:
    """`str` writes anything; a value that decoding would not give is refused all the same."""
    schema = Schema.string.transform(Decimal, str)

    assert schema.encode_sync(Decimal("1.5")) == "1.5"
    assert misfits(schema, 1.5) == ["$: expected what decoding Decimal gives, found float"]


def test_brand_changes_the_type_only() -> None:
    """A branded schema reads and writes as before."""
    from typing import NewType

    UserId = NewType("UserId", str)

    assert Schema.string.brand(UserId).decode_sync("u1") == "u1"


def test_classes_are_taken_for_schemas() -> None:
    """Wherever a schema is expected, a class will do."""
    assert Schema.record(int).decode_sync({"a": 1}) == {"a": 1}
    assert Schema.nullable(Line).decode_sync(None) is None
    assert Schema.tuple(int, Line).decode_sync([1, {"sku": "a", "quantity": 1}]) == (1, Line("a", 1))
    assert Schema.ensure(Line).name == "Line"
    assert Schema.ensure(Schema.string) is Schema.string


def test_a_literal_combinator_reads_its_values() -> None:
    """Schema.literal lists values."""
    schema = Schema.literal("pending", "shipped")

    assert schema.decode_sync("shipped") == "shipped"
    assert problems(schema, "lost") == ["$: expected 'pending' | 'shipped', found str"]


def test_repr_and_name() -> None:
    """A schema shows what it describes."""
    assert repr(Schema.of(dict[str, list[Line]])) == "Schema[dict[str, list[Line]]]"
    assert Schema.struct({"a": int, "b": str}).name == "{a, b}"


# ---- either form ------------------------------------------------------------------------------------------


def test_accept_takes_values_and_encoded_forms() -> None:
    """A value is returned as it is; data in encoded form is decoded."""
    schema = Schema.of(Line)
    line = Line("a", 1)

    assert schema.accept(line) is line
    assert schema.accept({"sku": "a", "quantity": 1}) == line


def test_accept_checks_values_to_the_bottom() -> None:
    """A value with a wrong part is refused, with the place of the part."""
    bad: Any = Order("a", [Line("b", "1")])  # type: ignore[arg-type]

    with pytest.raises(SchemaError) as raised:
        Schema.of(Order).accept(bad)

    assert raised.value.problems == (Problem("$.lines[0].quantity", "expected int, found str"),)


def test_accept_tells_a_text_from_what_it_stands_for() -> None:
    """Text is read, a value passes, whatever the conversion back would make of text."""
    schema = Schema.string.transform(Decimal, str)

    assert schema.accept("1.50") == Decimal("1.50")
    assert schema.accept(Decimal("1.50")) == Decimal("1.50")


def test_accept_of_a_struct_with_unknown_keys_leaves_them_out() -> None:
    """Where value and encoded form are the same thing both readings agree."""
    assert Schema.struct({"a": int}).accept({"a": 1, "b": 2}) == {"a": 1}


def test_accept_explains_encoded_data() -> None:
    """What is JSON but fits neither way is explained as data."""
    with pytest.raises(SchemaError) as raised:
        Schema.of(Line).accept({"sku": 1})

    assert [problem.path for problem in raised.value.problems] == ["$.sku", "$.quantity"]


def test_is_type() -> None:
    """Values are told from data and from wrong values."""
    schema = Schema.of(Line)

    assert schema.is_type(Line("a", 1))
    assert not schema.is_type({"sku": "a", "quantity": 1})
    assert not schema.is_type(Line("a", "1"))  # type: ignore[arg-type]
