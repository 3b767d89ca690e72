"""SqliteStorage: what it promises beyond the contract."""

import asyncio
import gc
import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from storage_scene import DAY, NOON, SECOND, USER, birth, born, change, fact, letter, on_file, task

from durable_effect import Clock, Do, Effect, provide_service
from durable_effect.clock import TestClock
from durable_effect.scope import Scope
from durable_effect.testing import TestRuntime
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.events import Failure
from durable_effect_jobs.instance import Alarm, Claim, Due, Instance, Key, Lease, Mark
from durable_effect_jobs.storage import JobName
from durable_effect_jobs.storage.sqlite import SqliteStorage

HOUR = timedelta(hours=1)


def test_what_was_committed_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    """Records, alarms, marks, events and dead letters outlive the process."""
    path = tmp_path / "jobs.db"
    user, other = born(USER, NOON), born(task("x"), NOON - SECOND)

    @Effect.gen
    def write(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(user, events=(fact("a"), fact("b")), mark=Mark("m", NOON + DAY)))
        yield from storage.commit(birth(other, dead_letter=letter(other)))

    @Effect.gen
    def read(storage: SqliteStorage) -> Do[None, Any]:
        assert (yield from storage.load(USER)) == user
        assert (yield from storage.instances()) == [user, other]
        due = yield from storage.due(NOON, 10, [("task", "t"), ("continuous", "counter")])
        assert due == [Due(task("x"), suspect=False), Due(USER, suspect=False)]
        assert (yield from storage.is_marked(USER, "m", NOON))
        assert [event.event_id for event in (yield from storage.pending_events(10))] == ["a", "b"]
        assert [dead.instance for dead in (yield from storage.dead_letters())] == [other]

    on_file(path, write)
    on_file(path, read)


def test_the_log_is_moved_into_the_file_at_the_end(tmp_path: Path) -> None:
    """After closing, the file alone has everything."""
    path = tmp_path / "jobs.db"
    on_file(path, lambda storage: storage.commit(birth(born())))
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    assert on_file(copy, lambda storage: storage.load(USER)) == born()


def test_a_step_on_a_remembered_record_reads_nothing(tmp_path: Path) -> None:
    """The last committed record is ready at once, gone ones included; others are read."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        assert storage.load(USER).run_sync() == born()
        yield from storage.commit(change(born(), None))
        assert storage.load(USER).run_sync() is None
        with pytest.raises(RuntimeError, match="wait"):
            storage.load(task("unknown")).run_sync()
        assert (yield from storage.load(task("unknown"))) is None
        assert storage.load(task("unknown")).run_sync() is None

    on_file(tmp_path / "jobs.db", story)


def _remembered(storage: SqliteStorage, keys: list[Key]) -> list[str]:
    return [key.id for key in keys if key in storage._contents.remembered]


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """The records that were used longest ago are forgotten first, and large ones are not kept at all."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        keys = [task(name) for name in "abcde"]
        for key in keys:
            yield from storage.commit(birth(born(key)))
        assert _remembered(storage, keys) == ["c", "d", "e"]
        yield from storage.commit(change(born(keys[2]), born(keys[2]).evolve()))
        yield from storage.load(keys[0])
        assert _remembered(storage, keys) == ["a", "c", "e"]
        large = born(keys[4]).evolve(state=b"x" * 20_000)
        yield from storage.commit(change(born(keys[4]), large))
        assert _remembered(storage, keys) == ["a", "c"]
        assert (yield from storage.load(keys[4])) == large
        for n, key in enumerate(keys):
            assert ((yield from storage.load(key)) or born()).revision == (2 if n in (2, 4) else 1)

    on_file(tmp_path / "jobs.db", story, cache_size=3)


