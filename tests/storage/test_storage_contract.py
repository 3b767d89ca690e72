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
from durable_effect_jobs.instance import Claim, Claimed, Commit, Due, Instance, Key, Lease, to_micros
from durable_effect_jobs.storage import Survey
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


_sent = count()


# -- storages that break it ----------------------------------------------------------------------------


class Overwriting(MemoryStorage):
    """Writes whatever it is given."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write(before: Instance | None) -> Effect[int, Any]:
            return super(Overwriting, self).commit(attrs.evolve(commit, before=before))

        return self.load(commit.key).flat_map(write)


class TakingFormerLives(MemoryStorage):
    """Compares revisions and forgets that ids are used again."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write(stored: Instance | None) -> Effect[int, Any]:
            same = (
                stored is not None and commit.before is not None and stored.revision == commit.before.revision
            )
            before = stored if same else commit.before
            return super(TakingFormerLives, self).commit(attrs.evolve(commit, before=before))

        return self.load(commit.key).flat_map(write)


class Eager(MemoryStorage):
    """Commits when it is called, not when its effect is run."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        outcome = super().commit(commit).run_sync_exit()
        return Effect.suspend(lambda: from_exit(outcome))


class InTwoWrites(MemoryStorage):
    """Remembers the mark, and only then looks whether the rest can be written."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        rest = super().commit(commit)
        if commit.mark is None:
            return rest
        key = Key("task", "marks", "all")
        mark = Commit(
            key=key, before=None, after=None, at=commit.at, mark=commit.mark, token=f"mark of {commit.token}"
        )
        return super().commit(mark).ignore().and_then(rest)

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        return super().is_marked(Key("task", "marks", "all"), event_id, now)


class WithoutMarks(MemoryStorage):
    """Takes every event for news."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        return super().commit(attrs.evolve(commit, mark=None))


class NeverForgetting(MemoryStorage):
    """Remembers marks and dead letters for ever."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
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

    def due(self, *args: Any) -> Effect[list[Due], StorageError]:
        return super().due(*args).map(lambda due: sorted(due, key=lambda one: one.key))


class ForAllJobs(MemoryStorage):
    """Gives what is due of all jobs."""

    def due(self, now: datetime, limit: int, jobs: Any) -> Effect[list[Due], StorageError]:
        return self.jobs().flat_map(lambda known: super(ForAllJobs, self).due(now, limit, known))


class TooEarly(MemoryStorage):
    """Takes a second for nothing."""

    def due(self, now: datetime, limit: int, jobs: Any) -> Effect[list[Due], StorageError]:
        return super().due(now + timedelta(seconds=1), limit, jobs)


class KeepingAlarms(MemoryStorage):
    """Moves alarms, but clears none."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
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


def _comparing(*fields: str) -> Callable[[MemoryStorage, Commit], Effect[int, Any]]:
    """A commit that compares these of incarnation, revision and fence, and takes the others as they come."""

    def commit(self: MemoryStorage, commit: Commit) -> Effect[int, Any]:
        def write(stored: Instance | None) -> Effect[int, Any]:
            before = commit.before
            if stored is not None and before is not None:
                before = attrs.evolve(stored, **{field: getattr(before, field) for field in fields})
            return MemoryStorage.commit(self, attrs.evolve(commit, before=before))

        return self.load(commit.key).flat_map(write)

    return commit


class WithoutFence(MemoryStorage):
    """Compares incarnations and revisions."""

    commit = _comparing("incarnation", "revision")


class WithoutRevision(MemoryStorage):
    """Compares incarnations and fences."""

    commit = _comparing("incarnation", "fence")


class UnfencedRemoving(MemoryStorage):
    """Removes whatever is there."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        if commit.after is not None:
            return super().commit(commit)
        return _comparing("incarnation", "revision")(self, commit)


