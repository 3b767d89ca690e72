"""Instances in one SQLite file, for one process: the storage to begin with, and for most to stay with.

All writes go through one connection on one thread (:mod:`.sqlite_thread`); a commit is acknowledged when
the transaction that it shares with other waiting commits is on the disk. As no other process writes to
the file (:mod:`.sqlite_file`), the records that were committed last are remembered, and a step on one of
them needs no read. For the same reason all leases that are found at opening belong to the dead, and end.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from durable_effect import Clock, Effect, Need
from durable_effect.scope import Scope
from durable_effect_jobs.errors import DuplicateEventError, Kind, StorageError
from durable_effect_jobs.events import Event, event_from_bytes, event_to_bytes
from durable_effect_jobs.instance import (
    Claim,
    Claimed,
    Commit,
    DeadLetter,
    Due,
    Instance,
    Key,
    Lease,
    Mark,
    from_micros,
    to_micros,
)
from durable_effect_jobs.storage import Conflict, JobName, Survey
from durable_effect_jobs.storage.sqlite_file import (
    MEMORY,
    Connector,
    DatabaseFile,
    FileToRead,
    MemoryDatabase,
    Synchronous,
    connect_sqlite,
)
from durable_effect_jobs.storage.sqlite_survey import survey
from durable_effect_jobs.storage.sqlite_thread import Database, DatabaseThread

__all__ = ["SqliteStorage"]

A = TypeVar("A")

_log = logging.getLogger("durable_effect_jobs.storage")

_EXPIRED_PER_BATCH = 100
# Larger states are read again: the cache stays small whatever users store.
_REMEMBERED_STATE_BYTES = 16_384
_WARN_EVERY = 1000
_PAGE = 1000
_RECEIPT_US = 3_600_000_000

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
        queue_limit: int = 100_000,
        read_only: bool = False,
        connector: Connector = connect_sqlite,
    ) -> Effect[SqliteStorage, StorageError, Need[Scope]]:
        """Open the file, make it if it is not there, and close it with the scope.

        ``synchronous="full"`` keeps every acknowledged commit through a loss of power; ``"normal"`` may
        lose the last ones then (not when only the process dies), and is faster for single callers.
        ``cache_size`` is the number of records that are remembered, ``outbox_limit`` the number of events
        that may wait to be sent: beyond it the oldest are dropped with a warning. ``queue_limit`` is the
        number of calls that may wait for the disk: further ones fail at once. ``":memory:"`` is a database
        without a file. ``read_only=True`` looks at a file that another process may have open: it is not
        made, and writes fail. ``connector`` makes the connections.

        Runs that were in progress when the process before this one ended are due at once.

        Fails with ``StorageError`` when the file is open already (one process at a time; for many use
        PostgreSQL), is not ours, or was written by a newer version; it is then left as it is.
        """
        if synchronous not in ("full", "normal"):
            raise ValueError(f'synchronous is "full" or "normal", not {synchronous!r}')
        if cache_size < 0 or outbox_limit < 1 or queue_limit < 1:
            raise ValueError("cache_size must be at least 0, outbox_limit and queue_limit at least 1")

        def open_database() -> Database:
            if os.fspath(path) == MEMORY:
                return MemoryDatabase(connector)
            if read_only:
                return FileToRead(path, connector=connector)
            return DatabaseFile(path, synchronous, connector=connector)

        def acquire(now: datetime) -> Effect[SqliteStorage, StorageError]:
            # What another process writes is seen only if nothing is remembered.
            contents = _Contents(0 if read_only else cache_size, outbox_limit)
            storage = SqliteStorage(DatabaseThread(open_database, contents, queue_limit), contents)
            start = storage._thread.start()
            return (start if read_only else start.and_then(storage._take_over(now))).as_(storage)

        return Effect.acquire_release(Clock.now().flat_map(acquire), lambda storage: storage._close())

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

    def commit(self, commit: Commit) -> Effect[int, StorageError | Conflict | DuplicateEventError]:
        def write() -> Effect[int, StorageError | Conflict | DuplicateEventError]:
            rows = _Rows(commit)  # encoded here, while the thread waits for the disk
            return self._thread.write(
                "commit",
                lambda connection: self._contents.commit(connection, commit, rows),
                then=lambda fence: self._contents.committed(commit, rows, fence),
            )

        return Effect.suspend(write)

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        row = (*_columns(key), event_id, to_micros(now))
        return self._thread.read(
            "is_marked", lambda connection: connection.execute(_IS_MARKED, row).fetchone() is not None
        )

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        return self._thread.write(
            "claim", lambda connection: self._contents.claim(connection, claim), then=self._contents.claimed
        )

    def renew(
        self, owner: str, held: Collection[tuple[Key, int]], until: datetime
    ) -> Effect[frozenset[Key], StorageError]:
        until_us = to_micros(until)
        return self._thread.write(
            "renew",
            lambda connection: frozenset(
                key
                for key, fence in held
                if connection.execute(_RENEW, (until_us, *_columns(key), owner, fence)).rowcount == 1
            ),
            then=self._contents.drop,
        )

    def release(self, owner: str, keys: Collection[Key] | None = None) -> Effect[None, StorageError]:
        return self._thread.write(
            "release",
            lambda connection: self._contents.release(connection, owner, keys),
            then=self._contents.drop,
        ).as_(None)

    def _take_over(self, now: datetime) -> Effect[None, StorageError]:
        """Whoever held a lease is gone: this process alone has the file open."""
        now_us = to_micros(now)

        def cut(connection: sqlite3.Connection) -> None:
            connection.execute(_CUT_LEASES, (now_us, now_us))

        return self._thread.write("open", cut).on_error(lambda _: self._close())

    # -- wake-ups ----------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[list[Due], StorageError]:
        names, now_us = frozenset(jobs), to_micros(now)
        return self._thread.read("due", lambda connection: _due(connection, now_us, limit, names))

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, StorageError]:
        names, after_us = frozenset(jobs), _BEFORE_ALL if after is None else to_micros(after)
        return self._thread.read("next_due", lambda connection: _next_due(connection, names, after_us))

    # -- listing -----------------------------------------------------------------------------------

    def survey(self, now: datetime, *, lease: timedelta) -> Effect[Survey, StorageError]:
        return self._thread.read("survey", lambda connection: survey(connection, now, lease))

    def jobs(self) -> Effect[dict[JobName, int], StorageError]:
        return self._thread.read("jobs", _jobs)

    def instances(
        self, *, job: JobName | None = None, after: Key | None = None, limit: int = 100
    ) -> Effect[list[Instance], StorageError]:
        return self._thread.read(
            "instances", lambda connection: self._contents.instances(connection, job, after, limit)
        )

    def dead_letters(self, *, after: int = 0, limit: int = 100) -> Effect[list[DeadLetter], StorageError]:
        return self._thread.read(
            "dead_letters", lambda connection: self._contents.letters(connection, after, limit)
        )

    def remove_dead_letter(self, number: int) -> Effect[bool, StorageError]:
        return self._thread.write(
            "remove_dead_letter",
            lambda connection: connection.execute(_REMOVE_LETTER, (number,)).rowcount > 0,
        )

    # -- outbox ------------------------------------------------------------------------------------

    def pending_events(self, limit: int) -> Effect[list[Event], StorageError]:
        return self._thread.read(
            "pending_events", lambda connection: self._contents.pending(connection, limit)
        )

    def events_sent(self, event_ids: Collection[str]) -> Effect[None, StorageError]:
        rows = [(event_id,) for event_id in event_ids]

        def remove(connection: sqlite3.Connection) -> None:
            connection.executemany(_REMOVE_EVENT, rows)

        return self._thread.write("events_sent", remove)

    def _close(self) -> Effect[None]:
        return self._thread.close().ensuring(Effect.sync(self._contents.forget))


class _Rows:
    """The stored form of a commit, and whether it was written now, and not before."""

    __slots__ = ("after", "events", "letter", "written")

    def __init__(self, commit: Commit) -> None:
        self.after = None if commit.after is None else _instance_row(commit.after, commit.token)
        self.events = [
            (event.event_id, to_micros(event.timestamp), event_to_bytes(event)) for event in commit.events
        ]
        self.letter = None if commit.dead_letter is None else _letter_row(commit.dead_letter)
        self.written = False


class _Contents:
    """What is in the database, and what is remembered of it.

    Only the thread changes anything here; callers look at ``remembered`` and at the counter.
    """

    __slots__ = (
        "_cache_size",
        "_commits",
        "_dropping",
        "_expire_us",
        "_fence",
        "_gave_fences",
        "_latest_us",
        "_outbox_grew",
        "_outbox_limit",
        "_reported",
        "dropped_events",
        "remembered",
    )

    def __init__(self, cache_size: int, outbox_limit: int) -> None:
        self._cache_size = cache_size
        self._outbox_limit = outbox_limit
        self.remembered: dict[Key, Instance | None] = {}
        """The records that were committed or read last; ``None`` for a key that has no record."""
        self.dropped_events = 0
        self._reported: set[str] = set()
        self._expire_us: dict[_Expiring, int] = {}
        self._fence: int | None = None
        self._latest_us = _LONG_AGO - 1
        self.forget()

    def load(self, connection: sqlite3.Connection, key: Key) -> Instance | None:
        instance = _load(connection, key)
        self.remember(key, instance)
        return instance

    # -- commits ------------------------------------------------------------------------------------

    def commit(self, connection: sqlite3.Connection, commit: Commit, rows: _Rows) -> int:
        updates = commit.before is not None and commit.after is not None
        if not updates and self._is_spent(connection, commit.token):
            return 0
        fence = self._fence_after(connection, commit)
        if not _replace(connection, commit, rows.after, fence):
            if commit.after is None:
                raise Conflict(commit.key)
            return self._answered(connection, commit)
        self._add_parts(connection, commit, rows)
        rows.written = True
        return fence

    def committed(self, commit: Commit, rows: _Rows, fence: int) -> None:
        """The commit is durable: the record as it was written is the one to remember."""
        after = commit.after
        if not rows.written:
            self.drop((commit.key,))
        elif after is None or after.fence == fence:
            self.remember(commit.key, after)
        else:
            self.remember(commit.key, after.replace(fence=fence))

    def _answered(self, connection: sqlite3.Connection, commit: Commit) -> int:
        """What a commit was answered that was written before. Raises ``Conflict`` when it was not."""
        row = connection.execute(_ANSWERED, (*_columns(commit.key), commit.token)).fetchone()
        if row is not None:
            return int(row[0])
        if self._is_spent(connection, commit.token):
            return 0
        raise Conflict(commit.key)

    def _is_spent(self, connection: sqlite3.Connection, token: str) -> bool:
        """Whether this was the write that removed a record, or the last one before that."""
        if self._expire_us["receipt"] == _NEVER:
            return False
        return connection.execute(_HAS_RECEIPT, (token,)).fetchone() is not None

    def _add_parts(self, connection: sqlite3.Connection, commit: Commit, rows: _Rows) -> None:
        at_us = to_micros(commit.at)
        if commit.after is None:
            self._expires("receipt", at_us + _RECEIPT_US)
        if commit.mark is not None:
            self._mark(connection, commit.key, commit.mark, at_us)
        if commit.dead_letter is not None and rows.letter is not None:
            connection.execute(_ADD_LETTER, rows.letter)
            self._expires("dead_letter", to_micros(commit.dead_letter.expires_at))
        if commit.replays is not None and not connection.execute(_REMOVE_LETTER, (commit.replays,)).rowcount:
            raise Conflict(commit.key)
        if rows.events:
            connection.executemany(_ADD_EVENT, rows.events)
            self._outbox_grew = True
        self._commits += 1
        self._latest_us = max(self._latest_us, at_us)

    def _mark(self, connection: sqlite3.Connection, key: Key, mark: Mark, at_us: int) -> None:
        expires_us = to_micros(mark.expires_at)
        if connection.execute(_ADD_MARK, (*_columns(key), mark.event_id, expires_us, at_us)).rowcount == 0:
            raise DuplicateEventError(mark.event_id)
        self._expires("mark", expires_us)

    # -- runs ---------------------------------------------------------------------------------------

    def claim(self, connection: sqlite3.Connection, claim: Claim) -> Claimed | None:
        key = claim.key
        row = connection.execute(_IS_CLAIMABLE, (*_columns(key), to_micros(claim.now))).fetchone()
        if row is None:
            return None
        former_owner = row[3]
        recovered = former_owner is not None and former_owner != claim.owner
        taken = attrs.evolve(
            self._as_stored(connection, key, row),
            lease=Lease(claim.owner, claim.until),
            fence=self._next_fence(connection),
            crashes=row[4] + recovered,
        )
        values = claim.owner, to_micros(claim.until), taken.fence, taken.crashes
        connection.execute(_CLAIM, (*values, *_columns(key)))
        return Claimed(taken, recovered)

    def claimed(self, claimed: Claimed | None) -> None:
        """The claim is durable."""
        if claimed is not None:
            self.remember(claimed.instance.key, claimed.instance)

    def release(self, connection: sqlite3.Connection, owner: str, keys: Collection[Key] | None) -> list[Key]:
        if keys is None:
            keys = [Key(*row) for row in connection.execute(_LEASED_BY, (owner,)).fetchall()]
        for key in keys:
            connection.execute(_RELEASE, (self._next_fence(connection), *_columns(key), owner))
        return list(keys)

    def _as_stored(self, connection: sqlite3.Connection, key: Key, row: tuple[Any, ...]) -> Instance:
        """The record, read only if it is not the remembered one. Within a batch that may be an older one."""
        known = self.remembered.get(key)
        if known is not None and (known.incarnation, known.revision, known.fence) == row[:3]:
            return known
        return _instance(key, connection.execute(_LOAD, _columns(key)).fetchone())

    # -- listing ------------------------------------------------------------------------------------

    def instances(
        self, connection: sqlite3.Connection, job: JobName | None, after: Key | None, limit: int
    ) -> list[Instance]:
        behind = ("", "", "") if after is None else _columns(after)
        if job is not None and job < behind[:2]:
            return []

        def page(last: tuple[Any, ...] | None, limit: int) -> list[Any]:
            begin = behind if last is None else last[:3]
            if job is None:
                return connection.execute(_INSTANCES, (*begin, limit)).fetchall()
            return connection.execute(
                _INSTANCES_OF, (*job, begin[2] if job == begin[:2] else "", limit)
            ).fetchall()

        return self._readable(
            "instance", page, lambda row: _instance(Key(row[0], row[1], row[2]), row[3:]), limit
        )

    def letters(self, connection: sqlite3.Connection, after: int, limit: int) -> list[DeadLetter]:
        def page(last: tuple[Any, ...] | None, limit: int) -> list[Any]:
            return connection.execute(_LETTERS, (after if last is None else last[0], limit)).fetchall()

        return self._readable("dead letter", page, _letter, limit)

    def pending(self, connection: sqlite3.Connection, limit: int) -> list[Event]:
        def page(last: tuple[Any, ...] | None, limit: int) -> list[Any]:
            return connection.execute(_PENDING, (0 if last is None else last[0], limit)).fetchall()

        return self._readable("event", page, lambda row: event_from_bytes(row[1]), limit)

    def _readable(
        self,
        what: str,
        page: Callable[[tuple[Any, ...] | None, int], list[Any]],
        read: Callable[[tuple[Any, ...]], A],
        limit: int,
    ) -> list[A]:
        """The first ``limit`` rows that can be read. Damaged ones hide no others: each is reported once."""
        found: list[A] = []
        last: tuple[Any, ...] | None = None
        while len(found) < limit:
            asked = min(limit - len(found), _PAGE)
            rows = page(last, asked)
            for row in rows:
                try:
                    found.append(read(row))
                except Exception as error:
                    self._report(what, row, error)
            if len(rows) < asked:
                break
            last = rows[-1]
        return found

    def _report(self, what: str, row: tuple[Any, ...], error: Exception) -> None:
        name = f"{what} {':'.join(row[:3]) if what == 'instance' else row[0]}"
        if name not in self._reported and len(self._reported) < _WARN_EVERY:
            self._reported.add(name)
            _log.error("%s is damaged, and left out: %s", name, error)

    # -- fences -------------------------------------------------------------------------------------

    def _fence_after(self, connection: sqlite3.Connection, commit: Commit) -> int:
        if commit.after is None:
            return 0
        if commit.after.lease is not None:
            return self._next_fence(connection)
        return 0 if commit.before is None else commit.before.fence

    def _next_fence(self, connection: sqlite3.Connection) -> int:
        """Greater than all before. Stored once with the batch, so none is answered that could come again."""
        if self._fence is None:
            self._fence = int(connection.execute(_LAST_FENCE).fetchone()[0])
        self._fence += 1
        self._gave_fences = True
        return self._fence

    # -- the cache ----------------------------------------------------------------------------------

    def remember(self, key: Key, instance: Instance | None) -> None:
        """Keep the record for the next step on it, in place of the one that was kept longest ago."""
        remembered = self.remembered
        remembered.pop(key, None)
        if instance is None or instance.state is None or len(instance.state) <= _REMEMBERED_STATE_BYTES:
            remembered[key] = instance
        if len(remembered) > self._cache_size:
            del remembered[next(iter(remembered))]

    def drop(self, keys: Collection[Key]) -> None:
        """Read these again when they are asked for."""
        for key in keys:
            self.remembered.pop(key, None)

    # -- batches ------------------------------------------------------------------------------------

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """Store the last fence; remove what expired, and what the outbox has no room for."""
        if self._gave_fences:
            connection.execute(_STORE_FENCE, (self._fence,))
        limit = max(_EXPIRED_PER_BATCH, 2 * self._commits)  # more than could have been added
        for table, (remove, earliest) in _EXPIRY.items():
            if self._expire_us[table] <= self._latest_us:
                connection.execute(remove, (self._latest_us, limit))
                (expires_us,) = connection.execute(earliest).fetchone()
                self._expire_us[table] = _NEVER if expires_us is None else int(expires_us)
        if self._outbox_grew:
            self._dropping = connection.execute(_DROP_OLDEST, (self._outbox_limit,)).rowcount

    def after_commit(self) -> None:
        if self._dropping > 0:
            self._count_dropped(self._dropping)
        self._begin_batch()

    def forget(self) -> None:
        """Expect anything of the database."""
        self.remembered.clear()
        self._expire_us = dict.fromkeys(_EXPIRY, _LONG_AGO)
        self._fence = None
        self._begin_batch()

    def _begin_batch(self) -> None:
        self._commits = 0
        self._latest_us = _LONG_AGO - 1
        self._gave_fences = False
        self._outbox_grew = False
        self._dropping = 0

    def _expires(self, table: _Expiring, expires_us: int) -> None:
        self._expire_us[table] = min(self._expire_us[table], expires_us)

    def _count_dropped(self, number: int) -> None:
        before = self.dropped_events
        self.dropped_events += number
        if before == 0 or before // _WARN_EVERY != self.dropped_events // _WARN_EVERY:
            _log.warning(
                "the outbox is full (%d events): %d of the oldest were dropped so far",
                self._outbox_limit,
                self.dropped_events,
            )


def _replace(connection: sqlite3.Connection, commit: Commit, after: _Row | None, fence: int) -> bool:
    """Write the record if the stored one still is ``before``; whether it was."""
    key, before = _columns(commit.key), commit.before
    if after is None:
        _leave_receipts(connection, commit)
        if before is None:
            return connection.execute(_EXISTS, key).fetchone() is None
        still = *key, before.incarnation, before.revision, before.fence
        return connection.execute(_DELETE, still).rowcount == 1
    if before is None:
        return connection.execute(_INSERT, (*key, fence, fence, *after)).rowcount == 1
    still = *key, before.incarnation, before.revision, before.fence
    return connection.execute(_UPDATE, (fence, fence, *after, *still, commit.token)).rowcount == 1


def _leave_receipts(connection: sqlite3.Connection, commit: Commit) -> None:
    """For the removal, and for the last write before it: were that sent again, the record would be back."""
    expires_us = to_micros(commit.at) + _RECEIPT_US
    connection.execute(_ADD_RECEIPT, (commit.token, expires_us))
    connection.execute(_ADD_RECEIPT_OF_RECORD, (expires_us, *_columns(commit.key)))


def _load(connection: sqlite3.Connection, key: Key) -> Instance | None:
    row = connection.execute(_LOAD, _columns(key)).fetchone()
    return None if row is None else _instance(key, row)


def _due(connection: sqlite3.Connection, now_us: int, limit: int, jobs: frozenset[JobName]) -> list[Due]:
    """Each job has its own range of the index, so that jobs nobody asked for cost nothing."""
    found: list[tuple[int, Kind, str, str, int]] = [
        (wake_us, kind, job, its_id, crashes)
        for kind, job in jobs
        for wake_us, its_id, crashes in connection.execute(_DUE, (kind, job, now_us, limit))
    ]
    return [
        Due(Key(kind, job, its_id), crashes > 0) for _, kind, job, its_id, crashes in sorted(found)[:limit]
    ]


def _next_due(connection: sqlite3.Connection, jobs: frozenset[JobName], after_us: int) -> datetime | None:
    times = [connection.execute(_NEXT_DUE, (*job, after_us)).fetchone()[0] for job in jobs]
    return min((from_micros(wake_us) for wake_us in times if wake_us is not None), default=None)


def _jobs(connection: sqlite3.Connection) -> dict[JobName, int]:
    return {(kind, job): count for kind, job, count in connection.execute(_JOBS)}


# -- rows ------------------------------------------------------------------------------------------

_Row: TypeAlias = tuple[str, int, str, str | None, int | None, int, bool, int | None, bytes, bytes | None]


def _columns(key: Key) -> tuple[Kind, str, str]:
    return key.kind, key.job, key.id


def _instance_row(instance: Instance, token: str) -> _Row:
    lease = instance.lease
    return (
        instance.incarnation,
        instance.revision,
        token,
        None if lease is None else lease.owner,
        None if lease is None else to_micros(lease.until),
        instance.crashes,
        instance.quarantined,
        None if instance.alarm is None else to_micros(instance.alarm.at),
        instance.to_bytes(),
        instance.state,
    )


def _instance(key: Key, row: tuple[Any, ...]) -> Instance:
    revision, fence, lease_owner, lease_until_us, crashes, quarantined, state, record = row
    return Instance.from_bytes(
        key,
        revision,
        state,
        record,
        fence=fence,
        lease=None
        if lease_owner is None or lease_until_us is None
        else Lease(lease_owner, from_micros(lease_until_us)),
        crashes=crashes,
        quarantined=bool(quarantined),
    )


def _letter_row(letter: DeadLetter) -> tuple[object, ...]:
    instance = letter.instance
    times = to_micros(letter.at), to_micros(letter.expires_at)
    stored = instance.revision, instance.state, instance.to_bytes()
    return *_columns(instance.key), letter.reason, *times, *stored


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    number, kind, job, its_id, reason, at_us, expires_us, revision, state, record = row
    return DeadLetter(
        instance=Instance.from_bytes(Key(kind, job, its_id), revision, state, record),
        reason=reason,
        at=from_micros(at_us),
        expires_at=from_micros(expires_us),
        number=number,
    )


# -- statements ------------------------------------------------------------------------------------

_LOAD = """
    SELECT revision, fence, lease_owner, lease_until_us, crashes, quarantined, state, record
    FROM instance WHERE kind = ? AND job = ? AND id = ?
