"""The README examples of the TypeScript original, in Python: what its users were promised works here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
import pytest

from durable_effect import Backoff, Do, Duration, Effect, Layer, Need, Schema, TypedError, provide_service
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
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def after(**span: float) -> datetime:
    return NOON + timedelta(**span)


OpenKit = Callable[..., JobsTestKit]


@pytest.fixture
def open_kit() -> Iterator[OpenKit]:
    """Opens a kit of the given jobs at noon; `layer` and `tracker` go to `create_durable_jobs`."""
    with ExitStack() as stack:

        def open_one(jobs: dict[str, Any], **options: Any) -> JobsTestKit:
            return stack.enter_context(JobsTestKit(create_durable_jobs(jobs, **options), now=NOON))

        yield open_one


# -- the token refresher -----------------------------------------------------------------------------


@attrs.frozen
class TokenState:
    access_token: str
    refresh_token: str
    expires_at: datetime | None = None


@attrs.frozen
class RefreshDenied(TypedError):
    refresh_token: str


class TokenApi(Protocol):
    """Where access tokens come from."""

    def refresh(self, refresh_token: str) -> Effect[str, RefreshDenied]: ...


class CountingTokens:
    """Hands out numbered tokens; the first `denials` requests are denied."""

    def __init__(self, denials: int = 0) -> None:
        self.asked, self.denials = 0, denials

    def refresh(self, refresh_token: str) -> Effect[str, RefreshDenied]:
        return Effect.suspend(lambda: self.answer(refresh_token))

    def answer(self, refresh_token: str) -> Effect[str, RefreshDenied]:
        self.asked += 1
        if self.asked <= self.denials:
            return Effect.fail(RefreshDenied(refresh_token))
        return Effect.succeed(f"at_{self.asked}")


@Effect.gen
def refresh(ctx: ContinuousContext[TokenState]) -> Do[None, RefreshDenied, Need[TokenApi]]:
    api = yield from Effect.service(TokenApi)
    state = yield from ctx.state
    token = yield from api.refresh(state.refresh_token)
    expires_at = NOON + timedelta(minutes=30 * ctx.run_count)
    yield from ctx.set_state(attrs.evolve(state, access_token=token, expires_at=expires_at))


def token_refresher(**options: Any) -> Any:
    return Continuous.make(
        **{
            "state_schema": TokenState,
            "schedule": Continuous.every("30 minutes"),
            "execute": refresh,
            **options,
        }
    )


FRESH = TokenState(access_token="", refresh_token="rt_abc")


def test_the_token_refresher_gets_its_first_token_at_once(open_kit: OpenKit) -> None:
    """The quick start: a job that starts immediately has run once when `start` answers."""
    job = token_refresher()
    kit = open_kit({"tokenRefresher": job}, layer=Layer.succeed(TokenApi, CountingTokens()))

    started = kit.run(kit.client.continuous(job).start(id="user-123", input=FRESH))

    assert started.created is True
    assert started.instance_id == "continuous:tokenRefresher:user-123"
    assert started.status == "running"
    state = kit.run(kit.client.continuous(job).get_state("user-123")).state
    assert state == TokenState("at_1", "rt_abc", after(minutes=30))


def test_the_token_refresher_refreshes_every_thirty_minutes(open_kit: OpenKit) -> None:
    """One refresh per half hour, each with its number."""
    job = token_refresher()
    kit = open_kit({"tokenRefresher": job}, layer=Layer.succeed(TokenApi, CountingTokens()))
    kit.run(kit.client.continuous(job).start(id="user-123", input=FRESH))

    kit.advance("2 hours")

    status = kit.run(kit.client.continuous(job).status("user-123"))
    assert (status.status, status.run_count, status.next_run_at) == ("running", 5, after(hours=2, minutes=30))
    state = kit.run(kit.client.continuous(job).get_state("user-123")).state
    assert state == TokenState("at_5", "rt_abc", after(hours=2, minutes=30))


def test_the_token_refresher_survives_a_restart(open_kit: OpenKit) -> None:
    """State and schedule are still there when the process is not."""
    job = token_refresher()
    kit = open_kit({"tokenRefresher": job}, layer=Layer.succeed(TokenApi, CountingTokens()))
    kit.run(kit.client.continuous(job).start(id="user-123", input=FRESH))
    kit.advance("20 minutes")

    kit.restart()
    kit.advance("10 minutes")

    state = kit.run(kit.client.continuous(job).get_state("user-123")).state
    assert state.access_token == "at_2"


def test_the_token_refresher_retries_a_denial(open_kit: OpenKit) -> None:
    """Three attempts, one and two seconds apart, and the schedule goes on from the first."""
    tokens = CountingTokens(denials=2)
    job = token_refresher(
        retry=Retry(max_attempts=3, delay=Backoff.exponential("1 second", max="30 seconds"), jitter=False)
    )
    kit = open_kit({"tokenRefresher": job}, layer=Layer.succeed(TokenApi, tokens))

    kit.run(kit.client.continuous(job).start(id="user-123", input=FRESH))
    assert tokens.asked == 1
    kit.advance("1 second")
    assert tokens.asked == 2
    kit.advance("2 seconds")

    assert tokens.asked == 3
    status = kit.run(kit.client.continuous(job).status("user-123"))
    assert (status.run_count, status.next_run_at) == (1, after(minutes=30))


def test_a_kit_may_bring_its_own_services() -> None:
    """A test gives the kit a layer of its own for what the handlers need."""
    job = token_refresher()
    jobs = create_durable_jobs(
        {"tokenRefresher": job}, layer=Layer.succeed(TokenApi, CountingTokens(denials=99))
    )
    with JobsTestKit(jobs, now=NOON, layer=Layer.succeed(TokenApi, CountingTokens())) as kit:
        kit.run(kit.client.continuous(job).start(id="user-123", input=FRESH))
        state = kit.run(kit.client.continuous(job).get_state("user-123")).state

    assert state.access_token == "at_1"


def test_a_handler_may_provide_for_itself(open_kit: OpenKit) -> None:
    """A handler whose services are provided where it is defined needs no layer."""
    tokens = CountingTokens()
    job = token_refresher(execute=lambda ctx: refresh(ctx).pipe(provide_service(TokenApi, tokens)))
    kit = open_kit({"tokenRefresher": job})

    kit.run(kit.client.continuous(job).start(id="user-123", input=FRESH))

    assert tokens.asked == 1


# -- the health checker ------------------------------------------------------------------------------


@attrs.frozen
class Health:
    consecutive_failures: int = 0
    last_check_at: datetime | None = None


class Pulse(Protocol):
    """Whether the patient is alive."""

    def check(self) -> Effect[bool]: ...


class ScriptedPulse:
    """Answers from a list, then `False` for ever."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    def check(self) -> Effect[bool]:
        return Effect.sync(lambda: self.answers.pop(0) if self.answers else False)


