"""Bad days: errors that cannot speak, values that cannot be, handlers without end, callers that give up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_effect import Do, Effect, Schema
from durable_effect_jobs import (
    Continuous,
    ContinuousContext,
    JobsClient,
    Retry,
    Tracker,
    create_durable_jobs,
)
from durable_effect_jobs.errors import ValidationError
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
