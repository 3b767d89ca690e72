"""Closing a connection while handlers run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from durable_effect import Do, Effect
from durable_effect_jobs import Continuous, ContinuousContext, Limits, create_durable_jobs


def test_a_run_that_takes_too_long_is_interrupted_and_kept(tmp_path: Path) -> None:
    """After the drain timeout the connection closes all the same; the run will be done again."""
    begun = threading.Event()

    @Effect.gen
    def execute(ctx: ContinuousContext[dict[str, int]]) -> Do[None]:
        begun.set()
        yield from Effect.never

    stuck = Continuous.make(
        state_schema=dict[str, int],
        schedule=Continuous.every("10 ms"),
        start_immediately=False,
        execute=execute,
    )
    jobs = create_durable_jobs({"stuck": stuck}, limits=Limits(drain_timeout="50 ms"))
    url = f"sqlite:///{tmp_path / 'jobs.db'}"

    async def close_while_it_runs() -> None:
        async with jobs.connect(url) as client:
            await client.continuous(stuck).start(id="s", input={})
            await asyncio.to_thread(begun.wait)

    async def look() -> int | None:
        async with jobs.connect(url, alarms=False) as client:
            return (await client.continuous(stuck).status("s")).run_count

    async def scene() -> int | None:
        await asyncio.wait_for(close_while_it_runs(), timeout=30)
        return await look()

    assert asyncio.run(scene()) == 0
