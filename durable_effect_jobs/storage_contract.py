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
from itertools import count
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
from durable_effect_jobs.instance import (
    Alarm,
    Claim,
    Claimed,
    Commit,
    DeadLetter,
    Due,
    Instance,
    Key,
    Lease,
    Mark,
)
from durable_effect_jobs.storage import Conflict, JobName, Storage, Survey

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
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_LEASE = timedelta(seconds=30)

_COUNTER: JobName = ("continuous", "counter")
_BATCHER: JobName = ("debounce", "batcher")
_USER = Key("continuous", "counter", "user-1")

_tokens = count(1)


def _token() -> str:
    """Another one with each call."""
    return f"token-{next(_tokens)}"


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
    first = Commit(key=instance.key, before=None, after=instance, at=_NOON, token=_token())
    return attrs.evolve(first, **parts)


def _change(before: Instance, after: Instance | None, **parts: Any) -> Commit:
    change = Commit(key=before.key, before=before, after=after, at=_NOON, token=_token())
    return attrs.evolve(change, **parts)


def _leased(instance: Instance, owner: str = "worker-a", until: datetime = _NOON + _LEASE) -> Instance:
    return attrs.evolve(instance, lease=Lease(owner, until))


def _claim(
    storage: Storage, key: Key = _USER, owner: str = "worker-a", now: datetime = _NOON
) -> Effect[Claimed | None, StorageError]:
    return storage.claim(Claim(key, owner, now, now + _LEASE))


@Effect.gen
def _taken(
    storage: Storage, key: Key = _USER, owner: str = "worker-a", now: datetime = _NOON
) -> Do[Instance, StorageError]:
    """A run of an instance that is due begins."""
    claimed = yield from _claim(storage, key, owner, now)
    if claimed is None:
        raise AssertionError("an instance whose wake_at has come can be claimed")
    return claimed.instance


def _is_due(*keys: Key) -> list[Due]:
    return [Due(key, suspect=False) for key in keys]


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
    survey = yield from storage.survey(_NOON, lease=_LEASE)
    return instance, events, letters, remembered, next_at, survey


