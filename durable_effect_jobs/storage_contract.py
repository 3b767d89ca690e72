"""The contract of :class:`~durable_effect_jobs.storage.Storage`, as checks for any adapter.

```python
check_storage(MemoryStorage)
check_storage(lambda: SqliteStorage.open(":memory:"))
```

or, one test for each sentence of the contract:

```python
@pytest.mark.parametrize("check", STORAGE_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: StorageCheck) -> None:
    run_storage_check(check, MyStorage.open)
```
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import attrs

from durable_effect import Do, Effect, Need, TypedError
from durable_effect.scope import Scope
from durable_effect_jobs.errors import DuplicateEventError, StorageError
from durable_effect_jobs.events import (
    DebounceFlushed,
    DebounceStarted,
    Event,
    Failure,
    JobExecuted,
    JobFailed,
    JobRetryExhausted,
    JobStarted,
    JobTerminated,
    TaskScheduled,
)
from durable_effect_jobs.instance import Alarm, Commit, DeadLetter, Instance, Key, Mark
from durable_effect_jobs.storage import Conflict, JobName, Storage

__all__ = ["STORAGE_CHECKS", "MakeStorage", "StorageCheck", "check_storage", "run_storage_check"]

Refusal: TypeAlias = StorageError | Conflict | DuplicateEventError
StorageCheck: TypeAlias = Callable[[Storage], Effect[None, Refusal]]
"""One sentence of the contract: an effect that raises ``AssertionError`` when a storage does not keep it."""

MakeStorage: TypeAlias = Callable[[], "Storage | Effect[Storage, StorageError, Need[Scope]]"]
"""Makes a new, empty storage with each call: the storage itself, or an effect that opens it in a scope."""


def check_storage(make: MakeStorage) -> None:
    """Put a storage through all of :data:`STORAGE_CHECKS`, each on a new one.

    Raises ``AssertionError`` with the sentence that it does not keep. Runs asyncio loops of its own, so
    call it where none is running.
    """
    for check in STORAGE_CHECKS:
        run_storage_check(check, make)


def run_storage_check(check: StorageCheck, make: MakeStorage) -> None:
    """Put a new storage through one check."""

    def begin() -> Effect[Storage, StorageError, Need[Scope]]:
        made = make()
        return made if isinstance(made, Effect) else Effect.succeed(made)

    program: Effect[None, Refusal] = Effect.suspend(begin).flat_map(check).scoped()
    try:
        program.run()
    except TypedError as error:
        raise AssertionError(f"{check.__name__}: failed with {type(error).__name__}: {error}") from error


# -- the scene ---------------------------------------------------------------------------------------

_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)

_COUNTER: JobName = ("continuous", "counter")
_BATCHER: JobName = ("debounce", "batcher")
_USER = Key("continuous", "counter", "user-1")


def _demand(kept: bool, sentence: str) -> None:
    if not kept:
        raise AssertionError(sentence)


def _equal(found: object, expected: object, sentence: str) -> None:
    if found != expected:
        raise AssertionError(f"{sentence}: expected {expected!r}, found {found!r}")


def _refused(effect: Effect[Any, Refusal]) -> Effect[Refusal | None]:
    return effect.fold(lambda error: error, lambda _: None)


def _born(
    key: Key, alarm_at: datetime | None = None, *, incarnation: str = "first", state: bytes = b"{}"
) -> Instance:
    alarm = None if alarm_at is None else Alarm(alarm_at, "schedule")
    return Instance(key=key, incarnation=incarnation, created_at=_NOON, state=state, alarm=alarm)


def _birth(instance: Instance, **parts: Any) -> Commit:
    return attrs.evolve(Commit(key=instance.key, before=None, after=instance, at=_NOON), **parts)


def _change(before: Instance, after: Instance | None, **parts: Any) -> Commit:
    return attrs.evolve(Commit(key=before.key, before=before, after=after, at=_NOON), **parts)


def _fact(event_id: str, key: Key = _USER) -> JobStarted:
    return JobStarted(
        timestamp=_NOON, instance_id=key.instance_id, kind=key.kind, job=key.job, id=key.id, event_id=event_id
    )


def _letter(instance: Instance, *, expires_at: datetime = _NOON + 30 * _DAY) -> DeadLetter:
    return DeadLetter(instance=instance, reason="max_attempts", at=_NOON, expires_at=expires_at)


@Effect.gen
def _belongings(storage: Storage) -> Do[tuple[object, ...], StorageError]:
    """All that a refused commit could have left behind."""
    instance = yield from storage.load(_USER)
    events = yield from storage.pending_events(100)
    letters = yield from storage.dead_letters()
    remembered = yield from storage.is_marked(_USER, "new-event", _NOON)
    next_at = yield from storage.next_due([_COUNTER])
    return instance, events, letters, remembered, next_at


def _everything(before: Instance | None, after: Instance | None, **parts: Any) -> Commit:
    """A commit that has something of everything."""
    commit = Commit(
        key=_USER,
        before=before,
        after=after,
        at=_NOON,
        events=(_fact("event-of-a-refused-commit"),),
        mark=Mark("new-event", _NOON + _DAY),
        dead_letter=_letter(_born(_USER)),
    )
    return attrs.evolve(commit, **parts)


# -- records -----------------------------------------------------------------------------------------


@Effect.gen
def a_new_storage_is_empty(storage: Storage) -> Do[None, Refusal]:
    """Nothing is there at first."""
    _equal((yield from storage.load(_USER)), None, "load of a key without a record gives None")
    _equal((yield from storage.jobs()), {}, "a new storage knows no jobs")
    _equal((yield from storage.instances()), [], "a new storage lists no instances")
    _equal((yield from storage.due(_NOON, 10, [_COUNTER])), [], "nothing is due in a new storage")
    _equal((yield from storage.next_due([_COUNTER])), None, "a new storage has no next alarm")
    _equal((yield from storage.pending_events(10)), [], "the outbox of a new storage is empty")
    _equal((yield from storage.dead_letters()), [], "a new storage has no dead letters")
    _demand(not (yield from storage.is_marked(_USER, "e", _NOON)), "a new storage remembers no event")


@Effect.gen
def a_record_comes_back_as_it_was_written(storage: Storage) -> Do[None, Refusal]:
    """Every field survives, to the microsecond and to the byte."""
    odd = _NOON + 123_457 * _MICROSECOND
    full = Instance(
        key=_USER,
        incarnation="0198-a",
        created_at=odd,
        revision=7,
        state='{"name":"\\u0000 ünï\U0001f600"}'.encode() + bytes(range(256)),
        alarm=Alarm(odd + _SECOND, "retry"),
        pending=Alarm(odd - _SECOND, "schedule"),
        run_count=3,
        event_count=4,
        execute_count=5,
        scheduled_for=odd,
        missed_count=2,
        next_tick=odd + _DAY,
        flush_reason="maxEvents",
        failed_attempts=2,
        first_attempt_at=odd,
        undecodable_count=1,
        stopped=True,
        last_error=Failure("ValueError", "no \0 good", "Traceback …"),
    )
    bare = Instance(key=Key("task", "t", "x"), incarnation="i", created_at=_NOON)
    for instance in (full, bare):
        yield from storage.commit(_birth(instance))
        _equal((yield from storage.load(instance.key)), instance, "load gives the record that was committed")
    _equal((yield from storage.instances()), [full, bare], "instances gives the records that were committed")


@Effect.gen
def large_state_comes_back_whole(storage: Storage) -> Do[None, Refusal]:
    """A state of one MiB is stored like any other."""
    instance = _born(_USER, state=bytes(range(256)) * 4096)
    yield from storage.commit(_birth(instance))
    _equal((yield from storage.load(_USER)), instance, "a large record comes back whole")


@Effect.gen
def a_commit_replaces_the_record(storage: Storage) -> Do[None, Refusal]:
    """The record is what the last commit made it, and nothing is left of the one before."""
    first = _born(_USER, _NOON)
    second = first.evolve(state=b"[2]", alarm=None, run_count=1)
    yield from storage.commit(_birth(first))
    yield from storage.commit(_change(first, second))
    _equal((yield from storage.load(_USER)), second, "load gives the record as of the last commit")
    _equal(
        (yield from storage.instances()), [second], "a replaced record is listed once, as of the last commit"
    )
    _equal((yield from storage.next_due([_COUNTER])), None, "an alarm that was cleared is gone")


@Effect.gen
def a_commit_removes_the_record(storage: Storage) -> Do[None, Refusal]:
    """A commit without a new record removes the old one, alarm included."""
    first = _born(_USER, _NOON)
    yield from storage.commit(_birth(first))
    yield from storage.commit(_change(first, None))
    _equal((yield from storage.load(_USER)), None, "a removed record is gone")
    _equal((yield from storage.instances()), [], "a removed record is not listed")
    _equal((yield from storage.jobs()), {}, "a job without instances is not counted")
    _equal((yield from storage.due(_NOON + _DAY, 10, [_COUNTER])), [], "a removed record is never due")


@Effect.gen
def a_commit_may_have_no_record_at_all(storage: Storage) -> Do[None, Refusal]:
    """Absent before and after: the events and the mark are stored all the same."""
    yield from storage.commit(_everything(None, None))
    _equal((yield from storage.load(_USER)), None, "no record appears out of a commit without one")
    _equal(
        len((yield from storage.pending_events(10))), 1, "the events of a commit without a record are kept"
    )
    _demand((yield from storage.is_marked(_USER, "new-event", _NOON)), "its mark is kept")


@Effect.gen
def nothing_happens_until_it_is_run(storage: Storage) -> Do[None, Refusal]:
    """A method only describes; what it describes can be run again and is judged anew."""
    commit = storage.commit(_birth(_born(_USER)))
    load = storage.load(_USER)
    _equal((yield from load), None, "making a commit effect changes nothing")
    yield from commit
    _equal((yield from load), _born(_USER), "a load effect that is run again reads again")
    _equal(
        (yield from _refused(commit)), Conflict(_USER), "a commit effect that is run again is judged again"
    )


# -- atomicity ---------------------------------------------------------------------------------------


@Effect.gen
def a_stale_commit_changes_nothing(storage: Storage) -> Do[None, Refusal]:
    """``before`` is no longer what is stored: Conflict, and nothing of the commit is visible."""
    first = _born(_USER, _NOON)
    second = first.evolve(run_count=1)
    yield from storage.commit(_birth(first))
    yield from storage.commit(_change(first, second))
    scene = yield from _belongings(storage)
    for before, after in (
        (None, _born(_USER, _NOON - _DAY)),
        (None, None),
        (first, first.evolve(state=b"[]", alarm=None)),
        (first, None),
    ):
        error = yield from _refused(storage.commit(_everything(before, after)))
        _equal(error, Conflict(_USER), "a commit whose before is not what is stored fails with Conflict")
        _equal((yield from _belongings(storage)), scene, "a commit that fails with Conflict changes nothing")


@Effect.gen
def a_commit_on_a_removed_record_changes_nothing(storage: Storage) -> Do[None, Refusal]:
    """The record was removed meanwhile: Conflict, and it stays removed."""
    first = _born(_USER, _NOON)
    yield from storage.commit(_birth(first))
    yield from storage.commit(_change(first, None))
    scene = yield from _belongings(storage)
    for after in (first.evolve(), None):
        error = yield from _refused(storage.commit(_everything(first, after)))
        _equal(error, Conflict(_USER), "a commit on a record that was removed fails with Conflict")
        _equal((yield from _belongings(storage)), scene, "a removed record does not come back")


@Effect.gen
def an_id_that_is_used_again_is_another_instance(storage: Storage) -> Do[None, Refusal]:
    """Same key, same revision, another incarnation: a step of the former life conflicts."""
    former = _born(_USER, incarnation="former")
    present = _born(_USER, incarnation="present")
    yield from storage.commit(_birth(former))
    yield from storage.commit(_change(former, None))
    yield from storage.commit(_birth(present))
    for after in (former.evolve(), None):
        error = yield from _refused(storage.commit(_change(former, after)))
        _equal(error, Conflict(_USER), "a step of a former incarnation fails with Conflict")
    _equal((yield from storage.load(_USER)), present, "a step of a former incarnation changes nothing")


@Effect.gen
def a_duplicate_event_changes_nothing(storage: Storage) -> Do[None, Refusal]:
    """The mark is remembered: DuplicateEventError, and nothing of the commit is visible."""
    first = _born(_USER, _NOON)
    yield from storage.commit(_birth(first, mark=Mark("seen", _NOON + _DAY)))
    scene = yield from _belongings(storage)
    for after in (first.evolve(state=b"[]", alarm=None), None):
        again = Mark("seen", _NOON + 2 * _DAY)
        error = yield from _refused(storage.commit(_everything(first, after, mark=again)))
        _equal(error, DuplicateEventError("seen"), "a commit whose mark is remembered fails as a duplicate")
        _equal((yield from _belongings(storage)), scene, "a duplicate changes nothing")
    late = yield from storage.is_marked(_USER, "seen", _NOON + _DAY)
    _demand(not late, "a duplicate does not extend the time its event is remembered")


@Effect.gen
def one_of_concurrent_commits_wins(storage: Storage) -> Do[None, Refusal]:
    """Many commits on the same ``before``: exactly one succeeds, the others conflict."""
    first = _born(_USER)
    yield from storage.commit(_birth(first))
    rivals = [
        storage.commit(_change(first, first.evolve(run_count=n), events=(_fact(f"event-{n}"),)))
        for n in range(20)
    ]
    errors = yield from Effect.all([_refused(rival) for rival in rivals], concurrency="unbounded")
    _equal(errors.count(None), 1, "exactly one of concurrent commits on one record succeeds")
    _equal(errors.count(Conflict(_USER)), 19, "the other ones fail with Conflict")
    winner = errors.index(None)
    _equal((yield from storage.load(_USER)), first.evolve(run_count=winner), "the record is the winner's")
    events = yield from storage.pending_events(100)
    _equal([event.event_id for event in events], [f"event-{winner}"], "only the winner's events are stored")


@Effect.gen
def one_of_concurrent_births_wins(storage: Storage) -> Do[None, Refusal]:
    """Many commits that each want to be the first of a key: exactly one succeeds."""
    births = [storage.commit(_birth(_born(_USER, incarnation=f"life-{n}"))) for n in range(20)]
    errors = yield from Effect.all([_refused(birth) for birth in births], concurrency="unbounded")
    _equal(errors.count(None), 1, "exactly one of concurrent births of one key succeeds")
    born = yield from storage.load(_USER)
    _equal(born and born.incarnation, f"life-{errors.index(None)}", "the record is the one that succeeded")


@Effect.gen
def commits_of_different_instances_all_succeed(storage: Storage) -> Do[None, Refusal]:
    """Different keys never get into each other's way."""
    instances = [_born(Key("task", "t", f"{n:03}"), _NOON + n * _SECOND) for n in range(200)]
    yield from Effect.all([storage.commit(_birth(i)) for i in instances], concurrency="unbounded")
    _equal(
        (yield from storage.instances(limit=500)),
        instances,
        "concurrent commits of different keys all succeed",
    )


