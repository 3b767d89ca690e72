"""Runs under leases: crashes are found and counted, what was lost is called off, queues are bounded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from durable_effect import Do, Effect, Env, Exit, Random, Scope, Success
from durable_effect.testing import TestRuntime
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    JobsClient,
    Limits,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.engine import Engine
from durable_effect_jobs.errors import InstanceBusy, InvalidStateError, Overloaded
from durable_effect_jobs.events import JobFailed
from durable_effect_jobs.instance import Instance, Key
from durable_effect_jobs.jobs import DurableJobs, start_engine
from durable_effect_jobs.storage.memory import MemoryStorage
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=30)


@attrs.define
class World:
    """Processes on one storage and one clock, and what their handlers did."""

    jobs: DurableJobs[Any]
    storage: MemoryStorage = attrs.field(factory=MemoryStorage)
    runtime: TestRuntime = attrs.field(
        factory=lambda: TestRuntime(NOON, Env.of(Random, Random.seeded(1))),
    )
    scopes: dict[int, Scope] = attrs.field(factory=dict)

    def process(self, *, alarms: bool = True) -> tuple[JobsClient, Engine]:
        """One more process, with alarms or without."""
        scope = Scope()
        services = self.runtime.run(scope.extend(self.jobs.services.build()))
        registry = self.jobs.registry.with_telemetry()
        opened = start_engine(registry, self.storage, services, alarms=alarms, polls=True)
        engine = self.runtime.run(scope.extend(opened))
        self.scopes[id(engine)] = scope
        return JobsClient(engine), engine

    def close(self, engine: Engine) -> None:
        """End a process in good order."""
        self.runtime.run(self.scopes[id(engine)].close(Success(None)))

    def stored(self, key: Key) -> Instance:
        """The record."""
        found = self.runtime.run(self.storage.load(key))
        assert found is not None
        return found


def hanging(runs: list[str], name: str = "run") -> Callable[[ContinuousContext[int]], Effect[None]]:
    """A handler that says that it began, and sleeps for an hour."""

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        return Effect.sync(lambda: runs.append(f"{name} {ctx.id}")).and_then(Effect.sleep("1 hour"))

    return execute


def counter(execute: Callable[[ContinuousContext[int]], Effect[Any]], **options: Any) -> Any:
    return Continuous.make(
        state_schema=int,
        schedule=Continuous.every("1 minute"),
        start_immediately=False,
        execute=execute,
        **options,
    )


def add_one(ctx: ContinuousContext[int]) -> Effect[None]:
    return ctx.update_state(lambda number: number + 1)


COUNTER = Key("continuous", "counter", "a")


class TestCrashes:
    """A process dies in the middle of a run."""

    def crash(self, kit: JobsTestKit) -> Instance:
        """Begin the run that is due, and die in it."""
        kit._runtime.advance(timedelta(minutes=1))  # no further: the handler hangs
        kit.restart()
        found = kit.run(kit.storage.load(COUNTER))
        assert found is not None
        return found

    def test_a_run_that_keeps_dying_is_put_off_and_then_quarantined(self) -> None:
        """It is run again at once, then a second later, and after the third death no more."""
        runs: list[str] = []
        jobs = create_durable_jobs({"counter": counter(hanging(runs))})
        with JobsTestKit(jobs, now=NOON) as kit:
            kit.run(kit.client.continuous("counter").start(id="a", input=0))
            kit._runtime.advance(timedelta(minutes=1))
            assert runs == ["run a"]

            kit.restart()
            assert runs == ["run a"] * 2
            kit.restart()
            assert runs == ["run a"] * 2
            assert kit.run(kit.client.continuous("counter").status("a")).next_run_at is not None
            kit._runtime.advance(timedelta(seconds=2))
            assert runs == ["run a"] * 3

            kit.restart()
            kit.advance("1 day")
            assert runs == ["run a"] * 3
            status = kit.run(kit.client.continuous("counter").status("a"))
            assert status.status == "stopped"
            assert status.last_error is not None
            assert status.last_error.type == "Quarantined"
            assert [event.error.type for event in kit.events if isinstance(event, JobFailed)] == [
                "Quarantined"
            ]

    def test_what_is_quarantined_keeps_its_state_and_can_be_ended(self) -> None:
        """It answers reads, refuses to run and says what to do, and its id can be freed."""
        jobs = create_durable_jobs({"counter": counter(hanging([]))}, limits=Limits(quarantine_after=1))
        with JobsTestKit(jobs, now=NOON) as kit:
            client = kit.client.continuous("counter")
            kit.run(client.start(id="a", input=7))
            self.crash(kit)
            client = kit.client.continuous("counter")
            assert kit.run(client.get_state("a")).state == 7
            with pytest.raises(InvalidStateError, match="quarantined"):
                kit.run(client.trigger("a"))
            assert kit.run(client.start(id="a", input=0)).created is False
            assert kit.run(client.terminate("a")).terminated is True
            assert kit.run(client.start(id="a", input=0)).created is True

    def test_a_run_that_ends_well_clears_the_count(self) -> None:
        """A death is forgiven with the next outcome, whatever that is."""
        dies = [True]

        def execute(ctx: ContinuousContext[int]) -> Effect[None]:
            return Effect.sleep("1 hour") if dies else add_one(ctx)

        jobs = create_durable_jobs({"counter": counter(execute)})
        with JobsTestKit(jobs, now=NOON) as kit:
            kit.run(kit.client.continuous("counter").start(id="a", input=0))
            assert self.crash(kit).crashes == 1
            dies.clear()
            kit.restart()
            kit.advance("5 seconds")
            after = kit.run(kit.storage.load(COUNTER))
            assert after is not None
            assert (after.crashes, after.lease, after.state) == (0, None, b"1")

    def test_suspects_run_alone(self) -> None:
        """Of many runs that died together each is run again with nothing beside it, and all in the end."""
        beside: dict[str, int] = {}
        running: set[str] = set()
        hangs = [True]

        @Effect.gen
        def execute(ctx: ContinuousContext[int]) -> Do[None]:
            if hangs:
                yield from Effect.sleep("1 hour")
            beside[ctx.id] = len(running)
            running.add(ctx.id)
            yield from Effect.sleep("1 second")
            running.discard(ctx.id)

        jobs = create_durable_jobs({"counter": counter(execute)})
        with JobsTestKit(jobs, now=NOON) as kit:
            for id in "abcde":
                kit.run(kit.client.continuous("counter").start(id=id, input=0))
            kit._runtime.advance(timedelta(minutes=1))
            hangs.clear()
            kit.restart()
            kit.advance("20 seconds")
            assert beside == dict.fromkeys("abcde", 0)

    def test_a_suspect_waits_only_so_long_for_what_hangs(self) -> None:
        """A handler that never ends keeps neither a suspect nor the innocent from running."""
        runs: list[str] = []
        hangs = [True]

        def execute(ctx: ContinuousContext[int]) -> Effect[None]:
            if ctx.id == "hung" or hangs:
                return Effect.sleep("1 day")
            return Effect.sync(lambda: runs.append(ctx.id))

        jobs = create_durable_jobs({"counter": counter(execute)})
        with JobsTestKit(jobs, now=NOON) as kit:
            client = kit.client.continuous("counter")
            kit.run(client.start(id="suspect", input=0))
            kit._runtime.advance(timedelta(minutes=1))
            hangs.clear()
            kit.restart()
            client = kit.client.continuous("counter")
            kit.run(client.start(id="hung", input=0))
            kit.run(client.start(id="innocent", input=0))
            kit._runtime.advance(timedelta(seconds=90))
            assert set(runs) == {"suspect", "innocent"}

    def test_events_after_each_crash_do_not_keep_it_from_quarantine(self) -> None:
        """A call that finds a dead lease counts the crash, and the third one still is the last."""
        runs: list[int] = []

        def execute(ctx: TaskExecuteContext[int]) -> Effect[None]:
            return Effect.sync(lambda: runs.append(1)).and_then(Effect.sleep("1 hour"))

        def on_event(event: int, ctx: TaskEventContext[int]) -> Effect[None]:
            return ctx.set_state(event).and_then(ctx.schedule("1 second"))

        bomb = Task.make(state_schema=int, event_schema=int, on_event=on_event, execute=execute)
        jobs, key, storage = create_durable_jobs({"bomb": bomb}), Key("task", "bomb", "x"), MemoryStorage()
        for number in range(8):
            now = NOON + timedelta(minutes=number)
            storage.take_over(now)
            world = World(jobs, storage, TestRuntime(now, Env.of(Random, Random.seeded(number))))
            caller, _ = world.process(alarms=False)
            world.runtime.run(caller.task("bomb").send(id="x", event=number))
            world.process()
            world.runtime.advance(timedelta(seconds=20))
            stored = world.stored(key)
            world.runtime.abandon()
        assert len(runs) == 3
        assert (stored.quarantined, stored.state) == (True, b"7")


def test_a_schedule_outlives_a_trigger_that_died_and_was_triggered_again() -> None:
    """What is scheduled stays aside while a trigger's retry waits, and comes back after the next trigger."""
    modes = ["hangs"]

    def on_event(event: int, ctx: TaskEventContext[int]) -> Effect[None]:
        return ctx.set_state(event).and_then(ctx.schedule("1 hour"))

    def execute(ctx: TaskExecuteContext[int]) -> Effect[None, str]:
        return {"hangs": Effect.never, "fails": Effect.fail("no"), "works": Effect.void}[modes[-1]]

    task = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=on_event,
        execute=execute,
        retry=Retry(max_attempts=5, delay="10 seconds", on_exhausted="stop"),
        logging="none",
    )
    with JobsTestKit(create_durable_jobs({"task": task}), now=NOON) as kit:
        kit.run(kit.client.task(task).send(id="a", event=1))
        scheduled = kit.run(kit.client.task(task).status("a")).scheduled_at
        kit._runtime.fork(kit.client.task(task).trigger("a"))
        kit._runtime.settle()
        modes.append("fails")
        kit.restart()
        kit.advance("1 second")
        modes.append("works")
        kit.run(kit.client.task(task).trigger("a"))
        assert kit.run(kit.client.task(task).status("a")).scheduled_at == scheduled