@Effect.gen
def check_health(ctx: ContinuousContext[Health]) -> Do[None, Any, Need[Pulse]]:
    state = yield from ctx.state
    yield from Effect.log_info(f"run #{ctx.run_count}, attempt {ctx.attempt}")
    pulse = yield from Effect.service(Pulse)
    healthy = yield from pulse.check()
    if not healthy and state.consecutive_failures > 10:
        yield from ctx.terminate(reason="Too many failures")
    yield from ctx.update_state(
        lambda health: Health(0 if healthy else health.consecutive_failures + 1, ctx.scheduled_for)
    )


def health_checker() -> Any:
    return Continuous.make(
        state_schema=Health,
        schedule=Continuous.every("5 minutes"),
        start_immediately=True,
        retry=Retry(max_attempts=3, delay=Backoff.exponential("1 second", max="30 seconds")),
        execute=check_health,
    )


def test_the_health_checker_counts_failures_in_a_row(open_kit: OpenKit) -> None:
    """A healthy answer sets the count back."""
    job = health_checker()
    kit = open_kit(
        {"healthChecker": job}, layer=Layer.succeed(Pulse, ScriptedPulse(True, False, False, True))
    )
    checks = kit.client.continuous(job)
    counts = []

    kit.run(checks.start(id="api", input=Health()))
    for _ in range(4):
        counts.append(kit.run(checks.get_state("api")).state.consecutive_failures)
        kit.advance("5 minutes")

    assert counts == [0, 1, 2, 0]


def test_the_health_checker_gives_up(open_kit: OpenKit) -> None:
    """After more than ten failures in a row the job ends itself and the id is free."""
    job = health_checker()
    kit = open_kit({"healthChecker": job}, layer=Layer.succeed(Pulse, ScriptedPulse()))
    checks = kit.client.continuous(job)
    kit.run(checks.start(id="api", input=Health()))

    kit.advance("50 minutes")
    assert kit.run(checks.get_state("api")).state.consecutive_failures == 11
    kit.advance("5 minutes")

    assert kit.run(checks.status("api")).status == "not_found"
    assert kit.events[-1].type == "job.terminated"
    assert kit.events[-1].reason == "Too many failures"
    assert kit.run(checks.start(id="api", input=Health())).created is True


