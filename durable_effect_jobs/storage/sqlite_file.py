"""The file under :class:`~durable_effect_jobs.storage.sqlite.SqliteStorage`: whose it is, and its schema.

Opening asks three questions, in this order: is the file ours, or not there yet (only its first bytes are
read, so that a file of somebody else stays as it is); does another process have it open (``<path>.lock``);
is its schema older than ours (then it is migrated in one transaction). A new database is made under
another name and moved into place when it is complete, so a crash leaves all of it or nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal, TypeAlias

from durable_effect_jobs.errors import StorageError

__all__ = [
    "MEMORY",
    "MIGRATIONS",
    "Connector",
    "DatabaseFile",
    "FileToRead",
    "MemoryDatabase",
    "Migrations",
    "Synchronous",
    "connect_sqlite",
]

Synchronous: TypeAlias = Literal["full", "normal"]
"""What a commit survives: ``full`` the loss of power, ``normal`` only that of the process."""

Migrations: TypeAlias = tuple[tuple[str, ...], ...]
"""The statements that lead from each schema version to the next; each ends by setting its own version."""

Connector: TypeAlias = Callable[[str], sqlite3.Connection]
"""From a ``file:`` URI to a connection that begins no transaction by itself.

Of the connection only ``execute``, ``executemany``, ``in_transaction`` and ``close`` are used, of its
cursors ``fetchone``, ``fetchall``, iteration and ``rowcount``; its errors are those of ``sqlite3``.
"""


def connect_sqlite(uri: str) -> sqlite3.Connection:
    """A connection of the standard library."""
    return sqlite3.connect(uri, uri=True, isolation_level=None)


MEMORY = ":memory:"

_APPLICATION_ID = 0x44454A42  # "DEJB"
_MAGIC = b"SQLite format 3\0"
_OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables

MIGRATIONS: Migrations = (
    (
        """
        CREATE TABLE instance (
          kind TEXT NOT NULL,
          job TEXT NOT NULL,
          id TEXT NOT NULL,
          incarnation TEXT NOT NULL,
          revision INTEGER NOT NULL,
          alarm_us INTEGER,
          record BLOB NOT NULL,
          state BLOB,
          PRIMARY KEY (kind, job, id)
        ) STRICT
        """,
        # By job, so that the overdue alarms of jobs that are registered no more cost the others nothing.
        """
        CREATE INDEX instance_alarm ON instance (kind, job, alarm_us, id) WHERE alarm_us IS NOT NULL
        """,
        # No foreign key: marks outlive their instance.
        """
        CREATE TABLE mark (
          kind TEXT NOT NULL,
          job TEXT NOT NULL,
          id TEXT NOT NULL,
          event_id TEXT NOT NULL,
          expires_us INTEGER NOT NULL,
          PRIMARY KEY (kind, job, id, event_id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX mark_expiry ON mark (expires_us)",
        """
        CREATE TABLE outbox (
          seq INTEGER PRIMARY KEY AUTOINCREMENT,
          event_id TEXT NOT NULL UNIQUE,
          body BLOB NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE dead_letter (
          number INTEGER PRIMARY KEY AUTOINCREMENT,
          kind TEXT NOT NULL,
          job TEXT NOT NULL,
          id TEXT NOT NULL,
          reason TEXT NOT NULL,
          at_us INTEGER NOT NULL,
          expires_us INTEGER NOT NULL,
          revision INTEGER NOT NULL,
          record BLOB NOT NULL,
          state BLOB
        ) STRICT
        """,
        "CREATE INDEX dead_letter_expiry ON dead_letter (expires_us)",
        "PRAGMA application_id = 0x44454A42",
        "PRAGMA user_version = 1",
    ),
    (
        # Made anew and not altered: what is looked at often has to stand before the large columns.
        "DROP INDEX instance_alarm",
        "ALTER TABLE instance RENAME TO instance_1",
        """
        CREATE TABLE instance (
          kind TEXT NOT NULL,
          job TEXT NOT NULL,
          id TEXT NOT NULL,
          incarnation TEXT NOT NULL,
          revision INTEGER NOT NULL,
          token TEXT,
          answered INTEGER NOT NULL DEFAULT 0,
          fence INTEGER NOT NULL DEFAULT 0,
          lease_owner TEXT,
          lease_until_us INTEGER,
          crashes INTEGER NOT NULL DEFAULT 0,
          quarantined INTEGER NOT NULL DEFAULT 0,
          alarm_us INTEGER,
          wake_us INTEGER GENERATED ALWAYS AS (
            CASE WHEN quarantined THEN NULL WHEN lease_owner IS NOT NULL THEN lease_until_us ELSE alarm_us END
          ) VIRTUAL,
          record BLOB NOT NULL,
          state BLOB,
          PRIMARY KEY (kind, job, id),
          CHECK ((lease_owner IS NULL) = (lease_until_us IS NULL))
        ) STRICT
        """,
        """
        INSERT INTO instance (kind, job, id, incarnation, revision, alarm_us, record, state)
        SELECT kind, job, id, incarnation, revision, alarm_us, record, state FROM instance_1
        """,
        "DROP TABLE instance_1",
        # By job, so that the overdue alarms of jobs that are registered no more cost the others nothing.
        """
        CREATE INDEX instance_wake ON instance (kind, job, wake_us, id) WHERE wake_us IS NOT NULL
        """,
        "CREATE INDEX instance_lease ON instance (lease_owner) WHERE lease_owner IS NOT NULL",
        "CREATE TABLE receipt (token TEXT PRIMARY KEY, expires_us INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE INDEX receipt_expiry ON receipt (expires_us)",
        "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO counter (name, value) VALUES ('fence', 0)",
        "ALTER TABLE outbox ADD COLUMN at_us INTEGER",
        """
        UPDATE outbox SET at_us = 1000 * CAST(round(
          86400000 * (julianday(json_extract(CAST(body AS TEXT), '$.timestamp')) - 2440587.5)
        ) AS INTEGER)
        """,
        "PRAGMA user_version = 2",
    ),
)

