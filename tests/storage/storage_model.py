"""What a storage holds, told as simply as possible: dictionaries and lists, no cleverness.

Fences are the storage's own choice: the model is told which were given, and holds it to giving greater ones
each time.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import attrs

from durable_effect_jobs.errors import DuplicateEventError
from durable_effect_jobs.instance import Claim, Claimed, Commit, DeadLetter, Due, Instance, Key, Lease
from durable_effect_jobs.storage import Conflict, JobName


class Model:
    """The contract, one line after the other."""

    def __init__(self) -> None:
        self.records: dict[Key, Instance] = {}
        self.written: dict[Key, tuple[str, int]] = {}
        self.receipts: set[str] = set()
        self.marks: dict[tuple[Key, str], datetime] = {}
        self.letters: list[DeadLetter] = []
        self.events: list[Any] = []
        self.numbers = 0
        self.last_fence = 0

    def commit(self, commit: Commit, fence: int) -> object:
        """Do it, and answer the fence, or the error."""
        key, before, after, mark = commit.key, commit.before, commit.after, commit.mark
        token, answered = self.written.get(key, ("", 0))
        if commit.token == token:
            return answered
        if commit.token in self.receipts:
            return 0
        if _identity(self.records.get(key)) != _identity(before):
            return Conflict(key)
        if mark is not None and self.is_marked(key, mark.event_id, commit.at):
            return DuplicateEventError(mark.event_id)
        self.records.pop(key, None)
        self.written.pop(key, None)
        if after is None:
            self.receipts |= {commit.token, token}
            answer = 0
        else:
            answer = self.given(fence) if after.lease else before.fence if before else 0
            self.records[key] = attrs.evolve(after, fence=answer)
            self.written[key] = commit.token, answer
        if mark is not None:
            self.marks[key, mark.event_id] = mark.expires_at
        if commit.dead_letter is not None:
            self.numbers += 1
            self.letters.append(attrs.evolve(commit.dead_letter, number=self.numbers))
        self.letters = [one for one in self.letters if one.expires_at > commit.at]
        self.events += commit.events
        return answer

    def given(self, fence: int) -> int:
        """A new fence has to be greater than all before."""
        assert fence > self.last_fence
        self.last_fence = fence
        return fence

    def claim(self, claim: Claim, fence: int) -> Claimed | None:
        record = self.records.get(claim.key)
        if record is None or record.wake_at is None or record.wake_at > claim.now:
            return None
        died = record.lease is not None and record.lease.owner != claim.owner
        taken = attrs.evolve(
            record,
            lease=Lease(claim.owner, claim.until),
            fence=self.given(fence),
            crashes=record.crashes + died,
        )
        self.records[claim.key] = taken
        return Claimed(taken, died)

    def renew(self, owner: str, held: Iterable[tuple[Key, int]], until: datetime) -> set[Key]:
        kept = {key for key, fence in held if self.is_leased(key, owner) and self.records[key].fence == fence}
        for key in kept:
            self.records[key] = attrs.evolve(self.records[key], lease=Lease(owner, until))
        return kept

    def release(self, owner: str, keys: Collection[Key] | None, fences: dict[Key, int]) -> None:
        freed = [key for key in (self.records if keys is None else keys) if self.is_leased(key, owner)]
        for key in sorted(freed, key=lambda key: fences[key]):
            self.records[key] = attrs.evolve(self.records[key], lease=None, fence=self.given(fences[key]))

    def take_over(self, now: datetime) -> None:
        for key, record in self.records.items():
            if record.lease is not None:
                lease = Lease(record.lease.owner, min(record.lease.until, now))
                self.records[key] = attrs.evolve(record, lease=lease)

    def is_leased(self, key: Key, owner: str) -> bool:
        record = self.records.get(key)
        return record is not None and record.lease is not None and record.lease.owner == owner

    def is_marked(self, key: Key, event_id: str, now: datetime) -> bool:
        return self.marks.get((key, event_id), now) > now

    def wakes(self, jobs: set[JobName]) -> list[tuple[datetime, Key]]:
        times = [(one.wake_at, key) for key, one in self.records.items() if (key.kind, key.job) in jobs]
        return sorted((at, key) for at, key in times if at is not None)

    def due(self, now: datetime, jobs: set[JobName]) -> list[Due]:
        return [Due(key, self.records[key].crashes > 0) for at, key in self.wakes(jobs) if at <= now]


def _identity(record: Instance | None) -> tuple[str, int, int] | None:
    return None if record is None else (record.incarnation, record.revision, record.fence)
