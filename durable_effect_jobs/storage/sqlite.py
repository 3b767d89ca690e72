"""Instances in one SQLite file, for one process: the storage to begin with, and for most to stay with.

All writes go through one connection on one thread (:mod:`.sqlite_thread`); a commit is acknowledged when
the transaction that it shares with other waiting commits is on the disk. As no other process writes to
the file (:mod:`.sqlite_file`), the records that were committed last are remembered, and a step on one of
them needs no read.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections.abc import Collection
from datetime import datetime
from typing import Any, TypeAlias, cast

from durable_effect import Effect, Need
from durable_effect.scope import Scope
from durable_effect_jobs.errors import DuplicateEventError, Kind, StorageError
from durable_effect_jobs.events import Event, event_from_bytes, event_to_bytes
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key, Mark, from_micros, to_micros
from durable_effect_jobs.storage import Conflict, JobName
from durable_effect_jobs.storage.sqlite_file import (
    MEMORY,
    DatabaseFile,
    FileToRead,
    MemoryDatabase,
    Synchronous,
)
from durable_effect_jobs.storage.sqlite_thread import Database, DatabaseThread

__all__ = ["SqliteStorage"]

_log = logging.getLogger("durable_effect_jobs.storage")

_EXPIRED_PER_BATCH = 100
# Larger states are read again: the cache stays small whatever users store.
_REMEMBERED_STATE_BYTES = 16_384
_WARN_EVERY = 1000

_LONG_AGO = -(2**63) + 1
_NEVER = 2**63 - 1


class SqliteStorage:
    """A storage in a SQLite file. Made by :meth:`open`, and closed with the scope it was opened in."""

    __slots__ = ("__weakref__", "_contents", "_thread")

    def __init__(self, thread: DatabaseThread, contents: _Contents) -> None:
        self._thread = thread
        self._contents = contents
        # A storage that is dropped without being closed lets go of its file. At exit the system does that.
        weakref.finalize(self, thread.stop).atexit = False

    @staticmethod
    def open(
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        cache_size: int = 4096,
        outbox_limit: int = 1_000_000,
        read_only: bool = False,
    ) -> Effect[SqliteStorage, StorageError, Need[Scope]]:
        """Open the file, make it if it is not there, and close it with the scope.

        ``synchronous="full"`` keeps every acknowledged commit through a loss of power; ``"normal"`` may
        lose the last ones then (not when only the process dies), and is faster for single callers.
        ``cache_size`` is the number of records that are remembered, ``outbox_limit`` the number of events
        that may wait to be sent: beyond it the oldest are dropped with a warning. ``":memory:"`` is a
        database without a file. ``read_only=True`` looks at a file that another process may have open: it
        is not made, and writes fail.

        Fails with ``StorageError`` when the file is open already (one process at a time; for many use
        PostgreSQL), is not ours, or was written by a newer version; it is then left as it is.
        """
        if synchronous not in ("full", "normal"):
            raise ValueError(f'synchronous is "full" or "normal", not {synchronous!r}')
        if cache_size < 0 or outbox_limit < 1:
            raise ValueError("cache_size must be at least 0 and outbox_limit at least 1")

        def open_database() -> Database:
            if os.fspath(path) == MEMORY:
                return MemoryDatabase()
            return FileToRead(path) if read_only else DatabaseFile(path, synchronous)

        def acquire() -> Effect[SqliteStorage, StorageError]:
            # What another process writes is seen only if nothing is remembered.
            contents = _Contents(0 if read_only else cache_size, outbox_limit)
            storage = SqliteStorage(DatabaseThread(open_database, contents), contents)
            return storage._thread.start().as_(storage)

        return Effect.acquire_release(Effect.suspend(acquire), lambda storage: storage._close())

    @property
    def transactions(self) -> int:
        """How many write transactions were committed: with many callers, fewer than commits."""
        return self._thread.transactions

    @property
    def dropped_events(self) -> int:
        """How many events were dropped because the outbox was full."""
        return self._contents.dropped_events

    # -- one instance ------------------------------------------------------------------------------

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        def look() -> Effect[Instance | None, StorageError]:
            try:
                return Effect.succeed(self._contents.remembered[key])
            except KeyError:
                return self._thread.read("load", lambda connection: self._contents.load(connection, key))

        return Effect.suspend(look)

    def commit(self, commit: Commit) -> Effect[None, StorageError | Conflict | DuplicateEventError]:
        def write() -> Effect[None, StorageError | Conflict | DuplicateEventError]:
            rows = _Rows(commit)  # encoded here, while the thread waits for the disk
            return self._thread.write(
                "commit",
                lambda connection: self._contents.commit(connection, commit, rows),
                then=lambda: self._contents.remember(commit.key, commit.after),
            )

        return Effect.suspend(write)

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        row = (*_columns(key), event_id, to_micros(now))
        return self._thread.read(
            "is_marked", lambda connection: connection.execute(_IS_MARKED, row).fetchone() is not None
        )

    # -- alarms ------------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[list[Key], StorageError]:
        names, now_us = frozenset(jobs), to_micros(now)
        return self._thread.read("due", lambda connection: _due(connection, now_us, limit, names))

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, StorageError]:
        names, after_us = frozenset(jobs), _BEFORE_ALL if after is None else to_micros(after)
        return self._thread.read("next_due", lambda connection: _next_due(connection, names, after_us))

    # -- listing -----------------------------------------------------------------------------------

    def jobs(self) -> Effect[dict[JobName, int], StorageError]:
        return self._thread.read("jobs", _jobs)

    def instances(
        self, *, job: JobName | None = None, after: Key | None = None, limit: int = 100
    ) -> Effect[list[Instance], StorageError]:
        return self._thread.read("instances", lambda connection: _instances(connection, job, after, limit))

    def dead_letters(self, *, after: int = 0, limit: int = 100) -> Effect[list[DeadLetter], StorageError]:
        return self._thread.read(
            "dead_letters",
            lambda connection: [_letter(row) for row in connection.execute(_LETTERS, (after, limit))],
        )

    def remove_dead_letter(self, number: int) -> Effect[bool, StorageError]:
        return self._thread.write(
            "remove_dead_letter",
            lambda connection: connection.execute(_REMOVE_LETTER, (number,)).rowcount > 0,
        )

    # -- outbox ------------------------------------------------------------------------------------

    def pending_events(self, limit: int) -> Effect[list[Event], StorageError]:
        return self._thread.read(
            "pending_events",
            lambda connection: [event_from_bytes(body) for (body,) in connection.execute(_PENDING, (limit,))],
        )

    def events_sent(self, event_ids: Collection[str]) -> Effect[None, StorageError]:
        rows = [(event_id,) for event_id in event_ids]

        def remove(connection: sqlite3.Connection) -> None:
            connection.executemany(_REMOVE_EVENT, rows)

        return self._thread.write("events_sent", remove)

    def _close(self) -> Effect[None]:
        return self._thread.close().ensuring(Effect.sync(self._contents.forget))


class _Rows:
    """The stored form of a commit."""

    __slots__ = ("after", "events", "letter")

    def __init__(self, commit: Commit) -> None:
        self.after = None if commit.after is None else _instance_row(commit.after)
        self.events = [(event.event_id, event_to_bytes(event)) for event in commit.events]
        self.letter = None if commit.dead_letter is None else _letter_row(commit.dead_letter)


class _Contents:
    """What is in the database, and what is remembered of it.

    Only the thread changes anything here; callers look at ``remembered`` and at the counter.
    """

    __slots__ = (
        "_cache_size",
        "_commits",
        "_dropping",
        "_latest_us",
        "_letters_expire_us",
        "_marks_expire_us",
        "_outbox_grew",
        "_outbox_limit",
        "dropped_events",
        "remembered",
    )

    def __init__(self, cache_size: int, outbox_limit: int) -> None:
        self._cache_size = cache_size
        self._outbox_limit = outbox_limit
        self.remembered: dict[Key, Instance | None] = {}
        """The records that were committed or read last; ``None`` for a key that has no record."""
        self.dropped_events = 0
        self._marks_expire_us = _LONG_AGO
        self._letters_expire_us = _LONG_AGO
        self._latest_us = _LONG_AGO - 1
        self._begin_batch()

    def load(self, connection: sqlite3.Connection, key: Key) -> Instance | None:
        row = connection.execute(_LOAD, _columns(key)).fetchone()
        instance = None if row is None else _instance(key, row)
        self.remember(key, instance)
        return instance

    def commit(self, connection: sqlite3.Connection, commit: Commit, rows: _Rows) -> None:
        at_us = to_micros(commit.at)
        if not _replace(connection, commit.key, commit.before, rows.after):
            raise Conflict(commit.key)
        if commit.mark is not None:
            self._mark(connection, commit.key, commit.mark, at_us)
        if commit.dead_letter is not None and rows.letter is not None:
            connection.execute(_ADD_LETTER, rows.letter)
            self._letters_expire_us = min(self._letters_expire_us, to_micros(commit.dead_letter.expires_at))
        if commit.replays is not None and not connection.execute(_REMOVE_LETTER, (commit.replays,)).rowcount:
            raise Conflict(commit.key)
        if rows.events:
            connection.executemany(_ADD_EVENT, rows.events)
            self._outbox_grew = True
        self._commits += 1
        self._latest_us = max(self._latest_us, at_us)

    def remember(self, key: Key, instance: Instance | None) -> None:
        """Keep the record for the next step on it, in place of the one that was kept longest ago."""
        remembered = self.remembered
        remembered.pop(key, None)
        if instance is None or instance.state is None or len(instance.state) <= _REMEMBERED_STATE_BYTES:
            remembered[key] = instance
        if len(remembered) > self._cache_size:
            del remembered[next(iter(remembered))]

    # -- batches ------------------------------------------------------------------------------------

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """Remove what expired, and what the outbox has no room for."""
        limit = max(_EXPIRED_PER_BATCH, 2 * self._commits)  # more than could have been added
        if self._marks_expire_us <= self._latest_us:
            connection.execute(_REMOVE_EXPIRED_MARKS, (self._latest_us, limit))
            self._marks_expire_us = _earliest(connection, _NEXT_EXPIRED_MARK)
        if self._letters_expire_us <= self._latest_us:
            connection.execute(_REMOVE_EXPIRED_LETTERS, (self._latest_us, limit))
            self._letters_expire_us = _earliest(connection, _NEXT_EXPIRED_LETTER)
        if self._outbox_grew:
            self._dropping = connection.execute(_DROP_OLDEST, (self._outbox_limit,)).rowcount

    def after_commit(self) -> None:
        if self._dropping > 0:
            self._count_dropped(self._dropping)
        self._begin_batch()

    def forget(self) -> None:
        """Expect anything of the database."""
        self.remembered.clear()
        self._marks_expire_us = self._letters_expire_us = _LONG_AGO
        self._begin_batch()

    def _begin_batch(self) -> None:
        self._commits = 0
        self._latest_us = _LONG_AGO - 1
        self._outbox_grew = False
        self._dropping = 0

    def _mark(self, connection: sqlite3.Connection, key: Key, mark: Mark, at_us: int) -> None:
        expires_us = to_micros(mark.expires_at)
        if connection.execute(_ADD_MARK, (*_columns(key), mark.event_id, expires_us, at_us)).rowcount == 0:
            raise DuplicateEventError(mark.event_id)
        self._marks_expire_us = min(self._marks_expire_us, expires_us)

    def _count_dropped(self, number: int) -> None:
        before = self.dropped_events
        self.dropped_events += number
        if before == 0 or before // _WARN_EVERY != self.dropped_events // _WARN_EVERY:
            _log.warning(
                "the outbox is full (%d events): %d of the oldest were dropped so far",
                self._outbox_limit,
                self.dropped_events,
            )


def _replace(connection: sqlite3.Connection, key: Key, before: Instance | None, after: _Row | None) -> bool:
    """Write the record if the stored one still is ``before``; whether it was."""
    if before is None:
        if after is None:
            return connection.execute(_LOAD, _columns(key)).fetchone() is None
        return connection.execute(_INSERT, (*_columns(key), *after)).rowcount == 1
    still = (*_columns(key), before.incarnation, before.revision)
    if after is None:
        return connection.execute(_DELETE, still).rowcount == 1
    return connection.execute(_UPDATE, (*after, *still)).rowcount == 1


def _due(connection: sqlite3.Connection, now_us: int, limit: int, jobs: frozenset[JobName]) -> list[Key]:
    """Each job has its own range of the index, so that jobs nobody asked for cost nothing."""
    found: list[tuple[int, Kind, str, str]] = [
        (alarm_us, kind, job, its_id)
        for kind, job in jobs
        for alarm_us, its_id in connection.execute(_DUE, (kind, job, now_us, limit))
    ]
    return [Key(kind, job, its_id) for _, kind, job, its_id in sorted(found)[:limit]]


def _next_due(connection: sqlite3.Connection, jobs: frozenset[JobName], after_us: int) -> datetime | None:
    alarms = [connection.execute(_NEXT_DUE, (*job, after_us)).fetchone()[0] for job in jobs]
    return min((from_micros(alarm_us) for alarm_us in alarms if alarm_us is not None), default=None)


def _jobs(connection: sqlite3.Connection) -> dict[JobName, int]:
    return {(kind, job): count for kind, job, count in connection.execute(_JOBS)}


def _instances(
    connection: sqlite3.Connection, job: JobName | None, after: Key | None, limit: int
) -> list[Instance]:
    behind = ("", "", "") if after is None else _columns(after)
    if job is None:
        rows = connection.execute(_INSTANCES, (*behind, limit))
    elif job < behind[:2]:
        return []
    else:
        rows = connection.execute(_INSTANCES_OF, (*job, behind[2] if job == behind[:2] else "", limit))
    return [_instance(Key(row[0], row[1], row[2]), row[3:]) for row in rows]


def _earliest(connection: sqlite3.Connection, statement: str) -> int:
    (expires_us,) = connection.execute(statement).fetchone()
    return _NEVER if expires_us is None else int(expires_us)


# -- rows ------------------------------------------------------------------------------------------

_Row: TypeAlias = tuple[str, int, int | None, bytes, bytes | None]


def _columns(key: Key) -> tuple[Kind, str, str]:
    return key.kind, key.job, key.id


def _instance_row(instance: Instance) -> _Row:
    alarm_us = None if instance.alarm is None else to_micros(instance.alarm.at)
    return instance.incarnation, instance.revision, alarm_us, instance.to_bytes(), instance.state


def _instance(key: Key, row: tuple[int, bytes | None, bytes]) -> Instance:
    revision, state, record = row
    return Instance.from_bytes(key, revision, state, record)


def _letter_row(letter: DeadLetter) -> tuple[object, ...]:
    instance = letter.instance
    times = to_micros(letter.at), to_micros(letter.expires_at)
    stored = instance.revision, instance.state, instance.to_bytes()
    return *_columns(instance.key), letter.reason, *times, *stored


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    number, kind, job, its_id, reason, at_us, expires_us, *stored = row
    return DeadLetter(
        instance=_instance(Key(kind, job, its_id), cast("tuple[int, bytes | None, bytes]", stored)),
        reason=reason,
        at=from_micros(at_us),
        expires_at=from_micros(expires_us),
        number=number,
    )


# -- statements ------------------------------------------------------------------------------------

_LOAD = "SELECT revision, state, record FROM instance WHERE kind = ? AND job = ? AND id = ?"

_INSERT = """
    INSERT INTO instance (kind, job, id, incarnation, revision, alarm_us, record, state)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""

