"""The contract of the storage port, on every adapter, and on adapters that break it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_effect import Effect
from durable_effect.runtime import from_exit
from durable_effect_jobs import storage_contract as contract
from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Commit, Instance, Key
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.storage_contract import (
    STORAGE_CHECKS,
    MakeStorage,
    StorageCheck,
    check_storage,
    run_storage_check,
)


def _memory(_: Path) -> MakeStorage:
    return MemoryStorage


def _sqlite(folder: Path) -> MakeStorage:
    return lambda: SqliteStorage.open(folder / "jobs.db")


def _sqlite_without_cache(folder: Path) -> MakeStorage:
    return lambda: SqliteStorage.open(folder / "jobs.db", cache_size=0)


def _sqlite_in_memory(_: Path) -> MakeStorage:
    return lambda: SqliteStorage.open(":memory:", synchronous="normal")


@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [_memory, _sqlite, _sqlite_without_cache, _sqlite_in_memory])
def test_keeps_the_contract(make: Callable[[Path], MakeStorage], check: StorageCheck, tmp_path: Path) -> None:
    """Every sentence of the port holds on every storage."""
    run_storage_check(check, make(tmp_path))


def test_check_storage_runs_every_check(tmp_path: Path) -> None:
    """One call puts a storage through the whole contract, each check on a new one."""
    made = count()

    def make() -> Effect[SqliteStorage, StorageError, Any]:
        return SqliteStorage.open(tmp_path / f"{next(made)}.db", synchronous="normal")

    check_storage(make)
    assert next(made) == len(STORAGE_CHECKS)


# -- storages that break it ----------------------------------------------------------------------------


class Overwriting(MemoryStorage):
    """Writes whatever it is given."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        def write(before: Instance | None) -> Effect[None, Any]:
            return super(Overwriting, self).commit(attrs.evolve(commit, before=before))

        return self.load(commit.key).flat_map(write)


class TakingFormerLives(MemoryStorage):
    """Compares revisions and forgets that ids are used again."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        def write(stored: Instance | None) -> Effect[None, Any]:
            same = (
                stored is not None and commit.before is not None and stored.revision == commit.before.revision
            )
            before = stored if same else commit.before
            return super(TakingFormerLives, self).commit(attrs.evolve(commit, before=before))

        return self.load(commit.key).flat_map(write)


class Eager(MemoryStorage):
    """Commits when it is called, not when its effect is run."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        outcome = super().commit(commit).run_sync_exit()
        return Effect.suspend(lambda: from_exit(outcome))


class InTwoWrites(MemoryStorage):
    """Remembers the mark, and only then looks whether the rest can be written."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        rest = super().commit(commit)
        if commit.mark is None:
            return rest
        key = Key("task", "marks", "all")
        mark = Commit(key=key, before=None, after=None, at=commit.at, mark=commit.mark)
        return super().commit(mark).ignore().and_then(rest)

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        return super().is_marked(Key("task", "marks", "all"), event_id, now)


class WithoutMarks(MemoryStorage):
    """Takes every event for news."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        return super().commit(attrs.evolve(commit, mark=None))