@Effect.gen
def a_refused_commit_leaves_its_neighbours_alone(storage: Storage) -> Do[None, Refusal]:
    """Commits that run at the same time as a refused one are stored as if it had not been."""
    taken = _born(_USER)
    yield from storage.commit(_birth(taken, mark=Mark("seen", _NOON + _DAY)))
    good = [_born(Key("task", "t", f"{n:02}")) for n in range(20)]
    commits: list[Effect[None, Refusal]] = []
    for instance in good:
        commits.append(storage.commit(_birth(instance, events=(_fact(instance.key.id, instance.key),))))
        commits.append(storage.commit(_everything(None, taken)))
        commits.append(storage.commit(_everything(taken, None, mark=Mark("seen", _NOON + _DAY))))
    errors = yield from Effect.all([_refused(commit) for commit in commits], concurrency="unbounded")
    refusals = [None, Conflict(_USER), DuplicateEventError("seen")]
    _equal(errors, refusals * 20, "each of concurrent commits has its own fate")
    _equal((yield from storage.load(_USER)), taken, "the refused ones change nothing")
    _equal((yield from storage.instances(job=("task", "t"))), good, "the other ones are stored")
    events = {event.event_id for event in (yield from storage.pending_events(100))}
    _equal(events, {instance.key.id for instance in good}, "only events of commits that succeeded are stored")


