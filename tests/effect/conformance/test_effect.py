"""Effects: constructors, do-blocks, the error channel, many effects, racing, repetition."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from returns.maybe import Nothing, Some
from returns.result import Failure as Bad
from returns.result import Success as Ok

from durable_effect import (
    Cause,
    Die,
    Do,
    Effect,
    EffectTimeout,
    Fail,
    Failure,
    Interrupt,
    Schedule,
    Success,
    TypedError,
    catch,
)
from durable_effect.testing import TestRuntime


@attrs.frozen
class Oops(TypedError):
    """Something expected."""

    n: int = 0


class Other(TypedError):
    """Something else."""


def boom() -> int:
    """Raise."""
    raise ZeroDivisionError("boom")


def note(log: list[str], text: str) -> Effect[None]:
    """Write a line."""
    return Effect.sync(lambda: log.append(text))


def after(span: str, log: list[str], name: str) -> Effect[str]:
    """Answer the name after a while; tell when interrupted."""
    return Effect.sleep(span).as_(name).on_interrupt(lambda: note(log, f"{name} interrupted"))


def only_defect(exit_: object) -> BaseException:
    """Answer the single defect of a failure."""
    assert isinstance(exit_, Failure)
    (reason,) = exit_.cause.reasons
    assert isinstance(reason, Die)
    return reason.defect


# ---- descriptions ------------------------------------------------------------------------------------------


def test_an_effect_can_be_run_again(world: TestRuntime) -> None:
    """An effect is a description: each run does the work anew."""
    runs: list[int] = []
    effect = Effect.sync(lambda: runs.append(1))
    world.run(effect)
    world.run(effect)
    assert runs == [1, 1]


def test_nothing_happens_before_a_run() -> None:
    """Building a program does nothing."""
    ran: list[str] = []
    Effect.sync(boom).map(str).ensuring(note(ran, "ran")).retry(Schedule.recurs(3))
    assert ran == []


@pytest.mark.parametrize(
    "effect",
    [
        Effect.sync(boom),
        Effect.suspend(lambda: Effect.succeed(boom())),
        Effect.succeed(1).map(lambda _: boom()),
        Effect.succeed(1).flat_map(lambda _: Effect.succeed(boom())),
        Effect.fail(Oops()).catch_all(lambda _: Effect.succeed(boom())),
        Effect.fail(Oops()).map_error(lambda _: Other(str(boom()))),
    ],
)
def test_what_user_code_raises_is_a_defect(world: TestRuntime, effect: Effect[int, TypedError]) -> None:
    """An exception raised in sync, suspend, map, flat_map or a handler is a Die, never a Fail."""
    assert isinstance(only_defect(world.run_exit(effect)), ZeroDivisionError)


def test_a_raising_do_block_is_a_defect(world: TestRuntime) -> None:
    """An exception raised in a do-block is a Die."""

    @Effect.gen
    def block() -> Do[int]:
        yield from Effect.void
        return boom()

    assert isinstance(only_defect(world.run_exit(block())), ZeroDivisionError)


def test_attempt_is_the_road_to_typed_errors(world: TestRuntime) -> None:
    """`attempt` turns an exception into a typed error."""
    exit_ = world.run_exit(Effect.attempt(boom, catch=lambda _: Oops(1)))
    assert exit_ == Failure(Cause.fail(Oops(1)))


def test_a_raising_error_mapper_is_a_defect(world: TestRuntime) -> None:
    """What `catch=` itself raises is a Die."""
    exit_ = world.run_exit(Effect.attempt(boom, catch=lambda _: Oops(boom())))
    assert isinstance(only_defect(exit_), ZeroDivisionError)


def test_fail_sync_makes_the_error_per_run(world: TestRuntime) -> None:
    """`fail_sync` calls its thunk in each run."""
    numbers = iter([1, 2])
    effect = Effect.fail_sync(lambda: Oops(next(numbers)))
    assert world.run(effect.flip()) == Oops(1)
    assert world.run(effect.flip()) == Oops(2)


def test_constants_work_with_and_without_a_call(world: TestRuntime) -> None:
    """`Effect.void` and `Effect.void()` are the same effect."""
    assert world.run(Effect.void) is None
    assert world.run(Effect.void()) is None


def test_from_optional_and_from_maybe_fail_for_nothing(world: TestRuntime) -> None:
    """None and `Nothing` become the error that is made for them."""
    assert world.run(Effect.from_optional(3, Oops)) == 3
    assert world.run(Effect.from_optional(None, Oops).flip()) == Oops()
    assert world.run(Effect.from_maybe(Some(3), Oops)) == 3
    assert world.run(Effect.from_maybe(Nothing, Oops).flip()) == Oops()


# ---- do-blocks ---------------------------------------------------------------------------------------------


def test_a_do_block_restarts_from_the_top(world: TestRuntime) -> None:
    """Every run of a do-block begins with its first line."""
    log: list[str] = []

    @Effect.gen
    def block() -> Do[None, Oops]:
        log.append("top")
        yield from Effect.fail(Oops())

    world.run_exit(block().retry(Schedule.recurs(2)))
    assert log == ["top", "top", "top"]


def test_a_failing_step_abandons_the_rest_but_runs_finally(world: TestRuntime) -> None:
    """After a failing step nothing of the block runs but its `finally`."""
    log: list[str] = []

    @Effect.gen
    def block() -> Do[None, Oops]:
        try:
            yield from Effect.fail(Oops())
            log.append("rest")
        finally:
            yield from note(log, "finally")

    assert world.run_exit(block()) == Failure(Cause.fail(Oops()))
    assert log == ["finally"]


def test_a_failure_can_be_caught_with_except(world: TestRuntime) -> None:
    """A typed error is thrown into the block as itself."""

    @Effect.gen
    def block() -> Do[int, Oops]:
        try:
            yield from Effect.fail(Oops(7))
        except Oops as error:
            return error.n
        return 0

    assert world.run(block()) == 7


def test_flat_map_is_stack_safe_on_the_left(world: TestRuntime) -> None:
    """10 000 `flat_map`s around each other run."""
    effect = Effect.succeed(0)
    for _ in range(10_000):
        effect = effect.flat_map(lambda n: Effect.succeed(n + 1))
    assert world.run(effect) == 10_000


def test_flat_map_is_stack_safe_on_the_right(world: TestRuntime) -> None:
    """A recursion through `flat_map` 10 000 deep runs."""

    def down(n: int) -> Effect[int]:
        return Effect.succeed(n).flat_map(lambda m: down(m - 1) if m else Effect.succeed(m))

    assert world.run(down(10_000)) == 0


def test_an_endless_loop_can_be_interrupted(world: TestRuntime) -> None:
    """The loop lets others go on, so that `forever` of a ready effect is interruptible."""

    @Effect.gen
    def program() -> Do[None]:
        fiber = yield from Effect.succeed(1).forever().fork()
        yield from Effect.yield_now()
        yield from fiber.interrupt()

    world.run(program())


# ---- values ------------------------------------------------------------------------------------------------


def test_sequencing_keeps_or_replaces_values(world: TestRuntime) -> None:
    """`tap` keeps the value, `as_`, `as_void` and `and_then` replace it, `zip` pairs, `flatten` unwraps."""
    one = Effect.succeed(1)
    assert world.run(one.tap(lambda n: Effect.succeed(n + 1))) == 1
    assert world.run(one.as_("x")) == "x"
    assert world.run(one.as_void()) is None
    assert world.run(one.and_then(Effect.succeed(2))) == 2
    assert world.run(one.zip(Effect.succeed(2))) == (1, 2)
    assert world.run(one.zip_with(Effect.succeed(2), lambda a, b: a + b)) == 3
    assert world.run(Effect.succeed(one).flatten()) == 1


def test_filter_or_fail_fails_for_unwanted_values(world: TestRuntime) -> None:
    """`filter_or_fail` keeps wanted values and makes an error of others."""
    assert world.run(Effect.succeed(3).filter_or_fail(lambda n: n > 2, Oops)) == 3
    assert world.run(Effect.succeed(1).filter_or_fail(lambda n: n > 2, Oops).flip()) == Oops(1)


def test_when_runs_only_if_the_condition_holds(world: TestRuntime) -> None:
    """`when` answers Some(value) if the condition says yes, else Nothing, and then does not run."""
    log: list[str] = []
    effect = note(log, "ran").as_(1)
    assert world.run(effect.when(Effect.succeed(False))) == Nothing
    assert log == []
    assert world.run(effect.when(Effect.succeed(True))) == Some(1)


# ---- errors ------------------------------------------------------------------------------------------------


def test_catch_all_takes_typed_errors_and_no_defects(world: TestRuntime) -> None:
    """`catch_all` handles a Fail and lets a Die pass."""
    assert world.run(Effect.fail(Oops(2)).catch_all(lambda e: Effect.succeed(e.n))) == 2
    exit_ = world.run_exit(Effect.die(ValueError("bug")).catch_all(lambda _: Effect.succeed(1)))
    assert isinstance(only_defect(exit_), ValueError)


def test_catch_takes_its_type_only(world: TestRuntime) -> None:
    """`catch(Other, ...)` lets an `Oops` pass; a tuple takes several types."""
    assert world.run(Effect.fail(Oops(1)) | catch(Oops, lambda e: Effect.succeed(e.n))) == 1
    other: Effect[int, Oops | Other] = Effect.fail(Oops(1))
    assert world.run_exit(other | catch(Other, lambda _: Effect.succeed(9))) == Failure(Cause.fail(Oops(1)))
    assert world.run(other | catch((Oops, Other), lambda _: Effect.succeed(9))) == 9


def test_catch_if_asks_a_predicate(world: TestRuntime) -> None:
    """`catch_if` handles an error only if the predicate holds."""
    effect: Effect[int, Oops] = Effect.fail(Oops(1))
    assert world.run(effect.catch_if(lambda e: e.n == 1, lambda _: Effect.succeed(5))) == 5
    assert world.run(effect.catch_if(lambda e: e.n == 2, lambda _: Effect.succeed(5)).flip()) == Oops(1)


def test_next_to_a_defect_a_typed_error_cannot_be_recovered(world: TestRuntime) -> None:
    """Defects win: `catch_all` does not handle a cause with both Fail and Die."""
    effect = Effect.fail(Oops()).ensuring(Effect.die(ValueError("bug"))).catch_all(lambda _: Effect.void)
    exit_ = world.run_exit(effect)
    assert isinstance(exit_, Failure)
    assert [type(d) for d in exit_.cause.defects] == [Oops, ValueError]


def test_catch_cause_sees_defects(world: TestRuntime) -> None:
    """`catch_cause` recovers from a Die too."""
    bug = ValueError("bug")
    assert world.run(Effect.die(bug).catch_cause(Effect.succeed)) == Cause.die(bug)


def test_catch_defect_takes_defects_and_no_typed_errors(world: TestRuntime) -> None:
    """`catch_defect` handles a Die and lets a Fail pass."""
    bug = ValueError("bug")
    assert world.run(Effect.die(bug).catch_defect(Effect.succeed)) is bug
    assert world.run(Effect.fail(Oops()).catch_defect(Effect.succeed).flip()) == Oops()


def test_sandbox_makes_the_cause_the_error(world: TestRuntime) -> None:
    """`sandbox` puts the whole cause into the error channel."""
    bug = ValueError("bug")
    assert world.run(Effect.die(bug).sandbox().flip()) == Cause.die(bug)


def test_map_both_changes_whichever_comes(world: TestRuntime) -> None:
    """`map_both` maps the error of a failure and the value of a success."""
    good: Effect[int, Oops] = Effect.succeed(1)
    bad: Effect[int, Oops] = Effect.fail(Oops(1))
    assert world.run(good.map_both(str, str)) == "1"
    assert world.run(bad.map_both(lambda e: e.n, str).flip()) == 1


def test_map_error_maps_every_fail_and_keeps_the_rest(world: TestRuntime) -> None:
    """On a cause of several reasons every Fail is mapped and an interruption stays."""
    cause = Cause((Fail(1), Interrupt(7), Fail(2)))
    exit_ = world.run_exit(Effect.fail_cause(cause).map_error(lambda n: n * 10))
    assert exit_ == Failure(Cause((Fail(10), Interrupt(7), Fail(20))))


def test_or_die_makes_defects(world: TestRuntime) -> None:
    """`or_die` turns the typed error into a Die of itself."""
    assert only_defect(world.run_exit(Effect.fail(Oops(1)).or_die())) == Oops(1)


def test_taps_keep_the_failure(world: TestRuntime) -> None:
    """`tap_error`, `tap_cause` and `tap_defect` look and keep failing; `tap_defect` ignores typed errors."""
    log: list[str] = []
    failing: Effect[int, Oops] = Effect.fail(Oops(1))
    tapped = (
        failing.tap_error(lambda e: note(log, f"error {e.n}"))
        .tap_defect(lambda _: note(log, "defect"))
        .tap_cause(lambda c: note(log, f"cause {len(c.reasons)}"))
    )
    assert world.run_exit(tapped) == Failure(Cause.fail(Oops(1)))
    assert log == ["error 1", "cause 1"]
    bug = ValueError("bug")
    assert world.run_exit(Effect.die(bug).tap_defect(lambda d: note(log, str(d)))) == Failure(Cause.die(bug))
    assert log[-1] == "bug"


def test_outcomes_as_values(world: TestRuntime) -> None:
    """`result`, `option`, `exit`, `flip`, `ignore`, `is_success` and `fold` answer the outcome as a value."""
    good: Effect[int, Oops] = Effect.succeed(1)
    bad: Effect[int, Oops] = Effect.fail(Oops())
    assert (world.run(good.result()), world.run(bad.result())) == (Ok(1), Bad(Oops()))
    assert (world.run(good.option()), world.run(bad.option())) == (Some(1), Nothing)
    assert (world.run(good.exit()), world.run(bad.exit())) == (Success(1), Failure(Cause.fail(Oops())))
    assert world.run(bad.flip()) == Oops()
    assert world.run(bad.ignore()) is None
    assert (world.run(good.is_success()), world.run(bad.is_success())) == (True, False)
    assert (world.run(good.fold(str, str)), world.run(bad.fold(lambda e: "e", str))) == ("1", "e")
    assert world.run(bad.or_else_succeed(lambda: 5)) == 5


def test_option_and_result_do_not_hide_defects(world: TestRuntime) -> None:
    """A Die passes through `option`, `result`, `ignore` and `fold`."""
    bug = Effect.sync(boom)
    assert isinstance(only_defect(world.run_exit(bug.option())), ZeroDivisionError)
    assert isinstance(only_defect(world.run_exit(bug.result())), ZeroDivisionError)
    assert isinstance(only_defect(world.run_exit(bug.ignore())), ZeroDivisionError)
    assert isinstance(only_defect(world.run_exit(bug.fold(str, str))), ZeroDivisionError)


# ---- many --------------------------------------------------------------------------------------------------


def test_all_is_sequential_by_default(world: TestRuntime) -> None:
    """Without `concurrency` the effects run one after the other."""
    log: list[str] = []
    world.run(Effect.all([after("2 s", log, "a"), after("1 s", log, "b")]))
    assert world.now.second == 3


def test_all_keeps_the_input_order(world: TestRuntime) -> None:
    """The values come in the order of the effects, not of their ends."""
    log: list[str] = []
    names = world.run(Effect.all([after("2 s", log, "a"), after("1 s", log, "b")], concurrency="unbounded"))
    assert names == ["a", "b"]
    assert world.now.second == 2


def test_bounded_concurrency_is_a_bound(world: TestRuntime) -> None:
    """With `concurrency=2` four sleeps of a second take two."""
    world.run(Effect.for_each(range(4), lambda _: Effect.sleep("1 s"), concurrency=2))
    assert world.now.second == 2


def test_all_fails_fast(world: TestRuntime) -> None:
    """In sequence, nothing after the first failure starts."""
    log: list[str] = []
    effects: list[Effect[None, Oops]] = [note(log, "a"), Effect.fail(Oops()), note(log, "c")]
    assert world.run(Effect.all(effects).flip()) == Oops()
    assert log == ["a"]


def test_the_first_failure_interrupts_the_rest(world: TestRuntime) -> None:
    """At once, a failure interrupts the others and waits for their finalizers."""
    log: list[str] = []
    failing: Effect[str, Oops] = Effect.sleep("1 s").and_then(Effect.fail(Oops()))
    both: list[Effect[str, Oops]] = [after("5 s", log, "slow"), failing]
    assert world.run_exit(Effect.all(both, concurrency="unbounded")) == Failure(Cause.fail(Oops()))
    assert log == ["slow interrupted"]
    assert world.now.second == 1


def test_later_reasons_join_the_cause(world: TestRuntime) -> None:
    """What fails while it is interrupted joins the cause of the first failure."""
    bug = ValueError("bug")
    dying = Effect.sleep("5 s").ensuring(Effect.die(bug))
    failing: Effect[None, Oops] = Effect.sleep("1 s").and_then(Effect.fail(Oops()))
    both: list[Effect[None, Oops]] = [dying, failing]
    exit_ = world.run_exit(Effect.all(both, concurrency="unbounded"))
    assert isinstance(exit_, Failure)
    assert list(exit_.cause.defects) == [Oops(), bug]


def test_interruption_starts_nothing_new(world: TestRuntime) -> None:
    """After an interruption of `for_each` no further item is begun."""
    log: list[int] = []

    def visit(n: int) -> Effect[None]:
        return Effect.sync(lambda: log.append(n)).and_then(Effect.sleep("1 s"))

    fiber = world.fork(Effect.for_each(range(10), visit, concurrency=2))
    world.advance("1.5 s")
    world.run(fiber.interrupt())
    assert log == [0, 1, 2, 3]


def test_all_discard_answers_nothing(world: TestRuntime) -> None:
    """`discard` runs everything and answers None."""
    log: list[str] = []
    assert world.run(Effect.all([note(log, "a"), note(log, "b")], discard=True)) is None
    assert log == ["a", "b"]


def test_all_in_result_mode_never_fails(world: TestRuntime) -> None:
    """`mode="result"` answers a Result for each, in the shape that was given."""
    effects: list[Effect[int, Oops]] = [Effect.succeed(1), Effect.fail(Oops())]
    assert world.run(Effect.all(effects, mode="result")) == [Ok(1), Bad(Oops())]
    assert world.run(Effect.all(tuple(effects), mode="result")) == (Ok(1), Bad(Oops()))
    assert world.run(Effect.all({"a": effects[1]}, mode="result")) == {"a": Bad(Oops())}


def odd(n: int) -> Effect[int, Oops]:
    """Answer odd numbers and fail for even ones."""
    return Effect.succeed(n) if n % 2 else Effect.fail(Oops(n))


def test_validate_accumulates_errors(world: TestRuntime) -> None:
    """`validate` visits every item and fails with all errors."""
    assert world.run(Effect.validate([1, 2, 3, 4], odd).flip()) == [Oops(2), Oops(4)]
    assert world.run(Effect.validate([1, 3], odd)) == [1, 3]
    assert world.run(Effect.validate([1, 3], odd, discard=True)) is None


def test_partition_answers_the_satisfying_first(world: TestRuntime) -> None:
    """`partition` never fails: values first, then errors."""
    assert world.run(Effect.partition([1, 2, 3, 4], odd, concurrency=2)) == ([1, 3], [Oops(2), Oops(4)])


def test_first_success_of_keeps_the_last_error(world: TestRuntime) -> None:
    """`first_success_of` stops at the first success; if there is none, the last error remains."""
    assert world.run(Effect.first_success_of([odd(2), odd(3), Effect.sync(boom)])) == 3
    assert world.run(Effect.first_success_of([odd(2), odd(4)]).flip()) == Oops(4)


def test_first_success_of_nothing_is_a_defect(world: TestRuntime) -> None:
    """No effects at all are a Die."""
    none: list[Effect[int]] = []
    assert isinstance(only_defect(world.run_exit(Effect.first_success_of(none))), ValueError)


def test_find_first_stops_at_the_first_yes(world: TestRuntime) -> None:
    """`find_first` asks in order and no further than the first yes."""
    asked: list[int] = []

    def big(n: int) -> Effect[bool]:
        return Effect.sync(lambda: asked.append(n)).as_(n > 1)

    assert world.run(Effect.find_first([1, 2, 3], big)) == Some(2)
    assert asked == [1, 2]
    assert world.run(Effect.find_first([0], big)) == Nothing


# ---- racing ------------------------------------------------------------------------------------------------


def test_race_takes_the_first_success_and_interrupts_the_loser(world: TestRuntime) -> None:
    """The loser's finalizers have run before the race goes on."""
    log: list[str] = []
    assert world.run(after("1 s", log, "fast").race(after("2 s", log, "slow"))) == "fast"
    assert log == ["slow interrupted"]


