"""Ref: a value that fibers share and change, each change in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from durable_effect.effect import Effect

A = TypeVar("A")
B = TypeVar("B")


class Ref(Generic[A]):
    """A cell. What its functions do happens in one piece: no other fiber runs in between."""

    __slots__ = ("_value",)

    def __init__(self, value: A) -> None:
        self._value = value

    @staticmethod
    def make(value: B) -> Effect[Ref[B]]:
        """Make a cell with this value in it."""
        return Effect.sync(lambda: Ref(value))

    def get(self) -> Effect[A]:
        """Answer the value."""
        return Effect.sync(lambda: self._value)

    def set(self, value: A) -> Effect[None]:
        """Put another value in."""
        return self.modify(lambda _: (None, value))

    def update(self, f: Callable[[A], A]) -> Effect[None]:
        """Change the value."""
        return self.modify(lambda before: (None, f(before)))

    def update_and_get(self, f: Callable[[A], A]) -> Effect[A]:
        """Change the value and answer the new one."""

        def change(before: A) -> tuple[A, A]:
            after = f(before)
            return after, after

        return self.modify(change)

    def get_and_update(self, f: Callable[[A], A]) -> Effect[A]:
        """Change the value and answer the one before."""
        return self.modify(lambda before: (before, f(before)))

    def modify(self, f: Callable[[A], tuple[B, A]]) -> Effect[B]:
        """Change the value and answer something else: `f` makes both. If it raises, the value stays."""

        def change() -> B:
            answer, self._value = f(self._value)
            return answer

        return Effect.sync(change)