"""

_EXISTS = "SELECT 1 FROM instance WHERE kind = ? AND job = ? AND id = ?"

_INSERT = """
    INSERT INTO instance (
      kind, job, id, fence, answered, incarnation, revision, token,
      lease_owner, lease_until_us, crashes, quarantined, alarm_us, record, state
    )
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""

_UPDATE = """
    UPDATE instance SET
      fence = ?, answered = ?, incarnation = ?, revision = ?, token = ?,
      lease_owner = ?, lease_until_us = ?, crashes = ?, quarantined = ?, alarm_us = ?, record = ?, state = ?
    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ? AND fence = ?
      AND token IS NOT ?
"""

_DELETE = """
    DELETE FROM instance
    WHERE kind = ? AND job = ? AND id = ? AND incarnation = ? AND revision = ? AND fence = ?
"""

_ANSWERED = "SELECT answered FROM instance WHERE kind = ? AND job = ? AND id = ? AND token = ?"

_ADD_RECEIPT = "INSERT INTO receipt (token, expires_us) VALUES (?, ?)"

_ADD_RECEIPT_OF_RECORD = """
    INSERT INTO receipt (token, expires_us)
    SELECT token, ? FROM instance WHERE kind = ? AND job = ? AND id = ? AND token IS NOT NULL
    ON CONFLICT DO NOTHING
"""

