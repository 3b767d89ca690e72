"""Every annotation that a schema reads, and those that are refused when the schema is made."""

from __future__ import annotations

import collections
import collections.abc as abc
import dataclasses
import datetime as dt
import enum
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    Self,
    TypedDict,
)

import attrs
import pytest
from typing_extensions import ReadOnly, TypeAliasType, TypeVar

from durable_effect.schema import Schema, SchemaError

T = TypeVar("T")
K = TypeVar("K")
D = TypeVar("D", default=int)
B = TypeVar("B", bound=str)

UserId = NewType("UserId", str)


def paths(schema: Schema[Any], data: object) -> list[str]:
    """Where `data` does not fit."""
    with pytest.raises(SchemaError) as raised:
        schema.decode_sync(data)
    return [problem.path for problem in raised.value.problems]


def there_and_back(annotation: Any, value: Any, encoded: Any) -> None:
    """Check that `value` is written as `encoded` and read back, equal and of the same type."""
    schema = Schema.of(annotation)
    assert schema.encode_sync(value) == encoded
    decoded = schema.decode_sync(encoded)
    assert decoded == value
    assert type(decoded) is type(value)
    assert schema.is_type(value)


# ---- classes ----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    _hidden: str = dataclasses.field(default="", kw_only=True)
    total: int = dataclasses.field(init=False, default=0)


@attrs.define
class Private:
    _token: str
    shown: int = attrs.field(alias="visible")
    count: int = attrs.field(default=0, kw_only=True)
    doubled: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.doubled = self.count * 2


class Pair(NamedTuple):
    left: int
    right: str = "r"


Untyped = collections.namedtuple("Untyped", ["a", "b"])


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Partial(Movie, total=False):
    stars: ReadOnly[int]
    director: Required[Annotated[str, "by name"]]


def test_dataclasses() -> None:
    """Fields go by name; those the constructor does not take are computed and not stored."""
    there_and_back(Point, Point(1, 2, ["a"], _hidden="h"), {"x": 1, "y": 2, "tags": ["a"], "_hidden": "h"})
    assert Schema.of(Point).decode_sync({"x": 1}) == Point(1)


def test_attrs_classes_with_private_aliased_and_computed_fields() -> None:
    """Keys are the names of the fields, whatever the constructor calls them."""
    there_and_back(Private, Private("t", 1, count=3), {"_token": "t", "shown": 1, "count": 3})
    assert Schema.of(Private).decode_sync({"_token": "t", "shown": 1, "count": 3}).doubled == 6
    assert paths(Schema.of(Private), {}) == ["$._token", "$.shown"]


def test_attrs_converters_and_validators_run() -> None:
    """A class is made through its constructor, so what that does to a field happens."""

    @attrs.frozen
    class Tag:
        name: str = attrs.field(converter=str.lower, validator=attrs.validators.min_len(1))

    schema = Schema.of(Tag)

    assert schema.decode_sync({"name": "ABC"}) == Tag("abc")
    assert paths(schema, {"name": ""}) == ["$"]
    assert paths(schema, {"name": 1}) == ["$.name"]


def test_post_init_may_refuse() -> None:
    """An exception in __post_init__ is a problem of the object."""

    @dataclasses.dataclass
    class Range:
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low > high")

    schema = Schema.of(list[Range])

    assert schema.decode_sync([{"low": 1, "high": 2}]) == [Range(1, 2)]
    assert paths(schema, [{"low": 1, "high": 2}, {"low": 3, "high": 2}]) == ["$[1]"]


def test_named_tuples() -> None:
    """Named tuples are written by name; a list in their order is read too."""
    there_and_back(Pair, Pair(1, "a"), {"left": 1, "right": "a"})
    there_and_back(Untyped, Untyped(1, [None]), {"a": 1, "b": [None]})
    schema = Schema.of(Pair)
    assert schema.decode_sync([1]) == Pair(1)
    assert schema.decode_sync([1, "a"]) == Pair(1, "a")
    assert paths(schema, ["a"]) == ["$.left"]
    assert paths(schema, [1, "a", 2]) == ["$"]


