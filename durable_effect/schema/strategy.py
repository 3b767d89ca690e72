"""Hypothesis strategies of the valid values of a shape. The only module here that needs hypothesis."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID

from durable_effect.schema.classes import Fielded
from durable_effect.schema.shapes import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    INTEGER_KEY,
    NULL,
    NUMBER,
    TEXT,
    Alias,
    Choice,
    Fields,
    Filtered,
    Fixed,
    Flags,
    Items,
    Record,
    Shape,
    Transformed,
    Unknown,
)
from durable_effect.schema.texts import Written
from durable_effect.schema.unions import Tagged, Union

try:
    from hypothesis import reject
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise ImportError(
        "a schema's strategy() needs hypothesis: install the extra with pip install 'durable-effect[test]'"
    ) from error

Values: TypeAlias = "SearchStrategy[Any]"

_TEXTS: Final[Values] = st.text()
_FLOATS: Final[Values] = st.floats(allow_nan=False, allow_infinity=False)
_INTEGERS: Final[Values] = st.integers()

# Offsets of whole minutes: what every reader of ISO 8601 takes.
_ZONES: Final = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))

_SINGLE: Final[dict[Shape, Values]] = {
    TEXT: _TEXTS,
    INTEGER: _INTEGERS,
    INTEGER_KEY: _INTEGERS,
    FLOAT: _FLOATS,
    NUMBER: _INTEGERS | _FLOATS,
    BOOLEAN: st.booleans(),
    NULL: st.none(),
}
_WRITTEN: Final[dict[type, Values]] = {
    dt.datetime: st.datetimes(timezones=st.just(dt.UTC) | _ZONES),
    dt.date: st.dates(),
    dt.time: st.times(),
    dt.timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    Path: st.lists(st.text("abcxyz._- ", min_size=1), max_size=4).map(lambda parts: Path(*parts)),
    bytes: st.binary(),
}
_JSON: Final[Values] = st.recursive(
    st.none() | st.booleans() | _INTEGERS | _FLOATS | _TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(_TEXTS, values, max_size=4),
    max_leaves=8,
)


def strategy_of(shape: Shape) -> Values:
    """The values of a shape, as a strategy."""
    return Strategies().values_of(shape)


class Strategies:
    """Builds one strategy; a class that is met again while it is being built refers to itself."""

    def __init__(self) -> None:
        self._known: dict[Shape, Values] = {}

    def values_of(self, shape: Shape) -> Values:
        """The strategy of one shape."""
        if shape in _SINGLE:
            return _SINGLE[shape]
        if shape not in self._known:
            self._known[shape] = st.deferred(lambda: built)
            built = self._built(shape)
        return self._known[shape]

    def _built(self, shape: Shape) -> Values:
        match shape:
            case Choice():
                return st.sampled_from(shape.values)
            case Flags():
                return st.lists(st.sampled_from(shape.members)).map(shape.combined)
            case Written():
                return _WRITTEN[shape.kind]
            case Unknown():
                return _JSON
            case Filtered():
                return self.values_of(shape.inner).filter(shape.holds)
            case Transformed():
                return self.values_of(shape.inner).map(lambda value: made(shape.build, value))
            case Alias():
                return self.values_of(shape.target)
            case Union():
                return st.one_of([self.values_of(member) for member in shape.members])
            case Tagged():
                return st.one_of([self.values_of(member.shape) for member in shape.members])
            case _:
                return self._many(shape)

    def _many(self, shape: Shape) -> Values:
        match shape:
            case Items():
                item = self.values_of(shape.item)
                return st.lists(item, max_size=5, unique=shape.distinct).map(shape.build)
            case Fixed():
                return st.tuples(*map(self.values_of, shape.items))
            case Record():
                entries = st.dictionaries(self.values_of(shape.key), self.values_of(shape.value), max_size=5)
                return entries.map(shape.build)
            case Fields():
                return self._entries(shape)
            case Fielded():
                return self._entries(shape).map(lambda entries: made(shape.build, entries))
            case _:
                raise TypeError(f"no strategy for {type(shape).__name__}")

    def _entries(self, shape: Fields | Fielded) -> Values:
        entries = {key: self.values_of(field) for key, field in shape.fields.items()}
        needed = {key: entries.pop(key) for key in shape.fields if key in shape.required}
        return st.fixed_dictionaries(needed, optional=entries)


def made(build: Any, parts: Any) -> Any:
    """What `build` makes of the parts; parts that it refuses, as a validator may, are not an example."""
    try:
        return build(parts)
    except Exception:
        reject()