def _everything(before: Instance | None, after: Instance | None, **parts: Any) -> Commit:
    """A commit that has something of everything."""
    commit = Commit(
        key=_USER,
        before=before,
        after=after,
        at=_NOON,
        token=_token(),
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
    _equal((yield from _claim(storage)), None, "there is nothing to claim in a new storage")
    _equal(
        (yield from storage.survey(_NOON, lease=_LEASE)),
        _NOTHING,
        "a new storage has nothing to count",
    )
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
        crashes=2,
        quarantined=True,
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
    """A method only describes; what it describes can be run again."""
    commit = storage.commit(_birth(_born(_USER)))
    load = storage.load(_USER)
    _equal((yield from load), None, "making a commit effect changes nothing")
    yield from commit
    _equal((yield from load), _born(_USER), "a load effect that is run again reads again")
    yield from storage.commit(_change(_born(_USER), None))
    yield from storage.commit(_birth(_born(_USER, incarnation="second")))
    _equal((yield from load), _born(_USER, incarnation="second"), "a load effect reads each time it is run")
    claim = _claim(storage)
    release = storage.release("worker-a")
    alarmed = _born(_USER, _NOON, incarnation="second").evolve()
    yield from storage.commit(_change(_born(_USER, incarnation="second"), alarmed))
    _equal((yield from load), alarmed, "making a claim effect changes nothing")
    first = yield from claim
    yield from release
    second = yield from claim
    _demand(first is not None and second is not None, "claim and release effects can be run again")


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
    commits: list[Effect[int, Refusal]] = []
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
        error = yield from _refused(storage.commit(commit))
        _equal(error, None, "an interrupted commit can be sent again")
        _equal((yield from storage.load(key)), _born(key), "an interrupted commit can be sent again")
        events = [event.event_id for event in (yield from storage.pending_events(100))]
        _equal(events.count(event_id), 1, "an interrupted commit that is sent again happens once")


# -- fences and leases -------------------------------------------------------------------------------


@Effect.gen
def a_claim_takes_what_is_due(storage: Storage) -> Do[None, Refusal]:
    """At ``wake_at`` and not a microsecond before; it gets lease and fence, and all else stays."""
    record = _born(_USER, _NOON, state=b"[1]")
    yield from storage.commit(_birth(record))
    early = yield from _claim(storage, now=_NOON - _MICROSECOND)
    _equal(early, None, "an instance cannot be claimed before its wake_at")
    _equal((yield from storage.load(_USER)), record, "a claim that takes nothing changes nothing")
    claimed = yield from _claim(storage)
    if claimed is None:
        raise AssertionError("an instance can be claimed at its wake_at")
    _demand(not claimed.recovered, "a claim of what nobody ran recovers nothing")
    fence = claimed.instance.fence
    _demand(fence > record.fence, "a claim gives a new fence")
    expected = attrs.evolve(_leased(record), fence=fence)
    _equal(claimed.instance, expected, "a claim gives lease and fence, and leaves all else, alarm included")
    _equal((yield from storage.load(_USER)), expected, "load gives the record as it was claimed")
    _equal((yield from storage.instances()), [expected], "instances gives the record as it was claimed")


@Effect.gen
def a_claim_refuses_what_is_not_due(storage: Storage) -> Do[None, Refusal]:
    """No alarm, an alarm to come, quarantined, missing: nothing to run."""
    idle = _born(Key(*_COUNTER, "idle"))
    later = _born(Key(*_COUNTER, "later"), _NOON + _MICROSECOND)
    poison = attrs.evolve(_born(Key(*_COUNTER, "poison"), _NOON), quarantined=True, crashes=3)
    former = attrs.evolve(_leased(poison, until=_NOON - _DAY), key=Key(*_COUNTER, "former"))
    for record in (idle, later, poison, former):
        yield from storage.commit(_birth(record))
    scene = yield from storage.instances()
    for key in (idle.key, later.key, poison.key, former.key, _USER):
        _equal((yield from _claim(storage, key)), None, f"{key.id} cannot be claimed")
    _equal((yield from storage.instances()), scene, "a claim that takes nothing changes nothing")
    due = yield from storage.due(_NOON + _DAY, 10, [_COUNTER])
    _equal(due, _is_due(later.key), "without an alarm, or in quarantine, an instance is never due")
    next_at = yield from storage.next_due([_COUNTER])
    _equal(next_at, later.alarm and later.alarm.at, "what is never due has no next wake-up")


@Effect.gen
def a_live_lease_cannot_be_claimed(storage: Storage) -> Do[None, Refusal]:
    """Until it is over nobody takes the instance, its own owner included, and it is not due."""
    yield from storage.commit(_birth(_born(_USER, _NOON - _DAY)))
    held = yield from _taken(storage)
    last = _NOON + _LEASE - _MICROSECOND
    for owner in ("worker-a", "worker-b"):
        for now in (_NOON, last):
            claimed = yield from _claim(storage, owner=owner, now=now)
            _equal(claimed, None, "an instance under a lease cannot be claimed")
    _equal((yield from storage.load(_USER)), held, "a claim that takes nothing changes nothing")
    _equal((yield from storage.due(last, 10, [_COUNTER])), [], "an instance under a lease is not due")
    _equal(
        (yield from storage.next_due([_COUNTER])),
        _NOON + _LEASE,
        "an instance under a lease wakes when that is over",
    )


@Effect.gen
def one_of_concurrent_claims_wins(storage: Storage) -> Do[None, Refusal]:
    """Many workers want the same instance: exactly one gets it."""
    yield from storage.commit(_birth(_born(_USER, _NOON)))
    claims = [_claim(storage, owner=f"worker-{n}") for n in range(20)]
    claimed = [one for one in (yield from Effect.all(claims, concurrency="unbounded")) if one is not None]
    _equal(len(claimed), 1, "exactly one of concurrent claims succeeds")
    _equal((yield from storage.load(_USER)), claimed[0].instance, "the record is the winner's")


@Effect.gen
def a_lease_that_is_over_is_recovered_and_counted(storage: Storage) -> Do[None, Refusal]:
    """What a worker left is due when its lease is over; another one that takes it counts a crash."""
    yield from storage.commit(_birth(_born(_USER, _NOON - _DAY)))
    present = yield from _taken(storage, owner="worker-a")
    crashes = 0
    for n, (owner, died) in enumerate(
        [
            ("worker-b", True),
            ("worker-b", False),
            ("worker-a", True),
            ("worker-a", False),
            ("worker-b", True),
        ],
        1,
    ):
        now = _NOON + n * _LEASE
        due = yield from storage.due(now, 10, [_COUNTER])
        _equal(due, [Due(_USER, suspect=crashes > 0)], "what is leased is due again when its lease is over")
        claimed = yield from _claim(storage, owner=owner, now=now)
        if claimed is None:
            raise AssertionError("what is leased can be claimed when its lease is over")
        crashes += died
        _equal(claimed.recovered, died, "a claim recovers the run of another owner, and only that")
        _demand(claimed.instance.fence > present.fence, "a claim of what is leased gives a new fence")
        expected = attrs.evolve(
            present, lease=Lease(owner, now + _LEASE), fence=claimed.instance.fence, crashes=crashes
        )
        _equal(
            claimed.instance, expected, "crashes counts the runs of other owners that ended with their lease"
        )
        error = yield from _refused(storage.commit(_everything(present, present.evolve())))
        _equal(error, Conflict(_USER), "who lost its lease cannot commit")
        _equal((yield from storage.load(_USER)), expected, "who lost its lease changes nothing")
        present = expected


@Effect.gen
def a_lease_decides_when_an_instance_wakes(storage: Storage) -> Do[None, Refusal]:
    """Alarm or none, past or future: under a lease it wakes at the end of that."""
    for n, at in enumerate((None, _NOON - _DAY, _NOON + _SECOND, _NOON + _DAY)):
        key = Key("task", f"t{n}", "x")
        jobs: list[JobName] = [("task", f"t{n}")]
        fence = yield from storage.commit(_birth(_leased(_born(key, at))))
        end = _NOON + _LEASE
        _equal((yield from storage.next_due(jobs)), end, "under a lease, an instance wakes when that is over")
        _equal((yield from storage.due(end - _MICROSECOND, 10, jobs)), [], "and is not due before that")
        _equal((yield from storage.due(end, 10, jobs)), _is_due(key), "and is due then")
        yield from storage.renew("worker-a", [(key, fence)], end + _LEASE)
        _equal((yield from storage.next_due(jobs)), end + _LEASE, "a renewed lease moves its end")
        _equal((yield from storage.due(end, 10, jobs)), [], "a renewed lease moves its end")
        yield from storage.release("worker-a", [key])
        _equal((yield from storage.next_due(jobs)), at, "without a lease, an instance wakes at its alarm")


@Effect.gen
def fences_only_grow(storage: Storage) -> Do[None, Refusal]:
    """Over all instances, claims, releases and commits with a lease; removal and another birth included."""
    other = Key("task", "t", "x")
    given: list[int] = []
    for life in range(3):
        user, task = (
            _born(_USER, _NOON, incarnation=f"life-{life}"),
            _born(other, _NOON, incarnation=f"{life}"),
        )
        yield from storage.commit(_birth(user))
        given.append((yield from storage.commit(_birth(_leased(task)))))
        held = yield from _taken(storage)
        given.append(held.fence)
        yield from storage.release("worker-a", [other])
        released = yield from storage.load(other)
        _demand(released is not None, "a release removes nothing")
        given.append(released.fence if released is not None else 0)
        given.append((yield from _taken(storage, other)).fence)
        again = _leased(held.evolve(), until=_NOON + 2 * _LEASE)
        given.append((yield from storage.commit(_change(held, again))))
        yield from storage.commit(_change(attrs.evolve(again, fence=given[-1]), None))
        yield from storage.release("worker-a")
        present = yield from storage.load(other)
        if present is not None:
            given.append(present.fence)
            yield from storage.commit(_change(present, None))
    _equal(
        given, sorted(set(given)), "each fence is greater than all that were given before, to any instance"
    )
    _demand(given[0] > 0, "fences begin above that of a record that was never taken")


@Effect.gen
def a_commit_without_a_lease_frees_the_record(storage: Storage) -> Do[None, Refusal]:
    """It keeps the fence of ``before``, whatever the new record says, and answers it."""
    born = attrs.evolve(_born(_USER, _NOON), fence=99)
    answer = yield from storage.commit(_birth(born))
    _equal(answer, 0, "a birth without a lease is under no fence yet")
    _equal(
        (yield from storage.load(_USER)), attrs.evolve(born, fence=0), "the fence is the storage's to give"
    )
    held = yield from _taken(storage)
    after = attrs.evolve(held.evolve(state=b"[2]"), lease=None, fence=0, crashes=0)
    answer = yield from storage.commit(_change(held, after))
    _equal(answer, held.fence, "a commit without a lease answers the fence of before")
    free = attrs.evolve(after, fence=held.fence)
    _equal(
        (yield from storage.load(_USER)),
        free,
        "a commit without a lease frees the record and keeps its fence",
    )
    renewed = yield from storage.renew("worker-a", [(_USER, held.fence)], _NOON + _DAY)
    _demand(not renewed, "a lease that was given back by a commit cannot be renewed")
    _equal((yield from storage.due(_NOON, 10, [_COUNTER])), _is_due(_USER), "what is free wakes at its alarm")
    gone = yield from storage.commit(_change(free, None))
    _equal(gone, 0, "a removal answers no fence")


@Effect.gen
def a_commit_with_a_lease_takes_the_record(storage: Storage) -> Do[None, Refusal]:
    """By the same write, under a new fence: of a record that was free, or that the same run holds."""
    present = _born(_USER, _NOON)
    yield from storage.commit(_birth(present))
    for until in (_NOON + _LEASE, _NOON + 2 * _LEASE):
        after = _leased(present.evolve(), until=until)
        fence = yield from storage.commit(_change(present, after))
        _demand(fence > present.fence, "a commit with a lease gives a new fence")
        taken = attrs.evolve(after, fence=fence)
        _equal((yield from storage.load(_USER)), taken, "a commit with a lease takes the record for a run")
        _equal((yield from _claim(storage, owner="worker-b")), None, "what a commit took cannot be claimed")
        error = yield from _refused(storage.commit(_everything(present, present.evolve())))
        _equal(error, Conflict(_USER), "who read the record before it was taken cannot commit")
        present = taken
    done = attrs.evolve(present.evolve(), lease=None)
    yield from storage.commit(_change(present, done))
    _equal((yield from storage.load(_USER)), done, "who took the record by a commit can commit its run")


@Effect.gen
def incarnation_revision_and_fence_are_compared(storage: Storage) -> Do[None, Refusal]:
    """Each of them alone makes a commit stale, be it a step or a removal."""
    yield from storage.commit(_birth(_born(_USER, _NOON)))
    first = yield from _taken(storage)
    second = attrs.evolve(first.evolve(), lease=None)
    yield from storage.commit(_change(first, second))
    held = yield from _taken(storage)
    scene = yield from _belongings(storage)
    for stale in (
        attrs.evolve(held, fence=held.fence - 1),
        attrs.evolve(held, fence=second.fence),
        attrs.evolve(held, fence=0),
        attrs.evolve(held, fence=held.fence + 1),
        attrs.evolve(held, revision=held.revision - 1),
        attrs.evolve(held, revision=held.revision + 1),
        attrs.evolve(held, incarnation="another"),
    ):
        free = attrs.evolve(held.evolve(state=b"[]", alarm=None), lease=None)
        for after in (free, _leased(free), None):
            error = yield from _refused(storage.commit(_everything(stale, after)))
            _equal(
                error,
                Conflict(_USER),
                "incarnation, revision and fence of before are compared, each by itself",
            )
            _equal(
                (yield from _belongings(storage)), scene, "a commit that fails with Conflict changes nothing"
            )
    after = attrs.evolve(held.evolve(state=b"[]"), lease=None)
    yield from storage.commit(_change(attrs.evolve(held, lease=None, state=None, alarm=None), after))
    _equal((yield from storage.load(_USER)), after, "nothing else of before is compared")


@Effect.gen
def a_lease_is_renewed_by_its_holder(storage: Storage) -> Do[None, Refusal]:
    """Owner and fence have to be right; the answer names what is held still, and the rest stays as it is."""
    keys = [Key(*_COUNTER, name) for name in ("held", "idle", "lost", "strange", "taken")]
    held, idle, lost, strange, taken = keys
    fences: dict[Key, int] = {}
    for key in keys:
        yield from storage.commit(_birth(_born(key, _NOON)))
    for key in (held, lost, taken):
        fences[key] = (yield from _taken(storage, key)).fence
    fences[strange] = (yield from _taken(storage, strange, "worker-b")).fence
    yield from storage.release("worker-a", [lost])
    end = _NOON + _LEASE
    recovered = yield from _taken(storage, taken, "worker-a", end)
    before = {instance.key: instance for instance in (yield from storage.instances())}
    wishes = [*fences.items(), (idle, 0), (Key(*_COUNTER, "nobody"), 1)]
    until = _NOON + _DAY
    renewed = yield from storage.renew("worker-a", wishes, until)
    _equal(renewed, frozenset([held]), "renew answers the keys that the owner holds under these fences")
    expected = before | {held: attrs.evolve(before[held], lease=Lease("worker-a", until))}
    found = {instance.key: instance for instance in (yield from storage.instances())}
    _equal(found, expected, "renew moves the end of leases that are held, and nothing else")
    _equal((yield from storage.load(held)), expected[held], "load gives the renewed lease")
    both = [(held, fences[held]), (taken, recovered.fence)]
    renewed = yield from storage.renew("worker-a", both, until)
    _equal(renewed, frozenset([held, taken]), "renew answers all keys that are held")
    _demand(not (yield from storage.renew("worker-a", [], until)), "nothing of nothing is held")
    _equal((yield from _claim(storage, held, "worker-b", end)), None, "a renewed lease is live")


@Effect.gen
def a_lease_is_renewed_until_somebody_takes_it(storage: Storage) -> Do[None, Refusal]:
    """Over, but not claimed by anybody: the run goes on as if it had been renewed in time."""
    yield from storage.commit(_birth(_born(_USER, _NOON)))
    held = yield from _taken(storage)
    until = _NOON + 5 * _LEASE
    renewed = yield from storage.renew("worker-a", [(_USER, held.fence)], until)
    _equal(renewed, frozenset([_USER]), "a lease that is over can be renewed while nobody took it")
    late = yield from _claim(storage, owner="worker-b", now=until - _MICROSECOND)
    _equal(late, None, "a renewed lease is live")
    rival = yield from _taken(storage, _USER, "worker-b", until)
    renewed = yield from storage.renew("worker-a", [(_USER, held.fence), (_USER, rival.fence)], until + _DAY)
    _demand(not renewed, "a lease that another took cannot be renewed")
    _equal((yield from storage.load(_USER)), rival, "a lease that another took is left as it is")


@Effect.gen
def a_release_gives_leases_back(storage: Storage) -> Do[None, Refusal]:
    """The alarm fires again, no crash counts, and the run that was given up can neither commit nor renew."""
    names = ("a", "b", "c")
    keys = [Key(*_COUNTER, name) for name in names]
    for key in keys:
        yield from storage.commit(_birth(attrs.evolve(_born(key, _NOON), crashes=1)))
    first, second = (yield from _taken(storage, keys[0])), (yield from _taken(storage, keys[1]))
    strange = yield from _taken(storage, keys[2], "worker-b")
    yield from storage.release("worker-a", [])
    yield from storage.release("worker-c")
    yield from storage.release("worker-a", [keys[0], keys[2], _USER])
    freed = yield from storage.load(keys[0])
    if freed is None:
        raise AssertionError("a release removes nothing")
    _demand(freed.fence > strange.fence, "a release moves the fence on, beyond all that were given")
    _equal(
        freed,
        attrs.evolve(first, lease=None, fence=freed.fence),
        "a release takes the lease, and all else stays",
    )
    left = yield from storage.instances()
    _equal(left, [freed, second, strange], "a release is of these keys and this owner only")
    due = yield from storage.due(_NOON, 10, [_COUNTER])
    _equal(due, [Due(keys[0], suspect=True)], "what was released is due by its alarm again")
    for after in (attrs.evolve(first.evolve(), lease=None), None):
        error = yield from _refused(storage.commit(_change(first, after)))
        _equal(error, Conflict(keys[0]), "a run that was given up cannot commit")
    renewed = yield from storage.renew("worker-a", [(keys[0], first.fence)], _NOON + _DAY)
    _demand(not renewed, "a run that was given up cannot renew")
    yield from storage.release("worker-a")
    owners = [one.lease and one.lease.owner for one in (yield from storage.instances())]
    _equal(owners, [None, None, "worker-b"], "a release without keys is of all that the owner holds")
    again = yield from _claim(storage, keys[1], "worker-b")
    _equal(again and again.recovered, False, "what was released did not crash")
    _equal(again and again.instance.crashes, 1, "what was released did not crash")


# -- commits that are sent again ---------------------------------------------------------------------


def _everything_twice(storage: Storage, commit: Commit) -> Effect[None, Refusal]:
    """Send a commit three times in all; whatever can be seen stays as the first one made it."""

    @Effect.gen
    def program() -> Do[None, Refusal]:
        answer = yield from storage.commit(commit)
        scene = yield from _belongings(storage)
        for _ in range(2):
            again = yield from storage.commit(commit)
            _equal(again, answer, "a commit that is sent again gets the answer of the first")
            _equal((yield from _belongings(storage)), scene, "a commit that is sent again changes nothing")

    return program()


@Effect.gen
def a_commit_that_is_sent_again_happens_once(storage: Storage) -> Do[None, Refusal]:
    """Birth, step, removal, none of these: with events, mark and dead letter, and nothing is doubled."""
    letters = [_letter(_born(_USER, incarnation=f"letter-{n}")) for n in range(7)]

    def wish(n: int, before: Instance | None, after: Instance | None, **parts: Any) -> Commit:
        mark = Mark(f"mark-{n}", _NOON + _DAY)
        facts = (_fact(f"fact-{n}"),)
        return _everything(before, after, mark=mark, events=facts, dead_letter=letters[n], **parts)

    yield from _everything_twice(storage, wish(0, None, None))
    born = _born(_USER, _NOON)
    yield from _everything_twice(storage, wish(1, None, born))
    stepped = born.evolve(run_count=1)
    yield from _everything_twice(storage, wish(2, born, stepped))
    taken = _leased(stepped.evolve())
    yield from _everything_twice(storage, wish(3, stepped, taken))
    held = yield from storage.load(_USER)
    if held is None:
        raise AssertionError("a commit that is sent again removes nothing")
    done = attrs.evolve(held.evolve(), lease=None)
    yield from _everything_twice(storage, wish(4, held, done))
    yield from _everything_twice(storage, wish(5, done, None))
    numbers = [letter.number for letter in (yield from storage.dead_letters())]
    reborn = _born(_USER, _NOON, incarnation="second")
    yield from _everything_twice(storage, wish(6, None, reborn, replays=numbers[0]))
    events = [event.event_id for event in (yield from storage.pending_events(100))]
    _equal(events, [f"fact-{n}" for n in range(7)], "events of a commit that is sent again are stored once")
    found = [letter.instance for letter in (yield from storage.dead_letters())]
    expected = [letter.instance for letter in letters[1:]]
    _equal(found, expected, "a dead letter of a commit that is sent again is stored once")


@Effect.gen
def events_that_were_sent_stay_sent(storage: Storage) -> Do[None, Refusal]:
    """A commit that comes again after its events were delivered does not bring them back."""
    birth = _birth(_born(_USER), events=(_fact("delivered"),))
    yield from storage.commit(birth)
    yield from storage.events_sent(["delivered"])
    yield from storage.commit(birth)
    _equal(
        (yield from storage.pending_events(10)), [], "events of a commit that is sent again are stored once"
    )


@Effect.gen
def a_commit_that_is_sent_at_once_again_happens_once(storage: Storage) -> Do[None, Refusal]:
    """The same commit many times at the same time: all succeed, one writes."""
    for n, after in enumerate((None, _leased(_born(_USER)))):
        commit = _everything(None, after, mark=None, events=(_fact(f"event-{n}"),))
        sent = [_refused(storage.commit(commit)) for _ in range(10)]
        errors = yield from Effect.all(sent, concurrency="unbounded")
        _equal(errors, [None] * 10, "a commit that is sent again succeeds")
    events = [event.event_id for event in (yield from storage.pending_events(10))]
    _equal(events, ["event-0", "event-1"], "a commit that is sent again happens once")
    _equal(len((yield from storage.dead_letters())), 2, "a commit that is sent again happens once")


@Effect.gen
def a_commit_that_comes_after_another_conflicts(storage: Storage) -> Do[None, Refusal]:
    """Sent again when the record went on: it is not applied to what came after it."""
    born = _born(_USER, _NOON)
    birth = _birth(born, events=(_fact("birth"),))
    yield from storage.commit(birth)
    first = born.evolve(state=b"[1]")
    step = _change(born, first, events=(_fact("step"),))
    yield from storage.commit(step)
    second = first.evolve(state=b"[2]")
    yield from storage.commit(_change(first, second))
    for late in (birth, step):
        error = yield from _refused(storage.commit(late))
        _equal(error, Conflict(_USER), "a commit that is sent again after another one conflicts")
        _equal(
            (yield from storage.load(_USER)),
            second,
            "a commit that is sent again after another one changes nothing",
        )
    yield from storage.commit(_change(second, None))
    yield from _refused(storage.commit(step))
    _equal((yield from storage.load(_USER)), None, "a step that is sent again does not bring the record back")


@Effect.gen
def a_birth_that_comes_after_the_removal_is_no_birth(storage: Storage) -> Do[None, Refusal]:
    """Born, the answer lost, removed by another; the birth that is sent again does not bring it back."""
    for n, lease in enumerate((None, Lease("worker-a", _NOON + _LEASE))):
        born = attrs.evolve(_born(_USER, _NOON, incarnation=f"life-{n}"), lease=lease)
        birth = _birth(born, events=(_fact(f"birth-{n}"),))
        fence = yield from storage.commit(birth)
        yield from storage.events_sent([f"birth-{n}"])
        yield from storage.commit(_change(attrs.evolve(born, fence=fence), None))
        yield from _refused(storage.commit(birth))
        _equal((yield from storage.load(_USER)), None, "a birth that is sent again does not undo a removal")
        _equal(
            (yield from storage.pending_events(10)),
            [],
            "a birth that is sent again does not repeat its events",
        )


@Effect.gen
def a_removal_that_comes_after_a_birth_removes_nothing(storage: Storage) -> Do[None, Refusal]:
    """Removed, the answer lost, the id used again: the removal succeeds once more, and the new life stays."""
    former = _born(_USER)
    yield from storage.commit(_birth(former))
    removal = _change(former, None, events=(_fact("removed"),))
    yield from storage.commit(removal)
    for present in (_born(_USER, _NOON, incarnation="present"), _born(_USER, _NOON)):
        yield from storage.commit(_birth(present))
        answer = yield from storage.commit(removal)
        _equal(answer, 0, "a removal that is sent again succeeds, the id used again or not")
        _equal((yield from storage.load(_USER)), present, "a removal that is sent again spares the new life")
        _equal(len((yield from storage.pending_events(10))), 1, "a removal that is sent again happens once")
        yield from storage.commit(_change(present, None))


@Effect.gen
def removals_are_known_for_an_hour(storage: Storage) -> Do[None, Refusal]:
    """Commits of other instances do not make a storage forget them before."""
    former = _born(_USER)
    yield from storage.commit(_birth(former))
    removals = [_change(former, None), _everything(None, None)]
    for removal in removals:
        yield from storage.commit(removal)
    last = _NOON + _HOUR - _MICROSECOND
    for n in range(3):
        yield from storage.commit(_birth(_born(Key("task", "t", str(n))), at=last))
    for removal in removals:
        _equal((yield from storage.commit(removal)), 0, "a removal is known for an hour")


@Effect.gen
def a_commit_that_is_sent_again_learns_no_fence_of_another(storage: Storage) -> Do[None, Refusal]:
    """Taken by another meanwhile: it succeeds, but its answer is not the key to the run of another."""
    for n, lease in enumerate((None, Lease("worker-a", _NOON + _LEASE))):
        key = Key("task", "t", str(n))
        birth = _birth(attrs.evolve(_born(key, _NOON), lease=lease))
        yield from storage.commit(birth)
        taken = yield from _taken(storage, key, "worker-b", _NOON + _LEASE)
        answer = yield from storage.commit(birth)
        _demand(answer != taken.fence, "a commit that is sent again does not learn the fence of a later run")
        _equal((yield from storage.load(key)), taken, "a commit that is sent again leaves a later run alone")
        yield from storage.release("worker-b")
        freed = yield from storage.load(key)
        answer = yield from storage.commit(birth)
        _demand(freed is not None and answer < freed.fence, "nor the fence after a release")
        _equal((yield from storage.load(key)), freed, "a commit that is sent again changes nothing")


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


@Effect.gen
def one_of_concurrent_commits_with_a_mark_wins(storage: Storage) -> Do[None, Refusal]:
    """The same event sent many times at once: one is news, whatever record they find, and the others are
    duplicates."""
    sent = [storage.commit(_everything(None, None, events=(_fact(f"event-{n}"),))) for n in range(20)]
    errors = yield from Effect.all([_refused(commit) for commit in sent], concurrency="unbounded")
    _equal(errors.count(None), 1, "exactly one of concurrent commits with one mark succeeds")
    _equal(errors.count(DuplicateEventError("new-event")), 19, "the other ones fail as duplicates")
    events = yield from storage.pending_events(100)
    winner = errors.index(None)
    _equal([event.event_id for event in events], [f"event-{winner}"], "only the winner's events are stored")


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
            _is_due(*expected[:limit]),
            "due gives what is due, longest overdue first, then by key, up to the limit",
        )
    _equal(
        (yield from storage.due(_NOON, 100, jobs)), _is_due(*expected), "asking what is due changes nothing"
    )