def test_race_waits_for_the_losers_finalizers(world: TestRuntime) -> None:
    """A finalizer of the loser that takes time is waited for."""
    slow = Effect.never.ensuring(Effect.sleep("5 s"))
    world.run(Effect.sleep("1 s").race(slow))
    assert world.now.second == 6


def test_race_overlooks_a_failure_while_another_may_succeed(world: TestRuntime) -> None:
    """A race fails only if all fail, then with every reason."""
    failing: Effect[int, Oops] = Effect.fail(Oops(1))
    assert world.run(failing.race(Effect.sleep("1 s").as_(2))) == 2
    exit_ = world.run_exit(failing.race(Effect.fail(Oops(2))))
    assert exit_ == Failure(Cause((Fail(Oops(1)), Fail(Oops(2)))))


def test_race_first_takes_the_first_end(world: TestRuntime) -> None:
    """`race_first` takes a failure if that comes first."""
    failing: Effect[int, Oops] = Effect.fail(Oops(1))
    assert world.run(failing.race_first(Effect.sleep("1 s").as_(2)).flip()) == Oops(1)


def test_race_all_and_race_all_first(world: TestRuntime) -> None:
    """`race_all` takes the first success of many, `race_all_first` the first end."""
    failing: Effect[str, Oops] = Effect.fail(Oops())
    log: list[str] = []
    racers: list[Effect[str, Oops]] = [after("3 s", log, "c"), failing, after("1 s", log, "a")]
    assert world.run(Effect.race_all(racers)) == "a"
    assert log == ["c interrupted"]
    assert world.run(Effect.race_all_first(racers).flip()) == Oops()


