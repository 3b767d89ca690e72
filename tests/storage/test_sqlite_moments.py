"""What others see of a write before, while and after it becomes durable, and when its fate is unknown."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from storage_scene import DAY, NOON, SECOND, USER, birth, born, change, fact, letter, on_file, task

from durable_effect import Do, Effect
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Claim, Lease, Mark
from durable_effect_jobs.storage.open import open_storage
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.storage.sqlite_file import connect_sqlite


def together(storage: SqliteStorage, effects: list[Effect[Any, Any]]) -> Effect[list[Any], Any]:
    """Run these in one batch, in this order: the thread is kept busy until all of them wait for it."""

    async def main() -> list[Any]:
        begun, release = threading.Event(), threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            begun.set()
            release.wait(timeout=10)  # only a failing test waits so long

        holding = asyncio.ensure_future(storage._thread.read("hold", hold).run_async())
        await asyncio.to_thread(begun.wait)
        answers: list[asyncio.Future[Any]] = []
        for effect in effects:
            answers.append(asyncio.ensure_future(effect.fold(lambda error: error, lambda a: a).run_async()))
            while storage._thread._queue.qsize() < len(answers):
                await asyncio.to_thread(lambda: None)
        release.set()
        await holding
        return [await answer for answer in answers]

    return Effect.from_async(main)


class LosesAnswers:
    """Makes connections whose COMMIT does its work and then fails, while ``lose`` is set."""

    def __init__(self) -> None:
        self.lose = False
        self.made = 0

    def __call__(self, uri: str) -> Any:
        self.made += 1
        return LosingConnection(connect_sqlite(uri), self)


class LosingConnection:
    """Of the standard library, except for that."""

    def __init__(self, connection: sqlite3.Connection, by: LosesAnswers) -> None:
        self._connection = connection
        self._by = by

    def __getattr__(self, name: str) -> Any:
        """All else is the connection's own."""
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        done = self._connection.execute(statement, *values)
        if statement == "COMMIT" and self._by.lose:
            raise sqlite3.OperationalError("disk I/O error")
        return done


def test_a_write_whose_answer_was_lost_is_read_as_it_is(tmp_path: Path) -> None:
    """After a COMMIT that failed nothing is taken from memory, and the same write sent again succeeds."""
    connector = LosesAnswers()

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        after = attrs.evolve(born().evolve(state=b"[2]"), lease=Lease("one", NOON))
        step = change(born(), after, events=(fact("e"),), mark=Mark("m", NOON + DAY))
        made, transactions = connector.made, storage.transactions
        connector.lose = True
        assert isinstance((yield from storage.commit(step).flip()), StorageError)
        connector.lose = False
        assert storage.transactions == transactions
        stored = attrs.evolve(after, fence=1)
        assert (yield from storage.load(USER)) == stored
        assert connector.made == made + 1
        assert (yield from storage.commit(step)) == 1
        assert (yield from storage.load(USER)) == stored
        assert [event.event_id for event in (yield from storage.pending_events(9))] == ["e"]
        claim = Claim(USER, "two", NOON, NOON + SECOND)
        claimed = yield from storage.claim(claim)
        assert claimed is not None
        assert claimed.instance.fence > 1

    on_file(tmp_path / "jobs.db", story, connector=connector)


def test_a_lost_removal_is_known_when_it_is_sent_again(tmp_path: Path) -> None:
    """Its receipt answers, whatever became of the id meanwhile."""
    connector = LosesAnswers()

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        removal = change(born(), None, dead_letter=letter(born()))
        connector.lose = True
        assert isinstance((yield from storage.commit(removal).flip()), StorageError)
        connector.lose = False
        assert (yield from storage.load(USER)) is None
        next_life = attrs.evolve(born(), incarnation="second")
        yield from storage.commit(birth(next_life))
        assert (yield from storage.commit(removal)) == 0
        assert (yield from storage.load(USER)) == next_life
        assert len((yield from storage.dead_letters())) == 1

    on_file(tmp_path / "jobs.db", story, connector=connector)


