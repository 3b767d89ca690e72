"""Refs: shared cells."""

from __future__ import annotations

import pytest

from durable_effect import Do, Effect, Ref
from durable_effect.testing import TestRuntime


def test_cells_are_read_and_changed(world: TestRuntime) -> None:
    """Each method answers what it says."""

    @Effect.gen
    def program() -> Do[list[int]]:
        ref = yield from Ref.make(1)
        yield from ref.set(2)
        yield from ref.update(lambda n: n * 10)
        before = yield from ref.get_and_update(lambda n: n + 1)
        after = yield from ref.update_and_get(lambda n: n + 1)
        said = yield from ref.modify(lambda n: (n * 100, 0))
        return [before, after, said, (yield from ref.get())]

    assert world.run(program()) == [20, 22, 2200, 0]


def test_a_function_that_raises_changes_nothing(world: TestRuntime) -> None:
    """The value stays, and the exception is a defect."""
    ref = Ref(1)
    with pytest.raises(ZeroDivisionError):
        world.run(ref.update(lambda n: n // 0))
    assert world.run(ref.get()) == 1


def test_fibers_do_not_lose_each_others_changes(world: TestRuntime) -> None:
    """Changes are made in one piece."""
    ref = Ref(0)
    step = Effect.yield_now().and_then(ref.update(lambda n: n + 1))
    world.run(Effect.for_each(range(50), lambda _: step, concurrency="unbounded"))
    assert world.run(ref.get()) == 50
