"""Annotations: from a Python type to its shape.

Everything is looked at when the schema is made: an annotation that has no strict JSON form is refused there,
with the field it stands at. Classes may refer to themselves and to each other: a class gets its shape first
and its fields after.
"""

from __future__ import annotations

import collections
import collections.abc as abc
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, Flag
from functools import partial
from typing import Annotated, Any, Final, ForwardRef, Literal, TypeAlias, get_args, get_origin

import typing_extensions
from typing_extensions import (
    NoDefault,
    TypeVar,
    get_type_hints,
    is_typeddict,
)

from durable_effect.schema.classes import Fielded, constructor_fields, has_fields
from durable_effect.schema.shapes import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    INTEGER_KEY,
    NULL,
    NULL_KIND,
    TEXT,
    UNKNOWN,
    Alias,
    Choice,
    Fields,
    Fixed,
    Flags,
    Items,
    JsonValue,
    Record,
    Shape,
    as_list,
    is_unicode,
)
from durable_effect.schema.texts import WRITTEN
from durable_effect.schema.unions import Union, core

SINGLE: Final[Mapping[Any, Shape]] = {
    None: NULL,
    NULL_KIND: NULL,
    str: TEXT,
    typing_extensions.LiteralString: TEXT,
    int: INTEGER,
    float: FLOAT,
    bool: BOOLEAN,
    Any: UNKNOWN,
    object: UNKNOWN,
    **WRITTEN,
}
# What is accepted as a value, and what decoding builds. An abstract type accepts more than it builds.
ITEMS: Final[Mapping[Any, tuple[type | tuple[type, ...], Callable[[list[Any]], Any]]]] = {
    list: (list, as_list),
    abc.MutableSequence: (list, as_list),
    abc.Sequence: ((list, tuple), as_list),
    set: (set, set),
    abc.MutableSet: (set, set),
    abc.Set: ((set, frozenset), frozenset),
    frozenset: (frozenset, frozenset),
    collections.deque: (collections.deque, collections.deque),
}
RECORDS: Final[Mapping[Any, tuple[type, Callable[[dict[Any, Any]], Any]]]] = {
    dict: (dict, dict),
    abc.MutableMapping: (dict, dict),
    abc.Mapping: (abc.Mapping, dict),
    collections.OrderedDict: (collections.OrderedDict, collections.OrderedDict),
    collections.Counter: (collections.Counter, collections.Counter),
}
QUALIFIERS: Final = frozenset(
    {typing.Final, typing.Required, typing.NotRequired, typing_extensions.ReadOnly}
    | {typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.Final}
)
ALIASES: Final = tuple(
    {typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType)}
)

Bindings: TypeAlias = dict[Any, Any]


def shape_of(annotation: object, *, strict: bool = False) -> Shape:
    """The shape of `annotation`; with `strict`, unknown keys are problems in every class and TypedDict in it.

    Raises `ValueError` when there is none, naming the field and what to do.
    """
    reader = Reader(strict=strict)
    shape = reader.read(annotation)
    reader.finish()
    return shape


def union_of(members: typing.Iterable[object]) -> Union:
    """The union of annotations, schemas or both."""
    reader = Reader(strict=False)
    union = reader.union(members)
    reader.finish()
    return union


