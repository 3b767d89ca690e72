"""Many effects: in turn, at once, and against each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.maybe import Nothing, Some

from durable_effect import Cause, Do, Effect, EffectTimeout, Failure, Success, TypedError
from durable_effect.testing import TestRuntime

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Oops(TypedError):
    """Went wrong."""


def after(span: str, value: Any = None) -> Effect[Any]:
    """Answer a value after a while."""
    return Effect.sleep(span).as_(value)


def elapsed(world: TestRuntime) -> timedelta:
    return world.now - NEW_YEAR


def test_the_shape_of_the_answer_is_that_of_the_question(world: TestRuntime) -> None:
    """Tuples, lists, iterators and dicts come back as what they were."""
    one, two = Effect.succeed(1), after("1 second", 2)
    assert world.run(Effect.all((one, two))) == (1, 2)
    assert world.run(Effect.all([one, two])) == [1, 2]
    assert world.run(Effect.all(e for e in (one, two))) == [1, 2]
    assert world.run(Effect.all({"a": one, "b": two}, concurrency=2)) == {"a": 1, "b": 2}
    assert world.run(Effect.all((), concurrency="unbounded")) == ()


def test_in_turn_unless_asked_otherwise(world: TestRuntime) -> None:
    """Without `concurrency` one follows the other; with it so many run at once."""
    sleeps = [after("1 minute", n) for n in range(6)]
    assert world.run(Effect.all(sleeps)) == list(range(6))
    assert elapsed(world) == timedelta(minutes=6)
    assert world.run(Effect.all(sleeps, concurrency=3)) == list(range(6))
    assert elapsed(world) == timedelta(minutes=8)
    assert world.run(Effect.all(sleeps, concurrency="unbounded")) == list(range(6))
    assert elapsed(world) == timedelta(minutes=9)


def test_no_more_than_so_many_run_at_once(world: TestRuntime) -> None:
    """The bound of the concurrency holds, and is reached."""
    running: list[int] = []
    most: list[int] = []

    @Effect.gen
    def work(n: int) -> Do[None]:
        running.append(n)
        most.append(len(running))
        yield from Effect.sleep(f"{n % 3 + 1} seconds")
        running.remove(n)

    assert world.run(Effect.for_each(range(10), work, concurrency=4, discard=True)) is None
    assert max(most) == 4


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6), st.sampled_from([1, 2, "unbounded"])
)
def test_all_succeed_in_order_or_one_fails(plan: list[tuple[int, bool]], concurrency: Any) -> None:
    """The values come in the items' order; if any fails, all of it fails."""

    def work(item: tuple[int, tuple[int, bool]]) -> Effect[int, Oops]:
        index, (seconds, fails) = item
        return after(f"{seconds} s").flat_map(
            lambda _: Effect.fail(Oops()) if fails else Effect.succeed(index)
        )

    with TestRuntime(NEW_YEAR) as world:
        ended = world.run_exit(Effect.for_each(enumerate(plan), work, concurrency=concurrency))
    if any(fails for _, fails in plan):
        assert ended == Failure(Cause.fail(Oops()))
    else:
        assert ended == Success(list(range(len(plan))))


def test_the_first_failure_ends_the_others(world: TestRuntime) -> None:
    """The rest is interrupted and its finalizers are waited for; what fails there joins the cause."""
    log: list[str] = []
    others = Effect.never.ensuring(
        after("1 minute").tap(lambda _: Effect.sync(lambda: log.append("released")))
    )
    ended = world.run_exit(Effect.all([others, after("1 s").and_then(Effect.fail(Oops()))], concurrency=2))
    assert ended == Failure(Cause.fail(Oops()))
    assert log == ["released"]
    sick = Effect.never.ensuring(Effect.die("sick"))
    ended = world.run_exit(Effect.all([sick, after("1 s").and_then(Effect.fail(Oops()))], concurrency=2))
    assert isinstance(ended, Failure)
    assert [repr(defect) for defect in ended.cause.defects] == ["Oops()", "RuntimeError('sick')"]


