"""Telemetry: which facts each step reports, in which order, and what every fact says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest

from durable_effect import Backoff, Do, Effect, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    Retry,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.errors import DuplicateEventError, ExecutionError, ValidationError
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TWICE = Retry(max_attempts=2, delay=Backoff.fixed("10 seconds"), jitter=False)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@attrs.frozen
class Count:
    value: int


@attrs.frozen
class Word:
    text: str


@attrs.frozen
class Down(TypedError):
    service: str


OpenKit = Callable[..., JobsTestKit]


@pytest.fixture
def open_kit() -> Iterator[OpenKit]:
    """Opens a kit of one job at noon; other arguments go to `create_durable_jobs`."""
    with ExitStack() as stack:

        def open_one(name: str, job: Any, **options: Any) -> JobsTestKit:
            return stack.enter_context(JobsTestKit(create_durable_jobs({name: job}, **options), now=NOON))

        yield open_one


@Effect.gen
def count_up(ctx: ContinuousContext[Count]) -> Do[None]:
    yield from Effect.sleep("250 ms")
    yield from ctx.update_state(lambda count: Count(count.value + 1))


def down(ctx: Any) -> Effect[None, Down]:
    return Effect.fail(Down("upstream"))


def broken(ctx: Any) -> Effect[None]:
    raise ZeroDivisionError("a bug")


def counter(execute: Any = count_up, **options: Any) -> Any:
    return Continuous.make(
        **{
            "state_schema": Count,
            "schedule": Continuous.every("30 minutes"),
            "execute": execute,
            **options,
        }
    )


def start(kit: JobsTestKit, value: int = 0, key: str = "c1") -> Any:
    return kit.run(kit.client.continuous("counter").start(id=key, input=Count(value)))


def types(kit: JobsTestKit) -> list[str]:
    return [event.type for event in kit.events]


def only(kit: JobsTestKit, type_: str) -> Any:
    (event,) = [event for event in kit.events if event.type == type_]
    return event


# -- every event -------------------------------------------------------------------------------------


def test_an_event_says_what_it_is_about(open_kit: OpenKit) -> None:
    """Every event names its instance by parts and as a whole."""
    kit = open_kit("counter", counter())
    start(kit, key="user:1")

    started = only(kit, "job.started")

    assert started.instance_id == "continuous:counter:user:1"
    assert (started.kind, started.job, started.id) == ("continuous", "counter", "user:1")


def test_an_event_has_the_time_of_its_step(open_kit: OpenKit) -> None:
    """The timestamp is an aware UTC datetime of the engine's clock."""
    kit = open_kit("counter", counter(start_immediately=False))
    kit.advance("1 minute")
    start(kit)

    timestamp = only(kit, "job.started").timestamp

    assert timestamp == after(60)
    assert timestamp.utcoffset() == timedelta(0)


def test_events_have_ids_of_their_own(open_kit: OpenKit) -> None:
    """The id of an event is a UUID of version 7 that no other event has."""
    kit = open_kit("counter", counter())
    start(kit)
    kit.advance("3 hours")

    ids = [UUID(str(event.event_id)) for event in kit.events]

    assert len(ids) == len(set(ids)) == 8
    assert {event_id.version for event_id in ids} == {7}


def test_events_are_in_the_order_of_time(open_kit: OpenKit) -> None:
    """Events come in the order in which their steps were committed."""
    kit = open_kit("counter", counter())
    start(kit, key="c1")
    kit.advance("10 minutes")
    start(kit, key="c2")
    kit.advance("1 hour")

    times = [event.timestamp for event in kit.events]

    assert times == sorted(times)
    assert [event.id for event in kit.events if event.type == "job.executed"] == [
        "c1",
        "c2",
        "c1",
        "c2",
        "c1",
        "c2",
    ]


def test_an_event_cannot_be_changed(open_kit: OpenKit) -> None:
    """Events are frozen values."""
    kit = open_kit("counter", counter())
    start(kit)

    with pytest.raises(AttributeError):
        kit.events[0].id = "other"


