"""What only a SQLite file can tell: the library's version, whether the file is whole, and its latest time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

import attrs

from durable_effect import Effect
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Instance, Key, from_micros
from durable_effect_jobs.storage.sqlite_file import FileToRead

__all__ = ["SqliteHealth", "examine", "version"]

_MOST_DAMAGES = 100
_RECEIPTS_LAST = timedelta(hours=1)

version = sqlite3.sqlite_version_info
"""Of the library that this Python has; a host may have another one."""


@attrs.frozen(kw_only=True)
class SqliteHealth:
    """A look at the file beside the storage port."""

    damages: tuple[str, ...]
    """What SQLite's own check found, up to 100 lines."""
    unreadable: tuple[str, ...]
    """Instances whose record is not what durable-effect writes, up to 100."""
    latest: datetime | None
    """The latest time at which anything was written, by the clock that wrote it."""


def examine(url: str, *, deep: bool, lease: timedelta) -> Effect[SqliteHealth, StorageError]:
    """Read the whole file; with ``deep`` every index against its table as well."""
    path = Path(unquote(urlsplit(url).path.removeprefix("/")))
    return Effect.attempt(lambda: _examine(path, deep, lease), catch=_translated)


def _translated(error: Exception) -> StorageError:
    return error if isinstance(error, StorageError) else StorageError("check the file", error)


def _examine(path: Path, deep: bool, lease: timedelta) -> SqliteHealth:
    with closing(FileToRead(path).connect()) as connection:
        damages = tuple(_damages(connection, deep))
        if damages:
            return SqliteHealth(damages=damages, unreadable=(), latest=None)
        unreadable = tuple(islice(_unreadable(connection), _MOST_DAMAGES))
        return SqliteHealth(damages=(), unreadable=unreadable, latest=_latest(connection, lease))


def _unreadable(connection: sqlite3.Connection) -> Iterator[str]:
    for kind, job, its_id, record in connection.execute("SELECT kind, job, id, record FROM instance"):
        key = Key(kind, job, its_id)
        try:
            Instance.from_bytes(key, 1, None, record)
        except Exception as error:
            yield f"{key.instance_id}: {type(error).__name__}: {error}"


def _damages(connection: sqlite3.Connection, deep: bool) -> Iterator[str]:
    check = "integrity_check" if deep else "quick_check"
    try:
        lines = [str(line) for (line,) in connection.execute(f"PRAGMA {check}({_MOST_DAMAGES})")]
    except sqlite3.DatabaseError as error:
        lines = [str(error)]
    return (line for line in lines if line != "ok")


def _latest(connection: sqlite3.Connection, lease: timedelta) -> datetime | None:
    known = (
        (_LATEST_OF_OUTBOX, timedelta()),
        (_LATEST_LETTER, timedelta()),
        (_LATEST_RECEIPT, _RECEIPTS_LAST),
        (_LATEST_LEASE, lease),
    )
    found = [
        from_micros(micros) - after
        for statement, after in known
        for (micros,) in connection.execute(statement)
        if micros is not None
    ]
    (token,) = connection.execute(_LATEST_COMMIT).fetchone()
    committed = None if token is None else _time_of(token)
    return max((*found, *([] if committed is None else [committed])), default=None)


def _time_of(token: str) -> datetime | None:
    """The tokens of commits are UUIDs of version 7, which begin with milliseconds since the epoch."""
    try:
        token_id = UUID(hex=token)
    except ValueError:
        return None
    return from_micros((token_id.int >> 80) * 1000) if token_id.version == 7 else None


_LATEST_COMMIT = "SELECT max(token) FROM instance WHERE length(token) = 32 AND substr(token, 13, 1) = '7'"
_LATEST_OF_OUTBOX = "SELECT max(at_us) FROM outbox"
_LATEST_LETTER = "SELECT max(at_us) FROM dead_letter"
_LATEST_RECEIPT = "SELECT max(expires_us) FROM receipt"
_LATEST_LEASE = "SELECT max(lease_until_us) FROM instance"
