"""What the three kinds have in common: the turn they are given, the step they answer with.

A step decides and does not act. It gets the record as it was loaded and the time, runs the handler when
there is one to run, and returns what is to be written. Storage, order and waiting are its host's.
"""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, cast

import attrs
from typing_extensions import Never, TypeVar

from durable_effect import Do, Effect, Schema, SchemaError
from durable_effect.canonical_json import check_depth, from_json_bytes, to_json_bytes
from durable_effect.duration import Span, to_timedelta
from durable_effect.effect import Op
from durable_effect_jobs.errors import (
    ExecutionError,
    InstanceNotFoundError,
    InvalidStateError,
    Kind,
    SchedulerError,
    ValidationError,
)
from durable_effect_jobs.events import MAX_STATE_DEPTH, Event, Failure
from durable_effect_jobs.instance import Alarm, DeadLetter, Instance, Key, Mark

__all__ = [
    "Codec",
    "Command",
    "Fired",
    "Job",
    "JobLogging",
    "Limits",
    "Program",
    "Step",
    "StepError",
    "Turn",
    "bounded",
    "check_handler",
    "check_option",
    "checked",
    "logging_level",
    "park",
]

E_co = TypeVar("E_co", covariant=True, default=Any)
R_co = TypeVar("R_co", covariant=True, default=Any)
S = TypeVar("S")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
Reply_co = TypeVar("Reply_co", covariant=True)

JobLogging: TypeAlias = bool | int | str

StepError: TypeAlias = (
    ValidationError | ExecutionError | SchedulerError | InstanceNotFoundError | InvalidStateError
)
"""How a step can refuse, or report the failure of the caller's own run."""

_SILENT = logging.CRITICAL + 1
_FIRST_PARK = timedelta(seconds=15)
_LONGEST_PARK = timedelta(hours=1)


_LONGEST_SPAN = timedelta(days=36_525)


def bounded(value: Span, name: str = "span") -> timedelta:
    """A span that can be added to the time of any day: longer than zero, at most 100 years."""
    span = to_timedelta(value, positive=True, name=name)
    if span > _LONGEST_SPAN:
        raise ValueError(f"{name} is at most 100 years")
    return span


