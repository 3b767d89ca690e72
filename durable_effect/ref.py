"""Ref: a value that fibers share and change, each change in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from durable_effect.effect import Effect
from durable_effect.semaphore import Semaphore

A = TypeVar("A")
B = TypeVar("B")
E = TypeVar("E")
R = TypeVar("R")


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


class SynchronizedRef(Ref[A]):
    """A cell that can also be changed by effects, one change after the other.

    Plain changes do not wait for a change that an effect makes: whoever ends last wins.
    """

    __slots__ = ("_turn",)

    def __init__(self, value: A) -> None:
        super().__init__(value)
        self._turn = Semaphore(1)

    @staticmethod
    def make(value: B) -> Effect[SynchronizedRef[B]]:
        """Make a cell with this value in it."""
        return Effect.sync(lambda: SynchronizedRef(value))

    def update_effect(self, f: Callable[[A], Effect[A, E, R]]) -> Effect[None, E, R]:
        """Change the value by an effect. If that fails, the value stays."""
        return self.modify_effect(lambda before: f(before).map(lambda after: (None, after)))

    def update_and_get_effect(self, f: Callable[[A], Effect[A, E, R]]) -> Effect[A, E, R]:
        """Change the value by an effect and answer the new one."""
        return self.modify_effect(lambda before: f(before).map(lambda after: (after, after)))

    def get_and_update_effect(self, f: Callable[[A], Effect[A, E, R]]) -> Effect[A, E, R]:
        """Change the value by an effect and answer the one before."""
        return self.modify_effect(lambda before: f(before).map(lambda after: (before, after)))

    def modify_effect(self, f: Callable[[A], Effect[tuple[B, A], E, R]]) -> Effect[B, E, R]:
        """Change the value by an effect and answer something else: the effect makes both."""

        def keep(made: tuple[B, A]) -> B:
            answer, self._value = made
            return answer

        return self._turn.with_permit(Effect.suspend(lambda: f(self._value)).map(keep))
