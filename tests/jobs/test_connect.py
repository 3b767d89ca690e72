"""Connecting for real: an asyncio loop, real time, memory or a SQLite file."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from durable_effect import Clock, Do, Effect, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    DurableJobs,
    Retry,
    Task,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import (
    ExecutionError,
    InvalidStateError,
    JobNotFoundError,
    StorageError,
    ValidationError,
)

REFUSED = (ValueError, TypedError)
PATIENCE = 10
"""Seconds after which a scene that hangs is given up; none needs more than a fraction of one."""


@attrs.frozen
class Counter:
    value: int


@attrs.frozen
class Boom(TypedError):
    reason: str


@attrs.frozen
class Run:
    """What one execution saw."""

    id: str
    run_count: int
    scheduled_for: datetime
    missed_count: int
    run_key: str


class Counting:
    """A job that counts its runs, writes down what they saw, and can be waited for."""

    def __init__(self, every: Any = "1 hour", *, fails: int = 0, **options: Any) -> None:
        self.runs: list[Run] = []
        self.fails = fails
        self.ran = asyncio.Event()
        self.definition = Continuous.make(
            state_schema=Counter, schedule=Continuous.every(every), execute=self.execute, **options
        )
        self.jobs = create_durable_jobs({"counter": self.definition})

    @Effect.gen
    def execute(self, ctx: ContinuousContext[Counter]) -> Do[None, Boom]:
        self.runs.append(Run(ctx.id, ctx.run_count, ctx.scheduled_for, ctx.missed_count, ctx.run_key))
        yield from ctx.update_state(lambda counter: Counter(counter.value + 1))
        self.ran.set()
        if len(self.runs) <= self.fails:
            yield from Effect.fail(Boom("no luck"))

    async def has_run(self, times: int) -> None:
        """Waits until the job has run so many times."""
        while len(self.runs) < times:
            self.ran.clear()
            await self.ran.wait()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a scene on an event loop of its own, and gives it up when it hangs."""

    async def patiently() -> None:
        async with asyncio.timeout(PATIENCE):
            await scene()

    asyncio.run(patiently())


def start(client: Any, name: str = "u1", value: int = 0) -> Any:
    return client.continuous("counter").start(id=name, input=Counter(value))


def status(client: Any, name: str = "u1") -> Any:
    return client.continuous("counter").status(name)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The address of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture(params=["memory", "sqlite"])
def any_url(request: pytest.FixtureRequest, url: str) -> str:
    """The address of an empty storage, once in memory, once in a file."""
    return "memory://" if request.param == "memory" else url