@pytest.mark.parametrize(
    ("expression", "next_run_at"),
    [
        ("*/5 * * * *", after(minutes=5)),
        ("0 */5 * * *", datetime(2026, 1, 1, 15, tzinfo=UTC)),
        ("0 0 * * *", datetime(2026, 1, 2, tzinfo=UTC)),
        ("30 0 4 * * *", datetime(2026, 1, 2, 4, 0, 30, tzinfo=UTC)),
        ("0 9 * * MON", datetime(2026, 1, 5, 9, tzinfo=UTC)),
    ],
)
def test_a_schedule_may_be_a_cron_expression(
    open_kit: OpenKit, expression: str, next_run_at: datetime
) -> None:
    """Five fields, or six with seconds first, in UTC unless told otherwise."""
    job = Continuous.make(
        state_schema=Health,
        schedule=Continuous.cron(expression),
        start_immediately=False,
        execute=lambda ctx: Effect.void,
    )
    kit = open_kit({"report": job})

    kit.run(kit.client.continuous(job).start(id="daily", input=Health()))

    assert kit.run(kit.client.continuous(job).status("daily")).next_run_at == next_run_at


def test_a_cron_schedule_may_have_a_time_zone(open_kit: OpenKit) -> None:
    """Nine o'clock in Berlin is eight o'clock UTC in winter."""
    schedule = Continuous.cron("0 9 * * *", tz="Europe/Berlin")

    assert schedule.next_after(NOON) == datetime(2026, 1, 2, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "span", ["30 minutes", "30m", "1800 s", "0.5 hours", timedelta(minutes=30), Duration.minutes(30)], ids=str
)
def test_an_interval_may_be_written_in_many_ways(span: Any) -> None:
    """Text with a unit, a timedelta, or the helper that makes one."""
    assert Continuous.every(span).next_after(NOON) == after(minutes=30)


# -- the webhook batcher -----------------------------------------------------------------------------


@attrs.frozen
class Webhook:
    type: str
    contact_id: str
    data: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class WebhookBatch:
    events: list[Webhook] = attrs.field(factory=list)
    count: int = 0


class Hooks:
    """Where batches are sent, and what was sent there."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, list[Webhook]]] = []

    def send(self, count: int, reason: str, events: list[Webhook]) -> Effect[None]:
        return Effect.sync(lambda: self.sent.append((count, reason, events)))


def collect(ctx: DebounceEventContext[Webhook, WebhookBatch]) -> Effect[WebhookBatch]:
    return Effect.succeed(WebhookBatch([*ctx.state.events, ctx.event], ctx.state.count + 1))


@Effect.gen
def send_batch(ctx: DebounceExecuteContext[WebhookBatch]) -> Do[None, Any, Need[Hooks]]:
    hooks = yield from Effect.service(Hooks)
    state = yield from ctx.state
    count = yield from ctx.event_count
    yield from Effect.log_info(f"flushing {count} events, reason: {ctx.flush_reason}")
    yield from hooks.send(count, ctx.flush_reason, state.events)


webhook_batcher = Debounce.make(
    event_schema=Webhook,
    state_schema=WebhookBatch,
    initial_state=WebhookBatch,
    flush_after="5 seconds",
    max_events=100,
    on_event=collect,
    execute=send_batch,
)


def contact_updated(number: int = 0) -> Webhook:
    return Webhook("contact.updated", "456", {"number": number})


@pytest.fixture
def hooks() -> Hooks:
    """The receiver of batches."""
    return Hooks()


@pytest.fixture
def webhooks(open_kit: OpenKit, hooks: Hooks) -> JobsTestKit:
    """The webhook batcher on virtual time."""
    return open_kit({"webhookBatcher": webhook_batcher}, layer=Layer.succeed(Hooks, hooks))


def test_the_webhook_batcher_takes_its_first_event(webhooks: JobsTestKit) -> None:
    """The README's own reducer reads `ctx.state.events` on the first event, and that works."""
    batches = webhooks.client.debounce(webhook_batcher)

    added = webhooks.run(batches.add(id="contact-456", event=contact_updated()))

    assert (added.created, added.event_count, added.will_flush_at) == (True, 1, after(seconds=5))
    state = webhooks.run(batches.get_state("contact-456")).state
    assert state == WebhookBatch([contact_updated()], 1)


def test_the_webhook_batcher_sends_what_came_within_five_seconds(webhooks: JobsTestKit, hooks: Hooks) -> None:
    """One request for many events, first one included."""
    batches = webhooks.client.debounce(webhook_batcher)
    for number in range(3):
        webhooks.run(batches.add(id="contact-456", event=contact_updated(number)))
        webhooks.advance("1 second")

    webhooks.advance("2 seconds")

    assert hooks.sent == [(3, "flushAfter", [contact_updated(number) for number in range(3)])]


