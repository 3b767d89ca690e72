"""Shapes: how one kind of value is written as JSON and read back, strictly.

A shape is the compiled form of an annotation or a combinator. It decodes (JSON data to a value) and encodes
(a value to JSON data); both check everything and raise `Mismatch`, or cattrs' groups of them with their
places. Nothing is coerced: what a shape accepts has one reading. Decoding what a shape encoded gives the
value back.

`decode` has cattrs' signature of a structure hook; its second argument, the type, is not needed here.
"""

from __future__ import annotations

import functools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import Flag
from typing import Any, Final, TypeAlias, TypeGuard, cast

from durable_effect.schema.problem import MISFITS, Mismatch, at_index, at_key, found, together

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""What JSON can say, as Python values. Floats are finite, text has no lone surrogates."""

Convert: TypeAlias = Callable[[Any], Any]

NULL_KIND: Final = type(None)
EXACT_KINDS: Final = frozenset({NULL_KIND, bool, int, float, str, list, dict})


def kind_of(data: object) -> type | None:
    """Which JSON kind `data` is; a subclass counts as its kind, except that a bool is not an int."""
    exact = type(data)
    if exact in EXACT_KINDS:
        return exact
    return next((kind for kind in (int, float, str, list, dict) if isinstance(data, kind)), None)


def is_list(data: object) -> TypeGuard[list[Any]]:
    """Whether `data` is a list, of whatever."""
    return isinstance(data, list)


def is_dict(data: object) -> TypeGuard[dict[Any, Any]]:
    """Whether `data` is a dict, of whatever."""
    return isinstance(data, dict)


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    """Whether `value` is a tuple, of whatever."""
    return isinstance(value, tuple)


class Shape(ABC):
    """What every shape knows: its name in messages, and which JSON its values become.

    `kinds` are the Python types of the encoded forms, `types` the exact types of the values as far as they
    are known, `choices` all encoded forms when they can be listed. In a `plain` shape a value is its own
    encoded form.
    """

    __slots__ = ("choices", "kinds", "name", "plain", "types")

    def __init__(
        self,
        name: str,
        *kinds: type,
        types: tuple[type, ...] = (),
        plain: bool = False,
        choices: tuple[JsonValue, ...] | None = None,
    ) -> None:
        self.name = name
        self.kinds = frozenset(kinds)
        self.types = types
        self.plain = plain
        self.choices = choices

    @abstractmethod
    def decode(self, data: Any, _: object = None, /) -> Any:
        """The value that `data` stands for."""

    @abstractmethod
    def encode(self, value: Any, /) -> Any:
        """The JSON data that stands for `value`."""


# ---- single values ----------------------------------------------------------------------------------------


class Plain(Shape):
    """A value that is its own encoded form: decoding and encoding are the same check."""

    __slots__ = ()

    def __init__(self, name: str, *kinds: type, choices: tuple[JsonValue, ...] | None = None) -> None:
        super().__init__(name, *kinds, types=kinds, plain=True, choices=choices)

    def encode(self, value: Any, /) -> Any:
        return self.decode(value)


class Text(Plain):
    """Text, without lone surrogates: UTF-8 has no bytes for them, so some storage could not hold them."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("str", str)

    def decode(self, data: Any, _: object = None, /) -> str:
        if type(data) is str and data.isascii():
            return data
        if not isinstance(data, str):
            raise found("str", data)
        text = str.__str__(data)  # a str enum becomes its text
        if not is_unicode(text):
            raise Mismatch("expected text without lone surrogates")
        return text


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Integer(Plain):
    """A whole number of any size. A bool is not one."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("int", int)

    def decode(self, data: Any, _: object = None, /) -> int:
        if type(data) is int:
            return data
        if isinstance(data, int) and not isinstance(data, bool):
            return int(data)
        raise found("int", data)


class Float(Plain):
    """A finite float.

    An int that a float holds exactly is accepted and becomes one: JSON has one kind of number.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("float", float, int)
        self.types = (float,)

    def decode(self, data: Any, _: object = None, /) -> float:
        if type(data) is float and math.isfinite(data):
            return data
        return finite(data, "float") if isinstance(data, float) else exact_float(data)


def finite(data: float, expected: str) -> float:
    """`data` as a plain float, unless it is NaN or infinite."""
    if not math.isfinite(data):
        raise Mismatch(f"expected a finite {expected}")
    return float(data)


def exact_float(data: object) -> float:
    """The float equal to the int `data`; a rounded one would not be the number that was given."""
    if not isinstance(data, int) or isinstance(data, bool):
        raise found("float", data)
    try:
        number = float(data)
    except OverflowError:
        number = math.inf
    if number != data:
        raise Mismatch("expected a number that a float holds exactly")
    return number


