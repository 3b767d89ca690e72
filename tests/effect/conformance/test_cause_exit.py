"""Causes and exits: reasons in order, and what is made of them."""

from __future__ import annotations

import pytest
from returns.maybe import Nothing, Some
from returns.result import Failure as Bad
from returns.result import Success as Ok

from durable_effect import (
    Cause,
    Die,
    EffectFailure,
    Exit,
    Fail,
    Failure,
    Interrupt,
    Interrupted,
    Success,
)
from durable_effect.exit import all_void

BUG = ValueError("bug")


def test_combine_keeps_the_order_and_drops_repetitions() -> None:
    """A combination is an ordered union of reasons."""
    one, two = Cause((Fail(1), Interrupt(7))), Cause((Interrupt(7), Fail(2)))
    assert one.combine(two).reasons == (Fail(1), Interrupt(7), Fail(2))


def test_empty_is_the_unit_of_combine() -> None:
    """The empty cause changes nothing, on either side."""
    cause = Cause((Fail(1), Interrupt(7)))
    assert cause.combine(Cause.empty()) == cause
    assert Cause.empty().combine(cause) == cause
    assert Cause.empty().is_empty


def test_combine_lets_defects_win() -> None:
    """Next to a Die every Fail becomes a Die."""
    error = KeyError("expected")
    combined = Cause.fail(error).combine(Cause.die(BUG))
    assert combined.reasons == (Die(error), Die(BUG))
    assert combined.recoverable() == ()


def test_map_touches_fails_only() -> None:
    """`map` changes errors and leaves defects and interruptions."""
    cause = Cause((Fail(1), Interrupt(7)))
    assert cause.map(str).reasons == (Fail("1"), Interrupt(7))
    assert Cause[int]((Die(BUG),)).map(str) == Cause.die(BUG)


def test_squash_prefers_fails_then_defects_then_interruptions() -> None:
    """The first Fail, else the first Die, else an interruption."""
    error = KeyError("expected")
    assert Cause((Interrupt(1), Die(BUG), Fail(error))).squash() is error
    assert Cause((Interrupt(1), Die(BUG))).squash() is BUG
    assert isinstance(Cause.interrupt(1).squash(), Interrupted)


def test_an_error_that_is_no_exception_is_carried() -> None:
    """`squash` wraps such an error so that it can be raised."""
    squashed = Cause.fail("plain").squash()
    assert isinstance(squashed, EffectFailure)
    assert squashed.error == "plain"


def test_interrupted_only_needs_a_reason() -> None:
    """The empty cause is not an interrupted one, and neither is one with a Fail."""
    assert not Cause.empty().is_interrupted_only
    assert not Cause((Interrupt(1), Fail(1))).is_interrupted_only
    assert Cause.interrupt(1).is_interrupted_only


def test_reasons_can_be_asked_for() -> None:
    """`has_*` say what is there and `find_*` answer the first of a kind, or None."""
    cause = Cause((Interrupt(3), Fail(1), Fail(2), Die(BUG)))
    assert (cause.has_fails, cause.has_dies, cause.has_interrupts) == (True, True, True)
    assert (cause.find_fail(), cause.find_error()) == (Fail(1), 1)
    assert (cause.find_die(), cause.find_defect()) == (Die(BUG), BUG)
    assert cause.find_interrupt() == Interrupt(3)
    empty = Cause.empty()
    assert (empty.has_fails, empty.has_dies, empty.has_interrupts) == (False, False, False)
    assert (empty.find_error(), empty.find_defect(), empty.find_interrupt()) == (None, None, None)


def test_interruptors_are_the_fibers_that_called_off() -> None:
    """Their ids, once each; an interruption from outside has none."""
    cause = Cause((Interrupt(3), Interrupt(4), Interrupt(None)))
    assert cause.interruptors == {3, 4}


def test_pretty_names_every_reason() -> None:
    """Errors, defects and interruptions are all told."""
    told = Cause((Fail("e"), Die(BUG), Interrupt(3))).pretty()
    assert all(part in told for part in ("'e'", "ValueError: bug", "fiber 3"))


def test_pretty_errors_are_exceptions() -> None:
    """One exception for each error and defect, in order."""
    errors = Cause((Fail("e"), Interrupt(1), Die(BUG))).pretty_errors()
    assert errors == [EffectFailure("e"), BUG]


def test_a_cause_becomes_an_exception_group() -> None:
    """Every error and defect is in the group; of an empty cause there is none."""
    error = KeyError("expected")
    group = Cause((Fail(error), Die(BUG), Interrupt(1))).to_exception_group()
    assert isinstance(group, ExceptionGroup)
    assert group.exceptions == (error, BUG)
    assert isinstance(Cause.interrupt().to_exception_group().exceptions[0], Interrupted)
    with pytest.raises(ValueError, match="empty"):
        Cause.empty().to_exception_group()


def test_an_exit_is_matched_exhaustively() -> None:
    """Success and Failure destructure in `match`."""

    def told(exit_: Exit[int, str]) -> str:
        match exit_:
            case Success(value):
                return f"got {value}"
            case Failure(cause):
                return f"failed {cause.reasons}"

    assert told(Success(1)) == "got 1"
    assert told(Failure(Cause.fail("e"))) == "failed (Fail(error='e'),)"


def test_exits_are_mapped_on_either_side() -> None:
    """`map`, `map_error`, `map_both`, `as_void` and `fold` change what they name."""
    good, bad = Success(1), Failure(Cause.fail("e"))
    assert (good.map(str), bad.map(str)) == (Success("1"), bad)
    assert (good.map_error(str), bad.map_error(len)) == (good, Failure(Cause.fail(1)))
    assert (good.map_both(len, str), bad.map_both(len, str)) == (Success("1"), Failure(Cause.fail(1)))
    assert (good.as_void(), bad.as_void()) == (Success(None), bad)
    assert (good.fold(lambda c: 0, lambda v: v), bad.fold(lambda c: 0, lambda v: v)) == (1, 0)


def test_many_exits_become_one() -> None:
    """`all_void` succeeds if all did; else it has the reasons of all that failed."""
    assert all_void([Success(1), Success(2)]) == Success(None)
    failed = all_void([Failure(Cause.fail(1)), Success(1), Failure(Cause.fail(2))])
    assert failed == Failure(Cause((Fail(1), Fail(2))))


def test_exits_become_returns_containers() -> None:
    """`to_result` and `to_maybe` answer `returns` values."""
    error = KeyError("k")
    good, bad = Success(1), Failure(Cause.fail(error))
    assert (good.to_result(), bad.to_result()) == (Ok(1), Bad(error))
    assert (good.to_maybe(), bad.to_maybe()) == (Some(1), Nothing)