def test_typed_dicts() -> None:
    """Required, NotRequired and total are obeyed, in quoted annotations and through inheritance."""
    schema = Schema.of(Partial)

    there_and_back(Movie, {"title": "a"}, {"title": "a"})
    full = {"title": "a", "director": "b", "stars": 5}
    there_and_back(Partial, full, dict(full))
    assert paths(schema, {}) == ["$.title", "$.director"]
    assert paths(schema, {"title": "a", "director": "b", "year": "1", "stars": "2"}) == ["$.year", "$.stars"]
    assert schema.decode_sync({"title": "a", "director": "b", "more": 1}) == {"title": "a", "director": "b"}
    assert paths(Schema.of(Movie, strict=True), {"title": "a", "more": 1}) == ["$.more"]


def test_attrs_fields_without_annotation() -> None:
    """A field without a type is any JSON value."""

    @attrs.define
    class Loose:
        x = attrs.field()

    there_and_back(Loose, Loose({"a": [1]}), {"x": {"a": [1]}})


# ---- recursion and names ----------------------------------------------------------------------------------


@attrs.frozen
class Tree:
    value: int
    children: list[Tree] = attrs.field(factory=list)
    parent: Tree | None = None


@dataclasses.dataclass
class Ping:
    pong: Pong | None = None


@dataclasses.dataclass
class Pong:
    ping: Ping


Json = TypeAliasType("Json", "int | str | list[Json] | dict[str, Json] | None")
Nested = TypeAliasType("Nested", list["T | Nested[T]"], type_params=(T,))


def test_recursive_classes() -> None:
    """A class may contain itself, at any depth."""
    leaf = {"value": 2, "children": [], "parent": None}

    there_and_back(Tree, Tree(1, [Tree(2)]), {"value": 1, "children": [leaf], "parent": None})
    assert paths(Schema.of(Tree), {"value": 1, "children": [{"value": 1, "children": [{}]}]}) == [
        "$.children[0].children[0].value"
    ]


def test_mutually_recursive_classes() -> None:
    """Classes may contain each other."""
    there_and_back(Ping, Ping(Pong(Ping())), {"pong": {"ping": {"pong": None}}})


def test_recursive_aliases() -> None:
    """A named type may mention itself, with type parameters too."""
    there_and_back(Json, {"a": [1, "x", [None]]}, {"a": [1, "x", [None]]})
    assert paths(Schema.of(Json), {"a": [1, 2.5]}) == ["$.a[1]"]


def test_self() -> None:
    """Self is the class it stands in."""

    @attrs.frozen
    class Chain:
        next: Self | None = None

    there_and_back(Chain, Chain(Chain()), {"next": {"next": None}})


def test_classes_of_a_function_see_each_other() -> None:
    """Classes that are made inside a function may name each other in quoted annotations."""

    @attrs.frozen
    class Inner:
        x: int

    @attrs.frozen
    class Outer:
        inner: Inner
        outer: Outer | None = None

    there_and_back(Outer, Outer(Inner(1)), {"inner": {"x": 1}, "outer": None})


# ---- generics ---------------------------------------------------------------------------------------------


@attrs.frozen
class Box(Generic[T]):
    content: T
    spare: list[T] = attrs.field(factory=list)


@attrs.frozen
class IntBox(Box[int]):
    label: str = ""


@attrs.frozen
class Labelled(IntBox):
    pass


@attrs.frozen
class PairBox(Box[tuple[K, T]], Generic[K, T]):
    other: Box[K] | None = None


class Page(TypedDict, Generic[T]):
    items: list[T]


class Couple(NamedTuple, Generic[T]):
    one: T
    two: T


@attrs.frozen
class Defaulted(Generic[B, D]):
    d: D
    b: B


def test_generic_classes() -> None:
    """Type arguments reach the fields, nested and inherited."""
    there_and_back(Box[dt.date], Box(dt.date(2026, 1, 1)), {"content": "2026-01-01", "spare": []})
    there_and_back(Box[Box[int]], Box(Box(1)), {"content": {"content": 1, "spare": []}, "spare": []})
    assert paths(Schema.of(IntBox), {"content": "x", "spare": ["y"]}) == ["$.content", "$.spare[0]"]
    assert paths(Schema.of(Labelled), {"content": "x"}) == ["$.content"]
    assert paths(Schema.of(PairBox[str, int]), {"content": [1, "x"], "other": {"content": 1}}) == [
        "$.content[0]",
        "$.content[1]",
        "$.other.content",
    ]
    assert paths(Schema.of(Page[int]), {"items": ["x"]}) == ["$.items[0]"]
    assert paths(Schema.of(Couple[int]), ["x", 1]) == ["$.one"]