def test_a_refused_commit_is_not_remembered(tmp_path: Path) -> None:
    """After a conflict the next load gives what is stored."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        yield from storage.commit(birth(born(state=b"[]"))).flip()
        assert (yield from storage.load(USER)) == born()

    on_file(tmp_path / "jobs.db", story)


def test_commits_share_transactions(tmp_path: Path) -> None:
    """A thousand callers at once need far fewer transactions than commits."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[int, Any]:
        commits = [storage.commit(birth(born(task(str(n))))) for n in range(1000)]
        yield from Effect.all(commits, concurrency="unbounded")
        assert (yield from storage.jobs()) == {("task", "t"): 1000}
        return storage.transactions

    assert on_file(tmp_path / "jobs.db", story) < 500


def test_a_failing_database_fails_commits_and_forgets_nothing_acknowledged(tmp_path: Path) -> None:
    """A full disk reaches callers as StorageError; afterwards loads give what is stored."""

    def shrink(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born()))
        yield from storage._thread.read("shrink", shrink)
        large = born().evolve(state=b"x" * 1_000_000)
        error = yield from storage.commit(change(born(), large)).flip()
        assert isinstance(error, StorageError)
        assert error.operation == "commit"
        assert "full" in str(error)
        assert (yield from storage.load(USER)) == born()
        yield from storage.commit(change(born(), large))
        assert (yield from storage.load(USER)) == large

    on_file(tmp_path / "jobs.db", story)


def test_the_outbox_drops_the_oldest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A full outbox drops its oldest events, counts them, and warns now and then."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[tuple[list[str], int], Any]:
        yield from storage.commit(birth(born(), events=(fact("0"), fact("1"))))
        yield from storage.events_sent(["0"])
        more = tuple(fact(str(n)) for n in range(2, 10))
        yield from storage.commit(change(born(), None, events=more))
        left = [event.event_id for event in (yield from storage.pending_events(100))]
        return left, storage.dropped_events

    with caplog.at_level(logging.WARNING):
        assert on_file(tmp_path / "jobs.db", story, outbox_limit=3) == (["7", "8", "9"], 6)
    assert [record.getMessage() for record in caplog.records] == [
        "the outbox is full (3 events): 6 of the oldest were dropped so far"
    ]


