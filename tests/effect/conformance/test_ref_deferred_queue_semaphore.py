"""Ref, SynchronizedRef, Deferred, Queue, Semaphore and Latch: what fibers share."""

from __future__ import annotations

from typing import Any

import pytest
from returns.maybe import Nothing, Some

from durable_effect import (
    Cause,
    Deferred,
    Do,
    Effect,
    Failure,
    Latch,
    Queue,
    QueueEnded,
    Ref,
    Semaphore,
    Success,
    SynchronizedRef,
)
from durable_effect.testing import TestRuntime


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


# ---- cells -------------------------------------------------------------------------------------------------


def test_a_ref_is_read_and_changed(world: TestRuntime) -> None:
    """`get`, `set`, `update`, `modify` and the answering ones."""
    ref = world.run(Ref.make(1))
    assert world.run(ref.update_and_get(lambda n: n + 1)) == 2
    assert world.run(ref.get_and_update(lambda n: n * 10)) == 2
    assert world.run(ref.modify(lambda n: (f"was {n}", 5))) == "was 20"
    world.run(ref.set(6))
    assert world.run(ref.get()) == 6


def test_a_synchronized_ref_changes_by_effects_in_turn(world: TestRuntime) -> None:
    """A change that takes time is not overtaken by another one."""
    ref = world.run(SynchronizedRef.make(1))
    slow = ref.update_effect(lambda n: Effect.sleep("1 s").as_(n + 1))
    quick = ref.update_and_get_effect(lambda n: Effect.succeed(n * 10))
    assert world.run(Effect.all([slow.as_(0), quick], concurrency="unbounded")) == [0, 20]


def test_a_failing_change_leaves_the_value(world: TestRuntime) -> None:
    """And lets the next one have its turn."""
    ref = world.run(SynchronizedRef.make(1))
    assert world.run(ref.update_effect(lambda _: Effect.fail("no")).flip()) == "no"
    assert world.run(ref.get_and_update_effect(lambda n: Effect.succeed(n + 1))) == 1
    assert world.run(ref.get()) == 2


# ---- deferreds ---------------------------------------------------------------------------------------------


def test_a_deferred_is_completed_once(world: TestRuntime) -> None:
    """The first completion counts, later ones answer False."""
    deferred: Deferred[int, str] = world.run(Deferred.make())
    assert world.run(deferred.succeed(1)) is True
    assert world.run(deferred.succeed(2)) is False
    assert world.run(deferred.fail("e")) is False
    assert world.run(deferred.await_()) == 1


def test_all_who_wait_have_the_outcome(world: TestRuntime) -> None:
    """Any number of fibers wait for one deferred."""
    deferred: Deferred[int, str] = Deferred()
    waiting = Effect.all([deferred.await_()] * 3, concurrency="unbounded")
    fiber = world.fork(waiting)
    world.settle()
    world.run(deferred.succeed(7))
    world.settle()
    assert fiber.exit == Success([7, 7, 7])


def test_complete_memoises_the_result(world: TestRuntime) -> None:
    """The effect runs once, whoever waits."""
    runs: list[int] = []
    deferred: Deferred[int, str] = Deferred()
    world.run(deferred.complete(Effect.sync(lambda: runs.append(1) or len(runs))))
    assert world.run(deferred.await_().zip(deferred.await_())) == (1, 1)


def test_complete_with_stores_the_effect(world: TestRuntime) -> None:
    """The effect runs for each who waits."""
    runs: list[int] = []
    deferred: Deferred[int, str] = Deferred()
    world.run(deferred.complete_with(Effect.sync(lambda: runs.append(1) or len(runs))))
    assert world.run(deferred.await_().zip(deferred.await_())) == (1, 2)


def test_a_deferred_can_end_badly_in_every_way(world: TestRuntime) -> None:
    """`fail`, `fail_cause`, `die` and `interrupt`."""
    bug = ValueError("bug")
    outcomes: list[Any] = []
    for end in (
        lambda d: d.fail("e"),
        lambda d: d.fail_cause(Cause.fail("c")),
        lambda d: d.die(bug),
        lambda d: d.interrupt(),
    ):
        deferred: Deferred[int, str] = Deferred()
        assert world.run(end(deferred)) is True
        ended = world.run_exit(deferred.await_())
        assert isinstance(ended, Failure)
        outcomes.append(ended.cause)
    assert outcomes[:3] == [Cause.fail("e"), Cause.fail("c"), Cause.die(bug)]
    assert outcomes[3].is_interrupted_only