class Reader:
    """Reads one annotation and all it mentions; a class that is met twice is one shape."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._known: dict[object, Shape] = {}
        self._unfinished: list[Callable[[], None]] = []

    def finish(self) -> None:
        """Check what could not be checked while classes still had no fields."""
        for check in self._unfinished:
            check()

    def read(self, annotation: Any, owner: object = None) -> Shape:
        """The shape of an annotation that stands in the class `owner`."""
        own = getattr(annotation, "shape", None)
        if isinstance(own, Shape):  # a Schema
            return own
        if isinstance(annotation, str | ForwardRef):
            raise ValueError(f"{annotation!r} is a name in quotes: pass the type itself")
        if isinstance(annotation, TypeVar | typing.TypeVar):
            return self.read(without_binding(annotation), owner)
        if is_hashable(annotation) and annotation in SINGLE:
            return SINGLE[annotation]
        if annotation is typing_extensions.Self:
            return self.read(owner, owner)
        if isinstance(annotation, typing.NewType):
            return self.read(annotation.__supertype__, owner)
        if isinstance(get_origin(annotation) or annotation, ALIASES):
            return self._alias(annotation)
        return self._built(annotation, owner)

    def union(self, members: typing.Iterable[object], owner: object = None) -> Union:
        """The union of what the members are."""
        union = Union([self.read(member, owner) for member in members])
        self._unfinished.append(union.close)
        return union

    def _built(self, annotation: Any, owner: object) -> Shape:
        origin, args = get_origin(annotation) or annotation, get_args(annotation)
        if origin is Annotated:
            return self._annotated(annotation, owner)
        if not is_hashable(origin):
            raise unsupported(annotation)
        if origin in QUALIFIERS:
            return self.read(args[0] if args else Any, owner)
        if origin is Literal:
            return literal_shape(args)
        if origin in (typing.Union, types.UnionType):
            return self.union(args, owner)
        if origin is tuple:
            return self._tuple(args if annotation is not tuple else (Any, ...), owner)
        if origin in ITEMS:
            item = self.read(args[0] if args else Any, owner)
            return Items(f"{origin.__name__}[{item.name}]", item, *ITEMS[origin])
        if origin in RECORDS or origin is collections.defaultdict:
            return self._record(origin, args, owner)
        if isinstance(origin, type):
            return self._class(annotation, origin)
        raise unsupported(annotation)

    def _annotated(self, annotation: Any, owner: object) -> Shape:
        for note in annotation.__metadata__:
            if isinstance(getattr(note, "shape", None), Shape):
                return self.read(note)
        return self.read(annotation.__origin__, owner)

    def _tuple(self, args: tuple[Any, ...], owner: object) -> Shape:
        if len(args) == 2 and args[1] is Ellipsis:
            item = self.read(args[0], owner)
            return Items(f"tuple[{item.name}, ...]", item, tuple, tuple)
        return Fixed(tuple(self.read(arg, owner) for arg in args))

    def _record(self, origin: Any, args: tuple[Any, ...], owner: object) -> Shape:
        key_type, value_type = (*args, int)[:2] if origin is collections.Counter else args or (str, Any)
        value = self.read(value_type, owner)
        accepts, build = RECORDS.get(origin) or default_dict_of(value_type)
        return self.record(self.read(key_type, owner), value, accepts, build, origin.__name__)

    def record(
        self,
        key: Shape,
        value: Shape,
        accepts: type,
        build: Callable[[dict[Any, Any]], Any],
        kind: str = "dict",
    ) -> Record:
        """A record, if its keys can be keys in JSON."""
        if key is INTEGER:
            key = INTEGER_KEY
        name = f"{kind}[{key.name}, {value.name}]"
        self._unfinished.append(partial(check_key, key, name))
        return Record(name, key, value, accepts, build)

    def _alias(self, annotation: Any) -> Shape:
        known = self._known.get(key_of(annotation))
        if known is not None:
            return known
        origin, args = get_origin(annotation) or annotation, get_args(annotation)
        self._known[key_of(annotation)] = alias = Alias(origin.__name__)
        value = resolved({"value": origin.__value__}, origin.__module__, {origin.__name__: origin})["value"]
        alias.target = self.read(closed(value, bound(origin.__type_params__, args)))
        return alias

    def _class(self, annotation: Any, cls: type[Any]) -> Shape:
        known = self._known.get(key_of(annotation))
        if known is not None:
            return known
        if issubclass(cls, Flag):
            return Flags(cls)
        if issubclass(cls, Enum):
            return enumeration(cls)
        if is_typeddict(cls):
            return self._typed_dict(annotation, cls)
        if has_fields(cls):
            return self._fielded(annotation, cls)
        raise unsupported(annotation)

    def _typed_dict(self, annotation: Any, cls: type[Any]) -> Shape:
        self._known[key_of(annotation)] = shape = Fields(label(annotation), strict=self._strict)
        hints = hints_of(annotation)
        required = frozenset(key for key, hint in hints.items() if is_required(hint, key, cls))
        shape.define({key: self._field(cls, key, hint, annotation) for key, hint in hints.items()}, required)
        return shape

    def _fielded(self, annotation: Any, cls: type[Any]) -> Shape:
        self._known[key_of(annotation)] = shape = Fielded(cls, label(annotation), strict=self._strict)
        hints = hints_of(annotation)
        fields = constructor_fields(cls)
        check_constructor(cls, [field.alias or field.name for field in fields])
        named = {field.name: hints.get(field.name, field.type or Any) for field in fields}
        shape.define({name: self._field(cls, name, hint, annotation) for name, hint in named.items()})
        return shape

    def _field(self, cls: type[Any], name: str, hint: Any, owner: object) -> Shape:
        try:
            return self.read(hint, owner)
        except ValueError as error:
            raise ValueError(f"{cls.__name__}.{name}: {error}") from None


def is_hashable(annotation: object) -> bool:
    """Whether the annotation can be looked up; Annotated with a list in it cannot."""
    try:
        hash(annotation)
    except TypeError:
        return False
    return True


def key_of(annotation: object) -> object:
    """What a class with its arguments is known by."""
    return annotation if is_hashable(annotation) else repr(annotation)


def unsupported(annotation: object) -> ValueError:
    """There is no strict JSON form for the annotation."""
    name = annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
    return ValueError(
        f"no schema for {name}: make it an attrs class or a dataclass, or say how it is written with "
        "Annotated[<type>, Schema.string.transform(decode, encode)]"
    )


def label(annotation: Any) -> str:
    """A class as messages name it, with its type arguments."""
    args = ", ".join(getattr(arg, "__name__", None) or str(arg) for arg in get_args(annotation))
    name: str = (get_origin(annotation) or annotation).__name__
    return f"{name}[{args}]" if args else name


# ---- single values and keys -------------------------------------------------------------------------------


def literal_shape(values: tuple[Any, ...]) -> Choice:
    """One of the values, each of which is JSON itself or a member of an Enum."""
    if not values:
        raise ValueError("a literal needs at least one value")
    name = " | ".join(str(value) if isinstance(value, Enum) else repr(value) for value in values)
    return choice(name, [(value, literal_form(value)) for value in values])


def literal_form(value: Any) -> JsonValue:
    """How a literal is written."""
    if isinstance(value, Enum):
        return next(form for member, form in enum_forms(type(value)) if member is value)
    if value is None or isinstance(value, str | int | bool):
        return value
    raise ValueError(f"no literal of type {type(value).__name__}: use str, int, bool, None or Enum members")


def enumeration(cls: type[Enum]) -> Choice:
    """The members of an Enum, by value when all values are single JSON values, otherwise by name."""
    if not len(cls):
        raise ValueError(f"no schema for {cls.__name__}: it has no members")
    return choice(cls.__name__, enum_forms(cls))


def enum_forms(cls: type[Enum]) -> list[tuple[Enum, JsonValue]]:
    """Each member of an Enum and how it is written."""
    if all(is_scalar(member.value) for member in cls):
        return [(member, member.value) for member in cls]
    return [(member, member.name) for member in cls]


def is_scalar(value: object) -> bool:
    """Whether `value` is a single JSON value."""
    return type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value))


def choice(name: str, pairs: list[tuple[Any, JsonValue]]) -> Choice:
    """A choice whose written forms are texts that every storage can hold."""
    if any(isinstance(form, str) and not is_unicode(form) for _, form in pairs):
        raise ValueError(f"no schema for {name!a}: a text has a lone surrogate")
    return Choice(name, pairs)


def check_key(key: Shape, name: str) -> None:
    """Refuse a key that is not written as text: JSON has no others."""
    if core(key).kinds - {str}:
        raise ValueError(f"no schema for {name}: a key must be written as text, {key.name} is not")


def default_dict_of(value_type: Any) -> tuple[type[Any], Callable[[dict[Any, Any]], Any]]:
    """A defaultdict whose missing values are made by calling the type of its values, as cattrs does."""
    factory = get_origin(value_type) or value_type
    if not isinstance(factory, type) or factory is Any:
        raise ValueError("a defaultdict needs a class as the type of its values: it makes the missing ones")
    return collections.defaultdict, partial(collections.defaultdict[Any, Any], factory)


# ---- the annotations of a class ---------------------------------------------------------------------------


def hints_of(annotation: Any) -> dict[str, Any]:
    """The annotations of a class, names resolved and type variables replaced."""
    cls = get_origin(annotation) or annotation
    bindings = bindings_of(annotation)
    return {name: closed(hint, bindings) for name, hint in named_hints(cls).items()}


def named_hints(cls: type[Any]) -> dict[str, Any]:
    """The annotations of a class, with the names that they mention in quotes or by `from __future__`."""
    try:
        return get_type_hints(cls, include_extras=True)
    except NameError:
        pass  # a class made inside a function may mention the function's other classes
    try:
        return get_type_hints(cls, localns=names_around(cls), include_extras=True)
    except NameError as error:
        raise ValueError(f"{cls.__name__}: {error}; define or import it in the module of the class") from None


def names_around(cls: type[Any]) -> dict[str, Any]:
    """The names a class sees that was made in a function which is still running, and its own."""
    names: dict[str, Any] = {}
    function = cls.__qualname__.rpartition(".<locals>.")[0]
    frame = inspect.currentframe() if function else None
    while frame is not None:
        if frame.f_code.co_qualname == function and frame.f_globals.get("__name__") == cls.__module__:
            names = dict(frame.f_locals)
            break
        frame = frame.f_back
    return {**names, cls.__name__: cls}


def resolved(hints: dict[str, Any], module: str, names: dict[str, Any]) -> dict[str, Any]:
    """Annotations with the names in quotes replaced by what they name in `module` or `names`."""
    holder = type("Holder", (), {"__annotations__": hints, "__module__": module})
    return get_type_hints(holder, localns=names, include_extras=True)


def is_required(hint: Any, key: str, cls: Any) -> bool:
    """Whether a TypedDict needs the key. Quoted annotations hide Required from `__required_keys__` itself."""
    while (origin := get_origin(hint)) is not None:
        if origin in (typing.Required, typing_extensions.Required):
            return True
        if origin in (typing.NotRequired, typing_extensions.NotRequired):
            return False
        if origin not in (Annotated, typing_extensions.ReadOnly):
            break
        hint = get_args(hint)[0]
    return key in cls.__required_keys__


def check_constructor(cls: type[Any], names: list[str]) -> None:
    """Refuse a class that cannot be made from its fields."""
    try:
        signature = inspect.signature(cls)
    except ValueError:  # written in C: it has no signature to look at
        return
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        raise ValueError(f"{cls.__name__} cannot be made from its fields: {error}") from None


# ---- type variables ---------------------------------------------------------------------------------------


def closed(annotation: Any, bindings: Bindings) -> Any:
    """The annotation with its type variables replaced."""
    if isinstance(annotation, TypeVar | typing.TypeVar):
        return bindings.get(annotation, annotation)
    parameters: tuple[Any, ...] = getattr(annotation, "__parameters__", ())
    if not parameters or get_origin(annotation) is None:
        return annotation
    return annotation[tuple(bindings.get(parameter, parameter) for parameter in parameters)]


def bound(parameters: tuple[Any, ...], args: tuple[Any, ...]) -> Bindings:
    """What each type parameter stands for."""
    return dict(zip(parameters, args or map(without_binding, parameters), strict=False))


def without_binding(variable: Any) -> Any:
    """What a type variable means where nothing was put in its place: its default, its bound, or anything."""
    default = getattr(variable, "__default__", NoDefault)
    if default is not None and default is not NoDefault and default is not typing_extensions.NoDefault:
        return default
    return variable.__bound__ or union_type(variable.__constraints__ or (Any,))


def union_type(members: tuple[Any, ...]) -> Any:
    """The annotation `A | B | ...` of the members."""
    return functools.reduce(lambda one, other: one | other, members)


def bindings_of(annotation: Any) -> Bindings:
    """What the type parameters of a class and of the generic classes it derives from stand for."""
    cls = get_origin(annotation) or annotation
    bindings = bound(getattr(cls, "__parameters__", ()), get_args(annotation))
    for base in bases_of(cls):
        bindings |= bindings_of(closed(base, bindings))
    return bindings


def bases_of(cls: type[Any]) -> Iterator[Any]:
    """The classes it derives from, as they were written."""
    for base in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = get_origin(base) or base
        if isinstance(origin, type) and origin not in (object, typing.Generic):
            yield base