def test_a_suspect_that_hangs_keeps_nobody_from_running() -> None:
    """It is alone for some seconds; then the others go on beside it."""
    runs: list[str] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        began = Effect.sync(lambda: runs.append(ctx.id))
        return began.and_then(Effect.sleep("1 day")) if ctx.id == "hung" else began

    with JobsTestKit(create_durable_jobs({"counter": counter(execute)}), now=NOON) as kit:
        for id in ("hung", "innocent"):
            kit.run(kit.client.continuous("counter").start(id=id, input=0))
        kit._runtime.advance(timedelta(seconds=60))
        kit.restart()
        kit._runtime.advance(timedelta(seconds=70))
        assert runs == ["hung", "innocent", "hung", "innocent"]


class TestKeysForOthers:
    """What a run hands to other services."""

    def test_keys_and_fences_of_runs(self) -> None:
        """An idempotency key is the same after a crash and a retry, another for another step; fences grow."""
        keys: list[str] = []
        fences: list[int] = []

        def execute(ctx: ContinuousContext[int]) -> Effect[None, str]:
            keys.append(ctx.idempotency_key("charge"))
            fences.append(ctx.fence)
            assert ctx.idempotency_key("mail") != keys[-1]
            if len(keys) == 1:
                return Effect.sleep("1 hour")
            return Effect.fail("no") if len(keys) == 2 else Effect.void

        job = counter(execute, retry=Retry(max_attempts=3, delay="1 second"), logging="none")
        with JobsTestKit(create_durable_jobs({"counter": job}), now=NOON) as kit:
            kit.run(kit.client.continuous("counter").start(id="a", input=0))
            kit._runtime.advance(timedelta(minutes=1))
            kit.restart()
            kit.advance("2 minutes")
        assert keys[0] == keys[1] == keys[2]
        assert keys[3] != keys[0]
        assert len(keys[0]) == 32
        assert fences == sorted(set(fences))