def test_nobody_sees_a_write_before_it_is_durable(tmp_path: Path) -> None:
    """While the transaction that it is in goes on, reads give what was before it."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        seen: list[Any] = []

        def look(_: sqlite3.Connection) -> None:
            seen.append(storage.load(USER).run_sync())

        step = change(born(), born().evolve(state=b"[2]"))
        claim = Claim(task("x"), "one", NOON, NOON + DAY)
        yield from storage.commit(birth(born(task("x"), NOON)))

        def look_at_the_claimed(_: sqlite3.Connection) -> None:
            seen.append(storage.load(task("x")).run_sync())

        yield from together(
            storage,
            [
                storage.commit(step),
                storage.claim(claim),
                storage._thread.write("look", look),
                storage._thread.write("look", look_at_the_claimed),
            ],
        )
        assert seen == [born(), born(task("x"), NOON)]
        assert (yield from storage.load(USER)) == step.after

    on_file(tmp_path / "jobs.db", story)


def test_a_claim_in_the_transaction_of_a_commit_takes_what_that_wrote(tmp_path: Path) -> None:
    """What is remembered is older than the transaction: the run gets the record that is in it."""
    before = born(USER, NOON)
    after = before.evolve(state=b"[2]")

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(before))
        transactions = storage.transactions
        claim = storage.claim(Claim(USER, "one", NOON, NOON + DAY))
        _, claimed = yield from together(storage, [storage.commit(change(before, after)), claim])
        assert storage.transactions == transactions + 1
        taken = attrs.evolve(after, fence=1, lease=Lease("one", NOON + DAY))
        assert claimed.instance == taken
        assert (yield from storage.load(USER)) == taken

    on_file(tmp_path / "jobs.db", story)


def test_a_step_on_what_was_renewed_and_released_in_its_transaction(tmp_path: Path) -> None:
    """Each write in a transaction sees those before it; what is remembered in the end is the last."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        held = attrs.evolve(born(USER, NOON), lease=Lease("one", NOON + SECOND))
        fence = yield from storage.commit(birth(held))
        stored = attrs.evolve(held, fence=fence)
        late = change(stored, stored.evolve())
        kept, _, refused = yield from together(
            storage,
            [
                storage.renew("one", [(USER, fence)], NOON + DAY),
                storage.release("one", [USER]),
                storage.commit(late),
            ],
        )
        assert kept == {USER}
        assert type(refused).__name__ == "Conflict"
        left = yield from storage.load(USER)
        assert left is not None
        assert left.lease is None
        assert left.fence > fence
        assert left.revision == stored.revision

    on_file(tmp_path / "jobs.db", story)


def test_a_transaction_keeps_other_writers_out_from_its_beginning(tmp_path: Path) -> None:
    """Between a look and the write that follows from it nobody else writes, not even a tool beside us."""
    path = tmp_path / "jobs.db"

    def look_and_meddle(connection: sqlite3.Connection) -> tuple[str, int]:
        connection.execute("SELECT count(*) FROM instance").fetchone()
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            try:
                said = f"{other.execute('DELETE FROM outbox').rowcount} deleted"
            except sqlite3.OperationalError as error:
                said = str(error)
        return said, connection.execute("DELETE FROM outbox").rowcount

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[tuple[str, int], Any]:
        yield from storage.commit(birth(born(), events=(fact("e"),)))
        return (yield from storage._thread.write("look", look_and_meddle))

    assert on_file(path, story) == ("database is locked", 1)


def test_half_a_lease_cannot_be_stored(tmp_path: Path) -> None:
    """Whoever writes to the file: a record has an owner and an end of its lease, or neither."""

    def spoil(what: str) -> Callable[[sqlite3.Connection], object]:
        return lambda connection: connection.execute(f"UPDATE instance SET {what}")

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        for what in ("lease_owner = 'one'", "lease_until_us = 5"):
            refused = yield from storage._thread.write("spoil", spoil(what)).flip()
            assert isinstance(refused.cause, sqlite3.IntegrityError)
        assert (yield from storage.load(USER)) == born()

    on_file(tmp_path / "jobs.db", story)


def level(connection: sqlite3.Connection) -> int:
    """How much is waited for."""
    return int(connection.execute("PRAGMA synchronous").fetchone()[0])


@pytest.mark.parametrize(
    ("open", "expected"),
    [
        (lambda path: SqliteStorage.open(path), 2),
        (lambda path: SqliteStorage.open(path, synchronous="full"), 2),
        (lambda path: SqliteStorage.open(path, synchronous="normal"), 1),
        (lambda path: open_storage(f"sqlite:///{path}"), 2),
    ],
    ids=["unasked", "full", "normal", "by its URL"],
)
def test_a_commit_waits_for_the_disk_unless_it_is_told_not_to(
    open: Callable[[Path], Effect[Any, Any, Any]], expected: int, tmp_path: Path
) -> None:
    """By default ``synchronous`` is FULL, and a new connection after a failure has the same."""

    @Effect.gen
    def story(storage: Any) -> Do[list[int], Any]:
        first = yield from storage._thread.read("level", level)

        def fail(_: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        yield from storage._thread.write("fail", fail).flip()
        return [first, (yield from storage._thread.read("level", level))]

    assert open(tmp_path / "jobs.db").flat_map(story).scoped().run() == [expected] * 2
