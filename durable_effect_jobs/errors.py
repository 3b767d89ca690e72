"""What can go wrong with a job, as values that a caller can do something about.

Every call of the client lists the errors it can fail with in its type. An exception that a
handler raises is a defect of that handler: it reaches the caller as the ``cause`` of an
:class:`ExecutionError`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import attrs

from durable_effect.errors import TypedError
from durable_effect.schema import Problem, SchemaError

__all__ = [
    "DuplicateEventError",
    "ExecutionError",
    "InstanceBusy",
    "InstanceNotFoundError",
    "InvalidStateError",
    "JobNotFoundError",
    "Kind",
    "Overloaded",
    "SchedulerError",
    "StorageError",
    "ValidationError",
    "described",
]

Kind = Literal["continuous", "debounce", "task"]


@attrs.frozen
class JobNotFoundError(TypedError):
    """No job of this kind has this name; ``known`` lists the names that there are."""

    kind: Kind
    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        known = ", ".join(self.known) or "none"
        return f"no {self.kind} job is registered as {self.name!r} (known: {known})"


@attrs.frozen
class InstanceNotFoundError(TypedError):
    """The call needs an instance that exists, and there is none with this id."""

    instance_id: str

    def __str__(self) -> str:
        return f"there is no instance {self.instance_id}: start it, or send it an event, first"


@attrs.frozen
class InvalidStateError(TypedError):
    """The instance is not in a state in which this can be done, such as changing it from its own handler."""

    expected: str
    actual: str
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} needs {self.expected}, but {self.actual}"


@attrs.frozen
class ValidationError(TypedError):
    """A value does not fit its schema; ``problems`` names every place where it does not."""

    schema_name: str
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        lines = "; ".join(f"{problem.path}: {problem.message}" for problem in self.problems)
        return f"not a valid {self.schema_name}: {lines}"

    @staticmethod
    def of(error: SchemaError) -> ValidationError:
        """The same problems, as an error of a job's input or state."""
        return ValidationError(error.schema_name, error.problems)

    @staticmethod
    def at(schema_name: str, path: str, message: str) -> ValidationError:
        """One problem at one path."""
        return ValidationError(schema_name, (Problem(path, message),))


@attrs.frozen
class ExecutionError(TypedError):
    """A handler failed; ``cause`` is its typed error, or the exception that it raised."""

    kind: Kind
    job: str
    instance_id: str
    cause: object

    def __attrs_post_init__(self) -> None:
        _show_where(self, self.cause)

    def __str__(self) -> str:
        return f"{self.instance_id} failed: {described(type(self.cause).__name__, str(self.cause))}"


@attrs.frozen
class DuplicateEventError(TypedError):
    """An event with this ``event_id`` was accepted before; nothing was changed."""

    event_id: str

    def __str__(self) -> str:
        return f"the event {self.event_id!r} was accepted before"


@attrs.frozen
class StorageError(TypedError):
    """The storage could not do ``operation``; nothing that was not acknowledged before is promised."""

    operation: str
    cause: object

    def __attrs_post_init__(self) -> None:
        _show_where(self, self.cause)

    def __str__(self) -> str:
        return f"storage could not {self.operation}: {self.cause}"


@attrs.frozen
class SchedulerError(TypedError):
    """The next alarm of an instance could not be worked out; ``cause`` says why."""

    operation: str
    cause: object

    def __str__(self) -> str:
        return f"scheduler could not {self.operation}: {self.cause}"


@attrs.frozen
class InstanceBusy(TypedError):
    """Other calls and runs held the instance for as long as a call waits; nothing was changed."""

    instance_id: str
    waited: timedelta

    def __str__(self) -> str:
        return f"{self.instance_id} was busy for {self.waited.total_seconds():g} s: try again later"


@attrs.frozen
class Overloaded(TypedError):
    """A queue is full, and the call was refused at once; nothing was changed."""

    queue: str
    limit: int

    def __str__(self) -> str:
        return f"{self.queue} is full ({self.limit} calls): try again later"


def described(type_name: str, message: str) -> str:
    """``ValueError: no good``; an error without a message is its type alone."""
    return f"{type_name}: {message}" if message else type_name


def _show_where(error: TypedError, cause: object) -> None:
    """Tracebacks go on to where the cause was raised."""
    if isinstance(cause, BaseException):
        error.__cause__ = cause
