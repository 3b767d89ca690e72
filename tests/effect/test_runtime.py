"""Fibers: how they run, wait, end and are interrupted."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect import (
    Cause,
    Clock,
    Deferred,
    Do,
    Effect,
    Exit,
    Failure,
    Fiber,
    Interrupted,
    Need,
    Success,
    Tag,
    TypedError,
    provide_service,
)
from durable_effect.testing import TestRuntime


async def turn() -> None:
    """Give the asyncio loop a turn."""
    await asyncio.sleep(0)  # noqa: TID251 - takes no time


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Oops(TypedError):
    """Went wrong."""


def note(log: list[str], what: str) -> Effect[None]:
    """Write something down."""
    return Effect.sync(lambda: log.append(what))


def boom() -> Any:
    """Raise what nobody expects."""
    raise ZeroDivisionError("boom")


# ---- stack safety ------------------------------------------------------------------------------------------


def test_long_chains_to_the_left() -> None:
    """A hundred thousand flat_maps, each on the result of the one before."""
    effect: Effect[int] = Effect.succeed(0)
    for _ in range(100_000):
        effect = effect.flat_map(lambda n: Effect.succeed(n + 1))
    assert Effect.run_sync(effect) == 100_000


def test_long_chains_to_the_right() -> None:
    """A hundred thousand flat_maps, each inside the one before."""

    def down(n: int) -> Effect[int]:
        return Effect.succeed(n).flat_map(lambda k: down(k - 1) if k else Effect.succeed(7))

    assert Effect.run_sync(down(100_000)) == 7


def test_long_chains_of_handlers() -> None:
    """A hundred thousand handlers around one failure."""
    effect: Effect[int, Oops] = Effect.fail(Oops())
    for _ in range(100_000):
        effect = effect.map_error(lambda e: e).catch_all(lambda e: Effect.fail(e))
    assert Effect.run_sync_exit(effect) == Failure(Cause.fail(Oops()))


def test_deeply_nested_do_blocks() -> None:
    """Ten thousand do-blocks inside each other, with values, failures and finalizers on every level."""

    @Effect.gen
    def down(n: int, last: Effect[int, Oops]) -> Do[int, Oops]:
        if n == 0:
            return (yield from last)
        try:
            return (yield from down(n - 1, last)) + 1
        finally:
            yield from Effect.void.uninterruptible()

    assert Effect.run_sync(down(10_000, Effect.yield_now().as_(0))) == 10_000
    assert Effect.run_sync_exit(down(10_000, Effect.fail(Oops()))) == Failure(Cause.fail(Oops()))


def test_long_loops() -> None:
    """A million steps in a do-block, and a hundred thousand that go through the interpreter."""

    @Effect.gen
    def count() -> Do[int]:
        n = 0
        for _ in range(1_000_000):
            n += yield from Effect.succeed(1)
        for _ in range(100_000):
            n += yield from Effect.succeed(1).catch_all(lambda _: Effect.succeed(0))
        return n

    assert Effect.run_sync(count()) == 1_100_000


def test_recursion_that_suspends_does_not_nest_natively() -> None:
    """A do-block that waits and then calls itself stays on the heap."""

    @Effect.gen
    def down(n: int) -> Do[int]:
        yield from Effect.yield_now()
        return 0 if n == 0 else (yield from down(n - 1)) + 1

    assert Effect.run_sync(down(5_000)) == 5_000


def test_chains_of_fibers() -> None:
    """Five thousand fibers, each waiting for the next."""

    @Effect.gen
    def down(n: int) -> Do[int]:
        if n == 0:
            return 0
        fiber = yield from Effect.fork(down(n - 1))
        return (yield from fiber.join()) + 1

    assert Effect.run_sync(down(5_000)) == 5_000


# ---- fibers ------------------------------------------------------------------------------------------------


def test_a_fork_starts_when_its_parent_gives_way(world: TestRuntime) -> None:
    """The child runs after the parent's slice, and `join` answers its value."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[str]:
        fiber = yield from note(log, "child").as_("value").fork()
        log.append("parent")
        return (yield from fiber.join())

    assert world.run(program()) == "value"
    assert log == ["parent", "child"]