@Effect.gen
def due_and_next_due_know_only_the_jobs_they_are_asked_for(storage: Storage) -> Do[None, Refusal]:
    """Alarms of other jobs stay where they are, even when they are the longest overdue."""
    user, batch = _born(_USER, _NOON - _SECOND), _born(Key(*_BATCHER, "b"), _NOON - _DAY)
    orphan = _born(Key("debounce", "counter", "user-1"), _NOON - 2 * _DAY)
    for instance in (user, batch, orphan):
        yield from storage.commit(_birth(instance))
    _equal(
        (yield from storage.due(_NOON, 1, [_COUNTER])),
        _is_due(_USER),
        "due gives only instances of these jobs",
    )
    both = yield from storage.due(_NOON, 10, {_COUNTER, _BATCHER, ("task", "nobody")})
    _equal(both, _is_due(batch.key, _USER), "due gives instances of all these jobs")
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
        claimable = (yield from _claim(storage)) is not None
        _equal(
            claimable,
            at is not None and at <= _NOON,
            "an instance is claimed by the alarm of its last commit",
        )
        if claimable:
            yield from storage.release("worker-a")
            present = (yield from storage.load(_USER)) or present
        due = yield from storage.due(_NOON, 10, [_COUNTER])
        _equal(
            due,
            _is_due(_USER) if at is not None and at <= _NOON else [],
            "an instance is due by the alarm of its last commit",
        )
    far = yield from storage.due(_NOON + _DAY, 10, [_COUNTER])
    _equal(far, _is_due(_USER), "an instance is due once, however often its alarm was moved")