_UPDATE = """
    UPDATE instance SET incarnation = ?, revision = ?, alarm_us = ?, record = ?, state = ?
    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ?
"""

_DELETE = """
    DELETE FROM instance WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ?
"""

_DUE = """
    SELECT alarm_us, id FROM instance
    WHERE kind = ? AND job = ? AND alarm_us <= ?
    ORDER BY alarm_us, id LIMIT ?
"""

_NEXT_DUE = "SELECT min(alarm_us) FROM instance WHERE kind = ? AND job = ? AND alarm_us > ?"
_BEFORE_ALL = -(1 << 63)

_JOBS = "SELECT kind, job, count(*) FROM instance GROUP BY kind, job"

_INSTANCES = """
    SELECT kind, job, id, revision, state, record FROM instance
    WHERE (kind, job, id) > (?, ?, ?)
    ORDER BY kind, job, id LIMIT ?
"""

_INSTANCES_OF = """
    SELECT kind, job, id, revision, state, record FROM instance
    WHERE kind = ? AND job = ? AND id > ?
    ORDER BY id LIMIT ?
"""

_IS_MARKED = """
    SELECT 1 FROM mark WHERE kind = ? AND job = ? AND id = ? AND event_id = ? AND expires_us > ?
"""

# Changes no row when the mark is there and has not expired.
_ADD_MARK = """
    INSERT INTO mark (kind, job, id, event_id, expires_us) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET expires_us = excluded.expires_us WHERE mark.expires_us <= ?
"""