class Number(Plain):
    """An int or a finite float, kept as the one it is."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("number", float, int)

    def decode(self, data: Any, _: object = None, /) -> int | float:
        if type(data) is int:
            return data
        if isinstance(data, float):
            return finite(data, "number")
        if isinstance(data, int) and not isinstance(data, bool):
            return int(data)
        raise found("number", data)


class Boolean(Plain):
    """True or False."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("bool", bool)

    def decode(self, data: Any, _: object = None, /) -> bool:
        if data is True or data is False:
            return data is True
        raise found("bool", data)


class Null(Plain):
    """None."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("None", NULL_KIND, choices=(None,))

    def decode(self, data: Any, _: object = None, /) -> None:
        if data is not None:
            raise found("None", data)


class Choice(Shape):
    """One of a few values: a Literal or an Enum. The types count: True is not 1, 1.0 is not 1."""

    __slots__ = ("_encoded", "_values", "values")

    def __init__(self, name: str, pairs: Iterable[tuple[Hashable, JsonValue]]) -> None:
        pairs = list(pairs)
        self.values = tuple(value for value, _ in pairs)
        self._values = {(type(encoded), encoded): value for value, encoded in pairs}
        self._encoded = {(type(value), value): encoded for value, encoded in pairs}
        super().__init__(
            name,
            *(type(encoded) for _, encoded in pairs),
            types=tuple({type(value) for value in self.values}),
            plain=all(value is encoded for value, encoded in pairs),
            choices=tuple(encoded for _, encoded in pairs),
        )

    def decode(self, data: Any, _: object = None, /) -> Any:
        return self._pick(self._values, data)

    def encode(self, value: Any, /) -> Any:
        return self._pick(self._encoded, value)

    def _pick(self, table: Mapping[Any, Any], key: Any) -> Any:
        try:
            return table[type(key), key]
        except (KeyError, TypeError):  # TypeError: not hashable, so not one of them
            raise found(self.name, key) from None


class Flags(Shape):
    """A Flag enum, combinations included, as its number."""

    __slots__ = ("_cls",)

    def __init__(self, cls: type[Flag]) -> None:
        super().__init__(cls.__name__, int, types=(cls,))
        self._cls = cls

    @property
    def members(self) -> list[Flag]:
        """The single flags."""
        return list(self._cls)

    def combined(self, flags: Iterable[Flag]) -> Flag:
        """The flags as one value."""
        return functools.reduce(lambda one, other: one | other, flags, self._cls(0))

    def decode(self, data: Any, _: object = None, /) -> Any:
        number = INTEGER.decode(data)
        try:
            flags = self._cls(number)
        except ValueError:
            flags = None
        if not isinstance(flags, self._cls) or flags.value != number:  # bits were dropped, as early 3.11 does
            raise Mismatch(f"expected a combination of {self.name}")
        return flags

    def encode(self, value: Any, /) -> Any:
        if not isinstance(value, self._cls):
            raise found(self.name, value)
        return value.value


# ---- many values ------------------------------------------------------------------------------------------


def each(items: Sequence[Any], convert: Convert) -> list[Any]:
    """All `items` converted; when some do not fit, the error holds every one of them with its index."""
    done: list[Any] = []
    try:
        for item in items:
            done.append(convert(item))  # how far it came is the index of the first problem
    except MISFITS as error:
        raise _rest_of(items, convert, len(done), error) from None
    return done


def _rest_of(items: Sequence[Any], convert: Convert, index: int, error: Exception) -> Exception:
    errors = [at_index(error, index)]
    for later in range(index + 1, len(items)):
        try:
            convert(items[later])
        except MISFITS as other:
            errors.append(at_index(other, later))
    return together(errors, list)


class Items(Shape):
    """Many values of one shape: list, set, frozenset, variadic tuple, deque. A list when encoded.

    A set is written in the order of its items' JSON, so that equal sets are equal text; repeated items are
    refused.
    """

    __slots__ = ("_accepts", "_build", "distinct", "item")

    def __init__(
        self,
        name: str,
        item: Shape,
        accepts: type | tuple[type, ...],
        build: Callable[[list[Any]], Any],
    ) -> None:
        super().__init__(name, list, types=(type_of(build([])),))
        self.item = item
        self.distinct = build in (set, frozenset)
        self._accepts = accepts
        self._build = build

    def decode(self, data: Any, _: object = None, /) -> Any:
        if not is_list(data):
            raise found("list", data)
        return self.build(each(data, self.item.decode))

    def build(self, items: list[Any]) -> Any:
        """The value that holds these decoded items."""
        if not self.distinct:
            return self._build(items)
        try:
            value = self._build(items)
        except TypeError:
            raise Mismatch("expected items that can be hashed") from None
        if len(value) != len(items):
            raise Mismatch("expected items that differ from each other")
        return value

    def encode(self, value: Any, /) -> Any:
        if not isinstance(value, self._accepts):
            raise found(self.name, value)
        encoded = each(list(cast("Iterable[Any]", value)), self.item.encode)
        return sorted(encoded, key=sort_key) if self.distinct else encoded


def type_of(value: object) -> type:
    """The exact type of a value."""
    return type(value)


def as_list(items: list[Any]) -> list[Any]:
    """The items as the list they are."""
    return items


def sort_key(encoded: JsonValue) -> str:
    """A text that orders encoded items the same way everywhere."""
    return json.dumps(encoded, sort_keys=True)


class Fixed(Shape):
    """A tuple with a shape of its own at each position. A list when encoded."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Shape]) -> None:
        super().__init__(f"tuple[{', '.join(item.name for item in items) or '()'}]", list, types=(tuple,))
        self.items = tuple(items)

    def decode(self, data: Any, _: object = None, /) -> Any:
        if not is_list(data):
            raise found("list", data)
        return tuple(self._pairwise(data, _decode_pair))

    def encode(self, value: Any, /) -> Any:
        if not is_tuple(value):
            raise found(self.name, value)
        return self._pairwise(list(value), _encode_pair)

    def _pairwise(self, values: list[Any], convert: Convert) -> list[Any]:
        if len(values) != len(self.items):
            raise Mismatch(f"expected {len(self.items)} items, found {len(values)}")
        return each(list(zip(self.items, values, strict=True)), convert)