@Effect.gen
def an_interrupted_commit_happened_or_did_not(storage: Storage) -> Do[None, Refusal]:
    """When the interruption is through, the commit has a fate, and all of it the same one."""
    for n in range(10):
        key = Key("task", "t", str(n))
        event_id = f"event-{n}"
        commit = _birth(_born(key), events=(_fact(event_id, key),), mark=Mark(event_id, _NOON + _DAY))
        fiber = yield from storage.commit(commit).fork()
        yield from Effect.yield_now()
        yield from fiber.interrupt()
        happened = (yield from storage.load(key)) is not None
        events = [event.event_id for event in (yield from storage.pending_events(100))]
        _equal(
            event_id in events, happened, "an interrupted commit stores its record and its events, or neither"
        )
        marked = yield from storage.is_marked(key, event_id, _NOON)
        _equal(marked, happened, "an interrupted commit stores its record and its mark, or neither")
        yield from _refused(storage.commit(commit))
        _equal((yield from storage.load(key)), _born(key), "an interrupted commit can be made again")


# -- marks -------------------------------------------------------------------------------------------


@Effect.gen
def marks_are_remembered_until_they_expire(storage: Storage) -> Do[None, Refusal]:
    """Up to ``expires_at``, not at it; then the event is news again."""
    first = _born(_USER)
    expires_at = _NOON + _DAY
    yield from storage.commit(_birth(first, mark=Mark("e", expires_at)))
    _demand(
        (yield from storage.is_marked(_USER, "e", expires_at - _MICROSECOND)), "a mark holds until it expires"
    )
    _demand(not (yield from storage.is_marked(_USER, "e", expires_at)), "an expired mark is not remembered")
    second = first.evolve()
    again = _change(first, second, at=expires_at, mark=Mark("e", expires_at + _DAY))
    yield from storage.commit(again)
    _demand(
        (yield from storage.is_marked(_USER, "e", expires_at)),
        "an event can be marked again after it expired",
    )
    too_early = _change(second, second.evolve(), at=expires_at + _SECOND, mark=Mark("e", expires_at + _DAY))
    error = yield from _refused(storage.commit(too_early))
    _equal(error, DuplicateEventError("e"), "an event that was marked again is remembered again")


