"""Interrupted after any number of steps, a program gives back what it took and runs each finalizer once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import NEW_YEAR, Oops

from durable_effect import Do, Effect, Layer, Need, Scope, Semaphore, Tag, provide, runtime
from durable_effect.testing import TestRuntime

Thing = Tag[int]("Thing")
AnyEffect = Effect[Any, Any, Any]


class Ledger:
    """Who took what, and who gave it back."""

    def __init__(self) -> None:
        self.taken: Counter[int] = Counter()
        self.given_back: Counter[int] = Counter()
        self.permits = Semaphore(2)
        self._next = count().__next__

    def take(self) -> int:
        number = self._next()
        self.taken[number] += 1
        return number

    def give_back(self, number: int) -> None:
        self.given_back[number] += 1

    def taking(self) -> AnyEffect:
        """Take something, in several steps."""
        return Effect.yield_now().flat_map(lambda _: Effect.sync(self.take)).tap(lambda _: Effect.yield_now())

    def giving_back(self, number: int) -> AnyEffect:
        """Give it back, in several steps."""
        return Effect.yield_now().and_then(Effect.sync(lambda: self.give_back(number))).delay("1 s")

    @contextmanager
    def taken_for_a_while(self) -> Iterator[int]:
        number = self.take()
        try:
            yield number
        finally:
            self.give_back(number)


def pause(ledger: Ledger, *inner: AnyEffect) -> AnyEffect:
    return Effect.yield_now().and_then(Effect.sleep("1 s"))


def scoped(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    resource = Effect.acquire_release(ledger.taking(), ledger.giving_back)
    return resource.and_then(inner).and_then(resource).and_then(after).scoped()


def used(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return Effect.acquire_use_release(ledger.taking(), lambda _: inner, ledger.giving_back).and_then(after)


def finalized(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    def begun() -> AnyEffect:
        number = ledger.take()
        return inner.ensuring(ledger.giving_back(number))

    return Effect.suspend(begun).and_then(after)


def block(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    @Effect.gen
    def steps() -> Do[Any, Any, Any]:
        with ledger.taken_for_a_while():
            number = ledger.take()
            try:
                yield from inner
            except BaseException:
                yield from Effect.sleep("1 s")  # on its way out nothing interrupts it
                raise
            finally:
                ledger.give_back(number)
            return (yield from after)

    return steps()


def managed(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return Effect.from_context_manager(ledger.taken_for_a_while).and_then(inner).and_then(after).scoped()


def permitted(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return ledger.permits.with_permit(pause(ledger)).and_then(inner).and_then(after)


def layered(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    make: Effect[int, Any, Need[Scope]] = Effect.acquire_release(ledger.taking(), ledger.giving_back)
    layer = Layer.scoped(Thing, make)
    both = layer.merge(layer.fresh()).merge(layer)
    return inner.and_then(Effect.service(Thing)).and_then(after) | provide(both)


def shielded(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return Effect.uninterruptible_mask(lambda restore: restore(inner).and_then(after))


def recovered(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return inner.and_then(Effect.fail(Oops("e1"))).catch_all(lambda _: after)


def forked(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return inner.fork().flat_map(lambda fiber: after.and_then(fiber.join()))


def hurried(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return inner.and_then(after).timeout_option("2 s")


def raced(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return inner.race(after)


def crowded(ledger: Ledger, inner: AnyEffect, after: AnyEffect) -> AnyEffect:
    return Effect.all([inner, after, inner], concurrency=2)


SHAPES: list[Callable[..., AnyEffect]] = [
    scoped,
    used,
    finalized,
    block,
    managed,
    permitted,
    layered,
    shielded,
    recovered,
    forked,
    hurried,
    raced,
    crowded,
]
shapes = st.recursive(
    st.just((pause,)), lambda part: st.tuples(st.sampled_from(SHAPES), part, part), max_leaves=4
)


def made(shape: Any, ledger: Ledger) -> AnyEffect:
    make, *parts = shape
    effect: AnyEffect = make(ledger, *(made(part, ledger) for part in parts))
    return effect


def interrupted_after(steps: int, shape: Any) -> bool:
    """Run, interrupt after so many steps, and check; answer whether the program had ended before."""
    ledger = Ledger()
    with TestRuntime(NEW_YEAR) as world:
        fiber = world.fork(made(shape, ledger))

        @Effect.gen
        def end() -> Do[bool]:
            for step in range(steps):
                yield from Effect.yield_now() if step % 4 else Effect.yield_now().delay("500 ms")
            before = yield from fiber.poll()
            yield from fiber.interrupt()
            return before is not None

        over = world.run(end())
    assert ledger.given_back == ledger.taken
    assert set(ledger.taken.values()) <= {1}
    with TestRuntime(NEW_YEAR) as world:
        world.run(ledger.permits.with_permits(2, Effect.void))
        assert world.now == NEW_YEAR
    return over


@pytest.mark.parametrize("shape", SHAPES)
def test_every_moment_of_every_shape(shape: Callable[..., AnyEffect]) -> None:
    """Every operation, interrupted after every single step, with other fibers running between any two."""
    with patch.object(runtime, "FUEL", (None,)):
        plan = (shape, (scoped, (pause,), (pause,)), (used, (pause,), (pause,)))
        ends = [interrupted_after(steps, plan) for steps in range(120)]
    assert ends[-1]
    assert not ends[0]


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 40), st.booleans())
def test_any_moment_of_any_program(shape: Any, steps: int, in_small_steps: bool) -> None:
    """Operations inside each other, interrupted after any number of steps, small or large."""
    with patch.object(runtime, "FUEL", (None,) if in_small_steps else runtime.FUEL):
        interrupted_after(steps, shape)