# ---- time and repetition -----------------------------------------------------------------------------------


def test_timeout_interrupts_and_fails(world: TestRuntime) -> None:
    """`timeout` fails, `timeout_option` answers Nothing, `timeout_or_else` goes on with another effect."""
    log: list[str] = []
    slow = after("5 s", log, "slow")
    assert world.run(slow.timeout("1 s").flip()) == EffectTimeout(timedelta(seconds=1))
    assert world.run(slow.timeout_option("1 s")) == Nothing
    assert world.run(slow.timeout_or_else("1 s", lambda: Effect.succeed("else"))) == "else"
    assert log == ["slow interrupted"] * 3
    assert world.run(after("1 s", log, "fast").timeout_option("2 s")) == Some("fast")


def test_timed_measures_by_the_clock(world: TestRuntime) -> None:
    """`timed` answers the span and the value."""
    assert world.run(Effect.sleep("3 s").as_(1).timed()) == (timedelta(seconds=3), 1)


def test_delay_waits_before(world: TestRuntime) -> None:
    """`delay` sleeps, then runs."""
    assert world.run(Effect.succeed(1).delay("2 s")) == 1
    assert world.now.second == 2


def test_while_loop_runs_as_long_as_it_should(world: TestRuntime) -> None:
    """The body runs while the condition holds, and its values go to `step`."""
    seen: list[int] = []
    world.run(Effect.while_loop(lambda: len(seen) < 3, lambda: Effect.succeed(len(seen)), seen.append))
    assert seen == [0, 1, 2]


