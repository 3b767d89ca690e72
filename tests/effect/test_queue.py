"""Queues: first in, first out, and nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_effect import Cause, Do, Effect, Failure, Queue, QueueEnded, Success
from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(0, 3), st.lists(st.integers(), max_size=10), st.integers(1, 3))
def test_everything_offered_is_taken_in_order(capacity: int, values: list[int], takers: int) -> None:
    """Several consumers take each value once; a single one takes them in order, whatever the capacity."""
    taken: list[int] = []

    @Effect.gen
    def consume(queue: Queue[int]) -> Do[None, QueueEnded]:
        while True:
            taken.append((yield from queue.take()))
            yield from Effect.yield_now()

    @Effect.gen
    def program() -> Do[None]:
        queue = yield from Queue.bounded(capacity)
        for _ in range(takers):
            yield from consume(queue).ignore().fork()
        for value in values:
            yield from queue.offer(value)
        yield from queue.end()
        yield from Effect.sleep("1 s")

    with TestRuntime(NEW_YEAR) as world:
        world.run(program())
    assert sorted(taken) == sorted(values)
    assert takers > 1 or taken == values


def test_a_full_queue_holds_offers_back(world: TestRuntime) -> None:
    """An offer beyond the capacity waits until something is taken; with capacity 0, until it itself is."""
    for capacity in (0, 1):
        queue = world.run(Queue.bounded(capacity))
        offers = [world.fork(queue.offer(n)) for n in range(3)]
        world.settle()
        assert [fiber.exit is not None for fiber in offers] == [n < capacity for n in range(3)]
        assert world.run(queue.size()) == 3
        assert world.run(queue.take()) == 0
        assert [fiber.exit is not None for fiber in offers] == [n < capacity + 1 for n in range(3)]


def test_full_queues_that_do_not_wait(world: TestRuntime) -> None:
    """Dropping refuses the newest, sliding forgets the oldest."""
    dropping, sliding = world.run(Queue.dropping(2)), world.run(Queue.sliding(2))
    assert [world.run(dropping.offer(n)) for n in range(3)] == [True, True, False]
    assert [world.run(sliding.offer(n)) for n in range(3)] == [True, True, True]
    assert world.run(dropping.take_all()) == [0, 1]
    assert world.run(sliding.take_all()) == [1, 2]
    assert world.run(world.run(Queue.sliding(0)).offer(1)) is False


def test_an_ended_queue_is_emptied_first(world: TestRuntime) -> None:
    """What is in it can be taken; then takers fail as they were told, and offers are refused."""
    for end, error in ((lambda q: q.end(), QueueEnded()), (lambda q: q.fail("broken"), "broken")):
        queue = world.run(Queue.unbounded())
        world.run(queue.offer(1))
        assert world.run(end(queue)) is True
        assert world.run(queue.offer(2)) is False
        assert world.run(queue.take()) == 1
        assert world.run_exit(queue.take()) == Failure(Cause.fail(error))
        assert world.run(end(queue)) is False


def test_ending_wakes_those_who_wait(world: TestRuntime) -> None:
    """A taker that waited fails; after a shutdown it is interrupted, and waiting offers answer False."""
    queue = world.run(Queue.unbounded())
    taker = world.fork(queue.take())
    world.settle()
    world.run(queue.end())
    assert taker.exit == Failure(Cause.fail(QueueEnded()))

    full = world.run(Queue.bounded(0))
    offer = world.fork(full.offer(1))
    world.settle()
    world.run(full.shutdown())
    assert offer.exit == Success(False)
    ended = world.run_exit(full.take())
    assert isinstance(ended, Failure)
    assert ended.cause.is_interrupted_only


def test_a_value_handed_to_an_interrupted_taker_goes_to_the_next(world: TestRuntime) -> None:
    """A taker interrupted after it was served, but before it went on, gives the value back in front."""

    @Effect.gen
    def program(others: bool) -> Do[Any]:
        queue = yield from Queue.unbounded()
        first = yield from queue.take().fork()
        second = yield from queue.take().fork() if others else Effect.succeed(None)
        yield from Effect.yield_now()
        yield from queue.offer("a")
        yield from first.interrupt_fork()
        yield from queue.offer("b")
        if second is not None:
            return [(yield from second.join()), (yield from queue.take())]
        return (yield from queue.take_all())

    assert world.run(program(others=False)) == ["a", "b"]
    assert world.run(program(others=True)) == ["a", "b"]


def test_interrupted_waiters_leave_the_queue(world: TestRuntime) -> None:
    """Neither a taker nor an offer that gave up counts any more."""
    queue = world.run(Queue.bounded(0))
    taker = world.fork(queue.take())
    world.settle()
    world.run(taker.interrupt())
    offer = world.fork(queue.offer(1))
    world.settle()
    assert offer.exit is None
    world.run(offer.interrupt())
    assert world.run(queue.size()) == 0


def test_a_negative_capacity_is_refused(world: TestRuntime) -> None:
    """There is no room less than none."""
    with pytest.raises(ValueError, match="-1"):
        world.run(Queue.bounded(-1))