# ---- queues ------------------------------------------------------------------------------------------------


def test_a_queue_is_first_in_first_out(world: TestRuntime) -> None:
    """Values come out in the order in which they were offered."""
    queue = world.run(Queue.unbounded())
    world.run(queue.offer_all([1, 2, 3]))
    assert world.run(queue.take_n(3)) == [1, 2, 3]


def test_a_bounded_queue_makes_offers_wait(world: TestRuntime) -> None:
    """The offer over the capacity goes on when something is taken."""
    queue = world.run(Queue.bounded(1))
    offers = world.fork(queue.offer_all([1, 2]))
    world.settle()
    assert offers.exit is None
    assert world.run(queue.take()) == 1
    world.settle()
    assert offers.exit == Success([])
    assert world.run(queue.take()) == 2


def test_capacity_nothing_hands_over(world: TestRuntime) -> None:
    """An offer to a queue of capacity 0 waits for its taker."""
    queue = world.run(Queue.bounded(0))
    offer = world.fork(queue.offer(1))
    world.settle()
    assert offer.exit is None
    assert world.run(queue.take()) == 1
    world.settle()
    assert offer.exit == Success(True)


def test_a_dropping_queue_refuses_and_a_sliding_one_forgets(world: TestRuntime) -> None:
    """When full, the new value is refused or the oldest is dropped."""
    dropping, sliding = world.run(Queue.dropping(2)), world.run(Queue.sliding(2))
    assert world.run(dropping.offer_all([1, 2, 3])) == [3]
    assert world.run(sliding.offer_all([1, 2, 3])) == []
    assert world.run(dropping.take_all()) == [1, 2]
    assert world.run(sliding.take_all()) == [2, 3]


def test_takers_wait_in_order(world: TestRuntime) -> None:
    """Who asked first is served first."""
    queue = world.run(Queue.unbounded())
    first, second = world.fork(queue.take()), world.fork(queue.take())
    world.settle()
    world.run(queue.offer_all(["a", "b"]))
    world.settle()
    assert (first.exit, second.exit) == (Success("a"), Success("b"))


def test_poll_does_not_wait(world: TestRuntime) -> None:
    """Nothing in it is Nothing."""
    queue = world.run(Queue.unbounded())
    assert world.run(queue.poll()) == Nothing
    world.run(queue.offer(1))
    assert world.run(queue.poll()) == Some(1)


@pytest.mark.parametrize("ending", ["end", "fail", "interrupt"])
def test_an_ended_queue_is_drained_first(world: TestRuntime, ending: str) -> None:
    """What is in it can be taken; then takers see the end; later offers answer False."""
    queue: Queue[int, str] = world.run(Queue.unbounded())
    world.run(queue.offer(1))
    closing = {"end": queue.end(), "fail": queue.fail("e"), "interrupt": queue.interrupt()}[ending]
    assert world.run(closing) is True
    assert world.run(closing) is False
    assert world.run(queue.offer(2)) is False
    assert world.run(queue.take()) == 1
    ended = world.run_exit(queue.take())
    assert isinstance(ended, Failure)
    if ending == "interrupt":
        assert ended.cause.is_interrupted_only
    else:
        assert ended.cause == Cause.fail({"end": QueueEnded(), "fail": "e"}[ending])


def test_the_end_reaches_takers_that_wait(world: TestRuntime) -> None:
    """They do not wait for ever."""
    queue: Queue[int, str] = world.run(Queue.unbounded())
    taker = world.fork(queue.take())
    world.settle()
    world.run(queue.fail("e"))
    world.settle()
    assert taker.exit == Failure(Cause.fail("e"))


def test_offers_that_wait_are_drained_too(world: TestRuntime) -> None:
    """A value whose offer waited when the queue ended is not lost."""
    queue: Queue[int, str] = world.run(Queue.bounded(1))
    world.fork(queue.offer_all([1, 2]))
    world.settle()
    world.run(queue.end())
    assert world.run(queue.take_n(2)) == [1, 2]


