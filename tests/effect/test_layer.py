"""Layers: services built once, in order, and released in reverse."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from durable_effect import (
    Cause,
    Do,
    Effect,
    Env,
    Failure,
    Layer,
    MissingServiceError,
    Need,
    Reference,
    Scope,
    Tag,
    TypedError,
    provide,
    provide_service,
)
from durable_effect.testing import TestRuntime

A, B, C = Tag[str]("A"), Tag[int]("B"), Tag[float]("C")


@attrs.frozen
class NoConnection(TypedError):
    """Nobody there."""

    name: str


def service(
    log: list[str], name: str, value: Any, needs: Any = None, fail: bool = False
) -> Effect[Any, Any, Any]:
    """Acquire a service by name, perhaps with another one."""

    @Effect.gen
    def make() -> Do[Any, NoConnection, Any]:
        if needs is not None:
            yield from Effect.service(needs)
        yield from Effect.acquire_release(
            Effect.sync(lambda: log.append(f"+{name}")), lambda _: Effect.sync(lambda: log.append(f"-{name}"))
        )
        if fail:
            yield from Effect.fail(NoConnection(name))
        return value

    return make()


def test_services_are_built_before_and_released_after(world: TestRuntime) -> None:
    """The dependency comes first and goes last, around the program."""
    log: list[str] = []
    a = Layer.scoped(A, service(log, "a", "A"))
    b = Layer.scoped(B, service(log, "b", 2, needs=A)).pipe(provide(a))
    program = Effect.service(B).tap(lambda _: Effect.sync(lambda: log.append("use")))
    assert world.run(program.pipe(provide(b))) == 2
    assert log == ["+a", "+b", "use", "-b", "-a"]


def test_a_layer_that_occurs_twice_is_built_once(world: TestRuntime) -> None:
    """Sharing is by identity; `fresh` builds anew."""
    log: list[str] = []
    a = Layer.scoped(A, service(log, "a", "A"))
    b = Layer.scoped(B, service(log, "b", 2, needs=A)).pipe(provide(a))
    c = Layer.scoped(C, service(log, "c", 3.0, needs=A)).pipe(provide(a))
    world.run(Effect.service(A).pipe(provide(a.merge(b).merge(c))))
    assert (log[0], sorted(log[:3])) == ("+a", ["+a", "+b", "+c"])
    assert (log[-1], sorted(log[3:])) == ("-a", ["-a", "-b", "-c"])
    log.clear()
    world.run(Effect.service(A).pipe(provide(a.merge(a.fresh()))))
    assert log == ["+a", "+a", "-a", "-a"]


def test_every_provide_builds_anew(world: TestRuntime) -> None:
    """Nothing is kept from one run to the next."""
    log: list[str] = []
    a = Layer.scoped(A, service(log, "a", "A"))
    program = Effect.service(A).pipe(provide(a))
    world.run(program.and_then(program))
    assert log == ["+a", "-a", "+a", "-a"]


def test_a_failing_build_is_typed_and_releases(world: TestRuntime) -> None:
    """What was built before the failure is released, and the program does not run."""
    log: list[str] = []
    a = Layer.scoped(A, service(log, "a", "A"))
    b = Layer.scoped(B, service(log, "b", 2, fail=True))
    used = Effect.sync(lambda: log.append("use"))
    ended = world.run_exit(used.pipe(provide(a.merge(b))))
    assert ended == Failure(Cause.fail(NoConnection("b")))
    assert log == ["+a", "+b", "-b", "-a"]


def test_another_layer_can_stand_in(world: TestRuntime) -> None:
    """`catch_all` releases the failed attempt before the other one is built; `or_die` gives up typing."""
    log: list[str] = []
    bad = Layer.scoped(A, service(log, "bad", "A", fail=True))
    good = Layer.scoped(A, service(log, "good", "A"))
    assert world.run(Effect.service(A).pipe(provide(bad.catch_all(lambda _: good)))) == "A"
    assert log == ["+bad", "-bad", "+good", "-good"]
    ended = world.run_exit(Effect.service(A).pipe(provide(bad.or_die())))
    assert ended == Failure(Cause.die(NoConnection("bad")))


def test_interrupting_a_build_releases_what_was_built(world: TestRuntime) -> None:
    """A build that waits can be interrupted."""
    log: list[str] = []
    a = Layer.scoped(A, service(log, "a", "A"))
    b = Layer.effect(B, Effect.never)
    fiber = world.fork(Effect.service(A).pipe(provide(a.merge(b))))
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["+a", "-a"]


def test_simple_layers(world: TestRuntime) -> None:
    """Values, calls and effects make services; `merge_all`, `empty` and `from_env` put them together."""
    both = Effect.service(A).zip(Effect.service(B))
    calls: list[int] = []
    layer = Layer.merge_all(Layer.succeed(A, "a"), Layer.empty())
    counted = Layer.sync(B, lambda: calls.append(1) or 7)
    assert world.run(both.pipe(provide(layer)).pipe(provide(counted))) == ("a", 7)
    assert calls == [1]
    assert world.run(both.pipe(provide(Layer.from_env(Env.of(A, "e").add(B, 1))))) == ("e", 1)
    assert world.run(both.provide(Layer.succeed(A, "a").merge(Layer.effect(B, Effect.succeed(2))))) == (
        "a",
        2,
    )


def test_provide_merge_keeps_the_dependency(world: TestRuntime) -> None:
    """Both the layer and what it was given are provided."""
    length = Layer.effect(B, Effect.service(A).map(len))
    both = Effect.service(A).zip(Effect.service(B))
    assert world.run(both.pipe(provide(length.provide_merge(Layer.succeed(A, "abc"))))) == ("abc", 3)
    assert world.run(Effect.service(B).provide(length.provide(Layer.succeed(A, "ab")))) == 2


def test_a_layer_can_just_do_something(world: TestRuntime) -> None:
    """`effect_discard` runs at the build and provides nothing."""
    log: list[str] = []
    layer = Layer.effect_discard(service(log, "x", None))
    world.run(Effect.sync(lambda: log.append("use")).pipe(provide(layer)))
    assert log == ["+x", "use", "-x"]


def test_a_build_can_be_kept(world: TestRuntime) -> None:
    """`build` answers the services, and the scope around releases them."""
    log: list[str] = []
    layer = Layer.scoped(A, service(log, "a", "A"))

    @Effect.gen
    def program() -> Do[str, Any, Need[Scope]]:
        env = yield from layer.build()
        log.append("use")
        return env.get(A)

    assert world.run(program().scoped()) == "A"
    assert log == ["+a", "use", "-a"]


def test_launch_keeps_the_services_until_interrupted(world: TestRuntime) -> None:
    """A launched layer never ends by itself."""
    log: list[str] = []
    fiber = world.fork(Layer.scoped(A, service(log, "a", "A")).launch())
    world.settle()
    assert log == ["+a"]
    world.run(fiber.interrupt())
    assert log == ["+a", "-a"]


@Effect.gen
def _asks() -> Do[object, Any, Any]:
    return (yield from Effect.service(A))


@pytest.mark.parametrize("program", [_asks(), Effect.service(A)], ids=["do-block", "effect"])
def test_a_missing_service_is_the_whole_story(program: Effect[Any, Any, Any]) -> None:
    """The traceback holds nothing of how it was looked up."""
    with pytest.raises(MissingServiceError) as missing:
        Effect.run_sync(program)
    assert missing.value.__context__ is None


def test_a_missing_service_is_a_defect_that_names_it() -> None:
    """The message says which one and how to provide it."""
    program: Effect[Any, Any, Any] = Effect.service(A)
    with pytest.raises(MissingServiceError, match="A provided"):
        Effect.run_sync(program)

    @Effect.gen
    def block() -> Do[str, Any, Any]:
        return (yield from Effect.service(A))

    broken: Effect[Any, Any, Any] = block()
    with pytest.raises(MissingServiceError) as missing:
        Effect.run_sync(broken)
    assert missing.value.keys == ("A",)


def test_optional_services_and_references(world: TestRuntime) -> None:
    """`service_option` answers Nothing, a Reference its default."""
    limit = Reference("limit", 10)
    assert str(world.run(Effect.service_option(A))) == "<Nothing>"
    assert world.run(Effect.service_option(A) | provide_service(A, "x")).unwrap() == "x"
    asks: Effect[int, Any, Any] = Effect.service(limit)
    assert world.run(asks) == 10
    assert world.run(asks | provide_service(limit, 3)) == 3


def test_environments_are_values() -> None:
    """`add` and `merge` leave the environment they start from alone."""
    env = Env.of(A, "a")
    more = env.add(B, 1).merge(Env.of(A, "b"))
    assert (env.get(A), more.get(A), more.get(B)) == ("a", "b", 1)
    assert (A in env, B in env, len(more)) == (True, False, 2)
    assert env == Env.of(A, "a")
    assert Effect.run_sync(Effect.env().provide_env(env)) == env
    assert repr(more) == "Env(A, B)"
