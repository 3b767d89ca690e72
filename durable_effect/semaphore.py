"""Semaphore: a number of permits, given in the order in which they were asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from durable_effect.effect import Effect
from durable_effect.ops import VOID, AnyEffect, Suspend, Sync, Wait
from durable_effect.runtime import Waiter

__all__ = ["Semaphore"]

A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")


class Semaphore:
    """So many permits: who needs one waits for it, in order. Permits come back whatever happens."""

    __slots__ = ("_free", "_permits", "_waiting")

    def __init__(self, permits: int) -> None:
        if permits < 1:
            raise ValueError(f"a semaphore has at least one permit, got {permits}")
        self._permits = permits
        self._free = permits
        self._waiting: deque[_Claim] = deque()

    @staticmethod
    def make(permits: int) -> Effect[Semaphore]:
        """Make a semaphore with so many permits."""
        return Sync(lambda: Semaphore(permits))

    def with_permit(self, effect: Effect[A, E, R]) -> Effect[A, E, R]:
        """Wait for a permit, run the effect with it, and give it back however that ends."""
        return self.with_permits(1, effect)

    def with_permits(self, n: int, effect: Effect[A, E, R]) -> Effect[A, E, R]:
        """Wait for `n` permits at once, run the effect, and give them back however that ends."""
        if not 1 <= n <= self._permits:
            raise ValueError(f"asked for {n} permits of {self._permits}")
        give_back = Sync(lambda: self._give_back(n))
        return Effect.uninterruptible_mask(
            lambda restore: restore(self._take(n)).flat_map(lambda _: restore(effect).ensuring(give_back))
        )

    def _take(self, n: int) -> Effect[None]:
        def take() -> AnyEffect:
            if self._waiting or self._free < n:
                return Wait(lambda waiter: self._wait(n, waiter))
            self._free -= n
            return VOID

        return Suspend(take)

    def _wait(self, n: int, waiter: Waiter) -> Callable[[], object]:
        claim = _Claim(n, waiter)
        self._waiting.append(claim)
        return lambda: self._called_off(claim)

    def _called_off(self, claim: _Claim) -> None:
        """Leave the queue, or hand on the permits that came in the same moment as the interruption."""
        if claim.granted:
            self._give_back(claim.n)
        else:
            self._waiting.remove(claim)
            self._grant()

    def _give_back(self, n: int) -> None:
        self._free += n
        self._grant()

    def _grant(self) -> None:
        """Serve those who wait, in their order, as far as the permits go."""
        while self._waiting and self._waiting[0].n <= self._free:
            claim = self._waiting.popleft()
            claim.granted = True
            self._free -= claim.n
            claim.waiter.resume(VOID)


class _Claim:
    """One place in the queue."""

    __slots__ = ("granted", "n", "waiter")

    def __init__(self, n: int, waiter: Waiter) -> None:
        self.n = n
        self.waiter = waiter
        self.granted = False
