"""A real SQLite file and a model of a few dictionaries, driven by hypothesis: they always agree."""

import asyncio
import shutil
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from storage_scene import NOON, SECOND, fact, letter

from durable_effect import Effect
from durable_effect.exit import Success
from durable_effect.scope import Scope
from durable_effect_jobs.errors import DuplicateEventError
from durable_effect_jobs.instance import Alarm, Commit, DeadLetter, Instance, Key, Mark
from durable_effect_jobs.storage import Conflict, JobName
from durable_effect_jobs.storage.sqlite import SqliteStorage

KEYS = [Key("task", "t", "a"), Key("task", "t", "a\0"), Key("task", "t:", "a"), Key("debounce", "t", "a")]
JOBS: list[JobName] = [("task", "t"), ("task", "t:"), ("debounce", "t")]

spans = st.integers(-3, 3).map(lambda seconds: timedelta(seconds=seconds))


@attrs.define
class Wish:
    """What a commit should do, before it is known what it finds."""

    key: Key
    removes: bool
    stale: bool
    state: bytes | None
    alarm_in: timedelta | None
    events: int
    mark: str | None
    mark_for: timedelta
    letter_for: timedelta | None


wishes = st.builds(
    Wish,
    key=st.sampled_from(KEYS),
    removes=st.integers(0, 4).map(lambda n: n == 0),
    stale=st.integers(0, 4).map(lambda n: n == 0),
    state=st.none() | st.binary(max_size=3) | st.just(b"x" * 20_000),
    alarm_in=st.none() | spans,
    events=st.integers(0, 2),
    mark=st.none() | st.sampled_from("pq"),
    mark_for=spans,
    letter_for=st.none() | spans,
)


class Model:
    """What a storage holds, told as simply as possible."""

    def __init__(self) -> None:
        self.records: dict[Key, Instance] = {}
        self.marks: dict[tuple[Key, str], datetime] = {}
        self.letters: list[DeadLetter] = []
        self.events: list[Any] = []
        self.numbers = 0

    def commit(self, commit: Commit) -> object:
        """Do it, and answer None, or the error."""
        if self.records.get(commit.key) != commit.before:
            return Conflict(commit.key)
        mark = commit.mark
        if mark is not None and self.is_marked(commit.key, mark.event_id, commit.at):
            return DuplicateEventError(mark.event_id)
        self.records.pop(commit.key, None)
        if commit.after is not None:
            self.records[commit.key] = commit.after
        if mark is not None:
            self.marks[commit.key, mark.event_id] = mark.expires_at
        if commit.dead_letter is not None:
            self.numbers += 1
            self.letters.append(attrs.evolve(commit.dead_letter, number=self.numbers))
        self.letters = [one for one in self.letters if one.expires_at > commit.at]
        self.events += commit.events
        return None

    def is_marked(self, key: Key, event_id: str, now: datetime) -> bool:
        return self.marks.get((key, event_id), now) > now

    def due(self, now: datetime, jobs: set[JobName]) -> list[Key]:
        alarms = [(one.alarm.at, key) for key, one in self.records.items() if one.alarm]
        return [key for at, key in sorted(alarms) if at <= now and (key.kind, key.job) in jobs]


