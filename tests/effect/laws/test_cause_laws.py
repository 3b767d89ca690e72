"""What holds for every cause and every exit."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from programs import Bug, Oops
from returns.maybe import Nothing, Some
from returns.result import Failure as Err
from returns.result import Result
from returns.result import Success as Ok

from durable_effect import Cause, Die, Effect, Fail, Failure, Interrupt, Success

numbers = st.integers(0, 2)
errors = st.one_of(st.builds(Oops, st.sampled_from("ab")), numbers, st.lists(numbers, max_size=2))
reasons = st.one_of(
    errors.map(Fail),
    st.builds(Bug, st.sampled_from("ab")).map(Die),
    numbers.map(lambda fiber: Interrupt(fiber)),
)
causes = st.lists(reasons, max_size=4).map(lambda some: Cause.combine_all(Cause([one]) for one in some))
exits = st.one_of(errors.map(Success), causes.map(Failure))


@given(causes, causes, causes)
def test_joining_is_associative(a: Cause[Any], b: Cause[Any], c: Cause[Any]) -> None:
    """It does not matter which two of three causes are joined first, whatever their errors are made of."""
    assert a.combine(b).combine(c) == a.combine(b.combine(c))


@given(st.lists(reasons, max_size=4).map(Cause))
def test_the_empty_cause_is_a_unit(cause: Cause[Any]) -> None:
    """Joining with nothing changes nothing, not even a cause put together by hand."""
    assert cause.combine(Cause()) == Cause().combine(cause) == cause


@given(causes, causes)
def test_joining_is_idempotent(a: Cause[Any], b: Cause[Any]) -> None:
    """What is in a cause already is not added again."""
    assert a.combine(a) == a
    assert a.combine(b).combine(b) == a.combine(b)


@given(st.lists(causes, max_size=5))
def test_joining_many_is_joining_one_after_the_other(some: list[Cause[Any]]) -> None:
    """`combine_all` is `combine`, in one go."""
    joined: Cause[Any] = Cause()
    for cause in some:
        joined = joined.combine(cause)
    assert Cause.combine_all(some) == joined


@given(causes, causes)
def test_the_order_is_kept(a: Cause[Any], b: Cause[Any]) -> None:
    """The reasons of the first come first; where there is a defect there are no typed errors."""
    joined = a.combine(b)
    interruptions = [reason for reason in (*a.reasons, *b.reasons) if isinstance(reason, Interrupt)]
    assert [r for r in joined.reasons if isinstance(r, Interrupt)] == list(dict.fromkeys(interruptions))
    assert not (joined.defects and joined.failures)
    if not b.defects:
        assert joined.reasons[: len(a.reasons)] == a.reasons


@given(causes)
def test_map_is_a_functor(cause: Cause[Any]) -> None:
    """Mapping nothing changes nothing; mapping twice is mapping once by both; only typed errors change."""
    assert cause.map(lambda error: error) == cause
    assert cause.map(repr).map(len) == cause.map(lambda error: len(repr(error)))
    assert cause.map(repr).defects == cause.defects
    assert cause.map(repr).failures == tuple(repr(error) for error in cause.failures)


@given(exits)
def test_exits_survive_the_way_through_an_effect(ended: Any) -> None:
    """An exit made into an effect and run is that exit; so is the exit of `exit()`."""
    assert Effect.run_sync_exit(Effect.from_exit(ended)) == ended
    assert Effect.run_sync(Effect.from_exit(ended).exit()) == ended


@given(st.one_of(errors.map(Ok), errors.map(Err)))
def test_results_survive_the_way_through_an_effect(result: Result[Any, Any]) -> None:
    """A `returns` Result made into an effect answers that Result."""
    assert Effect.run_sync(Effect.from_result(result).result()) == result


@given(st.one_of(errors.map(Some), st.just(Nothing)))
def test_maybes_survive_the_way_through_an_effect(maybe: Any) -> None:
    """A `returns` Maybe made into an effect answers that Maybe."""
    assert Effect.run_sync(Effect.from_maybe(maybe, lambda: "absent").option()) == maybe


@given(errors)
def test_exits_become_results_and_maybes(value: Any) -> None:
    """A success is `Ok` and `Some`, a typed error `Err` of that error and `Nothing`."""
    assert (Success(value).to_result(), Success(value).to_maybe()) == (Ok(value), Some(value))
    failed: Any = Failure(Cause.fail(Oops("a")))
    assert (failed.to_result(), failed.to_maybe()) == (Err(Oops("a")), Nothing)


def test_errors_that_cannot_be_hashed_keep_their_company() -> None:
    """A dict is an error like any other when a finalizer fails too."""
    ended: Any = Effect.run_sync_exit(Effect.fail({"a": 1}).ensuring(Effect.fail({"a": 2})))  # type: ignore[arg-type]
    assert ended == Failure(Cause((Fail({"a": 1}), Fail({"a": 2}))))