class TestAnyStorage:
    """What holds for every storage."""

    def test_a_call_is_awaitable(self, any_url: str) -> None:
        """On a running loop every call of the client can be awaited."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(any_url) as client:
                started = await client.continuous(job.definition).start(id="u1", input=Counter(41))
                assert (started.created, started.instance_id, started.status) == (
                    True,
                    "continuous:counter:u1",
                    "running",
                )
                assert (await client.continuous(job.definition).get_state("u1")).state == Counter(42)
                assert (await status(client)).run_count == 1
                assert (await client.continuous("counter").trigger("u1")).triggered is True
                assert (await client.continuous("counter").terminate("u1")).terminated is True
                assert (await status(client)).status == "not_found"

        play(scene)

    def test_the_next_run_is_one_interval_after_the_first(self, any_url: str) -> None:
        """The tick is anchored to the time of the first run, exactly."""

        async def scene() -> None:
            job = Counting("1 hour")
            async with job.jobs.connect(any_url) as client:
                await start(client)
                assert (await status(client)).next_run_at == job.runs[0].scheduled_for + timedelta(hours=1)

        play(scene)

    def test_the_alarm_loop_runs_ticks(self, any_url: str) -> None:
        """While connected, ticks fire by themselves, each anchored to the first."""

        async def scene() -> None:
            job = Counting("20 ms")
            async with job.jobs.connect(any_url) as client:
                await start(client)
                await job.has_run(4)
            first = job.runs[0].scheduled_for
            for earlier, later in zip(job.runs, job.runs[1:], strict=False):
                ticks = (later.scheduled_for - earlier.scheduled_for) / timedelta(milliseconds=20)
                assert ticks == earlier.missed_count + 1
            assert all(
                (run.scheduled_for - first) % timedelta(milliseconds=20) == timedelta(0) for run in job.runs
            )
            assert [run.run_count for run in job.runs] == list(range(1, len(job.runs) + 1))

        play(scene)

    def test_an_instance_started_while_the_loop_waits(self, any_url: str) -> None:
        """A loop that waits for a far alarm is woken by a nearer one."""

        async def scene() -> None:
            far, near = Counting("1 day"), Counting("20 ms")
            jobs = create_durable_jobs({"far": far.definition, "near": near.definition})
            async with jobs.connect(any_url) as client:
                await client.continuous("far").start(id="u1", input=Counter(0))
                await client.continuous("near").start(id="u1", input=Counter(0))
                await near.has_run(3)
            assert len(far.runs) == 1

        play(scene)

    def test_all_kinds_fire(self, any_url: str) -> None:
        """Batches and tasks fire by themselves as well."""

        async def scene() -> None:
            fired: dict[str, asyncio.Event] = {"batch": asyncio.Event(), "order": asyncio.Event()}

            def flush(ctx: DebounceExecuteContext[str]) -> Any:
                return Effect.sync(fired["batch"].set)

            def execute(ctx: TaskExecuteContext[str]) -> Any:
                return Effect.sync(fired["order"].set)

            jobs = create_durable_jobs(
                {
                    "batch": Debounce.make(event_schema=str, flush_after="20 ms", execute=flush),
                    "order": Task.make(
                        state_schema=str,
                        event_schema=str,
                        on_event=lambda event, ctx: ctx.schedule("20 ms"),
                        execute=execute,
                    ),
                }
            )
            async with jobs.connect(any_url) as client:
                await client.debounce("batch").add(id="d1", event="hello")
                await client.task("order").send(id="t1", event="placed")
                await fired["batch"].wait()
                await fired["order"].wait()

        play(scene)

    def test_typed_errors_are_raised_as_themselves(self, any_url: str) -> None:
        """An awaited call raises the typed error it failed with."""

        async def scene() -> None:
            job = Counting(fails=1)
            async with job.jobs.connect(any_url) as client:
                with pytest.raises(ValidationError):
                    await client.continuous("counter").start(id="u1", input={"value": "x"})
                with pytest.raises(ExecutionError):
                    await start(client)
                with pytest.raises(JobNotFoundError):
                    await client.continuous("conter").status("u1")
                assert (await status(client)).status == "running"

        play(scene)

    def test_triggers_of_one_instance_take_turns(self, any_url: str) -> None:
        """Fifty triggers at once are fifty runs, none lost and none twice."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(any_url) as client:
                await start(client)
                trigger = client.continuous("counter").trigger("u1")

                async def call() -> None:
                    assert (await trigger).triggered is True

                await asyncio.gather(*(call() for _ in range(50)))
                assert (await client.continuous("counter").get_state("u1")).state == Counter(51)
                assert (await status(client)).run_count == 51
            assert [run.run_count for run in job.runs] == list(range(1, 52))

        play(scene)

    def test_calls_from_other_threads(self, any_url: str) -> None:
        """Threads with event loops of their own may call, and take turns like tasks do."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(any_url) as client:
                await start(client)

                async def call() -> None:
                    for _ in range(5):
                        await client.continuous("counter").trigger("u1")

                await asyncio.gather(*(asyncio.to_thread(asyncio.run, call()) for _ in range(4)))
                assert (await client.continuous("counter").get_state("u1")).state == Counter(21)
            assert [run.run_count for run in job.runs] == list(range(1, 22))

        play(scene)

    def test_starts_of_many_instances(self, any_url: str) -> None:
        """A hundred instances started at once are all there."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(any_url) as client:

                async def call(number: int) -> bool:
                    return (await start(client, f"u{number}", number)).created

                assert all(await asyncio.gather(*(call(number) for number in range(100))))
                for number in range(100):
                    state = (await client.continuous("counter").get_state(f"u{number}")).state
                    assert state == Counter(number + 1)

        play(scene)

    def test_two_starts_of_one_id_create_once(self, any_url: str) -> None:
        """Of many simultaneous starts of one id exactly one creates it."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(any_url) as client:

                async def call() -> bool:
                    return (await start(client)).created

                created = await asyncio.gather(*(call() for _ in range(20)))
                assert created.count(True) == 1
            assert len(job.runs) == 1

        play(scene)

    def test_reads_do_not_wait_for_a_handler(self, any_url: str) -> None:
        """While a handler is busy its instance still answers questions, from the last commit."""

        async def scene() -> None:
            busy, done = asyncio.Event(), asyncio.Event()

            @Effect.gen
            def execute(ctx: ContinuousContext[Counter]) -> Do[None]:
                yield from ctx.set_state(Counter(99))
                busy.set()
                yield from Effect.from_async(done.wait)

            job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=execute)
            async with create_durable_jobs({"counter": job}).connect(any_url) as client:
                async with asyncio.TaskGroup() as group:

                    async def call() -> None:
                        await start(client)

                    group.create_task(call())
                    await busy.wait()
                    assert (await status(client)).run_count == 0
                    assert (await client.continuous("counter").get_state("u1")).state == Counter(0)
                    done.set()
                assert (await client.continuous("counter").get_state("u1")).state == Counter(99)

        play(scene)

    def test_a_handler_cannot_command_itself(self, any_url: str) -> None:
        """A handler that triggers its own instance is refused; nothing hangs."""

        async def scene() -> None:
            refused: list[InvalidStateError] = []
            clients: list[Any] = []

            @Effect.gen
            def execute(ctx: ContinuousContext[Counter]) -> Do[None]:
                try:
                    yield from clients[0].continuous("counter").trigger(ctx.id)
                except InvalidStateError as error:
                    refused.append(error)

            job = Continuous.make(state_schema=Counter, schedule=Continuous.every("1 hour"), execute=execute)
            jobs = create_durable_jobs({"counter": job})
            async with jobs.connect(any_url) as client:
                clients.append(client)
                await start(client)
            assert len(refused) == 1

        play(scene)

    def test_retries_fire_by_themselves(self, any_url: str) -> None:
        """A failed run is retried by the alarm loop."""

        async def scene() -> None:
            job = Counting(fails=2, retry=Retry(max_attempts=3, delay="10 ms"))
            async with job.jobs.connect(any_url) as client:
                assert (await start(client)).status == "running"
                await job.has_run(3)
            assert len({run.run_key for run in job.runs}) == 1

        play(scene)

    def test_the_end_waits_for_running_handlers(self, any_url: str) -> None:
        """Leaving the connection drains: a tick that has begun is finished and committed."""

        async def scene() -> None:
            begun, finish = asyncio.Event(), asyncio.Event()
            finished: list[int] = []

            @Effect.gen
            def execute(ctx: ContinuousContext[Counter]) -> Do[None]:
                if ctx.run_count == 2:
                    begun.set()
                    yield from Effect.from_async(finish.wait)
                    finished.append(ctx.run_count)

            job = Continuous.make(state_schema=Counter, schedule=Continuous.every("5 ms"), execute=execute)
            async with create_durable_jobs({"counter": job}).connect(any_url) as client:
                await start(client)
                await begun.wait()
                asyncio.get_running_loop().call_later(0.05, finish.set)
            assert finished == [2]

        play(scene)

    def test_it_connects_again_and_again(self, any_url: str) -> None:
        """A registry can be connected any number of times, one after the other."""

        async def scene() -> None:
            job = Counting()
            for _ in range(3):
                async with job.jobs.connect(any_url) as client:
                    await start(client)

        play(scene)


class TestWithoutAlarms:
    """`alarms=False` is for a process that only calls."""

    def test_nothing_fires_by_itself(self, any_url: str) -> None:
        """Without the alarm loop a tick that is long due does not run."""

        async def scene() -> None:
            job = Counting("1 ms")
            async with job.jobs.connect(any_url, alarms=False) as client:
                await start(client)
                due = (await status(client)).next_run_at
                while await Clock.now() < due + timedelta(milliseconds=100):
                    assert (await status(client)).next_run_at == due
            assert len(job.runs) == 1

        play(scene)

    def test_calls_run_what_they_made_due(self, any_url: str) -> None:
        """A start or a trigger still runs its handler inside the call."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(any_url, alarms=False) as client:
                await start(client)
                await client.continuous("counter").trigger("u1")
                assert (await status(client)).run_count == 2

        play(scene)


