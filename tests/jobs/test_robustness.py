"""Bad days: errors that cannot speak, values that cannot be, handlers without end, callers that give up."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from typing_extensions import Never

from durable_effect import Do, Effect, Fiber, Schema
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    JobsClient,
    Limits,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.continuous import ContinuousJob
from durable_effect_jobs.errors import (
    InvalidStateError,
    SchedulerError,
    ValidationError,
)
from durable_effect_jobs.instance import Instance
from durable_effect_jobs.step import Step, Turn
from durable_effect_jobs.storage.sqlite import SqliteStorage
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE = 20
"""Seconds after which a scene that hangs is given up; none needs more than a fraction of one."""


def hourly(execute: Callable[[ContinuousContext[Any]], Any], schema: Any = int, **options: Any) -> Any:
    """A job that first runs an hour after its start."""
    options = {"schedule": Continuous.every("1 hour"), "start_immediately": False, **options}
    return Continuous.make(state_schema=schema, execute=execute, **options)


def kit_of(job: Any, **options: Any) -> JobsTestKit:
    """A kit of one job, at noon."""
    return JobsTestKit(create_durable_jobs({"job": job}, **options), now=NOON)


def nested(depth: int) -> Any:
    """An empty list in as many lists as it takes."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


class Wordless(Exception):
    """An error that cannot say what it is about."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


# -- errors -------------------------------------------------------------------------------------------


def test_an_error_without_words_is_an_error_like_any_other() -> None:
    """A handler whose exception cannot be turned into text is retried as often as any, and then stopped."""
    runs: list[datetime] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        runs.append(kit.now)
        raise Wordless

    retry = Retry(2, delay="1 minute", jitter=False, on_exhausted="stop")
    with kit_of(hourly(execute, retry=retry)) as kit:
        kit.run(kit.client.continuous("job").start(id="a", input=0))
        kit.advance("90 minutes")
        status = kit.run(kit.client.continuous("job").status("a"))
        assert [at - NOON for at in runs] == [timedelta(minutes=60), timedelta(minutes=61)]
        assert (status.status, status.last_error.type) == ("stopped", "Wordless")
        assert "RuntimeError" in status.last_error.message


@pytest.mark.parametrize("reason", [object(), 5, "\ud800", "x" * 100_000, Wordless()])
def test_a_reason_is_made_to_fit(reason: Any, tmp_path: Path) -> None:
    """Whatever a handler gives as its reason, the instance ends and the event can be stored and read."""
    job = hourly(lambda ctx: ctx.terminate(reason), start_immediately=True)
    jobs = create_durable_jobs({"job": job}, tracker=Tracker())

    @Effect.gen
    def scene() -> Do[Any, Any]:
        storage = yield from SqliteStorage.open(tmp_path / "jobs.db")
        client: JobsClient = yield from jobs.open(storage)
        started = yield from client.continuous("job").start(id="a", input=0)
        return started.status, (yield from storage.pending_events(10))

    status, events = asyncio.run(_run(Effect.scoped(scene())))
    assert status == "terminated"
    assert [event.type for event in events] == ["job.started", "job.terminated"]
    assert len(events[1].reason) <= 4096


async def _run(effect: Effect[Any, Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await effect


def test_a_delay_that_raises_is_retried_after_the_default_delay() -> None:
    """A bug in the retry's own delay neither repeats the run for ever nor ends it early."""
    runs: list[datetime] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        runs.append(kit.now)
        raise Wordless

    def delay(attempt: int) -> timedelta:
        raise ZeroDivisionError

    with kit_of(hourly(execute, retry=Retry(3, delay=delay, on_exhausted="stop"))) as kit:
        kit.run(kit.client.continuous("job").start(id="a", input=0))
        kit.advance("90 minutes")
        assert [at - NOON for at in runs] == [timedelta(hours=1, seconds=s) for s in (0, 1, 3)]
        assert kit.run(kit.client.continuous("job").status("a")).status == "stopped"


def test_the_longest_max_duration_is_no_limit() -> None:
    """A `max_duration` that leads beyond the last year does not disturb the attempts."""
    runs: list[datetime] = []

    def execute(ctx: ContinuousContext[int]) -> Effect[None]:
        runs.append(kit.now)
        raise Wordless

    with kit_of(hourly(execute, retry=Retry(2, max_duration=timedelta.max, on_exhausted="stop"))) as kit:
        kit.run(kit.client.continuous("job").start(id="a", input=0))
        kit.advance("90 minutes")
        assert len(runs) == 2


