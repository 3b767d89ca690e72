"""However long, deep or many: no recursion limit, no quadratic time."""

from __future__ import annotations

from typing import Any

from programs import Oops

from durable_effect import Cause, Deferred, Do, Effect, Failure, Layer, Tag, provide, provide_service

Depth = Tag[int]("Depth")
MANY = 100_000


def test_a_million_steps_through_the_interpreter() -> None:
    """A loop that names itself as the next effect, with handlers on the way."""

    def loop(left: int) -> Effect[int, Oops]:
        less = Effect.suspend(lambda: Effect.succeed(left - 1))
        return less.flat_map(lambda n: loop(n) if n else Effect.succeed(7))

    assert Effect.run_sync(loop(250_000)) == 7

    @Effect.gen
    def count() -> Do[int, Oops]:
        steps = 0
        while steps < 1_000_000:
            steps += yield from Effect.succeed(1)
        return steps

    assert Effect.run_sync(count()) == 1_000_000


def test_a_hundred_thousand_finalizers_around_a_failure() -> None:
    """Each runs once, from the inside out, and the first failure is still there."""
    log: list[int] = []
    effect: Effect[int, Oops] = Effect.fail(Oops("e1"))
    for number in range(MANY):
        effect = effect.ensuring(Effect.sync(lambda number=number: log.append(number)))
    assert Effect.run_sync_exit(effect) == Failure(Cause.fail(Oops("e1")))
    assert log == list(range(MANY))


def test_a_hundred_thousand_handlers_services_and_masks() -> None:
    """Handlers, services, masks and exits inside each other, and a value that comes out of it all."""
    effect: Effect[Any, Oops, Any] = Effect.service(Depth)
    for number in range(MANY // 4):
        effect = effect.catch_all(lambda e: Effect.fail(e)) | provide_service(Depth, number)
        effect = effect.uninterruptible().exit().flat_map(Effect.from_exit)
    assert Effect.run_sync(effect) == 0


def test_a_failure_thrown_through_ten_thousand_do_blocks() -> None:
    """Each of them catches it, waits, and raises it again."""

    @Effect.gen
    def down(left: int) -> Do[int, Oops]:
        try:
            if left == 0:
                yield from Effect.fail(Oops("e1"))
            return (yield from down(left - 1))
        except Oops:
            yield from Effect.yield_now()
            raise

    assert Effect.run_sync_exit(down(10_000)) == Failure(Cause.fail(Oops("e1")))


def test_a_hundred_thousand_fibers() -> None:
    """All are alive at once, wait for the same word, and are joined."""

    @Effect.gen
    def program() -> Do[int]:
        word: Deferred[int, Any] = yield from Deferred.make()
        fibers: list[Any] = []
        for _ in range(MANY):
            fibers.append((yield from word.await_().fork()))
        yield from Effect.yield_now()
        yield from word.succeed(1)
        total = 0
        for fiber in fibers:
            total += yield from fiber.join()
        return total

    assert Effect.run_sync(program()) == MANY


def test_five_thousand_fibers_end_with_the_first() -> None:
    """A chain of children is interrupted at its root; every one of them runs its finalizer, once."""
    log: list[int] = []

    @Effect.gen
    def down(left: int) -> Do[None]:
        if left:
            yield from down(left - 1).fork()
        yield from Effect.never.ensuring(Effect.sync(lambda: log.append(left)))

    @Effect.gen
    def program() -> Do[None]:
        fiber = yield from down(5_000).fork()
        for _ in range(5_002):
            yield from Effect.yield_now()
        yield from fiber.interrupt()

    Effect.run_sync(program())
    assert sorted(log) == list(range(5_001))


def test_a_thousand_layers_upon_each_other() -> None:
    """Each needs the one below; all are released."""
    released: list[int] = []
    layer: Layer[Any, Any, Any] = Layer.succeed(Depth, 0)
    for _ in range(1, 1_000):
        made = Effect.service(Depth).map(lambda below: below + 1)
        kept: Any = Effect.acquire_release(made, lambda n: Effect.sync(lambda: released.append(n)))
        layer = Layer.scoped(Depth, kept).provide(layer)
    assert Effect.run_sync(Effect.service(Depth) | provide(layer)) == 999
    assert released == list(range(999, 0, -1))
