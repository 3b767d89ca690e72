"""Unions: how members are told apart, and which unions are refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import attrs
import pytest

from durable_effect.schema import Schema, SchemaError


@attrs.frozen
class Placed:
    order_id: str


@dataclass
class Paid:
    amount: int = 0


class Shipped(NamedTuple):
    tracking: str


@attrs.frozen
class Cancelled:
    _tag: Literal["cancelled", "refused"]
    reason: str


class Started(TypedDict):
    kind: Literal["started"]
    at: int


class Stopped(TypedDict):
    kind: Literal["stopped", "killed"]
    why: str


@attrs.frozen
class Leaf:
    value: int


@attrs.frozen
class Node:
    left: Leaf | Node
    right: Leaf | Node | None = None


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


def problems(schema: Schema[Any], data: object) -> list[str]:
    """The problems of decoding `data`, as text."""
    with pytest.raises(SchemaError) as raised:
        schema.decode_sync(data)
    return [str(problem) for problem in raised.value.problems]


def there_and_back(schema: Schema[Any], value: Any, encoded: Any) -> None:
    """Check that `value` is written as `encoded` and read back, equal and of the same type."""
    assert schema.encode_sync(value) == encoded
    decoded = schema.decode_sync(encoded)
    assert decoded == value
    assert type(decoded) is type(value)


# ---- classes ----------------------------------------------------------------------------------------------


EVENTS: Schema[Any] = Schema.union(Placed, Paid, Shipped, Cancelled)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (Placed("o1"), {"_tag": "Placed", "order_id": "o1"}),
        (Paid(5), {"_tag": "Paid", "amount": 5}),
        (Shipped("t"), {"_tag": "Shipped", "tracking": "t"}),
        (Cancelled("refused", "r"), {"_tag": "refused", "reason": "r"}),
    ],
)
def test_classes_carry_a_tag(value: object, encoded: object) -> None:
    """Each class is written with its name, or with the literal of its own `_tag` field."""
    there_and_back(EVENTS, value, encoded)


def test_the_tag_is_needed_and_decides() -> None:
    """Without a known tag nothing is guessed; with one, the member's own problems are told."""
    expected = "'Placed' | 'Paid' | 'Shipped' | 'cancelled' | 'refused'"

    assert problems(EVENTS, {"order_id": "o1"}) == [f"$._tag: missing, expected {expected}"]
    assert problems(EVENTS, {"_tag": "Lost"}) == [f"$._tag: expected {expected}, found str"]
    assert problems(EVENTS, {"_tag": ["Paid"]}) == [f"$._tag: expected {expected}, found list"]
    assert problems(EVENTS, {"_tag": "Paid", "amount": "5"}) == ["$.amount: expected int, found str"]
    assert problems(Schema.array(EVENTS), [{"_tag": "Placed"}, 1])[0] == "$[0].order_id: missing"


def test_a_class_alone_has_no_tag() -> None:
    """The tag belongs to the union: alone, or next to None, a class is written without, and ignores one."""
    there_and_back(Schema.of(Placed), Placed("o1"), {"order_id": "o1"})
    there_and_back(Schema.of(Placed | None), Placed("o1"), {"order_id": "o1"})
    assert Schema.of(Placed).decode_sync({"_tag": "anything", "order_id": "o1"}) == Placed("o1")


def test_strict_members_do_not_mind_their_tag() -> None:
    """Strict refuses unknown keys, of which the tag is none."""
    schema = Schema.of(Placed | Paid, strict=True)

    assert schema.decode_sync({"_tag": "Paid", "amount": 1}) == Paid(1)
    assert problems(schema, {"_tag": "Paid", "more": 1}) == ["$.more: unexpected key"]


def test_a_value_of_no_member_is_refused() -> None:
    """Encoding knows the members by their classes."""
    with pytest.raises(SchemaError) as raised:
        EVENTS.encode_sync(Leaf(1))

    assert str(raised.value.problems[0]) == "$: expected Placed | Paid | Shipped | Cancelled, found Leaf"
    with pytest.raises(SchemaError) as raised:
        EVENTS.encode_sync(Paid("1"))  # type: ignore[arg-type]
    assert str(raised.value.problems[0]) == "$.amount: expected int, found str"


def test_unions_of_unions_are_flat() -> None:
    """Nesting does not matter: all members share one tag."""
    schema = Schema.nullable(Schema.union(Schema.union(Placed, Paid), Schema.of(Shipped | None)))

    there_and_back(schema, None, None)
    there_and_back(schema, Shipped("t"), {"_tag": "Shipped", "tracking": "t"})


def test_recursive_unions() -> None:
    """A member may contain the union it belongs to."""
    leaf = {"_tag": "Leaf", "value": 1}

    there_and_back(
        Schema.of(Leaf | Node),
        Node(Leaf(1), Node(Leaf(1))),
        {"_tag": "Node", "left": leaf, "right": {"_tag": "Node", "left": leaf, "right": None}},
    )


def test_filtered_and_transformed_members() -> None:
    """A member that was narrowed or transformed keeps the tag of its class."""
    large = Schema.of(Paid).filter(lambda paid: paid.amount > 10, "expected a large amount")
    order_id = Schema.of(Placed).transform(lambda placed: [placed.order_id], lambda ids: Placed(ids[0]))
    schema = Schema.union(large, order_id)

    there_and_back(schema, Paid(11), {"_tag": "Paid", "amount": 11})
    there_and_back(schema, ["o1"], {"_tag": "Placed", "order_id": "o1"})
    assert problems(schema, {"_tag": "Paid", "amount": 1}) == ["$: expected a large amount"]