def test_the_webhook_batcher_sends_a_full_batch_at_once(webhooks: JobsTestKit, hooks: Hooks) -> None:
    """The hundredth event does not wait for the five seconds."""
    batches = webhooks.client.debounce(webhook_batcher)

    for number in range(101):
        webhooks.run(batches.add(id="contact-456", event=contact_updated(number)))

    ((count, reason, events),) = hooks.sent
    assert (count, reason, len(events)) == (100, "maxEvents", 100)
    assert webhooks.run(batches.status("contact-456")).event_count == 1


def test_the_webhook_batcher_can_be_flushed_by_hand(webhooks: JobsTestKit, hooks: Hooks) -> None:
    """`flush` sends now."""
    batches = webhooks.client.debounce("webhookBatcher")
    webhooks.run(
        batches.add(
            id="contact-456", event={"type": "contact.updated", "contact_id": "456", "data": {"number": 0}}
        )
    )

    webhooks.run(batches.flush("contact-456"))

    assert hooks.sent == [(1, "manual", [contact_updated()])]


def test_the_default_reducer_keeps_the_latest_event(open_kit: OpenKit) -> None:
    """Without a reducer and a state, the batch is the last event."""
    flushed: list[Webhook] = []

    @Effect.gen
    def execute(ctx: DebounceExecuteContext[Webhook]) -> Do[None]:
        flushed.append((yield from ctx.state))

    latest = Debounce.make(event_schema=Webhook, flush_after="5 seconds", execute=execute)
    kit = open_kit({"latest": latest})
    for number in range(3):
        kit.run(kit.client.debounce(latest).add(id="c", event=contact_updated(number)))

    kit.advance("5 seconds")

    assert flushed == [contact_updated(2)]


# -- the order processor -----------------------------------------------------------------------------


@attrs.frozen
class Order:
    order_id: str
    status: Literal["pending", "processing", "shipped", "delivered"]
    attempts: int = 0


@attrs.frozen
class OrderPlaced:
    order_id: str


@attrs.frozen
class PaymentReceived:
    pass


@attrs.frozen
class Shipped:
    tracking_number: str


@attrs.frozen
class CarrierDown(TypedError):
    carrier: str


class Shop:
    """The world of the order processor: reminders that went out, and what the carrier says."""

    def __init__(self) -> None:
        self.reminders: list[str] = []
        self.delivered = False
        self.carrier_up = True

    def send_payment_reminder(self, order_id: str) -> Effect[None]:
        return Effect.sync(lambda: self.reminders.append(order_id))

    def check_delivery(self, order_id: str) -> Effect[bool, CarrierDown]:
        return Effect.suspend(
            lambda: Effect.succeed(self.delivered) if self.carrier_up else Effect.fail(CarrierDown("acme"))
        )


@Effect.gen
def on_order_event(event: OrderPlaced | PaymentReceived | Shipped, ctx: TaskEventContext[Order]) -> Do[None]:
    match event:
        case OrderPlaced(order_id):
            yield from ctx.set_state(Order(order_id, "pending"))
            yield from ctx.schedule(Duration.minutes(5))
        case PaymentReceived():
            yield from ctx.update_state(lambda order: attrs.evolve(order, status="processing"))
        case Shipped():
            yield from ctx.update_state(lambda order: attrs.evolve(order, status="shipped"))
            yield from ctx.schedule(Duration.hours(24))


@Effect.gen
def check_order(ctx: TaskExecuteContext[Order]) -> Do[None, CarrierDown, Need[Shop]]:
    shop = yield from Effect.service(Shop)
    state = yield from ctx.state
    if state is None:
        return
    if state.status == "pending":
        yield from shop.send_payment_reminder(state.order_id)
        yield from ctx.schedule(Duration.minutes(30))
    if state.status == "shipped":
        if (yield from shop.check_delivery(state.order_id)):
            yield from ctx.update_state(lambda order: attrs.evolve(order, status="delivered"))
            yield from ctx.terminate()
        yield from ctx.schedule(Duration.hours(24))


def tidy_up_later(ctx: TaskIdleContext[Order]) -> Effect[None]:
    return ctx.schedule(Duration.hours(1))


@Effect.gen
def try_again(error: Any, ctx: TaskErrorContext[Order]) -> Do[None]:
    yield from Effect.log_error("Task failed", error)
    yield from ctx.update_state(lambda order: attrs.evolve(order, attempts=order.attempts + 1))
    yield from ctx.schedule(Duration.seconds(30))


order_processor = Task.make(
    state_schema=Order,
    event_schema=Schema.union(OrderPlaced, PaymentReceived, Shipped),
    on_event=on_order_event,
    execute=check_order,
    on_idle=tidy_up_later,
    on_error=try_again,
)