def test_joining_a_failed_fiber_fails_and_awaiting_it_does_not(world: TestRuntime) -> None:
    """`join` ends as the fiber did; `await_` and `poll` answer how it ended."""

    @Effect.gen
    def program() -> Do[tuple[Any, ...]]:
        fiber = yield from Effect.fork(Effect.fail(Oops()))
        before = yield from fiber.poll()
        awaited = yield from fiber.await_()
        joined = yield from fiber.join().exit()
        return before, awaited, joined, (yield from fiber.poll())

    failed: Exit[Any, Any] = Failure(Cause.fail(Oops()))
    assert world.run(program()) == (None, failed, failed, failed)


def test_children_end_before_their_parent(world: TestRuntime) -> None:
    """A parent that ends interrupts its children and waits for their finalizers before its exit is seen."""
    log: list[str] = []
    child = Effect.never.ensuring(Effect.sleep("1 minute").and_then(note(log, "child")))

    @Effect.gen
    def parent() -> Do[None]:
        yield from Effect.fork(child)
        yield from Effect.yield_now()

    world.run(
        parent().and_then(Effect.void).fork().flat_map(lambda f: f.await_()).tap(lambda _: note(log, "seen"))
    )
    assert log == ["child", "seen"]


def test_detached_fibers_outlive_their_parent(world: TestRuntime) -> None:
    """`fork_detach` starts a fiber of its own."""
    log: list[str] = []
    world.run(Effect.sleep("1 minute").and_then(note(log, "late")).fork_detach())
    assert log == []
    world.advance("1 minute")
    assert log == ["late"]


