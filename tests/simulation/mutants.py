"""Broken protocols: each mutant takes one safeguard away, and the simulation has to notice.

``CAUGHT`` are noticed within a few seeds. ``EQUIVALENT`` change nothing that is promised, and say why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import attrs

from durable_effect_jobs import continuous, debounce, interpreter, task
from durable_effect_jobs.engine import Engine
from durable_effect_jobs.instance import Claim, Claimed, Commit, Instance, Key, Lease, to_micros
from durable_effect_jobs.simulation import Faults
from durable_effect_jobs.simulation.storage import SimulatedStorage
from durable_effect_jobs.storage import memory
from durable_effect_jobs.storage.memory import MemoryStorage

__all__ = ["CAUGHT", "EQUIVALENT", "Mutant"]


@attrs.frozen
class Mutant:
    """A name, the storage to simulate on, and what to change in the interpreter meanwhile."""

    name: str
    storage: Callable[[], MemoryStorage] = MemoryStorage
    patches: tuple[tuple[Any, str, Any], ...] = ()
    faults: Faults | None = None
    """The weather in which it shows, if it is a rare one."""
    why: str = ""
    """Why nobody can notice."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """With the patches in place."""
        before = [(owner, name, owner.__dict__[name]) for owner, name, _ in self.patches]
        try:
            for owner, name, value in self.patches:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


# -- commits that compare too little


def _still_without(*fields: str) -> Callable[[Instance | None, Instance | None], bool]:
    compared = {"incarnation", "revision", "fence"} - set(fields)

    def is_still(stored: Instance | None, before: Instance | None) -> bool:
        if stored is None or before is None:
            return stored is before
        return all(getattr(stored, name) == getattr(before, name) for name in compared)

    return is_still


class _UnfencedTermination(MemoryStorage):
    __slots__ = ()

    def _commit(self, commit: Commit) -> Any:
        if commit.after is None and commit.before is not None:
            commit = attrs.evolve(commit, before=self._stored(commit.key))
        return super()._commit(commit)


# -- leases


class _UnfencedRenewal(MemoryStorage):
    __slots__ = ()

    def _renew(self, key: Key, lease: Lease, fence: int) -> bool:
        stored = self._stored(key)
        return stored is not None and super()._renew(key, lease, stored.fence)


class _RenewalByAnybody(MemoryStorage):
    __slots__ = ()

    def _renew(self, key: Key, lease: Lease, fence: int) -> bool:
        row = self._row(key)
        if row is None or row.record.lease is None:
            return False
        self._job_of(row.record).replace(row, attrs.evolve(row.record, lease=lease))
        return True


class _UnfencedRelease(MemoryStorage):
    __slots__ = ()

    def _release(self, owner: str, keys: Any) -> None:
        for row in self._rows() if keys is None else filter(None, map(self._row, keys)):
            if row.record.lease is not None and row.record.lease.owner == owner:
                self._job_of(row.record).replace(row, attrs.evolve(row.record, lease=None))


class _ReleaseByAnybody(MemoryStorage):
    __slots__ = ()

    def _release(self, owner: str, keys: Any) -> None:
        for row in self._rows() if keys is None else filter(None, map(self._row, keys)):
            if row.record.lease is not None:
                freed = attrs.evolve(row.record, lease=None, fence=self._next_fence())
                self._job_of(freed).replace(row, freed)


class _ClaimsLeased(MemoryStorage):
    __slots__ = ()

    def _claim(self, claim: Claim) -> Claimed | None:
        row = self._row(claim.key)
        if row is None or row.record.quarantined or not row.record.is_due(claim.now):
            return None
        recovered = row.record.lease is not None and row.record.lease.owner != claim.owner
        taken = attrs.evolve(
            row.record,
            lease=Lease(claim.owner, claim.until),
            fence=self._next_fence(),
            crashes=row.record.crashes + recovered,
        )
        self._job_of(taken).replace(row, taken)
        return Claimed(taken, recovered)


class _Claims(MemoryStorage):
    """Claims as they should be, and then something is done to what was claimed."""

    __slots__ = ()

    def _claim(self, claim: Claim) -> Claimed | None:
        row = self._row(claim.key)
        before = None if row is None else row.record
        claimed = super()._claim(claim)
        if claimed is None or row is None or before is None:
            return claimed
        spoilt = self._spoil(before, claimed)
        self._job_of(before).replace(row, spoilt.instance)
        return spoilt

    def _spoil(self, before: Instance, claimed: Claimed) -> Claimed:
        raise NotImplementedError


class _AlarmClearedAtClaim(_Claims):
    __slots__ = ()

    def _spoil(self, before: Instance, claimed: Claimed) -> Claimed:
        return attrs.evolve(claimed, instance=attrs.evolve(claimed.instance, alarm=None))


class _RecoveryWithOldFence(_Claims):
    __slots__ = ()

    def _spoil(self, before: Instance, claimed: Claimed) -> Claimed:
        if not claimed.recovered:
            return claimed
        return attrs.evolve(claimed, instance=attrs.evolve(claimed.instance, fence=before.fence))


class _CrashesUncounted(_Claims):
    __slots__ = ()

    def _spoil(self, before: Instance, claimed: Claimed) -> Claimed:
        return attrs.evolve(claimed, instance=attrs.evolve(claimed.instance, crashes=before.crashes))


class _ClaimsTooLate(MemoryStorage):
    """``<`` instead of ``<=``."""

    __slots__ = ()

    def _claim(self, claim: Claim) -> Claimed | None:
        stored = self._stored(claim.key)
        return None if stored is None or stored.wake_at == claim.now else super()._claim(claim)


class _NobodyRecovers(MemoryStorage):
    """The look for due alarms passes over what a crashed process left."""

    __slots__ = ()

    def _due(self, now_us: int, limit: int, jobs: Any) -> Any:
        return [due for due in super()._due(now_us, limit, jobs) if _lease_of(self._stored(due.key)) is None]


def _lease_of(record: Instance | None) -> Lease | None:
    return None if record is None else record.lease


class _FenceRestarts(MemoryStorage):
    """Fences belong to the record, and begin again when it is gone."""

    __slots__ = ()

    def _remove(self, commit: Commit, row: Any, at_us: int) -> None:
        super()._remove(commit, row, at_us)
        self._fence = 0


# -- what belongs to the commit


class _OldAlarmKept(MemoryStorage):
    __slots__ = ()

    def _write(self, commit: Commit, after: Instance, row: Any) -> int:
        if row is not None and row.record.alarm is not None:
            after = attrs.evolve(after, alarm=row.record.alarm)
        return super()._write(commit, after, row)


class _MarkBesideTheCommit(MemoryStorage):
    """The mark is written by a statement of its own, which a crash may come before."""

    __slots__ = ("_later",)

    def __init__(self) -> None:
        super().__init__()
        self._later: list[Any] = []

    def _apply(self, commit: Commit, row: Any, at_us: int) -> int:
        if commit.mark is not None:
            self._later.append(((commit.key, commit.mark.event_id), to_micros(commit.mark.expires_at)))
        return super()._apply(attrs.evolve(commit, mark=None), row, at_us)

    def _due(self, now_us: int, limit: int, jobs: Any) -> Any:
        while self._later:
            self._marks.add(*self._later.pop())
        return super()._due(now_us, limit, jobs)


class _Without(MemoryStorage):
    """Some of what a commit carries is dropped."""

    __slots__ = ()
    dropped: dict[str, Any] = {}  # noqa: RUF012 - a constant

    def _apply(self, commit: Commit, row: Any, at_us: int) -> int:
        return super()._apply(attrs.evolve(commit, **self.dropped), row, at_us)


class _MarkSkipped(_Without):
    __slots__ = ()
    dropped = {"mark": None}  # noqa: RUF012 - a constant


class _EventsSkipped(_Without):
    __slots__ = ()
    dropped = {"events": ()}  # noqa: RUF012 - a constant


class _LetterSkipped(_Without):
    __slots__ = ()
    dropped = {"dead_letter": None}  # noqa: RUF012 - a constant


class _EventsBesideTheCommit(MemoryStorage):
    __slots__ = ("_later",)

    def __init__(self) -> None:
        super().__init__()
        self._later: list[Any] = []

    def _apply(self, commit: Commit, row: Any, at_us: int) -> int:
        self._later.extend(commit.events)
        return super()._apply(attrs.evolve(commit, events=()), row, at_us)

    def _due(self, now_us: int, limit: int, jobs: Any) -> Any:
        self._outbox.update((event.event_id, event) for event in self._later)
        self._later.clear()
        return super()._due(now_us, limit, jobs)


class _MarksUnchecked(MemoryStorage):
    """A commit does not look whether its event was accepted meanwhile: two that race are both accepted."""

    __slots__ = ()

    def _commit(self, commit: Commit) -> Any:
        mark = commit.mark
        if mark is not None:
            self._marks._until.pop((commit.key, mark.event_id), None)
        return super()._commit(commit)


# -- commits that are sent again


class _TokensForgotten(MemoryStorage):
    """A commit whose answer was lost is not known again."""

    __slots__ = ()

    def _commit(self, commit: Commit) -> Any:
        row = self._row(commit.key)
        if row is not None:
            row.token = ""
        return super()._commit(commit)


class _ReceiptsForgotten(MemoryStorage):
    """What was removed is not remembered: a birth that is sent again brings the record back."""

    __slots__ = ()

    def _remove(self, commit: Commit, row: Any, at_us: int) -> None:
        super()._remove(commit, row, at_us)
        self._receipts = memory._Remembered()


# -- the interpreter

_commit, _load, _decide = SimulatedStorage.commit, SimulatedStorage.load, interpreter._commit
_tokens = count()


def _new_token_each_time(self: SimulatedStorage, commit: Commit) -> Any:
    return _commit(self, attrs.evolve(commit, token=f"{commit.token}-{next(_tokens)}"))


def _blind_to_leases(self: SimulatedStorage, key: Key) -> Any:
    return _load(self, key).map(lambda found: found and attrs.evolve(found, lease=None))


def _attempts_forgotten(before: Instance, *arguments: Any, **options: Any) -> Any:
    step = _after_failure(before, *arguments, **options)
    if step.after is None or not step.after.failed_attempts:
        return step
    return attrs.evolve(step, after=attrs.evolve(step.after, failed_attempts=1))


def _retry_dropped(before: Instance, *arguments: Any, **options: Any) -> Any:
    step = _after_failure(before, *arguments, **options)
    if step.after is None or not step.after.failed_attempts:
        return step
    return attrs.evolve(step, after=attrs.evolve(step.after, alarm=None))


_after_failure = continuous.after_failure
_KINDS = (continuous, debounce, task)


def _stale_reads(self: SimulatedStorage, key: Key, event_id: str, now: datetime) -> Any:
    return _load(self, key).as_(False)


_LATE = Faults(delay=0.05, lease=timedelta(milliseconds=600), latency=timedelta(milliseconds=40))
"""Renewals arrive when their worker runs the same instance again."""

CAUGHT: tuple[Mutant, ...] = (
    Mutant("commit without fence", patches=((memory, "_is_still", _still_without("fence")),)),
    Mutant("commit without revision", patches=((memory, "_is_still", _still_without("revision")),)),
    Mutant("terminate without fence", _UnfencedTermination),
    Mutant("renew without fence", _UnfencedRenewal, faults=_LATE),
    Mutant("renew without owner", _RenewalByAnybody),
    Mutant("release without a new fence", _UnfencedRelease),
    Mutant("release without owner", _ReleaseByAnybody),
    Mutant("claim ignores a live lease", _ClaimsLeased),
    Mutant("claim < instead of <=", _ClaimsTooLate),
    Mutant("alarm cleared at claim", _AlarmClearedAtClaim),
    Mutant("recovery without a new fence", _RecoveryWithOldFence),
    Mutant("crashes not counted", _CrashesUncounted),
    Mutant("nobody looks for crashed runs", _NobodyRecovers),
    Mutant("fence restarts after terminate", _FenceRestarts),
    Mutant("old alarm kept on commit", _OldAlarmKept),
    Mutant("mark outside the commit", _MarkBesideTheCommit),
    Mutant("mark skipped", _MarkSkipped),
    Mutant("mark not checked at commit", _MarksUnchecked),
    Mutant("events outside the commit", _EventsBesideTheCommit),
    Mutant("events skipped", _EventsSkipped),
    Mutant("dead letter skipped", _LetterSkipped),
    Mutant("commit sent again is unknown", _TokensForgotten),
    Mutant("birth sent again after its end", _ReceiptsForgotten),
    Mutant(
        "a new token for each sending",
        patches=((SimulatedStorage, "commit", _new_token_each_time),),
        faults=Faults(lost_answer=0.2, latency=timedelta(milliseconds=40)),
    ),
    Mutant("own run begins beside a lease", patches=((SimulatedStorage, "load", _blind_to_leases),)),
    Mutant(
        "attempts not counted", patches=tuple((kind, "after_failure", _attempts_forgotten) for kind in _KINDS)
    ),
    Mutant("retry without alarm", patches=tuple((kind, "after_failure", _retry_dropped) for kind in _KINDS)),
)

EQUIVALENT: tuple[Mutant, ...] = (
    Mutant(
        "mark not looked for before the handler runs",
        patches=((SimulatedStorage, "is_marked", _stale_reads),),
        why="the commit refuses the mark anyway: on_event is run for nothing, and its changes are dropped",
    ),
    Mutant(
        "a commit whose answer was lost is given up",
        patches=((interpreter, "_CALL_RESENDS", ()), (interpreter, "_RUN_RESENDS", ())),
        why="callers hear that nobody knows and ask again with the same event id; a run is still due",
    ),
    Mutant(
        "wake-ups are lost",
        patches=((Engine, "wake", lambda self, key, at: interpreter.Effect.void),),
        why="the poll finds what is due: it comes later by at most that interval",
    ),
)
