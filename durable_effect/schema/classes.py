"""Classes with fields: attrs classes, dataclasses and NamedTuples, as JSON objects keyed by field name.

cattrs generates the decoding function of each class, once, with detailed validation. The private converter
knows one kind of type, shapes, and each field's type is its shape: so every hook that a class meets is a
strict one of ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, cast

import attrs
import cattrs
import cattrs.gen

from durable_effect.schema.problem import MISFITS, Mismatch, at_key, found, together
from durable_effect.schema.shapes import Shape, is_dict, is_list

_CONVERTER: Final = cattrs.Converter(detailed_validation=True)


def _strict_hook(shape: Shape) -> Callable[[Any, Any], Any]:
    return shape.decode


_CONVERTER.register_structure_hook_factory(lambda kind: isinstance(kind, Shape), _strict_hook)


UNREADABLE: Final = (*MISFITS, AttributeError)
"""What encoding a field may meet: a misfit, or an attribute that was never set."""


def has_fields(cls: type[Any]) -> bool:
    """Whether `cls` is an attrs class, a dataclass or a NamedTuple."""
    return attrs.has(cls) or dataclasses.is_dataclass(cls) or is_named_tuple(cls)


def is_named_tuple(cls: type[Any]) -> bool:
    """Whether `cls` was made by typing.NamedTuple or collections.namedtuple."""
    return hasattr(cls, "_fields") and issubclass(cls, tuple)


_generate: Final = cast(
    "Callable[..., Callable[[Any, Any], Any]]",
    # cattrs leaves the type parameter of Attribute open
    cattrs.gen.make_dict_structure_fn_from_attrs,  # pyright: ignore[reportUnknownMemberType]
)


class Fielded(Shape):
    """A class with fields. Fields that its constructor does not take (`init=False`) are computed by it, not
    stored.

    An absent key takes the field's default. Keys that are not fields are left out, unless `strict`. A
    NamedTuple may also be given as a list.
    """

    __slots__ = ("_arguments", "_decode", "_encoders", "cls", "fields", "required", "strict")

    def __init__(self, cls: type[Any], name: str, *, strict: bool) -> None:
        super().__init__(name, dict, types=(cls,))
        self.cls = cls
        self.strict = strict

    def define(self, fields: Mapping[str, Shape]) -> None:
        """Give it the shapes of its fields; apart from making it, so that they can refer back to it."""
        attributes = [field.evolve(type=fields[field.name]) for field in constructor_fields(self.cls)]
        self.fields = {field.name: fields[field.name] for field in attributes}
        self._arguments = {field.name: field.alias or field.name for field in attributes}
        self.required = frozenset(field.name for field in attributes if field.default is attrs.NOTHING)
        self._encoders = [(name, attrgetter(name), shape.encode) for name, shape in self.fields.items()]
        self._decode = _generate(
            attributes,
            self.cls,
            _CONVERTER,
            {parameter.__name__: Any for parameter in getattr(self.cls, "__parameters__", ())},
            _cattrs_forbid_extra_keys=self.strict,
            _cattrs_use_linecache=False,
            _cattrs_prefer_attrib_converters=False,
            _cattrs_use_alias=False,
        )

    def decode(self, data: Any, _: object = None, /) -> Any:
        if type(data) is dict:
            return self._decode(data, self.cls)
        if is_dict(data):  # a defaultdict would make up what is missing
            return self._decode(dict(data), self.cls)
        if is_list(data) and is_named_tuple(self.cls):
            return self._decode(self._keyed(data), self.cls)
        raise found(f"dict ({self.name})", data)

    def build(self, entries: dict[str, Any]) -> Any:
        """The value that has these decoded fields."""
        return self.cls(**{self._arguments[name]: value for name, value in entries.items()})

    def _keyed(self, items: list[Any]) -> dict[str, Any]:
        if len(items) > len(self.fields):
            raise Mismatch(f"expected at most {len(self.fields)} items, found {len(items)}")
        return dict(zip(self.fields, items, strict=False))

    def encode(self, value: Any, /) -> dict[str, Any]:
        if type(value) is not self.cls:
            raise found(self.name, value)
        done: dict[str, Any] = {}
        try:
            for name, read, convert in self._encoders:
                done[name] = convert(read(value))
        except UNREADABLE as error:
            raise self._rest_of(value, len(done), error) from None
        return done

    def _rest_of(self, value: Any, index: int, error: Exception) -> Exception:
        errors = [at_key(error, self._encoders[index][0])]
        for name, read, convert in self._encoders[index + 1 :]:
            try:
                convert(read(value))
            except UNREADABLE as other:
                errors.append(at_key(other, name))
        return together(errors, self.cls)


def constructor_fields(cls: type[Any]) -> list[attrs.Attribute[Any]]:
    """The fields that the constructor of `cls` takes, in attrs' terms."""
    if attrs.has(cls):
        return [field for field in attrs.fields(cls) if field.init]
    return list(attrs.fields(_as_attrs(cls)))


def _as_attrs(cls: type[Any]) -> type[Any]:
    """An attrs class with the fields of a dataclass or NamedTuple: cattrs reads attrs' descriptions."""
    if dataclasses.is_dataclass(cls):
        fields = {field.name: _of_dataclass(field) for field in dataclasses.fields(cls) if field.init}
    else:
        defaults: dict[str, Any] = cls._field_defaults
        fields = {name: _field(name, has_default=name in defaults) for name in cls._fields}
    return attrs.make_class(cls.__name__, fields, init=False, repr=False, eq=False)


def _of_dataclass(field: dataclasses.Field[Any]) -> Any:
    missing = dataclasses.MISSING
    has_default = field.default is not missing or field.default_factory is not missing
    return _field(field.name, has_default=has_default, kw_only=field.kw_only is True)


def _field(name: str, *, has_default: bool, kw_only: bool = False) -> Any:
    # Only whether there is a default counts: an absent key is left to the constructor of the class.
    return attrs.field(alias=name, default=None if has_default else attrs.NOTHING, kw_only=kw_only)