@Effect.gen
def due_knows_suspects(storage: Storage) -> Do[None, Refusal]:
    """Instances whose last run died are told apart, wherever they are in the order."""
    kept = [_born(Key(*_COUNTER, name), _NOON - n * _SECOND) for n, name in enumerate("abcd")]
    for n, instance in enumerate(kept):
        yield from storage.commit(_birth(attrs.evolve(instance, crashes=n % 2)))
    expected = [Due(instance.key, suspect=n % 2 == 1) for n, instance in enumerate(kept)][::-1]
    _equal((yield from storage.due(_NOON, 10, [_COUNTER])), expected, "due tells what crashed the last time")
    held = yield from _taken(storage, kept[1].key)
    yield from storage.commit(_change(held, attrs.evolve(held.evolve(), lease=None, crashes=0)))
    due = yield from storage.due(_NOON, 10, [_COUNTER])
    _equal(due[2], Due(kept[1].key, suspect=False), "a commit says how many crashes there were")


@Effect.gen
def leases_that_are_over_are_due_in_their_order(storage: Storage) -> Do[None, Refusal]:
    """Alarms and ends of leases make one order, of the jobs that were asked for."""
    wakes: list[tuple[Key, datetime, bool]] = [
        (Key("task", "t", "b"), _NOON - 3 * _SECOND, True),
        (Key("continuous", "counter", "b"), _NOON - 2 * _SECOND, False),
        (Key("continuous", "counter", "c"), _NOON - 2 * _SECOND, True),
        (Key("continuous", "counter", "a"), _NOON, True),
        (Key("task", "t", "a"), _NOON + _MICROSECOND, True),
    ]
    for key, at, leased in reversed(wakes):
        record = _leased(_born(key, _NOON - _DAY), until=at) if leased else _born(key, at)
        yield from storage.commit(_birth(record))
    yield from storage.commit(_birth(_leased(_born(Key(*_BATCHER, "x")), until=_NOON - _DAY)))
    jobs: list[JobName] = [_COUNTER, ("task", "t")]
    for limit in (1, 2, 10):
        due = yield from storage.due(_NOON, limit, jobs)
        _equal(due, _is_due(*(key for key, _, _ in wakes[:4]))[:limit], "due is in the order of wake_at")
    at_first = yield from storage.next_due(jobs)
    _equal(at_first, _NOON - 3 * _SECOND, "next_due counts ends of leases")
    behind = yield from storage.next_due(jobs, after=_NOON)
    _equal(behind, _NOON + _MICROSECOND, "next_due looks behind after in ends of leases, too")


