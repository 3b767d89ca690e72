"""Who looks at every statement: the port's contract as plain code, and what must hold between statements.

The watch keeps a record of its own of what is stored, made from the statements alone. Each answer of the real
storage is compared with what the contract says, and each commit with what the step may do. So a fence that is
not compared, a mark that is written beside its commit or a wake-up that is lost is found at the very
statement, whoever is to blame.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

import attrs

from durable_effect import Effect, Exit, Failure, Success
from durable_effect.ops import Succeed, Suspend, Sync
from durable_effect.runtime import EMPTY, Runtime
from durable_effect_jobs.errors import DuplicateEventError
from durable_effect_jobs.events import Event
from durable_effect_jobs.instance import Claim, Claimed, Commit, DeadLetter, Due, Instance, Key, Lease
from durable_effect_jobs.registry import Registry
from durable_effect_jobs.simulation.storage import Statement
from durable_effect_jobs.storage import Conflict, Storage

__all__ = ["Broken", "Watch", "short_record"]

_SLACK = timedelta(seconds=2)
"""Beside the poll interval and the latency: how long a worker rests when the storage failed, and more."""
_LOOK_EVERY = 64
_SUSPECT = timedelta(seconds=20)
"""How long a suspect may wait until nothing else runs in its worker."""
_SOLITUDE = timedelta(seconds=5)
"""How long a suspect may keep others from running beside it."""


class Broken(AssertionError):
    """Something that must never happen, happened."""

    def __init__(self, promise: str, detail: str, key: Key | None = None) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.detail = detail
        self.key = key


class _Times(Protocol):
    """What the watch asks the world."""

    now: datetime
    wall: datetime
    last_trouble: datetime

    @property
    def weather(self) -> Any:
        """The faults and speeds of the seed."""
        ...

    @property
    def faults(self) -> Any:
        """What has gone wrong so far."""
        ...

    def told(self, who: str, verb: str, key: Key, record: Instance | None, answer: str = "") -> None:
        """Write down a statement, and the record that it was about."""
        ...


class Watch:
    """Performs the statements on the real storage, and checks the answers."""

    def __init__(self, storage: Storage, registry: Registry, world: _Times) -> None:
        self.storage = storage
        self.records: dict[Key, Instance] = {}
        """What is stored, as far as statements tell."""
        self.letters: list[DeadLetter] = []
        self.events: list[Event] = []
        """Telemetry in the order of its commits."""
        self.commit: Commit | None = None
        """The commit that was applied last."""
        self.turns = 0
        """Commits that were applied."""
        self.steps = 0
        """Commands and reads that loaded a record, and runs that were begun."""
        self.statements = 0
        self.slow = timedelta()
        """How much longer than the poll interval a wake-up may wait without trouble."""
        self._world = world
        self._registry = registry
        self._jobs = tuple(registry.jobs)
        self._runtime = Runtime()
        self._fence = 0
        self._marks: dict[tuple[Key, str], datetime] = {}
        self._answers: dict[str, int] = {}
        self._last_token: dict[Key, str] = {}
        self._suspected: dict[Key, datetime] = {}
        self._written: dict[Key, datetime] = {}
        self._ended: set[str] = set()
        self._checks: dict[str, Any] = {
            "load": self._loaded,
            "commit": self._committed,
            "claim": self._claimed,
            "renew": self._renewed,
            "release": self._released,
            "is_marked": self._looked_for_mark,
            "due": self._looked_for_due,
            "next_due": self._looked_for_next,
        }
        self.on_commit: Any = None
        """Called after each commit that was applied, once the checks have passed."""

    # -- statements

    def ask(self, effect: Effect[Any, Any]) -> Exit[Any, Any]:
        """Have the real storage do something, now."""
        while type(effect) is Suspend:
            effect = effect.thunk()
        if type(effect) is Sync:
            return Success(effect.thunk())
        if type(effect) is Succeed:
            return Success(effect.value)
        fiber = self._runtime.start(effect, EMPTY)
        self._runtime.run_ready()
        if fiber.exit is None:
            raise TypeError("a storage in a simulation answers at once: simulate on a MemoryStorage")
        return fiber.exit

    def perform(self, who: str, statement: Statement) -> Exit[Any, Any]:
        """Do what a process asked for, and check it."""
        self.statements += 1
        exit = self.ask(statement.of(self.storage))
        check = self._checks.get(statement.name)
        if check is not None:
            check(exit, who, *statement.arguments, **statement.keywords)
        if self.statements % _LOOK_EVERY == 0:
            self.look_for_late_wake_ups()
        return exit

    def take_over(self, now: datetime) -> None:
        """The only process starts: leases of its former lives are over, as after opening a SQLite file."""
        take_over = getattr(self.storage, "take_over", None)
        if take_over is None:
            return
        take_over(now)
        for key, record in self.records.items():
            if record.lease is not None and record.lease.until > now:
                self.records[key] = attrs.evolve(record, lease=Lease(record.lease.owner, now))
            self._stored_is(key)

    # -- reads

    def _loaded(self, exit: Exit[Any, Any], who: str, key: Key) -> None:
        self.steps += 1
        found = _value(exit)
        self._world.told(who, "load", key, found)
        if found != self.records.get(key):
            raise Broken("a read sees every acknowledged commit", f"{short_record(found)} is read", key)

    def _looked_for_mark(
        self, exit: Exit[Any, Any], who: str, key: Key, event_id: str, now: datetime
    ) -> None:
        if _value(exit) != self._marked(key, event_id, now):
            raise Broken("idempotency", f"the storage says {_value(exit)} of the mark {event_id!r}", key)

    def _marked(self, key: Key, event_id: str, now: datetime) -> bool:
        return self._marks.get((key, event_id), now) > now

    def _looked_for_due(
        self, exit: Exit[Any, Any], who: str, now: datetime, limit: int, jobs: Collection[Any]
    ) -> None:
        found: list[Due] = _value(exit)
        expected = sorted(
            (wake_at, key)
            for key, record in self.records.items()
            if (wake_at := record.wake_at) is not None and wake_at <= now and (key.kind, key.job) in jobs
        )
        if [due.key for due in found] != [key for _, key in expected[:limit]]:
            raise Broken("no lost wake-up", f"due are {expected}, but the storage finds {found}")

    def _looked_for_next(
        self, exit: Exit[Any, Any], who: str, jobs: Collection[Any], after: datetime | None = None
    ) -> None:
        times = [at for key, r in self.records.items() if (at := r.wake_at) and (key.kind, key.job) in jobs]
        expected = min((at for at in times if after is None or at > after), default=None)
        if _value(exit) != expected:
            raise Broken("no lost wake-up", f"next due is {expected}, the storage says {_value(exit)}")

    # -- runs

    def _claimed(self, exit: Exit[Any, Any], who: str, claim: Claim) -> None:
        claimed: Claimed | None = _value(exit)
        key, record = claim.key, self.records.get(claim.key)
        wake_at = None if record is None else record.wake_at
        self._world.told(who, "claim", key, None if claimed is None else claimed.instance)
        if record is None or wake_at is None or wake_at > claim.now:
            if claimed is not None:
                raise Broken(
                    "no run before its time or beside another", f"claimed: {short_record(record)}", key
                )
            self._stored_is(key)
            return
        if claimed is None:
            raise Broken("no lost wake-up", f"it is due, and cannot be claimed: {short_record(record)}", key)
        self.steps += 1
        died = record.lease is not None and record.lease.owner != claim.owner
        self._grows(claimed.instance.fence, key)
        self.records[key] = attrs.evolve(
            record,
            lease=Lease(claim.owner, claim.until),
            fence=self._fence,
            crashes=record.crashes + died,
        )
        if claimed.recovered != died or claimed.instance != self.records[key]:
            raise Broken(
                "claims", f"answered {short_record(claimed.instance)} for {short_record(record)}", key
            )
        if self.records[key].crashes:
            self._suspected[key] = self._world.now
        self._stored_is(key)

    def _renewed(
        self, exit: Exit[Any, Any], who: str, owner: str, held: Collection[tuple[Key, int]], until: datetime
    ) -> None:
        answered: frozenset[Key] = _value(exit)
        for key, fence in held:
            record = self.records.get(key)
            lease = None if record is None else record.lease
            holds = lease is not None and lease.owner == owner and cast("Instance", record).fence == fence
            if holds:
                self.records[key] = attrs.evolve(cast("Instance", record), lease=Lease(owner, until))
            if holds != (key in answered):
                raise Broken("leases", f"renewed: {key in answered}; {short_record(record)}", key)
            self._stored_is(key)
            self._world.told(who, "renew" if holds else "renew in vain", key, self.records.get(key))

    def _released(
        self, exit: Exit[Any, Any], who: str, owner: str, keys: Collection[Key] | None = None
    ) -> None:
        for key in tuple(self.records) if keys is None else keys:
            record = self.records.get(key)
            if record is not None and record.lease is not None and record.lease.owner == owner:
                stored = self._stored(key)
                self._grows(0 if stored is None else stored.fence, key)
                self.records[key] = attrs.evolve(record, lease=None, fence=self._fence)
                self._written[key] = self._world.now
            self._stored_is(key)
            self._world.told(who, "release", key, self.records.get(key))

    def _grows(self, fence: int, key: Key) -> None:
        if fence <= self._fence:
            raise Broken("fences grow", f"{fence} is given after {self._fence}", key)
        self._fence = fence

    # -- commits

    def _committed(self, exit: Exit[Any, Any], who: str, commit: Commit) -> None:
        key = commit.key
        self._world.told(who, "commit", key, commit.after, _answer(exit))
        if commit.token in self._answers:
            self._sent_again(exit, commit)
            return
        current = _same(self.records.get(key), commit.before)
        mark = commit.mark
        repeated = mark is not None and self._marked(key, mark.event_id, commit.at)
        if isinstance(exit, Success):
            if not current:
                stored = short_record(self.records.get(key))
                raise Broken(
                    "single writer", f"committed on {short_record(commit.before)}, stored is {stored}", key
                )
            if repeated:
                raise Broken("idempotency", f"{cast('Any', mark).event_id!r} is accepted again", key)
            self._apply(commit, exit.value)
            return
        error = exit.cause.squash()
        if isinstance(error, DuplicateEventError) and not repeated:
            raise Broken("idempotency", f"{error.event_id!r} is refused, and was never accepted", key)
        if isinstance(error, Conflict) and current and commit.replays is None:
            raise Broken(
                "liveness", f"a commit on the current record is refused: {short_record(commit.before)}", key
            )
        self._stored_is(key)

    def _sent_again(self, exit: Exit[Any, Any], commit: Commit) -> None:
        """It was applied before, so it changes nothing. As the last write of its record it succeeds."""
        key, first = commit.key, self._answers[commit.token]
        last = self._last_token.get(key) == commit.token or commit.after is None
        ended = commit.after is not None and commit.after.incarnation in self._ended
        if exit.value not in ((first, 0) if ended else (first,)) if isinstance(exit, Success) else last:
            raise Broken("a commit that is sent again", f"is answered {exit} instead of {first}", key)
        self._stored_is(key)

    def _apply(self, commit: Commit, fence: int) -> None:
        key, before, after = commit.key, commit.before, commit.after
        self._answers[commit.token] = fence
        self._last_token[key] = commit.token
        self.turns += 1
        if after is None:
            self.records.pop(key, None)
            if before is not None:  # its first event may end an instance before it has begun
                self._ended.add(before.incarnation)
        else:
            self._check_step(commit, after, fence)
            self.records[key] = after if after.fence == fence else attrs.evolve(after, fence=fence)
            self._written[key] = self._world.now
        if commit.mark is not None:
            self._marks[key, commit.mark.event_id] = commit.mark.expires_at
        self._stored_is(key)
        if commit.mark is not None and not _value(
            self.ask(self.storage.is_marked(key, commit.mark.event_id, commit.at))
        ):
            raise Broken("one write", f"the mark {commit.mark.event_id!r} is not in it", key)
        self._check_events(commit)
        if after is None:
            self._check_letter(commit)
        self.commit = commit
        if self.on_commit is not None:
            self.on_commit()

    def _check_step(self, commit: Commit, after: Instance, fence: int) -> None:
        before, key = commit.before, commit.key
        if after.incarnation in self._ended:
            raise Broken("no resurrection", f"incarnation {after.incarnation} was ended before", key)
        expected = 1 if before is None else before.revision + 1
        if after.revision != expected or (before is not None and before.incarnation != after.incarnation):
            raise Broken("revisions are dense", f"{short_record(after)} follows {short_record(before)}", key)
        if after.lease is None:
            if fence != (0 if before is None else before.fence):
                raise Broken("fences", f"{fence} is answered to a commit on {short_record(before)}", key)
            return
        self.steps += 1
        self._grows(fence, key)
        jumped = self._world.faults.counts["clock jump"]
        if after.alarm is None or (after.alarm.at > self._world.wall and not jumped):
            raise Broken("no run before its time", f"{short_record(after)}", key)

    def _check_events(self, commit: Commit) -> None:
        """The telemetry of a step is in its commit: take it from the outbox, which was empty before."""
        written: list[Event] = _value(self.ask(self.storage.pending_events(100)))
        if tuple(written) != commit.events:
            raise Broken("one write", f"the outbox holds {written} instead of {commit.events}", commit.key)
        if written:
            self.ask(self.storage.events_sent([event.event_id for event in written]))
            self.events.extend(written)

    def _check_letter(self, commit: Commit) -> None:
        last = self.letters[-1].number if self.letters else 0
        new: list[DeadLetter] = _value(self.ask(self.storage.dead_letters(after=last)))
        expected = [] if commit.dead_letter is None else [commit.dead_letter]
        if [attrs.evolve(letter, number=0) for letter in new] != expected:
            raise Broken("one write", f"dead letters {new} instead of {expected}", commit.key)
        self.letters.extend(new)

    # -- what is stored

    def _stored(self, key: Key) -> Instance | None:
        found: Instance | None = _value(self.ask(self.storage.load(key)))
        return found

    def _stored_is(self, key: Key) -> None:
        stored, expected = self._stored(key), self.records.get(key)
        if stored is not expected and stored != expected:
            raise Broken(
                "what is stored", f"is {short_record(stored)} instead of {short_record(expected)}", key
            )
        if expected is not None:
            _check_record(expected)

    def look_for_late_wake_ups(self) -> None:
        """What is due is taken by somebody, once nothing has gone wrong for a while."""
        world = self._world
        patience = world.weather.poll_interval + _SLACK + self.slow + 20 * world.weather.latency
        if world.now - world.last_trouble < patience:
            return
        suspects = [key for key, at in self._suspected.items() if world.now - at < 2 * _SUSPECT]
        held_back = len(suspects) * _SOLITUDE
        for key, record in self.records.items():
            wake_at = record.wake_at
            if wake_at is None or (key.kind, key.job) not in self._jobs:
                continue
            excused = _SUSPECT if key in suspects else timedelta()
            # An alarm may be set to a time that has passed: the wait begins when it is written.
            waited = min(world.wall - wake_at, world.now - self._written[key])
            if waited > patience + held_back + excused:
                late = waited.total_seconds()
                raise Broken(
                    "no lost wake-up", f"nobody looks after it for {late:g} s: {short_record(record)}", key
                )

    def holds_nothing(self, owner: str) -> None:
        """A process that ended in an orderly way has given back what it ran."""
        for key, record in self.records.items():
            if record.lease is not None and record.lease.owner == owner:
                raise Broken("drain", f"its worker has stopped and holds it: {short_record(record)}", key)

    def survey(self) -> None:
        """The storage's own invariants."""
        told = _value(self.ask(self.storage.survey(self._world.wall, lease=self._world.weather.lease)))
        for violation in told.violations:
            raise Broken(violation.invariant, violation.detail)