class TestSqlite:
    """A SQLite file keeps everything between two connections."""

    def test_state_count_and_alarm_stay(self, url: str) -> None:
        """What one connection has committed the next one finds."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(url) as client:
                await start(client, value=5)
                before = await status(client)
            async with job.jobs.connect(url) as client:
                assert await status(client) == before
                assert (await client.continuous("counter").get_state("u1")).state == Counter(6)
                assert (await start(client)).created is False

        play(scene)

    def test_across_event_loops(self, url: str) -> None:
        """A file written under one event loop serves another."""
        job = Counting()

        async def write() -> None:
            async with job.jobs.connect(url) as client:
                await start(client)

        async def read() -> None:
            async with job.jobs.connect(url) as client:
                assert (await status(client)).run_count == 1

        play(write)
        play(read)

    def test_what_fell_due_in_between_is_one_late_run(self, url: str) -> None:
        """Ticks missed while nobody was connected are one run at the next connection."""

        async def scene() -> None:
            job = Counting("1 ms")
            async with job.jobs.connect(url, alarms=False) as client:
                await start(client)
                due = (await status(client)).next_run_at
                while await Clock.now() < due + timedelta(milliseconds=50):
                    await status(client)
            async with job.jobs.connect(url):
                await job.has_run(2)
            late = job.runs[1]
            assert late.scheduled_for == due == job.runs[0].scheduled_for + timedelta(milliseconds=1)
            assert late.missed_count >= 50
            assert late.run_count == 2

        play(scene)

    def test_a_terminated_instance_stays_gone(self, url: str) -> None:
        """An end is as durable as a start."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(url) as client:
                await start(client)
                await client.continuous("counter").terminate("u1")
            async with job.jobs.connect(url) as client:
                assert (await status(client)).status == "not_found"
                assert (await start(client)).created is True

        play(scene)

    def test_a_batch_and_a_task_stay(self, url: str) -> None:
        """An open batch and a scheduled task are there at the next connection, to the microsecond."""
        jobs: DurableJobs = create_durable_jobs(
            {
                "batch": Debounce.make(
                    event_schema=str, flush_after="1 hour", execute=lambda ctx: Effect.void
                ),
                "order": Task.make(
                    state_schema=str,
                    event_schema=str,
                    on_event=lambda event, ctx: ctx.set_state(event).flat_map(
                        lambda _: ctx.schedule("1 hour")
                    ),
                    execute=lambda ctx: Effect.void,
                ),
            }
        )

        async def scene() -> None:
            async with jobs.connect(url) as client:
                added = await client.debounce("batch").add(id="d1", event="hello")
                sent = await client.task("order").send(id="t1", event="placed")
            async with jobs.connect(url) as client:
                batch = await client.debounce("batch").status("d1")
                assert (batch.event_count, batch.will_flush_at) == (1, added.will_flush_at)
                assert (await client.debounce("batch").get_state("d1")).state == "hello"
                order = await client.task("order").get_state("t1")
                assert (order.state, order.scheduled_at) == ("placed", sent.scheduled_at)

        play(scene)

    def test_the_last_error_stays(self, url: str) -> None:
        """Why a run failed can be asked in the next connection as well."""

        async def scene() -> None:
            job = Counting(fails=1)
            async with job.jobs.connect(url) as client:
                with pytest.raises(ExecutionError):
                    await start(client)
            async with job.jobs.connect(url) as client:
                assert "no luck" in str((await status(client)).last_error)

        play(scene)

    def test_awkward_ids_stay_apart(self, url: str) -> None:
        """Ids that look alike are different records, whatever characters they have."""
        names = ["a", "A", "a:b", "a%", "a_", "a'b", 'a"b', "ä", "a\N{COMBINING DIAERESIS}", " a", "a\n"]

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(url) as client:
                for number, name in enumerate(names):
                    assert (await start(client, name, number)).created is True
            async with job.jobs.connect(url) as client:
                for number, name in enumerate(names):
                    state = (await client.continuous("counter").get_state(name)).state
                    assert state == Counter(number + 1)

        play(scene)

    def test_a_policy_removed_in_a_later_deployment(self, url: str) -> None:
        """A run that waits for its retry runs at its time even when the job has no `retry` any more."""

        async def scene() -> None:
            before = Counting(fails=1, retry=Retry(max_attempts=3, delay="20 ms"))
            async with before.jobs.connect(url, alarms=False) as client:
                await start(client)
            after = Counting()
            async with after.jobs.connect(url) as client:
                await after.has_run(1)
                assert (await status(client)).status == "running"

        play(scene)

    def test_a_policy_added_in_a_later_deployment(self, url: str) -> None:
        """An instance from before the policy is retried under it."""

        async def scene() -> None:
            before = Counting()
            async with before.jobs.connect(url) as client:
                await start(client)
            after = Counting(fails=1, retry=Retry(max_attempts=3, delay="10 ms"))
            async with after.jobs.connect(url) as client:
                assert (await client.continuous("counter").trigger("u1")).retry_scheduled
                await after.has_run(2)
            assert [run.run_count for run in after.runs] == [2, 2]

        play(scene)

    def test_a_stopped_instance_is_revived_in_a_later_deployment(self, url: str) -> None:
        """What stopped under an old policy runs again when it is triggered, without any policy."""

        async def scene() -> None:
            before = Counting(fails=1, retry=Retry(max_attempts=1, on_exhausted="stop"))
            async with before.jobs.connect(url) as client:
                await start(client)
                assert (await status(client)).status == "stopped"
            after = Counting()
            async with after.jobs.connect(url) as client:
                assert (await client.continuous("counter").trigger("u1")).triggered is True
                assert (await status(client)).status == "running"

        play(scene)

    def test_a_job_that_is_gone_for_a_while(self, url: str) -> None:
        """The alarm of a job that is not registered is kept, and fires when the job is back."""

        async def scene() -> None:
            job, other = Counting("1 ms"), Counting()
            async with job.jobs.connect(url, alarms=False) as client:
                await start(client)
            async with create_durable_jobs({"other": other.definition}).connect(url) as client:
                await client.continuous("other").start(id="u1", input=Counter(0))
            assert len(job.runs) == 1
            async with job.jobs.connect(url):
                await job.has_run(2)
            assert job.runs[1].run_count == 2

        play(scene)

    def test_a_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three slashes and a name are a file in the working directory."""
        monkeypatch.chdir(tmp_path)

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect("sqlite:///jobs.db") as client:
                await start(client)

        play(scene)
        assert (tmp_path / "jobs.db").exists()

    def test_no_lock_is_left(self, url: str, tmp_path: Path) -> None:
        """After the connection has ended anybody can open the file."""

        async def scene() -> None:
            job = Counting()
            async with job.jobs.connect(url) as client:
                await start(client)

        play(scene)
        database = sqlite3.connect(tmp_path / "jobs.db")
        try:
            database.execute("BEGIN EXCLUSIVE")
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            database.rollback()
        finally:
            database.close()


class TestRefusedFiles:
    """A file that is not ours is left alone."""

    @staticmethod
    def connect(url: str) -> None:
        async def scene() -> None:
            async with Counting().jobs.connect(url):
                pass

        play(scene)

    def test_a_text_file(self, url: str, tmp_path: Path) -> None:
        """A file that is no database is refused and not touched."""
        file = tmp_path / "jobs.db"
        file.write_text("Dear diary, " * 1000)
        with pytest.raises(StorageError):
            self.connect(url)
        assert file.read_text() == "Dear diary, " * 1000

    def test_somebody_else_s_database(self, url: str, tmp_path: Path) -> None:
        """A database of another program is refused, and gets no tables from us."""
        file = tmp_path / "jobs.db"
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE customers (name TEXT)")
        database.commit()
        database.close()
        with pytest.raises(StorageError):
            self.connect(url)
        database = sqlite3.connect(file)
        tables = database.execute("SELECT name FROM sqlite_master").fetchall()
        database.close()
        assert tables == [("customers",)]

    def test_somebody_else_s_database_with_a_version(self, url: str, tmp_path: Path) -> None:
        """A database of another program is refused also when it carries a version like ours."""
        file = tmp_path / "jobs.db"
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE customers (name TEXT)")
        database.execute("PRAGMA user_version = 1")
        database.commit()
        database.close()
        with pytest.raises(StorageError):
            self.connect(url)

    def test_a_newer_file(self, url: str, tmp_path: Path) -> None:
        """A file of a later version is refused and its data kept."""

        async def write() -> None:
            async with Counting().jobs.connect(url) as client:
                await start(client)

        play(write)
        database = sqlite3.connect(tmp_path / "jobs.db")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version = 1000000")
        database.close()
        with pytest.raises(StorageError, match="newer"):
            self.connect(url)
        database = sqlite3.connect(tmp_path / "jobs.db")
        database.execute(f"PRAGMA user_version = {version}")
        database.close()

        async def read() -> None:
            async with Counting().jobs.connect(url) as client:
                assert (await status(client)).run_count == 1

        play(read)

    def test_a_directory(self, tmp_path: Path) -> None:
        """A path that cannot be a file is a clear error."""
        with pytest.raises(StorageError):
            self.connect(f"sqlite:///{tmp_path}")

    @pytest.mark.parametrize("wrong", ["redis://localhost", "jobs.db", "", "sqlite:"])
    def test_an_address_that_is_none(self, wrong: str) -> None:
        """An address of no known storage is refused."""
        with pytest.raises(REFUSED):
            self.connect(wrong)


CHILD = """
import asyncio, os, signal, sys
from durable_effect import Effect
from durable_effect_jobs import Continuous, Debounce, Task, create_durable_jobs