def test_an_event_id_is_used_once(tmp_path: Path) -> None:
    """A commit that repeats the id of a waiting event fails alone, and changes nothing."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born(), events=(fact("e"),)))
        error = yield from storage.commit(birth(born(task("x")), events=(fact("f"), fact("e")))).flip()
        assert isinstance(error, StorageError)
        assert isinstance(error.cause, sqlite3.IntegrityError)
        assert (yield from storage.load(task("x"))) is None
        assert [event.event_id for event in (yield from storage.pending_events(10))] == ["e"]

    on_file(tmp_path / "jobs.db", story)


def test_expired_marks_are_removed_in_passing(tmp_path: Path) -> None:
    """Later commits take expired marks along, a bounded number each, and leave the others."""
    path = tmp_path / "jobs.db"

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        for n in reversed(range(250)):
            mark = Mark(f"e{n}", NOON + n * SECOND)
            yield from storage.commit(birth(born(task(str(n))), at=NOON - DAY, mark=mark))
        present = born()
        yield from storage.commit(birth(present, at=NOON - DAY))
        for at, left in ((NOON, 249), (NOON + DAY, 149), (NOON + DAY, 49), (NOON + DAY, 0), (NOON + DAY, 0)):
            after = present.evolve()
            yield from storage.commit(change(present, after, at=at))
            assert (yield from storage._thread.read("count", _count_marks)) == left
            present = after

    on_file(path, story)


def _count_marks(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM mark").fetchone()[0])


def test_what_expired_while_closed_is_removed(tmp_path: Path) -> None:
    """A new process removes what expired under the one before."""
    path = tmp_path / "jobs.db"
    on_file(
        path,
        lambda storage: storage.commit(birth(born(), mark=Mark("e", NOON + DAY), dead_letter=letter(born()))),
    )

    @Effect.gen
    def later(storage: SqliteStorage) -> Do[tuple[int, int], Any]:
        yield from storage.commit(birth(born(task("x")), at=NOON + DAY))
        letters = yield from storage.dead_letters()
        return (yield from storage._thread.read("count", _count_marks)), len(letters)

    assert on_file(path, later) == (0, 0)


def test_statements_use_their_indexes(tmp_path: Path) -> None:
    """What is due, leased or expired is found without looking at everything, and one row by its key."""
    from durable_effect_jobs.storage import sqlite

    path = tmp_path / "jobs.db"
    on_file(path, lambda _: Effect.void)
    wake = "SEARCH instance USING INDEX instance_wake (kind=? AND job=? AND wake_us"
    its_row = "SEARCH instance USING INDEX sqlite_autoindex_instance_1 (kind=? AND job=? AND id=?)"
    key = ("task", "t", "x")
    statements: list[tuple[str, tuple[object, ...], str]] = [
        (sqlite._DUE, ("task", "t", 0, 1), f"{wake}<?)"),
        (sqlite._NEXT_DUE, ("task", "t", 0), f"{wake}>?)"),
        (sqlite._LOAD, key, its_row),
        (sqlite._IS_CLAIMABLE, (*key, 0), its_row),
        (sqlite._CLAIM, ("one", 0, 1, 0, *key), its_row),
        (sqlite._RENEW, (0, *key, "one", 1), its_row),
        (sqlite._RELEASE, (1, *key, "one"), its_row),
        (sqlite._DELETE, (*key, "first", 1, 0), its_row),
        (sqlite._LEASED_BY, ("one",), "SEARCH instance USING INDEX instance_lease (lease_owner=?)"),
        (sqlite._CUT_LEASES, (0, 0), "INDEX instance_lease"),
        (sqlite._HAS_RECEIPT, ("t",), "SEARCH receipt USING PRIMARY KEY"),
        (sqlite._JOBS, (), "USING COVERING INDEX"),
        (sqlite._INSTANCES, ("", "", "", 1), "SEARCH instance USING INDEX"),
        (sqlite._INSTANCES_OF, ("task", "t", "", 1), "SEARCH instance USING INDEX"),
        (sqlite._REMOVE_EVENT, ("e",), "SEARCH outbox USING INDEX"),
        *(
            (remove, (0, 1), f"SEARCH {table} USING COVERING INDEX {table}_expiry")
            for table, (remove, _) in sqlite._EXPIRY.items()
        ),
    ]
    with closing(sqlite3.connect(path)) as connection:
        for statement, values, expected in statements:
            plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))
            assert expected in plan, plan
            assert "TEMP B-TREE" not in plan, plan


# -- runs ----------------------------------------------------------------------------------------------


def test_a_new_process_takes_over_at_once(tmp_path: Path) -> None:
    """Leases that are found at opening end then, by the program's clock; others' runs count as crashed."""
    path, late = tmp_path / "jobs.db", NOON + DAY
    record, over = born(USER, NOON), born(task("x"), NOON)

    @Effect.gen
    def run_and_die(storage: SqliteStorage) -> Do[None, Any]:
        for one, until in ((record, late + DAY), (over, late - DAY)):
            yield from storage.commit(birth(one))
            yield from storage.claim(Claim(one.key, "one", NOON, until))

    @Effect.gen
    def find(storage: SqliteStorage) -> Do[None, Any]:
        left = yield from storage.load(USER)
        assert left == attrs.evolve(record, fence=1, lease=Lease("one", late))
        assert (yield from storage.load(over.key)) == attrs.evolve(
            over, fence=2, lease=Lease("one", late - DAY)
        )
        claimed = yield from storage.claim(Claim(USER, "two", late, late + SECOND))
        assert claimed is not None
        assert claimed.recovered
        assert claimed.instance == attrs.evolve(record, fence=3, crashes=1, lease=Lease("two", late + SECOND))
        jobs: list[JobName] = [("task", "t"), ("continuous", "counter")]
        assert (yield from storage.due(late + SECOND, 9, jobs)) == [
            Due(over.key, suspect=False),
            Due(USER, suspect=True),
        ]

    on_file(path, run_and_die)
    opening = SqliteStorage.open(path).pipe(provide_service(Clock, TestClock(late)))
    opening.flat_map(find).scoped().run()


def test_a_claim_in_the_batch_of_another_write_sees_it(tmp_path: Path) -> None:
    """What is remembered may be older than the transaction: the claim has what is in it."""
    before = born(USER, NOON)
    after = before.evolve(state=b"[2]")

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(before))
        together: list[Effect[Any, Any]] = [
            storage.commit(change(before, after)),
            storage.claim(Claim(USER, "one", NOON, NOON + DAY)),
            storage.renew("one", [(USER, 1)], NOON + SECOND),
        ]
        yield from Effect.all(together, concurrency="unbounded")
        assert (yield from storage.load(USER)) == attrs.evolve(
            after, fence=1, lease=Lease("one", NOON + SECOND)
        )

    on_file(tmp_path / "jobs.db", story)


def test_fences_go_on_after_a_failed_batch(tmp_path: Path) -> None:
    """A fence that was in a batch that failed was answered to nobody; those that follow are greater still."""

    def shrink(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        record = attrs.evolve(born(USER, NOON), lease=Lease("one", NOON))
        assert (yield from storage.commit(birth(record))) == 1
        stored = attrs.evolve(record, fence=1)
        yield from storage._thread.read("shrink", shrink)
        large = attrs.evolve(stored.evolve(state=b"x" * 1_000_000), lease=Lease("one", NOON))
        again = change(stored, large)
        assert isinstance((yield from storage.commit(again).flip()), StorageError)
        assert (yield from storage.load(USER)) == stored
        assert (yield from storage.commit(again)) == 2
        assert (yield from storage.commit(again)) == 2
        assert (yield from storage.load(USER)) == attrs.evolve(large, fence=2)

    path = tmp_path / "jobs.db"
    on_file(path, story)
    birth_of_another = birth(attrs.evolve(born(task("x")), lease=Lease("one", NOON)))
    assert on_file(path, lambda storage: storage.commit(birth_of_another)) > 2


def test_receipts_are_removed_in_passing(tmp_path: Path) -> None:
    """An hour after a removal nobody sends it again, and later commits take its receipts along."""

    def receipts(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM receipt").fetchone()[0])

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[list[int], Any]:
        removal = change(born(), None)
        yield from storage.commit(birth(born()))
        yield from storage.commit(removal)
        left: list[int] = []
        for n, at in enumerate((NOON + HOUR - SECOND, NOON + HOUR)):
            assert (yield from storage.commit(removal)) == 0
            yield from storage.commit(birth(born(task(str(n))), at=at))
            left.append((yield from storage._thread.read("count", receipts)))
        return left

    assert on_file(tmp_path / "jobs.db", story) == [2, 0]


# -- what must never be stored -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "invariant", "detail"),
    [
        ("alarm_us = NULL", "I1", "task:t:x has an alarm or a lease, but nobody looks for it"),
        ("lease_until_us = 5", "I2", "task:t:x has the end of a lease without its owner"),
        ("lease_owner = 'one'", "I2", "task:t:x is leased by one without an end"),
        ("revision = 0", "I3", "task:t:x has revision 0"),
        ("fence = 7", "I4", "task:t:x has fence 7, but the last one given is 0"),
        (
            "lease_owner = 'one', lease_until_us = 5",
            "I5",
            "task:t:x is leased by one until 1970-01-01T00:00:00.000005+00:00, and nobody took it since",
        ),
        ("alarm_us = 5", "I6", "task:t:x is due since 1970-01-01T00:00:00.000005+00:00"),
        ("kind = 'continuous', alarm_us = NULL", "I8", "continuous:t:x has neither alarm nor lease"),
    ],
)
def test_what_must_not_be_is_found(damage: str, invariant: str, detail: str, tmp_path: Path) -> None:
    """Each invariant is broken by hand, and the survey names it and the instance; others are not accused."""
    path = tmp_path / "jobs.db"

    @Effect.gen
    def write(storage: SqliteStorage) -> Do[None, Any]:
        yield from storage.commit(birth(born(task("x"), NOON)))
        stopped = attrs.evolve(born(), stopped=True)
        told = attrs.evolve(born(task("y")), last_error=Failure("E", '"alarm":[', ""))
        yield from storage.commit(birth(stopped))
        yield from storage.commit(birth(told))

    on_file(path, write)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE instance SET {damage} WHERE id = 'x'")
    look = SqliteStorage.open(path, read_only=True).flat_map(lambda one: one.survey(NOON, lease=SECOND))
    found = {(one.invariant, one.detail) for one in look.scoped().run().violations}
    assert (invariant, detail) in found
    assert all(told.partition(" ")[0].endswith(":x") for _, told in found)


def test_an_event_that_waits_too_long_is_found(tmp_path: Path) -> None:
    """After seven days somebody is told which instance's event was not sent."""

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[list[Any], Any]:
        yield from storage.commit(birth(born(USER, NOON + 30 * DAY), events=(fact("e"),)))
        boundary = yield from storage.survey(NOON + 7 * DAY, lease=SECOND)
        assert boundary.oldest_event == NOON
        late = yield from storage.survey(NOON + 7 * DAY + SECOND, lease=SECOND)
        return [boundary.violations, [(one.invariant, one.detail) for one in late.violations]]

    assert on_file(tmp_path / "jobs.db", story) == [
        (),
        [("I7", f"continuous:counter:user-1: event e of {NOON.isoformat()} waits")],
    ]