_REMOVE_EXPIRED_MARKS = """
    DELETE FROM mark WHERE (kind, job, id, event_id) IN (
      SELECT kind, job, id, event_id FROM mark WHERE expires_us <= ? ORDER BY expires_us LIMIT ?
    )
"""

_NEXT_EXPIRED_MARK = "SELECT min(expires_us) FROM mark"

_ADD_LETTER = """
    INSERT INTO dead_letter (kind, job, id, reason, at_us, expires_us, revision, state, record)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_LETTERS = """
    SELECT number, kind, job, id, reason, at_us, expires_us, revision, state, record FROM dead_letter
    WHERE number > ? ORDER BY number LIMIT ?
"""

_REMOVE_LETTER = "DELETE FROM dead_letter WHERE number = ?"

_REMOVE_EXPIRED_LETTERS = """
    DELETE FROM dead_letter WHERE number IN (
      SELECT number FROM dead_letter WHERE expires_us <= ? ORDER BY expires_us LIMIT ?
    )
"""

_NEXT_EXPIRED_LETTER = "SELECT min(expires_us) FROM dead_letter"

_ADD_EVENT = "INSERT INTO outbox (event_id, body) VALUES (?, ?)"

_PENDING = "SELECT body FROM outbox ORDER BY seq LIMIT ?"

_REMOVE_EVENT = "DELETE FROM outbox WHERE event_id = ?"

_DROP_OLDEST = "DELETE FROM outbox WHERE seq <= (SELECT max(seq) FROM outbox) - ?"
