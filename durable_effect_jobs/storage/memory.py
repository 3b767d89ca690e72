"""Instances in the memory of this process: for tests, and for work that may end with the process.

Everything is ready at once: no call waits, so a step on this storage never leaves its fiber's turn.
The object is the "disk": an engine that crashes and is started again with the same object finds what
was committed, and runs it at once after :meth:`MemoryStorage.take_over`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import islice, takewhile
from typing import Generic, TypeVar

import attrs

from durable_effect import Effect
from durable_effect_jobs.errors import DuplicateEventError, Kind, StorageError
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import (
    Claim,
    Claimed,
    Commit,
    DeadLetter,
    Due,
    Instance,
    Key,
    Lease,
    from_micros,
    to_micros,
)
from durable_effect_jobs.storage import Conflict, JobName, Survey, Violation

__all__ = ["MemoryStorage"]

_log = logging.getLogger("durable_effect_jobs.storage")

_EXPIRED_PER_COMMIT = 100
_WARN_EVERY = 1000
_SLACK = 64
_RECEIPT_US = 3_600_000_000
_OVERDUE = timedelta(seconds=60)
_OUTBOX_AGE = timedelta(days=7)
_LEASES = 3
_DETAILS = 100

K = TypeVar("K")


class MemoryStorage:
    """A storage that lives as long as the object does.

    ``outbox_limit`` bounds the events that wait to be sent: beyond it the oldest are dropped, counted in
    ``dropped_events``, and a warning is logged for the first and every thousandth further one.
    """

    __slots__ = (
        "_fence",
        "_jobs",
        "_letters",
        "_marks",
        "_outbox",
        "_outbox_limit",
        "_receipts",
        "dropped_events",
    )

    def __init__(self, *, outbox_limit: int = 1_000_000) -> None:
        if outbox_limit < 1:
            raise ValueError(f"outbox_limit must be at least 1, got {outbox_limit}")
        self._jobs: dict[JobName, _Job] = {}
        self._fence = 0
        self._marks: _Remembered[tuple[Key, str]] = _Remembered()
        self._receipts: _Remembered[str] = _Remembered()
        self._letters = _Letters()
        self._outbox: OrderedDict[str, Event] = OrderedDict()
        self._outbox_limit = outbox_limit
        self.dropped_events = 0

    def take_over(self, now: datetime) -> None:
        """End every lease at ``now``: whoever held one is gone, as after a crash of the only process.

        What they ran is due at once, and counts as crashed when another owner claims it.
        """
        for job in self._jobs.values():
            for row in job.rows.values():
                lease = row.record.lease
                if lease is not None and lease.until > now:
                    job.replace(row, attrs.evolve(row.record, lease=Lease(lease.owner, now)))

    # -- one instance ------------------------------------------------------------------------------

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        return Effect.sync(lambda: self._stored(key))

    def commit(self, commit: Commit) -> Effect[int, StorageError | Conflict | DuplicateEventError]:
        return Effect.suspend(lambda: self._commit(commit))

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        return Effect.sync(lambda: self._marks.holds((key, event_id), to_micros(now)))

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        return Effect.sync(lambda: self._claim(claim))

    def renew(
        self, owner: str, held: Collection[tuple[Key, int]], until: datetime
    ) -> Effect[frozenset[Key], StorageError]:
        return Effect.sync(
            lambda: frozenset(key for key, fence in held if self._renew(key, Lease(owner, until), fence))
        )

    def release(self, owner: str, keys: Collection[Key] | None = None) -> Effect[None, StorageError]:
        return Effect.sync(lambda: self._release(owner, keys))

    # -- wake-ups ----------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[list[Due], StorageError]:
        return Effect.sync(lambda: self._due(to_micros(now), limit, jobs))

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, StorageError]:
        return Effect.sync(lambda: self._next_due(jobs, None if after is None else to_micros(after)))

    # -- listing -----------------------------------------------------------------------------------

    def survey(self, now: datetime, *, lease: timedelta) -> Effect[Survey, StorageError]:
        return Effect.sync(lambda: self._survey(now, lease))

    def jobs(self) -> Effect[dict[JobName, int], StorageError]:
        return Effect.sync(lambda: {name: len(job.ids) for name, job in self._jobs.items()})

    def instances(
        self, *, job: JobName | None = None, after: Key | None = None, limit: int = 100
    ) -> Effect[list[Instance], StorageError]:
        return Effect.sync(lambda: list(islice(self._behind(job, after), limit)))

    def dead_letters(self, *, after: int = 0, limit: int = 100) -> Effect[list[DeadLetter], StorageError]:
        return Effect.sync(lambda: self._letters.page(after, limit))

    def remove_dead_letter(self, number: int) -> Effect[bool, StorageError]:
        return Effect.sync(lambda: self._letters.remove(number))

    # -- outbox ------------------------------------------------------------------------------------

    def pending_events(self, limit: int) -> Effect[list[Event], StorageError]:
        return Effect.sync(lambda: list(islice(self._outbox.values(), limit)))

    def events_sent(self, event_ids: Collection[str]) -> Effect[None, StorageError]:
        return Effect.sync(lambda: self._remove_events(event_ids))

    # -- how ---------------------------------------------------------------------------------------

    def _row(self, key: Key) -> _Row | None:
        job = self._jobs.get((key.kind, key.job))
        return None if job is None else job.rows.get(key.id)

    def _stored(self, key: Key) -> Instance | None:
        row = self._row(key)
        return None if row is None else row.record

    def _next_fence(self) -> int:
        self._fence += 1
        return self._fence

    def _commit(self, commit: Commit) -> Effect[int, StorageError | Conflict | DuplicateEventError]:
        """Look for every reason to refuse first: from the first change on, nothing can fail."""
        row = self._row(commit.key)
        if row is not None and row.token == commit.token:
            return Effect.succeed(row.answered)
        if self._receipts.knows(commit.token):
            return Effect.succeed(0)
        at_us = to_micros(commit.at)
        if not _is_still(None if row is None else row.record, commit.before):
            return Effect.fail(Conflict(commit.key))
        if commit.replays is not None and not self._letters.has(commit.replays):
            return Effect.fail(Conflict(commit.key))
        mark = commit.mark
        if mark is not None and self._marks.holds((commit.key, mark.event_id), at_us):
            return Effect.fail(DuplicateEventError(mark.event_id))
        if commit.events and (repeated := self._repeated(commit.events)) is not None:
            return Effect.fail(StorageError("commit", f"the outbox holds an event {repeated!r} already"))
        return Effect.succeed(self._apply(commit, row, at_us))

    def _apply(self, commit: Commit, row: _Row | None, at_us: int) -> int:
        if commit.after is None:
            fence = 0
            self._remove(commit, row, at_us)
        else:
            fence = self._write(commit, commit.after, row)
        if commit.mark is not None:
            self._marks.add((commit.key, commit.mark.event_id), to_micros(commit.mark.expires_at))
        if commit.dead_letter is not None:
            self._letters.add(commit.dead_letter)
        if commit.replays is not None:
            self._letters.remove(commit.replays)
        for event in commit.events:
            self._outbox[event.event_id] = event
        self._drop_oldest_events()
        self._marks.forget_expired(at_us)
        self._receipts.forget_expired(at_us)
        self._letters.forget_expired(at_us)
        return fence

    def _write(self, commit: Commit, after: Instance, row: _Row | None) -> int:
        if after.lease is not None:
            fence = self._next_fence()
        else:
            fence = 0 if commit.before is None else commit.before.fence
        record = after if after.fence == fence else after.replace(fence=fence)
        name = (commit.key.kind, commit.key.job)
        job = self._jobs.get(name)
        if job is None:
            job = self._jobs[name] = _Job()
        if row is None:
            job.add(_Row(record, commit.token, fence))
        else:
            row.token, row.answered = commit.token, fence
            job.replace(row, record)
        return fence

    def _remove(self, commit: Commit, row: _Row | None, at_us: int) -> None:
        expires_us = at_us + _RECEIPT_US
        self._receipts.add(commit.token, expires_us)
        if row is None:
            return
        # A birth whose answer was lost may be sent again after this: it must not bring the record back.
        self._receipts.add(row.token, expires_us)
        name = (commit.key.kind, commit.key.job)
        job = self._jobs[name]
        job.remove(commit.key.id)
        if not job.ids:
            del self._jobs[name]

    def _claim(self, claim: Claim) -> Claimed | None:
        row = self._row(claim.key)
        if row is None:
            return None
        record = row.record
        wake_at = record.wake_at
        if wake_at is None or wake_at > claim.now:
            return None
        recovered = record.lease is not None and record.lease.owner != claim.owner
        taken = attrs.evolve(
            record,
            lease=Lease(claim.owner, claim.until),
            fence=self._next_fence(),
            crashes=record.crashes + recovered,
        )
        self._job_of(record).replace(row, taken)
        return Claimed(taken, recovered)

    def _renew(self, key: Key, lease: Lease, fence: int) -> bool:
        row = self._row(key)
        if row is None or row.record.fence != fence or not _is_leased_by(row.record, lease.owner):
            return False
        self._job_of(row.record).replace(row, attrs.evolve(row.record, lease=lease))
        return True

    def _release(self, owner: str, keys: Collection[Key] | None) -> None:
        for row in self._rows() if keys is None else filter(None, map(self._row, keys)):
            if _is_leased_by(row.record, owner):
                freed = attrs.evolve(row.record, lease=None, fence=self._next_fence())
                self._job_of(freed).replace(row, freed)

    def _job_of(self, record: Instance) -> _Job:
        return self._jobs[record.key.kind, record.key.job]

    def _rows(self) -> Iterator[_Row]:
        return (row for job in self._jobs.values() for row in job.rows.values())

    def _due(self, now_us: int, limit: int, jobs: Collection[JobName]) -> list[Due]:
        found: list[tuple[int, Kind, str, str]] = [
            (wake_us, kind, job, its_id)
            for kind, job in set(jobs)
            for wake_us, its_id in self._wakes((kind, job)).due(now_us, limit)
        ]
        return [
            Due(Key(kind, job, its_id), self._jobs[kind, job].rows[its_id].record.crashes > 0)
            for _, kind, job, its_id in sorted(found)[:limit]
        ]

    def _next_due(self, jobs: Collection[JobName], after_us: int | None) -> datetime | None:
        earliest = [at for name in jobs if (at := self._wakes(name).earliest(after_us)) is not None]
        return from_micros(min(earliest)) if earliest else None

    def _survey(self, now: datetime, lease: timedelta) -> Survey:
        records = [row.record for row in self._rows()]
        overdue = [at for record in records if (at := record.wake_at) is not None and at <= now]
        leases = [record.lease for record in records if record.lease is not None]
        return Survey(
            instances=len(records),
            overdue=len(overdue),
            oldest_due=min(overdue, default=None),
            leased=len(leases),
            expired_leases=sum(held.until <= now for held in leases),
            suspects=sum(record.crashes > 0 for record in records),
            quarantined=sum(record.quarantined for record in records),
            outbox=len(self._outbox),
            oldest_event=min((event.timestamp for event in self._outbox.values()), default=None),
            dead_letters=len(self._letters),
            marks=len(self._marks),
            violations=tuple(self._violations(records, now, lease)),
        )

    def _violations(self, records: list[Instance], now: datetime, lease: timedelta) -> Iterator[Violation]:
        """I2 cannot be broken here: owner and end of a lease are one value."""
        checks: dict[str, Callable[[Instance], str | None]] = {
            "I1": self._without_wake_up,
            "I3": lambda record: "has revision 0" if record.revision < 1 else None,
            "I4": self._future_fence,
            "I5": lambda record: _long_over(record, now, lease),
            "I6": lambda record: _long_overdue(record, now),
            "I8": _asleep_for_ever,
        }
        for invariant, problem in checks.items():
            found = ((record.key.instance_id, problem(record)) for record in records)
            yield from _told(invariant, (f"{about} {what}" for about, what in found if what is not None))
        old = (event for event in self._outbox.values() if now - event.timestamp > _OUTBOX_AGE)
        texts = (f"{e.instance_id}: event {e.event_id} of {e.timestamp.isoformat()} waits" for e in old)
        yield from _told("I7", texts)

    def _without_wake_up(self, record: Instance) -> str | None:
        wake_at = record.wake_at
        expected = None if wake_at is None else to_micros(wake_at)
        if self._job_of(record).wakes.of(record.key.id) == expected:
            return None
        return f"is to wake at {wake_at}, but nobody looks for it then"

    def _future_fence(self, record: Instance) -> str | None:
        if record.fence <= self._fence:
            return None
        return f"has fence {record.fence}, but the last one given is {self._fence}"

    def _wakes(self, name: JobName) -> _WakeUps:
        job = self._jobs.get(name)
        return _NO_WAKE_UPS if job is None else job.wakes

    def _behind(self, only: JobName | None, after: Key | None) -> Iterator[Instance]:
        names = sorted(self._jobs) if only is None else [only] if only in self._jobs else []
        for name in names:
            if after is None or name > (after.kind, after.job):
                yield from self._jobs[name].behind(None)
            elif name == (after.kind, after.job):
                yield from self._jobs[name].behind(after.id)

    def _repeated(self, events: tuple[Event, ...]) -> str | None:
        ids = [event.event_id for event in events]
        return next((one for n, one in enumerate(ids) if one in self._outbox or one in ids[:n]), None)

    def _remove_events(self, event_ids: Collection[str]) -> None:
        for event_id in event_ids:
            self._outbox.pop(event_id, None)

    def _drop_oldest_events(self) -> None:
        while len(self._outbox) > self._outbox_limit:
            self._outbox.popitem(last=False)
            if self.dropped_events % _WARN_EVERY == 0:
                _log.warning(
                    "the outbox is full (%d events): dropping the oldest; %d dropped before",
                    self._outbox_limit,
                    self.dropped_events,
                )
            self.dropped_events += 1


def _is_still(stored: Instance | None, before: Instance | None) -> bool:
    if stored is None or before is None:
        return stored is before
    return (
        stored.incarnation == before.incarnation
        and stored.revision == before.revision
        and stored.fence == before.fence
    )


def _is_leased_by(record: Instance, owner: str) -> bool:
    return record.lease is not None and record.lease.owner == owner


def _long_over(record: Instance, now: datetime, lease: timedelta) -> str | None:
    held = record.lease
    if held is None or now - held.until <= _LEASES * lease:
        return None
    return f"is leased by {held.owner} until {held.until.isoformat()}, and nobody took it since"


def _long_overdue(record: Instance, now: datetime) -> str | None:
    wake_at = record.wake_at
    if record.lease is not None or wake_at is None or now - wake_at <= _OVERDUE:
        return None
    return f"is due since {wake_at.isoformat()}"


def _asleep_for_ever(record: Instance) -> str | None:
    if record.key.kind != "continuous" or record.stopped or record.quarantined:
        return None
    return "has neither alarm nor lease" if record.alarm is None and record.lease is None else None


def _told(invariant: str, details: Iterable[str]) -> Iterator[Violation]:
    return (Violation(invariant=invariant, detail=detail) for detail in islice(details, _DETAILS))


class _Row:
    """One record, the token of the write that made it, and the fence that this write was answered.

    Claims and releases move the fence of the record on: the write's sender, who may ask again, must not
    learn the fence of another run.
    """

    __slots__ = ("answered", "record", "token")

    def __init__(self, record: Instance, token: str, answered: int) -> None:
        self.record = record
        self.token = token
        self.answered = answered


class _Job:
    """What is stored of one job: its rows, their ids in order, when they wake."""

    __slots__ = ("ids", "rows", "wakes")

    def __init__(self) -> None:
        self.rows: dict[str, _Row] = {}
        self.ids: list[str] = []
        self.wakes = _WakeUps()

    def add(self, row: _Row) -> None:
        its_id = row.record.key.id
        insort(self.ids, its_id)
        self.rows[its_id] = row
        self.replace(row, row.record)

    def replace(self, row: _Row, record: Instance) -> None:
        row.record = record
        wake_at = record.wake_at
        self.wakes.set(record.key.id, None if wake_at is None else to_micros(wake_at))

    def remove(self, its_id: str) -> None:
        del self.rows[its_id]
        del self.ids[bisect_left(self.ids, its_id)]
        self.wakes.set(its_id, None)

    def behind(self, after: str | None) -> Iterator[Instance]:
        first = 0 if after is None else bisect_right(self.ids, after)
        return (self.rows[self.ids[n]].record for n in range(first, len(self.ids)))


class _WakeUps:
    """When the instances of one job wake, earliest first.

    ``_heap`` keeps entries of wake-ups that were moved or cleared until they come up or outnumber the
    others; ``_at`` says which entries still hold.
    """

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, its_id: str, wake_us: int | None) -> None:
        if wake_us is None:
            self._at.pop(its_id, None)
        elif self._at.get(its_id) != wake_us:
            self._at[its_id] = wake_us
            heappush(self._heap, (wake_us, its_id))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(at, waiting) for waiting, at in self._at.items()]
            heapify(self._heap)

    def of(self, its_id: str) -> int | None:
        return self._at.get(its_id)

    def earliest(self, after_us: int | None = None) -> int | None:
        """The first wake-up, or the first that is later than ``after_us``."""
        if after_us is None:
            self._drop_stale()
            return self._heap[0][0] if self._heap else None
        return next((at for at, _ in self._in_order() if at > after_us), None)

    def due(self, now_us: int, limit: int) -> list[tuple[int, str]]:
        """The first ``limit`` due entries in order."""
        return list(islice(takewhile(lambda entry: entry[0] <= now_us, self._in_order()), limit))

    def _in_order(self) -> Iterator[tuple[int, str]]:
        """The entries that hold, found by walking the heap down without changing it."""
        self._drop_stale()
        heap = self._heap
        front = [(heap[0], 0)] if heap else []
        latest: tuple[int, str] | None = None
        while front:
            entry, n = heappop(front)
            if self._holds(entry) and entry != latest:  # what was set to a time twice is there twice
                yield entry
                latest = entry
            for child in (2 * n + 1, 2 * n + 2):
                if child < len(heap):
                    heappush(front, (heap[child], child))

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and not self._holds(heap[0]):
            heappop(heap)

    def _holds(self, entry: tuple[int, str]) -> bool:
        return self._at.get(entry[1]) == entry[0]


_NO_WAKE_UPS = _WakeUps()


class _Remembered(Generic[K]):
    """What is remembered, and when each is to be forgotten: marks, and tokens of removals."""

    __slots__ = ("_expiry", "_until")

    def __init__(self) -> None:
        self._until: dict[K, int] = {}
        self._expiry: list[tuple[int, K]] = []

    def __len__(self) -> int:
        return len(self._until)

    def knows(self, what: K) -> bool:
        """Whether it was not forgotten yet, over or not."""
        return what in self._until

    def holds(self, what: K, now_us: int) -> bool:
        return self._until.get(what, now_us) > now_us

    def add(self, what: K, expires_us: int) -> None:
        self._until[what] = expires_us
        heappush(self._expiry, (expires_us, what))

    def forget_expired(self, now_us: int) -> None:
        for _ in range(_EXPIRED_PER_COMMIT):
            if not self._expiry or self._expiry[0][0] > now_us:
                return
            expires_us, what = heappop(self._expiry)
            if self._until.get(what) == expires_us:  # not added anew meanwhile
                del self._until[what]


class _Letters:
    """Dead letters by number, and when each expires."""

    __slots__ = ("_expiry", "_letters", "_number")

    def __init__(self) -> None:
        self._letters: dict[int, DeadLetter] = {}
        self._expiry: list[tuple[int, int]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, letter: DeadLetter) -> None:
        self._number += 1
        self._letters[self._number] = attrs.evolve(letter, number=self._number)
        heappush(self._expiry, (to_micros(letter.expires_at), self._number))

    def page(self, after: int, limit: int) -> list[DeadLetter]:
        behind = (letter for number, letter in self._letters.items() if number > after)
        return list(islice(behind, limit))

    def has(self, number: int) -> bool:
        return number in self._letters

    def remove(self, number: int) -> bool:
        return self._letters.pop(number, None) is not None

    def forget_expired(self, now_us: int) -> None:
        for _ in range(_EXPIRED_PER_COMMIT):
            if not self._expiry or self._expiry[0][0] > now_us:
                return
            self._letters.pop(heappop(self._expiry)[1], None)