def test_events_so_far_survive_a_restart(open_kit: OpenKit) -> None:
    """A restart neither loses nor repeats an event, and none gets another id."""
    kit = open_kit("counter", counter())
    start(kit)
    before = [event.event_id for event in kit.events]

    kit.restart()
    assert [event.event_id for event in kit.events] == before
    kit.advance("30 minutes")

    assert [event.event_id for event in kit.events][:-1] == before


def test_reading_reports_nothing(open_kit: OpenKit) -> None:
    """Status and state are no events."""
    kit = open_kit("counter", counter())
    start(kit)
    before = len(kit.events)

    kit.run(kit.client.continuous("counter").status("c1"))
    kit.run(kit.client.continuous("counter").get_state("c1"))
    kit.run(kit.client.continuous("counter").status("nobody"))

    assert len(kit.events) == before


# -- continuous --------------------------------------------------------------------------------------


def test_a_start_reports_start_and_first_run(open_kit: OpenKit) -> None:
    """A job that starts immediately reports both, in this order."""
    kit = open_kit("counter", counter())
    start(kit)

    assert types(kit) == ["job.started", "job.executed"]


def test_a_start_that_waits_reports_only_itself(open_kit: OpenKit) -> None:
    """Without an immediate run there is nothing to report yet but the start."""
    kit = open_kit("counter", counter(start_immediately=False))
    start(kit)

    assert types(kit) == ["job.started"]


def test_a_start_of_an_existing_id_reports_nothing(open_kit: OpenKit) -> None:
    """A second start is no event."""
    kit = open_kit("counter", counter())
    start(kit)
    start(kit)

    assert types(kit) == ["job.started", "job.executed"]


def test_a_run_reports_its_number_and_duration(open_kit: OpenKit) -> None:
    """Every run says how many there were, how long it took and which attempt it was."""
    kit = open_kit("counter", counter())
    start(kit)
    kit.advance("30 minutes")
    kit.advance("1 second")

    runs = [event for event in kit.events if event.type == "job.executed"]

    assert [(run.run_count, run.duration_ms, run.attempt) for run in runs] == [(1, 250, 1), (2, 250, 1)]


def test_state_and_input_are_left_out(open_kit: OpenKit) -> None:
    """They hold tokens; unless asked for they are absent."""
    kit = open_kit("counter", counter())
    start(kit)

    assert only(kit, "job.started").input is None
    assert only(kit, "job.executed").pre_execution_state is None


def test_a_tracker_alone_does_not_include_state(open_kit: OpenKit) -> None:
    """A tracker reports without state and input unless it says otherwise."""
    tracker = Tracker(endpoint="https://events.example.com/ingest", env="test", service_key="tests")
    kit = open_kit("counter", counter(), tracker=tracker)
    start(kit)

    assert only(kit, "job.started").input is None
    assert only(kit, "job.executed").pre_execution_state is None


@pytest.mark.parametrize(
    "options",
    [{"endpoint": "https://events.example.com/ingest", "env": "test", "service_key": "tests"}, {}],
    ids=["with an endpoint", "without"],
)
def test_a_tracker_may_include_state(open_kit: OpenKit, options: dict[str, str]) -> None:
    """With `include_state` the events show the encoded input, and the state before each run."""
    kit = open_kit("counter", counter(), tracker=Tracker(**options, include_state=True))
    start(kit, value=5)
    kit.advance("31 minutes")

    assert only(kit, "job.started").input == {"value": 5}
    runs = [event for event in kit.events if event.type == "job.executed"]
    assert [run.pre_execution_state for run in runs] == [{"value": 5}, {"value": 6}]


def test_a_trigger_reports_a_run(open_kit: OpenKit) -> None:
    """A run by hand is a run like any other."""
    kit = open_kit("counter", counter(start_immediately=False))
    start(kit)
    kit.run(kit.client.continuous("counter").trigger("c1"))

    assert types(kit) == ["job.started", "job.executed"]
    assert only(kit, "job.executed").run_count == 1