def _count(_: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{field.name} is a whole number of at least 1, not {value!r}")


@attrs.frozen(kw_only=True)
class Limits:
    """Bounds that hold for every instance; all can be set with ``create_durable_jobs(limits=...)``."""

    max_state_bytes: int = attrs.field(default=1 << 20, validator=_count)
    """Largest encoded state (1 MiB)."""
    event_id_window: timedelta = attrs.field(default=timedelta(hours=24), converter=bounded)
    """How long an ``event_id`` is remembered."""
    dead_letter_retention: timedelta = attrs.field(default=timedelta(days=30), converter=bounded)
    """How long a dead letter is kept."""
    concurrency: int = attrs.field(default=100, validator=_count)
    """Alarms that run at the same time in one process."""
    poll_interval: timedelta = attrs.field(default=timedelta(seconds=1), converter=bounded)
    """Longest time between two looks at the storage: a clock that was set costs no more than this."""
    lease: timedelta = attrs.field(default=timedelta(seconds=30), converter=bounded)
    """How long a run keeps its instance without a sign of life; then another process may take it over."""
    quarantine_after: int = attrs.field(default=3, validator=_count)
    """Deaths of the process in a row, in the midst of its run, after which an instance is quarantined."""
    call_timeout: timedelta = attrs.field(default=timedelta(seconds=10), converter=bounded)
    """How long a call waits while another process runs its instance; then it fails with ``InstanceBusy``."""
    queue_timeout: timedelta | None = attrs.field(default=None, converter=attrs.converters.optional(bounded))
    """How long a call waits for its turn behind others of its own process; by default until it comes."""
    max_waiting: int = attrs.field(default=1_000, validator=_count)
    """Calls that wait for the same instance; further ones fail with ``Overloaded``."""
    max_calls: int = attrs.field(default=20_000, validator=_count)
    """Calls in progress in one process; further ones fail with ``Overloaded``."""
    drain_timeout: timedelta = attrs.field(default=timedelta(seconds=20), converter=bounded)
    """How long closing waits for runs in progress before it interrupts them."""


@attrs.frozen(kw_only=True)
class Turn:
    """What a step is given besides the record."""

    key: Key
    now: datetime
    limits: Limits
    include_state: bool = False
    """Whether events carry states and inputs."""
    own: bool = False
    """Whether the run happens inside the call that asked for it, whose caller then hears of a failure."""

    def fact(self, event: Callable[..., Event], **fields: Any) -> Event:
        """An event of this instance at this time."""
        key = self.key
        return event(
            timestamp=self.now,
            instance_id=key.instance_id,
            kind=key.kind,
            job=key.job,
            id=key.id,
            **fields,
        )

    def shown(self, state: bytes | None) -> Any:
        """A stored state as events carry it, if they do: the stored one, since handlers may change theirs."""
        if state is None or not self.include_state:
            return None
        return from_json_bytes(state, max_bytes=len(state), max_depth=MAX_STATE_DEPTH)


@attrs.frozen(kw_only=True)
class Fired:
    """What became of a run."""

    result: Literal[
        "done",
        "failed",
        "retrying",
        "exhausted",
        "stopped",
        "terminated",
        "parked",
        "put off",
        "quarantined",
    ]
    error: StepError | None = None
    """What the caller's own run fails with once the step is committed."""
    defect: BaseException | None = None
    """What the handler raised: the log shows where."""


@attrs.frozen(kw_only=True)
class Step:
    """What to write. ``before is after`` without events or mark means: nothing."""

    before: Instance | None
    after: Instance | None
    events: tuple[Event, ...] = ()
    mark: Mark | None = None
    dead_letter: DeadLetter | None = None
    fired: Fired | None = None

    @property
    def writes(self) -> bool:
        """Whether there is anything to commit."""
        return self.before is not self.after or bool(self.events) or self.mark is not None

    @property
    def run_count(self) -> int:
        """Which run this step tells of."""
        told = (getattr(event, "run_count", None) for event in self.events)
        return next(
            (count for count in told if count is not None), self.before.run_count if self.before else 0
        )

    @staticmethod
    def nothing(before: Instance | None) -> Step:
        """Leave everything as it is."""
        return Step(before=before, after=before)


class Command(ABC, Generic[Reply_co]):
    """A call of the client: it decides a step, and answers from what became of it."""

    event_id: str | None = None
    runs: ClassVar[bool] = False
    """Whether its purpose is that the instance runs now."""
    brings_event: ClassVar[bool] = False
    """Whether it hands an event to an instance that lives on: if that ends meanwhile, the event is refused
    instead of beginning another life."""
    preempts: ClassVar[bool] = False
    """Whether it waits for nobody: it ends the instance, and what it is doing."""

    @abstractmethod
    def decide(self, job: Any, before: Instance | None, turn: Turn) -> Effect[Step, StepError, Any]:
        """The step of this command; the alarm that it sets to now fires within the same call."""

    @abstractmethod
    def answer(self, turn: Turn, step: Step, fired: Step | None) -> Reply_co:
        """The reply, from the command's step and from that of the run it caused, if any."""


class Program(Protocol[A_co, E_co, R_co]):
    """What a handler answers: an effect, or a do-block with or without ``@Effect.gen``.

    To a type checker all of them are what ``yield from`` runs.
    """

    def __iter__(self) -> Generator[Op[E_co, R_co], Any, A_co]:
        """Run it inside a do-block."""
        ...


class Job(ABC, Generic[E_co, R_co]):
    """A definition. ``E`` and ``R`` are what its handlers can fail with and the services they need."""

    kind: ClassVar[Kind]
    log_level: int

    @abstractmethod
    def fire(self, before: Instance, turn: Turn) -> Effect[Step, Never, Any]:
        """The step of a due alarm: runs ``execute`` and decides what follows."""

    @abstractmethod
    def handlers(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions, whose declared services are checked when the job is connected."""


def checked(thunk: Callable[[], A]) -> Effect[A, ValidationError | SchedulerError]:
    """A computation that raises one of these two errors, as an effect that fails with it."""

    return _checked(thunk)  # apart, because mypy loses the A of a generic do-block


@Effect.gen
def _checked(thunk: Callable[[], Any]) -> Do[Any, ValidationError | SchedulerError]:
    try:
        return thunk()
    except (ValidationError, SchedulerError) as error:
        return (yield from Effect.fail(error))


def check_handler(name: str, handler: object, *, optional: bool = False) -> None:
    """Refuse what cannot be a handler, at definition."""
    if handler is None and optional:
        return
    if not callable(handler):
        raise ValueError(f"{name}= takes a function that returns an Effect, got {type(handler).__name__}")
    if inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler):
        raise ValueError(
            f"{name}= is an async function; write a do-block with @Effect.gen and wrap awaitables in "
            "Effect.from_async(...)"
        )


def check_option(name: str, value: object, kind: type[Any], expected: str) -> None:
    """Refuse an option of another type, at definition."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name}= takes {expected}, got {value!r}")


def logging_level(value: JobLogging) -> int:
    """``False``: failures only; ``True``: everything; a level; ``"none"``: silent."""
    if isinstance(value, bool):
        return logging.DEBUG if value else logging.ERROR
    if isinstance(value, int):
        return value
    text = value.upper() if isinstance(value, str) else ""  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
    if text == "NONE":
        return _SILENT
    level = logging.getLevelNamesMapping().get(text)
    if level is None:
        raise ValueError(f'logging= takes True, False, a level such as "WARNING", or "none": got {value!r}')
    return level


class Codec(Generic[S]):
    """A schema together with its stored form and the limit on its size."""

    __slots__ = ("schema",)

    def __init__(self, schema: Schema[S]) -> None:
        self.schema = schema

    def accept(self, value: object) -> S:
        """A value given by a caller, as the schema's type or in encoded form."""
        try:
            return self.schema.accept(value)
        except SchemaError as error:
            raise ValidationError.of(error) from None

    def encode(self, value: S, limits: Limits) -> bytes:
        """The stored form of a value."""
        try:
            data = to_json_bytes(self.schema.encode_sync(value))
            check_depth(data.decode("ascii"), MAX_STATE_DEPTH)  # or it could not be read again
        except SchemaError as error:
            raise ValidationError.of(error) from None
        if len(data) > limits.max_state_bytes:
            raise ValidationError.at(
                self.schema.name,
                "$",
                f"expected at most {limits.max_state_bytes} bytes of encoded state, got {len(data)}",
            )
        return data

    def decode(self, data: bytes | None) -> S:
        """The value that was stored."""
        if data is None:
            raise ValidationError.at(self.schema.name, "$", "the stored state is missing")
        try:
            stored = from_json_bytes(data, max_bytes=len(data), max_depth=MAX_STATE_DEPTH)
            return self.schema.decode_sync(stored)
        except SchemaError as error:
            raise ValidationError.of(error) from None


def park(before: Instance, turn: Turn, error: ValidationError | SchedulerError) -> Step:
    """The alarm found a record that it cannot run with: keep it, and look again later, ever less often."""
    wait = min(_FIRST_PARK * 2 ** min(before.undecodable_count, 16), _LONGEST_PARK)
    alarm = cast("Alarm", before.alarm)
    after = before.evolve(
        alarm=Alarm(turn.now + wait, alarm.reason),
        undecodable_count=before.undecodable_count + 1,
        last_error=Failure.of(error),
    )
    return Step(before=before, after=after, fired=Fired(result="parked", error=error))
