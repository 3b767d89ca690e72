"""Fibers: forks, joins, supervision."""

from __future__ import annotations

from durable_effect import (
    Cause,
    Do,
    Effect,
    Exit,
    Fail,
    Failure,
    Fiber,
    Scope,
    Success,
    Tag,
    provide_service,
)
from durable_effect.testing import TestRuntime

DONE: Exit[None, object] = Success(None)


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


def test_a_fork_starts_when_the_parent_yields(world: TestRuntime) -> None:
    """Not before; with `start_immediately` before the parent goes on."""
    log: list[str] = []

    @Effect.gen
    def program(at_once: bool) -> Do[None]:
        yield from note(log, "child").fork(start_immediately=at_once)
        yield from note(log, "parent")
        yield from Effect.yield_now()

    world.run(program(False))
    assert log == ["parent", "child"]
    log.clear()
    world.run(program(True))
    assert log == ["child", "parent"]


def test_start_immediately_works_for_detached_fibers(world: TestRuntime) -> None:
    """As a function too."""
    log: list[str] = []
    world.run(Effect.fork_detach(note(log, "child"), start_immediately=True).and_then(note(log, "parent")))
    assert log == ["child", "parent"]


def test_a_child_inherits_services(world: TestRuntime) -> None:
    """It sees what its parent saw at the fork."""
    name = Tag[str]("name")
    program = Effect.service(name).fork().flat_map(lambda fiber: fiber.join())
    assert world.run(program | provide_service(name, "n")) == "n"


def test_a_child_is_awaited_before_the_parents_exit_is_seen(world: TestRuntime) -> None:
    """When the parent ends, the child is interrupted and its finalizers are waited for."""
    log: list[str] = []
    child = Effect.never.ensuring(Effect.sleep("2 s").and_then(note(log, "child")))
    parent = child.fork().and_then(Effect.yield_now())
    assert world.run_exit(parent) == Success(None)
    assert log == ["child"]
    assert world.now.second == 2


def test_a_detached_fiber_outlives_its_parent(world: TestRuntime) -> None:
    """`fork_detach` is not supervised."""
    log: list[str] = []
    world.run(Effect.sleep("1 s").and_then(note(log, "done")).fork_detach())
    assert log == []
    world.advance("1 s")
    assert log == ["done"]


def test_fork_in_ties_a_fiber_to_a_scope(world: TestRuntime) -> None:
    """Closing the scope interrupts it and waits for its end."""
    log: list[str] = []
    scope = Scope()
    world.run(Effect.never.ensuring(note(log, "ended")).fork_in(scope))
    world.settle()
    assert log == []
    world.run(scope.close(DONE))
    assert log == ["ended"]


def test_fork_in_a_closed_scope_never_runs(world: TestRuntime) -> None:
    """It is interrupted at once."""
    log: list[str] = []
    scope = Scope()
    world.run(scope.close(DONE))
    fiber = world.run(note(log, "ran").fork_in(scope))
    world.settle()
    assert log == []
    assert isinstance(fiber.exit, Failure)
    assert fiber.exit.cause.is_interrupted_only


def test_fork_scoped_ends_with_the_scope_around(world: TestRuntime) -> None:
    """It outlives the fiber that forked it, but not the scope."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[None, object, object]:
        yield from Effect.never.ensuring(note(log, "ended")).fork_scoped()
        yield from Effect.sleep("1 s")
        yield from note(log, "leaving")

    world.run(program().scoped())
    assert log == ["leaving", "ended"]


def test_a_fiber_that_closes_its_scope_does_not_interrupt_itself(world: TestRuntime) -> None:
    """It goes on to its end."""
    log: list[str] = []
    scope = Scope()
    world.run(scope.close(DONE).and_then(note(log, "went on")).fork_in(scope))
    world.settle()
    assert log == ["went on"]


def test_run_in_ties_a_running_fiber_to_a_scope(world: TestRuntime) -> None:
    """`run_in` does for a fiber what `fork_in` does for an effect."""
    scope = Scope()
    fiber = world.fork(Effect.never)
    assert world.run(fiber.run_in(scope)) is fiber
    world.run(scope.close(DONE))
    assert isinstance(fiber.exit, Failure)


def test_join_propagates_the_cause_and_await_answers_the_exit(world: TestRuntime) -> None:
    """`join` fails as the fiber did, `await_` answers how it ended, `poll` answers None before the end."""

    @Effect.gen
    def program() -> Do[tuple[object, ...]]:
        fiber = yield from Effect.sleep("1 s").and_then(Effect.fail("e")).fork()
        before = yield from fiber.poll()
        joined = yield from fiber.join().exit()
        return before, joined, (yield from fiber.await_()), (yield from fiber.poll())

    failed = Failure(Cause.fail("e"))
    assert world.run(program()) == (None, failed, failed, failed)


def test_join_all_answers_values_or_every_cause(world: TestRuntime) -> None:
    """Values in the order of the fibers; of several failures all reasons."""

    @Effect.gen
    def program() -> Do[tuple[object, ...]]:
        one, two = (yield from Effect.sleep("1 s").as_(1).fork()), (yield from Effect.succeed(2).fork())
        values = yield from Fiber.join_all([one, two])
        bad = yield from Effect.for_each([3, 4], lambda n: Effect.fail(n).fork())
        return values, (yield from Fiber.join_all(bad).exit())

    assert world.run(program()) == ([1, 2], Failure(Cause((Fail(3), Fail(4)))))


def test_await_all_answers_every_exit(world: TestRuntime) -> None:
    """Failures included."""

    @Effect.gen
    def program() -> Do[list[Exit[int, str]]]:
        good: Fiber[int, str] = yield from Effect.succeed(1).fork()
        bad: Fiber[int, str] = yield from Effect.fail("e").fork()
        return (yield from Fiber.await_all([good, bad]))

    assert world.run(program()) == [Success(1), Failure(Cause.fail("e"))]


def test_interrupt_all_asks_all_before_it_waits(world: TestRuntime) -> None:
    """Two finalizers of a second each take one second."""

    @Effect.gen
    def program() -> Do[None]:
        slow = Effect.never.ensuring(Effect.sleep("1 s"))
        fibers = [(yield from slow.fork()), (yield from slow.fork())]
        yield from Effect.yield_now()
        yield from Fiber.interrupt_all(fibers)

    world.run(program())
    assert world.now.second == 1


def test_a_child_of_an_uninterruptible_parent_is_so_too(world: TestRuntime) -> None:
    """Children of `all` inherit the interruptibility of their parent."""
    log: list[str] = []
    work = [Effect.sleep("2 s").and_then(note(log, name)) for name in "ab"]
    fiber = world.fork(Effect.all(work, concurrency="unbounded").uninterruptible())
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert log == ["a", "b"]


def test_many_fibers_resume_each_other_without_recursion(world: TestRuntime) -> None:
    """A chain of 5 000 joins runs."""

    @Effect.gen
    def program() -> Do[int]:
        last: Fiber[int] = yield from Effect.succeed(0).fork()
        for _ in range(5_000):
            last = yield from last.join().map(lambda n: n + 1).fork()
        return (yield from last.join())

    assert world.run(program()) == 5_000
