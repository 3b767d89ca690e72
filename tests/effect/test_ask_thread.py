"""AskThread: fibers that wait for a thread which answers many of them at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from datetime import UTC, datetime
from typing import Any, TypeVarTuple

import pytest

from durable_effect import Cause, Effect
from durable_effect.edge import AskThread, Caller, answer_all
from durable_effect.errors import NotSynchronousError
from durable_effect.exit import Failure, Success
from durable_effect.testing import TestRuntime

Ts = TypeVarTuple("Ts")

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


class Clerk:
    """Takes callers down, and answers all of them at once with their number, on a thread of its own."""

    def __init__(self) -> None:
        self.waiting: list[Caller] = []

    def ask(self, caller: Caller) -> None:
        self.waiting.append(caller)

    def answer(self) -> None:
        """Answer on another thread, and go on when that has ended."""
        thread = threading.Thread(target=self._answer)
        thread.start()
        thread.join()

    def _answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        answer_all((caller, Effect.succeed(number)) for number, caller in enumerate(waiting))


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that knows how often other threads have woken it."""

    woken = 0

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


@pytest.fixture
def clerk() -> Clerk:
    """A clerk whom nobody has asked yet."""
    return Clerk()


@pytest.fixture
def world() -> Iterator[TestRuntime]:
    """A runtime on virtual time."""
    with TestRuntime(NEW_YEAR) as world:
        yield world


async def turn() -> None:
    """Give the asyncio loop a turn."""
    await asyncio.sleep(0)  # noqa: TID251 - takes no time


def soon(act: Callable[[], None]) -> Effect[None]:
    """Act when those who are ready now have had their turn."""
    return Effect.yield_now().and_then(Effect.sync(act))


def test_one_wake_up_answers_everybody_on_a_loop(clerk: Clerk) -> None:
    """However many programs of a loop are answered together, the thread wakes it once."""

    async def asked() -> Any:
        return await AskThread(clerk.ask)

    async def answered() -> None:
        while len(clerk.waiting) < 10:
            await turn()
        clerk.answer()

    async def main() -> list[Any]:
        *answers, _ = await asyncio.gather(*(asked() for _ in range(10)), answered())
        return answers

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(main()) == list(range(10))
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        assert loop.woken == 1


def test_answers_to_several_loops_come_together(clerk: Clerk) -> None:
    """Callers on different loops get their own answers from one thread, though one of the loops is gone."""
    answers: list[int] = []
    ready = threading.Barrier(4)

    def elsewhere() -> None:
        async def main() -> None:
            asked = asyncio.ensure_future(Effect.run_async(AskThread(clerk.ask)))
            while not any(caller.loop is asyncio.get_running_loop() for caller in clerk.waiting):
                await turn()
            await asyncio.to_thread(ready.wait)
            answers.append(await asked)

        asyncio.run(main())

    async def leave() -> None:
        Effect.run_fork(AskThread(clerk.ask))
        await turn()

    asyncio.run(leave())
    threads = [threading.Thread(target=elsewhere) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    clerk.answer()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [1, 2, 3]


def test_settling_waits_for_the_answer(clerk: Clerk, world: TestRuntime) -> None:
    """A test that holds the clock sees the program go on, as with any asyncio work."""
    fiber = world.fork(AskThread(clerk.ask))
    world.fork(soon(lambda: threading.Thread(target=clerk.answer).start()))
    world.settle()
    assert fiber.exit == Success(0)


def test_a_refusal_is_an_answer(world: TestRuntime) -> None:
    """A thread that will not be asked answers in place, and nothing is waited for."""
    assert world.run_exit(AskThread(lambda _: Effect.fail("closed"))) == Failure(Cause.fail("closed"))
    world.settle()


def test_a_bug_in_asking_is_a_defect(world: TestRuntime) -> None:
    """When the asking itself raises, the program fails with that, and nothing is waited for."""
    bug = ValueError("no")

    def ask(_: Caller) -> None:
        raise bug

    assert world.run_exit(AskThread(ask)) == Failure(Cause.die(bug))
    world.settle()


def test_who_was_interrupted_hears_nothing(clerk: Clerk, world: TestRuntime) -> None:
    """An interruption ends at once, and the answer that comes later resumes nobody."""
    fiber = world.fork(AskThread(clerk.ask).ensuring(Effect.sleep("1 minute")))
    world.run(Effect.yield_now().and_then(fiber.interrupt_fork()))
    clerk.answer()
    world.settle()
    assert fiber.exit is None
    world.advance("1 minute")
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.is_interrupted_only


def test_who_may_not_be_interrupted_hears_the_answer_first(clerk: Clerk, world: TestRuntime) -> None:
    """An uninterruptible caller learns what became of its question, and ends then."""
    heard: list[int] = []
    fiber = world.fork(
        AskThread(clerk.ask).tap(lambda n: Effect.sync(lambda: heard.append(n))).uninterruptible()
    )
    world.fork(soon(lambda: fiber.request_interrupt()))
    world.fork(soon(lambda: threading.Thread(target=clerk.answer).start()))
    world.settle()
    assert heard == [0]
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.is_interrupted_only


def test_after_a_crash_nobody_hears(clerk: Clerk) -> None:
    """An answer to fibers that were abandoned is dropped: none of them goes on, even if the runtime does."""
    world = TestRuntime(NEW_YEAR)
    heard: list[int] = []
    world.fork(AskThread(clerk.ask).tap(lambda n: Effect.sync(lambda: heard.append(n))))
    world.fork(soon(world.abandon))
    world.settle()
    clerk.answer()
    world.run(Effect.yield_now())
    assert heard == []


def test_without_a_loop_nobody_is_asked(clerk: Clerk) -> None:
    """`run_sync` cannot wait for a thread: it says so, and the question was never put."""
    with pytest.raises(NotSynchronousError):
        Effect.run_sync(AskThread(clerk.ask))
    assert clerk.waiting == []