# ---- structs and typed dicts ------------------------------------------------------------------------------


def test_structs_are_told_apart_by_their_literals() -> None:
    """A literal key that differs marks the members; it is part of the value."""
    schema = Schema.union(
        Schema.struct({"_tag": Schema.literal("OrderPlaced"), "orderId": Schema.string}),
        Schema.struct({"_tag": Schema.literal("PaymentReceived")}),
    )

    there_and_back(schema, {"_tag": "PaymentReceived"}, {"_tag": "PaymentReceived"})
    assert problems(schema, {"_tag": "OrderPlaced", "orderId": 1}) == ["$.orderId: expected str, found int"]
    assert problems(schema, {"orderId": 1}) == ["$._tag: missing, expected 'OrderPlaced' | 'PaymentReceived'"]
    with pytest.raises(SchemaError) as raised:
        schema.encode_sync({"_tag": "OrderPlaced"})
    assert raised.value.problems[0].path == "$.orderId"


def test_typed_dicts_may_use_any_key() -> None:
    """The key need not be called `_tag`, and may have several literals per member."""
    schema = Schema.of(Started | Stopped)

    there_and_back(schema, {"kind": "killed", "why": "w"}, {"kind": "killed", "why": "w"})
    assert problems(schema, {"kind": "killed", "at": 1}) == ["$.why: missing"]


def test_classes_next_to_structs() -> None:
    """A class is tagged by name next to structs that have a `_tag`."""
    schema = Schema.union(Placed, Schema.struct({"_tag": Schema.literal("Ping")}))

    there_and_back(schema, Placed("a"), {"_tag": "Placed", "order_id": "a"})
    there_and_back(schema, {"_tag": "Ping"}, {"_tag": "Ping"})


# ---- single values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "pairs"),
    [
        (Schema.union(str, int, bool, Schema.null), [("a", "a"), (1, 1), (True, True), (None, None)]),
        (Schema.union(int, float), [(1, 1), (1.0, 1.0), (2**60 + 1, 2**60 + 1)]),
        (Schema.union(float, int), [(1, 1), (1.0, 1.0)]),
        (Schema.of(float | None), [(1.5, 1.5), (None, None)]),
        (Schema.of(list[int] | int | dict[str, int]), [([1], [1]), (1, 1), ({"a": 1}, {"a": 1})]),
        (Schema.of(Literal["a"] | str), [("a", "a"), ("b", "b")]),
        (Schema.of(Literal["auto"] | int), [("auto", "auto"), (1, 1)]),
        (Schema.of(dt.datetime | Literal["never"]), [("never", "never")]),
        (Schema.of(Mood | Literal["other"]), [(Mood.GOOD, "good"), ("other", "other")]),
        (Schema.of(dt.date | UUID), [(dt.date(2026, 1, 1), "2026-01-01"), (UUID(int=0), str(UUID(int=0)))]),
        (Schema.of(Placed | str | list[int]), [(Placed("a"), {"order_id": "a"}), ("a", "a"), ([1], [1])]),
        (Schema.of(Any | None), [(None, None), ([1], [1])]),
        (Schema.of(object | None), [(None, None), ({"a": 1}, {"a": 1})]),
    ],
    ids=repr,
)
def test_single_values(schema: Schema[Any], pairs: list[tuple[object, object]]) -> None:
    """Members of different JSON kinds, listed values and distinct notations live together."""
    for value, encoded in pairs:
        there_and_back(schema, value, encoded)


def test_a_misfit_names_all_members() -> None:
    """What fits no member is told with all of them."""
    assert problems(Schema.of(int | str | None), 1.5) == ["$: expected int | str | None, found float"]
    assert problems(Schema.of(Literal["a"] | dt.date), "b") == ["$: expected 'a' | date, found str"]


# ---- refused ----------------------------------------------------------------------------------------------


def same_name() -> type[Any]:
    """Another class that is called Placed."""
    return attrs.make_class("Placed", {"x": attrs.field(type=int)}, frozen=True)


@pytest.mark.parametrize(
    "members",
    [
        (list[int], list[str]),
        (list[int], tuple[int, int]),
        (set[int], list[int]),
        (dict[str, int], Placed),
        (dict[str, int], dict[str, str]),
        (Placed, same_name()),
        (Schema.struct({"a": int}), Schema.struct({"b": int})),
        (Schema.struct({"k": Schema.literal("x")}), Schema.struct({"k": Schema.literal("x", "y")})),
        (Schema.struct({"k": Schema.optional(Literal["x"])}), Schema.struct({"k": Schema.literal("y")})),
        (Placed, Schema.struct({"a": int})),
        (str, dt.datetime),
        (str, Mood),
        (Mood, Literal["good"]),
        (bytes, UUID),
        (Decimal, Schema.string.transform(int, str)),
        (Any, int),
        (Any, Placed),
        (Mapping[str, Any], Placed),
    ],
    ids=str,
)
def test_ambiguous_unions_are_refused(members: tuple[Any, ...]) -> None:
    """Members that look alike in JSON are refused when the union is made, not when it is used."""
    with pytest.raises(ValueError, match="cannot be told apart in JSON"):
        Schema.union(*members)


def test_an_ambiguous_field_names_its_members() -> None:
    """A union in a field is looked at as well, and says what to do."""

    @attrs.frozen
    class Holder:
        value: Annotated[list[int] | list[str], "either"]

    with pytest.raises(ValueError, match=r"list\[int\] \| list\[str\] cannot be told apart.*Use classes"):
        Schema.of(Holder)


def test_an_empty_union_is_refused() -> None:
    """There is no value of no type."""
    with pytest.raises(ValueError, match="at least one member"):
        Schema.union()
