"""The port to durable storage: one record per instance, replaced atomically.

An adapter implements :class:`Storage`; ``durable_effect_jobs.testing.check_storage`` proves that it
keeps this contract. The adapters of this distribution are :mod:`.memory` and :mod:`.sqlite`.

The contract:

* ``commit`` is atomic and durable: it succeeds only when all of the write (record, alarm, events, mark,
  dead letter) would survive the loss of the process and, where the medium can promise it, of power.
  A commit whose ``before`` is no longer what is stored, or whose dead letter is gone, fails with
  :class:`Conflict`, one whose mark is remembered with ``DuplicateEventError``; both change nothing.
* A read sees every commit that was acknowledged before it began, and never waits for a handler.
* Foreign exceptions are translated where they are raised: only the errors in the types come out.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol, TypeAlias

import attrs

from durable_effect import Effect, TypedError
from durable_effect_jobs.errors import DuplicateEventError, Kind, StorageError
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Commit, DeadLetter, Instance, Key

__all__ = ["Conflict", "JobName", "Storage"]

JobName: TypeAlias = tuple[Kind, str]
"""A job as storages know it: its kind and its registered name."""


@attrs.frozen
class Conflict(TypedError):
    """The record changed since it was loaded; nothing was written."""

    key: Key

    def __str__(self) -> str:
        return f"{self.key.instance_id} was changed by another step"


class Storage(Protocol):
    """Where instances live. Every method returns an effect; nothing happens until it is run."""

    def load(self, key: Key) -> Effect[Instance | None, StorageError]:
        """The record as of the last commit, or ``None``."""
        ...

    def commit(self, commit: Commit) -> Effect[None, StorageError | Conflict | DuplicateEventError]:
        """Replace one record, together with everything that belongs to the same step."""
        ...

    def is_marked(self, key: Key, event_id: str, now: datetime) -> Effect[bool, StorageError]:
        """Whether this event was accepted before and is still remembered at ``now``.

        Marks outlive their instance. Expired ones are removed in passing by later commits.
        """
        ...

    def due(self, now: datetime, limit: int, jobs: Collection[JobName]) -> Effect[list[Key], StorageError]:
        """Instances of these jobs whose alarm is not after ``now``, longest overdue first (then by key)."""
        ...

    def next_due(
        self, jobs: Collection[JobName], *, after: datetime | None = None
    ) -> Effect[datetime | None, StorageError]:
        """The earliest alarm of these jobs that is later than ``after``; without it, past ones included."""
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