_HAS_RECEIPT = "SELECT 1 FROM receipt WHERE token = ?"

_LAST_FENCE = "SELECT value FROM counter WHERE name = 'fence'"

_STORE_FENCE = "UPDATE counter SET value = ? WHERE name = 'fence'"

# The + keeps SQLite to the key: there is one row to look at.
_IS_CLAIMABLE = """
    SELECT incarnation, revision, fence, lease_owner, crashes FROM instance
    WHERE kind = ? AND job = ? AND id = ? AND +wake_us <= ?
"""

_CLAIM = """
    UPDATE instance SET lease_owner = ?, lease_until_us = ?, fence = ?, crashes = ?
    WHERE kind = ? AND job = ? AND id = ?
"""

_RENEW = """
    UPDATE instance SET lease_until_us = ?
    WHERE kind = ? AND job = ? AND id = ? AND +lease_owner = ? AND fence = ?
"""

_RELEASE = """
    UPDATE instance SET lease_owner = NULL, lease_until_us = NULL, fence = ?
    WHERE kind = ? AND job = ? AND id = ? AND +lease_owner = ?
"""

_LEASED_BY = "SELECT kind, job, id FROM instance WHERE lease_owner = ?"

_CUT_LEASES = """
    UPDATE instance SET lease_until_us = ? WHERE lease_owner IS NOT NULL AND lease_until_us > ?
"""

