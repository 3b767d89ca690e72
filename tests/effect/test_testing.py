"""The runtime for tests: everything at once, on time that only the test moves."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_effect import Cause, Clock, DeadlockError, Do, Effect, Env, Failure, Success, Tag, TypedError
from durable_effect.testing import TestRuntime


async def turn() -> None:
    """Give the asyncio loop a turn."""
    await asyncio.sleep(0)  # noqa: TID251 - takes no time


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
Name = Tag[str]("Name")


class Oops(TypedError):
    """Went wrong."""


def test_run_takes_no_time_but_tells_it(world: TestRuntime) -> None:
    """A program that sleeps for a year is done at once, a year later."""
    now = world.run(Effect.sleep("365 days").and_then(Clock.now()))
    assert now == world.now == datetime(2027, 1, 1, tzinfo=UTC)


def test_run_raises_as_itself(world: TestRuntime) -> None:
    """Errors come as from `Effect.run_sync`; `run_exit` answers them."""
    with pytest.raises(Oops):
        world.run(Effect.fail(Oops()))
    assert world.run_exit(Effect.fail(Oops())) == Failure(Cause.fail(Oops()))


def test_a_deadlock_is_an_error(world: TestRuntime) -> None:
    """A program that waits for nothing that could happen is told so."""
    with pytest.raises(DeadlockError, match="nobody"):
        world.run(Effect.never)


def test_settle_leaves_time_alone(world: TestRuntime) -> None:
    """What is ready runs; sleepers wait for `jump_to` or `advance`, which stops on the way for each."""
    seen: list[datetime] = []

    @Effect.gen
    def ticking() -> Do[None]:
        while True:
            seen.append((yield from Clock.now()))
            yield from Effect.sleep("1 hour")

    world.fork(ticking())
    assert seen == []
    world.settle()
    assert seen == [NEW_YEAR]
    world.advance("150 minutes")
    assert seen == [NEW_YEAR + timedelta(hours=n) for n in range(3)]
    assert world.now == NEW_YEAR + timedelta(minutes=150)
    assert world.next_sleeper() == NEW_YEAR + timedelta(hours=3)
    world.jump_to(NEW_YEAR + timedelta(hours=3))
    assert len(seen) == 4


def test_time_does_not_run_backwards(world: TestRuntime) -> None:
    """Jumping to the past is refused."""
    with pytest.raises(ValueError, match="backwards"):
        world.jump_to(NEW_YEAR - timedelta(seconds=1))


def test_services_come_with_the_runtime() -> None:
    """`env` is what all its programs see."""
    with TestRuntime(NEW_YEAR, Env.of(Name, "ada")) as world:
        assert world.run(Effect.service(Name)) == "ada"


def test_real_asyncio_work_is_waited_for(world: TestRuntime) -> None:
    """`settle` comes back when coroutines have ended, also when several run at once."""

    async def work(n: int) -> int:
        for _ in range(n):
            await turn()
        return n

    fibers = [world.fork(Effect.from_async(lambda n=n: work(n))) for n in (3, 1, 2)]
    world.settle()
    assert [fiber.exit for fiber in fibers] == [Success(3), Success(1), Success(2)]
    assert world.run(Effect.from_thread(lambda: 4)) == 4
    assert world.now == NEW_YEAR


def test_callbacks_from_threads_arrive_with_the_next_settle(world: TestRuntime) -> None:
    """Time stands still meanwhile, and what comes after the end is nobody's business."""
    resumes: list[Callable[[Effect[int]], None]] = []
    fiber = world.fork(Effect[int].async_(lambda resume: resumes.append(resume)))
    world.settle()
    for value in (1, 2):
        thread = threading.Thread(target=resumes[0], args=(Effect.succeed(value),))
        thread.start()
        thread.join()
    assert fiber.exit is None
    world.settle()
    assert fiber.exit == Success(1)


def test_closing_interrupts_what_is_left() -> None:
    """Finalizers run, even those that sleep; nothing is left over."""
    log: list[str] = []
    with TestRuntime(NEW_YEAR) as world:
        world.fork(Effect.never.ensuring(Effect.sleep("1 hour").map(lambda _: log.append("a"))))
        world.run(Effect.never.ensuring(Effect.sync(lambda: log.append("b"))).fork_detach())
        world.settle()
    assert sorted(log) == ["a", "b"]


def test_a_finalizer_that_never_ends_is_told_so() -> None:
    """Closing does not hang, and leaves nothing behind that warns."""
    world = TestRuntime(NEW_YEAR)
    world.run(Effect.from_async(turn))
    world.fork(Effect.never.ensuring(Effect.never))
    world.settle()
    with pytest.raises(DeadlockError):
        world.close()
    gc.collect()


def test_abandoning_is_a_crash() -> None:
    """No `finally`, no finalizer and no coroutine's clean-up runs, now or later, and nothing warns."""
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("coroutine")

    @Effect.gen
    def block(waiting: Effect[Any]) -> Do[None]:
        try:
            yield from waiting
        finally:
            log.append("finally")
            yield from Effect.sleep("1 s")

    world = TestRuntime(NEW_YEAR)
    quiet = world.fork(block(Effect.never.ensuring(Effect.sync(lambda: log.append("finalizer")))))
    world.fork(block(Effect.from_async(lambda: turn())).and_then(Effect.never))
    world.fork(Effect.all([block(Effect.sleep("1 day")), block(Effect.never)], concurrency=2))
    world.settle()
    log.clear()
    world.abandon()
    del world
    gc.collect()
    assert log == []
    assert quiet.exit is None


def test_abandoning_asyncio_work_in_flight() -> None:
    """A coroutine that is under way is forgotten where it stands."""
    log: list[str] = []

    async def work() -> None:
        try:
            await Effect.sleep("1 day")
        finally:
            log.append("coroutine")

    world = TestRuntime(NEW_YEAR)
    world.fork(Effect.from_async(work))
    world.settle()
    world.abandon()
    del world
    gc.collect()
    assert log == []


def test_closing_lets_generators_finish_that_were_left_open() -> None:
    """An async generator that nobody read to its end is closed with the runtime, whatever ran after it."""
    log: list[str] = []
    left_open: list[object] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await turn()
            log.append("closed")

    async def read_one() -> int:
        reading = numbers()
        left_open.append(reading)
        await turn()
        return await anext(reading)

    with TestRuntime(NEW_YEAR) as world:
        assert world.run(Effect.from_async(read_one)) == 1
        world.run(Effect.void)
    assert log == ["closed"]