def test_generic_classes_without_arguments() -> None:
    """Without an argument a type variable is its default, its bound, or anything."""
    there_and_back(Box, Box([1, "a"]), {"content": [1, "a"], "spare": []})
    assert paths(Schema.of(Defaulted), {"d": "x", "b": 1}) == ["$.d", "$.b"]


def test_annotated_with_metadata_that_has_no_hash() -> None:
    """Metadata is nobody's business here, whatever it is."""
    assert Schema.of(Box[Annotated[int, {"unit": "s"}]]).decode_sync({"content": 1}) == Box(1)


def test_generic_schemas_know_their_arguments() -> None:
    """One generic class with two arguments is two schemas."""
    schema = Schema.of(tuple[Box[int], Box[str]])

    assert paths(schema, [{"content": "x"}, {"content": 1}]) == ["$[0].content", "$[1].content"]
    assert Schema.of(Box[int]).name == "Box[int]"


# ---- everything else --------------------------------------------------------------------------------------


class Permission(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


def test_wrapped_annotations() -> None:
    """NewType, Annotated, Final and ReadOnly stand for what they wrap."""

    @attrs.frozen
    class Wrapped:
        user: UserId
        count: Annotated[int, "how many"]
        fixed: Final[str] = "f"

    there_and_back(Wrapped, Wrapped(UserId("u"), 1), {"user": "u", "count": 1, "fixed": "f"})


def test_a_schema_in_annotated_is_the_schema_of_the_type() -> None:
    """A type that no schema is known for is given one where it is mentioned."""

    class Money:
        def __init__(self, text: str) -> None:
            self.amount = Decimal(text)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Money) and other.amount == self.amount

        __hash__ = None  # type: ignore[assignment]

    MoneyText = Annotated[Money, Schema.string.transform(Money, lambda money: str(money.amount))]

    @attrs.frozen
    class Invoice:
        totals: list[MoneyText]

    there_and_back(Invoice, Invoice([Money("1.50")]), {"totals": ["1.50"]})
    assert paths(Schema.of(Invoice), {"totals": ["x"]}) == ["$.totals[0]"]


@pytest.mark.parametrize(
    ("annotation", "value", "encoded"),
    [
        (Any, {"a": [1]}, {"a": [1]}),
        (object, [1], [1]),
        (None, None, None),
        (typing.Optional[int], 1, 1),  # noqa: UP045 - the old notation is what is tested
        (typing.Union[int, str], "a", "a"),  # noqa: UP007
        (typing.List[int], [1], [1]),  # noqa: UP006
        (list, [1, "a"], [1, "a"]),
        (dict, {"a": 1}, {"a": 1}),
        (tuple, (1, "a"), [1, "a"]),
        (set, {1}, [1]),
        (frozenset[str], frozenset({"b", "a"}), ["a", "b"]),
        (Sequence[int], [1, 2], [1, 2]),
        (abc.MutableSequence[int], [1, 2], [1, 2]),
        (abc.Set[int], frozenset({1}), [1]),
        (abc.MutableSet[int], {1}, [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (abc.MutableMapping[str, int], {"a": 1}, {"a": 1}),
        (collections.deque[int], collections.deque([1]), [1]),
        (collections.Counter[str], collections.Counter(a=2), {"a": 2}),
        (collections.OrderedDict[str, int], collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1]), {"a": [1]}),
        (dict[dt.date, int], {dt.date(2026, 1, 1): 1}, {"2026-01-01": 1}),
        (dict[Literal["a", "b"], int], {"a": 1}, {"a": 1}),
        (Permission, Permission.READ | Permission.WRITE, 3),
        (Permission, Permission(0), 0),
    ],
    ids=repr,
)
def test_annotations(annotation: Any, value: object, encoded: object) -> None:
    """Each annotation has its JSON and gives the value back."""
    there_and_back(annotation, value, encoded)