_DUE = """
    SELECT wake_us, id, crashes FROM instance
    WHERE kind = ? AND job = ? AND wake_us <= ?
    ORDER BY wake_us, id LIMIT ?
"""

_NEXT_DUE = "SELECT min(wake_us) FROM instance WHERE kind = ? AND job = ? AND wake_us > ?"
_BEFORE_ALL = -(1 << 63)

_JOBS = "SELECT kind, job, count(*) FROM instance GROUP BY kind, job"

_INSTANCES = """
    SELECT kind, job, id, revision, fence, lease_owner, lease_until_us, crashes, quarantined, state, record
    FROM instance
    WHERE (kind, job, id) > (?, ?, ?)
    ORDER BY kind, job, id LIMIT ?
"""

_INSTANCES_OF = """
    SELECT kind, job, id, revision, fence, lease_owner, lease_until_us, crashes, quarantined, state, record
    FROM instance
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

_ADD_LETTER = """
    INSERT INTO dead_letter (kind, job, id, reason, at_us, expires_us, revision, state, record)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_LETTERS = """
    SELECT number, kind, job, id, reason, at_us, expires_us, revision, state, record FROM dead_letter
    WHERE number > ? ORDER BY number LIMIT ?
"""

_REMOVE_LETTER = "DELETE FROM dead_letter WHERE number = ?"