@pytest.mark.parametrize(
    "define",
    [
        lambda span: Limits(poll_interval=span),
        lambda span: Limits(event_id_window=span),
        lambda span: Limits(dead_letter_retention=span),
        lambda span: Limits(drain_timeout=span),
        lambda span: Debounce.make(event_schema=int, flush_after=span, execute=lambda ctx: Effect.void),
        lambda span: Debounce.make(
            event_schema=int,
            flush_after="1 second",
            mode="trailing",
            max_wait=span,
            execute=lambda ctx: Effect.void,
        ),
    ],
)
def test_a_span_beyond_all_calendars_is_refused_where_it_is_written(define: Callable[[Any], Any]) -> None:
    """A span that cannot be added to the time of day fails at definition, not on the day it is needed."""
    define("36525 days")
    with pytest.raises(ValueError, match="100 years"):
        define(timedelta.max)


# -- states and inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [65, 1_000, 100_000])
def test_a_state_too_deep_to_be_read_again_is_refused(depth: int) -> None:
    """What could be written but not read is not accepted, and nothing is left behind."""
    job = hourly(lambda ctx: Effect.void, Schema.unknown)
    with kit_of(job) as kit:
        with pytest.raises(ValidationError, match="nested"):
            kit.run(kit.client.continuous("job").start(id="a", input=nested(depth)))
        assert kit.run(kit.client.continuous("job").status("a")).status == "not_found"


def test_the_deepest_state_can_be_read_and_told_of(tmp_path: Path) -> None:
    """A state that is accepted can be read again, and so can the event that shows it."""
    deepest = nested(64)
    jobs = create_durable_jobs(
        {"job": hourly(lambda ctx: Effect.void, Schema.unknown)}, tracker=Tracker(include_state=True)
    )

    @Effect.gen
    def scene() -> Do[Any, Any]:
        storage = yield from SqliteStorage.open(tmp_path / "jobs.db")
        client: JobsClient = yield from jobs.open(storage)
        yield from client.continuous("job").start(id="a", input=deepest)
        state = yield from client.continuous("job").get_state("a")
        return state.state, (yield from storage.pending_events(10))[0].input

    assert asyncio.run(_run(Effect.scoped(scene()))) == (deepest, deepest)


@pytest.mark.parametrize("initial", [[], {}])
def test_batches_do_not_share_their_initial_state(initial: Any) -> None:
    """A reducer that changes its state in place changes its own batch and no other."""

    def collect(ctx: DebounceEventContext[str, Any]) -> Effect[Any]:
        if isinstance(ctx.state, list):
            ctx.state.append(ctx.event)
        else:
            ctx.state[ctx.event] = 1
        return Effect.succeed(ctx.state)

    batch = Debounce.make(
        event_schema=str,
        state_schema=list[str] if initial == [] else dict[str, int],
        initial_state=initial,
        flush_after="1 minute",
        on_event=collect,
        execute=lambda ctx: Effect.void,
    )
    with kit_of(batch) as kit:
        for name in ("a", "b"):
            kit.run(kit.client.debounce("job").add(id=name, event=name))
        assert list(kit.run(kit.client.debounce("job").get_state("b")).state) == ["b"]


def test_a_factory_that_makes_no_state_is_told_to_its_caller() -> None:
    """An `initial_state` that only sometimes fits fails the add with what does not fit."""
    made = iter(["fits", 1])
    batch = Debounce.make(
        event_schema=str,
        state_schema=str,
        initial_state=lambda: next(made),
        flush_after="1 minute",
        on_event=lambda ctx: Effect.succeed(ctx.state),
        execute=lambda ctx: Effect.void,
    )
    with kit_of(batch) as kit:
        with pytest.raises(ValidationError):
            kit.run(kit.client.debounce("job").add(id="a", event="a"))
        assert kit.run(kit.client.debounce("job").status("a")).status == "not_found"


@pytest.mark.parametrize("spoil", [None, object()])
def test_events_show_the_state_before_the_run(spoil: Any) -> None:
    """A handler that changes the state it was given in place does not change what is told of it."""

    @Effect.gen
    def execute(ctx: ContinuousContext[dict[str, Any]]) -> Do[None]:
        state = yield from ctx.state
        state["spoilt"] = spoil

    job = hourly(execute, dict[str, int])
    with kit_of(job, tracker=Tracker(include_state=True)) as kit:
        kit.run(kit.client.continuous("job").start(id="a", input={"n": 1}))
        kit.advance("1 hour")
        executed = [event for event in kit.events if event.type == "job.executed"]
        assert [event.pre_execution_state for event in executed] == [{"n": 1}]
        assert kit.run(kit.client.continuous("job").get_state("a")).state == {"n": 1}