def test_a_fiber_interrupted_before_its_first_step_never_runs(world: TestRuntime) -> None:
    """Not even its first effect."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[Any]:
        fiber = yield from note(log, "ran").fork()
        yield from fiber.interrupt()
        return (yield from fiber.await_())

    ended = world.run(program())
    assert ended.cause.is_interrupted_only
    assert log == []


def test_interrupting_a_finished_fiber_changes_nothing(world: TestRuntime) -> None:
    """Its exit stays what it was."""
    fiber = world.fork(Effect.succeed(1))
    world.settle()
    world.run(fiber.interrupt())
    assert fiber.exit == Success(1)


def test_interrupt_waits_for_finalizers_and_interrupt_fork_does_not(world: TestRuntime) -> None:
    """The one answers when the fiber has ended, the other at once."""
    slow = Effect.never.ensuring(Effect.sleep("1 minute"))
    one, two = world.fork(slow), world.fork(slow)
    world.settle()
    world.run(one.interrupt_fork())
    assert (world.now, one.exit) == (NEW_YEAR, None)
    world.run(two.interrupt())
    assert (world.now - NEW_YEAR).total_seconds() == 60
    assert one.exit is not None


def test_two_interruptions_do_not_cut_a_finalizer(world: TestRuntime) -> None:
    """A finalizer runs to its end however often its fiber is interrupted."""
    log: list[str] = []
    fiber = world.fork(Effect.never.ensuring(Effect.sleep("1 minute").and_then(note(log, "done"))))
    world.settle()
    world.run(fiber.interrupt_fork().and_then(fiber.interrupt_fork()))
    world.advance("1 minute")
    assert log == ["done"]


def test_a_busy_fiber_lets_others_go_on_and_can_be_interrupted(world: TestRuntime) -> None:
    """A loop without any waiting gives way after its share of steps."""
    fiber = world.fork(Effect.succeed(1).map(lambda n: n).forever())
    world.run(Effect.yield_now().and_then(fiber.interrupt()))
    assert isinstance(fiber.exit, Failure)


def test_a_busy_fiber_does_not_stop_the_asyncio_loop() -> None:
    """Other asyncio tasks go on while a fiber spins."""

    async def main() -> list[str]:
        log: list[str] = []
        spinning = asyncio.ensure_future(Effect.run_async_exit(Effect.void.map(lambda n: n).forever()))
        for _ in range(3):
            await turn()
            log.append("tick")
        spinning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spinning
        return log

    assert asyncio.run(main()) == ["tick"] * 3


def test_with_fiber_answers_the_running_fiber(world: TestRuntime) -> None:
    """A program can see its own fiber, and end itself."""

    def end_myself(fiber: Fiber[Any, Any]) -> Effect[None]:
        return fiber.interrupt_fork().and_then(Effect.die("not reached"))

    fiber = world.fork(Effect.with_fiber(end_myself))
    world.settle()
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.is_interrupted_only


# ---- interruption ------------------------------------------------------------------------------------------


def _catching_everything(log: list[str]) -> list[Effect[Any, Any]]:
    waiting: Effect[Any, Oops] = Effect.never.or_else_succeed(lambda: 1).and_then(Effect.never)

    @Effect.gen
    def block() -> Do[str]:
        try:
            yield from waiting.or_die()
        except BaseException:
            log.append("seen")
        return "survived"

    @Effect.gen
    def inner() -> Do[str]:
        return (yield from block())

    return [
        block(),
        inner(),
        waiting.exit(),
        waiting.catch_all(lambda _: Effect.void),
        waiting.catch_cause(lambda _: Effect.void),
        waiting.fold_cause(lambda _: Effect.void, Effect.succeed),
        waiting.result(),
        waiting.ignore(),
    ]


@pytest.mark.parametrize("index", range(8))
def test_a_real_interruption_cannot_be_caught(world: TestRuntime, index: int) -> None:
    """No handler, no `exit` and no `except BaseException` keeps an interrupted fiber going."""
    log: list[str] = []
    survived = _catching_everything(log)[index].tap(lambda _: note(log, "survived"))
    fiber = world.fork(survived)
    world.settle()
    world.run(fiber.interrupt())
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.is_interrupted_only
    assert "survived" not in log


def test_interruption_runs_the_finally_of_do_blocks(world: TestRuntime) -> None:
    """`finally`, with effects in it, runs uninterrupted, from the inside out, and `with` leaves."""
    log: list[str] = []

    @Effect.gen
    def inner() -> Do[None]:
        try:
            yield from Effect.never
        finally:
            yield from Effect.sleep("1 minute")
            log.append("inner")

    @Effect.gen
    def outer() -> Do[None]:
        try:
            yield from inner()
        finally:
            yield from Effect.sleep("1 minute")
            log.append("outer")

    fiber = world.fork(outer())
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["inner", "outer"]
    assert (world.now - NEW_YEAR).total_seconds() == 120


def test_a_defect_in_a_finally_joins_the_interruption(world: TestRuntime) -> None:
    """What goes wrong while an interruption unwinds is not lost."""

    @Effect.gen
    def block() -> Do[None]:
        try:
            yield from Effect.never
        finally:
            boom()

    fiber = world.fork(block())
    world.settle()
    world.run(fiber.interrupt())
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.has_interrupts
    assert isinstance(fiber.exit.cause.defects[0], ZeroDivisionError)


def test_interrupted_is_no_exception(world: TestRuntime) -> None:
    """`except Exception` lets an interruption pass, like asyncio's CancelledError."""
    seen: list[str] = []

    @Effect.gen
    def block() -> Do[None]:
        try:
            yield from Effect.never
        except Exception:
            seen.append("exception")
        except Interrupted:
            seen.append("interrupted")
            raise

    fiber = world.fork(block())
    world.settle()
    world.run(fiber.interrupt())
    assert seen == ["interrupted"]