# -- closing -------------------------------------------------------------------------------------------


_LOOKS, _A_MOMENT_S = 1000, 0.01


def test_a_closed_storage_refuses_calls(tmp_path: Path) -> None:
    """Also for records that were remembered; the error says why."""

    async def main() -> None:
        storage = await SqliteStorage.open(tmp_path / "jobs.db").tap(_commit_one).scoped()
        for effect in (storage.load(USER), storage.commit(birth(born())), storage.jobs()):
            error = await effect.flip()
            assert isinstance(error, StorageError)
            assert str(error.cause) == "the storage is closed"

    asyncio.run(main())


def _commit_one(storage: SqliteStorage) -> Effect[int, Any]:
    return storage.commit(birth(born()))


def test_a_storage_that_is_dropped_lets_go_of_its_file(tmp_path: Path) -> None:
    """A storage that nobody holds any more closes by itself, though its scope never closed."""
    path = tmp_path / "jobs.db"

    async def main() -> None:
        scope = await Scope.make()
        storage = await scope.extend(SqliteStorage.open(path))
        thread = storage._thread._thread
        del storage, scope
        # The thread may still hold what it has just answered; once it waits again, a collection finds it.
        for _ in range(_LOOKS):
            gc.collect()
            await asyncio.to_thread(thread.join, _A_MOMENT_S)
            if not thread.is_alive():
                break
        await SqliteStorage.open(path).scoped()

    asyncio.run(main())