def test_a_failed_run_reports_its_error(open_kit: OpenKit) -> None:
    """A typed failure on a tick is reported with its type and its message."""
    kit = open_kit("counter", counter(down, start_immediately=False))
    start(kit)
    kit.advance("30 minutes")

    failed = only(kit, "job.failed")

    assert types(kit) == ["job.started", "job.failed"]
    assert failed.error.type.rpartition(".")[2] == "Down"
    assert "upstream" in failed.error.message
    assert (failed.run_count, failed.attempt, failed.will_retry) == (1, 1, False)
    assert failed.timestamp == after(1800)


def test_a_raised_exception_is_reported_with_its_stack(open_kit: OpenKit) -> None:
    """A defect's event has what is needed to find it."""
    kit = open_kit("counter", counter(broken, start_immediately=False))
    start(kit)
    kit.advance("30 minutes")

    error = only(kit, "job.failed").error

    assert error.type.rpartition(".")[2] == "ZeroDivisionError"
    assert error.message == "a bug"
    assert "in broken" in error.stack


def test_the_events_of_a_failing_call_are_reported(open_kit: OpenKit) -> None:
    """The caller got an error; what happened is reported all the same."""
    kit = open_kit("counter", counter(down))

    with pytest.raises(ExecutionError):
        start(kit)

    assert types(kit) == ["job.started", "job.failed"]


def test_a_retry_reports_every_attempt(open_kit: OpenKit) -> None:
    """Failed attempts say that there will be another; the good one says which it was."""
    attempts: list[int] = []

    def flaky(ctx: ContinuousContext[Count]) -> Effect[None, Down]:
        attempts.append(ctx.attempt)
        return Effect.fail(Down("upstream")) if len(attempts) < 3 else Effect.void

    retry = Retry(max_attempts=5, delay=Backoff.fixed("10 seconds"), jitter=False)
    kit = open_kit("counter", counter(flaky, retry=retry))
    start(kit)
    kit.advance("1 minute")

    assert types(kit) == ["job.started", "job.failed", "job.failed", "job.executed"]
    failures = [event for event in kit.events if event.type == "job.failed"]
    assert [(event.attempt, event.will_retry, event.run_count) for event in failures] == [
        (1, True, 1),
        (2, True, 1),
    ]
    executed = only(kit, "job.executed")
    assert (executed.attempt, executed.run_count) == (3, 1)


def test_exhausted_retries_are_reported_and_end_the_instance(open_kit: OpenKit) -> None:
    """The last failure says that there is no other attempt, then come the exhaustion and the end."""
    kit = open_kit("counter", counter(down, retry=TWICE))
    start(kit)
    kit.advance("1 minute")

    assert types(kit) == [
        "job.started",
        "job.failed",
        "job.failed",
        "job.retryExhausted",
        "job.terminated",
    ]
    assert [event.will_retry for event in kit.events[1:3]] == [True, False]
    exhausted = only(kit, "job.retryExhausted")
    assert (exhausted.attempts, exhausted.reason) == (2, "max_attempts")
    assert exhausted.timestamp == after(10)


def test_retries_that_ran_out_of_time_say_so(open_kit: OpenKit) -> None:
    """An exhaustion by `max_duration` has that reason."""
    retry = Retry(max_attempts=9, delay=Backoff.fixed("10 seconds"), jitter=False, max_duration="15 seconds")
    kit = open_kit("counter", counter(down, retry=retry))
    start(kit)
    kit.advance("1 hour")

    exhausted = only(kit, "job.retryExhausted")
    assert (exhausted.attempts, exhausted.reason) == (2, "max_duration")


def test_a_stopped_instance_is_exhausted_but_not_terminated(open_kit: OpenKit) -> None:
    """With `on_exhausted="stop"` the record stays, so nothing ended."""
    retry = Retry(max_attempts=1, on_exhausted="stop")
    kit = open_kit("counter", counter(down, retry=retry, start_immediately=False))
    start(kit)
    kit.advance("30 minutes")

    assert types(kit) == ["job.started", "job.failed", "job.retryExhausted"]