class TestLostLeases:
    """Several processes on one storage."""

    def test_a_long_run_keeps_its_lease(self) -> None:
        """A run of an hour is nobody else's, and is committed once."""
        runs: list[str] = []

        def execute(ctx: ContinuousContext[int]) -> Effect[None]:
            began = Effect.sync(lambda: runs.append(ctx.id))
            return began.and_then(Effect.sleep("50 seconds")).and_then(add_one(ctx))

        world = World(create_durable_jobs({"counter": counter(execute)}))
        with world.runtime:
            client, _ = world.process()
            world.process()
            world.runtime.run(client.continuous("counter").start(id="a", input=0))
            world.runtime.advance(timedelta(seconds=115))
            assert runs == ["a"]
            assert world.stored(COUNTER).state == b"1"
            assert world.stored(COUNTER).crashes == 0

    def test_a_run_that_lost_its_lease_is_called_off(self) -> None:
        """Another process takes over what was cut off; the first one's run ends and changes nothing."""
        ended: list[str] = []

        def execute(ctx: ContinuousContext[int]) -> Effect[None]:
            over = Effect.sync(lambda: ended.append("called off"))
            return Effect.sleep("2 minutes").and_then(add_one(ctx)).on_interrupt(lambda: over)

        world = World(create_durable_jobs({"counter": counter(execute)}))
        with world.runtime:
            client, engine = world.process()
            world.runtime.run(client.continuous("counter").start(id="a", input=0))
            world.runtime.advance(timedelta(seconds=61))
            world.runtime.run(world.storage.release(engine.owner))
            world.runtime.advance(timedelta(seconds=20))
            assert ended == ["called off"]
            assert world.stored(COUNTER).state == b"0"

    def test_a_call_waits_for_another_process_and_gives_up_with_nothing_changed(self) -> None:
        """Whose instance another process runs waits ten seconds, then hears that it is busy."""
        world = World(create_durable_jobs({"counter": counter(hanging([]))}))
        with world.runtime:
            client, _ = world.process()
            other, _ = world.process(alarms=False)
            world.runtime.run(client.continuous("counter").start(id="a", input=0))
            world.runtime.advance(timedelta(seconds=61))
            before = world.stored(COUNTER)
            began = world.runtime.now
            with pytest.raises(InstanceBusy):
                world.runtime.run(other.continuous("counter").trigger("a"))
            assert timedelta(seconds=10) <= world.runtime.now - began < timedelta(seconds=11)
            assert attrs.evolve(world.stored(COUNTER), lease=None) == attrs.evolve(before, lease=None)

    def test_a_process_that_closes_gives_its_leases_back(self) -> None:
        """What it had to interrupt runs elsewhere within a poll, and counts as no crash."""
        runs: list[str] = []
        jobs = create_durable_jobs(
            {"counter": counter(hanging(runs))}, limits=Limits(drain_timeout=timedelta(seconds=1))
        )
        world = World(jobs)
        with world.runtime:
            client, engine = world.process()
            world.runtime.run(client.continuous("counter").start(id="a", input=0))
            world.runtime.advance(timedelta(seconds=61))
            world.close(engine)
            assert world.stored(COUNTER).lease is None
            assert world.stored(COUNTER).crashes == 0
            world.process()
            world.runtime.advance(timedelta(seconds=1))
            assert runs == ["run a", "run a"]


