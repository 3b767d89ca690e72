"""The file of a SqliteStorage: whose it is, who may open it, and how its schema grows."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from storage_scene import DAY, NOON, SECOND, USER, birth, born, change, fact, on_file, task

from durable_effect import Do, Effect
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.events import event_to_bytes
from durable_effect_jobs.instance import Claim, Instance, Lease, to_micros
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.storage.sqlite_file import (
    MIGRATIONS,
    DatabaseFile,
    MemoryDatabase,
    Migrations,
    connect_sqlite,
    migrate,
)


def refused(path: Path) -> str:
    """Why the file cannot be opened."""
    error = SqliteStorage.open(path).scoped().flip().run()
    assert isinstance(error, StorageError)
    assert error.operation == "open"
    return str(error)


def database(path: Path, *statements: str) -> None:
    """Make or change a database by other means."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def ours(path: Path) -> None:
    """A database of ours, with one instance in it."""
    on_file(path, lambda storage: storage.commit(birth(born())))


# -- whose file is it? ---------------------------------------------------------------------------------


def test_a_new_file_is_ours(tmp_path: Path) -> None:
    """The file carries our application id and its schema's version; only its lock lies beside it."""
    path = tmp_path / "jobs.db"
    ours(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (0x44454A42,)
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {file.name for file in tmp_path.iterdir()} == {"jobs.db", "jobs.db.lock"}


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    """A file without a byte becomes ours, and keeps who may read it."""
    path = tmp_path / "jobs.db"
    path.touch(mode=0o600)
    ours(path)
    assert on_file(path, lambda storage: storage.load(USER)) == born()
    assert path.stat().st_mode & 0o777 == 0o600


def _text(path: Path) -> None:
    path.write_bytes(b"user-1,42\n" * 100)


def _short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def _foreign(path: Path) -> None:
    database(path, "CREATE TABLE customer (name TEXT)", "INSERT INTO customer VALUES ('Ada')")


def _foreign_with_log(path: Path) -> None:
    database(
        path, "PRAGMA journal_mode = WAL", "CREATE TABLE customer (name TEXT)", "PRAGMA user_version = 1"
    )


def _other_application(path: Path) -> None:
    ours(path)
    database(path, "PRAGMA application_id = 1")


def _newer(path: Path) -> None:
    ours(path)
    database(path, "PRAGMA user_version = 3")


def _newer_in_its_log(path: Path) -> None:
    """A newer process was killed before its new version was moved from the log into the file."""
    ours(path)
    migrate = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
    migrate += "c.execute('PRAGMA user_version = 3'); os._exit(0)"
    subprocess.run([sys.executable, "-c", migrate, str(path)], check=True)
    assert path.with_name("jobs.db-wal").stat().st_size > 0


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_text, "is not a SQLite database"),
        (_short, "is not a SQLite database"),
        (_foreign, "is a database of another application"),
        (_foreign_with_log, "is a database of another application"),
        (_other_application, "is a database of another application"),
        (_newer, "written by a newer durable-effect (schema 3, this one knows 2)"),
        (_newer_in_its_log, "written by a newer durable-effect (schema 3, this one knows 2)"),
    ],
)
def test_a_file_that_is_not_for_us_is_left_alone(
    make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    """The refusal says why; the file and the logs beside it stay as they are, byte for byte."""
    path = tmp_path / "jobs.db"
    make(path)
    files = [file for file in tmp_path.iterdir() if not file.name.endswith(("-shm", ".lock"))]
    before = {file: file.read_bytes() for file in files}
    assert reason in refused(path)
    assert {file: file.read_bytes() for file in files} == before


def test_nothing_is_put_beside_a_foreign_file(tmp_path: Path) -> None:
    """Somebody else's folder has no lock file of ours in it afterwards."""
    path = tmp_path / "shop.db"
    _foreign(path)
    refused(path)
    assert [file.name for file in tmp_path.iterdir()] == ["shop.db"]


def test_the_log_of_a_lost_database_is_not_played(tmp_path: Path) -> None:
    """A log without its database is refused: a new database would take it for its own."""
    path = tmp_path / "jobs.db"
    _newer_in_its_log(path)
    path.unlink()
    log = path.with_name("jobs.db-wal")
    before = log.read_bytes()
    assert "restore it, or remove both" in refused(path)
    assert log.read_bytes() == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The folder is not made for the user: it may be a mistyped one."""
    assert f"the directory {tmp_path / 'no' / 'where'} does not exist" in refused(
        tmp_path / "no" / "where" / "jobs.db"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder in place of the file is the system's own error."""
    assert "directory" in refused(tmp_path).lower()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder without permission is the system's own error."""
    tmp_path.chmod(0o500)
    assert "permission" in refused(tmp_path / "jobs.db").lower()


def test_a_half_made_database_is_made_again(tmp_path: Path) -> None:
    """What a crash left of a database that was being made is thrown away; the file itself was never there."""
    draft = tmp_path / "jobs.db.being-created"
    draft.write_bytes(b"half a database")
    draft.with_name("jobs.db.being-created-journal").write_bytes(b"and its journal")
    ours(tmp_path / "jobs.db")
    assert on_file(tmp_path / "jobs.db", lambda storage: storage.load(USER)) == born()
    assert not list(tmp_path.glob("*being-created*"))


def test_a_link_to_the_file_is_the_file(tmp_path: Path) -> None:
    """Two names of one file have one lock, and a link stays a link."""
    folder = tmp_path / "data"
    folder.mkdir()
    link = tmp_path / "jobs.db"
    link.symlink_to(folder / "jobs.db")
    ours(link)
    assert link.is_symlink()
    assert on_file(folder / "jobs.db", lambda storage: storage.load(USER)) == born()
    assert "open already" in on_file(link, lambda _: Effect.sync(lambda: _reason(folder / "jobs.db")))


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without STRICT tables the storage does not open, and says what is needed."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    assert "SQLite 3.37 or newer is needed" in refused(tmp_path / "jobs.db")


# -- who may open it? ----------------------------------------------------------------------------------


def _reason(path: Path) -> str:
    try:
        DatabaseFile(path, "full")
    except StorageError as error:
        return str(error)
    return "it was opened"


def test_a_file_is_opened_once(tmp_path: Path) -> None:
    """A second open fails, and names what is for many processes; after the first is closed it succeeds."""
    path = tmp_path / "jobs.db"

    @Effect.gen
    def twice(_: SqliteStorage) -> Do[StorageError, None]:
        return (yield from SqliteStorage.open(path).scoped().flip())

    error = on_file(path, twice)
    assert error.operation == "open"
    assert "PostgreSQL" in str(error)
    ours(path)


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    """While this process has the file open, another one is refused."""
    path = tmp_path / "jobs.db"
    program = (
        "import sys; from durable_effect_jobs.storage.sqlite import SqliteStorage;"
        "print(SqliteStorage.open(sys.argv[1]).scoped().flip().run())"
    )

    def other(_: SqliteStorage) -> Effect[str]:
        command = [sys.executable, "-c", program, str(path)]
        return Effect.from_thread(
            lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout
        )

    assert "is open already, here or in another process" in on_file(path, other)


def test_a_failed_open_lets_go(tmp_path: Path) -> None:
    """An open that fails after it took the lock gives it back."""
    path = tmp_path / "jobs.db"
    broken: Migrations = (*MIGRATIONS, ("CREATE TABLE instance (again TEXT)",))
    with pytest.raises(StorageError, match="already exists"):
        DatabaseFile(path, "full", broken)
    DatabaseFile(path, "full").release()


# -- schema --------------------------------------------------------------------------------------------

_GROWN: Migrations = (
    *MIGRATIONS,
    ("ALTER TABLE instance ADD COLUMN note TEXT", "UPDATE instance SET note = id", "PRAGMA user_version = 3"),
    ("CREATE INDEX instance_note ON instance (note)", "PRAGMA user_version = 4"),
)


def _as_by_version_1(path: Path) -> tuple[Instance, Instance]:
    """A file that the first version left: two instances, a mark, two events and a dead letter."""
    waiting, idle = born(USER, NOON + SECOND), born(task("x")).evolve()
    events = [fact("a"), attrs.evolve(fact("b"), timestamp=NOON + timedelta(milliseconds=1500))]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:1])
        for one in (waiting, idle):
            alarm_us = None if one.alarm is None else to_micros(one.alarm.at)
            record = one.to_bytes(), one.state
            connection.execute(
                "INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*attrs.astuple(one.key), one.incarnation, one.revision, alarm_us, *record),
            )
        connection.execute(
            "INSERT INTO mark VALUES (?, ?, ?, 'm', ?)", (*attrs.astuple(USER), to_micros(NOON + DAY))
        )
        connection.executemany(
            "INSERT INTO outbox (event_id, body) VALUES (?, ?)",
            [(event.event_id, event_to_bytes(event)) for event in events],
        )
        connection.execute(
            "INSERT INTO dead_letter VALUES (7, ?, ?, ?, 'max_attempts', ?, ?, ?, ?, ?)",
            (
                *attrs.astuple(idle.key),
                to_micros(NOON),
                to_micros(NOON + DAY),
                idle.revision,
                idle.to_bytes(),
                idle.state,
            ),
        )
    return waiting, idle


