"""Layers and managed runtimes: built once, released in reverse, by identity."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import pytest

from durable_effect import (
    Cause,
    Do,
    Effect,
    Env,
    Exit,
    Failure,
    Layer,
    ManagedRuntime,
    MissingServiceError,
    Reference,
    Scope,
    Success,
    Tag,
    provide,
    provide_service,
    provide_service_effect,
)
from durable_effect.testing import TestRuntime

A, B, C = Tag[str]("A"), Tag[str]("B"), Tag[str]("C")
DONE: Exit[None, object] = Success(None)


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


def acquired(log: list[str], name: str) -> Effect[str, Any, Any]:
    """Acquire a service that is its own name."""
    return Effect.acquire_release(note(log, f"+{name}").as_(name), lambda _: note(log, f"-{name}"))


def live(log: list[str], tag: Tag[str], needs: Tag[str] | None = None) -> Layer[Any, Any, Any]:
    """Make a layer that acquires its service, perhaps with another one."""
    before: Effect[object, Any, Any] = Effect.void if needs is None else Effect.service(needs)
    return Layer.scoped(tag, before.and_then(acquired(log, tag.name)))


def test_a_layer_that_is_used_twice_is_built_once(world: TestRuntime) -> None:
    """Memoised by identity in one build."""
    log: list[str] = []
    a = live(log, A)
    b, c = live(log, B, A).pipe(provide(a)), live(log, C, A).pipe(provide(a))
    world.run(Effect.service(B).zip(Effect.service(C)).provide(b.merge(c)))
    assert log.count("+A") == 1
    assert log.count("-A") == 1


def test_two_equal_layers_are_two(world: TestRuntime) -> None:
    """Identity counts, not equality."""
    log: list[str] = []
    world.run(Effect.service(A).provide(live(log, A).merge(live(log, A))))
    assert log.count("+A") == 2


def test_fresh_is_built_anew(world: TestRuntime) -> None:
    """`fresh` does not share what was built."""
    log: list[str] = []
    a = live(log, A)
    world.run(Effect.service(A).provide(a.merge(a.fresh())))
    assert log.count("+A") == 2
    assert log.count("-A") == 2


def test_a_shared_layer_is_released_with_its_last_user(world: TestRuntime) -> None:
    """Reference-counted: the first scope that closes leaves it alive."""
    log: list[str] = []
    a = live(log, A)

    @Effect.gen
    def program() -> Do[None]:
        first, second = (yield from Scope.make()), (yield from Scope.make())
        shared = Effect.gen(lambda: _build_twice(a, first, second))
        yield from shared().provide(Layer.effect_discard(Effect.void))
        yield from first.close(DONE)
        assert log == ["+A"]
        yield from second.close(DONE)

    world.run(program())
    assert log == ["+A", "-A"]


def _build_twice(layer: Layer[Any], first: Scope, second: Scope) -> Any:
    yield from first.extend(layer.build())
    yield from second.extend(layer.build())


def test_after_the_last_release_a_layer_is_built_again(world: TestRuntime) -> None:
    """What was released is not handed out."""
    log: list[str] = []
    program = Effect.service(A).provide(live(log, A))
    outer = program.and_then(program).provide(Layer.effect_discard(Effect.void))
    world.run(outer)
    assert log == ["+A", "-A", "+A", "-A"]


def test_nested_provides_share_what_is_built(world: TestRuntime) -> None:
    """A `provide` inside shares the layers of the one around it, unless it is local."""
    log: list[str] = []
    a = live(log, A)
    world.run(Effect.service(A).provide(a).pipe(provide(a)))
    assert log == ["+A", "-A"]
    log.clear()
    world.run(Effect.service(A).provide(a, local=True).pipe(provide(a)))
    assert log == ["+A", "+A", "-A", "-A"]


def test_the_dependency_is_built_first_and_released_last(world: TestRuntime) -> None:
    """`provide` between layers orders them."""
    log: list[str] = []
    chain = live(log, B, A).provide(live(log, A))
    world.run(Effect.service(B).provide(chain))
    assert log == ["+A", "+B", "-B", "-A"]


def test_provide_merge_keeps_the_dependency(world: TestRuntime) -> None:
    """Both services are provided."""
    log: list[str] = []
    both = live(log, B, A).provide_merge(live(log, A))
    assert world.run(Effect.service(A).zip(Effect.service(B)).provide(both)) == ("A", "B")


def test_merge_builds_at_once(world: TestRuntime) -> None:
    """Two layers that take a second each take one second together, to build and to release."""
    slow = Effect.acquire_release(Effect.sleep("1 s").as_("x"), lambda _: Effect.sleep("1 s"))
    both = Layer.merge_all(Layer.scoped(A, slow), Layer.scoped(B, slow))
    assert world.run(Effect.service(A).zip(Effect.service(B)).provide(both)) == ("x", "x")
    assert world.now.second == 2


def test_a_layer_shared_by_parallel_builds_is_waited_for(world: TestRuntime) -> None:
    """The second user of a layer under way waits for the first one's build."""
    log: list[str] = []
    a = Layer.scoped(A, Effect.sleep("1 s").and_then(acquired(log, "A")))
    b, c = live(log, B, A).pipe(provide(a)), live(log, C, A).pipe(provide(a))
    world.run(Effect.service(B).zip(Effect.service(C)).provide(b.merge(c)))
    assert log.count("+A") == 1