def _decode_pair(pair: tuple[Shape, Any]) -> Any:
    return pair[0].decode(pair[1])


def _encode_pair(pair: tuple[Shape, Any]) -> Any:
    return pair[0].encode(pair[1])


class Record(Shape):
    """Any number of keys, each with a value of one shape. The keys are what `key` decodes from text."""

    __slots__ = ("_accepts", "_build", "key", "value")

    def __init__(
        self,
        name: str,
        key: Shape,
        value: Shape,
        accepts: type = dict,
        build: Callable[[dict[Any, Any]], Any] = dict,
    ) -> None:
        super().__init__(name, dict, types=(type_of(build({})),))
        self.key = key
        self.value = value
        self._accepts = accepts
        self._build = build

    def decode(self, data: Any, _: object = None, /) -> Any:
        if not is_dict(data):
            raise found("dict", data)
        return self.build(self._entries(data, self.key.decode, self.value.decode))

    def build(self, entries: dict[Any, Any]) -> Any:
        """The value that holds these decoded entries."""
        return self._build(entries)

    def encode(self, value: Any, /) -> Any:
        if not isinstance(value, self._accepts):
            raise found(self.name, value)
        return self._entries(cast("Mapping[Any, Any]", value), self.key.encode, self.value.encode)

    def _entries(self, entries: Mapping[Any, Any], key_of: Convert, value_of: Convert) -> dict[Any, Any]:
        done: dict[Any, Any] = {}
        errors: list[Exception] = []
        for key, value in entries.items():
            try:
                done[_converted_key(key, key_of)] = value_of(value)
            except MISFITS as error:
                errors.append(at_key(error, key) if isinstance(key, str) else error)
        if errors:
            raise together(errors, dict)
        if len(done) != len(entries):
            raise Mismatch("expected keys that differ from each other")
        return done


def _converted_key(key: Any, convert: Convert) -> Any:
    try:
        return convert(key)
    except MISFITS as error:
        raise Mismatch(f"as a key: {error}") from None


