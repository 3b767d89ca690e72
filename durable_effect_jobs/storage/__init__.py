"""The port to durable storage: one record per instance, replaced atomically.

An adapter implements :class:`Storage`; ``durable_effect_jobs.testing.check_storage`` proves that it
keeps this contract. The adapters of this distribution are :mod:`.memory` and :mod:`.sqlite`.

The contract:

* ``commit`` is atomic and durable: it succeeds only when all of the write (record, alarm, events, mark,
  dead letter) would survive the loss of the process and, where the medium can promise it, of power.
  A commit whose ``before`` is no longer what is stored, or whose dead letter is gone, fails with
  :class:`Conflict`, one whose mark is remembered with ``DuplicateEventError``; both change nothing.
  One that was applied already, told by its token, succeeds and changes nothing, and answers the fence that
  it was given then: after a ``StorageError`` nobody knows whether the write happened, and sending the same
  one again settles it. The receipt of a removal also answers for the write before it.
* ``claim`` is how a run begins and at the same time how the runs of a crashed worker are found: it takes an
  instance whose ``wake_at`` (:class:`~durable_effect_jobs.instance.Instance`) has come, under a lease and a
  new fence. Fences grow over the whole storage and are never given twice. The alarm stays until the commit.
* A read sees every commit that was acknowledged before it began, and never waits for a handler.
* Foreign exceptions are translated where they are raised: only the errors in the types come out.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

import attrs

from durable_effect import Effect, TypedError
from durable_effect_jobs.errors import DuplicateEventError, Kind, StorageError
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Claim, Claimed, Commit, DeadLetter, Due, Instance, Key

__all__ = ["Closed", "Conflict", "JobName", "Storage", "Survey", "Violation"]

JobName: TypeAlias = tuple[Kind, str]
"""A job as storages know it: its kind and its registered name."""


@attrs.frozen
class Conflict(TypedError):
    """The record changed since it was loaded; nothing was written."""

    key: Key

    def __str__(self) -> str:
        return f"{self.key.instance_id} was changed by another step"


class Closed(Exception):
    """The ``cause`` of a ``StorageError`` that no waiting will mend: the storage was closed."""

    def __str__(self) -> str:
        return "the storage is closed"


@attrs.frozen(kw_only=True)
class Violation:
    """Something that must never be stored, found."""

    invariant: str
    """``I1`` to ``I8``, as ``docs/guarantees.md`` lists them."""
    detail: str
    """What and where: instances by their ids."""


@attrs.frozen(kw_only=True)
class Survey:
    """The state of a storage at one moment."""

    instances: int
    overdue: int
    """Instances whose ``wake_at`` has passed, jobs that are not registered included."""
    oldest_due: datetime | None
    """The earliest of those times."""
    leased: int
    expired_leases: int
    suspects: int
    """Instances whose last run died."""
    quarantined: int
    outbox: int
    oldest_event: datetime | None
    dead_letters: int
    marks: int
    violations: tuple[Violation, ...] = ()


class Storage(Protocol):
    """Where instances live. Every method returns an effect; nothing happens until it is run."""

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        """The record as of the last commit, or ``None``."""
        ...

    def commit(self, commit: Commit) -> Effect[int, StorageError | Conflict | DuplicateEventError]:
        """Replace one record, with all that belongs to the step. Answers the fence that it now stands under,
        0 when it was removed."""
        ...

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        """Whether this event was accepted before and is still remembered at ``now``.

        Marks outlive their instance. Expired ones are removed in passing by later commits.
        """
        ...

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        """Take an instance for a run; ``None`` when there is none, its time has not come, or another runs it.

        It gets the lease and a new fence. A lease of another owner that is over is counted in ``crashes``;
        the claimer's own old one is not. Revision, alarm and all else stay.
        """
        ...

    def renew(
        self, owner: str, held: Collection[tuple[Key, int]], until: datetime
    ) -> Effect[frozenset[Key], StorageError]:
        """Make leases last until ``until``; answers the keys that the owner holds under these fences still.

        All others are left as they are.
        """
        ...

    def release(self, owner: str, keys: Collection[Key] | None = None) -> Effect[None, StorageError]:
        """Give up leases without a commit, all of the owner's or those of these keys.

        The alarm fires again and no crash is counted. The fence moves on: what still runs cannot commit.
        """
        ...

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[list[Due], StorageError]:
        """Instances of these jobs whose ``wake_at`` has come, longest overdue first (then by key)."""
        ...

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, StorageError]:
        """The earliest ``wake_at`` of these jobs, or the earliest that is later than ``after``."""
        ...

    def survey(self, now: datetime, *, lease: timedelta) -> Effect[Survey, StorageError]:
        """What an operator has to know, counted in the storage; leases are given for ``lease``."""
        ...

    def jobs(self) -> Effect[dict[JobName, int], StorageError]:
        """Every job that has instances here, registered or not, with their number."""
        ...

    def instances(
        self, *, job: JobName | None = None, after: Key | None = None, limit: int = 100
    ) -> Effect[list[Instance], StorageError]:
        """A page of records in the order of their keys, beginning behind ``after``."""
        ...

    def dead_letters(self, *, after: int = 0, limit: int = 100) -> Effect[list[DeadLetter], StorageError]:
        """A page of dead letters in the order of their numbers, beginning behind the number ``after``."""
        ...

    def remove_dead_letter(self, number: int) -> Effect[bool, StorageError]:
        """Remove one; ``False`` when it is not there. Expired ones go in passing, with later commits."""
        ...

    def pending_events(self, limit: int) -> Effect[list[Event], StorageError]:
        """The oldest events of the outbox, in the order of their commits."""
        ...

    def events_sent(self, event_ids: Collection[str]) -> Effect[None, StorageError]:
        """Remove events that were delivered."""
        ...
