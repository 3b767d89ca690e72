"""The jobs of the demo, written as an application would write them.

* ``tokenRefresher``  keeps an access token fresh; the token endpoint fails now and then, so it retries.
* ``healthChecker``   looks after services, and gives up on one that stays down.
* ``webhookBatcher``  collects webhooks, and delivers them together.
* ``orderProcessor``  follows an order from its placing to its delivery.

Handlers ask for the services they need, here ``Web``, and say so in their types; ``layer=`` provides them.
The spans are shorter than in life, so that there is something to see.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import quote

import attrs

from durable_effect import Backoff, Clock, Do, Effect, Layer, Need, Schema
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceEventContext,
    DebounceExecuteContext,
    Retry,
    Task,
    TaskErrorContext,
    TaskEventContext,
    TaskExecuteContext,
    TaskIdleContext,
    create_durable_jobs,
)
from durable_effect_jobs.demo.web import Unavailable, Web

__all__ = ["WEB_URL", "health_checker", "jobs", "order_processor", "token_refresher", "webhook_batcher"]

WEB_URL = "DURABLE_EFFECT_DEMO_WEB"
"""The environment variable with the address of the world around the jobs."""


# -- a continuous job: the token refresher ---------------------------------------------------------


@attrs.frozen
class Token:
    """What one user is logged in with."""

    refresh_token: str
    access_token: str = ""
    expires_at: datetime | None = None


@Effect.gen
def refresh(ctx: ContinuousContext[Token]) -> Do[None, Unavailable, Need[Web]]:
    """Trade the refresh token for a new access token."""
    web = yield from Effect.service(Web)
    token = yield from ctx.state
    granted = yield from web.post("/token", {"refresh_token": token.refresh_token})
    now = yield from Clock.now()
    expires_at = now + timedelta(seconds=granted["expires_in"])
    yield from ctx.set_state(attrs.evolve(token, access_token=granted["access_token"], expires_at=expires_at))
    if ctx.is_retry:
        yield from Effect.log_info(f"attempt {ctx.attempt} got {granted['access_token']}")


token_refresher = Continuous.make(
    state_schema=Token,
    schedule=Continuous.every("700 ms"),
    retry=Retry(max_attempts=5, delay=Backoff.exponential("150 ms", max="1 second")),
    logging="INFO",
    execute=refresh,
)


# -- a continuous job by the clock: the health checker ----------------------------------------------


@attrs.frozen
class Health:
    """How one service has been doing."""

    consecutive_failures: int = 0
    last_check_at: datetime | None = None


@Effect.gen
def check_health(ctx: ContinuousContext[Health]) -> Do[None, Unavailable, Need[Web]]:
    """Ask the service how it is, and stop asking when it has been down for too long."""
    web = yield from Effect.service(Web)
    health = yield from ctx.state
    answer = yield from web.get(f"/health/{quote(ctx.id)}")
    if not answer["healthy"] and health.consecutive_failures >= 3:
        yield from ctx.terminate("too many failures")
    failures = 0 if answer["healthy"] else health.consecutive_failures + 1
    yield from ctx.set_state(Health(failures, ctx.scheduled_for))


health_checker = Continuous.make(
    state_schema=Health,
    schedule=Continuous.cron("* * * * * *"),  # six fields: every second
    logging="INFO",
    execute=check_health,
)


# -- a debounce job: the webhook batcher -----------------------------------------------------------


@attrs.frozen
class Webhook:
    """Something that happened to a contact."""

    number: int
    type: str


@attrs.frozen
class Batch:
    """The webhooks of one contact that wait to be delivered."""

    webhooks: tuple[Webhook, ...] = ()


def collect(ctx: DebounceEventContext[Webhook, Batch]) -> Effect[Batch]:
    """Put one more webhook into the batch."""
    return Effect.succeed(Batch((*ctx.state.webhooks, ctx.event)))


@Effect.gen
def deliver(ctx: DebounceExecuteContext[Batch]) -> Do[None, Unavailable, Need[Web]]:
    """Put the batch where it belongs. Its run key makes that harmless to repeat."""
    web = yield from Effect.service(Web)
    batch = yield from ctx.state
    numbers = [webhook.number for webhook in batch.webhooks]
    yield from web.put(f"/batches/{quote(ctx.run_key)}", numbers)
    yield from Effect.log_info(f"delivered {len(numbers)} webhooks ({ctx.flush_reason})")


webhook_batcher = Debounce.make(
    event_schema=Webhook,
    state_schema=Batch,
    initial_state=Batch,
    flush_after="800 ms",
    max_events=5,
    on_event=collect,
    retry=Retry(max_attempts=5, delay=Backoff.fixed("250 ms")),
    logging="INFO",
    execute=deliver,
)


# -- a task: the order processor -------------------------------------------------------------------


@attrs.frozen
class Order:
    """Where one order stands."""

    status: Literal["pending", "processing", "shipped", "delivered"]
    reminders: int = 0
    failures: int = 0


@attrs.frozen
class OrderPlaced:
    """The customer ordered."""


@attrs.frozen
class PaymentReceived:
    """The customer paid."""


@attrs.frozen
class Shipped:
    """The parcel is with the carrier."""

    tracking_number: str


@Effect.gen
def follow(event: OrderPlaced | PaymentReceived | Shipped, ctx: TaskEventContext[Order]) -> Do[None]:
    """Take down what happened, and decide when to look after the order next."""
    match event:
        case OrderPlaced():
            yield from ctx.set_state(Order("pending"))
            yield from ctx.schedule("600 ms")
        case PaymentReceived():
            yield from ctx.update_state(lambda order: attrs.evolve(order, status="processing"))
            yield from ctx.cancel_schedule()
        case Shipped():
            yield from ctx.update_state(lambda order: attrs.evolve(order, status="shipped"))
            yield from ctx.schedule("400 ms")


@Effect.gen
def look_after(ctx: TaskExecuteContext[Order]) -> Do[None, Unavailable, Need[Web]]:
    """Remind who has not paid, and ask the carrier about what was shipped."""
    web = yield from Effect.service(Web)
    order = yield from ctx.state
    if order is None:
        return
    if order.status == "pending":
        yield from web.post("/reminders", {"order": ctx.id})
        yield from Effect.log_info("reminded the customer of the payment")
        yield from ctx.update_state(lambda order: attrs.evolve(order, reminders=order.reminders + 1))
        yield from ctx.schedule("800 ms")
    if order.status == "shipped":
        carrier = yield from web.get(f"/deliveries/{quote(ctx.id)}")
        if carrier["delivered"]:
            yield from ctx.terminate("delivered")
        yield from ctx.schedule("400 ms")


def tidy_up_later(ctx: TaskIdleContext[Order]) -> Effect[None]:
    """Nothing is scheduled: come back in an hour."""
    return ctx.schedule("1 hour")


@Effect.gen
def try_again(error: object, ctx: TaskErrorContext[Order]) -> Do[None]:
    """The carrier is down: count it, and ask again soon."""
    yield from Effect.log_warning(f"{error}; asking again soon")
    yield from ctx.update_state(lambda order: attrs.evolve(order, failures=order.failures + 1))
    yield from ctx.schedule("300 ms")


order_processor = Task.make(
    state_schema=Order,
    event_schema=Schema.union(OrderPlaced, PaymentReceived, Shipped),
    on_event=follow,
    execute=look_after,
    on_idle=tidy_up_later,
    on_error=try_again,
    logging="INFO",
)


# -- together --------------------------------------------------------------------------------------

jobs = create_durable_jobs(
    {
        "tokenRefresher": token_refresher,
        "healthChecker": health_checker,
        "webhookBatcher": webhook_batcher,
        "orderProcessor": order_processor,
    },
    layer=Layer.sync(Web, lambda: Web(os.environ.get(WEB_URL, "http://127.0.0.1:8000"))),
)
