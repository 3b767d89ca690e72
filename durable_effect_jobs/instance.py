"""The one durable record of a job instance, and what one step does to it.

A step loads the record, decides, and replaces it in a single atomic write that also carries the
step's events, its idempotency mark and, when retries are exhausted, a dead letter. Instants are
aware UTC datetimes with microseconds; the state is canonical JSON in bytes.

Who runs an instance and when to look at it again stand in the same record: while a run holds a lease the
instance wakes when that ends, else at its alarm (:attr:`Instance.wake_at`). So the look for due alarms finds
what a crashed process left, and no work can be waiting with nobody to look for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Literal, TypeAlias, cast

import attrs
from typing_extensions import Self

from durable_effect.canonical_json import from_json_bytes, to_json_bytes
from durable_effect_jobs.errors import Kind, ValidationError
from durable_effect_jobs.events import Event, Failure

__all__ = [
    "MAX_ID_LENGTH",
    "Alarm",
    "AlarmReason",
    "Claim",
    "Claimed",
    "Commit",
    "DeadLetter",
    "Due",
    "Instance",
    "Key",
    "Lease",
    "Mark",
    "from_micros",
    "idempotency_key",
    "text_problem",
    "to_micros",
]

MAX_ID_LENGTH = 512

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The instant that is this many microseconds after the epoch."""
    return _EPOCH + timedelta(microseconds=micros)


@attrs.frozen(order=True)
class Key:
    """Which instance: the kind and name of its job, and its id within that job."""

    kind: Kind
    job: str
    id: str

    @property
    def instance_id(self) -> str:
        """The key as one text. Kind and job hold no colon, so two keys never share it."""
        return f"{self.kind}:{self.job}:{self.id}"

    def problem(self) -> ValidationError | None:
        """What is wrong with the id: ids are non-empty text of up to 512 characters, colons included."""
        return text_problem("id", self.id)


