"""Programs on an asyncio loop: cancelled at any await, they end in order and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from programs import NEW_YEAR, Bug, Oops

from durable_effect import Do, Effect, Fiber, Queue
from durable_effect.testing import TestRuntime


async def turn() -> None:
    """Give the asyncio loop a turn."""
    await asyncio.sleep(0)  # noqa: TID251 - takes no time


class Resource:
    """Something to be held, and let go."""


class Shop:
    """Counts what is taken and given back, and in which order."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def used(self, name: str, work: Effect[Any, Any]) -> Effect[Any, Any]:
        """Hold a resource during the work; taking and giving back wait for the loop."""
        take = Effect.from_async(turn).and_then(self.note(f"+{name}"))
        give_back = Effect.from_async(turn).and_then(self.note(f"-{name}"))
        return Effect.acquire_use_release(take, lambda _: work, lambda _: give_back)

    def note(self, what: str) -> Effect[None]:
        return Effect.sync(lambda: self.log.append(what))


def scenes(shop: Shop) -> list[Effect[Any, Any]]:
    """Programs that await many things."""

    async def nested() -> None:
        await shop.used("inner", Effect.from_async(turn))
        await asyncio.gather(shop.used("left", Effect.from_async(turn)), _also(shop))

    async def shielded() -> None:
        await asyncio.shield(asyncio.ensure_future(turn()))

    steps: list[Callable[[], Awaitable[None]]] = [turn, nested, shielded]
    works: list[Effect[Any, Any]] = [Effect.from_async(step) for step in steps]
    return [
        shop.used("a", works[0]),
        shop.used("a", shop.used("b", works[1])),
        shop.used("a", works[0].race(shop.used("b", works[1]))),
        Effect.all([shop.used(name, works[0]) for name in "abc"], concurrency=2),
        shop.used("a", works[2].timeout("1 hour")),
        shop.used("a", works[0].uninterruptible().and_then(works[1])),
    ]


async def _also(shop: Shop) -> None:
    await shop.used("right", Effect.from_async(turn))


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("cancels", [1, 2])
def test_cancelled_at_every_await(index: int, cancels: int) -> None:
    """Whenever the surrounding task is cancelled, once or twice, what was taken is given back first."""

    async def main(turns: int) -> bool:
        shop = Shop()
        task = asyncio.ensure_future(Effect.run_async_exit(scenes(shop)[index]))
        for _ in range(turns):
            await turn()
        over = task.done()
        for _ in range(cancels):
            task.cancel()
            await turn()
        await asyncio.wait([task])
        assert task.cancelled() or task.result().is_success
        assert sorted(name for name in shop.log if name[0] == "-") == sorted(
            name.replace("+", "-") for name in shop.log if name[0] == "+"
        )
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return over

    ends = [asyncio.run(main(turns)) for turns in range(60)]
    assert (ends[0], ends[-1]) == (False, True)


def test_a_time_limit_of_asyncio_around_an_effect() -> None:
    """`asyncio.timeout` interrupts the effect and is raised when its finalizers are done."""
    shop = Shop()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await shop.used("a", Effect.never)
        shop.log.append("timed out")

    asyncio.run(main())
    assert shop.log == ["+a", "-a", "timed out"]


def test_a_failing_task_group_ends_its_effects() -> None:
    """When one task of a group fails, the effects that others await are interrupted."""
    shop = Shop()

    async def hold() -> None:
        await shop.used("a", Effect.never)

    async def fail() -> None:
        while not shop.log:
            await turn()
        await Effect.fail(Oops("e1"))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(hold())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(main())
    assert raised.value.exceptions == (Oops("e1"),)
    assert shop.log == ["+a", "-a"]


def test_background_fibers_end_with_the_program() -> None:
    """What `run` leaves running is interrupted at its end, and its finalizers are waited for."""
    shop = Shop()

    @Effect.gen
    def program() -> Do[str]:
        yield from shop.used("a", Effect.never).fork_detach()
        while not shop.log:
            yield from Effect.from_async(turn)
        return "done"

    assert Effect.run(program()) == "done"
    assert shop.log == ["+a", "-a"]


def test_exceptions_in_tasks_that_nobody_waits_for_any_more() -> None:
    """A coroutine that raises while it is cancelled adds a defect, and asyncio has nothing to complain of."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise Bug("d1")

    async def main() -> Any:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        ended = await Effect.from_async(stubborn).race(Effect.from_async(turn)).exit()
        gc.collect()
        await turn()
        return ended.is_success, complaints

    assert asyncio.run(main()) == (True, [])


# ---- nothing is left ---------------------------------------------------------------------------------------


def _busy(resource: Resource) -> Effect[Any, Any]:
    """A program with everything in it that may hold on to something."""

    @Effect.gen
    def block() -> Do[Any, Any, Any]:
        queue: Queue[Any, Any] = yield from Queue.bounded(1)
        taker = yield from queue.take().fork()
        yield from queue.offer(resource)
        yield from taker.join()
        yield from queue.take().timeout_option("1 ms")
        yield from Effect.sleep("1 hour").race(Effect.void)
        yield from Effect.die(Bug("d1")).map(lambda _: resource).exit()
        try:
            yield from Effect.fail(Oops("e1")).as_(resource)
        except Oops:
            yield from Effect.acquire_release(Effect.succeed(resource), lambda _: Effect.void).scoped()
        return (yield from Effect.never.as_(resource).fork())

    return block()


def test_what_a_program_held_is_freed() -> None:
    """After a program has ended, on every runtime, nothing keeps its values alive."""
    resources = [Resource() for _ in range(3)]
    watched = [weakref.ref(resource) for resource in resources]

    async def on_the_loop(effect: Effect[Any, Any]) -> None:
        await effect

    with TestRuntime(NEW_YEAR) as world:
        world.run(_busy(resources[0]).as_void())
        Effect.run(_busy(resources[1]).as_void())
        asyncio.run(on_the_loop(_busy(resources[2]).as_void()))
        resources.clear()
        gc.collect()
        assert [reference() for reference in watched] == [None] * 3


def test_many_runs_leave_as_few_objects_as_one() -> None:
    """The number of objects in memory does not grow with the number of programs that were run."""
    with TestRuntime(NEW_YEAR) as world:
        for _ in range(20):
            world.run(_busy(Resource()))
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            world.run(_busy(Resource()))
        gc.collect()
        assert len(gc.get_objects()) - before < 200


def test_sleepers_that_were_called_off_are_forgotten() -> None:
    """Time limits that were not needed leave no fibers behind, though an earlier sleeper is still asleep."""

    def fibers() -> int:
        gc.collect()
        return sum(type(thing) is Fiber for thing in gc.get_objects())

    before = fibers()  # programs of other tests may still hold some
    with TestRuntime(NEW_YEAR) as world:
        world.fork(Effect.sleep("1 minute"))
        world.run(Effect.for_each(range(500), lambda _: Effect.void.timeout("1 hour"), discard=True))
        assert fibers() - before < 50
