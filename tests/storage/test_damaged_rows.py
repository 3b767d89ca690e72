"""Rows of a SQLite file that something else has damaged."""

from __future__ import annotations

import logging
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_effect import Do, Effect, Need, Scope
from durable_effect_jobs.events import JobStarted
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key
from durable_effect_jobs.storage.sqlite import SqliteStorage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def commit(id: str) -> Commit:
    key = Key("task", "job", id)
    record = Instance(key=key, incarnation=id, created_at=NOON, state=b"1")
    letter = DeadLetter(instance=record, reason="max_attempts", at=NOON, expires_at=NOON + timedelta(days=30))
    event = JobStarted(
        event_id=id, timestamp=NOON, instance_id=key.instance_id, kind="task", job="job", id=id
    )
    return Commit(key=key, before=None, after=record, at=NOON, token=id, events=(event,), dead_letter=letter)


def test_damaged_rows_hide_no_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Listings leave out what cannot be read, say so once, and show as many others as asked for."""
    path = tmp_path / "jobs.db"

    @Effect.gen
    def fill() -> Do[None, Any, Need[Scope]]:
        storage = yield from SqliteStorage.open(path)
        for id in "abcd":
            yield from storage.commit(commit(id))

    Effect.run(fill().scoped())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE instance SET record = x'5b' WHERE id IN ('a', 'c')")
        connection.execute("UPDATE dead_letter SET record = x'ff' WHERE id IN ('a', 'c')")
        connection.execute("UPDATE outbox SET body = x'7b7d' WHERE event_id IN ('a', 'c')")
    connection.close()

    @Effect.gen
    def look() -> Do[tuple[Any, ...], Any, Need[Scope]]:
        storage = yield from SqliteStorage.open(path)
        instances = yield from storage.instances(limit=2)
        of_job = yield from storage.instances(job=("task", "job"), after=Key("task", "job", "b"), limit=1)
        letters = yield from storage.dead_letters(limit=2)
        events = yield from storage.pending_events(2)
        again = yield from storage.instances()
        return instances, of_job, letters, events, again

    with caplog.at_level(logging.ERROR):
        instances, of_job, letters, events, again = Effect.run(look().scoped())

    assert [found.key.id for found in instances] == ["b", "d"]
    assert [found.key.id for found in of_job] == ["d"]
    assert [letter.instance.key.id for letter in letters] == ["b", "d"]
    assert [event.event_id for event in events] == ["b", "d"]
    assert again == instances
    assert len(caplog.records) == 6