def test_abstract_containers_accept_what_python_accepts() -> None:
    """A tuple is a Sequence and a mapping proxy a Mapping; they are read back as list and dict."""
    assert Schema.of(Sequence[int]).encode_sync((1, 2)) == [1, 2]
    assert Schema.of(Mapping[str, int]).encode_sync(collections.ChainMap({"a": 1})) == {"a": 1}
    assert not Schema.of(Sequence[str]).is_type("ab")


def test_a_defaultdict_makes_missing_values() -> None:
    """What is read back works like what was written."""
    decoded = Schema.of(collections.defaultdict[str, list[int]]).decode_sync({})

    assert decoded["new"] == []


def test_flags_are_checked() -> None:
    """A number with bits that are no flag is refused."""
    assert paths(Schema.of(Permission), 8) == ["$"]
    assert paths(Schema.of(Permission), -1) == ["$"]
    assert paths(Schema.of(Permission), True) == ["$"]


@pytest.mark.parametrize("boundary", [enum.STRICT, enum.CONFORM, enum.EJECT])
def test_flags_are_not_made_to_fit(boundary: enum.FlagBoundary) -> None:
    """Bits are refused as well where the class itself would drop them or answer a number."""
    switches: Any = enum.Flag("Switches", ["ON"], boundary=boundary)
    assert paths(Schema.of(switches), 2) == ["$"]


def test_flags_that_keep_other_bits_keep_them() -> None:
    """Numbers that a class takes as they are come back as they were."""
    switches: Any = enum.IntFlag("Switches", ["ON"], boundary=enum.KEEP)
    schema: Schema[Any] = Schema.of(switches)
    assert schema.encode_sync(schema.decode_sync(3)) == 3


# ---- definitions that cannot be ---------------------------------------------------------------------------


class Opaque:
    pass


@attrs.frozen
class Broken:
    inner: list[Opaque]


@attrs.frozen
class Deeper:
    broken: Broken


@dataclasses.dataclass
class NeedsMore:
    x: int
    y: dataclasses.InitVar[int]


@attrs.frozen
class Dangling:
    x: Missing  # type: ignore[name-defined]  # noqa: F821 - a name that nobody defines


class Empty(enum.Enum):
    pass


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Opaque, "no schema for Opaque: make it an attrs class or a dataclass, or say how"),
        (Callable[[], int], "no schema for collections.abc.Callable"),
        (complex, "no schema for complex"),
        (type[int], "no schema for type[int]"),
        (Deeper, r"Deeper.broken: Broken.inner: no schema for Opaque"),
        (dict[float, int], "a key must be written as text, float is not"),
        (dict[Point, int], "a key must be written as text, Point is not"),
        (Literal[b"x"], "no literal of type bytes"),
        ("Tree", "'Tree' is a name in quotes"),
        (list["Tree"], "is a name in quotes"),
        (Empty, "no schema for Empty: it has no members"),
        (NeedsMore, "NeedsMore cannot be made from its fields"),
        (Dangling, "Dangling: name 'Missing' is not defined"),
        (collections.defaultdict[str, Any], "a defaultdict needs a class"),
        (3, "no schema for 3"),
        ([int], "no schema for"),
    ],
    ids=str,
)
def test_definitions_that_cannot_be(annotation: Any, message: str) -> None:
    """A type without a strict JSON form is refused at once, by field, with what to do."""
    with pytest.raises(ValueError, match=r"(?s).*") as raised:
        Schema.of(annotation)

    assert message in str(raised.value)


def test_a_schema_passes_through() -> None:
    """Schema.of a schema is that schema."""
    schema = Schema.integer.filter(bool, "not zero")

    assert Schema.of(schema).decode_sync(1) == 1
    assert paths(Schema.of(schema), 0) == ["$"]


def test_an_attribute_that_was_never_set_is_a_problem() -> None:
    """A value that lacks a field cannot be written, and the field is named."""
    tree = Tree.__new__(Tree)

    with pytest.raises(SchemaError) as raised:
        Schema.of(Tree).encode_sync(tree)

    assert [str(problem) for problem in raised.value.problems] == [
        "$.value: refused by Tree (AttributeError)",
        "$.children: refused by Tree (AttributeError)",
        "$.parent: refused by Tree (AttributeError)",
    ]
