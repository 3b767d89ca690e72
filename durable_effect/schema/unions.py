"""Unions: telling from JSON alone which member was meant.

Members whose JSON is of different kinds are told apart by it. Of members written as objects each must be
marked: classes carry `"_tag": "<ClassName>"`, structs and TypedDicts a key whose literal values differ.
Members written as the same kind of single value must not share a text or number. Whatever is left over is
ambiguous and refused when it is defined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, combinations
from typing import Any, Final, NamedTuple

from durable_effect.schema.classes import Fielded
from durable_effect.schema.problem import MISFITS, Mismatch, at_key, found, together
from durable_effect.schema.shapes import (
    FLOAT,
    NULL,
    UNKNOWN,
    Alias,
    Convert,
    Fields,
    Filtered,
    Shape,
    Transformed,
    is_dict,
    kind_of,
    type_of,
)
from durable_effect.schema.texts import Written

TAG: Final = "_tag"


class Union(Shape):
    """One of several shapes. They may still be undefined when the union is made; `close` looks at them."""

    __slots__ = ("_by_kind", "_by_type", "members")

    def __init__(self, members: Iterable[Shape]) -> None:
        self.members = tuple(members)
        super().__init__(" | ".join(dict.fromkeys(member.name for member in self.members)))

    def close(self) -> None:
        """Decide how the members are told apart; all of them are defined now."""
        self.members = _merged(dict.fromkeys(_flat(self.members, frozenset())))
        self.kinds = frozenset(chain.from_iterable(member.kinds for member in self.members))
        self.types = tuple(chain.from_iterable(member.types for member in self.members))
        self.plain = all(member.plain for member in self.members)
        self._by_kind = {kind: _reading(kind, self.members) for kind in self.kinds}
        self._by_type = {cls: [m for m in self.members if cls in m.types] for cls in self.types}

    def decode(self, data: Any, _: object = None, /) -> Any:
        read = self._by_kind.get(type_of(data)) or self._by_kind.get(kind_of(data) or object)
        if read is None:
            raise found(self.name, data)
        return read(data)

    def encode(self, value: Any, /) -> Any:
        members = self._by_type.get(type_of(value))
        if members is not None and len(members) == 1:
            return members[0].encode(value)
        return first_fit([member.encode for member in members or self.members], value, self.name)


class Absentable(Union):
    """A shape or None, for a key of a struct that may also be left out."""

    __slots__ = ()

    def __init__(self, inner: Shape) -> None:
        super().__init__((inner, NULL))


def first_fit(converts: Iterable[Convert], value: Any, expected: str) -> Any:
    """What the first of the conversions that accepts `value` makes of it."""
    for convert in converts:
        try:
            return convert(value)
        except MISFITS:
            continue
    raise found(expected, value)


def core(shape: Shape) -> Shape:
    """The shape that writes the JSON, below filters, transformations and names."""
    while True:
        match shape:
            case Filtered() | Transformed():
                shape = shape.inner
            case Alias():
                shape = shape.target
            case _:
                return shape


def _flat(members: Iterable[Shape], within: frozenset[Alias]) -> Iterator[Shape]:
    for member in members:
        if isinstance(member, Union):
            yield from _flat(member.members, within)
        elif isinstance(member, Tagged):
            yield from (tagged.shape for tagged in member.members)
        elif isinstance(member, Alias):
            if member in within:
                raise ValueError(f"{member.name} is defined as itself")
            yield from _flat((member.target,), within | {member})
        else:
            yield member


def _merged(members: Iterable[Shape]) -> tuple[Shape, ...]:
    """The members with those that are written as objects behind one tag, and Any for Any | None."""
    shapes = tuple(members)
    if UNKNOWN in shapes:
        if all(shape in (UNKNOWN, NULL) for shape in shapes):
            return (UNKNOWN,)
        raise ambiguous(shapes, "Any stands for every JSON value, the other members' too")
    objects = [shape for shape in shapes if dict in shape.kinds]
    if len(objects) < 2:
        return shapes
    return (*(shape for shape in shapes if shape not in objects), Tagged(objects))


def ambiguous(members: Iterable[Shape], why: str) -> ValueError:
    """The members of a union cannot be told apart."""
    names = " | ".join(member.name for member in members)
    return ValueError(f"{names} cannot be told apart in JSON: {why}")


# ---- members written as one kind of JSON ------------------------------------------------------------------


def _reading(kind: type, members: Iterable[Shape]) -> Convert:
    candidates = sorted((member for member in members if kind in member.kinds), key=_most_exact_first)
    if len(candidates) == 1:
        return candidates[0].decode
    for one, other in combinations(candidates, 2):
        if not _apart(kind, one, other):
            raise ambiguous((one, other), f"both are written as {kind.__name__}. {_ADVICE}")
    decoders = [candidate.decode for candidate in candidates]
    expected = " | ".join(candidate.name for candidate in candidates)
    return lambda data: first_fit(decoders, data, expected)


_ADVICE: Final = "Use classes, which carry a _tag, or structs with a literal key"


def _most_exact_first(shape: Shape) -> tuple[bool, bool]:
    # A listed value before any value, and an int before the float that could hold it.
    return shape.choices is None, core(shape) is FLOAT


def _apart(kind: type, one: Shape, other: Shape) -> bool:
    if kind in (list, dict):
        return False
    if one.plain and other.plain:
        return True  # both read it as the value it is
    if one.choices is None and other.choices is None:
        return _formats_apart(core(one), core(other))
    return not (_overlap(kind, one, other) or _overlap(kind, other, one))


def _formats_apart(one: Shape, other: Shape) -> bool:
    return (
        one is not other
        and isinstance(one, Written)
        and isinstance(other, Written)
        and one.apart
        and other.apart
    )


def _overlap(kind: type, listed: Shape, other: Shape) -> bool:
    return any(type(choice) is kind and accepts(other, choice) for choice in listed.choices or ())


def accepts(shape: Shape, data: object) -> bool:
    """Whether `data` is an encoded form of `shape`."""
    try:
        shape.decode(data)
    except MISFITS:
        return False
    return True


# ---- members written as objects ---------------------------------------------------------------------------


class Member(NamedTuple):
    """A member of a tagged union: its tag, and whether it is added to what the shape writes."""

    shape: Shape
    tag: str
    added: bool


class Tagged(Shape):
    """Several shapes written as objects, of which one key says which it is."""

    __slots__ = ("_by_tag", "_by_type", "_expected", "_untyped", "key", "members")

    def __init__(self, shapes: list[Shape]) -> None:
        super().__init__(" | ".join(shape.name for shape in shapes), dict)
        self.key, self.members = _marked(shapes)
        self.types = tuple(dict.fromkeys(chain.from_iterable(shape.types for shape in shapes)))
        self._by_tag = {member.tag: member for member in self.members}
        self._by_type = {
            cls: member for member in self.members for cls in member.shape.types if cls is not dict
        }
        self._untyped = [member for member in self.members if not member.shape.types]
        self._expected = " | ".join(repr(member.tag) for member in self.members)

    def decode(self, data: Any, _: object = None, /) -> Any:
        if not is_dict(data):
            raise found("dict", data)
        member = self._meant(data)
        if not member.added:
            return member.shape.decode(data)
        # Not a field: a strict class would refuse it.
        return member.shape.decode({key: value for key, value in data.items() if key != self.key})

    def encode(self, value: Any, /) -> Any:
        member = self._by_type.get(type_of(value))
        if member is not None:
            return self._written(member, value)
        if is_dict(value):
            return self._meant(value).shape.encode(value)
        return first_fit([partial(self._written, member) for member in self._untyped], value, self.name)

    def _meant(self, entries: dict[Any, Any]) -> Member:
        if self.key not in entries:
            raise self._wrong_tag(Mismatch(f"missing, expected {self._expected}"))
        tag = entries[self.key]
        member = self._by_tag.get(tag) if isinstance(tag, str) else None
        if member is None:
            raise self._wrong_tag(found(self._expected, tag))
        return member

    def _wrong_tag(self, mismatch: Mismatch) -> Exception:
        return together([at_key(mismatch, self.key)], dict)

    def _written(self, member: Member, value: Any) -> Any:
        encoded = member.shape.encode(value)
        return {self.key: member.tag, **encoded} if member.added else encoded


def _marked(shapes: list[Shape]) -> tuple[str, tuple[Member, ...]]:
    """The first key that every shape has a different text at: `_tag`, or one with literal values."""
    keys = chain([TAG], dict.fromkeys(chain.from_iterable(_keys(core(shape)) for shape in shapes)))
    for key in keys:
        members = [member for shape in shapes for member in _marks(shape, key)]
        tags = {member.tag for member in members}
        if len(tags) == len(members) and {member.shape for member in members} == set(shapes):
            return key, tuple(members)
    raise ambiguous(shapes, f"no key marks each with a text of its own. {_ADVICE}")


def _keys(shape: Shape) -> Iterable[str]:
    return shape.fields if isinstance(shape, Fields | Fielded) else ()


def _marks(shape: Shape, key: str) -> list[Member]:
    inner = core(shape)
    if not isinstance(inner, Fields | Fielded):
        return []
    if key == TAG and isinstance(inner, Fielded) and key not in inner.fields:
        return [Member(shape, inner.cls.__name__, added=True)]
    if key not in inner.fields:
        return []
    if isinstance(inner, Fields) and key not in inner.required:
        return []
    choices = inner.fields[key].choices or ()
    return [Member(shape, tag, added=False) for tag in choices if isinstance(tag, str)]