def test_a_file_of_the_first_version_keeps_everything(tmp_path: Path) -> None:
    """Opening it brings leases and fences to it; all that it held is there, and goes on."""
    path = tmp_path / "jobs.db"
    waiting, idle = _as_by_version_1(path)

    @Effect.gen
    def look(storage: SqliteStorage) -> Do[None, Any]:
        assert (yield from storage.instances()) == [waiting, idle]
        assert (yield from storage.is_marked(USER, "m", NOON))
        assert [event.event_id for event in (yield from storage.pending_events(9))] == ["a", "b"]
        (dead,) = yield from storage.dead_letters()
        assert (dead.number, dead.instance) == (7, idle)
        survey = yield from storage.survey(NOON + DAY, lease=SECOND)
        assert (survey.outbox, survey.oldest_event, survey.oldest_due) == (2, NOON, NOON + SECOND)
        claim = Claim(USER, "one", NOON + SECOND, NOON + DAY)
        claimed = yield from storage.claim(claim)
        assert claimed is not None
        assert claimed.instance == attrs.evolve(waiting, fence=1, lease=Lease("one", NOON + DAY))
        assert (yield from storage.commit(change(idle, idle.evolve()))) == 0
        yield from storage.events_sent(["a"])
        later = yield from storage.survey(NOON, lease=SECOND)
        assert later.oldest_event == NOON + timedelta(milliseconds=1500)

    on_file(path, look)