def test_an_uninterruptible_region_is_finished_first(world: TestRuntime) -> None:
    """The pending interruption strikes at the region's end."""
    log: list[str] = []
    region = Effect.sleep("1 minute").and_then(note(log, "finished")).uninterruptible()
    fiber = world.fork(region.and_then(note(log, "after")))
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["finished"]


def test_a_window_in_an_uninterruptible_region(world: TestRuntime) -> None:
    """`interruptible` inside can be struck; its failure is then an ordinary one, which `exit` sees."""
    log: list[str] = []

    @Effect.gen
    def region() -> Do[None]:
        ended = yield from Effect.never.interruptible().exit()
        log.append(f"interrupted {not ended.is_success}")
        yield from Effect.sleep("1 minute")
        log.append("finished")

    fiber = world.fork(region().uninterruptible().and_then(note(log, "after")))
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["interrupted True", "finished"]


def test_restore_is_as_interruptible_as_the_outside(world: TestRuntime) -> None:
    """In a mask inside an uninterruptible region `restore` opens nothing."""
    masked = Effect.uninterruptible_mask(lambda restore: restore(Effect.sleep("1 minute")))
    free, bound = world.fork(masked), world.fork(masked.as_(1).uninterruptible())
    world.settle()
    world.run(free.interrupt())
    assert world.now == NEW_YEAR
    world.run(bound.interrupt())
    assert (world.now - NEW_YEAR).total_seconds() == 60


def test_children_inherit_uninterruptibility(world: TestRuntime) -> None:
    """A fiber forked in an uninterruptible region finishes."""

    @Effect.gen
    def program() -> Do[Any]:
        fiber = yield from Effect.sleep("1 minute").as_("finished").fork().uninterruptible()
        yield from fiber.interrupt()
        return (yield from fiber.await_())

    assert world.run(program()) == Success("finished")


def test_a_finalizer_that_fails_adds_to_the_cause(world: TestRuntime) -> None:
    """Both causes count, the earlier first; a defect makes the typed error one too."""
    ended = world.run_exit(Effect.fail(Oops()).ensuring(Effect.sync(boom).uninterruptible()))
    assert isinstance(ended, Failure)
    assert ended.cause.failures == ()
    assert [type(defect) for defect in ended.cause.defects] == [Oops, ZeroDivisionError]


def test_a_finalizer_that_fails_typed_does_not_stop_an_interruption(world: TestRuntime) -> None:
    """Though the cause holds a typed error then, handlers are passed by."""
    log: list[str] = []
    sick: Any = Effect.fail(Oops())
    survived = Effect.never.ensuring(sick).catch_all(lambda _: note(log, "recovered"))
    fiber = world.fork(survived.and_then(note(log, "survived")))
    world.settle()
    world.run(fiber.interrupt())
    assert log == []
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.has_interrupts


def test_a_failed_finalizer_leaves_the_rest_interruptible(world: TestRuntime) -> None:
    """After a finalizer, whether it failed or not, the program can be interrupted as before."""
    for finalizer in (Effect.die("sick"), Effect.yield_now()):
        fiber = world.fork(Effect.void.ensuring(finalizer).exit().and_then(Effect.never))
        world.settle()
        world.run(fiber.interrupt())
        assert fiber.exit is not None


def test_many_fibers_are_awaited_or_ended_together(world: TestRuntime) -> None:
    """`await_all` answers all exits, `interrupt_all` asks all before it waits for the first."""
    slow = Effect.never.ensuring(Effect.sleep("1 minute"))
    fibers = [world.fork(slow), world.fork(slow)]
    world.settle()
    world.run(Fiber.interrupt_all(fibers))
    assert (world.now - NEW_YEAR).total_seconds() == 60
    done = [world.fork(Effect.succeed(n)) for n in range(3)]
    assert world.run(Fiber.await_all(done)) == [Success(n) for n in range(3)]


def test_run_fork_starts_without_waiting() -> None:
    """The fiber runs on the loop and can be awaited later."""

    async def main() -> int:
        fiber = Effect.run_fork(Effect.sleep("1 ms").as_(5))
        assert fiber.exit is None
        return await fiber.join()

    assert asyncio.run(main()) == 5


