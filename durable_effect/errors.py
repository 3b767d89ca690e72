"""Errors: what a program expects to go wrong, as values; and the few exceptions the runtime itself knows.

A *typed error* is a value in `E`: `Effect.fail(UserNotFound("u1"))`. A *defect* is an exception that somebody
raised: a bug, or something nobody promised to handle. An *interruption* is neither: the work was no longer
wanted.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs


class TypedError(Exception):
    """An error that callers are expected to handle: subclass it with attrs and list it in `E`.

    ```python
    @attrs.frozen
    class UserNotFound(TypedError):
        user_id: str
    ```

    Two errors of one class with equal fields are equal. The message lists the fields, unless the class
    defines `__str__` or has a `message` of its own. Instances can be raised, chained, copied and pickled.
    """

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TypedError) or type(self) is not type(other):
            return NotImplemented
        return _contents(self) == _contents(other)

    def __hash__(self) -> int:
        try:
            return hash((type(self), _contents(self)))
        except TypeError:  # a field holds a list or a dict: equal errors still hash alike
            return hash(type(self))

    def __str__(self) -> str:
        message = getattr(self, "message", None)
        if isinstance(message, str):
            return message
        if not attrs.has(type(self)):
            return super().__str__()
        return _shown(self)

    def __repr__(self) -> str:
        if not attrs.has(type(self)):
            return super().__repr__()
        return f"{type(self).__name__}({_shown(self)})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if not attrs.has(type(self)):
            return super().__reduce__()
        return _rebuild, (type(self), {field.name: getattr(self, field.name) for field in _fields(self)})


def _fields(error: TypedError) -> tuple[attrs.Attribute[Any], ...]:
    cls: Any = type(error)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)
    return fields


def _shown(error: TypedError) -> str:
    return ", ".join(f"{f.name}={getattr(error, f.name)!r}" for f in _fields(error) if f.repr)


def _contents(error: TypedError) -> tuple[object, ...]:
    if attrs.has(type(error)):
        return tuple(getattr(error, field.name) for field in _fields(error) if field.eq)
    return error.args


def _rebuild(cls: type[TypedError], values: dict[str, object]) -> TypedError:
    """Fill the fields without the constructor: private, keyword-only and computed fields survive."""
    error = cls.__new__(cls)
    for name, value in values.items():
        object.__setattr__(error, name, value)
    object.__setattr__(error, "args", tuple(values.values()))
    return error


@attrs.frozen(repr=False)
class Defect(TypedError):
    """A raised exception, wrapped so that it can be handled as a value next to typed errors."""

    exception: BaseException


@attrs.frozen(repr=False)
class MissingServiceError(TypedError):
    """A program asked for services that nobody provided; `keys` names them."""

    keys: tuple[str, ...]

    @property
    def message(self) -> str:
        """Say which services are missing and how to provide them."""
        return f"no {', '.join(self.keys)} provided: use provide(layer) or provide_service(key, value)"


@attrs.frozen(repr=False)
class EffectTimeout(TypedError):
    """The work took longer than `span` and was interrupted."""

    span: timedelta

    @property
    def message(self) -> str:
        """Say how long the work was given."""
        return f"timed out after {self.span}"


class NotSynchronousError(RuntimeError):
    """`run_sync` met work that has to wait for something; use `await effect` or `Effect.run(effect)`."""


class DeadlockError(RuntimeError):
    """Nothing can happen any more: no fiber is ready, nobody sleeps, and the program is not done."""


class EffectFailure(Exception):
    """Carries a failure whose error is no exception to a place that can only raise; `.error` is the error."""

    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EffectFailure) and bool(self.error == other.error)

    def __hash__(self) -> int:
        return hash((EffectFailure, self.error))


class Interrupted(BaseException):
    """Raised in a do-block, and at the edge, when the work was interrupted.

    Like `asyncio.CancelledError` it is no `Exception`: `except Exception` lets it pass. `finally` blocks run,
    with the effects in them; catching it does not stop a real interruption.
    """

    __slots__ = ("cause",)
    cause: Any

    def __init__(self, cause: object = None) -> None:
        super().__init__("interrupted")
        self.cause = cause
