"""What the tests of the storages have in common: a few instances, and ways to write them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import attrs

from durable_effect import Effect
from durable_effect_jobs.events import JobStarted
from durable_effect_jobs.instance import Alarm, Commit, DeadLetter, Instance, Key
from durable_effect_jobs.storage.sqlite import SqliteStorage

A = TypeVar("A")

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
USER = Key("continuous", "counter", "user-1")

_tokens = count(1)


def token() -> str:
    """The token of a commit, another one with each call."""
    return f"token-{next(_tokens)}"


def task(name: str) -> Key:
    """A key of a task."""
    return Key("task", "t", name)


def born(key: Key = USER, alarm_at: datetime | None = None, *, state: bytes = b"{}") -> Instance:
    """A first record."""
    alarm = None if alarm_at is None else Alarm(alarm_at, "schedule")
    return Instance(key=key, incarnation="first", created_at=NOON, state=state, alarm=alarm)


def birth(instance: Instance, **parts: Any) -> Commit:
    """The commit that writes a first record."""
    first = Commit(key=instance.key, before=None, after=instance, at=NOON, token=token())
    return attrs.evolve(first, **parts)


def change(before: Instance, after: Instance | None, **parts: Any) -> Commit:
    """The commit that replaces or removes a record."""
    step = Commit(key=before.key, before=before, after=after, at=NOON, token=token())
    return attrs.evolve(step, **parts)


def fact(event_id: str, key: Key = USER) -> JobStarted:
    """An event."""
    return JobStarted(
        timestamp=NOON, instance_id=key.instance_id, kind=key.kind, job=key.job, id=key.id, event_id=event_id
    )


def letter(instance: Instance, expires_at: datetime = NOON + DAY) -> DeadLetter:
    """A dead letter."""
    return DeadLetter(instance=instance, reason="max_attempts", at=NOON, expires_at=expires_at)


def on_file(path: Path | str, use: Callable[[SqliteStorage], Effect[A, Any]], **options: Any) -> A:
    """Open a SQLite storage, use it, and close it."""
    return SqliteStorage.open(path, **options).flat_map(use).scoped().run()