class OrderScene:
    """One order on virtual time."""

    def __init__(self, kit: JobsTestKit, shop: Shop) -> None:
        self.kit, self.shop = kit, shop

    @property
    def client(self) -> Any:
        return self.kit.client.task(order_processor)

    def send(self, event: Any) -> Any:
        return self.kit.run(self.client.send(id="order-789", event=event))

    def order(self) -> Order | None:
        return self.kit.run(self.client.get_state("order-789")).state

    def status(self) -> Any:
        return self.kit.run(self.client.status("order-789"))


@pytest.fixture
def orders(open_kit: OpenKit) -> OrderScene:
    """The order processor and its shop."""
    shop = Shop()
    return OrderScene(open_kit({"orderProcessor": order_processor}, layer=Layer.succeed(Shop, shop)), shop)


def test_a_placed_order_waits_five_minutes_for_its_payment(orders: OrderScene) -> None:
    """The answer of the first event has the time of the first check."""
    sent = orders.send(OrderPlaced("order-789"))

    assert sent.created is True
    assert sent.instance_id == "task:orderProcessor:order-789"
    assert sent.scheduled_at == after(minutes=5)
    assert orders.order() == Order("order-789", "pending")


def test_an_unpaid_order_is_reminded_every_half_hour(orders: OrderScene) -> None:
    """The first reminder goes out after five minutes, then one every thirty."""
    orders.send(OrderPlaced("order-789"))

    orders.kit.advance("5 minutes")
    assert orders.shop.reminders == ["order-789"]
    orders.kit.advance("1 hour")

    assert orders.shop.reminders == ["order-789"] * 3
    assert orders.status().scheduled_at == after(minutes=95)


def test_a_paid_order_is_processed(orders: OrderScene) -> None:
    """The payment leaves the pending check, which then finds nothing to remind of and idles."""
    orders.send(OrderPlaced("order-789"))
    orders.kit.advance("1 minute")

    paid = orders.send({"_tag": "PaymentReceived"})
    assert (paid.created, paid.scheduled_at) == (False, after(minutes=5))
    orders.kit.advance("4 minutes")

    assert orders.shop.reminders == []
    assert orders.order() == Order("order-789", "processing")
    assert orders.status().scheduled_at == after(hours=1, minutes=5)


def test_a_shipped_order_is_checked_daily_until_it_is_delivered(orders: OrderScene) -> None:
    """Delivery completes the order: the task terminates itself."""
    orders.send(OrderPlaced("order-789"))
    shipped = orders.send({"_tag": "Shipped", "tracking_number": "1Z"})
    assert shipped.scheduled_at == after(hours=24)

    orders.kit.advance("1 day")
    assert orders.status().scheduled_at == after(hours=48)
    orders.shop.delivered = True
    orders.kit.advance("1 day")

    assert orders.status().status == "not_found"
    assert orders.kit.events[-1].type == "job.terminated"


def test_an_order_whose_carrier_is_down_is_tried_again(orders: OrderScene) -> None:
    """The error handler counts the attempt and tries again in half a minute."""
    orders.send(OrderPlaced("order-789"))
    orders.send(Shipped("1Z"))
    orders.shop.carrier_up = False

    orders.kit.advance("1 day")
    assert orders.order() == Order("order-789", "shipped", attempts=1)
    assert orders.status().scheduled_at == after(days=1, seconds=30)
    orders.kit.advance("30 seconds")
    assert orders.order() == Order("order-789", "shipped", attempts=2)

    orders.shop.carrier_up, orders.shop.delivered = True, True
    orders.kit.advance("30 seconds")
    assert orders.status().status == "not_found"


def test_an_order_event_before_the_order_changes_no_state(orders: OrderScene) -> None:
    """A payment without an order finds no state to update; the idle task will tidy up."""
    sent = orders.send(PaymentReceived())

    assert orders.order() is None
    assert sent.scheduled_at == after(hours=1)


# -- every call of the client ------------------------------------------------------------------------


@pytest.fixture
def shop_kit(open_kit: OpenKit, hooks: Hooks) -> JobsTestKit:
    """The three jobs of the README side by side."""
    return open_kit(
        {
            "tokenRefresher": token_refresher(),
            "webhookBatcher": webhook_batcher,
            "orderProcessor": order_processor,
        },
        layer=Layer.succeed(TokenApi, CountingTokens())
        .merge(Layer.succeed(Hooks, hooks))
        .merge(Layer.succeed(Shop, Shop())),
    )


