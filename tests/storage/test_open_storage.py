"""Storages by URL."""

from pathlib import Path
from typing import Any

import pytest
from storage_scene import USER, birth, born

from durable_effect import Effect
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.storage.open import open_storage
from durable_effect_jobs.storage.sqlite import SqliteStorage


def _opened(url: str) -> Any:
    return open_storage(url).scoped().run()


def _write(storage: Storage) -> Effect[int, Any]:
    return storage.commit(birth(born()))


def test_memory() -> None:
    """memory:// is a new storage in memory each time."""
    assert isinstance(_opened("memory://"), MemoryStorage)
    assert open_storage("memory://").flat_map(_write).scoped().run() == 0
    assert open_storage("memory://").flat_map(lambda storage: storage.load(USER)).scoped().run() is None


def test_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes and a name are a file in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(_opened("sqlite:///jobs.db"), SqliteStorage)
    assert (tmp_path / "jobs.db").exists()


def test_absolute_file(tmp_path: Path) -> None:
    """Four slashes are an absolute path, percent-encoded where it has to be."""
    open_storage(f"sqlite:///{tmp_path}/a%20b%23%3F%25.db?synchronous=normal").flat_map(_write).scoped().run()
    assert (tmp_path / "a b#?%.db").exists()
    load = open_storage(f"sqlite:///{tmp_path}/a b%23%3f%25.db").flat_map(lambda storage: storage.load(USER))
    assert load.scoped().run() == born()


def test_sqlite_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """:memory: makes no file."""
    monkeypatch.chdir(tmp_path)
    open_storage("sqlite:///:memory:").flat_map(_write).scoped().run()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_opened_before_it_is_run(tmp_path: Path) -> None:
    """A URL only names a storage."""
    open_storage(f"sqlite:///{tmp_path}/jobs.db")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_opened_fails(tmp_path: Path) -> None:
    """What is wrong with the file is a StorageError of the effect, not of the URL."""
    error = open_storage(f"sqlite:///{tmp_path}/no/jobs.db").scoped().flip().run()
    assert isinstance(error, StorageError)
    assert "does not exist" in str(error)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgres:/", "sqlite:///postgres%3A/"),
        ("jobs.db", "sqlite:///jobs.db"),
        ("/var/lib/my jobs.db", "sqlite:////var/lib/my%20jobs.db"),
        ("", "named by a URL"),
        ("mysql://localhost/jobs", "no storage has this scheme"),
        ("sqlite://jobs.db", "three slashes"),
        ("sqlite://", "name of a file is missing"),
        ("sqlite:///", "name of a file is missing"),
        ("sqlite:////var/lib/", "name of a file is missing"),
        ("sqlite:///a%00b", "name of a file is missing"),
        ("sqlite:///a%ffb", "percent-encoded UTF-8"),
        ("sqlite:///jobs#1.db", "%23"),
        ("sqlite:///jobs.db#", "%23"),
        ("sqlite:///:memory", ":memory:"),
        ("sqlite:///jobs.db?synchronous=off", "only option"),
        ("sqlite:///jobs.db?synchronous=full&synchronous=normal", "only option"),
        ("sqlite:///jobs.db?mode=ro", "only option"),
        ("memory://jobs", "nothing behind it"),
        ("memory:///jobs", "nothing behind it"),
        ("memory://?x", "nothing behind it"),
        ("sqlite://[::1", "Invalid IPv6"),
    ],
)
def test_other_urls_are_refused_at_once(url: str, reason: str) -> None:
    """Anything else is a ValueError when it is named: what is wrong with it, and the forms that there are."""
    with pytest.raises(ValueError, match="accepted are") as raised:
        open_storage(url)
    assert reason in str(raised.value)
    assert "sqlite:///jobs.db" in str(raised.value)
    assert "memory://" in str(raised.value)


def test_what_is_no_text_is_refused() -> None:
    """A path is not a URL, and the error shows how to write it as one."""
    with pytest.raises(ValueError, match="expected text"):
        open_storage(Path("jobs.db"))  # type: ignore[arg-type]