def test_an_older_file_is_migrated(tmp_path: Path) -> None:
    """Each step from the file's version to the newest is taken, and what is stored stays."""
    path = tmp_path / "jobs.db"
    ours(path)
    file = DatabaseFile(path, "full", _GROWN)
    with closing(file.connect()) as connection:
        assert connection.execute("SELECT id, note FROM instance").fetchall() == [("user-1", "user-1")]
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    file.release()
    assert "newer durable-effect (schema 4" in refused(path)


def test_a_new_file_takes_every_step(tmp_path: Path) -> None:
    """A file that is made by a later version has its schema, too."""
    file = DatabaseFile(tmp_path / "jobs.db", "full", _GROWN)
    with closing(file.connect()) as connection:
        assert connection.execute("SELECT note FROM instance").fetchall() == []
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    file.release()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """All steps are one transaction: when the last fails, none was taken."""
    path = tmp_path / "jobs.db"
    ours(path)
    broken: Migrations = (*_GROWN, ("ALTER TABLE nowhere ADD COLUMN x TEXT", "PRAGMA user_version = 5"))
    with pytest.raises(StorageError, match="no such table: nowhere"):
        DatabaseFile(path, "full", broken)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        columns = [row[1] for row in connection.execute("PRAGMA table_info (instance)")]
    assert "note" not in columns
    assert on_file(path, lambda storage: storage.load(USER)) == born()


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_connections_have_our_settings(synchronous: str, level: int, tmp_path: Path) -> None:
    """A write-ahead log, the durability that was asked for, and no trust in what the file's schema says."""
    file = DatabaseFile(tmp_path / "jobs.db", synchronous)  # type: ignore[arg-type]
    with closing(file.connect()) as connection:
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "cell_size_check")
        }
    file.release()
    assert settings == {
        "journal_mode": "wal",
        "synchronous": level,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
    }


def test_every_connection_comes_from_the_connector(tmp_path: Path) -> None:
    """Whoever gives another connector sees the draft of a new file, its migration and its use."""
    seen: list[str] = []

    def connector(uri: str) -> sqlite3.Connection:
        seen.append(uri.rpartition("/")[2])
        return connect_sqlite(uri)

    path = tmp_path / "jobs.db"
    on_file(path, lambda storage: storage.commit(birth(born())), connector=connector)
    assert seen == ["jobs.db.being-created", "jobs.db?mode=rw", "jobs.db?mode=rw"]
    seen.clear()
    on_file(path, lambda storage: storage.load(USER), connector=connector, read_only=True)
    on_file(":memory:", lambda storage: storage.load(USER), connector=connector)
    assert seen == ["jobs.db?mode=ro", "file::memory:"]


def test_a_database_in_memory_is_not_replaced_by_an_empty_one() -> None:
    """When its connection is lost so is what it held, and that is an error from then on."""
    database = MemoryDatabase()
    database.connect().close()
    with pytest.raises(StorageError, match="was lost"):
        database.connect()