def test_every_call_of_the_continuous_client(shop_kit: JobsTestKit) -> None:
    """Start, trigger, status, state and terminate, by name, as in the README."""
    run, client = shop_kit.run, shop_kit.client.continuous("tokenRefresher")

    started = run(client.start(id="user-123", input={"access_token": "", "refresh_token": "rt_abc"}))
    triggered = run(client.trigger("user-123"))
    status = run(client.status("user-123"))
    state = run(client.get_state("user-123")).state
    ended = run(client.terminate("user-123", reason="User requested"))

    assert (started.created, started.instance_id, started.status) == (
        True,
        "continuous:tokenRefresher:user-123",
        "running",
    )
    assert (triggered.triggered, bool(triggered.terminated), bool(triggered.retry_scheduled)) == (
        True,
        False,
        False,
    )
    assert (status.status, status.run_count, status.next_run_at) == ("running", 2, after(minutes=30))
    assert status.last_error is None
    assert state == TokenState("at_2", "rt_abc", after(hours=1))
    assert (ended.terminated, ended.reason) == (True, "User requested")
    assert run(client.status("user-123")).status == "not_found"


def test_every_call_of_the_debounce_client(shop_kit: JobsTestKit, hooks: Hooks) -> None:
    """Add, flush, clear, status and state, by name, as in the README."""
    run, client = shop_kit.run, shop_kit.client.debounce("webhookBatcher")
    event = {"type": "contact.updated", "contact_id": "456", "data": {}}

    added = run(client.add(id="contact-456", event=event))
    status = run(client.status("contact-456"))
    state = run(client.get_state("contact-456")).state
    flushed = run(client.flush("contact-456"))
    run(client.add(id="contact-456", event=event))
    cleared = run(client.clear("contact-456"))

    assert (added.created, added.event_count, added.will_flush_at) == (True, 1, after(seconds=5))
    assert (status.status, status.event_count, status.will_flush_at) == ("debouncing", 1, after(seconds=5))
    assert state == WebhookBatch([Webhook("contact.updated", "456")], 1)
    assert (flushed.flushed, flushed.event_count, flushed.reason) == (True, 1, "manual")
    assert (cleared.cleared, cleared.discarded_events) == (True, 1)
    assert len(hooks.sent) == 1


def test_every_call_of_the_task_client(shop_kit: JobsTestKit) -> None:
    """Send, trigger, status, state and terminate, by name, as in the README."""
    run, client = shop_kit.run, shop_kit.client.task("orderProcessor")

    sent = run(client.send(id="order-789", event={"_tag": "OrderPlaced", "order_id": "order-789"}))
    triggered = run(client.trigger("order-789"))
    status = run(client.status("order-789"))
    got = run(client.get_state("order-789"))
    ended = run(client.terminate("order-789"))

    assert (sent.created, sent.instance_id) == (True, "task:orderProcessor:order-789")
    assert sent.scheduled_at == after(minutes=5)
    assert (triggered.triggered, bool(triggered.terminated)) == (True, False)
    assert (status.status, status.scheduled_at) == ("active", after(minutes=30))
    assert (status.event_count, status.execute_count) == (1, 1)
    assert (got.state, got.scheduled_at) == (Order("order-789", "pending"), after(minutes=30))
    assert ended.terminated is True
    assert run(client.status("order-789")).status == "not_found"


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{tmp}/jobs.db"])
def test_the_readmes_jobs_run_outside_of_tests(url: str, tmp_path: Path, hooks: Hooks) -> None:
    """Connected to a storage, every call is awaited where the README yields it."""
    refresher = token_refresher()
    services = (
        Layer.succeed(TokenApi, CountingTokens())
        .merge(Layer.succeed(Hooks, hooks))
        .merge(Layer.succeed(Shop, Shop()))
    )
    jobs = create_durable_jobs(
        {
            "tokenRefresher": refresher,
            "webhookBatcher": webhook_batcher,
            "orderProcessor": order_processor,
        },
        layer=services,
    )

    async def program() -> list[Any]:
        async with jobs.connect(url.format(tmp=tmp_path)) as client:
            started = await client.continuous(refresher).start(id="user-123", input=FRESH)
            tokens = await client.continuous(refresher).get_state("user-123")
            added = await client.debounce(webhook_batcher).add(id="contact-456", event=contact_updated())
            flushed = await client.debounce(webhook_batcher).flush("contact-456")
            sent = await client.task(order_processor).send(id="order-789", event=OrderPlaced("order-789"))
            order = await client.task(order_processor).get_state("order-789")
        return [
            started.status,
            tokens.state.access_token,
            added.event_count,
            flushed.flushed,
            sent.created,
            order.state,
        ]

    answers = asyncio.run(program())

    assert answers == ["running", "at_1", 1, True, True, Order("order-789", "pending")]
    assert hooks.sent == [(1, "manual", [contact_updated()])]


# -- state schemas -----------------------------------------------------------------------------------


