"""A traceback shows the lines of the program that failed, and next to nothing of what ran it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import durable_effect
from durable_effect import Do, Effect, Schedule

LIBRARY = Path(durable_effect.__file__).parent


def parse(text: str) -> int:
    return int(text)


@Effect.gen
def inner(text: str) -> Do[int]:
    yield from Effect.yield_now()
    return parse(text)


@Effect.gen
def middle(text: str) -> Do[int]:
    return (yield from inner(text))


@Effect.gen
def outer(text: str) -> Do[int]:
    return (yield from middle(text).map(lambda number: number))


@Effect.gen
def deep(left: int) -> Do[int]:
    return (yield from deep(left - 1)) if left else (yield from outer("x"))


async def awaited() -> int:
    return await outer("x")


PROGRAMS: list[Effect[Any, Any]] = [
    outer("x"),
    outer("x").ensuring(Effect.yield_now()),
    outer("x").retry(Schedule.recurs(1)).repeat(Schedule.recurs(1)),
    outer("x").fork().flat_map(lambda fiber: fiber.join()),
    Effect.all([outer("1"), outer("x")], concurrency="unbounded"),
    outer("x").timeout("1 hour").catch_all(lambda error: Effect.fail(error)),
    outer("x").catch_cause(lambda cause: Effect.fail_cause(cause)),
    outer("x").exit().flat_map(Effect.from_exit),
    Effect.from_async(awaited),
]
WAYS: list[Callable[[Effect[Any, Any]], Any]] = [
    lambda effect: Effect.run(effect),
    lambda effect: asyncio.run(_awaiting(effect)),
]


async def _awaiting(effect: Effect[Any, Any]) -> Any:
    return await effect


def raised_by(
    run: Callable[[Effect[Any, Any]], Any], effect: Effect[Any, Any]
) -> list[traceback.FrameSummary]:
    """The frames of the exception that a program ends with."""
    with pytest.raises(ValueError, match="invalid literal") as raised:
        run(effect)
    return list(traceback.extract_tb(raised.value.__traceback__))


@pytest.mark.parametrize("run", WAYS)
@pytest.mark.parametrize("effect", PROGRAMS)
def test_the_program_is_seen_and_the_interpreter_is_not(
    run: Callable[[Effect[Any, Any]], Any], effect: Effect[Any, Any]
) -> None:
    """The program's own lines come last, from the outside in; the interpreter's loop is not among them."""
    frames = raised_by(run, effect)
    assert [frame.name for frame in frames if frame.filename == __file__][-4:] == [
        "outer",
        "middle",
        "inner",
        "parse",
    ]
    ours = [frame for frame in frames if Path(frame.filename).parent == LIBRARY]
    assert not [frame for frame in ours if frame.name in ("advance", "unwind", "_throw", "step")]
    assert len(ours) <= 7


def test_deep_programs_have_one_line_for_each_call() -> None:
    """A hundred do-blocks inside each other are a hundred frames, and few more."""
    frames = raised_by(Effect.run, deep(100))
    assert sum(frame.name == "deep" for frame in frames) == 101
    assert len(frames) < 101 + 15 + 101 // 16
