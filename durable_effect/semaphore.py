"""Semaphore: a number of permits, given in the order in which they were asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from durable_effect.effect import Effect
from durable_effect.ops import VOID, Suspend, Wait
from durable_effect.runtime import Waiter

__all__ = ["Semaphore"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class Semaphore:
    """At most ``permits`` fibers at a time do what needs a permit."""

    __slots__ = ("_free", "_queue")

    def __init__(self, permits: int) -> None:
        if permits < 1:
            raise ValueError(f"a semaphore has at least one permit, got {permits}")
        self._free = permits
        self._queue: deque[Waiter] = deque()

    def with_permit(self, effect: Effect[A, E, R]) -> Effect[A, E, R]:
        """Wait for a permit, run the effect with it, and give it back however that ends."""
        return Effect.uninterruptible_mask(
            lambda restore: restore(self._take()).flat_map(
                lambda _: restore(effect).ensuring(Effect.sync(self._give_back))
            )
        )

    def _take(self) -> Effect[None]:
        def run() -> Effect[None]:
            if self._free:
                self._free -= 1
                return VOID
            return Wait(self._register)

        return Suspend(run)

    def _register(self, waiter: Waiter) -> Callable[[], Any]:
        self._queue.append(waiter)
        return lambda: self._called_off(waiter)

    def _called_off(self, waiter: Waiter) -> None:
        if waiter in self._queue:
            self._queue.remove(waiter)

    def _give_back(self) -> None:
        """Hand the permit to the first who still waits."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.gone:
                waiter.resume(VOID)
                return
        self._free += 1