def test_repeat_runs_once_and_then_as_often_again(world: TestRuntime) -> None:
    """`repeat(recurs(2))` runs three times and answers the last output."""
    log: list[str] = []
    assert world.run(note(log, "x").repeat(Schedule.recurs(2))) == 2
    assert log == ["x"] * 3


def test_repeat_stops_at_the_first_failure(world: TestRuntime) -> None:
    """A failing run ends the repetition with its error."""
    numbers = iter([1, 3, 4, 5])
    effect = Effect.suspend(lambda: odd(next(numbers)))
    assert world.run(effect.repeat(Schedule.forever()).flip()) == Oops(4)


def test_repeat_options_answer_the_value(world: TestRuntime) -> None:
    """`times`, `while_` and `until` answer the last value."""
    numbers = iter(range(100))
    effect = Effect.sync(lambda: next(numbers))
    assert world.run(effect.repeat(until=lambda n: n == 3)) == 3
    assert world.run(effect.repeat(while_=lambda n: n < 6)) == 6
    assert world.run(effect.repeat(times=2)) == 9


def test_retry_fails_with_the_last_error(world: TestRuntime) -> None:
    """When the schedule is exhausted the last error remains."""
    numbers = iter([2, 4, 6, 8])
    effect = Effect.suspend(lambda: odd(next(numbers)))
    assert world.run(effect.retry(Schedule.recurs(2)).flip()) == Oops(6)


