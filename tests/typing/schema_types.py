"""What type checkers know about schemas. Checked by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NewType, assert_type

from attrs import frozen

from durable_effect import Effect
from durable_effect.schema import JsonValue, Problem, Schema, SchemaError


@frozen
class Placed:
    order_id: str


@dataclass
class Paid:
    amount: int


UserId = NewType("UserId", str)

# ---- of ---------------------------------------------------------------------------------------------------
placed = Schema.of(Placed)
assert_type(placed, Schema[Placed])
assert_type(Schema.of(Paid, strict=True), Schema[Paid])
assert_type(Schema.of(placed), Schema[Placed])
assert_type(Schema.of(Placed | Paid), Schema[Placed | Paid])
assert_type(Schema.of(int | None), Schema[int | None])
assert_type(Schema.of(list[Placed]), Schema[list[Placed]])
assert_type(Schema.of(dict[str, list[int]]), Schema[dict[str, list[int]]])
assert_type(Schema.of(Literal["a", "b"]), Schema[Literal["a", "b"]])
assert_type(Schema.ensure(Placed), Schema[Placed])
assert_type(Schema.ensure(placed), Schema[Placed])
Schema.of(3)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]

# ---- decode and encode ------------------------------------------------------------------------------------
assert_type(placed.decode({}), Effect[Placed, SchemaError])
assert_type(placed.encode(Placed("a")), Effect[Any, SchemaError])
assert_type(placed.decode_sync({}), Placed)
assert_type(placed.accept({}), Placed)
placed.encode(Paid(1))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
placed.encode_sync("x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
stored: JsonValue = placed.encode_sync(Placed("a"))
error = SchemaError("Placed", (Problem("$", "missing"),))
assert_type(error.problems, tuple[Problem, ...])

# ---- combinators ------------------------------------------------------------------------------------------
assert_type(Schema.string.decode_sync(1), str)
assert_type(Schema.string.encode_sync(""), str)
assert_type(Schema.number.decode_sync(1), int | float)
assert_type(Schema.integer.decode_sync(1), int)
assert_type(Schema.boolean.decode_sync(1), bool)
assert_type(Schema.datetime.decode_sync(1), datetime)
assert_type(Schema.unknown.decode_sync(1), Any)
assert_type(Schema.array(Placed), Schema[list[Placed]])
assert_type(Schema.array(Schema.string), Schema[list[str]])
assert_type(Schema.record(placed), Schema[dict[str, Placed]])
assert_type(Schema.nullable(Schema.integer), Schema[int | None])
assert_type(Schema.optional(Placed), Schema[Placed | None])
assert_type(Schema.tuple(int, Placed), Schema[tuple[int, Placed]])
assert_type(Schema.struct({"a": Placed, "b": Schema.optional(Schema.string)}), Schema[dict[str, Any]])
assert_type(Schema.literal("a", "b").decode_sync("a"), str)
Schema.string.encode_sync(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Schema.array(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

# ---- unions -----------------------------------------------------------------------------------------------
assert_type(Schema.union(Placed, Paid), Schema[Placed | Paid])
assert_type(Schema.union(placed, Paid, Schema.string), Schema[Placed | Paid | str])
assert_type(Schema.union(Placed, Paid, Schema.string, int), Schema[Placed | Paid | str | int])
assert_type(
    Schema.union(Placed, Paid, Schema.string, int, bool, Schema.null),
    Schema[Placed | Paid | str | int | bool | None],
)
assert_type(Schema.union(Placed, Paid, str, int, bool, Schema.null, float), Schema[Any])
assert_type(Schema.tuple(int, int, placed, int), Schema[tuple[Any, ...]])

# ---- refinements ------------------------------------------------------------------------------------------
assert_type(placed.filter(lambda p: p.order_id != "", "expected an id"), Schema[Placed])
assert_type(Schema.string.transform(int, str).decode_sync("1"), int)
assert_type(Schema.string.transform(Placed, lambda p: p.order_id).decode_sync("a"), Placed)
assert_type(Schema.string.brand(UserId).decode_sync("u"), UserId)
placed.filter(lambda p: p.amount, "x")  # type: ignore[attr-defined] # pyright: ignore
Schema.string.transform(int, len)  # type: ignore[arg-type, misc] # pyright: ignore[reportArgumentType]


# ---- as a parameter ---------------------------------------------------------------------------------------
def make(schema: Schema[Placed] | type[Placed]) -> Schema[Placed]:
    """What job definitions take: a schema or a class."""
    return Schema.ensure(schema)


make(Placed)
make(placed)
make(Paid)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
make(Schema.of(Paid))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
