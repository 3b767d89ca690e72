"""Generated programs mean the same to the interpreter and to the reference: end, log and clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from programs import BLOCKS, FINAL, FORKING, MIXED, PLAIN, SEQUENTIAL, WIDE, called_off, observe, programs
from wide_reference import WideReference

A = ("ensuring", ("never",), ("log", "a"))
B = ("ensuring", ("never",), ("log", "b"))
SHIELDED = (
    "ensuring",
    ("catch", ("mask", ("then", ("sleep", 1), ("fail", "e1"))), ("succeed", 0)),
    ("succeed", 0),
)
styles = pytest.mark.parametrize("style", [PLAIN, BLOCKS, MIXED])


def expected(program: Any) -> tuple[Any, list[Any], float]:
    """What the reference interpreter makes of a program."""
    reference = WideReference()
    end = reference.run(program)
    return end, reference.log, reference.now


@styles
@settings(max_examples=80)
@given(program=programs(SEQUENTIAL, 20))
def test_sequences_and_handlers(style: str, program: Any) -> None:
    """Values, errors, defects and handlers, in one fiber that never waits."""
    assert observe(program, style, apart=False) == expected(program)


@styles
@settings(max_examples=80)
@given(program=programs(FINAL, 20))
def test_finalizers_scopes_and_masks(style: str, program: Any) -> None:
    """What runs at the end, in which order, and what becomes of its failures."""
    assert observe(program, style, apart=False) == expected(program)


@styles
@settings(max_examples=200)
@given(program=called_off(FINAL, 20))
def test_one_fiber_called_off(style: str, program: Any) -> None:
    """A fiber that is interrupted somewhere: what still runs, and how it ends."""
    assert observe(program, style) == expected(program)


@styles
@settings(max_examples=200)
@given(program=programs(FORKING, 25))
@example(program=("fork", A, ("fork", B, ("yield",))))
@example(program=("fork", SHIELDED, ("then", ("yield",), ("interrupt", 1))))
def test_fibers_and_interruption(style: str, program: Any) -> None:
    """Fibers that wait for, join and interrupt each other, themselves and those who started them."""
    assert observe(program, style) == expected(program)


@styles
@settings(max_examples=200)
@given(program=programs(WIDE, 25) | called_off(WIDE, 25))
def test_many_at_once(style: str, program: Any) -> None:
    """Races, time limits and bounded crowds inside of everything else."""
    assert observe(program, style) == expected(program)