def test_finalizers_see_how_it_ended(world: TestRuntime) -> None:
    """`on_exit` always runs, `on_error` and `on_interrupt` when it is their turn."""
    log: list[str] = []

    def watched(effect: Effect[Any, Any]) -> Effect[Any, Any]:
        return (
            effect.on_exit(lambda e: note(log, f"exit {e.is_success}"))
            .on_error(lambda _: note(log, "error"))
            .on_interrupt(lambda: note(log, "interrupt"))
        )

    world.run(watched(Effect.succeed(1)))
    assert log == ["exit True"]
    log.clear()
    world.run_exit(watched(Effect.fail(Oops())))
    assert log == ["exit False", "error"]
    log.clear()
    world.run_exit(watched(Effect.interrupt()))
    assert log == ["exit False", "error", "interrupt"]


@given(
    st.lists(st.sampled_from(["sleep", "yield", "never", "async"]), min_size=1, max_size=4), st.integers(0, 5)
)
def test_what_was_acquired_is_released(steps: list[str], turns: int) -> None:
    """However far a program got before it was interrupted, it releases exactly what it had acquired."""
    held: list[int] = []
    released: list[int] = []

    def step(name: str, inner: Effect[None]) -> Effect[None]:
        waits = {
            "sleep": Effect.sleep("1 s"),
            "yield": Effect.yield_now(),
            "never": Effect.never,
            "async": _soon(),
        }
        number = len(held)

        def acquire() -> int:
            held.append(number)
            return number

        return Effect.acquire_use_release(
            Effect.yield_now().and_then(Effect.sync(acquire)),
            lambda _: waits[name].and_then(inner),
            lambda n: Effect.yield_now().and_then(Effect.sync(lambda: released.append(n))),
        )

    program: Effect[None] = Effect.void
    for name in steps:
        program = step(name, program)
    with TestRuntime(NEW_YEAR) as world:
        fiber = world.fork(program)
        for _ in range(turns):
            world.run(Effect.yield_now())
        world.run(fiber.interrupt())
        assert fiber.exit is not None
        assert sorted(released) == sorted(held)


def _soon() -> Effect[None]:
    def register(resume: Callable[[Effect[None]], None]) -> None:
        resume(Effect.void)

    return Effect.async_(register)


# ---- callbacks ---------------------------------------------------------------------------------------------


def test_a_callback_is_called_off_on_interruption(world: TestRuntime) -> None:
    """The effect that `register` answered runs before the fiber ends; a late callback is ignored."""
    log: list[str] = []
    resumes: list[Callable[[Effect[int]], None]] = []

    def register(resume: Callable[[Effect[int]], None]) -> Effect[None]:
        resumes.append(resume)
        return Effect.sleep("1 minute").and_then(note(log, "called off"))

    fiber = world.fork(Effect.async_(register))
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["called off"]
    resumes[0](Effect.succeed(1))
    world.settle()
    assert isinstance(fiber.exit, Failure)


# ---- asyncio -----------------------------------------------------------------------------------------------


def test_from_async_brings_values_and_exceptions() -> None:
    """An exception is a defect, or with `catch` a typed error."""

    async def fail() -> None:
        await turn()
        raise ValueError("no")

    assert isinstance(Effect.run(Effect.from_async(fail).exit()), Failure)
    ended = Effect.run(Effect.from_async(fail, catch=lambda e: Oops()).exit())
    assert ended == Failure(Cause.fail(Oops()))


def test_interruption_cancels_the_task_and_waits_for_it(world: TestRuntime) -> None:
    """The coroutine sees CancelledError and may clean up before the fiber ends."""
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await turn()
            log.append("cleaned up")
            raise

    @Effect.gen
    def program() -> Do[None]:
        fiber = yield from Effect.from_async(work).ensuring(note(log, "finalizer")).fork()
        yield from Effect.from_async(lambda: turn())
        yield from fiber.interrupt()
        log.append("interrupted")

    Effect.run(program())
    assert log == ["cleaned up", "finalizer", "interrupted"]