def test_retry_does_not_retry_defects_or_interruptions(world: TestRuntime) -> None:
    """A Die and an Interrupt end at once."""
    log: list[str] = []
    world.run_exit(note(log, "x").and_then(Effect.sync(boom)).retry(Schedule.recurs(5)))
    world.run_exit(note(log, "x").and_then(Effect.interrupt()).retry(Schedule.recurs(5)))
    assert log == ["x", "x"]


def test_retry_options_limit_by_the_error(world: TestRuntime) -> None:
    """`retry(while_=...)` stops at an error of another kind, `times` after so many."""
    numbers = iter([2, 4, 6, 8, 10])
    effect = Effect.suspend(lambda: odd(next(numbers)))
    assert world.run(effect.retry(while_=lambda e: e.n < 6).flip()) == Oops(6)
    assert world.run(effect.retry(times=1).flip()) == Oops(10)


def test_retry_or_else_goes_on_with_error_and_output(world: TestRuntime) -> None:
    """When the schedule is exhausted the other effect sees the last error and the last output."""
    answer = odd(2).retry_or_else(Schedule.recurs(2), lambda e, out: Effect.succeed((e, out)))
    assert world.run(answer) == (Oops(2), 2)


def test_repeat_or_else_goes_on_after_a_failure(world: TestRuntime) -> None:
    """After a failing run the other effect sees the error and the output before it, if any."""
    numbers = iter([1, 3, 4])
    effect = Effect.suspend(lambda: odd(next(numbers)))
    pair = effect.repeat_or_else(Schedule.forever(), lambda e, out: Effect.succeed((e, out)))
    assert world.run(pair) == (Oops(4), Some(1))
    first = odd(2).repeat_or_else(Schedule.forever(), lambda e, out: Effect.succeed((e, out)))
    assert world.run(first) == (Oops(2), Nothing)