def test_interrupting_the_whole_ends_the_parts(world: TestRuntime) -> None:
    """An interruption reaches the children, waits for them and starts nothing new."""
    log: list[str] = []

    def work(n: int) -> Effect[None]:
        return after("1 hour").ensuring(Effect.sync(lambda: log.append(f"released {n}")))

    fiber = world.fork(Effect.for_each(range(5), work, concurrency=2))
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["released 0", "released 1"]


def test_concurrency_is_at_least_one() -> None:
    """A nonsensical bound is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        Effect.for_each([1], Effect.succeed, concurrency=0)


def test_a_race_takes_the_first_success(world: TestRuntime) -> None:
    """A failure does not win; the loser is interrupted, and its finalizers are waited for."""
    log: list[str] = []
    slow = after("1 hour").ensuring(
        after("1 minute").tap(lambda _: Effect.sync(lambda: log.append("released")))
    )
    failing = after("1 s").and_then(Effect.fail(Oops()))
    assert world.run(Effect.race(slow, after("2 s", "won"))) == "won"
    assert log == ["released"]
    assert world.run(failing.race(after("2 s", "won"))) == "won"


def test_a_race_of_failures_fails_with_both(world: TestRuntime) -> None:
    """The causes are joined in the order in which they came."""
    ended = world.run_exit(
        Effect.race(after("2 s").and_then(Effect.fail("b")), after("1 s").and_then(Effect.fail("a")))
    )
    assert ended == Failure(Cause.fail("a").combine(Cause.fail("b")))


def test_interrupting_a_race_ends_both(world: TestRuntime) -> None:
    """Neither side survives."""
    log: list[str] = []
    sides = [Effect.never.ensuring(Effect.sync(lambda n=n: log.append(n))) for n in "ab"]
    fiber = world.fork(Effect.race(*sides))
    world.settle()
    world.run(fiber.interrupt())
    assert log == ["a", "b"]


def test_a_timeout_is_a_typed_error(world: TestRuntime) -> None:
    """What takes longer is interrupted and fails with `EffectTimeout`; what is done in time is left alone."""
    log: list[str] = []
    slow = after("1 hour").ensuring(Effect.sync(lambda: log.append("released")))
    assert world.run_exit(slow.timeout("1 minute")) == Failure(
        Cause.fail(EffectTimeout(timedelta(minutes=1)))
    )
    assert log == ["released"]
    assert elapsed(world) == timedelta(minutes=1)
    assert world.run(after("1 second", 5).timeout("1 minute")) == 5
    assert world.run_exit(Effect.fail(Oops()).timeout("1 minute")) == Failure(Cause.fail(Oops()))
    assert "0:01:00" in str(EffectTimeout(timedelta(minutes=1)))


def test_a_timeout_may_be_no_error(world: TestRuntime) -> None:
    """`timeout_option` answers Nothing in its place."""
    assert world.run(after("1 hour", 1).timeout_option("1 minute")) == Nothing
    assert world.run(after("1 s", 1).timeout_option("1 minute")) == Some(1)


def test_what_cannot_be_interrupted_is_waited_for(world: TestRuntime) -> None:
    """A timeout does not cut an uninterruptible region."""
    world.run(after("1 hour").uninterruptible().timeout_option("1 minute"))
    assert elapsed(world) == timedelta(hours=1)


def test_a_timeout_in_a_finalizer_takes_no_longer_than_needed(world: TestRuntime) -> None:
    """What is done in time does not wait for the timer, although nothing there can be interrupted."""
    world.run(Effect.void.ensuring(after("1 second").timeout_option("1 hour")))
    assert elapsed(world) == timedelta(seconds=1)


def test_time_can_be_spent_before(world: TestRuntime) -> None:
    """`delay` waits before, `forever` goes on until it fails."""
    assert world.run(Effect.succeed(1).delay("1 hour")) == 1
    assert elapsed(world) == timedelta(hours=1)
    left = iter(range(3))

    def step() -> Effect[None, str]:
        return Effect.sleep("1 s") if next(left, None) is not None else Effect.fail("done")

    assert world.run_exit(Effect.suspend(step).forever()) == Failure(Cause.fail("done"))
