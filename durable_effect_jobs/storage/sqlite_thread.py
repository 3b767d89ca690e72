"""The one thread that owns the one connection of a SQLite storage, and its group commit.

Whatever waits when the thread looks shares one transaction:

    take all that waits  ->  BEGIN, each write in a SAVEPOINT, COMMIT  ->  the reads  ->  answer all

A write that fails for a reason of its own (its record changed, its mark is known) is undone alone. When
the database itself fails, nothing of the batch is acknowledged: every write in it fails with
``StorageError``, the connection is thrown away (after a failed fsync it must not be used again) and the
next call opens a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

from durable_effect import Effect, TypedError
from durable_effect.edge import AskThread, Caller, answer_all
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.storage import Closed

__all__ = ["Contents", "Database", "DatabaseThread"]

A = TypeVar("A")

_log = logging.getLogger("durable_effect_jobs.storage")

_MAX_BATCH = 512

# What is wrong with one statement or its values, and not with the database.
_ITS_OWN_FAULT = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
)

Call: TypeAlias = Callable[[sqlite3.Connection], Any]


class Database(Protocol):
    """Where connections come from. Both methods are called on the thread."""

    def connect(self) -> sqlite3.Connection:
        """A new connection, ready for use."""
        ...

    def release(self) -> None:
        """The last connection is closed, and there will be no other."""
        ...


class Contents(Protocol):
    """What is stored, as far as it has to know of batches. All methods are called on the thread."""

    def before_commit(self, connection: sqlite3.Connection) -> None:
        """The last words of a batch, in its transaction."""
        ...

    def after_commit(self) -> None:
        """The batch is durable."""
        ...

    def forget(self) -> None:
        """A batch failed, perhaps in its very COMMIT: what is remembered of the database may be wrong."""
        ...


class _Operation:
    """A call that waits for the thread, later with its outcome; and who waits for it."""

    __slots__ = ("call", "caller", "error", "name", "then", "value", "writes")

    def __init__(
        self, caller: Caller, name: str, call: Call, writes: bool, then: Callable[[Any], None] | None
    ) -> None:
        self.caller = caller
        self.name = name
        self.call = call
        self.writes = writes
        self.then = then
        self.value: Any = None
        self.error: TypedError | None = None

    def fail(self, error: Exception) -> None:
        cause = error.cause if isinstance(error, StorageError) else error
        self.error = StorageError(self.name, cause)

    def outcome(self) -> Effect[Any, Any]:
        return Effect.succeed(self.value) if self.error is None else Effect.fail(self.error)


class DatabaseThread:
    """Runs calls on a database, in batches. ``transactions`` counts the write transactions that committed.

    At most ``queue_limit`` calls wait for it; further ones fail at once.

    The thread is a daemon and knows nothing of the storage that uses it: a storage that is dropped
    without being closed keeps neither the process alive nor, once it is collected, the file locked.
    """

    __slots__ = (
        "_closing",
        "_connection",
        "_contents",
        "_database",
        "_door",
        "_finished",
        "_open",
        "_queue",
        "_queue_limit",
        "_thread",
        "transactions",
    )

    def __init__(
        self, open_database: Callable[[], Database], contents: Contents, queue_limit: int = 100_000
    ) -> None:
        self._open = open_database
        self._contents = contents
        self._queue: SimpleQueue[_Operation | None] = SimpleQueue()
        self._queue_limit = queue_limit
        self._door = threading.Lock()
        self._closing = False
        self._finished = False
        self._database: Database | None = None
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="durable-effect-sqlite", daemon=True)
        self.transactions = 0

    # -- what callers do -----------------------------------------------------------------------------

    def start(self) -> Effect[None, StorageError]:
        """Open the database. When that fails the thread ends, and is of no further use."""

        def begin() -> Effect[None, StorageError]:
            self._thread.start()
            return self.read("open", _nothing).on_error(lambda _: self.close())

        return Effect.suspend(begin)

    def read(self, name: str, call: Callable[[sqlite3.Connection], A]) -> Effect[A, StorageError]:
        """Run a call that only reads. It sees every write that was acknowledged before."""
        return self._ask(name, call, writes=False, then=None)

    def write(
        self, name: str, call: Callable[[sqlite3.Connection], A], then: Callable[[A], None] | None = None
    ) -> Effect[A, Any]:
        """Run a call in a transaction; succeeds when that is durable.

        A ``TypedError`` that the call raises is its own failure, and undoes it alone. ``then`` runs on the
        thread with the call's answer once the write is durable, before its caller hears of it. A write that
        was begun is not interrupted: its caller learns its fate first.
        """
        return self._ask(name, call, writes=True, then=then).uninterruptible()

    def close(self) -> Effect[None]:
        """Do what waits, close the database, and end the thread."""

        async def end() -> None:
            self.stop()
            await asyncio.to_thread(self._thread.join)

        return Effect.from_async(end)

    def stop(self) -> None:
        """Begin to close, without waiting for it."""
        with self._door:
            if not self._closing:
                self._closing = True
                self._queue.put(None)

    def _ask(
        self, name: str, call: Call, *, writes: bool, then: Callable[[Any], None] | None
    ) -> Effect[Any, Any]:
        def ask(caller: Caller) -> Effect[Any, Any] | None:
            refusal = self._enqueue(_Operation(caller, name, call, writes, then))
            return None if refusal is None else Effect.fail(StorageError(name, refusal))

        return AskThread(ask)

    def _enqueue(self, operation: _Operation) -> Closed | str | None:
        """Let it wait for the thread, or say why not."""
        if self._queue.qsize() >= self._queue_limit:
            return f"{self._queue_limit} calls wait for the storage already"
        with self._door:  # nothing may be put behind the end: nobody would answer it
            if self._closing:
                return Closed()
            self._queue.put(operation)
            return None

    # -- what the thread does ------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._finished:
            self._serve(self._take())  # and while the thread waits, it holds nothing of what it served
        self._disconnect()
        if self._database is not None:
            self._database.release()

    def _serve(self, batch: list[_Operation]) -> None:
        self._write([operation for operation in batch if operation.writes])
        self._read([operation for operation in batch if not operation.writes])
        answer_all([(operation.caller, operation.outcome()) for operation in batch])

    def _take(self) -> list[_Operation]:
        """Wait for an operation, and take along what else is there."""
        batch: list[_Operation] = []
        operation = self._queue.get()
        while operation is not None:
            batch.append(operation)
            if len(batch) == _MAX_BATCH:
                return batch
            try:
                operation = self._queue.get_nowait()
            except Empty:
                return batch
        self._finished = True
        return batch

    def _write(self, batch: list[_Operation]) -> None:
        if not batch:
            return
        try:
            self._transact(self._connected(), batch)
        except Exception as error:
            _log.warning("a batch of %d writes failed: %s", len(batch), error)
            self._give_up_connection()
            for operation in batch:
                operation.fail(error)
            return
        self.transactions += 1
        self._contents.after_commit()
        for operation in batch:
            if operation.then is not None and operation.error is None:
                operation.then(operation.value)

    def _transact(self, connection: sqlite3.Connection, batch: list[_Operation]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for operation in batch:
            self._attempt(connection, operation)
        self._contents.before_commit(connection)
        connection.execute("COMMIT")

    def _attempt(self, connection: sqlite3.Connection, operation: _Operation) -> None:
        connection.execute("SAVEPOINT operation")
        try:
            operation.value = operation.call(connection)
        except TypedError as refused:
            operation.error = refused
        except Exception as error:
            if _is_the_databases_fault(error):
                raise
            operation.fail(error)
        if operation.error is not None:
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")

    def _read(self, batch: list[_Operation]) -> None:
        for operation in batch:
            try:
                operation.value = operation.call(self._connected())
            except Exception as error:
                operation.fail(error)
                if _is_the_databases_fault(error):
                    self._give_up_connection()

    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = self._open()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _give_up_connection(self) -> None:
        self._disconnect()
        self._contents.forget()

    def _disconnect(self) -> None:
        """Closing rolls back what is open, and moves the log into the file when all is well."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _is_the_databases_fault(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return not isinstance(error, _ITS_OWN_FAULT)
    return isinstance(error, MemoryError)  # how SQLite's own lack of memory is told


def _nothing(_: sqlite3.Connection) -> None:
    return None