def test_a_termination_by_the_client_is_reported(open_kit: OpenKit) -> None:
    """The event has the caller's reason and how many runs there were."""
    kit = open_kit("counter", counter())
    start(kit)
    kit.advance("31 minutes")
    kit.run(kit.client.continuous("counter").terminate("c1", reason="user left"))

    terminated = only(kit, "job.terminated")

    assert types(kit)[-1] == "job.terminated"
    assert (terminated.reason, terminated.run_count) == ("user left", 2)


def test_a_termination_without_a_reason_has_none(open_kit: OpenKit) -> None:
    """An absent reason stays absent."""
    kit = open_kit("counter", counter(start_immediately=False))
    start(kit)
    kit.run(kit.client.continuous("counter").terminate("c1"))

    terminated = only(kit, "job.terminated")
    assert (terminated.reason, terminated.run_count) == (None, 0)


def test_a_termination_of_nothing_is_not_reported(open_kit: OpenKit) -> None:
    """There was no instance, so none ended."""
    kit = open_kit("counter", counter())
    kit.run(kit.client.continuous("counter").terminate("nobody"))

    assert kit.events == []


def test_a_termination_by_the_handler_is_reported(open_kit: OpenKit) -> None:
    """The event has the handler's reason and is the instance's last."""
    kit = open_kit("counter", counter(lambda ctx: ctx.terminate(reason="too many failures")))
    start(kit)

    assert types(kit)[0] == "job.started"
    assert types(kit)[-1] == "job.terminated"
    assert only(kit, "job.terminated").reason == "too many failures"
    assert "job.failed" not in types(kit)


def test_an_id_that_starts_again_reports_a_start_again(open_kit: OpenKit) -> None:
    """A new life of an id is a new start."""
    kit = open_kit("counter", counter(start_immediately=False))
    start(kit)
    kit.run(kit.client.continuous("counter").terminate("c1"))
    start(kit)

    assert types(kit) == ["job.started", "job.terminated", "job.started"]


def test_refused_input_reports_nothing(open_kit: OpenKit) -> None:
    """What never began is no event."""
    kit = open_kit("counter", counter())

    with pytest.raises(ValidationError):
        kit.run(kit.client.continuous("counter").start(id="c1", input={"value": "one"}))

    assert kit.events == []


# -- debounce ----------------------------------------------------------------------------------------


@Effect.gen
def deliver(ctx: DebounceExecuteContext[Word]) -> Do[None]:
    yield from Effect.sleep("40 ms")


def batcher(execute: Any = deliver, **options: Any) -> Any:
    return Debounce.make(**{"event_schema": Word, "flush_after": "5 seconds", "execute": execute, **options})


def add(kit: JobsTestKit, text: str, **more: Any) -> Any:
    return kit.run(kit.client.debounce("batcher").add(id="c1", event=Word(text), **more))


def debounce_types(kit: JobsTestKit) -> list[str]:
    return [type_ for type_ in types(kit) if type_.startswith("debounce.")]


def test_a_window_reports_when_it_will_be_flushed(open_kit: OpenKit) -> None:
    """The first event of a batch is `debounce.started`, with the end of the window."""
    kit = open_kit("batcher", batcher())
    kit.advance("1 second")
    add(kit, "a")

    started = only(kit, "debounce.started")

    assert types(kit) == ["debounce.started"]
    assert started.flush_at == after(6)
    assert started.timestamp == after(1)
    assert started.instance_id == "debounce:batcher:c1"
    assert (started.kind, started.job, started.id) == ("debounce", "batcher", "c1")


def test_a_later_event_of_a_window_is_no_event(open_kit: OpenKit) -> None:
    """Only the first add of a batch is reported."""
    kit = open_kit("batcher", batcher())
    for text in "abc":
        add(kit, text)

    assert types(kit) == ["debounce.started"]