_SETTINGS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA journal_size_limit = 67108864",
)
_SYNCHRONOUS: dict[Synchronous, str] = {
    "full": "PRAGMA synchronous = FULL",
    "normal": "PRAGMA synchronous = NORMAL",
}


class _OpenHere:
    """The database files that this process has open, by device and inode.

    On POSIX, closing any descriptor of a file drops all the locks that the process holds on it, those of its
    SQLite connections as well. So a file that is open here is never opened by other means.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._files: Counter[tuple[int, int]] = Counter()

    def knows(self, path: Path) -> bool:
        with self._door, contextlib.suppress(OSError):
            return self._files[_identity(path)] > 0
        return False

    def add(self, path: Path) -> tuple[int, int]:
        with self._door:
            identity = _identity(path)
            self._files[identity] += 1
            return identity

    def remove(self, identity: tuple[int, int] | None) -> None:
        with self._door:
            if identity is not None:
                self._files[identity] -= 1


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


_open_here = _OpenHere()


def refusal(reason: str) -> StorageError:
    """The error of a storage that cannot be opened, and why."""
    return StorageError("open", reason)


class _OurFile:
    """A file that is a database of ours, or is not there yet."""

    __slots__ = ("_connector", "_identity", "_migrations", "_path")

    def __init__(self, path: str | os.PathLike[str], migrations: Migrations, connector: Connector) -> None:
        self._path = Path(os.path.realpath(path))
        self._migrations = migrations
        self._connector = connector
        self._identity: tuple[int, int] | None = None
        _require_strict_tables()

    def _enlist(self) -> None:
        self._identity = _open_here.add(self._path)

    def _delist(self) -> None:
        _open_here.remove(self._identity)
        self._identity = None

    def _is_new(self) -> bool:
        """Whether the file is yet to be made. Raises for one that is not ours; reads, and leaves no trace."""
        if _open_here.knows(self._path):  # then it is ours, and was looked at before
            return False
        header = self._header()
        if not header:
            self._refuse_stray_log()
            return True
        if not header.startswith(_MAGIC) or len(header) < 108:
            raise refusal(f"{self._path} is not a SQLite database")
        if int.from_bytes(header[68:72], "big") != _APPLICATION_ID:
            raise refusal(f"{self._path} is a database of another application")
        self._refuse_newer(int.from_bytes(header[60:64], "big"))
        return False

    def _header(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(108)
        except FileNotFoundError:
            self._refuse_missing_directory()
            return b""
        except OSError as error:
            raise StorageError("open", error) from error

    def _refuse_missing_directory(self) -> None:
        if not self._path.parent.is_dir():
            raise refusal(f"the directory {self._path.parent} does not exist: create it first")

    def _refuse_newer(self, version: int) -> None:
        if version > len(self._migrations):
            raise refusal(
                f"{self._path} was written by a newer durable-effect"
                f" (schema {version}, this one knows {len(self._migrations)}): upgrade durable-effect"
            )

    def _refuse_stray_log(self) -> None:
        """SQLite would play the log of a database that was deleted into the new one, and ruin it."""
        for suffix in ("-wal", "-journal"):
            log = Path(f"{self._path}{suffix}")
            if log.exists() and log.stat().st_size > 0:
                raise refusal(
                    f"{log} is there, but its database {self._path} is not: restore it, or remove both"
                )


class DatabaseFile(_OurFile):
    """A database file that this process alone has open, from construction until :meth:`release`."""

    __slots__ = ("_lock", "_synchronous")

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: Synchronous,
        migrations: Migrations = MIGRATIONS,
        connector: Connector = connect_sqlite,
    ) -> None:
        super().__init__(path, migrations, connector)
        self._synchronous: Synchronous = synchronous
        self._is_new()  # refuse before a lock file appears beside somebody else's file
        self._lock = _Lock(self._path)
        try:
            self._prepare()
        except BaseException:
            self.release()
            raise

    def connect(self) -> sqlite3.Connection:
        """A connection to the file, which has to be there."""
        return connect(self._path.as_uri() + "?mode=rw", self._synchronous, self._connector)

    def release(self) -> None:
        """Let others open the file. The lock file stays: removing it would race with its next owner."""
        self._delist()
        self._lock.release()

    def _prepare(self) -> None:
        if self._is_new():
            self._create()
        else:
            self._refuse_newer_log()
        self._enlist()
        with contextlib.closing(self.connect()) as connection:
            if _version(connection) < len(self._migrations):
                migrate(connection, self._migrations)

    def _refuse_newer_log(self) -> None:
        """A newer process may have died before its migration reached the file: its log has the version."""
        log = Path(f"{self._path}-wal")
        if not log.exists() or log.stat().st_size == 0:
            return
        with (
            _translated(),
            contextlib.closing(self._connector(self._path.as_uri() + "?mode=ro")) as connection,
        ):
            self._refuse_newer(_version(connection))

    # -- a new file ---------------------------------------------------------------------------------

    def _create(self) -> None:
        draft = Path(f"{self._path}.being-created")
        try:
            for leftover in (draft, Path(f"{draft}-journal")):
                leftover.unlink(missing_ok=True)
            with (
                _translated(),
                contextlib.closing(self._connector(draft.as_uri())) as connection,
            ):
                connection.execute("PRAGMA synchronous = FULL")
                migrate(connection, self._migrations)
            if self._path.exists():
                shutil.copymode(self._path, draft)
            draft.replace(self._path)
            _sync_directory(self._path.parent)
        except OSError as error:
            raise StorageError("open", error) from error


class FileToRead(_OurFile):
    """A database file to look at, whoever has it open: it is not made, locked or changed."""

    __slots__ = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        migrations: Migrations = MIGRATIONS,
        connector: Connector = connect_sqlite,
    ) -> None:
        super().__init__(path, migrations, connector)
        if self._is_new():
            raise refusal(f"there is no database {self._path}")
        self._enlist()

    def connect(self) -> sqlite3.Connection:
        """A connection that only reads. An older schema is refused: looking does not migrate it."""
        with _translated():
            connection = self._connector(self._path.as_uri() + "?mode=ro")
            try:
                self._refuse_newer(_version(connection))
                self._refuse_older(_version(connection))
                return connection
            except BaseException:
                connection.close()
                raise

    def release(self) -> None:
        """Nothing is held beside the connection."""
        self._delist()

    def _refuse_older(self, version: int) -> None:
        if version < len(self._migrations):
            raise refusal(
                f"{self._path} was written by an older durable-effect"
                f" (schema {version}, this one reads {len(self._migrations)}): host its jobs once"
            )


class MemoryDatabase:
    """A database that lives as long as its one connection."""

    __slots__ = ("_connector", "_gone")

    def __init__(self, connector: Connector = connect_sqlite) -> None:
        _require_strict_tables()
        self._connector = connector
        self._gone = False

    def connect(self) -> sqlite3.Connection:
        """The connection; a second one would be to another, empty database."""
        if self._gone:
            raise refusal("the database in memory was lost when its connection failed")
        self._gone = True
        connection = connect("file::memory:", "full", self._connector)
        migrate(connection, MIGRATIONS)
        return connection

    def release(self) -> None:
        """Nothing is held beside the connection."""


def connect(uri: str, synchronous: Synchronous, connector: Connector) -> sqlite3.Connection:
    """A connection with our settings; its transactions are begun and ended explicitly."""
    with _translated():
        connection = connector(uri)
        try:
            for setting in (*_SETTINGS, _SYNCHRONOUS[synchronous]):
                connection.execute(setting)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode not in ("wal", "memory"):
                raise refusal(f"a write-ahead log cannot be kept beside {uri}: use a local file system")
            return connection
        except BaseException:
            connection.close()
            raise


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Lead the schema to the newest version; when a step fails, nothing of it has happened."""
    with _translated():
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statements in migrations[_version(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite ends it itself after some errors
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _require_strict_tables() -> None:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise refusal(f"SQLite 3.37 or newer is needed; this Python has {sqlite3.sqlite_version}")


def _sync_directory(directory: Path) -> None:
    """Make a renaming survive the loss of power, where directories can be opened at all."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError("open", error) from error


class _Lock:
    """An exclusive lock on ``<path>.lock``. The system releases it when the process ends, however it ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        try:
            descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StorageError("open", error) from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise refusal(
                f"{path} is open already, here or in another process. One process at a time can use a SQLite"
                " file; for many processes use PostgreSQL"
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        _unlock(self._descriptor)
        os.close(self._descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        # Explicitly: a child process that was forked meanwhile holds the same lock through its copy.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
