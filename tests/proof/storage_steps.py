"""One worker's steps on a few tasks, drawn by dice: everything that a storage is asked to write.

Step ``n`` of a task carries the number in its record (``run_count``), in an event ``<id>-<n>``, in a mark
``<n>`` and in its token, across all lives of the task. So whatever is found later tells what belongs to it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeAlias

import attrs

from durable_effect import Do, Effect
from durable_effect_jobs.events import JobStarted
from durable_effect_jobs.instance import Alarm, Claim, Commit, DeadLetter, Instance, Key, Lease, Mark
from durable_effect_jobs.storage import Storage

__all__ = ["DAY", "JOB", "LEASE", "NOON", "OWNER", "Dice", "Task", "check_known", "step_on"]

JOB = ("task", "t")
OWNER = "worker-1"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)
DAY = timedelta(days=1)

Step: TypeAlias = Effect[None, Any]


class Dice(Protocol):
    """What is needed of ``random.Random``."""

    def random(self) -> float:
        """At least 0 and less than 1."""
        ...

    def randrange(self, stop: int, /) -> int:
        """At least 0 and less than ``stop``."""
        ...


@attrs.define
class Task:
    """What the worker knows of one task: only what was answered."""

    key: Key
    record: Instance | None = None
    steps: int = 0
    """How many commits succeeded."""
    unsent: list[str] = attrs.field(factory=list[str])
    """The events that were not yet removed from the outbox."""
    letters: int = 0

    @staticmethod
    def named(name: str) -> Task:
        """A task that has no record yet."""
        return Task(Key("task", "t", name))


def step_on(task: Task, storage: Storage, dice: Dice) -> Step:
    """The next thing to do with a task. It may be run again after a ``StorageError``, as often as need be."""
    record = task.record
    if record is None:
        return _commit(task, storage, _born(task, dice))
    draw = dice.random()
    if task.unsent and draw < 0.1:
        return _send_events(task, storage)
    if record.lease is None:
        if draw < 0.4 and record.is_due(NOON):
            return _claim(task, storage)
    elif draw < 0.2:
        return _release(task, storage)
    elif draw < 0.3:
        return _renew(task, storage)
    return _commit(task, storage, None if draw > 0.9 else _changed(task, record, dice))


def _born(task: Task, dice: Dice) -> Instance:
    fresh = Instance(key=task.key, incarnation=f"{task.key.id}-{task.steps}", created_at=NOON)
    return attrs.evolve(fresh, **_contents(task, dice))


def _changed(task: Task, record: Instance, dice: Dice) -> Instance:
    return attrs.evolve(record, revision=record.revision + 1, crashes=0, **_contents(task, dice))


def _contents(task: Task, dice: Dice) -> dict[str, Any]:
    """A state of up to three pages, an alarm or none, and a lease when the commit is to begin a run."""
    number = task.steps + 1
    armed = dice.random() < 0.7
    begins = armed and dice.random() < 0.4
    return {
        "run_count": number,
        "state": b'"'
        + bytes([97 + number % 26]) * dice.randrange(12_000 if dice.random() < 0.2 else 300)
        + b'"',
        "alarm": Alarm(NOON, "schedule") if armed else None,
        "lease": Lease(OWNER, NOON + LEASE) if begins else None,
    }


def _commit(task: Task, storage: Storage, after: Instance | None) -> Step:
    number = task.steps + 1
    event = _event(task.key, f"{task.key.id}-{number}")
    letter = None
    if after is None and task.record is not None:
        letter = DeadLetter(instance=task.record, reason="max_attempts", at=NOON, expires_at=NOON + 30 * DAY)
    commit = Commit(
        key=task.key,
        before=task.record,
        after=after,
        at=NOON,
        token=f"{task.key.id}-{number}",
        events=(event,),
        mark=Mark(str(number), NOON + DAY),
        dead_letter=letter,
    )

    def succeeded(fence: int) -> None:
        task.steps = number
        task.record = None if after is None else attrs.evolve(after, fence=fence)
        task.unsent.append(event.event_id)
        task.letters += letter is not None

    return storage.commit(commit).map(succeeded)


@Effect.gen
def _claim(task: Task, storage: Storage) -> Do[None, Any]:
    claimed = yield from storage.claim(Claim(task.key, OWNER, NOON, NOON + LEASE))
    if claimed is not None:
        assert not claimed.recovered
        task.record = claimed.instance
        return
    # Its answer was lost: it is ours already.
    task.record = yield from storage.load(task.key)
    assert task.record is not None
    assert task.record.lease == Lease(OWNER, NOON + LEASE)


@Effect.gen
def _release(task: Task, storage: Storage) -> Do[None, Any]:
    before = task.record
    assert before is not None
    yield from storage.release(OWNER, [task.key])
    record = yield from storage.load(task.key)
    assert record is not None
    assert record.fence > before.fence
    assert attrs.evolve(record, lease=before.lease, fence=before.fence) == before
    task.record = record


@Effect.gen
def _renew(task: Task, storage: Storage) -> Do[None, Any]:
    before = task.record
    assert before is not None
    until = NOON + 2 * LEASE
    renewed = yield from storage.renew(OWNER, [(task.key, before.fence)], until)
    assert renewed == {task.key}
    task.record = attrs.evolve(before, lease=Lease(OWNER, until))


def _send_events(task: Task, storage: Storage) -> Step:
    sent = task.unsent[: 1 + len(task.unsent) // 2]

    def succeeded(_: None) -> None:
        del task.unsent[: len(sent)]

    return storage.events_sent(sent).map(succeeded)


def _event(key: Key, event_id: str) -> JobStarted:
    return JobStarted(
        timestamp=NOON, instance_id=key.instance_id, kind=key.kind, job=key.job, id=key.id, event_id=event_id
    )


@Effect.gen
def check_known(tasks: list[Task], storage: Storage) -> Do[None, Any]:
    """Everything that was acknowledged is there, once, and nothing else is."""
    events = [event.event_id for event in (yield from storage.pending_events(1_000_000))]
    letters = yield from storage.dead_letters(limit=1_000_000)
    for task in tasks:
        assert (yield from storage.load(task.key)) == task.record
        assert [event for event in events if event.startswith(f"{task.key.id}-")] == task.unsent
        assert sum(letter.instance.key == task.key for letter in letters) == task.letters
        for number in range(1, task.steps + 1):
            assert (yield from storage.is_marked(task.key, str(number), NOON))
        assert not (yield from storage.is_marked(task.key, str(task.steps + 1), NOON))
    assert len(events) == sum(len(task.unsent) for task in tasks)
    assert len(letters) == sum(task.letters for task in tasks)
    survey = yield from storage.survey(NOON, lease=LEASE)
    assert survey.violations == ()
