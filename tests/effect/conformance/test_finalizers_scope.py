"""Finalizers, scopes and resources: order, causes, and who releases what."""

from __future__ import annotations

from durable_effect import (
    Cause,
    Die,
    Do,
    Effect,
    Exit,
    Fail,
    Failure,
    Interrupt,
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


def resource(log: list[str], name: str) -> Effect[str, None, object]:
    """Acquire something by name."""
    return Effect.acquire_release(note(log, f"+{name}").as_(name), lambda _: note(log, f"-{name}"))


def test_ensuring_runs_whatever_happens(world: TestRuntime) -> None:
    """After a success, a failure and a defect."""
    log: list[str] = []
    done = note(log, "done")
    world.run(Effect.succeed(1).ensuring(done))
    world.run_exit(Effect.fail(1).ensuring(done))
    world.run_exit(Effect.die("bug").ensuring(done))
    assert log == ["done"] * 3


def test_inner_finalizers_run_before_outer_ones(world: TestRuntime) -> None:
    """The finalizer nearest to the work is first."""
    log: list[str] = []
    world.run(Effect.void.ensuring(note(log, "inner")).ensuring(note(log, "outer")))
    assert log == ["inner", "outer"]


def test_on_exit_sees_the_exit_and_on_error_only_failures(world: TestRuntime) -> None:
    """`on_exit` gets every exit, `on_error` the cause of a failure."""
    seen: list[object] = []

    def see(x: object) -> Effect[None]:
        return Effect.sync(lambda: seen.append(x))

    world.run(Effect.succeed(1).on_exit(see).on_error(see))
    world.run_exit(Effect.fail("e").on_exit(see).on_error(see))
    assert seen == [Success(1), Failure(Cause.fail("e")), Cause.fail("e")]


def test_a_dying_finalizer_fails_a_success(world: TestRuntime) -> None:
    """After a success the finalizer's cause is the outcome."""
    bug = ValueError("bug")
    assert world.run_exit(Effect.succeed(1).ensuring(Effect.die(bug))) == Failure(Cause.die(bug))


def test_causes_of_work_and_finalizer_are_combined(world: TestRuntime) -> None:
    """The original reasons come first, then the finalizer's; next to a defect the error is a defect too."""
    error, bug = KeyError("expected"), ValueError("bug")
    ended = world.run_exit(Effect.fail(error).ensuring(Effect.die(bug)))
    assert ended == Failure(Cause((Die(error), Die(bug))))


def test_three_failing_finalizers_are_all_kept(world: TestRuntime) -> None:
    """Every cause is there, in the order in which they happened."""
    bugs = [ValueError(str(n)) for n in range(3)]
    program = Effect.die(bugs[0]).ensuring(Effect.die(bugs[1])).ensuring(Effect.die(bugs[2]))
    ended = world.run_exit(program)
    assert isinstance(ended, Failure)
    assert ended.cause.defects == tuple(bugs)


def test_finalizers_cannot_be_interrupted(world: TestRuntime) -> None:
    """An interruption that comes while a finalizer runs waits for its end."""
    log: list[str] = []
    fiber = world.fork(Effect.void.ensuring(Effect.sleep("3 s").and_then(note(log, "done"))))
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert log == ["done"]


# ---- scopes ------------------------------------------------------------------------------------------------


def test_a_scope_closes_in_reverse_order(world: TestRuntime) -> None:
    """The last finalizer runs first."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[None]:
        scope = yield from Scope.make()
        for name in "abc":
            yield from scope.add_finalizer(lambda _, name=name: note(log, name))
        yield from scope.close(DONE)

    world.run(program())
    assert log == ["c", "b", "a"]


def test_a_scope_closes_once(world: TestRuntime) -> None:
    """A second `close` does nothing."""
    log: list[str] = []
    scope = Scope()
    world.run(scope.add_finalizer(lambda _: note(log, "a")))
    world.run(scope.close(DONE))
    world.run(scope.close(DONE))
    assert log == ["a"]


def test_finalizers_see_the_closing_exit(world: TestRuntime) -> None:
    """They get what the scope was closed with."""
    seen: list[object] = []
    scope = Scope()
    world.run(scope.add_finalizer(lambda ended: Effect.sync(lambda: seen.append(ended))))
    world.run(scope.close(Failure(Cause.fail("e"))))
    assert seen == [Failure(Cause.fail("e"))]


def test_adding_to_a_closed_scope_runs_at_once(world: TestRuntime) -> None:
    """With the exit that closed it."""
    seen: list[object] = []
    scope = Scope()
    world.run(scope.close(Success(3)))
    world.run(scope.add_finalizer(lambda ended: Effect.sync(lambda: seen.append(ended))))
    assert seen == [Success(3)]


def test_a_failing_finalizer_does_not_stop_the_others(world: TestRuntime) -> None:
    """All run; the failures are collected in the order in which they ran."""
    log: list[str] = []
    bugs = [ValueError("first"), ValueError("last")]
    scope = Scope()
    world.run(scope.add_finalizer(lambda _: Effect.die(bugs[1])))
    world.run(scope.add_finalizer(lambda _: note(log, "middle")))
    world.run(scope.add_finalizer(lambda _: Effect.die(bugs[0])))
    ended = world.run_exit(scope.close(DONE))
    assert log == ["middle"]
    assert isinstance(ended, Failure)
    assert list(ended.cause.defects) == bugs


def test_a_parallel_scope_runs_finalizers_at_once(world: TestRuntime) -> None:
    """Three finalizers of a second each take one second, and a failing one stops none."""
    log: list[str] = []
    scope = world.run(Scope.make(parallel=True))
    for name in "abc":
        slow = Effect.sleep("1 s").and_then(note(log, name))
        world.run(scope.add_finalizer(lambda _, slow=slow: slow))
    world.run(scope.add_finalizer(lambda _: Effect.die("bug")))
    assert isinstance(world.run_exit(scope.close(DONE)), Failure)
    assert sorted(log) == ["a", "b", "c"]
    assert world.now.second == 1


def test_a_forked_scope_closes_in_its_place(world: TestRuntime) -> None:
    """The child is closed between the finalizers around it."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[None]:
        parent = yield from Scope.make()
        yield from parent.add_finalizer(lambda _: note(log, "first"))
        child = yield from parent.fork()
        yield from parent.add_finalizer(lambda _: note(log, "last"))
        yield from child.add_finalizer(lambda _: note(log, "child"))
        yield from parent.close(DONE)

    world.run(program())
    assert log == ["last", "child", "first"]


def test_closing_a_child_detaches_it(world: TestRuntime) -> None:
    """Its finalizers have run, and do not run again with the parent's."""
    log: list[str] = []
    parent = Scope()
    child = world.run(parent.fork())
    world.run(child.add_finalizer(lambda _: note(log, "child")))
    world.run(child.close(DONE))
    world.run(parent.close(DONE))
    assert log == ["child"]


def test_extend_leaves_the_scope_open_and_use_closes_it(world: TestRuntime) -> None:
    """`extend` only lends the scope, `use` closes it at the end."""
    log: list[str] = []
    scope = Scope()
    world.run(scope.extend(resource(log, "a")))
    assert log == ["+a"]
    world.run(scope.use(resource(log, "b")))
    assert log == ["+a", "+b", "-b", "-a"]


# ---- resources ---------------------------------------------------------------------------------------------


def test_resources_are_released_in_reverse(world: TestRuntime) -> None:
    """`scoped` releases what was acquired, the last first."""
    log: list[str] = []
    world.run(resource(log, "a").and_then(resource(log, "b")).and_then(note(log, "use")).scoped())
    assert log == ["+a", "+b", "use", "-b", "-a"]


def test_a_failed_acquisition_is_not_released(world: TestRuntime) -> None:
    """Only what was acquired is released."""
    log: list[str] = []
    failing = Effect.acquire_release(Effect.fail("e"), lambda _: note(log, "released"))
    world.run_exit(failing.scoped())
    assert log == []


def test_acquisition_is_uninterruptible(world: TestRuntime) -> None:
    """An interruption while acquiring waits, and what was acquired is released."""
    log: list[str] = []
    slow = Effect.acquire_release(
        Effect.sleep("2 s").and_then(note(log, "acquired")), lambda _: note(log, "released")
    )
    fiber = world.fork(slow.and_then(note(log, "used")).scoped())
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert log == ["acquired", "released"]


def test_acquisition_can_be_made_interruptible(world: TestRuntime) -> None:
    """With `interruptible` in it, waiting to acquire can be cut short; then nothing is released."""
    log: list[str] = []
    slow = Effect.acquire_release(Effect.sleep("9 s"), lambda _: note(log, "released"), interruptible=True)
    fiber = world.fork(slow.scoped())
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert world.now.second == 1
    assert log == []


def test_release_sees_the_services_at_acquisition(world: TestRuntime) -> None:
    """The finalizer runs with the environment in which it was registered."""
    name = Tag[str]("name")
    log: list[str] = []
    acquired = Effect.acquire_release(
        Effect.void, lambda _: Effect.service(name).flat_map(lambda n: note(log, n))
    )
    world.run(acquired.pipe(provide_service(name, "inner")).scoped().pipe(provide_service(name, "outer")))
    assert log == ["inner"]


def test_acquire_use_release_releases_after_a_failing_use(world: TestRuntime) -> None:
    """Release always runs, after the use has ended."""
    log: list[str] = []
    failing = note(log, "use").and_then(Effect.fail("e"))
    program = Effect.acquire_use_release(Effect.succeed("r"), lambda _: failing, lambda r: note(log, f"-{r}"))
    assert world.run_exit(program) == Failure(Cause.fail("e"))
    assert log == ["use", "-r"]


def test_use_can_be_interrupted_and_is_released(world: TestRuntime) -> None:
    """The use part is as interruptible as the outside."""
    log: list[str] = []
    program = Effect.acquire_use_release(
        Effect.succeed(1), lambda _: Effect.never, lambda _: note(log, "released")
    )
    fiber = world.fork(program)
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert log == ["released"]
    assert isinstance(fiber.exit, Failure)
    assert isinstance(fiber.exit.cause.reasons[0], Interrupt)


def test_a_dying_release_joins_the_failure_of_use(world: TestRuntime) -> None:
    """Both causes are kept."""
    error, bug = KeyError("expected"), ValueError("bug")
    program = Effect.acquire_use_release(
        Effect.succeed(1), lambda _: Effect.fail(error), lambda _: Effect.die(bug)
    )
    ended = world.run_exit(program)
    assert isinstance(ended, Failure)
    assert ended.cause.defects == (error, bug)
    assert Fail(error) not in ended.cause.reasons


def test_add_finalizer_needs_a_scope(world: TestRuntime) -> None:
    """A finalizer added in a scoped program runs at its end, with the exit."""
    seen: list[object] = []
    added = Effect.add_finalizer(lambda ended: Effect.sync(lambda: seen.append(ended)))
    world.run(added.as_(5).scoped())
    assert seen == [Success(5)]
