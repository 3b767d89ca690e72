"""Looking at a SQLite file that somebody else may have open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from storage_scene import NOON, SECOND, USER, birth, born, change, on_file, task

from durable_effect import Do, Effect, Need, Scope
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Claim, Instance
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.storage.sqlite_file import MIGRATIONS, FileToRead

OLDER = (*MIGRATIONS, ("PRAGMA user_version = 3",))
"""The migrations of a version to which today's files are old."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one instance."""
    path = tmp_path / "jobs.db"
    on_file(path, lambda storage: storage.commit(birth(born())))
    return path


def test_every_commit_of_the_owner_is_seen(path: Path) -> None:
    """The owner has the file open all the while, and nothing is remembered from one look to the next."""
    first = born()
    second = first.evolve(state=b"[2]")

    @Effect.gen
    def scene() -> Do[list[Instance | None], StorageError, Need[Scope]]:
        owner = yield from SqliteStorage.open(path)
        reader = yield from SqliteStorage.open(path, read_only=True)
        earlier = yield from reader.load(USER)
        yield from owner.commit(change(first, second)).or_die()
        later = yield from reader.load(USER)
        return [earlier, later]

    assert scene().scoped().run() == [first, second]


def test_the_survey_of_a_running_host(path: Path) -> None:
    """An operator counts beside the owner: its leases are seen, and stay as they are."""

    @Effect.gen
    def scene() -> Do[None, StorageError, Need[Scope]]:
        owner = yield from SqliteStorage.open(path)
        yield from owner.commit(birth(born(task("x"), NOON))).or_die()
        claimed = yield from owner.claim(Claim(task("x"), "one", NOON, NOON + SECOND))
        reader = yield from SqliteStorage.open(path, read_only=True)
        survey = yield from reader.survey(NOON, lease=SECOND)
        assert (survey.instances, survey.leased, survey.expired_leases) == (2, 1, 0)
        assert [(one.invariant, one.detail) for one in survey.violations] == [
            ("I8", "continuous:counter:user-1 has neither alarm nor lease")
        ]
        assert claimed is not None
        assert (yield from owner.load(task("x"))) == claimed.instance

    scene().scoped().run()


def test_nothing_can_be_written(path: Path) -> None:
    """A commit fails, and what is stored stays."""
    with pytest.raises(StorageError, match="readonly"):
        on_file(path, lambda storage: storage.commit(change(born(), None)), read_only=True)

    assert on_file(path, lambda storage: storage.load(USER), read_only=True) == born()


def test_a_reader_keeps_nobody_out(path: Path) -> None:
    """Looking takes no lock: the file can be opened for writing meanwhile."""

    @Effect.gen
    def scene() -> Do[Instance | None, StorageError, Need[Scope]]:
        yield from SqliteStorage.open(path, read_only=True)
        owner = yield from SqliteStorage.open(path)
        return (yield from owner.load(USER))

    assert scene().scoped().run() == born()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Not even its lock file."""
    with pytest.raises(StorageError, match="there is no database"):
        on_file(tmp_path / "jobs.db", lambda storage: storage.load(USER), read_only=True)

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """As it is for writing."""
    (tmp_path / "jobs.db").write_text("my diary")

    with pytest.raises(StorageError, match="is not a SQLite database"):
        on_file(tmp_path / "jobs.db", lambda storage: storage.load(USER), read_only=True)


def test_a_newer_schema_is_refused(path: Path) -> None:
    """Also where only the log knows of it: here the file's owner has not moved it into the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA user_version = 3")

        with pytest.raises(StorageError, match="written by a newer durable-effect"):
            FileToRead(path).connect()


def test_an_older_schema_is_refused_and_not_migrated(path: Path) -> None:
    """Looking changes nothing; hosting its jobs does."""
    with pytest.raises(StorageError, match="written by an older durable-effect"):
        FileToRead(path, OLDER).connect()

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