def test_catch_all_releases_the_failed_attempt_first(world: TestRuntime) -> None:
    """The order is acquire 1, release 1, acquire 2, release 2."""
    log: list[str] = []
    failing = Layer.scoped(A, acquired(log, "1").and_then(Effect.fail("no")))
    world.run(Effect.service(A).provide(failing.catch_all(lambda _: Layer.scoped(A, acquired(log, "2")))))
    assert log == ["+1", "-1", "+2", "-2"]


def test_a_failing_layer_releases_what_was_built(world: TestRuntime) -> None:
    """What one layer acquired is released when another one fails, and the program does not run."""
    log: list[str] = []
    failing: Layer[Any, Any, Any] = Layer.effect(B, Effect.sleep("1 s").and_then(Effect.fail("no")))
    ended = world.run_exit(note(log, "ran").and_then(Effect.service(A)).provide(live(log, A).merge(failing)))
    assert ended == Failure(Cause.fail("no"))
    assert log == ["+A", "-A"]


def test_a_failing_layer_fails_for_all_who_wait(world: TestRuntime) -> None:
    """Two users of one failing layer see its error, from one attempt."""
    log: list[str] = []
    failing: Effect[str, str] = note(log, "try").and_then(Effect.sleep("1 s")).and_then(Effect.fail("no"))
    a: Layer[Any, Any, Any] = Layer.effect(A, failing)
    b, c = live(log, B, A).pipe(provide(a)), live(log, C, A).pipe(provide(a))
    assert world.run_exit(Effect.service(B).provide(b.merge(c))) == Failure(Cause.fail("no"))
    assert log == ["try"]


def test_or_die_turns_a_build_failure_into_a_defect(world: TestRuntime) -> None:
    """The error of the build is no typed error any more."""
    error = KeyError("no")
    ended = world.run_exit(Effect.service(A).provide(Layer.effect(A, Effect.fail(error)).or_die()))
    assert ended == Failure(Cause.die(error))


def test_an_interruption_while_building_releases_what_was_built(world: TestRuntime) -> None:
    """The finished part is released."""
    log: list[str] = []
    slow = Layer.scoped(B, Effect.service(A).and_then(Effect.never)).pipe(provide(live(log, A)))
    fiber = world.fork(Effect.service(B).provide(slow))
    world.advance("1 s")
    world.run(fiber.interrupt())
    assert log == ["+A", "-A"]


def test_a_missing_service_is_a_defect(world: TestRuntime) -> None:
    """It is named in the error."""
    ended = world.run_exit(Effect.service(A))
    assert isinstance(ended, Failure)
    assert ended.cause.find_defect() == MissingServiceError(("A",))


def test_a_reference_has_a_default(world: TestRuntime) -> None:
    """Without one provided the default is used."""
    level = Reference[int]("level", 3)
    assert world.run(Effect.service(level)) == 3
    assert world.run(Effect.service(level) | provide_service(level, 5)) == 5


def test_suspend_makes_its_layer_once_in_a_build(world: TestRuntime) -> None:
    """The evaluation is memoised."""
    log: list[str] = []

    def make() -> Layer[Any, Any, Any]:
        log.append("made")
        return live(log, A)

    lazy = Layer.suspend(make)
    b, c = live(log, B, A).pipe(provide(lazy)), live(log, C, A).pipe(provide(lazy))
    assert log == []
    world.run(Effect.service(B).zip(Effect.service(C)).provide(b.merge(c)))
    assert log.count("made") == log.count("+A") == 1


def test_unwrap_builds_the_layer_that_an_effect_answers(world: TestRuntime) -> None:
    """The layer may depend on what the effect found out."""
    layer = Layer.unwrap(Effect.succeed("found").map(lambda name: Layer.succeed(A, name)))
    assert world.run(Effect.service(A).provide(layer)) == "found"


