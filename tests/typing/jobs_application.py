"""An application as its authors write it, with no annotation beyond theirs: it must check as it stands.

The few wrong lines are what a newcomer gets wrong; both checkers must say so.
"""

import asyncio
from datetime import UTC, datetime
from typing import Protocol

import attrs

from durable_effect import Backoff, Do, Effect, Layer, Need, Schema, TypedError
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
    create_durable_jobs,
)
from durable_effect_jobs.testing import JobsTestKit

# ---- services ----------------------------------------------------------------------------------------------


@attrs.frozen
class Unavailable(TypedError):
    """The provider does not answer."""

    status: int


@attrs.frozen
class Declined(TypedError):
    """The payment was refused."""

    order_id: str


class Tokens(Protocol):
    """The identity provider."""

    def exchange(self, refresh_token: str) -> Effect[str, Unavailable]: ...


class Mailer(Protocol):
    """Outgoing mail."""

    def send(self, to: str, text: str) -> Effect[None, Unavailable]: ...


@attrs.frozen
class HttpTokens:
    """Tokens over HTTP."""

    endpoint: str

    def exchange(self, refresh_token: str) -> Effect[str, Unavailable]:
        return Effect.succeed(f"{self.endpoint}/{refresh_token}")


class Smtp:
    """Mail over SMTP."""

    def send(self, to: str, text: str) -> Effect[None, Unavailable]:
        return Effect.fail(Unavailable(503)) if not to else Effect.void


tokens_live = Layer.succeed(Tokens, HttpTokens("https://id.example.com"))
mail_live = Layer.sync(Mailer, Smtp)

# ---- a token refresher -------------------------------------------------------------------------------------


@attrs.frozen
class TokenState:
    """What is known of one user's token."""

    refresh_token: str
    access_token: str = ""
    refreshed_at: datetime | None = None


@Effect.gen
def refresh(ctx: ContinuousContext[TokenState]) -> Do[None, Unavailable, Need[Tokens]]:
    state = yield from ctx.state
    if not state.refresh_token:
        yield from ctx.terminate(reason="signed out")
    tokens = yield from Effect.service(Tokens)
    access_token = yield from tokens.exchange(state.refresh_token)
    yield from ctx.update_state(lambda old: attrs.evolve(old, access_token=access_token))


token_refresher = Continuous.make(
    state_schema=TokenState,
    schedule=Continuous.every("30 minutes"),
    retry=Retry(max_attempts=3, delay=Backoff.exponential("1 second", max="30 seconds")),
    execute=refresh,
)

# ---- a health checker: no service, a lambda ----------------------------------------------------------------


@attrs.frozen
class Health:
    """How often it was checked."""

    checks: int = 0


health_checker = Continuous.make(
    state_schema=Health,
    schedule=Continuous.cron("*/5 * * * *", tz="Europe/Berlin"),
    execute=lambda ctx: ctx.update_state(lambda health: Health(health.checks + 1)),
)

# ---- a webhook batcher -------------------------------------------------------------------------------------


@attrs.frozen
class Webhook:
    """What came in."""

    path: str


@attrs.frozen
class Batch:
    """What was collected."""

    webhooks: tuple[Webhook, ...] = ()


@Effect.gen
def collect(ctx: DebounceEventContext[Webhook, Batch]) -> Do[Batch]:
    yield from Effect.log_debug("a webhook")
    return Batch((*ctx.state.webhooks, ctx.event))


@Effect.gen
def send_batch(ctx: DebounceExecuteContext[Batch]) -> Do[None, Unavailable, Need[Mailer]]:
    batch = yield from ctx.state
    count = yield from ctx.event_count
    mailer = yield from Effect.service(Mailer)
    yield from mailer.send("ops@example.com", f"{count} webhooks: {[hook.path for hook in batch.webhooks]}")


webhook_batcher = Debounce.make(
    event_schema=Webhook,
    state_schema=Batch,
    initial_state=Batch,
    flush_after="5 seconds",
    max_events=100,
    on_event=collect,
    execute=send_batch,
)
latest_webhook = Debounce.make(
    event_schema=Webhook, flush_after="1 minute", execute=lambda ctx: ctx.state.map(lambda hook: hook.path)
)

# ---- an order processor ------------------------------------------------------------------------------------