def test_a_flush_reports_count_reason_and_duration(open_kit: OpenKit) -> None:
    """A window that ended by itself has the reason `timeout`."""
    kit = open_kit("batcher", batcher())
    add(kit, "a")
    add(kit, "b")
    kit.advance("6 seconds")

    flushed = only(kit, "debounce.flushed")

    assert (flushed.event_count, flushed.reason) == (2, "timeout")
    assert flushed.duration_ms >= 40


def test_a_full_batch_has_the_reason_max_events(open_kit: OpenKit) -> None:
    """The event that filled the batch is the reason of its flush."""
    kit = open_kit("batcher", batcher(max_events=2))
    add(kit, "a")
    add(kit, "b")

    flushed = only(kit, "debounce.flushed")

    assert debounce_types(kit) == ["debounce.started", "debounce.flushed"]
    assert (flushed.event_count, flushed.reason) == (2, "maxEvents")


def test_a_flush_by_hand_has_the_reason_manual(open_kit: OpenKit) -> None:
    """A flush that was asked for says so."""
    kit = open_kit("batcher", batcher())
    add(kit, "a")
    kit.run(kit.client.debounce("batcher").flush("c1"))

    assert only(kit, "debounce.flushed").reason == "manual"


def test_a_batch_neither_starts_nor_terminates_a_job(open_kit: OpenKit) -> None:
    """A batch's life is `debounce.started` to `debounce.flushed`; a flush is not a termination."""
    kit = open_kit("batcher", batcher())
    add(kit, "a")
    kit.advance("6 seconds")

    assert "job.started" not in types(kit)
    assert "job.terminated" not in types(kit)
    assert debounce_types(kit) == ["debounce.started", "debounce.flushed"]


def test_every_batch_is_reported(open_kit: OpenKit) -> None:
    """The next batch of an id starts and flushes again."""
    kit = open_kit("batcher", batcher())
    for text in "ab":
        add(kit, text)
        kit.advance("6 seconds")

    assert debounce_types(kit) == ["debounce.started", "debounce.flushed"] * 2


def test_a_failed_flush_is_a_failed_job(open_kit: OpenKit) -> None:
    """A flush that failed is `job.failed`, and no batch was flushed."""
    kit = open_kit("batcher", batcher(down))
    add(kit, "a")
    kit.advance("5 seconds")

    failed = only(kit, "job.failed")

    assert types(kit) == ["debounce.started", "job.failed"]
    assert failed.error.type.rpartition(".")[2] == "Down"
    assert failed.attempt == 1


def test_an_exhausted_batch_is_reported_like_any_job(open_kit: OpenKit) -> None:
    """A batch that was given up has failed, is exhausted and terminated."""
    kit = open_kit("batcher", batcher(down, retry=TWICE))
    add(kit, "a")
    kit.advance("1 minute")

    assert types(kit) == [
        "debounce.started",
        "job.failed",
        "job.failed",
        "job.retryExhausted",
        "job.terminated",
    ]
    assert [event.will_retry for event in kit.events[1:3]] == [True, False]


def test_a_cleared_batch_is_terminated(open_kit: OpenKit) -> None:
    """`clear` is an end that is not a flush."""
    kit = open_kit("batcher", batcher())
    add(kit, "a")
    kit.run(kit.client.debounce("batcher").clear("c1"))

    assert types(kit) == ["debounce.started", "job.terminated"]
    assert only(kit, "job.terminated").reason == "cleared"


def test_a_repeated_event_is_not_reported(open_kit: OpenKit) -> None:
    """A duplicate changed nothing, so there is nothing to report."""
    kit = open_kit("batcher", batcher())
    add(kit, "a", event_id="e1")

    with pytest.raises(DuplicateEventError):
        add(kit, "a", event_id="e1")

    assert types(kit) == ["debounce.started"]


def test_a_flush_of_nothing_is_not_reported(open_kit: OpenKit) -> None:
    """Where there was no batch there was no flush."""
    kit = open_kit("batcher", batcher())
    kit.run(kit.client.debounce("batcher").flush("nobody"))

    assert kit.events == []