@Effect.gen
def marks_outlive_their_instance(storage: Storage) -> Do[None, Refusal]:
    """An event stays known when its instance is gone, and when the id is used again."""
    first = _born(_USER)
    yield from storage.commit(_birth(first, mark=Mark("e", _NOON + _DAY)))
    yield from storage.commit(_change(first, None))
    _demand((yield from storage.is_marked(_USER, "e", _NOON)), "a mark outlives its instance")
    reborn = _birth(_born(_USER, incarnation="second"), mark=Mark("e", _NOON + _DAY))
    error = yield from _refused(storage.commit(reborn))
    _equal(error, DuplicateEventError("e"), "a mark outlives its instance")


@Effect.gen
def marks_belong_to_one_instance(storage: Storage) -> Do[None, Refusal]:
    """The same event id on another key is another event."""
    yield from storage.commit(_birth(_born(_USER), mark=Mark("e", _NOON + _DAY)))
    for other in (
        Key("continuous", "counter", "user-2"),
        Key("task", "counter", "user-1"),
        Key("continuous", "c", "user-1"),
    ):
        _demand(not (yield from storage.is_marked(other, "e", _NOON)), "a mark belongs to one instance")
        yield from storage.commit(_birth(_born(other), mark=Mark("e", _NOON + _DAY)))


