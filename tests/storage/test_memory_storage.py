"""MemoryStorage: what it promises beyond the contract."""

import logging
from datetime import datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage_scene import DAY, NOON, SECOND, USER, birth, born, change, fact, task, token

from durable_effect_jobs.errors import StorageError
from durable_effect_jobs.instance import Alarm, Claim, Commit, Due, Instance, Lease
from durable_effect_jobs.storage import JobName
from durable_effect_jobs.storage.memory import MemoryStorage

LEASE = timedelta(seconds=30)


def test_is_ready_at_once() -> None:
    """Nothing waits: every call can be run without an asyncio loop."""
    storage = MemoryStorage()
    storage.commit(birth(born())).run_sync()
    assert storage.load(USER).run_sync() == born()


def test_the_outbox_drops_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    """A full outbox drops its oldest events, counts them, and warns for the first and each thousandth."""
    storage = MemoryStorage(outbox_limit=3)
    present = born()
    storage.commit(birth(present)).run_sync()
    with caplog.at_level(logging.WARNING):
        for n in range(1_504):
            after = present.evolve()
            storage.commit(change(present, after, events=(fact(f"event-{n}"),))).run_sync()
            present = after
    left = [event.event_id for event in storage.pending_events(10).run_sync()]
    assert left == ["event-1501", "event-1502", "event-1503"]
    assert storage.dropped_events == 1_501
    assert len(caplog.records) == 2


def test_an_event_id_is_used_once() -> None:
    """A commit that repeats the id of a waiting event fails, and changes nothing."""
    storage = MemoryStorage()
    storage.commit(birth(born(), events=(fact("e"),))).run_sync()
    for events in ((fact("e"),), (fact("f"), fact("f"))):
        error = storage.commit(birth(born(task("x")), events=events)).flip().run_sync()
        assert isinstance(error, StorageError)
    assert storage.jobs().run_sync() == {("continuous", "counter"): 1}


def test_needs_room_for_an_event() -> None:
    """An outbox without room is refused when the storage is made."""
    with pytest.raises(ValueError, match="outbox_limit"):
        MemoryStorage(outbox_limit=0)


def test_alarms_that_move_take_no_more_room_than_those_that_stay() -> None:
    """Moving one alarm thousands of times, to and fro, leaves a bounded number of former alarms behind."""
    storage = MemoryStorage()
    present = born(USER, NOON)
    storage.commit(birth(present)).run_sync()
    for n in range(5_000):
        after = present.evolve(alarm=Alarm(NOON - n * SECOND, "schedule"))
        storage.commit(change(present, after)).run_sync()
        present = after
    assert len(storage._jobs["continuous", "counter"].wakes._heap) < 100
    assert storage.due(NOON, 10, [("continuous", "counter")]).run_sync() == [Due(USER, suspect=False)]


def test_many_alarms_are_found_in_order() -> None:
    """Ten thousand instances, due in an order that is neither that of their keys nor of their commits."""
    storage = MemoryStorage()
    for n in range(10_000):
        storage.commit(birth(born(task(str(n)), NOON + (n * 7_919 % 10_000) * SECOND))).run_sync()
    due = storage.due(NOON + 4_999 * SECOND, 10_000, [("task", "t")]).run_sync()
    assert [int(one.key.id) * 7_919 % 10_000 for one in due] == list(range(5_000))


def test_what_was_removed_takes_no_room_after_an_hour() -> None:
    """The tokens of removals are forgotten in passing, by commits an hour later, and only then."""
    storage = MemoryStorage()
    for n in range(50):
        there = born(task(str(n)))
        storage.commit(birth(there)).run_sync()
        storage.commit(change(there, None)).run_sync()
    hour = timedelta(hours=1)
    storage.commit(birth(born(task("early")), at=NOON + hour - timedelta(microseconds=1))).run_sync()
    assert len(storage._receipts) == 100
    storage.commit(birth(born(task("late")), at=NOON + hour)).run_sync()
    assert len(storage._receipts) == 0


def test_take_over_ends_every_lease() -> None:
    """After a crash of the only process: what it ran is due at once, and the next one counts the crash."""
    storage = MemoryStorage()
    for name, until in (("live", NOON + DAY), ("over", NOON - SECOND)):
        storage.commit(birth(attrs.evolve(born(task(name)), lease=Lease("former", until)))).run_sync()
    idle = born(task("idle"), NOON + DAY)
    storage.commit(birth(idle)).run_sync()
    storage.take_over(NOON)
    due = storage.due(NOON, 10, [("task", "t")]).run_sync()
    assert due == [Due(task("over"), suspect=False), Due(task("live"), suspect=False)]
    assert storage.load(task("idle")).run_sync() == idle
    claimed = storage.claim(Claim(task("live"), "present", NOON, NOON + LEASE)).run_sync()
    assert claimed is not None
    assert claimed.recovered
    assert claimed.instance.crashes == 1


def test_a_survey_finds_broken_bookkeeping() -> None:
    """What no commit can bring about: a lost wake-up, a record without a step, a fence that was not given."""
    storage = MemoryStorage()
    for name in ("I1", "I3", "I4"):
        storage.commit(birth(born(task(name), NOON + DAY))).run_sync()
    assert storage.survey(NOON, lease=LEASE).run_sync().violations == ()
    job = storage._jobs["task", "t"]
    job.wakes.set("I1", None)
    job.rows["I3"].record = attrs.evolve(job.rows["I3"].record, revision=0)
    job.rows["I4"].record = attrs.evolve(job.rows["I4"].record, fence=1)
    found = storage.survey(NOON, lease=LEASE).run_sync().violations
    assert [one.invariant for one in found] == ["I1", "I3", "I4"]
    for one in found:
        assert f"task:t:{one.invariant}" in one.detail


seconds = st.integers(-5, 5).map(lambda n: NOON + n * SECOND)


@st.composite
def records(draw: st.DrawFn) -> Instance:
    """A record with any of what decides when it wakes."""
    return attrs.evolve(
        born(task(str(draw(st.integers(0, 3)))), draw(st.none() | seconds)),
        lease=draw(st.none() | st.builds(Lease, st.sampled_from(["a", "b"]), seconds)),
        quarantined=draw(st.booleans()),
        crashes=draw(st.integers(0, 2)),
    )


@given(st.lists(records(), max_size=12), seconds, seconds)
def test_wakes_when_the_record_says(written: list[Instance], now: datetime, after: datetime) -> None:
    """Whatever was written: due, next_due, survey and claim agree with the wake_at of the records."""
    storage = MemoryStorage()
    for record in written:
        before = storage.load(record.key).run_sync()
        commit = Commit(key=record.key, before=before, after=record, at=NOON, token=token())
        storage.commit(commit).run_sync()
    jobs: list[JobName] = [("task", "t")]
    stored = storage.instances().run_sync()
    wakes = sorted((one.wake_at, one.key, one.crashes > 0) for one in stored if one.wake_at is not None)
    due = [Due(key, suspect) for at, key, suspect in wakes if at <= now]
    assert storage.due(now, 100, jobs).run_sync() == due
    assert storage.next_due(jobs).run_sync() == min((at for at, _, _ in wakes), default=None)
    later = min((at for at, _, _ in wakes if at > after), default=None)
    assert storage.next_due(jobs, after=after).run_sync() == later
    assert storage.survey(now, lease=LEASE).run_sync().overdue == len(due)
    claims = [(one.key, storage.claim(Claim(one.key, "c", now, now + LEASE)).run_sync()) for one in stored]
    assert {key for key, claimed in claims if claimed is not None} == {one.key for one in due}
