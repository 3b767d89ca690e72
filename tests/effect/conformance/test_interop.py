"""Interop: asyncio, threads, `returns`, context managers and logging, in both directions."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from returns.maybe import Nothing, Some
from returns.result import Failure as Bad
from returns.result import Success as Ok

from durable_effect import Cause, Do, Effect, Failure, NotSynchronousError, Success, TypedError


class Oops(TypedError):
    """Something expected."""


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


def test_an_effect_is_awaitable() -> None:
    """On a running loop; a typed error is raised as itself."""

    async def main() -> int:
        with pytest.raises(Oops):
            await Effect.fail(Oops())
        return await Effect.succeed(1)

    assert asyncio.run(main()) == 1


def test_an_effect_makes_a_coroutine_for_a_task() -> None:
    """`run_async` goes where asyncio wants a coroutine."""

    async def main() -> tuple[int, object]:
        task = asyncio.create_task(Effect.succeed(1).run_async())
        return await task, await Effect.run_async_exit(Effect.fail("e"))

    assert asyncio.run(main()) == (1, Failure(Cause.fail("e")))


def test_an_awaitable_becomes_an_effect() -> None:
    """With `catch` an exception is a typed error, without it a defect."""

    async def fails() -> int:
        raise ValueError("bug")

    async def works() -> int:
        return 1

    assert Effect.run(Effect.from_async(works)) == 1
    assert Effect.run(Effect.from_async(fails, catch=lambda _: Oops()).flip()) == Oops()
    ended = Effect.run(Effect.from_async(fails).exit())
    assert isinstance(ended, Failure)
    assert isinstance(ended.cause.find_defect(), ValueError)


def test_an_interruption_cancels_the_task_and_waits_for_its_end() -> None:
    """The `finally` of the coroutine has run when `interrupt` goes on."""
    log: list[str] = []

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
            log.append("cleaned up")

    @Effect.gen
    def program() -> Do[list[str]]:
        fiber = yield from Effect.from_async(work).fork()
        yield from Effect.from_async(started.wait)
        yield from fiber.interrupt()
        return list(log)

    async def main() -> list[str]:
        return await program()

    started = asyncio.Event()
    assert asyncio.run(main()) == ["cleaned up"]


def test_cancelling_the_awaiting_task_interrupts_runs_finalizers_and_reraises() -> None:
    """Once, in order, before CancelledError is seen."""
    log: list[str] = []
    effect = Effect.never.ensuring(note(log, "inner")).ensuring(note(log, "outer"))

    async def main() -> None:
        task = asyncio.create_task(effect.run_async())
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["inner", "outer"]


def test_blocking_calls_go_to_a_thread() -> None:
    """`from_thread` calls off the loop's thread."""
    here = threading.get_ident()
    assert Effect.run(Effect.from_thread(threading.get_ident)) != here

    def fails() -> int:
        raise OSError("disk")

    assert Effect.run(Effect.from_thread(fails, catch=lambda _: Oops()).flip()) == Oops()


def test_a_callback_may_come_from_another_thread() -> None:
    """`async_` takes the answer on whatever thread."""

    def register(resume: object) -> None:
        assert callable(resume)
        threading.Thread(target=resume, args=(Effect.succeed(7),)).start()

    assert Effect.run(Effect.async_(register)) == 7


def test_run_sync_refuses_to_wait() -> None:
    """And says what to use."""
    with pytest.raises(NotSynchronousError):
        Effect.run_sync(Effect.sleep("1 s"))


def test_run_sync_raises_the_defect_itself() -> None:
    """The exception that somebody raised."""
    bug = ValueError("bug")
    with pytest.raises(ValueError, match="bug") as caught:
        Effect.run_sync(Effect.die(bug))
    assert caught.value is bug


def test_run_fork_answers_the_fiber() -> None:
    """Started on the running loop, without waiting."""

    async def main() -> object:
        fiber = Effect.run_fork(Effect.yield_now().as_(1))
        assert fiber.exit is None
        return await fiber.await_()

    assert asyncio.run(main()) == Success(1)


def test_returns_both_ways() -> None:
    """Result and Maybe become effects, and effects become them."""
    assert Effect.run_sync(Effect.from_result(Ok(1))) == 1
    assert Effect.run_sync(Effect.from_result(Bad("e")).result()) == Bad("e")
    assert Effect.run_sync(Effect.from_maybe(Nothing, Oops).option()) == Nothing
    assert Effect.run_sync(Effect.succeed(1).option()) == Some(1)


def test_context_managers_are_left_with_the_scope() -> None:
    """In reverse order, sync and async."""
    log: list[str] = []

    @contextmanager
    def plain() -> Iterator[str]:
        log.append("+plain")
        yield "plain"
        log.append("-plain")

    @asynccontextmanager
    async def coloured() -> AsyncIterator[str]:
        log.append("+async")
        yield "async"
        log.append("-async")

    both = Effect.from_context_manager(plain).zip(Effect.from_async_context_manager(coloured))
    assert Effect.run(both.scoped()) == ("plain", "async")
    assert log == ["+plain", "+async", "-async", "-plain"]


def test_a_context_manager_sees_the_failure() -> None:
    """Its `__exit__` gets the exception of the scope's exit."""
    seen: list[type[BaseException]] = []

    @contextmanager
    def watching() -> Iterator[None]:
        try:
            yield
        except Oops as error:
            seen.append(type(error))

    program = Effect.from_context_manager(watching).and_then(Effect.fail(Oops())).scoped()
    assert Effect.run_sync_exit(program) == Failure(Cause.fail(Oops()))
    assert seen == [Oops]


def test_logs_carry_annotations_and_spans(caplog: pytest.LogCaptureFixture) -> None:
    """As attributes of the record, and `fn` names its runs."""

    @Effect.fn("load")
    def load() -> Do[None]:
        yield from Effect.log_info("hello")

    with caplog.at_level(logging.INFO, "durable_effect"):
        Effect.run_sync(load().annotate_logs(user="u1"))
    (record,) = caplog.records
    assert record.getMessage() == "hello"
    assert (vars(record)["user"], vars(record)["span"]) == ("u1", "load")


def test_an_effect_has_no_truth_value() -> None:
    """A forgotten `yield from` in a condition is an error that says so."""
    with pytest.raises(TypeError, match="yield from"):
        bool(Effect.succeed(False))
