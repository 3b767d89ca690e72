"""An apsw connection in the shape of the standard library's, as far as the SQLite storage uses it.

apsw lets Python stand between SQLite and the disk, which the standard library does not. With this class
under it the storage runs unchanged on a disk that is watched or that fails.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import apsw

__all__ = ["SYSTEM", "ApswConnection", "connector"]

SYSTEM = apsw.vfs_names()[0]
"""The VFS that is there without us."""

_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI

_ERRORS: tuple[tuple[type[Exception], type[Exception]], ...] = (
    (apsw.ConstraintError, sqlite3.IntegrityError),
    (apsw.TooBigError, sqlite3.DataError),
    (apsw.MismatchError, sqlite3.IntegrityError),
    (apsw.BindingsError, sqlite3.ProgrammingError),
    (apsw.ConnectionClosedError, sqlite3.ProgrammingError),
    (apsw.NoMemError, MemoryError),
    (apsw.CorruptError, sqlite3.DatabaseError),
    (apsw.NotADBError, sqlite3.DatabaseError),
    (apsw.Error, sqlite3.OperationalError),
)


class ApswConnection:
    """A connection that begins and ends its transactions explicitly, on a VFS of its own."""

    __slots__ = ("_connection",)

    def __init__(self, uri: str, vfs: str, settings: Sequence[str] = ()) -> None:
        with _translated():
            self._connection = apsw.Connection(uri, flags=_FLAGS, vfs=vfs)
            try:
                for setting in settings:
                    self._connection.execute(setting)
            except BaseException:
                self._connection.close(True)
                raise

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> _Cursor:
        """Run one statement, as far as its first row."""
        with _translated():
            return _Cursor(self._connection, self._connection.execute(statement, values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> _Cursor:
        """Run one statement for each row of values."""
        with _translated():
            return _Cursor(self._connection, self._connection.executemany(statement, rows))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    def close(self) -> None:
        """Close it, whatever it is doing."""
        with _translated():
            self._connection.close(True)


def connector(vfs: str, *settings: str) -> Callable[[str], sqlite3.Connection]:
    """What opens a storage's connections on this VFS, and begins each with these statements."""
    return lambda uri: cast("sqlite3.Connection", ApswConnection(uri, vfs, settings))


class _Cursor:
    """The rows that are left of a statement."""

    __slots__ = ("_connection", "_cursor")

    def __init__(self, connection: apsw.Connection, cursor: apsw.Cursor) -> None:
        self._connection = connection
        self._cursor = cursor

    def fetchone(self) -> Any:
        """The next row, or ``None``."""
        with _translated():
            return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        with _translated():
            return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        with _translated():
            yield from self._cursor

    @property
    def rowcount(self) -> int:
        """How many rows the statement that ran last on the connection has changed."""
        return self._connection.changes()


@contextlib.contextmanager
def _translated() -> Generator[None]:
    try:
        yield
    except apsw.Error as error:
        for ours, theirs in _ERRORS:
            if isinstance(error, ours):
                raise theirs(str(error)) from error
        raise
