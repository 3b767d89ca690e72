"""Exits and causes: how programs end, and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.maybe import Nothing, Some
from returns.result import Failure as Err
from returns.result import Success as Ok

from durable_effect import Cause, Die, EffectFailure, Exit, Fail, Failure, Interrupt, Interrupted, Success

_bugs = [ValueError("a"), KeyError("b")]
reasons = st.one_of(
    st.integers(0, 3).map(Fail), st.sampled_from(_bugs).map(Die), st.integers(0, 3).map(Interrupt)
)


def _joined(parts: list[Any]) -> Cause[Any]:
    cause: Cause[Any] = Cause()
    for part in parts:
        cause = cause.combine(Cause((part,)))
    return cause


causes = st.lists(reasons, max_size=4).map(_joined)


@given(causes)
def test_the_empty_cause_changes_nothing(cause: Cause[Any]) -> None:
    """It is the unit of `combine`."""
    assert Cause().combine(cause) == cause.combine(Cause()) == cause


@given(causes, causes, causes)
def test_it_does_not_matter_in_which_order_causes_are_joined(a: Any, b: Any, c: Any) -> None:
    """`combine` is associative."""
    assert a.combine(b).combine(c) == a.combine(b.combine(c))


@given(causes)
def test_joining_a_cause_with_itself_changes_nothing(cause: Cause[Any]) -> None:
    """Reasons are not repeated."""
    assert cause.combine(cause).reasons == cause.reasons


@given(causes, causes)
def test_defects_win(a: Cause[Any], b: Cause[Any]) -> None:
    """Next to a defect no typed error remains, so nothing is recovered."""
    joined = a.combine(b)
    if joined.defects:
        assert joined.failures == ()
        assert joined.recoverable() == ()


def test_squash_takes_the_most_telling_reason() -> None:
    """The first error, else the first defect, else that it was interrupted."""
    bug = _bugs[0]
    assert Cause((Interrupt(1), Die(bug))).squash() is bug
    plain = Cause((Interrupt(1), Fail("e"))).squash()
    assert isinstance(plain, EffectFailure)
    assert plain.error == "e"
    assert isinstance(Cause.interrupt(1).squash(), Interrupted)


def test_causes_are_told_to_people() -> None:
    """Every reason is there, exceptions with their tracebacks."""

    def fail() -> None:
        raise _bugs[0]

    with pytest.raises(ValueError, match="a"):
        fail()
    told = Cause((Fail("e"), Interrupt(3), Interrupt(), Die(_bugs[0]))).pretty()
    assert told.splitlines()[:3] == ["failed: 'e'", "interrupted by fiber 3", "interrupted"]
    assert "raise _bugs[0]" in told


def test_interrupted_only_needs_an_interruption() -> None:
    """An empty cause is not an interrupted one."""
    assert Cause.interrupt().is_interrupted_only
    assert not Cause().is_interrupted_only
    assert not Cause((Interrupt(1), Fail("e"))).is_interrupted_only
    assert Cause((Interrupt(1), Fail("e"))).has_interrupts


def test_map_changes_errors_only() -> None:
    """Defects and interruptions stay."""
    cause = Cause((Fail(1), Interrupt(2), Fail(3)))
    assert cause.map(str) == Cause((Fail("1"), Interrupt(2), Fail("3")))


def test_exits_are_matched_and_compared() -> None:
    """Both kinds are values with patterns."""

    def say(ended: Exit[int, str]) -> str:
        match ended:
            case Success(value):
                return f"{value}"
            case Failure(Cause((Fail(error),))):
                return error
            case Failure():
                return "worse"

    assert [say(Success(1)), say(Failure(Cause.fail("e"))), say(Failure(Cause.interrupt()))] == [
        "1",
        "e",
        "worse",
    ]
    assert Success(1) == Success(1) != Success(2)
    assert len({Success(1), Success(1), Failure(Cause.fail(1)), Failure(Cause.fail(1))}) == 2
    assert repr(Success(1)) == "Success(1)"
    assert repr(Failure(Cause.fail(1))) == "Failure(Cause(Fail(error=1)))"


def test_exits_convert() -> None:
    """To one value, to `returns`, to a changed exit."""
    good, bad = Success(1), Failure(Cause.fail("e"))
    assert good.map(str) == Success("1")
    assert bad.map(str) is bad
    assert good.fold(lambda c: 0, lambda n: n + 1) == 2
    assert bad.fold(lambda c: len(c.reasons), lambda n: n) == 1
    assert (good.to_result(), good.to_maybe(), bad.to_maybe()) == (Ok(1), Some(1), Nothing)
    assert isinstance(bad.to_result(), Err)
    assert (good.is_success, bad.is_success) == (True, False)


def test_several_errors_are_raised_together() -> None:
    """What went wrong alone is raised as itself; several things are raised as one group, in their order."""
    bug, error = _bugs
    with pytest.raises(ValueError, match="a"):
        Failure(Cause.die(bug).combine(Cause.interrupt(1))).get()
    with pytest.raises(ExceptionGroup) as caught:
        Failure(Cause.fail(error).combine(Cause.die(bug))).get()
    assert set(caught.value.exceptions) == {error, bug}
