"""Scopes: what is acquired is released, in reverse."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durable_effect import (
    Cause,
    Do,
    Effect,
    Exit,
    Failure,
    MissingServiceError,
    Need,
    Scope,
    Success,
    Tag,
    TypedError,
    provide_service,
)
from durable_effect.testing import TestRuntime


class Oops(TypedError):
    """Went wrong."""


def resource(log: list[str], name: str) -> Effect[str, Any, Need[Scope]]:
    """Acquire and release by name."""
    return Effect.acquire_release(
        Effect.sync(lambda: log.append(f"+{name}")).as_(name),
        lambda n: Effect.sync(lambda: log.append(f"-{n}")),
    )


def test_released_in_reverse_at_the_end(world: TestRuntime) -> None:
    """A scoped program releases the last acquired first, after its own end."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[str, Any, Need[Scope]]:
        a = yield from resource(log, "a")
        b = yield from resource(log, "b")
        log.append("use")
        return a + b

    assert world.run(program().scoped()) == "ab"
    assert log == ["+a", "+b", "use", "-b", "-a"]


@given(st.lists(st.booleans(), max_size=6))
def test_every_finalizer_runs_although_some_fail(fails: list[bool]) -> None:
    """A failing finalizer does not stop the others, and all causes are collected in the order they ran."""
    log: list[int] = []

    def finalizer(n: int, fail: bool) -> Effect[Any]:
        return Effect.sync(lambda: log.append(n)).and_then(Effect.die(str(n)) if fail else Effect.void)

    @Effect.gen
    def program() -> Do[None, Any, Need[Scope]]:
        for n, fail in enumerate(fails):
            yield from Effect.add_finalizer(lambda _, n=n, fail=fail: finalizer(n, fail))

    ended = Effect.run_sync_exit(program().scoped())
    assert log == list(reversed(range(len(fails))))
    expected = [str(n) for n in reversed(range(len(fails))) if fails[n]]
    found = [str(defect) for defect in ended.cause.defects] if isinstance(ended, Failure) else []
    assert found == expected


def test_finalizers_see_the_exit(world: TestRuntime) -> None:
    """They are told how the scope's program ended."""
    seen: list[Exit[Any, Any]] = []
    note = Effect.add_finalizer(lambda ended: Effect.sync(lambda: seen.append(ended)))
    world.run(note.as_(1).scoped())
    world.run_exit(note.and_then(Effect.fail(Oops())).scoped())
    assert seen == [Success(1), Failure(Cause.fail(Oops()))]


def test_release_sees_the_services_of_the_acquisition(world: TestRuntime) -> None:
    """Services that are provided only around the acquisition are there at the release too."""
    name = Tag[str]("name")
    seen: list[str] = []
    acquire: Effect[None, Any, Any] = Effect.acquire_release(
        Effect.void, lambda _: Effect.service(name).map(seen.append)
    )
    world.run((acquire | provide_service(name, "inner")).scoped())
    assert seen == ["inner"]


def test_acquisition_is_not_interrupted(world: TestRuntime) -> None:
    """What was acquired while an interruption waited is released."""
    log: list[str] = []
    slow = Effect.acquire_release(
        Effect.sleep("1 minute").map(lambda _: log.append("acquired")),
        lambda _: Effect.sync(lambda: log.append("released")),
    )
    fiber = world.fork(slow.scoped())
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["acquired", "released"]


def test_use_is_interrupted_and_release_is_not(world: TestRuntime) -> None:
    """`acquire_use_release` restores interruptibility for `use` alone."""
    log: list[str] = []
    fiber = world.fork(
        Effect.acquire_use_release(
            Effect.succeed("r"),
            lambda _: Effect.never,
            lambda r: Effect.sleep("1 minute").map(lambda _: log.append(r)),
        )
    )
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["r"]


def test_without_a_scope_nothing_is_acquired() -> None:
    """A missing scope is found out before the resource is there."""
    log: list[str] = []
    program: Effect[Any, Any, Any] = resource(log, "a")
    ended = Effect.run_sync_exit(program)
    assert isinstance(ended, Failure)
    assert isinstance(ended.cause.squash(), MissingServiceError)
    assert log == []


