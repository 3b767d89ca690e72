"""Semaphores: permits that come back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect import Do, Effect, Semaphore
from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from(["ends", "fails", "stopped"])),
        max_size=8,
    ),
)
def test_permits_are_never_exceeded_nor_lost(permits: int, plan: list[tuple[int, int, str]]) -> None:
    """Whatever ends, fails or is interrupted: never more holders than permits, and all come back."""
    semaphore = Semaphore(permits)
    held: list[int] = [0]

    @Effect.gen
    def hold(n: int, seconds: int, how: str) -> Do[None]:
        held[0] += n
        assert held[0] <= permits
        try:
            yield from Effect.sleep(f"{seconds} s")
            if how == "fails":
                yield from Effect.die("bad")
        finally:
            held[0] -= n

    with TestRuntime(NEW_YEAR) as world:
        fibers = [
            (world.fork(semaphore.with_permits(min(n, permits), hold(min(n, permits), s, how))), how)
            for n, s, how in plan
        ]
        world.advance("1 s")
        for fiber, how in fibers:
            if how == "stopped":
                world.run(fiber.interrupt())
        world.advance("1 hour")
        assert all(fiber.exit is not None for fiber, _ in fibers)
        assert world.run(semaphore.with_permits(permits, Effect.succeed("all back"))) == "all back"


def test_permits_are_given_in_order(world: TestRuntime) -> None:
    """Who asks first is served first, also when a later one would need fewer."""
    semaphore, log = Semaphore(2), list[str]()

    def hold(name: str, n: int) -> Effect[None]:
        return semaphore.with_permits(n, Effect.sleep("1 s").map(lambda _: log.append(name)))

    for name, n in (("a", 1), ("big", 2), ("b", 1)):
        world.fork(hold(name, n))
    world.advance("1 hour")
    assert log == ["a", "big", "b"]


def test_a_permit_that_comes_with_an_interruption_is_handed_on(world: TestRuntime) -> None:
    """A waiter that is interrupted after it was served, but before it went on, gives the permit back."""
    semaphore = Semaphore(1)

    @Effect.gen
    def program() -> Do[Any]:
        holder = yield from semaphore.with_permit(Effect.never).fork()
        yield from Effect.yield_now()
        waiter = yield from semaphore.with_permit(Effect.never).fork()
        yield from Effect.yield_now()
        yield from holder.interrupt_fork()
        yield from waiter.interrupt_fork()
        return (yield from semaphore.with_permit(Effect.succeed("free")))

    assert world.run(program()) == "free"


def test_nonsense_is_refused() -> None:
    """No permits, or more than there are, can be asked for."""
    with pytest.raises(ValueError, match="at least one"):
        Semaphore(0)
    with pytest.raises(ValueError, match="of 2"):
        Semaphore(2).with_permits(3, Effect.void)
    assert Effect.run_sync(Semaphore.make(1).flat_map(lambda s: s.with_permit(Effect.succeed(1)))) == 1
