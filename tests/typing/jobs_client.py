"""What both type checkers must say about clients, connections and the test kit: checked, never run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Never, assert_type

import attrs

from durable_effect import Do, Effect, Exit, Layer, MissingServiceError, Need, Schema, TypedError, provide
from durable_effect_jobs import (
    AddResult,
    ClearResult,
    Continuous,
    ContinuousClient,
    ContinuousState,
    ContinuousStatus,
    Debounce,
    DebounceClient,
    DebounceState,
    DebounceStatus,
    DuplicateEventError,
    DurableJobs,
    Event,
    ExecutionError,
    FlushResult,
    InstanceNotFoundError,
    InvalidStateError,
    JobNotFoundError,
    JobsClient,
    SchedulerError,
    SendResult,
    StartResult,
    StorageError,
    Task,
    TaskClient,
    TaskState,
    TaskStatus,
    TaskTriggerResult,
    TerminateResult,
    TriggerResult,
    ValidationError,
    create_durable_jobs,
)
from durable_effect_jobs.events import Failure
from durable_effect_jobs.storage import Storage
from durable_effect_jobs.testing import JobsTestKit

ReadError = JobNotFoundError | ValidationError | InvalidStateError | StorageError
RunError = ReadError | InstanceNotFoundError | ExecutionError | SchedulerError
EventError = ReadError | ExecutionError | SchedulerError | DuplicateEventError


@attrs.frozen
class Token:
    """A state."""

    value: str


@attrs.frozen
class Other:
    """Another type."""


@attrs.frozen
class Placed:
    """An event."""

    order_id: str


@attrs.frozen
class Paid:
    """An event."""

    amount: int


class NoConfig(TypedError):
    """A layer can fail."""


refresher = Continuous.make(
    state_schema=Token, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(Token(""))
)
batcher = Debounce.make(
    event_schema=Placed,
    state_schema=Schema.of(tuple[Placed, ...]),
    initial_state=(),
    flush_after="5 seconds",
    on_event=lambda ctx: Effect.succeed((*ctx.state, ctx.event)),
    execute=lambda ctx: ctx.state,
)
order = Task.make(
    state_schema=Token,
    event_schema=Schema.union(Placed, Paid),
    on_event=lambda event, ctx: ctx.set_state(Token(str(event))),
    execute=lambda ctx: ctx.terminate(),
)
jobs = create_durable_jobs({"refresher": refresher, "batcher": batcher, "order": order})
assert_type(jobs, DurableJobs)

# ---- by definition: everything is known --------------------------------------------------------------------


async def continuous(client: JobsClient) -> None:
    tokens = client.continuous(refresher)
    assert_type(tokens, ContinuousClient[Token])
    assert_type(tokens.start(id="u", input=Token("t")), Effect[StartResult, RunError])
    assert_type(tokens.trigger("u"), Effect[TriggerResult, RunError])
    assert_type(tokens.status("u"), Effect[ContinuousStatus, ReadError])
    assert_type(tokens.get_state("u"), Effect[ContinuousState[Token], ReadError])
    assert_type(tokens.terminate("u", reason="over"), Effect[TerminateResult, ReadError])

    started = await tokens.start(id="u", input=Token("t"))
    assert_type(started.created, bool)
    assert_type(started.instance_id, str)
    triggered = await tokens.trigger("u")
    assert_type((triggered.triggered, triggered.terminated), tuple[bool, bool])
    assert_type(triggered.retry_scheduled, bool)
    status = await tokens.status("u")
    assert_type(status.status, Literal["running", "stopped", "not_found"])
    assert_type(status.run_count, int | None)
    assert_type(status.next_run_at, datetime | None)
    assert_type(status.last_error, Failure | None)
    assert_type((await tokens.get_state("u")).state, Token | None)
    ended = await tokens.terminate("u")
    assert_type((ended.terminated, ended.reason), tuple[bool, str | None])

    tokens.start(id="u", input=Other())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    tokens.start(id="u", input="t")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    tokens.start(id=1, input=Token("t"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    tokens.start(id="u")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    tokens.flush("u")  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    client.debounce(refresher)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    client.task(refresher)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]


async def debounce(client: JobsClient) -> None:
    batches = client.debounce(batcher)
    assert_type(batches, DebounceClient[Placed, tuple[Placed, ...]])
    assert_type(batches.add(id="u", event=Placed("o"), event_id="e1"), Effect[AddResult, EventError])
    assert_type(batches.flush("u"), Effect[FlushResult, RunError])
    assert_type(batches.clear("u"), Effect[ClearResult, ReadError])
    assert_type(batches.status("u"), Effect[DebounceStatus, ReadError])
    assert_type(batches.get_state("u"), Effect[DebounceState[tuple[Placed, ...]], ReadError])

    added = await batches.add(id="u", event=Placed("o"))
    assert_type(added.event_count, int)
    assert_type(added.will_flush_at, datetime | None)
    assert_type((await batches.flush("u")).reason, Literal["manual", "empty"])
    assert_type((await batches.clear("u")).discarded_events, int)
    assert_type((await batches.get_state("u")).state, tuple[Placed, ...] | None)

    batches.add(id="u", event=Paid(3))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    batches.add(id="u", event=(Placed("o"),))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def task(client: JobsClient) -> None:
    orders = client.task(order)
    assert_type(orders, TaskClient[Token, Placed | Paid])
    assert_type(orders.send(id="o", event=Paid(3)), Effect[SendResult, EventError])
    assert_type(orders.trigger("o"), Effect[TaskTriggerResult, RunError])
    assert_type(orders.status("o"), Effect[TaskStatus, ReadError])
    assert_type(orders.get_state("o"), Effect[TaskState[Token], ReadError])
    assert_type(orders.terminate("o"), Effect[TerminateResult, ReadError])

    assert_type((await orders.send(id="o", event=Placed("o"))).scheduled_at, datetime | None)
    assert_type((await orders.status("o")).status, Literal["active", "idle", "stopped", "not_found"])
    seen = await orders.get_state("o")
    assert_type(seen.state, Token | None)
    assert_type(seen.scheduled_at, datetime | None)
    assert_type(seen.created_at, datetime | None)

    orders.send(id="o", event=Other())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    orders.send(id="o", event=Token("t"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# ---- by name: nothing is known, everything is accepted -----------------------------------------------------


async def by_name(client: JobsClient) -> None:
    assert_type(client.continuous("refresher"), ContinuousClient[Any])
    assert_type(client.debounce("batcher"), DebounceClient[Any, Any])
    assert_type(client.task("order"), TaskClient[Any, Any])
    await client.continuous("refresher").start(id="u", input={"value": "t"})
    await client.debounce("batcher").add(id="u", event=Placed("o"))
    assert_type((await client.task("order").get_state("o")).state, Any | None)


# ---- calls are effects: composed, and run in do-blocks -----------------------------------------------------


@Effect.gen
def program(user: str) -> Do[Token | None, RunError, Need[JobsClient]]:
    client = yield from Effect.service(JobsClient)
    tokens = client.continuous(refresher)
    yield from tokens.start(id=user, input=Token("t"))
    return (yield from tokens.get_state(user)).state


@Effect.gen
def undeclared(user: str) -> Do[None, Never, Need[JobsClient]]:
    client = yield from Effect.service(JobsClient)
    yield from client.continuous(refresher).trigger(user)  # type: ignore[misc] # pyright: ignore[reportReturnType]


# ---- connect and layer -------------------------------------------------------------------------------------


async def connected(storage: Storage) -> None:
    async with jobs.connect("sqlite:///jobs.db") as client:
        assert_type(client, JobsClient)
        await client.continuous(refresher).status("u")
    async with jobs.connect(storage, alarms=False) as client:
        await client.task(order).trigger("o")
    jobs.connect(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


live = jobs.layer("memory://")
assert_type(live, Layer[Need[JobsClient], StorageError | MissingServiceError])
assert_type(program("u") | provide(live), Effect[Token | None, RunError | MissingServiceError])
failing: Layer[Never, NoConfig] = Layer.effect_discard(Effect.fail(NoConfig()))
assert_type(
    create_durable_jobs({"refresher": refresher}, layer=failing).layer("memory://"),
    Layer[Need[JobsClient], NoConfig | StorageError | MissingServiceError],
)
Effect.run_sync(program("u"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

# ---- the test kit ------------------------------------------------------------------------------------------

with JobsTestKit(jobs, now=datetime(2026, 1, 1, tzinfo=UTC)) as kit:
    assert_type(kit, JobsTestKit)
    assert_type(kit.run(kit.client.continuous(refresher).start(id="u", input=Token("t"))), StartResult)
    assert_type(kit.run(kit.client.continuous(refresher).get_state("u")).state, Token | None)
    assert_type(kit.run_exit(Effect.succeed(1)), Exit[int, Any])
    assert_type(kit.now, datetime)
    assert_type(kit.events, list[Event])
    kit.advance("30 minutes")
    kit.advance(timedelta(minutes=30))
    kit.restart()
    kit.run(program("u"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    kit.run(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    kit.advance(30)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

JobsTestKit(jobs, layer=Layer.effect(Token, Effect.service(Other).as_(Token(""))))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