def test_a_closed_scope_releases_at_once(world: TestRuntime) -> None:
    """A finalizer that comes too late runs with the exit that closed the scope; closing again is nothing."""
    seen: list[Any] = []

    @Effect.gen
    def program() -> Do[None]:
        scope = yield from Scope.make()
        yield from scope.close(Success(1))
        yield from scope.add_finalizer(lambda ended: Effect.sync(lambda: seen.append(ended)))
        yield from scope.close(Success(2))

    world.run(program())
    assert seen == [Success(1)]


def test_a_child_is_closed_in_its_place(world: TestRuntime) -> None:
    """A forked scope closes with its parent where it was forked, or earlier by itself and then only once."""
    log: list[str] = []

    def note(what: str) -> Any:
        return lambda _: Effect.sync(lambda: log.append(what))

    @Effect.gen
    def program(early: bool) -> Do[None]:
        parent = yield from Scope.make()
        yield from parent.add_finalizer(note("first"))
        child = yield from parent.fork()
        yield from child.add_finalizer(note("child"))
        yield from parent.add_finalizer(note("last"))
        if early:
            yield from child.close(Success(None))
        yield from parent.close(Success(None))

    world.run(program(early=False))
    assert log == ["last", "child", "first"]
    log.clear()
    world.run(program(early=True))
    assert log == ["child", "last", "first"]


def test_an_extended_scope_stays_open(world: TestRuntime) -> None:
    """`extend` gives a program a scope that somebody else closes."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[list[str]]:
        scope = yield from Scope.make()
        yield from scope.extend(resource(log, "a"))
        before = list(log)
        yield from scope.close(Success(None))
        return before

    assert world.run(program()) == ["+a"]
    assert log == ["+a", "-a"]


def test_a_used_scope_is_closed(world: TestRuntime) -> None:
    """`use` closes it when the program ends."""
    log: list[str] = []
    assert world.run(Scope.make().flat_map(lambda scope: scope.use(resource(log, "a")))) == "a"
    assert log == ["+a", "-a"]


def test_context_managers_are_entered_and_left(world: TestRuntime) -> None:
    """They see the exception with which the scope closed."""
    log: list[str] = []

    @contextlib.contextmanager
    def plain() -> Iterator[str]:
        log.append("enter")
        try:
            yield "value"
        except Oops:
            log.append("oops")
            raise
        finally:
            log.append("leave")

    @contextlib.asynccontextmanager
    async def later() -> AsyncIterator[str]:
        log.append("enter async")
        yield "later"
        log.append("leave async")

    assert world.run(Effect.from_context_manager(plain).scoped()) == "value"
    assert world.run(Effect.from_async_context_manager(later).scoped()) == "later"
    assert log == ["enter", "leave", "enter async", "leave async"]
    log.clear()
    ended = world.run_exit(Effect.from_context_manager(plain).and_then(Effect.fail(Oops())).scoped())
    assert log == ["enter", "oops", "leave"]
    assert isinstance(ended, Failure)


def test_fibers_end_with_their_scope(world: TestRuntime) -> None:
    """`fork_scoped` and `fork_in` tie a fiber to a scope, and forget it when it ends by itself."""
    log: list[str] = []
    background = Effect.never.ensuring(Effect.sync(lambda: log.append("ended")))

    @Effect.gen
    def program() -> Do[None, Any, Need[Scope]]:
        yield from background.fork_scoped()
        scope = yield from Effect.scope()
        yield from Effect.void.fork_in(scope)
        yield from Effect.sleep("1 s")
        log.append("program")

    world.run(program().scoped())
    assert log == ["program", "ended"]


def test_a_closed_scope_starts_no_fibers(world: TestRuntime) -> None:
    """`fork_in` a closed scope answers a fiber that never runs."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[Any]:
        scope = yield from Scope.make()
        yield from scope.close(Success(None))
        fiber = yield from Effect.sync(lambda: log.append("ran")).fork_in(scope)
        return (yield from fiber.await_())

    assert world.run(program()).cause.is_interrupted_only
    assert log == []