# -- alarms ------------------------------------------------------------------------------------------


@Effect.gen
def due_is_ordered_and_bounded(storage: Storage) -> Do[None, Refusal]:
    """At or before now, longest overdue first, then by key, no more than the limit."""
    alarms: list[tuple[Key, datetime | None]] = [
        (Key("task", "t", "late"), _NOON - _DAY),
        (Key("continuous", "counter", "b"), _NOON - _SECOND),
        (Key("continuous", "counter", "c"), _NOON - _SECOND),
        (Key("debounce", "batcher", "a"), _NOON - _SECOND),
        (Key("continuous", "counter", "a"), _NOON),
        (Key("continuous", "counter", "future"), _NOON + _MICROSECOND),
        (Key("continuous", "counter", "idle"), None),
    ]
    for key, at in reversed(alarms):
        yield from storage.commit(_birth(_born(key, at)))
    jobs: list[JobName] = [_COUNTER, _BATCHER, ("task", "t")]
    expected = [key for key, _ in alarms[:5]]
    for limit in (0, 1, 3, 5, 100):
        found = yield from storage.due(_NOON, limit, jobs)
        _equal(
            found,
            expected[:limit],
            "due gives what is due, longest overdue first, then by key, up to the limit",
        )
    _equal((yield from storage.due(_NOON, 100, jobs)), expected, "asking what is due changes nothing")


@Effect.gen
def due_and_next_due_know_only_the_jobs_they_are_asked_for(storage: Storage) -> Do[None, Refusal]:
    """Alarms of other jobs stay where they are, even when they are the longest overdue."""
    user, batch = _born(_USER, _NOON - _SECOND), _born(Key(*_BATCHER, "b"), _NOON - _DAY)
    orphan = _born(Key("debounce", "counter", "user-1"), _NOON - 2 * _DAY)
    for instance in (user, batch, orphan):
        yield from storage.commit(_birth(instance))
    _equal((yield from storage.due(_NOON, 1, [_COUNTER])), [_USER], "due gives only instances of these jobs")
    both = yield from storage.due(_NOON, 10, {_COUNTER, _BATCHER, ("task", "nobody")})
    _equal(both, [batch.key, _USER], "due gives instances of all these jobs")
    _equal((yield from storage.due(_NOON, 10, [])), [], "nothing of no jobs is due")
    _equal((yield from storage.next_due([_COUNTER])), _NOON - _SECOND, "next_due is about these jobs only")
    _equal(
        (yield from storage.next_due([_COUNTER, _BATCHER])),
        _NOON - _DAY,
        "next_due is the earliest of all these jobs",
    )
    _equal((yield from storage.next_due([])), None, "no jobs have no next alarm")
    jobs = [_COUNTER, _BATCHER]
    first = yield from storage.next_due(jobs)
    second = yield from storage.next_due(jobs, after=first)
    _equal(second is not None and first is not None and second > first, True, "next_due looks behind `after`")
    _equal((yield from storage.next_due(jobs, after=second)), None, "behind the last alarm there is none")