def test_shutdown_drops_and_interrupts(world: TestRuntime) -> None:
    """What is in it is gone, takers are interrupted, offers that wait answer False."""
    queue: Queue[int, str] = world.run(Queue.bounded(1))
    offer = world.fork(queue.offer(1).and_then(queue.offer(2)))
    world.settle()
    world.run(queue.shutdown())
    world.settle()
    assert offer.exit == Success(False)
    ended = world.run_exit(queue.take())
    assert isinstance(ended, Failure)
    assert ended.cause.is_interrupted_only


def test_a_value_handed_to_an_interrupted_taker_is_not_lost(world: TestRuntime) -> None:
    """It goes back to the front."""
    queue: Queue[int, str] = world.run(Queue.unbounded())

    @Effect.gen
    def program() -> Do[int, QueueEnded | str]:
        taker = yield from queue.take().fork()
        yield from Effect.yield_now()
        yield from queue.offer(1)
        yield from taker.interrupt()
        return (yield from queue.take())

    assert world.run(program()) == 1


# ---- semaphores and latches --------------------------------------------------------------------------------


def test_permits_limit_how_many_run(world: TestRuntime) -> None:
    """Four sleeps of a second with two permits take two seconds."""
    semaphore = world.run(Semaphore.make(2))
    sleeps = [semaphore.with_permit(Effect.sleep("1 s"))] * 4
    world.run(Effect.all(sleeps, concurrency="unbounded"))
    assert world.now.second == 2


def test_permits_come_back_after_failure_and_interruption(world: TestRuntime) -> None:
    """The next one gets the permit."""
    semaphore = Semaphore(1)
    world.run_exit(semaphore.with_permit(Effect.fail("e")))
    fiber = world.fork(semaphore.with_permit(Effect.never))
    world.settle()
    world.run(fiber.interrupt())
    assert world.run(semaphore.with_permit(Effect.succeed(1))) == 1


def test_several_permits_are_taken_at_once(world: TestRuntime) -> None:
    """Who needs two of two waits until both are free."""
    semaphore = Semaphore(2)
    both = semaphore.with_permits(2, Effect.sleep("1 s"))
    world.run(Effect.all([semaphore.with_permit(Effect.sleep("1 s")), both], concurrency="unbounded"))
    assert world.now.second == 2


def test_a_waiter_interrupted_when_it_was_served_gives_the_permit_back(world: TestRuntime) -> None:
    """Between wake-up and resumption too."""
    semaphore = Semaphore(1)

    @Effect.gen
    def program() -> Do[int]:
        gate: Deferred[None, Any] = Deferred()
        holder = yield from semaphore.with_permit(gate.await_()).fork()
        yield from Effect.yield_now()
        waiter = yield from semaphore.with_permit(Effect.never).fork()
        yield from Effect.yield_now()
        yield from gate.succeed(None)
        yield from holder.await_()
        yield from waiter.interrupt()
        return (yield from semaphore.with_permit(Effect.succeed(1)))

    assert world.run(program()) == 1


def test_a_latch_lets_pass_when_it_is_open(world: TestRuntime) -> None:
    """Closed, who comes waits; `open` lets all pass, `close` stops the next ones."""
    log: list[str] = []
    latch = world.run(Latch.make())
    world.fork(latch.when_open(note(log, "a")))
    world.fork(latch.await_().and_then(note(log, "b")))
    world.settle()
    assert log == []
    assert (world.run(latch.open()), world.run(latch.open())) == (True, False)
    world.settle()
    assert sorted(log) == ["a", "b"]
    assert (world.run(latch.close()), world.run(latch.close())) == (True, False)
    world.fork(latch.when_open(note(log, "c")))
    world.settle()
    assert "c" not in log


def test_release_lets_pass_who_waits_now(world: TestRuntime) -> None:
    """The latch stays closed for those who come later."""
    log: list[str] = []
    latch = Latch()
    world.fork(latch.when_open(note(log, "early")))
    world.settle()
    assert world.run(latch.release()) is True
    world.fork(latch.when_open(note(log, "late")))
    world.settle()
    assert log == ["early"]
    assert not latch.is_open