@attrs.frozen
class OrderPlaced:
    """The customer ordered."""

    order_id: str
    email: str


@attrs.frozen
class PaymentReceived:
    """The customer paid."""

    amount: int


@attrs.frozen
class Order:
    """One order."""

    order_id: str
    email: str
    paid: int = 0


@Effect.gen
def on_event(event: OrderPlaced | PaymentReceived, ctx: TaskEventContext[Order]) -> Do[None]:
    match event:
        case OrderPlaced(order_id, email):
            yield from ctx.set_state(Order(order_id, email))
            yield from ctx.schedule("1 day")
        case PaymentReceived(amount):
            yield from ctx.update_state(lambda order: attrs.evolve(order, paid=order.paid + amount))
            yield from ctx.schedule(datetime(2030, 1, 1, tzinfo=UTC))


@Effect.gen
def check(ctx: TaskExecuteContext[Order]) -> Do[None, Unavailable | Declined, Need[Tokens] | Need[Mailer]]:
    order = yield from ctx.state
    if order is None:
        return
    if not order.paid:
        yield from Effect.fail(Declined(order.order_id))
    tokens = yield from Effect.service(Tokens)
    receipt = yield from tokens.exchange(order.order_id)
    mailer = yield from Effect.service(Mailer)
    yield from mailer.send(order.email, receipt)


@Effect.gen
def give_up(error: object, ctx: TaskErrorContext[Order]) -> Do[None]:
    if isinstance(error, Declined):
        yield from ctx.terminate(reason="declined")
    yield from ctx.schedule("10 minutes")


order_processor = Task.make(
    state_schema=Order,
    event_schema=Schema.union(OrderPlaced, PaymentReceived),
    on_event=on_event,
    execute=check,
    on_error=give_up,
)

# ---- all of them -------------------------------------------------------------------------------------------

jobs = create_durable_jobs(
    {
        "tokenRefresher": token_refresher,
        "healthChecker": health_checker,
        "webhookBatcher": webhook_batcher,
        "latestWebhook": latest_webhook,
        "orderProcessor": order_processor,
    },
    layer=tokens_live.merge(mail_live),
)


async def main() -> None:
    """Run for a while."""
    async with jobs.connect("sqlite:///jobs.db") as client:
        tokens = client.continuous(token_refresher)
        started = await tokens.start(id="user-123", input=TokenState(refresh_token="rt_abc"))
        print(started.created, started.instance_id)
        await client.debounce(webhook_batcher).add(id="github", event=Webhook("/push"), event_id="delivery-1")
        await client.task(order_processor).send(id="o-1", event=OrderPlaced("o-1", "a@example.com"))
        found = await tokens.get_state("user-123")
        if found.state is not None:
            print(found.state.access_token)
        await Effect.sleep("10 seconds")


def test_it_refreshes() -> None:
    """As users test."""
    with JobsTestKit(jobs, now=datetime(2026, 1, 1, tzinfo=UTC), layer=tokens_live.merge(mail_live)) as kit:
        kit.run(kit.client.continuous(token_refresher).start(id="u1", input=TokenState("rt")))
        kit.advance("30 minutes")
        assert kit.run(kit.client.continuous(token_refresher).status("u1")).run_count == 2


if __name__ == "__main__":
    asyncio.run(main())

# ---- what a newcomer gets wrong ----------------------------------------------------------------------------

create_durable_jobs({"tokenRefresher": token_refresher})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]
create_durable_jobs(  # pyright: ignore[reportCallIssue]
    {"tokenRefresher": token_refresher, "orderProcessor": order_processor},  # type: ignore[dict-item]
    layer=tokens_live,  # pyright: ignore[reportArgumentType]
)


@Effect.gen
def forgets_from(ctx: ContinuousContext[Health]) -> Do[None]:
    health = yield ctx.state  # type: ignore[misc] # pyright: ignore[reportReturnType]
    yield from ctx.set_state(health)


@Effect.gen
def forgets_yield_from(ctx: ContinuousContext[Health]) -> Do[None]:
    health = ctx.state
    yield from ctx.set_state(health)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@Effect.gen
def forgets_a_service(ctx: ContinuousContext[Health]) -> Do[None, Unavailable]:
    tokens = yield from Effect.service(Tokens)  # type: ignore[misc] # pyright: ignore[reportReturnType]
    yield from tokens.exchange("rt")