class NeverForgetting(MemoryStorage):
    """Remembers marks and dead letters for ever."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        for_ever = datetime(9000, 1, 1, tzinfo=UTC)
        letter, mark = commit.dead_letter, commit.mark
        return super().commit(
            attrs.evolve(
                commit,
                mark=mark and attrs.evolve(mark, expires_at=for_ever),
                dead_letter=letter and attrs.evolve(letter, expires_at=for_ever),
            )
        )


class Joining(MemoryStorage):
    """Cuts ids at a NUL."""

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        return super().load(Key(key.kind, key.job, key.id.partition("\0")[0]))


class ByKey(MemoryStorage):
    """Gives what is due in the order of keys."""

    def due(self, *args: Any) -> Effect[list[Key], StorageError]:
        return super().due(*args).map(sorted)


class ForAllJobs(MemoryStorage):
    """Gives what is due of all jobs."""

    def due(self, now: datetime, limit: int, jobs: Any) -> Effect[list[Key], StorageError]:
        return self.jobs().flat_map(lambda known: super(ForAllJobs, self).due(now, limit, known))


class TooEarly(MemoryStorage):
    """Takes a second for nothing."""

    def due(self, now: datetime, limit: int, jobs: Any) -> Effect[list[Key], StorageError]:
        return super().due(now + timedelta(seconds=1), limit, jobs)


class KeepingAlarms(MemoryStorage):
    """Moves alarms, but clears none."""

    def commit(self, commit: Commit) -> Effect[None, Any]:
        before, after = commit.before, commit.after
        if before is not None and after is not None and after.alarm is None:
            after = attrs.evolve(after, alarm=before.alarm)
        return super().commit(attrs.evolve(commit, after=after))


class Including(MemoryStorage):
    """Takes later for at or later."""

    def next_due(self, jobs: Any, *, after: datetime | None = None) -> Effect[datetime | None, StorageError]:
        return super().next_due(jobs, after=after and after - timedelta(microseconds=1))


class Overlapping(MemoryStorage):
    """Begins a page with the last record of the one before."""

    def instances(self, *, job: Any = None, after: Any = None, limit: int = 100) -> Effect[Any, StorageError]:
        def page(found: list[Instance]) -> list[Instance]:
            return [one for one in found if after is None or one.key >= after][:limit]

        return super().instances(job=job, limit=10_000).map(page)


class NewestFirst(MemoryStorage):
    """Gives the newest events first."""

    def pending_events(self, limit: int) -> Effect[Any, StorageError]:
        return super().pending_events(10_000).map(lambda events: events[::-1][:limit])


class Forgetful(MemoryStorage):
    """Removes events as soon as it is asked for them."""

    def pending_events(self, limit: int) -> Effect[Any, StorageError]:
        events = super().pending_events(limit)
        return events.tap(lambda found: self.events_sent([event.event_id for event in found]))


class Renumbering(MemoryStorage):
    """Counts the dead letters anew with each page."""

    def dead_letters(self, **page: Any) -> Effect[Any, StorageError]:
        return (
            super()
            .dead_letters(**page)
            .map(lambda letters: [attrs.evolve(letter, number=n) for n, letter in enumerate(letters, 1)])
        )


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (Overwriting, contract.a_stale_commit_changes_nothing),
        (Overwriting, contract.a_commit_on_a_removed_record_changes_nothing),
        (Overwriting, contract.one_of_concurrent_commits_wins),
        (Overwriting, contract.one_of_concurrent_births_wins),
        (TakingFormerLives, contract.an_id_that_is_used_again_is_another_instance),
        (Eager, contract.nothing_happens_until_it_is_run),
        (InTwoWrites, contract.a_stale_commit_changes_nothing),
        (InTwoWrites, contract.marks_belong_to_one_instance),
        (WithoutMarks, contract.a_duplicate_event_changes_nothing),
        (WithoutMarks, contract.marks_outlive_their_instance),
        (WithoutMarks, contract.a_commit_may_have_no_record_at_all),
        (NeverForgetting, contract.marks_are_remembered_until_they_expire),
        (NeverForgetting, contract.expired_dead_letters_go_with_later_commits),
        (Joining, contract.different_keys_never_share_a_record),
        (ByKey, contract.due_is_ordered_and_bounded),
        (ForAllJobs, contract.due_and_next_due_know_only_the_jobs_they_are_asked_for),
        (TooEarly, contract.due_is_ordered_and_bounded),
        (Including, contract.next_due_looks_behind_an_instant),
        (KeepingAlarms, contract.alarms_follow_their_record),
        (Overlapping, contract.instances_come_in_pages),
        (NewestFirst, contract.events_come_back_in_the_order_of_their_commits),
        (Forgetful, contract.events_come_back_in_the_order_of_their_commits),
        (Renumbering, contract.dead_letters_are_numbered_and_kept),
    ],
)
def test_a_broken_storage_is_found_out(broken: MakeStorage, check: StorageCheck) -> None:
    """Each check fails on a storage that breaks what it checks."""
    with pytest.raises(AssertionError):
        run_storage_check(check, broken)


def test_the_sentence_that_is_broken_is_told() -> None:
    """The error of the whole suite is the sentence that the storage does not keep, and what was found."""
    with pytest.raises(AssertionError, match=r"longest overdue first, .*: expected \[.*\], found \["):
        check_storage(ByKey)


def test_a_storage_that_fails_fails_the_check() -> None:
    """A typed error where there should be none is a broken contract too, and names its check."""

    class Failing(MemoryStorage):
        def load(self, key: Key) -> Effect[Any, StorageError]:
            return Effect.fail(StorageError("load", "no disk"))

    with pytest.raises(AssertionError, match=r"a_new_storage_is_empty: failed with StorageError: .*no disk"):
        check_storage(Failing)