# -- survey ------------------------------------------------------------------------------------------


_NOTHING = Survey(
    instances=0,
    overdue=0,
    oldest_due=None,
    leased=0,
    expired_leases=0,
    suspects=0,
    quarantined=0,
    outbox=0,
    oldest_event=None,
    dead_letters=0,
    marks=0,
)


@Effect.gen
def a_survey_counts(storage: Storage) -> Do[None, Refusal]:
    """Instances by what they are, what waits beside them, and since when."""
    task = _born(Key("task", "t", "x"))
    records = [
        task,
        attrs.evolve(task, key=Key("task", "t", "later"), alarm=Alarm(_NOON + _MICROSECOND, "schedule")),
        attrs.evolve(task, key=Key("task", "t", "due"), alarm=Alarm(_NOON, "schedule")),
        attrs.evolve(task, key=Key("debounce", "d", "due"), alarm=Alarm(_NOON - 60 * _SECOND, "retry")),
        _leased(attrs.evolve(task, key=Key("task", "t", "live")), until=_NOON + _MICROSECOND),
        _leased(attrs.evolve(task, key=Key("task", "t", "over")), until=_NOON - 3 * _LEASE),
        attrs.evolve(task, key=Key("task", "t", "suspect"), crashes=1),
        attrs.evolve(
            task, key=Key("task", "t", "poison"), quarantined=True, alarm=Alarm(_NOON - _DAY, "retry")
        ),
        attrs.evolve(_born(_USER), stopped=True),
        attrs.evolve(_born(Key(*_COUNTER, "poison")), quarantined=True),
        _born(Key(*_COUNTER, "armed"), _NOON + _DAY),
        _leased(_born(Key(*_COUNTER, "run"))),
    ]
    for n, record in enumerate(records):
        event = attrs.evolve(_fact(f"event-{n}"), timestamp=_NOON - 7 * _DAY + n * _SECOND)
        mark = Mark("e", _NOON + _DAY) if n < 3 else None
        letter = _letter(record) if n < 2 else None
        yield from storage.commit(_birth(record, events=(event,), mark=mark, dead_letter=letter))
    yield from storage.events_sent(["event-0"])
    expected = Survey(
        instances=12,
        overdue=3,
        oldest_due=_NOON - 3 * _LEASE,
        leased=3,
        expired_leases=1,
        suspects=1,
        quarantined=2,
        outbox=11,
        oldest_event=_NOON - 7 * _DAY + _SECOND,
        dead_letters=2,
        marks=3,
    )
    _equal((yield from storage.survey(_NOON, lease=_LEASE)), expected, "a survey counts what is there")


