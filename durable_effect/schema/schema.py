"""Schema: what data must look like, read and written strictly.

a class, an annotation -------- Schema.of ---+                 decode: JSON data -> T
                                             +--> Schema[T] --<
Schema.string, Schema.struct({...}), ... ----+                 encode: T -> JSON data
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from typing_extensions import TypeVar as DefaultTypeVar

from durable_effect.effect import Effect
from durable_effect.schema.annotations import literal_shape, shape_of, union_of
from durable_effect.schema.json_schema import json_schema_of
from durable_effect.schema.problem import MISFITS, SchemaError, problems_of
from durable_effect.schema.shapes import (
    BOOLEAN,
    INTEGER,
    NULL,
    NUMBER,
    TEXT,
    UNKNOWN,
    Fields,
    Filtered,
    Fixed,
    Items,
    Record,
    Shape,
    Transformed,
    as_list,
    kind_of,
)
from durable_effect.schema.texts import DATETIME
from durable_effect.schema.unions import Absentable

if TYPE_CHECKING:
    import datetime as dt
    from enum import Enum

    from hypothesis.strategies import SearchStrategy
    from typing_extensions import TypeForm

    Scalar: TypeAlias = str | int | bool | Enum | None

T = TypeVar("T")
U = TypeVar("U")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
E1 = TypeVar("E1")
L = TypeVar("L", bound="Scalar")
Encoded = DefaultTypeVar("Encoded", default=Any)


class Schema(Generic[T, Encoded]):
    """How values of one type are written as JSON and read back.

    ```python
    orders = Schema.array(Order)
    order = orders.decode_sync([{"id": "o1", "total": "12.50"}])
    ```

    Nothing is coerced: `"1"` is not `1`, `True` is not `1`, a tuple is not a list. What does not fit is a
    `SchemaError` that lists every problem with its path. Decoding what was encoded gives an equal value.

    - Numbers: an int is accepted where a float is declared if a float holds it exactly, and becomes that
      float. NaN and infinities are refused. Text must be free of lone surrogates.
    - `datetime` needs a time zone and is written in ISO 8601 with its offset; `timedelta` as an ISO 8601
      duration, `bytes` in base64, `Decimal`, `UUID` and `Path` as text, enums by value (by name if a value is
      not a single JSON value), sets as lists in a fixed order, keys of dicts as text.
    - Classes are objects keyed by field name. An absent key takes the field's default. A key that is no field
      is left out, or refused with `strict=True`. Fields with `init=False` are computed by the class and not
      stored.
    - Of two or more classes in a union each is written with `"_tag": "<ClassName>"`, and read only with it. A
      class that has a `_tag` field with literal values of its own uses that.
    - Abstract types read as the plain one: `Sequence` as list, `Mapping` as dict, `collections.abc.Set` as
      frozenset.
    """

    __slots__ = ("shape",)

    string: ClassVar[Schema[str, str]]
    """Text."""
    number: ClassVar[Schema[int | float, int | float]]
    """An int or a finite float, kept as the one it is."""
    integer: ClassVar[Schema[int, int]]
    """A whole number; a bool is not one."""
    boolean: ClassVar[Schema[bool, bool]]
    """True or False."""
    null: ClassVar[Schema[None, None]]
    """None."""
    unknown: ClassVar[Schema[Any, Any]]
    """Any JSON value."""
    datetime: ClassVar[Schema[dt.datetime, str]]
    """An aware datetime, written in ISO 8601 with its offset."""

    def __init__(self, shape: Shape) -> None:
        """Wrap a compiled shape; users call `Schema.of` or a combinator."""
        self.shape = shape

    # ---- from types ---------------------------------------------------------------------------------------

    # A static method has type variables of its own: those of the class are not solved where `Schema` is bare.

    @overload
    @staticmethod
    def of(annotation: Schema[T1, E1], *, strict: bool = ...) -> Schema[T1, E1]: ...
    @overload
    @staticmethod
    def of(annotation: type[T1], *, strict: bool = ...) -> Schema[T1]: ...
    @overload
    @staticmethod
    def of(annotation: TypeForm[T1], *, strict: bool = ...) -> Schema[T1]: ...
    @staticmethod
    def of(annotation: Any, *, strict: bool = False) -> Schema[Any, Any]:
        """The schema of a class or any other annotation; a schema is returned as it is.

        `strict` refuses unknown keys in every class and TypedDict that is mentioned. Raises `ValueError`,
        with the field and what to do about it, for a type that has no strict JSON form or a union whose
        members look alike in JSON.
        """
        return Schema(shape_of(annotation, strict=strict))

    @staticmethod
    def ensure(schema: Schema[T1] | type[T1]) -> Schema[T1]:
        """The schema itself, or the schema of the class."""
        return schema if isinstance(schema, Schema) else Schema(shape_of(schema))

    # ---- from parts ---------------------------------------------------------------------------------------

    @staticmethod
    def literal(*values: L) -> Schema[L, Any]:
        """One of the given values, by type and value. `Schema.of(Literal["a", "b"])` is typed exactly."""
        return Schema(literal_shape(values))

    @staticmethod
    def array(item: Schema[T1] | type[T1]) -> Schema[list[T1]]:
        """A list of any length."""
        shape = Schema.ensure(item).shape
        return Schema(Items(f"list[{shape.name}]", shape, list, as_list))

    @staticmethod
    def record(value: Schema[T1] | type[T1]) -> Schema[dict[str, T1]]:
        """A dict with any text as keys."""
        shape = Schema.ensure(value).shape
        return Schema(Record(f"dict[str, {shape.name}]", TEXT, shape))

    @staticmethod
    def nullable(inner: Schema[T1] | type[T1]) -> Schema[T1 | None]:
        """A value or None."""
        return Schema(union_of([inner, None]))

    @staticmethod
    def optional(inner: Schema[T1] | type[T1]) -> Schema[T1 | None]:
        """A field of `Schema.struct` that may be absent, or None. Absent stays absent and None stays None."""
        shape = Absentable(Schema.ensure(inner).shape)
        shape.close()
        return Schema(shape)

    @staticmethod
    def struct(
        fields: Mapping[str, Schema[Any] | type[Any]], *, strict: bool = False
    ) -> Schema[dict[str, Any]]:
        """A dict with these keys. Unknown keys are left out when decoding, or refused with `strict=True`.

        When encoding they are always refused: a value must not silently lose part of itself.
        """
        shapes = {key: Schema.ensure(field).shape for key, field in fields.items()}
        shape = Fields(f"{{{', '.join(shapes)}}}", strict=strict)
        required = (key for key, field in shapes.items() if not isinstance(field, Absentable))
        shape.define(shapes, frozenset(required))
        return Schema(shape)

    @overload
    @staticmethod
    def union(a: Schema[T1] | type[T1], /) -> Schema[T1]: ...
    @overload
    @staticmethod
    def union(a: Schema[T1] | type[T1], b: Schema[T2] | type[T2], /) -> Schema[T1 | T2]: ...
    @overload
    @staticmethod
    def union(
        a: Schema[T1] | type[T1], b: Schema[T2] | type[T2], c: Schema[T3] | type[T3], /
    ) -> Schema[T1 | T2 | T3]: ...
    @overload
    @staticmethod
    def union(
        a: Schema[T1] | type[T1],
        b: Schema[T2] | type[T2],
        c: Schema[T3] | type[T3],
        d: Schema[T4] | type[T4],
        /,
    ) -> Schema[T1 | T2 | T3 | T4]: ...
    @overload
    @staticmethod
    def union(
        a: Schema[T1] | type[T1],
        b: Schema[T2] | type[T2],
        c: Schema[T3] | type[T3],
        d: Schema[T4] | type[T4],
        e: Schema[T5] | type[T5],
        /,
    ) -> Schema[T1 | T2 | T3 | T4 | T5]: ...
    @overload
    @staticmethod
    def union(
        a: Schema[T1] | type[T1],
        b: Schema[T2] | type[T2],
        c: Schema[T3] | type[T3],
        d: Schema[T4] | type[T4],
        e: Schema[T5] | type[T5],
        f: Schema[T6] | type[T6],
        /,
    ) -> Schema[T1 | T2 | T3 | T4 | T5 | T6]: ...
    @overload  # from seven on; if it took fewer, mypy could not choose among the overloads above
    @staticmethod
    def union(
        a: Schema[Any] | type[Any],
        b: Schema[Any] | type[Any],
        c: Schema[Any] | type[Any],
        d: Schema[Any] | type[Any],
        e: Schema[Any] | type[Any],
        f: Schema[Any] | type[Any],
        g: Schema[Any] | type[Any],
        /,
        *more: Schema[Any] | type[Any],
    ) -> Schema[Any]: ...
    @staticmethod
    def union(*members: Any) -> Schema[Any]:
        """One of the members.

        Two or more classes are written with a `_tag`; structs need a key whose literal values differ. Raises
        `ValueError` when members could be taken for each other. The type of the result is exact for up to six
        members, that of `Schema.of(A | B | ...)` for any number.
        """
        if not members:
            raise ValueError("a union needs at least one member")
        return Schema(union_of(members))

    @overload
    @staticmethod
    def tuple() -> Schema[builtins.tuple[()]]: ...
    @overload
    @staticmethod
    def tuple(a: Schema[T1] | type[T1], /) -> Schema[builtins.tuple[T1]]: ...
    @overload
    @staticmethod
    def tuple(a: Schema[T1] | type[T1], b: Schema[T2] | type[T2], /) -> Schema[builtins.tuple[T1, T2]]: ...
    @overload
    @staticmethod
    def tuple(
        a: Schema[T1] | type[T1], b: Schema[T2] | type[T2], c: Schema[T3] | type[T3], /
    ) -> Schema[builtins.tuple[T1, T2, T3]]: ...
    @overload
    @staticmethod
    def tuple(
        a: Schema[Any] | type[Any],
        b: Schema[Any] | type[Any],
        c: Schema[Any] | type[Any],
        d: Schema[Any] | type[Any],
        /,
        *more: Schema[Any] | type[Any],
    ) -> Schema[builtins.tuple[Any, ...]]: ...
    @staticmethod
    def tuple(*items: Any) -> Schema[Any]:
        """A tuple with these items, each at its position; a list when encoded."""
        return Schema(Fixed([shape_of(item) for item in items]))

    # ---- from this schema ---------------------------------------------------------------------------------

    def filter(self, predicate: Callable[[T], object], message: str) -> Schema[T, Encoded]:
        """Only the values for which `predicate` is true; for others the problem is `message`.

        Do not quote values in it: they may be secrets. A predicate that raises refuses the value.
        """
        return Schema(Filtered(self.shape, predicate, message))

    def transform(
        self, decode: Callable[[T], U], encode: Callable[[U], T], *, name: str | None = None
    ) -> Schema[U, Encoded]:
        """Values that `decode` makes from this schema's, and `encode` turns back.

        An exception in either is a problem. `encode` followed by `decode` should give an equal value.
        """
        return Schema(Transformed(name or transformed_name(decode, self.name), self.shape, decode, encode))

    def brand(self, brand: TypeForm[U]) -> Schema[U, Encoded]:
        """The same values under a type of their own: `Schema.string.brand(UserId)` with a `NewType`."""
        return cast("Schema[U, Encoded]", Schema(self.shape))

    # ---- reading and writing ------------------------------------------------------------------------------

    def decode(self, data: object) -> Effect[T, SchemaError]:
        """The value that `data` stands for, or a `SchemaError` with everything that is wrong with it."""
        return Effect.suspend(lambda: _attempt(self.decode_sync, data))

    def encode(self, value: T) -> Effect[Encoded, SchemaError]:
        """The JSON data that stands for `value`, or a `SchemaError` when it is not a valid one."""
        return Effect.suspend(lambda: _attempt(self.encode_sync, value))

    def decode_sync(self, data: object) -> T:
        """The value that `data` stands for. Raises `SchemaError`."""
        try:
            return cast("T", self.shape.decode(data))
        except MISFITS as error:
            raise self._error(error) from None

    def encode_sync(self, value: T) -> Encoded:
        """The JSON data that stands for `value`, checked to the bottom. Raises `SchemaError`."""
        try:
            return cast("Encoded", self.shape.encode(value))
        except MISFITS as error:
            raise self._error(error) from None

    def is_type(self, value: object) -> bool:
        """Whether `value` already is a valid value of this schema's type."""
        try:
            self.shape.encode(value)
        except MISFITS:
            return False
        return True

    def accept(self, given: object) -> T:
        """The value itself when it is valid, otherwise what it stands for in encoded form.

        Raises `SchemaError`.
        """
        try:
            self.shape.encode(given)
        except MISFITS as error:
            if kind_of(given) is None:  # not JSON: it was meant as a value
                raise self._error(error) from None
            return self.decode_sync(given)
        return cast("T", given)

    def _error(self, error: Exception) -> SchemaError:
        return SchemaError(self.name, problems_of(error))

    # ---- about it -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What error messages call it."""
        return self.shape.name

    def to_json_schema(self) -> dict[str, Any]:
        """The encoded side as JSON Schema (draft 2020-12). Filters appear as descriptions only."""
        return json_schema_of(self.shape)

    def strategy(self) -> SearchStrategy[T]:
        """Valid values for property tests, as a hypothesis strategy. Needs the extra `test`."""
        from durable_effect.schema.strategy import strategy_of

        return cast("SearchStrategy[T]", strategy_of(self.shape))

    def __repr__(self) -> str:
        return f"Schema[{self.name}]"


def _attempt(convert: Callable[[T], U], given: T) -> Effect[U, SchemaError]:
    try:
        return Effect.succeed(convert(given))
    except SchemaError as error:
        return Effect.fail(error)


def transformed_name(decode: Callable[..., Any], inner: str) -> str:
    """A class gives its name to what it makes; the name of any other function says little."""
    return decode.__name__ if isinstance(decode, type) else f"transformed {inner}"


Schema.string = Schema(TEXT)
Schema.number = Schema(NUMBER)
Schema.integer = Schema(INTEGER)
Schema.boolean = Schema(BOOLEAN)
Schema.null = Schema(NULL)
Schema.unknown = Schema(UNKNOWN)
Schema.datetime = Schema(DATETIME)