def test_cancelling_the_awaiting_task_interrupts_the_fiber() -> None:
    """Cancellation waits for the fiber's finalizers and then goes on as CancelledError."""
    log: list[str] = []

    async def main() -> None:
        effect = Effect.never.ensuring(Effect.from_async(lambda: turn()).and_then(note(log, "released")))
        task = asyncio.ensure_future(Effect.run_async_exit(effect))
        await turn()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        log.append("cancelled")

    asyncio.run(main())
    assert log == ["released", "cancelled"]


Url = Tag[str]("Url")


def test_effects_awaited_inside_see_the_services_around(world: TestRuntime) -> None:
    """In the coroutine of `from_async`, `await effect` has services and clock of the surrounding effect."""

    async def inner() -> tuple[str, Any]:
        needs: Any = Effect.service(Url)
        await Effect.sleep("1 hour")
        return await needs, await Clock.now()

    url, now = world.run(Effect.from_async(inner) | provide_service(Url, "here"))
    assert url == "here"
    assert (now - NEW_YEAR).total_seconds() == 3600


def test_awaiting_many_effects_inside_one_coroutine(world: TestRuntime) -> None:
    """Tasks made inside inherit the surroundings too, and virtual time moves for all of them."""

    async def inner() -> list[int]:
        return list(await asyncio.gather(*(_after(n) for n in (3, 1, 2))))

    async def _after(n: int) -> int:
        await Effect.sleep(f"{n} minutes")
        return n

    assert world.run(Effect.from_async(inner)) == [3, 1, 2]
    assert (world.now - NEW_YEAR).total_seconds() == 180


def test_context_variables_reach_the_coroutines() -> None:
    """What was set where the program is run is seen in its awaitables."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")

    async def read() -> str:
        return request.get()

    async def main() -> str:
        request.set("r1")
        return await Effect.sleep("1 ms").and_then(Effect.from_async(read))

    assert asyncio.run(main()) == "r1"


def test_services_are_seen_by_children_and_restored(world: TestRuntime) -> None:
    """A fork inherits the services; outside of `provide` they are gone again."""
    needs: Effect[str, Any, Need[str]] = Effect.service(Url)
    joined = needs.fork().flat_map(lambda fiber: fiber.join()) | provide_service(Url, "a")
    assert world.run(joined) == "a"
    inner = needs | provide_service(Url, "inner")
    both = inner.zip(needs) | provide_service(Url, "outer")
    assert world.run(both) == ("inner", "outer")
    failing = inner.and_then(Effect.fail(Oops())).catch_all(lambda _: needs)
    assert world.run(failing | provide_service(Url, "outer")) == "outer"
    failed: Effect[str, Any, Any] = Effect.fail(Oops()) | provide_service(Url, "inner")
    assert world.run(failed.catch_all(lambda _: needs) | provide_service(Url, "outer")) == "outer"


def test_nothing_is_left_behind() -> None:
    """Interrupted programs leave no tasks, generators or warnings."""

    async def main() -> None:
        await Effect.race(Effect.from_async(lambda: asyncio.Event().wait()), Effect.sleep("1 ms"))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    gc.collect()


def test_a_deferred_wakes_everybody(world: TestRuntime) -> None:
    """Fibers in a queue go on in the order in which they waited."""
    log: list[int] = []

    @Effect.gen
    def program() -> Do[None]:
        gate: Deferred[None, Any] = yield from Deferred.make()
        for n in range(3):
            yield from gate.await_().map(lambda _, n=n: log.append(n)).fork_detach()
        yield from Effect.yield_now()
        yield from gate.succeed(None)

    world.run(program())
    world.settle()
    assert log == [0, 1, 2]