def test_launch_keeps_the_services_until_interrupted(world: TestRuntime) -> None:
    """It never completes and releases on interruption."""
    log: list[str] = []
    fiber = world.fork(live(log, A).launch())
    world.advance("1 hour")
    assert log == ["+A"]
    world.run(fiber.interrupt())
    assert log == ["+A", "-A"]


class Mailer(ABC):
    """A service with two methods."""

    @abstractmethod
    def send(self, text: str) -> Effect[str]:
        """Send a mail."""

    @abstractmethod
    def count(self) -> Effect[int]:
        """Count the mails."""


def test_a_mock_has_the_members_it_was_given(world: TestRuntime) -> None:
    """The others die when they are used, and say so."""
    mock = Layer.mock(Mailer, send=lambda text: Effect.succeed(f"sent {text}"))
    assert world.run(Effect.service(Mailer).flat_map(lambda m: m.send("x")).provide(mock)) == "sent x"
    ended = world.run_exit(Effect.service(Mailer).flat_map(lambda m: m.count()).provide(mock))
    assert isinstance(ended, Failure)
    assert isinstance(ended.cause.find_defect(), NotImplementedError)
    assert "Mailer.count" in str(ended.cause.find_defect())


def test_a_mock_refuses_what_the_service_does_not_have() -> None:
    """A misspelt member is an AttributeError."""
    with pytest.raises(AttributeError, match="Mailer has no member sned"):
        Layer.mock(Mailer, sned=1)


def test_a_service_can_be_made_by_an_effect(world: TestRuntime) -> None:
    """`provide_service_effect` runs the effect before the program."""
    log: list[str] = []
    program = Effect.service(A) | provide_service_effect(A, note(log, "made").as_("a"))
    assert world.run(program) == "a"
    assert log == ["made"]


def test_a_service_can_be_changed_for_a_part(world: TestRuntime) -> None:
    """`update_service` holds inside only."""
    program = Effect.service(A).update_service(A, str.upper).zip(Effect.service(A))
    assert world.run(program | provide_service(A, "a")) == ("A", "a")


def test_the_environment_can_be_read_and_replaced(world: TestRuntime) -> None:
    """`Effect.env` answers all services, `provide_env` puts others in place of them."""
    env = world.run(Effect.env() | provide_service(A, "a"))
    assert env.get(A) == "a"
    assert world.run(Effect.env().provide_env(Env.of(B, "b"))) == Env.of(B, "b")


def test_effect_discard_runs_at_the_build_and_provides_nothing(world: TestRuntime) -> None:
    """Its finalizers run at the release."""
    log: list[str] = []
    world.run(note(log, "use").provide(Layer.effect_discard(acquired(log, "side"))))
    assert log == ["+side", "use", "-side"]


# ---- managed runtimes --------------------------------------------------------------------------------------


def test_a_managed_runtime_builds_once_and_releases_at_the_end() -> None:
    """Two runs share the services; leaving the block releases them."""
    log: list[str] = []
    with ManagedRuntime(live(log, A)) as runtime:
        assert log == []
        assert runtime.run_sync(Effect.service(A)) == "A"
        assert runtime.run_sync_exit(Effect.service(A)) == Success("A")
        assert log == ["+A"]
    assert log == ["+A", "-A"]


def test_a_managed_runtime_that_was_never_used_builds_nothing() -> None:
    """There is nothing to release."""
    log: list[str] = []
    with ManagedRuntime(live(log, A)):
        pass
    assert log == []


def test_a_closed_managed_runtime_refuses_to_run() -> None:
    """A program that comes too late dies."""
    runtime = ManagedRuntime(Layer.succeed(A, "a"))
    with runtime:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        runtime.run_sync(Effect.service(A))


def test_a_managed_runtime_runs_on_asyncio() -> None:
    """Programs that run at once share one build."""
    log: list[str] = []

    async def main() -> list[str]:
        async with ManagedRuntime(
            Layer.scoped(A, Effect.yield_now().and_then(acquired(log, "A")))
        ) as runtime:
            service = Effect.service(A)
            return await asyncio.gather(runtime.run_async(service), runtime.run_async(service))

    assert asyncio.run(main()) == ["A", "A"]
    assert log == ["+A", "-A"]


def test_a_build_error_is_the_error_of_the_run() -> None:
    """A failing layer fails the program with its typed error."""
    with ManagedRuntime(Layer.effect(A, Effect.fail("no"))) as runtime:
        assert runtime.run_sync_exit(Effect.service(A)) == Failure(Cause.fail("no"))