def text_problem(name: str, text: object) -> ValidationError | None:
    """What is wrong with an id of an instance or an event; ``None`` when nothing is."""
    if not isinstance(text, str):
        return ValidationError.at(name, "$", f"expected text, got {type(text).__name__}")
    if not 1 <= len(text) <= MAX_ID_LENGTH:
        return ValidationError.at(name, "$", f"expected 1 to {MAX_ID_LENGTH} characters, got {len(text)}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return ValidationError.at(name, "$", "expected text without lone surrogates")
    return None


def idempotency_key(run_key: str, step: str) -> str:
    """The same for every execution of the same step of the same run: 32 hexadecimal digits."""
    return hashlib.sha256(f"{run_key}:{step}".encode()).hexdigest()[:32]


AlarmReason: TypeAlias = Literal["start", "schedule", "retry", "trigger", "flushAfter", "maxEvents", "manual"]


@attrs.frozen
class Alarm:
    """When an instance is to be woken, and what for."""

    at: datetime
    reason: AlarmReason


@attrs.frozen
class Lease:
    """Who runs an instance: nobody else begins to, until it is given back or over."""

    owner: str
    """The worker: another one after every start of a process."""
    until: datetime


@attrs.frozen(kw_only=True)
class Instance:
    """The durable record. Fields that a kind has no use for keep their defaults."""

    key: Key
    incarnation: str
    """Given at birth: an id that is used again after ``terminate`` is another instance."""
    created_at: datetime
    revision: int = 1
    """How many steps have been committed in this life."""
    fence: int = 0
    """Given by the storage when a run takes the instance, each greater than all before: whoever read the
    record before that can no longer commit."""
    lease: Lease | None = None
    """There while a run is in progress, or after the crash of one."""
    crashes: int = 0
    """How many runs in a row ended without a commit because their process died."""
    quarantined: bool = False
    """It took its process down too often: its alarm waits until an operator resumes it."""
    state: bytes | None = None
    """The encoded state, canonical JSON; ``None`` for a task that has not set one yet."""
    alarm: Alarm | None = None
    pending: Alarm | None = None
    """A task's own schedule, kept aside while a ``trigger`` runs."""

    run_count: int = 0
    event_count: int = 0
    execute_count: int = 0

    scheduled_for: datetime | None = None
    """The tick that a continuous run stands for."""
    missed_count: int = 0
    next_tick: datetime | None = None
    """The tick after the run that is being retried."""
    flush_reason: Literal["maxEvents", "flushAfter", "manual"] | None = None

    failed_attempts: int = 0
    """Failures of the current run so far; 0 unless a retry waits."""
    first_attempt_at: datetime | None = None
    undecodable_count: int = 0
    """How often in a row the alarm found a state that its schema does not accept."""
    stopped: bool = False
    """Retries were exhausted and the job keeps such records: no alarm until it is revived."""
    last_error: Failure | None = None

    @property
    def wake_at(self) -> datetime | None:
        """When somebody is to look at it: at its alarm, or when the lease of the run in progress is over."""
        if self.quarantined:
            return None
        if self.lease is not None:
            return self.lease.until
        return None if self.alarm is None else self.alarm.at

    @property
    def halted(self) -> bool:
        """Whether it waits for somebody: its retries were exhausted, or it is quarantined."""
        return self.stopped or self.quarantined

    @property
    def parked(self) -> bool:
        """Whether its alarm found a record that it cannot run with, and looks again later."""
        return self.undecodable_count > 0

    def is_due(self, now: datetime) -> bool:
        """Whether the alarm is to fire now."""
        return self.alarm is not None and self.alarm.at <= now

    def evolve(self, **changes: Any) -> Self:
        """The record after a step: the changes, one revision more, and nobody's."""
        return self.replace(revision=self.revision + 1, lease=None, **changes)

    def replace(self, **changes: Any) -> Self:
        """The record with these changes: what ``attrs.evolve`` answers, in half the time."""
        copy = object.__new__(type(self))
        for write, value in zip(_WRITES, _READS(self), strict=True):
            write(copy, value)
        for name, value in changes.items():
            object.__setattr__(copy, name, value)
        return copy

    def to_bytes(self) -> bytes:
        """All of the record except what storages keep in columns of their own: key, revision, state, lease,
        fence, crash count and quarantine. Defaults are not written: most records are small, and new fields
        cost old records nothing."""
        fields: dict[str, Any] = {}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value is not default and value != default:
                fields[name] = _plain(value)
        return to_json_bytes(fields)

    @staticmethod
    def from_bytes(key: Key, revision: int, state: bytes | None, record: bytes, **columns: Any) -> Instance:
        """The record that :meth:`to_bytes` wrote; members that this version does not know are left out.

        ``columns`` are ``fence``, ``lease``, ``crashes`` and ``quarantined``, for those that are not default.
        """
        fields = cast("dict[str, Any]", from_json_bytes(record, max_bytes=len(record)))
        known = {
            name: _READ.get(name, _same)(value) for name, value in fields.items() if name in _BOOKKEEPING
        }
        return Instance(key=key, revision=revision, state=state, **columns, **known)


@attrs.frozen
class Mark:
    """An ``event_id`` that was accepted, remembered until ``expires_at``."""

    event_id: str
    expires_at: datetime


@attrs.frozen(kw_only=True)
class DeadLetter:
    """What an instance was when its retries were exhausted and it was purged."""

    instance: Instance
    reason: Literal["max_attempts", "max_duration", "not_retryable"]
    at: datetime
    expires_at: datetime
    number: int = 0
    """Given by the storage: what an operator calls it by."""


@attrs.frozen(kw_only=True)
class Commit:
    """One atomic write: all of it happened or nothing did, and it happens once however often it is sent.

    It applies only if the stored record still is ``before`` (same incarnation, revision and fence, or absent
    when ``None``), if ``mark`` is not remembered already, and if the dead letter ``replays`` is there.
    """

    key: Key
    before: Instance | None
    after: Instance | None
    """The new record; ``None`` removes it. With a lease it is taken for a run by the same write, under a new
    fence that the storage gives; without one it keeps the fence of ``before`` (0 at birth), and is free."""
    at: datetime
    token: str
    """Unique to this write: one whose answer was lost is sent again with the same token. The record keeps
    the token of its last write, and storages remember those of removals for an hour."""
    events: tuple[Event, ...] = ()
    mark: Mark | None = None
    dead_letter: DeadLetter | None = None
    replays: int | None = None
    """The number of the dead letter that this step brings back to life: it is removed with the same write."""


@attrs.frozen
class Claim:
    """A worker's wish to run an instance whose time has come."""

    key: Key
    owner: str
    now: datetime
    until: datetime


@attrs.frozen
class Claimed:
    """The record with the claimer's lease and a new fence in it."""

    instance: Instance
    recovered: bool
    """Whether another worker's lease was over: that run died, and ``crashes`` counts it."""


@attrs.frozen
class Due:
    """An instance whose time has come."""

    key: Key
    suspect: bool
    """Whether its last run died: it is to run with nothing else in progress beside it."""


# -- the stored form ---------------------------------------------------------------------------

_COLUMNS = {"key", "revision", "state", "fence", "lease", "crashes", "quarantined"}
_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in attrs.fields(Instance) if field.name not in _COLUMNS
}
_BOOKKEEPING = frozenset(_DEFAULTS)

# One call reads all fields; a slot is written by its descriptor, since the class itself refuses to be.
_FIELDS = tuple(field.name for field in attrs.fields(Instance))
_READS = attrgetter(*_FIELDS)
_WRITES = tuple(Instance.__dict__[name].__set__ for name in _FIELDS)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, Alarm):
        return [to_micros(value.at), value.reason]
    if isinstance(value, Failure):
        return [value.type, value.message, value.stack]
    return value


def _same(value: Any) -> Any:
    return value


def _read_alarm(value: Any) -> Alarm:
    at, reason = value
    return Alarm(from_micros(at), reason)


def _read_failure(value: Any) -> Failure:
    return Failure(*value)


_READ: dict[str, Callable[[Any], Any]] = {
    "created_at": from_micros,
    "scheduled_for": from_micros,
    "next_tick": from_micros,
    "first_attempt_at": from_micros,
    "alarm": _read_alarm,
    "pending": _read_alarm,
    "last_error": _read_failure,
}