def test_a_state_may_be_of_any_of_the_readmes_types(open_kit: OpenKit) -> None:
    """Primitives, rich types and optional fields of a struct come back as they were given."""
    state_schema = Schema.struct(
        {
            "count": Schema.number,
            "name": Schema.string,
            "active": Schema.boolean,
            "created_at": Schema.datetime,
            "data": Schema.unknown,
            "last_error": Schema.optional(Schema.string),
        }
    )
    job = Continuous.make(
        state_schema=state_schema, schedule=Continuous.every("1 hour"), execute=lambda ctx: Effect.void
    )
    kit = open_kit({"sampler": job})
    state = {
        "count": 1.5,
        "name": "ü",
        "active": True,
        "created_at": NOON,
        "data": {"nested": [1, None, "x"]},
    }

    kit.run(kit.client.continuous(job).start(id="without", input=state))
    kit.run(kit.client.continuous(job).start(id="with", input={**state, "last_error": "timeout"}))
    kit.restart()

    assert kit.run(kit.client.continuous(job).get_state("without")).state == state
    assert kit.run(kit.client.continuous(job).get_state("with")).state == {**state, "last_error": "timeout"}


# -- schedule inputs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "scheduled_at"),
    [
        (Duration.seconds(30), after(seconds=30)),
        ("5 minutes", after(minutes=5)),
        (int(after(minutes=1).timestamp() * 1000), after(minutes=1)),
        (datetime(2026, 12, 31, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)),
        (Duration.hours(24), after(days=1)),
        ("1 week", after(weeks=1)),
    ],
    ids=str,
)
def test_every_schedule_input_of_the_readme(open_kit: OpenKit, when: Any, scheduled_at: datetime) -> None:
    """Spans from now, milliseconds since the epoch, and dates."""
    alarm_clock = Task.make(
        state_schema=Health,
        event_schema=Health,
        on_event=lambda event, ctx: ctx.schedule(when),
        execute=lambda ctx: Effect.void,
    )
    kit = open_kit({"alarmClock": alarm_clock})

    sent = kit.run(kit.client.task(alarm_clock).send(id="a", event=Health()))

    assert sent.scheduled_at == scheduled_at


# -- retries and backoff -----------------------------------------------------------------------------


def failing_runs(open_kit: OpenKit, **retry: Any) -> tuple[list[timedelta], list[tuple[int, bool]]]:
    """How long after noon each run of a job that always fails was, and what it knew of its attempt."""
    runs, attempts = list[timedelta](), list[tuple[int, bool]]()

    def fail(ctx: ContinuousContext[Health]) -> Effect[None, CarrierDown]:
        runs.append(kit.now - NOON)
        attempts.append((ctx.attempt, ctx.is_retry))
        return Effect.fail(CarrierDown("acme"))

    job = Continuous.make(
        state_schema=Health, schedule=Continuous.every("1 day"), retry=Retry(**retry), execute=fail
    )
    kit = open_kit({"failing": job})
    kit.run(kit.client.continuous(job).start(id="f", input=Health()))
    kit.advance("20 hours")
    return runs, attempts


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (Backoff.exponential("1 second", max="30 seconds"), [0, 1, 3, 7, 15, 31, 61, 91]),
        (Backoff.exponential("1 second", factor=3.0), [0, 1, 4, 13, 40, 121, 364, 1093]),
        (Backoff.linear("1 second", "1 second"), [0, 1, 3, 6, 10, 15, 21, 28]),
        (
            Backoff.linear(initial="1 second", increment="2 seconds", max="5 seconds"),
            [0, 1, 4, 9, 14, 19, 24, 29],
        ),
        (Backoff.linear(base="1 second", increment="1 second"), [0, 1, 3, 6, 10, 15, 21, 28]),
        (Backoff.fixed("5 seconds"), [0, 5, 10, 15, 20, 25, 30, 35]),
        (Backoff.constant("5 seconds"), [0, 5, 10, 15, 20, 25, 30, 35]),
        (lambda attempt: timedelta(seconds=attempt * 10), [0, 10, 30, 60, 100, 150, 210, 280]),
    ],
    ids=[
        "exponential",
        "factor",
        "linear",
        "capped linear",
        "linear by base",
        "fixed",
        "constant",
        "function",
    ],
)
def test_every_backoff_of_the_readme(open_kit: OpenKit, delay: Any, seconds: list[int]) -> None:
    """Attempt after attempt at exactly the documented delays."""
    at, attempts = failing_runs(open_kit, max_attempts=8, delay=delay, jitter=False)

    assert at == [timedelta(seconds=each) for each in seconds]
    assert attempts == [(number, number > 1) for number in range(1, 9)]