@Effect.gen
def next_due_looks_behind_an_instant(storage: Storage) -> Do[None, Refusal]:
    """With ``after``, alarms at or before it are passed over; without it, overdue ones count."""
    alarms = [_NOON - _DAY, _NOON - _SECOND, _NOON, _NOON, _NOON + _MICROSECOND, _NOON + _DAY]
    for n, at in enumerate(alarms):
        yield from storage.commit(_birth(_born(Key(*_COUNTER, str(n)), at)))
    yield from storage.commit(_birth(_born(Key(*_BATCHER, "b"), _NOON + 2 * _DAY)))
    _equal((yield from storage.next_due([_COUNTER])), _NOON - _DAY, "next_due counts alarms of the past")
    for after, following in (
        (_NOON - 2 * _DAY, _NOON - _DAY),
        (_NOON - _DAY, _NOON - _SECOND),
        (_NOON - _MICROSECOND, _NOON),
        (_NOON, _NOON + _MICROSECOND),
        (_NOON + _SECOND, _NOON + _DAY),
        (_NOON + _DAY, None),
    ):
        found = yield from storage.next_due([_COUNTER], after=after)
        _equal(found, following, "next_due gives the first alarm that is later than after")
    both = yield from storage.next_due([_COUNTER, _BATCHER], after=_NOON + _DAY)
    _equal(both, _NOON + 2 * _DAY, "next_due looks behind after in all these jobs")


@Effect.gen
def alarms_follow_their_record(storage: Storage) -> Do[None, Refusal]:
    """Moved, cleared, set to an earlier time again: only the alarm of the last commit counts."""
    present = _born(_USER, _NOON)
    yield from storage.commit(_birth(present))
    for seconds in (5, -5, None, 0, None, 0, 3, 3, -5, 7):
        at = None if seconds is None else _NOON + seconds * _SECOND
        alarm = None if at is None else Alarm(at, "schedule")
        after = present.evolve(alarm=alarm)
        yield from storage.commit(_change(present, after))
        present = after
        _equal((yield from storage.next_due([_COUNTER])), at, "next_due gives the alarm of the last commit")
        due = yield from storage.due(_NOON, 10, [_COUNTER])
        _equal(
            due,
            [_USER] if at is not None and at <= _NOON else [],
            "an instance is due by the alarm of its last commit",
        )
    far = yield from storage.due(_NOON + _DAY, 10, [_COUNTER])
    _equal(far, [_USER], "an instance is due once, however often its alarm was moved")


# -- listing -----------------------------------------------------------------------------------------


@Effect.gen
def jobs_counts_instances(storage: Storage) -> Do[None, Refusal]:
    """Every job that has instances, with their number."""
    for key in (_USER, Key(*_COUNTER, "user-2"), Key("task", "counter", "user-1")):
        yield from storage.commit(_birth(_born(key)))
    expected: dict[JobName, int] = {_COUNTER: 2, ("task", "counter"): 1}
    _equal((yield from storage.jobs()), expected, "jobs counts the instances of every job")


@Effect.gen
def instances_come_in_pages(storage: Storage) -> Do[None, Refusal]:
    """Each record once, in the order of the keys, behind ``after`` whether that exists or not."""
    keys = sorted(
        Key(kind, job, its_id)
        for kind in ("continuous", "task")
        for job in "ab"
        for its_id in ("1", "2", "Z", "a", "é")
    )
    stored = {key: _born(key) for key in keys}
    for key in reversed(keys):
        yield from storage.commit(_birth(stored[key]))
    for limit in (1, 3, 100):
        found = yield from _pages(storage, None, limit)
        _equal(found, [stored[key] for key in keys], "pages give every record once, in the order of the keys")
        of_b = yield from _pages(storage, ("task", "b"), limit)
        _equal(
            of_b,
            [stored[key] for key in keys if key.job == "b" and key.kind == "task"],
            "pages of a job give its records",
        )
    behind = yield from storage.instances(after=Key("continuous", "b", "3"))
    _equal(
        [i.key for i in behind],
        [k for k in keys if k > Key("continuous", "b", "3")],
        "a page begins behind after",
    )
    for after in (
        Key("continuous", "z", "z"),
        Key("task", "a", "zzz"),
        Key("task", "b", ""),
        Key("task", "c", ""),
    ):
        found = yield from storage.instances(job=("task", "b"), after=after)
        expected = [k for k in keys if (k.kind, k.job) == ("task", "b") and k > after]
        _equal(
            [i.key for i in found], expected, "a page of a job begins behind after, even one of another job"
        )


@Effect.gen
def _pages(storage: Storage, job: JobName | None, limit: int) -> Do[list[Instance], StorageError]:
    found: list[Instance] = []
    page = yield from storage.instances(job=job, limit=limit)
    while page:
        _demand(len(page) <= limit, "a page is not longer than its limit")
        _demand(not found or page[0].key > found[-1].key, "a page begins behind after")
        found += page
        page = yield from storage.instances(job=job, after=page[-1].key, limit=limit)
    return found