class TestPreemption:
    """``terminate`` and ``clear`` during a run."""

    def test_terminate_during_a_hung_run(self) -> None:
        """It answers at once, the run is interrupted and changes nothing, and the id is free."""
        runs: list[str] = []
        jobs = create_durable_jobs({"counter": counter(hanging(runs))})
        with JobsTestKit(jobs, now=NOON) as kit:
            client = kit.client.continuous("counter")
            kit.run(client.start(id="a", input=0))
            kit._runtime.advance(timedelta(minutes=1))
            began = kit.now
            assert kit.run(client.terminate("a", "enough")).terminated is True
            assert kit.run(client.start(id="a", input=5)).created is True
            assert kit.now == began
            kit._runtime.advance(timedelta(seconds=30))
            assert kit.run(client.get_state("a")).state == 5
            assert runs == ["run a"]

    def test_a_run_that_cannot_be_interrupted_keeps_nobody(self) -> None:
        """Even a handler that will not end neither writes again nor blocks the next life of its id."""

        def execute(ctx: ContinuousContext[int]) -> Effect[None]:
            return Effect.sleep("1 hour").and_then(add_one(ctx)).uninterruptible()

        jobs = create_durable_jobs({"counter": counter(execute)})
        with JobsTestKit(jobs, now=NOON) as kit:
            client = kit.client.continuous("counter")
            kit.run(client.start(id="a", input=0))
            kit._runtime.advance(timedelta(minutes=1))
            kit.run(client.terminate("a"))
            kit.run(client.start(id="a", input=5))
            kit._runtime.advance(timedelta(seconds=30))
            assert kit.run(client.get_state("a")).state == 5

    def test_the_caller_whose_own_run_is_ended(self) -> None:
        """A trigger whose run is called off by a termination answers that the instance was terminated."""
        jobs = create_durable_jobs({"counter": counter(hanging([]))})
        with JobsTestKit(jobs, now=NOON) as kit:
            client = kit.client.continuous("counter")
            kit.run(client.start(id="a", input=0))
            calls: Effect[Any, Any] = Effect.all(
                [client.trigger("a"), Effect.sleep("1 second").and_then(client.terminate("a"))],
                concurrency="unbounded",
            )
            triggered, ended = kit.run(calls)
            assert (triggered.triggered, triggered.terminated) == (True, True)
            assert ended.terminated is True

    def test_a_batch_cleared_during_its_flush(self) -> None:
        """What is thrown away during a flush is gone, and later events open a batch of their own."""

        def flush(ctx: DebounceExecuteContext[list[int]]) -> Effect[None]:
            return Effect.sleep("1 hour")

        batch = Debounce.make(
            event_schema=int,
            state_schema=list[int],
            initial_state=list[int],
            on_event=lambda ctx: Effect.succeed([*ctx.state, ctx.event]),
            flush_after="1 minute",
            execute=flush,
        )
        with JobsTestKit(create_durable_jobs({"batch": batch}), now=NOON) as kit:
            client = kit.client.debounce("batch")
            kit.run(client.add(id="a", event=1))
            kit._runtime.advance(timedelta(minutes=1))
            assert kit.run(client.clear("a")).discarded_events == 1
            kit.run(client.add(id="a", event=2))
            assert kit.run(client.get_state("a")).state == [2]


