"""A real SQLite file and a model of a few dictionaries, driven by hypothesis: they always agree."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType] - untyped there
)
from storage_model import Model
from storage_scene import NOON, SECOND, fact, letter, on_file, token

from durable_effect import Clock, Effect, provide_service
from durable_effect.clock import TestClock
from durable_effect.exit import Success
from durable_effect.scope import Scope
from durable_effect_jobs.errors import DuplicateEventError
from durable_effect_jobs.instance import Alarm, Claim, Commit, Instance, Key, Lease, Mark
from durable_effect_jobs.storage import Conflict, JobName
from durable_effect_jobs.storage.sqlite import SqliteStorage

EXAMPLES = 3_000
STEPS = 12
KEYS = [Key("task", "t", "a"), Key("task", "t", "a\0"), Key("task", "t:", "a"), Key("debounce", "t", "a")]
JOBS: list[JobName] = [("task", "t"), ("task", "t:"), ("debounce", "t")]
NEVER_BROKEN = {"I1", "I2", "I3", "I4"}
MEMORY = Path("/dev/shm")

spans = st.integers(-3, 3).map(lambda seconds: timedelta(seconds=seconds))
seldom = st.integers(0, 4).map(lambda n: n == 0)
keys = st.sampled_from(KEYS)
owners = st.sampled_from(["one", "two"])


@attrs.define
class Wish:
    """What a commit should do, before it is known what it finds."""

    key: Key
    removes: bool
    stale: bool
    state: bytes | None
    alarm_in: timedelta | None
    owner: str | None
    lease_for: timedelta
    crashes: int
    quarantined: bool
    events: int
    mark: str | None
    mark_for: timedelta
    letter_for: timedelta | None


wishes = st.builds(
    Wish,
    key=keys,
    removes=seldom,
    stale=seldom,
    state=st.none() | st.binary(max_size=3) | st.just(b"x" * 20_000),
    alarm_in=st.none() | spans,
    owner=st.none() | owners,
    lease_for=spans,
    crashes=st.integers(0, 1),
    quarantined=seldom,
    events=st.integers(0, 2),
    mark=st.none() | st.sampled_from("pq"),
    mark_for=spans,
    letter_for=st.none() | spans,
)


class SqliteAndModel(RuleBasedStateMachine):
    """Does everything twice."""

    loop: ClassVar[asyncio.Runner]
    empty: ClassVar[Path]
    steps: ClassVar[int] = 0
    outcomes: ClassVar[dict[str, int]] = {}

    @initialize(cache_size=st.sampled_from([0, 2, 100]))
    def begin(self, cache_size: int) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        shutil.copyfile(self.empty, self.folder / "jobs.db")
        self.cache_size = cache_size
        self.model = Model()
        self.now = NOON
        self.lives = 0
        self.sent_events = 0
        self.former: dict[Key, Instance | None] = {}
        self.sent: list[Commit] = []
        self.open()

    def open(self) -> None:
        self.changed = True
        self.scope = Scope.make().run_sync()
        opening = SqliteStorage.open(
            self.folder / "jobs.db", synchronous="normal", cache_size=self.cache_size
        )
        self.storage = self.run(self.scope.extend(opening).pipe(provide_service(Clock, TestClock(self.now))))

    def run(self, effect: Effect[Any, Any]) -> Any:
        async def main() -> Any:
            return await effect

        return self.loop.run(main())

    def both(self, commits: list[Commit]) -> None:
        outcomes = self.together(
            [self.storage.commit(one).fold(lambda error: error, lambda fence: fence) for one in commits]
        )
        for one, outcome in zip(commits, outcomes, strict=True):
            fence = outcome if isinstance(outcome, int) else 0
            assert self.model.commit(one, fence) == outcome
            self.count(type(outcome).__name__)
        self.changed = True

    def together(self, effects: list[Effect[Any, Any]]) -> list[Any]:
        return list(self.run(Effect.all(effects, concurrency="unbounded")))

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    # -- commits -----------------------------------------------------------------------------------

    @rule(several=st.lists(wishes, min_size=1, max_size=4))
    def commit(self, several: list[Wish]) -> None:
        """Some commits at once: they share a transaction, and each has the fate it would have had alone."""
        commits = [self.wanted(wish) for wish in several]
        self.sent += commits
        self.both(commits)

    @rule(nth=st.integers(1, 6))
    def send_again(self, nth: int) -> None:
        """One whose answer was lost, perhaps long ago, and perhaps after it was refused."""
        if nth <= len(self.sent):
            self.both([self.sent[-nth]])
            self.count("sent again")

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
            token=token(),
            events=events,
            mark=None if wish.mark is None else Mark(wish.mark, self.now + wish.mark_for),
            dead_letter=None
            if wish.letter_for is None
            else letter(self.newborn(wish), self.now + wish.letter_for),
        )

    def next_record(self, wish: Wish, before: Instance | None) -> Instance:
        after = self.newborn(wish) if before is None else before.evolve()
        return attrs.evolve(
            after,
            state=wish.state,
            alarm=None if wish.alarm_in is None else Alarm(self.now + wish.alarm_in, "schedule"),
            lease=None if wish.owner is None else Lease(wish.owner, self.now + wish.lease_for),
            crashes=wish.crashes,
            quarantined=wish.quarantined,
        )

    def newborn(self, wish: Wish) -> Instance:
        self.lives += 1
        return Instance(key=wish.key, incarnation=f"life-{self.lives}", created_at=self.now)

    # -- runs --------------------------------------------------------------------------------------

    @rule(chosen=st.lists(st.tuples(keys, owners, spans), min_size=1, max_size=4))
    def claim(self, chosen: list[tuple[Key, str, timedelta]]) -> None:
        """Some at once, perhaps for the same instance: one of them has it."""
        claims = [Claim(key, owner, self.now, self.now + span) for key, owner, span in chosen]
        self.former |= {key: self.model.records.get(key) for key, _, _ in chosen}
        found = self.together([self.storage.claim(claim) for claim in claims])
        for claim, taken in zip(claims, found, strict=True):
            assert taken == self.model.claim(claim, 0 if taken is None else taken.instance.fence)
            self.count("claimed" if taken is not None else "not claimed")
        self.changed = True

    @rule(owner=owners, held=st.dictionaries(keys, st.integers(-1, 0)), span=spans)
    def renew(self, owner: str, held: dict[Key, int], span: timedelta) -> None:
        """Leases that are held, and others, under the right fence and the one before."""
        records = self.model.records
        pairs = [(key, records[key].fence + off if key in records else 1) for key, off in held.items()]
        kept = self.run(self.storage.renew(owner, pairs, self.now + span))
        assert kept == self.model.renew(owner, pairs, self.now + span)
        self.changed = True

    @rule(owner=owners, chosen=st.none() | st.sets(keys))
    def release(self, owner: str, chosen: set[Key] | None) -> None:
        self.former |= self.model.records
        self.run(self.storage.release(owner, chosen))
        stored = {one.key: one.fence for one in self.run(self.storage.instances())}
        self.model.release(owner, chosen, stored)
        self.changed = True

    # -- everything else ---------------------------------------------------------------------------

    @rule(seconds=st.integers(1, 4))
    def let_time_pass(self, seconds: int) -> None:
        """Nobody sends again what was to be done at another time: marks of that time may be forgotten."""
        self.now += seconds * SECOND
        self.sent.clear()

    @rule(sent=st.sets(st.integers(0, 5)), number=st.integers(0, 6))
    def clean_up(self, sent: set[int], number: int) -> None:
        """Remove some events, and a dead letter that may be there."""
        model = self.model
        ids = {model.events[n].event_id for n in sent if n < len(model.events)}
        there = any(one.number == number for one in model.letters)
        cleaning = [self.storage.events_sent(ids), self.storage.remove_dead_letter(number)]
        assert self.together(cleaning)[1] == there
        model.events = [event for event in model.events if event.event_id not in ids]
        model.letters = [one for one in model.letters if one.number != number]
        self.changed = True

    @rule(really=seldom)
    def open_again(self, really: bool) -> None:
        """A new process finds everything, and nobody who runs anything."""
        if really:
            self.run(self.scope.close(Success(None)))
            self.open()
            self.model.take_over(self.now)

    @rule(
        jobs=st.sets(st.sampled_from(JOBS)),
        job=st.none() | st.sampled_from(JOBS),
        after=st.none() | keys,
        limit=st.integers(0, 4),
        marked=keys,
    )
    def look(
        self, jobs: set[JobName], job: JobName | None, after: Key | None, limit: int, marked: Key
    ) -> None:
        """What is due and what will be, a page, and the marks of an instance."""
        storage, model, now = self.storage, self.model, self.now
        times = [at for at, _ in model.wakes(jobs)]
        page = [
            record
            for key, record in sorted(model.records.items())
            if job in (None, (key.kind, key.job)) and (after is None or key > after)
        ]
        looks: list[tuple[Effect[Any, Any], object]] = [
            (storage.due(now, limit, jobs), model.due(now, jobs)[:limit]),
            (storage.next_due(jobs), min(times, default=None)),
            (storage.next_due(jobs, after=now), min((at for at in times if at > now), default=None)),
            (storage.instances(job=job, after=after, limit=limit), page[:limit]),
            *(
                (storage.is_marked(marked, event_id, now), model.is_marked(marked, event_id, now))
                for event_id in "pq"
            ),
        ]
        assert self.together([effect for effect, _ in looks]) == [expected for _, expected in looks]

    @invariant()
    def they_agree(self) -> None:
        """What is stored, remembered, waiting and dead is the same, and no invariant of records is broken."""
        type(self).steps += 1
        if not self.changed:
            return
        storage, model, records = self.storage, self.model, self.model.records
        looks: list[Effect[Any, Any]] = [
            *(storage.load(key) for key in KEYS),
            storage.pending_events(1000),
            storage.dead_letters(),
            storage.survey(self.now, lease=SECOND),
        ]
        *found, events, letters, survey = self.together(looks)
        assert found == [records.get(key) for key in KEYS]
        assert events == model.events
        assert letters == model.letters
        overdue = model.due(self.now, set(JOBS))
        assert (survey.instances, survey.overdue) == (len(records), len(overdue))
        assert survey.oldest_due == (records[overdue[0].key].wake_at if overdue else None)
        assert survey.leased == sum(one.lease is not None for one in records.values())
        assert not {violation.invariant for violation in survey.violations} & NEVER_BROKEN
        self.changed = False

    def teardown(self) -> None:
        self.run(self.scope.close(Success(None)))
        shutil.rmtree(self.folder)


def test_sqlite_does_what_the_model_does(tier: int, report: Callable[..., None], tmp_path: Path) -> None:
    """Thousands of random stories of commits, claims, releases and restarts, after each step the same."""
    SqliteAndModel.empty = tmp_path / "empty.db"
    on_file(SqliteAndModel.empty, lambda _: Effect.void)
    with asyncio.Runner() as SqliteAndModel.loop:
        run_state_machine_as_test(
            SqliteAndModel,
            settings=settings(
                max_examples=EXAMPLES * tier,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    told = SqliteAndModel.outcomes
    assert all(told[name] for name in ("int", "claimed", "sent again", Conflict.__name__))
    report(
        "sqlite against a model",
        stories=EXAMPLES * tier,
        steps=SqliteAndModel.steps,
        commits=told["int"],
        conflicts=told[Conflict.__name__],
        duplicates=told.get(DuplicateEventError.__name__, 0),
        sent_again=told["sent again"],
        claims=told["claimed"],
        violations=0,
    )
