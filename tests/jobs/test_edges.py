"""Edges between the rules: where two of them meet, or where a handler leaves something behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from durable_effect import Do, Effect, Schema, TypedError
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    Debounce,
    DebounceExecuteContext,
    JobsClient,
    Limits,
    Task,
    TaskEventContext,
    TaskExecuteContext,
    ValidationError,
    create_durable_jobs,
)
from durable_effect_jobs.testing import JobsTestKit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@attrs.frozen
class Down(TypedError):
    """The other side does not answer."""


def test_a_trailing_batch_whose_flush_failed_is_not_flushed_by_every_add() -> None:
    """After a failed flush the next one comes flush_after the failure, however many events arrive."""
    flushes: list[datetime] = []

    @Effect.gen
    def execute(ctx: DebounceExecuteContext[int]) -> Do[None, Down]:
        flushes.append(kit.now)
        if len(flushes) < 3:
            yield from Effect.fail(Down())

    batch = Debounce.make(
        event_schema=int,
        flush_after="10 seconds",
        mode="trailing",
        max_wait="15 seconds",
        execute=execute,
    )
    with JobsTestKit(create_durable_jobs({"batch": batch}), now=NOON) as kit:
        client = kit.client.debounce(batch)
        for number in range(12):
            kit.run(client.add(id="b", event=number))
            kit.advance("4 seconds")
        assert [at - NOON for at in flushes] == [timedelta(seconds=s) for s in (15, 25, 35)]


def test_a_fiber_that_outlives_its_handler_may_call_its_instance() -> None:
    """Only a handler that still runs is kept from calling its own instance."""
    client: list[JobsClient] = []

    @Effect.gen
    def on_event(event: int, ctx: TaskEventContext[int]) -> Do[None]:
        yield from ctx.set_state(event)
        if event == 1:
            later = client[0].task("self").send(id=ctx.id, event=2).or_die()
            yield from later.delay("1 minute").fork_detach()

    task = Task.make(state_schema=int, event_schema=int, on_event=on_event, execute=lambda ctx: Effect.void)
    with JobsTestKit(create_durable_jobs({"self": task}), now=NOON) as kit:
        client.append(kit.client)
        kit.run(kit.client.task(task).send(id="t", event=1))
        kit.advance("2 minutes")
        assert kit.run(kit.client.task(task).get_state("t")).state == 2


def test_a_state_of_none_is_a_state() -> None:
    """`update_state` changes a state whose value is None; only a missing one is left alone."""

    def execute(ctx: ContinuousContext[int | None]) -> Effect[None]:
        return ctx.update_state(lambda count: 1 if count is None else count + 1)

    counter = Continuous.make(
        state_schema=Schema.nullable(int), schedule=Continuous.every("1 hour"), execute=execute
    )
    with JobsTestKit(create_durable_jobs({"counter": counter}), now=NOON) as kit:
        client = kit.client.continuous(counter)
        kit.run(client.start(id="c", input=None))
        assert kit.run(client.get_state("c")).state == 1


def test_send_answers_when_the_task_runs_next() -> None:
    """A time that had passed is executed within the call, so the answer is about what comes after it."""

    @Effect.gen
    def execute(ctx: TaskExecuteContext[int]) -> Do[None]:
        yield from ctx.schedule("1 hour")

    task = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=lambda event, ctx: ctx.schedule(NOON - timedelta(days=1)),
        execute=execute,
    )
    with JobsTestKit(create_durable_jobs({"task": task}), now=NOON) as kit:
        sent = kit.run(kit.client.task(task).send(id="t", event=1))
        assert sent.scheduled_at == NOON + timedelta(hours=1)


@pytest.mark.parametrize("event_id", ["", "x" * 513, "\ud800", 7])
def test_an_event_id_is_text_like_an_id(event_id: Any) -> None:
    """What cannot be remembered as an event id is refused, and nothing changes."""
    task = Task.make(
        state_schema=int,
        event_schema=int,
        on_event=lambda event, ctx: ctx.set_state(event),
        execute=lambda ctx: Effect.void,
    )
    with JobsTestKit(create_durable_jobs({"task": task}), now=NOON) as kit:
        with pytest.raises(ValidationError, match="event_id"):
            kit.run(kit.client.task(task).send(id="t", event=1, event_id=event_id))
        assert kit.run(kit.client.task(task).status("t")).status == "not_found"


def test_a_kit_can_take_over_what_another_left() -> None:
    """The next deployment finds the instances of the last."""
    first = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(1)
    )
    second = Continuous.make(
        state_schema=int, schedule=Continuous.every("1 hour"), execute=lambda ctx: ctx.set_state(2)
    )
    with JobsTestKit(create_durable_jobs({"job": first}), now=NOON) as kit:
        kit.run(kit.client.continuous(first).start(id="a", input=0))
    deployed = create_durable_jobs({"job": second})
    with JobsTestKit(deployed, now=NOON, storage=kit.storage) as next_kit:
        next_kit.advance("1 hour")
        assert next_kit.run(next_kit.client.continuous(second).get_state("a")).state == 2


@pytest.mark.parametrize("turns", range(12))
def test_a_call_that_is_called_off_leaves_its_alarm_to_the_loop(turns: int) -> None:
    """Wherever a start is interrupted, either nothing happened or its run comes without anybody's help."""
    runs: list[datetime] = []

    @Effect.gen
    def execute(ctx: ContinuousContext[int]) -> Do[None]:
        runs.append(kit.now)
        yield from Effect.yield_now()
        yield from ctx.set_state(1)

    job = Continuous.make(state_schema=int, schedule=Continuous.every("1 hour"), execute=execute)

    @Effect.gen
    def impatient() -> Do[None]:
        fiber = yield from kit.client.continuous(job).start(id="a", input=0).fork()
        for _ in range(turns):
            yield from Effect.yield_now()
        yield from fiber.interrupt()

    with JobsTestKit(create_durable_jobs({"job": job}), now=NOON) as kit:
        kit.run(impatient())
        status = kit.run(kit.client.continuous(job).status("a"))
        if status.status == "not_found":
            assert runs == []
        else:
            assert status.run_count == 1
            assert status.next_run_at == NOON + timedelta(hours=1)


def test_an_alarm_behind_a_long_call_takes_nobody_s_place() -> None:
    """While one instance is busy with a call, its due alarm leaves the only place to the alarms of others."""
    executed: list[tuple[str, timedelta]] = []

    @Effect.gen
    def on_event(event: str, ctx: TaskEventContext[int]) -> Do[None]:
        if event == "long":
            yield from Effect.sleep("10 minutes")
        else:
            yield from ctx.schedule("1 minute")

    def execute(ctx: TaskExecuteContext[int]) -> Effect[None]:
        return Effect.sync(lambda: executed.append((ctx.id, kit.now - NOON)))

    task = Task.make(state_schema=int, event_schema=str, on_event=on_event, execute=execute)
    jobs = create_durable_jobs({"task": task}, limits=Limits(concurrency=1))
    with JobsTestKit(jobs, now=NOON) as kit:
        client = kit.client.task(task)
        for name in "ab":
            kit.run(client.send(id=name, event="plan"))
        kit.run(client.send(id="a", event="long"))
    assert executed == [("b", timedelta(minutes=1)), ("a", timedelta(minutes=10))]
