"""Latch: a gate that fibers wait at until somebody opens it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from durable_effect.effect import Effect
from durable_effect.ops import VOID, FlatMap, Suspend, Sync, Wait
from durable_effect.runtime import Waiter

__all__ = ["Latch"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class Latch:
    """A gate: open, who comes passes; closed, who comes waits until it is opened."""

    __slots__ = ("_open", "_waiters")

    def __init__(self, open: bool = False) -> None:
        self._open = open
        self._waiters: dict[Waiter, None] = {}

    @staticmethod
    def make(open: bool = False) -> Effect[Latch]:
        """Make a gate, closed unless `open`."""
        return Sync(lambda: Latch(open))

    @property
    def is_open(self) -> bool:
        """Whether who comes passes."""
        return self._open

    def open(self) -> Effect[bool]:
        """Let all who wait pass, and all who come; False if it was open."""

        def run() -> bool:
            if self._open:
                return False
            self._open = True
            self._let_pass()
            return True

        return Sync(run)

    def release(self) -> Effect[bool]:
        """Let all who wait now pass, and stay closed; False if it was open, so that nobody waited."""

        def run() -> bool:
            if self._open:
                return False
            self._let_pass()
            return True

        return Sync(run)

    def close(self) -> Effect[bool]:
        """Let nobody pass any more; False if it was closed."""

        def run() -> bool:
            was_open, self._open = self._open, False
            return was_open

        return Sync(run)

    def await_(self) -> Effect[None]:
        """Wait until it is open."""
        return Suspend(lambda: VOID if self._open else Wait(self._register))

    def when_open(self, effect: Effect[A, E, R]) -> Effect[A, E, R]:
        """Wait until it is open, then run the effect."""
        return FlatMap(self.await_(), lambda _: effect)

    def _register(self, waiter: Waiter) -> Callable[[], Any]:
        self._waiters[waiter] = None
        return lambda: self._waiters.pop(waiter, None)

    def _let_pass(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            waiter.resume(VOID)
