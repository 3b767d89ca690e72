"""What both type checkers must say about job definitions: checked by mypy and pyright, never run.

Wrong lines carry `type: ignore[code]` for mypy and `pyright: ignore[rule]`. Both checkers report an ignore
that is not needed: a line that stops being an error fails the check.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Never, Protocol, assert_never, assert_type

import attrs

from durable_effect import Backoff, Defect, Do, Effect, Need, Schema, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    ContinuousJob,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    DebounceJob,
    Retry,
    Task,
    TaskErrorContext,
    TaskEventContext,
    TaskExecuteContext,
    TaskIdleContext,
    TaskJob,
)


@attrs.frozen
class Token:
    """A state."""

    value: str
    refreshed: int = 0


@attrs.frozen
class Other:
    """Another state."""

    n: int = 0


class Denied(TypedError):
    """Not allowed."""


class Unreachable(TypedError):
    """Too far."""


class Api(Protocol):
    """A service known by a Protocol."""

    def refresh(self, token: str) -> Effect[str, Denied]: ...


class Mail(Protocol):
    """Another one."""

    def send(self, text: str) -> Effect[None, Unreachable]: ...


class Metrics:
    """A service known by its class."""

    def count(self, name: str) -> Effect[None]:
        raise NotImplementedError


class Audit:
    """Another one."""


EVERY = Continuous.every("30 minutes")

# ---- continuous: do-blocks, decorated or not --------------------------------------------------------------


@Effect.gen
def refresh(ctx: ContinuousContext[Token]) -> Do[None, Denied, Need[Api]]:
    token = yield from ctx.state
    assert_type(token, Token)
    api = yield from Effect.service(Api)
    value = yield from api.refresh(token.value)
    if not value:
        yield from ctx.terminate(reason="revoked")
    yield from ctx.set_state(attrs.evolve(token, value=value))
    yield from ctx.update_state(lambda old: attrs.evolve(old, refreshed=old.refreshed + 1))
    yield from ctx.set_state(Other())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from ctx.set_state("no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from ctx.update_state(len)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    yield from Effect.fail(Unreachable())  # type: ignore[misc] # pyright: ignore[reportReturnType]
    yield from Effect.service(Mail)  # type: ignore[misc] # pyright: ignore[reportReturnType]


def refresh_undecorated(ctx: ContinuousContext[Token]) -> Do[None, Denied, Need[Api]]:
    token = yield from ctx.state
    api = yield from Effect.service(Api)
    yield from api.refresh(token.value)


@Effect.gen
def refresh_and_tell(
    ctx: ContinuousContext[Token],
) -> Do[None, Denied | Unreachable, Need[Api] | Need[Mail]]:
    yield from refresh(ctx)
    mail = yield from Effect.service(Mail)
    yield from mail.send("refreshed")


@Effect.gen
def tick(ctx: ContinuousContext[Other]) -> Do[None]:
    assert_type(ctx.id, str)
    assert_type(ctx.instance_id, str)
    assert_type(ctx.job_name, str)
    assert_type(ctx.run_count, int)
    assert_type(ctx.attempt, int)
    assert_type(ctx.is_retry, bool)
    assert_type(ctx.scheduled_for, datetime)
    assert_type(ctx.missed_count, int)
    yield from ctx.set_state(Other(1))


def refresher(ctx: ContinuousContext[Token]) -> Effect[None, Denied, Need[Api]]:
    return refresh(ctx)


class Refresher:
    """Handlers may be methods and callable objects."""

    def run(self, ctx: ContinuousContext[Token]) -> Effect[None, Denied, Need[Api]]:
        return refresh(ctx)

    def __call__(self, ctx: ContinuousContext[Token]) -> Do[None, Denied, Need[Api]]:
        yield from refresh(ctx)


needs_api = Continuous.make(state_schema=Token, schedule=EVERY, execute=refresh)
assert_type(needs_api, ContinuousJob[Token, Denied, Need[Api]])
assert_type(
    Continuous.make(state_schema=Schema.of(Token), schedule=EVERY, execute=refresh_undecorated),
    ContinuousJob[Token, Denied, Need[Api]],
)
assert_type(
    Continuous.make(state_schema=Token, schedule=EVERY, execute=refresher),
    ContinuousJob[Token, Denied, Need[Api]],
)
assert_type(
    Continuous.make(state_schema=Token, schedule=EVERY, execute=Refresher().run),
    ContinuousJob[Token, Denied, Need[Api]],
)
assert_type(
    Continuous.make(state_schema=Token, schedule=EVERY, execute=Refresher()),
    ContinuousJob[Token, Denied, Need[Api]],
)
assert_type(
    Continuous.make(state_schema=Token, schedule=EVERY, execute=refresh_and_tell),
    ContinuousJob[Token, Denied | Unreachable, Need[Api] | Need[Mail]],
)
assert_type(
    Continuous.make(
        state_schema=Other,
        schedule=Continuous.cron("*/5 * * * *", tz="Europe/Berlin"),
        start_immediately=False,
        retry=Retry(max_attempts=3, delay=Backoff.exponential("1 second", max="30 seconds"), jitter=True),
        logging="WARNING",
        execute=tick,
    ),
    ContinuousJob[Other, Never, Never],
)

# ---- continuous: functions and lambdas that answer an effect -----------------------------------------------

assert_type(
    Continuous.make(
        state_schema=Token,
        schedule=EVERY,
        execute=lambda ctx: ctx.update_state(lambda token: Token(token.value, token.refreshed + 1)),
    ),
    ContinuousJob[Token, Never, Never],
)
assert_type(
    Continuous.make(
        state_schema=Token,
        schedule=EVERY,
        execute=lambda ctx: Effect.service(Metrics).flat_map(lambda metrics: metrics.count(ctx.id)),
    ),
    ContinuousJob[Token, Never, Need[Metrics]],
)
assert_type(
    Continuous.make(state_schema=Token, schedule=EVERY, execute=lambda ctx: Effect.succeed(ctx.run_count)),
    ContinuousJob[Token, Never, Never],
)
assert_type(
    Continuous.make(state_schema=Schema.integer, schedule=EVERY, execute=lambda ctx: ctx.set_state(1)),
    ContinuousJob[int, Never, Never],
)
assert_type(
    Continuous.make(
        state_schema=Schema.of(dict[str, int]),
        schedule=EVERY,
        execute=lambda ctx: ctx.update_state(lambda counts: {**counts, "runs": ctx.run_count}),
    ),
    ContinuousJob[dict[str, int], Never, Never],
)

# ---- continuous: what must not check -----------------------------------------------------------------------

Continuous.make(
    state_schema=Token,
    schedule=EVERY,
    execute=lambda ctx: ctx.set_state(Other()),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)
Continuous.make(
    state_schema=Other,
    schedule=EVERY,
    execute=refresh,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)
Continuous.make(
    state_schema=Token,
    schedule="30 minutes",  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    execute=refresh,
)
Continuous.make(
    state_schema=Token,
    schedule=EVERY,
    retry=3,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    execute=refresh,
)
Continuous.make(state_schema=Token, execute=refresh)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
Retry(max_attempts="3", delay=Backoff.fixed("1 second"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def coroutine(ctx: ContinuousContext[Token]) -> None: ...


def procedure(ctx: ContinuousContext[Token]) -> None: ...


Continuous.make(
    state_schema=Token,
    schedule=EVERY,
    execute=coroutine,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)
Continuous.make(
    state_schema=Token,
    schedule=EVERY,
    execute=procedure,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)

# ---- debounce ----------------------------------------------------------------------------------------------


@attrs.frozen
class Webhook:
    """An event."""

    path: str


@attrs.frozen
class Batch:
    """What is collected of events."""

    hooks: tuple[Webhook, ...] = ()


@Effect.gen
def collect(ctx: DebounceEventContext[Webhook, Batch]) -> Do[Batch]:
    assert_type(ctx.event, Webhook)
    assert_type(ctx.state, Batch)
    assert_type(ctx.event_count, int)
    yield from Effect.log_debug("collected")
    return Batch((*ctx.state.hooks, ctx.event))


def collect_and_count(ctx: DebounceEventContext[Webhook, Batch]) -> Do[Batch, Denied, Need[Metrics]]:
    metrics = yield from Effect.service(Metrics)
    yield from metrics.count(ctx.event.path)
    return Batch((*ctx.state.hooks, ctx.event))


@Effect.gen
def send_batch(ctx: DebounceExecuteContext[Batch]) -> Do[None, Unreachable, Need[Mail]]:
    batch = yield from ctx.state
    assert_type(batch, Batch)
    assert_type((yield from ctx.event_count), int)
    assert_type((yield from ctx.debounce_started_at), datetime)
    assert_type(ctx.flush_reason, Literal["maxEvents", "flushAfter", "manual"])
    assert_type(ctx.attempt, int)
    assert_type(ctx.is_retry, bool)
    mail = yield from Effect.service(Mail)
    yield from mail.send(str(batch))


def send_latest(ctx: DebounceExecuteContext[Webhook]) -> Do[None, Unreachable, Need[Mail]]:
    latest = yield from ctx.state
    assert_type(latest, Webhook)
    mail = yield from Effect.service(Mail)
    yield from mail.send(latest.path)


@Effect.gen
def drop_batch(ctx: DebounceExecuteContext[Batch]) -> Do[None]:
    yield from ctx.state


# without a state_schema the state is the event
assert_type(
    Debounce.make(event_schema=Webhook, flush_after="5 seconds", execute=send_latest),
    DebounceJob[Webhook, Webhook, Unreachable, Need[Mail]],
)
assert_type(
    Debounce.make(event_schema=Webhook, flush_after="5 seconds", execute=lambda ctx: ctx.state),
    DebounceJob[Webhook, Webhook, Never, Never],
)
assert_type(
    Debounce.make(
        event_schema=Schema.integer,
        flush_after=timedelta(seconds=5),
        on_event=lambda ctx: Effect.succeed(max(ctx.state, ctx.event)),
        execute=lambda ctx: ctx.state.map(lambda highest: highest + 1),
    ),
    DebounceJob[int, int, Never, Never],
)
assert_type(
    Debounce.make(
        event_schema=Schema.integer,
        flush_after="5 seconds",
        on_event=lambda ctx: Effect.service(Metrics).as_(ctx.event),
        execute=lambda ctx: ctx.state,
    ),
    DebounceJob[int, int, Never, Need[Metrics]],
)

# with one: R is what on_event needs and what execute needs
assert_type(
    Debounce.make(
        event_schema=Webhook,
        state_schema=Batch,
        initial_state=Batch,
        flush_after="5 seconds",
        on_event=collect,
        execute=drop_batch,
    ),
    DebounceJob[Webhook, Batch, Never, Never],
)
assert_type(
    Debounce.make(
        event_schema=Webhook,
        state_schema=Batch,
        initial_state=Batch(),
        flush_after="5 seconds",
        max_events=100,
        on_event=collect,
        execute=send_batch,
    ),
    DebounceJob[Webhook, Batch, Unreachable, Need[Mail]],
)
assert_type(
    Debounce.make(
        event_schema=Webhook,
        state_schema=Batch,
        initial_state=lambda: Batch(),
        flush_after="5 seconds",
        on_event=collect_and_count,
        execute=drop_batch,
    ),
    DebounceJob[Webhook, Batch, Never, Need[Metrics]],
)
assert_type(
    Debounce.make(
        event_schema=Webhook,
        state_schema=Batch,
        initial_state=Batch,
        flush_after="5 seconds",
        mode="trailing",
        max_wait="1 minute",
        retry=Retry(max_attempts=3, delay=Backoff.fixed("1 second")),
        on_event=collect_and_count,
        execute=send_batch,
    ),
    DebounceJob[Webhook, Batch, Unreachable, Need[Metrics] | Need[Mail]],
)
assert_type(
    Debounce.make(
        event_schema=Webhook,
        state_schema=Schema.array(Webhook),
        initial_state=list,
        flush_after="5 seconds",
        on_event=lambda ctx: Effect.succeed([*ctx.state, ctx.event]),
        execute=lambda ctx: ctx.state.map(len),
    ),
    DebounceJob[Webhook, list[Webhook], Never, Never],
)

Debounce.make(  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    event_schema=Webhook, state_schema=Batch, initial_state=Batch, flush_after="5 seconds", execute=send_batch
)
Debounce.make(  # pyright: ignore[reportCallIssue]
    event_schema=Webhook,
    flush_after="5 seconds",
    execute=send_batch,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)
Debounce.make(  # pyright: ignore[reportCallIssue]
    event_schema=Webhook,
    state_schema=Batch,
    initial_state=Other,  # type: ignore[arg-type]
    flush_after="5 seconds",
    on_event=collect,  # pyright: ignore[reportArgumentType]
    execute=drop_batch,  # pyright: ignore[reportArgumentType]
)
Debounce.make(  # pyright: ignore[reportCallIssue]
    event_schema=Webhook,
    state_schema=Batch,
    initial_state=Batch,
    flush_after="5 seconds",
    on_event=lambda ctx: Effect.succeed(ctx.event),  # type: ignore[arg-type] # pyright: ignore
    execute=drop_batch,
)
Debounce.make(  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    event_schema=Webhook,
    flush_after=5,  # pyright: ignore[reportArgumentType]
    execute=send_latest,
)
Debounce.make(  # pyright: ignore[reportCallIssue]
    event_schema=Webhook,
    flush_after="5 seconds",
    on_event=collect,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    execute=lambda ctx: ctx.state,
)

# ---- task --------------------------------------------------------------------------------------------------


@attrs.frozen
class Placed:
    """An event."""

    order_id: str


@attrs.frozen
class Paid:
    """An event."""

    amount: int


@attrs.frozen
class Shipped:
    """An event."""

    tracking: str


@Effect.gen
def on_event(event: Placed | Paid | Shipped, ctx: TaskEventContext[Other]) -> Do[None]:
    match event:
        case Placed(order_id):
            assert_type(order_id, str)
            yield from ctx.set_state(Other(1))
            yield from ctx.schedule("5 minutes")
            yield from ctx.schedule(timedelta(minutes=5))
            yield from ctx.schedule(datetime(2026, 1, 1, tzinfo=UTC))
            yield from ctx.schedule(1_767_225_600_000)
            yield from ctx.schedule(2.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        case Paid():
            yield from ctx.update_state(lambda state: attrs.evolve(state, n=state.n + 1))
        case Shipped():
            yield from ctx.cancel_schedule()
        case _:
            assert_never(event)
    assert_type(ctx.is_first_event, bool)
    assert_type((yield from ctx.state), Other | None)
    assert_type((yield from ctx.get_scheduled_time()), datetime | None)
    assert_type((yield from ctx.event_count), int)
    assert_type((yield from ctx.created_at), datetime)
    yield from ctx.set_state(Token(""))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def check(ctx: TaskExecuteContext[Other]) -> Do[None, Denied]:
    state = yield from ctx.state
    assert_type((yield from ctx.event_count), int)
    assert_type((yield from ctx.execute_count), int)
    assert_type((yield from ctx.created_at), datetime)
    if state is None:
        yield from Effect.fail(Denied())
        return
    yield from ctx.terminate()


def check_by_api(ctx: TaskExecuteContext[Other]) -> Do[None, Denied, Need[Api]]:
    yield from Effect.service(Api)


@Effect.gen
def on_event_counted(
    event: Placed | Paid | Shipped, ctx: TaskEventContext[Other]
) -> Do[None, Never, Need[Metrics]]:
    metrics = yield from Effect.service(Metrics)
    yield from metrics.count(ctx.id)


def on_idle(ctx: TaskIdleContext[Other]) -> Do[None]:
    assert_type(ctx.idle_reason, Literal["onEvent", "execute"])
    yield from ctx.schedule("1 day")


def on_idle_by_mail(ctx: TaskIdleContext[Other]) -> Do[None, Unreachable, Need[Mail]]:
    mail = yield from Effect.service(Mail)
    yield from mail.send("idle")


@Effect.gen
def on_error(error: Denied | Defect, ctx: TaskErrorContext[Other]) -> Do[None]:
    assert_type(ctx.error_source, Literal["onEvent", "execute"])
    yield from ctx.set_state(Other(-1))


def on_error_audited(error: object, ctx: TaskErrorContext[Other]) -> Do[None, Never, Need[Audit]]:
    yield from Effect.service(Audit)


ORDERS = Schema.union(Placed, Paid, Shipped)
assert_type(
    Task.make(state_schema=Other, event_schema=ORDERS, on_event=on_event, execute=check),
    TaskJob[Other, Placed | Paid | Shipped, Any, Never],
)
assert_type(
    Task.make(
        state_schema=Other,
        event_schema=ORDERS,
        on_event=on_event,
        execute=check,
        on_idle=on_idle,
        on_error=on_error,
        retry=Retry(max_attempts=3, delay=Backoff.fixed("1 second")),
        logging=True,
    ),
    TaskJob[Other, Placed | Paid | Shipped, Any, Never],
)
assert_type(
    Task.make(
        state_schema=Other, event_schema=ORDERS, on_event=on_event, execute=check, on_idle=None, on_error=None
    ),
    TaskJob[Other, Placed | Paid | Shipped, Any, Never],
)
# R is what all handlers need, whichever of them there are
assert_type(
    Task.make(state_schema=Other, event_schema=ORDERS, on_event=on_event, execute=check_by_api),
    TaskJob[Other, Placed | Paid | Shipped, Any, Need[Api]],
)
assert_type(
    Task.make(state_schema=Other, event_schema=ORDERS, on_event=on_event_counted, execute=check),
    TaskJob[Other, Placed | Paid | Shipped, Any, Need[Metrics]],
)
assert_type(
    Task.make(
        state_schema=Other, event_schema=ORDERS, on_event=on_event, execute=check, on_idle=on_idle_by_mail
    ),
    TaskJob[Other, Placed | Paid | Shipped, Any, Need[Mail]],
)
assert_type(
    Task.make(
        state_schema=Other, event_schema=ORDERS, on_event=on_event, execute=check, on_error=on_error_audited
    ),
    TaskJob[Other, Placed | Paid | Shipped, Any, Need[Audit]],
)
assert_type(
    Task.make(
        state_schema=Other,
        event_schema=ORDERS,
        on_event=on_event_counted,
        execute=check_by_api,
        on_idle=on_idle_by_mail,
        on_error=on_error_audited,
    ),
    TaskJob[Other, Placed | Paid | Shipped, Any, Need[Metrics] | Need[Api] | Need[Mail] | Need[Audit]],
)
# lambdas know the event and the context
assert_type(
    Task.make(
        state_schema=Other,
        event_schema=Paid,
        on_event=lambda event, ctx: ctx.set_state(Other(event.amount)),
        execute=lambda ctx: ctx.update_state(lambda state: Other(state.n + 1)),
        on_idle=lambda ctx: ctx.terminate(reason=ctx.idle_reason),
        on_error=lambda error, ctx: ctx.schedule("1 minute"),
    ),
    TaskJob[Other, Paid, Any, Never],
)
assert_type(
    Task.make(
        state_schema=Other,
        event_schema=Paid,
        on_event=lambda event, ctx: Effect.service(Metrics).flat_map(lambda metrics: metrics.count(ctx.id)),
        execute=lambda ctx: ctx.set_state(Other(1)),
    ),
    TaskJob[Other, Paid, Any, Need[Metrics]],
)
assert_type(
    Task.make(
        state_schema=Other,
        event_schema=Paid,
        on_event=lambda event, ctx: ctx.set_state(Other(event.amount)),
        execute=check_by_api,
        on_idle=lambda ctx: Effect.service(Mail).flat_map(lambda mail: mail.send(ctx.id)),
        on_error=on_error,
    ),
    TaskJob[Other, Paid, Any, Need[Api] | Need[Mail]],
)

Task.make(
    state_schema=Other,
    event_schema=Paid,
    on_event=lambda event, ctx: ctx.set_state(event),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    execute=check,
)
Task.make(  # pyright: ignore[reportCallIssue]
    state_schema=Other,
    event_schema=Token,
    on_event=on_event,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    execute=check,
)
Task.make(  # pyright: ignore[reportCallIssue]
    state_schema=Token,
    event_schema=ORDERS,
    on_event=on_event,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    execute=check,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)
Task.make(  # pyright: ignore[reportCallIssue]
    state_schema=Other,
    event_schema=ORDERS,
    on_event=on_event,
    execute=refresh,  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)