_NASTY = (
    "a",
    "A",
    "a ",
    " a",
    "a\0",
    "a\0b",
    "\0",
    "a:b",
    "a:b:c",
    ":",
    "task:t:a",
    "é",
    "e\u0301",
    "%",
    "_",
    "*",
    "'; DROP TABLE instance; --",
    '"quoted"',
    "\\u0061",
    "\n",
    "\ufeffa",
    "\u202eabc",
    "שלום",
    "مرحبا",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0010ffff",
    "\ud7ff",
    "\uffff",
    "x" * 512,
    "x" * 511 + "y",
    "\U0001f600" * 512,
)


@Effect.gen
def different_keys_never_share_a_record(storage: Storage) -> Do[None, Refusal]:
    """Colons, NUL, emoji, right-to-left text, 512 characters: ids are compared character by character."""
    keys = [Key("task", "t", nasty) for nasty in _NASTY]
    keys += [
        Key("task", "a", "b:c"),
        Key("task", "a b", "c"),
        Key("continuous", "t", "a"),
        Key("task", "T", "a"),
    ]
    for n, key in enumerate(keys):
        mark = Mark(f"event\0{key.id}", _NOON + _DAY)
        yield from storage.commit(_birth(_born(key, _NOON, state=str(n).encode()), mark=mark))
    for n, key in enumerate(keys):
        found = yield from storage.load(key)
        _equal(found and found.state, str(n).encode(), f"{key!r} has a record of its own")
        for other in keys:
            marked = yield from storage.is_marked(key, f"event\0{other.id}", _NOON)
            _equal(marked, other.id == key.id, f"{key!r} has marks of its own")
    listed = yield from _pages(storage, None, 7)
    _equal([instance.key for instance in listed], sorted(keys), "keys come in the order of their code points")
    due = yield from storage.due(_NOON, 100, {(key.kind, key.job) for key in keys})
    _equal(due, sorted(keys), "instances that are due at the same time come in the order of their keys")


# -- outbox ------------------------------------------------------------------------------------------


@Effect.gen
def events_come_back_in_the_order_of_their_commits(storage: Storage) -> Do[None, Refusal]:
    """Oldest first, every kind of event as it was, until they are removed."""
    events = _one_of_each()
    present = _born(_USER)
    yield from storage.commit(_birth(present, events=tuple(events[:3])))
    for event in events[3:]:
        after = present.evolve()
        yield from storage.commit(_change(present, after, events=(event,)))
        present = after
    _equal(
        (yield from storage.pending_events(100)),
        events,
        "events come back as they were, in the order of their commits",
    )
    _equal((yield from storage.pending_events(2)), events[:2], "no more events than the limit")
    sent = {events[0].event_id, events[4].event_id, "unknown"}
    yield from storage.events_sent(sent)
    left = [event for event in events if event.event_id not in sent]
    _equal((yield from storage.pending_events(100)), left, "events that were sent are removed, and no other")
    yield from storage.events_sent(sent)
    yield from storage.events_sent([])
    _equal((yield from storage.pending_events(100)), left, "removing events again changes nothing")


def _one_of_each() -> list[Event]:
    about: dict[str, Any] = {
        "timestamp": _NOON + _MICROSECOND,
        "instance_id": _USER.instance_id,
        "kind": _USER.kind,
        "job": _USER.job,
        "id": _USER.id,
    }
    failure = Failure("ValueError", "no \0 good \U0001f600", None)
    return [
        JobStarted(event_id="9", input={"n": [1, 2.5, None, "\0"]}, **about),
        JobExecuted(
            event_id="8", run_count=1, duration_ms=1.25, attempt=1, pre_execution_state=[True], **about
        ),
        JobFailed(event_id="7", error=failure, run_count=1, attempt=2, will_retry=False, **about),
        JobRetryExhausted(event_id="6", attempts=3, reason="max_attempts", **about),
        JobTerminated(event_id="5", run_count=1, reason="done", **about),
        DebounceStarted(event_id="4", flush_at=_NOON, **about),
        DebounceFlushed(event_id="3", event_count=2, reason="maxEvents", duration_ms=0.5, **about),
        TaskScheduled(event_id="2", scheduled_at=_NOON, trigger="idle", **about),
    ]


# -- dead letters ------------------------------------------------------------------------------------