class TestBounds:
    """Queues that are full."""

    def slow(self, **limits: Any) -> DurableJobs[Any]:
        def on_event(event: int, ctx: TaskEventContext[list[int]]) -> Effect[None]:
            kept = ctx.state.flat_map(lambda known: ctx.set_state([*(known or []), event]))
            return Effect.sleep("20 seconds").and_then(kept)

        task = Task.make(
            state_schema=list[int], event_schema=int, on_event=on_event, execute=lambda ctx: Effect.void
        )
        return create_durable_jobs({"slow": task}, limits=Limits(**limits))

    def sent(self, kit: JobsTestKit, ids: str) -> list[Exit[Any, Any]]:
        client = kit.client.task("slow")
        calls = [client.send(id=id, event=number).exit() for number, id in enumerate(ids)]
        return kit.run(Effect.all(calls, concurrency="unbounded"))

    def test_a_full_queue_of_one_instance(self) -> None:
        """A call too many is refused at once, and the others are served in their order."""
        with JobsTestKit(self.slow(max_waiting=2), now=NOON) as kit:
            exits = self.sent(kit, "aaaa")
            assert [isinstance(exit, Success) for exit in exits] == [True, True, True, False]
            with pytest.raises(Overloaded, match="task:slow:a"):
                exits[3].get()
            assert kit.run(kit.client.task("slow").get_state("a")).state == [0, 1, 2]

    def test_too_many_calls_at_once(self) -> None:
        """A process takes only so many calls in, whatever their instances."""
        with JobsTestKit(self.slow(max_calls=2), now=NOON) as kit:
            exits = self.sent(kit, "abc")
            with pytest.raises(Overloaded):
                exits[2].get()
            assert isinstance(exits[1], Success)
            assert kit.run(kit.client.task("slow").send(id="c", event=9)).created is True

    def test_a_call_that_waits_only_so_long_for_its_turn(self) -> None:
        """With a queue_timeout a call behind a slow one gives up, and its event is not taken."""
        with JobsTestKit(self.slow(queue_timeout=timedelta(seconds=10)), now=NOON) as kit:
            exits = self.sent(kit, "aa")
            with pytest.raises(InstanceBusy):
                exits[1].get()
            assert kit.run(kit.client.task("slow").get_state("a")).state == [0]
            assert self.sent(kit, "a")[0].get().created is False