class IntegerKey(Shape):
    """A whole number as the key of a record: its decimal digits, since JSON's keys are text."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("int", str, types=(int,))

    def decode(self, data: Any, _: object = None, /) -> int:
        try:
            number = int(TEXT.decode(data))
        except ValueError:
            raise found("the digits of an int", data) from None
        if str(number) != data:  # int() reads more than it writes: spaces, underscores, leading zeros
            raise found("the digits of an int", data)
        return number

    def encode(self, value: Any, /) -> str:
        return str(INTEGER.decode(value))


class Fields(Shape):
    """A dict with known keys: a struct or a TypedDict.

    A key that is not known is left out when decoding, unless `strict`. It is always a problem when encoding:
    a value must not silently lose part of itself.
    """

    __slots__ = ("_decoders", "_encoders", "fields", "required", "strict")

    def __init__(self, name: str, *, strict: bool) -> None:
        super().__init__(name, dict, types=(dict,))
        self.strict = strict

    def define(self, fields: Mapping[str, Shape], required: frozenset[str]) -> None:
        """Give it its keys; apart from making it, so that the fields can refer back to it."""
        self.fields = dict(fields)
        self.required = required
        self._decoders = [(key, shape.decode) for key, shape in fields.items()]
        self._encoders = [(key, shape.encode) for key, shape in fields.items()]

    def decode(self, data: Any, _: object = None, /) -> Any:
        if not is_dict(data):
            raise found("dict", data)
        return self._converted(data, self._decoders, strict=self.strict)

    def encode(self, value: Any, /) -> Any:
        if not is_dict(value):
            raise found(self.name, value)
        return self._converted(value, self._encoders, strict=True)

    def _converted(
        self, data: dict[Any, Any], converters: Sequence[tuple[str, Convert]], *, strict: bool
    ) -> dict[str, Any]:
        done: dict[str, Any] = {}
        errors: list[Exception] = []
        for key, convert in converters:
            if key in data:
                try:
                    done[key] = convert(data[key])
                except MISFITS as error:
                    errors.append(at_key(error, key))
            elif key in self.required:
                errors.append(at_key(Mismatch("missing"), key))
        if strict and len(data) > len(done):
            errors += (at_key(Mismatch("unexpected key"), str(key)) for key in data if key not in self.fields)
        if errors:
            raise together(errors, dict)
        return done


# ---- other readings of the same JSON ----------------------------------------------------------------------


class Unknown(Shape):
    """Any JSON value, checked to the bottom and copied."""

    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        super().__init__("Any", *EXACT_KINDS)
        self._shapes: dict[type | None, Shape] = {
            NULL_KIND: NULL,
            bool: BOOLEAN,
            int: INTEGER,
            float: FLOAT,
            str: TEXT,
            list: Items("list", self, list, as_list),
            dict: Record("dict", TEXT, self),
        }

    def decode(self, data: Any, _: object = None, /) -> Any:
        shape = self._shapes.get(kind_of(data))
        if shape is None:
            raise found("a JSON value", data)
        return shape.decode(data)

    def encode(self, value: Any, /) -> Any:
        return self.decode(value)


class Filtered(Shape):
    """The values of another shape for which a predicate holds."""

    __slots__ = ("inner", "message", "predicate")

    def __init__(self, inner: Shape, predicate: Callable[[Any], object], message: str) -> None:
        super().__init__(inner.name, *inner.kinds, types=inner.types, plain=inner.plain)
        self.inner = inner
        self.predicate = predicate
        self.message = message
        if inner.choices is not None:
            self.choices = tuple(choice for choice in inner.choices if self.holds(inner.decode(choice)))

    def decode(self, data: Any, _: object = None, /) -> Any:
        value = self.inner.decode(data)
        if not self.holds(value):
            raise Mismatch(self.message)
        return value

    def encode(self, value: Any, /) -> Any:
        encoded = self.inner.encode(value)
        if not self.holds(value):
            raise Mismatch(self.message)
        return encoded

    def holds(self, value: Any) -> bool:
        """Whether the predicate is true of `value`."""
        try:
            return bool(self.predicate(value))
        except Exception:  # a predicate that cannot even look at the value does not hold for it
            return False


class Transformed(Shape):
    """Values made from the values of another shape, and turned back into them to be encoded.

    A value that its own encoding would not bring back as a thing of its type is refused: functions such as
    `str` take anything, and what is written must be readable.
    """

    __slots__ = ("_from_inner", "_to_inner", "inner")

    def __init__(self, name: str, inner: Shape, from_inner: Convert, to_inner: Convert) -> None:
        super().__init__(name, *inner.kinds)
        self.inner = inner
        self._from_inner = from_inner
        self._to_inner = to_inner

    def decode(self, data: Any, _: object = None, /) -> Any:
        return self.build(self.inner.decode(data))

    def build(self, inner: Any) -> Any:
        """The value made from one of the inner shape."""
        try:
            return self._from_inner(inner)
        except Exception as error:
            raise Mismatch(f"refused by the decoding of {self.name} ({type(error).__name__})") from None

    def encode(self, value: Any, /) -> Any:
        try:
            inner = self._to_inner(value)
        except Exception as error:
            raise Mismatch(f"refused by the encoding of {self.name} ({type(error).__name__})") from None
        encoded = self.inner.encode(inner)
        if not isinstance(value, type(self.build(inner))):
            raise found(f"what decoding {self.name} gives", value)
        return encoded


class Alias(Shape):
    """A named type that may mention itself."""

    __slots__ = ("target",)

    target: Shape

    def __init__(self, name: str) -> None:
        super().__init__(name)

    def decode(self, data: Any, _: object = None, /) -> Any:
        return self.target.decode(data)

    def encode(self, value: Any, /) -> Any:
        return self.target.encode(value)


TEXT: Final = Text()
INTEGER: Final = Integer()
FLOAT: Final = Float()
NUMBER: Final = Number()
BOOLEAN: Final = Boolean()
NULL: Final = Null()
UNKNOWN: Final = Unknown()
INTEGER_KEY: Final = IntegerKey()
