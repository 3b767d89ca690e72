"""Instances in the memory of this process: for tests, and for work that may end with the process.

Everything is ready at once: no call waits, so a step on this storage never leaves its fiber's turn.
The object is the "disk": an engine that crashes and is started again with the same object finds what
was committed.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Collection, Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import islice, takewhile

import attrs

from durable_effect import Effect
from durable_effect_jobs.errors import DuplicateEventError, Kind, StorageError
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key, Mark, from_micros, to_micros
from durable_effect_jobs.storage import Conflict, JobName

__all__ = ["MemoryStorage"]

_log = logging.getLogger("durable_effect_jobs.storage")

_EXPIRED_PER_COMMIT = 100
_WARN_EVERY = 1000
_SLACK = 64


class MemoryStorage:
    """A storage that lives as long as the object does.

    ``outbox_limit`` bounds the events that wait to be sent: beyond it the oldest are dropped, counted in
    ``dropped_events``, and a warning is logged for the first and every thousandth further one.
    """

    __slots__ = ("_jobs", "_letters", "_marks", "_outbox", "_outbox_limit", "dropped_events")

    def __init__(self, *, outbox_limit: int = 1_000_000) -> None:
        if outbox_limit < 1:
            raise ValueError(f"outbox_limit must be at least 1, got {outbox_limit}")
        self._jobs: dict[JobName, _Job] = {}
        self._marks = _Marks()
        self._letters = _Letters()
        self._outbox: OrderedDict[str, Event] = OrderedDict()
        self._outbox_limit = outbox_limit
        self.dropped_events = 0

    # -- one instance ------------------------------------------------------------------------------

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        return Effect.sync(lambda: self._stored(key))

    def commit(self, commit: Commit) -> Effect[None, StorageError | Conflict | DuplicateEventError]:
        return Effect.suspend(lambda: self._commit(commit))

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        return Effect.sync(lambda: self._marks.remembers(key, event_id, to_micros(now)))

    # -- alarms ------------------------------------------------------------------------------------

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[list[Key], StorageError]:
        return Effect.sync(lambda: self._due(to_micros(now), limit, jobs))

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, StorageError]:
        return Effect.sync(lambda: self._next_due(jobs, None if after is None else to_micros(after)))

    # -- listing -----------------------------------------------------------------------------------

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

    def _stored(self, key: Key) -> Instance | None:
        job = self._jobs.get((key.kind, key.job))
        return None if job is None else job.records.get(key.id)

    def _commit(self, commit: Commit) -> Effect[None, StorageError | Conflict | DuplicateEventError]:
        """Look for every reason to refuse first: from the first change on, nothing can fail."""
        at_us = to_micros(commit.at)
        if not _is_still(self._stored(commit.key), commit.before):
            return Effect.fail(Conflict(commit.key))
        if commit.replays is not None and not self._letters.has(commit.replays):
            return Effect.fail(Conflict(commit.key))
        mark = commit.mark
        if mark is not None and self._marks.remembers(commit.key, mark.event_id, at_us):
            return Effect.fail(DuplicateEventError(mark.event_id))
        if commit.events and (repeated := self._repeated(commit.events)) is not None:
            return Effect.fail(StorageError("commit", f"the outbox holds an event {repeated!r} already"))
        self._apply(commit, at_us)
        return Effect.void

    def _apply(self, commit: Commit, at_us: int) -> None:
        self._replace(commit.key, commit.after)
        if commit.mark is not None:
            self._marks.add(commit.key, commit.mark)
        if commit.dead_letter is not None:
            self._letters.add(commit.dead_letter)
        if commit.replays is not None:
            self._letters.remove(commit.replays)
        for event in commit.events:
            self._outbox[event.event_id] = event
        self._drop_oldest_events()
        self._marks.forget_expired(at_us)
        self._letters.forget_expired(at_us)

    def _replace(self, key: Key, after: Instance | None) -> None:
        name = (key.kind, key.job)
        job = self._jobs.get(name)
        if after is not None:
            if job is None:
                job = self._jobs[name] = _Job()
            job.put(after)
        elif job is not None:
            job.remove(key.id)
            if not job.ids:
                del self._jobs[name]

    def _due(self, now_us: int, limit: int, jobs: Collection[JobName]) -> list[Key]:
        found: list[tuple[int, Kind, str, str]] = [
            (alarm_us, kind, job, its_id)
            for kind, job in set(jobs)
            for alarm_us, its_id in self._alarms((kind, job)).due(now_us, limit)
        ]
        return [Key(kind, job, its_id) for _, kind, job, its_id in sorted(found)[:limit]]

    def _next_due(self, jobs: Collection[JobName], after_us: int | None) -> datetime | None:
        earliest = [at for name in jobs if (at := self._alarms(name).earliest(after_us)) is not None]
        return from_micros(min(earliest)) if earliest else None

    def _alarms(self, name: JobName) -> _Alarms:
        job = self._jobs.get(name)
        return _NO_ALARMS if job is None else job.alarms

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
    return stored.incarnation == before.incarnation and stored.revision == before.revision


class _Job:
    """What is stored of one job: its records, their ids in order, their alarms."""

    __slots__ = ("alarms", "ids", "records")

    def __init__(self) -> None:
        self.records: dict[str, Instance] = {}
        self.ids: list[str] = []
        self.alarms = _Alarms()

    def put(self, record: Instance) -> None:
        its_id = record.key.id
        if its_id not in self.records:
            insort(self.ids, its_id)
        self.records[its_id] = record
        self.alarms.set(its_id, None if record.alarm is None else to_micros(record.alarm.at))

    def remove(self, its_id: str) -> None:
        if self.records.pop(its_id, None) is not None:
            del self.ids[bisect_left(self.ids, its_id)]
            self.alarms.set(its_id, None)

    def behind(self, after: str | None) -> Iterator[Instance]:
        first = 0 if after is None else bisect_right(self.ids, after)
        return (self.records[self.ids[n]] for n in range(first, len(self.ids)))


class _Alarms:
    """The alarms of one job, earliest first.

    ``_heap`` keeps entries of alarms that were moved or cleared until they come up or outnumber the
    others; ``_at`` says which entries still hold.
    """

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def set(self, its_id: str, alarm_us: int | None) -> None:
        if alarm_us is None:
            self._at.pop(its_id, None)
        elif self._at.get(its_id) != alarm_us:
            self._at[its_id] = alarm_us
            heappush(self._heap, (alarm_us, its_id))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(at, waiting) for waiting, at in self._at.items()]
            heapify(self._heap)

    def earliest(self, after_us: int | None = None) -> int | None:
        """The first alarm, or the first that is later than ``after_us``."""
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
            if self._holds(entry) and entry != latest:  # an alarm set to a time twice is there twice
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


_NO_ALARMS = _Alarms()


class _Marks:
    """The event ids that are remembered, and when each is to be forgotten."""

    __slots__ = ("_expiry", "_until")

    def __init__(self) -> None:
        self._until: dict[tuple[Key, str], int] = {}
        self._expiry: list[tuple[int, Key, str]] = []

    def remembers(self, key: Key, event_id: str, now_us: int) -> bool:
        return self._until.get((key, event_id), now_us) > now_us

    def add(self, key: Key, mark: Mark) -> None:
        expires_us = to_micros(mark.expires_at)
        self._until[key, mark.event_id] = expires_us
        heappush(self._expiry, (expires_us, key, mark.event_id))

    def forget_expired(self, now_us: int) -> None:
        for _ in range(_EXPIRED_PER_COMMIT):
            if not self._expiry or self._expiry[0][0] > now_us:
                return
            expires_us, key, event_id = heappop(self._expiry)
            if self._until.get((key, event_id)) == expires_us:  # not marked anew meanwhile
                del self._until[key, event_id]


class _Letters:
    """Dead letters by number, and when each expires."""

    __slots__ = ("_expiry", "_letters", "_number")

    def __init__(self) -> None:
        self._letters: dict[int, DeadLetter] = {}
        self._expiry: list[tuple[int, int]] = []
        self._number = 0

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