def test_a_reducer_state_is_not_in_the_events(open_kit: OpenKit) -> None:
    """Nothing of an event's content is in what is reported by default."""

    def keep(ctx: DebounceEventContext[Word, Word]) -> Effect[Word]:
        return Effect.succeed(ctx.event)

    kit = open_kit("batcher", batcher(on_event=keep))
    add(kit, "a-secret")
    kit.advance("6 seconds")

    assert len(kit.events) >= 2
    assert "a-secret" not in repr(kit.events)


# -- task --------------------------------------------------------------------------------------------


@Effect.gen
def obey(event: Word, ctx: TaskEventContext[Word]) -> Do[None, Down]:
    """Keeps the word; `+…` schedules, `down` fails."""
    yield from ctx.set_state(event)
    if event.text.startswith("+"):
        yield from ctx.schedule(event.text[1:])
    if event.text == "down":
        yield from Effect.fail(Down("handler"))


def worker(execute: Any = lambda ctx: Effect.void, **options: Any) -> Any:
    return Task.make(
        **{"state_schema": Word, "event_schema": Word, "on_event": obey, "execute": execute, **options}
    )


def send(kit: JobsTestKit, text: str) -> Any:
    return kit.run(kit.client.task("worker").send(id="t1", event=Word(text)))


def test_the_first_event_of_a_task_starts_it(open_kit: OpenKit) -> None:
    """The creating event is `job.started`; later ones are not reported."""
    kit = open_kit("worker", worker())
    send(kit, "a")
    send(kit, "b")

    started = only(kit, "job.started")

    assert types(kit) == ["job.started"]
    assert (started.kind, started.job, started.id) == ("task", "worker", "t1")


def test_a_schedule_is_reported_with_its_time_and_cause(open_kit: OpenKit) -> None:
    """A task that schedules in `on_event` reports when it will run, and that an event was the cause."""
    kit = open_kit("worker", worker())
    send(kit, "+5 minutes")

    scheduled = only(kit, "task.scheduled")

    assert types(kit) == ["job.started", "task.scheduled"]
    assert (scheduled.scheduled_at, scheduled.trigger) == (after(300), "event")
    assert scheduled.timestamp == NOON


def test_a_schedule_of_a_run_has_the_trigger_execute(open_kit: OpenKit) -> None:
    """A run that schedules the next one reports it."""

    @Effect.gen
    def once_more(ctx: TaskExecuteContext[Word]) -> Do[None]:
        if (yield from ctx.execute_count) == 1:
            yield from ctx.schedule("1 minute")

    kit = open_kit("worker", worker(once_more))
    send(kit, "+5 minutes")
    kit.advance("5 minutes")

    scheduled = [event for event in kit.events if event.type == "task.scheduled"]
    assert [(event.scheduled_at, event.trigger) for event in scheduled] == [
        (after(300), "event"),
        (after(360), "execute"),
    ]


def test_a_schedule_of_on_idle_has_the_trigger_idle(open_kit: OpenKit) -> None:
    """An idle task that schedules reports it."""
    kit = open_kit("worker", worker(on_idle=lambda ctx: ctx.schedule("1 hour")))
    send(kit, "a")

    scheduled = only(kit, "task.scheduled")
    assert (scheduled.scheduled_at, scheduled.trigger) == (after(3600), "idle")


def test_a_schedule_of_on_error_has_the_trigger_error(open_kit: OpenKit) -> None:
    """An error handler that schedules reports it."""
    kit = open_kit("worker", worker(on_error=lambda error, ctx: ctx.schedule("30 seconds")))
    send(kit, "down")

    scheduled = only(kit, "task.scheduled")
    assert (scheduled.scheduled_at, scheduled.trigger) == (after(30), "error")


def test_only_the_schedule_that_holds_is_reported(open_kit: OpenKit) -> None:
    """A handler that changes its mind reports its last word; one that cancels reports no schedule."""

    @Effect.gen
    def waver(event: Word, ctx: TaskEventContext[Word]) -> Do[None]:
        yield from ctx.schedule("1 minute")
        yield from ctx.cancel_schedule()
        if event.text == "again":
            yield from ctx.schedule("2 minutes")

    kit = open_kit("worker", worker(on_event=waver))
    send(kit, "cancel")
    assert "task.scheduled" not in types(kit)

    send(kit, "again")
    assert only(kit, "task.scheduled").scheduled_at == after(120)