def die(*_):
    return Effect.sync(lambda: os.kill(os.getpid(), signal.SIGKILL))

def run(ctx):
    if ctx.id == "deadly":
        print(ctx.run_key, flush=True)
        return ctx.set_state(1000).flat_map(die)
    return ctx.update_state(lambda value: value + 1)

jobs = create_durable_jobs({
    "counter": Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=run),
    "batch": Debounce.make(event_schema=str, flush_after="1 hour", execute=die),
    "order": Task.make(
        state_schema=str,
        event_schema=str,
        on_event=lambda event, ctx: ctx.set_state(event).flat_map(lambda _: ctx.schedule("1 hour")),
        execute=die,
    ),
})

async def main():
    async with jobs.connect(sys.argv[1]) as client:
"""


class TestKilled:
    """A process that is killed loses nothing that it had acknowledged."""

    @staticmethod
    def killed(url: str, *calls: str) -> str:
        """Makes the calls in a process that is killed at their end at the latest; what it had printed."""
        body = "".join(f"        await {call}\n" for call in calls)
        program = f"{CHILD}{body}        os.kill(os.getpid(), signal.SIGKILL)\n\nasyncio.run(main())\n"
        child = subprocess.run(
            [sys.executable, "-c", program, url], capture_output=True, text=True, check=False, timeout=120
        )
        assert child.returncode == -signal.SIGKILL, child.stderr
        return child.stdout.strip()

    @staticmethod
    def jobs(runs: list[Run], ran: asyncio.Event) -> DurableJobs:
        """The same jobs in this process, with handlers that survive."""

        @Effect.gen
        def run(ctx: ContinuousContext[int]) -> Do[None]:
            runs.append(Run(ctx.id, ctx.run_count, ctx.scheduled_for, ctx.missed_count, ctx.run_key))
            yield from ctx.update_state(lambda value: value + 1)
            ran.set()

        return create_durable_jobs(
            {
                "counter": Continuous.make(
                    state_schema=int, schedule=Continuous.every("1 hour"), execute=run
                ),
                "batch": Debounce.make(
                    event_schema=str, flush_after="1 hour", execute=lambda ctx: Effect.void
                ),
                "order": Task.make(
                    state_schema=str,
                    event_schema=str,
                    on_event=lambda event, ctx: Effect.void,
                    execute=lambda ctx: Effect.void,
                ),
            }
        )

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_what_was_acknowledged_is_there(self, url: str) -> None:
        """Everything whose call was answered before the kill is found by the next process."""
        self.killed(
            url,
            'client.continuous("counter").start(id="u1", input=5)',
            'client.continuous("counter").trigger("u1")',
            'client.debounce("batch").add(id="d1", event="first")',
            'client.debounce("batch").add(id="d1", event="second")',
            'client.task("order").send(id="t1", event="placed")',
        )

        async def scene() -> None:
            async with self.jobs([], asyncio.Event()).connect(url) as client:
                assert (await status(client)).run_count == 2
                assert (await client.continuous("counter").get_state("u1")).state == 7
                assert (await client.debounce("batch").status("d1")).event_count == 2
                assert (await client.debounce("batch").get_state("d1")).state == "second"
                assert (await client.task("order").status("t1")).status == "active"
                assert (await client.task("order").get_state("t1")).state == "placed"

        play(scene)

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_a_run_that_killed_its_process_runs_again(self, url: str) -> None:
        """A crash in user code is a late alarm: the same run, counted once, on the state before it."""
        run_key = self.killed(url, 'client.continuous("counter").start(id="deadly", input=5)')

        async def scene() -> None:
            runs: list[Run] = []
            ran = asyncio.Event()
            async with self.jobs(runs, ran).connect(url):
                await ran.wait()
            async with self.jobs(runs, ran).connect(url, alarms=False) as client:
                assert (await client.continuous("counter").get_state("deadly")).state == 6
                answer = await status(client, "deadly")
                assert answer.run_count == 1
                assert answer.next_run_at == runs[0].scheduled_for + timedelta(hours=1)
            (run,) = runs
            assert (run.run_count, run.missed_count, run.run_key) == (1, 0, run_key)

        play(scene)

    @pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
    def test_a_flush_that_killed_its_process_keeps_its_batch(self, url: str) -> None:
        """A batch whose flush took the process down with it is flushed by the next one."""
        self.killed(
            url,
            'client.debounce("batch").add(id="d1", event="first")',
            'client.debounce("batch").flush("d1")',
        )

        async def scene() -> None:
            flushed = asyncio.Event()
            seen: list[str] = []

            @Effect.gen
            def flush(ctx: DebounceExecuteContext[str]) -> Do[None]:
                seen.append((yield from ctx.state))
                flushed.set()

            jobs = create_durable_jobs(
                {"batch": Debounce.make(event_schema=str, flush_after="1 hour", execute=flush)}
            )
            async with jobs.connect(url):
                await flushed.wait()
            assert seen == ["first"]

        play(scene)