@pytest.mark.parametrize("name", ["standard", "aggressive", "patient", "simple"])
def test_every_backoff_preset_makes_a_retry(open_kit: OpenKit, name: str) -> None:
    """The presets are delays like any other: later attempts never come sooner."""
    delay = getattr(Backoff.presets, name)

    at, _ = failing_runs(open_kit, max_attempts=4, delay=delay, jitter=False)

    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps == [delay.delay(number) for number in (1, 2, 3)]
    assert gaps == sorted(gaps)


def test_jitter_spreads_retries_by_a_tenth(open_kit: OpenKit) -> None:
    """With jitter each delay is within ten per cent of its figure, and never above the cap."""
    at, _ = failing_runs(
        open_kit, max_attempts=30, delay=Backoff.exponential("10 seconds", factor=1.0, max="10 seconds")
    )

    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert all(timedelta(seconds=9) <= gap <= timedelta(seconds=10) for gap in gaps)
    assert len(set(gaps)) > 1


def test_exhausted_retries_terminate_and_purge(open_kit: OpenKit) -> None:
    """The README's promise: when all attempts failed the job is gone and says so."""
    job = Continuous.make(
        state_schema=Health,
        schedule=Continuous.every("1 day"),
        retry=Retry(max_attempts=3),
        execute=lambda ctx: Effect.fail(CarrierDown("acme")),
    )
    kit = open_kit({"failing": job})
    kit.run(kit.client.continuous(job).start(id="f", input=Health()))

    kit.advance("1 minute")

    assert kit.run(kit.client.continuous(job).status("f")).status == "not_found"
    assert [event.type for event in kit.events[-2:]] == ["job.retryExhausted", "job.terminated"]


# -- logging -----------------------------------------------------------------------------------------


def logged(open_kit: OpenKit, caplog: pytest.LogCaptureFixture, level: Any) -> list[logging.LogRecord]:
    """What a job of this `logging=` writes to its logger in one run that succeeds and one that fails."""
    caplog.set_level(logging.DEBUG, logger="durable_effect_jobs")

    @Effect.gen
    def chat(ctx: ContinuousContext[Health]) -> Do[None, CarrierDown]:
        yield from Effect.log_debug("for the curious")
        yield from Effect.log_warning("mind the step")
        if ctx.run_count == 2:
            yield from Effect.fail(CarrierDown("acme"))

    job = Continuous.make(
        state_schema=Health, schedule=Continuous.every("1 hour"), logging=level, execute=chat
    )
    kit = open_kit({"chatty": job})
    kit.run(kit.client.continuous(job).start(id="c", input=Health()))
    kit.advance("1 hour")
    return [record for record in caplog.records if record.name == "durable_effect_jobs.continuous.chatty"]


def test_by_default_only_failures_are_logged(open_kit: OpenKit, caplog: pytest.LogCaptureFixture) -> None:
    """`logging=False` is the default and shows the run that failed."""
    records = logged(open_kit, caplog, False)

    assert records != []
    assert all(record.levelno >= logging.ERROR for record in records)
    assert any("acme" in record.getMessage() + str(record.exc_text or record.exc_info) for record in records)


def test_everything_can_be_logged(open_kit: OpenKit, caplog: pytest.LogCaptureFixture) -> None:
    """`logging=True` shows what handlers log, debug messages included."""
    messages = [record.getMessage() for record in logged(open_kit, caplog, True)]

    assert any("for the curious" in message for message in messages)
    assert any("mind the step" in message for message in messages)


def test_a_level_can_be_logged(open_kit: OpenKit, caplog: pytest.LogCaptureFixture) -> None:
    """A level shows itself and what is above it."""
    records = logged(open_kit, caplog, logging.WARNING)

    assert any("mind the step" in record.getMessage() for record in records)
    assert all(record.levelno >= logging.WARNING for record in records)


def test_nothing_needs_to_be_logged(open_kit: OpenKit, caplog: pytest.LogCaptureFixture) -> None:
    """`logging="none"` is silent, failures included."""
    assert logged(open_kit, caplog, "none") == []


# -- telemetry ---------------------------------------------------------------------------------------


def test_jobs_may_have_a_tracker(open_kit: OpenKit) -> None:
    """The README's tracker is taken as it is, and a test sees the events without any endpoint."""
    kit = open_kit(
        {"tokenRefresher": token_refresher()},
        layer=Layer.succeed(TokenApi, CountingTokens()),
        tracker=Tracker(
            endpoint="https://events.example.com/ingest", env="production", service_key="my-jobs-service"
        ),
    )

    kit.run(kit.client.continuous("tokenRefresher").start(id="user-123", input=FRESH))

    assert [event.type for event in kit.events] == ["job.started", "job.executed"]