def test_schedule_asks_before_the_first_run(world: TestRuntime) -> None:
    """`schedule` runs exactly as often as the schedule says, `repeat` once more."""
    log: list[str] = []
    assert world.run(note(log, "x").schedule(Schedule.recurs(2))) == 2
    assert log == ["x", "x"]
    world.run(note(log, "y").schedule(Schedule.spaced("1 s").up_to(times=1)))
    assert world.now.second == 1


def test_cached_runs_once(world: TestRuntime) -> None:
    """Who asks later, or while it runs, has the outcome of the one run."""
    log: list[str] = []

    @Effect.gen
    def program() -> Do[list[str]]:
        kept = yield from after("1 s", log, "value").tap(lambda _: note(log, "ran")).cached()
        both = yield from Effect.all([kept, kept], concurrency="unbounded")
        return [*both, (yield from kept)]

    assert world.run(program()) == ["value"] * 3
    assert log == ["ran"]
    assert world.now.second == 1


def test_cached_keeps_failures_but_no_interruptions(world: TestRuntime) -> None:
    """A failure is an outcome; an interrupted run is none."""
    runs: list[int] = []

    @Effect.gen
    def program() -> Do[None]:
        work = Effect.sync(lambda: runs.append(1)).and_then(Effect.sleep("1 s")).and_then(Effect.fail(Oops()))
        kept = yield from work.cached()
        fiber = yield from kept.fork()
        yield from Effect.yield_now()
        yield from fiber.interrupt()
        assert (yield from kept.flip()) == Oops()
        assert (yield from kept.flip()) == Oops()

    world.run(program())
    assert runs == [1, 1]


def test_cached_with_ttl_runs_again_when_time_is_up(world: TestRuntime) -> None:
    """An outcome older than the span is forgotten."""
    numbers = iter(range(9))

    @Effect.gen
    def program() -> Do[list[int]]:
        kept = yield from Effect.sync(lambda: next(numbers)).cached_with_ttl("1 minute")
        first, second = (yield from kept), (yield from kept)
        yield from Effect.sleep("1 minute")
        return [first, second, (yield from kept)]

    assert world.run(program()) == [0, 0, 1]


def test_cached_invalidate_forgets(world: TestRuntime) -> None:
    """The second effect makes the next one run anew."""
    numbers = iter(range(9))

    @Effect.gen
    def program() -> Do[list[int]]:
        kept, forget = yield from Effect.sync(lambda: next(numbers)).cached_invalidate()
        first = yield from kept
        yield from forget
        return [first, (yield from kept)]

    assert world.run(program()) == [0, 1]