def test_a_storage_that_is_left_open_does_not_keep_the_process(tmp_path: Path) -> None:
    """A program may end without closing; what was acknowledged is there."""
    path = tmp_path / "jobs.db"
    program = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from storage_scene import birth, born
from durable_effect.scope import Scope
from durable_effect.testing import TestRuntime
from durable_effect_jobs.storage.sqlite import SqliteStorage

async def main():
    scope = await Scope.make()
    storage = await scope.extend(SqliteStorage.open(sys.argv[1]))
    await storage.commit(birth(born()))
    return scope, storage

left_open = asyncio.run(main())
print("end")
"""
    command = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("end\n", "")
    assert on_file(path, lambda storage: storage.load(USER)) == born()


def test_options_are_checked_when_it_is_named() -> None:
    """An impossible option is a ValueError before anything is opened."""
    for options in ({"synchronous": "off"}, {"cache_size": -1}, {"outbox_limit": 0}, {"queue_limit": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            SqliteStorage.open("jobs.db", **options)  # type: ignore[arg-type]


def test_alarms_of_any_time_are_kept(tmp_path: Path) -> None:
    """Alarms before 1970 and in the year 9999 are instants like others."""
    times = [datetime.min.replace(tzinfo=NOON.tzinfo), datetime(1969, 7, 20, tzinfo=NOON.tzinfo)]
    times.append(datetime.max.replace(tzinfo=NOON.tzinfo))

    @Effect.gen
    def story(storage: SqliteStorage) -> Do[None, Any]:
        written: list[Instance] = []
        for n, at in enumerate(times):
            instance = Instance(key=task(str(n)), incarnation="i", created_at=at, alarm=Alarm(at, "retry"))
            yield from storage.commit(birth(instance, at=at))
            written.append(instance)
        assert (yield from storage.instances()) == written
        assert (yield from storage.next_due([("task", "t")])) == times[0]
        assert (yield from storage.due(times[-1], 10, [("task", "t")])) == [
            Due(one.key, suspect=False) for one in written
        ]

    on_file(tmp_path / "jobs.db", story, cache_size=0)


# -- looking at a file that another process has open ---------------------------------------------------


def test_a_file_in_use_can_be_looked_at(tmp_path: Path) -> None:
    """A storage that only reads opens beside the owner, and sees each commit that is acknowledged."""
    path = tmp_path / "jobs.db"

    @Effect.gen
    def story(owner: SqliteStorage) -> Do[None, Any]:
        reader = yield from SqliteStorage.open(path, read_only=True)
        present = born()
        yield from owner.commit(birth(present))
        for _ in range(3):
            assert (yield from reader.load(USER)) == present
            after = present.evolve()
            yield from owner.commit(change(present, after))
            present = after
        assert (yield from reader.instances()) == [present]

    on_file(path, lambda owner: story(owner).scoped())


def test_a_storage_that_only_reads_does_not_write(tmp_path: Path) -> None:
    """Its commits fail with StorageError and leave the file as it is."""
    path = tmp_path / "jobs.db"
    on_file(path, _commit_one)
    before = path.read_bytes()

    @Effect.gen
    def story(reader: SqliteStorage) -> Do[None, Any]:
        error = yield from reader.commit(change(born(), None)).flip()
        assert isinstance(error, StorageError)
        assert "readonly" in str(error)
        assert (yield from reader.load(USER)) == born()

    on_file(path, story, read_only=True)
    assert path.read_bytes() == before


def test_looking_makes_no_file(tmp_path: Path) -> None:
    """A file that is not there, or not ours, is refused, and nothing appears."""
    for name, content in (("none.db", None), ("text.db", b"user-1,42\n" * 100)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        before = sorted(tmp_path.iterdir())
        error = SqliteStorage.open(tmp_path / name, read_only=True).scoped().flip().run()
        assert isinstance(error, StorageError)
        assert error.operation == "open"
        assert sorted(tmp_path.iterdir()) == before


def test_it_works_on_virtual_time(tmp_path: Path) -> None:
    """A runtime that jumps from sleeper to sleeper waits for the disk as it does for any real work."""

    @Effect.gen
    def story() -> Do[list[Due], Any]:
        storage = yield from SqliteStorage.open(tmp_path / "jobs.db")
        yield from storage.commit(birth(born(USER, NOON + DAY)))
        yield from Effect.sleep(DAY)
        now = yield from Clock.now()
        return (yield from storage.due(now, 10, [("continuous", "counter")]))

    with TestRuntime(NOON) as runtime:
        assert runtime.run(story().scoped()) == [Due(USER, suspect=False)]