def test_events_show_the_input_as_it_came() -> None:
    """A handler that changes its event in place does not change what is told of it."""

    def on_event(event: dict[str, Any], ctx: TaskEventContext[int]) -> Effect[None]:
        event["spoilt"] = object()
        return Effect.void

    task = Task.make(
        state_schema=int, event_schema=dict[str, int], on_event=on_event, execute=lambda ctx: Effect.void
    )
    with kit_of(task, tracker=Tracker(include_state=True)) as kit:
        kit.run(kit.client.task("job").send(id="a", event={"n": 1}))
        assert kit.events[0].input == {"n": 1}


# -- handlers ---------------------------------------------------------------------------------------


@Effect.gen
def joined(effect: Effect[Any, Any]) -> Do[Any, Any]:
    """Run in a fiber of its own and wait for it."""
    fiber = yield from effect.fork()
    return (yield from fiber.join())


@pytest.mark.parametrize(
    "within",
    [
        lambda end: end.uninterruptible(),
        lambda end: end.exit().uninterruptible(),
        lambda end: end.timeout("1 second").uninterruptible(),
        lambda end: Effect.all([end, Effect.sleep("1 second")], concurrency="unbounded").uninterruptible(),
        lambda end: Effect.race(end, Effect.sleep("5 seconds")).uninterruptible(),
        lambda end: joined(end),
        lambda end: joined(end).uninterruptible(),
        lambda end: end.fork(),
        lambda end: end.fork_detach(),
        lambda end: Effect.scoped(Effect.acquire_release(end, lambda _: Effect.void)),
        lambda end: Effect.scoped(Effect.acquire_release(joined(end), lambda _: Effect.void)),
        lambda end: Effect.scoped(Effect.acquire_release(Effect.void, lambda _: end)),
        lambda end: end.catch_cause(lambda _: Effect.void),
        lambda end: Effect.void.ensuring(end),
        lambda end: Effect.fail("x").ensuring(end),
    ],
)
def test_terminate_ends_the_instance_wherever_it_is_called(within: Callable[[Any], Effect[Any, Any]]) -> None:
    """In races, finalizers, forks and regions without interruption `terminate` neither hangs nor leaks."""

    @Effect.gen
    def execute(ctx: ContinuousContext[int]) -> Do[None, Any]:
        yield from within(ctx.terminate("enough"))
        yield from Effect.sleep("1 second")
        yield from ctx.set_state(8)

    with kit_of(hourly(execute, start_immediately=True)) as kit:
        before = living_fibers()
        assert kit.run(kit.client.continuous("job").start(id="a", input=0)).status == "terminated"
        assert kit.run(kit.client.continuous("job").status("a")).status == "not_found"
        assert [event.reason for event in kit.events if event.type == "job.terminated"] == ["enough"]
        assert living_fibers() <= before


def living_fibers() -> set[Fiber[Any, Any]]:
    """The fibers that have not ended."""
    gc.collect()
    return {found for found in gc.get_objects() if isinstance(found, Fiber) and found.exit is None}


def test_a_context_is_of_no_use_after_its_handler() -> None:
    """What a kept context would change cannot be written any more, and is refused instead of lost."""
    kept: list[Any] = []

    def execute(ctx: TaskExecuteContext[int]) -> Effect[None]:
        kept.append(ctx)
        return Effect.void

    task = Task.make(
        state_schema=int, event_schema=int, on_event=lambda event, ctx: ctx.set_state(event), execute=execute
    )
    with kit_of(task) as kit:
        kit.run(kit.client.task("job").send(id="a", event=1))
        kit.run(kit.client.task("job").trigger("a"))
        (ctx,) = kept
        for late in (
            ctx.set_state(2),
            ctx.update_state(lambda state: state),
            ctx.schedule("1 hour"),
            ctx.cancel_schedule(),
            ctx.terminate(),
        ):
            with pytest.raises(InvalidStateError, match="has ended"):
                kit.run(late)
        assert kit.run(kit.client.task("job").get_state("a")).state == 1


