"""What both type checkers must say about jobs and the layer that serves them: checked, never run.

`create_durable_jobs({...}, layer=...)` is exact in both checkers for a dict display with any number of jobs
and services. Of a dict that was made before, mypy knows less: see the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never, Protocol, assert_type

import attrs

from durable_effect import Do, Effect, Layer, Need, Schema, Tag, TypedError, provide, provide_service
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    DurableJobs,
    Limits,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.step import Job


@attrs.frozen
class Token:
    """A state."""

    value: str


@attrs.frozen
class Webhook:
    """An event, and a state."""

    path: str


class Denied(TypedError):
    """Not allowed."""


class NoConfig(TypedError):
    """A layer can fail."""


class Api(Protocol):
    """A service known by a Protocol."""

    def refresh(self, token: str) -> Effect[str, Denied]: ...


class Mail(Protocol):
    """Structurally another service."""

    def send(self, text: str) -> Effect[None]: ...


class Metrics:
    """A service known by its class."""

    def count(self, name: str) -> Effect[None]:
        raise NotImplementedError


class LiveApi:
    """An Api."""

    def refresh(self, token: str) -> Effect[str, Denied]:
        return Effect.succeed(token)


class LiveMail:
    """A Mail."""

    def send(self, text: str) -> Effect[None]:
        return Effect.void


Region = Tag[str]("Region")

# ---- jobs with different states, events, errors and needs --------------------------------------------------


@Effect.gen
def refresh(ctx: ContinuousContext[Token]) -> Do[None, Denied, Need[Api]]:
    token = yield from ctx.state
    api = yield from Effect.service(Api)
    yield from ctx.set_state(Token((yield from api.refresh(token.value))))


@Effect.gen
def tick(ctx: ContinuousContext[int]) -> Do[None]:
    yield from ctx.update_state(lambda n: n + 1)


@Effect.gen
def collect(ctx: DebounceEventContext[Webhook, tuple[Webhook, ...]]) -> Do[tuple[Webhook, ...]]:
    yield from Effect.void
    return (*ctx.state, ctx.event)


@Effect.gen
def send_batch(ctx: DebounceExecuteContext[tuple[Webhook, ...]]) -> Do[None, Never, Need[Mail]]:
    mail = yield from Effect.service(Mail)
    yield from mail.send(str((yield from ctx.state)))


@Effect.gen
def on_event(event: Webhook, ctx: TaskEventContext[Token]) -> Do[None, Never, Need[Metrics]]:
    metrics = yield from Effect.service(Metrics)
    yield from metrics.count(event.path)


@Effect.gen
def execute(ctx: TaskExecuteContext[Token]) -> Do[None, Denied, Need[Api] | Need[Mail]]:
    api = yield from Effect.service(Api)
    text = yield from api.refresh(ctx.id)
    mail = yield from Effect.service(Mail)
    yield from mail.send(text)


@Effect.gen
def where(ctx: ContinuousContext[int]) -> Do[None, Never, Need[str]]:
    yield from Effect.service(Region)


EVERY = Continuous.every("30 minutes")
needs_nothing = Continuous.make(state_schema=int, schedule=EVERY, execute=tick)
needs_nothing_either = Continuous.make(
    state_schema=Token, schedule=EVERY, execute=lambda ctx: ctx.set_state(Token(""))
)
needs_api = Continuous.make(state_schema=Token, schedule=EVERY, execute=refresh)
needs_mail = Debounce.make(
    event_schema=Webhook,
    state_schema=Schema.of(tuple[Webhook, ...]),
    initial_state=(),
    flush_after="5 seconds",
    on_event=collect,
    execute=send_batch,
)
needs_all = Task.make(state_schema=Token, event_schema=Webhook, on_event=on_event, execute=execute)
needs_region = Continuous.make(state_schema=int, schedule=EVERY, execute=where)

api_live = Layer.succeed(Api, LiveApi())
mail_live: Layer[Need[Mail], NoConfig] = Layer.effect(Mail, Effect.fail(NoConfig()))
metrics_live = Layer.sync(Metrics, Metrics)
both_live = api_live.merge(mail_live)
all_live = both_live.merge(metrics_live)

# ---- right: no layer where nothing is needed ---------------------------------------------------------------

assert_type(create_durable_jobs({"a": needs_nothing}), DurableJobs)
assert_type(create_durable_jobs({"a": needs_nothing, "b": needs_nothing_either}), DurableJobs)
assert_type(create_durable_jobs({}), DurableJobs)
assert_type(
    create_durable_jobs(
        {"a": needs_nothing},
        tracker=Tracker(endpoint="https://events.example.com", env="test", service_key="jobs"),
        limits=Limits(concurrency=10),
    ),
    DurableJobs,
)
assert_type(create_durable_jobs({"a": needs_nothing}, layer=None), DurableJobs)
assert_type(create_durable_jobs({"a": needs_nothing}, layer=Layer.empty()), DurableJobs)

# ---- right: a layer that provides all that is needed, or more; its own error is known ----------------------

assert_type(create_durable_jobs({"a": needs_api}, layer=api_live), DurableJobs)
assert_type(create_durable_jobs({"a": needs_api, "b": needs_nothing}, layer=api_live), DurableJobs)
assert_type(create_durable_jobs({"a": needs_api, "b": needs_mail}, layer=both_live), DurableJobs[NoConfig])
assert_type(
    create_durable_jobs(
        {"a": needs_api, "b": needs_mail, "c": needs_all, "d": needs_nothing}, layer=all_live
    ),
    DurableJobs[NoConfig],
)
assert_type(create_durable_jobs({"a": needs_all}, layer=all_live), DurableJobs[NoConfig])
assert_type(create_durable_jobs({"a": needs_nothing}, layer=all_live), DurableJobs[NoConfig])
assert_type(create_durable_jobs({"a": needs_api}, layer=all_live), DurableJobs[NoConfig])
assert_type(create_durable_jobs({"a": needs_region}, layer=Layer.succeed(Region, "eu")), DurableJobs)
assert_type(create_durable_jobs(dict(a=needs_api, b=needs_mail), layer=both_live), DurableJobs[NoConfig])  # noqa: C408 - as some write it
assert_type(
    create_durable_jobs(
        {
            "a": Continuous.make(state_schema=Token, schedule=EVERY, execute=refresh),
            "b": Continuous.make(state_schema=int, schedule=EVERY, execute=lambda ctx: ctx.set_state(1)),
            "c": needs_mail,
        },
        layer=both_live,
    ),
    DurableJobs[NoConfig],
)
# services that need services
composed = Layer.effect(Mail, Effect.service(Api).as_(LiveMail())).pipe(provide(api_live)).merge(api_live)
assert_type(create_durable_jobs({"a": needs_api, "b": needs_mail}, layer=composed), DurableJobs)
# what a handler brings along itself is not needed
assert_type(
    create_durable_jobs(
        {
            "a": Continuous.make(
                state_schema=Token,
                schedule=EVERY,
                execute=lambda ctx: refresh(ctx) | provide_service(Api, LiveApi()),
            )
        }
    ),
    DurableJobs,
)

# ---- wrong: something is needed and there is no layer ------------------------------------------------------

create_durable_jobs({"a": needs_api})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
create_durable_jobs({"a": needs_nothing, "b": needs_api})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
create_durable_jobs({"a": needs_api, "b": needs_mail})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
create_durable_jobs({"a": needs_all})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
create_durable_jobs(
    {"a": Continuous.make(state_schema=Token, schedule=EVERY, execute=refresh)}  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
)

# ---- wrong: the layer lacks something ----------------------------------------------------------------------

create_durable_jobs({"a": needs_api}, layer=metrics_live)  # type: ignore[dict-item] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": needs_api, "b": needs_nothing}, layer=mail_live)  # type: ignore[dict-item] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": needs_api, "b": needs_mail}, layer=mail_live)  # type: ignore[dict-item] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": needs_all}, layer=both_live)  # type: ignore[dict-item] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": needs_all, "b": needs_nothing}, layer=both_live)  # type: ignore[dict-item] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": needs_api}, layer=Layer.empty())  # type: ignore[misc] # pyright: ignore[reportArgumentType, reportCallIssue]

# ---- wrong: a layer that itself needs something, no layer, no job ------------------------------------------

needs_more = Layer.effect(Api, Effect.service(Metrics).as_(LiveApi()))
create_durable_jobs({"a": needs_api}, layer=needs_more)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": needs_api}, layer=LiveApi())  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
create_durable_jobs({"a": refresh})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
create_durable_jobs({1: needs_nothing})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]

# ---- a dict that was made before ---------------------------------------------------------------------------
# mypy joins what its values need: nothing and one service stay exact, two services become `object`, which no
# layer provides. Then the dict wants its type said, or to be written where it is used.

one_service = {"a": needs_api, "b": needs_nothing}
assert_type(create_durable_jobs(one_service, layer=api_live), DurableJobs)
create_durable_jobs(one_service)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
create_durable_jobs(one_service, layer=metrics_live)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]

declared: Mapping[str, Job[Any, Need[Api] | Need[Mail]]] = {"a": needs_api, "b": needs_mail}
assert_type(create_durable_jobs(declared, layer=both_live), DurableJobs[NoConfig])
create_durable_jobs(declared)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
create_durable_jobs(declared, layer=api_live)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]

two_services = {"a": needs_api, "b": needs_mail}
create_durable_jobs(two_services, layer=both_live)  # type: ignore[arg-type] # right: pyright accepts it
create_durable_jobs(two_services)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
create_durable_jobs(two_services, layer=api_live)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
