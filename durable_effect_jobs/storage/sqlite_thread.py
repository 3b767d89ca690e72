"""The one thread that owns the one connection of a SQLite storage, and its group commit.

Whatever waits when the thread looks shares one transaction:

    take all that waits  ->  BEGIN, each write in a SAVEPOINT, COMMIT  ->  the reads  ->  answer all

A write that fails for a reason of its own (its record changed, its mark is known) is undone alone. When
the database itself fails, nothing of the batch is acknowledged: every write in it fails with
``StorageError``, the connection is thrown away (after a failed fsync it must not be used again) and a
new one is opened for the next batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from durable_effect import Effect
from durable_effect_jobs.errors import StorageError

__all__ = ["Contents", "DatabaseThread", "OpenDatabase"]

A = TypeVar("A")
E = TypeVar("E")

_log = logging.getLogger("durable_effect_jobs.storage")

_MAX_BATCH = 512

# What is wrong with one statement or its values, not with the database.
_ITS_OWN_FAULT = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)

Answer: TypeAlias = "Effect[Any, Any]"
Resume: TypeAlias = Callable[[Answer], None]
Call: TypeAlias = Callable[[sqlite3.Connection], Any]


class OpenDatabase(Protocol):
    """Where connections come from. Both methods are called on the thread."""

    def connect(self) -> sqlite3.Connection:
        """A new connection, ready for use."""
        ...

    def release(self) -> None:
        """The last connection is closed."""
        ...


class Contents(Protocol):
    """What lives in the database, and wants to know of batches. All methods are called on the thread."""

    def reopened(self) -> None:
        """A batch failed in a way that leaves open what is stored: what was remembered may be wrong."""
        ...

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """The batch's last words, in its transaction."""
        ...

    def after_commit(self) -> None:
        """What :meth:`before_commit` did is durable."""
        ...


class _Operation:
    """A call that waits for the thread, and whom to tell."""

    __slots__ = ("call", "loop", "name", "resume", "then")

    def __init__(self, name: str, call: Call, then: Callable[[], None] | None, resume: Resume) -> None:
        self.name = name
        self.call = call
        self.then = then
        """For writes: runs on the thread once the write is durable, before its caller hears of it."""
        self.resume = resume
        self.loop = asyncio.get_running_loop()


class _Write(_Operation):
    __slots__ = ()


Outcome: TypeAlias = tuple[_Operation, Answer]


class DatabaseThread:
    """Runs reads and writes on a database, in batches.

    ``transactions`` counts the write transactions that were committed.
    """

    __slots__ = ("_closed", "_connection", "_contents", "_database", "_door", "_open", "_queue", "_thread", "transactions")