_Expiring: TypeAlias = Literal["mark", "dead_letter", "receipt"]

# By table: how a bounded number of expired rows is removed, and when the next one expires.
_EXPIRY: dict[_Expiring, tuple[str, str]] = {
    "mark": (
        """
        DELETE FROM mark WHERE (kind, job, id, event_id) IN (
          SELECT kind, job, id, event_id FROM mark WHERE expires_us <= ? ORDER BY expires_us LIMIT ?
        )
        """,
        "SELECT min(expires_us) FROM mark",
    ),
    "dead_letter": (
        """
        DELETE FROM dead_letter WHERE (number) IN (
          SELECT number FROM dead_letter WHERE expires_us <= ? ORDER BY expires_us LIMIT ?
        )
        """,
        "SELECT min(expires_us) FROM dead_letter",
    ),
    "receipt": (
        """
        DELETE FROM receipt WHERE (token) IN (
          SELECT token FROM receipt WHERE expires_us <= ? ORDER BY expires_us LIMIT ?
        )
        """,
        "SELECT min(expires_us) FROM receipt",
    ),
}

_ADD_EVENT = "INSERT INTO outbox (event_id, at_us, body) VALUES (?, ?, ?)"

_PENDING = "SELECT seq, body FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?"

_REMOVE_EVENT = "DELETE FROM outbox WHERE event_id = ?"

_DROP_OLDEST = "DELETE FROM outbox WHERE seq <= (SELECT max(seq) FROM outbox) - ?"