class SendingTwice(MemoryStorage):
    """Knows no commit again."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write() -> Effect[int, Any]:
            return super(SendingTwice, self).commit(
                attrs.evolve(commit, token=f"{commit.token}-{next(_sent)}")
            )

        return Effect.suspend(write)


class DoublingEvents(MemoryStorage):
    """Writes the events of a commit that it knows already."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write(answer: int) -> int:
            self._outbox.update({event.event_id: event for event in commit.events})
            return answer

        return super().commit(commit).map(write)


class EventsFirst(MemoryStorage):
    """Writes the events, and only then looks whether the rest can be written."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write() -> Effect[int, Any]:
            self._outbox.update({event.event_id: event for event in commit.events})
            return super(EventsFirst, self).commit(attrs.evolve(commit, events=()))

        return Effect.suspend(write)


class WithoutEvents(MemoryStorage):
    """Keeps no events."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        return super().commit(attrs.evolve(commit, events=()))


class WithoutReceipts(MemoryStorage):
    """Knows no removal again."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def forget(_: object) -> None:
            self._receipts.forget_expired(1 << 62)

        return super().commit(commit).tap(lambda answer: Effect.sync(lambda: forget(answer)))


class ForgettingReceipts(MemoryStorage):
    """Remembers removals for half an hour."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write() -> Effect[int, Any]:
            self._receipts.forget_expired(to_micros(commit.at) + 1_800_000_000)
            return super(ForgettingReceipts, self).commit(commit)

        return Effect.suspend(write)


class AnsweringTheFence(MemoryStorage):
    """Answers a commit that is sent again with the fence of whoever runs the instance now."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def fence(stored: Instance | None) -> int:
            return 0 if stored is None else stored.fence

        return super().commit(commit).and_then(self.load(commit.key)).map(fence)


class KeepingLeases(MemoryStorage):
    """Does not free a record with a commit."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        before, after = commit.before, commit.after
        if before is not None and after is not None and after.lease is None:
            after = attrs.evolve(after, lease=before.lease)
        return super().commit(attrs.evolve(commit, after=after))


