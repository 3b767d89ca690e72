"""DatabaseThread: group commit, what fails alone and what fails together, and how it ends."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_effect import Effect, TypedError
from durable_effect.exit import Exit, Failure, Success
from durable_effect_jobs.errors import DuplicateEventError, StorageError
from durable_effect_jobs.storage import Closed
from durable_effect_jobs.storage.sqlite_thread import DatabaseThread

QUEUE_LIMIT = 2_000


class Numbers:
    """A database with a table of numbers, and a record of what the thread tells its contents."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections = 0
        self.released = False
        self.told: list[str] = []

    def connect(self) -> sqlite3.Connection:
        self.connections += 1
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("CREATE TABLE IF NOT EXISTS parent (n INTEGER PRIMARY KEY)")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS number (n INTEGER PRIMARY KEY, of INTEGER"
            " REFERENCES parent (n) DEFERRABLE INITIALLY DEFERRED, padding BLOB)"
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def release(self) -> None:
        self.released = True

    def before_commit(self, connection: sqlite3.Connection) -> None:
        self.told.append("before")

    def after_commit(self) -> None:
        self.told.append("after")

    def forget(self) -> None:
        self.told.append("forget")


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    """A new database."""
    return Numbers(tmp_path / "numbers.db")


def add(n: int, of: int | None = None) -> Callable[[sqlite3.Connection], int]:
    """A call that adds a number."""

    def call(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO number (n, of) VALUES (?, ?)", (n, of))
        return n

    return call


def then_refuse(
    call: Callable[[sqlite3.Connection], Any], error: Exception
) -> Callable[[sqlite3.Connection], Any]:
    """A call that fails after it has written."""

    def refuse(connection: sqlite3.Connection) -> None:
        call(connection)
        raise error

    return refuse


def fill_the_disk(connection: sqlite3.Connection) -> None:
    """Write more than the file may hold: SQLite's own error of a full disk."""
    connection.execute("PRAGMA max_page_count = 10")
    connection.execute("INSERT INTO number (n, padding) VALUES (-1, zeroblob(1000000))")


def stored(connection: sqlite3.Connection) -> list[int]:
    """The numbers that are stored."""
    return [n for (n,) in connection.execute("SELECT n FROM number ORDER BY n")]


def on_thread(numbers: Numbers, use: Callable[[DatabaseThread], Awaitable[None]]) -> DatabaseThread:
    """Start a thread, use it, and close it."""

    async def main() -> DatabaseThread:
        thread = DatabaseThread(lambda: numbers, numbers, QUEUE_LIMIT)
        await thread.start()
        try:
            await use(thread)
        finally:
            await thread.close()
        return thread

    return asyncio.run(main())


async def in_one_batch(thread: DatabaseThread, *effects: Effect[Any, Any]) -> list[Exit[Any, Any]]:
    """Hold the thread until all of these wait for it."""
    release, holding = await held(thread)
    answers = [started(effect.exit()) for effect in effects]
    await waiting(thread, len(effects))
    release.set()
    await holding
    return [await answer for answer in answers]


async def held(thread: DatabaseThread) -> tuple[threading.Event, asyncio.Future[Any]]:
    """Keep the thread busy until the event is set."""
    begun, release = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        release.wait(timeout=10)  # only a failing test waits so long

    holding = started(thread.read("hold", hold))
    await asyncio.to_thread(begun.wait)
    return release, holding


async def waiting(thread: DatabaseThread, number: int) -> None:
    """Go on when this many calls wait for the thread."""
    while thread._queue.qsize() < number:
        await _turn()


def started(effect: Effect[Any, Any]) -> asyncio.Future[Any]:
    """Run an effect beside the others."""
    return asyncio.ensure_future(_awaited(effect))


async def _turn() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


def test_what_waits_shares_a_transaction(numbers: Numbers) -> None:
    """Three hundred writes that wait are one transaction, and each gets its own answer."""

    async def use(thread: DatabaseThread) -> None:
        exits = await in_one_batch(thread, *(thread.write("add", add(n)) for n in range(300)))
        assert exits == [Success(n) for n in range(300)]
        assert thread.transactions == 1
        assert await thread.read("stored", stored) == list(range(300))

    on_thread(numbers, use)
    assert numbers.told == ["before", "after"]


def test_a_batch_is_bounded(numbers: Numbers) -> None:
    """However much waits, a transaction takes at most 512 writes."""

    async def use(thread: DatabaseThread) -> None:
        await in_one_batch(thread, *(thread.write("add", add(n)) for n in range(1200)))
        assert thread.transactions == 3

    on_thread(numbers, use)


def test_the_queue_is_bounded(numbers: Numbers) -> None:
    """What finds the queue full fails at once; what waits is served, and then there is room again."""

    async def use(thread: DatabaseThread) -> None:
        release, holding = await held(thread)
        writes = [started(thread.write("add", add(n))) for n in range(QUEUE_LIMIT)]
        await waiting(thread, QUEUE_LIMIT)
        for refused in (thread.write("add", add(-1)), thread.read("stored", stored)):
            error = await refused.flip()
            assert str(error.cause) == f"{QUEUE_LIMIT} calls wait for the storage already"
        release.set()
        await holding
        assert [await write for write in writes] == list(range(QUEUE_LIMIT))
        assert await thread.read("stored", stored) == list(range(QUEUE_LIMIT))

    on_thread(numbers, use)


@pytest.mark.parametrize(
    "error",
    [DuplicateEventError("e"), ValueError("no"), sqlite3.IntegrityError("twice"), OverflowError("big")],
)
def test_a_write_that_fails_is_undone_alone(numbers: Numbers, error: Exception) -> None:
    """Its neighbours in the transaction are stored; a foreign exception is translated."""
    failing = then_refuse(add(2), error)
    expected = error if isinstance(error, TypedError) else StorageError("add", error)

    async def use(thread: DatabaseThread) -> None:
        calls = [add(1), failing, add(3), add(1), add(4)]
        exits = await in_one_batch(thread, *(thread.write("add", call) for call in calls))
        assert [type(one) for one in exits] == [Success, Failure, Success, Failure, Success]
        assert exits[1].cause.squash() == expected
        assert thread.transactions == 1
        assert await thread.read("stored", stored) == [1, 3, 4]

    on_thread(numbers, use)
    assert numbers.connections == 1


def test_a_full_disk_fails_the_batch_and_service_resumes(numbers: Numbers) -> None:
    """No write of the batch is acknowledged or stored; reads beside it and later writes are served."""

    async def use(thread: DatabaseThread) -> None:
        exits = await in_one_batch(
            thread,
            thread.write("add", add(1)),
            thread.write("fill", fill_the_disk),
            thread.write("add", add(2)),
            thread.read("stored", stored),
        )
        errors = [one.cause.squash() for one in exits[:3]]
        assert [error.operation for error in errors] == ["add", "fill", "add"]
        assert all("full" in str(error.cause) for error in errors)
        assert exits[3] == Success([])
        await thread.write("add", add(3))
        assert await thread.read("stored", stored) == [3]

    assert on_thread(numbers, use).transactions == 1
    assert numbers.connections == 2
    assert numbers.told == ["forget", "before", "after"]


def test_a_commit_that_fails_acknowledges_nothing(numbers: Numbers) -> None:
    """When COMMIT itself fails, every write of the batch fails with it and none is stored."""
    happened: list[int] = []

    async def use(thread: DatabaseThread) -> None:
        exits = await in_one_batch(
            thread,
            thread.write("add", add(1), then=lambda _: happened.append(1)),
            thread.write("add", add(2, of=99), then=lambda _: happened.append(2)),
        )
        assert [type(one.cause.squash()) for one in exits] == [StorageError, StorageError]
        assert happened == []
        assert await thread.read("stored", stored) == []

    assert on_thread(numbers, use).transactions == 0


def test_a_connection_that_cannot_be_opened_again_is_tried_again(numbers: Numbers) -> None:
    """While the file is away calls fail with what they wanted to do; when it is back they succeed."""
    away = numbers.path.with_name("away")

    async def use(thread: DatabaseThread) -> None:
        await thread.write("add", add(1))
        await thread.write("fill", fill_the_disk).exit()
        numbers.path.rename(away)
        numbers.path.mkdir()
        for effect in (thread.write("add", add(2)), thread.read("stored", stored)):
            error = await effect.flip()
            assert isinstance(error, StorageError)
            assert isinstance(error.cause, sqlite3.OperationalError)
        numbers.path.rmdir()
        away.rename(numbers.path)
        await thread.write("add", add(2))
        assert await thread.read("stored", stored) == [1, 2]

    on_thread(numbers, use)


def test_a_read_that_finds_the_database_broken_gets_a_new_connection(numbers: Numbers) -> None:
    """The connection is not used again after an error that is not the statement's own."""

    async def use(thread: DatabaseThread) -> None:
        error = await thread.read(
            "look", lambda connection: connection.execute("SELECT * FROM nowhere")
        ).flip()
        assert isinstance(error, StorageError)
        assert "nowhere" in str(error)
        error = await thread.read("look", lambda connection: connection.execute("SELECT ?")).flip()
        assert isinstance(error, StorageError)
        assert await thread.read("stored", stored) == []

    on_thread(numbers, use)
    assert numbers.connections == 2
    assert numbers.told == ["forget"]


def test_what_follows_a_write_comes_before_its_answer(numbers: Numbers) -> None:
    """``then`` runs once the write is durable, and only for writes that succeeded."""
    order: list[int] = []

    async def use(thread: DatabaseThread) -> None:
        await in_one_batch(
            thread,
            thread.write("add", add(1), then=lambda _: order.append(1)),
            thread.write("add", add(1), then=lambda _: order.append(2)),
            thread.write("add", add(3), then=lambda _: order.append(3)),
        )
        assert order == [1, 3]

    on_thread(numbers, use)


def test_an_interrupted_write_is_waited_for(numbers: Numbers) -> None:
    """Interrupting a write ends when its fate is known, where a read ends at once: here it is stored."""

    async def use(thread: DatabaseThread) -> None:
        release, holding = await held(thread)
        write = started(thread.write("add", add(1)))
        await waiting(thread, 1)
        read = started(thread.read("stored", stored))
        await waiting(thread, 2)
        write.cancel()
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        assert not write.done()
        release.set()
        await holding
        with pytest.raises(asyncio.CancelledError):
            await write
        assert await thread.read("stored", stored) == [1]

    on_thread(numbers, use)


def test_an_interrupted_read_is_not_waited_for(numbers: Numbers) -> None:
    """Interrupting a read ends at once; its answer is dropped when it comes."""

    async def use(thread: DatabaseThread) -> None:
        release, holding = await held(thread)
        read = started(thread.read("stored", stored))
        await waiting(thread, 1)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        release.set()
        await holding
        assert await thread.read("stored", stored) == []

    on_thread(numbers, use)


def test_closing_does_what_waits(numbers: Numbers) -> None:
    """Calls that were made before the end are answered; calls after it fail at once."""

    async def use(thread: DatabaseThread) -> None:
        release, holding = await held(thread)
        writes = [started(thread.write("add", add(n))) for n in range(5)]
        await waiting(thread, 5)
        closing = started(thread.close())
        await waiting(thread, 6)
        late = await thread.write("add", add(9)).flip()
        assert late.operation == "add"
        assert isinstance(late.cause, Closed)
        release.set()
        await holding
        assert [await write for write in writes] == [0, 1, 2, 3, 4]
        await closing

    on_thread(numbers, use)
    assert numbers.released
    connection = sqlite3.connect(numbers.path)
    assert stored(connection) == [0, 1, 2, 3, 4]
    connection.close()


def test_answers_find_their_own_loop(numbers: Numbers) -> None:
    """Callers may be on several loops and threads; one whose loop is gone does no harm."""

    async def use(thread: DatabaseThread) -> None:
        def elsewhere(n: int) -> int:
            return asyncio.run(_awaited(thread.write("add", add(n))))

        async def leave() -> None:
            asyncio.ensure_future(_awaited(thread.write("add", add(100))))  # noqa: RUF006 - left behind on purpose
            await _turn()

        def desert() -> None:
            asyncio.run(leave())

        await asyncio.to_thread(desert)
        answers = await asyncio.gather(*[asyncio.to_thread(elsewhere, n) for n in range(8)])
        assert answers == list(range(8))

    on_thread(numbers, use)


async def _awaited(effect: Effect[Any, Any]) -> Any:
    return await effect