class SqliteAndModel(RuleBasedStateMachine):
    """Does everything twice."""

    @initialize(cache_size=st.sampled_from([0, 2, 100]))
    def begin(self, cache_size: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.cache_size = cache_size
        self.loop = asyncio.Runner()
        self.model = Model()
        self.now = NOON
        self.lives = 0
        self.sent_events = 0
        self.former: dict[Key, Instance | None] = {}
        self.open()

    def open(self) -> None:
        self.scope = Scope.make().run_sync()
        opening = SqliteStorage.open(
            self.folder / "jobs.db", synchronous="normal", cache_size=self.cache_size
        )
        self.storage = self.run(self.scope.extend(opening))

    def run(self, effect: Effect[Any, Any]) -> Any:
        async def main() -> Any:
            return await effect

        return self.loop.run(main())

    @rule(several=st.lists(wishes, min_size=1, max_size=4))
    def commit(self, several: list[Wish]) -> None:
        """Some commits at once: they share a transaction, and each has the fate it would have had alone."""
        commits = [self.wanted(wish) for wish in several]
        outcomes = self.run(
            Effect.all(
                [self.storage.commit(one).fold(lambda error: error, lambda _: None) for one in commits],
                concurrency="unbounded",
            )
        )
        assert outcomes == [self.model.commit(one) for one in commits]

    def wanted(self, wish: Wish) -> Commit:
        key = wish.key
        before = self.former.get(key) if wish.stale else self.model.records.get(key)
        after = None if wish.removes else self.next_record(wish, before)
        self.former[key] = before
        events = tuple(fact(f"event-{self.sent_events + n}", key) for n in range(wish.events))
        self.sent_events += wish.events
        return Commit(
            key=key,
            before=before,
            after=after,
            at=self.now,
            events=events,
            mark=wish.mark and Mark(wish.mark, self.now + wish.mark_for),
            dead_letter=None
            if wish.letter_for is None
            else letter(before or after or self.newborn(wish), self.now + wish.letter_for),
        )

    def next_record(self, wish: Wish, before: Instance | None) -> Instance:
        alarm = None if wish.alarm_in is None else Alarm(self.now + wish.alarm_in, "schedule")
        if before is None:
            return attrs.evolve(self.newborn(wish), state=wish.state, alarm=alarm)
        return before.evolve(state=wish.state, alarm=alarm)

    def newborn(self, wish: Wish) -> Instance:
        self.lives += 1
        return Instance(key=wish.key, incarnation=f"life-{self.lives}", created_at=self.now)

    @rule(seconds=st.integers(1, 4))
    def let_time_pass(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(chosen=st.sets(st.integers(0, 5)))
    def send_events(self, chosen: set[int]) -> None:
        ids = {self.model.events[n].event_id for n in chosen if n < len(self.model.events)}
        self.run(self.storage.events_sent(ids))
        self.model.events = [event for event in self.model.events if event.event_id not in ids]

    @rule(number=st.integers(0, 6))
    def remove_letter(self, number: int) -> None:
        there = [one for one in self.model.letters if one.number == number]
        assert self.run(self.storage.remove_dead_letter(number)) == bool(there)
        self.model.letters = [one for one in self.model.letters if one.number != number]

    @rule()
    def open_again(self) -> None:
        """A new process finds everything."""
        self.run(self.scope.close(Success(None)))
        self.open()

    @rule(jobs=st.sets(st.sampled_from(JOBS)), limit=st.integers(0, 4))
    def look_what_is_due(self, jobs: set[JobName], limit: int) -> None:
        due = self.model.due(self.now, jobs)
        assert self.run(self.storage.due(self.now, limit, jobs)) == due[:limit]
        alarms = [
            one.alarm.at
            for key, one in self.model.records.items()
            if one.alarm and (key.kind, key.job) in jobs
        ]
        assert self.run(self.storage.next_due(jobs)) == min(alarms, default=None)
        later = min((at for at in alarms if at > self.now), default=None)
        assert self.run(self.storage.next_due(jobs, after=self.now)) == later

    @rule(
        job=st.none() | st.sampled_from(JOBS),
        after=st.none() | st.sampled_from(KEYS),
        limit=st.integers(0, 4),
    )
    def list_a_page(self, job: JobName | None, after: Key | None, limit: int) -> None:
        keys = [
            key
            for key in sorted(self.model.records)
            if job in (None, (key.kind, key.job)) and (after is None or key > after)
        ]
        found = self.run(self.storage.instances(job=job, after=after, limit=limit))
        assert found == [self.model.records[key] for key in keys[:limit]]

    @invariant()
    def they_agree(self) -> None:
        """What is stored, remembered, waiting and dead is the same."""
        storage, model = self.storage, self.model
        for key in KEYS:
            assert self.run(storage.load(key)) == model.records.get(key)
            for event_id in "pq":
                marked = self.run(storage.is_marked(key, event_id, self.now))
                assert marked == model.is_marked(key, event_id, self.now)
        assert self.run(storage.pending_events(1000)) == model.events
        assert self.run(storage.dead_letters()) == model.letters
        names = [(key.kind, key.job) for key in model.records]
        assert self.run(storage.jobs()) == {name: names.count(name) for name in names}

    def teardown(self) -> None:
        self.run(self.scope.close(Success(None)))
        self.loop.close()
        shutil.rmtree(self.folder)


TestSqliteAgainstModel = SqliteAndModel.TestCase
TestSqliteAgainstModel.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
