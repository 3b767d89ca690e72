"""Moments that seldom come together: two things at once, exceptions nobody throws, the same error twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from programs import NEW_YEAR, Bug, Oops

from durable_effect import Cause, Die, Do, Effect, Failure, Fiber, Semaphore
from durable_effect.testing import TestRuntime

EXITS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StopAsyncIteration]
every_exit = pytest.mark.parametrize("kind", EXITS)


def thrower(kind: type[BaseException]) -> Callable[[], Any]:
    """A call that raises."""

    def throw() -> Any:
        raise kind

    return throw


def frames(error: BaseException) -> list[str]:
    """The names of the functions in an exception's traceback."""
    names, traceback = [], error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


# ---- at the same time --------------------------------------------------------------------------------------


def test_interrupted_in_the_moment_in_which_its_coroutine_returned() -> None:
    """A fiber whose asyncio task is done, but which has not gone on yet, can be interrupted."""

    async def quick() -> None:
        pass

    @Effect.gen
    def program() -> Do[Any]:
        fibers: list[Fiber[Any, Any]] = []
        yield from Effect.from_async(quick).flat_map(lambda _: fibers[0].interrupt()).fork()
        fibers.append((yield from Effect.from_async(quick).fork()))
        return (yield from fibers[0].await_())

    with TestRuntime(NEW_YEAR) as world:
        assert world.run(program()).cause.is_interrupted_only


def test_a_registration_that_answers_and_then_raises() -> None:
    """The defect counts, the answer does not; the fiber goes on once."""

    def register(resume: Callable[[Effect[int]], None]) -> None:
        resume(Effect.succeed(1))
        raise Bug("after the answer")

    with TestRuntime(NEW_YEAR) as world:
        slept = Effect.async_(register).exit().zip(Effect.sleep("1 s"))
        assert world.run(slept) == (Failure(Cause.die(Bug("after the answer"))), None)
        assert (world.now - NEW_YEAR).total_seconds() == 1


def test_a_finalizer_that_is_told_to_stop_keeps_the_first_cause() -> None:
    """Even KeyboardInterrupt in a finalizer's own function only adds to why the program failed."""
    ended = Effect.run_sync_exit(Effect.die(Bug("first")).on_exit(lambda _: thrower(KeyboardInterrupt)()))
    assert isinstance(ended, Failure)
    assert [type(defect) for defect in ended.cause.defects] == [Bug, KeyboardInterrupt]


# ---- exceptions that are no errors -------------------------------------------------------------------------


@every_exit
def test_exits_in_a_call_are_defects(kind: type[BaseException]) -> None:
    """What ends processes and generators is an exception like any other to a program: finalizers run."""
    log: list[str] = []

    @Effect.gen
    def block() -> Do[None]:
        try:
            yield from Effect.sync(thrower(kind))
        finally:
            yield from Effect.yield_now()
            log.append("finally")

    program = block().ensuring(Effect.sync(lambda: log.append("finalizer")))
    with pytest.raises(kind):
        Effect.run_sync(program)
    assert log == ["finally", "finalizer"]
    ended = Effect.run_sync_exit(Effect.sync(thrower(kind)))
    assert isinstance(ended, Failure)
    assert isinstance(ended.cause.reasons[0], Die)


@every_exit
def test_exits_in_a_coroutine(kind: type[BaseException]) -> None:
    """They leave `run` as they leave `asyncio.run`, or are the program's failure; finalizers always run."""
    log: list[str] = []

    async def leave() -> None:
        raise kind

    program = Effect.from_async(leave).ensuring(Effect.sync(lambda: log.append("finalizer")))
    if kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind):
            Effect.run(program.exit())
    else:
        assert isinstance(Effect.run(program.exit()), Failure)
    assert log == ["finalizer"]


# ---- the same again ----------------------------------------------------------------------------------------


def failing() -> list[Effect[Any, Any]]:
    """Effects that fail with the same exception every time they are run."""
    return [
        Effect.fail(Oops("same")),
        Effect.die(Bug("same")),
        Effect.fail_cause(Cause.die(Bug("same"))),
        Effect.from_exit(Failure(Cause.fail(Oops("same")))),
        Effect.fail(Oops("same")).fork().flat_map(lambda fiber: fiber.await_()).flat_map(Effect.from_exit),
    ]


@pytest.mark.parametrize("index", range(5))
def test_running_a_failure_again_piles_up_nothing(index: int) -> None:
    """An exception that is raised by every run has the traceback of one run."""
    effect = failing()[index]

    @Effect.gen
    def block() -> Do[Any, Any]:
        return (yield from effect)

    error = Effect.run_sync_exit(block()).fold(lambda cause: cause.squash(), lambda _: None)
    once = frames(error)
    for _ in range(20):
        Effect.run_sync_exit(block())
    again = Effect.run_sync_exit(block()).fold(lambda cause: cause.squash(), lambda _: None)
    assert frames(again) == once


def test_joining_a_failed_fiber_again_piles_up_nothing() -> None:
    """The error of a fiber that is joined a hundred times has the traceback of one join."""

    @Effect.gen
    def program() -> Do[int]:
        fiber = yield from Effect.die(Bug("same")).fork()
        for _ in range(100):
            yield from attempt(fiber)
        ended = yield from fiber.await_()
        return ended.fold(lambda cause: len(frames(cause.squash())), lambda _: 0)

    @Effect.gen
    def attempt(fiber: Fiber[Any, Any]) -> Do[None]:
        with suppress(Bug):
            yield from fiber.join()

    assert Effect.run_sync(program()) < 5


# ---- very many ---------------------------------------------------------------------------------------------


def test_thousands_may_fail_at_once() -> None:
    """All reasons are kept, and joining them does not take quadratic time."""
    count = 5_000
    fail_anyway = [Effect.fail((number,)).uninterruptible() for number in range(count)]
    ended: Any = Effect.run_sync_exit(Effect.all(fail_anyway, concurrency="unbounded").uninterruptible())
    assert len(ended.cause.failures) == count
    die_later = [Effect.add_finalizer(lambda _, n=n: Effect.die(Bug(str(n)))) for n in range(count)]
    ended = Effect.run_sync_exit(Effect.all(die_later).scoped())
    assert len(ended.cause.defects) == count


def test_thousands_may_give_up_waiting() -> None:
    """Fibers that wait for one permit, or for one fiber, can all be called off."""
    count = 5_000

    @Effect.gen
    def program() -> Do[None]:
        permit = yield from Semaphore.make(1)
        never = yield from Effect.never.fork()
        for wait in (permit.with_permit(Effect.never), never.join()):
            waiting = Effect.for_each(range(count), lambda _, wait=wait: wait, concurrency="unbounded")
            yield from waiting.timeout_option("1 s")

    with TestRuntime(NEW_YEAR) as world:
        world.run(program())
        assert (world.now - NEW_YEAR).total_seconds() == 2