@Effect.gen
def a_survey_finds_what_must_not_be(storage: Storage) -> Do[None, Refusal]:
    """Leases that nobody took over, alarms that nobody heard, events that nobody sent, sleep without end."""
    left = _leased(_born(Key("task", "t", "left")), until=_NOON - 3 * _LEASE - _MICROSECOND)
    unheard = _born(Key("task", "t", "unheard"), _NOON - 60 * _SECOND - _MICROSECOND)
    asleep = _born(Key(*_COUNTER, "asleep"))
    old = attrs.evolve(_fact("old", unheard.key), timestamp=_NOON - 7 * _DAY - _MICROSECOND)
    for record in (left, unheard, asleep):
        yield from storage.commit(_birth(record, events=(old,) if record is unheard else ()))
    survey = yield from storage.survey(_NOON, lease=_LEASE)
    found = sorted((one.invariant, one.detail) for one in survey.violations)
    _equal(
        [invariant for invariant, _ in found], ["I5", "I6", "I7", "I8"], "a survey finds each violation once"
    )
    for (invariant, detail), key in zip(found, (left.key, unheard.key, unheard.key, asleep.key), strict=True):
        _demand(key.instance_id in detail, f"the detail of {invariant} names {key.instance_id}: {detail}")
    _equal(survey.instances, 3, "violations are counted like all others")