def _check_record(record: Instance) -> None:
    """What must hold of a record at all times: whoever waits for something is looked after."""
    if record.quarantined:
        return
    rests = record.alarm is None and record.lease is None
    if rests and record.failed_attempts:
        raise Broken(
            "no lost wake-up", f"a retry is due, and there is no alarm: {short_record(record)}", record.key
        )
    if rests and not record.stopped and record.key.kind != "task":
        raise Broken("no lost wake-up", f"it neither runs nor waits: {short_record(record)}", record.key)
    if record.lease is not None and record.alarm is None:
        raise Broken("no lost wake-up", f"a run without an alarm: {short_record(record)}", record.key)


def _same(stored: Instance | None, before: Instance | None) -> bool:
    if stored is None or before is None:
        return stored is before
    return (stored.incarnation, stored.revision, stored.fence) == (
        before.incarnation,
        before.revision,
        before.fence,
    )


def _value(exit: Exit[Any, Any]) -> Any:
    return exit.get()


def _answer(exit: Exit[Any, Any]) -> str:
    return f"fence {exit.value}" if isinstance(exit, Success) else type(_error(exit)).__name__


def _error(exit: Failure[Any]) -> BaseException:
    return exit.cause.squash()


def short_record(record: Instance | None) -> str:
    """A record in one line."""
    if record is None:
        return "none"
    parts = [f"{record.incarnation[-4:]} r{record.revision} f{record.fence}"]
    if record.lease is not None:
        parts.append(f"leased by {record.lease.owner[-4:]} until {record.lease.until:%H:%M:%S.%f}")
    if record.alarm is not None:
        parts.append(f"{record.alarm.reason} at {record.alarm.at:%H:%M:%S.%f}")
    if record.failed_attempts:
        parts.append(f"{record.failed_attempts} failed")
    if record.crashes:
        parts.append(f"{record.crashes} crashes")
    parts.extend(word for word in ("quarantined", "stopped") if getattr(record, word))
    return ", ".join(parts)