def test_a_run_of_a_task_is_reported(open_kit: OpenKit) -> None:
    """A run says how long it took and which attempt it was."""
    kit = open_kit("worker", worker(lambda ctx: Effect.sleep("250 ms")))
    send(kit, "+5 minutes")
    kit.advance("6 minutes")

    executed = only(kit, "job.executed")

    assert types(kit) == ["job.started", "task.scheduled", "job.executed"]
    assert (executed.duration_ms, executed.attempt, executed.run_count) == (250, 1, 1)


def test_a_tracker_may_include_the_state_of_a_task(open_kit: OpenKit) -> None:
    """The state before a run is there in encoded form, or absent where there was none."""
    kit = open_kit("worker", worker(), tracker=Tracker(include_state=True))
    send(kit, "a")
    kit.run(kit.client.task("worker").trigger("t1"))

    assert only(kit, "job.executed").pre_execution_state == {"text": "a"}


def test_a_task_without_a_state_has_none_to_include(open_kit: OpenKit) -> None:
    """A run before the first state reports that there was none."""
    job = worker(on_event=lambda event, ctx: Effect.void)
    kit = open_kit("worker", job, tracker=Tracker(include_state=True))
    send(kit, "a")
    kit.run(kit.client.task("worker").trigger("t1"))

    assert only(kit, "job.executed").pre_execution_state is None


def test_a_failed_run_of_a_task_will_be_retried(open_kit: OpenKit) -> None:
    """An alarm run that fails reports the failure and that another attempt is due."""
    kit = open_kit("worker", worker(down, retry=TWICE))
    send(kit, "+5 minutes")
    kit.advance("5 minutes")

    failed = only(kit, "job.failed")

    assert (failed.attempt, failed.will_retry) == (1, True)
    assert failed.error.type.rpartition(".")[2] == "Down"


def test_a_stopped_task_is_exhausted_but_not_terminated(open_kit: OpenKit) -> None:
    """By default a task that keeps failing stops after seven attempts and is kept."""
    kit = open_kit("worker", worker(down))
    send(kit, "+5 minutes")
    kit.advance("1 day")

    assert types(kit) == ["job.started", "task.scheduled", *["job.failed"] * 7, "job.retryExhausted"]
    assert only(kit, "job.retryExhausted").attempts == 7


def test_a_task_that_ends_is_terminated(open_kit: OpenKit) -> None:
    """An end by the handler and one by the client are reported alike."""
    kit = open_kit("worker", worker(lambda ctx: ctx.terminate(reason="done")))
    send(kit, "a")
    kit.run(kit.client.task("worker").trigger("t1"))
    send(kit, "a")
    kit.run(kit.client.task("worker").terminate("t1", reason="enough"))

    ends = [event.reason for event in kit.events if event.type == "job.terminated"]

    assert ends == ["done", "enough"]


def test_a_failing_first_event_starts_nothing(open_kit: OpenKit) -> None:
    """An instance that was never committed is never reported as started."""
    kit = open_kit("worker", worker())

    with pytest.raises(ExecutionError):
        send(kit, "down")

    assert "job.started" not in types(kit)


def test_a_rejected_schedule_is_not_reported(open_kit: OpenKit) -> None:
    """What a failing handler scheduled was dropped and is not reported."""

    @Effect.gen
    def schedule_and_fail(event: Word, ctx: TaskEventContext[Word]) -> Do[None, Down]:
        yield from ctx.schedule("1 minute")
        yield from Effect.fail(Down("handler"))

    kit = open_kit("worker", worker(on_event=schedule_and_fail))

    with pytest.raises(ExecutionError):
        send(kit, "a")

    assert "task.scheduled" not in types(kit)