@Effect.gen
def a_survey_tells_a_hundred_of_a_kind(storage: Storage) -> Do[None, Refusal]:
    """However many there are, the answer stays short, and every kind is told."""
    births = [storage.commit(_birth(_born(Key(*_COUNTER, str(n))))) for n in range(101)]
    births.append(storage.commit(_birth(_born(Key("task", "t", "unheard"), _NOON - _DAY))))
    yield from Effect.all(births, concurrency="unbounded")
    survey = yield from storage.survey(_NOON, lease=_LEASE)
    found = [one.invariant for one in survey.violations]
    _equal(
        (found.count("I8"), found.count("I6")),
        (100, 1),
        "a survey tells at most a hundred violations of a kind",
    )


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
    _equal(
        due, _is_due(*sorted(keys)), "instances that are due at the same time come in the order of their keys"
    )


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
    a_claim_takes_what_is_due,
    a_claim_refuses_what_is_not_due,
    a_live_lease_cannot_be_claimed,
    one_of_concurrent_claims_wins,
    a_lease_that_is_over_is_recovered_and_counted,
    a_lease_decides_when_an_instance_wakes,
    fences_only_grow,
    a_commit_without_a_lease_frees_the_record,
    a_commit_with_a_lease_takes_the_record,
    incarnation_revision_and_fence_are_compared,
    a_lease_is_renewed_by_its_holder,
    a_lease_is_renewed_until_somebody_takes_it,
    a_release_gives_leases_back,
    a_commit_that_is_sent_again_happens_once,
    events_that_were_sent_stay_sent,
    a_commit_that_is_sent_at_once_again_happens_once,
    a_commit_that_comes_after_another_conflicts,
    a_birth_that_comes_after_the_removal_is_no_birth,
    a_removal_that_comes_after_a_birth_removes_nothing,
    removals_are_known_for_an_hour,
    a_commit_that_is_sent_again_learns_no_fence_of_another,
    marks_are_remembered_until_they_expire,
    marks_outlive_their_instance,
    marks_belong_to_one_instance,
    one_of_concurrent_commits_with_a_mark_wins,
    due_is_ordered_and_bounded,
    due_and_next_due_know_only_the_jobs_they_are_asked_for,
    next_due_looks_behind_an_instant,
    alarms_follow_their_record,
    due_knows_suspects,
    leases_that_are_over_are_due_in_their_order,
    a_survey_counts,
    a_survey_finds_what_must_not_be,
    a_survey_tells_a_hundred_of_a_kind,
    jobs_counts_instances,
    instances_come_in_pages,
    different_keys_never_share_a_record,
    events_come_back_in_the_order_of_their_commits,
    dead_letters_are_numbered_and_kept,
    a_dead_letter_is_brought_back_once,
    expired_dead_letters_go_with_later_commits,
)
"""Every check, one sentence of the contract each."""
