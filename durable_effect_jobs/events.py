"""Facts that steps report: the telemetry events of durable jobs.

An event is decided together with the step that it tells of and commits with it. ``to_wire`` gives
the camelCase JSON object that a tracker's endpoint receives.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeAlias, cast

import attrs

from durable_effect.canonical_json import from_json_bytes, to_json_bytes
from durable_effect_jobs.errors import Kind

__all__ = [
    "MAX_STATE_DEPTH",
    "DebounceFlushed",
    "DebounceStarted",
    "Event",
    "Failure",
    "JobExecuted",
    "JobFailed",
    "JobRetryExhausted",
    "JobStarted",
    "JobTerminated",
    "TaskScheduled",
    "event_from_bytes",
    "event_to_bytes",
    "to_wire",
]


MAX_STATE_DEPTH = 64
"""How many arrays and objects may enclose a value of a state."""

_MAX_TEXT = 4096


@attrs.frozen
class Failure:
    """What is kept of an error: its type's name, its message, and its traceback as text. Never a pickle."""

    type: str
    message: str
    stack: str | None = None

    @staticmethod
    def of(error: object) -> Failure:
        """What is kept of this typed error or exception; long texts are cut at 4 KiB."""
        raised = isinstance(error, BaseException) and error.__traceback__ is not None
        stack = "".join(traceback.format_exception(cast("BaseException", error))) if raised else None
        return Failure(
            type=type(error).__name__,
            message=_text(error),
            stack=None if stack is None else _cut(stack),
        )


def _text(value: object) -> str:
    """What it says. One that raises instead must not keep what happened from being recorded."""
    try:
        return _cut(str(value))
    except Exception as raised:
        return f"(its text cannot be had: {type(raised).__name__})"


def _reason(value: object) -> str | None:
    """Reasons come from callers and may be anything, so they are made to fit like messages."""
    return None if value is None else _text(value)


def _cut(text: str) -> str:
    """The end of a traceback says most, so that is what is kept; lone surrogates cannot be stored."""
    return text.encode("utf-8", "backslashreplace").decode()[-_MAX_TEXT:]


@attrs.frozen(kw_only=True)
class _Fact:
    type: ClassVar[str]

    timestamp: datetime
    instance_id: str
    kind: Kind
    job: str
    id: str
    event_id: str = ""
    """A UUIDv7, given when the step commits and stable across re-sends."""


@attrs.frozen(kw_only=True)
class JobStarted(_Fact):
    """A continuous or task instance was born."""

    type: ClassVar[str] = "job.started"
    input: Any = None
    """The encoded input; only with ``Tracker(include_state=True)``."""


@attrs.frozen(kw_only=True)
class JobExecuted(_Fact):
    """``execute`` completed."""

    type: ClassVar[str] = "job.executed"
    run_count: int
    duration_ms: float
    attempt: int
    pre_execution_state: Any = None
    """The encoded state before the run; only with ``Tracker(include_state=True)``."""


@attrs.frozen(kw_only=True)
class JobFailed(_Fact):
    """``execute`` failed."""

    type: ClassVar[str] = "job.failed"
    error: Failure
    run_count: int
    attempt: int
    will_retry: bool


@attrs.frozen(kw_only=True)
class JobRetryExhausted(_Fact):
    """A run failed and will not be tried again."""

    type: ClassVar[str] = "job.retryExhausted"
    attempts: int
    reason: Literal["max_attempts", "max_duration", "not_retryable"]


@attrs.frozen(kw_only=True)
class JobTerminated(_Fact):
    """An instance ended in another way than by a flush."""

    type: ClassVar[str] = "job.terminated"
    run_count: int
    reason: str | None = attrs.field(default=None, converter=_reason)


@attrs.frozen(kw_only=True)
class DebounceStarted(_Fact):
    """The first event of a batch arrived."""

    type: ClassVar[str] = "debounce.started"
    flush_at: datetime


@attrs.frozen(kw_only=True)
class DebounceFlushed(_Fact):
    """A batch was processed."""

    type: ClassVar[str] = "debounce.flushed"
    event_count: int
    reason: Literal["timeout", "maxEvents", "manual"]
    duration_ms: float
    """From the first event of the batch to its flush."""


@attrs.frozen(kw_only=True)
class TaskScheduled(_Fact):
    """A handler scheduled the task's next execution."""

    type: ClassVar[str] = "task.scheduled"
    scheduled_at: datetime
    trigger: Literal["event", "execute", "idle", "error"]


Event: TypeAlias = (
    JobStarted
    | JobExecuted
    | JobFailed
    | JobRetryExhausted
    | JobTerminated
    | DebounceStarted
    | DebounceFlushed
    | TaskScheduled
)

_CLASSES: dict[str, type[Any]] = {
    fact.type: fact
    for fact in (
        JobStarted,
        JobExecuted,
        JobFailed,
        JobRetryExhausted,
        JobTerminated,
        DebounceStarted,
        DebounceFlushed,
        TaskScheduled,
    )
}
_INSTANTS = frozenset({"timestamp", "flush_at", "scheduled_at"})


def event_to_bytes(event: Event) -> bytes:
    """The stored form of an event: JSON with every field, instants to the microsecond."""
    fields = {field.name: getattr(event, field.name) for field in attrs.fields(type(event))}
    return to_json_bytes({"type": event.type, **{name: _stored(value) for name, value in fields.items()}})


def event_from_bytes(data: bytes) -> Event:
    """The event that :func:`event_to_bytes` wrote."""
    # What a state may be nested, and the event around it.
    fields = cast("dict[str, Any]", from_json_bytes(data, max_bytes=len(data), max_depth=MAX_STATE_DEPTH + 1))
    fact = _CLASSES[fields.pop("type")]
    return cast("Event", fact(**{name: _read(name, value) for name, value in fields.items()}))


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return attrs.astuple(value) if isinstance(value, Failure) else value


def _read(name: str, value: Any) -> Any:
    if name in _INSTANTS:
        return datetime.fromisoformat(value)
    return Failure(*value) if name == "error" else value


_ENVELOPE = frozenset(field.name for field in attrs.fields(_Fact))


def to_wire(event: Event) -> dict[str, Any]:
    """The JSON object of one event, without what its sender adds (``env``, ``serviceKey``)."""
    own = [field.name for field in attrs.fields(type(event)) if field.name not in _ENVELOPE]
    members = {name: getattr(event, name) for name in own}
    return {
        "eventId": event.event_id,
        "timestamp": _instant(event.timestamp),
        "source": "job",
        "instanceId": event.instance_id,
        "jobType": event.kind,
        "jobName": event.job,
        "id": event.id,
        "type": event.type,
        **{_camel(name): _wire(value) for name, value in members.items() if value is not None},
    }


def _wire(value: Any) -> Any:
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, Failure):
        return {k: v for k, v in attrs.asdict(value).items() if v is not None}
    return value


def _instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