def test_a_replaced_schedule_stays_replaced_after_a_crash_in_a_trigger() -> None:
    """What was scheduled before a trigger is gone once an event schedules something else."""
    runs: list[timedelta] = []

    @Effect.gen
    def execute(ctx: TaskExecuteContext[int]) -> Do[None]:
        runs.append(kit.now - NOON)
        if len(runs) == 1:
            yield from Effect.sleep("1 second")  # the process dies here
        if len(runs) == 2:
            raise Wordless

    task = Task.make(
        state_schema=int,
        event_schema=str,
        on_event=lambda event, ctx: ctx.schedule(event),
        execute=execute,
        retry=Retry(3, delay="5 minutes", jitter=False),
    )
    with kit_of(task) as kit:
        kit.run(kit.client.task("job").send(id="a", event="1 hour"))
        kit.run(kit.client.task("job").trigger("a").fork_detach())
        kit.restart()
        kit.advance("1 second")
        kit.run(kit.client.task("job").send(id="a", event="10 minutes"))
        kit.advance("3 hours")
        assert runs == [timedelta(0), timedelta(0), timedelta(minutes=10, seconds=1)]


# -- the engine -------------------------------------------------------------------------------------


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scene on an event loop of its own, in a thread, and give it up when it hangs."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(scene())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the scene hangs"
    if failed:
        raise failed[0]


def test_a_handler_that_will_not_end_does_not_keep_the_connection_open() -> None:
    """A run that swallows its cancellation is left behind when the drain timeout is over."""
    released = threading.Event()

    @Effect.gen
    def execute(ctx: ContinuousContext[int]) -> Do[None]:
        begun = asyncio.Event()

        async def stubborn() -> None:
            begun.set()
            while not released.is_set():
                try:
                    await asyncio.to_thread(released.wait)
                except asyncio.CancelledError:
                    continue

        running.set()
        yield from Effect.from_async(stubborn)

    running = threading.Event()
    job = hourly(execute, schedule=Continuous.every("10 ms"))
    jobs = create_durable_jobs({"job": job}, limits=Limits(drain_timeout="50 ms"))

    async def scene() -> None:
        try:
            async with jobs.connect("memory://") as client:
                await client.continuous("job").start(id="a", input=0)
                await asyncio.to_thread(running.wait)
        finally:
            released.set()

    play(scene)


def test_a_client_whose_loop_is_gone_says_that_its_connection_was_closed() -> None:
    """A client that is kept beyond `asyncio.run` fails like any other whose connection was closed."""
    jobs = create_durable_jobs({"job": hourly(lambda ctx: Effect.void)})
    kept: list[JobsClient] = []

    async def first() -> None:
        async with jobs.connect("memory://") as client:
            kept.append(client)

    async def second() -> None:
        with pytest.raises(InvalidStateError, match="was closed"):
            await kept[0].continuous("job").start(id="a", input=0)
        with pytest.raises(InvalidStateError, match="was closed"):
            await kept[0].continuous("job").status("a")

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.parametrize("bad", [[], {}, None, 7, b"a", ("a",)])
def test_an_id_of_any_other_type_is_refused(bad: Any) -> None:
    """Even what cannot be a key of anything is refused as an id that is not valid."""
    with kit_of(hourly(lambda ctx: Effect.void)) as kit:
        client = kit.client.continuous("job")
        calls = client.start(id=bad, input=0), client.trigger(bad), client.terminate(bad), client.status(bad)
        for call in calls:
            with pytest.raises(ValidationError, match="expected text"):
                kit.run(call)


@pytest.mark.parametrize("answer", [None, "tomorrow", NOON.replace(tzinfo=None), NOON])
def test_a_schedule_that_answers_nonsense_is_told_to_the_caller(answer: Any) -> None:
    """Whatever a schedule answers instead of a later instant, `start` fails and nothing is left."""

    class Own:
        def next_after(self, after: datetime) -> datetime:
            return answer

    with kit_of(hourly(lambda ctx: Effect.void, schedule=Own())) as kit:
        with pytest.raises(SchedulerError):
            kit.run(kit.client.continuous("job").start(id="a", input=0))
        assert kit.run(kit.client.continuous("job").status("a")).status == "not_found"


def test_a_call_can_be_called_off_at_any_moment() -> None:
    """Wherever a caller gives up, its instance stays free for the next and nothing is kept of the call."""
    task = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=lambda event, ctx: ctx.update_state(lambda state: state + 1),
        execute=lambda ctx: Effect.void,
    )

    @Effect.gen
    def steps(number: int) -> Do[None]:
        for _ in range(number):
            yield from Effect.suspend(lambda: Effect.void).flat_map(lambda _: Effect.void)

    @Effect.gen
    def given_up(client: Any, number: int) -> Do[None, Any]:
        # A fiber lets others go on after a certain number of steps; each number puts that moment elsewhere.
        fiber = yield from steps(number).and_then(client.send(id="a", event=1)).fork()
        yield from Effect.yield_now()
        yield from fiber.interrupt()

    with kit_of(task) as kit:
        engine = kit.client._engine
        for number in range(990, 1040):
            kit.run(given_up(kit.client.task("job"), number))
            assert (engine._calls, engine._order) == (0, {}), number
        kit.run(kit.client.task("job").send(id="a", event=1))


