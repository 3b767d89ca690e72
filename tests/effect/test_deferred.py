"""Deferreds: values that somebody will bring."""

from __future__ import annotations

from typing import Any

from durable_effect import Cause, Deferred, Effect, Failure, Success
from durable_effect.testing import TestRuntime


def test_only_the_first_outcome_counts(world: TestRuntime) -> None:
    """Later ones answer False and change nothing."""
    gate: Deferred[int, str] = Deferred()
    assert (world.run(gate.succeed(1)), world.run(gate.fail("late")), gate.is_done) == (True, False, True)
    assert world.run(gate.await_()) == 1


def test_failures_are_brought_too(world: TestRuntime) -> None:
    """Everybody who waits fails with it."""
    gate: Deferred[int, str] = Deferred()
    waiting = [world.fork(gate.await_()) for _ in range(2)]
    world.settle()
    assert not gate.is_done
    world.run(gate.fail("no"))
    assert [fiber.exit for fiber in waiting] == [Failure(Cause.fail("no"))] * 2


def test_complete_runs_an_effect_once(world: TestRuntime) -> None:
    """Its outcome is kept; `complete_with` gives the effect itself to each who waits."""
    runs: list[int] = []
    count = Effect.sync(lambda: runs.append(1) or len(runs))
    once: Deferred[Any, Any] = Deferred()
    each: Deferred[Any, Any] = Deferred()
    world.run(once.complete(count).and_then(each.complete_with(count)))
    assert [world.run(once.await_()) for _ in range(2)] == [1, 1]
    assert [world.run(each.await_()) for _ in range(2)] == [2, 3]


def test_an_interrupted_waiter_is_forgotten(world: TestRuntime) -> None:
    """The others still get the value."""
    gate: Deferred[int, Any] = Deferred()
    gone, stays = world.fork(gate.await_()), world.fork(gate.await_())
    world.settle()
    world.run(gone.interrupt())
    world.run(gate.succeed(1))
    assert stays.exit == Success(1)
