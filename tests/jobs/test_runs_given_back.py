"""Runs that are not committed: each gives its instance back, and none is forgotten or runs beside others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from durable_effect import Do, Effect, Env, Random, Scope, Success
from durable_effect.testing import TestRuntime
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    JobsClient,
    Limits,
    Retry,
    create_durable_jobs,
)
from durable_effect_jobs.errors import InvalidStateError, StorageError
from durable_effect_jobs.instance import Claim, Claimed, Commit, Instance, Key
from durable_effect_jobs.jobs import DurableJobs, start_engine
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
COUNTER = Key("continuous", "counter", "a")


def counter(
    execute: Callable[[ContinuousContext[int]], Effect[Any, Any, Any]],
    limits: Limits | None = None,
    **options: Any,
) -> DurableJobs[Any]:
    job = Continuous.make(
        state_schema=int,
        schedule=Continuous.every("1 minute"),
        start_immediately=False,
        execute=execute,
        **options,
    )
    return create_durable_jobs({"counter": job}, limits=limits or Limits())


def stored(kit: JobsTestKit, key: Key = COUNTER) -> Instance:
    found = kit.run(kit.storage.load(key))
    assert found is not None
    return found


def test_a_call_that_is_called_off_gives_its_run_to_the_alarms() -> None:
    """The trigger was committed: its run begins anew at once, and not when the lease would have been over."""
    began: list[datetime] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        kept = ctx.update_state(lambda number: number + 1)
        return Effect.sync(lambda: began.append(kit.now)).and_then(Effect.sleep("5 seconds")).and_then(kept)

    with JobsTestKit(counter(execute), now=NOON) as kit:
        client = kit.client.continuous("counter")
        kit.run(client.start(id="a", input=0))
        kit.run(client.trigger("a").timeout_option("1 second"))
        kit._runtime.advance(timedelta(seconds=8))
        assert began == [NOON, NOON + timedelta(seconds=1)]
        assert (stored(kit).state, stored(kit).lease, stored(kit).crashes) == (b"1", None, 0)


class LosesClaims(MemoryStorage):
    """Claims, and then says that it could not: the answer was lost."""

    lost = 0

    def claim(self, claim: Claim) -> Effect[Claimed | None, StorageError]:
        if self.lost >= 2:
            return super().claim(claim)
        self.lost += 1
        return super().claim(claim).and_then(Effect.fail(StorageError("claim", "no answer")))


def test_a_claim_whose_answer_was_lost_is_given_back() -> None:
    """Nobody runs under it, so the alarm is looked at again a moment later."""

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        return ctx.update_state(lambda number: number + 1)

    with JobsTestKit(counter(execute), now=NOON, storage=LosesClaims()) as kit:
        kit.run(kit.client.continuous("counter").start(id="a", input=0))
        kit.advance(MINUTE + timedelta(seconds=3))
        assert (stored(kit).state, stored(kit).crashes) == (b"1", 0)


def test_a_termination_calls_its_run_off() -> None:
    """The handler is interrupted then and there, not left to find out when it wants to commit."""
    ended: list[datetime] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        return Effect.sleep("30 minutes").on_interrupt(lambda: Effect.sync(lambda: ended.append(kit.now)))

    with JobsTestKit(counter(execute), now=NOON) as kit:
        client = kit.client.continuous("counter")
        kit.run(client.start(id="a", input=0))
        kit._runtime.advance(MINUTE)
        kit.run(client.terminate("a"))
        assert ended == [NOON + MINUTE]


def test_a_run_that_outlives_its_process_is_fenced_off() -> None:
    """Closing frees even what cannot be interrupted, under a new fence: what that writes later is refused."""
    storage = MemoryStorage()

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        return Effect.sleep("1 hour").and_then(ctx.set_state(7)).uninterruptible()

    jobs = counter(execute, Limits(drain_timeout="1 second"))
    with TestRuntime(NOON, Env.of(Random, Random.seeded(1))) as runtime:
        scope = Scope()
        services = runtime.run(scope.extend(jobs.services.build()))
        opened = start_engine(jobs.registry, storage, services, alarms=True, polls=True)
        engine = runtime.run(scope.extend(opened))
        runtime.run(JobsClient(engine).continuous("counter").start(id="a", input=0))
        runtime.advance(MINUTE + timedelta(seconds=1))
        held = runtime.run(storage.load(COUNTER))
        assert held is not None
        assert held.lease is not None
        runtime.run(scope.close(Success(None)))
        freed = runtime.run(storage.load(COUNTER))
        assert freed is not None
        assert (freed.lease, freed.crashes, freed.alarm) == (None, 0, held.alarm)
        assert freed.fence > held.fence
        runtime.advance(timedelta(hours=2))
        assert runtime.run(storage.load(COUNTER)) == freed


def test_a_call_that_runs_a_suspect_waits_until_nothing_runs_beside_it() -> None:
    """An instance whose run died is not run beside others, whoever asks for it."""
    running: set[str] = set()
    beside: dict[str, set[str]] = {}

    @Effect.gen
    def execute(ctx: ContinuousContext[int]) -> Do[None]:
        beside[ctx.id] = set(running)
        running.add(ctx.id)
        yield from Effect.sleep("2 seconds")
        running.discard(ctx.id)

    with JobsTestKit(counter(execute), now=NOON) as kit:
        client = kit.client.continuous("counter")
        for id in ("suspect", "other"):
            kit.run(client.start(id=id, input=0))
        before = stored(kit, attrs.evolve(COUNTER, id="suspect"))
        died = Commit(
            key=before.key,
            before=before,
            after=attrs.evolve(before.evolve(), crashes=1),
            at=NOON,
            token="died",
        )
        kit.run(kit.storage.commit(died))
        calls = [client.trigger("other"), Effect.sleep("1 second").and_then(client.trigger("suspect"))]
        kit.run(Effect.all(calls, concurrency="unbounded"))
        assert beside == {"other": set(), "suspect": set()}
        assert stored(kit, before.key).crashes == 0


def test_alarms_run_no_more_at_a_time_than_they_may() -> None:
    """Of many that are due together, as many run as the limit says, and all in the end."""
    running: set[str] = set()
    most = [0]
    done: list[str] = []

    @Effect.gen
    def execute(ctx: ContinuousContext[int]) -> Do[None]:
        running.add(ctx.id)
        most[0] = max(most[0], len(running))
        yield from Effect.sleep("1 second")
        running.discard(ctx.id)
        done.append(ctx.id)

    with JobsTestKit(counter(execute, Limits(concurrency=2)), now=NOON) as kit:
        for id in "abcde":
            kit.run(kit.client.continuous("counter").start(id=id, input=0))
        kit.advance(MINUTE + timedelta(seconds=10))
        assert most == [2]
        assert sorted(done) == list("abcde")


def test_a_connection_that_was_closed_takes_no_calls() -> None:
    """A client that is kept says so, whatever its storage would still do."""
    jobs = counter(lambda ctx: Effect.void)

    async def scene() -> None:
        async with jobs.connect("memory://") as client:
            await client.continuous("counter").start(id="a", input=0)
        with pytest.raises(InvalidStateError, match="was closed"):
            await client.continuous("counter").start(id="b", input=0)
        with pytest.raises(InvalidStateError, match="was closed"):
            await client.continuous("counter").status("a")

    asyncio.run(scene())


def test_what_is_purged_is_kept_as_a_dead_letter_of_the_same_write() -> None:
    """When the retries are exhausted, the record is gone and its letter is there."""
    job_retry = Retry(max_attempts=2, delay="1 second")
    jobs = counter(lambda ctx: Effect.fail("no"), retry=job_retry, logging="none")
    with JobsTestKit(jobs, now=NOON) as kit:
        kit.run(kit.client.continuous("counter").start(id="a", input=41))
        kit.advance(MINUTE + timedelta(seconds=2))
        assert kit.run(kit.storage.load(COUNTER)) is None
        (letter,) = kit.run(kit.storage.dead_letters())
        assert (letter.instance.key, letter.instance.state, letter.reason) == (COUNTER, b"41", "max_attempts")
        assert letter.expires_at - letter.at == timedelta(days=30)


class ForestallsOnce(MemoryStorage):
    """Fails a commit without doing it, and lets somebody else write before it is sent again."""

    forestalls = False

    def commit(self, commit: Commit) -> Effect[int, Any]:
        if not self.forestalls:
            return super().commit(commit)
        self.forestalls = False
        before = self.load(commit.key).run_sync()
        assert before is not None
        theirs = Commit(
            key=commit.key, before=before, after=before.evolve(state=b"5"), at=commit.at, token="theirs"
        )
        failed = Effect.fail(StorageError("commit", "no answer"))
        return super().commit(theirs).and_then(failed)


def test_a_commit_that_somebody_forestalled_is_not_acknowledged() -> None:
    """Nobody can tell whether it had happened, so its caller hears of the failure, and nothing is done."""
    storage = ForestallsOnce()
    with JobsTestKit(counter(lambda ctx: ctx.set_state(9)), now=NOON, storage=storage) as kit:
        client = kit.client.continuous("counter")
        kit.run(client.start(id="a", input=0))
        storage.forestalls = True
        with pytest.raises(StorageError):
            kit.run(client.trigger("a"))
        assert (stored(kit).state, stored(kit).run_count) == (b"5", 0)