def test_nothing_is_kept_of_calls_and_runs_that_are_over() -> None:
    """After a thousand instances came and went the engine and its fibers are as at first."""

    @Effect.gen
    def execute(ctx: TaskExecuteContext[int]) -> Do[None, Any]:
        number = yield from ctx.state
        if number is not None and number % 3 == 0:
            raise Wordless
        if number is not None and number % 3 == 1:
            yield from ctx.terminate()

    task = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=lambda event, ctx: ctx.set_state(event).and_then(ctx.schedule("1 second")),
        execute=execute,
        retry=Retry(2, delay="1 second", on_exhausted="terminate"),
        logging="none",
    )
    with kit_of(task) as kit:
        before = living_fibers()
        for number in range(1000):
            kit.run(kit.client.task("job").send(id=f"{number}", event=number))
        kit.advance("1 minute")
        engine = kit.client._engine
        assert (engine._calls, engine._order, engine._running) == (0, {}, {})
        assert len(living_fibers() - before) <= 3  # the alarm loop and its sleep


def test_what_a_handler_schedules_for_now_runs_within_the_call() -> None:
    """On the computer's clock too, "now" has come when the handler is done, without any alarm loop."""
    task = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=lambda event, ctx: ctx.schedule(timedelta(0)),
        execute=lambda ctx: Effect.void,
    )

    async def scene() -> None:
        async with create_durable_jobs({"job": task}).connect("memory://", alarms=False) as client:
            sent = await client.task(task).send(id="a", event=1)
            status = await client.task(task).status("a")
            assert (sent.scheduled_at, status.execute_count) == (None, 1)

    play(scene)


class Buggy(ContinuousJob[int, Any, Any]):
    """A kind of job with a bug beside the handler."""

    def fire(self, before: Instance, turn: Turn) -> Effect[Step, Never, Any]:
        fired.append(turn.now)
        return Effect.die("a bug") if broken else super().fire(before, turn)


fired: list[datetime] = []
broken: list[bool] = []


def test_a_bug_beside_the_handler_does_not_run_in_circles() -> None:
    """An instance that cannot be decided on waits longer and longer, until the bug is mended."""
    job = hourly(lambda ctx: ctx.update_state(lambda number: number + 1))
    buggy = Buggy(**{field.name: getattr(job, field.name) for field in attrs.fields(ContinuousJob)})
    fired.clear()
    broken[:] = [True]
    with kit_of(buggy) as kit:
        kit.run(kit.client.continuous("job").start(id="a", input=0))
        kit.advance("2 hours")
        assert 1 < len(fired) < 20
        status = kit.run(kit.client.continuous("job").status("a"))
        assert (status.run_count, status.last_error.type) == (0, "SchedulerError")
        broken.clear()
        kit.advance("2 hours")
        assert kit.run(kit.client.continuous("job").get_state("a")).state == 3  # the late run, and two ticks


@pytest.mark.parametrize("annotation", ["Do[None", "1 / 0", "nowhere.Thing", "Do[None, 5 + 'a']"])
def test_annotations_that_cannot_be_read_are_no_needs(annotation: str) -> None:
    """What a handler's annotation means is its own business when nobody can tell."""

    def execute(ctx: Any) -> Any:
        return Effect.void

    execute.__annotations__["return"] = annotation
    with kit_of(hourly(execute)) as kit:
        assert kit.run(kit.client.continuous("job").start(id="a", input=0)).created is True


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_a_job_name_is_text_that_can_be_stored(name: str) -> None:
    """Half a character cannot be stored, so a name with one is refused where it is given."""
    with pytest.raises(ValueError, match="job name"):
        create_durable_jobs({name: hourly(lambda ctx: Effect.void)})


def test_a_kit_that_takes_over_gives_out_no_id_twice() -> None:
    """Two kits with the same seed, at the same time and on the same storage have different events."""
    job = hourly(lambda ctx: Effect.void)
    with kit_of(job) as first:
        first.run(first.client.continuous("job").start(id="a", input=0))
    with JobsTestKit(create_durable_jobs({"job": job}), now=NOON, storage=first.storage) as second:
        second.run(second.client.continuous("job").start(id="b", input=0))
        assert len({event.event_id for event in second.events}) == 2