class LosingLeases(MemoryStorage):
    """Takes no record with a commit."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        after = commit.after and attrs.evolve(commit.after, lease=None)
        return super().commit(attrs.evolve(commit, after=after))


class FencesOfOneInstance(MemoryStorage):
    """Counts the fences of an instance from its birth."""

    def commit(self, commit: Commit) -> Effect[int, Any]:
        def write() -> Effect[int, Any]:
            if commit.before is None:
                self._fence = 0
            return super(FencesOfOneInstance, self).commit(commit)

        return Effect.suspend(write)


class Claiming(MemoryStorage):
    """Claims in ways of its own."""

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        def judge() -> Effect[Claimed | None, StorageError]:
            row = self._row(claim.key)
            if row is not None:
                self.prepare(row, claim)
            claimed = super(Claiming, self).claim(claim)
            return claimed if row is None else claimed.map(lambda found: found and self.change(row, found))

        return Effect.suspend(judge)

    def prepare(self, row: Any, claim: Claim) -> None:
        """What happens before the claim."""

    def change(self, row: Any, claimed: Claimed) -> Claimed:
        """What happens to the record that was claimed."""
        record = self.changed(claimed)
        self._job_of(record).replace(row, record)
        return attrs.evolve(claimed, instance=record)

    def changed(self, claimed: Claimed) -> Instance:
        """The record that was claimed."""
        return claimed.instance


class StealingLeases(Claiming):
    """Claims what is due by its alarm, under a lease or not."""

    def prepare(self, row: Any, claim: Claim) -> None:
        if row.record.is_due(claim.now):
            row.record = attrs.evolve(row.record, lease=None)


class ClaimingPoison(Claiming):
    """Claims what is in quarantine."""

    def prepare(self, row: Any, claim: Claim) -> None:
        row.record = attrs.evolve(row.record, quarantined=False)


class ClearingAlarms(Claiming):
    """Takes the alarm with the claim."""

    def changed(self, claimed: Claimed) -> Instance:
        return attrs.evolve(claimed.instance, alarm=None)


class KeepingFences(Claiming):
    """Claims under the fence that was there."""

    def prepare(self, row: Any, claim: Claim) -> None:
        self._fence = row.record.fence - 1


class CountingNoCrash(Claiming):
    """Never counts a crash."""

    def changed(self, claimed: Claimed) -> Instance:
        return attrs.evolve(claimed.instance, crashes=claimed.instance.crashes - claimed.recovered)


class CountingItsOwn(Claiming):
    """Counts every lease that was over as a crash."""

    def prepare(self, row: Any, claim: Claim) -> None:
        lease = row.record.lease
        row.record = attrs.evolve(row.record, lease=lease and attrs.evolve(lease, owner=f"not {lease.owner}"))


class ClaimingLate(Claiming):
    """Takes later than for at."""

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        return super().claim(attrs.evolve(claim, now=claim.now - timedelta(microseconds=1)))


class ClaimingEarly(Claiming):
    """Takes a microsecond for nothing."""

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        return super().claim(attrs.evolve(claim, now=claim.now + timedelta(microseconds=1)))


class RenewingForAnybody(MemoryStorage):
    """Renews a lease, whoever asks for it."""

    def _renew(self, key: Key, lease: Lease, fence: int) -> bool:
        stored = self._stored(key)
        owner = lease.owner if stored is None or stored.lease is None else stored.lease.owner
        return super()._renew(key, attrs.evolve(lease, owner=owner), fence)


class RenewingWithoutFence(MemoryStorage):
    """Renews a lease of the owner, of this run or a later one."""

    def _renew(self, key: Key, lease: Lease, fence: int) -> bool:
        stored = self._stored(key)
        return super()._renew(key, lease, fence if stored is None else stored.fence)


class RenewingInWords(MemoryStorage):
    """Says that it renewed."""

    def renew(self, owner: str, held: Any, until: datetime) -> Effect[frozenset[Key], StorageError]:
        return Effect.succeed(frozenset(key for key, _ in held))


class ReleasingWithoutFence(MemoryStorage):
    """Leaves the fence where it is when a lease is given up."""

    def _release(self, owner: str, keys: Any) -> None:
        fences = {row.record.key: row.record.fence for row in self._rows()}
        super()._release(owner, keys)
        for row in self._rows():
            row.record = attrs.evolve(row.record, fence=fences[row.record.key])


class ReleasingForAnybody(MemoryStorage):
    """Releases a lease, whoever asks for it."""

    def _release(self, owner: str, keys: Any) -> None:
        owners = {row.record.lease.owner for row in self._rows() if row.record.lease is not None}
        for one in owners:
            super()._release(one, keys)


class ReleasingAll(MemoryStorage):
    """Releases all that the owner holds, whatever the keys."""

    def _release(self, owner: str, keys: Any) -> None:
        super()._release(owner, None)


class CountingReleases(MemoryStorage):
    """Counts a release as a crash."""

    def _release(self, owner: str, keys: Any) -> None:
        held = [row for row in self._rows() if row.record.lease is not None]
        super()._release(owner, keys)
        for row in held:
            row.record = attrs.evolve(row.record, crashes=row.record.crashes + (row.record.lease is None))


class BlindToSuspects(MemoryStorage):
    """Trusts everybody."""

    def due(self, *args: Any) -> Effect[list[Due], StorageError]:
        return super().due(*args).map(lambda due: [attrs.evolve(one, suspect=False) for one in due])


class OnlyAlarms(MemoryStorage):
    """Finds alarms, and no lease that is over."""

    def due(self, *args: Any) -> Effect[list[Due], StorageError]:
        def free(one: Due) -> bool:
            stored = self._stored(one.key)
            return stored is not None and stored.lease is None

        return super().due(*args).map(lambda due: [one for one in due if free(one)])


class Unworried(MemoryStorage):
    """Finds no violation."""

    def survey(self, now: datetime, *, lease: timedelta) -> Effect[Survey, StorageError]:
        return super().survey(now, lease=lease).map(lambda found: attrs.evolve(found, violations=()))


class Talkative(MemoryStorage):
    """Takes a survey of a moment later."""

    def survey(self, now: datetime, *, lease: timedelta) -> Effect[Survey, StorageError]:
        return super().survey(now + timedelta(microseconds=1), lease=lease)


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
        (WithoutFence, contract.incarnation_revision_and_fence_are_compared),
        (WithoutFence, contract.a_lease_that_is_over_is_recovered_and_counted),
        (WithoutRevision, contract.incarnation_revision_and_fence_are_compared),
        (WithoutRevision, contract.a_stale_commit_changes_nothing),
        (TakingFormerLives, contract.incarnation_revision_and_fence_are_compared),
        (UnfencedRemoving, contract.incarnation_revision_and_fence_are_compared),
        (UnfencedRemoving, contract.a_release_gives_leases_back),
        (SendingTwice, contract.a_commit_that_is_sent_again_happens_once),
        (SendingTwice, contract.a_commit_that_is_sent_at_once_again_happens_once),
        (SendingTwice, contract.a_birth_that_comes_after_the_removal_is_no_birth),
        (DoublingEvents, contract.events_that_were_sent_stay_sent),
        (EventsFirst, contract.a_stale_commit_changes_nothing),
        (EventsFirst, contract.one_of_concurrent_commits_with_a_mark_wins),
        (WithoutMarks, contract.one_of_concurrent_commits_with_a_mark_wins),
        (WithoutEvents, contract.events_come_back_in_the_order_of_their_commits),
        (WithoutReceipts, contract.a_removal_that_comes_after_a_birth_removes_nothing),
        (WithoutReceipts, contract.a_birth_that_comes_after_the_removal_is_no_birth),
        (ForgettingReceipts, contract.removals_are_known_for_an_hour),
        (AnsweringTheFence, contract.a_commit_that_is_sent_again_learns_no_fence_of_another),
        (Overwriting, contract.a_commit_that_comes_after_another_conflicts),
        (KeepingLeases, contract.a_commit_without_a_lease_frees_the_record),
        (LosingLeases, contract.a_commit_with_a_lease_takes_the_record),
        (FencesOfOneInstance, contract.fences_only_grow),
        (StealingLeases, contract.a_live_lease_cannot_be_claimed),
        (StealingLeases, contract.one_of_concurrent_claims_wins),
        (ClaimingPoison, contract.a_claim_refuses_what_is_not_due),
        (ClearingAlarms, contract.a_claim_takes_what_is_due),
        (KeepingFences, contract.a_claim_takes_what_is_due),
        (KeepingFences, contract.a_lease_that_is_over_is_recovered_and_counted),
        (CountingNoCrash, contract.a_lease_that_is_over_is_recovered_and_counted),
        (CountingItsOwn, contract.a_lease_that_is_over_is_recovered_and_counted),
        (ClaimingLate, contract.a_claim_takes_what_is_due),
        (ClaimingEarly, contract.a_claim_takes_what_is_due),
        (ClaimingEarly, contract.a_live_lease_cannot_be_claimed),
        (RenewingForAnybody, contract.a_lease_is_renewed_by_its_holder),
        (RenewingWithoutFence, contract.a_lease_is_renewed_by_its_holder),
        (RenewingInWords, contract.a_lease_is_renewed_by_its_holder),
        (ReleasingWithoutFence, contract.a_release_gives_leases_back),
        (ReleasingWithoutFence, contract.fences_only_grow),
        (ReleasingForAnybody, contract.a_release_gives_leases_back),
        (ReleasingAll, contract.a_release_gives_leases_back),
        (CountingReleases, contract.a_release_gives_leases_back),
        (BlindToSuspects, contract.due_knows_suspects),
        (OnlyAlarms, contract.leases_that_are_over_are_due_in_their_order),
        (OnlyAlarms, contract.a_lease_decides_when_an_instance_wakes),
        (Unworried, contract.a_survey_finds_what_must_not_be),
        (Talkative, contract.a_survey_counts),
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
