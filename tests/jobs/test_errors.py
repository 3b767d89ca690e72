"""Errors: every kind of failure that a caller can meet, the fields it has, and what it leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from durable_effect import Do, Effect, Schema, TypedError, catch
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    JobsClient,
    Task,
    TaskExecuteContext,
    create_durable_jobs,
)
from durable_effect_jobs.errors import (
    DuplicateEventError,
    ExecutionError,
    InstanceNotFoundError,
    InvalidStateError,
    JobNotFoundError,
    SchedulerError,
    StorageError,
    ValidationError,
)
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@attrs.frozen
class Count:
    value: int


@attrs.frozen
class Down(TypedError):
    service: str


def stay(ctx: Any) -> Effect[None]:
    return Effect.void


def down(ctx: Any) -> Effect[None, Down]:
    return Effect.fail(Down("upstream"))


def broken(ctx: Any) -> Effect[None]:
    raise ZeroDivisionError("a bug")


def counter(execute: Any = stay, **options: Any) -> Any:
    return Continuous.make(
        **{
            "state_schema": Count,
            "schedule": Continuous.every("1 hour"),
            "execute": execute,
            **options,
        }
    )


def batcher(execute: Any = stay, **options: Any) -> Any:
    return Debounce.make(**{"event_schema": Count, "flush_after": "5 seconds", "execute": execute, **options})


def worker(execute: Any = stay, **options: Any) -> Any:
    return Task.make(
        **{
            "state_schema": Count,
            "event_schema": Count,
            "on_event": lambda event, ctx: ctx.set_state(event),
            "execute": execute,
            **options,
        }
    )


OpenKit = Callable[..., JobsTestKit]


@pytest.fixture
def open_kit() -> Iterator[OpenKit]:
    """Opens a kit of the given jobs at noon."""
    with ExitStack() as stack:

        def open_one(**jobs: Any) -> JobsTestKit:
            return stack.enter_context(JobsTestKit(create_durable_jobs(jobs), now=NOON))

        yield open_one


# -- the errors themselves ---------------------------------------------------------------------------

CAUSE = OSError("disk full")

every_error = pytest.mark.parametrize(
    ("error", "fields"),
    [
        (
            JobNotFoundError(kind="task", name="mail", known=("post",)),
            {"kind": "task", "name": "mail", "known": ("post",)},
        ),
        (InstanceNotFoundError(instance_id="task:mail:1"), {"instance_id": "task:mail:1"}),
        (
            InvalidStateError(expected="running", actual="stopped", operation="trigger"),
            {"expected": "running", "actual": "stopped", "operation": "trigger"},
        ),
        (ValidationError(schema_name="Count", problems=()), {"schema_name": "Count", "problems": ()}),
        (
            ExecutionError(kind="task", job="mail", instance_id="task:mail:1", cause=CAUSE),
            {"kind": "task", "job": "mail", "instance_id": "task:mail:1", "cause": CAUSE},
        ),
        (DuplicateEventError(event_id="e1"), {"event_id": "e1"}),
        (StorageError(operation="commit", cause=CAUSE), {"operation": "commit", "cause": CAUSE}),
        (SchedulerError(operation="arm", cause=CAUSE), {"operation": "arm", "cause": CAUSE}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, TypedError) else "",
)


@every_error
def test_an_error_is_a_typed_error_with_its_fields(error: TypedError, fields: dict[str, Any]) -> None:
    """All eight are typed errors whose fields are attributes."""
    assert isinstance(error, TypedError)
    assert {name: getattr(error, name) for name in fields} == fields


@every_error
def test_an_error_can_be_raised_and_caught_as_an_exception(error: TypedError, fields: dict[str, Any]) -> None:
    """A typed error is an exception like any other."""
    with pytest.raises(type(error)) as caught:
        raise error

    assert caught.value is error


@every_error
def test_an_error_says_what_happened(error: TypedError, fields: dict[str, Any]) -> None:
    """The message is text for a reader, and errors of equal fields are equal."""
    assert str(error)
    assert copy.copy(error) == error


@pytest.mark.parametrize(
    "error",
    [
        ExecutionError(kind="task", job="mail", instance_id="task:mail:1", cause=CAUSE),
        StorageError(operation="commit", cause=CAUSE),
    ],
)
def test_the_traceback_of_an_error_goes_on_to_its_cause(error: TypedError) -> None:
    """Whoever sees the error sees where its cause was raised."""
    assert error.__cause__ is CAUSE


def test_a_cause_without_a_message_is_named_by_its_type() -> None:
    """Nothing follows a colon that would have nothing behind it."""
    error = ExecutionError(kind="task", job="mail", instance_id="task:mail:1", cause=KeyError())
    assert str(error) == "task:mail:1 failed: KeyError"


# -- jobs that are not there -------------------------------------------------------------------------

unknown_calls = pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("continuous", lambda client: client.continuous("nope").start(id="x", input={"value": 1})),
        ("continuous", lambda client: client.continuous("nope").trigger("x")),
        ("continuous", lambda client: client.continuous("nope").status("x")),
        ("continuous", lambda client: client.continuous("nope").get_state("x")),
        ("continuous", lambda client: client.continuous("nope").terminate("x")),
        ("debounce", lambda client: client.debounce("nope").add(id="x", event={"value": 1})),
        ("debounce", lambda client: client.debounce("nope").flush("x")),
        ("debounce", lambda client: client.debounce("nope").clear("x")),
        ("debounce", lambda client: client.debounce("nope").status("x")),
        ("debounce", lambda client: client.debounce("nope").get_state("x")),
        ("task", lambda client: client.task("nope").send(id="x", event={"value": 1})),
        ("task", lambda client: client.task("nope").trigger("x")),
        ("task", lambda client: client.task("nope").status("x")),
        ("task", lambda client: client.task("nope").get_state("x")),
        ("task", lambda client: client.task("nope").terminate("x")),
    ],
)


@unknown_calls
def test_an_unknown_job_is_named_with_the_known_ones(open_kit: OpenKit, kind: str, call: Any) -> None:
    """Every call of a job that is not registered says so, and which ones are."""
    kit = open_kit(counter=counter(), batcher=batcher(), worker=worker())

    with pytest.raises(JobNotFoundError) as caught:
        kit.run(call(kit.client))

    assert (caught.value.kind, caught.value.name) == (kind, "nope")
    assert {"continuous": "counter", "debounce": "batcher", "task": "worker"}[kind] in caught.value.known
    assert "nope" in str(caught.value)
    assert kit.events == []


def test_a_definition_that_is_not_registered_is_an_unknown_job(open_kit: OpenKit) -> None:
    """A definition is looked up among the registered ones, not taken at its word."""
    kit = open_kit(counter=counter())

    with pytest.raises(JobNotFoundError):
        kit.run(kit.client.continuous(counter()).status("x"))


def test_a_name_of_another_kind_is_an_unknown_job(open_kit: OpenKit) -> None:
    """A task is not found among the continuous jobs."""
    kit = open_kit(counter=counter(), worker=worker())

    with pytest.raises(JobNotFoundError) as caught:
        kit.run(kit.client.continuous("worker").status("x"))

    assert (caught.value.kind, caught.value.name) == ("continuous", "worker")


def test_a_call_by_name_is_the_call_by_definition(open_kit: OpenKit) -> None:
    """Both forms reach the same instance."""
    job = counter()
    kit = open_kit(counter=job)
    kit.run(kit.client.continuous(job).start(id="x", input=Count(3)))

    by_name = kit.run(kit.client.continuous("counter").get_state("x"))

    assert by_name == kit.run(kit.client.continuous(job).get_state("x"))
    assert by_name.state == Count(3)


def test_the_kits_client_is_a_jobs_client(open_kit: OpenKit) -> None:
    """The kit has the client that programs ask for."""
    assert isinstance(open_kit(counter=counter()).client, JobsClient)


# -- calls are effects -------------------------------------------------------------------------------


def test_a_call_is_lazy(open_kit: OpenKit) -> None:
    """Making a call does nothing until it is run."""
    kit = open_kit(counter=counter())

    kit.client.continuous("counter").start(id="x", input=Count(0))

    assert kit.run(kit.client.continuous("counter").status("x")).status == "not_found"


def test_a_call_is_repeatable(open_kit: OpenKit) -> None:
    """The same effect run twice is the call made twice."""
    kit = open_kit(counter=counter())
    call = kit.client.continuous("counter").start(id="x", input=Count(0))

    assert [kit.run(call).created, kit.run(call).created] == [True, False]


def test_a_call_fails_with_typed_errors_that_effects_can_catch(open_kit: OpenKit) -> None:
    """An error of a call is in its E: `catch` removes exactly that one."""
    kit = open_kit(worker=worker())
    call = kit.client.task("worker").send(id="x", event={"value": "one"})

    schema_name = kit.run(call.pipe(catch(ValidationError, lambda error: Effect.succeed(error.schema_name))))

    assert isinstance(schema_name, str)


def test_calls_compose_in_a_do_block(open_kit: OpenKit) -> None:
    """Calls are steps of a program."""
    kit = open_kit(worker=worker())

    @Effect.gen
    def program() -> Do[list[str], Any]:
        tasks = kit.client.task("worker")
        before = yield from tasks.status("x")
        yield from tasks.send(id="x", event=Count(1))
        between = yield from tasks.status("x")
        yield from tasks.terminate("x")
        behind = yield from tasks.status("x")
        return [before.status, between.status, behind.status]

    assert kit.run(program()) == ["not_found", "idle", "not_found"]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.continuous("counter").start(id="x", input=Count(0)),
        lambda client: client.continuous("counter").trigger("x"),
        lambda client: client.continuous("counter").status("x"),
        lambda client: client.continuous("counter").get_state("x"),
        lambda client: client.continuous("counter").terminate("x"),
        lambda client: client.debounce("batcher").add(id="x", event=Count(0)),
        lambda client: client.debounce("batcher").flush("x"),
        lambda client: client.debounce("batcher").clear("x"),
        lambda client: client.debounce("batcher").status("x"),
        lambda client: client.debounce("batcher").get_state("x"),
        lambda client: client.task("worker").send(id="x", event=Count(0)),
        lambda client: client.task("worker").trigger("x"),
        lambda client: client.task("worker").status("x"),
        lambda client: client.task("worker").get_state("x"),
        lambda client: client.task("worker").terminate("x"),
    ],
)
def test_results_are_frozen_values(open_kit: OpenKit, call: Any) -> None:
    """What a call answers cannot be changed."""
    kit = open_kit(counter=counter(), batcher=batcher(), worker=worker())
    kit.run(kit.client.continuous("counter").start(id="x", input=Count(0)))
    kit.run(kit.client.debounce("batcher").add(id="x", event=Count(0)))
    kit.run(kit.client.task("worker").send(id="x", event=Count(0)))

    result = kit.run(call(kit.client))

    (field, *_) = attrs.fields(type(result))
    with pytest.raises(AttributeError):
        setattr(result, field.name, None)


# -- failing handlers --------------------------------------------------------------------------------

failing = pytest.mark.parametrize(
    ("handler", "cause"), [(down, "Down"), (broken, "ZeroDivisionError")], ids=["typed", "raised"]
)


@failing
def test_a_failing_start_is_an_execution_error(open_kit: OpenKit, handler: Any, cause: str) -> None:
    """The error says which job and instance failed, and of what; the instance exists all the same."""
    kit = open_kit(counter=counter(handler))
    counters = kit.client.continuous("counter")

    with pytest.raises(ExecutionError) as caught:
        kit.run(counters.start(id="x", input=Count(0)))

    error = caught.value
    assert (error.kind, error.job, error.instance_id) == ("continuous", "counter", "continuous:counter:x")
    assert cause in repr(error.cause)
    assert kit.run(counters.status("x")).status == "running"
    assert kit.run(counters.start(id="x", input=Count(0))).created is False


@failing
def test_a_failing_trigger_is_an_execution_error(open_kit: OpenKit, handler: Any, cause: str) -> None:
    """A run by hand that fails is told to its caller."""
    kit = open_kit(counter=counter(handler, start_immediately=False))
    counters = kit.client.continuous("counter")
    kit.run(counters.start(id="x", input=Count(0)))

    with pytest.raises(ExecutionError) as caught:
        kit.run(counters.trigger("x"))

    assert caught.value.instance_id == "continuous:counter:x"
    assert cause in repr(caught.value.cause)


@failing
def test_a_failing_flush_is_an_execution_error(open_kit: OpenKit, handler: Any, cause: str) -> None:
    """A flush by hand that fails is told to its caller."""
    kit = open_kit(batcher=batcher(handler))
    kit.run(kit.client.debounce("batcher").add(id="x", event=Count(0)))

    with pytest.raises(ExecutionError) as caught:
        kit.run(kit.client.debounce("batcher").flush("x"))

    error = caught.value
    assert (error.kind, error.job, error.instance_id) == ("debounce", "batcher", "debounce:batcher:x")
    assert cause in repr(error.cause)


@failing
def test_a_failing_task_trigger_is_an_execution_error(open_kit: OpenKit, handler: Any, cause: str) -> None:
    """A task run by hand that fails is told to its caller."""
    kit = open_kit(worker=worker(handler))
    kit.run(kit.client.task("worker").send(id="x", event=Count(0)))

    with pytest.raises(ExecutionError) as caught:
        kit.run(kit.client.task("worker").trigger("x"))

    error = caught.value
    assert (error.kind, error.job, error.instance_id) == ("task", "worker", "task:worker:x")
    assert cause in repr(error.cause)


@failing
def test_a_failing_on_event_is_an_execution_error(open_kit: OpenKit, handler: Any, cause: str) -> None:
    """An event whose handler fails is told to its sender, who still holds it."""
    kit = open_kit(worker=worker(on_event=lambda event, ctx: handler(ctx)))

    with pytest.raises(ExecutionError) as caught:
        kit.run(kit.client.task("worker").send(id="x", event=Count(0)))

    assert caught.value.instance_id == "task:worker:x"
    assert cause in repr(caught.value.cause)


@failing
def test_a_failing_alarm_is_nobodys_call(open_kit: OpenKit, handler: Any, cause: str) -> None:
    """A run that no caller asked for fails in telemetry and status, not in whoever moves the clock."""
    kit = open_kit(counter=counter(handler, start_immediately=False))
    counters = kit.client.continuous("counter")
    kit.run(counters.start(id="x", input=Count(0)))

    kit.advance("1 hour")

    status = kit.run(counters.status("x"))
    assert status.status == "running"
    assert cause in repr(status.last_error)


def test_a_handler_that_is_no_effect_fails_like_any_other(open_kit: OpenKit) -> None:
    """A handler that forgets to return an effect is a defect that its caller hears of."""
    kit = open_kit(counter=counter(lambda ctx: None))

    with pytest.raises(ExecutionError):
        kit.run(kit.client.continuous("counter").start(id="x", input=Count(0)))


def test_an_undecorated_do_block_is_a_handler(open_kit: OpenKit) -> None:
    """A generator function is as good as one decorated with `Effect.gen`."""

    def count_up(ctx: ContinuousContext[Count]) -> Do[None]:
        count = yield from ctx.state
        yield from ctx.set_state(Count(count.value + 1))

    kit = open_kit(counter=counter(count_up))
    kit.run(kit.client.continuous("counter").start(id="x", input=Count(0)))

    assert kit.run(kit.client.continuous("counter").get_state("x")).state == Count(1)


def test_an_error_that_a_handler_catches_is_no_failure(open_kit: OpenKit) -> None:
    """What a handler recovers from is its own business."""

    def recover(ctx: DebounceExecuteContext[Count]) -> Effect[None]:
        return down(ctx).pipe(catch(Down, lambda error: Effect.void))

    kit = open_kit(batcher=batcher(recover))
    kit.run(kit.client.debounce("batcher").add(id="x", event=Count(0)))

    assert kit.run(kit.client.debounce("batcher").flush("x")).flushed is True
    assert "job.failed" not in [event.type for event in kit.events]


def test_state_changes_before_a_failure_are_dropped(open_kit: OpenKit) -> None:
    """A failed run leaves the state as it was before the run."""

    @Effect.gen
    def half(ctx: TaskExecuteContext[Count]) -> Do[None, Down]:
        yield from ctx.set_state(Count(99))
        yield from Effect.fail(Down("upstream"))

    kit = open_kit(worker=worker(half))
    tasks = kit.client.task("worker")
    kit.run(tasks.send(id="x", event=Count(1)))

    with pytest.raises(ExecutionError):
        kit.run(tasks.trigger("x"))

    assert kit.run(tasks.get_state("x")).state == Count(1)


# -- validation --------------------------------------------------------------------------------------


def test_a_validation_error_names_its_schema_and_its_problems(open_kit: OpenKit) -> None:
    """The caller learns which schema was not met, and each place with what is wrong there."""
    kit = open_kit(worker=worker(event_schema=Schema.of(Count)))

    with pytest.raises(ValidationError) as caught:
        kit.run(kit.client.task("worker").send(id="x", event={"value": "one"}))

    assert "Count" in caught.value.schema_name
    assert len(caught.value.problems) == 1
    assert "$.value" in str(caught.value)


def test_a_validation_error_does_not_show_the_value(open_kit: OpenKit) -> None:
    """Input may hold secrets; the message tells the place and the kind of problem only."""
    kit = open_kit(worker=worker())

    with pytest.raises(ValidationError) as caught:
        kit.run(kit.client.task("worker").send(id="x", event={"value": "hunter2"}))

    assert "hunter2" not in str(caught.value)
