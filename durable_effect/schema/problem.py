"""What is wrong with a value, and where.

A shape that meets something it does not describe raises `Mismatch`. Containers go on past the first one, note
the key or index on each and raise them together as cattrs' exception groups, so one pass finds every problem:

    ClassValidationError(Order)
      ClassValidationError(list)       note: .items
        Mismatch("expected int, ...")    note: [2]        -> Problem("$.items[2]", "expected int, found str")

Messages say what was expected and which type was found, never the value: it may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import attrs
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationNote,
)

from durable_effect.errors import TypedError

TOO_DEEP: Final = "nested too deeply"


@attrs.frozen
class Problem:
    """One thing that is wrong: `path` is where, from the root `$` (`$.items[2].name`), `message` is what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@attrs.frozen(repr=False)
class SchemaError(TypedError):
    """The data or value does not fit its schema; `problems` lists every misfit, not only the first."""

    schema_name: str
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"does not fit {self.schema_name}:{lines}"


class Mismatch(Exception):
    """One value is not what its shape describes; where it is, its surroundings know."""


MISFITS: Final = (Mismatch, BaseValidationError, RecursionError)
"""What a shape raises for a value that does not fit. Anything else is a bug, ours or of the value's class."""


def found(expected: str, value: object) -> Mismatch:
    """A value of another type than the expected one."""
    return Mismatch(f"expected {expected}, found {'None' if value is None else type(value).__name__}")


def at_key(error: Exception, key: str) -> Exception:
    """Note on `error` the field it was found in."""
    error.add_note(AttributeValidationNote(f"in {key}", key, None))
    return error


def at_index(error: Exception, index: int) -> Exception:
    """Note on `error` the position it was found at."""
    error.add_note(IterableValidationNote(f"at {index}", index, None))
    return error


def together(errors: list[Exception], owner: type[Any]) -> Exception:
    """All that is wrong with the parts of one value of the type `owner`, each noted with its place."""
    # A group is made by its __new__, which takes the class too; checkers look at the __init__ of exceptions.
    return ClassValidationError("does not fit", errors, owner)  # pyright: ignore[reportCallIssue]


def problems_of(error: Exception) -> tuple[Problem, ...]:
    """Every problem in `error`, each once, in the order of the data."""
    try:
        return tuple(dict.fromkeys(_walk(error, "$")))
    except RecursionError:
        return (Problem("$", TOO_DEEP),)


def _walk(error: Exception, path: str, owner: type[Any] = object) -> Iterator[Problem]:
    note = _place(error)
    if note is not None:
        path += _step(note)
    if isinstance(error, BaseValidationError):
        for inner in error.exceptions:
            yield from _walk(inner, path, error.cl)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(error.extra_fields, key=str):
            yield Problem(path + _key_step(str(key)), "unexpected key")
    elif isinstance(error, KeyError) and note is not None:
        yield Problem(path, "missing")  # a shape never lets a KeyError out: this is the look-up of the field
    else:
        yield Problem(path, _message(error, owner))


def _place(error: Exception) -> AttributeValidationNote | IterableValidationNote | None:
    notes: list[object] = getattr(error, "__notes__", [])
    for note in reversed(notes):  # the surroundings noted last are the ones being walked
        if isinstance(note, AttributeValidationNote | IterableValidationNote):
            return note
    return None


def _step(note: AttributeValidationNote | IterableValidationNote) -> str:
    if isinstance(note, AttributeValidationNote):
        return _key_step(note.name)
    return f"[{note.index}]"


def _key_step(key: str) -> str:
    return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"


def _message(error: Exception, owner: type[Any]) -> str:
    if isinstance(error, Mismatch):
        return str(error)
    if isinstance(error, RecursionError):
        return TOO_DEEP
    # Raised by the class itself: a validator, a converter, __post_init__. Its text may quote the value.
    return f"refused by {owner.__name__} ({type(error).__name__})"