@Effect.gen
def dead_letters_are_numbered_and_kept(storage: Storage) -> Do[None, Refusal]:
    """Numbers rise and are never used again; a letter comes back as it was until it is removed."""
    lives: list[Instance] = []
    for n in range(5):
        instance = _born(_USER, _NOON, incarnation=f"life-{n}", state=str(n).encode())
        yield from storage.commit(_birth(instance))
        yield from storage.commit(_change(instance, None, dead_letter=_letter(instance)))
        lives.append(instance)
    letters = yield from storage.dead_letters()
    _equal(
        [letter.instance for letter in letters],
        lives,
        "dead letters come back in the order they were written",
    )
    numbers = [letter.number for letter in letters]
    _demand(numbers == sorted(set(numbers)) and numbers[0] > 0, "dead letters have rising numbers above 0")
    _equal((letters[0].reason, letters[0].at), ("max_attempts", _NOON), "a dead letter comes back as it was")
    _equal(letters[0].expires_at, _NOON + 30 * _DAY, "a dead letter comes back as it was")
    page = yield from storage.dead_letters(after=numbers[1], limit=2)
    _equal(
        page, letters[2:4], "a page of dead letters begins behind its number and is not longer than its limit"
    )
    _demand(
        (yield from storage.remove_dead_letter(numbers[4])), "removing a dead letter says that it was there"
    )
    _demand(not (yield from storage.remove_dead_letter(numbers[4])), "removing it again says that it was not")
    _demand(
        not (yield from storage.remove_dead_letter(10**9)),
        "removing an unknown dead letter says that it was not there",
    )
    _equal((yield from storage.dead_letters()), letters[:4], "a removed dead letter is gone, and no other")
    yield from storage.commit(_birth(_born(_USER), dead_letter=_letter(_born(_USER))))
    newest = (yield from storage.dead_letters())[-1].number
    _demand(newest > numbers[4], "the number of a removed dead letter is not used again")


@Effect.gen
def a_dead_letter_is_brought_back_once(storage: Storage) -> Do[None, Refusal]:
    """The write that brings it back removes it; when it is gone, or the id is in use, nothing is written."""
    ended = _born(_USER)
    yield from storage.commit(_birth(ended))
    yield from storage.commit(_change(ended, None, dead_letter=_letter(ended)))
    (letter,) = yield from storage.dead_letters()
    replay = _birth(ended, replays=letter.number)
    yield from storage.commit(replay)
    _equal((yield from storage.load(_USER)), ended, "a dead letter's instance lives again")
    _equal((yield from storage.dead_letters()), [], "a dead letter that was brought back is gone")
    other = _born(Key(*_COUNTER, "other"))
    refused = yield from storage.commit(_birth(other, replays=letter.number)).flip().option()
    _equal(refused.value_or(None), Conflict(other.key), "a dead letter that is gone cannot be brought back")
    _equal((yield from storage.load(other.key)), None, "a refused replay writes nothing")


@Effect.gen
def expired_dead_letters_go_with_later_commits(storage: Storage) -> Do[None, Refusal]:
    """A commit at or after ``expires_at`` takes them along; one before does not."""
    first = _born(_USER)
    lasting = _letter(first, expires_at=_NOON + 3 * _DAY)
    yield from storage.commit(_birth(first, dead_letter=lasting))
    second = first.evolve()
    brief = _letter(first, expires_at=_NOON + _DAY)
    yield from storage.commit(_change(first, second, dead_letter=brief, at=_NOON + _DAY - _MICROSECOND))
    _equal(len((yield from storage.dead_letters())), 2, "a dead letter is kept until it expires")
    yield from storage.commit(_change(second, second.evolve(), at=_NOON + _DAY))
    left = [letter.expires_at for letter in (yield from storage.dead_letters())]
    _equal(left, [_NOON + 3 * _DAY], "a later commit removes the dead letters that expired, and no other")


STORAGE_CHECKS: tuple[StorageCheck, ...] = (
    a_new_storage_is_empty,
    a_record_comes_back_as_it_was_written,
    large_state_comes_back_whole,
    a_commit_replaces_the_record,
    a_commit_removes_the_record,
    a_commit_may_have_no_record_at_all,
    nothing_happens_until_it_is_run,
    a_stale_commit_changes_nothing,
    a_commit_on_a_removed_record_changes_nothing,
    an_id_that_is_used_again_is_another_instance,
    a_duplicate_event_changes_nothing,
    one_of_concurrent_commits_wins,
    one_of_concurrent_births_wins,
    commits_of_different_instances_all_succeed,
    a_refused_commit_leaves_its_neighbours_alone,
    an_interrupted_commit_happened_or_did_not,
    marks_are_remembered_until_they_expire,
    marks_outlive_their_instance,
    marks_belong_to_one_instance,
    due_is_ordered_and_bounded,
    due_and_next_due_know_only_the_jobs_they_are_asked_for,
    next_due_looks_behind_an_instant,
    alarms_follow_their_record,
    jobs_counts_instances,
    instances_come_in_pages,
    different_keys_never_share_a_record,
    events_come_back_in_the_order_of_their_commits,
    dead_letters_are_numbered_and_kept,
    a_dead_letter_is_brought_back_once,
    expired_dead_letters_go_with_later_commits,
)
"""Every check, one sentence of the contract each."""
